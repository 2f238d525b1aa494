"""Kept results as entries of a snapshot, which are equal on every server, and results of such entries.

A server may keep results that follow each other as one range or one by one: other servers leave out the questions of a
bundle, so there the commands before and behind a question may be one run. So an entry stands for the longest sequence
of results that count up, in whatever way they are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgpack
from attrs import define

from pfsb.applications.interfaces import Done, Fields, GrowingBytes, Refused, Result, RunResults, Value, Word
from pfsb.sessions.reply_cache import Beginning, Page

Kept = Done | Result | Beginning | int | range | RunResults
Entry = tuple[Any, ...]
"""(kind, command number, ...), see `_RUN` and the other kinds."""

_RUN: Final = 0
"""(_RUN, number, count, names, firsts): `count` results, each of which counts up by one from each to the next. The last
of `firsts` is the first revision, and the others are the first values of the fields `names`."""
_DONE: Final = 1
"""(_DONE, number, fields, rows)"""
_REFUSED: Final = 2
"""(_REFUSED, number, code, text, fate)"""
_BEGINNING: Final = 3
"""(_BEGINNING, number, place of the value in the section of the values that grow, name, size, other fields)"""

_WORD: Final = 1
_LARGE: Final = 2
"""Codes of the types of msgpack for a `Word`, and for an integer that msgpack has no other form for."""
_COUNT_MAX: Final = 2**62
"""Maximum value in a run; larger ones may not fit into an integer of msgpack."""
_INTEGERS: Final = range(-(2**63), 2**64)


@define
class _Run:
    number: int
    count: int
    names: tuple[str, ...]
    firsts: tuple[int, ...]

    def goes_on_with(self, other: _Run) -> bool:
        count = self.count
        return (
            other.number == self.number + count
            and other.names == self.names
            and other.firsts == tuple([first + count for first in self.firsts])
        )


def entries_of(kept: Iterable[tuple[int, Kept]], places: Mapping[int, int]) -> Iterator[tuple[Entry, int]]:
    """(entry, number of results) for kept results, each with its command number. `places` has the place of each value
    that grows, by its address."""
    run: _Run | None = None
    for number, result in kept:
        for part in _parts(number, result):
            if run is not None and isinstance(part, _Run) and run.goes_on_with(part):
                run.count += part.count
                continue
            if run is not None:
                yield (_RUN, run.number, run.count, run.names, run.firsts), run.count
            run = part if isinstance(part, _Run) else None
            if not isinstance(part, _Run):
                yield _entry(number, part, places), 1
    if run is not None:
        yield (_RUN, run.number, run.count, run.names, run.firsts), run.count


def _parts(number: int, kept: Kept) -> Iterable[_Run | Result | Beginning]:
    """The run that is kept as `kept`, or the result if it does not count up."""
    if isinstance(kept, int):
        return (_Run(number, 1, (), (kept,)),)
    if isinstance(kept, range):
        return (_Run(number, len(kept), (), (kept.start,)),)
    if isinstance(kept, RunResults):
        if all(0 <= values.start <= values.stop < _COUNT_MAX for _, values in kept.counted):
            names = tuple([name for name, _ in kept.counted])
            firsts = *[values.start for _, values in kept.counted], kept.revisions.start
            return (_Run(number, len(kept), names, firsts),)
        return [*kept]
    if isinstance(kept, Done) and not kept.rows and _counts(kept.fields):
        names, values = zip(*kept.fields, strict=True)
        return (_Run(number, 1, names[:-1], values),)
    return (kept,)


def _counts(fields: Fields) -> bool:
    """Whether a result with these fields may be one of a run: all are integers, the last one the revision."""
    return (
        bool(fields)
        and fields[-1][0] == "revision"
        and all(type(value) is int and 0 <= value < _COUNT_MAX for _, value in fields)
    )


def _entry(number: int, result: Result | Beginning, places: Mapping[int, int]) -> Entry:
    if isinstance(result, Beginning):
        place = places[id(result.growing)]
        return _BEGINNING, number, place, result.name, result.size, _encodable(result.fields)
    if isinstance(result, Refused):
        return _REFUSED, number, result.code, result.text, result.fate
    return _DONE, number, _encodable(result.fields), tuple(map(_encodable, result.rows))


def _encodable(fields: Fields) -> tuple[tuple[str, Any], ...]:
    return tuple([(name, _encodable_value(value)) for name, value in fields])


def _encodable_value(value: Value) -> Any:
    if isinstance(value, Word):
        return msgpack.ExtType(_WORD, value.encode("utf-8", "surrogatepass"))
    if isinstance(value, int) and int(value) not in _INTEGERS:
        size = value.bit_length() // 8 + 1
        return msgpack.ExtType(_LARGE, value.to_bytes(size, "big", signed=True))
    return value


def decoded_value(code: int, data: bytes) -> Value:
    """The value that msgpack has as a type with this code. Raises `ValueError` for another code."""
    if code == _WORD:
        return Word(data.decode("utf-8", "surrogatepass"))
    if code == _LARGE:
        return int.from_bytes(data, "big", signed=True)
    raise ValueError(f"no value has the code {code}")


def put(page: Page, entry: Entry, growing: Sequence[GrowingBytes]) -> None:
    """Keep in a page the results that an entry stands for; `growing` are the values that grow, by their places.

    The bytes of the page, which the snapshot tells, are not changed. Raises `TypeError`, `ValueError` or `LookupError`
    for an entry that is none.
    """
    kind, number, *rest = entry
    if kind == _RUN:
        count, names, firsts = rest
        *counters, revision = firsts
        revisions = range(revision, revision + count)
        results = RunResults.of(revisions, tuple(zip(names, counters, strict=True)))
        page.keep_together(number, results if names else revisions)
    elif kind == _DONE:
        fields, rows = rest
        page.results[number] = Done(fields, rows)
    elif kind == _REFUSED:
        page.results[number] = Refused(*rest)
    else:
        place, name, size, fields = rest
        value = growing[place]
        value.kept += 1
        page.results[number] = Beginning(value, name, size, cast(Fields, fields))
        page.has_beginnings = True
