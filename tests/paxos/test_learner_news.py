"""LearnerNews: a leader tells the servers that learn for good at once which slots are ordered (Departure 60)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from pfsb.paxos.learner_news import NEWS_BYTES_MAX, NEWS_SECONDS
from pfsb.paxos.members import Members
from pfsb.paxos.messages import (
    Accept,
    Alive,
    ClientUpdate,
    Proposal,
    ReconciliationReply,
    ReconciliationRequest,
    State,
)
from pfsb.support.views import view_of
from tests.paxos.messages import accept, alive, client_update, ordered, reply
from tests.paxos.test_epochs import EpochTestCase


def updates(first: int, count: int, payload: bytes = b"x") -> list[ClientUpdate]:
    return [client_update("carol", number, server_id=3, payload=payload) for number in range(first, first + count)]


class TellingLearnersTests(EpochTestCase):
    """Server 2 leads the epoch that the change begins. Server 4 learns for good, and 5 until it votes."""

    next = Members((1, 2, 3), (4, 5), epoch=1, first=2, permanent=(4,))
    view = view_of(1, 2)

    def begin(self, *, is_heard: bool = True) -> None:
        self.replica.membership.identities[5] = self.replica.membership.identities[4]
        self.follow()
        self.change()
        self.receive(accept(3, self.view, 2))
        if is_heard:
            self.receive(alive(4, 0, local_aru=1))
        self.advance(2 * NEWS_SECONDS)
        self.take(Proposal)
        self.take(Accept)
        self.take(Alive)
        self.take(ReconciliationReply)

    def ask_for(self, asked: Sequence[ClientUpdate]) -> None:
        """Order updates of server 3, each in a slot of its own."""
        for update in asked:
            self.receive(update, sender=3)
            [proposed] = self.take(Proposal)
            self.receive(accept(3, self.view, proposed.seq))
        self.take(Accept)

    def told(self) -> list[tuple[int | None, list[int]]]:
        """(to whom, slots) of the RECONCILIATION_REPLYs that were sent since the last call."""
        found = [sent for sent in self.transport.sent if isinstance(sent.message, ReconciliationReply)]
        rows = [(sent.to, [u.seq for u in sent.message.updates]) for sent in found if not sent.looked_at]
        self.take(ReconciliationReply)
        return rows

    def test_slots_are_told_together_after_a_moment(self) -> None:
        """The slots of one period `NEWS_SECONDS` are told in one message, and only to the server that learns for
        good."""
        self.begin()
        self.ask_for(updates(1, 3))
        self.assertEqual(self.told(), [])
        self.advance(NEWS_SECONDS)
        self.assertEqual(self.told(), [(4, [3, 4, 5])])
        self.advance(5 * NEWS_SECONDS)
        self.assertEqual(self.told(), [])
        self.ask_for(updates(4, 1))
        self.advance(NEWS_SECONDS)
        self.assertEqual(self.told(), [(4, [6])])

    def test_much_is_not_sent_but_told_of(self) -> None:
        """If slots are too large for one frame, the leader sends an ALIVE instead, after which the server asks for
        them."""
        self.begin()
        self.ask_for(updates(1, 2, bytes(NEWS_BYTES_MAX)))
        self.transport.sent.clear()
        self.advance(NEWS_SECONDS)
        self.assertEqual([(type(sent.message), sent.to) for sent in self.transport.sent], [(Alive, 4)])

    def test_server_that_is_not_heard_is_told_nothing(self) -> None:
        self.begin(is_heard=False)
        self.ask_for(updates(1, 1))
        self.transport.sent.clear()
        self.advance(NEWS_SECONDS)
        self.assertEqual(self.transport.sent, [])

    def test_server_stops_whether_slots_wait_to_be_told_or_not(self) -> None:
        """The moment to tell them may pass after the last turn, as when a turn has failed."""
        self.begin()
        self.ask_for(updates(1, 1))
        self.replica.turn.stop()
        self.clock.advance(2 * NEWS_SECONDS)
        self.replica.stop()
        self.assertEqual(self.told(), [])

    def test_cluster_without_such_servers_does_nothing_more(self) -> None:
        """`LearnerNews` is called at the end of a turn only while servers learn for good."""
        without = [*self.replica.checks]
        self.begin()
        self.assertEqual(self.replica.checks, [*without, self.replica.learner_news.look])
        now = self.replica.membership.members
        self.patch(type(self), "next", evolve(now, epoch=2, permanent=(), learners=(5,), retired=(4,)))
        self.ask_for(updates(1, 1, b"change"))
        self.assertEqual(self.replica.checks, without)
        self.take(ReconciliationReply)
        self.take(Proposal)
        self.take(Accept)


class LearnerTests(EpochTestCase):
    """Server 2 learns for good."""

    next = Members((1, 3, 4), (2,), epoch=1, first=3, permanent=(2,))

    def begin(self) -> None:
        self.follow()
        self.change()
        self.take(ReconciliationRequest)

    def test_slots_that_are_told_are_executed(self) -> None:
        self.begin()
        self.receive(reply(3, ordered(3, 2, client_update("alice", server_id=3)), local_aru=2))
        self.assertEqual(self.data.ordering.local_aru, 2)

    def test_it_asks_at_once_for_what_an_alive_tells_of(self) -> None:
        """A server that learns for good asks at once for slots of which an ALIVE tells: no votes come to it for which
        it could wait."""
        self.begin()
        self.receive(alive(3, view_of(1, 2), State.REG_LEADER, local_aru=2))
        self.assertNotDiscarded()
        self.advance(0.011)
        [asked] = self.take(ReconciliationRequest)
        self.assertEqual(asked.first, 2)
