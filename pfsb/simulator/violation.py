"""What a check raises, and how."""

from __future__ import annotations


class Violation(AssertionError):
    """The cluster has broken a promise; the text says which, and where."""


def require(condition: bool, text: str) -> None:
    """`text` says what is wrong if the condition does not hold."""
    if not condition:
        raise Violation(text)


def forbid(what_is_wrong: str) -> None:
    """ "": nothing is."""
    require(not what_is_wrong, what_is_wrong)
