"""Servers that authenticate each other by a secret (real processes): repeated and forged frames; another secret."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.threads import deferToThread

from pfsb.demo.processes import ProcessCluster, free_ports
from pfsb.paxos.messages import ViewChange
from pfsb.transports.frames import FrameCodec, FrameIdentity
from pfsb.transports.wire import encode
from tests.integration.case import ClusterCase, reactor

UNTOUCHED = ("state", "view", "attempted", "aru", "digest", "leader")


class Recorder(DatagramProtocol):
    """Stands at the address where the others reach a server, passes their frames on to it, and keeps a copy of each."""

    noisy = False

    def __init__(self, inner: tuple[str, int]) -> None:
        self._inner = inner
        self.frames: list[bytes] = []
        self.passes = True

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.frames.append(datagram)
        if self.passes:
            self.send(datagram)

    def send(self, datagram: bytes) -> None:
        """Send a datagram to the server."""
        assert self.transport is not None
        self.transport.write(datagram, self._inner)


def run_pfsb(directory: Path, *words: str) -> str:
    """Run the command `pfsb`, which must succeed. Returns what it has printed."""
    program = [str(Path(sys.executable).with_name("pfsb")), *words]
    done = subprocess.run(program, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


class ReplayTests(ClusterCase):
    transport = "udp"

    async def recorded_cluster(self) -> tuple[ProcessCluster, list[Recorder]]:
        """Start a cluster of three whose frames are recorded on their way, and have it execute a few commands."""
        dice = random.SystemRandom()
        outer, inner, client = (free_ports(3, dice) for _ in range(3))
        servers = {
            i: {
                "peer": f"127.0.0.1:{outer[i]}",
                "listen": f"127.0.0.1:{inner[i]}",
                "client": f"tcp:{client[i]}:interface=127.0.0.1",
            }
            for i in range(3)
        }
        cluster = self.make_cluster(3, servers=servers, secret_file="cluster.secret")
        await deferToThread(run_pfsb, cluster.directory, "secret", "cluster.secret")
        recorders = [Recorder(("127.0.0.1", port)) for port in inner]
        for port, recorder in zip(outer, recorders, strict=True):
            listening: Any = reactor.listenUDP(port, recorder, interface="127.0.0.1", maxPacketSize=65_535)
            self.addCleanup(listening.stopListening)
        await cluster.start_all()
        visitor = await self.visit(cluster, 0)
        for number in range(30):
            await visitor.ask(f"PUT key-{number} {number}")
        await cluster.wait_equal()
        return cluster, recorders

    async def untouched(self, cluster: ProcessCluster, *server_ids: int) -> dict[int, list[object]]:
        return {i: [status[key] for key in UNTOUCHED] for i, status in (await cluster.statuses(server_ids)).items()}

    async def test_repeated_and_forged_frames_change_nothing(self) -> None:
        """A repetition of all frames so far, the latest first, and frames of a later view under another secret or none,
        change nothing."""
        cluster, recorders = await self.recorded_cluster()
        before = await self.untouched(cluster, *cluster.ids)
        copies = [list(recorder.frames) for recorder in recorders]
        for recorder, frames in zip(recorders, copies, strict=True):
            for at, frame in enumerate(reversed(frames)):
                recorder.send(frame)
                if at % 20 == 0:
                    await cluster.pause(0.005)
        for secret in (b"another secret", None):
            for sender in cluster.ids:
                them = FrameIdentity(sender, frozenset(cluster.ids) - {sender}, cluster.config.membership_digest())
                codec = FrameCodec(them, bytes(8), 1 << 32, secret)
                [forged] = codec.seal([encode(ViewChange(sender, 1_000))])
                for recorder in recorders:
                    recorder.send(forged)

        async def refused() -> bool:
            found = [(await cluster.status(i))["frames"]["refused"] for i in cluster.ids]
            return all(
                each.get("replay", 0) >= len(frames) // 2 and each.get("tag", 0) >= 4
                for each, frames in zip(found, copies, strict=True)
            )

        await cluster.wait_for("the refusal of all these frames", refused, 30)
        self.assertEqual(await self.untouched(cluster, *cluster.ids), before)

    async def test_frames_of_the_past_are_no_first_contact(self) -> None:
        """Recorded frames of the past do not count as a first contact: a server that has just started hears nothing but
        them at first, then the others, and agrees with these."""
        cluster, recorders = await self.recorded_cluster()
        _view, leader = await cluster.wait_leader()
        late = next(i for i in cluster.ids if i != leader)
        await cluster.kill(late)
        await (await self.visit(cluster, leader)).ask("PUT key-0 later")
        others = [i for i in cluster.ids if i != late]
        await cluster.wait_equal(others)
        before = await self.untouched(cluster, *others)
        recorder = recorders[late]
        past = list(recorder.frames)
        recorder.passes = False
        cluster.start(late)
        await cluster.wait_up([late])
        aru = (await cluster.status(late))["aru"]
        for at, frame in enumerate(reversed(past)):
            recorder.send(frame)
            if at % 20 == 0:
                await cluster.pause(0.002)
        self.assertEqual((await cluster.status(late))["aru"], aru)
        self.assertEqual(await self.untouched(cluster, *others), before)
        recorder.passes = True
        await cluster.wait_equal()
        visitor = await self.visit(cluster, late)
        self.assertIn("later", await visitor.ask("GET key-0"))


class RollingTests(ClusterCase):
    async def test_secret_is_changed_while_the_cluster_runs(self) -> None:
        """A secret is changed while the cluster runs, in three steps, after each of which the servers read the file by
        themselves; no frame is refused."""
        cluster = self.make_cluster(3, secret_file="cluster.secret")
        await deferToThread(run_pfsb, cluster.directory, "secret", "cluster.secret")
        await cluster.start_all()
        load = self.start_load(cluster, 3000, clients=3)
        await load.until(50)
        for number, step in enumerate(("--add", "--swap", "--drop"), start=1):
            await deferToThread(run_pfsb, cluster.directory, "secret", "cluster.secret", step)

            async def taken(number: int = number) -> bool:
                logs = [cluster.log_file(i).read_text() for i in cluster.ids]
                return all(log.count("the secrets were read again") == number for log in logs)

            await cluster.wait_for(f"all servers to take {step}", taken, 30)
        await self.finish(cluster, load)
        for server_id in cluster.ids:
            status = await cluster.status(server_id)
            self.assertNotIn("tag", status["frames"]["refused"])
