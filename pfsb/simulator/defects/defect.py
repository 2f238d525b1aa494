"""Planted defects: their names, and the means to plant one in a server that is built."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from attrs import define, field, frozen

F = TypeVar("F", bound=Callable[..., Any])

Plant = Callable[[Any], None]
"""Changes one `Process` of the simulation between building and starting it, at every start of every server."""


@frozen
class Defect:
    """A planted defect: a server that is wrong in one respect."""

    name: str
    source: str
    """The figure, section, repair (G7) or page of the documentation that is broken."""
    broken: str
    """One sentence that says what the server does wrong."""
    apply: Plant
    needs_sessions: bool
    """Whether the defect is above the protocol, so that only a whole `pfsb.server.Server` has it."""


@define
class Defects:
    """The defects of one module, in the order in which they are written there."""

    needs_sessions: bool = False
    by_name: dict[str, Defect] = field(factory=dict)

    def add(self, name: str, source: str, broken: str) -> Callable[[Plant], Plant]:
        """A decorator for the function that plants the defect."""

        def register(apply: Plant) -> Plant:
            assert name not in self.by_name, f"two defects are named {name}"
            self.by_name[name] = Defect(name, source, broken, apply, self.needs_sessions)
            return apply

        return register


def override(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a method of this one object by the result of `make`, which is given the method.

    Raises AttributeError if there is no such method: a defect must not go away because something was renamed.
    """
    setattr(owner, name, make(getattr(owner, name)))


def instead_of(owner: object, name: str) -> Callable[[F], F]:
    """A decorator: the function is called in the place of a method of this one object, with the method as first
    argument.

    Raises AttributeError as `override` does.
    """

    def put(function: F) -> F:
        override(owner, name, lambda method: partial(function, method))
        return function

    return put


def become(instance: object, kind: type) -> None:
    """Turn an instance of a class with slots into one of a subclass that has no slots of its own."""
    assert issubclass(kind, type(instance)) or isinstance(instance, kind), f"{kind} is no kind of {type(instance)}"
    instance.__class__ = kind


def do_nothing(*_args: object, **_kwargs: object) -> None:
    """Stands in the place of a step that is left out."""
