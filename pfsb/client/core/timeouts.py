"""How long a client waits for a server before it tries another."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from pfsb.client.core.command import WAITING_VERBS

RESPONSE_SECONDS: Final = 2.0
"""How long, in seconds, a server may leave a request unanswered before the client tries another server."""
DOUBLINGS_MAX: Final = 2
"""Maximum number of times that the timeout of a client is doubled while no server answers in between."""


@define(eq=False)
class ResponseTimeout:
    """The timeout of a client for the answer of its server.

    The timeout doubles each time that a server does not answer, at most `DOUBLINGS_MAX` times: under heavy load, a
    client with a short timeout would leave every server before the server can answer.
    """

    seconds: float = RESPONSE_SECONDS
    expected: int = field(init=False, default=0)
    """Number of requests under way that a healthy server answers at once; those of LOCK and DIGEST are not counted."""
    quiet_since: float = field(init=False, default=0.0)
    """The time from which on the timeout runs. This is when the server last answered, or when the client sent HELLO, or
    a request while no other was under way: whichever came last."""
    _doublings: int = field(init=False, default=0)

    @property
    def ends_at(self) -> float:
        """The time at which the client must try another server, if the present one has not answered by then."""
        return self.quiet_since + self._current_seconds

    @property
    def _current_seconds(self) -> float:
        return self.seconds * 2.0**self._doublings

    def begin(self, now: float) -> None:
        """Called when HELLO is sent: the timeout for its answer runs from now on."""
        self.quiet_since = now

    def expect(self, verb: str, now: float) -> None:
        """Called when a request with this verb is sent: the server must answer it in time from now on. Verbs whose
        answers may take long, such as LOCK, are not counted."""
        if verb not in WAITING_VERBS:
            if not self.expected:
                self.quiet_since = now
            self.expected += 1

    def answered(self, verb: str, now: float) -> None:
        """Called when the server has answered a request with this verb: the answer is no longer awaited, and the
        timeout begins anew, without any doubling."""
        if verb not in WAITING_VERBS:
            self.expected -= 1
        self.heard(now)

    def heard(self, now: float) -> None:
        """Called when the server has answered any request: the timeout begins anew, with its first length."""
        self._doublings = 0
        self.quiet_since = now

    def expire(self) -> float:
        """Called when an answer is overdue. Returns how many seconds the client has waited, and doubles the timeout."""
        waited = self._current_seconds
        self._doublings = min(self._doublings + 1, DOUBLINGS_MAX)
        return waited
