"""Suggests a name for one that was mistyped."""

from __future__ import annotations

from collections.abc import Collection


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the known name that was most likely meant, or all of them."""
    from difflib import get_close_matches  # imported here, since at most starts no name is mistyped

    if close := get_close_matches(name, known, n=1, cutoff=0.5):
        return f'did you mean "{close[0]}"?'
    return f"known are {', '.join(known)}"
