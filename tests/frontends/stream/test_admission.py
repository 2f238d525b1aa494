"""AdmissionControl: back-pressure over all connections of a server."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.config.config import Limits
from pfsb.frontends.line.protocol import LineProtocol
from pfsb.frontends.stream import admission
from pfsb.frontends.stream.admission import AdmissionControl
from pfsb.frontends.stream.reply_queue import EndOfIteration
from tests.frontends.line.test_protocol import LineTestCase, Transport


class Member:
    """A connection that handles a given number of requests when it is admitted."""

    def __init__(self, name: str, admission: AdmissionControl, called: list[str], takes: int = 0) -> None:
        self._name, self._admission, self._called, self._takes = name, admission, called, takes

    def on_admitted(self) -> None:
        self._called.append(self._name)
        if self._name.startswith("bad"):
            raise RecursionError
        self._admission.count(self._takes)

    def on_failure(self) -> None:
        self._called.append(f"{self._name} ended")


class AdmissionControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = AdmissionControl(EndOfIteration(self.clock), requests_max=10)
        self.called: list[str] = []

    def member(self, name: str, takes: int = 0) -> Member:
        return Member(name, self.admission, self.called, takes)

    def test_turns_are_taken_in_the_order_of_coming_until_there_is_no_room(self) -> None:
        """Connections are admitted in the order in which they came until there is no room: the third one waits until
        requests of the second are answered."""
        self.admission.count(10)
        members = [self.member(name, 8) for name in "abc"]
        for member in members:
            self.admission.wait(member)
        self.admission.count(-9)
        self.clock.advance(0)
        self.assertEqual(self.called, ["a", "b"])
        self.admission.count(-8)
        self.clock.advance(0)
        self.assertEqual(self.called, ["a", "b", "c"])
        self.assertFalse(self.admission.is_waiting(members[2]))
        self.admission.count(-8)
        self.assertTrue(self.admission.is_open)

    def test_connection_that_fails_is_ended_and_others_have_their_turns(self) -> None:
        for name in ("bad", "good"):
            self.admission.wait(self.member(name))
        self.clock.advance(0)
        self.assertEqual(self.called, ["bad", "bad ended", "good"])
        self.assertEqual(len(self.flushLoggedErrors(RecursionError)), 1)
        self.admission.wait(self.member("later"))
        self.clock.advance(0)
        self.assertEqual(self.called[-1], "later")
        self.assertTrue(self.admission.is_open)

    def test_connection_that_waits_is_not_overtaken(self) -> None:
        """A connection that waits is not overtaken, although there is room again and it was not called yet."""
        self.admission.count(10)
        first, second = self.member("first"), self.member("second")
        self.admission.wait(first)
        self.admission.count(-5)
        self.assertFalse(self.admission.is_open)
        self.admission.wait(second)
        self.clock.advance(0)
        self.assertEqual(self.called, ["first", "second"])

    def test_connection_keeps_its_place_until_it_is_gone(self) -> None:
        """A connection has at most one place in the queue, and keeps it until it is gone."""
        self.admission.count(10)
        first, second, third = (self.member(name) for name in ("first", "second", "third"))
        for member in (first, second, third, first):
            self.admission.wait(member)
        self.admission.forget(second)
        self.admission.count(-1)
        self.clock.advance(0)
        self.assertEqual(self.called, ["first", "third"])


class BusyServerTests(LineTestCase):
    """A server with at most four requests under way for all, and three for each connection."""

    limits = Limits(session_window=3)

    def setUp(self) -> None:
        super().setUp()
        self.factory.admission.requests_max = 4
        self.connections = [(self.protocol, self.transport), self.connect(), self.connect(), self.connect()]
        for protocol, _ in self.connections:
            self.ask("PING", protocol)
        self.local_clients.hold = True
        for protocol, _ in self.connections[:2]:
            self.put(3, protocol)

    def put(self, count: int, protocol: LineProtocol) -> None:
        self.ask("\n".join(f"PUT a {number}" for number in range(count)), protocol)

    def release_all(self) -> None:
        while self.local_clients.held:
            self.local_clients.release()
            self.clock.advance(0)

    def producing(self) -> list[bool]:
        return [transport.producerState == "producing" for _, transport in self.connections]

    def said_to(self, at: int) -> list[str]:
        transport: Transport = self.connections[at][1]
        return self.said(transport)

    def test_beyond_the_limit_connections_are_not_read_and_take_turns(self) -> None:
        """Beyond the limit, connections are not read and take turns: the commands of the third are not refused, and run
        when there is room."""
        self.assertEqual(self.factory.admission.under_way, 6)
        self.put(2, self.connections[2][0])
        self.assertEqual(self.factory.admission.under_way, 6)
        self.assertEqual(self.producing()[2:], [False, True], "who asks nothing is read")
        self.release_all()
        self.assertEqual([len(self.said_to(at)) for at in range(3)], [3, 3, 2])
        self.assertEqual((self.factory.admission.under_way, self.producing()), (0, [True] * 4))

    def test_first_request_of_a_connection_is_answered(self) -> None:
        """The first request of a connection, which may be a STATUS that looks for trouble, is answered without waiting;
        the second one waits."""
        newcomer, transport = self.connect()
        self.assertEqual(len(self.ask("PING\nPING", newcomer)), 1)
        self.release_all()
        self.assertEqual(len(self.said(transport)), 1)

    def test_client_that_asks_one_thing_after_the_other_does_not_wait(self) -> None:
        """A client that has all its replies does not wait with its next request. A second request behind it waits."""
        modest, transport = self.connections[2]
        self.local_clients.hold = False
        for number in range(5):
            self.assertEqual(self.ask("INCR n", modest), [f'OK value="{number + 1}" revision={number + 1}'])
        self.local_clients.hold = True
        self.ask("INCR n", modest)
        self.ask("INCR n", modest)
        self.assertEqual(len(self.local_clients.held), 7, "six of the others, and one")
        self.release_all()
        self.assertEqual(len(self.said(transport)), 2)

    def test_connection_whose_turn_it_is_takes_no_more_than_its_share(self) -> None:
        """A connection whose turn it is has no more requests under way than its share; the rest waits for another
        turn."""
        self.patch(admission, "SHARE_MIN", 1)
        self.factory.admission.requests_max = 4
        for at in (2, 3):
            self.put(3, self.connections[at][0])
        self.assertEqual(len(self.local_clients.held), 6)
        self.local_clients.release(3)
        self.clock.advance(0)
        self.assertEqual(
            (len(self.local_clients.held), self.factory.admission.share), (5, 2), "two of the third connection"
        )
        self.release_all()
        self.assertEqual([len(self.said_to(at)) for at in range(4)], [3, 3, 3, 3])

    def test_connection_that_goes_gives_its_place_back(self) -> None:
        """When a connection ends, its requests no longer count as under way, although its commands may still run."""
        self.put(2, self.connections[2][0])
        self.connections[0][0].connectionLost()
        self.clock.advance(0)
        self.assertEqual(self.factory.admission.under_way, 5)

    def test_client_that_does_not_read_does_not_keep_others_waiting(self) -> None:
        """The requests of a client that does not read are not counted as under way, so that it keeps no other client
        waiting."""
        self.put(2, self.connections[2][0])
        self.connections[0][0].pauseProducing()
        self.clock.advance(0)
        self.assertEqual(self.factory.admission.under_way, 5)
        self.connections[0][0].resumeProducing()
        self.assertEqual(self.factory.admission.under_way, 8)

    def test_single_requests_are_not_counted(self) -> None:
        """A single request of a connection is not counted, since the number of connections has a limit of its own."""
        self.release_all()
        for protocol, _ in self.connections:
            self.put(1, protocol)
        self.assertEqual((len(self.local_clients.held), self.factory.admission.under_way), (4, 0))

    def test_waiting_locks_are_not_under_way(self) -> None:
        """A LOCK that waits does not count as under way: it may wait for hours, and the holder of the lock must be able
        to release it."""
        self.release_all()
        self.local_clients.hold = False
        holder, waiter = self.connections[0][0], self.connections[1][0]
        self.ask("LOCK x", holder)
        self.ask("LOCK x\nLOCK x\nLOCK x", waiter)
        self.assertEqual(self.factory.admission.under_way, 0)
