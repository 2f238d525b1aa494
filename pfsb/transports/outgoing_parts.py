"""Frames that are on their way to one peer in parts, because they are larger than a datagram of the path.

Departure 46: a message that the protocol sends again while its former copy is still on its way in parts is not sent a
second time. The parts that are missing are repeated instead, until the peer has them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain
from math import inf
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES, tag_of
from pfsb.transports.notices import FIRST_TIME, PART_HEADER_BYTES, UNHEARD, Part, Report
from pfsb.transports.path_round_trip import LONGEST_SECONDS
from pfsb.transports.path_size import BASE_BYTES, PathSize

QUEUE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Maximum number of bytes, of whole frames, that wait for one peer or are on their way to it; more are lost."""
WINDOW_BYTES_MIN: Final = FRAME_BYTES_MAX
"""Smallest size, in bytes, of the window (`OutgoingParts`): one frame of any size may always be on its way."""
WINDOW_BYTES_MAX: Final = 1024 * 1024
"""Largest size, in bytes, of the window; the receiver keeps at least as many bytes of incomplete frames
(`reassembly.KEPT_BYTES_MAX`)."""
WINDOW_STEP_BYTES: Final = 8 * 1024
"""Number of bytes by which the window grows with each frame that has arrived, after the first loss."""
ARRIVED_MAX: Final = 64
"""Maximum number of frames that are remembered as arrived at the peer (`OutgoingParts._arrived`)."""
TRIES_MAX: Final = 7
"""Number of times that a frame on its way is repeated, in part or whole, without any progress, before it is given up.

With the doubled waits between them this takes some seconds. If the messages are still needed, the protocol sends them
again.
"""


@define(eq=False)
class Transfer:
    """One frame that is on its way to a peer in parts."""

    frame: bytes
    largest: int
    """Size, in bytes, of the datagrams in which the parts were sent first."""
    sent_at: float
    due: float
    """Time by the clock, in seconds, at which a piece of the frame is sent again to make the peer report, if no report
    on this frame comes before."""
    missing: int
    """Lowest number of missing bytes that the peer has reported; before the first report, the size of the frame."""
    tries: int = 0
    is_repeated: bool = False
    is_known: bool = False
    """Whether the peer has reported on this frame."""


@define(eq=False)
class OutgoingParts:
    """The frames that one peer is sent in parts: those on their way, and those that wait. The window is the number of
    bytes of frames that may be on their way at once.

    The window follows the losses as that of TCP does: it doubles with each round trip until the first loss, is halved
    when parts are lost, at most once in a round trip, and grows by small steps from then on.
    """

    _clock: IReactorTime
    _path_size: PathSize
    _send_part: Callable[[Part], object]
    """Sends one part in one datagram."""
    _given_up: Callable[[], None]
    """Called for each frame that is given up: because the peer does not report the frame as complete, or because too
    many bytes wait for the peer already."""
    due: float = field(init=False, default=inf)
    """Time by the clock, in seconds, at which `tick` has something to do; infinite: no frame is on its way."""
    _transfers: dict[bytes, Transfer] = field(init=False, factory=dict)
    """Tag of a frame -> the frame on its way."""
    _waiting: deque[bytes] = field(init=False, factory=deque)
    _arrived: deque[tuple[bytes, float]] = field(init=False, factory=lambda: deque(maxlen=ARRIVED_MAX))
    """The frames that have last arrived at the peer, each with the time until which the protocol's answer to it may be
    on its way back."""
    _waiting_bytes: int = field(init=False, default=0)
    _bytes_on_way: int = field(init=False, default=0)
    window: int = field(init=False, default=WINDOW_BYTES_MIN)
    """Maximum number of bytes of frames that are on their way at the same time; a single frame may have more."""
    _has_lost: bool = field(init=False, default=False)
    _shut_at: float = field(init=False, default=-inf)
    """Time by the clock, in seconds, at which the window was last made smaller."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nothing is on its way."""
        return not self._transfers and not self._waiting

    def send(self, frame: bytes) -> None:
        """Send a frame in parts, now or when the frames before it have arrived.

        Departure 46: a frame whose messages are on their way already, or wait, or have arrived so recently that the
        peer's answer may still be on its way, is not sent. A frame that finds too many bytes waiting is lost.
        """
        if self.is_on_way(frame):
            return
        if self._waiting_bytes + self._bytes_on_way + len(frame) > QUEUE_BYTES_MAX:
            self._given_up()
            return
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        self._send_waiting()

    def reported(self, report: Report) -> None:
        """Take in a report of the peer: send again the bytes that it misses; if it misses none, the whole frame has
        arrived."""
        transfer = self._transfers.get(report.tag)
        if transfer is None:
            return
        transfer.is_known = True
        if report.missing:
            self._repeat_missing(transfer, report)
            self._send_waiting()
            return
        if not transfer.is_repeated:
            self._path_size.round_trip.observe(self._clock.seconds() - transfer.sent_at)
            self._path_size.proved(transfer.largest)
            step = WINDOW_STEP_BYTES if self._has_lost else len(transfer.frame)
            self.window = min(self.window + step, WINDOW_BYTES_MAX)
        self._arrived.append((transfer.frame, self._clock.seconds() + self._path_size.round_trip.seconds))
        self._forget(report.tag)
        self._send_waiting()

    def tick(self) -> None:
        """Repeat a piece of each frame of which nothing was heard in time, so that the peer reports on it."""
        now = self._clock.seconds()
        if now < self.due:
            return
        for tag, transfer in list(self._transfers.items()):
            if transfer.due <= now and tag in self._transfers:
                self._repeat_unheard(transfer, tag)
        self._send_waiting()

    def clear(self) -> None:
        """Forget everything: the peer's process is gone, or this server stops."""
        self._transfers.clear()
        self._waiting.clear()
        self._arrived.clear()
        self._bytes_on_way = self._waiting_bytes = 0
        self.due = inf

    def is_on_way(self, frame: bytes) -> bool:
        """Whether a frame with the same messages is on its way, waits, or has just arrived.

        Only the bodies are compared: two frames with the same messages have different headers.
        """
        body = frame[OVERHEAD_BYTES:]
        now = self._clock.seconds()
        arrived = (other for other, until in self._arrived if now < until)
        others = chain((transfer.frame for transfer in self._transfers.values()), self._waiting, arrived)
        return any(len(other) == len(frame) and other.endswith(body) for other in others)

    def _send_waiting(self) -> None:
        while self._waiting and (not self._transfers or self._bytes_on_way + len(self._waiting[0]) <= self.window):
            frame = self._waiting.popleft()
            self._waiting_bytes -= len(frame)
            self._bytes_on_way += len(frame)
            self._begin(frame)
        self.due = min((transfer.due for transfer in self._transfers.values()), default=inf)

    def _begin(self, frame: bytes) -> None:
        now, size = self._clock.seconds(), self._path_size.size
        wait = self._path_size.round_trip.seconds
        tag = tag_of(frame)
        self._transfers[tag] = Transfer(frame, size, now, now + wait, len(frame))
        self._send_range(frame, 0, len(frame), size, FIRST_TIME)

    def _repeat_missing(self, transfer: Transfer, report: Report) -> None:
        now, missing = self._clock.seconds(), report.missing
        count = sum(after - first for first, after in missing)
        if missing[-1][1] > len(transfer.frame):
            return
        if count < transfer.missing:
            transfer.tries, transfer.missing = 0, count
        else:
            transfer.tries += 1
        if transfer.tries > TRIES_MAX:
            self._give_up(report.tag)
            return
        if transfer.largest > BASE_BYTES and count > len(transfer.frame) // 2:
            self._path_size.doubt()
        self._narrow_window(now)
        transfer.is_repeated = True
        transfer.due = now + self._wait(transfer)
        for first, after in missing:
            self._send_range(transfer.frame, first, after, self._repeat_size, report.number)

    def _repeat_unheard(self, transfer: Transfer, tag: bytes) -> None:
        transfer.tries += 1
        if transfer.tries > TRIES_MAX:
            self._give_up(tag)
            return
        self._path_size.doubt()
        transfer.is_repeated = True
        transfer.due = self._clock.seconds() + self._wait(transfer)
        size = self._repeat_size
        self._send_range(transfer.frame, 0, min(_room(size), len(transfer.frame)), size, UNHEARD)

    @property
    def _repeat_size(self) -> int:
        """Size of the datagrams of repeated parts: one that passes even if the path has become narrower."""
        return min(self._path_size.size, BASE_BYTES)

    def _wait(self, transfer: Transfer) -> float:
        """How long, in seconds, to wait for an answer of the peer; doubled with each try without progress."""
        return min(self._path_size.round_trip.seconds * 2.0**transfer.tries, LONGEST_SECONDS)

    def _send_range(self, frame: bytes, first: int, after: int, size: int, answers: int) -> None:
        tag, room = tag_of(frame), _room(size)
        for offset in range(first, after, room):
            self._send_part(Part(tag, len(frame), offset, answers, frame[offset : min(offset + room, after)]))

    def _narrow_window(self, now: float) -> None:
        if now - self._shut_at >= self._path_size.round_trip.seconds:
            self.window = max(self.window // 2, WINDOW_BYTES_MIN)
            self._has_lost, self._shut_at = True, now

    def _give_up(self, tag: bytes) -> None:
        """Give up a frame that is on its way. If the peer has never reported on it, all frames that wait are given up,
        too: they would not arrive either."""
        is_deaf = not self._transfers[tag].is_known
        self._forget(tag)
        self._given_up()
        if is_deaf:
            for _frame in self._waiting:
                self._given_up()
            self._waiting.clear()
            self._waiting_bytes = 0

    def _forget(self, tag: bytes) -> None:
        self._bytes_on_way -= len(self._transfers.pop(tag).frame)


def _room(size: int) -> int:
    """Number of bytes of a frame that a part has room for, in a datagram of `size` bytes."""
    return size - OVERHEAD_BYTES - PART_HEADER_BYTES
