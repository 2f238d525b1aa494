"""The search for an order of operations that explains every answer; `checker` describes its rules."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from enum import Enum
from itertools import count
from typing import Any

from attrs import define, field, frozen

from pfsb.simulator.linearizability.operations import Operation, Specification, SubHistory


class Verdict(Enum):
    """The result of a search or of a check."""

    OK = "ok"
    VIOLATION = "violation"
    UNDECIDED = "undecided"


@frozen
class SearchResult:
    """The end of one search: the verdict, and for `Verdict.OK` the order and the state after it."""

    verdict: Verdict
    steps: int
    order: tuple[Operation, ...] = ()
    state: Any = None


def search(part: SubHistory, operations: Sequence[Operation], steps_max: int) -> SearchResult:
    """Search for an order of these operations, with the specification of `part` and at most `steps_max` attempts."""
    possible = [operation for operation in operations if operation.fate != "none"]
    return _Search(part.specification(possible), possible, steps_max).run()


class _OutOfSteps(Exception):
    pass


@define
class _Frame:
    """A configuration on the path of the search, and the operations that are still to be tried after it."""

    base: int
    """All certain operations below this index are placed."""
    window: int
    """A bit for each certain operation from `base` on that is placed: bit i is operation `base` + i."""
    used: int
    """A bit for each uncertain operation that is placed."""
    state: Any
    index: int = -1
    """The operation that led to this configuration."""
    without: Any = None
    """The state without that operation, if it is an uncertain one."""
    chain: int = 0
    """Number of uncertain operations in a row that led to this configuration."""
    candidates: Iterator[int] = field(factory=lambda: iter(()))


class _Search:
    """One search over one sub-history. Certain operations come first in all tables, each group in order of calls."""

    def __init__(self, specification: Specification, operations: Sequence[Operation], steps_max: int) -> None:
        self._specification = specification
        self._steps_max = steps_max
        self._steps = 0
        certain = sorted((op for op in operations if op.is_certain), key=lambda op: op.call)
        uncertain = sorted((op for op in operations if not op.is_certain), key=lambda op: op.call)
        self._operations = certain + uncertain
        self._certain = self._left = len(certain)
        self._entries = _Moments(certain)
        self._ranks = _Ranks([specification.position(operation) for operation in certain])
        self._twins = _twins([specification.alike(operation) for operation in uncertain])
        self._failed: dict[Hashable, list[int]] = {}
        self._chain_max = 0
        """Maximum number of uncertain operations in a row that are tried at present."""
        self._is_cut = False
        """Whether an order was not tried because of `_chain_max`."""

    def run(self) -> SearchResult:
        """Search with chains of one uncertain operation, of up to two, and so on, until the verdict is sure."""
        try:
            for self._chain_max in count(1):
                run = self._explore()
                if run.verdict is Verdict.OK or not self._is_cut:
                    return run
        except _OutOfSteps:
            pass
        return SearchResult(Verdict.UNDECIDED, self._steps)

    def _explore(self) -> SearchResult:
        self._is_cut = False
        self._failed.clear()
        root = _Frame(0, 0, 0, self._specification.start())
        root.candidates = self._candidates(root)
        self._has_failed(root)
        frames = [root]
        while self._left:
            child = self._next_child(frames[-1])
            if child is not None:
                frames.append(child)
                continue
            dead = frames.pop()
            if not frames:
                return SearchResult(Verdict.VIOLATION, self._steps)
            self._take_back(dead.index)
        order = tuple(self._operations[frame.index] for frame in frames[1:])
        return SearchResult(Verdict.OK, self._steps, order, frames[-1].state)

    def _next_child(self, frame: _Frame) -> _Frame | None:
        """Place one more operation after `frame`; None when all candidates have been tried."""
        for index in frame.candidates:
            self._count_step()
            operation = self._operations[index]
            state = self._specification.step(frame.state, operation)
            if state is None:
                continue
            # The uncertain operation before made no difference: the search finds this state without it.
            if frame.without is not None and self._specification.step(frame.without, operation) == state:
                continue
            child = self._after(frame, index, state)
            if not self._has_failed(child):
                self._place(index)
                child.candidates = self._candidates(child)
                return child
        return None

    def _candidates(self, frame: _Frame) -> Iterator[int]:
        """The operations that may come next: those that were called before the first return that is left."""
        for index in self._entries.callable_now():
            if self._ranks.permits(index):
                yield index
        deadline = self._entries.first_return()
        for bit, twin in enumerate(self._twins):
            index = self._certain + bit
            if self._operations[index].call > deadline:
                return
            # Of operations that are alike the first one is tried: an order with another of them exists only if one
            # with the first one exists.
            if not frame.used >> bit & 1 and (twin < 0 or frame.used >> twin & 1):
                if frame.chain == self._chain_max:
                    self._is_cut = True
                    return
                yield index

    def _after(self, frame: _Frame, index: int, state: Any) -> _Frame:
        if index >= self._certain:
            used = frame.used | 1 << index - self._certain
            return _Frame(frame.base, frame.window, used, state, index, frame.state, frame.chain + 1)
        window = frame.window | 1 << index - frame.base
        ones = (~window & window + 1).bit_length() - 1
        return _Frame(frame.base + ones, window >> ones, frame.used, state, index)

    def _has_failed(self, frame: _Frame) -> bool:
        """Whether the search has met this configuration with no fewer uncertain operations left, which it notes.

        A configuration that is still on the path of the search counts, too: all its continuations are tried there.
        """
        known = self._failed.setdefault((frame.base, frame.window, frame.state), [])
        if any(used & frame.used == used for used in known):
            return True
        known.append(frame.used)
        return False

    def _place(self, index: int) -> None:
        if index < self._certain:
            self._left -= 1
            self._entries.lift(index)
            self._ranks.take(index)

    def _take_back(self, index: int) -> None:
        if index < self._certain:
            self._left += 1
            self._entries.unlift(index)
            self._ranks.give_back(index)

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > self._steps_max:
            raise _OutOfSteps


class _Moments:
    """The calls and returns that are left, by time, as a doubly linked list. Lifting one out and undoing that are O(1).

    Entry 0 is the head. The last entry is a return of no operation, at the end of time.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        moments = [(op.call, False, index) for index, op in enumerate(operations)]
        moments += [(op.ret, True, index) for index, op in enumerate(operations) if op.ret is not None]
        # A call comes before a return of the same instant, since the two operations may overlap.
        moments.sort()
        size = len(moments) + 2
        self._time = [0.0, *(time for time, _, _ in moments), float("inf")]
        self._is_return = [False, *(is_return for _, is_return, _ in moments), True]
        self._index = [-1, *(index for _, _, index in moments), -1]
        self._next: list[int] = [*range(1, size), size - 1]
        self._previous: list[int] = [0, *range(size - 1)]
        self._call_of = [0] * len(operations)
        self._return_of = [0] * len(operations)
        for entry, (_, is_return, index) in enumerate(moments, 1):
            (self._return_of if is_return else self._call_of)[index] = entry

    def callable_now(self) -> Iterator[int]:
        """Operations whose call comes before every return. Lifting is allowed meanwhile, if it is undone in time."""
        entry = self._next[0]
        while not self._is_return[entry]:
            yield self._index[entry]
            entry = self._next[entry]

    def first_return(self) -> float:
        entry = self._next[0]
        while not self._is_return[entry]:
            entry = self._next[entry]
        return self._time[entry]

    def lift(self, index: int) -> None:
        for entry in (self._call_of[index], self._return_of[index]):
            self._next[self._previous[entry]] = self._next[entry]
            self._previous[self._next[entry]] = self._previous[entry]

    def unlift(self, index: int) -> None:
        """Undo the latest `lift`. Each entry still knows the neighbours that it had then."""
        for entry in (self._return_of[index], self._call_of[index]):
            self._next[self._previous[entry]] = entry
            self._previous[self._next[entry]] = entry


class _Ranks:
    """The order of the operations with a position, of which only one with the lowest position may come next."""

    def __init__(self, positions: Sequence[int | None]) -> None:
        known = sorted({position for position in positions if position is not None})
        rank_of = {position: rank for rank, position in enumerate(known)}
        self._rank = [-1 if position is None else rank_of[position] for position in positions]
        self._left = [0] * len(known)
        for rank in self._rank:
            if rank >= 0:
                self._left[rank] += 1
        self._present_rank = 0

    def permits(self, index: int) -> bool:
        return self._rank[index] in (-1, self._present_rank)

    def take(self, index: int) -> None:
        rank = self._rank[index]
        if rank >= 0:
            self._left[rank] -= 1
            self._present_rank += not self._left[rank]

    def give_back(self, index: int) -> None:
        rank = self._rank[index]
        if rank >= 0:
            self._left[rank] += 1
            self._present_rank = rank


def _twins(kinds: Sequence[Hashable]) -> list[int]:
    """The index of the preceding equal kind, for each kind; -1 if there is none."""
    latest: dict[Hashable, int] = {}
    twins = []
    for index, kind in enumerate(kinds):
        twins.append(latest.get(kind, -1))
        latest[kind] = index
    return twins
