"""Clients that do not read what they have asked for cost a bounded sum, and no other client waits (real processes)."""

from __future__ import annotations

from pfsb.demo.processes import ProcessCluster
from pfsb.frontends.stream.unread import LOOK_SECONDS
from tests.integration.hostile.case import GROWTH_BYTES_MAX, HEAR_SECONDS, HostileCase
from tests.integration.http_case import port
from tests.long import longest

MANY = 2_000
LINE = "x" * 30_000
LINES = 2_000
"""Number of lines in the chat: with `LINE` they have 60 megabytes."""
IDLE_BYTES_MAX = 40_000
"""Maximum number of bytes of memory for a connection that does nothing."""
UNREAD_BYTES = 16 * 1024 * 1024
UNREAD_SECONDS = 4.0
RESP_GET = b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n"
RESP_KEYS = b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n"


@longest
class UnreadTests(HostileCase):
    """Each kind of client first shows what it costs when it only connects; its requests may add a bounded sum."""

    async def start_full(self, **limits: float) -> ProcessCluster:
        """Start a server with a long chat, a value of half a megabyte and some thousand keys."""
        cluster = await self.start_cluster(1, limits={"unread_bytes": UNREAD_BYTES, **limits})
        visitor = await self.visit(cluster, 0)
        for _ in range(LINES // 20):
            visitor.send(f"SAY {LINE}\n".encode() * 20)
            for _ in range(20):
                await visitor.reply()
        for _ in range(16):
            await visitor.ask(f"APPEND big {LINE}")
        keys = " ".join(f"key{n:05} value" for n in range(500))
        for part in range(6):
            self.assertTrue((await visitor.ask("MPUT " + keys.replace("key", f"key{part}"))).startswith("OK"))
        await visitor.hang_up()
        return cluster

    async def attack(self, cluster: ProcessCluster, request: bytes, count: int, endpoint: str | None = None) -> None:
        """Have `count` clients send a request and never read. Require that memory, and the waits of another client,
        stay bounded."""
        quiet = await self.quiet_p99(cluster)
        before = self.memory(cluster, 0)
        for client in await self.connect_many(cluster, count, endpoint):
            client.stop_reading()
            client.send(request)
        await self.require_in_time(cluster, quiet, asks=200)
        await self.pause(1.0)
        growth = self.memory(cluster, 0) - before
        self.assertLess(growth, UNREAD_BYTES + GROWTH_BYTES_MAX + count * IDLE_BYTES_MAX)

    async def test_chat_from_its_beginning(self) -> None:
        """Two thousand clients, each of which asks by forty bytes for sixty megabytes of chat and never reads, cost a
        bounded sum."""
        await self.attack(await self.start_full(), b"LISTEN from=1\n", MANY)

    async def test_events_over_http_from_the_beginning(self) -> None:
        cluster = await self.start_full()
        request = b"GET /v1/events?from=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await self.attack(cluster, request, 500, f"tcp:127.0.0.1:{port(cluster, 0)}")

    async def test_pipelined_values_and_ranges(self) -> None:
        cluster = await self.start_full()
        await self.attack(cluster, b"GET big\n" * 100 + b'RANGE "" "" limit=10000\n' * 28, 300)

    async def test_pipelined_answers_over_http(self) -> None:
        cluster = await self.start_full()
        request = b"GET /v1/kv?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        request += b"GET /v1/kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        await self.attack(cluster, request, 300, f"tcp:127.0.0.1:{port(cluster, 0)}")

    async def test_pipelined_commands_of_redis(self) -> None:
        await self.attack(await self.start_full(), RESP_GET * 100 + RESP_KEYS * 28, 300)

    async def test_small_appends_to_a_large_value(self) -> None:
        """Clients that make small APPENDs to a large value, whose answers show the whole value, another one each time,
        and never read, cost a bounded sum."""
        await self.attack(await self.start_full(), b"APPEND big x\n" * 128, 100)

    async def test_reader_that_has_stopped_is_dropped_with_a_reason(self) -> None:
        """A client that has stopped reading is dropped with a reason. One that reads slowly is not dropped, and reads
        all of it in the end."""
        cluster = await self.start_full(unread_seconds=UNREAD_SECONDS)
        stopped, slow = await self.intrude(cluster, 0), await self.intrude(cluster, 0)
        heard: list[int] = []
        slow.dataReceived = lambda data: heard.append(data.count(b"* CHAT "))  # type: ignore[method-assign]
        for client in (stopped, slow):
            client.send(b"LISTEN from=1\n")
        stopped.stop_reading()
        end = UNREAD_SECONDS + 2 * LOOK_SECONDS + 3.0
        for _ in range(int(end / 0.5)):
            slow.stop_reading()
            await self.pause(0.4)
            slow.go_on_reading()
            await self.pause(0.1)
        stopped.go_on_reading()
        self.assertRegex(await self.require_closed(stopped), "^[*] DROPPED text=.*unread_seconds")
        self.assertIn("unread_seconds", cluster.log_file(0).read_text())

        async def all_read() -> bool:
            return sum(heard) >= LINES - 100  # some lines may be cut in two

        await self.wait_until("the whole chat", all_read, 2 * HEAR_SECONDS)
        self.assertFalse(slow.is_gone)
