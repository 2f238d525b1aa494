"""Clients of HTTP that do what the standard allows, or forbids, and no usual client does (real processes)."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from twisted.internet.threads import deferToThread

from pfsb.client import AsyncClerk
from pfsb.demo.processes import ProcessCluster
from tests.integration.case import HEAR_SECONDS
from tests.integration.hostile.case import FREE_SECONDS, GROWTH_BYTES_MAX, HostileCase, time_limit
from tests.integration.http_case import port

RAW = "application/octet-stream"
HEAD = "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"
BYTES = bytes(range(256))


def talk(place: int, data: bytes, closes_side: bool = False) -> bytes:
    """Send bytes to a port, by the system's own sockets. Returns all that comes until the server ends the
    connection."""
    with socket.create_connection(("127.0.0.1", place), timeout=HEAR_SECONDS) as client:
        client.sendall(data)
        if closes_side:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while data := client.recv(65_536):
            received += data
        return received


def request(method: str, path: str, more: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return HEAD.format(method=method, path=path, more=more + length).encode() + body


class HTTPTests(HostileCase):
    async def talk(self, cluster: ProcessCluster, data: bytes, server_id: int = 0, closes_side: bool = True) -> bytes:
        found: bytes = await deferToThread(talk, port(cluster, server_id), data, closes_side)
        return found

    async def test_client_that_closes_its_side_gets_every_answer(self) -> None:
        """A client that closes its sending side gets every answer: commands that have to be ordered, more requests than
        Twisted reads ahead, and an answer of megabytes."""
        cluster = await self.start_cluster(3)
        put = request("PUT", "/v1/kv/a", f"Content-Type: {RAW}\r\n", b"x" * 30_000)
        said = await self.talk(cluster, put)
        self.assertTrue(said.startswith(b"HTTP/1.1 200 OK"), said)
        said = await self.talk(cluster, put + request("GET", "/v1/kv/a"))
        self.assertEqual(said.count(b"HTTP/1.1 200 OK"), 2)
        said = await self.talk(cluster, request("GET", "/v1/status") * 1_000)
        self.assertEqual(said.count(b"HTTP/1.1 200 OK"), 1_000)
        for number in range(100):
            await self.talk(cluster, put.replace(b"/v1/kv/a", b"/v1/kv/a%d" % number))
        said = await self.talk(cluster, request("GET", "/v1/kv"))
        self.assertEqual(json.loads(said.partition(b"\r\n\r\n")[2])["count"], 101)
        self.assertEqual(await self.talk(cluster, b"GET /v1/stat"), b"")
        self.assertEqual(await self.talk(cluster, b""), b"")

    async def test_client_that_dies_while_it_waits_for_a_lock(self) -> None:
        """The session of a client that dies while it waits for a lock ends, although the kernel closes its side as it
        does for a client that still reads."""
        cluster = await self.start_cluster(1)
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("LOCK busy")).startswith("OK"))
        client = await self.wait_by_http(cluster, "dead")
        await self.pause(0.5)
        transport: Any = client.transport
        transport.loseConnection()  # sends a FIN and no reset, as for a process that is killed

        async def free() -> bool:
            return "held=1" in await visitor.ask("LOCKS")

        await self.wait_until("the dead client's lock to be free", free, FREE_SECONDS)

    async def test_requests_that_no_server_may_take(self) -> None:
        """Each request that no server may take is refused with its status, and changes nothing."""
        cluster = await self.start_cluster(1)
        body = b'{"value":"stolen"}'
        json_type = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        for first, more, status in (
            ("PUT /v1/kv/a HTTP/1.1", "", 400),
            ("PUT /v1/kv/a HTTP/1.1", "Host: localhost\r\nHost: localhost\r\n", 400),
            ("PUT /v1/kv/a HTTP/1.1", "Host: local host\r\n", 400),
            ("PUT /v1/kv/a HTTP/1.1", "Host: evil.example\r\n", 403),
            ("PUT http://evil.example/v1/kv/a HTTP/1.1", "Host: localhost\r\n", 403),
            ("PUT v1/kv/a HTTP/1.1", "Host: localhost\r\n", 400),
            ("PUT /v1/kv/%zz HTTP/1.1", "Host: localhost\r\n", 400),
            ("PUT /v1/kv/a HTTP/1.1", "Host: localhost\r\nContent-Encoding: gzip\r\n", 415),
            ("PUT /v1/kv/a HTTP/1.1", 'Host: localhost\r\nIf-Match: "7"\r\n', 412),
            ("PUT /v1/kv/a HTTP/1.1", "Host: localhost\r\nIf-Match: 7\r\n", 400),
            ("POST /v1/kv HTTP/1.1", "Host: localhost\r\nIf-None-Match: *\r\n", 400),
        ):
            said = await self.talk(cluster, f"{first}\r\n{more}{json_type}\r\n".encode() + body)
            self.assertTrue(said.startswith(b"HTTP/1.1 %d " % status), (first, more, said))
            answer = json.loads(said.partition(b"\r\n\r\n")[2])
            self.assertEqual((answer["fate"], len(answer["text"]) > 10), ("none", True))
        visitor = await self.visit(cluster, 0)
        self.assertEqual(await visitor.ask("KEYS"), "OK count=0")

    async def test_clients_that_announce_large_bodies(self) -> None:
        """Clients that announce large bodies and wait for `100 Continue` get a refusal; nothing is kept for them, and
        others are served."""
        cluster = await self.start_cluster(1)
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("PUT a 1")).startswith("OK"))
        quiet = await self.quiet_p99(cluster, ("GET a",))
        before = self.memory(cluster, 0)
        more = f"Content-Type: {RAW}\r\nExpect: 100-continue\r\nContent-Length: {10**12}\r\n"
        clients = [await self.connect(f"tcp:127.0.0.1:{port(cluster, 0)}") for _ in range(200)]
        for client in clients:
            client.send(request("PUT", "/v1/kv/a", more) + b"x" * 10_000)
        found = await self.latencies(visitor, "GET a", 100)
        for client in clients:
            await self.require_closed(client)
            self.assertTrue(client.received.startswith(b"HTTP/1.1 413 "), client.received)
            self.assertNotIn(b"100 Continue", client.received)
        self.assertLess(found[98], time_limit(quiet))
        self.assertLess(self.memory(cluster, 0) - before, GROWTH_BYTES_MAX)
        go_on = f"Content-Type: {RAW}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"
        said = await self.talk(cluster, request("PUT", "/v1/kv/a", go_on) + b"hello")
        self.assertTrue(said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), said)

    async def test_bytes_go_through_every_door(self) -> None:
        """A value that came through one door of one server is shown at the other doors of other servers, to the
        byte."""
        cluster = await self.start_cluster(3)
        said = await self.talk(cluster, request("PUT", "/v1/kv/k%00%FF", f"Content-Type: {RAW}\r\n", BYTES), 0)
        self.assertTrue(said.startswith(b"HTTP/1.1 200 OK"), said)
        visitor = await self.visit(cluster, 1)
        shown = await visitor.ask(r'GET "k\u0000\udcff"')
        literal = shown.removeprefix("OK value=").rpartition(" ")[0]
        self.assertEqual(json.loads(literal).encode(errors="surrogateescape"), BYTES)
        self.assertTrue((await visitor.ask(f"PUT line {literal}")).startswith("OK"))
        addresses = [cluster.address(server_id) for server_id in cluster.ids]

        async def program() -> tuple[bytes | None, bytes | None, int]:
            async with AsyncClerk(addresses) as clerk:
                found = await clerk.get_bytes(b"k\0\xff"), await clerk.get_bytes("line")
                return (*found, await clerk.put("clerk", BYTES))

        of_clerk = await deferToThread(asyncio.run, program())
        self.assertEqual(of_clerk[:2], (BYTES, BYTES))
        redis = await self.intrude(cluster, 2)
        redis.send(b"*2\r\n$3\r\nGET\r\n$5\r\nclerk\r\n")
        await self.wait_until("the reply", lambda: self.heard(redis, b"$256\r\n" + BYTES + b"\r\n"))
        for key in ("line", "clerk"):
            said = await self.talk(cluster, request("GET", f"/v1/kv/{key}", f"Accept: {RAW}\r\n"), 2)
            self.assertEqual(said.partition(b"\r\n\r\n")[2], BYTES)

    async def test_two_clients_that_change_what_they_have_read(self) -> None:
        """If two clients, at two servers, change what they have read with If-Match, no change of either is lost."""
        cluster = await self.start_cluster(3)
        json_type = "Content-Type: application/json\r\n"
        await self.talk(cluster, request("PUT", "/v1/kv/n", json_type, b'{"value":"0"}'))

        def count(place: int, rounds: int) -> None:
            while rounds:
                read = talk(place, request("GET", "/v1/kv/n"), True).partition(b"\r\n\r\n")
                value = json.loads(read[2])["value"]
                (tag,) = [line[6:] for line in read[0].decode().split("\r\n") if line.startswith("ETag: ")]
                body = json.dumps({"value": str(int(value) + 1)}).encode()
                said = talk(place, request("PUT", "/v1/kv/n", f"{json_type}If-Match: {tag}\r\n", body), True)
                status = int(said.split(b" ")[1])
                assert status in (200, 412), said
                rounds -= status == 200

        both = [deferToThread(count, port(cluster, server_id), 20) for server_id in (0, 1)]
        for each in both:
            await each
        visitor = await self.visit(cluster, 2)
        self.assertIn('value="40"', await visitor.ask("GET n"))
