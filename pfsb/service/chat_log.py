"""The chat of a server as a file, `chat.log`: the same bytes on every server (docs/internals/applications.rst)."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from twisted.logger import Logger

from pfsb.applications.interfaces import Event

BLOCK_BYTES = 1 << 20
"""Size, in bytes, of the blocks in which the file is read at the start."""


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
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab+", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.next_index = self._cut_torn_line() + 1

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
        while (aside := self._path.with_name(f"{self._path.name}.{number}")).exists():
            number += 1
        self._path.rename(aside)

    def _cut_torn_line(self) -> int:
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
