"""Endpoint strings of Twisted, as text: their parts, without making an endpoint."""

from __future__ import annotations

import re


def endpoint_parts(text: str) -> tuple[list[str], dict[str, str]]:
    """Split an endpoint string of Twisted at its colons into positional parts and name=value parts.

    A colon behind a backslash belongs to its part.
    """
    words: list[str] = []
    options: dict[str, str] = {}
    for part in re.split(r"(?<!\\):", text):
        name, equals, value = part.partition("=")
        if equals:
            options[name] = _unescaped(value)
        else:
            words.append(_unescaped(part))
    return words, options


def escaped(text: str) -> str:
    """The text as a part of an endpoint string."""
    return re.sub(r"([:=\\])", r"\\\1", text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
