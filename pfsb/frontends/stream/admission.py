"""All clients of one server together: how much they may have under way, and whose turn it is when that is too much."""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define, field

from pfsb.frontends.stream.reply_queue import EndOfIteration

REQUESTS_MAX: Final = 20_000
"""Under way at once, for all connections of a server; one connection's window is `session_window`.

Several times what fills the largest batches, so that nothing is lost by waiting; and little enough for a slow machine
to answer in less than `request_seconds`, beyond which everybody is refused and nobody is served.
"""


class Member(Protocol):
    """A connection that has requests to be taken."""

    def take_turn(self) -> None:
        """Take as many as a connection may have under way. Must not raise."""


@define(eq=False)
class AdmissionControl:
    """Back-pressure over connections: beyond `requests_max` their requests stay unread, and they take turns.

    Who has its turn takes its whole window: few large bundles are several times cheaper than many small ones. It has
    an end, since whatever is counted is answered or refused within `request_seconds`.
    """

    _turn: EndOfIteration
    requests_max: int = REQUESTS_MAX
    under_way: int = field(init=False, default=0)
    is_open: bool = field(init=False, default=True)
    """Nobody waits, and there is room: kept as a value, since every request looks at it."""
    _queue: dict[Member, None] = field(init=False, factory=dict)
    """Who waits, in the order of coming."""
    _call_is_due: bool = field(init=False, default=False)

    def wait(self, member: Member) -> None:
        """It has requests, and must not take them while `is_open` is False: `take_turn` is called when it may."""
        self._queue[member] = None
        self._look()

    def is_waiting(self, member: Member) -> bool:
        return member in self._queue

    def count(self, change: int) -> None:
        """So many more requests are under way; or fewer, and there may be room."""
        self.under_way += change
        self._look()

    def forget(self, member: Member) -> None:
        """Its connection is gone."""
        self._queue.pop(member, None)
        self._look()

    def _look(self) -> None:
        has_room = self.under_way < self.requests_max
        self.is_open = has_room and not self._queue
        if has_room and self._queue and not self._call_is_due:
            self._call_is_due = True
            self._turn.call(self._call_next)

    def _call_next(self) -> None:
        while self._queue and self.under_way < self.requests_max:
            member = next(iter(self._queue))
            del self._queue[member]
            member.take_turn()
        self._call_is_due = False
        self._look()
