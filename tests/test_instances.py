"""The cases of the teaching lab, each in a simulated cluster; more seeds with PFSB_TEST_SEEDS=20."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pfsb.applications.instances import InstanceLimits, part_bytes_max
from pfsb.config.config import ConfigError
from pfsb.demo.processes import free_ports
from pfsb.instances import make
from tests.instances_lab import Lab
from tests.long import long

reactor: Any = _reactor

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(int(os.environ.get("PFSB_TEST_SEEDS", "2")))


class LabTestCase(SynchronousTestCase):
    def labs(self, peers: int = 5, loss: float = 0.0) -> Iterator[Lab]:
        for seed in SEEDS:
            yield Lab(f"{self.id()}/{seed}", peers, loss)


class AgreementTests(LabTestCase):
    def test_single_proposer(self) -> None:
        for lab in self.labs(3):
            lab[0].start(0, b"hello")
            self.assertEqual(lab[0].status(0), (False, None))
            lab.wait_for_all(0)
            self.assertEqual(lab[2].status(0), (True, b"hello"))

    def test_many_proposers_of_the_same_value(self) -> None:
        for lab in self.labs(3):
            for peer in lab.peers:
                peer.start(1, b"77")
            lab.wait_for_all(1)
            self.assertEqual(lab[0].status(1), (True, b"77"))

    def test_many_proposers_of_different_values(self) -> None:
        for lab in self.labs(3):
            for i, peer in enumerate(lab.peers):
                peer.start(2, bytes([100 + i]))
            lab.wait_for_all(2)
            self.assertIn(lab[0].status(2)[1], [bytes([100 + i]) for i in range(3)])

    def test_out_of_order(self) -> None:
        for lab in self.labs(3):
            for seq, value in ((7, b"seven"), (6, b"six"), (5, b"five"), (0, b"zero"), (1, b"one")):
                lab[seq % 3].start(seq, value)
            lab.wait_for_all(7, 6, 5, 0, 1)
            self.assertEqual(lab[1].status(5), (True, b"five"))
            self.assertEqual((lab[1].max(), lab[1].status(4)), (7, (False, None)))

    def test_values_are_any_bytes(self) -> None:
        for lab in self.labs(3):
            values = [b"", bytes(range(256)), b"\n\0\xff", b"x" * part_bytes_max]
            for seq, value in enumerate(values):
                lab[0].start(seq, value)
            lab.wait_for_all(*range(len(values)))
            self.assertEqual([lab[2].status(seq)[1] for seq in range(len(values))], values)

    def test_deaf_proposer(self) -> None:
        """The proposal of a deaf peer is decided, although the peer hears of no decision, even if it was the leader.

        In the lab the deaf peer learns the decision from the replies to its own calls. Messages of pfsb are no replies
        (docs/instances.rst).
        """
        for lab in self.labs():
            lab[0].start(0, b"hello")
            lab.wait_for_all(0)
            lab.deafen(0)
            lab.deafen(4)
            lab[1].start(1, b"goodbye")
            lab.wait_for_majority(1)
            lab.cluster.run(1)
            self.assertEqual(lab.decided(1), 3, "a deaf peer heard about a decision")
            lab[0].start(1, b"xxx")
            lab[4].start(2, b"yyy")
            lab.wait(2, 3)
            lab.cluster.run(1)
            self.assertEqual([lab[peer].status(seq) for peer in (0, 4) for seq in (1, 2)], [(False, None)] * 4)
            lab.cluster.heal()
            lab.wait_for_all(1, 2)
            self.assertEqual((lab[0].status(1)[1], lab[0].status(2)[1]), (b"goodbye", b"yyy"))


class LargeValueTests(LabTestCase):
    """A value that fits no frame reaches the servers in parts, and is decided as a whole."""

    def test_largest_value_is_decided(self) -> None:
        for lab in self.labs(3):
            largest = lab[0].application.limits.value_bytes
            value = Random(0).randbytes(largest)
            lab[0].start(0, value)
            lab.wait_for_all(0)
            self.assertEqual([peer.status(0) for peer in lab.peers], [(True, value)] * 3)
            error = self.assertRaises(ValueError, lab[0].start, 9, bytes(largest + 1))
            self.assertIn("1048576 are allowed", str(error))
            self.assertEqual([len(peer.application.unfinished) for peer in lab.peers], [0] * 3)

    def test_value_of_any_size_around_that_of_a_part(self) -> None:
        for lab in self.labs(3):
            sizes = [part_bytes_max + 1, 2 * part_bytes_max - 1, 2 * part_bytes_max, 2 * part_bytes_max + 1]
            for seq, size in enumerate(sizes):
                lab[seq % 3].start(seq, Random(seq).randbytes(size))
            lab.wait_for_all(*range(len(sizes)))
            self.assertEqual(
                [lab[2].status(seq)[1] for seq in range(len(sizes))],
                [Random(seq).randbytes(size) for seq, size in enumerate(sizes)],
            )

    @long
    def test_large_and_small_proposals_compete(self) -> None:
        """Where large and small proposals compete for instances, each instance gets the whole value of one proposer,
        also if frames are lost."""
        for loss in (0.0, 0.1):
            for lab in self.labs(3, loss):
                proposed: dict[int, list[bytes]] = {}
                for seq in range(6):
                    proposed[seq] = [bytes([10 * seq + i]) * (1 if i == seq % 4 else 60_000) for i in range(3)]
                    for i, peer in enumerate(lab.peers):
                        peer.start(seq, proposed[seq][i])
                lab.wait_for_all(*range(6))
                for seq in range(6):
                    self.assertIn(lab[0].status(seq)[1], proposed[seq])
                lab.cluster.run(10)
                self.assertEqual([len(peer.application.unfinished) for peer in lab.peers], [0] * 3)
                self.assertEqual([len(peer.wanted) for peer in lab.peers], [0] * 3)

    @long
    def test_parts_of_a_proposer_that_vanished_are_dropped(self) -> None:
        """The proposer's session expires. The instance stays free for all, the proposer included when it is back."""
        for lab in self.labs(3):
            lab[1].start(7, b"first")
            lab.wait_for_all(7)
            value = b"large" * 200_000
            lab[0].start(0, value)
            lab.wait_for_unfinished(1, 1)
            self.assertEqual(lab.decided(0), 0, "a part of a value is no decision")
            lab.cluster.crash(0)
            lab.wait_for_unfinished(1, 0)
            lab.cluster.restart(0)
            lab[0].start(0, value)
            lab.wait_for_all(0)
            self.assertEqual(lab[2].status(0), (True, value))

    @long
    def test_proposer_that_was_cut_off_begins_anew(self) -> None:
        """When the session of a proposer has ended, the parts that the server had of its value are gone, and the
        proposer begins anew."""
        for lab in self.labs(3):
            lab[1].start(7, b"first")
            lab.wait_for_all(7)
            lab[0].start(0, b"large" * 200_000)
            lab.wait_for_unfinished(1, 1)
            lab.part((0,), (1, 2))
            lab.wait_for_unfinished(1, 0)
            lab.part()
            lab.wait_for_all(0)
            self.assertEqual(lab[1].status(0), (True, b"large" * 200_000))

    @long
    def test_proposers_that_share_too_little_room_all_finish(self) -> None:
        """A value has its room before its first part is taken, so those that have begun can be finished."""
        for lab in self.labs(3):
            room = InstanceLimits(unfinished_bytes=250_000)
            for peer in lab.peers:
                peer.application.unfinished.bytes_max = room.unfinished_bytes
            for seq in range(9):
                lab[seq % 3].start(seq, bytes([seq]) * 100_000)
            lab.wait_for_all(*range(9))
            self.assertEqual([lab[1].status(seq)[1] for seq in range(9)], [bytes([seq]) * 100_000 for seq in range(9)])


class ForgettingTests(LabTestCase):
    def test_forgetting(self) -> None:
        """A peer's min() is one more than the least number that the peers are done with."""
        for lab in self.labs(6):
            self.assertEqual([peer.min() for peer in lab.peers], [0] * 6)
            for seq in range(3):
                lab[seq].start(seq, b"%d" % seq)
            lab.wait_for_all(0, 1, 2)
            for peer in lab.peers[:5]:
                peer.done(1)
            lab.cluster.run(2)
            self.assertEqual([peer.min() for peer in lab.peers], [0] * 6, "one peer has not said that it is done")
            lab[5].done(0)
            lab.wait_for_min(1)
            self.assertEqual((lab[3].status(0), lab[3].status(1)), ((False, None), (True, b"1")))
            lab[0].start(0, b"too late")
            lab.cluster.run(1)
            self.assertEqual((lab.decided(0), lab[0].max()), (0, 2))

    @long
    def test_lots_of_forgetting(self) -> None:
        for lab in self.labs(3, loss=0.1):
            rng = Random(f"{lab.cluster.seed}")
            for seq in range(60):
                rng.choice(lab.peers).start(seq, b"%d" % seq)
                for peer in lab.peers:
                    peer.done(max(0, seq - rng.randrange(10)))
                lab.cluster.run(rng.uniform(0, 0.3))
            for peer in lab.peers:
                peer.done(59)
            lab.wait_for_min(60)
            self.assertEqual([len(peer.application.decided) for peer in lab.peers], [0] * 3)

    @long
    def test_memory_of_the_forgotten_is_freed(self) -> None:
        """No cached reply and no waiting update refers to a forgotten value."""
        for lab in self.labs(3):
            for seq in range(20):
                lab[seq % 3].start(seq, b"much" * 5_000)
            lab.wait_for_all(*range(20))
            values = [peer.application.decided[0] for peer in lab.peers]
            before = [len(peer.application.snapshot()) for peer in lab.peers]
            for peer in lab.peers:
                peer.done(18)
            lab.wait_for_min(19)
            after = [len(peer.application.snapshot()) for peer in lab.peers]
            self.assertTrue(all(10 * b < a for a, b in zip(before, after, strict=True)), (before, after))
            self.assertEqual([len(peer.wanted) for peer in lab.peers], [0] * 3)
            gc.collect()
            # The list and the argument of the call refer to each value, and nothing else does.
            self.assertEqual([sys.getrefcount(values[i]) for i in range(3)], [2] * 3)

    def test_peers_without_storage_keep_no_history_of_the_forgotten(self) -> None:
        """Peers without storage drop a batch that every server has executed, since no server needs it: a server without
        a disk never starts again."""
        for seed in SEEDS:
            lab = Lab(f"{self.id()}/{seed}", 3, has_disks=False)
            for seq in range(20):
                lab[seq % 3].start(seq, b"much" * 5_000)
            lab.wait_for_all(*range(20))
            for peer in lab.peers:
                peer.done(19)
            lab.wait_for_min(20)
            lab.cluster.run(1)
            for server_id in lab.cluster.ids:
                stored = lab.cluster.disk(server_id).contents.slots
                self.assertLess(sum(len(slot.batch.data) for slot in stored.values()), 1_000)
                history = lab.cluster.replica(server_id).data.ordering.global_history
                self.assertLess(history.batch_bytes, 1_000)

    def test_peers_without_storage_keep_the_history_that_a_peer_lacks(self) -> None:
        """A peer that was cut off learns all decisions from the memory of peers without storage, which keep the history
        that it lacks."""
        for seed in SEEDS:
            lab = Lab(f"{self.id()}/{seed}", 3, has_disks=False)
            lab[0].start(0, b"before")
            lab.wait_for_all(0)
            lab.part((0, 1), (2,))
            for seq in range(1, 30):
                lab[seq % 2].start(seq, b"%d" % seq)
            lab.wait(29, 2)
            lab.cluster.run(5)
            lab.part()
            lab.wait_for_all(*range(30))
            self.assertEqual(lab[2].status(29), (True, b"29"))

    @long
    def test_process_gives_the_memory_of_the_forgotten_back(self) -> None:
        """Peers without storage have, after each round of values, about as much memory as after the first round."""
        self.assert_memory_is_freed()

    @long
    def test_process_with_storage_on_disk_gives_the_memory_back(self) -> None:
        """Peers with a storage on disk keep a few megabytes of their history in memory, and the rest on disk."""
        self.assert_memory_is_freed(os.path.abspath(self.mktemp()))

    def assert_memory_is_freed(self, *directory: str) -> None:
        """Each of five rounds brings 4 MB of values, which three peers in one process would keep three times.

        The allocator keeps what the first round has needed at most, so memory is compared from the second round on.
        """
        command = [sys.executable, "-m", "tests.instances_memory", "5", "20", "200000", *directory]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        rounds = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(rounds), 5)
        for name, most in (("traced", 2_000_000), ("resident", 12_000_000)):
            grown = rounds[-1][name] - rounds[1][name]
            self.assertLess(grown, most, f"{name} memory grows with values that all peers have forgotten: {rounds}")


class LossTests(LabTestCase):
    def test_many_instances(self) -> None:
        for lab in self.labs(3):
            for seq in range(1, 50):
                lab[seq % 3].start(seq, b"%d" % seq)
                lab[(seq + 1) % 3].start(seq, b"%d" % (10 * seq))
            lab.wait_for_all(*range(1, 50))

    @long
    def test_many_instances_with_loss(self) -> None:
        for loss in (0.1, 0.2):
            for lab in self.labs(3, loss):
                for seq in range(1, 50):
                    for i, peer in enumerate(lab.peers):
                        peer.start(seq, b"%d" % (10 * seq + i))
                    lab.cluster.run(0.02)
                lab.wait_for_all(*range(1, 50))

    def test_peer_that_crashes_knows_again(self) -> None:
        """A peer that has crashed learns decisions again, from its disk or from the others."""
        for lab in self.labs(3):
            lab[0].start(0, b"hello")
            lab.wait_for_all(0)
            lab.cluster.crash(1)
            lab[2].start(1, b"without it")
            lab.wait(1, 2)
            lab.cluster.restart(1)
            lab.wait_for_all(0, 1)
            self.assertEqual(lab[1].status(0), (True, b"hello"))


class PartitionTests(LabTestCase):
    def labs(self, peers: int = 5, loss: float = 0.0) -> Iterator[Lab]:
        for lab in super().labs(peers, loss):
            lab.meet()
            yield lab

    @long
    def test_minority_proposal_is_ignored(self) -> None:
        """The decisions that a majority makes without a minority stand: proposals of the minority are ignored."""
        for lab in self.labs():
            lab.part((0, 1), (2, 3, 4))
            lab[1].start(0, b"minority")
            lab.cluster.run(1)
            self.assertEqual(lab.decided(0), 0)
            lab[3].start(0, b"majority")
            lab.wait_for_majority(0)
            lab.part()
            lab.wait_for_all(0)
            lab.cluster.run(2)
            self.assertEqual([peer.status(0) for peer in lab.peers], [(True, b"majority")] * 5)

    @long
    def test_no_decision_without_a_majority(self) -> None:
        for lab in self.labs():
            lab.part((0, 2), (1, 3), (4,))
            lab[1].start(1, b"111")
            lab.cluster.run(15)
            self.assertEqual(lab.decided(1), 0)

    def test_decision_in_the_majority(self) -> None:
        for lab in self.labs():
            lab.part((0, 2), (1, 3), (4,))
            lab[1].start(1, b"111")
            lab.cluster.run(2)
            lab.part((0,), (1, 2, 3), (4,))
            lab.wait_for_majority(1)
            self.assertEqual(lab.decided(1), 3)

    @long
    def test_all_agree_after_healing(self) -> None:
        for lab in self.labs():
            lab.part((0,), (1, 2, 3), (4,))
            lab[1].start(1, b"111")
            lab.wait_for_majority(1)
            lab[0].start(1, b"1000")
            lab[4].start(1, b"1001")
            lab.cluster.run(12)
            lab.part()
            lab.wait_for_all(1)
            self.assertEqual(lab[0].status(1), (True, b"111"))

    def test_one_peer_that_changes_partition(self) -> None:
        """A peer that moves into another partition brings its decisions along."""
        for lab in self.labs():
            for seq in range(8):
                lab.part((0, 1, 2), (3, 4))
                lab[0].start(seq, b"%d" % (10 * seq))
                lab[3].start(seq, b"%d" % (10 * seq + 1))
                lab.wait_for_majority(seq)
                self.assertLessEqual(lab.decided(seq), 3, "too many have decided")
                lab.part((0, 1), (2, 3, 4))
                lab.wait_for_all(seq)

    def test_one_peer_that_changes_partition_with_loss(self) -> None:
        for lab in self.labs(loss=0.1):
            for seq in range(4):
                lab.part((0, 1, 2), (3, 4))
                for i, peer in enumerate(lab.peers):
                    peer.start(seq, b"%d" % (10 * seq + i))
                lab.wait_for_majority(seq)
                self.assertLessEqual(lab.decided(seq), 3, "too many have decided")
                lab.part((0, 1), (2, 3, 4))
                lab.wait_for_all(seq)

    @long
    def test_many_requests_while_partitions_change(self) -> None:
        for lab in self.labs(loss=0.1):
            rng = Random(f"{lab.cluster.seed}/parts")
            seq = 0
            until = lab.cluster.now + 20
            while lab.cluster.now < until:
                groups: list[list[int]] = [[], [], []]
                for peer in lab.cluster.ids:
                    rng.choice(groups).append(peer)
                lab.part(*(tuple(group) for group in groups if group))
                for _ in range(rng.randrange(4)):
                    rng.choice(lab.peers).start(seq, b"%d" % rng.randrange(1_000))
                    seq += 1
                    lab.cluster.run(rng.uniform(0, 0.3))
                lab.cluster.run(rng.uniform(0, 0.5))
            lab.part()
            lab.wait_for_all(*range(seq))


class SocketTests(TestCase):
    timeout = 60

    async def test_peers_agree_over_real_sockets(self) -> None:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(3, Random(os.urandom(8)))]
        peers = [make(addresses, me, reactor) for me in range(3)]
        for peer in peers:
            self.addCleanup(peer.kill)
        peers[0].start(0, b"hello")
        while not all(peer.status(0)[0] for peer in peers):
            await deferLater(reactor, 0.02)
        self.assertEqual([peer.status(0)[1] for peer in peers], [b"hello"] * 3)

    def test_wrong_address_is_refused(self) -> None:
        error = self.assertRaises(ConfigError, make, ["127.0.0.1:7101", "nowhere"], 0, reactor)
        self.assertIn("peers", str(error))
