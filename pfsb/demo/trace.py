"""Finds facts in the traces of a cluster's servers; docs/operating.rst describes traces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def proposers(parts: Iterable[Path], seq: int) -> list[tuple[int, int]]:
    """(view, server) for each leader that has sent a PROPOSAL for sequence number `seq`, in the order of the views."""
    found: set[tuple[int, int]] = set()
    for part in parts:
        with open(part, encoding="utf-8", errors="replace") as file:
            found.update(_proposal(line) for line in file if _may_be_proposal(line, seq))
    return sorted(found)


def _may_be_proposal(line: str, seq: int) -> bool:
    """Whether a line of a trace tells that a PROPOSAL for sequence number `seq` was sent.

    The line is not decoded, which would take long: only a few of a million lines tell of such a PROPOSAL. The test is
    exact as long as traces are written with these separators and with fields in this order.
    """
    return '"event":"send"' in line and '"type":"PROPOSAL"' in line and f'"seq":{seq},' in line and line.endswith("}\n")


def _proposal(line: str) -> tuple[int, int]:
    entry = json.loads(line)
    return entry["message"]["view"], entry["server"]
