"""What a defect is, made on purpose: how one is named, and how it gets into a server that is built."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from attrs import define, field, frozen

F = TypeVar("F", bound=Callable[..., Any])

Plant = Callable[[Any], None]
"""Changes one `Process` of the simulation after it is built and before it starts, in every life of every server."""


@frozen
class Defect:
    """A server that is wrong in one respect."""

    name: str
    source: str
    """The figure, section or repair (G7) that is left out."""
    broken: str
    """One sentence: what it does wrong."""
    apply: Plant
    needs_sessions: bool
    """It breaks what is above the protocol, which only a whole `pfsb.server.Server` has."""


@define
class Defects:
    """The defects of one module, in the order in which they are written there."""

    needs_sessions: bool = False
    by_name: dict[str, Defect] = field(factory=dict)

    def add(self, name: str, source: str, broken: str) -> Callable[[Plant], Plant]:
        """A decorator for the function that breaks a server so."""

        def register(apply: Plant) -> Plant:
            assert name not in self.by_name, f"two variants are named {name}"
            self.by_name[name] = Defect(name, source, broken, apply, self.needs_sessions)
            return apply

        return register


def override(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Put make(what is there) in the place of a method of this one object.

    Raises AttributeError if there is no such method: a defect must not go away because something was renamed.
    """
    setattr(owner, name, make(getattr(owner, name)))


def instead_of(owner: object, name: str) -> Callable[[F], F]:
    """A decorator: what it decorates is called in the place of a method of this one object, with that method first.

    Raises AttributeError as `override` does.
    """

    def put(function: F) -> F:
        override(owner, name, lambda method: partial(function, method))
        return function

    return put


def become(instance: object, kind: type) -> None:
    """Make an instance of a class with slots one of a subclass, which has no slots of its own."""
    assert issubclass(kind, type(instance)) or isinstance(instance, kind), f"{kind} is no kind of {type(instance)}"
    instance.__class__ = kind


def do_nothing(*_args: object, **_kwargs: object) -> None:
    """In the place of what is left out."""
