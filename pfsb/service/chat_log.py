"""The chat of a server as a file, `chat.log`: the same bytes on every server (docs/internals/applications.rst)."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from threading import Event as ThreadEvent
from threading import Semaphore

from twisted.logger import Logger

from pfsb.applications.interfaces import Event
from pfsb.service.background import Background

BLOCK_BYTES = 1 << 20
"""Size, in bytes, of the blocks in which the file is read at the start."""
FULL_SECONDS = 0.5
"""How long, in seconds, the thread waits before it tries again to append a line for which the disk had no room."""
LINES_WAITING_MAX = 10_000
"""Maximum number of lines that wait to be appended."""
CLOSE_SECONDS = 1.0
"""How long, in seconds, `ChatLogWriter.close` waits for the lines that are not written yet."""


def line_of(event: Event) -> bytes:
    """The line of the chat log for this event, `12 "alice" "hello"`: index, client and text, the last two as JSON."""
    fields = dict(event.fields)
    client, text = (json.dumps(fields[name], ensure_ascii=False) for name in ("client", "text"))
    return f"{fields['index']!r} {client} {text}\n".encode()


class ChatLog:
    """Appends lines of chat to the file.

    Lines are not forced to disk: those that are missing after a crash are written again, from the history, at the next
    start.
    """

    _log = Logger()

    def __init__(self, path: Path) -> None:
        """Open the file and cut off a torn last line; `next_index` is the index of the line to be written next."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab+", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.next_index = self.cut_torn_line() + 1

    def append(self, event: Event) -> None:
        """Append the line of this chat event to the file, unless the file has it already.

        If the disk is full, raises OSError and leaves no part of the line in the file.
        """
        index = dict(event.fields)["index"]
        if index != self.next_index:
            return
        line, end = line_of(event), self._file.seek(0, os.SEEK_END)
        if self._file.write(line) != len(line):
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, "the disk is full", self._file.name)
        self.next_index += 1

    def close(self) -> None:
        self._file.close()

    def put_aside(self) -> None:
        """Close the file and give it the name `chat.log.1`, or the next number that is free: this chat has ended."""
        self.close()
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(aside)

    def cut_torn_line(self) -> int:
        """Cut off a part of a line, which a crash may have left at the end; returns the number of whole lines."""
        self._file.seek(0)
        lines = whole = position = 0
        while block := self._file.read(BLOCK_BYTES):
            lines += block.count(b"\n")
            end = block.rfind(b"\n")
            if end >= 0:
                whole = position + end + 1
            position += len(block)
        os.ftruncate(self._file.fileno(), whole)
        return lines


class ChatLogWriter:
    """Appends the lines of a `ChatLog` in a thread, so that the reactor does not wait for its disk.

    The lines wait in memory. They are few: while the disk hangs, no further events pass the durability gate, since the
    data is on the same disk. When a long file is made anew at the start, the caller waits for the disk each time that
    `LINES_WAITING_MAX` lines wait. A line for which the disk has no room is written when there is room again. Lines
    that are lost with the process are written at the next start.
    """

    _log = Logger()

    def __init__(self, log: ChatLog) -> None:
        self._chat_log = log
        self._background = Background("pfsb chat log")
        self._ends = ThreadEvent()
        self._has_failed = False
        self._places = Semaphore(LINES_WAITING_MAX)

    def append(self, event: Event) -> None:
        """Have the line of this chat event appended, unless the file has it already."""
        self._places.acquire()
        self._background.call(lambda: self._append(event))

    def close(self) -> bool:
        """Write what waits, and close the file; returns False if the disk does not answer within `CLOSE_SECONDS`."""
        self._ends.set()
        is_written = self._background.finish(CLOSE_SECONDS)
        if is_written:
            self._chat_log.close()
        return is_written

    def put_aside(self) -> None:
        """Write what waits, close the file and give it another name: see `ChatLog.put_aside`."""
        self._ends.set()
        while not self._background.finish(CLOSE_SECONDS):
            self._log.error("{path} cannot be put aside yet: its disk does not answer", path=str(self._chat_log.path))
        self._chat_log.put_aside()

    def _append(self, event: Event) -> None:
        try:
            self._append_when_there_is_room(event)
        finally:
            self._places.release()

    def _append_when_there_is_room(self, event: Event) -> None:
        while not self._has_failed:
            try:
                self._chat_log.append(event)
                return
            except OSError as error:
                self._has_failed = error.errno not in (errno.ENOSPC, errno.EDQUOT)
                if self._has_failed:
                    path = str(self._chat_log.path)
                    self._log.failure("{path} gets no more lines until this server is started again", path=path)
            if self._ends.wait(FULL_SECONDS):
                self._has_failed = True
