"""Is there one order of the operations that explains every answer? (design part 10)

A history is linearizable if each operation can be given one moment between its call and its return so that, carried
out in the order of these moments on a single copy, all of them are answered as they were. The search for such an order
is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993): whatever was called before the first return
that is left may come next. Lowe (Testing for Linearizability, 2017) remembers the configurations from which that has
failed. A history over independent objects is linearizable if each object's part is (Herlihy and Wing, 1990), so each
part is searched alone.

Four things keep the search short, and none of them loses an order that exists:

* A specification may know an operation's *position* from its answer (a revision, a token, an index): among the
  operations with a position, only the lowest can come next.
* An operation of unknown fate comes last among what is tried, and only if it makes a difference to whatever follows.
* Orders with few of these in a row are tried before orders with many.
* Where an order has failed, it also fails with fewer operations of unknown fate left to use.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import count
from typing import Any, Final, Protocol

from attrs import define, evolve, field, frozen
from attrs.validators import in_

from pfsb.applications.arguments import quoted
from pfsb.interfaces import Command, Done, Fields, Refused, Result

steps_max_default: Final = 500_000
"""Attempts to place an operation, for one part of a history; each takes microseconds and some hundred bytes."""
_shown_max: Final = 5
"""How many operations of an order an explanation shows."""

_judgements: Final = frozenset({"NOTFOUND", "CONFLICT", "HELD", "NOTHELD", "TIMEOUT"})
"""Refusals that an application gives after a look at its state: they say something about it."""


def _as_result(given: Result | Fields | None) -> Result | None:
    return Done(given) if isinstance(given, tuple) else given


@frozen(eq=False)
class Operation:
    """One command as its client saw it; all repetitions of one number are one operation.

    `call` and `ret` are in seconds, or counted in any other way. What ends and what begins at the same instant may have
    come in either order; who knows better counts events instead. Raises `ValueError` if `ret` is before `call`.
    """

    client: str
    call: float
    """When it was first asked."""
    ret: float | None
    """When it was answered. None: it was not."""
    command: Command
    """Normalised, as the application's `check` returns it."""
    result: Result | None = field(default=None, converter=_as_result)
    """What it was answered; fields alone stand for a `Done`."""
    fate: str = field(default="done", validator=in_(("done", "none", "unknown")))
    """done: it was carried out and `result` is what came of it, be it a refusal such as CONFLICT.
    none: certainly not carried out. unknown: perhaps, at any time from `call` on."""
    answer: Result | None = field(init=False)
    """`result`, if the operation is known to have come to it between `call` and `ret`."""

    @answer.default
    def _make_answer(self) -> Result | None:
        return self.result if self.fate == "done" and self.ret is not None else None

    def __attrs_post_init__(self) -> None:
        if self.ret is not None and self.ret < self.call:
            raise ValueError(
                f"{self.client}'s {self.command} is answered at {self.ret}, before its call at {self.call}"
            )

    @classmethod
    def answered(cls, client: str, call: float, ret: float, command: Command, result: Result) -> Operation:
        """What a server has answered; the fate is the one that goes with the answer.

        NOTFOUND, CONFLICT and the like say fate=none to a client, because nothing was changed. Here they are done:
        the application has looked, and what it saw must fit.
        """
        fate = "done" if isinstance(result, Done) or result.code in _judgements else result.fate
        return cls(client, call, ret, command, result, fate)

    @property
    def is_certain(self) -> bool:
        """It has taken effect between `call` and `ret`, with a known answer. If not: perhaps, after `call`."""
        return self.answer is not None

    def __str__(self) -> str:
        return f"{' '.join([self.command[0], *map(_word, self.command[1:])])} by {self.client}"


class Specification(Protocol):
    """What one object does when operations come one after the other."""

    def start(self) -> Hashable:
        """The state before the first operation; never None."""

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        """The state after `operation`, or None if it cannot have been answered as it was in `state`.

        An operation that is not certain has no answer that counts; if the state alone does not say what it does, it
        does the most that it can.
        """

    def position(self, operation: Operation) -> int | None:
        """A number that never falls along any order that `step` permits, if the answer tells it; None: it does not."""

    def alike(self, operation: Operation) -> Hashable:
        """Equal for operations that do the same in every state, as long as their answers are not known."""

    def describe(self, state: Any) -> str:
        """The state in half a sentence: 'it is "blue"'."""


@frozen
class Part:
    """Operations on one object; linearizable or not, whatever other objects do."""

    name: str
    operations: Sequence[Operation]
    specification: Callable[[Sequence[Operation]], Specification]
    """Makes the specification for these operations, or for those of an earlier moment."""


class Verdict(Enum):
    OK = "ok"
    VIOLATION = "violation"
    UNDECIDED = "undecided"


@frozen
class Outcome:
    """What came of a check; `text` says it to a person."""

    verdict: Verdict
    text: str
    steps: int
    """Attempts to place an operation."""
    operation: Operation | None = None
    """Of a violation: the first operation whose answer no order explains."""
    prefix: tuple[Operation, ...] = ()
    """Of a violation: an order that explains everything answered before that.

    What was not answered by then, but had an effect, stands in it as an operation of unknown fate.
    """

    @property
    def ok(self) -> bool:
        return self.verdict is Verdict.OK


def check(parts: Iterable[Part], steps_max: int = steps_max_default) -> Outcome:
    """Check every part, with `steps_max` for each; a violation counts more than parts that are undecided."""
    steps, undecided, names = 0, [], []
    for part in parts:
        names.append(part.name)
        run = _search(part, part.operations, steps_max)
        steps += run.steps
        if run.verdict is Verdict.VIOLATION:
            return _blame(part, steps_max, steps)
        if run.verdict is Verdict.UNDECIDED:
            undecided.append(part.name)
    if undecided:
        text = f"undecided after {steps_max} steps each: {', '.join(undecided)}"
        return Outcome(Verdict.UNDECIDED, text, steps)
    return Outcome(Verdict.OK, f"every part has an order that explains its answers ({len(names)} parts)", steps)


@frozen
class _Run:
    """How one search ended."""

    verdict: Verdict
    steps: int
    order: tuple[Operation, ...] = ()
    state: Any = None


def _search(part: Part, operations: Sequence[Operation], steps_max: int) -> _Run:
    possible = [operation for operation in operations if operation.fate != "none"]
    return _Search(part.specification(possible), possible, steps_max).run()


class _OutOfSteps(Exception):
    pass


@define
class _Frame:
    """A configuration on the way from the start to where the search is, and what is still to be tried from it."""

    base: int
    """The certain operations below this index are all placed, ..."""
    window: int
    """... and those above it for which a bit is set: bit i is operation `base` + i."""
    used: int
    """The uncertain operations that are placed, a bit each."""
    state: Any
    index: int = -1
    """The operation that led here."""
    without: Any = None
    """The state that there would be without that operation, if it is an uncertain one."""
    chain: int = 0
    """How many uncertain operations in a row led here."""
    candidates: Iterator[int] = field(factory=lambda: iter(()))


class _Search:
    """One search over one part. Certain operations come first in all tables, each group in order of its calls."""

    def __init__(self, specification: Specification, operations: Sequence[Operation], steps_max: int) -> None:
        self._specification = specification
        self._steps_max = steps_max
        self._steps = 0
        certain = sorted((op for op in operations if op.is_certain), key=lambda op: op.call)
        uncertain = sorted((op for op in operations if not op.is_certain), key=lambda op: op.call)
        self._operations = certain + uncertain
        self._certain = self._left = len(certain)
        self._entries = _Entries(certain)
        self._ranks = _Ranks([specification.position(operation) for operation in certain])
        self._twins = _twins([specification.alike(operation) for operation in uncertain])
        self._failed: dict[Hashable, list[int]] = {}
        self._chain_max = 0
        """How many uncertain operations in a row are tried."""
        self._is_cut = False
        """Whether there would have been more to try than that."""

    def run(self) -> _Run:
        """Search with chains of one uncertain operation, of up to two, and so on, until an answer is sure."""
        try:
            for self._chain_max in count(1):
                run = self._explore()
                if run.verdict is Verdict.OK or not self._is_cut:
                    return run
        except _OutOfSteps:
            pass
        return _Run(Verdict.UNDECIDED, self._steps)

    def _explore(self) -> _Run:
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
                return _Run(Verdict.VIOLATION, self._steps)
            self._take_back(dead.index)
        order = tuple(self._operations[frame.index] for frame in frames[1:])
        return _Run(Verdict.OK, self._steps, order, frames[-1].state)

    def _next_child(self, frame: _Frame) -> _Frame | None:
        """Place one more operation after `frame`, or None when all have been tried."""
        for index in frame.candidates:
            self._count_step()
            operation = self._operations[index]
            state = self._specification.step(frame.state, operation)
            if state is None:
                continue
            # An uncertain operation that made no difference: the same is found without it.
            if frame.without is not None and self._specification.step(frame.without, operation) == state:
                continue
            child = self._after(frame, index, state)
            if not self._has_failed(child):
                self._place(index)
                child.candidates = self._candidates(child)
                return child
        return None

    def _candidates(self, frame: _Frame) -> Iterator[int]:
        """What may come next: called before anything that is left has returned."""
        for index in self._entries.callable_now():
            if self._ranks.permits(index):
                yield index
        deadline = self._entries.first_return()
        for bit, twin in enumerate(self._twins):
            index = self._certain + bit
            if self._operations[index].call > deadline:
                return
            # Of several that are alike the first one goes first: any order with another has one with it.
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
        """Whether the search has been here before, with no fewer uncertain operations left; notes it for the next time.

        A configuration that is still on the way from the start counts as well: whatever can come of it comes there.
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


class _Entries:
    """The calls and returns that are left, by time, as a doubly linked list: what is lifted out goes back in O(1).

    Entry 0 is the head; the entry behind the last one is the return of nobody, at the end of time.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        moments = [(op.call, False, index) for index, op in enumerate(operations)]
        moments += [(op.ret, True, index) for index, op in enumerate(operations) if op.ret is not None]
        # Calls before returns of the same instant: they may overlap.
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
        """Operations whose call comes before every return. It survives lifting that is undone before it goes on."""
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
        """Undo the latest `lift`: each entry still knows its neighbours of then."""
        for entry in (self._return_of[index], self._call_of[index]):
            self._next[self._previous[entry]] = entry
            self._previous[self._next[entry]] = entry


class _Ranks:
    """Whose turn it is among the operations with a position."""

    def __init__(self, positions: Sequence[int | None]) -> None:
        known = sorted({position for position in positions if position is not None})
        rank_of = {position: rank for rank, position in enumerate(known)}
        self._rank = [-1 if position is None else rank_of[position] for position in positions]
        self._left = [0] * len(known)
        for rank in self._rank:
            if rank >= 0:
                self._left[rank] += 1
        self._turn = 0

    def permits(self, index: int) -> bool:
        return self._rank[index] in (-1, self._turn)

    def take(self, index: int) -> None:
        rank = self._rank[index]
        if rank >= 0:
            self._left[rank] -= 1
            self._turn += not self._left[rank]

    def give_back(self, index: int) -> None:
        rank = self._rank[index]
        if rank >= 0:
            self._left[rank] += 1
            self._turn = rank


def _twins(kinds: Sequence[Hashable]) -> list[int]:
    """For each, the one before it that is alike, or -1."""
    latest: dict[Hashable, int] = {}
    twins = []
    for index, kind in enumerate(kinds):
        twins.append(latest.get(kind, -1))
        latest[kind] = index
    return twins


def _blame(part: Part, steps_max: int, steps: int) -> Outcome:
    """Find the first answer with which the part cannot be explained any more, by bisection over the answers.

    Any beginning of a linearizable history is linearizable, so there is one such answer. Where a search ends
    undecided, a later answer may be blamed: never one without which there is no violation known.
    """
    answers = sorted((op for op in part.operations if op.is_certain), key=lambda op: op.ret or 0)
    good, bad = 0, len(answers)
    best = _Run(Verdict.OK, 0, state=part.specification([]).start())
    while bad - good > 1:
        middle = (good + bad) // 2
        run = _search(part, _beginning(part.operations, answers[:middle]), steps_max)
        steps += run.steps
        if run.verdict is Verdict.VIOLATION:
            bad = middle
        else:
            good = middle
            best = run if run.order else best
    blamed = answers[bad - 1]
    text = f"{part.name}: no order explains {_told(blamed)}. {_explained(part, best)}"
    text += _if_carried_out(part, _beginning(part.operations, answers[:bad]), steps_max)
    return Outcome(Verdict.VIOLATION, text, steps, blamed, best.order)


def _beginning(operations: Sequence[Operation], answers: Sequence[Operation]) -> list[Operation]:
    """The history up to the last of `answers`: what has no answer by then may have been carried out, or not yet."""
    end = max(op.ret or 0 for op in answers)
    known = set(answers)
    return [
        op if op in known or op.fate == "none" else evolve(op, ret=None, result=None, fate="unknown")
        for op in operations
        if op.call <= end
    ]


def _if_carried_out(part: Part, operations: Sequence[Operation], steps_max: int) -> str:
    """Whether operations that were certainly not carried out would explain it: then their fate is the lie."""
    left_out = [evolve(op, fate="unknown", result=None) for op in operations if op.fate == "none"]
    if not left_out:
        return ""
    run = _search(part, [*operations, *left_out], steps_max)
    needed = ", ".join(str(op) for op in run.order if op in left_out)
    return f" It would be explained if fate=none were wrong for: {needed}." if needed else ""


def _told(operation: Operation) -> str:
    when = f"asked at {operation.call:g}, answered at {operation.ret or 0:g}"
    return f"the answer {_answer(operation.result)} to {operation} ({when})"


def _explained(part: Part, run: _Run) -> str:
    state = part.specification(run.order).describe(run.state)
    if not run.order:
        return f"At the start {state}."
    dots = "..., " if len(run.order) > _shown_max else ""
    shown = ", ".join(map(str, run.order[-_shown_max:]))
    return f"All answers before it are explained by the order {dots}{shown}; after that {state}."


def _answer(result: Result | None) -> str:
    match result:
        case Refused(code=code):
            return f"ERR {code}"
        case Done(fields=fields, rows=rows):
            words = [f"{name}={_word(value)}" for name, value in fields]
            return " ".join(["OK", *words]) + (f" with {len(rows)} rows" if rows else "")
        case None:
            return "that never came"


def _word(value: object) -> str:
    return quoted(value) if isinstance(value, str) else str(value)
