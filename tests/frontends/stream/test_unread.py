"""Output that clients leave unread: the maximum for all clients together, and the time after which a client is
dropped."""

from __future__ import annotations

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.frontends.stream import unread
from pfsb.frontends.stream.unread import LOOK_SECONDS, UnreadOutput, bytes_under_way

BYTES_MAX = 1_000
SECONDS_MAX = 5.0


class FakeReader:
    def __init__(self, address: str) -> None:
        self.address = address
        self.left = 100
        self.dropped: list[bool] = []
        """For each time that the reader was dropped: whether at once."""

    def bytes_to_read(self) -> int:
        return self.left

    def drop(self, reason: str, *, at_once: bool) -> None:
        assert "limits.unread_" in reason
        self.dropped.append(at_once)


class UnreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.unread = UnreadOutput(self.clock, BYTES_MAX, SECONDS_MAX)

    def reader(self, address: str, held_bytes: int, reads: bool = False) -> FakeReader:
        found = FakeReader(address)
        if not reads:
            self.unread.stops_reading(found)
        self.unread.hold(found, held_bytes)
        return found

    def test_address_with_the_most_loses_the_client_that_has_waited_longest(self) -> None:
        other = self.reader("b", 300)
        first, second = self.reader("a", 350), self.reader("a", 300)
        third = self.reader("a", 100)
        self.assertEqual([each.dropped for each in (other, first, second, third)], [[], [True], [], []])
        self.assertEqual(self.unread.held_bytes, 700)
        self.assertEqual(self.unread.dropped, {unread.CROWDED: 1})

    def test_client_that_reads_is_dropped_last(self) -> None:
        reading, waiting = self.reader("a", 600, reads=True), self.reader("b", 300)
        self.unread.hold(reading, 701)
        self.assertEqual((reading.dropped, waiting.dropped), ([], [True]))
        self.unread.hold(reading, 2_000)
        self.assertEqual(reading.dropped, [])
        self.unread.hold(reading, 2_001)
        self.assertEqual(reading.dropped, [True])
        self.assertEqual(self.unread.held_bytes, 0)

    def test_thousands_are_dropped_at_once(self) -> None:
        """Clients with few bytes each are dropped, as many as are needed to make room for the new one, perhaps
        thousands."""
        many = [self.reader("a", 1) for _ in range(1_000)]
        self.reader("b", 400)
        self.assertEqual(sum(bool(each.dropped) for each in many), 400)

    def test_what_is_held_no_more_does_not_count(self) -> None:
        gone, back = self.reader("a", 500), self.reader("a", 400)
        self.unread.forget(gone)
        self.unread.hold(back, 0)
        self.assertEqual(self.unread.held_bytes, 0)
        self.unread.forget(back)
        self.assertFalse(self.reader("a", 1_000).dropped)

    def test_client_that_reads_nothing_is_dropped_in_time(self) -> None:
        """A client that reads nothing is dropped in time; one that reads a little now and then is not."""
        silent, slow, gone = self.reader("a", 10), self.reader("a", 10), self.reader("a", 10)
        self.unread.reads(gone)
        for _ in range(int(3 * SECONDS_MAX / LOOK_SECONDS)):
            slow.left -= 1
            self.clock.advance(LOOK_SECONDS)
        self.assertEqual([each.dropped for each in (silent, slow, gone)], [[False], [], []])
        self.unread.forget(slow)
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_that_reads_nothing_is_dropped_although_the_server_writes(self) -> None:
        silent = self.reader("a", 10)
        for _ in range(int(SECONDS_MAX / LOOK_SECONDS)):
            self.clock.advance(LOOK_SECONDS)
            silent.left += 1
            self.unread.stops_reading(silent)
        self.assertEqual(silent.dropped, [False])

    def test_log_has_few_lines_about_many_clients(self) -> None:
        from twisted.logger import globalLogPublisher

        lines: list[object] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        for _ in range(100):
            self.reader("a", 2 * BYTES_MAX)
        self.assertEqual(len(lines), 1)

    def test_bytes_that_the_kernel_holds_count(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)

        class Transport:
            dataBuffer = b"abcdef"
            offset = 2
            _tempDataLen = 3

            def getHandle(self) -> socket.socket:
                return ours

        self.assertEqual(bytes_under_way(Transport()), 7)
        ours.send(b"x" * 500)
        self.assertGreaterEqual(bytes_under_way(Transport()), 507)
        theirs.recv(500)
        self.assertEqual(bytes_under_way(Transport()), 7)
