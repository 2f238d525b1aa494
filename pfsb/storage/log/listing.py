"""A log for people: its groups and its state as JSON values, or as tables of a SQLite file (`pfsb log`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pfsb.paxos.members import Members
from pfsb.paxos.records import PeerRecord
from pfsb.paxos.start_number import incarnation_of, mark_of
from pfsb.storage import sqlite
from pfsb.storage.log.groups import group_at
from pfsb.storage.log.index import Place
from pfsb.storage.log.items import Content, decode
from pfsb.storage.log.scan import Log

if TYPE_CHECKING:
    import sqlite3

TABLES = """
CREATE TABLE identity (
    cluster_name TEXT, cluster_digest TEXT, members TEXT, server_id INTEGER, storage_identity TEXT, incarnation INTEGER
);
CREATE TABLE views (last_attempted INTEGER, last_installed INTEGER, local_aru INTEGER, position INTEGER);
CREATE TABLE segments (number INTEGER PRIMARY KEY, bytes INTEGER, first_group INTEGER, last_group INTEGER);
CREATE TABLE groups (number INTEGER PRIMARY KEY, segment INTEGER, start INTEGER, bytes INTEGER, slots INTEGER);
CREATE TABLE history (seq INTEGER PRIMARY KEY, view INTEGER, number INTEGER, batch BLOB);
CREATE TABLE snapshot (seq INTEGER PRIMARY KEY, bytes INTEGER, digest TEXT, first_segment INTEGER, compacted INTEGER);
CREATE TABLE epoch (
    number INTEGER PRIMARY KEY, since INTEGER, voters TEXT, learners TEXT, first INTEGER, retired TEXT
);
CREATE TABLE passes (seq INTEGER PRIMARY KEY, digest TEXT);
CREATE TABLE peers (server_id INTEGER PRIMARY KEY, identity TEXT, incarnation INTEGER, position INTEGER, mark TEXT);
"""
"""The tables that `write_tables` fills. The column `number` of `history` names the group with the latest content of the
slot."""


class Listed(NamedTuple):
    """One group of a log, as `groups_of` yields it: with its place and its content."""

    number: int
    place: Place
    size: int
    """Number of bytes that the group takes in its segment."""
    content: Content


def groups_of(log: Log) -> Iterator[Listed]:
    """Yield all groups of a log that was just read, in order."""
    for number, head in log.heads.items():
        data = log.path(number).read_bytes()
        at = head.size
        while number <= log.segment and (group := group_at(data, at, head.salt)) is not None:
            count, _, _, start, end = group
            yield Listed(count, Place(number, at), end - at, decode(data[start:end]))
            at = end


def plain_group(listed: Listed) -> dict[str, Any]:
    """A group as a value of JSON. Batches are shown by size and digest (docs/internals/formats.rst)."""
    number, place, size, content = listed
    slots = [
        {"seq": seq, "view": slot.view, "bytes": len(slot.batch.data), "digest": slot.batch.digest.hex()}
        for seq, slot in content.effect.slots.items()
    ]
    where = {"group": number, "segment": place.segment, "offset": place.offset, "bytes": size}
    return where | plain_state(content) | {"slots": slots}


def plain_state(content: Content) -> dict[str, Any]:
    """The state that a group sets, or that a log is in, as a value of JSON: only values that are set."""
    effect = content.effect
    plain: dict[str, Any] = {}
    if content.incarnation is not None:
        plain["incarnation"] = content.incarnation
    if effect.views is not None:
        plain["last_attempted"], plain["last_installed"] = effect.views.last_attempted, effect.views.last_installed
    if effect.local_aru is not None:
        plain["local_aru"] = effect.local_aru
    if effect.peers:
        plain["peers"] = {
            str(peer.server_id): {"identity": peer.identity.hex(), **_start_of(peer), "position": peer.position}
            for peer in effect.peers.values()
        }
    if content.snapshot is not None:
        stored = content.snapshot
        plain["snapshot"] = {"seq": stored.name.seq, "bytes": stored.name.size, "digest": stored.name.digest.hex()}
        plain["first_segment"], plain["compacted"] = stored.first_segment, stored.compacted
    if effect.members is not None:
        plain["epoch"] = plain_members(effect.members)
    if content.passes:
        plain["passes"] = {str(seq): digest.hex() for seq, digest in content.passes.items()}
    return plain


def plain_members(members: Members) -> dict[str, Any]:
    """The servers of an epoch as a value of JSON; `replacing` is there while a server is replaced, `permanent` if some
    learn for good."""
    replacing = {} if members.replacing is None else {"replacing": [*members.replacing]}
    permanent = {"permanent": [*members.permanent]} if members.permanent else {}
    return {
        "number": members.epoch,
        "since": members.since,
        "voters": [*members.voters],
        "learners": [*members.learners],
        "first": members.first,
        "storages": {str(server_id): identity.hex() for server_id, identity in members.storages.items()},
        "addresses": {str(server_id): address for server_id, address in members.addresses.items()},
        "retired": [*members.retired],
        **replacing,
        **permanent,
    }


def _start_of(peer: PeerRecord) -> dict[str, Any]:
    """The start that a record about a storage names: its incarnation, and its mark in hexadecimal, if it is known.

    The mark is known in records about other servers' storages, but not in those of versions before start numbers.
    """
    number = peer.incarnation
    incarnation = incarnation_of(number)
    return {"incarnation": incarnation, "mark": f"{mark_of(number):08x}"} if incarnation else {"incarnation": number}


def plain_log(log: Log) -> dict[str, Any]:
    """Owner, size and state of a whole log, as a value of JSON."""
    owner = log.head.owner
    return {
        "cluster": owner.cluster_name,
        "cluster_digest": owner.cluster_digest.hex(),
        "members": list(owner.members),
        "server_id": owner.server_id,
        "identity": log.head.identity.hex(),
        "segments": len(log.heads),
        "position": log.position,
        "slots": len(log.index.above(log.state.compacted)),
        "first_missing_slot": log.first_gap(),
        "torn_bytes": log.torn_bytes,
        **plain_state(log.state),
        **({"local_aru": log.state.local_aru} if log.state.local_aru else {}),
    }


def write_tables(log: Log, path: Path) -> None:
    """Write everything in a log into a new SQLite file at `path`, for the `sqlite3` tool. Raises OSError, also if the
    file is there, `sqlite3.Error`, or `StorageRefused` if this Python cannot write databases."""
    module = sqlite.needed(f"{path}: to write a database")
    path.touch(exist_ok=False)
    with closing(module.connect(path, isolation_level=None)) as connection:
        connection.executescript(TABLES)
        connection.execute("BEGIN")
        _insert_state(connection, log)
        for listed in groups_of(log):
            _insert_group(connection, listed)
        connection.execute("COMMIT")


def _insert_state(connection: sqlite3.Connection, log: Log) -> None:
    owner, state = log.head.owner, log.state
    members = " ".join(map(str, owner.members))
    identity = owner.cluster_name, owner.cluster_digest.hex(), members, owner.server_id, log.head.identity.hex()
    connection.execute("INSERT INTO identity VALUES (?, ?, ?, ?, ?, ?)", (*identity, state.incarnation or 0))
    views = state.views.last_attempted, state.views.last_installed, state.local_aru, log.position
    connection.execute("INSERT INTO views VALUES (?, ?, ?, ?)", views)
    if state.snapshot is not None:
        name, first_segment, compacted = state.snapshot.name, state.snapshot.first_segment, state.snapshot.compacted
        values = name.seq, name.size, name.digest.hex(), first_segment, compacted
        connection.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?, ?)", values)
    if state.effect.members is not None:
        plain = plain_members(state.effect.members)
        ids = {name: " ".join(map(str, plain[name])) for name in ("voters", "learners", "retired")}
        epoch = plain["number"], plain["since"], ids["voters"], ids["learners"], plain["first"], ids["retired"]
        connection.execute("INSERT INTO epoch VALUES (?, ?, ?, ?, ?, ?)", epoch)
    passes = [(seq, digest.hex()) for seq, digest in state.passes.items()]
    connection.executemany("INSERT INTO passes VALUES (?, ?)", passes)
    for peer in state.effect.peers.values():
        start = _start_of(peer)
        row = peer.server_id, peer.identity.hex(), start["incarnation"], peer.position, start.get("mark")
        connection.execute("INSERT INTO peers VALUES (?, ?, ?, ?, ?)", row)
    segments = [(number, log.path(number).stat().st_size) for number in log.heads]
    connection.executemany("INSERT INTO segments VALUES (?, ?, NULL, NULL)", segments)


def _insert_group(connection: sqlite3.Connection, listed: Listed) -> None:
    number, place, size, content = listed
    slots = content.effect.slots
    row = number, place.segment, place.offset, size, len(slots)
    connection.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?)", row)
    connection.execute(
        "UPDATE segments SET first_group = ifnull(first_group, ?), last_group = ? WHERE number = ?",
        (number, number, place.segment),
    )
    rows = [(seq, slot.view, number, slot.batch.data) for seq, slot in slots.items()]
    connection.executemany("INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?)", rows)
