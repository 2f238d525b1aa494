"""One server's end of the path to one peer: how large a datagram may be, and frames that travel in parts.

One timer serves all that a path does in time: it repeats probes of the size and parts of frames, and reports which
parts are missing. The timer does not run while no frame is in parts and no probe is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, assert_never

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES, FrameCodec, tag_of
from pfsb.transports.notices import Echo, Notice, Part, Probe, Report
from pfsb.transports.outgoing_parts import OutgoingParts
from pfsb.transports.path_round_trip import PathRoundTrip
from pfsb.transports.path_size import FLOOR_BYTES, PathSize
from pfsb.transports.reassembly import Reassembly

_SOON_SECONDS: Final = 0.001
"""Shortest time, in seconds, for which the timer is set."""


@define
class PathCounters:
    """Counts of notices and of frames in parts, over the paths of one server to all its peers, since its start."""

    parts_out: int = 0
    """Number of parts sent, those included that were sent again."""
    parts_in: int = 0
    repeated: int = 0
    """Number of parts sent again, because the peer has reported that they are missing or has not reported at all."""
    whole_in: int = 0
    """Number of frames whose parts have all come."""
    given_up: int = 0
    """Number of frames, too large for one datagram, that were given up: the peer did not report that all parts had
    arrived, or too many bytes waited for the peer already."""
    shrunk: int = 0
    """Number of times that a path no longer carried datagrams of the size that it had carried."""
    datagram_bytes: dict[int, int] = field(factory=dict)
    """Server id of a peer on another machine -> size, in bytes, of the largest datagram that it is sent at present."""


@define(eq=False)
class Path:
    """The path to one peer. `size` is that of the largest datagram; it changes only after `measure` was called."""

    log = Logger()

    peer: int
    _clock: IReactorTime
    _codec: FrameCodec
    _send_datagram: Callable[[bytes], None]
    counters: PathCounters
    is_measured: bool = field(init=False, default=False)
    """Whether the size of the datagrams is found by probes; otherwise every frame is sent in one datagram."""
    _round_trip: PathRoundTrip = field(init=False, factory=PathRoundTrip)
    path_size: PathSize = field(init=False)
    """Finds the size of the datagrams; another object after each `measure`."""
    outgoing: OutgoingParts = field(init=False)
    """Sends the frames that are larger than a datagram; another object after each `measure`."""
    reassembly: Reassembly = field(init=False)
    """Puts frames together whose parts come from the peer."""
    _timer: IDelayedCall | None = field(init=False, default=None)

    @path_size.default
    def _make_size(self) -> PathSize:
        return PathSize(self._clock, self._round_trip, self._send_probe, FRAME_BYTES_MAX, self._tell_size)

    @outgoing.default
    def _make_outgoing(self) -> OutgoingParts:
        return OutgoingParts(self._clock, self.path_size, self._send_part, self._count_given_up)

    @reassembly.default
    def _make_reassembly(self) -> Reassembly:
        return Reassembly(self._clock, self._round_trip, self.send_notice)

    @property
    def size(self) -> int:
        """Maximum size, in bytes, of a datagram to this peer, as far as is known."""
        return self.path_size.size if self.is_measured else FRAME_BYTES_MAX

    @property
    def kept_bytes(self) -> int:
        """Number of bytes in memory for the incomplete frames of this peer, counted as if they were complete."""
        return self.reassembly.kept_bytes

    def measure(self, most: int = FRAME_BYTES_MAX) -> None:
        """From now on, find out by probes how large a datagram the path carries, and send none that is larger, or
        larger than `most` bytes.

        Frames that wait or are on their way in parts are forgotten.
        """
        self.is_measured = True
        self.path_size = PathSize(self._clock, self._round_trip, self._send_probe, most, self._tell_size)
        self.counters.datagram_bytes[self.peer] = self.path_size.size
        self.outgoing.clear()
        self.outgoing = self._make_outgoing()

    def carry_whole(self) -> None:
        """From now on, send every frame in one piece. Frames that wait or are on their way in parts are forgotten."""
        self.is_measured = False
        self.counters.datagram_bytes.pop(self.peer, None)
        self.outgoing.clear()
        self.path_size = self._make_size()
        self.outgoing = self._make_outgoing()

    # -- out --------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send a frame: in one datagram if the path carries that, else in parts."""
        size = self.path_size.size
        if len(frame) <= size:
            self._send_datagram(frame)
            if len(frame) > FLOOR_BYTES:
                self.path_size.used()
                self._set_timer()
            return
        # The probes go first: on an idle path their answers come back before the parts are needed again.
        self.path_size.larger_wanted()
        self.send_in_parts(frame)

    def send_in_parts(self, frame: bytes) -> None:
        """Send a frame in parts, whatever its size, behind the frames that are sent in parts already."""
        self.outgoing.send(frame)
        self._set_timer()

    def larger_wanted(self) -> None:
        """Search for a larger size of datagrams: messages were sent in several frames that one larger datagram could
        have carried."""
        self.path_size.larger_wanted()
        self._set_timer()

    def peer_is_down(self) -> None:
        """Forget all frames and probes that were to be sent: no process listens at the peer's address."""
        self.outgoing.clear()

    def refused(self, size: int, limit: int) -> None:
        """Take in that this machine has refused to send a datagram of `size` bytes; it sends at most `limit` bytes."""
        self.path_size.refused(size, limit)
        self._set_timer()

    def doubt(self) -> None:
        """Find out by probes whether the path still carries datagrams of the present size: a router has said that one
        was too large."""
        if self.is_measured:
            self.path_size.doubt()
            self._set_timer()

    def stop(self) -> None:
        """Forget all frames and probes, and send nothing more."""
        self.outgoing.clear()
        self.reassembly.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- in ---------------------------------------------------------------------------------------

    def arrived(self, notice: Notice, frame: bytes) -> bytes | None:
        """Take in a notice that came in this frame. Returns a frame whose parts have all come, or None.

        Raises `Malformed` for a part that cannot belong to a frame.
        """
        whole = None
        match notice:
            case Part():
                self.counters.parts_in += 1
                whole = self.reassembly.arrived(notice)
                self.counters.whole_in += whole is not None
            case Report():
                self.outgoing.reported(notice)
            case Probe():
                self.send_notice(Echo(tag_of(frame)))
            case Echo():
                self.path_size.answered(notice.tag)
            case _:
                assert_never(notice)
        self._set_timer()
        return whole

    # -- inside -----------------------------------------------------------------------------------

    def send_notice(self, notice: Notice) -> bytes:
        """Send a notice, and return its frame."""
        frame = self._codec.seal_notice(notice)
        self._send_datagram(frame)
        return frame

    def _send_part(self, part: Part) -> None:
        self.counters.parts_out += 1
        self.counters.repeated += part.answers > 0
        self.send_notice(part)

    def _send_probe(self, size: int) -> bytes:
        """Send a probe of `size` bytes, and return its tag."""
        return tag_of(self.send_notice(Probe(size - OVERHEAD_BYTES)))

    def _count_given_up(self) -> None:
        self.counters.given_up += 1

    def _tell_size(self, before: int, now: int) -> None:
        self.counters.datagram_bytes[self.peer] = now
        self.counters.shrunk += now < before
        text = "datagrams to server {peer} have at most {now} bytes now, which is what the path is known to carry"
        if now < before:
            text = "the path to server {peer} carries no datagrams of {before} bytes any more; now at most {now} bytes"
        self.log.info(text, peer=self.peer, before=before, now=now)

    def _set_timer(self) -> None:
        """Set the timer to the time at which the next probe, part or report is due, unless it is set to an earlier
        time."""
        due = min(self.path_size.due, self.outgoing.due, self.reassembly.due)
        if due == inf or (self._timer is not None and self._timer.getTime() <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(max(due - self._clock.seconds(), _SOON_SECONDS), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.path_size.tick()
        self.outgoing.tick()
        self.reassembly.tick()
        self._set_timer()
