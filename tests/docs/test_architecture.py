"""docs/architecture.rst tells who may import whom, and the code keeps to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pfsb
from tests.long import long

ROOT = Path(pfsb.__file__).resolve().parent
PAGE = ROOT.parent / "docs" / "architecture.rst"
ROW = re.compile(r"^   \* - ``([\w.]+)``\n     - .*\n     - (.*)$", re.MULTILINE)
NAME = re.compile(r"``([\w.]+)``")
PLACE = re.compile(r"``([\w/]+\.(?:py|rst|yaml|json)|\w[\w/]*/\w*)(?: --\w[^`]*)?``")
"""Pattern of a file or a folder in the page, given from `pfsb` or from the root of the repository on."""

OF_TWISTED = {
    "paxos": {"internet.interfaces", "logger", "python.failure"},
    "applications": {"plugin", "python.reflect"},
}
"""Package -> the modules of Twisted that it may import, as the page says below the table."""


@cache
def rows() -> dict[str, str]:
    """Package or module -> what it may import, as the table says; from the lowest to the highest."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(ROW.findall(text.partition("may import, of ``pfsb``")[2].partition("Of Twisted")[0]))


def may_import(name: str) -> set[str]:
    """The imports that the row of `name` allows. Raises KeyError if there is no such row."""
    text = rows()[name]
    names = set(NAME.findall(text))
    if text.startswith("everything above"):
        return set(list(rows())[: list(rows()).index(name)]) - names
    if text.endswith("and what that may import"):
        return names.union(*map(may_import, names))
    return names


def part_of(module: str) -> str:
    """The name in the table for a module, such as "paxos" for "pfsb.paxos.turn"."""
    name = module.split(".")[1]
    return name if (ROOT / name).is_dir() else f"{name}.py"


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, for type checking included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "pfsb")
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def imported_by(name: str) -> frozenset[str]:
    place = ROOT / name
    paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return frozenset(module for path in paths for module in imports(path))


class ChangesTests(SynchronousTestCase):
    def test_every_place_that_a_change_needs_exists(self) -> None:
        """Every file and folder that the table of changes in docs/architecture.rst names exists."""
        table = PAGE.read_text(encoding="utf-8").partition("Where a change belongs")[2]
        places = PLACE.findall(table)
        self.assertGreater(len(places), 60)
        roots = (ROOT, ROOT.parent)
        self.assertEqual([place for place in places if not any((root / place).exists() for root in roots)], [])


class TableTests(SynchronousTestCase):
    def test_every_package_and_module_has_a_row(self) -> None:
        """Every package and module of `pfsb` has a row in the table of docs/architecture.rst: one without a row would
        not be checked."""
        packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
        modules = {path.name for path in ROOT.glob("*.py")} - {"__init__.py"}
        self.assertEqual(set(rows()), packages | modules)

    def test_rows_name_only_rows_above_them(self) -> None:
        """A row of the table allows only imports of rows above it, so that imports close no circle."""
        for place, name in enumerate(rows()):
            self.assertLessEqual(may_import(name), set(list(rows())[:place]), name)

    @long
    def test_imports_are_those_that_the_table_allows(self) -> None:
        """Each package and module imports only what its row of the table allows."""
        for name in rows():
            found = {part_of(module) for module in imported_by(name) if module.startswith("pfsb.")}
            self.assertLessEqual(found - {name, "__version__.py"}, may_import(name), name)

    def test_protocol_and_applications_are_almost_free_of_twisted(self) -> None:
        """The protocol and the applications import only those parts of Twisted that docs/architecture.rst names: clock
        and network come from outside."""
        for name, allowed in OF_TWISTED.items():
            found = {module.removeprefix("twisted.") for module in imported_by(name) if module.startswith("twisted")}
            self.assertEqual(found, allowed, name)
