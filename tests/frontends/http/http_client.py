"""A client of an HTTP port in memory, which sends bytes and parses the answers."""

from __future__ import annotations

import json
from typing import Any

from attrs import define
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Command, Result
from pfsb.config.config import Limits
from pfsb.frontends.http.protocol import HTTPSite
from tests.frontends.fake_server import FakeCluster, FakeServer, fake_config


@define
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Connection:
    """One connection to the HTTP port of a server; requests come one after the other."""

    def __init__(self, site: HTTPSite, clock: Clock, host: str = "127.0.0.1") -> None:
        self._clock = clock
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", host, 54_321))
        protocol: Any = site.buildProtocol(None)
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)
        self._clock.advance(0)

    def request(self, method: str, path: str, body: object = None, **headers: str) -> None:
        """Send a request. `headers` have _ for -; a body that is not bytes is sent as JSON."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if "Content_Type" not in headers:
                lines.append("Content-Type: application/json")
            lines.append(f"Content-Length: {len(data)}")
        self.send("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + data)

    def heard(self) -> bytes:
        """The bytes that have come from the server since the last call."""
        self._clock.advance(0)
        data = self.transport.value()
        self.transport.clear()
        return data

    def reply(self) -> Reply:
        head, _, body = self.heard().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Reply(int(first.split(" ")[1]), headers, body)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        self.request(method, path, body, **headers)
        return self.reply()

    def close_side(self) -> None:
        """Close the client's side of the connection, as a client does that sends nothing more but still reads."""
        self.protocol.readConnectionLost()
        self._clock.advance(0)

    def hang_up(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class HTTPCase(SynchronousTestCase):
    """The HTTP port of a server without Paxos."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster()
        self.server, self.site = self.make_site()
        self.client = Connection(self.site, self.clock)

    def make_site(self, limits: Limits | None = None, **others: Any) -> tuple[FakeServer, HTTPSite]:
        server: Any = FakeServer(fake_config(limits), self.cluster, **others)
        return server, HTTPSite(server, self.clock, lambda: b"pfsb_turns_total 1\n")

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        return self.client.ask(method, path, body, **headers)

    def content(self, method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        """Send a request, whose answer must have status 200. Returns the content of the answer."""
        reply = self.ask(method, path, body, **headers)
        self.assertEqual(reply.status, 200, reply.body)
        return reply.content

    def assertRefused(self, reply: Reply, status: int, code: str, fate: str = "none") -> None:
        self.assertEqual(reply.status, status, reply.body)
        self.assertEqual((reply.content["error"], reply.content["fate"]), (code, fate), reply.body)
        self.assertGreater(len(reply.content["text"]), 10)
        self.assertNotIn("usage:", reply.content["text"])
        self.assertIn("Pfsb-Revision", reply.headers)

    def commands(self) -> list[Command]:
        return [command for _, _, command in self.cluster.executed]

    def run_elsewhere(self, client_id: str, number: int, command: Command) -> None:
        """Run a command at another server of the cluster, in a session that is open."""
        answers: list[Result] = []
        self.cluster.run(client_id, number, command, answers.append)
