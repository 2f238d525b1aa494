"""Questions to the traces of a cluster (docs/operating.rst)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def proposers(parts: Iterable[Path], seq: int) -> list[tuple[int, int]]:
    """(view, server) of all who have sent a PROPOSAL for that sequence number, each once, by view."""
    found: set[tuple[int, int]] = set()
    for part in parts:
        with open(part, encoding="utf-8", errors="replace") as file:
            found.update(_proposal(line) for line in file if _may_be_proposal(line, seq))
    return sorted(found)


def _may_be_proposal(line: str, seq: int) -> bool:
    """Cheap, and exact as long as traces are written as they are: few lines of a million are worth decoding."""
    return '"event":"send"' in line and '"type":"PROPOSAL"' in line and f'"seq":{seq},' in line and line.endswith("}\n")


def _proposal(line: str) -> tuple[int, int]:
    entry = json.loads(line)
    return entry["message"]["view"], entry["server"]
