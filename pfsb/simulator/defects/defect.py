"""Planted defects: their descriptions, and functions that change a server after it is built and before it starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from attrs import define, field, frozen

F = TypeVar("F", bound=Callable[..., Any])

Plant = Callable[[Any], None]
"""A function that changes one `SimulatedProcess` after it is built and before it starts.

The cluster calls it at every start of every server.
"""


@frozen
class Defect:
    """A planted defect: a server that is wrong in one respect."""

    name: str
    source: str
    """The figure, section or repair (such as G7) of the paper, the departure, or the page of the documentation, that
    the server breaks."""
    broken: str
    """One sentence that says what the server does wrong."""
    apply: Plant
    needs_sessions: bool
    """Whether the defect needs a whole `pfsb.server.Server`, and cannot be planted in the protocol alone."""
    needs_snapshots: bool = False
    """Whether the defect can show only where servers take snapshots."""
    needs_hand_overs: bool = False
    """Whether the defect can show only where leaders hand over."""
    needs_changing_members: bool = False
    """Whether the defect can show only where the membership changes."""


@define
class Defects:
    """The defects of one module, in the order in which they are written there."""

    needs_sessions: bool = False
    needs_snapshots: bool = False
    needs_hand_overs: bool = False
    needs_changing_members: bool = False
    by_name: dict[str, Defect] = field(factory=dict)

    def add(self, name: str, source: str, broken: str) -> Callable[[Plant], Plant]:
        """Make a decorator that registers the decorated function as the one that plants the defect `name`."""

        def register(apply: Plant) -> Plant:
            assert name not in self.by_name, f"two defects are named {name}"
            needs = self.needs_sessions, self.needs_snapshots, self.needs_hand_overs, self.needs_changing_members
            self.by_name[name] = Defect(name, source, broken, apply, *needs)
            return apply

        return register


def override(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Replace the method `name` of the object `owner` by the function that `make(method)` returns; `make` is called
    once, now.

    Raises AttributeError if there is no such method, so that a defect cannot lose its effect when a method is renamed.
    """
    setattr(owner, name, make(getattr(owner, name)))


def instead_of(owner: object, name: str) -> Callable[[F], F]:
    """Make a decorator that puts the decorated function in the place of the method `name` of the object `owner`.

    At each call, the function gets the replaced method as its first argument, and then the arguments of the call.
    Raises AttributeError as `override` does.
    """

    def put(function: F) -> F:
        override(owner, name, lambda method: partial(function, method))
        return function

    return put


def become(instance: object, kind: type) -> None:
    """Turn an instance of a class with slots into one of `kind`, a subclass that has no slots of its own."""
    assert issubclass(kind, type(instance)) or isinstance(instance, kind), f"{kind} is no kind of {type(instance)}"
    instance.__class__ = kind


def do_nothing(*_args: object, **_kwargs: object) -> None:
    """Do nothing. A defect puts this in the place of a method, to leave out a step of the server."""
