"""Servers that come near the limit of their memory refuse changes, and live on (real processes)."""

from __future__ import annotations

from tests.integration.hostile.case import HostileCase

LIMIT_BYTES = 160 * 1024 * 1024
VALUE = "x" * 30_000


class MemoryTests(HostileCase):
    async def test_equal_limits_of_memory_kill_no_majority(self) -> None:
        """If all servers have equal limits of memory, a client that writes until it is refused everywhere kills none:
        they go on, answer, and take commands that make room."""
        cluster = await self.start_cluster(3, limits={"memory_bytes": LIMIT_BYTES})
        visitors = [await self.visit(cluster, server_id) for server_id in range(3)]
        refused: set[int] = set()
        for round_number in range(2_000):
            for server_id in {0, 1, 2} - refused:
                visitors[server_id].send(
                    b"".join(b"PUT k%d-%d-%d %s\n" % (round_number, server_id, n, VALUE.encode()) for n in range(8))
                )
            for server_id in {0, 1, 2} - refused:
                replies = [await visitors[server_id].reply() for _ in range(8)]
                if any(reply.startswith("ERR READONLY fate=none") for reply in replies):
                    refused.add(server_id)
            if len(refused) == 3:
                break
        self.assertEqual(refused, {0, 1, 2})
        for server_id in range(3):
            self.assertLess(self.memory(cluster, server_id), LIMIT_BYTES)
            self.assertTrue((await visitors[server_id].ask("GET k0-0-0")).startswith("OK"))
            self.assertTrue((await visitors[server_id].ask("DEL k0-0-1")).startswith("OK"))
