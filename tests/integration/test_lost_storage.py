"""Data directories that lose something, while a server runs and between two starts (real processes)."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable

from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase


class LostStorageTests(ClusterCase):
    timeout = 300

    async def put(self, cluster: ProcessCluster, server_id: int, count: int) -> None:
        for number in range(count):
            reply = await cluster.ask(server_id, f"PUT key {number}", seconds=30.0)
            self.assertTrue(reply.ok, reply.line)

    async def assertStops(self, cluster: ProcessCluster, server_id: int, status: int, *parts: str) -> None:
        self.assertEqual(await cluster.ended(server_id), status)
        for part in parts:
            self.assertIn(part, cluster.last_words(server_id))

    async def test_new_cluster_of_three_begins_when_all_have_met(self) -> None:
        """A new cluster of three begins when all have met: with two, a lost disk could go unnoticed (Departure 42).
        STATUS names the server that is missing."""
        cluster = self.make_cluster(3)
        cluster.start(0)
        cluster.start(1)

        def look(server_id: int, missing: list[int]) -> Callable[[], Awaitable[bool]]:
            async def seen() -> bool:
                status = (await cluster.statuses([server_id])).get(server_id, {})
                return not status.get("admitted", True) and status["not_acquainted"] == missing

            return seen

        for server_id in (0, 1):
            await cluster.wait_for("a server that waits for server 2", look(server_id, [2]), 30)
        await cluster.pause(1)
        self.assertEqual([status["leader"] for status in (await cluster.statuses()).values()], [None, None])
        cluster.start(2)
        await cluster.wait_admitted(cluster.ids)
        await cluster.wait_leader()
        await cluster.kill(2)
        await self.put(cluster, 0, 3)
        self.assertEqual([status["not_acquainted"] for status in (await cluster.statuses()).values()], [[], []])

    async def test_server_whose_log_is_gone_does_not_start(self) -> None:
        """A server whose log is gone does not start, since it had acknowledged the records in the log."""
        cluster = await self.start_cluster(3)
        await self.put(cluster, 0, 5)
        await cluster.kill(2)
        log = cluster.data(2) / "log" / "0000000001.log"
        kept = log.rename(cluster.data(2) / "kept")
        cluster.start(2)
        await self.assertStops(cluster, 2, 1, "0000000001.log: missing")
        shutil.copy(kept, log)
        cluster.start(2)
        await cluster.wait_equal(cluster.ids)

    async def test_server_with_an_older_copy_is_refused(self) -> None:
        """A server with an older copy of its data directory is refused (Departure 43). All files of the copy are of one
        moment, so only the other servers can know, also after they were restarted."""
        cluster = await self.start_cluster(3)
        await self.put(cluster, 0, 5)
        await cluster.kill(2)
        shutil.copytree(cluster.data(2), cluster.directory / "copy")
        cluster.start(2)
        await cluster.wait_equal(cluster.ids)
        await self.put(cluster, 0, 20)
        await cluster.wait_equal(cluster.ids)
        await cluster.pause(1)
        await cluster.kill(*cluster.ids)
        shutil.rmtree(cluster.data(2))
        shutil.copytree(cluster.directory / "copy", cluster.data(2))
        for server_id in cluster.ids:
            cluster.start(server_id)
        await self.assertStops(cluster, 2, 3, "this storage was further than it is", "bring the latest data directory")
        await cluster.wait_leader()
        await self.put(cluster, 0, 3)

    async def test_segment_deleted_under_a_running_server_stops_it(self) -> None:
        """A segment that is deleted under a running server stops the server, which would go on with a file that its
        next start does not find."""
        cluster = await self.start_cluster(3)
        (cluster.data(1) / "log" / "0000000001.log").unlink()
        await self.assertStops(cluster, 1, 3, "0000000001.log: deleted while the server was running")
