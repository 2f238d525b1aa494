"""What a check raises, how, and what becomes of it where nobody could catch it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.python.failure import Failure


class Violation(AssertionError):
    """The cluster has broken a promise; the text says which, and where."""


def require(condition: bool, text: str) -> None:
    """`text` says what is wrong if the condition does not hold."""
    if not condition:
        raise Violation(text)


def forbid(what_is_wrong: str) -> None:
    """ "": nothing is."""
    require(not what_is_wrong, what_is_wrong)


@define(eq=False)
class Findings:
    """Keeps the first thing that was found wrong until the present event is over: then it ends the simulation."""

    _first: Failure | None = None

    def note(self, check: Callable[..., None], *args: object) -> None:
        """Run a check in a place from which an exception would not get out."""
        try:
            check(*args)
        except AssertionError:
            self.add(Failure())

    def add(self, failure: Failure) -> None:
        self._first = self._first or failure

    def raise_first(self) -> None:
        if self._first is not None:
            self._first.raiseException()
