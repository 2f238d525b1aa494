"""`Violation`, which all checkers raise, and `Findings`, which keeps exceptions until they may be raised."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.python.failure import Failure


class Violation(AssertionError):
    """The cluster has broken a promise; the text says which promise, and where."""


def require(condition: bool, text: str) -> None:
    """Raise `Violation` with `text` unless the condition holds."""
    if not condition:
        raise Violation(text)


def forbid(what_is_wrong: str) -> None:
    """Raise `Violation` with this text, unless the text is empty because nothing is wrong."""
    require(not what_is_wrong, what_is_wrong)


@define(eq=False)
class Findings:
    """Keeps the first violation until the cluster calls `raise_first`, after the present event of the clock.

    A checker is often called by the server that it checks. If it raised an exception there, the server would catch it,
    or would do something else than without the checker.
    """

    _first: Failure | None = None

    def note(self, check: Callable[..., None], *args: object) -> None:
        """Call `check(*args)` at once. If it raises an AssertionError (a `Violation` is one), keep the first such error
        for `raise_first`."""
        try:
            check(*args)
        except AssertionError:
            self.add(Failure())

    def add(self, failure: Failure) -> None:
        self._first = self._first or failure

    def raise_first(self) -> None:
        if self._first is not None:
            self._first.raiseException()
