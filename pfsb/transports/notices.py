"""Notices: the frames that the transports of two servers send each other for themselves, and never hand up.

A frame that is larger than a datagram of the path travels in parts (`Part`), and its receiver reports which bytes of it
are missing (`Report`). A probe (`Probe`) of a certain size is answered by an echo (`Echo`) if the path carries that
size. docs/internals/formats.rst defines the bodies byte by byte. A notice refers to another frame by the tag of that
frame, which differs from the tags of all other frames.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from pfsb.transports.wire import Malformed

TYPE_PART: Final = 2
TYPE_REPORT: Final = 3
TYPE_PROBE: Final = 4
TYPE_ECHO: Final = 5

TAG_BYTES: Final = 16
"""Size, in bytes, of the tag of a frame."""
RANGES_MAX: Final = 40
"""Maximum number of ranges of missing bytes in one report: with this number of ranges, a report still fits the smallest
datagram (`FLOOR_BYTES`)."""

_PART: Final = struct.Struct(">16sIIB")
_REPORT: Final = struct.Struct(">16sB")
_RANGE: Final = struct.Struct(">II")
PART_HEADER_BYTES: Final = _PART.size
"""Bytes of the body of a part in addition to its piece of the frame."""

REPORT_NUMBER_MAX: Final = 254
"""Highest number of a `Report`, which tells the sender of a frame in parts which bytes are missing. Reports about one
frame are numbered from 1 on, and begin with 1 again after this number."""
FIRST_TIME: Final = 0
"""Value of `Part.answers` in a part that is sent for the first time."""
UNHEARD: Final = 255
"""Value of `Part.answers` in a part that is sent again because no report has come: it asks the peer for one."""

Ranges = tuple[tuple[int, int], ...]
"""Ranges of bytes of a frame: pairs of the first byte and the byte after the last one, ascending."""


class Part(NamedTuple):
    """A piece of a frame that is too large for one datagram."""

    tag: bytes
    """Tag of the whole frame."""
    size: int
    """Size, in bytes, of the whole frame."""
    offset: int
    """Place of the first byte of the piece in the whole frame."""
    answers: int
    """Number of the report that has asked for the piece; or `FIRST_TIME` or `UNHEARD`, if none has."""
    piece: bytes

    def body(self) -> bytes:
        return _PART.pack(self.tag, self.size, self.offset, self.answers) + self.piece


class Report(NamedTuple):
    """The answer of the receiver of parts: the bytes of a frame that it misses. No ranges: the frame is complete."""

    tag: bytes
    """Tag of the whole frame."""
    number: int
    """Number of the report, from 1 on for each frame; the parts that are sent in answer carry it. 0: the frame is
    complete."""
    missing: Ranges

    def body(self) -> bytes:
        return _REPORT.pack(self.tag, self.number) + b"".join(_RANGE.pack(*missing) for missing in self.missing)


class Probe(NamedTuple):
    """A frame that is filled to a certain size, in bytes, to learn whether the path carries that size."""

    filling: int
    """Number of zero bytes in the body."""

    def body(self) -> bytes:
        return bytes(self.filling)


class Echo(NamedTuple):
    """The answer to a probe."""

    tag: bytes
    """Tag of the frame of the probe."""

    def body(self) -> bytes:
        return self.tag


Notice = Part | Report | Probe | Echo

TYPE_OF: Final[dict[type[Notice], int]] = {
    Part: TYPE_PART,
    Report: TYPE_REPORT,
    Probe: TYPE_PROBE,
    Echo: TYPE_ECHO,
}
"""Class of a notice -> type in the header of its frame."""


def decode_notice(frame_type: int, body: bytes) -> Notice:
    """Decode the body of a notice; `frame_type`, a value of `TYPE_OF`, says which kind of notice it is.

    Raises `Malformed` if the bytes are no body of that kind.
    """
    if frame_type == TYPE_PART:
        return _part(body)
    if frame_type == TYPE_REPORT:
        return decode_report(body)
    if frame_type == TYPE_PROBE:
        return Probe(len(body))
    if frame_type == TYPE_ECHO and len(body) == TAG_BYTES:
        return Echo(body)
    raise Malformed(f"an echo has a body of {TAG_BYTES} bytes, not of {len(body)}")


def _part(body: bytes) -> Part:
    if len(body) <= _PART.size:
        raise Malformed(f"the body of a part has more than {_PART.size} bytes, not {len(body)}")
    tag, size, offset, answers = _PART.unpack_from(body)
    piece = body[_PART.size :]
    if offset + len(piece) > size:
        raise Malformed(f"a part of {len(piece)} bytes at {offset} reaches beyond its frame of {size} bytes")
    return Part(tag, size, offset, answers, piece)


def decode_report(body: bytes) -> Report:
    """Return the report in the body of its frame. Raises `Malformed` if the body is none."""
    count, rest = divmod(len(body) - _REPORT.size, _RANGE.size)
    if rest or not 0 <= count <= RANGES_MAX:
        raise Malformed(f"a report has {_REPORT.size} bytes and at most {RANGES_MAX} ranges of {_RANGE.size} bytes")
    tag, number = _REPORT.unpack_from(body)
    ranges = tuple(_RANGE.iter_unpack(body[_REPORT.size :]))
    if (number == 0) != (not ranges):
        raise Malformed(f"report {number} with {count} ranges: number 0 says that nothing is missing")
    end = 0
    for first, after in ranges:
        if not end <= first < after:
            raise Malformed(f"the ranges of a report must be ascending and not empty, not {ranges}")
        end = after
    return Report(tag, number, ranges)
