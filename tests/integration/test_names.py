"""Servers whose addresses are names, which change, are missing, or are of IPv6 (real processes)."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest
from twisted.web.client import Agent, readBody

from pfsb.demo import processes
from pfsb.demo.processes import ProcessCluster, free_ports
from tests.integration.case import ClusterCase, reactor

WITH_HOSTS = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']
"""Command that runs another one with a file of its own for /etc/hosts: its arguments are that file, and the command."""


def may_have_own_hosts(hosts: Path) -> bool:
    """Whether this user may give a process an /etc/hosts of its own."""
    try:
        tried = subprocess.run([*WITH_HOSTS, str(hosts), "cat", "/etc/hosts"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return tried.stdout == hosts.read_bytes()


class NameTests(ClusterCase):
    """All servers share a file of host names, and the test changes it while they run."""

    def cluster_with_hosts(self, **hosts: str) -> ProcessCluster:
        """A cluster, not started yet, of servers at the names db0, db1 and db2."""
        self.hosts = self.directory() / "hosts"
        self.hosts.parent.mkdir(parents=True)
        self.names: dict[str, str] = {}
        self.set_hosts(**hosts)
        if not may_have_own_hosts(self.hosts):
            raise SkipTest("no process may have an /etc/hosts of its own here")
        plain = processes.server_command
        around = [*WITH_HOSTS, str(self.hosts.absolute())]
        self.patch(processes, "server_command", lambda *arguments: [*around, *plain(*arguments)])
        ports = free_ports(6, random.Random())
        servers = {
            i: {"peer": f"db{i}:{ports[i]}", "client": f"tcp:{ports[3 + i]}:interface=127.0.0.1"} for i in range(3)
        }
        return self.make_cluster(3, servers=servers)

    def set_hosts(self, **hosts: str) -> None:
        """Give names other addresses, or no address with "". The file of host names keeps its inode, as a mount needs
        it."""
        self.names.update(hosts)
        lines = [f"{address} {name}\n" for name, address in self.names.items() if address]
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(lines), encoding="utf-8")

    async def put(self, cluster: ProcessCluster, server_id: int, value: str) -> None:
        visitor = await self.visit(cluster, server_id)
        self.assertTrue((await visitor.ask(f"PUT colour {value}")).startswith("OK"))
        await visitor.hang_up()

    async def let_all_meet(self, cluster: ProcessCluster) -> None:
        """Start all servers, which must meet once when a cluster of three begins (Departure 42), and stop them."""
        await cluster.start_all()
        await cluster.wait_equal()
        for server_id in cluster.ids:
            await cluster.kill(server_id)

    async def test_cluster_bears_missing_and_changing_names(self) -> None:
        """Two servers run without the name of the third; a server at a new address is found by those that run."""
        cluster = self.cluster_with_hosts(db0="127.0.0.11", db1="127.0.0.12", db2="127.0.0.13")
        await self.let_all_meet(cluster)
        self.set_hosts(db2="")
        for server_id in (0, 1):
            cluster.start(server_id)
        await cluster.wait_up((0, 1))
        await cluster.wait_leader()
        await self.put(cluster, 0, "red")
        self.set_hosts(db2="127.0.0.13")
        cluster.start(2)
        await cluster.wait_up()
        await cluster.wait_equal()
        for server_id, address in ((2, "127.0.0.23"), (0, "127.0.0.21"), (1, "127.0.0.22")):
            await cluster.kill(server_id)
            self.set_hosts(**{f"db{server_id}": address})
            cluster.start(server_id)
            await cluster.wait_up()
            await cluster.wait_leader()
            await self.put(cluster, (server_id + 1) % 3, f"blue-{server_id}")
            await cluster.wait_equal()

        async def found() -> bool:
            """Whether server 0 shows the new addresses. It may find a server at its new address later than another
            server does."""
            peers = (await cluster.status(0))["peers"]
            hosts = {server_id: str(peer["address"]).partition(":")[0] for server_id, peer in peers.items()}
            return hosts == {"1": "127.0.0.22", "2": "127.0.0.23"}

        await cluster.wait_for("the new addresses in STATUS of server 0", found, 30)

    async def test_server_whose_own_name_is_missing_joins_when_it_is_there(self) -> None:
        """A server whose own name has no address starts, answers STATUS, and hears the others as soon as its name has
        an address."""
        cluster = self.cluster_with_hosts(db0="127.0.0.11", db1="127.0.0.12", db2="127.0.0.13")
        await self.let_all_meet(cluster)
        self.set_hosts(db2="")
        for server_id in cluster.ids:
            cluster.start(server_id)
        await cluster.wait_up()
        await self.put(cluster, 0, "red")
        self.assertEqual((await cluster.status(2))["frames"]["in"], 0)
        self.assertIn('the host "db2" has no address', cluster.log_file(2).read_text())
        self.set_hosts(db2="127.0.0.13")
        await cluster.wait_equal()


class IPv6Tests(ClusterCase):
    def servers(self) -> dict[int, dict[str, Any]]:
        ports = free_ports(9, random.Random())
        return {
            i: {
                "peer": f"[::1]:{ports[3 * i]}",
                "client": f"tcp6:{ports[3 * i + 1]}:interface=\\:\\:1",
                "http": f"tcp:{ports[3 * i + 2]}:interface=\\:\\:1",
            }
            for i in range(3)
        }

    async def test_cluster_and_its_clients_speak_ipv6(self) -> None:
        """A cluster and its clients speak IPv6: between servers, at the client port and the HTTP port, in STATUS and
        SERVERS."""
        cluster = await self.start_cluster(3, servers=self.servers())
        visitor = await self.visit(cluster, 1)
        self.assertTrue((await visitor.ask("PUT colour blue")).startswith("OK"))
        await cluster.wait_equal()
        status = await cluster.status(0)
        host, port = cluster.config.server(1).peer
        self.assertEqual(status["peers"]["1"]["address"], f"[{host}]:{port}")
        self.assertEqual(status["frames"]["refused"], {})
        rows = (await cluster.ask(0, "SERVERS")).rows
        self.assertIn(f'address="[{host}]:{port}"', rows[1])
        http = cluster.config.server(0).http
        assert http is not None
        self.assertEqual(await self.get(int(http.split(":")[1]), "/v1/kv/colour"), {"value": "blue"})

    async def get(self, port: int, path: str) -> dict[str, Any]:
        """The key and value in the answer to a GET at ::1."""
        answer = await Agent(reactor).request(b"GET", f"http://[::1]:{port}{path}".encode())
        content: dict[str, Any] = json.loads(await readBody(answer))
        return {"value": content["value"]}
