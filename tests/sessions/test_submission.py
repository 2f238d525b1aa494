"""Submission: which commands of several connections travel together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from pfsb.sessions import bundle
from tests.sessions.support import ClusterTestCase


class LookOnceMoreTests(ClusterTestCase):
    """What has arrived, and was not read when the first command came, travels with it if others are connected."""

    def setUp(self) -> None:
        self.begin()
        self.client = self.connect()

    def in_the_next_iteration(self, function: Callable[[], object]) -> None:
        """Lets the simulated clock call a function after all that is due now."""
        self.cluster.clock.callLater(0, function)

    def sizes(self) -> list[int]:
        """How many bundles each ordered update has brought."""
        return [len(bundle.decode(update.payload) or ()) for update in self.updates()]

    def test_command_that_is_read_one_iteration_later_shares_the_update(self) -> None:
        """Clients that were answered together ask again together, but the reactor reads the first of them alone."""
        other = self.connect()
        self.client.ask("INCR", "n")
        self.in_the_next_iteration(lambda: other.ask("INCR", "n"))
        self.cluster.run(0.5)
        self.assertEqual(self.sizes(), [2])

    def test_later_command_does_not_hold_up_an_earlier_one(self) -> None:
        """There is one more look and no further one, however many commands come, so busy clients hold up nobody."""
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
        """Nothing can be gained by a look while no other client is connected, or the others have left."""
        self.connect().disconnect()
        self.client.ask("INCR", "n")
        self.in_the_next_iteration(lambda: self.client.ask("INCR", "n"))
        self.cluster.run(0.5)
        self.assertEqual(self.bundles(bundle.ANONYMOUS), [[1], [2]])

    def test_server_that_stops_meanwhile_introduces_nothing(self) -> None:
        """The look is a delayed call like the introduction, and ends with the server."""
        other = self.connect()
        asked = [client.ask("INCR", "n") for client in (self.client, other)]
        self.in_the_next_iteration(self.server().local_clients.close)
        self.cluster.run(0.5)
        self.assertEqual([told.answered for told in asked], [False, False])
        self.assertEqual(self.sizes(), [])


@implementer(IReadDescriptor)
class _Reader:
    """Notes when the reactor finds bytes in a socket."""

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
        """Called when the reactor ends; nothing is left to do."""


class ReactorTests(TestCase):
    """The property of a reactor on which the look rests."""

    async def test_reactor_reads_its_sockets_before_a_call_of_a_call(self) -> None:
        """A delayed call without delay that a delayed call asks for runs after the sockets were looked at again.

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
