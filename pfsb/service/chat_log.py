"""The chat of a server as a file, `chat.log`: the same bytes on every server (docs/internals/applications.rst)."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from twisted.logger import Logger

from pfsb.applications.interfaces import Event

BLOCK_BYTES = 1 << 20
"""How much of the file is read at once."""


def line_of(event: Event) -> bytes:
    """A line of the log, `12 "alice" "hello"`: index, client and text, the latter two as JSON strings."""
    fields = dict(event.fields)
    client, text = (json.dumps(fields[name], ensure_ascii=False) for name in ("client", "text"))
    return f"{fields['index']} {client} {text}\n".encode()


class ChatLog:
    """Appends chat lines to the file. A lost file is written again from the history, so nothing is forced to disk."""

    _log = Logger()

    def __init__(self, path: Path) -> None:
        """Open the file and keep its whole lines; `next_index` is that of the first line that is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab+", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.next_index = self._cut_torn_line() + 1

    def append(self, event: Event) -> None:
        """Append a line, unless the file has it. If the disk is full, raises OSError and leaves no half line."""
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

    def _cut_torn_line(self) -> int:
        """Cut off half a line, which a crash may have left at the end, and count the whole ones."""
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
