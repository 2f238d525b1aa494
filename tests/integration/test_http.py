"""Real servers over HTTP, with curl: the examples of docs/http.rst, and commands that survive a crash."""

from __future__ import annotations

import re
import shlex
import socket

from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from pfsb.demo.processes import ProcessCluster
from tests.docs.docs_script import DOCS
from tests.integration.case import Visitor, reactor
from tests.integration.http_case import HTTPClusterCase, port, run, url

_NUMBERS = re.compile(r'"(revision|token|index)":\d+')
"""Numbers that are not compared, since sessions that end during the test raise revisions."""


def examples() -> list[tuple[str, str]]:
    """Pairs (command, output) of every `$` line in docs/http.rst."""
    lines = (DOCS / "http.rst").read_text(encoding="utf-8").splitlines()
    return [
        (line.removeprefix("    $ "), lines[number + 1].strip())
        for number, line in enumerate(lines)
        if line.startswith("    $ ")
    ]


class DocumentationTests(HTTPClusterCase):
    async def test_every_example_shows_what_the_page_says(self) -> None:
        """The output of every example in docs/http.rst is equal word for word, but for addresses and revisions."""
        cluster = await self.start_cluster(4)
        shown = examples()
        self.assertGreater(len(shown), 12)
        for command, expected in shown:
            for server_id in cluster.ids:
                command = command.replace(f":{8400 + server_id}/", f":{port(cluster, server_id)}/")
            out, status = await run(*shlex.split(command))
            self.assertEqual((_NUMBERS.sub(r"\1", out.strip()), status), (_NUMBERS.sub(r"\1", expected), 0), command)


class PortTests(HTTPClusterCase):
    async def listen(self, cluster: ProcessCluster, server_id: int, path: str, header: str = "Accept: */*") -> Visitor:
        """Open a stream of events, whose lines can be heard."""
        stream = Visitor()
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port(cluster, server_id)}")
        await endpoint.connect(Factory.forProtocol(lambda: stream))
        self.addCleanup(stream.hang_up)
        # HTTP/1.0, so that the answer does not come in chunks.
        stream.send(f"GET {path} HTTP/1.0\r\n{header}\r\n\r\n".encode())
        return stream

    async def hear_lines(self, stream: Visitor, count: int) -> list[str]:
        """The data of this number of chat events, as they come."""
        found = []
        while len(found) < count:
            line = await stream.hear()
            if line.startswith("data: "):
                found.append(line.removeprefix("data: "))
        return found

    async def test_number_repeated_after_its_server_was_killed(self) -> None:
        """After kill -9 of its server, a repeated command number gets the same answer at another server, and the
        command has run once."""
        cluster = await self.start_cluster(3)
        _, leader = await cluster.wait_leader()
        other = next(i for i in cluster.ids if i != leader)
        headers = {"Pfsb_Client": "alice", "Pfsb_Number": "1"}
        first = await self.curl(cluster, leader, "PATCH", "/v1/kv/n", {"op": "incr"}, **headers)
        await cluster.kill(leader)
        await cluster.wait_leader(server_ids=[i for i in cluster.ids if i != leader])
        again = await self.curl(cluster, other, "PATCH", "/v1/kv/n", {"op": "incr"}, **headers)
        self.assertEqual((first.status, again.status), (200, 200))
        self.assertEqual(again.content, first.content)
        self.assertEqual(again.headers["pfsb-session"], "resumed")
        value = await self.curl(cluster, other, "GET", "/v1/kv/n")
        self.assertEqual(value.content["value"], "1")

    async def test_without_a_majority(self) -> None:
        """Without a majority a server is not ready; it refuses a write with its fate, and answers a stale read."""
        cluster = await self.start_cluster(3, limits={"request_seconds": 2})
        self.assertEqual((await self.curl(cluster, 0, "PUT", "/v1/kv/a", {"value": "1"})).status, 200)
        await cluster.kill(1, 2)

        async def unready() -> bool:
            return (await self.curl(cluster, 0, "GET", "/readyz")).status == 503

        await cluster.wait_for("server 0 to notice", unready, 30)
        self.assertEqual((await self.curl(cluster, 0, "GET", "/healthz")).status, 200)
        refused = await self.curl(cluster, 0, "PUT", "/v1/kv/a", {"value": "2"})
        self.assertEqual((refused.status, refused.content["error"]), (503, "UNAVAILABLE"))
        self.assertIn(refused.content["fate"], ("none", "unknown"))
        stale = await self.curl(cluster, 0, "GET", "/v1/kv/a?read=stale")
        self.assertEqual(stale.content["value"], "1")

    async def test_events_go_on_at_another_server(self) -> None:
        """Last-Event-ID of one server means the same line at another: no line is missing or told twice."""
        cluster = await self.start_cluster(3)
        for text in ("one", "two"):
            await self.curl(cluster, 0, "POST", "/v1/chat", {"text": text}, Pfsb_Client="alice")
        before = await self.listen(cluster, 1, "/v1/events?from=1")
        told = await self.hear_lines(before, 2)
        await cluster.kill(1)
        await cluster.wait_leader(server_ids=[0, 2])
        await self.curl(cluster, 0, "POST", "/v1/chat", {"text": "three"}, Pfsb_Client="alice")
        after = await self.listen(cluster, 2, "/v1/events?from=1", "Last-Event-ID: 2")
        told += await self.hear_lines(after, 1)
        expected = [
            f'{{"index":{i},"client":"alice","text":"{text}"}}' for i, text in enumerate(("one", "two", "three"), 1)
        ]
        self.assertEqual(told, expected)

    async def test_metrics_of_a_real_server(self) -> None:
        """The metrics of a real server count disk writes and messages."""
        cluster = await self.start_cluster(3)
        await self.curl(cluster, 0, "PUT", "/v1/kv/a", {"value": "1"})
        figures: dict[str, str] = {}
        late = 'pfsb_messages_out_total{type="Accept"}'
        # The lag of the reactor is measured only now and then, and votes may wait for other messages to the same
        # server.
        for _ in range(40):
            text, _ = await run("curl", "-sS", f"{url(cluster, 0)}/metrics")
            figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            if float(figures["pfsb_reactor_lag_seconds_count"]) and late in figures:
                break
            await deferLater(reactor, 0.25)
        for name in (
            "pfsb_disk_write_seconds_count",
            "pfsb_reactor_lag_seconds_count",
            'pfsb_messages_in_total{type="Alive"}',
            late,
            'pfsb_client_commands_total{result="OK",verb="PUT"}',
            'pfsb_client_command_seconds_count{outcome="OK",verb="PUT"}',
            "process_resident_memory_bytes",
        ):
            self.assertGreater(float(figures[name]), 0, name)

    async def test_server_stops_with_clients_that_listen(self) -> None:
        """SIGTERM ends streams and connections of clients that listen, and the exit status of the server is 0."""
        cluster = await self.start_cluster(1)
        stream = await self.listen(cluster, 0, "/v1/events?client=alice")
        await stream.hear()
        self.assertEqual(await cluster.terminate(0), 0)

    async def test_port_in_use_is_refused(self) -> None:
        """If a port is in use, one line names its place in the configuration, before the process leaves the
        terminal."""
        cluster = self.make_cluster(1)
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port(cluster, 0)))
            taken.listen()
            cluster.start(0)
            self.assertEqual(await cluster.ended(0), 1)
        self.assertIn("servers.0.http: cannot listen at", cluster.last_words(0))
