"""Requests that cost much more than others are served in slices, or not at all (real processes)."""

from __future__ import annotations

from tests.integration.hostile.case import GROWTH_BYTES_MAX, HostileCase
from tests.integration.http_case import port
from tests.long import longest

ATTACKERS = 40
MEGABYTE = 1_048_576


@longest
class CostlyRequestsTests(HostileCase):
    async def attack(self, data: bytes, before: bytes = b"", count: int = ATTACKERS) -> None:
        """Have `count` clients send these bytes, `before` once in front of them, and read all replies. Require that
        another client is answered in time, and that the memory of the server stays bounded."""
        cluster = await self.start_cluster(1)
        visitor = await self.visit(cluster, 0)
        for part in range(8):
            keys = " ".join(f"key{part}{n:04} value" for n in range(1_000))
            self.assertTrue((await visitor.ask(f"MPUT {keys}")).startswith("OK"))
        for _ in range(34):
            await visitor.ask(f"APPEND big {'x' * 30_000}")
        await visitor.hang_up()
        quiet = await self.quiet_p99(cluster)
        memory = self.memory(cluster, 0)
        clients = await self.connect_many(cluster, count)
        for client in clients:
            client.send(before + data)
        await self.require_in_time(cluster, quiet)
        for client in clients:
            await client.hang_up()
        self.assertLess(self.memory(cluster, 0) - memory, 2 * GROWTH_BYTES_MAX)

    async def test_large_ranges(self) -> None:
        await self.attack(b'RANGE "" "" limit=10000 read=stale\n' * 64 + b'RANGE "" "" limit=10000\n' * 64)

    async def test_values_of_a_megabyte(self) -> None:
        await self.attack(b"GET big read=stale\n" * 100)

    async def test_hashes_of_a_megabyte(self) -> None:
        await self.attack(b"PUTHASH other x\nPUTHASH big x\n" * 50)

    async def test_thousands_of_questions_about_the_server(self) -> None:
        """Thousands of questions about the server, seven bytes each, delay no other client for long."""
        await self.attack(b"STATUS\n" * 20_000)

    async def test_help_without_end(self) -> None:
        await self.attack(b"HELP\n" * 20_000)

    async def test_blank_lines(self) -> None:
        await self.attack(b"\n" * (2 * MEGABYTE))

    async def test_lists_of_all_commands_of_redis(self) -> None:
        await self.attack(b"*2\r\n$7\r\nCOMMAND\r\n$4\r\nDOCS\r\n" * 10_000)

    async def test_commands_of_redis_without_words(self) -> None:
        await self.attack(b"\r\n*0\r\n*-1\r\n" * 100_000, b"*1\r\n$4\r\nPING\r\n")

    async def test_empty_arguments_of_redis(self) -> None:
        """A command of Redis that announces a million empty arguments ends its connection long before they have
        come."""
        await self.attack(b"$0\r\n\r\n" * 1_000_000, b"*1000001\r\n$3\r\nDEL\r\n")

    async def test_negotiation_of_telnet(self) -> None:
        await self.attack(b"\xff\xfd\x01\xff\xfb\x02" * 300_000)

    async def test_client_that_goes_on_after_too_large_is_closed(self) -> None:
        cluster = await self.start_cluster(1)
        line = await self.intrude(cluster, 0)
        line.send(b"PUT k ")
        redis = await self.intrude(cluster, 0)
        redis.send(b"*2\r\n$3\r\nGET\r\n$400000000\r\n")
        http = await self.connect(f"tcp:127.0.0.1:{port(cluster, 0)}")
        http.send(b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400000000\r\n\r\n")
        for client, reason in (
            (line, "^ERR TOOLARGE fate=none "),
            (redis, "^-TOOLARGE fate=none "),
            (http, "TOOLARGE"),
        ):
            client.send(b"x" * (2 * MEGABYTE))
            self.assertRegex(await self.require_closed(client), reason)

    async def test_client_that_has_sent_too_much_once_goes_on(self) -> None:
        cluster = await self.start_cluster(1)
        client = await self.intrude(cluster, 0)
        client.send(b"PUT k " + b"x" * 100_000 + b"\nPING\n")

        async def answered() -> bool:
            return client.received.endswith(b"\nOK\n")

        await self.wait_until("the answer to PING", answered)
        self.assertIn(b"ERR TOOLARGE", client.received)
