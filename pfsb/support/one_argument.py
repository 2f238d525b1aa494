"""OneArgumentOptions: a command line with one argument, which may stand before its options or after them."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from twisted.python import usage


class OneArgumentOptions(usage.Options):
    """A command line with one argument, which may stand before the options.

    Twisted by itself accepts arguments only after them.
    """

    needed: ClassVar[str]
    """The error if there is no argument, or more than one."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        given = list(sys.argv[1:] if options is None else options)
        if given and not given[0].startswith("-"):
            given.append(given.pop(0))
        super().parseOptions(given)

    def parseArgs(self, *arguments: str) -> None:
        if len(arguments) != 1:
            raise usage.UsageError(self.needed)
        self.take(arguments[0])

    @abstractmethod
    def take(self, argument: str) -> None:
        """Called with the argument. Raises `usage.UsageError` if it cannot be right."""
