"""Servers compare the names of their snapshots (Departure 40), on a real replica: server 2 of five."""

from __future__ import annotations

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from pfsb.paxos.divergence import StateDiverged
from pfsb.paxos.messages import Alive, State, ViewChange
from pfsb.paxos.snapshot import SnapshotName
from pfsb.paxos.snapshot_names import SILENCE_PERIODS
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import alive

OWN, OTHER, THIRD = b"o" * 16, b"x" * 16, b"y" * 16
NAME = SnapshotName(8, 100, OWN)


class SnapshotNameTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)
        self.names = self.replica.snapshot_names

    def tearDown(self) -> None:
        self.take(ViewChange)  # time passes in these tests, and their leader is silent
        super().tearDown()

    def told(self, server_id: int, digest: bytes, times: int = 1, seq: int = 8) -> None:
        """A peer tells a digest in so many ALIVEs, a period apart."""
        for _ in range(times):
            state = State.REG_LEADER if server_id == 1 else State.REG_NONLEADER
            message = evolve(alive(server_id, 1, state), snapshot_seq=seq, snapshot_digest=digest)
            self.receive(message, sender=server_id)
            self.advance(self.settings.alive_seconds)

    def is_agreed(self, *, has_waited: bool = False) -> bool:
        return self.names.is_agreed(NAME, has_waited=has_waited)

    def test_alive_tells_the_last_snapshot_that_was_made_here(self) -> None:
        self.take(Alive)
        self.names.complete(SnapshotName(4, 100, THIRD))
        self.names.complete(NAME)
        self.advance(self.settings.alive_seconds)
        sent = self.take(Alive)[-1]
        self.assertEqual((sent.snapshot_seq, sent.snapshot_digest), (8, OWN))

    def test_counts_when_a_majority_has_told_the_same(self) -> None:
        self.names.complete(NAME)
        self.told(1, OWN)
        self.assertFalse(self.is_agreed())
        self.told(3, OTHER)
        self.assertFalse(self.is_agreed(has_waited=True))
        self.told(4, OWN)
        self.assertTrue(self.is_agreed())

    def test_counts_after_a_while_if_nobody_has_told_another_one(self) -> None:
        self.names.complete(NAME)
        self.told(1, OTHER, seq=7)
        self.assertFalse(self.is_agreed())
        self.assertTrue(self.is_agreed(has_waited=True))

    def test_stops_when_a_majority_has_told_another_one_twice(self) -> None:
        """A server stops when each server of a majority has told another digest twice; the text names slot, servers and
        both digests."""
        self.names.complete(NAME)
        for server_id in (1, 3):
            self.told(server_id, OTHER, 2)
        self.told(4, OTHER)
        self.assertEqual(self.failures, [])
        self.told(4, OTHER)
        said = str(self.expected_failure(StateDiverged))
        for part in ("server 2 has another state after slot 8 than servers 1, 3, 4", OWN.hex(), OTHER.hex()):
            self.assertIn(part, said)

    def test_is_compared_also_with_what_was_told_before(self) -> None:
        """A snapshot is compared also with digests that were told before it was complete: peers may have gone on to the
        next one by then."""
        for server_id in (1, 3, 4):
            self.told(server_id, OTHER, 2)
        self.names.complete(NAME)
        self.told(5, THIRD, seq=16)
        self.expected_failure(StateDiverged)

    def test_three_opinions_stop_nobody(self) -> None:
        self.names.complete(NAME)
        for server_id, digest in ((1, OTHER), (3, OTHER), (4, THIRD), (5, THIRD)):
            self.told(server_id, digest, 3)
        self.assertEqual(self.failures, [])

    def test_one_who_differs_is_logged_once_for_a_slot(self) -> None:
        self.names.complete(NAME)
        with capturedLogs() as events:
            self.told(3, OTHER, 4)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(len([line for line in lines if "server 3 has another state after slot 8" in line]), 1, lines)

    def test_server_that_is_silent_contradicts_nothing(self) -> None:
        """A server that has been silent for some periods contradicts no snapshot, so that none waits for ever for a
        server that is gone."""
        self.names.complete(NAME)
        self.told(3, OTHER, 2)
        self.advance((SILENCE_PERIODS - 2) * self.settings.alive_seconds)
        self.assertFalse(self.is_agreed(has_waited=True))
        self.receive(alive(3, 1), sender=3)
        self.advance((SILENCE_PERIODS - 1) * self.settings.alive_seconds)
        self.assertFalse(self.is_agreed(has_waited=True))
        self.advance(2 * self.settings.alive_seconds)
        self.assertTrue(self.is_agreed(has_waited=True))

    def test_what_was_told_by_an_earlier_start_is_forgotten(self) -> None:
        self.names.complete(NAME)
        self.told(3, OTHER, 2)
        self.names.forget_start(3)
        self.assertTrue(self.is_agreed(has_waited=True))

    def test_a_snapshot_whose_state_is_in_doubt_is_not_wanted(self) -> None:
        """An offered snapshot is not wanted while a server tells another digest, unless a majority tells that of the
        offer."""
        name = SnapshotName(8, 100, OTHER)
        fetcher = self.replica.snapshot_fetcher
        self.told(1, OTHER)
        self.assertTrue(fetcher.is_wanted(name))
        self.told(3, OWN)
        self.assertFalse(fetcher.is_wanted(name))
        self.told(4, OTHER)
        self.assertFalse(fetcher.is_wanted(name))
        self.told(5, OTHER)
        self.assertTrue(fetcher.is_wanted(name))

    def test_few_slots_are_remembered(self) -> None:
        for seq in range(1, 20):
            self.names.complete(SnapshotName(seq, 1, OWN))
            self.told(3, OWN, seq=seq)
        self.assertEqual([*self.names.own], [16, 17, 18, 19])
        self.assertEqual([*self.names.told[3]], [16, 17, 18, 19])
