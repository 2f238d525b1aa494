"""AdmissionControl: how many requests all connections of one server may have under way, and whose turn is next."""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define, field

from pfsb.frontends.stream.reply_queue import EndOfIteration

REQUESTS_MAX: Final = 20_000
"""Maximum number of requests under way for all connections of a server; one connection may have `session_window`.

The limit is several times what fills the largest batches, so throughput does not suffer. And it is small enough for a
slow machine to answer in less than `request_seconds`: beyond that every request would be refused after it was served.
"""


class Member(Protocol):
    """A connection with requests that wait for admission."""

    def on_admitted(self) -> None:
        """Handles as many requests as one connection may have under way. Must not raise."""


@define(eq=False)
class AdmissionControl:
    """Back-pressure over all connections: beyond `requests_max` their requests stay unread, and connections take turns.

    A connection whose turn it is handles its whole window: few large bundles are several times cheaper than many small
    ones. Every turn ends, since each request that is counted is answered or refused within `request_seconds`.
    """

    _iteration_end: EndOfIteration
    requests_max: int = REQUESTS_MAX
    under_way: int = field(init=False, default=0)
    is_open: bool = field(init=False, default=True)
    """True if no connection waits and there is room. An attribute, because every request looks at it."""
    _queue: dict[Member, None] = field(init=False, factory=dict)
    """The connections that wait, in the order in which they came."""
    _admission_is_due: bool = field(init=False, default=False)

    def wait(self, member: Member) -> None:
        """The connection has requests that it must not handle until `on_admitted` is called."""
        self._queue[member] = None
        self._update()

    def is_waiting(self, member: Member) -> bool:
        return member in self._queue

    def count(self, change: int) -> None:
        """Adds to the number of requests under way; a negative number may make room."""
        self.under_way += change
        self._update()

    def forget(self, member: Member) -> None:
        """The connection is gone."""
        self._queue.pop(member, None)
        self._update()

    def _update(self) -> None:
        has_room = self.under_way < self.requests_max
        self.is_open = has_room and not self._queue
        if has_room and self._queue and not self._admission_is_due:
            self._admission_is_due = True
            self._iteration_end.call(self._admit_next)

    def _admit_next(self) -> None:
        while self._queue and self.under_way < self.requests_max:
            member = next(iter(self._queue))
            del self._queue[member]
            member.on_admitted()
        self._admission_is_due = False
        self._update()
