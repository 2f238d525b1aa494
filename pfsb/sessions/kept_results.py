"""Encodes the results that sessions keep as entries of a snapshot, which are equal on every server, and decodes such
entries.

A server may keep results that follow each other as one range or one by one: other servers leave out the questions of a
bundle, so there the commands before and behind a question may be one run. So an entry stands for as many results that
follow each other as it can, in whatever way they are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from operator import ne, sub
from typing import Any, Final, cast

import msgpack
from attrs import define

from pfsb.applications.interfaces import Done, Fields, GrowingBytes, Refused, Result, RunResults, Value, Word
from pfsb.sessions.reply_cache import Beginning, Page

Kept = Done | Result | Beginning | int | range | RunResults
Entry = tuple[Any, ...]
"""(kind, ...): an entry of a snapshot, which stands for one or more kept results. The kinds are `_SINGLE` and the
following constants."""

_SINGLE: Final = 0
"""Kind of the entry (_SINGLE, first command number, revisions): results "OK revision=R" of commands whose numbers
follow each other."""
_RUNS: Final = 1
"""Kind of the entry (_RUNS, (first number, count, first revision, ...)): results "OK revision=R", where numbers and
revisions of `count` results count up together."""
_COUNTED: Final = 2
"""Kind of the entry (_COUNTED, number, count, names, firsts): `count` results, whose fields count up from each to the
next. The last of `firsts` is the first revision, and the others are the first values of the fields `names`."""
_DONE: Final = 3
"""Kind of the entry (_DONE, number, fields, rows): the result `Done` of one command."""
_REFUSED: Final = 4
"""Kind of the entry (_REFUSED, number, code, text, fate): the refusal of one command."""
_BEGINNING: Final = 5
"""Kind of the entry (_BEGINNING, number, place of the value in the section of the values that grow, name, size, other
fields): a result that is a `Beginning`."""

_WORD: Final = 1
_LARGE: Final = 2
"""Codes of the types of msgpack for a `Word`, and for an integer that msgpack has no other form for."""
_COUNT_MAX: Final = 2**62
"""Maximum value of a field in a run; larger ones may not fit into an integer of msgpack."""
_INTEGERS: Final = range(-(2**63), 2**64)
_ENTRY_WORK: Final = 3
"""Work of an entry (`pfsb.paxos.snapshot_rows.Row`); `_AT_ONCE` results "OK revision=R" are one more."""
_AT_ONCE: Final = 6


@define
class _Run:
    """Results of commands whose numbers, revisions and further fields count up together."""

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


def entries_of(results: Mapping[int, Kept], count: int, places: Mapping[int, int]) -> Iterator[tuple[Entry, int]]:
    """(entry, its work) for the first `count` of the kept results of a page. `places` has the place of each value that
    grows, by its address."""
    types = {*map(type, islice(results.values(), count))}
    if types == {int}:
        revisions = cast(list[int], [*islice(results.values(), count)])
        yield _plain([*islice(results, count)], revisions)
        return
    numbers: list[int] = []
    revisions = []
    run: _Run | None = None
    for part in chain.from_iterable(map(_parts, islice(results, count), islice(results.values(), count))):
        if run is not None and (not isinstance(part, _Run) or not run.goes_on_with(part)):
            if run.names:
                yield (_COUNTED, run.number, run.count, run.names, run.firsts), _ENTRY_WORK
            else:
                numbers += range(run.number, run.number + run.count)
                revisions += range(run.firsts[0], run.firsts[0] + run.count)
            run = None
        if numbers and (not isinstance(part, _Run) or part.names):
            yield _plain(numbers, revisions)
            numbers, revisions = [], []
        if not isinstance(part, _Run):
            yield _entry(*part, places), _ENTRY_WORK
        elif run is None:
            run = part
        else:
            run.count += part.count
    if run is not None and run.names:
        yield (_COUNTED, run.number, run.count, run.names, run.firsts), _ENTRY_WORK
    elif run is not None:
        numbers += range(run.number, run.number + run.count)
        revisions += range(run.firsts[0], run.firsts[0] + run.count)
    if numbers:
        yield _plain(numbers, revisions)


def _plain(numbers: list[int], revisions: list[int]) -> tuple[Entry, int]:
    """The entry of results "OK revision=R", and its work: the runs of them if half as many runs as results are enough,
    and if not, or if the numbers have gaps, each revision."""
    first, count = numbers[0], len(numbers)
    work = _ENTRY_WORK + count // _AT_ONCE
    offsets = [*map(sub, revisions, numbers)]
    if numbers == [*range(first, first + count)] and 2 * (1 + sum(map(ne, offsets, offsets[1:]))) > count:
        return (_SINGLE, first, revisions), work
    runs: list[int] = []
    at = 0
    for _, group in groupby(zip(offsets, map(sub, numbers, range(count)), strict=True)):
        length = len([*group])
        runs += numbers[at], length, revisions[at]
        at += length
    return (_RUNS, runs), work


def _parts(number: int, kept: Kept) -> Sequence[_Run | tuple[int, Result | Beginning]]:
    """Splits what a page keeps under a command number into a run, or single results with their numbers if they do not
    count up."""
    if isinstance(kept, int):
        return (_Run(number, 1, (), (kept,)),)
    if isinstance(kept, range):
        return (_Run(number, len(kept), (), (kept.start,)),)
    if isinstance(kept, RunResults):
        if all(0 <= values.start <= values.stop < _COUNT_MAX for _, values in kept.counted):
            names = tuple([name for name, _ in kept.counted])
            firsts = *[values.start for _, values in kept.counted], kept.revisions.start
            return (_Run(number, len(kept), names, firsts),)
        return [*enumerate(kept, number)]
    if isinstance(kept, Done) and not kept.rows and _counts(kept.fields):
        names, values = zip(*kept.fields, strict=True)
        return (_Run(number, 1, names[:-1], values),)
    return ((number, kept),)


def _counts(fields: Fields) -> bool:
    """Whether a result with these fields may be part of a run: all fields are integers, the last one is the
    revision."""
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
    """The value of a type that msgpack itself does not have, from the code of the type and its data. Raises
    `ValueError` for an unknown code."""
    if code == _WORD:
        return Word(data.decode("utf-8", "surrogatepass"))
    if code == _LARGE:
        return int.from_bytes(data, "big", signed=True)
    raise ValueError(f"no value has the code {code}")


def put(page: Page, entry: Entry, growing: Sequence[GrowingBytes]) -> None:
    """Keep in a page the results that an entry stands for; `growing` are the values that grow, by their places.

    The count of the page's bytes is not changed: the snapshot tells it. Raises `TypeError`, `ValueError` or
    `LookupError` if `entry` is not a valid entry.
    """
    kind, number, *rest = entry
    if kind == _SINGLE:
        (revisions,) = rest
        page.results.update(zip(range(number, number + len(revisions)), revisions, strict=True))
    elif kind == _RUNS:
        runs = iter(number)
        for first, count, revision in zip(runs, runs, runs, strict=True):
            page.keep_together(first, range(revision, revision + count))
    elif kind == _COUNTED:
        count, names, firsts = rest
        *counters, revision = firsts
        page.keep_together(
            number, RunResults.of(range(revision, revision + count), tuple(zip(names, counters, strict=True)))
        )
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
