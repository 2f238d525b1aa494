"""Common parts of the integration tests: real server processes, and visitors that type lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

import yaml
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredQueue, maybeDeferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pfsb.client.core.replies import Reply, read_reply
from pfsb.demo.load import Acknowledged, Load
from pfsb.demo.processes import ProcessCluster
from pfsb.demo.verdict import account
from tests.long import long

reactor: Any = _reactor

HEAR_SECONDS = 30.0
"""Maximum time for one answer: long enough for a machine that is busy with other work."""


class Visitor(Protocol):
    """A connection of a person at a telnet window, or of a malicious program: sends bytes, hears lines."""

    def __init__(self) -> None:
        self._heard: DeferredQueue[str | None] = DeferredQueue()
        self._partial = b""
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._heard.put(line.decode())

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._heard.put(None)
        self.gone.callback(None)

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    async def hear(self, seconds: float = HEAR_SECONDS) -> str:
        """The next line. Fails if none comes, or the connection ends."""
        line = await self._heard.get().addTimeout(seconds, reactor)
        if line is None:
            raise ConnectionError("the server has closed the connection")
        return line

    async def reply(self, seconds: float = HEAR_SECONDS) -> str:
        """The last line of the next reply, with its number; rows and events are skipped."""
        while (line := await self.hear(seconds)).startswith(("* ", "+")):
            pass
        return line

    async def ask(self, line: str) -> str:
        """Send a line. Returns the last line of the reply."""
        self.send(line.encode() + b"\r\n")
        return await self.reply()

    def hang_up(self) -> Deferred[None]:
        """Break the connection without a farewell, as a pulled plug does."""
        transport: Any = self.transport
        transport.abortConnection()
        return self.gone


@long
class ClusterCase(TestCase):
    """A test with a cluster of processes. All processes and connections end with the test, even if it fails."""

    timeout = 150
    transport = os.environ.get("PFSB_TRANSPORT", "udp")
    """The transport of the servers. The environment variable lets the whole suite run over another transport than
    UDP."""

    def directory(self) -> Path:
        return Path(self.mktemp())

    def make_cluster(self, servers: int, /, **changes: Any) -> ProcessCluster:
        if self.transport != "udp":
            changes = {"transport": self.transport, **changes}
        cluster = ProcessCluster(reactor, self.directory(), servers, changes=changes)
        self.addCleanup(cluster.stop)
        if "tls" in cluster.config.transports or "tls:" in str(cluster.config.servers):
            self.make_certificates(cluster)
        return cluster

    def make_certificates(self, cluster: ProcessCluster, *options: str) -> None:
        """Make the certificates that the servers of a cluster need for TLS; `options` are those of the command."""
        words = [str(Path(sys.executable).with_name("pfsb")), "certificates", "cluster.yaml", *options]
        done = subprocess.run(words, cwd=cluster.directory, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise SkipTest(done.stderr) if "pfsb[tls]" in done.stderr else AssertionError(done.stderr)

    async def start_cluster(self, servers: int, /, **changes: Any) -> ProcessCluster:
        """Start a cluster, and wait until it has a leader."""
        cluster = self.make_cluster(servers, **changes)
        await cluster.start_all()
        return cluster

    async def visit(self, cluster: ProcessCluster, server_id: int) -> Visitor:
        """Connect to a server, and read its welcome."""
        visitor = Visitor()
        endpoint = clientFromString(reactor, cluster.address(server_id).endpoint)
        await endpoint.connect(Factory.forProtocol(lambda: visitor))
        self.addCleanup(visitor.hang_up)
        self.assertTrue((await visitor.hear()).startswith("* WELCOME "))
        return visitor

    def start_load(self, cluster: ProcessCluster, lines: int, clients: int = 12) -> Load:
        load = Load(reactor, cluster.directory / "acknowledged.jsonl", lines, clients)
        self.addCleanup(lambda: maybeDeferred(load.abandon))
        load.start(cluster.addresses, lambda _progress: None)
        return load

    async def finish(self, cluster: ProcessCluster, load: Load) -> list[Acknowledged]:
        """End the load. Check that all lines are acknowledged, all servers are equal, and each line is there once."""
        acknowledged = await load.finish()
        self.assertEqual((len(acknowledged), load.errors), (load.lines, {}))
        await cluster.wait_equal(cluster.ids)
        said = {line.text for line in acknowledged}
        found = account(cluster.chat_log(cluster.ids[0]), acknowledged, said)
        self.assertEqual((found.missing, found.doubled, found.foreign, found.disordered), ([], [], [], 0))
        self.assertEqual(found.lines, load.lines)
        return acknowledged

    def reconfigure(self, cluster: ProcessCluster, **changes: Any) -> None:
        """Change keys of the configuration file of a cluster (None: delete the key), for servers that start later."""
        file = cluster.directory / "cluster.yaml"
        content = yaml.safe_load(file.read_text())
        kept = {key: value for key, value in {**content, **changes}.items() if value is not None}
        file.write_text(yaml.safe_dump(kept, sort_keys=False))

    def assertRefused(self, line: str, code: str) -> Reply:
        """Send a line, whose reply must be an ERR with that code and a text for a person. Returns the reply."""
        reply = read_reply(line)
        assert reply is not None, line
        self.assertEqual(reply.code, code, line)
        self.assertEqual(reply.fate, "none", line)
        self.assertGreater(len(reply.text), 10, line)
        return reply
