"""TextLog: the text log of `twistd pfsb`, written in a thread, so that a log on a disk that hangs stops no server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field
from twisted.python.logfile import LogFile

from pfsb.service.background import Background
from pfsb.service.log_lines import LineObserver
from pfsb.service.log_signals import LogSignals

CHARACTERS_WAITING_MAX = 4_000_000
"""Maximum number of characters that wait to be written. Further lines are left out, and counted."""


class TextLog:
    """A file for Twisted's log observer, which has `write` and `flush`. Before `begin` it writes at once; from then on,
    in a thread."""

    def __init__(self, file: Any) -> None:
        """`file` is a `NamedLogFile` or a stream of text. It is used in one thread at a time."""
        self._file = file
        self._background = Background("pfsb text log")
        self._in_background = False
        self._given = 0
        """Number of characters that were given to the thread."""
        self._written = 0
        """Number of characters that the thread has written, or could not write."""
        self._left_out = 0
        """Number of texts that were left out, and of which the log does not tell yet."""

    def begin(self) -> None:
        """Write in a thread from now on. Called after the process has gone into the background, since a fork ends all
        threads."""
        self._in_background = True

    def write(self, text: str) -> None:
        if not self._in_background:
            self._write_now(text)
        elif self._given - self._written > CHARACTERS_WAITING_MAX:
            self._left_out += 1
        else:
            if self._left_out:
                text = f"- [pfsb] {self._left_out} lines are left out here: the disk of this log was slow\n{text}"
                self._left_out = 0
            self._given += len(text)
            self._background.call(lambda: self._write_given(text))

    def flush(self) -> None:
        """Do nothing: each text is flushed after it was written."""

    def rotate(self) -> None:
        """Begin a new file for all text that is given from now on. Earlier text stays in the former file, which is
        renamed unless another program has done so. Does nothing if the log is a stream."""
        self._do(self._rotate_now)

    def reopen(self) -> None:
        """Write all text that is given from now on to the file that has the log's name then; makes the file if there is
        none. Does nothing if the log is a stream."""
        self._do(self._reopen_now)

    def _do(self, function: Callable[[], None]) -> None:
        if self._in_background:
            self._background.call(function)
        else:
            function()

    def _rotate_now(self) -> None:
        if self._was_moved():
            self._reopen_now()
        elif isinstance(self._file, NamedLogFile):
            self._file.rotate()

    def _reopen_now(self) -> None:
        if self._was_moved():
            before = self._file
            try:
                self._file = NamedLogFile.fromFullPath(before.path)
            except OSError:
                return  # the former file still takes what is written, wherever it is now
            before.close()

    def _was_moved(self) -> bool:
        """Whether the log is a file, and its path no longer leads to that file, since another program has moved or
        deleted it."""
        return isinstance(self._file, NamedLogFile) and not self._file.has_its_name

    def finish(self, timeout_seconds: float) -> bool:
        """Write the text that waits. Returns True when it is written, or False after `timeout_seconds`."""
        return self._background.finish(timeout_seconds)

    def _write_given(self, text: str) -> None:
        try:
            self._write_now(text)
        except Exception:
            self._left_out += 1  # no log is left to tell of it, and the server must not stop
        self._written += len(text)

    def _write_now(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


class NamedLogFile(LogFile):
    """A log file that can tell whether another program has moved or deleted it."""

    @property
    def has_its_name(self) -> bool:
        """Whether the path of the log is still that of the open file."""
        try:
            named = os.stat(self.path)
        except OSError:
            return False
        mine = os.fstat(self._file.fileno())
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)


@define
class ProcessLog:
    """The text log of this process. There is one object of this class, since twistd can only call a global function for
    the log."""

    options: Mapping[str, Any] = field(factory=dict)
    """The options of twistd. They are set before twistd makes its log observer."""
    line_format: str = "text"
    """The form of the lines, one of `pfsb.service.log_lines.FORMATS`."""
    least_level: str = "info"
    """The lowest level that is written."""
    server_id: int | None = None
    view: Callable[[], int | str] | None = None
    """Function that returns the view that the server has installed; None: the server is not made yet."""
    log: TextLog | None = None
    """The log that `make_observer` has opened; None: twistd writes the log in the reactor's thread."""
    on_hangup: Callable[[], None] | None = None
    """Called at SIGHUP, as a part of the signal handler; None: nothing is called."""

    def begin(self) -> None:
        """Write the log in a thread from now on: called when the process has gone into the background."""
        if self.log is not None:
            self.log.begin()

    def about(self) -> tuple[int | None, int | str | None]:
        """(server id, view), which a line of the log tells; an element is None where it is not known yet."""
        return self.server_id, None if self.view is None else self.view()

    def follow_signals(self, signals: LogSignals) -> None:
        """From now on, let SIGHUP and SIGUSR1 reopen the log. SIGHUP also calls `on_hangup`; SIGUSR1 renames the file
        of the log first, unless another program has done so."""
        signals.reopen, signals.rotate = self._take_hangup, self._take_rotation

    def _take_hangup(self) -> None:
        if self.log is not None:
            self.log.reopen()
        if self.on_hangup is not None:
            self.on_hangup()

    def _take_rotation(self) -> None:
        if self.log is not None:
            self.log.rotate()

    def finish(self, timeout_seconds: float) -> bool:
        """Write the text that waits. Returns True when it is written, or False after `timeout_seconds`."""
        return self.log is None or self.log.finish(timeout_seconds)


PROCESS_LOG: Final = ProcessLog()
OBSERVER_NAME: Final = f"{__name__}.make_observer"
"""The value of twistd's option `--logger` that stands for `make_observer`."""


def make_observer() -> LineObserver | None:
    """Make the observer by which twistd writes its log, a line for each event, to the file that its options name."""
    try:
        log = PROCESS_LOG.log = open_text_log(PROCESS_LOG.options)
    except OSError as error:
        sys.exit(f"pfsb: the log {error.filename} cannot be written: {error.strerror}")
    process = PROCESS_LOG
    return None if log is None else LineObserver(log, process.about, process.line_format, process.least_level)


def open_text_log(options: Mapping[str, Any]) -> TextLog | None:
    """Open the log that twistd's options name: a file, or standard output.

    None if the options name another log: twistd opens that of `--syslog`, and refuses a daemon's standard output.
    Raises OSError if the file cannot be opened.
    """
    name, stays = options.get("logfile") or "", options.get("nodaemon")
    if options.get("syslog") or (name == "-" and not stays):
        return None
    if name == "-" or (stays and not name):
        return TextLog(sys.stdout)
    return TextLog(NamedLogFile.fromFullPath(name or "twistd.log"))
