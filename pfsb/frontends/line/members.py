"""MembersWatch: tells one client which servers belong to the cluster, and where clients reach them (MEMBERS).

The event has all servers, and takes the place of every earlier one. So a client that does not read misses nothing: it
is told once when it reads again. Many clients are told one after the other, while the reactor serves others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pfsb.applications.interfaces import Answer, Done, Event, Fields
from pfsb.frontends.line.grammar import render_event
from pfsb.frontends.stream.reply_queue import EndOfIteration, ReplyQueue

if TYPE_CHECKING:
    from pfsb.server import Server


class MembersWatch:
    """The watch of one client, which it begins by MEMBERS."""

    def __init__(self, server: Server, replies: ReplyQueue, iteration_end: EndOfIteration) -> None:
        self._server = server
        self._replies = replies
        self._iteration_end = iteration_end
        self._end: Callable[[], None] | None = None
        self._is_paused = False
        self._is_due = False

    def begin(self, answer: Answer) -> None:
        """Answer OK, and tell the client which servers there are, now and at each change."""
        answer(Done((("epoch", self._server.epoch),)))
        if self._end is None:
            self._end = self._server.watch_places(self._changed)
        self._is_due = True
        self._tell()

    def pause(self) -> None:
        """Called when the client does not read: tell nothing until `resume` is called."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._tell()

    def end(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None
        self._is_due = False

    def _changed(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._iteration_end.call_in_turn(self._tell)

    def _tell(self) -> None:
        if self._is_due and not self._is_paused:
            self._is_due = False
            self._replies.write_between_replies(render_event(Event("MEMBERS", self._fields())))

    def _fields(self) -> Fields:
        places = self._server.places()
        return (("epoch", self._server.epoch), *((f"server{i}", place) for i, place in places.items()))
