"""Bundle: the commands of one session that are sent, and ordered, together; and the encoding of bundles.

docs/internals/formats.rst has the encoding. Number 0 marks an entry without a command number: a question, or an
operation of a server's own session. The client id names the session: "!" is the server's own session, and an id that
begins with "~" belongs to an anonymous session, whose connection has not said HELLO.

A payload is valid if it has this shape (`decode`): arrays of the right lengths, and fields of the right types and
ranges. Whether a command makes sense to its application is no part of that: a command that does not is valid, and is
refused when it is executed. All servers must agree on which payloads are valid, also servers of different versions, so
the rule is never made stricter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, starmap
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgpack
from attrs import frozen

from pfsb.applications.interfaces import Command, Refused
from pfsb.support.limits import CLIENT_ID_CHARS_MAX, NUMBER_MAX

SERVER = "!"
ANONYMOUS = "~"
INTEGER_MIN: Final = -(2**63)
"""Smallest integer that a command may have; the largest is `NUMBER_MAX`."""

_BUNDLE_TYPES: Final = (str, int, bool, tuple)
_ENTRY_TYPES: Final = (int, tuple)
_TEXTS: Final = {str}
_WORDS: Final = {str, int, bytes}
_NUMBERS: Final = range(NUMBER_MAX + 1)
_CLIENT_ID_LENGTHS: Final = range(1, CLIENT_ID_CHARS_MAX + 1)

Entry = tuple[int, Command]


class Bundle(NamedTuple):
    """Decoded form of a bundle."""

    client_id: str
    epoch: int
    """The epoch under which the connection has opened the session; 0 for an anonymous session, opened only once."""
    opens: bool
    """True if executing this bundle opens its session, which is anonymous, unless an earlier bundle has opened it."""
    entries: Sequence[Entry]


@frozen
class NotOpened(Refused):
    """The refusal of the commands of a bundle that would have opened its session, and has not."""


def anonymous(incarnation_name: str, connection: int) -> str:
    """The client id of the anonymous session of a connection, which no other session ever has.

    It contains the name of the server's incarnation (`ServerData.incarnation_name`), which no other incarnation has.
    """
    return f"{ANONYMOUS}{incarnation_name}.{connection}"


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Encodes entries that are submitted together, one after the other, without the header of a msgpack array.

    So the size of a bundle is known before the bundle is made, and making it only joins bytes. One call for several
    entries takes a third of the time of one call for each. Raises an exception of msgpack for a value that cannot be
    encoded: neither str nor int, or not UTF-8.
    """
    packed: bytes = msgpack.packb(entries)
    return packed[len(_array_header(len(entries))) :]


def encode_head(client_id: str, epoch: int, opens: bool) -> bytes:
    """The beginning, or head, of each encoded bundle of a session: all of the bundle before its entries."""
    packed: bytes = msgpack.packb((client_id, epoch, opens, ()))
    return packed[: -len(_array_header(0))]


def encode_bundle(head: bytes, count: int, encoded_entries: Sequence[bytes]) -> bytes:
    """One encoded bundle, joined from its head, as `encode_head` made it, and its `count` encoded entries."""
    return b"".join((head, _array_header(count), *encoded_entries))


def encode(bundles: Sequence[bytes]) -> bytes:
    """The payload of an update that consists of these bundles, each as `encode_bundle` made it."""
    return b"".join((_array_header(len(bundles)), *bundles))


def decode(payload: bytes) -> list[Bundle] | None:
    """The bundles of a payload; None if the payload is not valid.

    Raises no exception but MemoryError, which says nothing about the payload: a server without memory must stop, since
    other servers find the payload valid.
    """
    try:
        rows = msgpack.unpackb(payload, use_list=False)
    except MemoryError:
        raise
    except Exception:
        # msgpack documents no complete list of its exceptions. They depend on nothing but these bytes.
        return None
    return list(starmap(Bundle, rows)) if _are_bundles(rows) else None


def _are_bundles(rows: Any) -> bool:
    """Whether unpacked rows are one or more bundles.

    A single bundle of one entry is checked field by field. Otherwise each field is checked for all bundles, entries or
    commands together: with one step of the interpreter for each field, the check of a long payload takes a tenth of the
    time of decoding it.
    """
    if type(rows) is not tuple or not rows:
        return False
    if len(rows) == 1:
        return _is_bundle(rows[0])
    if not _are_tuples(rows) or {*map(len, rows)} != {len(_BUNDLE_TYPES)}:
        return False
    client_ids, epochs, opens, entries = zip(*rows, strict=True)
    return (
        {*map(type, client_ids)} == {str}
        and all(client_ids)
        and max(map(len, client_ids)) <= CLIENT_ID_CHARS_MAX
        and _are_numbers(epochs)
        and {*map(type, opens)} == {bool}
        and _are_tuples(entries)
        and _are_entries(tuple(chain.from_iterable(entries)))
    )


def _is_bundle(row: Any) -> bool:
    if type(row) is not tuple or tuple(map(type, row)) != _BUNDLE_TYPES:
        return False
    client_id, epoch, _, entries = row
    return (
        len(client_id) in _CLIENT_ID_LENGTHS
        and epoch in _NUMBERS
        and (_is_entry(entries[0]) if len(entries) == 1 else _are_entries(entries))
    )


def _is_entry(entry: Any) -> bool:
    if type(entry) is not tuple or tuple(map(type, entry)) != _ENTRY_TYPES:
        return False
    number, command = entry
    return number in _NUMBERS and ({*map(type, command)} == _TEXTS or (bool(command) and _are_words((command,))))


def _are_entries(entries: tuple[Any, ...]) -> bool:
    if not _are_tuples(entries) or {*map(len, entries)} != {len(_ENTRY_TYPES)}:
        return False
    numbers, commands = zip(*entries, strict=True)
    return _are_numbers(numbers) and _are_tuples(commands) and _are_words(commands)


def _are_words(commands: tuple[Any, ...]) -> bool:
    """Whether each of these commands is a text, the verb, followed by texts, bytes and integers of 64 bits."""
    words = tuple(chain.from_iterable(commands))
    types = {*map(type, words)}
    if types == _TEXTS:
        return True
    if not types <= _WORDS or {*map(type, map(itemgetter(0), commands))} != _TEXTS:
        return False
    integers = [word for word in words if type(word) is int]
    return not integers or (min(integers) >= INTEGER_MIN and max(integers) <= NUMBER_MAX)


def _are_tuples(values: tuple[Any, ...]) -> bool:
    """Whether these values, at least one, are tuples that are not empty."""
    return {*map(type, values)} == {tuple} and all(values)


def _are_numbers(column: tuple[Any, ...]) -> bool:
    return {*map(type, column)} == {int} and min(column) >= 0 and max(column) <= NUMBER_MAX


def _array_header(length: int) -> bytes:
    if length < 16:
        return _SHORT_HEADERS[length]
    header: bytes = msgpack.Packer().pack_array_header(length)
    return header


_SHORT_HEADERS: list[bytes] = [msgpack.packb((None,) * length)[:1] for length in range(16)]
