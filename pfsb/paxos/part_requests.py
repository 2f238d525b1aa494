"""Which parts of a long promise or a snapshot a server asks for now, and which of its requests it takes for lost.

A new leader asks for the parts of long promises (Departure 47), and a server that is far behind for those of a snapshot
(Departure 57). The text below is about promises, and holds for snapshots as well.

A promise whose data list is long has many parts. A socket's buffer may hold as little as one of them, and a network may
lose any of them. So the leader asks for each part that it lacks, and limits the number of requests under way: few at
first, more after each answer, half as many after a loss. This is the scheme of TCP (RFC 5681), with parts in place of
segments. How long an answer may take follows from how long answers have taken, and is doubled while none arrives (RFC
6298).

Nothing here has an effect on safety: the content of a promise, and the moment from which it counts, do not depend on
who asked for its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from attrs import define, field

ROOM_AT_FIRST = 3.0
"""Number of requests that may be under way at first: their answers fit into a socket buffer of Linux's default size."""
ROOM_MIN = 4.0
"""Lowest limit, after a loss, on the number of requests that may be under way. Where parts are lost by chance and not
for want of room, a lower limit would cost much time: for each loss, one of the requests waits for as long as `patience`
in vain."""
ROOM_MAX = 32.0
OVERTAKEN = 2
"""Number of later requests to the same server that were answered before a request counts as lost."""
PATIENCE_MAX = 8
"""Maximum time, in units of `PartRequests.resend_seconds`, that an answer may take before its request for a part counts
as lost (`PartRequests.patience`)."""
FAILURES_BORNE = 2
"""How many times in a row a server may leave its requests unanswered before servers that answer are preferred."""


class InParts(Protocol):
    """A promise or a snapshot, which another server sends in parts."""

    @property
    def lacking(self) -> int:
        """Number of parts that have not arrived; 0: all parts are here."""

    def missing(self) -> Iterable[int]:
        """The parts that have not arrived and may be asked for now, ascending."""


@define
class Request:
    """One request for a part of a promise, until its answer has come or it counts as lost."""

    number: int
    """Number of the request: requests are numbered in the order in which they leave."""
    at: float
    """Time, by the clock in seconds, at which the request left."""
    first_at: float
    """Time, by the clock in seconds, at which the part was asked for first."""
    overtaken: int = 0
    """Number of later requests to the same server that were answered."""


@define(eq=False)
class PartRequests:
    """The requests of one Prepare phase, or for one snapshot.

    `resend_seconds` is the shortest time after which a request counts as lost.
    """

    resend_seconds: float
    _under_way: dict[int, dict[int, Request]] = field(factory=dict)
    """Server -> part -> the request for it."""
    _asked: dict[int, dict[int, float]] = field(factory=dict)
    """Server -> part -> time at which the part was asked for first."""
    _failures: dict[int, int] = field(factory=dict)
    """Server -> number of times in a row that requests to it were not answered in time."""
    _number: int = 0
    _room: float = ROOM_AT_FIRST
    """How many requests may be under way at present: a limit, of which a fraction does not count."""
    _steep_below: float = ROOM_MAX
    """The value of `_room` below which `_room` grows by one with each answer, and so doubles in the time of one answer;
    from it on, `_room` grows by one in that time (slow start and congestion avoidance of RFC 5681)."""
    _shrunk_at: int = 0
    """The number (`Request.number`) that the next request had when a loss last halved `_room`. If a request with a
    lower number turns out to be lost, `_room` is not halved again."""
    _usual: float = 0.0
    """How long, in seconds, an answer takes: measured at the latest part that was asked for once; before there is one,
    an upper bound from parts that were asked for several times."""
    _is_measured: bool = False
    _backoff: int = 1
    """Factor of the time `patience`: doubled when a request is not answered in time, and 1 again when an answer
    arrives."""

    def begin(self) -> None:
        """Forget all requests for parts, since the leader begins to prepare another view."""
        self._under_way.clear()
        self._asked.clear()
        self._failures.clear()
        self._number, self._shrunk_at = 0, 0
        self._room, self._steep_below = ROOM_AT_FIRST, ROOM_MAX
        self._usual, self._is_measured, self._backoff = 0.0, False, 1

    def answered(self, server_id: int, part: int, now: float) -> None:
        """Take in that a part of the promise of server `server_id` has arrived at `now`, whether it was asked for or
        not."""
        self._failures[server_id] = 0
        requests = self._under_way.get(server_id, {})
        request = requests.pop(part, None)
        if request is None:
            return
        is_first = request.at == request.first_at
        if is_first or not self._is_measured:
            self._usual, self._is_measured = now - request.first_at, is_first
        self._backoff = 1
        self._room = min(ROOM_MAX, self._room + (1 if self._room < self._steep_below else 1 / self._room))
        for other in requests.values():
            other.overtaken += other.number < request.number

    def choose(self, promises: Mapping[int, InParts], wanted: int, now: float) -> list[tuple[int, int]]:
        """Choose the parts of promises that the leader asks for at the time `now`. Returns a (server, part) pair for
        each request; the caller sends the requests.

        `promises` has, by server, the promises of which some part has arrived; `wanted` is the number of promises that
        must still be completed. The promises that lack the fewest parts are completed first, so that not more is sent
        than a majority needs. If a request counts as lost at this time, at least one part is asked for, whatever the
        limit is.
        """
        are_lost = self.forget_lost(now)
        lacking = [i for i, promise in promises.items() if promise.lacking]
        lacking.sort(key=lambda i: (self._failures.get(i, 0) // FAILURES_BORNE, promises[i].lacking, i))
        room = max(int(are_lost), int(self._room) - sum(map(len, self._under_way.values())))
        chosen: list[tuple[int, int]] = []
        for server_id in lacking[:wanted]:
            promise, requests = promises[server_id], self._under_way.setdefault(server_id, {})
            for part in promise.missing():
                if len(chosen) >= room:
                    return chosen
                if part not in requests:
                    self._note(server_id, part, now)
                    chosen.append((server_id, part))
        return chosen

    @property
    def patience(self) -> float:
        """How long, in seconds, an answer may take before its request counts as lost."""
        seconds = self._backoff * max(2 * self._usual, self.resend_seconds)
        return min(seconds, PATIENCE_MAX * self.resend_seconds)

    def is_silent(self, server_id: int) -> bool:
        """Whether a request to server `server_id` was not answered within `patience`, and no part has come from that
        server since."""
        return self._failures.get(server_id, 0) > 0

    def _note(self, server_id: int, part: int, now: float) -> None:
        first_at = self._asked.setdefault(server_id, {}).setdefault(part, now)
        self._under_way[server_id][part] = Request(self._number, now, first_at)
        self._number += 1

    def forget_lost(self, now: float) -> bool:
        """Drop the requests that count as lost, so that their parts are asked for again. Returns whether there are
        any."""
        is_late = are_lost = False
        patience = self.patience
        for server_id, requests in self._under_way.items():
            late = [part for part, request in requests.items() if now - request.at >= patience]
            passed = [part for part, request in requests.items() if request.overtaken >= OVERTAKEN]
            for part in sorted({*late, *passed}):
                self._shrink(requests.pop(part))
                are_lost = True
            if late:
                self._failures[server_id] = self._failures.get(server_id, 0) + 1
                is_late = True
        if is_late:
            self._backoff = min(2 * self._backoff, PATIENCE_MAX)
        return are_lost

    def _shrink(self, lost: Request) -> None:
        """Halve `_room`, the number of requests that may be under way, because the request `lost` counts as lost: once
        for all losses among the requests that were under way together."""
        if lost.number >= self._shrunk_at:
            self._room = self._steep_below = max(ROOM_MIN, self._room / 2)
            self._shrunk_at = self._number
