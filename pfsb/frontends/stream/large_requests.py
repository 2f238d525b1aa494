"""LargeRequests: lets requests that are much work take turns, over all clients of a server.

A question with many rows in its answer takes a thousand times as long as a usual one, and its answer as much memory; so
does a short command that makes a new value of a large one (APPEND), at every server. If each client could send as many
of them as `session_window` allows, a few clients would keep the servers from everything else for seconds. So a
connection has one large request under way, and the large requests that are under way on all connections together are no
more work than `ROWS_UNDER_WAY_MAX` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Command, Refused
from pfsb.frontends.stream.reply_queue import ROWS_AT_ONCE, EndOfIteration

ROWS_UNDER_WAY_MAX: Final = 10_000
"""Maximum work, in rows, of all large requests that are under way together. A single request that is more work runs
alone. Reading so many rows from the state takes some ten milliseconds."""
UNREAD_SECONDS: Final = 1.0
"""How long, in seconds, a client may leave the reply to its large request unread while others wait for their turns. A
client that reads slowly keeps its turn: otherwise the large replies of many clients would be in memory together."""


def work_in_rows(application: Any) -> Mapping[str, Callable[[Command], int]]:
    """Verb -> function that gives how much work a command of this application is, in rows (`Application.work_in_rows`).

    The result is empty for an application without the attribute `work_in_rows`: none of its commands is a large
    request.
    """
    found: Mapping[str, Callable[[Command], int]] = getattr(application, "work_in_rows", {})
    return found


def is_large_request(rows: int) -> bool:
    """Whether a request that is as much work as `rows` rows of an answer is a large request: if they are more than
    `ROWS_AT_ONCE`."""
    return rows > ROWS_AT_ONCE


@define(eq=False)
class LargeRequests:
    """The large requests of all clients of one server. They start in the order in which they came."""

    _iteration_end: EndOfIteration
    _clock: IReactorTime
    _seconds_max: float
    """How long, in seconds, a request waits for its turn before it is refused."""
    _rows_under_way: int = field(init=False, default=0)
    """How much work, in rows, the requests under way are together."""
    _waiting: dict[LargeRequest, None] = field(init=False, factory=dict)
    _start_is_due: bool = field(init=False, default=False)
    """True while a look for the next request to start is due at the end of the reactor's iteration: no more than one is
    started in each iteration."""

    def ask(self, request: LargeRequest) -> None:
        """Starts a request when it is its turn, perhaps before this method returns: requests start in the order in
        which they came. A request whose turn does not come in time is refused."""
        self._waiting[request] = None
        if not self._start_is_due:
            self._start_next()
        if request in self._waiting:
            request.wait(self._seconds_max)

    def call_later(self, seconds: float, function: Callable[[], None]) -> IDelayedCall:
        return self._clock.callLater(seconds, function)

    def over(self, request: LargeRequest) -> None:
        """Called when a request is over: it has its answer, or its client is gone. Those that wait may start then."""
        if request.is_under_way:
            self._rows_under_way -= request.rows
            self._start_later()
        self._waiting.pop(request, None)

    def _start_next(self) -> None:
        """Starts the request that has waited longest, if it fits: with those that are under way it is no more work than
        `ROWS_UNDER_WAY_MAX` rows, or none is under way."""
        self._start_is_due = False
        request = next(iter(self._waiting), None)
        if request is None or (self._rows_under_way and self._rows_under_way + request.rows > ROWS_UNDER_WAY_MAX):
            return
        del self._waiting[request]
        self._rows_under_way += request.rows
        self._start_later()
        request.start()

    def _start_later(self) -> None:
        if not self._start_is_due:
            self._start_is_due = True
            self._iteration_end.call_in_turn(self._start_next)


@define(eq=False)
class LargeRequest:
    """One large request: it waits for its turn, then it is under way, then it is over."""

    _requests: LargeRequests
    rows: int
    """How much work the request is: as much as so many rows of an answer."""
    _start: Callable[[], None]
    """Function that handles the request. It is called once, when it is the request's turn."""
    _refuse: Callable[[Refused], None]
    """Function that is called with a refusal, once, if the request's turn does not come in time; the request is not
    handled then."""
    _fate: str = "none"
    """The fate in the refusal of this request: "unknown" if it may be the repetition of a request that was executed,
    else "none"."""
    is_under_way: bool = field(init=False, default=False)
    _timeout: IDelayedCall | None = field(init=False, default=None)

    def ask(self) -> None:
        """Lets the request start when it is its turn. The caller must call `over` when the request has its answer, or
        its client is gone."""
        self._requests.ask(self)

    def over(self) -> None:
        """Ends the request, so that others may start. A second call has no effect."""
        self._end_wait()
        self._requests.over(self)
        self.is_under_way = False

    def stops_being_read(self) -> None:
        """Called when the client does not read the reply: the request is over if that lasts `UNREAD_SECONDS`.

        Twisted calls again at each further write: the client was silent before, so its time does not begin anew.
        """
        if self.is_under_way and self._timeout is None:
            self._timeout = self._requests.call_later(UNREAD_SECONDS, self.over)

    def is_read(self) -> None:
        """Called when the client reads again."""
        if self.is_under_way:
            self._end_wait()

    def wait(self, seconds: float) -> None:
        """Called by `LargeRequests` when the request must wait: refuses it if its turn has not come within
        `seconds`."""
        self._timeout = self._requests.call_later(seconds, self._too_late)

    def start(self) -> None:
        self._end_wait()
        self.is_under_way = True
        self._start()

    def _end_wait(self) -> None:
        timeout, self._timeout = self._timeout, None
        if timeout is not None and timeout.active():
            timeout.cancel()

    def _too_late(self) -> None:
        self.over()
        text = "too many requests that are much work wait at this server; ask for fewer rows, or later"
        self._refuse(Refused("BUSY", text, fate=self._fate))
