"""A run as a space-time diagram in text: a column for each server, time runs down, and a message is an arrow.

The arrow is drawn when the message arrives. When a server sends it, its column says so ("-> ACCEPT 5" to all others,
"->2 ACCEPT 5" to server 2), and when what a server has written is on its disk, its column shows the installed view and
the Local_Aru that the disk holds ("disk v2 aru 4").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pfsb.tracing import type_name

COLUMN: Final = 18
TIME: Final = 10
SENT_ALL_THE_TIME: Final = ("ALIVE", "VC_PROOF")
"""Types of messages that are left out, unless one is sent by the last event: then it may be what is wrong."""

Event = dict[str, Any]


def draw_diagram(events: Iterable[Event], servers: Sequence[int], rows_max: int) -> list[str]:
    """The lines of the diagram: its header, and the last `rows_max` of the rows that the events give.

    Messages that are sent all the time, ALIVE and VC_PROOF, are left out, unless the last event is the sending of such
    a message.
    """
    events = [*_joined(events)]
    rows = [row for event in events[:-1] for row in _rows(event, servers, SENT_ALL_THE_TIME)]
    rows += [row for event in events[-1:] for row in _rows(event, servers, ())]
    head = " " * TIME + "".join(f"server {i}".center(COLUMN) for i in servers)
    return [head.rstrip(), *rows[-rows_max:]]


def _joined(events: Iterable[Event]) -> Iterator[Event]:
    """The events in order. Where a server executes several slots one after the other, as at its start, one event stands
    for all of these."""
    before: Event | None = None
    for event in events:
        if before is not None and event["event"] == "executed" and _place(before) == _place(event):
            before = {**before, "last": event["seq"]}
            continue
        if before is not None:
            yield before
        before = event
    if before is not None:
        yield before


def _place(event: Event) -> tuple[str, float, int | None]:
    return event["event"], event["t"], event["server"]


def _rows(event: Event, servers: Sequence[int], left_out: Sequence[str]) -> Iterator[str]:
    time = f"{event['t']:{TIME - 1}.4f} "
    if event["server"] is None:
        yield f"{time}=== {event['kind']} ==="
        return
    place = servers.index(event["server"])
    if event["event"] == "receive":
        name = _label(event["message"], left_out)
        if name and event["sender"] in servers:
            yield (time + _arrow(servers.index(event["sender"]), place, name, len(servers))).rstrip()
        return
    text = _note(event, left_out)
    if text:
        yield (time + "".join(_cell(text if i == place else "|") for i in range(len(servers)))).rstrip()


def _label(message: Any, left_out: Sequence[str]) -> str:
    name = type_name(message)
    if name in left_out:
        return ""
    name = name.replace("RECONCILIATION", "RECONCILE")
    for field in ("seq", "seqs", "attempted", "installed", "first"):
        value = getattr(message, field, None)
        if value is not None:
            return f"{name} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
    view = getattr(message, "view", None)
    return name if view is None else f"{name} {view}"


def _note(event: Event, left_out: Sequence[str]) -> str:
    match event["event"]:
        case "send":
            name = _label(event["message"], left_out)
            return f"->{'' if event['to'] is None else event['to']} {name}" if name else ""
        case "sync":
            return f"disk v{event['view']} aru {event['aru']}"
        case "state":
            return f"{event['to']} {event['view']}"
        case "executed":
            return f"executes {event['seq']}" + (f"-{event['last']}" if "last" in event else "")
        case "timer" if event["name"] == "progress":
            return "suspects"
        case "start":
            return f"starts, aru {event['aru']}"
        case "crash":
            return "X"
        case "discard":
            return f"drops ({event['line']})" if _label(event["message"], left_out) else ""
        case _:
            return ""


def _cell(text: str) -> str:
    return text[: COLUMN - 1].center(COLUMN)


def _arrow(start: int, end: int, name: str, servers: int) -> str:
    """Draw an arrow from the middle of one column to the middle of another, with the name of the message on it."""
    line = list("".join(_cell("|") for _ in range(servers)))
    middle = COLUMN // 2 - 1
    left, right = sorted((start * COLUMN + middle, end * COLUMN + middle))
    line[left + 1 : right] = "-" * (right - left - 1)
    shown = name[: right - left - 3]
    at = left + (right - left - len(shown)) // 2 + 1
    line[at : at + len(shown)] = shown
    line[right - 1 if start < end else left + 1] = ">" if start < end else "<"
    return "".join(line)
