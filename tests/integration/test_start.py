"""A server that cannot run tells why, in one line, and ends (real processes). See docs/operating.rst."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.utils import getProcessOutputAndValue

from pfsb.demo.processes import ProcessCluster, server_command
from tests.integration.case import ClusterCase, reactor


class StartTests(ClusterCase):
    async def start(self, directory: Path, *arguments: str) -> str:
        """Run `twistd -n pfsb`, which must fail with one line. Returns that line."""
        command = server_command(*arguments)
        found = await getProcessOutputAndValue(
            command[0], command[1:], env=dict(os.environ), path=str(directory), reactor=reactor
        ).addTimeout(60, reactor)
        _out, err, status = found
        complaint: str = err.decode()
        self.assertNotEqual(status, 0, complaint)
        self.assertEqual(complaint.count("\n"), 1, complaint)
        self.assertTrue(complaint.startswith("pfsb: "), complaint)
        return complaint

    def changed(self, cluster: ProcessCluster, change: Any) -> str:
        """Write the cluster's configuration with one thing wrong. Returns the name of the file."""
        content = yaml.safe_load((cluster.directory / "cluster.yaml").read_text())
        change(content)
        (cluster.directory / "wrong.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return "wrong.yaml"

    async def test_wrong_configuration_is_one_line_that_names_file_and_key(self) -> None:
        """Each mistake in the configuration is refused with one line that names the file and the key."""
        cluster = self.make_cluster(3)
        for change, told in (
            (lambda c: c["servers"][2].update(peer="localhost"), 'wrong.yaml: servers.2.peer: "localhost" has no port'),
            (lambda c: c.update(f=2), "wrong.yaml: f: 2 needs at least 5 servers, 3 are given"),
            (lambda c: c.update(windwo=16), 'wrong.yaml: windwo: unknown key, did you mean "window"?'),
        ):
            self.assertIn(
                told, await self.start(cluster.directory, "--id", "0", "--config", self.changed(cluster, change))
            )

    async def test_id_that_is_given_twice_is_refused(self) -> None:
        """A server id that is given twice is refused; PyYAML would silently take the later one."""
        cluster = self.make_cluster(3)
        text = (cluster.directory / "cluster.yaml").read_text()
        (cluster.directory / "twice.yaml").write_text(text.replace("  2:\n", "  1:\n"))
        complaint = await self.start(cluster.directory, "--id", "0", "--config", "twice.yaml")
        self.assertIn("twice.yaml: servers.1: is given twice", complaint)

    async def test_id_that_is_not_in_the_configuration_is_refused(self) -> None:
        """An id that is not in the configuration is refused, and the message names those that it has."""
        cluster = self.make_cluster(3)
        complaint = await self.start(cluster.directory, "--id", "9", "--config", "cluster.yaml")
        self.assertIn("there is no server 9; known are 0, 1, 2", complaint)

    async def test_port_in_use_is_refused(self) -> None:
        """A port for peers, or for clients, that another process has is refused."""
        cluster = self.make_cluster(1)
        peer = cluster.config.server(0).peer
        client = ("127.0.0.1", int(cluster.address(0).shown.rpartition(":")[2]))
        of_peers = socket.SOCK_DGRAM if self.transport == "udp" else socket.SOCK_STREAM
        for kind, address, key in ((of_peers, peer, "peer"), (socket.SOCK_STREAM, client, "client")):
            with socket.socket(socket.AF_INET, kind) as someone:
                someone.bind(address)
                if kind is socket.SOCK_STREAM:
                    someone.listen()
                complaint = await self.start(cluster.directory, "--id", "0", "--config", "cluster.yaml")
            self.assertIn(f"servers.0.{key}: cannot listen at 127.0.0.1:{address[1]}", complaint)
        await cluster.start_all()

    async def test_data_of_another_cluster_or_id_or_damaged_is_refused(self) -> None:
        """The storage of another cluster or server, or a damaged one, is refused: a server that ran with it would break
        another server's promises."""
        cluster = self.make_cluster(2)
        await cluster.start_all()
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("PUT colour blue")).startswith("OK"))
        for server_id in cluster.ids:
            self.assertEqual(await cluster.terminate(server_id), 0)
        other = self.changed(cluster, lambda c: c.update(cluster="other", transport="udp"))
        self.assertIn('not for cluster "other"', await self.start(cluster.directory, "--id", "0", "--config", other))
        own = ("--config", "cluster.yaml", "--storage", "var/0")
        self.assertIn("made for server 0, not for server 1", await self.start(cluster.directory, "--id", "1", *own))
        segment = cluster.data(0) / "log" / "0000000001.log"
        os.truncate(segment, segment.stat().st_size // 2)
        self.assertIn(f"{segment.name}: cut off at", await self.start(cluster.directory, "--id", "0", *own))

    async def test_data_directory_in_use_is_refused(self) -> None:
        """A data directory that another process uses is refused: two processes with one storage could give two votes
        for one server."""
        cluster = await self.start_cluster(2)
        complaint = await self.start(cluster.directory, "--id", "1", "--config", "cluster.yaml", "--storage", "var/0")
        self.assertRegex(complaint, "in use")
