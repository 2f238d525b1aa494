"""Values of clients that speak another protocol are never taken for commands (real processes)."""

from __future__ import annotations

import shutil
import time
from random import Random
from typing import Any

from twisted.internet.threads import deferToThread

from pfsb.demo.processes import ProcessCluster, free_ports
from tests.integration.case import HEAR_SECONDS
from tests.integration.hostile.case import HostileCase, RawClient
from tests.integration.http_case import port, run
from tests.integration.redis_case import client_port
from tests.integration.test_redis import NO_LIBRARY

FORM = (
    "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: keep-alive\r\nContent-Length: {length}\r\n"
    'Cache-Control: max-age=0\r\nsec-ch-ua: "Chromium";v="130", "Not?A_Brand";v="99"\r\nsec-ch-ua-mobile: ?0\r\n'
    'sec-ch-ua-platform: "Linux"\r\nOrigin: http://evil.example\r\nUpgrade-Insecure-Requests: 1\r\n'
    "Content-Type: text/plain\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
    "Referer: http://evil.example/\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: en-US,en;q=0.9\r\n\r\n"
)
"""The head of what a browser sends when a page of `http://evil.example` submits a form with `enctype=text/plain`."""
BODY = "x=1\r\nHELLO mallory ttl=3600\r\nPUT colour stolen\r\nLOCK door\r\nSAY hello\r\n"
SET = b"*3\r\n$3\r\nSET\r\n$6\r\ncolour\r\n$%d\r\n%s\r\n"
LATE_SECONDS = 0.5


def begin_late(connection: Any) -> None:
    """Called by redis-py for a new connection: sends nothing for `LATE_SECONDS`, and then what the library sends."""
    time.sleep(LATE_SECONDS)
    connection.on_connect()


class ForeignProtocolTests(HostileCase):
    async def require_unchanged(self, cluster: ProcessCluster) -> None:
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("GET colour")).startswith("ERR NOTFOUND"))
        self.assertEqual(await visitor.ask("LOCKS"), "OK count=0 held=0")
        self.assertEqual(await visitor.ask("LOG"), "OK count=0")

    async def test_form_of_a_web_page_runs_nothing(self) -> None:
        """The form of a web page runs nothing, however its bytes are cut, and whether or not the server has greeted
        already."""
        cluster = await self.start_cluster(1)
        data = (FORM.format(port=client_port(cluster, 0), length=len(BODY)) + BODY).encode()
        for cut, pause in ((len(data), 0.0), (3, 0.0), (20, LATE_SECONDS), (data.index(b"\r\n\r\n") + 4, LATE_SECONDS)):
            for late in (0.0, LATE_SECONDS):
                client = await self.intrude(cluster, 0)
                await self.pause(late)
                client.send(data[:cut])
                await self.pause(pause)
                if not client.is_gone:
                    client.send(data[cut:])
                last = await self.require_closed(client)
                self.assertTrue(last.startswith("ERR BADREQUEST fate=none ") or not client.received, client.received)
        await self.require_unchanged(cluster)

    async def test_client_of_redis_that_is_late_runs_nothing_and_is_told_why(self) -> None:
        """A client of Redis that sends after the greeting runs nothing, though its value looks like lines, and is told
        why. The same command of a client that sends in time runs."""
        cluster = await self.start_cluster(1)
        value = b"x\r\nSAY hello\r\nPUT colour stolen\r\n"
        late = await self.intrude(cluster, 0)
        await self.pause(LATE_SECONDS)
        late.send(SET % (len(value), value))
        self.assertRegex(await self.require_closed(late), "^ERR BADREQUEST fate=none .*Redis")
        await self.require_unchanged(cluster)
        for first in (b"", b"\r\n", b"\n\n"):
            client = await self.intrude(cluster, 0)
            client.send(first + SET % (len(value), value))
            await self.wait_until("the reply", lambda client=client: self.heard_all(client, b"+OK\r\n"))
        visitor = await self.visit(cluster, 0)
        self.assertIn('value="x\\r\\nSAY hello', await visitor.ask("GET colour"))
        self.assertEqual(await visitor.ask("LOG"), "OK count=0")

    async def heard_all(self, client: RawClient, wanted: bytes) -> bool:
        self.assertTrue(wanted.startswith(client.received), client.received)
        return client.received == wanted

    async def test_client_library_that_sends_late_has_an_error_and_runs_nothing(self) -> None:
        """A client library (redis-py) that is kept waiting between connecting and its first command gets an error, and
        runs nothing; in time, it works."""
        if NO_LIBRARY:
            self.skipTest(NO_LIBRARY)
        cluster = await self.start_cluster(1)

        def work() -> tuple[str, bytes | None]:
            from redis import ConnectionPool, Redis, RedisError

            place: Any = {"port": client_port(cluster, 0), "socket_timeout": HEAR_SECONDS, "lib_name": None}
            said = "nothing"
            try:
                Redis(connection_pool=ConnectionPool(redis_connect_func=begin_late, **place)).set("k", "SAY hello")
            # The parser of the library raises ValueError, or an exception of its own.
            except (RedisError, ValueError) as error:
                said = repr(error)
            with Redis(**place) as client:
                client.set("colour", "SAY hello")
                return said, client.get("colour")

        said, value = await deferToThread(work)
        self.assertNotEqual(said, "nothing")
        self.assertEqual(value, b"SAY hello")
        visitor = await self.visit(cluster, 0)
        self.assertEqual(await visitor.ask("LOG"), "OK count=0")
        self.assertTrue((await visitor.ask("GET k")).startswith("ERR NOTFOUND"))

    async def test_client_library_that_sends_late_is_served_at_a_port_for_redis(self) -> None:
        """A client library that sends late is served at a port for Redis alone, which greets no client. Bytes that are
        no command of Redis are refused there, and run nothing."""
        if NO_LIBRARY:
            self.skipTest(NO_LIBRARY)
        peer, line, redis = free_ports(3, Random())
        here = {"peer": f"127.0.0.1:{peer}", "client": f"tcp:{line}:interface=127.0.0.1"}
        servers = {0: {**here, "redis": f"tcp:{redis}:interface=127.0.0.1"}}
        cluster = await self.start_cluster(1, servers=servers)

        def work() -> bytes | None:
            from redis import ConnectionPool, Redis

            place: Any = {"port": redis, "socket_timeout": HEAR_SECONDS, "redis_connect_func": begin_late}
            client: Any = Redis(connection_pool=ConnectionPool(**place))
            client.set("k", "SAY hello")
            value: bytes | None = client.get("k")
            client.connection_pool.disconnect()
            return value

        self.assertEqual(await deferToThread(work), b"SAY hello")
        intruder = await self.connect(f"tcp:127.0.0.1:{redis}")
        intruder.send((FORM.format(port=redis, length=len(BODY)) + BODY).encode())
        self.assertTrue((await self.require_closed(intruder)).startswith("-ERR Protocol error: "))
        await self.require_unchanged(cluster)
        self.assertEqual(await cluster.terminate(0), 0)

    async def test_bytes_of_tls_and_of_ssh_run_nothing(self) -> None:
        cluster = await self.start_cluster(1)
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32))
        for first in (hello, b"\x16\x03\x01\x0a"):
            client = await self.intrude(cluster, 0)
            client.send(first + b"\n\r\nPUT colour stolen\r\n")
            await self.require_closed(client)
        await self.require_unchanged(cluster)

    async def test_page_that_is_led_to_the_http_port_by_its_name(self) -> None:
        """A page whose name leads to the address of the server is refused at the HTTP port: a real client sends the
        name in the URL as Host, as a browser does after DNS rebinding."""
        curl = shutil.which("curl")
        if curl is None:
            self.skipTest("curl is not installed")
        cluster = await self.start_cluster(1)
        place = f"evil.example:{port(cluster, 0)}"
        told = ["--resolve", f"{place}:127.0.0.1", "-sS", "-m", str(HEAR_SECONDS), "-w", "%{http_code}"]
        for more in (["-X", "PUT", "--json", '{"value": "stolen"}'], ["-X", "DELETE"], []):
            out, status = await run(curl, *told, *more, f"http://{place}/v1/kv/colour")
            self.assertEqual((status, out[-3:]), (0, "403"), out)
        out, _ = await run(curl, *told, f"http://{place}/readyz")
        self.assertEqual(out[-3:], "200", out)
        own = f"http://127.0.0.1:{port(cluster, 0)}/v1/kv/colour"
        foreign = ["-X", "PUT", "--json", '{"value": "stolen"}', "-H", "Origin: http://evil.example"]
        out, _ = await run(curl, *told, *foreign, own)
        self.assertEqual(out[-3:], "403", out)
        await self.require_unchanged(cluster)
