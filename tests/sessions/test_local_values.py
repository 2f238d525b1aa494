"""Execution reads no value of the machine it runs on: the source of the modules that execute is searched for uses.

All values that decide the result of a command come from the log (Departure 34). A configuration, the clock, random
numbers, an address in memory or the order of a set would be another one on each server.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

import pfsb

PACKAGE = Path(pfsb.__file__).parent
EXECUTING: Final = (
    "paxos/frozen_history.py",
    "paxos/ordered_time.py",
    "paxos/ordered_update_queue.py",
    "paxos/snapshot_rows.py",
    "sessions/bundle.py",
    "sessions/checked_payloads.py",
    "sessions/cluster_settings.py",
    "sessions/frozen_sessions.py",
    "sessions/frozen_state.py",
    "sessions/kept_results.py",
    "sessions/ordered_settings.py",
    "sessions/outcomes.py",
    "sessions/reply_cache.py",
    "sessions/restorer.py",
    "sessions/session.py",
    "sessions/state_machine.py",
    *sorted(f"applications/{path.name}" for path in (PACKAGE / "applications").glob("*.py")),
)

ALLOWED: Final = {
    **{
        ("applications/instances.py", f"self.limits.{name}"): "a constant of the application, which only tests replace"
        for name in ("unfinished_bytes", "unfinished_idle_ms", "unfinished_of_session", "value_bytes")
    },
    ("paxos/ordered_time.py", "from twisted.internet.interfaces import IReactorTime"): "the type of the clock",
    ("paxos/ordered_time.py", "self._clock.seconds"): (
        "the time of this server's own next proposal; what `execute` returns depends on batches only (Departure 35)"
    ),
    ("paxos/ordered_update_queue.py", "core.clock"): "it is passed on to `OrderedTime`",
    ("applications/admission.py", "import inspect"): "how many arguments the methods of an application take",
    ("applications/failures.py", "id(each)"): "whether an exception was looked at before",
    ("paxos/ordered_update_queue.py", "core.settings.horizon_slots"): (
        "it counts before the birth of the settings only, is no key of the configuration, and nothing is run then"
    ),
    ("paxos/ordered_update_queue.py", "core.settings.digests_kept"): "how far back DIGEST can be asked for",
    ("paxos/ordered_update_queue.py", "self._settings.history_slots_kept"): "how much history stays in memory",
    **dict.fromkeys(
        (
            ("sessions/frozen_sessions.py", "id(ended)"),
            ("sessions/frozen_sessions.py", "id(growing)"),
            ("sessions/frozen_sessions.py", "id(session)"),
            ("sessions/kept_results.py", "id(result.growing)"),
            ("sessions/reply_cache.py", "id(growing)"),
            ("sessions/restorer.py", "id(growing)"),
        ),
        "whether it is the same object; where the objects stand in an order, it is that in which they came",
    ),
    ("sessions/restorer.py", "head.settings"): "those of the snapshot, which have come from the log",
    ("sessions/state_machine.py", "self._server_id"): (
        "whether the observer is told, as the client is connected here; what runs does not depend on it"
    ),
}
"""(module, use of a local value) -> why it decides no result."""

ORDERED: Final = frozenset(
    {"values", "is_born", "announce", "give_birth", "on_change", "put", "change_members", "later_members"}
)
"""Attributes of `self.settings` in the state machine, which are the ordered settings and no local ones."""

MODULES: Final = frozenset(
    [
        "asyncio",
        "datetime",
        "gc",
        "getpass",
        "inspect",
        "locale",
        "os",
        "pathlib",
        "platform",
        "random",
        "resource",
        "secrets",
        "select",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "uuid",
        "weakref",
        "zoneinfo",
    ]
)
PARTS: Final = ("pfsb.config", "pfsb.paxos.settings", "twisted.internet")
FUNCTIONS: Final = frozenset({"hash", "id", "input", "object", "open", "vars"})
LOCAL_NAMES: Final = frozenset(
    [
        "settings",
        "config",
        "limits",
        "clock",
        "rng",
        "server_id",
        "_settings",
        "_config",
        "_limits",
        "_clock",
        "_rng",
        "_server_id",
    ]
)
IN_ORDER: Final = frozenset(
    [
        "dict",
        "deque",
        "enumerate",
        "filter",
        "iter",
        "list",
        "map",
        "max",
        "min",
        "next",
        "reversed",
        "tuple",
        "zip",
        "OrderedDict",
    ]
)
BLIND: Final = frozenset(["all", "any", "bool", "frozenset", "len", "set", "sorted", "sum"])
"""Functions whose result does not depend on the order of the elements that they are given."""


@define
class Finder:
    """Finds the uses of local values in one module."""

    source: str
    tree: ast.Module = field(init=False)
    parents: dict[ast.AST, ast.AST] = field(init=False, factory=dict)
    sets: set[str] = field(init=False, factory=set)
    """Names of variables and attributes that hold sets."""
    holders: set[str] = field(init=False, factory=set)
    """Names of variables and attributes that hold collections of sets."""

    def __attrs_post_init__(self) -> None:
        self.tree = ast.parse(self.source)
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
        known = -1
        while known != len(self.sets) + len(self.holders):
            known = len(self.sets) + len(self.holders)
            for node in ast.walk(self.tree):
                self._note_names(node)

    def _note_names(self, node: ast.AST) -> None:
        match node:
            case ast.AnnAssign(target=target, annotation=annotation):
                self._note_annotation(_name(target), annotation)
            case ast.arg(arg=name, annotation=ast.expr() as annotation):
                self._note_annotation(name, annotation)
            case ast.FunctionDef(name=name, returns=ast.expr() as annotation):
                self._note_annotation(name, annotation)
            case ast.Assign(targets=[target], value=value) if self.is_set(value):
                self.sets.add(_name(target))
            case ast.NamedExpr(target=target, value=value) if self.is_set(value):
                self.sets.add(_name(target))

    def _note_annotation(self, name: str, annotation: ast.expr) -> None:
        text = ast.unparse(annotation).strip("'")
        if text.startswith(("set", "frozenset", "AbstractSet")):
            self.sets.add(name)
        elif "set[" in text:
            self.holders.add(name)

    def is_set(self, node: ast.AST) -> bool:
        match node:
            case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Name() | ast.Attribute():
                return _name(node) in self.sets
            case (
                ast.Subscript(value=holder)
                | ast.Call(func=ast.Attribute(value=holder, attr="get" | "pop" | "setdefault"))
            ):
                return _name(holder) in self.holders
            case ast.BinOp(left=left, op=ast.Sub() | ast.BitAnd() | ast.BitOr() | ast.BitXor(), right=right):
                return any(self.is_set(side) or _is_keys(side) for side in (left, right))
            case ast.Call(func=ast.Attribute(value=value, attr=attr)):
                return attr in ("union", "difference", "intersection", "copy") and self.is_set(value)
            case ast.Call(func=ast.Name(id=name)):
                return name in self.sets
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body) or self.is_set(orelse)
            case _:
                return False

    def uses(self) -> Iterator[str]:
        """A text for each use of a local value, as a person would look for it in the source."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Import(names=names):
                    yield from (f"import {each.name}" for each in names if _is_local_module(each.name))
                case ast.ImportFrom(module=str(module), names=names):
                    found = [module, *(f"{module}.{each.name}" for each in names)]
                    if any(map(_is_local_module, found)):
                        yield f"from {module} import {', '.join(each.name for each in names)}"
                case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
                    yield ast.unparse(node)
                case ast.Attribute() if self._is_local(node):
                    yield ast.unparse(node)
            if self._goes_through_a_set(node):
                yield ast.unparse(node)

    def _is_local(self, node: ast.Attribute) -> bool:
        """Whether this node is the whole of an expression such as `self._settings.digests_kept`, which reads a local
        value."""
        above = self.parents.get(node)
        if isinstance(above, ast.Attribute) or isinstance(node.ctx, ast.Store):
            return False
        names = ast.unparse(node).split(".")
        if names[:2] == ["self", "settings"]:
            return len(names) > 2 and names[2] not in ORDERED
        if names[:1] != ["self"] and names[-1] == "server_id":
            return False  # a value of an update, a session or a call, which is in the log
        return bool(LOCAL_NAMES.intersection(names[1:]))

    def _goes_through_a_set(self, node: ast.AST) -> bool:
        match node:
            case ast.For(iter=iterated):
                return self.is_set(iterated)
            case ast.Starred(value=value):
                return self.is_set(value)
            case (
                ast.ListComp(generators=generators)
                | ast.DictComp(generators=generators)
                | ast.GeneratorExp(generators=generators)
            ):
                return not self._order_is_lost(node) and any(self.is_set(each.iter) for each in generators)
            case ast.Call(func=ast.Name(id=name), args=args) if name in IN_ORDER:
                return any(self.is_set(argument) for argument in args)
            case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]):
                return self.is_set(value)
            case ast.Call(func=ast.Attribute(attr="join" | "extend" | "fromkeys"), args=args):
                return any(self.is_set(argument) for argument in args)
            case _:
                return False

    def _order_is_lost(self, node: ast.AST) -> bool:
        above = self.parents.get(node)
        return isinstance(above, ast.Call) and isinstance(above.func, ast.Name) and above.func.id in BLIND


def _name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _is_keys(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "items")


def _is_local_module(module: str) -> bool:
    return module.split(".")[0] in MODULES or any(module == part or module.startswith(f"{part}.") for part in PARTS)


class ExecutionTests(SynchronousTestCase):
    def test_modules_that_execute_read_no_local_value(self) -> None:
        """Modules that execute read no local value, unless `ALLOWED` has a reason for the use; and no reason is left
        over."""
        found = {
            (module, use)
            for module in EXECUTING
            for use in Finder((PACKAGE / module).read_text(encoding="utf-8")).uses()
        }
        self.assertEqual(sorted(found), sorted(ALLOWED))

    def test_settings_that_count_at_execution_are_given_by_nobody_else(self) -> None:
        """The settings that count at execution come from the log alone: the state machine is made without a
        configuration."""
        source = (PACKAGE / "sessions/state_machine.py").read_text(encoding="utf-8")
        made = next(
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ClassDef) and node.name == "SessionStateMachine"
        )
        init = next(each for each in made.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
        self.assertEqual([each.arg for each in init.args.args], ["self", "server_id", "catalogue", "values"])


class FinderTests(SynchronousTestCase):
    """The search for local values finds them, so that a use that is added would be found."""

    def test_uses_of_local_values_are_found(self) -> None:
        """One use of each kind of local value is found."""
        for source in (
            "import time",
            "import os.path",
            "from random import Random",
            "from pfsb.config.config import Limits",
            "from pfsb.paxos.settings import Settings",
            "from pfsb.paxos import settings",
            "from twisted.internet import reactor",
            "def f(x): return id(x)",
            "def f(x): return hash(x) % 2",
            "def f(self): return self._limits.session_window",
            "def f(self): return self._clock.seconds()",
            "def f(self): return self.settings.digests_kept",
            "def f(core): return core.config.window",
            "def f(self): return self._server_id == 1",
            "for x in {1, 2}: print(x)",
            "s = set()\nfor x in s: print(x)",
            "def f(s: set[str]) -> list[str]: return list(s)",
            "def f(s: frozenset[str]) -> list[str]: return [x for x in s]",
            "def f(self): return next(iter(self.names))\nclass C:\n    names: set[str] = field()",
            "names: dict[str, set[str]] = {}\nfor x in names['a']: print(x)",
            "names: dict[str, set[str]] = {}\ngone = names.pop('a', set())\nfor x in gone: print(x)",
            "for x in a.keys() - b: print(x)",
            "s = {1}\ns.pop()",
            "s = {1}\nt = s | {2}\nf(*t)",
            "s = {1}\n','.join(s)",
            "s = {1}\nmax(s, key=f)",
        ):
            self.assertTrue(list(Finder(source).uses()), source)

    def test_what_is_equal_on_every_server_is_not_found(self) -> None:
        """Uses of values that are equal on every server are not found: otherwise each such line would need an
        exception."""
        for source in (
            "from collections import deque",
            "def f(self): return self.settings.values.session_window",
            "def f(update): return update.server_id",
            "s = {1}\nif 1 in s: s.add(2)",
            "s = {1}\nfor x in sorted(s): print(x)",
            "s = {1}\nany(x > 1 for x in s)",
            "d = {1: 2}\nfor x in d: print(x)",
            "names: dict[str, set[str]] = {}\nfor x in sorted(names['a']): print(x)",
        ):
            self.assertEqual(list(Finder(source).uses()), [], source)
