"""A Bundler turns the commands of one session into bundles, of which one at a time is outstanding (Figure 12).

A bundle is outstanding from the moment at which it is put into an update until that update was executed, or was found
to be beyond its horizon. All that is submitted meanwhile waits, and goes into the next bundle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from pfsb.applications.interfaces import Refused
from pfsb.sessions import bundle

BUNDLE_BYTES_MAX = 48_000
"""Maximum size of a bundle of several commands, so that an update fits one proposal, and a proposal one frame."""

UNKNOWN = Refused(
    "UNAVAILABLE",
    "no majority has answered in time; it may still happen: repeat the same number to learn",
    fate="unknown",
)
"""The provisional result of a command that is outstanding; its final result follows later."""
NOT_SENT = Refused("UNAVAILABLE", "no majority has answered in time; the command was not sent, and did not happen")
TOO_OLD = Refused("UNAVAILABLE", "the command was ordered too long after it was sent, and did not run")


def nothing(*_: Any) -> None:
    """Ignores its arguments: a call-back for callers that need none."""


@define(eq=False)
class BundlePart:
    """Entries that were submitted together, and stay together on their way through the log: a bundle consists of parts.

    An entry is a command of a client, a question, or an operation of the server's own session.
    """

    numbers: Sequence[int]
    """The number of each entry: the client's for a command, 0 for an entry that is not counted."""
    encoded: bytes
    """The entries, encoded for the bundle, one after the other."""
    submitted_at: float
    on_results: Callable[[Sequence[Any]], None]
    """Called with a result for each entry, in the turn that executes them."""
    has_unknown: bool = False
    """True after `on_results` was called with `UNKNOWN`.

    A part with a counted entry is told its final results nevertheless, for a client that repeats the number.
    """

    def finish(self, results: Sequence[Any]) -> None:
        if not self.has_unknown or any(self.numbers):
            self.on_results(results)

    def finish_all(self, result: Any) -> None:
        """Gives every entry of this part the same result."""
        self.finish([result] * len(self.numbers))


class Bundler:
    """The parts of one session that wait, and those of its outstanding bundle."""

    def __init__(self, client_id: str, epoch: int, *, opens: bool, on_idle: Callable[[], None] = nothing) -> None:
        """`on_idle` is called, in a turn, when the last outstanding bundle has come back and no part waits."""
        self.client_id = client_id
        self._epoch = epoch
        self._opens = opens
        self._head = bundle.encode_head(client_id, epoch, opens)
        self.introduced = False
        """True once a bundle was put into an update: the session may exist in the replicated state."""
        self.waiting: deque[BundlePart] = deque()
        self.outstanding: list[BundlePart] = []
        self.on_idle = on_idle

    @property
    def idle(self) -> bool:
        return not self.outstanding and not self.waiting

    def add(self, part: BundlePart) -> None:
        self.waiting.append(part)

    def next_bundle(self) -> bytes | None:
        """The next bundle, encoded; None if no part waits, or if a bundle is outstanding."""
        if self.outstanding or not self.waiting:
            return None
        size = count = 0
        while self.waiting and (not self.outstanding or size + len(self.waiting[0].encoded) <= BUNDLE_BYTES_MAX):
            part = self.waiting.popleft()
            size += len(part.encoded)
            count += len(part.numbers)
            self.outstanding.append(part)
        self.introduced = True
        return bundle.encode_bundle(self._head, count, [part.encoded for part in self.outstanding])

    def executed(self, results: Sequence[Any]) -> None:
        """The outstanding bundle was executed: `results` has one for each of its entries."""
        if self._opens:
            self._opens = False
            self._head = bundle.encode_head(self.client_id, self._epoch, False)
        parts, self.outstanding = self.outstanding, []
        first = 0
        for part in parts:
            end = first + len(part.numbers)
            part.finish(results[first:end])
            first = end
        assert first == len(results), "each entry of a bundle has its result"

    def too_old(self) -> None:
        """The outstanding bundle was ordered beyond its horizon: no server has executed it, or ever will.

        The parts that wait are refused as well. None of all these numbers has run, so the client can use them again,
        in their order; if a part that waits ran first, the lower numbers could never run.
        """
        parts = [*self.outstanding, *self.waiting]
        self.outstanding = []
        self.waiting.clear()
        for part in parts:
            part.finish_all(TOO_OLD)

    def drop_waiting(self) -> None:
        """Forgets the parts that wait: they were not sent, so they never run."""
        self.waiting.clear()

    def note_repeated(self, number: int, now: float) -> None:
        """The client repeats a number after `UNKNOWN`: it waits for `request_seconds` once more.

        A repetition before `UNKNOWN` does not move the deadline: a client that repeats every second would otherwise
        never be answered while there is no majority.
        """
        for part in self.outstanding:
            if part.has_unknown and number in part.numbers:
                part.has_unknown = False
                part.submitted_at = now

    def refuse_submitted_before(self, oldest: float) -> None:
        """Refuses, with UNAVAILABLE, the parts that were submitted before `oldest`.

        An outstanding part may still be ordered: the fate of its commands is unknown. A part that waits was not sent:
        it did not happen. If the oldest part that waits is due, all parts that wait are refused, since they all wait
        for the same bundle to come back: so their numbers can be used again, in their order.
        """
        for part in self.outstanding:
            if part.submitted_at < oldest and not part.has_unknown:
                part.finish_all(UNKNOWN)
                part.has_unknown = True
        if self.waiting and self.waiting[0].submitted_at < oldest:
            waiting, self.waiting = self.waiting, deque()
            for part in waiting:
                part.finish_all(NOT_SENT)
