"""Exceptions of applications: which of them happen at every server alike, and which stop the server.

An application may refuse a command by raising `BadRequest`, or a class of its own that is derived from it, before it
has changed anything. Every other exception is a fault, of one of two kinds:

* A fault of the program, such as KeyError, is a function of the state and of the command, so every server meets it at
  the same command. The command is answered with INTERNAL, and its fate is unknown: the application may have changed
  something before it raised, at every server alike.
  The same holds for an answer that cannot be printed (`check_result`): it is no result, or has a wrong name in it.
* A fault of the machine, such as MemoryError, happens at one server. If this server went on, its state would differ
  from that of the others. So it stops, and nothing of the turn leaves it (docs/internals/turn.rst); when it starts
  again, it executes the command again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

from pfsb.applications.interfaces import Done, Event, Refused, Word
from pfsb.applications.names import is_field_name, is_word

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


_FATES: Final = ("none", "unknown", "done")
right_fields: Final[set[tuple[str, type]]] = set()
"""(name, type of value) of fields that were found to be right, whatever their value is (`check_field` adds them).

A field that is found here is not looked at again. So checking fields takes 3 % of the byte code of a SAY; without this
set it would take 10 %.
"""
RIGHT_FIELDS_MAX: Final = 1_024
"""Maximum number of entries in `right_fields`, the set of (name, type) pairs of fields that were found right; when one
more is found, the set is emptied first. Without a maximum it could grow for ever, since an application may name fields
as it likes."""


def check_result(result: Any) -> None:
    """Raise an exception, equally on every server, if no client can be told the answer of an application.

    A result is a `Done` or a `Refused`. The names of its fields, its code and each `Word` are printed as they are, so
    they must be words (`pfsb.applications.names`); each value is an int, a str or bytes.
    """
    if isinstance(result, Done):
        for name, value in result.fields:
            if (name, type(value)) not in right_fields:
                check_field(name, value)
        if result.rows:
            _check_rows(result.rows)
    elif not isinstance(result, Refused):
        raise TypeError(f"an application has answered with a {type(result).__name__}, which is no result")
    elif not is_word(result.code) or not result.code or result.fate not in _FATES or not isinstance(result.text, str):
        raise ValueError(f"a refusal has the code {result.code!r:.80}, the fate {result.fate!r:.80} or a wrong text")


def check_event(event: Event) -> None:
    """Raise an exception if an application has made an event that no client can be told, as `check_result` does."""
    if (event.name, Event) not in right_fields:
        if not is_field_name(event.name):
            raise ValueError(f"an event is named {event.name!r:.80}, which is no word")
        _remember(event.name, Event)
    for name, value in event.fields:
        if (name, type(value)) not in right_fields:
            check_field(name, value)


def check_field(name: Any, value: Any) -> None:
    """Raise ValueError if a client cannot be told a field of an answer: if `name` is not a right name of a field, or
    `value` is neither an int, a str nor bytes, or is a `Word` that cannot be printed without quotes."""
    if not is_field_name(name):
        raise ValueError(f"a field of an answer is named {name!r:.80}, which is no word without = and quotes")
    if isinstance(value, Word):
        if not is_word(value):
            raise ValueError(f"the field {name} has the word {value!r:.80}, which cannot be printed without quotes")
    elif isinstance(value, (int, str, bytes)):
        _remember(name, type(value))
    else:
        raise ValueError(f"the field {name} has a {type(value).__name__}, which cannot be printed")


def _check_rows(rows: Sequence[Sequence[tuple[Any, Any]]]) -> None:
    """Raise ValueError, as `check_field` does, if a client cannot be told a field of these rows. All rows are looked at
    together, since most have the same names, and values of the same types."""
    pairs = [*chain.from_iterable(rows)]
    if pairs:
        names, values = zip(*pairs, strict=True)
        if not right_fields.issuperset(zip(names, map(type, values), strict=True)):
            for name, value in pairs:
                check_field(name, value)


def _remember(name: str, kind: type) -> None:
    if len(right_fields) >= RIGHT_FIELDS_MAX:
        right_fields.clear()
    right_fields.add((name, kind))


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
