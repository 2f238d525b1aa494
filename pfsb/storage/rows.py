"""Rows with a hash: a row is used as it was written, or the whole file is refused (docs/internals/formats.rst)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgpack

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN

Cell = int | str | bytes

HASH_BYTES: Final = 8
_PERSON: Final = b"pfsb record"
"""Personalisation of BLAKE2b: hashes of rows differ from hashes of the same bytes that serve another purpose."""


def row_hash(table: str, *columns: Cell) -> bytes:
    """The last column of a row: a hash over the name of its table and all of its other columns, keys included.

    So the content of one row does not pass for that of another, neither in this table nor in another one.
    """
    return blake2b(msgpack.packb((table, *columns)), digest_size=HASH_BYTES, person=_PERSON).digest()


def checked_rows(path: Path, table: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The rows without their last column, the hash. Raises `StorageRefused` if a hash is wrong."""
    for *columns, stored in rows:
        if row_hash(table, *columns) != stored:
            raise StorageRefused(
                f"{path}: table {table}, row {columns[0]}: the checksum is wrong; {MUST_NOT_VOTE_AGAIN}"
            )
        yield tuple(columns)
