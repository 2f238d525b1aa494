"""How frames travel in a stream of bytes: each behind its length, four bytes, the highest first.

A receiver answers on the same connection by *pulses*, which are lengths of 0. docs/internals/frames.rst explains both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from attrs import define, field

from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES

LENGTH: Final = struct.Struct(">I")
PULSE: Final = bytes(LENGTH.size)
"""The bytes by which a receiver answers on a stream that it has got further bytes."""


class Source(NamedTuple):
    """Where frames come from: the far end of a connection."""

    host: str
    """The IP address, as the network writes it."""
    port: int
    certified: int | None = None
    """Id of the server that the certificate at the other end names; None: there is no certificate."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class WrongLength(ValueError):
    """Raised if a stream announces a frame of a length that no frame has: the rest of the stream means nothing."""


def in_stream(frame: bytes) -> bytes:
    """The bytes of a frame in a stream."""
    return LENGTH.pack(len(frame)) + frame


@define(eq=False)
class FrameSplitter:
    """Cuts a stream into frames. It keeps less than one frame, however many bytes it is given."""

    _rest: bytes = field(init=False, default=b"")

    @property
    def kept_bytes(self) -> int:
        """Number of bytes in memory of a frame that is not complete."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the stream; yield the frames that are complete with them.

        Raises `WrongLength` at once if a length is none of a frame, even if the frame is not there yet. No method may
        be called before the iterator has ended.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while end - at >= LENGTH.size:
            [size] = LENGTH.unpack_from(data, at)
            if not OVERHEAD_BYTES <= size <= FRAME_BYTES_MAX:
                raise WrongLength(
                    f"announces a frame of {size} bytes; a frame has {OVERHEAD_BYTES} to {FRAME_BYTES_MAX}"
                )
            begin = at + LENGTH.size
            if end - begin < size:
                break
            at = begin + size
            yield data[begin:at]
        self._rest = data[at:]
