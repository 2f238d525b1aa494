"""Help for people who mistyped a name."""

from __future__ import annotations

from collections.abc import Collection


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a complaint about an unknown name: the known one that was most likely meant, or all there are."""
    from difflib import get_close_matches  # here, since nobody mistypes anything at most starts

    if close := get_close_matches(name, known, n=1, cutoff=0.5):
        return f'did you mean "{close[0]}"?'
    return f"known are {', '.join(known)}"
