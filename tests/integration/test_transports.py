"""TCP and TLS between servers, and the change from one transport to another (real processes)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from pfsb.client.clerks.twisted import TwistedClerk
from pfsb.demo.processes import ProcessCluster
from pfsb.demo.verdict import outage
from tests.integration.case import ClusterCase, reactor
from tests.long import long

HURRIED_SECONDS = 0.9
"""Longest time without an answer after the leader was killed that shows that its peers knew it at once: without a hint
they wait for the Progress_Timer of one second first. An idle machine takes less than 0.25 s."""

WHOLE = "PFSB_TRANSPORT" in os.environ
"""Whether the whole suite runs over a transport that the environment names: then also those tests run that it otherwise
has no time for."""
CLIENTS = 6
"""Number of clients that count while a cluster changes its transport."""


class TransportCase(ClusterCase):
    async def all_via(self, cluster: ProcessCluster, transport: str) -> None:
        async def look() -> bool:
            statuses = await cluster.statuses(cluster.ids)
            via = {peer["via"] for status in statuses.values() for peer in status["peers"].values()}
            return len(statuses) == len(cluster.ids) and via == {transport}

        await cluster.wait_for(f"all servers to be reached over {transport}", look, 30)


class StreamTests(TransportCase):
    """Over connections, servers do the same as over datagrams."""

    transport = "tcp"

    async def test_killed_leader_is_known_at_once(self) -> None:
        """The death of a leader is known at once: its connections end with its process, and new ones are refused
        (Departure 11)."""
        cluster = await self.start_cluster(4)
        _view, leader = await cluster.wait_leader()
        await self.all_via(cluster, self.transport)
        load = self.start_load(cluster, 3000)
        await load.until(1000)
        killed = reactor.seconds()
        await cluster.kill(leader)
        cluster.start(leader)
        acknowledged = await self.finish(cluster, load)
        waited = outage(acknowledged, killed)
        assert waited is not None
        self.assertLess(waited, HURRIED_SECONDS)

    async def test_loss_and_cuts_are_borne(self) -> None:
        """FAULT loses frames on connections as on datagrams, and a cut ends no connection."""
        cluster = await self.start_cluster(4, faults=True)
        load = self.start_load(cluster, 1200)
        await load.until(100)
        for server_id in cluster.ids:
            self.assertTrue((await cluster.ask(server_id, "FAULT LOSS 0.16")).ok)
        await cluster.pause(2)
        self.assertTrue((await cluster.ask(3, "FAULT CUT 0 1 2")).ok)
        await cluster.pause(2)
        for server_id in cluster.ids:
            self.assertTrue((await cluster.ask(server_id, "FAULT HEAL")).ok)
        await self.finish(cluster, load)
        connections = [(await cluster.status(i))["frames"]["connections"] for i in cluster.ids]
        self.assertEqual([each["turned_away"] for each in connections], [{}] * 4)

    async def test_frozen_peer_holds_up_no_other(self) -> None:
        """A server whose process stands still takes bytes until its buffers are full, and the others go on without
        delay."""
        cluster = await self.start_cluster(4)
        _view, leader = await cluster.wait_leader()
        frozen = next(i for i in cluster.ids if i != leader)
        load = self.start_load(cluster, 4000)
        await load.until(200)
        cluster.freeze(frozen)
        await load.until(2500)
        await cluster.pause(3)
        cluster.thaw(frozen)
        await self.finish(cluster, load)


class TLSTests(StreamTests):
    transport = "tls"

    @skipUnless(WHOLE, "PFSB_TRANSPORT is not set")
    async def test_loss_and_cuts_are_borne(self) -> None:
        """Over TLS as over TCP, FAULT loses frames, and a cut ends no connection."""
        await super().test_loss_and_cuts_are_borne()

    @skipUnless(WHOLE, "PFSB_TRANSPORT is not set")
    async def test_frozen_peer_holds_up_no_other(self) -> None:
        """Over TLS as over TCP, a server whose process stands still does not hold up the others."""
        await super().test_frozen_peer_holds_up_no_other()

    async def test_certificates_are_renewed_while_the_cluster_runs(self) -> None:
        """Certificates, and their authority, are renewed while the cluster runs: new connections use the new ones, and
        only one server is started again."""
        cluster = await self.start_cluster(3)
        load = self.start_load(cluster, 1500)
        await load.until(200)
        for words in (("--new-authority",), ("--renew",)):
            await deferToThread(self.make_certificates, cluster, *words)
        await cluster.kill(2)
        cluster.start(2)
        await cluster.wait_up([2])
        await self.finish(cluster, load)
        await self.all_via(cluster, "tls")
        for server_id in (0, 1):
            self.assertIn("new certificates were read", cluster.log_file(server_id).read_text())

    async def test_clients_speak_tls(self) -> None:
        """Clients speak TLS by lines, over HTTP and through a clerk, with the authority that the configuration
        names."""
        plain = self.make_cluster(1).config.server(0)
        client, http = (each.replace("tcp:", "tls:") for each in plain.endpoints.values())
        servers = {0: {"peer": f"{plain.peer[0]}:{plain.peer[1]}", "client": client, "http": http}}
        cluster = await self.start_cluster(1, servers=servers, certificates=str(Path(self.mktemp()).absolute()))
        words = [str(Path(sys.executable).with_name("pfsb")), "client", "cluster.yaml", "PUT", "colour", "blue"]
        done = await deferToThread(
            subprocess.run, words, cwd=cluster.directory, capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        authority = cluster.config.certificate_directory / "authority.pem"
        clerk = TwistedClerk(reactor, [cluster.address(0).shown], authority=str(authority))
        self.assertEqual(await clerk.get("colour"), "blue")
        await clerk.close()
        port = http.split(":")[1]
        look = (
            "import json, ssl, sys, urllib.request as r; context = ssl.create_default_context(cafile=sys.argv[1]); "
            "print(r.urlopen(sys.argv[2], context=context).read().decode())"
        )
        words = [sys.executable, "-c", look, str(authority), f"https://127.0.0.1:{port}/v1/kv/colour"]
        done = await deferToThread(subprocess.run, words, capture_output=True, text=True, timeout=60)
        self.assertEqual(json.loads(done.stdout)["value"], "blue")


@long
class ChangeTests(TransportCase):
    """A cluster changes its transport by restarts of one server after the other, under load."""

    transport = "udp"
    timeout = 240

    async def restart_each(self, cluster: ProcessCluster, **changes: Any) -> None:
        self.reconfigure(cluster, **changes)
        for server_id in cluster.ids:
            await cluster.terminate(server_id)
            cluster.start(server_id)
            await cluster.wait_up([server_id])
            await cluster.wait_leader()
            behind = (await cluster.status((server_id + 1) % len(cluster.ids)))["aru"]
            await cluster.digest(server_id, behind)  # the server has caught up, so the next one may be stopped

    async def change(self, cluster: ProcessCluster, before: str, after: str) -> None:
        """Change a cluster from one transport to another in two rounds of restarts: after the first one, servers listen
        for both."""
        await self.restart_each(cluster, transport=after, transport_before=before)
        if after != "udp":  # connections are used as long as there are any
            await self.all_via(cluster, after)
        await self.restart_each(cluster, transport_before=None)
        await self.all_via(cluster, after)

    async def counting(self, cluster: ProcessCluster, during: Awaitable[None]) -> None:
        """Let clients count, one step at a time, until `during` is done. Each step must be there once, and none
        refused."""
        clerks = [TwistedClerk(reactor, cluster.addresses, timeout_seconds=60) for _ in range(CLIENTS)]
        steps, is_over = 0, False

        async def count(clerk: TwistedClerk) -> None:
            nonlocal steps
            while not is_over:
                await clerk.incr("steps")
                steps += 1

        running = [Deferred.fromCoroutine(count(clerk)) for clerk in clerks]
        try:
            await during
            before = steps
            await cluster.wait_for("further steps", self._more(lambda: steps > before), 30)
        finally:
            is_over = True
            await gatherResults(running)
        self.assertEqual(int(await clerks[0].get("steps") or 0), steps)
        for clerk in clerks:
            await clerk.close()
        await cluster.wait_equal(cluster.ids)

    @staticmethod
    def _more(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return holds()

        return look

    async def test_cluster_moves_from_udp_to_tls(self) -> None:
        """While a cluster changes from UDP to TLS, no acknowledged step of the clients is lost or done twice, and no
        client gets an error."""
        cluster = await self.start_cluster(3, certificates="certificates")
        self.make_certificates(cluster)
        await self.counting(cluster, self.change(cluster, "udp", "tls"))

    @skipUnless(WHOLE, "PFSB_TRANSPORT is not set")
    async def test_cluster_moves_from_udp_to_tcp_to_tls(self) -> None:
        """A cluster changes from UDP to TCP and on to TLS: these two share a port, and differ in the first byte of a
        connection."""
        cluster = await self.start_cluster(3, certificates="certificates")
        self.make_certificates(cluster)

        async def moves() -> None:
            await self.change(cluster, "udp", "tcp")
            await self.change(cluster, "tcp", "tls")

        await self.counting(cluster, moves())

    @skipUnless(WHOLE, "PFSB_TRANSPORT is not set")
    async def test_cluster_moves_back_to_udp(self) -> None:
        """A cluster changes back to UDP by as many steps in the other direction."""
        cluster = await self.start_cluster(3, transport="tcp")
        await self.counting(cluster, self.change(cluster, "tcp", "udp"))
