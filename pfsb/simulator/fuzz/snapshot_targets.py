"""Targets that read snapshots: their bytes, and the pieces from which a server builds its state."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

import msgpack

from pfsb.applications.catalogue import catalogue_of_plugins
from pfsb.config.config import Config, ServerConfig
from pfsb.paxos.snapshot import Piece, SnapshotDecoder, SnapshotEncoder, WrongSnapshot
from pfsb.server import Server
from pfsb.service.assembly import GivenSurroundings, frame_identity, make_server
from pfsb.sessions.state_machine import CannotRun
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.simulator.fuzz.mutation import Mutation
from pfsb.simulator.fuzz.small_cluster import SmallCluster
from pfsb.simulator.fuzz.target import Target
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from pfsb.transports.faults import LinkFaults
from pfsb.transports.links import Links

COMMANDS: Final = (0, 10, 60, 200)
"""Numbers of commands after which the states are taken whose pieces are changed."""
CLUSTER_IDENTITY: Final = b"cluster!"


@cache
def real_pieces() -> Sequence[Sequence[Piece]]:
    """The pieces of snapshots of a small cluster, after some commands each."""
    cluster = SmallCluster("pieces", 1)
    try:
        cluster.run_until_led()
        found = []
        for commands in COMMANDS:
            cluster.work(commands)
            found.append([*cluster.servers[0].replica.ordered_queue.freeze()])
        return found
    finally:
        cluster.close()


def new_server() -> Server:
    """A server that has not started, and has executed nothing."""
    clock, dice = SimulatedClock(), random.Random(0)
    config = Config("small", "small", {0: ServerConfig(0, ("127.0.0.1", 1), "tcp:1")}, 0)
    faults = LinkFaults(clock, dice)
    links = Links(frame_identity(config, 0), clock, faults, lambda peer, frame: None, None)
    storage = MemoryStorage(MemoryDisk(), clock, float, dice.randbytes)
    given = GivenSurroundings(0, clock, dice, storage, links, lambda failure: failure.raiseException())
    return make_server(config, catalogue_of_plugins(config.apps), given, faults=faults)


def restored(pieces: Iterable[Piece]) -> Server:
    """A server with the state of these pieces. Raises `WrongSnapshot` or `CannotRun`."""
    server = new_server()
    restorer = server.replica.ordered_queue.restorer()
    for piece in pieces:
        restorer.take(piece)
    restorer.end()
    restorer.adopt()
    return server


class PieceTarget(Target):
    """Builds a state of changed pieces, and checks that they are refused, or make a state.

    Each section of pieces that are taken ends with a row. A state of values that no server makes may have no pieces of
    its own. If it has some, they make the same state again.
    """

    name = "pieces"
    help = "pieces of snapshots, changed by their sender: their digests are right"
    guided_by = (
        *("pfsb/paxos/frozen_history.py", "pfsb/paxos/snapshot_rows.py", "pfsb/sessions/restorer.py"),
        *("pfsb/sessions/kept_results.py", "pfsb/sessions/reply_cache.py", "pfsb/applications/"),
    )
    inputs_per_round = 100
    words = (
        b"\xdd\x7f\xff\xff\xff",
        b"\xdf\x03\xff\xff\xff",
        b"\xc6\x7f\xff\xff\xff",
        b"\xc9\x0f\xff\xff\xff\x02",
        b"\x91" * 600,
    )
    """Beginnings of sequences, maps, bytes and values of other types that promise more than follows."""

    def seeds(self) -> list[bytes]:
        return [_packed(pieces) for pieces in real_pieces()]

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        """Make an input: one or two pieces are changed in a row or in their bytes, get the beginning of one more row,
        are left out, repeated, or exchanged."""
        pieces, others = _unpacked(data), _unpacked(other)
        for _ in range(mutation.dice.choice((1, 1, 2))):
            if not pieces:
                break
            at, how = mutation.dice.randrange(len(pieces)), mutation.dice.random()
            if how < 0.1:
                del pieces[at]
            elif how < 0.2:
                pieces.insert(mutation.dice.randrange(len(pieces) + 1), mutation.dice.choice((*pieces, *others)))
            elif how < 0.3:
                pieces[at] = Piece(mutation.dice.choice((*pieces, *others)).section, pieces[at].data)
            elif how < 0.4:
                pieces[at] = Piece(pieces[at].section, mutation.changed(pieces[at].data, data))
            elif how < 0.45:
                begun = mutation.dice.choice((*self.words, b"\x93\x01", b"\xa5abc"))
                pieces[at] = Piece(pieces[at].section, pieces[at].data + begun)
            else:
                pieces[at] = Piece(pieces[at].section, _changed_rows(mutation, pieces[at].data))
        return _packed(pieces)

    def run(self, data: bytes) -> None:
        given = _unpacked(data)
        try:
            server = restored(given)
        except (WrongSnapshot, CannotRun):
            return
        for section in {piece.section for piece in given}:
            rows = b"".join(piece.data for piece in given if piece.section == section)
            require(_are_whole_rows(rows), f"the section {section} is taken, which ends within a row")
        try:
            pieces = [*server.replica.ordered_queue.freeze()]
        except Exception:
            return
        again = [*restored(pieces).replica.ordered_queue.freeze()]
        require(pieces == again, "a state that was restored from its own pieces has other pieces")


class SnapshotBytesTarget(Target):
    """Reads changed snapshots in portions, and checks that each is refused unless it is one that was made."""

    name = "snapshot-bytes"
    help = "bytes of snapshots, changed on their way"
    guided_by = ("pfsb/paxos/snapshot.py",)

    def seeds(self) -> list[bytes]:
        self._made = {_encoded(pieces) for pieces in real_pieces()}
        return sorted(self._made)

    def run(self, data: bytes) -> None:
        decoder = SnapshotDecoder()
        step = 1 + len(data) // 7
        with suppress(WrongSnapshot):
            for at in range(0, len(data), step):
                for _ in decoder.feed(data[at : at + step]):
                    pass
            require(not decoder.is_complete or data in self._made, "a snapshot was read that was never made")
            require(len(data) >= decoder.size, "more was read than there is")


def _encoded(pieces: Sequence[Piece]) -> bytes:
    encoder = SnapshotEncoder(7, CLUSTER_IDENTITY)
    return b"".join([encoder.head(), *map(encoder.piece, pieces), encoder.end()])


def _are_whole_rows(data: bytes) -> bool:
    """Whether bytes are rows in msgpack, the last of which is complete. They are unpacked once more as one sequence of
    that number of rows, behind which nothing may follow."""
    unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogatepass", max_buffer_size=0)
    unpacker.feed(data)
    count = sum(1 for _ in unpacker)
    try:
        msgpack.unpackb(b"\xdd" + count.to_bytes(4, "big") + data, strict_map_key=False, unicode_errors="surrogatepass")
    except msgpack.ExtraData:
        return False
    return True


def _packed(pieces: Sequence[Piece]) -> bytes:
    data: bytes = msgpack.packb([(piece.section, piece.data) for piece in pieces], unicode_errors="surrogatepass")
    return data


def _unpacked(data: bytes) -> list[Piece]:
    """The pieces of an input; none if it is not one of this target."""
    try:
        rows = msgpack.unpackb(data, use_list=False, unicode_errors="surrogatepass")
        return [Piece(section, piece) for section, piece in rows if type(section) is str and type(piece) is bytes]
    except Exception:  # msgpack documents no complete list of its exceptions
        return []


def _changed_rows(mutation: Mutation, data: bytes) -> bytes:
    """The rows of a piece with a change in one of them; the bytes with a change, if they are no rows."""
    unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False, unicode_errors="surrogatepass")
    unpacker.feed(data)
    try:
        rows: list[Any] = [*unpacker]
        if not rows:
            return mutation.changed(data, data)
        at = mutation.dice.randrange(len(rows))
        rows[at] = mutation.value(rows[at], rows[mutation.dice.randrange(len(rows))])
        return b"".join(msgpack.packb(row, unicode_errors="surrogatepass") for row in rows)
    except Exception:  # a row that msgpack does not take
        return mutation.changed(data, data)
