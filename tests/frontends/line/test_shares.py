"""One client's share: events page by page, slices of many requests, large requests, and replies that are not read."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from unittest import mock

from pfsb.applications.chat import Chat
from pfsb.config.config import Limits
from pfsb.frontends.line.protocol import LineProtocol
from pfsb.frontends.line.subscriptions import PAGE_BYTES
from pfsb.frontends.stream.addresses import CLEAN_SECONDS
from pfsb.frontends.stream.large_requests import UNREAD_SECONDS
from pfsb.frontends.stream.protocol import SLICE_SECONDS
from tests.frontends.line.test_protocol import DROPPED, LineTestCase, Transport

TEXT = "x" * 1_000
LINES = 300
UNREAD_BYTES = 1_048_576


class SharesTestCase(LineTestCase):
    limits = Limits(request_seconds=5.0)

    def fill_chat(self) -> None:
        for _ in range(LINES):
            self.server.cluster.catalogue.entry("SAY").application.lines.append(("a", TEXT))

    def fill_keys(self) -> None:
        entries: Any = self.server.cluster.catalogue.entry("PUT").application
        for number in range(1_000):
            self.ask(f"PUT key{number:04} {TEXT}")
        self.assertEqual(len(entries.entries), 1_000)

    def iterate(self) -> int:
        """Run one iteration of the reactor. Returns the number of bytes that were written in it."""
        before = len(self.transport.value())
        for call in [each for each in self.clock.getDelayedCalls() if each.getTime() <= self.clock.seconds()]:
            call.cancelled = 1
            self.clock.calls.remove(call)
            call.func(*call.args, **call.kw)
        return len(self.transport.value()) - before


class EventPagesTests(SharesTestCase):
    def test_old_events_are_told_page_by_page(self) -> None:
        """Old events are written page by page, no more than a page in an iteration, until all are told."""
        self.fill_chat()
        self.protocol.dataReceived(b"LISTEN from=1\n")
        pages = [self.iterate() for _ in range(40)]
        self.assertLess(max(pages), PAGE_BYTES + 2_000)
        self.assertEqual(self.transport.value().count(b"\n* CHAT "), LINES)

    def test_client_that_does_not_read_is_told_no_more(self) -> None:
        self.fill_chat()
        self.protocol.dataReceived(b"LISTEN from=1\n")
        self.iterate()
        self.iterate()
        self.protocol.pauseProducing()
        told = len(self.transport.value())
        for _ in range(10):
            self.iterate()
        self.assertEqual(len(self.transport.value()), told)
        self.protocol.resumeProducing()
        for _ in range(40):
            self.iterate()
        self.assertEqual(self.transport.value().count(b"\n* CHAT "), LINES)

    def test_events_wait_in_their_log_while_a_large_reply_is_written(self) -> None:
        """Events wait in their log while a large reply is written; behind the reply they are told page by page, also
        after a time without reading."""
        self.fill_keys()
        self.ask("LISTEN")
        self.protocol.dataReceived(b'RANGE "" "" limit=1000\n')
        self.iterate()
        self.iterate()
        self.assertTrue(self.protocol.replies.is_amid_reply)
        self.protocol.pauseProducing()
        self.fill_chat()
        self.protocol.resumeProducing()
        pages = [self.iterate() for _ in range(60)]
        self.assertLess(max(pages), 2 * PAGE_BYTES)
        said = self.transport.value()
        self.assertLess(said.index(b"OK count=1000"), said.index(b"* CHAT "))
        self.assertEqual(said.count(b"* CHAT "), LINES)


class SlicesOfRequestsTests(SharesTestCase):
    def test_many_costly_requests_are_handled_in_slices(self) -> None:
        """Many requests that take a millisecond each are handled in slices, between which other connections have their
        turns, until all are answered."""
        handled: list[float] = []

        def status() -> dict[str, object]:
            handled.append(self.clock.seconds())
            self.clock.rightNow += 0.001
            return {}

        mock.patch.object(self.server, "status", status).start()
        self.addCleanup(mock.patch.stopall)
        begun = self.clock.seconds()
        self.protocol.dataReceived(b"STATUS\n" * 1_000)
        self.assertLess(self.clock.seconds() - begun, SLICE_SECONDS + 0.02)
        other, transport = self.connect()
        other.dataReceived(b"PING\n")
        self.assertEqual(transport.value(), b"OK\n")
        self.assertLess(len(handled), 100)
        for _ in range(1_000):
            self.iterate()
        self.assertEqual(self.transport.value().count(b"OK\n"), 1_000)

    def test_connection_whose_requests_cannot_be_handled_is_ended_alone(self) -> None:
        """A connection whose requests cannot be handled is ended alone, although the mistake comes in a turn of many
        connections."""
        self.ask("PING")
        other, transport = self.connect()
        self.factory.admission.worked(1.0)
        for each in (self.protocol, other):
            each.dataReceived(b"PING\n" * 200)
        with mock.patch.object(self.protocol, "split_requests", side_effect=RecursionError):
            for _ in range(10):
                self.iterate()
        self.assertEqual(len(self.flushLoggedErrors(RecursionError)), 1)
        self.assertEqual((self.transport.disconnecting, transport.disconnecting), (True, False))
        self.assertTrue(self.transport.value().endswith(DROPPED))
        self.assertEqual(transport.value(), b"OK\n" * 200)
        self.assertTrue(self.factory.admission.is_open)

    def test_connections_take_turns(self) -> None:
        """Two connections with many requests have their slices one after the other."""
        order: list[int] = []

        def status() -> dict[str, object]:
            self.clock.rightNow += 0.001
            return {}

        mock.patch.object(self.server, "status", status).start()
        self.addCleanup(mock.patch.stopall)
        other, _ = self.connect()
        for number, each in enumerate((self.protocol, other)):
            handle = each.handle_request
            each.handle_request = lambda request, n=number, h=handle: (order.append(n), h(request))[1]  # type: ignore
        for each in (self.protocol, other):
            each.dataReceived(b"STATUS\n" * 300)
        for _ in range(200):
            self.iterate()
        self.assertEqual((order.count(0), order.count(1)), (300, 300))
        changes = sum(a != b for a, b in pairwise(order))
        self.assertGreater(changes, 20)


class LargeRequestTests(SharesTestCase):
    def test_one_is_under_way_and_later_requests_wait_for_it(self) -> None:
        self.fill_keys()
        self.local_clients.hold = True
        self.protocol.dataReceived(b'RANGE "" "" limit=1000\nRANGE "" "" limit=1000\nGET key0001\n')
        self.iterate()
        self.assertEqual((len(self.local_clients.held), self.transport.producerState), (1, "paused"))
        for _ in range(3):
            self.local_clients.release(1)
            for _ in range(60):
                self.iterate()
        lines = [line[:14] for line in self.transport.value().splitlines() if line.startswith(b"OK")]
        self.assertEqual(lines, [b"OK count=1000"] * 2 + [b'OK value="xxxx'])

    def test_client_that_hangs_up_lets_others_have_their_turn(self) -> None:
        self.fill_keys()
        self.local_clients.hold = True
        self.protocol.dataReceived(b'RANGE "" "" limit=10000\n')
        other, transport = self.connect()
        other.dataReceived(b'RANGE "" "" limit=10000\n')
        self.iterate()
        self.assertEqual(len(self.local_clients.held), 1)
        self.protocol.connectionLost()
        self.iterate()
        self.iterate()
        self.assertEqual(len(self.local_clients.held), 2)
        self.assertEqual(transport.value(), b"")

    def test_turn_that_does_not_come_is_a_refusal(self) -> None:
        """A large request whose turn does not come is refused; if it is a command with a number, its fate is unknown,
        since it may have been sent before."""
        self.fill_keys()
        self.ask(f"APPEND big {'x' * 20_000}")
        self.ask(f"APPEND big {'x' * 20_000}")
        self.local_clients.hold = True
        self.protocol.dataReceived(b'RANGE "" "" limit=10000\n')
        others = [self.connect() for _ in range(3)]
        for (other, _), line in zip(others, ('KEYS "" "" limit=100', "#7 APPEND big x", "APPEND big x"), strict=True):
            other.dataReceived(line.encode() + b"\n")
        self.clock.advance(self.limits.request_seconds)
        said = [transport.value().decode().partition(" too ")[0] for _, transport in others]
        self.assertEqual(said, ["ERR BUSY fate=none", "#7 ERR BUSY fate=unknown", "ERR BUSY fate=none"])
        others[0][0].dataReceived(b"PING\n")
        self.assertTrue(others[0][1].value().endswith(b"\nOK\n"), "the connection goes on")

    def test_client_that_does_not_read_does_not_hold_the_turn_while_its_next_request_waits(self) -> None:
        """A client that does not read does not hold its turn while its next request waits for the reply that is being
        written."""
        self.fill_keys()
        for line in (b'RANGE "" "" limit=10000', b"HELLO alice", b"BYE"):
            client, _ = self.connect()
            client.dataReceived(b'RANGE "" "" limit=10000\n' + line + b"\n")
            for _ in range(2):
                self.iterate()
            self.assertTrue(client.replies.is_amid_reply)
            client.pauseProducing()
            other, transport = self.connect()
            other.dataReceived(b'KEYS "" "" limit=100\n')
            self.clock.advance(UNREAD_SECONDS)
            for _ in range(5):
                self.iterate()
            self.assertIn(b"OK count=100", transport.value())

    def test_client_that_reads_slowly_keeps_its_turn(self) -> None:
        """A client that reads slowly keeps its turn: otherwise the large replies of many clients would be in memory
        together."""
        self.fill_keys()
        client, _ = self.connect()
        client.dataReceived(b'RANGE "" "" limit=10000\n')
        for _ in range(2):
            self.iterate()
        client.pauseProducing()
        other, transport = self.connect()
        other.dataReceived(b'KEYS "" "" limit=100\n')
        self.clock.advance(0.9 * UNREAD_SECONDS)
        client.resumeProducing()
        client.pauseProducing()
        self.clock.advance(0.9 * UNREAD_SECONDS)
        self.iterate()
        self.assertEqual(transport.value(), b"")
        client.pauseProducing()  # Twisted tells again at each further write that the client does not read
        self.clock.advance(0.2 * UNREAD_SECONDS)
        self.iterate()
        self.assertIn(b"OK count=100", transport.value())

    def test_request_whose_verb_is_gone_when_its_turn_comes_is_refused(self) -> None:
        """A large request is refused if its verb is gone when its turn comes, since the cluster has changed its
        applications meanwhile."""
        self.local_clients.hold = True
        self.protocol.dataReceived(b'#1 SAY hello\n#2 RANGE "" "" limit=10000\n#3 PING\n')
        other, transport = self.connect()
        first, _ = self.connect()
        first.dataReceived(b'RANGE "" "" limit=10000\n')
        other.dataReceived(b'#2 RANGE "" "" limit=10000\n#3 PING\n')
        self.clock.advance(0)
        self.server.catalogue.switch([Chat()])
        self.local_clients.release(1)
        first.connectionLost()
        for _ in range(5):
            self.clock.advance(0)
        for each in (self.transport, transport):
            *_, refused, last = self.said(each)
            self.assertTrue(refused.startswith("#2 ERR UNKNOWN fate=none "), refused)
            self.assertEqual(last, "#3 OK")

    def test_nothing_is_written_behind_a_reply_that_is_cut(self) -> None:
        """Nothing is written behind a reply that was cut when the connection of a client that does not read was ended,
        although a lock is granted and a line is said."""
        self.fill_keys()
        other, _ = self.connect()
        self.ask("LOCK door", to=other)
        self.ask("LISTEN")
        self.protocol.dataReceived(b'LOCK door\nRANGE "" "" limit=1000\nRANGE "" "" limit=1000\n')
        self.iterate()
        self.iterate()
        self.protocol.pauseProducing()
        self.assertFalse(self.transport.aborted)
        self.protocol.leave()
        written = self.transport.value()
        self.assertNotIn(b"OK count=1000", written)
        self.ask("UNLOCK door\nSAY hello", to=other)
        self.clock.advance(1.0)
        self.assertEqual(self.transport.value(), written)


class UnreadTests(SharesTestCase):
    limits = Limits(unread_bytes=UNREAD_BYTES)

    def test_results_that_wait_for_a_reader_count_for_all(self) -> None:
        """If the results that wait for all clients exceed the limit, the client is dropped that has read nothing for
        the longest time."""
        self.ask(f"PUT big {'x' * 30_000}")
        self.local_clients.hold = True
        clients: list[tuple[LineProtocol, Transport]] = [self.connect() for _ in range(4)]
        for protocol, _ in clients:
            protocol.dataReceived(b"GET big\n" * 10)
            self.clock.advance(0)
            protocol.pauseProducing()
        self.local_clients.release()
        self.clock.advance(0)
        self.assertEqual([transport.aborted for _, transport in clients], [True, False, False, False])
        self.assertLess(self.factory.shared.unread.held_bytes, UNREAD_BYTES)
        self.assertEqual([len(transport.value()) for _, transport in clients], [0, 0, 0, 0])
        protocol, transport = clients[1]
        protocol.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(transport.value().count(b"OK value="), 10)

    def test_client_that_reads_nothing_for_long_is_told_why_it_is_dropped(self) -> None:
        self.protocol.pauseProducing()
        for _ in range(30):
            self.clock.advance(1.0)
        self.assertRegex(self.transport.value(), b'^\\* DROPPED text=".*limits.unread_seconds.*"\n$')
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.protocol in self.factory.connections and not self.transport.aborted)


class AddressSessionsTests(LineTestCase):
    limits = Limits(address_sessions=1)

    def test_commands_are_handled_after_a_hello_that_found_room_again(self) -> None:
        """Commands behind a HELLO that is accepted are handled, although a HELLO before it was refused, since the
        address had too many sessions."""
        other, _ = self.connect()
        self.ask("HELLO alice", to=other)
        self.assertIn("ERR BUSY", self.reply("HELLO bob"))
        self.assertIn("ERR NOSESSION", self.reply("PUT a b"))
        del self.server.cluster.sessions["alice"]
        self.clock.advance(CLEAN_SECONDS)
        self.assertIn("OK client=", self.reply("HELLO bob"))
        self.assertIn("OK ", self.reply("PUT a b"))
