"""Foreign datagrams at the port where servers talk to each other (real processes)."""

from __future__ import annotations

import random
import socket

from pfsb.demo.processes import ProcessCluster, Status
from pfsb.paxos.messages import ViewChange
from pfsb.transports.frames import FrameCodec, FrameIdentity
from pfsb.transports.wire import encode
from tests.integration.case import ClusterCase

UNTOUCHED = ("state", "view", "attempted", "aru", "digest", "leader")


class PeerPortTests(ClusterCase):
    transport = "udp"

    async def untouched(self, cluster: ProcessCluster) -> dict[int, list[object]]:
        return {i: [status[key] for key in UNTOUCHED] for i, status in (await cluster.statuses(cluster.ids)).items()}

    async def refused(self, cluster: ProcessCluster, server_id: int) -> dict[str, int]:
        status: Status = await cluster.status(server_id)
        return dict(status["frames"]["refused"])

    def send(self, cluster: ProcessCluster, datagrams: list[bytes]) -> None:
        """Send datagrams to every server."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for server in cluster.config.servers.values():
                for datagram in datagrams:
                    stranger.sendto(datagram, server.peer)

    async def assertCounted(self, cluster: ProcessCluster, datagrams: list[bytes], reason: str | None) -> None:
        """Assert that every server refuses all datagrams, for that reason, and that its state does not change."""
        before = await self.untouched(cluster)
        self.send(cluster, datagrams)

        async def counted() -> bool:
            counts = [await self.refused(cluster, server_id) for server_id in cluster.ids]
            seen = [sum(count.values()) if reason is None else count.get(reason, 0) for count in counts]
            return min(seen) >= len(datagrams)

        await cluster.wait_for(f"{len(datagrams)} refused frames", counted, 30)
        await cluster.pause(0.5)
        self.assertEqual(await self.untouched(cluster), before)

    async def cluster_with_a_line(self) -> ProcessCluster:
        cluster = await self.start_cluster(3)
        await (await self.visit(cluster, 0)).ask("PUT colour blue")
        await cluster.wait_equal()
        return cluster

    async def test_random_bytes_change_nothing_and_are_counted(self) -> None:
        """Random bytes at the peer port change nothing and are counted; some datagrams begin as a frame does, and one
        is empty."""
        cluster = await self.cluster_with_a_line()
        dice = random.Random(11)
        noise = [dice.randbytes(dice.randrange(1, 2000)) for _ in range(50)]
        await self.assertCounted(cluster, [*noise, *(b"PFSB" + piece for piece in noise)], None)

    async def test_frames_of_another_cluster_change_nothing_and_are_counted(self) -> None:
        """Frames of another cluster change nothing and are counted: they are well-formed, and would do harm if they
        were believed, by a much later view or another history."""
        cluster = await self.cluster_with_a_line()
        stranger = FrameIdentity(1, frozenset({0, 2}), b"strange!")
        codec = FrameCodec(stranger, bytes(8), 1)
        frames = codec.seal([encode(ViewChange(1, 1000))])
        await self.assertCounted(cluster, frames * 20, "cluster")
