"""Departure 40: digests in ALIVEs, and what a server concludes from those that differ."""

from __future__ import annotations

from attrs import evolve
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from pfsb.paxos.divergence import StateDiverged, points
from pfsb.paxos.members import Members
from pfsb.paxos.messages import (
    NOT_TOLD,
    POINTS,
    Alive,
    ReconciliationReply,
    ReconciliationRequest,
    State,
    ViewChange,
)
from pfsb.paxos.ordered_update_queue import DigestChain
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import alive, batch, client_update, ordered, reply


class DivergenceTestCase(ReplicaTestCase):
    """Server 2 of five, which has executed twenty slots, told by server 3."""

    settings = evolve(SMALL, digests_kept=1_000)

    def after_start(self) -> None:
        self.log: list[LogEvent] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)
        self.follow(view=1)
        self.execute(1, 20)

    def tearDown(self) -> None:
        self.take(ViewChange)  # the leader is silent in these tests while time passes
        self.take(ReconciliationRequest)
        super().tearDown()

    def execute(self, first: int, last: int) -> None:
        for seq in range(first, last + 1):
            self.receive(reply(3, ordered(3, seq, client_update("a", seq)), local_aru=seq))

    def chain(self, differs_from: int = 1_000, otherwise: bytes = b"otherwise", last: int = 40) -> DigestChain:
        """The digests of a server that executes from slot `differs_from` on with other results."""
        chain = DigestChain(1_000)
        for seq in range(1, last + 1):
            chain.extend(batch(client_update("a", seq)).digest, otherwise if seq >= differs_from else b"")
        return chain

    def hear(self, server_id: int, local_aru: int, chain: DigestChain, *, after: float = 0.15) -> None:
        """Let an ALIVE arrive from a server with this history."""
        self.advance(after)
        told = b"".join(chain.at(point) or NOT_TOLD if point else NOT_TOLD for point in points(local_aru))
        state = State.REG_LEADER if server_id == 1 else State.REG_NONLEADER
        self.receive(evolve(alive(server_id, 1, local_aru=local_aru), digests=told, state=state))

    @property
    def refuses(self) -> bool:
        return self.replica.divergence.is_undecided

    def errors(self) -> list[LogEvent]:
        return [event for event in self.log if event["log_level"] is LogLevel.error]


class TellingTests(DivergenceTestCase):
    def test_alive_tells_the_digests_at_its_points(self) -> None:
        """An ALIVE tells the digests at Local_Aru on disk, rounded down to multiples of 1, 16, 256 and 4,096; slot 0
        has no digest."""
        self.execute(21, 37)
        self.storage.finish_all()
        self.advance(1.0)
        last = self.take(Alive)[-1]
        chain = self.chain()
        self.assertEqual(POINTS, (1, 16, 256, 4_096))
        self.assertEqual(last.local_aru, 37)
        self.assertEqual(last.digests, (chain.at(37) or b"") + (chain.at(32) or b"") + NOT_TOLD * 2)

    def test_slots_that_are_not_on_disk_are_not_told(self) -> None:
        """An ALIVE does not tell digests of slots that are not on disk, since a crash may undo them."""
        self.advance(1.0)
        self.hold_syncs = True
        self.execute(21, 24)
        self.take(Alive)
        self.advance(0.25)
        [told] = {(message.local_aru, message.digests[:16]) for message in self.take(Alive)}
        self.assertEqual(told, (20, self.chain().at(20)))


class ComparingTests(DivergenceTestCase):
    def test_equal_digests_are_noted_and_nothing_else(self) -> None:
        """A peer with equal digests agrees up to the last of its points that this server has executed."""
        self.hear(1, 20, self.chain())
        self.hear(3, 35, self.chain())
        self.assertEqual(
            [self.replica.divergence.by_peer[i].agrees_up_to for i in (1, 3, 4)], [20, 0, 0], "32 is still to come here"
        )
        self.execute(21, 33)
        self.hear(3, 35, self.chain())
        self.assertEqual(self.replica.divergence.by_peer[3].agrees_up_to, 32)
        self.assertEqual((self.refuses, self.errors()), (False, []))

    def test_majority_that_differs_twice_stops_this_server(self) -> None:
        """If three of five servers have told one digest twice, and this server has another, it stops, and names the
        first slots that differ."""
        for server_id in (1, 3, 4, 5):
            self.hear(server_id, 16, self.chain(differs_from=18))
        for server_id in (1, 3, 4):
            self.hear(server_id, 19, self.chain(differs_from=18))
        for server_id in (1, 3):
            self.hear(server_id, 20, self.chain(differs_from=18))
        self.assertEqual(self.failures, [])
        self.hear(4, 20, self.chain(differs_from=18))
        text = str(self.expected_failure(StateDiverged))
        self.assertIn("server 2 has executed slots 17 to 19 otherwise than servers 1, 3, 4, which are a majority", text)

    def test_one_server_stops_nobody_however_often_it_differs(self) -> None:
        """A server that differs from this one, while a majority agrees with this one, stops no other server, however
        often it differs."""
        for _ in range(3):
            for server_id in (1, 3, 4):
                self.hear(server_id, 20, self.chain())
            self.hear(5, 20, self.chain(differs_from=18))
        self.assertEqual((self.failures, self.refuses), ([], False))
        [event] = self.errors()
        self.assertEqual((event["server"], event["first"], event["last"]), (5, 17, 20))

    def test_majority_that_has_differed_once_stops_nobody(self) -> None:
        """A majority that has differed in one ALIVE each stops no server: forged or single messages must not."""
        for server_id in (1, 3, 4, 5):
            self.hear(server_id, 20, self.chain(differs_from=18))
        self.assertEqual((self.failures, self.refuses), ([], False))

    def test_copies_of_one_message_count_once(self) -> None:
        """Copies of one ALIVE, as a network may make them, count once: the next ALIVE of a server comes a period
        later."""
        for server_id in (1, 3, 4):
            for after in (0.15, 0.0, 0.01):
                self.hear(server_id, 20, self.chain(differs_from=18), after=after)
        self.assertEqual((self.failures, self.refuses), ([], False))

    def test_servers_that_differ_among_themselves_are_no_majority(self) -> None:
        """If all servers differ among themselves, no majority can tell which results are right, and changes are
        refused."""
        for _ in range(2):
            for server_id in (1, 3, 4, 5):
                self.hear(server_id, 20, self.chain(18, otherwise=b"dice %d" % server_id))
        self.assertEqual(self.failures, [])
        self.assertTrue(self.refuses)

    def test_refusal_ends_when_a_majority_agrees_again(self) -> None:
        """The refusal of changes ends when a server that differed has started again, and its digests are this
        server's."""
        for _ in range(2):
            self.hear(5, 20, self.chain(differs_from=18))
        self.assertTrue(self.refuses)
        self.hear(5, 20, self.chain())
        self.assertFalse(self.refuses)
        self.assertEqual(self.replica.divergence.by_peer[5].differs_at, 0)

    def test_refusal_ends_when_enough_others_are_heard(self) -> None:
        """The refusal of changes ends when two others have told that they agree, which make a majority with this
        server, also if the server that differs is down."""
        for _ in range(2):
            self.hear(5, 20, self.chain(differs_from=18))
        self.hear(1, 20, self.chain())
        self.assertTrue(self.refuses)
        self.hear(3, 20, self.chain())
        self.assertFalse(self.refuses)

    def test_agreement_before_the_difference_is_no_support(self) -> None:
        """Agreement from before the slot of the difference does not support this server: these peers may have gone on
        like either side."""
        for server_id in (1, 3, 4):
            self.hear(server_id, 16, self.chain())
        for _ in range(2):
            self.hear(5, 20, self.chain(differs_from=18))
        self.assertTrue(self.refuses)

    def test_server_that_starts_again_otherwise_is_taken_at_its_new_word(self) -> None:
        """When a server has started again and has executed slot 18 otherwise, its agreement at slot 20 from before is
        void."""
        self.hear(5, 20, self.chain())
        for _ in range(2):
            self.hear(5, 20, self.chain(differs_from=18))
        comparison = self.replica.divergence.by_peer[5]
        self.assertEqual((comparison.agrees_up_to, comparison.differs_at), (16, 20))

    def test_difference_before_a_start_does_not_stop_this_server(self) -> None:
        """Departure 40: a server stops when each server of a majority has differed in two ALIVEs of its present start.

        Server 3 was wrong at slot 18, and has started again. Now all others differ from this server at slot 19.
        """
        for _ in range(2):
            self.hear(3, 18, self.chain(differs_from=18))
        self.replica.peers.on_incarnation(3)
        for server_id in (1, 4, 1, 4):
            self.hear(server_id, 20, self.chain(differs_from=19))
        self.hear(3, 20, self.chain(differs_from=19))
        self.assertEqual(self.failures, [])
        self.hear(3, 20, self.chain(differs_from=19))
        text = str(self.expected_failure(StateDiverged))
        self.assertIn("slots 17 to 20 otherwise than servers 1, 3, 4", text)

    def test_refusal_goes_on_until_a_server_that_started_again_agrees(self) -> None:
        """A server that is started again executes its history anew: until its digests come, nothing is known of it."""
        for _ in range(2):
            self.hear(5, 20, self.chain(differs_from=18))
        self.assertTrue(self.refuses)
        for _ in range(2):
            self.replica.peers.on_incarnation(5)
            self.hear(4, 16, self.chain())
            self.assertTrue(self.refuses)
            self.hear(5, 20, self.chain(differs_from=18))
            self.assertTrue(self.refuses)
        self.hear(5, 20, self.chain())
        self.assertFalse(self.refuses)

    def test_server_that_had_not_differed_twice_is_not_in_doubt_after_its_start(self) -> None:
        """A server that differed in one ALIVE only is not in doubt after its next start: that ALIVE may have been
        forged."""
        self.hear(5, 20, self.chain(differs_from=18))
        self.replica.peers.on_incarnation(5)
        self.hear(5, 20, self.chain(differs_from=18))
        comparison = self.replica.divergence.by_peer[5]
        self.assertEqual((comparison.times, comparison.is_in_doubt, self.refuses), (1, False, False))

    def test_points_that_this_server_does_not_hold_say_nothing(self) -> None:
        """A server that is behind, or keeps fewer digests, compares only the points for which it has a digest."""
        for _ in range(3):
            for server_id in (1, 3, 4):
                self.hear(server_id, 15, DigestChain(10))
                self.hear(server_id, 31, self.chain(differs_from=30))
        self.assertEqual((self.failures, self.refuses), ([], False))


class ThreeServerTests(DivergenceTestCase):
    servers = (1, 2, 3)

    def test_two_servers_stop_the_third(self) -> None:
        """Two of three servers that agree are a majority, and stop the third."""
        for _ in range(2):
            for server_id in (1, 3):
                self.hear(server_id, 20, self.chain(differs_from=18))
        self.expected_failure(StateDiverged)


class FourServerTests(DivergenceTestCase):
    servers = (1, 2, 3, 4)

    def test_two_against_two_refuse_changes(self) -> None:
        """If of four servers two differ from two, neither half is a majority (G27), and all of them refuse changes."""
        for _ in range(3):
            self.hear(1, 20, self.chain())
            for server_id in (3, 4):
                self.hear(server_id, 20, self.chain(differs_from=18))
        self.assertEqual(self.failures, [])
        self.assertTrue(self.refuses)

    def test_server_that_is_removed_differs_no_more(self) -> None:
        """A change removes one of the two servers that differ: a majority of the others agrees, and the removed one is
        forgotten."""
        for _ in range(3):
            self.hear(1, 20, self.chain())
            for server_id in (3, 4):
                self.hear(server_id, 20, self.chain(differs_from=18))
        removal = Members((1, 2, 3), epoch=1, since=20, first=1, retired=(4,))
        self.replica.perform(lambda: self.replica.epochs.begin(removal))
        divergence = self.replica.divergence
        self.assertEqual([i for i, each in divergence.by_peer.items() if each.is_in_doubt], [3])
        self.assertFalse(self.refuses)
        self.replica.peers.doubt(4, 20)  # a snapshot that server 4 has sent turns out to be wrong
        self.take(ReconciliationReply)
