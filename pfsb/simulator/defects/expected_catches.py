"""For each planted defect, the first run that shows it and the check that reports it.

The table is `expected_catches.json`, which `docs/make_broken_table.py --hunt` writes. A row is
``"name of the defect": [schedule, seed, check]``, as in `Catch`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from attrs import frozen


@frozen
class Catch:
    """The run and the check that have shown a planted defect."""

    schedule: str
    """The profile of random runs, or the directed schedule, that shows the defect."""
    seed: int
    """The first seed that shows the defect."""
    check: str
    """The check that reports the defect: the beginning of its text, without numbers."""


def _read_table() -> Mapping[str, Mapping[str, list[Any]]]:
    text = files("pfsb.simulator.defects").joinpath("expected_catches.json").read_text(encoding="utf-8")
    table: Mapping[str, Mapping[str, list[Any]]] = json.loads(text)
    return table


_TABLE: Final = _read_table()

CAUGHT: Final[Mapping[str, Catch]] = {name: Catch(*row) for name, row in _TABLE["caught"].items()}
"""Defect -> the random run that shows it."""

DIRECTED: Final[Mapping[str, Catch]] = {name: Catch(*row) for name, row in _TABLE["directed"].items()}
"""Defect -> the directed schedule that shows it, for the defects that random runs rarely show."""
