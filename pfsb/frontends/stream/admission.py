"""AdmissionControl: limits how many requests a server has under way, and for how long it works for many clients in one
iteration of the reactor; lets further connections wait in a queue."""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.frontends.stream.reply_queue import EndOfIteration

SHARE_MIN: Final = 128
"""Number of requests, at least, that an admitted connection may have under way, however many wait: with smaller bundles
a server under load would get less done."""
REQUESTS_MAX: Final = 20_000
"""Maximum number of requests under way for all connections of a server; one connection may have `session_window`. This
number of requests fills the largest batches several times, so the limit does not lower the throughput. And even a slow
machine executes that many in less than `request_seconds`: with more, requests would be executed only after they were
refused for being late."""

WORK_SECONDS: Final = 0.01
"""How long, in seconds, a server handles the requests of connections that send much in one iteration of the reactor."""

_log = Logger()


class Member(Protocol):
    """A connection of a client, as `AdmissionControl` sees it while the connection waits in the queue."""

    def on_admitted(self) -> None:
        """Called at the head of the queue: handles requests until `session_window` are under way."""

    def on_failure(self) -> None:
        """Called if `on_admitted` has raised an exception, which is logged: ends the connection."""


@define(eq=False)
class AdmissionControl:
    """Limits the requests under way of all connections together to about `requests_max`, and the time that an iteration
    of the reactor takes for the connections that send much to about `WORK_SECONDS`.

    While a limit is reached, connections are no longer read; they wait in a queue until they are admitted, first come
    first served. An admitted connection handles requests until `session_window` of them are under way, but no more than
    its `share`: few large bundles are several times cheaper than many small ones. No connection waits for ever, since
    each request that is counted is answered or refused within `request_seconds`. A connection without requests under
    way may handle a single request without waiting in the queue: so clients that ask one thing after the other do not
    wait for clients that ask much at once.
    """

    _iteration_end: EndOfIteration
    requests_max: int = REQUESTS_MAX
    under_way: int = field(init=False, default=0)
    is_open: bool = field(init=False, default=True)
    """True if a connection may handle requests without waiting: no limit is reached, and no connection waits. An
    attribute and no property, for speed: it is looked at for every request."""
    _queue: dict[Member, None] = field(init=False, factory=dict)
    """The connections that wait, in the order in which they came."""
    _admission_is_due: bool = field(init=False, default=False)
    _worked_seconds: float = field(init=False, default=0.0)
    """How long, in seconds, requests were handled in this iteration of the reactor, by all connections that send
    much."""

    @property
    def share(self) -> int:
        """The number of requests that an admitted connection may have under way: `requests_max`, divided by the number
        of connections that wait and this one; but at least `SHARE_MIN`."""
        return max(SHARE_MIN, self.requests_max // (len(self._queue) + 1))

    def wait(self, member: Member) -> None:
        """Puts a connection into the queue.

        The connection must handle no further requests until its `on_admitted` is called.
        """
        self._queue[member] = None
        self._update()

    def is_waiting(self, member: Member) -> bool:
        return member in self._queue

    def count(self, change: int) -> None:
        """Adds `change` to the number of requests under way. After a negative change, connections may be admitted."""
        self.under_way += change
        self._update()

    def worked(self, seconds: float) -> None:
        """Notes that a connection has handled requests for `seconds` in this iteration of the reactor."""
        if not self._worked_seconds:
            self._iteration_end.call(self._iteration_is_over)
        self._worked_seconds += max(seconds, 1e-9)
        self._update()

    def forget(self, member: Member) -> None:
        """Called when a connection has ended: takes it out of the queue, if it waits there."""
        self._queue.pop(member, None)
        self._update()

    def _update(self) -> None:
        has_room = self.under_way < self.requests_max
        self.is_open = has_room and not self._queue and self._worked_seconds < WORK_SECONDS
        if has_room and self._queue and not self._admission_is_due:
            self._admission_is_due = True
            self._iteration_end.call(self._admit_next)

    def _admit_next(self) -> None:
        left = list(self._queue)
        try:
            for member in left:
                if self.under_way >= self.requests_max or self._worked_seconds >= WORK_SECONDS:
                    break
                if self._queue.pop(member, False) is None:
                    _admit(member)
        finally:
            self._admission_is_due = False
            self._update()

    def _iteration_is_over(self) -> None:
        self._worked_seconds = 0.0
        self._update()


def _admit(member: Member) -> None:
    """Gives a connection its turn. One that fails is ended, and the others still have their turns."""
    try:
        member.on_admitted()
    except Exception as error:
        _log.failure("a connection is ended, since its requests could not be handled", Failure(error))
        member.on_failure()
