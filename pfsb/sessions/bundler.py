"""One outstanding bundle at a time (Figure 12's rule for clients), and all that waits goes into the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from pfsb.applications.interfaces import Refused
from pfsb.sessions import bundle

BUNDLE_BYTES_MAX = 48_000
"""So that an update fits one proposal, and a proposal one frame."""

UNKNOWN = Refused(
    "UNAVAILABLE",
    "no majority has answered in time; it may still happen: repeat the same number to learn",
    fate="unknown",
)
"""The result so far of what is under way; the final one comes later."""
NOT_SENT = Refused("UNAVAILABLE", "no majority has answered in time; the command was not sent, and did not happen")
TOO_OLD = Refused("UNAVAILABLE", "the command was ordered too long after it was sent, and did not run")


def nothing(*_: Any) -> None:
    """For who does not want to know."""


@define(eq=False)
class Request:
    """What was asked together - commands, questions, operations - on its way through the log."""

    numbers: Sequence[int]
    """One for each: the client's number; 0 for what is not counted."""
    entries: bytes
    """Encoded for the bundle, one after the other."""
    asked_at: float
    settle: Callable[[Sequence[Any]], None]
    """Told a result for each, in the turn that executes them."""
    told_unknown: bool = False
    """It was told `UNKNOWN`. What is counted is told the result nevertheless, for whoever repeats its number."""

    def has_results(self, results: Sequence[Any]) -> None:
        if not self.told_unknown or any(self.numbers):
            self.settle(results)

    def has_result(self, result: Any) -> None:
        """The same for all of it."""
        self.has_results([result] * len(self.numbers))


class Bundler:
    """Turns the requests of one session into bundles."""

    def __init__(self, client_id: str, epoch: int, *, opens: bool) -> None:
        self._client_id = client_id
        self._epoch = epoch
        self._opens = opens
        self._head = bundle.encode_head(client_id, epoch, opens)
        self.introduced = False
        """Something of it was sent: its session may exist in the replicated state."""
        self.waiting: deque[Request] = deque()
        self.outstanding: list[Request] = []
        self.on_idle: Callable[[], None] = nothing
        """Called, in a turn, when nothing is under way any more and nothing waits."""

    @property
    def idle(self) -> bool:
        return not self.outstanding and not self.waiting

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def next_bundle(self) -> bytes | None:
        """The next bundle, encoded, if there is something to send and nothing is under way."""
        if self.outstanding or not self.waiting:
            return None
        size = count = 0
        while self.waiting and (not self.outstanding or size + len(self.waiting[0].entries) <= BUNDLE_BYTES_MAX):
            request = self.waiting.popleft()
            size += len(request.entries)
            count += len(request.numbers)
            self.outstanding.append(request)
        self.introduced = True
        return bundle.encode_bundle(self._head, count, [request.entries for request in self.outstanding])

    def executed(self, results: Sequence[Any]) -> None:
        """The outstanding bundle has its results."""
        if self._opens:
            self._opens = False
            self._head = bundle.encode_head(self._client_id, self._epoch, False)
        requests, self.outstanding = self.outstanding, []
        first = 0
        for request in requests:
            end = first + len(request.numbers)
            request.has_results(results[first:end])
            first = end
        assert first == len(results), "each entry of a bundle has its result"

    def too_old(self) -> None:
        """The outstanding bundle never runs; nor does what waits, so that the numbers can be used again, in order."""
        requests = [*self.outstanding, *self.waiting]
        self.outstanding = []
        self.waiting.clear()
        for request in requests:
            request.has_result(TOO_OLD)

    def ask_again(self, number: int, now: float) -> None:
        """The client repeats a number whose fate it was told to be unknown: it will be told again."""
        for request in self.outstanding:
            if request.told_unknown and number in request.numbers:
                request.told_unknown = False
                request.asked_at = now

    def refuse_asked_before(self, oldest: float) -> None:
        """docs/protocol.rst, UNAVAILABLE: what was not sent has no effect; what was may still be ordered.

        What waits is refused as a whole, since all of it waits for the same bundle to come back: so the
        numbers can be used again, in order.
        """
        for request in self.outstanding:
            if request.asked_at < oldest and not request.told_unknown:
                request.has_result(UNKNOWN)
                request.told_unknown = True
        if self.waiting and self.waiting[0].asked_at < oldest:
            waiting, self.waiting = self.waiting, deque()
            for request in waiting:
                request.has_result(NOT_SENT)
