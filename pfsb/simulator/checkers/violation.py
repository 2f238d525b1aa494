"""Violations of promises: the exception of all checkers, and a place for exceptions that could not propagate."""

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
    """Raise `Violation` unless the text is empty."""
    require(not what_is_wrong, what_is_wrong)


@define(eq=False)
class Findings:
    """Keeps the first violation until the present event is over, and then ends the simulation with it.

    A checker is often called by the server that it checks. An exception would be caught there, or change its course.
    """

    _first: Failure | None = None

    def note(self, check: Callable[..., None], *args: object) -> None:
        """Run a check, and keep its exception for `raise_first`."""
        try:
            check(*args)
        except AssertionError:
            self.add(Failure())

    def add(self, failure: Failure) -> None:
        self._first = self._first or failure

    def raise_first(self) -> None:
        if self._first is not None:
            self._first.raiseException()
