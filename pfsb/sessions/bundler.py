"""Bundler: turns the commands of one session into bundles, of which at most one is outstanding (Figure 12).

A bundle is outstanding from the moment when it is put into an update until that update is executed, or is found to be
beyond its horizon. Commands that are submitted meanwhile wait, and go into the next bundle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from pfsb.applications.interfaces import Refused
from pfsb.sessions import bundle
from pfsb.sessions.refusals import NeverRan, NotSent, Provisional

BUNDLE_BYTES_MAX = 48_000
"""Maximum bytes of a bundle with several parts, so that an update fits into a proposal, and a proposal into a frame."""

UNKNOWN = Provisional(
    "UNAVAILABLE",
    "no majority has answered in time; it may still happen: repeat the same number to learn",
    fate="unknown",
)
"""The provisional result of an outstanding command, given after `request_seconds`."""
NOT_SENT = NotSent("UNAVAILABLE", "no majority has answered in time; the command was not sent, and did not happen")
TOO_OLD = NeverRan("UNAVAILABLE", "the command was ordered too long after it was sent, and did not run")
DISPLACED = NeverRan(
    "UNAVAILABLE", "another update was ordered in place of the one with the command, which did not run"
)

SKIPPED = Refused(
    "UNAVAILABLE",
    "this server has skipped the slot with the command, by a snapshot; it may have happened: repeat the same number "
    "to learn",
    fate="unknown",
)
"""The final result of an operation or command whose own result this server does not know, since it has taken over the
state of a snapshot."""
SKIPPED_QUESTION = Refused(
    "UNAVAILABLE", "this server has skipped the slot with the question, by a snapshot; it changes nothing: ask again"
)
NOT_RUN = NeverRan("UNAVAILABLE", "the command was ordered in a slot that did not execute it, and did not run")


def nothing(*_: Any) -> None:
    """Does nothing: the default of a call-back that a caller may leave out."""


@define(eq=False)
class BundlePart:
    """A part of a bundle: entries that were submitted together, and that are ordered together.

    An entry is a command of a client, a question, or an operation of the server's own session.
    """

    numbers: Sequence[int]
    """The number of each entry: the command number of a command, 0 for a question or an operation."""
    encoded: bytes
    """The encoded entries, one after the other."""
    submitted_at: float
    on_results: Callable[[Sequence[Any]], None]
    """Called, in a turn, with a sequence of one result for each entry, when the entries are executed or refused.

    A refusal may be `Provisional`: then there may be a second call, see `has_unknown`.
    """
    has_unknown: bool = False
    """True after `on_results` was called with a `Provisional` refusal for every entry, as the results took too long.

    When the final results come, `on_results` is called a second time, for a client that repeats a number; but not if
    all entries have number 0, since these cannot be repeated.
    """

    def finish(self, results: Sequence[Any]) -> None:
        if not self.has_unknown or any(self.numbers):
            self.on_results(results)

    def finish_all(self, result: Any) -> None:
        """Calls `on_results` with this result for every entry. Does nothing if `has_unknown` is True and all numbers
        are 0."""
        self.finish([result] * len(self.numbers))


class Bundler:
    """The parts of one session that wait for the next bundle, and the parts in its outstanding bundle."""

    def __init__(self, client_id: str, epoch: int, *, opens: bool, on_idle: Callable[[], None] = nothing) -> None:
        """`opens` says whether a bundle may open the session (`Bundle.opens`). `on_idle` is called, in a turn, each
        time that an outstanding bundle has got its results and no part waits."""
        self.client_id = client_id
        self.epoch = epoch
        self._opens = opens
        self._head = bundle.encode_head(client_id, epoch, opens)
        self.introduced = False
        """True once a bundle was put into an update, so that the session may exist in the replicated state."""
        self.waiting: deque[BundlePart] = deque()
        self.outstanding: list[BundlePart] = []
        self.on_idle = on_idle

    @property
    def idle(self) -> bool:
        return not self.outstanding and not self.waiting

    @property
    def may_open(self) -> bool:
        """Whether the next bundle may open the session: no bundle was executed yet, as far as this server knows."""
        return self._opens

    @property
    def numbers(self) -> Sequence[int]:
        """The number of each entry of the outstanding bundle."""
        return [number for part in self.outstanding for number in part.numbers]

    def add(self, part: BundlePart) -> None:
        self.waiting.append(part)

    def next_bundle(self) -> bytes | None:
        """Makes the next bundle of the waiting parts, and returns it encoded; it is outstanding from now on.

        Returns None if no part waits, or if a bundle is outstanding already.
        """
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
        """Called when the outstanding bundle was executed: passes `results`, one for each entry of the bundle, on to
        its parts.

        If the bundle could not open its session (`NotOpened`), its parts and the waiting parts get that refusal. A
        later bundle may still open the session.
        """
        if self._opens:
            if isinstance(results[0], bundle.NotOpened):
                self.refuse_all(results[0])
                return
            self._opens = False
            self._head = bundle.encode_head(self.client_id, self.epoch, False)
        parts, self.outstanding = self.outstanding, []
        if len(parts) == 1 and len(results) == len(parts[0].numbers):
            parts[0].finish(results)
            return
        first = 0
        for part in parts:
            end = first + len(part.numbers)
            part.finish(results[first:end])
            first = end
        assert first == len(results), "each entry of a bundle has its result"

    def too_old(self) -> None:
        """Refuses the outstanding bundle, which was ordered beyond its horizon, so no server ever executes it."""
        self.refuse_all(TOO_OLD)

    def refuse_all(self, refusal: Refused) -> None:
        """Refuses the outstanding bundle, whose commands certainly never run, and the waiting parts.

        So the client can use all these numbers again, in ascending order. If a waiting part ran first, the lower
        numbers of the outstanding bundle could never run.
        """
        parts = [*self.outstanding, *self.waiting]
        self.outstanding = []
        self.waiting.clear()
        for part in parts:
            part.finish_all(refusal)

    def drop_waiting(self) -> None:
        """Drops the parts that wait for the next bundle: they were not sent, so they never run."""
        self.waiting.clear()

    def note_repeated(self, number: int, now: float) -> None:
        """Called when a client has repeated `number` at the clock time `now`. If the part with that number was answered
        provisionally, the part may wait for `request_seconds` again.

        Before the provisional answer, a repetition makes no wait longer: a client that repeats every second would
        otherwise never be answered while there is no majority.
        """
        for part in self.outstanding:
            if part.has_unknown and number in part.numbers:
                part.has_unknown = False
                part.submitted_at = now

    def refuse_submitted_before(
        self, oldest: float, unknown: Provisional = UNKNOWN, not_sent: NotSent = NOT_SENT
    ) -> None:
        """Refuses the parts that were submitted before the clock time `oldest`: outstanding ones by `unknown`, waiting
        ones by `not_sent`.

        An outstanding part may still be ordered, so the fate of its commands is unknown. A waiting part was not sent,
        so its commands certainly do not run. If the oldest waiting part is due, all waiting parts are refused: they all
        wait for the same outstanding bundle, and the client can then use their numbers again, in ascending order.
        """
        for part in self.outstanding:
            if part.submitted_at < oldest and not part.has_unknown:
                part.finish_all(unknown)
                part.has_unknown = True
        if self.waiting and self.waiting[0].submitted_at < oldest:
            waiting, self.waiting = self.waiting, deque()
            for part in waiting:
                part.finish_all(not_sent)
