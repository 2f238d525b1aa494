"""Suggests a name for one that was mistyped."""

from __future__ import annotations

from collections.abc import Collection


def nearest(name: str, known: Collection[str]) -> str:
    """The last words of a message about an unknown name: the most similar known name, or else all known names."""
    from difflib import get_close_matches  # imported only here, since it takes time and names are seldom mistyped

    if close := get_close_matches(name, known, n=1, cutoff=0.5):
        return f'did you mean "{close[0]}"?'
    return f"known are {', '.join(known)}"
