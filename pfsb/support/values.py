"""The decorator `value`, for classes whose instances are made for each command, and never change after they are made.

`attrs.frozen` enforces that when the program runs, and a frozen instance takes twice the byte code to make. A command
that comes alone makes some thirty of them, which were 3 % of its byte code. So the type checker, which all of the code
must pass, takes a `value` for frozen and refuses every assignment to its fields; at run time the class is an ordinary
one. Values are compared by their fields, and can be put into sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import frozen as value
else:
    from attrs import define

    value = define(unsafe_hash=True)

__all__ = ["value"]
