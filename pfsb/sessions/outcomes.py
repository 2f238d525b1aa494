"""Outcomes: the results of one slot as bytes, which are equal on every server whose state machine agrees.

The protocol puts these bytes into the digest of the history (`pfsb.paxos.ordered_update_queue.DigestChain`). So servers
that execute equal batches with different results have different digests from that slot on, and notice it
(Departure 40). docs/internals/formats.rst defines the bytes. Only what must be equal everywhere is in them: revisions,
codes of refusals, and values of results. The texts of refusals are left out, since versions of pfsb may word them
differently; so are questions, which only one server answers.

Almost every result is its revision and nothing else. Such a result is left out: the revision after the slot tells how
many there were. So the digest costs one comparison for a usual command.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

import msgpack

from pfsb.applications.interfaces import PENDING, Done, RunResults

REVISION_BYTES = 8

_ONLY_DONE: Final = {Done}
_FIELDS: Final = attrgetter("fields")
_ROWS: Final = attrgetter("rows")

Noted = tuple[Any, int | str | tuple[str, int]]
"""(result, about): a result that is more than a revision, and a value that tells its command from others.

`about` is the revision after the command, the client id of a session that could not be opened, or the ticket of a
command that was PENDING. A `RunResults` stands for the result of each command of a run; each comes with its own
revision, as if the command had been executed by itself.
"""


def encode_outcomes(revision: int, noted: Sequence[Noted]) -> bytes:
    """The outcomes of a slot that ends with `revision`; `noted` has its results in the order in which they came.

    Raises nothing, whatever values an application has put into a result.
    """
    end = revision.to_bytes(REVISION_BYTES, "big")
    if not noted:
        return end
    results, about = zip(*noted, strict=True)
    if set(map(type, results)) == _ONLY_DONE:
        # Nearly every slot takes this way: each part is taken from all results together, with one step of the
        # interpreter.
        return end + _packed([*zip(about, map(_FIELDS, results), map(_ROWS, results), strict=True)])
    rows: list[Any] = []
    for result, of in noted:
        if type(result) is RunResults:
            rows += zip(result.revisions, result.fields(), repeat(()))
        else:
            rows.append(_compared(result, of))
    return end + _packed(rows)


def _compared(result: Any, about: int | str | tuple[str, int]) -> tuple[Any, ...]:
    """`about`, and the part of a result that servers compare: of a refusal only the code, of PENDING nothing."""
    if isinstance(result, Done):
        return about, result.fields, result.rows
    return about, None if result is PENDING else result.code


def _packed(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except (ValueError, TypeError, OverflowError):
        packed = msgpack.packb(_encodable(value))
    return packed


def _encodable(value: Any) -> Any:
    """A copy of `value` that msgpack can encode, and that is equal on every server.

    Integers become hexadecimal text, since they may be too large for msgpack; texts become bytes; and an object of any
    other type becomes the name of its type, since its repr could hold an address in memory.
    """
    match value:
        case None | bool() | float() | bytes():
            return value
        case int():
            return hex(value)
        case str():
            return value.encode("utf-8", "surrogatepass")
        case tuple() | list():
            return [_encodable(item) for item in value]
        case _:
            return type(value).__name__
