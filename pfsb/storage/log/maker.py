"""The thread that makes the next segment of a log ahead, so that the writer never waits for that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import ClassVar, Final

from attrs import define, evolve, field

from pfsb.storage.durable import lacks_room
from pfsb.storage.log.groups import SALT_BYTES
from pfsb.storage.log.segments import FORMAT_VERSION, UNFINISHED, SegmentHead, make_segment, room_of, segment_path
from pfsb.storage.room import Room
from pfsb.storage.worker import StorageThread

PAUSE_SECONDS: Final = 0.002
"""How long, in seconds, the thread pauses before each megabyte, so that groups are written in between."""
AGAIN_SECONDS: Final = 0.5
"""How long, in seconds, the thread waits before it tries again to make a segment for which the disk had no room."""


class _Ends(Exception):
    """Raised in the maker's thread to end it in the middle of its work."""


@define(eq=False)
class SegmentMaker(StorageThread):
    """The thread that makes segments ahead: at most one that holds no group yet is there at a time.

    While the disk is full, or the new segment would fill it (Departure 45), none is made: the writer goes on in the
    segment that it has. Any other error ends the thread, and `failed` is called with it. `made` is called with the path
    of each new segment. Both are called in the thread.
    """

    thread_name: ClassVar[str] = "pfsb storage maker"
    _directory: Path
    _example: SegmentHead
    """The head of another segment of this log, from which a new head takes all but number, size and salt."""
    _random_bytes: Callable[[int], bytes]
    _room: Room
    _made: Callable[[Path], None]
    _ready: SegmentHead | None = None
    """A segment that has been made, and is not used yet; None: there is none."""
    _wanted: SimpleQueue[int | None] = field(factory=SimpleQueue, init=False)
    _ends: Event = field(factory=Event, init=False)

    def want(self, number: int) -> None:
        """Have the segment with this number made, unless a segment is ready. Called by the writer."""
        if self._ready is None:
            self._wanted.put(number)

    def take(self) -> SegmentHead | None:
        """The segment that has been made, for the writer to use from now on; None if there is none."""
        ready, self._ready = self._ready, None
        return ready

    def begin_stop(self) -> None:
        """Let the thread end, even in the middle of its work."""
        self._ends.set()
        self._wanted.put(None)

    def work(self) -> None:
        with suppress(_Ends):
            while (number := self._wanted.get()) is not None:
                self._make(number)

    def _make(self, number: int) -> None:
        salt = self._random_bytes(SALT_BYTES)
        head = evolve(self._example, number=number, room=room_of(number), salt=salt, version=FORMAT_VERSION)
        while not self._make_if_there_is_room(head):
            if self._ends.wait(AGAIN_SECONDS):
                raise _Ends
        self._made(segment_path(self._directory, number))
        self._ready = head

    def _make_if_there_is_room(self, head: SegmentHead) -> bool:
        if self._room.is_full or not self._room.has(head.room):
            return False
        try:
            make_segment(self._directory, head, self._pause)
        except OSError as error:
            if not lacks_room(error):
                raise
            with suppress(FileNotFoundError):
                (self._directory / UNFINISHED).unlink()
            return False
        return True

    def _pause(self) -> None:
        if self._ends.wait(PAUSE_SECONDS):
            raise _Ends
