"""Writes the events of a server as JSON lines, described in docs/operating.rst."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TextIO

from attrs import fields
from twisted.logger import Logger
from zope.interface import implementer

from pfsb.paxos.interfaces import ITracer
from pfsb.paxos.messages import Batch, HandOverReason, Message, State

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=VC)(?=P)")
_LONG = 80
"""Maximum number of characters of a text, or of bytes of a value, that a trace shows."""


def type_name(message: Message) -> str:
    """The type of a message in capitals, as the paper writes it, such as PREPARE_OK or VC_PROOF."""
    return _WORDS.sub("_", type(message).__name__).upper()


def describe(message: Message) -> dict[str, Any]:
    """A message as a trace shows it: its type and its fields. Long data is shown by its size in place of its bytes."""
    described: dict[str, Any] = {"type": type_name(message)}
    for attribute in fields(type(message)):
        described[attribute.name] = _plain(getattr(message, attribute.name))
    return described


def _plain(value: Any) -> Any:
    match value:
        case Batch():
            return {"bytes": len(value.data)}
        case bytes():
            return value.hex() if len(value) <= _LONG else {"bytes": len(value)}
        case str():
            return value if len(value) <= _LONG else value[:_LONG] + "..."
        case State() | HandOverReason():
            return value.value
        case tuple():
            return [describe(v) if hasattr(v, "__attrs_attrs__") else _plain(v) for v in value]
        case _:
            return value


@implementer(ITracer)
class JSONTracer:
    """Writes each event to a file at once, so that a killed server loses at most a part of the last line.

    A server must not fail because of its trace: if an event cannot be written, the trace ends, and the server goes on.
    """

    _log = Logger()

    def __init__(self, file: TextIO, server_id: int, seconds: Callable[[], float]) -> None:
        self._file: TextIO | None = file
        self._server_id = server_id
        self._seconds = seconds

    def trace(self, event: str, **details: Any) -> None:
        if self._file is None:
            return
        line: dict[str, Any] = {"t": round(self._seconds(), 6), "server": self._server_id, "event": event}
        for name, value in details.items():
            line[name] = describe(value) if hasattr(value, "__attrs_attrs__") else _plain(value)
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError:
            self._log.failure("the trace ends here")
            self._file = None
