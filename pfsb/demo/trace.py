"""Questions that the traces of a cluster answer; docs/operating.rst describes traces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def proposers(parts: Iterable[Path], seq: int) -> list[tuple[int, int]]:
    """(view, server) of all servers that have sent a PROPOSAL for that sequence number, each once, by view."""
    found: set[tuple[int, int]] = set()
    for part in parts:
        with open(part, encoding="utf-8", errors="replace") as file:
            found.update(_proposal(line) for line in file if _may_be_proposal(line, seq))
    return sorted(found)


def _may_be_proposal(line: str, seq: int) -> bool:
    """Whether a line is such a proposal, without decoding it: few lines of a million are.

    The test is exact as long as traces are written with these separators and in this order.
    """
    return '"event":"send"' in line and '"type":"PROPOSAL"' in line and f'"seq":{seq},' in line and line.endswith("}\n")


def _proposal(line: str) -> tuple[int, int]:
    entry = json.loads(line)
    return entry["message"]["view"], entry["server"]
