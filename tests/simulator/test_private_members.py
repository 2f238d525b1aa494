"""The simulator and the tests use the server by its public names, so a private one can be changed in its own module.

A planted defect, a checker or a test that names a private member of another module breaks, or loses its effect, when
that member is renamed or taken apart. Members of the server that they need have a public name and a docstring instead.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attrs import define, field
from twisted.trial.unittest import TestCase

from tests.long import long

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("pfsb", "tests")
CHECKED = ("pfsb/simulator", "tests")

NAMEDTUPLE = {"_replace", "_asdict", "_fields", "_make"}
"""Methods of named tuples, which are public in spite of their names."""

PRIVATE_NAME = re.compile(r"(?:def |self\.|^    )(_[a-z]\w*)", re.MULTILINE)
"""The private name of a function, a method or an attribute, where it is defined."""

EXCEPTIONS: dict[str, str] = {
    "pfsb/simulator/model_checking/snapshots.py": "finds all attributes of a server by itself, private ones included, "
    "and lists those whose values make no difference; an entry that names no attribute any more fails a test",
}
"""A file that may name private members of other modules -> the reason."""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in NAMEDTUPLE


@cache
def _source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(_source(path))


def _module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@cache
def _modules() -> dict[str, Path]:
    """Module name -> file, for all modules of the server and of the tests."""
    found = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    return {_module_of(path): path for path in found}


@cache
def _private_names() -> frozenset[str]:
    """The private names that functions, methods and attributes have in `pfsb`."""
    sources = (_source(path) for module, path in _modules().items() if module.startswith("pfsb."))
    return frozenset(
        name for source in sources for name in re.findall(r"(?:def |self\.|^    )(_[a-z]\w*)", source, re.M)
    )


@define
class _Classes:
    """The classes of a module."""

    own: dict[str, ast.ClassDef] = field(factory=dict)
    imported: dict[str, tuple[str, str]] = field(factory=dict)
    """Name -> (module, name there), for all that the module imports from `pfsb` and from the tests."""


@cache
def _classes(module: str) -> _Classes:
    found = _Classes()
    for node in _tree(_modules()[module]).body:
        match node:
            case ast.ImportFrom(module=str(source), names=aliases) if source in _modules():
                found.imported |= {alias.asname or alias.name: (source, alias.name) for alias in aliases}
            case ast.ClassDef(name=name):
                found.own[name] = node
    return found


def _own_names(node: ast.ClassDef) -> set[str]:
    """The private names that a class gives to its methods and to the attributes of its instances."""
    names = set()
    for each in ast.walk(node):
        match each:
            case (
                ast.FunctionDef(name=name)
                | ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store())
                | ast.AnnAssign(target=ast.Name(id=name))
            ):
                names.add(name)
    return {name for name in names if _is_private(name)}


def _inherited(module: str, node: ast.ClassDef) -> set[str]:
    """The private names that a class has from base classes of the server.

    Base classes of the simulator and of the tests may share private members with their subclasses in the same package:
    they are written for them.
    """
    package = module.split(".")[:2]
    names: set[str] = set()
    waiting = [(module, ast.unparse(base).split("[")[0]) for base in node.bases]
    while waiting:
        here, name = waiting.pop()
        classes = _classes(here)
        if name in classes.own:
            base = classes.own[name]
            if here.split(".")[:2] != package and not here.startswith("tests."):
                names |= _own_names(base)
            waiting += [(here, ast.unparse(each).split("[")[0]) for each in base.bases]
        elif name in classes.imported:
            waiting.append(classes.imported[name])
    return names


def _has_self(arguments: ast.arguments) -> bool:
    return any(each.arg in ("self", "cls") for each in arguments.args)


def _reaches_through_self(function: ast.AST) -> Iterator[tuple[int, str]]:
    """The places in a function outside a class that name private members of its first argument, such as a function that
    is put in the place of a method."""
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if _is_private(name):
                yield node.lineno, ast.unparse(node)


def _reaches(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of each place in a module that names a private member of another one."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if _is_private(name):
                yield node.lineno, ast.unparse(node)
            case ast.Call(args=[_, *names]) | ast.Tuple(elts=[ast.Name() | ast.Attribute(), *names]):
                for each in names:
                    if isinstance(each, ast.Constant) and each.value in _private_names():
                        yield each.lineno, f'"{each.value}"'
            case ast.ImportFrom(module=source, names=aliases):
                for alias in aliases:
                    if _is_private(alias.name):
                        yield node.lineno, f"{source}.{alias.name}"
            case ast.ClassDef(name=name):
                inherited = _inherited(module, node)
                for used in ast.walk(node) if inherited else ():
                    match used:
                        case (
                            ast.FunctionDef(name=member)
                            | ast.Attribute(value=ast.Name(id="self"), attr=member)
                            | ast.Name(id=member, ctx=ast.Store())
                        ):
                            if member in inherited:
                                yield used.lineno, f"{name}.{member}, of a base class"
            case ast.Lambda(args=arguments) if _has_self(arguments):
                yield from _reaches_through_self(node)
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and _has_self(function.args):
            yield from _reaches_through_self(function)


def _reaches_of(path: Path) -> list[tuple[int, str]]:
    return sorted(set(_reaches(_module_of(path), _tree(path))))


def _checked_files() -> list[Path]:
    return sorted(path for folder in CHECKED for path in (REPOSITORY / folder).rglob("*.py"))


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


class PrivateMembersTests(TestCase):
    @long
    def test_only_the_listed_files_name_private_members_of_other_modules(self) -> None:
        found = [
            f"{_shown(path)}:{line}: {text}"
            for path in _checked_files()
            if _shown(path) not in EXCEPTIONS
            for line, text in _reaches_of(path)
        ]
        self.assertEqual(found, [])

    def test_each_exception_is_still_one(self) -> None:
        needless = [name for name in EXCEPTIONS if not _reaches_of(REPOSITORY / name)]
        self.assertEqual(needless, [])

    def test_each_way_to_reach_a_private_member_is_found(self) -> None:
        """The check finds each way in which a module can name a private member of another."""
        ways = (
            "path._timer",
            "from pfsb.transports.notices import _part",
            "override(path, '_set_timer', broken)",
            "FAULTS = [(Path, '_set_timer')]",
            "broken = lambda self: self._timer",
            "def broken(self): self._timer",
            "class Broken(Path):\n    def _set_timer(self): pass",
            "class Broken(Path):\n    def send(self, frame): self._set_timer()",
            "class Broken(Path):\n    _set_timer = do_nothing",
        )
        unseen = [way for way in ways if not list(_reaches("pfsb.simulator.defects.paths", ast.parse(way)))]
        self.assertEqual(unseen, [])

    def test_own_private_members_are_no_offence(self) -> None:
        """A class may use the private members that it has made itself."""
        own = "class Own:\n    def __init__(self): self._made = 1\n    def use(self): return self._made"
        self.assertEqual(list(_reaches("pfsb.simulator.defects.paths", ast.parse(own))), [])
