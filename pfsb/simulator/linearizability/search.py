"""The search for an order of operations that explains every answer; `checker` describes its rules.

An operation is certain if it is known to have taken effect between its call and its return, with a known answer
(`Operation.is_certain`). Otherwise it is uncertain: an order may leave it out. An operation is placed when the search
has put it into the order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from enum import Enum
from itertools import count
from typing import Any

from attrs import define, field, frozen

from pfsb.simulator.linearizability.operations import Operation, Specification, SubHistory


class Verdict(Enum):
    """The result of a search or of a check: an order exists, or none does, or there were too many steps to tell."""

    OK = "ok"
    VIOLATION = "violation"
    UNDECIDED = "undecided"


@frozen
class SearchResult:
    """The result of one search: the verdict, and if it is OK, an order and the state after all its operations."""

    verdict: Verdict
    steps: int
    order: tuple[Operation, ...] = ()
    state: Any = None


def search(part: SubHistory, operations: Sequence[Operation], steps_max: int) -> SearchResult:
    """Search for an order of `operations` that the specification of `part` permits, in at most `steps_max` steps.

    `operations` are those of the sub-history `part`, or a beginning of them; an operation with the fate none is left
    out of the order. A step is an attempt to place an operation.
    """
    possible = [operation for operation in operations if operation.fate != "none"]
    return _Search(part.specification(possible), possible, steps_max).run()


class _OutOfSteps(Exception):
    pass


@define
class _Frame:
    """One level of the depth-first search: the operations that are placed so far, the state after them, and the
    operations that are still to be tried as the next one (`candidates`)."""

    base: int
    """All certain operations with an index below this one are placed."""
    window: int
    """The placed certain operations from index `base` on, as a bit set: bit i stands for operation `base` + i."""
    used: int
    """The placed uncertain operations, as a bit set: bit i stands for the uncertain operation i, counted from 0."""
    state: Any
    index: int = -1
    """Index of the operation that was placed last; -1 if there is none."""
    without: Any = None
    """The state before the operation that was placed last, if that is an uncertain one; else None."""
    chain: int = 0
    """How many operations in a row, up to the last one placed, are uncertain."""
    candidates: Iterator[int] = field(factory=lambda: iter(()))
    """Indexes of the operations that are still to be tried as the next one."""


class _Search:
    """One search over one sub-history.

    Operations have indexes: first the certain ones, which were answered (`Operation.is_certain`), in the order of their
    calls, then the uncertain ones, likewise.
    """

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
        """Maximum number of uncertain operations in a row in the orders that the present pass of the search tries."""
        self._is_cut = False
        """Whether the present pass has left out an order because of `_chain_max`."""

    def run(self) -> SearchResult:
        """Search in passes: with at most one uncertain operation in a row, then at most two, until the verdict is sure.

        The verdict is sure if an order is found, or if a pass has left out no order.
        """
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
        """Place, after the operations of a node of the search (`frame`), the next operation that may follow them.

        Returns the new node; None if no operation is left to try.
        """
        for index in frame.candidates:
            self._count_step()
            operation = self._operations[index]
            state = self._specification.step(frame.state, operation)
            if state is None:
                continue
            # The uncertain operation placed before this one makes no difference to the state after this one: the search
            # comes to the same state without it.
            if frame.without is not None and self._specification.step(frame.without, operation) == state:
                continue
            child = self._after(frame, index, state)
            if not self._has_failed(child):
                self._place(index)
                child.candidates = self._candidates(child)
                return child
        return None

    def _candidates(self, frame: _Frame) -> Iterator[int]:
        """The indexes of the operations that may be placed next: each was called before the first return of an
        operation that is not placed."""
        for index in self._entries.callable_now():
            if self._ranks.permits(index):
                yield index
        deadline = self._entries.first_return()
        for bit, twin in enumerate(self._twins):
            index = self._certain + bit
            if self._operations[index].call > deadline:
                return
            # Among uncertain operations that are alike, only the first that is not placed is tried: if there is an
            # order with another of them in this place, there is one with the first of them, too.
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
        """Whether the present pass has been at this configuration before; if not, it is remembered.

        It counts as the same if the state and the placed certain operations are equal, and if every uncertain operation
        that was placed then is also placed now. The remembered configuration may still be on the path of the search:
        then all its continuations are tried there.
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
    """The calls and returns of the certain operations that are not placed, in the order of time.

    They are a doubly linked list, from which the entries of an operation are lifted out and put back in O(1). Entry 0
    is the head. The last entry stands for a return at infinite time, which belongs to no operation.
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
        """The indexes of the operations in the list whose call comes before the first return.

        A caller may lift operations out during the iteration, if it puts them back before it takes the next index.
        """
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
        """Put the entries of an operation back into the list, which undoes the latest `lift` that is not undone.

        Outside of the list, an entry keeps the references to its former neighbours, so that its place is known.
        """
        for entry in (self._return_of[index], self._call_of[index]):
            self._next[self._previous[entry]] = entry
            self._previous[self._next[entry]] = entry


class _Ranks:
    """The positions (`Specification.position`) of the certain operations that are not placed.

    Of the operations with a position, only one with the lowest position may be placed next.
    """

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
    """For each element of `kinds`, the index of the nearest equal element before it; -1 if there is none."""
    latest: dict[Hashable, int] = {}
    twins = []
    for index, kind in enumerate(kinds):
        twins.append(latest.get(kind, -1))
        latest[kind] = index
    return twins
