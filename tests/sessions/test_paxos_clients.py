"""PaxosClients: bundles that become ready together travel as one update (Departure 8)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundler import BUNDLE_BYTES_MAX, BundlePart, Bundler, nothing
from pfsb.sessions.paxos_clients import PaxosClients
from tests.sessions.support import HORIZON_SLOTS, ClusterTestCase, code, encoded, value


class PaxosClientsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.paxos_clients = PaxosClients(2, "2.a1.7", 100_000)
        self.alice, self.bob, self.carol = (Bundler(name, 1, opens=False) for name in ("alice", "bob", "carol"))

    def ask(self, *bundlers: Bundler, text: str = "") -> None:
        for bundler in bundlers:
            bundler.add(BundlePart((1,), bundle.encode_entries([(1, ("SAY", text))]), 0.0, nothing))

    def updates(self, *bundlers: Bundler, local_aru: int = 100) -> list[ClientUpdate]:
        return list(self.paxos_clients.make_updates(bundlers, local_aru))

    def one(self, *bundlers: Bundler) -> ClientUpdate:
        (update,) = self.updates(*bundlers)
        return update

    def sessions_in(self, update: ClientUpdate) -> list[str]:
        return [each.client_id for each in bundle.decode(update.payload)]


class PaxosClientsTests(PaxosClientsTestCase):
    def test_those_that_are_ready_together_share_an_update(self) -> None:
        """Bundles that are ready together share an update, in order; a session with nothing to send, or with a bundle
        outstanding, is skipped."""
        self.ask(self.carol)
        self.one(self.carol)
        self.ask(self.bob, self.alice, self.carol)
        update = self.one(self.bob, self.carol, self.alice, Bundler("dave", 1, opens=False))
        self.assertEqual(self.sessions_in(update), ["bob", "alice"])
        self.assertEqual(list(self.paxos_clients.end_update(update)), [self.bob, self.alice])

    def test_no_bundle_makes_no_update(self) -> None:
        """Without a bundle no update is made."""
        self.assertEqual(self.updates(self.alice, self.bob), [])

    def test_each_paxos_client_has_one_update_under_way_and_counts_its_own(self) -> None:
        """Figure 12's rule for clients, and Figure 3 A: each Paxos client has one update under way and counts its own
        timestamps; (client_id, timestamp) names one update for ever."""
        self.ask(self.alice, self.bob, self.carol)
        first, second = self.one(self.alice), self.one(self.bob)
        self.paxos_clients.end_update(first)
        third = self.one(self.carol)
        self.assertEqual(
            [(u.client_id, u.server_id, u.timestamp, u.made_at) for u in (first, second, third)],
            [("2.a1.7.1", 2, 1, 100), ("2.a1.7.2", 2, 1, 100), ("2.a1.7.1", 2, 2, 100)],
        )

    def test_present_aru_begins_the_horizon(self) -> None:
        """Departure 7: the horizon of an update begins at the Local_Aru with which it was made."""
        self.ask(self.alice)
        (update,) = self.updates(self.alice, local_aru=105)
        self.assertEqual(update.made_at, 105)

    def test_update_that_is_not_outstanding_has_no_bundlers(self) -> None:
        """An update that is not outstanding, of a former incarnation or found too old before, has no bundlers."""
        self.ask(self.alice)
        update = self.one(self.alice)
        self.assertEqual(self.paxos_clients.end_update(ClientUpdate("2.6.1", 2, 1, 0, b"")), ())
        self.assertEqual(list(self.paxos_clients.end_update(update)), [self.alice])
        self.assertEqual(self.paxos_clients.end_update(update), ())
        self.ask(self.bob)
        later = self.one(self.bob)
        self.assertEqual(self.paxos_clients.end_update(update), ())
        self.assertEqual(list(self.paxos_clients.bundlers_of(later)), [self.bob])

    def test_update_ends_before_it_is_too_large(self) -> None:
        """An update ends before it is too large, since it fits one proposal, and a proposal one frame; other bundles go
        into the next update."""
        self.ask(self.alice, self.bob, self.carol, text="x" * (BUNDLE_BYTES_MAX // 2 - 100))
        updates = self.updates(self.alice, self.bob, self.carol)
        self.assertEqual([self.sessions_in(update) for update in updates], [["alice", "bob"], ["carol"]])
        self.assertLess(len(updates[0].payload), BUNDLE_BYTES_MAX + 10)

    def test_where_batches_are_small_so_are_updates(self) -> None:
        """If a batch holds a single update, bundles travel alone, as the paper's updates do."""
        self.paxos_clients = PaxosClients(2, "2.a1.7", 1)
        self.ask(self.alice, self.bob)
        self.assertEqual(
            [self.sessions_in(update) for update in self.updates(self.alice, self.bob)], [["alice"], ["bob"]]
        )


class TogetherTestCase(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def sizes(self) -> list[int]:
        """How many bundles each ordered update has brought."""
        return [len(bundle.decode(update.payload)) for update in self.updates()]


class TogetherTests(TogetherTestCase):
    """Bundles of several sessions travel in one update."""

    def test_each_client_gets_its_own_answers(self) -> None:
        """Each session in an update gets the results of its own bundle."""
        clients = [self.connect() for _ in range(5)]
        asked = [client.ask("APPEND", f"key{number}", str(number)) for number, client in enumerate(clients)]
        self.answer(asked[-1])
        self.do(clients[0], "PUT", "done", "yes")
        self.assertEqual(self.sizes(), [5, 1])
        for number, client in enumerate(clients):
            self.assertEqual(value(self.do(client, "GET", f"key{number}")), str(number))

    def test_what_waited_for_several_updates_goes_on_together(self) -> None:
        """Sessions whose bundles waited for several updates share the next update: a busy one that was once introduced
        alone does not travel alone for ever."""
        clients = [self.connect() for _ in range(8)]
        for client in clients:
            client.ask("INCR", "n")
            self.cluster.run(0.0001)
        last = [client.ask("INCR", "n") for client in clients for _ in range(3)]
        self.answer(last[-1])
        self.assertEqual(self.sizes(), [1] * 8 + [8])

    def test_lock_that_is_waited_for_when_its_session_is_taken_over(self) -> None:
        """If a bundle of the same update takes a session over, its LOCK that waits is answered, once."""
        holder, first = self.open("bob"), self.open("alice")
        self.do(holder, "LOCK", "x")
        waiting = first.ask("LOCK", "x", number=1)
        second = self.connect()
        self.answer(second.hello("alice"))
        self.assertEqual(self.sizes()[-1], 2)
        self.cluster.run(0.5)
        self.assertEqual((code(waiting.result), first.ends), (("REPLACED", "unknown"), ["REPLACED"]))
        self.assertEqual(first.connection.unanswered, 0)
        again = second.ask("LOCK", "x", number=1)
        self.do(holder, "UNLOCK", "x")
        self.assertEqual(value(self.answer(again), "name"), "x")

    def test_answer_comes_before_the_end_of_its_session(self) -> None:
        """A command that ran before its session was taken over is answered with its result, and not with UNKNOWN."""
        self.open("carol")
        told: list[Any] = []
        connection = self.server().local_clients.connect(lambda code, text: told.append(code))
        connection.hello("alice", 10, lambda result: None)
        self.cluster.run(0.5)
        connection.submit(1, ("INCR", b"n", 1), told.append)
        second = self.connect()
        self.answer(second.hello("alice"))
        self.cluster.run(0.5)
        self.assertEqual((self.sizes()[-1], value(told[0]), told[1:]), (2, "1", ["REPLACED"]))

    def test_client_that_leaves_does_not_keep_others_from_being_answered(self) -> None:
        """A client that leaves does not keep other clients of its update from being answered; its session ends after
        the update."""
        for server in self.cluster.servers.values():
            server.sync_seconds = (0.01, 0.02)  # the update is not ordered before the second client leaves
        clients = [self.connect() for _ in range(3)]
        asked = [client.ask("INCR", "n") for client in clients]
        goodbye = clients[0].bye()
        self.cluster.run(0.0001)
        clients[1].disconnect()
        self.answer(asked[2])
        self.answer(goodbye)
        self.cluster.run(0.5)
        self.assertEqual([told.answered for told in asked], [True, False, True])
        self.assertEqual((self.sizes()[0], self.sessions()), (3, [clients[2].connection.client_id]))
        clients[2].disconnect()
        clients[0].disconnect()
        self.cluster.run(0.5)
        self.assertNothingLeft()

    def test_update_that_comes_too_late_is_told_to_all_of_them(self) -> None:
        """Departure 7: if an update is too old, none of its bundles has run, and each client may use its numbers
        again."""
        self.begin(3)
        away = next(i for i in self.cluster.ids if i != self.cluster.leader())
        clients = [self.connect(away) for _ in range(3)]
        held = self.cluster.network.hold(lambda p: isinstance(p.message, ClientUpdate) and p.sender == away)
        asked = [client.ask("INCR", "n", number=1) for client in clients]
        busy = self.connect(self.cluster.leader() or 0)
        for _ in range(HORIZON_SLOTS + 2):
            self.do(busy, "INCR", "other")
        held.release()
        self.assertEqual([code(self.answer(told)) for told in asked], [("UNAVAILABLE", "none")] * 3)
        again = [client.ask("INCR", "n", number=1) for client in clients]
        self.answer(again[-1])
        self.assertEqual(sorted(value(told.result) for told in again), ["1", "2", "3"])

    def test_update_of_a_former_incarnation_answers_no_client(self) -> None:
        """An update of a former incarnation is executed, and answers no client; its numbers are not run again when
        clients repeat them."""
        self.begin(3)
        away = next(i for i in self.cluster.ids if i != self.cluster.leader())
        names = ("alice", "bob")
        clients = [self.open(name, away) for name in names]
        held = self.cluster.network.hold(lambda p: isinstance(p.message, ClientUpdate) and p.sender == away)
        for client in clients:
            client.ask("INCR", "n", number=1)
        self.cluster.run(0.01)
        self.cluster.crash(away)
        held.release()
        self.cluster.run(0.5)
        self.cluster.restart(away)
        self.cluster.run(0.5)
        for name, expected in zip(names, "12", strict=True):
            self.assertEqual(value(self.do(self.open(name, away), "INCR", "n", number=1)), expected)

    def test_update_that_its_server_has_not_made_holds_up_no_client(self) -> None:
        """Departure 37: an update in this server's name that it has not made uses up the timestamps of a Paxos client:
        the commands under way have not run, and may be repeated, and later bundles travel in the updates of another
        Paxos client."""
        self.begin(3)
        leader = self.cluster.leader() or 0
        away = next(i for i in self.cluster.ids if i != leader)
        client = self.open("alice", away)
        first = self.server(away).local_clients.submission.paxos_clients.by_name.copy()
        held = self.cluster.network.hold(lambda p: isinstance(p.message, ClientUpdate) and p.sender == away)
        asked = client.ask("INCR", "n", number=1)
        self.cluster.run(0.01)
        ((name, paxos_client),) = first.items()
        content = encoded(bundle.Bundle("~0.9.9", 0, True, ((1, ("PUT", b"k", b"v")),)))
        for timestamp in (paxos_client.timestamp, 2**62):
            forged = ClientUpdate(name, away, timestamp, self.cluster.aru(leader), content)
            self.cluster.checks.execution.introduce(forged)
            replica = self.cluster.replica(leader)
            replica.perform(replica.client_updates.on_client_update, forged, away)
            self.cluster.run(0.2)
        self.assertEqual(code(self.answer(asked)), ("UNAVAILABLE", "none"))
        held.release()
        for number in (1, 2):
            self.assertEqual(value(self.do(client, "INCR", "n", number=number)), str(number))
        self.assertNotIn(name, self.server(away).local_clients.submission.paxos_clients.by_name)


class LookOnceMoreTests(TogetherTestCase):
    """A command that has arrived, but was not read when the first one came, shares its update."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.connect()

    def in_the_next_iteration(self, function: Callable[[], object]) -> None:
        """Lets the simulated clock call a function after all that is due now."""
        self.cluster.clock.callLater(0, function)

    def test_command_that_is_read_one_iteration_later_shares_the_update(self) -> None:
        """A command that is read one iteration later shares the update: clients that were answered together ask again
        together, but the reactor reads the first of them alone."""
        other = self.connect()
        self.client.ask("INCR", "n")
        self.in_the_next_iteration(lambda: other.ask("INCR", "n"))
        self.cluster.run(0.5)
        self.assertEqual(self.sizes(), [2])

    def test_later_command_does_not_hold_up_an_earlier_one(self) -> None:
        """A command waits for commands of other clients during one further iteration of the reactor, and no longer, so
        that busy clients do not delay it."""
        others = [self.connect() for _ in range(5)]
        first = self.client.ask("INCR", "n")

        def ask_one_by_one() -> None:
            others.pop().ask("INCR", "n")
            if others:
                self.in_the_next_iteration(ask_one_by_one)

        self.in_the_next_iteration(ask_one_by_one)
        self.answer(first)
        self.cluster.run(0.5)
        self.assertEqual(self.sizes()[0], 2)
        self.assertEqual(sum(self.sizes()), 6)

    def test_client_that_is_alone_waits_for_no_look(self) -> None:
        """While no other client is connected, no update waits for a look."""
        self.connect().disconnect()
        self.client.ask("INCR", "n")
        self.in_the_next_iteration(lambda: self.client.ask("INCR", "n"))
        self.cluster.run(0.5)
        self.assertEqual(self.bundles(bundle.ANONYMOUS), [[1], [2]])

    def test_server_that_stops_meanwhile_introduces_nothing(self) -> None:
        """A server that stops before the look introduces nothing: the look is a delayed call, which ends with the
        server."""
        other = self.connect()
        asked = [client.ask("INCR", "n") for client in (self.client, other)]
        self.in_the_next_iteration(self.server().local_clients.close)
        self.cluster.run(0.5)
        self.assertEqual([told.answered for told in asked], [False, False])
        self.assertEqual(self.sizes(), [])


@implementer(IReadDescriptor)
class _Reader:
    """A reader that notes when the reactor finds bytes in its socket."""

    def __init__(self, end: socket.socket, found: Callable[[], None]) -> None:
        self._end = end
        self._found = found

    def fileno(self) -> int:
        return self._end.fileno()

    def doRead(self) -> None:
        self._end.recv(1)
        self._found()

    def logPrefix(self) -> str:
        return "reader"

    def connectionLost(self, reason: Failure) -> None:
        """Called when the reactor ends: does nothing."""


class ReactorTests(TestCase):
    """The property of a reactor on which the look rests."""

    async def test_reactor_reads_its_sockets_before_a_call_of_a_call(self) -> None:
        """If a delayed call asks for another one without delay, the reactor reads its sockets before that one.

        The interface of the reactor does not promise that, so each reactor that servers run on has to show it.
        """
        reactor: object = installed_reactor
        happened: list[str] = []
        through: Deferred[None] = Deferred()
        near, far = socket.socketpair()
        with closing(near), closing(far):
            reader = _Reader(far, lambda: happened.append("read"))

            def look_once_more() -> None:
                near.send(b"x")
                reactor.callLater(0, introduce)  # type: ignore[attr-defined]

            def introduce() -> None:
                happened.append("introduced")
                through.callback(None)

            reactor.addReader(reader)  # type: ignore[attr-defined]
            reactor.callLater(0, look_once_more)  # type: ignore[attr-defined]
            await through
            reactor.removeReader(reader)  # type: ignore[attr-defined]
        self.assertEqual(happened, ["read", "introduced"])
