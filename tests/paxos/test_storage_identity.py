"""A server with an empty disk takes part only when enough others know its storage (Departure 12)."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent

from pfsb.paxos.messages import (
    Acquainted,
    Alive,
    Heard,
    KnownPosition,
    Prepare,
    PrepareOK,
    ReconciliationRequest,
    State,
    ViewChange,
)
from pfsb.paxos.records import PeerRecord
from pfsb.paxos.start_number import start_number
from tests.paxos.case import ReplicaTestCase, identity_of
from tests.paxos.messages import alive, client_update, ordered, prepare, vc_proof, view_change

OTHER = b"brandnew"


def known(server_id: int, identity: bytes = identity_of(2)) -> tuple[Acquainted, KnownPosition]:
    """The ACQUAINTED and KNOWN_POSITION of a server that knows this identity of server 2's storage, in its first
    start."""
    return Acquainted(server_id, identity), KnownPosition(server_id, identity, start_number(1, 0), 0)


class NewcomerTests(ReplicaTestCase):
    """Server 2 of five; no server has told yet that it knows this storage. A majority is three."""

    introduced = False

    def test_newcomer_votes_in_no_election(self) -> None:
        """A newcomer votes in no election: the server that had this id before may have left the view that is being
        attempted."""
        self.receive(view_change(1, 1))
        self.receive(view_change(3, 1))
        self.assertEqual(self.data.views.last_attempted, 0)

    def test_newcomer_promises_nothing(self) -> None:
        """S1: a newcomer makes no promise: another majority, with the former storage of this id, may have left the view
        of the leader that it would follow."""
        self.receive(vc_proof(1, 1))
        self.receive(prepare(1, 1))
        self.assertNotSent(PrepareOK)
        self.assertEqual(self.data.views.last_installed, 0)

    def test_what_a_newcomer_does_not_take_is_counted(self) -> None:
        """Messages that a newcomer does not handle are counted, so that STATUS tells why nothing happens."""
        self.receive(prepare(1, 1))
        self.assertEqual(self.replica.discarded, {"newcomer": 1})

    def test_newcomer_learns_what_is_ordered(self) -> None:
        """A newcomer learns ordered slots, which need no vote."""
        self.receive(ordered(1, 1, client_update("alice", 1)))
        self.assertEqual(self.data.ordering.local_aru, 1)

    def test_a_majority_of_the_others_must_know_it(self) -> None:
        """Departure 42: a majority of the others, three of four, must know a new storage. With two, servers that never
        met could admit two storages."""
        self.receive(*known(1), *known(1))
        self.receive(*known(3))
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.assertEqual(self.replica.storage_identity.missing, [4, 5])
        self.receive(*known(4))
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        self.assertSent(ViewChange(2, 1))

    def test_one_server_counts_once(self) -> None:
        """Departure 12: a server that answers each ALIVE of a newcomer with ACQUAINTED counts once."""
        self.receive(*known(1))
        self.receive(*known(1))
        self.assertTrue(self.replica.storage_identity.is_newcomer)

    def test_acquaintance_with_a_former_storage_does_not_count(self) -> None:
        """An ACQUAINTED for a former storage, which may arrive late, does not count."""
        for sender in (1, 3, 4, 5):
            self.receive(*known(sender, OTHER))
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        for sender in (1, 3, 4, 5):
            self.receive(Acquainted(sender, OTHER), KnownPosition(sender, identity_of(2), start_number(1, 0), 0))
        self.assertTrue(self.replica.storage_identity.is_newcomer)

    def test_acquaintance_alone_does_not_count(self) -> None:
        """Departure 43: an ACQUAINTED alone does not count: it may be late, and the storage may have gone back since it
        was sent."""
        for sender in (1, 3, 4, 5):
            self.receive(Acquainted(sender, identity_of(2)))
            self.receive(KnownPosition(sender, identity_of(2), 0, 0))
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.assertEqual(self.replica.storage_identity.missing, [1, 3, 4, 5])
        for sender in (1, 3, 4):
            self.receive(KnownPosition(sender, identity_of(2), start_number(1, 0), 0))
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        self.assertSent(ViewChange(2, 1))

    def test_newcomer_answers_an_alive_with_its_own(self) -> None:
        """A newcomer answers an ALIVE with its own: a server that starts later has not heard the newcomer's first
        one."""
        self.ignore_periodic = False
        self.take(Alive)
        self.receive(alive(1, 1, State.REG_LEADER, 0))
        self.assertSent(Alive(2, 0, State.LEADER_ELECTION, 0, has_clients=False), to=1)

    def test_who_knows_it_is_not_told_again(self) -> None:
        """A newcomer does not answer the ALIVE of a server that has sent ACQUAINTED: otherwise two newcomers would
        answer each other for ever."""
        self.ignore_periodic = False
        self.take(Alive)
        self.receive(*known(1), alive(1, 1, State.REG_LEADER, 0))
        self.assertNotSent(Alive)


class AcquaintanceTests(ReplicaTestCase):
    """Server 2 of five is admitted, and lets other servers know that it knows them."""

    def test_newcomer_is_told_that_it_is_known_when_that_is_on_disk(self) -> None:
        """A newcomer is told ACQUAINTED when its identity is on disk here: otherwise a crash could forget it, and
        another storage could come with the same id."""
        del self.replica.membership.identities[3]
        self.hold_syncs = True
        self.receive(Heard(3, identity_of(2)), alive(3, 0, State.LEADER_ELECTION, 0))
        self.assertIn(PeerRecord(3, identity_of(3)), self.storage.records)
        self.assertNotSent(Acquainted)
        self.storage.finish_all()
        self.assertEqual(set(self.take(Acquainted)), {Acquainted(2, identity_of(3))})
        self.assertEqual(set(self.take(KnownPosition)), {KnownPosition(2, identity_of(3), 0, 0)})

    def test_server_that_hears_this_one_is_shown_that_it_is_heard(self) -> None:
        """A server that sends HEARD is answered with ACQUAINTED, also if its storage is known here already: it may have
        crashed at the first contact."""
        self.receive(Heard(3, identity_of(2)))
        self.assertSent(Acquainted(2, identity_of(3)), to=3)
        self.assertSent(KnownPosition(2, identity_of(3), 0, 0), to=3)
        self.receive(Heard(3, OTHER))
        self.assertNotSent(Acquainted)

    def test_server_that_has_installed_a_view_is_told_nothing(self) -> None:
        """The ALIVE of a server that has installed a view is not answered: that server was admitted before, and its
        ALIVEs are many."""
        self.receive(alive(3, 1, State.LEADER_ELECTION, 0))
        self.assertNotSent(Acquainted)


class RestartTests(ReplicaTestCase):
    introduced = False
    starts = False

    def test_server_that_comes_back_asks_all_others(self) -> None:
        """Departure 43: a server that comes back asks all others, since one of them may know a later state of its
        storage."""
        self.found.last_installed = self.found.last_attempted = 3
        self.start()
        self.assertEqual(self.take(Heard), [Heard(2, identity_of(i)) for i in (1, 3, 4, 5)])
        for sender in (1, 3, 4):
            self.receive(*known(sender))
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.receive(*known(5))
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        self.assertSent(ViewChange(2, 4))
        self.take(ReconciliationRequest)

    def test_server_that_comes_back_does_not_wait_for_those_who_are_down(self) -> None:
        """A server that comes back does not wait for servers that are down: after a period of ALIVE a majority is
        enough."""
        self.found.last_installed = self.found.last_attempted = 3
        self.start()
        for sender in (1, 3):
            self.receive(*known(sender))
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.advance(self.settings.alive_seconds)
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        self.assertEqual(self.take(Heard), [Heard(2, identity_of(i)) for i in (1, 3, 4, 5, 4, 5)])
        self.assertIn(ViewChange(2, 4), self.take(ViewChange))
        self.take(ReconciliationRequest)

    def test_server_whose_disk_is_full_is_admitted_when_there_is_room(self) -> None:
        """Departure 45: an admission forces a record. A majority has told before, and is not asked again."""
        self.found.last_installed = self.found.last_attempted = 3
        self.start()
        for sender in (1, 3):
            self.receive(*known(sender))
        self.storage.is_full = True
        self.advance(5 * self.settings.alive_seconds)
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.assertEqual(self.replica.turn.writes_in_trouble, 0)
        self.assertNotSent(ViewChange)
        self.storage.is_full = False
        self.advance(2 * self.settings.alive_seconds)
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        for kind in (Heard, ViewChange, ReconciliationRequest):
            self.take(kind)

    def test_server_that_comes_back_does_not_count_one_that_it_never_met(self) -> None:
        """Departure 43: a server that comes back does not count one that its storage does not know: that one is new,
        and cannot know whether this storage was further before."""
        self.found.last_installed = self.found.last_attempted = 3
        del self.found.peers[5]
        self.start()
        self.receive(*known(1))
        self.receive(Heard(5, identity_of(2)))
        self.receive(*known(5))
        self.assertSent(Acquainted(2, identity_of(5)), to=5)
        self.assertSent(KnownPosition(2, identity_of(5), 0, 0), to=5)
        self.advance(2 * self.settings.alive_seconds)
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.receive(*known(3))
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        for kind in (Heard, ViewChange, ReconciliationRequest):
            self.take(kind)

    def test_server_that_comes_back_counts_one_that_was_admitted_meanwhile(self) -> None:
        """Departure 43: a server that comes back counts a server that it does not know, once that one was admitted, as
        its log position shows; otherwise a majority would wait for others."""
        self.found.last_installed = self.found.last_attempted = 3
        del self.found.peers[5]
        self.start()
        self.receive(*known(1))
        for _ in range(3):
            self.replica.receive(5, identity_of(5), [Heard(5, identity_of(2)), *known(5)], start_number(1, 3), 2)
        self.advance(2 * self.settings.alive_seconds)
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        for kind in (Acquainted, Heard, KnownPosition, ViewChange, ReconciliationRequest):
            self.take(kind)

    def test_missing_servers_are_named(self) -> None:
        """The servers that this server waits for are named in the log, for an operator."""
        self.start()
        self.receive(*known(1))
        with capturedLogs() as lines:
            self.advance(2 * self.settings.alive_seconds)
            self.advance(5)
        told = [formatEvent(event) for event in lines if "does not vote yet" in formatEvent(event)]
        self.assertEqual(len(told), 1, "not with each ALIVE")
        self.assertIn("known to 3 others, and it has no word yet of server 3, 4, 5", told[0])

    def test_server_alone_knows_itself(self) -> None:
        """G6: a server that is alone in its cluster votes without being known by others."""
        self.servers = (2,)
        self.found.peers = {}
        self.start()
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        self.take(Prepare)
