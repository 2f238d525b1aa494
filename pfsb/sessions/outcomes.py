"""Outcomes: what the executions of one slot have come to, as bytes that are equal on every server that agrees.

The protocol puts these bytes into the digest of the history (`pfsb.paxos.ordered_update_queue.DigestChain`). So servers
that executed equal batches with different outcomes have different digests from that slot on, and notice it
(Departure 35). Only what must be equal everywhere is in them: revisions, codes of refusals, and values of results. The
texts of refusals are left out, since versions of pfsb may word them differently; so are questions, which only one
server answers.

Almost every result is its revision and nothing else. Such a result is left out: the revision after the slot tells how
many there were. What a usual command costs is therefore one comparison.
"""

from __future__ import annotations

from typing import Any

import msgpack
from attrs import define, field

from pfsb.applications.interfaces import PENDING, Done

REVISION_BYTES = 8


@define
class Outcomes:
    """The results of one slot that are more than a revision, in the order in which they came."""

    _noted: list[tuple[Any, ...]] = field(factory=list)

    def note(self, result: Any, *about: int | str) -> None:
        """Note a result; `about` says what it is the result of, in values that are equal on every server."""
        self._noted.append((*about, _plain(result)))

    def take(self, revision: int) -> bytes:
        """The bytes of the slot that ends with this revision; the next slot begins empty."""
        end = revision.to_bytes(REVISION_BYTES, "big")
        if not self._noted:
            return end
        noted, self._noted = self._noted, []
        return end + _packed(noted)


def _plain(result: Any) -> Any:
    """A result without its text: the code of a refusal, the fields and rows of a result, or None for PENDING."""
    if result is PENDING:
        return None
    return (result.fields, result.rows) if isinstance(result, Done) else result.code


def _packed(value: Any) -> bytes:
    """Encode values, whatever an application has put into them: executing never fails because of a digest."""
    try:
        packed: bytes = msgpack.packb(value)
    except (ValueError, TypeError, OverflowError):
        packed = msgpack.packb(_encodable(value))
    return packed


def _encodable(value: Any) -> Any:
    """A value that msgpack can encode, and that is equal on every server: an address in memory must not be in it."""
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
