"""Which results and events of an application a client can be told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from pfsb.applications.interfaces import Done, Event, Refused, Word
from pfsb.applications.names import is_field_name, is_word

_FATES: Final = ("none", "unknown", "done")
right_fields: Final[set[tuple[str, type]]] = set()
"""Pairs (name, type of value) of fields in which both were found to be right. `check_field` adds them, and does not
look again at a field whose pair is found here, whatever its value. So checking fields takes 3 % of the byte code of a
SAY; without this set it would take 10 %."""
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
    """Raise an exception if an application has made an event that no client can be told. The fields of an event must be
    like those of an answer (`check_result`)."""
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
