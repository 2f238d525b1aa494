"""Every module and every public class of `pfsb` says in a docstring what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

import pfsb
from tests.long import long

PACKAGE = Path(pfsb.__file__).resolve().parent


def undescribed(tree: ast.Module) -> Iterator[str]:
    """The names of the public classes of a module, inner ones included, that have no docstring; and of the module."""
    for node in ast.walk(tree):
        match node:
            case ast.Module() if not ast.get_docstring(node):
                yield "the module"
            case ast.ClassDef(name=name) if not name.startswith("_") and not ast.get_docstring(node):
                yield name


class DocstringTests(SynchronousTestCase):
    @long
    def test_every_module_and_public_class_has_a_docstring(self) -> None:
        """Every module and every public class of `pfsb` has a docstring."""
        found = [
            f"{path.relative_to(PACKAGE.parent)}: {name}"
            for path in sorted(PACKAGE.rglob("*.py"))
            for name in undescribed(ast.parse(path.read_text(encoding="utf-8")))
        ]
        self.assertEqual(found, [])

    def test_missing_docstring_is_found(self) -> None:
        """Missing docstrings are found in an empty module, an inner class and a class of a function; private classes
        may go without."""
        self.assertEqual(list(undescribed(ast.parse(""))), ["the module"])
        source = """
            'A module.'
            class Outer:
                'A class.'
                class Inner: 'Described.'
                class Second: ''
            def make():
                class Made: pass
                class _Private: pass
        """
        self.assertEqual(sorted(undescribed(ast.parse(dedent(source)))), ["Made", "Second"])
