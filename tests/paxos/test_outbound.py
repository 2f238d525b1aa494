"""Departure 25: votes that no client waits for travel with the next frame to the same server."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import define, evolve, field
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.paxos.data_structures import OrderingData
from pfsb.paxos.interfaces import ITransport
from pfsb.paxos.members import Members
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Accept, Alive, Message, Proposal, State
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.peers import Peers
from pfsb.paxos.settings import Settings
from pfsb.paxos.window import Window
from tests.paxos.case import Notes, ReplicaTestCase
from tests.paxos.messages import accept, alive, client_update, proposal, vc_proof

SETTINGS = Settings(window_slots=8, lazy_seconds=0.005)


@implementer(ITransport)
@define(eq=False)
class Frames:
    """Sends of a replica, in which each call is one frame, or one for each receiver."""

    sent: list[tuple[tuple[Message, ...], int | None]] = field(factory=list)

    def start(self, receiver: object, identity: bytes, start: int) -> None:
        raise AssertionError("nothing is received here")

    def know_cluster(self, identity: bytes) -> None:
        pass

    def enter_epoch(self, members: Members, others: Collection[int]) -> None:
        raise AssertionError("the membership does not change")

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        self.sent.append((tuple(messages), to))

    def stop(self) -> None:
        raise AssertionError("the test has not started this transport")


class LazyVotesTestCase(SynchronousTestCase):
    """Server 2 of four; server 1 leads view 1, and clients wait at those in `waited_at`."""

    def begin(self, *waited_at: int, settings: Settings = SETTINGS) -> None:
        self.clock, self.frames, self.notes = Clock(), Frames(), Notes()
        membership = Membership(2, Members((1, 2, 3, 4)))
        self.peers = Peers(membership, self.clock, settings)
        self.way_out = Outbound(
            membership,
            self.peers,
            self.frames,
            self.clock,
            settings,
            Window(OrderingData(), settings.window_slots, is_born=True),
            self.notes,
        )
        self.clients_wait_at(*waited_at)

    def clients_wait_at(self, *server_ids: int) -> None:
        for server_id, peer in self.peers.by_id.items():
            peer.has_clients = server_id in server_ids

    def send(self, *messages: Message, to: int | None = None) -> None:
        self.way_out.send(messages, to)

    def assertFrames(self, *expected: tuple[tuple[Message, ...], int | None]) -> None:
        """Assert that exactly these frames have left since the last call, in this order."""
        sent, self.frames.sent = self.frames.sent, []
        self.assertEqual(sent, list(expected))


class WhoNeedsItTests(LazyVotesTestCase):
    def test_leader_gets_a_vote_at_once(self) -> None:
        """Section 5.10: the leader gets a vote at once, since its next proposals wait for it."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.assertFrames(((accept(2, 1, 1),), 1))

    def test_server_with_clients_gets_a_vote_at_once(self) -> None:
        """A server with clients gets a vote at once, since its clients wait for the slot that the vote may order."""
        self.begin(4)
        self.send(accept(2, 1, 1))
        self.assertFrames(((accept(2, 1, 1),), 1), ((accept(2, 1, 1),), 4))

    def test_vote_for_all_is_encoded_once_when_all_have_clients(self) -> None:
        """Figure 10: if all servers have clients, an ACCEPT goes to all of them at once, and is encoded once."""
        self.begin(1, 3, 4)
        self.send(accept(2, 1, 1))
        self.assertFrames(((accept(2, 1, 1),), None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_lazy_without_time_for_it(self) -> None:
        """With lazy_seconds=0 no vote is delayed, as in the paper's protocol."""
        self.begin(settings=evolve(SETTINGS, lazy_seconds=0.0))
        self.send(accept(2, 1, 1))
        self.assertFrames(((accept(2, 1, 1),), None))

    def test_vote_for_one_server_is_not_delayed(self) -> None:
        """A vote that is an answer to one server is not delayed, since that server has asked."""
        self.begin()
        self.send(accept(2, 1, 1), to=3)
        self.assertFrames(((accept(2, 1, 1),), 3))


class CompanyTests(LazyVotesTestCase):
    def test_votes_travel_with_the_next_message_to_that_server(self) -> None:
        """Waiting votes travel with the next message to their server, and come first in the frame: they may open the
        window for the proposal that follows."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.frames.sent.clear()
        self.send(vc_proof(2, 1), to=3)
        self.assertFrames(((accept(2, 1, 1), vc_proof(2, 1)), 3))
        self.send(vc_proof(2, 1), to=3)
        self.assertFrames(((vc_proof(2, 1),), 3))

    def test_leaders_votes_travel_with_its_next_proposal(self) -> None:
        """The leader's votes travel with its next proposal; since equal votes wait for all servers, they are encoded
        once."""
        self.begin()
        self.send(accept(2, 2, 1))
        self.assertFrames()
        self.send(proposal(2, 2, 2))
        self.assertFrames(((accept(2, 2, 1), proposal(2, 2, 2)), None))

    def test_message_to_all_takes_to_each_what_waits_for_it(self) -> None:
        """A message to all takes along, for each server, the votes that wait for it; server 1 has had its vote."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.frames.sent.clear()
        self.send(alive(2, 1))
        votes = accept(2, 1, 1)
        self.assertFrames(((alive(2, 1),), 1), ((votes, alive(2, 1)), 3), ((votes, alive(2, 1)), 4))

    def test_vote_at_once_takes_along_what_waited(self) -> None:
        """A vote that leaves at once, since clients have come to its server, takes along votes that have waited for
        that server."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.clients_wait_at(3)
        self.frames.sent.clear()
        self.send(accept(2, 1, 2))
        self.assertFrames(((accept(2, 1, 2),), 1), ((accept(2, 1, 1), accept(2, 1, 2)), 3))

    def test_votes_of_a_view_share_one_message(self) -> None:
        """Section 7.3: waiting votes of one view are sent as one ACCEPT, each of them once."""
        self.begin()
        for seq in (1, 2, 1, 3):
            self.send(accept(2, 1, seq))
        self.frames.sent.clear()
        self.send(vc_proof(2, 1), to=3)
        self.assertFrames(((accept(2, 1, 1, 2, 3), vc_proof(2, 1)), 3))

    def test_vote_of_a_new_view_replaces_those_of_the_old_one(self) -> None:
        """A vote of a new view replaces those of the old one: servers in the new view discard old votes (Figure 4), and
        others learn of it by VC_PROOF, or reconcile."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.send(accept(2, 4, 1))
        self.frames.sent.clear()
        self.send(vc_proof(2, 4), to=3)
        self.assertFrames(((accept(2, 4, 1), vc_proof(2, 4)), 3))


class TimeTests(LazyVotesTestCase):
    def test_vote_without_company_leaves_after_a_while(self) -> None:
        """A vote without another message to its server leaves after a while. Then no timer runs: an idle server sends
        nothing but ALIVE."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.frames.sent.clear()
        self.clock.advance(0.004)
        self.assertFrames()
        self.clock.advance(0.001)
        self.assertFrames(((accept(2, 1, 1),), 3), ((accept(2, 1, 1),), 4))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_vote_waits_for_its_own_time(self) -> None:
        """Each vote waits for its own time: when the timer fires, younger votes go on waiting."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.clock.advance(0.003)
        self.send(vc_proof(2, 1), to=3)
        self.send(accept(2, 1, 2))
        self.frames.sent.clear()
        self.clock.advance(0.002)
        self.assertFrames(((accept(2, 1, 1, 2),), 4))
        self.clock.advance(0.003)
        self.assertFrames(((accept(2, 1, 2),), 3))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_more_than_half_a_window_of_votes_waits(self) -> None:
        """Departure 20: no more than half a window of votes waits for one server, since a server that lags by two
        windows takes no more proposals."""
        self.begin()
        for seq in range(1, 6):
            self.send(accept(2, 1, seq))
        votes = accept(2, 1, 1, 2, 3, 4, 5)
        self.assertEqual([frame for frame in self.frames.sent if frame[1] != 1], [((votes,), 3), ((votes,), 4)])

    def test_vote_is_traced_when_it_is_sent(self) -> None:
        """A vote appears in the trace when it is sent, with the time of that (docs/operating.rst)."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.assertEqual(self.notes.of("send"), [{"to": 1, "message": accept(2, 1, 1)}])
        self.clock.advance(0.005)
        self.assertEqual([note["to"] for note in self.notes.of("send")], [1, 3, 4])
        self.assertEqual(self.notes.of("timer"), [{"name": "votes"}] * 2)

    def test_nothing_leaves_after_the_end(self) -> None:
        """Votes that wait when a server stops do not leave, like any other frame."""
        self.begin()
        self.send(accept(2, 1, 1))
        self.frames.sent.clear()
        self.way_out.stop()
        self.clock.advance(1)
        self.assertFrames()


class ReplicaTests(ReplicaTestCase):
    """The whole protocol of server 2 of five, which follows server 1 unless it is told to lead."""

    ignore_periodic = False

    def after_start(self) -> None:
        self.take(Alive)
        self.follow(view=1)
        self.take(Alive)

    def tearDown(self) -> None:
        self.transport.sent.clear()
        super().tearDown()

    def nobody_asks(self, *peers: int) -> None:
        """Let these servers tell that they have no clients."""
        for peer in peers:
            state = State.REG_LEADER if peer == 1 else State.REG_NONLEADER
            self.receive(alive(peer, 1, state, has_clients=False))

    def test_server_that_has_told_nothing_may_have_clients(self) -> None:
        """A server that has sent no ALIVE may have clients, so votes go to it at once."""
        self.receive(proposal(1, 1, 1, client_update()))
        self.assertSent(accept(2, 1, 1))

    def test_servers_without_clients_learn_later(self) -> None:
        """Servers 3 and 4, which have told that they have no clients, get a vote later; the leader and server 5 get it
        at once."""
        self.nobody_asks(1, 3, 4)
        self.receive(proposal(1, 1, 1, client_update()))
        self.assertEqual([s.to for s in self.transport.sent if isinstance(s.message, Accept)], [1, 5])
        self.advance(0.011)
        self.assertEqual([s.to for s in self.transport.sent if isinstance(s.message, Accept)], [1, 5, 3, 4])

    def test_vote_waits_behind_the_gate_first(self) -> None:
        """Departure 1: a vote that is not on disk does not travel with other messages that leave meanwhile."""
        self.nobody_asks(1, 3, 4, 5)
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, client_update()))
        self.advance(0.3)
        self.assertNotSent(Accept)
        self.storage.finish_all()
        self.assertSent(accept(2, 1, 1))  # in one frame with the VC_PROOF, which has waited for the disk as well

    def test_first_question_is_announced_at_once(self) -> None:
        """The first request of a client is announced by an ALIVE out of turn; the others need no second one while
        clients go on asking."""
        self.introduce(client_update("carol", 1, server_id=2))
        self.assertEqual([m.has_clients for m in self.take(Alive)], [True])
        self.introduce(client_update("dave", 1, server_id=2))
        self.assertNotSent(Alive)

    def test_reader_is_a_client(self) -> None:
        """Departure 24: a client that reads counts as a client, since this server executes up to the index of the
        read."""
        self.replica.perform(self.replica.reads.begin_reads, [lambda is_certain: None])
        self.assertEqual([m.has_clients for m in self.take(Alive)], [True])

    def test_clients_that_ask_no_more_are_forgotten_after_a_while(self) -> None:
        """Clients that ask no more are forgotten after a while, and not at once: a client that has asked usually asks
        again."""
        self.introduce(client_update("carol", 1, server_id=2))
        self.order(1, client_update("carol", 1, server_id=2))
        self.take(Alive)
        self.advance(0.9)
        self.assertEqual({m.has_clients for m in self.take(Alive)}, {True})
        self.advance(0.3)
        self.assertFalse(self.take(Alive)[-1].has_clients)

    def test_update_that_waits_keeps_its_client_in_mind(self) -> None:
        """The client of a pending update counts as one that waits, however long that takes, as without a majority."""
        self.introduce(client_update("carol", 1, server_id=2))
        self.advance(5.0)
        self.assertTrue(self.take(Alive)[-1].has_clients)

    def test_whoever_waits_for_others_is_a_client(self) -> None:
        """A client that waits for a lock or for an event, as the sessions know, counts as a waiting client in the
        server's ALIVE."""
        self.replica.demand.clients_wait = lambda: True
        self.advance(0.2)
        self.assertTrue(self.take(Alive)[-1].has_clients)

    def test_leader_needs_no_announcement(self) -> None:
        """A leader does not announce waiting clients: all votes go to it at once anyway."""
        self.expire_progress_timer()
        self.lead(view=2)
        self.take(Alive)
        self.introduce(client_update("carol", 1, server_id=2))
        self.assertNotSent(Alive)
        self.assertEqual(len(self.take(Proposal)), 1)
