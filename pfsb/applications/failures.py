"""Exceptions of applications: which of them happen at every server alike, and which stop the server.

An application may refuse a command by raising `BadRequest`, or a class of its own that is derived from it, before it
has changed anything. Every other exception is a fault, of one of two kinds:

* A fault of the program, such as KeyError, is a function of the state and of the command, so every server meets it at
  the same command. The command is answered with INTERNAL, and its fate is unknown: the application may have changed
  something before it raised, at every server alike.
  The same holds for an answer that cannot be printed (`pfsb.applications.results`): it is no result, or has a wrong
  name in it.
  Where a call is no command, the server goes on without its value: a deadline or the use of a quota is not known, a log
  has no new events, and a version that cannot take over the state of the former one is refused (SETTINGS SET).
* A fault of the machine, such as MemoryError, happens at one server. If this server went on, its state would differ
  from that of the others. So it stops, and nothing of the turn leaves it (docs/internals/turn.rst); when it starts
  again, it executes the command again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MACHINE_FAULTS: Final = (
    MemoryError,
    RecursionError,
    OSError,
    SystemError,
    ImportError,
    BufferError,
    EOFError,
    ReferenceError,
    Warning,
)
"""Built-in exceptions whose causes lie in one machine and not in the replicated state: its memory, its files, the depth
of its stack."""


def depends_on_machine(error: BaseException) -> bool:
    """Whether an exception may happen at this server alone.

    The causes of an exception count, too, since an application may raise its own exception when it runs out of memory.
    An error that is no `Exception`, such as SystemExit, is never taken for a fault of the program.
    """
    return any(isinstance(each, MACHINE_FAULTS) or not isinstance(each, Exception) for each in _with_causes(error))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the exception, its causes, the exceptions during whose handling it was raised, and the members of
    exception groups."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
