"""Functions that the benchmarks share: for names of loads, a description of the machine, and tables for the docs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pfsb.bench.machine import sync_seconds


def loads(text: str) -> list[tuple[int, int]]:
    """(connections, depth) of each load in a text such as `64x1,8x32`. Raises ValueError, which argparse reports."""
    return [(int(connections), int(depth)) for connections, depth in (load.split("x") for load in text.split(","))]


def machine(directory: Path) -> dict[str, Any]:
    """The properties of this machine that measurements depend on, by name; the disk is that of `directory`."""
    return {
        "cores": os.cpu_count(),
        "Python": platform.python_version(),
        "Linux": platform.release(),
        "ms for a 4 KiB append and fdatasync": round(1000 * sync_seconds(directory), 3),
    }


def described(about: Mapping[str, Any]) -> str:
    """The properties that `machine` has found, in one line of text."""
    return ", ".join(f"{name} {value}" for name, value in about.items())


def list_table(title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a list-table in reStructuredText. The first of the rows holds the names of the columns."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'* -' if at == 0 else '  -'} {cell}".rstrip() for at, cell in enumerate(row)]
    return lines
