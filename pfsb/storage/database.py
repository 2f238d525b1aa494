"""The SQLite file of one server: its tables, how a group is written, and how rows are checked when they are read.

    sqlite3 -readonly var/four/2/pfsb.sqlite3 'select * from views'

shows at any time what the server would still know after power loss. Every row carries a hash of its other columns
(`pfsb.storage.rows`). docs/internals/formats.rst defines the tables.

There are no snapshots yet. They will need one more table, written in the transaction that deletes the history below
the snapshot; `read_ordered` and `_first_gap` will then begin above the snapshot's seq instead of at 1.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, frozen

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted, PeerRecord
from pfsb.storage.directory import sync_directory
from pfsb.storage.effect import Effect, StoredSlot
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN, history_gap, other_format, unusable
from pfsb.storage.rows import Cell, checked_rows, row_hash
from pfsb.storage.wal import log_of, make_room

FORMAT_VERSION: Final = 3
"""Number of the file format that this version writes, and the only one that it reads. Formats 1 and 2 belong to
versions of pfsb that were not released."""

LIBRARY_MIN: Final = (3, 32, 0)
"""The oldest SQLite library that is allowed: the first one that takes as many parameters in one statement as a group
of `ROWS_MAX` rows has."""

TABLES = """
CREATE TABLE identity (
    format_version   INTEGER NOT NULL,
    cluster_name     TEXT NOT NULL,
    cluster_digest   TEXT NOT NULL,     -- hexadecimal
    members          TEXT NOT NULL,     -- ids of the founding servers
    server_id        INTEGER NOT NULL,
    storage_identity TEXT NOT NULL,     -- hexadecimal; random, made with this file
    incarnation      INTEGER NOT NULL,  -- how often the server was started
    hash             BLOB NOT NULL
);
CREATE TABLE views (
    last_attempted INTEGER NOT NULL,
    last_installed INTEGER NOT NULL,
    local_aru      INTEGER NOT NULL,
    position       INTEGER NOT NULL,    -- number of groups written, this one included; a start counts as one
    hash           BLOB NOT NULL
);
CREATE TABLE history (
    seq   INTEGER PRIMARY KEY,
    view  INTEGER NOT NULL,             -- 0: learned as ordered
    batch BLOB NOT NULL,                -- as in the PROPOSAL
    hash  BLOB NOT NULL
);
CREATE TABLE passes (
    seq    INTEGER PRIMARY KEY,         -- a slot that is left out (Departure 38)
    digest TEXT NOT NULL,               -- of its batch; hexadecimal
    hash   BLOB NOT NULL
);
CREATE TABLE peers (
    server_id   INTEGER PRIMARY KEY,
    identity    TEXT NOT NULL,          -- hexadecimal
    incarnation INTEGER NOT NULL,       -- of that server's storage; 0: not noted
    position    INTEGER NOT NULL,       -- number of groups that were on that server's disk; 0: not noted
    hash        BLOB NOT NULL
);
"""

# One INSERT into this view writes a whole group: the triggers pass each row on to the table that it belongs to. SQLite
# releases Python's global interpreter lock around each statement, and while the reactor computes, the writer's thread
# waits up to `sys.getswitchinterval()` to get the lock back. With BEGIN, several INSERTs and COMMIT, each group would
# wait that long several times. The view is temporary, so the file does not hold it.
GROUP_VIEW = """
CREATE TEMP VIEW written AS SELECT 0 AS target, 0 AS a, 0 AS b, 0 AS c, 0 AS d, 0 AS e;
CREATE TEMP TRIGGER write_history INSTEAD OF INSERT ON written WHEN NEW.target = 1 BEGIN
    INSERT OR REPLACE INTO history (seq, view, batch, hash) VALUES (NEW.a, NEW.b, NEW.c, NEW.d);
END;
CREATE TEMP TRIGGER write_views INSTEAD OF INSERT ON written WHEN NEW.target = 2 BEGIN
    UPDATE views SET last_attempted = NEW.a, last_installed = NEW.b, local_aru = NEW.c, position = NEW.d, hash = NEW.e;
END;
CREATE TEMP TRIGGER write_peers INSTEAD OF INSERT ON written WHEN NEW.target = 3 BEGIN
    INSERT OR REPLACE INTO peers (server_id, identity, incarnation, position, hash)
    VALUES (NEW.a, NEW.b, NEW.c, NEW.d, NEW.e);
END;
"""

Row = tuple[int, Cell, Cell, Cell, Cell, Cell]
"""(target, a, ... e): a row of the view `written`. The number `target` selects the table; a to e go into columns of
it."""

PADDING: Row = (0, 0, 0, 0, 0, 0)
"""A row that no trigger of the view `written` takes, so that inserting it changes nothing.

Such rows bring the number of rows of each INSERT up to 1, 2, 4, 8, ..., so that SQLite compiles few statements.
"""

ROWS_MAX = 256
"""Maximum number of rows in one INSERT; a group with more is written as one transaction of several INSERTs."""


def refuse_old_library() -> None:
    """Raise `StorageRefused` if Python was linked with an SQLite library older than `LIBRARY_MIN`."""
    if sqlite3.sqlite_version_info < LIBRARY_MIN:
        needed = ".".join(map(str, LIBRARY_MIN))
        raise StorageRefused(
            f"SQLite {sqlite3.sqlite_version}, the library that this Python uses, is too old; pfsb needs {needed} or "
            "later: run it with another Python or with a later library"
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection that can be handed to another thread, and for which Python never begins a transaction."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


@frozen
class StorageOwner:
    """The cluster and the server that a storage belongs to."""

    cluster_name: str
    cluster_digest: bytes
    members: tuple[int, ...]
    server_id: int


@frozen
class StorageIdentity:
    """The only row of the table `identity`: one field for each column but `hash`, in the order of the columns."""

    format_version: int
    cluster_name: str
    cluster_digest: str
    members: str
    server_id: int
    storage_identity: str
    incarnation: int

    @classmethod
    def new(cls, owner: StorageOwner, storage_identity: bytes) -> StorageIdentity:
        return cls(
            FORMAT_VERSION,
            owner.cluster_name,
            owner.cluster_digest.hex(),
            " ".join(map(str, owner.members)),
            owner.server_id,
            storage_identity.hex(),
            incarnation=0,
        )

    def columns(self) -> tuple[Cell, ...]:
        return (
            self.format_version,
            self.cluster_name,
            self.cluster_digest,
            self.members,
            self.server_id,
            self.storage_identity,
            self.incarnation,
        )

    def check(self, path: Path, owner: StorageOwner) -> None:
        """Raise `StorageRefused` unless the file was made for this server of this cluster (G20, G29).

        A file of another server holds that server's votes and promises, and lacks those of this server.
        """
        if self.cluster_digest != owner.cluster_digest.hex():
            ours = StorageIdentity.new(owner, b"")
            raise StorageRefused(
                f"{path}: made for {self._cluster()}, not for {ours._cluster()}; name, members and directory must match"
            )
        if self.server_id != owner.server_id:
            raise StorageRefused(
                f"{path}: made for server {self.server_id}, not for server {owner.server_id}; "
                "each server needs a directory of its own"
            )

    def _cluster(self) -> str:
        members = self.members or "unknown"
        return f'cluster "{self.cluster_name}" with servers {members} (digest {self.cluster_digest[:8]})'


@frozen
class StoredViews:
    """The only row of the table `views`: one field for each column but `hash`, in the order of the columns."""

    last_attempted: int = 0
    last_installed: int = 0
    local_aru: int = 0
    position: int = 0
    """Number of groups that this storage has written in its whole life; see `IStableStorage.position`."""

    def columns(self) -> tuple[int, int, int, int]:
        return self.last_attempted, self.last_installed, self.local_aru, self.position

    def after(self, effect: Effect) -> StoredViews:
        """The row that results when the group of `effect` is written after this row."""
        views = effect.views or self
        local_aru = self.local_aru if effect.local_aru is None else effect.local_aru
        return StoredViews(views.last_attempted, views.last_installed, local_aru, self.position + 1)


def create(path: Path, identity: StorageIdentity) -> None:
    """Make the file of a new storage: complete and on disk before it gets its final name.

    Therefore an incomplete file under the final name has been damaged: it cannot be a new one whose making was cut
    short. The directory and its parent are forced to disk too: otherwise power loss could remove the file's name, and
    with it the first promises that this server has given.
    """
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(connect(unfinished)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(f"BEGIN; {TABLES} COMMIT")
        connection.execute("BEGIN")
        _insert(connection, "identity", identity.columns())
        _insert(connection, "views", StoredViews().columns())
        connection.execute("COMMIT")
    os.rename(unfinished, path)
    sync_directory(path.parent)
    sync_directory(path.parent.parent)


def _insert(connection: sqlite3.Connection, table: str, columns: tuple[Cell, ...]) -> None:
    marks = ", ".join("?" * (len(columns) + 1))
    connection.execute(f"INSERT INTO {table} VALUES ({marks})", (*columns, row_hash(table, *columns)))


@define(eq=False)
class WritingDatabase:
    """The connection that writes: used first by the reactor's thread to recover, then by the writer's thread only."""

    path: Path
    _connection: sqlite3.Connection
    views: StoredViews = StoredViews()

    @classmethod
    def look(cls, path: Path) -> WritingDatabase:
        """Open the file for reading only: neither opening nor closing changes the database or its log.

        A connection that may write would copy a log into the database when it is closed. A log that does not belong to
        the database, and is about to be refused, would destroy the database by that.
        """
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return cls(path, sqlite3.connect(uri, uri=True, isolation_level=None))

    @classmethod
    def open(cls, path: Path) -> WritingDatabase:
        connection = connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.executescript(GROUP_VIEW)
        except sqlite3.Error:
            connection.close()
            raise
        return cls(path, connection)

    def close(self) -> None:
        self._connection.close()

    # Reading, at the start

    def identity(self) -> StorageIdentity:
        """Read the row of the table `identity`. Raises `StorageRefused` for another format and for a damaged row."""
        if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'identity'").fetchall():
            raise StorageRefused(
                f"{self.path}: has no table identity, so it is no storage of pfsb or was cut off; {MUST_NOT_VOTE_AGAIN}"
            )
        versions = self._connection.execute("SELECT format_version FROM identity").fetchall()
        if versions and versions[0] != (FORMAT_VERSION,):
            raise other_format(self.path, versions[0][0], FORMAT_VERSION)
        return StorageIdentity(*self._only_row("identity"))

    def check_pages(self) -> None:
        """Let SQLite check the whole file; raises `StorageRefused` if it is damaged.

        The check takes about a second for each gigabyte, if the operating system has the file in memory.
        """
        problem: str = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise StorageRefused(f"{self.path}: damaged ({' '.join(problem.split())}); {MUST_NOT_VOTE_AGAIN}")

    def read_views(self) -> StoredViews:
        self.views = StoredViews(*self._only_row("views"))
        return self.views

    def peers(self) -> dict[int, PeerRecord]:
        rows = self._connection.execute("SELECT * FROM peers")
        return {
            server_id: PeerRecord(server_id, bytes.fromhex(identity), incarnation, position)
            for server_id, identity, incarnation, position in checked_rows(self.path, "peers", rows)
        }

    def passes(self) -> dict[int, bytes]:
        rows = self._connection.execute("SELECT * FROM passes")
        return {row[0]: bytes.fromhex(row[1]) for row in checked_rows(self.path, "passes", rows)}

    def slot(self, seq: int) -> StoredSlot | None:
        """Read the stored content of slot `seq`; None if there is none."""
        rows = self._connection.execute("SELECT * FROM history WHERE seq = ?", (seq,))
        found = [StoredSlot(view, Batch(batch)) for _, view, batch in checked_rows(self.path, "history", rows)]
        return found[0] if found else None

    def add_pass(self, seq: int, digest: bytes) -> None:
        """Write that slot `seq` is left out with the batch of this digest. It is on disk when this method returns."""
        row = seq, digest.hex()
        self._connection.execute("INSERT OR REPLACE INTO passes VALUES (?, ?, ?)", (*row, row_hash("passes", *row)))

    def accepted(self) -> list[Accepted]:
        """Read the stored slots above Local_Aru, ascending: the batch of each is one that was accepted or learned as
        ordered."""
        query = "SELECT * FROM history WHERE seq > ? ORDER BY seq"
        rows = self._connection.execute(query, (self.views.local_aru,))
        return [Accepted(seq, view, Batch(batch)) for seq, view, batch in checked_rows(self.path, "history", rows)]

    def check_history(self) -> None:
        """Raise `StorageRefused` unless every slot from 1 to Local_Aru is stored."""
        local_aru = self.views.local_aru
        query = "SELECT count(*) FROM history WHERE seq BETWEEN 1 AND ?"
        if self._connection.execute(query, (local_aru,)).fetchone()[0] != local_aru:
            raise history_gap(str(self.path), self._first_gap(), local_aru)

    def _first_gap(self) -> int:
        rows = self._connection.execute("SELECT seq FROM history WHERE seq >= 1 ORDER BY seq")
        for expected, (seq,) in enumerate(rows, start=1):
            if seq != expected:
                return expected
        return 1 + int(self._connection.execute("SELECT count(*) FROM history WHERE seq >= 1").fetchone()[0])

    def _only_row(self, table: str) -> tuple[Any, ...]:
        rows = list(checked_rows(self.path, table, self._connection.execute(f"SELECT * FROM {table}")))
        if len(rows) != 1:
            raise StorageRefused(
                f"{self.path}: table {table} has {len(rows)} rows and should have one; {MUST_NOT_VOTE_AGAIN}"
            )
        return rows[0]

    # Writing

    def begin_incarnation(self, identity: StorageIdentity) -> StorageIdentity:
        """Increase the stored incarnation and position by one, and begin the write-ahead log anew; returns the changed
        row.

        The number is on disk before the server sends anything, so no two incarnations ever use the same number. The
        position counts a start as a group, so the log of a server that was started is never empty: the database alone
        has a lower position than the note beside it (`pfsb.storage.position_note`). The log
        begins anew with other salts, because a torn transaction of an earlier incarnation may have left frames behind
        the end of the log, and `acknowledged_commits_lost` would count the commits among them.
        """
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        make_room(log_of(self.path))
        identity = evolve(identity, incarnation=identity.incarnation + 1)
        views = evolve(self.views, position=self.views.position + 1)
        self._connection.execute("BEGIN IMMEDIATE")
        self._update("identity", "incarnation = ?", identity.incarnation, identity.columns())
        self._update("views", "position = ?", views.position, views.columns())
        self._connection.execute("COMMIT")
        self.views = views
        return identity

    def _update(self, table: str, change: str, value: int, columns: tuple[Cell, ...]) -> None:
        """Change one column of the only row of a table, whose columns are `columns` afterwards."""
        self._connection.execute(f"UPDATE {table} SET {change}, hash = ?", (value, row_hash(table, *columns)))

    def write(self, effect: Effect) -> None:
        """Write a whole group as one transaction, which is on disk when this method returns.

        After power loss the group is there as a whole or not at all, since SQLite drops a transaction without its
        commit.
        """
        rows, views = self._rows(effect)
        if len(rows) <= ROWS_MAX:
            self._write_rows(rows)
        else:
            self._connection.execute("BEGIN IMMEDIATE")
            for start in range(0, len(rows), ROWS_MAX):
                self._write_rows(rows[start : start + ROWS_MAX])
            self._connection.execute("COMMIT")
        self.views = views

    def roll_back(self) -> None:
        """End a transaction that has failed, if SQLite has not ended it already."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _rows(self, effect: Effect) -> tuple[list[Row], StoredViews]:
        rows: list[Row] = [
            (1, seq, view, batch.data, row_hash("history", seq, view, batch.data), 0)
            for seq, (view, batch) in effect.slots.items()
        ]
        views = self.views.after(effect)
        rows.append((2, *views.columns(), row_hash("views", *views.columns())))
        for record in effect.peers.values():
            peer = (record.server_id, record.identity.hex(), record.incarnation, record.position)
            rows.append((3, *peer, row_hash("peers", *peer)))
        return rows, views

    def _write_rows(self, rows: list[Row]) -> None:
        count = 1 << (len(rows) - 1).bit_length()
        cells = [cell for row in rows for cell in row]
        self._connection.execute(_statement(count), cells + list(PADDING) * (count - len(rows)))


@cache
def _statement(rows: int) -> str:
    return "INSERT INTO written VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)


def read_ordered(path: Path, local_aru: int) -> Iterator[tuple[int, Batch]]:
    """Yield the ordered slots from 1 to `local_aru`, as (seq, batch); they are read row by row, over a new connection.

    Raises `StorageRefused` at a damaged row.
    """
    with closing(connect(path)) as connection:
        try:
            rows = connection.execute("SELECT * FROM history WHERE seq BETWEEN 1 AND ? ORDER BY seq", (local_aru,))
            for seq, _view, batch in checked_rows(path, "history", rows):
                yield seq, Batch(batch)
        except sqlite3.Error as error:
            raise unusable(path, error) from error


@define(eq=False)
class ReadingDatabase:
    """A second connection, for reading: it sees committed groups only, and never waits for the writing connection."""

    path: Path
    _connection: sqlite3.Connection

    @classmethod
    def open(cls, path: Path) -> ReadingDatabase:
        return cls(path, connect(path))

    def close(self) -> None:
        self._connection.close()

    def read(self, first: int, last: int, bytes_max: int) -> list[tuple[int, Batch]]:
        """Read the ordered slots that `IStableStorage.read_history` passes to its callback: consecutive (seq, batch).

        Raises `StorageRefused` at a damaged row.
        """
        found: list[tuple[int, Batch]] = []
        query = "SELECT * FROM history WHERE seq BETWEEN ? AND min(?, (SELECT local_aru FROM views)) ORDER BY seq"
        with closing(self._connection.execute(query, (first, last))) as rows:
            for seq, _view, batch in checked_rows(self.path, "history", rows):
                bytes_max -= len(batch)
                if seq != first + len(found) or (found and bytes_max < 0):
                    break
                found.append((seq, Batch(batch)))
        return found
