"""The lines of a server's log: one for each event, with time, level, server and view, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol

from attrs import define
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

LEVELS: Final = tuple(level.name for level in LogLevel.iterconstants())
"""Names of the levels, from the lowest to the highest."""
FORMATS: Final = ("text", "json")
_RANKS: Final = {level: rank for rank, level in enumerate(LogLevel.iterconstants())}
_OF_TWISTED: Final = ("twisted.", "log_legacy")
"""Beginnings of the names of loggers whose messages of level info tell about Twisted's own works, such as its ports."""


class Output(Protocol):
    """A stream of text, as a `LineObserver` writes to it."""

    def write(self, text: str) -> object: ...


@implementer(ILogObserver)
@define(eq=False)
class LineObserver:
    """Writes one line for each event of the log to a stream, if its level is high enough."""

    _out: Output
    _about: Callable[[], tuple[int | None, int | str | None]]
    """Function that returns (server id, view), which each line tells; an element is None where it is not known yet."""
    _format: str = "text"
    """The form of the lines, one of `FORMATS`."""
    _least: str = "info"
    """The lowest level that is written, one of `LEVELS`."""

    def __call__(self, event: LogEvent) -> None:
        level = level_of(event)
        if _RANKS[level] >= _RANKS[LogLevel.levelWithName(self._least)]:
            line = self._as_json if self._format == "json" else self._as_text
            self._out.write(line(event, level))

    def _as_text(self, event: LogEvent, level: Any) -> str:
        server, view = self._about()
        names = (("server", server), ("view", view or None))
        about = ", ".join(f"{name} {value}" for name, value in names if value is not None)
        text = "\n".join(filter(None, (formatEvent(event), _traceback(event)))).replace("\n", "\n\t")
        time = datetime.fromtimestamp(event.get("log_time", 0.0)).astimezone().isoformat(timespec="seconds")
        return f"{time} {level.name} [{about or '-'}] {text}\n"

    def _as_json(self, event: LogEvent, level: Any) -> str:
        server, view = self._about()
        time = datetime.fromtimestamp(event.get("log_time", 0.0)).astimezone().isoformat(timespec="milliseconds")
        fields = {"time": time, "level": level.name, "server": server, "view": view, "text": formatEvent(event)}
        traceback = _traceback(event)
        if traceback:
            fields["traceback"] = traceback
        return json.dumps(fields, ensure_ascii=False) + "\n"


def level_of(event: LogEvent) -> Any:
    """The level of an event. Messages of Twisted about its own works count as `debug`: no operator needs them."""
    level = event.get("log_level", LogLevel.info)
    is_of_twisted = str(event.get("log_namespace", "")).startswith(_OF_TWISTED)
    return LogLevel.debug if is_of_twisted and level is LogLevel.info else level


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    return "" if failure is None else str(failure.getTraceback()).rstrip()
