"""Is there one order of the operations that explains every answer? (docs/testing.rst)

A history is linearizable if each operation can be given one moment between its call and its return so that, carried
out in the order of these moments on a single copy, all of them are answered as they were. The search for such an order
is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993): among the operations that are not in the
order yet, each that was called before the first of their returns may come next. As in Lowe (Testing for
Linearizability, 2017), the search remembers the configurations (the operations in the order so far, and the state)
from which it has failed. A history over independent objects is linearizable if the sub-history of each object is
(Herlihy and Wing, 1990), so each sub-history is searched alone.

Four rules keep the search short. With each of them, the search still finds an order if there is one:

* A specification may derive an operation's *position* from its answer (a revision, a token, an index): among the
  operations with a position, only one with the lowest can come next.
* An operation of unknown fate is tried after all others, and only if it makes a difference to the operation after it.
* Orders with few operations of unknown fate in a row are tried before orders with many.
* If a configuration has failed, the same configuration with fewer operations of unknown fate left to use fails, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import evolve, frozen

from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.simulator.linearizability.operations import Operation, SubHistory, word_of
from pfsb.simulator.linearizability.search import SearchResult, Verdict, search

STEPS_MAX_DEFAULT: Final = 500_000
"""Maximum number of steps of the search in one sub-history; a step is an attempt to put an operation into the order.

A step takes microseconds and some hundred bytes.
"""
_SHOWN_MAX: Final = 5
"""Maximum number of operations, the last ones of an order, that the text of a `CheckResult` lists."""


@frozen
class CheckResult:
    """The result of the check of a history, which is split into sub-histories: one for each key, each lock, and so on.
    `text` explains the result to people."""

    verdict: Verdict
    text: str
    steps: int
    """Number of attempts to put an operation into an order, over all searches."""
    operation: Operation | None = None
    """If there is a violation, the operation to blame: of all answers in the order of their returns, its answer is the
    first that no order explains. Else None."""
    prefix: tuple[Operation, ...] = ()
    """If there is a violation, an order of operations that explains all answers before that of `operation`; else empty.

    The order may need operations that were answered later. Their answers need not be explained, so these operations are
    in the order with the fate unknown.
    """

    @property
    def ok(self) -> bool:
        return self.verdict is Verdict.OK


def check_linearizability(parts: Iterable[SubHistory], steps_max: int = STEPS_MAX_DEFAULT) -> CheckResult:
    """Search an order for each sub-history in turn, with at most `steps_max` steps for each search.

    The first sub-history without an order ends the check with VIOLATION; further searches in it find the answer to
    blame. Else the verdict is UNDECIDED if a search has used up its steps, and OK if none has.
    """
    steps, undecided, names = 0, [], []
    for part in parts:
        names.append(part.name)
        run = search(part, part.operations, steps_max)
        steps += run.steps
        if run.verdict is Verdict.VIOLATION:
            return _blame(part, steps_max, steps)
        if run.verdict is Verdict.UNDECIDED:
            undecided.append(part.name)
    if undecided:
        text = f"undecided after {steps_max} steps each: {', '.join(undecided)}"
        return CheckResult(Verdict.UNDECIDED, text, steps)
    return CheckResult(Verdict.OK, f"every part has an order that explains its answers ({len(names)} parts)", steps)


def _blame(part: SubHistory, steps_max: int, steps: int) -> CheckResult:
    """Find the first answer up to which no order explains the sub-history, by bisection over the answers.

    Any beginning of a linearizable history is linearizable, so there is one such answer. If a search ends undecided, a
    later answer may be found, but the history up to the answer that is found always has a violation.
    """
    answers = sorted((op for op in part.operations if op.is_certain), key=lambda op: op.ret or 0)
    good, bad = 0, len(answers)
    best = SearchResult(Verdict.OK, 0, state=part.specification([]).start())
    while bad - good > 1:
        middle = (good + bad) // 2
        run = search(part, _beginning(part.operations, answers[:middle]), steps_max)
        steps += run.steps
        if run.verdict is Verdict.VIOLATION:
            bad = middle
        else:
            good = middle
            best = run if run.order else best
    blamed = answers[bad - 1]
    text = f"{part.name}: no order explains {_told(blamed)}. {_explained(part, best)}"
    text += _if_carried_out(part, _beginning(part.operations, answers[:bad]), steps_max)
    return CheckResult(Verdict.VIOLATION, text, steps, blamed, best.order)


def _beginning(operations: Sequence[Operation], answers: Sequence[Operation]) -> list[Operation]:
    """The subset of `operations` that were called before the last of the operations in `answers` returned.

    An operation that is not among `answers` gets the fate unknown, unless its fate is none.
    """
    end = max(op.ret or 0 for op in answers)
    known = set(answers)
    return [
        op if op in known or op.fate == "none" else evolve(op, ret=None, result=None, fate="unknown")
        for op in operations
        if op.call <= end
    ]


def _if_carried_out(part: SubHistory, operations: Sequence[Operation], steps_max: int) -> str:
    """A sentence for people, if there is an order that also puts in operations with the fate none; "" if there is none.

    The sentence lists the operations with the fate none that this order needs: their fate may have been told wrongly.
    """
    left_out = [evolve(op, fate="unknown", result=None) for op in operations if op.fate == "none"]
    if not left_out:
        return ""
    run = search(part, [*operations, *left_out], steps_max)
    needed = ", ".join(str(op) for op in run.order if op in left_out)
    return f" It would be explained if fate=none were wrong for: {needed}." if needed else ""


def _told(operation: Operation) -> str:
    when = f"asked at {operation.call:g}, answered at {operation.ret or 0:g}"
    return f"the answer {_answer(operation.result)} to {operation} ({when})"


def _explained(part: SubHistory, run: SearchResult) -> str:
    state = part.specification(run.order).describe(run.state)
    if not run.order:
        return f"At the start {state}."
    dots = "..., " if len(run.order) > _SHOWN_MAX else ""
    shown = ", ".join(map(str, run.order[-_SHOWN_MAX:]))
    return f"All answers before it are explained by the order {dots}{shown}; after that {state}."


def _answer(result: Result | None) -> str:
    match result:
        case Refused(code=code):
            return f"ERR {code}"
        case Done(fields=fields, rows=rows):
            words = [f"{name}={word_of(value)}" for name, value in fields]
            return " ".join(["OK", *words]) + (f" with {len(rows)} rows" if rows else "")
        case None:
            return "that never came"
