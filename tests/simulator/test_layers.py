"""The packages of the simulator import each other in one direction only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pfsb.simulator
from tests.long import long

ROOT = Path(pfsb.simulator.__file__).parent

PACKAGES = (
    "linearizability",
    "checkers",
    "cluster",
    "workload",
    "faults",
    "defects",
    "schedules",
    "model_checking",
    "runs",
    "fuzz",
)
"""From the lowest package to the highest."""


def imported_packages(package: str) -> Iterator[tuple[str, str]]:
    """(file, package of the simulator) of each import in a package, those for type checking only included."""
    for path in sorted((ROOT / package).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pfsb.simulator."):
                yield path.name, str(node.module).split(".")[2]


class LayerTests(SynchronousTestCase):
    def test_every_package_has_its_layer(self) -> None:
        """Each package of the simulator has a place in the order: a missing one would not be checked."""
        found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
        self.assertEqual(found, set(PACKAGES))

    @long
    def test_imports_run_downward_only(self) -> None:
        """A package imports only packages below it: imports of higher ones would close a circle sooner or later."""
        for place, package in enumerate(PACKAGES):
            for name, imported in imported_packages(package):
                self.assertIn(imported, PACKAGES[: place + 1], f"{package}/{name}")
