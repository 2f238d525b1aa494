"""Suggests a name for one that was mistyped."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

SIMILARITY_MIN: Final = 0.65
"""Least similarity of two names, from 0 to 1, for one to be a mistyped form of the other. GTE and GET, in which two of
three letters are exchanged, have 0.67; TEST and DIGEST, which only have some letters in common, have 0.6."""


def nearest(name: str, known: Collection[str]) -> str:
    """The last words of a message about an unknown name: a known name that it is nearly, or else all known names."""
    return suggestion(name, known) or f"known are {', '.join(known)}"


def suggestion(name: str, known: Collection[str]) -> str | None:
    """The last words of a message about an unknown name: the known name that it is nearly; None if there is none."""
    from difflib import get_close_matches  # imported only here, since it takes time and names are seldom mistyped

    close = get_close_matches(name, known, n=1, cutoff=SIMILARITY_MIN)
    return f'did you mean "{close[0]}"?' if close else None
