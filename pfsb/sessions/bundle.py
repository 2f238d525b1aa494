"""Bundle: the commands of one session that are sent, and ordered, together; and the encoding of bundles.

The payload of an update is a msgpack array of bundles, each an array (client id, epoch, opens, entries); an entry is
(number, command). Number 0 marks an entry without a command number: a question, or an operation of a server's own
session. The client id names the session: "!" is the server's own session, and an id that begins with "~" belongs to an
anonymous session, whose connection has not said HELLO.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import NamedTuple

import msgpack
from attrs import frozen

from pfsb.applications.interfaces import Command, Refused

SERVER = "!"
ANONYMOUS = "~"

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


def anonymous(server_id: int, incarnation: int, connection: int) -> str:
    """The client id of the anonymous session of a connection, which no other session ever has.

    It contains the incarnation, which every start of a server raises on disk.
    """
    return f"{ANONYMOUS}{server_id}.{incarnation}.{connection}"


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


def decode(payload: bytes) -> list[Bundle]:
    return list(starmap(Bundle, msgpack.unpackb(payload, use_list=False)))


def _array_header(length: int) -> bytes:
    if length < 16:
        return _SHORT_HEADERS[length]
    header: bytes = msgpack.Packer().pack_array_header(length)
    return header


_SHORT_HEADERS: list[bytes] = [msgpack.packb((None,) * length)[:1] for length in range(16)]
