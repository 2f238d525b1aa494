"""Clusters over a network that drops IP fragments and large packets (real processes, network namespaces)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase, reactor
from tests.integration.small_network import NoNamespaces, SmallNetwork

SERVERS = 4
SENDER = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(bytes({size}), ('{host}', 9))"


class SmallNetworkTests(ClusterCase):
    async def start_network(self) -> SmallNetwork:
        if not sys.platform.startswith("linux"):
            raise SkipTest("network namespaces are a part of Linux")
        network = SmallNetwork(SERVERS)
        try:
            await deferToThread(network.start)
        except NoNamespaces as error:
            raise SkipTest(f"no network namespaces here: {error}") from error
        self.addCleanup(deferToThread, network.stop)
        return network

    async def start_over(self, network: SmallNetwork, ipv6: bool = False) -> ProcessCluster:
        """Start a cluster whose servers are in the namespaces, and wait for its leader."""
        # Clients connect over Unix sockets, which namespaces do not separate, and whose paths must be short.
        directory = Path(tempfile.mkdtemp(prefix="pfsb-"))
        self.addCleanup(shutil.rmtree, directory)
        servers = {
            i: {
                "peer": f"[{network.ipv6_address(i)}]:7400" if ipv6 else f"{network.address(i)}:7400",
                "client": f"unix:{directory}/client-{i}",
            }
            for i in range(SERVERS)
        }
        prefixes = {i: ("ip", "netns", "exec", network.namespace(i)) for i in range(SERVERS)}
        changes: dict[str, Any] = {"servers": servers, "limits": {"session_window": 1_024}}
        cluster = ProcessCluster(reactor, directory, SERVERS, changes=changes, prefixes=prefixes)
        self.addCleanup(cluster.stop)
        await cluster.start_all()
        return cluster

    async def put(self, cluster: ProcessCluster, server_id: int, key: str, size: int) -> None:
        """Write a value of this size at a server, and read it at another one."""
        reply = await cluster.ask(server_id, f"PUT {key} {'x' * size}")
        self.assertTrue(reply.ok, reply)
        there = await cluster.ask((server_id + 1) % SERVERS, f"GET {key}")
        self.assertIn("x" * size, str(there))

    async def test_network_drops_fragments(self) -> None:
        """A datagram that the kernel cuts into fragments does not arrive in this network; otherwise the other tests
        would prove nothing."""
        network = await self.start_network()
        command = ("ip", "netns", "exec", network.namespace(0), sys.executable, "-c")
        code = SENDER.format(size=4_096, host=network.address(1))
        await deferToThread(subprocess.run, [*command, code], check=True, timeout=20)
        await self.wait_for_drops(network, "fragment")
        self.assertEqual(network.dropped["fragment"], 3)

    async def put_at_once(self, cluster: ProcessCluster, server_id: int, count: int, size: int) -> None:
        """Send so many commands with values of this size to a server, and wait until all have been answered."""
        visitor = await self.visit(cluster, server_id)
        visitor.send(b"".join(b"PUT key%d %s\r\n" % (i, b"x" * size) for i in range(count)))
        replies = [await visitor.reply() for _ in range(count)]
        self.assertTrue(all(" OK" in reply or reply.startswith("OK") for reply in replies), replies[:3])

    async def wait_for_drops(self, network: SmallNetwork, reason: str) -> None:
        for _ in range(100):
            if network.dropped[reason] >= 3:
                return
            await deferToThread(network.pause, 0.05)

    async def test_large_values_and_many_commands(self) -> None:
        """A value of 4 KB, one of 30 KB, and 576 commands at once are answered without an election."""
        network = await self.start_network()
        cluster = await self.start_over(network)
        view, leader = await cluster.wait_leader()
        for server_id in range(SERVERS):
            await self.put(cluster, server_id, f"page{server_id}", 4_096)
            await self.put(cluster, server_id, f"book{server_id}", 30_000)
        await self.put_at_once(cluster, (leader + 1) % SERVERS, 576, 12)
        await cluster.wait_equal()
        self.assertEqual(await cluster.wait_leader(), (view, leader))
        self.assertEqual(network.dropped["fragment"] + network.dropped["large"], 0)
        self.assertLessEqual(network.largest, 1_500)
        frames = (await cluster.status(leader))["frames"]
        self.assertGreater(frames["parts"]["out"], 0)
        self.assertEqual(set(frames["datagram_bytes"].values()), {1_472}, "the path was measured")

    async def test_small_commands_while_megabytes_travel(self) -> None:
        """While two servers get a megabyte of commands at once, small commands at a third are answered one by one."""
        network = await self.start_network()
        cluster = await self.start_over(network)
        view, leader = await cluster.wait_leader()
        large = [ensureDeferred(self.put_at_once(cluster, (leader + place) % SERVERS, 16, 32_000)) for place in (0, 1)]
        visitor = await self.visit(cluster, (leader + 2) % SERVERS)
        answered = 0
        while not all(each.called for each in large):
            self.assertTrue((await visitor.ask(f"PUT small {answered}")).startswith("OK"))
            answered += 1
        await gatherResults(large)
        self.assertGreater(answered, 3)
        self.assertEqual(await cluster.wait_leader(), (view, leader))
        self.assertEqual(network.dropped["fragment"], 0)

    async def test_one_link_is_narrower(self) -> None:
        """The path over a narrow link gets the size of datagrams that it carries: here one server's interface has an
        MTU of 1,280 bytes, and another's larger packets vanish. Paths between the other servers carry more."""
        network = await self.start_network()
        await deferToThread(network.set_mtu, 3, 1_280)
        network.narrow[2] = 1_280
        cluster = await self.start_over(network)
        view, leader = await cluster.wait_leader()
        for server_id in range(SERVERS):
            await self.put_at_once(cluster, server_id, 3, 30_000)
        await cluster.wait_equal()
        self.assertEqual(await cluster.wait_leader(), (view, leader))
        self.assertEqual(network.dropped["fragment"], 0)
        sizes = (await cluster.status(leader))["frames"]["datagram_bytes"]
        for server_id, size in sizes.items():
            is_wide = {leader, int(server_id)} <= {0, 1}
            self.assertEqual(size > 1_252, is_wide, sizes)

    async def test_path_that_becomes_narrower(self) -> None:
        """If larger packets begin to vanish in a cluster that has used them, commands go on, and no view changes."""
        network = await self.start_network()
        cluster = await self.start_over(network)
        view, leader = await cluster.wait_leader()
        await self.put(cluster, leader, "before", 30_000)
        network.packet_bytes = 1_300
        for number in range(5):
            await self.put(cluster, (leader + number) % SERVERS, f"after{number}", 30_000)
        self.assertEqual(await cluster.wait_leader(), (view, leader))
        self.assertGreater(network.dropped["large"], 0)
        self.assertEqual(network.dropped["fragment"], 0)

    async def test_servers_with_ipv6_addresses(self) -> None:
        """Large values are written over IPv6, whose sockets have other options than those of IPv4."""
        network = await self.start_network()
        cluster = await self.start_over(network, ipv6=True)
        view, leader = await cluster.wait_leader()
        for server_id in range(SERVERS):
            await self.put(cluster, server_id, f"book{server_id}", 30_000)
        await self.put_at_once(cluster, (leader + 1) % SERVERS, 576, 12)
        self.assertEqual(await cluster.wait_leader(), (view, leader))
        self.assertEqual(network.dropped["fragment"] + network.dropped["large"], 0)
        sizes = set((await cluster.status(leader))["frames"]["datagram_bytes"].values())
        self.assertEqual(sizes, {1_452}, "the path was measured")
