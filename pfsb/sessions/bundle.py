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

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, compress, repeat
from operator import is_, itemgetter
from typing import Any, Final, NamedTuple

import msgpack
from attrs import frozen

from pfsb.applications.interfaces import BadRequest, Command, Refused
from pfsb.support.limits import CLIENT_ID_CHARS_MAX, NUMBER_MAX, PAYLOAD_BYTES_MAX

SERVER = "!"
ANONYMOUS = "~"
INTEGER_MIN: Final = -(2**63)
"""Smallest integer that a command may have; the largest is `NUMBER_MAX`."""

ENTRIES_BYTES_MAX: Final = PAYLOAD_BYTES_MAX - 2_000
"""Maximum bytes of the encoded entries that are submitted together: an update has room for them beside the head of
their bundle."""

_TEXTS: Final = {str}
_INTEGERS: Final = {int}
_WORDS: Final = {str, int, bytes}
_PLAIN_WORDS: Final = {str, bytes}
"""The types that the words of a command usually have; words of these types need no further check."""
_verb = itemgetter(0)
_command = itemgetter(1)
_FLAGS: Final = {bool}
_TUPLES: Final = {tuple}
_ARRAYS: Final = {tuple, list}
_NUMBERS: Final = range(NUMBER_MAX + 1)
_CLIENT_ID_LENGTHS: Final = range(1, CLIENT_ID_CHARS_MAX + 1)

Entry = tuple[int, Command]


class Bundle(NamedTuple):
    """Decoded form of a bundle."""

    client_id: str
    epoch: int
    """The epoch under which the connection has opened the session; 0 for an anonymous session, which is opened only
    once."""
    opens: bool
    """True if executing this bundle opens its session, unless an earlier bundle has opened it. Only an anonymous
    session is opened in this way."""
    entries: Sequence[Entry]


_bundle: Final[Callable[[tuple[Any, ...]], Bundle]] = partial(tuple.__new__, Bundle)
"""Makes a `Bundle` of the tuple of its fields. A call of `Bundle` takes ten instructions of byte code, which are 1 % of
a PUT at 64 x 1."""


@frozen
class NotOpened(Refused):
    """The refusal to open one more session, since as many are open as the setting `sessions` allows. Each command of a
    bundle that was to open its anonymous session gets this refusal as its result."""


def anonymous(incarnation_name: str, connection: int) -> str:
    """The client id of the anonymous session of a connection, which no other session ever has.

    It contains the name of the server's incarnation (`ServerData.incarnation_name`), which no other incarnation has.
    """
    return f"{ANONYMOUS}{incarnation_name}.{connection}"


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Encodes entries that are submitted together, one after the other, without the header of a msgpack array.

    So the size of a bundle is known before the bundle is made, and making it only joins bytes. One call for several
    entries takes a third of the time of one call for each. Raises an exception of msgpack for a value that cannot be
    encoded: neither str, int nor bytes, or a str that is not UTF-8.
    """
    packed: bytes = msgpack.packb(entries)
    return packed[len(_array_header(len(entries))) :]


def encode_checked(entries: Sequence[Entry]) -> bytes:
    """Encodes entries as `encode_entries` does, if a bundle with them is valid, and an update has room for it.

    Servers refuse an update that is not valid. So a leader would propose it in vain, and nothing could be ordered after
    it. This check keeps an application whose `check` returns an impossible command from stopping its cluster. Raises
    `BadRequest` for entries that are too large, and for words of a command that are no text, bytes or integer of 64
    bits; OverflowError, TypeError, ValueError or IndexError for all else that cannot be sent.
    """
    packed: bytes = msgpack.packb(entries)
    commands = [*map(_command, entries)]
    is_plain = (
        {*map(type, commands)} == _TUPLES
        and {*map(type, map(_verb, commands))} == _TEXTS
        and {*map(type, chain.from_iterable(commands))} <= _PLAIN_WORDS
    )
    if not is_plain or len(packed) > ENTRIES_BYTES_MAX:
        _refuse_what_cannot_be_sent(packed, tuple(commands))
    return packed[len(_array_header(len(entries))) :]


def _refuse_what_cannot_be_sent(packed: bytes, commands: tuple[Any, ...]) -> None:
    if len(packed) > ENTRIES_BYTES_MAX:
        text = f"{len(packed)} bytes of commands, as they are sent to the servers: {ENTRIES_BYTES_MAX} are allowed"
        raise BadRequest(text, "TOOLARGE")
    if not {*map(type, commands)} <= _ARRAYS or not _are_words(commands):
        raise BadRequest("a number in a command must be from -2^63 to 2^63 - 1, and all else text or bytes")


def encode_head(client_id: str, epoch: int, opens: bool) -> bytes:
    """The beginning, or head, of each encoded bundle of a session: all of the bundle before its entries.

    `epoch` and `opens` are the fields of that name of the `Bundle`.
    """
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

    Raises no exception but MemoryError and RecursionError, which say nothing about the payload: a server that has no
    memory or stack left must stop, since other servers find the payload valid.
    """
    try:
        rows = msgpack.unpackb(payload, use_list=False)
        return [*map(_bundle, rows)] if _are_bundles(rows) else None
    except (MemoryError, RecursionError):
        raise
    except Exception:
        # msgpack documents no complete list of its exceptions, and the checks stumble over values of other types.
        # Whether and how they fail depends on nothing but these bytes.
        return None


def _are_bundles(rows: Any) -> bool:
    """Whether unpacked rows are one or more bundles. May raise TypeError, ValueError or IndexError if they are not.

    A single bundle is checked field by field. Otherwise each field is checked for all bundles together, with one step
    of the interpreter for each field. No check is needed that the rows are arrays: the fields of no other value, such
    as the characters of a text, are those of a bundle.
    """
    if len(rows) == 1:
        return _is_bundle(*rows[0])
    client_ids, epochs, opens, entries = zip(*rows, strict=True)
    return (
        all(client_ids)
        and (len("".join(client_ids)) <= CLIENT_ID_CHARS_MAX or max(map(len, client_ids)) <= CLIENT_ID_CHARS_MAX)
        and _are_numbers(epochs)
        and {*map(type, opens)} == _FLAGS
        and all(entries)
        and _are_entries(tuple(chain.from_iterable(entries)))
    )


def _is_bundle(client_id: Any, epoch: Any, opens: Any, entries: Any) -> bool:
    return (
        type(client_id) is str
        and len(client_id) in _CLIENT_ID_LENGTHS
        and type(epoch) is int
        and epoch in _NUMBERS
        and type(opens) is bool
        and (_is_entry(*entries[0]) if len(entries) == 1 else _are_entries(entries))
    )


def _is_entry(number: Any, command: Any) -> bool:
    return (
        type(number) is int
        and number in _NUMBERS
        and type(command) is tuple
        and type(command[0]) is str
        and ({*map(type, command)} <= _PLAIN_WORDS or _are_words((command,)))
    )


def _are_entries(entries: Any) -> bool:
    numbers, commands = zip(*entries, strict=True)
    return _are_numbers(numbers) and {*map(type, commands)} == _TUPLES and _are_words(commands)


def _are_words(commands: tuple[Any, ...]) -> bool:
    """Whether each of these tuples is a text, the verb, followed by texts, bytes and integers of 64 bits, signed.

    Raises IndexError for an empty tuple, and TypeError for a verb that is no text.
    """
    "".join(map(_verb, commands))
    types = {*map(type, chain.from_iterable(commands))}
    return types <= _WORDS and (int not in types or _are_in_range(commands))


def _are_in_range(commands: tuple[Any, ...]) -> bool:
    """Whether the integers in these commands, of which there is at least one, are of 64 bits, signed."""
    words = [*chain.from_iterable(commands)]
    integers: list[int] = [*compress(words, map(is_, map(type, words), repeat(int)))]
    return min(integers) >= INTEGER_MIN and max(integers) <= NUMBER_MAX


def _are_numbers(column: tuple[Any, ...]) -> bool:
    return {*map(type, column)} == _INTEGERS and min(column) >= 0 and max(column) <= NUMBER_MAX


def _array_header(length: int) -> bytes:
    if length < 16:
        return _SHORT_HEADERS[length]
    header: bytes = msgpack.Packer().pack_array_header(length)
    return header


_SHORT_HEADERS: list[bytes] = [msgpack.packb((None,) * length)[:1] for length in range(16)]
