"""The simulator and the tests use the server by its public names, so a private one can be changed in its own module.

A planted defect, a checker or a test that names a private member of another module breaks, or loses its effect, when
that member is renamed or taken apart. What they need of the server has a public name and a docstring instead.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attrs import define, field
from twisted.trial.unittest import TestCase

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("pfsb", "tests")
CHECKED = ("pfsb/simulator", "tests")

NAMEDTUPLE = {"_replace", "_asdict", "_fields", "_make"}
"""Methods of named tuples, which are public in spite of their names."""

EXCEPTIONS: dict[str, str] = {
    "pfsb/simulator/model_checking/snapshots.py": "stores all attributes of a server, private ones included, and lists "
    "those whose values make no difference",
    "tests/simulator/fuzz/test_targets.py": "plants a fault where one kind of bad input is refused: in a function "
    "that only its own parser calls",
    "tests/storage/test_sqlite.py": "closes the database under the reading thread, and waits for the writing "
    "thread, as no caller of the storage can",
    "tests/transports/test_udp.py": "closes sockets of the transport, as an operating system does",
}
"""File that may name private members of other modules -> why."""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in NAMEDTUPLE


@define
class _Class:
    """A class, with the private names that its own body gives to its instances, and its bases as they are written."""

    module: str
    bases: list[str]
    own: set[str] = field(factory=set)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _modules() -> dict[str, Path]:
    """Module name -> file, for all modules of the server and of the tests."""
    found = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    return {_module_of(path): path for path in found}


def _module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def _own_names(node: ast.ClassDef) -> set[str]:
    names = set()
    for each in ast.walk(node):
        match each:
            case ast.FunctionDef(name=name) | ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    for each in node.body:
        match each:
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if _is_private(name)}


@cache
def _classes(module: str) -> dict[str, _Class]:
    """The classes of a module by their names, imported ones included."""
    found: dict[str, _Class] = {}
    for node in ast.walk(_tree(_modules()[module])):
        match node:
            case ast.ImportFrom(module=str(source), names=aliases) if source in _modules() and source != module:
                known = _classes(source)
                found |= {alias.asname or alias.name: known[alias.name] for alias in aliases if alias.name in known}
            case ast.ClassDef(name=name, bases=bases):
                found[name] = _Class(module, [ast.unparse(base) for base in bases], _own_names(node))
    return found


def _inherited(module: str, name: str) -> set[str]:
    """The private names that a class has from base classes of the server.

    Base classes of the simulator and of the tests may share private members with their subclasses in the same package:
    they are written for them.
    """
    names: set[str] = set()
    waiting, seen = [(module, name)], set()
    while waiting:
        here, each = waiting.pop()
        found = _classes(here).get(each.split("[")[0])
        if found is None or (here, each) in seen:
            continue
        seen.add((here, each))
        if found.module.split(".")[:2] != module.split(".")[:2] and not found.module.startswith("tests."):
            names |= found.own
        waiting += [(found.module, base) for base in found.bases]
    return names


@cache
def _private_names() -> frozenset[str]:
    """The private names of all classes and functions in `pfsb`."""
    modules = [module for module in _modules() if module.startswith("pfsb.")]
    functions = (node for module in modules for node in _tree(_modules()[module]).body)
    names = {node.name for node in functions if isinstance(node, ast.FunctionDef) and _is_private(node.name)}
    return frozenset(names.union(*(each.own for module in modules for each in _classes(module).values())))


def _reaches(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each place in a file that names a private member of another module."""
    tree, module = _tree(path), _module_of(path)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if _is_private(name):
                yield node.lineno, ast.unparse(node)
            case ast.Call(args=[_, *names]) | ast.Tuple(elts=[ast.Name() | ast.Attribute(), *names]):
                for each in names:
                    if (
                        isinstance(each, ast.Constant)
                        and isinstance(each.value, str)
                        and each.value in _private_names()
                    ):
                        yield each.lineno, f'"{each.value}"'
            case ast.ImportFrom(module=source, names=aliases):
                for alias in aliases:
                    if _is_private(alias.name):
                        yield node.lineno, f"{source}.{alias.name}"
            case ast.ClassDef(name=name):
                inherited = _inherited(module, name)
                for each in ast.walk(node):
                    match each:
                        case ast.FunctionDef(name=used) | ast.Attribute(value=ast.Name(id="self"), attr=used):
                            if used in inherited:
                                yield each.lineno, f"{name}.{used}, of a base class"


def _checked_files() -> list[Path]:
    return sorted(path for folder in CHECKED for path in (REPOSITORY / folder).rglob("*.py"))


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


class PrivateMembersTests(TestCase):
    def test_only_the_listed_files_name_private_members_of_other_modules(self) -> None:
        found = [
            f"{_shown(path)}:{line}: {text}"
            for path in _checked_files()
            if _shown(path) not in EXCEPTIONS
            for line, text in sorted(set(_reaches(path)))
        ]
        self.assertEqual(found, [])

    def test_each_exception_is_still_one(self) -> None:
        needless = [name for name in EXCEPTIONS if not list(_reaches(REPOSITORY / name))]
        self.assertEqual(needless, [])
