"""Takes a data directory of format 3, a SQLite database, over into a log, at the first start.

The log is made under another name, read again and compared with the database, slot by slot, and only then gets its
name. From then on the database is left over, and deleted. A crash at any time leaves the database as it was, or the
complete log.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from attrs import evolve

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.records import Accepted, PeerRecord, ViewRecord
from pfsb.storage.directory import sync_directory
from pfsb.storage.effect import Effect, StoredSlot
from pfsb.storage.log.groups import SALT_BYTES
from pfsb.storage.log.items import Content
from pfsb.storage.log.reader import LogReader
from pfsb.storage.log.scan import read_heads, scan
from pfsb.storage.log.segments import SegmentHead, make_segment, room_of
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.old_database import NAME, OldDatabase, OldIdentity, OldViews
from pfsb.storage.owner import StorageOwner
from pfsb.storage.wal import log_of

GROUP_BYTES: Final = 1_048_576
"""Size of the batches, in bytes, from which on the migration begins a new group."""


def old_files(directory: Path) -> tuple[Path, ...]:
    """The paths that the files of a database of format 3 have in a data directory, whether they are there or not."""
    path = directory / NAME
    return path, log_of(path), path.with_name(path.name + "-shm"), path.with_name(path.name + ".new")


def owner_in(directory: Path, log: Path) -> StorageOwner:
    """The server that a data directory was made for, as its log says it, or the database if there is no log.

    Raises `StorageRefused`, OSError or `sqlite3.Error` if neither says it.
    """
    if log.exists():
        for head in read_heads(log).values():
            return head.owner
    with closing(OldDatabase.open(old_files(directory)[0])) as database:
        return database.identity().owner


def refuse_if_unusable(path: Path, owner: StorageOwner) -> tuple[OldIdentity, OldViews]:
    """Raise `StorageRefused` if the database at `path` is damaged or not this server's, as far as SQLite's own check
    and its two single rows tell. Returns these rows."""
    with closing(OldDatabase.open(path)) as database:
        identity = database.identity()
        owner.refuse_storage_of(identity.owner, path)
        database.check_pages()
        return identity, database.views()


def migrate(path: Path, log: Path, owner: StorageOwner, random_bytes: Callable[[int], bytes]) -> None:
    """Make a log of the database at `path`, which has been checked; `log` is the directory that the log gets.
    `random_bytes(n)` makes the salts of segments.

    Raises `StorageRefused` if a row of the database is damaged or missing; OSError, `sqlite3.Error` or `NoRoom` if a
    disk fails or is full. The database stays as it is in any case.
    """
    unfinished = log.with_name(log.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    with closing(OldDatabase.open(path)) as database:
        identity = bytes.fromhex(database.identity().storage_identity)
        head = SegmentHead(1, room_of(1), identity, random_bytes(SALT_BYTES), owner)
        make_segment(unfinished, head)
        state = write_log(database, unfinished, head, random_bytes)
        compare(database, unfinished, state)
    os.rename(unfinished, log)
    sync_directory(log.parent)


def delete_old_files(directory: Path) -> None:
    """Delete the files of the database in `directory`, which a finished migration has left over."""
    left = [path for path in old_files(directory) if path.exists()]
    if left:
        sync_directory(directory)  # the name of the new log must be on disk before the database is deleted
    for path in left:
        path.unlink()
    if left:
        sync_directory(directory)


def write_log(
    database: OldDatabase, directory: Path, head: SegmentHead, random_bytes: Callable[[int], bytes]
) -> Content:
    """Write everything in the database to a log, and return the state of that log. `head` is the head of its first
    segment, which is there already, and `random_bytes(n)` makes the salts of the others.

    The numbers of the groups go on from the database's count of groups, so the position of the storage never goes back.
    """
    ready: list[SegmentHead] = []

    def want(number: int) -> None:
        ready.append(evolve(head, number=number, room=room_of(number), salt=random_bytes(SALT_BYTES)))
        make_segment(directory, ready[0])

    log = scan(directory)
    views = database.views()
    log.position = views.position
    with closing(LogWriter.open(log, lambda: ready.pop() if ready else None, want)) as writer:
        for effect in _effects(database.history(views.local_aru)):
            writer.write(effect)
        state = state_of(database, log.position + 1 - views.position)
        writer.append(state)
    return state


def _effects(history: Iterator[tuple[int, StoredSlot]]) -> Iterator[Effect]:
    effect, size = Effect(), 0
    for seq, slot in history:
        effect.slots[seq] = slot
        size += len(slot.batch.data)
        if size >= GROUP_BYTES:
            yield effect
            effect, size = Effect(), 0
    if effect.slots:
        yield effect


def state_of(database: OldDatabase, groups: int) -> Content:
    """Everything in the database but the slots, as the state of the new log.

    `groups` is the number of groups that the migration writes. The own log position that frames tell leaves them out,
    since they hold no votes.
    """
    identity, views = database.identity(), database.views()
    peers: dict[int, PeerRecord] = database.peers()
    if identity.server_id in peers:
        peers[identity.server_id] = peers[identity.server_id].leaving_out(groups)
    effect = Effect(ViewRecord(views.last_attempted, views.last_installed), views.local_aru, {}, peers)
    return Content(identity.incarnation, effect, database.passes())


def compare(database: OldDatabase, directory: Path, state: Content) -> None:
    """Raise `StorageRefused` unless the log has the same content as the database."""
    log = scan(directory)
    with closing(LogReader(log)) as reader:
        slots = database.history(state.local_aru)
        same = [reader.slot(seq) == Accepted(seq, slot.view, slot.batch) for seq, slot in slots]
    if not all(same) or log.state != state or len(log.index.above(0)) != len(same):
        raise StorageRefused(
            f"{database.path}: the log that was made of it does not hold the same; the disk or the memory of this "
            "machine may be faulty. The database is unchanged"
        )
