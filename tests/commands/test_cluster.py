"""`pfsb cluster`: children are started, watched and stopped."""

from __future__ import annotations

import io
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pfsb.client.core.addresses import ServerAddress
from pfsb.commands import cluster as cluster_command
from pfsb.commands.cluster import POLL_SECONDS, Cluster

reactor: Any = _reactor

SLEEPER = "import time; print('ready', flush=True); time.sleep(60)"
SERVER = """
import socket, sys
door = socket.create_server(("127.0.0.1", 0))
print(door.getsockname()[1], flush=True)
while True:
    client, _ = door.accept()
    client.recv(100)
    client.sendall(b'+{"leader": 0, "uptime": UPTIME}\\nOK\\n')
"""


class ClusterTests(TestCase):
    timeout = 20

    def cluster(self, *sources: str, addresses: tuple[ServerAddress, ...] = ()) -> tuple[Cluster, Deferred[bool]]:
        self.out = io.StringIO()
        commands = {server_id: [sys.executable, "-c", source] for server_id, source in enumerate(sources)}
        nowhere = ServerAddress(0, "tcp:127.0.0.1:1:timeout=1", "127.0.0.1:1")
        cluster = Cluster(reactor, commands, addresses or [nowhere], self.out)
        ended = cluster.run()
        self.addCleanup(cluster.stop)
        return cluster, ended

    async def until_said(self, text: str, times: int = 1) -> None:
        while self.out.getvalue().count(text) < times:
            await deferLater(reactor, 0.01)

    async def test_output_carries_the_servers_number(self) -> None:
        self.cluster(SLEEPER, SLEEPER)
        await self.until_said("ready\n", 2)
        begun, *said = self.out.getvalue().splitlines()
        self.assertEqual(begun, "pfsb cluster: starts 2 servers")
        self.assertEqual(sorted(said), ["[0] ready", "[1] ready"])

    async def test_stop_ends_all_and_waits_for_them(self) -> None:
        cluster, ended = self.cluster(SLEEPER, SLEEPER)
        await self.until_said("ready\n", 2)
        await cluster.stop()
        self.assertIs(await ended, True)
        self.assertNotIn("are left", self.out.getvalue())

    async def test_death_of_one_is_told_and_the_others_go_on(self) -> None:
        _, ended = self.cluster(SLEEPER, "raise SystemExit(3)")
        await self.until_said("server 1 has died (exit status 3); 1 of 2 are left")
        self.assertFalse(ended.called)

    async def test_death_of_all_ends_it_without_success(self) -> None:
        _, ended = self.cluster("pass", "print('no line end', end='')")
        self.assertIs(await ended, False)
        self.assertIn("[1] no line end\n", self.out.getvalue())

    async def test_people_are_told_what_to_type_once_all_answer(self) -> None:
        self.patch(cluster_command, "which", lambda program: f"/usr/bin/{program}")
        port = await self.started_server("0.001")
        await self.until_said(f"telnet 127.0.0.1 {port}; there: SAY hello")

    async def test_people_without_telnet_are_told_what_else_to_type(self) -> None:
        self.patch(cluster_command, "which", lambda program: None)
        await self.started_server("0.001")
        await self.until_said("In another terminal: pfsb client; there: SAY hello")

    async def test_servers_that_ran_before_are_not_announced(self) -> None:
        """Servers of a cluster that was not stopped, whose ports answer while the new servers cannot start, are not
        announced as new ones."""
        await self.started_server("1000")
        await deferLater(reactor, 4 * POLL_SECONDS)
        self.assertNotIn("In another terminal", self.out.getvalue())

    async def started_server(self, uptime: str) -> str:
        """Start a cluster of one server, which says that it has this uptime. Returns its port."""
        cluster, _ = self.cluster(SERVER.replace("UPTIME", uptime))
        await self.until_said("[0] ")
        port = self.out.getvalue().splitlines()[1].split()[1]
        cluster.addresses = [ServerAddress(0, f"tcp:127.0.0.1:{port}:timeout=1", f"127.0.0.1:{port}")]
        return port
