"""PastProcess: a process of its own that builds states of the past, for questions about them (`pfsb.past_reads`).

It is started when the first question comes, and ends when none has come for a while. Questions and answers are lines of
JSON (`pfsb.backups.past_child`).
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.interfaces import Done, Refused, Result

CHILD: Final = "pfsb.backups.past_child"
"""The module that the process runs."""
IDLE_SECONDS: Final = 60.0
"""How long, in seconds, the process stays without a question. It keeps the last state that it has built."""
SILENT_SECONDS_MAX: Final = 600.0
"""How long, in seconds, the process may work for one answer before it is ended."""
SAID_CHARACTERS_MAX: Final = 2_000
"""Maximum number of characters of the process's standard error that are kept for the log."""

STOPPING: Final = Refused("SHUTDOWN", "this server is stopping")
Answered = Callable[[Result], None]


@define(eq=False)
class PastProcess:
    """Asks the process, and starts it if need be. `reactor` starts processes; `places` gives the data directory of the
    server, and its archive if it has one."""

    _log = Logger()

    _reactor: Any
    _places: Callable[[], Sequence[Path]]
    _child: _Child | None = field(default=None, init=False)
    _timeout: IDelayedCall | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)
    _asked: dict[int, Answered] = field(factory=dict, init=False)
    """Number of a question -> the function that is called with its answer."""
    _is_stopped: bool = field(default=False, init=False)

    @property
    def pid(self) -> int | None:
        """The process id; None: there is no process at present."""
        transport: Any = None if self._child is None else self._child.transport
        return None if transport is None else transport.pid

    def ask(self, key: bytes, revision: int, answered: Answered) -> None:
        """Ask the process for the value of a key behind a revision, as `IPastReader.ask` says; start the process if
        there is none."""
        if self._is_stopped:
            answered(STOPPING)
            return
        if self._child is None:
            self._child = _Child(self)
            places = [str(place.absolute()) for place in self._places()]
            self._reactor.spawnProcess(self._child, sys.executable, [sys.executable, "-m", CHILD, *places], env=None)
        self._number += 1
        self._asked[self._number] = answered
        question = {"id": self._number, "key": base64.b64encode(key).decode(), "revision": revision}
        self._child.send(json.dumps(question).encode() + b"\n")
        self._wait(SILENT_SECONDS_MAX)

    def stop(self) -> None:
        """End the process, and refuse all questions that it has not answered."""
        self._is_stopped = True
        self._end()

    # ------------------------------------------------------------------ called by the child

    def heard(self, line: bytes) -> None:
        """Called with a line that the process has written."""
        found = json.loads(line)
        answered = self._asked.pop(found["id"])
        self._wait(SILENT_SECONDS_MAX if self._asked else IDLE_SECONDS)
        answered(_result(found))

    def ended(self, child: _Child, said: str) -> None:
        """Called when the process has ended; `said` is what it has written to its standard error."""
        if child is not self._child:
            return
        self._child = None
        self._wait(None)
        asked, self._asked = self._asked, {}
        if asked and not self._is_stopped:
            self._log.warn("the process that builds states of the past has ended: {said}", said=said or "no reason")
        if self._is_stopped:
            refused = STOPPING
        else:
            refused = Refused("UNAVAILABLE", "the process that builds states of the past has ended; ask again")
        for answered in asked.values():
            answered(refused)

    # ------------------------------------------------------------------ inside

    def _wait(self, seconds: float | None) -> None:
        """End the process if it writes nothing for this number of seconds; None: do not wait any more."""
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None if seconds is None else self._reactor.callLater(seconds, self._end)

    def _end(self) -> None:
        if self._child is not None:
            child = self._child
            child.kill()
            self.ended(child, "it was ended")


class _Child(ProcessProtocol):
    """The process, from its start to its end."""

    def __init__(self, owner: PastProcess) -> None:
        self._owner = owner
        self._rest = b""
        self._said = ""

    def send(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def kill(self) -> None:
        transport: Any = self.transport
        if transport is not None and transport.pid is not None:
            transport.loseConnection()
            transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._owner.heard(line)

    def errReceived(self, data: bytes) -> None:
        self._said = (self._said + data.decode(errors="replace"))[-SAID_CHARACTERS_MAX:]

    def outConnectionLost(self) -> None:
        self._owner.ended(self, self._said)

    def processEnded(self, reason: Failure) -> None:
        self._owner.ended(self, self._said)


def _result(found: dict[str, Any]) -> Result:
    if "error" in found:
        return Refused(found["error"], found["text"])
    value = base64.b64decode(found["value"])
    return Done((("value", value), ("revision", found["revision"])))
