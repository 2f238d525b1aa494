"""Python's module `sqlite3`, which pfsb needs for two things only: to take over a database of format 3
(`pfsb.storage.old_database`), and for `pfsb log --sqlite`.

The module is imported when one of the two begins, since no other server or command needs it: a Python that was built
without SQLite, or finds one that is too old for its module, runs servers all the same. Every version of SQLite that the
module takes is new enough for both, for Python 3.11 those from 3.7.15 on.
"""

from __future__ import annotations

import sys
from types import ModuleType

from pfsb.paxos.interfaces import StorageRefused


def needed(purpose: str) -> ModuleType:
    """The module `sqlite3`. Raises `StorageRefused` if this Python cannot import it. The text then begins with
    `purpose`, which says what the module is needed for."""
    try:
        import sqlite3
    except ImportError as error:
        raise StorageRefused(
            f"{purpose}, Python's module sqlite3 is needed, which this Python cannot import ({error})"
        ) from error
    return sqlite3


def errors_and(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """The exceptions that SQLite raises, and `others`, for an `except` clause. As long as the module was not imported,
    SQLite raises none."""
    return (*_exceptions("Error"), *others)


def operational_errors() -> tuple[type[Exception], ...]:
    """The exceptions that SQLite raises for what is around a database, such as a full disk or a directory that may not
    be read, and not for what is in it."""
    return _exceptions("OperationalError")


def _exceptions(name: str) -> tuple[type[Exception], ...]:
    module = sys.modules.get("sqlite3")
    return () if module is None else (getattr(module, name),)
