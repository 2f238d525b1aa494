"""Target that reads what comes over a connection from another server: frames behind their lengths."""

from __future__ import annotations

from pfsb.simulator.checkers.violation import require
from pfsb.simulator.fuzz.target import Target
from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES
from pfsb.transports.pieces_of_stream import LENGTH, FrameSplitter, WrongLength, in_stream


class StreamTarget(Target):
    """Gives a changed stream to a `FrameSplitter` at once, and to another one in pieces, and checks that both find the
    same frames, raise only `WrongLength`, and keep less than a frame. The first byte of the input is the size of the
    pieces."""

    name = "streams"
    help = "streams of frames behind their lengths, cut into pieces"
    guided_by = ("pfsb/transports/pieces_of_stream.py",)

    def seeds(self) -> list[bytes]:
        frames = [bytes([number]) * size for number, size in enumerate((OVERHEAD_BYTES, 200, 90))]
        return [bytes([size]) + b"".join(map(in_stream, frames)) for size in (1, 7, 90, 255)]

    def run(self, data: bytes) -> None:
        size, stream = max(1, data[0] if data else 1), data[1:]
        whole = _split([stream])
        pieces = _split([stream[at : at + size] for at in range(0, len(stream), size)])
        require(whole == pieces, "a stream in pieces has other frames")
        require(
            all(OVERHEAD_BYTES <= len(frame) <= FRAME_BYTES_MAX for frame in whole[0]), "a frame has a wrong length"
        )


def _split(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """The frames of a stream that comes in these pieces, and whether it ends with a wrong length."""
    splitter = FrameSplitter()
    found: list[bytes] = []
    try:
        for piece in pieces:
            for frame in splitter.feed(piece):
                found.append(frame)
            require(splitter.kept_bytes < FRAME_BYTES_MAX + LENGTH.size, "more than a frame is kept")
    except WrongLength:
        return found, True
    return found, False
