"""Frames that come from one peer in parts: they are put together, and their missing bytes are asked for."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES
from pfsb.transports.notices import FIRST_TIME, RANGES_MAX, REPORT_NUMBER_MAX, Part, Report
from pfsb.transports.path_round_trip import LONGEST_SECONDS, PathRoundTrip
from pfsb.transports.wire import Malformed

KEPT_BYTES_MAX: Final = 2 * 1024 * 1024
"""Maximum number of bytes in memory for the incomplete frames of one peer, each counted with the size that it has when
complete. A sender has at most `outgoing_parts.WINDOW_BYTES_MAX` bytes on their way in parts, which is less, so that no
frame of an honest sender is dropped for want of room."""
HOLES_MAX: Final = 200
"""Maximum number of ranges that may be missing from one frame; with more it is dropped. An honest sender cuts a frame
into fewer parts."""
COMPLETE_MAX: Final = 1_024
"""Maximum number of complete frames that are remembered for one peer, to tell it again that they have come."""
REPORT_SECONDS: Final = 0.01
"""Shortest time, in seconds, without a further part after which missing bytes are asked for, and shortest time between
two reports that the same frame is complete."""
REPORTS_MAX: Final = 8
"""Number of reports about one frame without a further part of it, after which the receiver asks no more."""
KEPT_SECONDS: Final = 15.0
"""How long, in seconds, an incomplete frame is kept without a further part; longer than a sender goes on repeating
it."""


@define(eq=False)
class Assembly:
    """A frame of which some parts have come."""

    content: bytearray
    missing: list[tuple[int, int]]
    arrived_at: float
    """Time by the clock, in seconds, at which the latest part has come."""
    due: float
    """Time by the clock, in seconds, at which missing bytes are asked for, if no part comes before; after the last
    report, the time at which the frame is dropped."""
    gap: float = 0.0
    """Longest time, in seconds, from the arrival of one part to that of the next, where the next was sent for the first
    time."""
    reports: int = 0
    """Number of reports of the missing parts that were sent to the peer since its latest part came."""
    number: int = 0
    """The number that the latest report about this frame carries (`Report.number`); 0: there was none."""
    asked_at: float = inf
    """Time by the clock at which the latest report was sent; infinity if a part has answered it."""


@define(eq=False)
class Reassembly:
    """The incomplete frames of one peer. Each part comes here only after the frame that has brought it was checked."""

    _clock: IReactorTime
    _round_trip: PathRoundTrip
    _send_report: Callable[[Report], object]
    """Sends the peer a report about one frame."""
    due: float = field(init=False, default=inf)
    """Time by the clock, in seconds, at which `tick` has something to do."""
    kept_bytes: int = field(init=False, default=0)
    _assemblies: dict[bytes, Assembly] = field(init=False, factory=dict)
    """Tag of an incomplete frame -> its parts so far."""
    _complete: dict[bytes, float] = field(init=False, factory=dict)
    """Tag of a complete frame -> time at which the peer was last told that it is complete."""

    def arrived(self, part: Part) -> bytes | None:
        """Take in a part. Returns the whole frame, once, when its last missing part has come, and otherwise None.

        Raises `Malformed` if the part cannot belong to a frame.
        """
        now = self._clock.seconds()
        if part.tag in self._complete:
            self._report_again(part.tag, now)
            return None
        if not OVERHEAD_BYTES <= part.size <= FRAME_BYTES_MAX:
            raise Malformed(f"a part of a frame of {part.size} bytes; one has {OVERHEAD_BYTES} to {FRAME_BYTES_MAX}")
        assembly = self._assemblies.get(part.tag) or self._begin(part, now)
        if len(assembly.content) != part.size:
            raise Malformed(f"a part says that its frame has {part.size} bytes, others said {len(assembly.content)}")
        self._note_time(assembly, part.answers, now)
        _fill(assembly, part.offset, part.piece)
        if assembly.missing:
            if len(assembly.missing) > HOLES_MAX:
                self._drop(part.tag)
            self.due = min(self.due, assembly.due)
            return None
        self._drop(part.tag)
        self._remember(part.tag, now)
        self._send_report(Report(part.tag, 0, ()))
        return bytes(assembly.content)

    def tick(self) -> None:
        """Ask for the missing bytes of frames of which no part has come for a while; drop frames that are too old."""
        now = self._clock.seconds()
        if now < self.due:
            return
        for tag, assembly in list(self._assemblies.items()):
            if assembly.due <= now:
                self.ask(tag, assembly, now)
        self.due = min((assembly.due for assembly in self._assemblies.values()), default=inf)

    def clear(self) -> None:
        """Drop all incomplete frames: this server stops."""
        self._assemblies.clear()
        self.kept_bytes, self.due = 0, inf

    def make_room(self, size: int) -> None:
        """Drop the frames of which no part has come for longest, until a frame of `size` bytes can be kept as well."""
        while self._assemblies and self.kept_bytes + size > KEPT_BYTES_MAX:
            self._drop(min(self._assemblies, key=lambda tag: self._assemblies[tag].arrived_at))

    def _begin(self, part: Part, now: float) -> Assembly:
        self.make_room(part.size)
        self.kept_bytes += part.size
        assembly = Assembly(bytearray(part.size), [(0, part.size)], now, now)
        self._assemblies[part.tag] = assembly
        return assembly

    def _note_time(self, assembly: Assembly, answers: int, now: float) -> None:
        if answers == FIRST_TIME:
            assembly.gap = max(assembly.gap, now - assembly.arrived_at)
        elif answers == assembly.number and assembly.asked_at < inf:
            self._round_trip.observe(now - assembly.asked_at)
            assembly.asked_at = inf
        assembly.arrived_at, assembly.reports = now, 0
        assembly.due = now + min(max(4 * assembly.gap, REPORT_SECONDS), LONGEST_SECONDS)

    def ask(self, tag: bytes, assembly: Assembly, now: float) -> None:
        """Send the peer a report of the bytes that are missing from an incomplete frame, and set the time at which the
        frame is due again.

        `tag` is the tag in the header of the whole frame, which its parts and reports carry to name it; `now` is the
        time by the clock, in seconds. If `REPORTS_MAX` reports have brought no further part, no report is sent: the
        frame is then due, and dropped, `KEPT_SECONDS` after its latest part.
        """
        if assembly.reports >= REPORTS_MAX:
            if now - assembly.arrived_at >= KEPT_SECONDS:
                self._drop(tag)
            else:
                assembly.due = assembly.arrived_at + KEPT_SECONDS
            return
        assembly.reports += 1
        assembly.asked_at = now
        assembly.number = assembly.number % REPORT_NUMBER_MAX + 1
        assembly.due = now + min(self._round_trip.seconds * 2.0 ** (assembly.reports - 1), LONGEST_SECONDS)
        self._send_report(Report(tag, assembly.number, tuple(assembly.missing[:RANGES_MAX])))

    def _report_again(self, tag: bytes, now: float) -> None:
        if now - self._complete[tag] >= REPORT_SECONDS:
            self._complete[tag] = now
            self._send_report(Report(tag, 0, ()))

    def _remember(self, tag: bytes, now: float) -> None:
        if len(self._complete) >= COMPLETE_MAX:
            del self._complete[next(iter(self._complete))]
        self._complete[tag] = now

    def _drop(self, tag: bytes) -> None:
        self.kept_bytes -= len(self._assemblies.pop(tag).content)


def _fill(assembly: Assembly, first: int, piece: bytes) -> None:
    """Put a piece in its place, which begins at byte `first` of the frame, and take its bytes out of those that are
    missing."""
    after = first + len(piece)
    assembly.content[first:after] = piece
    left: list[tuple[int, int]] = []
    for low, high in assembly.missing:
        if after <= low or high <= first:
            left.append((low, high))
            continue
        if low < first:
            left.append((low, first))
        if after < high:
            left.append((after, high))
    assembly.missing = left
