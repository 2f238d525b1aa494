"""Checks of many commands at once by an application (`IPlainChecker`), for the protocols of the client port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.interfaces import Command

Check = Callable[[str, Sequence[Sequence[bytes]]], Sequence[Command] | None]
"""Type of the method `check_plain` of an application (`pfsb.applications.interfaces.IPlainChecker`)."""

_log = Logger()


def plain_check(application: Any) -> Check:
    """`check_plain` of an application, as a function that never raises an exception, and returns one command for each
    that it is given.

    If the application fails in this, the function logs it and returns None, so that each command is checked by itself.
    """

    def check(verb: str, columns: Sequence[Sequence[bytes]]) -> Sequence[Command] | None:
        try:
            commands: Sequence[Command] | None = application.check_plain(verb, columns)
            if commands is None or len(commands) == len(columns[0]):
                return commands
            raise ValueError(f"{len(columns[0])} commands of {verb} were to be checked, and {len(commands)} came back")
        except Exception as error:
            _log.failure("check_plain of {name} has failed", Failure(error), name=application.name)
            return None

    return check
