"""Rows with a hash: a row is used as it was written, or the whole file is refused (docs/internals/formats.rst)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
from xxhash import xxh3_64_digest

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN

Cell = int | str | bytes


def row_hash(table: str, *columns: Cell) -> bytes:
    """The last column of a row: a hash over the name of its table and all of its other columns, keys included.

    So the content of one row does not pass for that of another, neither in this table nor in another table.
    """
    hashed: bytes = xxh3_64_digest(msgpack.packb((table, *columns)))
    return hashed


def checked_rows(path: Path, table: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The rows without their last column, the hash. Raises `StorageRefused` if a hash is wrong."""
    for *columns, stored in rows:
        if row_hash(table, *columns) != stored:
            raise StorageRefused(
                f"{path}: table {table}, row {columns[0]}: the checksum is wrong; {MUST_NOT_VOTE_AGAIN}"
            )
        yield tuple(columns)
