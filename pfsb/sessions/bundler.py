"""One outstanding update at a time (Figure 12's rule for clients), and all that waits goes into the next one.

Departure 8: updates are counted by their session; the numbers of the client's commands are inside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from pfsb.interfaces import Refused
from pfsb.paxos.messages import ClientUpdate
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
OUTLIVED = Refused("UNAVAILABLE", "the command was ordered too long after it was sent, and did not run")


def nothing(*_: Any) -> None:
    """For who does not want to know."""


@define(eq=False)
class Request:
    """One command, question or operation on its way through the log."""

    number: int
    """The client's number; 0 for what is not counted."""
    entry: bytes
    """Encoded for the bundle."""
    asked_at: float
    settle: Callable[[Any], None]
    """Told the result, in the turn that executes it."""
    told_unknown: bool = False
    """It was told `UNKNOWN`. What is counted is told the result nevertheless, for whoever repeats its number."""

    def has_result(self, result: Any) -> None:
        if self.number or not self.told_unknown:
            self.settle(result)


class Bundler:
    """Turns the requests under one update client id into updates with growing timestamps."""

    def __init__(self, update_client_id: str, server_id: int, epoch: int, *, opens: bool) -> None:
        self.update_client_id = update_client_id
        self._server_id = server_id
        self._epoch = epoch
        self._opens = opens
        self._timestamp = 0
        self.waiting: deque[Request] = deque()
        self.outstanding: list[Request] = []
        self.on_idle: Callable[[], None] = nothing
        """Called, in a turn, when nothing is under way any more and nothing waits."""

    @property
    def introduced(self) -> bool:
        """Something of it was sent: its session may exist in the replicated state."""
        return self._timestamp > 0

    @property
    def idle(self) -> bool:
        return not self.outstanding and not self.waiting

    def add(self, number: int, encoded_command: bytes, now: float, settle: Callable[[Any], None]) -> None:
        self.waiting.append(Request(number, bundle.encode_entry(number, encoded_command), now, settle))

    def next_update(self, local_aru: int) -> ClientUpdate | None:
        """The next bundle, if there is something to send and nothing is under way."""
        if self.outstanding or not self.waiting:
            return None
        size = 0
        while self.waiting and (not self.outstanding or size + len(self.waiting[0].entry) <= BUNDLE_BYTES_MAX):
            request = self.waiting.popleft()
            size += len(request.entry)
            self.outstanding.append(request)
        payload = bundle.encode(self._epoch, self._opens, [request.entry for request in self.outstanding])
        self._timestamp += 1
        return ClientUpdate(self.update_client_id, self._server_id, self._timestamp, local_aru, payload)

    def executed(self, update: ClientUpdate, results: Sequence[Any]) -> None:
        """The outstanding bundle has its results."""
        assert update.timestamp == self._timestamp, "one update of a client is outstanding at a time"
        self._opens = False
        requests, self.outstanding = self.outstanding, []
        for request, result in zip(requests, results, strict=True):
            request.has_result(result)

    def awaits(self, update: ClientUpdate) -> bool:
        return bool(self.outstanding) and update.timestamp == self._timestamp

    def outlived(self) -> None:
        """The outstanding bundle never runs; nor does what waits, so that the numbers can be used again, in order."""
        requests = [*self.outstanding, *self.waiting]
        self.outstanding = []
        self.waiting.clear()
        for request in requests:
            request.has_result(OUTLIVED)

    def ask_again(self, number: int, now: float) -> None:
        """The client repeats a number whose fate it was told to be unknown: it will be told again."""
        for request in self.outstanding:
            if request.number == number and request.told_unknown:
                request.told_unknown = False
                request.asked_at = now

    def refuse_asked_before(self, oldest: float) -> None:
        """Interface part 3, UNAVAILABLE: what was not sent has no effect; what was may still be ordered.

        What waits is refused as a whole, since all of it waits for the same bundle to come back: so the
        numbers can be used again, in order.
        """
        for request in self.outstanding:
            if request.asked_at < oldest and not request.told_unknown:
                request.told_unknown = True
                request.settle(UNKNOWN)
        if self.waiting and self.waiting[0].asked_at < oldest:
            waiting, self.waiting = self.waiting, deque()
            for request in waiting:
                request.settle(NOT_SENT)
