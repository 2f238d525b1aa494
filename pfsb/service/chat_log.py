"""The chat of a server as a file, `chat.log`: the same bytes on every server (docs/internals/applications.rst).

The replicated state has all lines, so the file can always be made right. `ChatLog` compares the file with the lines
that it is given, and writes from the first byte that differs. `ChatLogWriter` gives it the lines, page by page: all
lines from the first one on after a start, and after another program has changed the file; otherwise only new lines.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pfsb.applications.interfaces import Event
from pfsb.service.background import Background

PAGE_LINES: Final = 256
"""Maximum number of lines in the page that the thread is given at once. Making their events takes the reactor less than
a millisecond."""
PACE_SECONDS: Final = 0.004
"""Pause, in seconds, between two pages while lines of the past are compared or written again, so that clients hardly
notice: a million lines take some twenty seconds."""
LOOK_SECONDS: Final = 1.0
"""Time, in seconds, between two looks whether another program has changed the file."""
TROUBLE_SECONDS: Final = 1.0
"""How long, in seconds, to wait before the file is tried again after a write has failed."""
CLOSE_SECONDS: Final = 1.0
"""How long, in seconds, `ChatLogWriter.close` waits for the lines that are not written yet."""
CLOSE_LINES_MAX: Final = 10_000
"""Maximum number of lines that are still written when the server stops; the next start writes the others."""
BLOCK_BYTES: Final = 1 << 16
"""Size, in bytes, of the blocks in which bytes behind the last line are looked at."""


def line_of(event: Event) -> bytes:
    """The line of the chat log for this event, `12 "alice" "hello"`: index, client and text, the last two as JSON."""
    fields = dict(event.fields)
    client, text = (json.dumps(fields[name], ensure_ascii=False) for name in ("client", "text"))
    return f"{fields['index']!r} {client} {text}\n".encode()


def index_of(event: Event) -> int:
    """The number of a chat event's line."""
    index: Any = dict(event.fields)["index"]
    return int(index)


@define(eq=False)
class ChatLog:
    """The file `chat.log`, and the size of its beginning that is known to be right.

    Lines are not forced to disk: those that are missing after a crash are written again at the next start.
    """

    _log: ClassVar[Logger] = Logger()

    path: Path
    next_index: int = field(init=False, default=1)
    """Number of the line that is to be compared or written next."""
    _file: FileIO | None = field(init=False, default=None)
    _right: int = field(init=False, default=0)
    """Size, in bytes, of the beginning of the file that is known to be right."""
    _size: int = field(init=False, default=0)
    """Size, in bytes, that the file had when it was last opened or written by this object."""
    _time: int = field(init=False, default=0)
    """The time at which the file was last changed, in nanoseconds since 1970, as the file system told it when this
    object last opened or wrote the file."""

    def take(self, events: Sequence[Event]) -> None:
        """Make the file right up to the end of these chat events, whose lines follow each other without a gap.

        Events whose lines the file has are skipped; so are all of them if the file lacks lines before them. If another
        program has changed the file, `next_index` becomes 1, and the events are skipped unless they begin with line 1.
        Raises OSError if the disk does not take a line, and leaves no part of it in the file.
        """
        self.look()
        events = [event for event in events if index_of(event) >= self.next_index]
        if events and index_of(events[0]) == self.next_index:
            self._make_right(b"".join(map(line_of, events)))
            self.next_index += len(events)

    def look(self) -> None:
        """Open the file if it is not open. If another program has changed it, open it anew, and compare it from line 1
        on.

        Raises OSError if it cannot be opened.
        """
        if self._file is not None and self._is_as_left():
            return
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._note_state()

    def end_at(self, length: int) -> None:
        """If the file has all of the `length` lines of the state, cut off what stands behind them in the file.

        Whole lines with the next numbers are left there until their own events come: a server that has just started may
        not have executed all yet that it had executed before.
        """
        self.look()
        if self.next_index == length + 1:
            keep = self._right + self._likely_lines()
            if keep != self._size:
                self._cut(keep)

    def close(self) -> None:
        """Close the file. When it is used again, it is opened and compared from line 1 on."""
        file, self._file = self._file, None
        self.next_index, self._right = 1, 0
        if file is not None:
            file.close()

    def put_aside(self) -> None:
        """Close the file, and rename it to `chat.log.1`, or to the next such name that is free. Called when the cluster
        stops running the chat."""
        self.close()
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(aside)

    def agreeing_bytes(self, data: bytes) -> int:
        """Number of bytes at the beginning of `data` that the file already has behind its right part."""
        assert self._file is not None
        there = os.pread(self._file.fileno(), len(data), self._right)
        if there == data:
            return len(data)
        both = enumerate(zip(there, data, strict=False))
        return next((at for at, (found, wanted) in both if found != wanted), min(len(there), len(data)))

    def _make_right(self, data: bytes) -> None:
        """Make the bytes `data` stand in the file directly behind the part that is right, and count them to it. Bytes
        that stand there and differ are cut off, with everything behind them."""
        if self._right < self._size:
            agreeing = self.agreeing_bytes(data)
            if agreeing == len(data):
                self._right += agreeing
                return
            if agreeing < self._size - self._right:
                place = self._right + agreeing
                self._log.warn("{path} is wrong from byte {place} on, and made right", path=str(self.path), place=place)
            self._cut(self._right)
        self._write(data)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        written = 0
        try:
            written = self._file.write(data) or 0
        finally:
            if written != len(data):
                self._cut(self._right)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._note_state()
        # If another program has written at the same time, this size is not what the next look finds.
        self._right = self._size = self._right + len(data)

    def _cut(self, size: int) -> None:
        assert self._file is not None
        os.ftruncate(self._file.fileno(), size)
        self._note_state()

    def _note_state(self) -> None:
        assert self._file is not None
        found = os.fstat(self._file.fileno())
        self._size, self._time = found.st_size, found.st_mtime_ns

    def _is_as_left(self) -> bool:
        """Whether the path `chat.log` still leads to the open file, and no other program has written to it."""
        assert self._file is not None
        mine = os.fstat(self._file.fileno())
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            self._log.warn("{path} was deleted or moved, and is made anew", path=str(self.path))
            return False
        is_mine = (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)
        if not is_mine or mine.st_size != self._size:
            self._log.warn("{path} was changed by another program, and is made right", path=str(self.path))
            return False
        return mine.st_mtime_ns == self._time

    def _likely_lines(self) -> int:
        """Number of bytes, directly behind the right part of the file, that look like whole lines with the next line
        numbers."""
        assert self._file is not None
        likely, index, rest = 0, self.next_index, b""
        at = self._right
        while block := os.pread(self._file.fileno(), BLOCK_BYTES, at):
            at += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                if not line.startswith(b'%d "' % index) or not line.endswith(b'"') or b"\0" in line:
                    return likely
                likely, index = likely + len(line) + 1, index + 1
        return likely


@define(eq=False)
class ChatLogWriter:
    """Keeps a `ChatLog` right, in a thread, so that the reactor does not wait for its disk.

    The reactor gives the thread one page of lines, which it takes from the replicated state, and the next page when the
    thread has written that one. So few lines wait in memory while a disk hangs or is full.
    """

    _log: ClassVar[Logger] = Logger()

    _reactor: Any
    """The reactor; it provides `IReactorTime` and `IReactorFromThreads`."""
    _chat_log: ChatLog
    _events: Callable[[int, int], Sequence[Event]]
    """Function of (first, limit) that returns lines of the state as events; see
    `pfsb.applications.interfaces.IEventLog`."""
    _length: int = 0
    """Number of the last line that may be written to the file: the slots whose execution made the lines up to it are on
    this server's disk."""
    _next: int = field(init=False, default=1)
    """Number of the line with which the next page begins."""
    _past: int = field(init=False, default=0)
    """Number of the last line that was there at the start, or when the file was last found changed. Pages up to this
    line are written with pauses (`PACE_SECONDS`), since there may be many."""
    _is_busy: bool = field(init=False, default=False)
    """Whether the thread writes a page, or looks whether the file is right."""
    _ends: bool = field(init=False, default=False)
    _trouble: str = field(init=False, default="")
    """The reason why the last write failed, which the server's log was told; empty: the last write did not fail."""
    _call: IDelayedCall | None = field(init=False, default=None)
    _background: Background = field(init=False, factory=lambda: Background("pfsb chat log"))

    def start(self) -> None:
        """Begin to compare the file with the lines that the state has, and to write those that the file lacks."""
        self._past = self._length
        self._go_on()

    def append(self, event: Event) -> None:
        """Called with the event of each new line, in order: the line may be written to the file from now on."""
        self._length = index_of(event)
        if not self._is_busy and not self._trouble and self._next > self._past:
            self._go_on()

    def close(self) -> bool:
        """Write the lines that are not written yet, `CLOSE_LINES_MAX` at most, and close the file. Returns False if the
        disk does not answer within `CLOSE_SECONDS`, else True."""
        self._end()
        self._write_rest()
        is_written = self._background.finish(CLOSE_SECONDS)
        if is_written:
            self._chat_log.close()
        return is_written

    def put_aside(self) -> None:
        """Write the lines that are not written yet, `CLOSE_LINES_MAX` at most, close the file and give it another name:
        see `ChatLog.put_aside`."""
        self._end()
        self._write_rest()
        while not self._background.finish(CLOSE_SECONDS):
            self._log.error("{path} cannot be put aside yet: its disk does not answer", path=str(self._chat_log.path))
        self._chat_log.put_aside()

    def _write_rest(self) -> None:
        """Have the thread write the lines that are not written yet, unless they are more than `CLOSE_LINES_MAX`."""
        if self._length - self._next < CLOSE_LINES_MAX:
            for first in range(self._next, self._length + 1, PAGE_LINES):
                page = self._page(first)
                if page is None:
                    break
                self._background.call(partial(self._write_last, page))

    def _end(self) -> None:
        self._ends = True
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _page(self, first: int) -> Sequence[Event] | None:
        """The lines of the page that begins with line `first`, as events. None if the application has raised an
        exception, which is logged."""
        count = min(PAGE_LINES, self._length - first + 1)
        try:
            return self._events(first, count) if count > 0 else ()
        except Exception:
            self._log.failure("the chat could not tell its lines from {first} on; it is asked again", first=first)
            return None

    def _go_on(self) -> None:
        """Give the thread the next page of lines. If there is no line to write, let the thread look whether the file is
        still right."""
        if self._ends:
            return
        if self._call is not None and self._call.active():
            self._call.cancel()
        page, length = self._page(self._next), self._length
        if page is None:
            self._later(TROUBLE_SECONDS)
            return
        self._is_busy = True
        self._background.call(lambda: self._reactor.callFromThread(self._taken, self._take(page, length)))

    def _take(self, page: Sequence[Event], length: int) -> OSError | None:
        """Called in the thread: writes the lines of `page` to the file; if the page is empty, looks whether the file is
        right and ends behind line `length`. Returns the error of the disk, or None."""
        try:
            if page:
                self._chat_log.take(page)
            else:
                self._chat_log.end_at(length)
        except OSError as error:
            return error
        return None

    def _write_last(self, page: Sequence[Event]) -> None:
        """Called in the thread when the server stops: writes the lines of `page` to the file. An error of the disk is
        ignored."""
        self._take(page, self._length)

    def _taken(self, error: OSError | None) -> None:
        self._is_busy = False
        before, self._next = self._next, self._chat_log.next_index
        if self._next < before:
            self._past = self._length
        self._tell(error)
        if error is not None:
            self._later(TROUBLE_SECONDS)
        elif self._next > self._length or self._next == before:
            self._later(LOOK_SECONDS)
        elif self._next <= self._past:
            self._later(PACE_SECONDS)
        else:
            self._go_on()

    def _later(self, seconds: float) -> None:
        if not self._ends:
            self._call = self._reactor.callLater(seconds, self._go_on)

    def _tell(self, error: OSError | None) -> None:
        """Write to the server's log that `chat.log` cannot be written, if `error` is another one than before; and that
        it can be written again, if `error` is None after an error."""
        why = "" if error is None else error.strerror or str(error)
        if why != self._trouble:
            path = str(self._chat_log.path)
            if why:
                self._log.error("{path} cannot be written: {why}; it is tried again", path=path, why=why)
            else:
                self._log.info("{path} is written again", path=path)
            self._trouble = why
