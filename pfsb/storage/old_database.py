"""Reading data directories of format 3, SQLite databases, which earlier versions of pfsb have written.

Nothing is written to such a database any more: a server takes it over at its first start
(`pfsb.storage.log.migration`). Every row carries a hash of its other columns (`pfsb.storage.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, frozen

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import PeerRecord
from pfsb.storage import sqlite
from pfsb.storage.effect import StoredSlot
from pfsb.storage.owner import StorageOwner
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN, history_gap, other_format
from pfsb.storage.rows import checked_rows
from pfsb.storage.wal import acknowledged_commits_lost, log_of

if TYPE_CHECKING:
    import sqlite3

FORMAT_VERSION: Final = 3
"""Number of the format that is taken over."""
NAME: Final = "pfsb.sqlite3"


@frozen
class OldIdentity:
    """The only row of the table `identity`: one field for each column but `hash`, in the order of the columns."""

    format_version: int
    cluster_name: str
    cluster_digest: str
    """The cluster digest, in hexadecimal."""
    members: str
    """Ids of the founding servers, with spaces between them."""
    server_id: int
    storage_identity: str
    """The storage identity, in hexadecimal."""
    incarnation: int

    @property
    def owner(self) -> StorageOwner:
        """The server that the database was made for."""
        members = tuple(map(int, self.members.split()))
        return StorageOwner(self.cluster_name, bytes.fromhex(self.cluster_digest), members, self.server_id)


@frozen
class OldViews:
    """The only row of the table `views`: one field for each column but `hash`, in the order of the columns."""

    last_attempted: int
    last_installed: int
    local_aru: int
    position: int
    """Number of groups that this storage had written; see `IStableStorage.position`."""


@define(eq=False)
class OldDatabase:
    """A database of format 3, open for reading only: neither opening nor closing changes it or its log.

    A connection that may write would copy a log into the database when it is closed. A log that does not belong to the
    database, and is about to be refused, would destroy the database by that.
    """

    path: Path
    _connection: sqlite3.Connection

    @classmethod
    def open(cls, path: Path) -> OldDatabase:
        """Open the database. Raises `StorageRefused` if its log is damaged where acknowledged records stand, and if
        this Python cannot read databases."""
        module = sqlite.needed(f"{path}: to take over this database of an earlier version of pfsb")
        log = log_of(path)
        if log.exists() and acknowledged_commits_lost(log):
            raise StorageRefused(
                f"{log}: damaged before its end, where acknowledged records stand; {MUST_NOT_VOTE_AGAIN}"
            )
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return cls(path, module.connect(uri, uri=True, isolation_level=None))

    def close(self) -> None:
        self._connection.close()

    def identity(self) -> OldIdentity:
        """Read the row of the table `identity`. Raises `StorageRefused` for another format and for a damaged row."""
        if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'identity'").fetchall():
            raise StorageRefused(
                f"{self.path}: has no table identity, so it is no storage of pfsb or was cut off; {MUST_NOT_VOTE_AGAIN}"
            )
        versions = self._connection.execute("SELECT format_version FROM identity").fetchall()
        if versions and versions[0] != (FORMAT_VERSION,):
            raise other_format(self.path, versions[0][0], FORMAT_VERSION)
        return OldIdentity(*self._only_row("identity"))

    def check_pages(self) -> None:
        """Let SQLite check the whole file; raises `StorageRefused` if it is damaged."""
        problem: str = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise StorageRefused(f"{self.path}: damaged ({' '.join(problem.split())}); {MUST_NOT_VOTE_AGAIN}")

    def views(self) -> OldViews:
        return OldViews(*self._only_row("views"))

    def peers(self) -> dict[int, PeerRecord]:
        rows = self._connection.execute("SELECT * FROM peers")
        return {
            server_id: PeerRecord(server_id, bytes.fromhex(identity), incarnation, position)
            for server_id, identity, incarnation, position in checked_rows(self.path, "peers", rows)
        }

    def passes(self) -> dict[int, bytes]:
        rows = self._connection.execute("SELECT * FROM passes")
        return {row[0]: bytes.fromhex(row[1]) for row in checked_rows(self.path, "passes", rows)}

    def history(self, local_aru: int) -> Iterator[tuple[int, StoredSlot]]:
        """Yield all stored slots, as (seq, slot), ascending.

        Raises `StorageRefused` at a damaged row, and if a slot from 1 to `local_aru` is missing.
        """
        rows = self._connection.execute("SELECT * FROM history ORDER BY seq")
        expected = 1
        for seq, view, batch in checked_rows(self.path, "history", rows):
            if expected <= local_aru and seq > expected:
                break
            expected = seq + 1
            yield seq, StoredSlot(view, Batch(batch))
        if expected <= local_aru:
            raise history_gap(str(self.path), expected, local_aru)

    def _only_row(self, table: str) -> tuple[Any, ...]:
        rows = list(checked_rows(self.path, table, self._connection.execute(f"SELECT * FROM {table}")))
        if len(rows) != 1:
            raise StorageRefused(
                f"{self.path}: table {table} has {len(rows)} rows and should have one; {MUST_NOT_VOTE_AGAIN}"
            )
        return rows[0]
