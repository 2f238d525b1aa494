"""Imports within `pfsb.frontends.http` run one way."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pfsb.frontends.http as package

PREFIX = f"{package.__name__}."


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere, for type checking included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return {name.removeprefix(PREFIX).partition(".")[0] for name in found if name.startswith(PREFIX)}


class ImportTests(SynchronousTestCase):
    def test_no_module_imports_itself_through_others(self) -> None:
        """No module of the package imports itself through others: a request knows its site by the protocol `Site`
        only."""
        paths = {path.stem: path for path in Path(package.__path__[0]).glob("*.py")}
        graph = {name: imports_of(path) & set(paths) for name, path in paths.items()}
        self.assertIn("request", graph["protocol"])
        order = list(TopologicalSorter(graph).static_order())
        self.assertLess(order.index("request"), order.index("protocol"))
