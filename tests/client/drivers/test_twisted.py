"""TwistedDriver, over a reactor in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.actions import Connect, HangUp, Send
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.drivers.twisted import TwistedDriver
from tests.client.drivers.core import ScriptedCore

ADDRESS = ServerAddress(0, "unix:/run/server-0", "/run/server-0")


class Transport(StringTransportWithDisconnection):
    """A connection in memory that notes whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class TwistedDriverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.core = ScriptedCore(actions=[Connect(ADDRESS)])
        self.driver = TwistedDriver(self.reactor, self.core)
        self.driver.start()

    def accept(self) -> tuple[Any, Transport]:
        """Let the server take the connection that was asked for last. Returns the driver's end, and the transport."""
        protocol = self.reactor.unixClients[-1][1].buildProtocol(None)
        transport = Transport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol, transport

    def do(self, *actions: Any) -> None:
        self.core.actions += actions
        self.driver.act()

    def test_events_of_a_connection_reach_the_core_in_order(self) -> None:
        protocol, _ = self.accept()
        protocol.dataReceived(b"* HELLO\n")
        protocol.connectionLost(Failure(connectionDone.value))
        self.assertEqual(self.core.events[:3], ["start", "connected", b"* HELLO\n"])
        self.assertTrue(str(self.core.events[3]).startswith("lost: "), self.core.events)

    def test_server_that_takes_no_connection_is_lost(self) -> None:
        self.reactor.unixClients[-1][1].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.assertEqual(len(self.core.events), 2)
        self.assertIn("refused", str(self.core.events[1]))

    def test_bytes_to_send_are_written_together(self) -> None:
        """The bytes that the core sends in one call are written together, by one system call."""
        _, transport = self.accept()
        written: list[bytes] = []
        transport.write = written.append  # type: ignore[method-assign, assignment]
        self.do(Send(b"GET a\n"), Send(b"GET b\n"))
        self.assertEqual(written, [b"GET a\nGET b\n"])

    def test_connection_that_the_core_has_left_is_not_heard_any_more(self) -> None:
        """Bytes of a connection that the core has left are not passed to the core: they would be taken for those of the
        next connection."""
        protocol, transport = self.accept()
        self.do(HangUp(at_once=False), Connect(ADDRESS))
        protocol.dataReceived(b"late\n")
        self.accept()
        self.assertFalse(transport.aborted)
        self.assertFalse(transport.connected)
        self.assertEqual(self.core.events, ["start", "connected", "connected"])

    def test_hanging_up_at_once_aborts(self) -> None:
        """A `HangUp` at once aborts the connection, so that the server notices now, and not when it reads."""
        _, transport = self.accept()
        self.do(HangUp(at_once=True))
        self.assertTrue(transport.aborted)

    def test_attempt_that_was_given_up_tells_nothing(self) -> None:
        """The end of an attempt that the core has given up is not told to it: the core has gone to another server by
        then."""
        self.do(HangUp(at_once=True))
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)
        self.assertEqual(self.core.events, ["start"])

    def test_core_is_woken_at_its_time_and_not_again(self) -> None:
        self.core.wake_at = 5.0
        self.driver.act()
        self.reactor.advance(4.9)
        self.assertNotIn("woken", self.core.events)
        self.reactor.advance(0.2)
        self.reactor.advance(60)
        self.assertEqual(self.core.events.count("woken"), 1)

    def test_earlier_time_moves_the_timer(self) -> None:
        """The timer is moved if the core's next time has become earlier. If it has become later, the core is woken for
        nothing, which is cheaper than a new timer."""
        for wake_at in (5.0, 2.0):
            self.core.wake_at = wake_at
            self.driver.act()
        self.reactor.advance(2)
        self.assertEqual(self.core.events.count("woken"), 1)

    def test_stopped_core_fires_the_deferred(self) -> None:
        self.assertNoResult(self.driver.ended)
        self.successResultOf(self.driver.stop())
        self.assertEqual(self.core.events, ["start", "stop"])
