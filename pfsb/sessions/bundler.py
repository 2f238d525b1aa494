"""One outstanding update at a time (Figure 12's rule for clients), and all that waits goes into the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from pfsb.interfaces import Command, Refused
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle

BUNDLE_BYTES_MAX = 48_000
"""So that an update fits one proposal, and a proposal one frame."""


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
    settle: Callable[[Any], None] | None
    """Told the result, in the turn that executes it; None once the asker was told that the fate is unknown."""


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

    def add(self, number: int, command: Command, now: float, settle: Callable[[Any], None]) -> Request:
        request = Request(number, bundle.encode_entry(number, command), now, settle)
        self.waiting.append(request)
        return request

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
        self._opens = False
        self._timestamp += 1
        return ClientUpdate(self.update_client_id, self._server_id, self._timestamp, local_aru, payload)

    def executed(self, update: ClientUpdate, results: Sequence[Any]) -> None:
        """The outstanding bundle has its results."""
        assert update.timestamp == self._timestamp, "one update of a client is outstanding at a time"
        requests, self.outstanding = self.outstanding, []
        for request, result in zip(requests, results, strict=True):
            if request.settle is not None:
                request.settle(result)

    def refuse_asked_before(self, oldest: float) -> None:
        """Interface part 3, UNAVAILABLE: what was not sent has no effect; what was may still be ordered.

        What waits is refused as a whole, since all of it waits for the same bundle to come back: so the
        numbers can be used again, in order.
        """
        for request in self.outstanding:
            if request.asked_at < oldest and request.settle is not None:
                settle, request.settle = request.settle, None
                text = "no majority has answered in time; it may still happen: repeat the same number to learn"
                settle(Refused("UNAVAILABLE", text, fate="unknown"))
        if self.waiting and self.waiting[0].asked_at < oldest:
            waiting, self.waiting = self.waiting, deque()
            for request in waiting:
                assert request.settle is not None
                text = "no majority has answered in time; the command was not sent, and did not happen"
                request.settle(Refused("UNAVAILABLE", text))
