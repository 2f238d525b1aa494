"""Targets that read files: data directories, their logs, chat logs and configurations."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.applications.interfaces import Event
from pfsb.config.config import load
from pfsb.config.yaml_file import ConfigError
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.records import (
    AruRecord,
    OrderedRecord,
    PeerRecord,
    ProposalRecord,
    Record,
    SnapshotRecord,
    ViewRecord,
)
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.service.chat_log import ChatLog, line_of
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.fuzz.target import Target
from pfsb.storage.effect import Effect
from pfsb.storage.log.items import Content
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import BLOCK_BYTES, SegmentHead, make_segment, segment_path
from pfsb.storage.log.snapshot_files import SnapshotFiles
from pfsb.storage.log.storage import IStorageReactor, LogStorage
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.owner import StorageOwner
from pfsb.storage.position_note import PositionNote, note_of

OWNER: Final = StorageOwner("four", bytes(range(8)), (0, 1, 2, 3), 2)
LOG: Final = "log"
SEGMENT: Final = segment_path(Path(LOG), 1)
NOTE: Final = note_of(Path(LOG))
ROOM_BYTES: Final = 16 * BLOCK_BYTES
"""Size, in bytes, of the only segment of each log."""
IDENTITY: Final = b"disk-002"
"""Storage identity in the files that are changed."""
IN_MEMORY: Final = Path("/dev/shm")
"""Directory of a file system in memory. It is used if it exists, since each input is written to files and forced
several times."""


def _batch(number: int) -> Batch:
    return Batch.of(number, [ClientUpdate("2.1.1", 2, number, 0, b"command %d" % number)])


def _snapshot() -> tuple[SnapshotName, bytes]:
    """The snapshot of slot 2, whose state is made up."""
    encoder = SnapshotEncoder(2, b"cluster!")
    pieces = (Piece("kv", b"key and value" * 20), Piece("kv", b""), Piece("chat", bytes(range(200))))
    parts = [encoder.head(), *map(encoder.piece, pieces), encoder.end()]
    return encoder.name, b"".join(parts)


SNAPSHOT_NAME, SNAPSHOT_BYTES = _snapshot()
SNAPSHOT: Final = SnapshotFiles.beside(Path(LOG)).path(SNAPSHOT_NAME.seq)

GROUPS: Final[tuple[tuple[Record, ...], ...]] = (
    (ViewRecord(5, 4), PeerRecord(0, b"disk-000"), PeerRecord(1, b"disk-001", 3, 99)),
    (OrderedRecord(1, _batch(1)), OrderedRecord(2, _batch(2)), OrderedRecord(3, _batch(3))),
    (AruRecord(3), ProposalRecord(4, 4, _batch(4))),
    (ProposalRecord(5, 4, _batch(5)), ViewRecord(7, 6), SnapshotRecord(SNAPSHOT_NAME)),
    (ProposalRecord(5, 6, _batch(6)), AruRecord(4)),
)
"""The groups of records in the data directories whose files are changed."""

Recovery = tuple[object, ...]


class FileTarget(Target):
    """A target whose inputs are written to a file in a directory of its own."""

    inputs_per_round = 200

    def begin(self, name: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="pfsb-fuzz-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))

    def end(self) -> None:
        self.drop()

    def drop(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def clear(self) -> Path:
        """Empty the directory; returns it."""
        shutil.rmtree(self._directory)
        self._directory.mkdir()
        return self._directory


# ---------------------------------------------------------------------------------------------
# Data directories
# ---------------------------------------------------------------------------------------------


@implementer(IStorageReactor)
class _Reactor(Clock):
    """Takes calls from the threads of a storage, and makes none of them: nothing is written here."""

    def callFromThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        pass


def _no_time() -> float:
    return 0.0


def _raise(failure: Failure) -> None:
    failure.raiseException()


def _recovered(directory: Path) -> Recovery:
    """All that a server recovers from a data directory. Raises `StorageRefused`."""
    cluster = (OWNER.cluster_digest, OWNER.cluster_name, OWNER.server_id)
    storage = LogStorage(directory, *cluster, _Reactor(), Random(7).randbytes, _raise, OWNER.members)
    found = storage.recover()
    try:
        ordered = list(found.ordered)
        snapshot = b"".join(found.snapshot_bytes)
    finally:
        storage.close()
    views = (found.last_attempted, found.last_installed, found.local_aru)
    return found.identity, views, found.snapshot, snapshot, ordered, found.accepted, found.peers, storage.position


def _files(groups: Sequence[Sequence[Record]]) -> dict[Path, bytes]:
    """Path in a data directory -> content, for a storage that was started once and has written these groups.

    The position note demands no group. Otherwise a start would refuse a storage that lacks a group, before it reads
    the other files.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        log = directory / LOG
        log.mkdir()
        make_segment(log, SegmentHead(1, ROOM_BYTES, IDENTITY, b"16 random bytes.", OWNER))
        PositionNote(directory / NOTE, IDENTITY, _no_time).create(0)
        writer = LogWriter.open(scan(log))
        try:
            for number, records in enumerate(groups):
                effect = Effect()
                effect.apply_all(records)
                writer.append(Content(1 if number == 0 else None, effect))
        finally:
            writer.close()
        return {SNAPSHOT: SNAPSHOT_BYTES} | {path: (directory / path).read_bytes() for path in (SEGMENT, NOTE)}


def _write(directory: Path, files: dict[Path, bytes]) -> None:
    (directory / LOG).mkdir()
    (directory / SNAPSHOT.parent).mkdir()
    for path, data in files.items():
        (directory / path).write_bytes(data)


@cache
def _content_after(groups: int) -> Recovery:
    """All that a server recovers from the files of a storage that has written the first `groups` of `GROUPS`."""
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name), _files(GROUPS[:groups]))
        return _recovered(Path(name))


class LogTarget(FileTarget):
    """Checks that a server refuses a log whose groups are changed, or recovers exactly what was written up to the end
    of some group."""

    name = "logs"
    help = "logs of data directories, changed by a disk"
    guided_by = ("pfsb/storage/",)

    def seeds(self) -> list[bytes]:
        self._files = _files(GROUPS)
        # All but the head of the segment, which is mostly zeros: most changes would be there, and all are refused.
        return [self._files[SEGMENT][BLOCK_BYTES:].rstrip(b"\x00")]

    def run(self, data: bytes) -> None:
        directory = self.clear()
        head = self._files[SEGMENT][:BLOCK_BYTES]
        _write(directory, self._files | {SEGMENT: (head + data).ljust(ROOM_BYTES, b"\x00")})
        with suppress(StorageRefused):
            found = _recovered(directory)
            known = [_content_after(groups) for groups in range(len(GROUPS) + 1)]
            require(found in known, f"no such content was ever written: {found}")


class PositionNoteTarget(FileTarget):
    """Checks that a server refuses a changed position note, or starts with all that was written."""

    name = "position-notes"
    help = "position notes of data directories, changed by a disk"
    guided_by = ("pfsb/storage/position_note.py",)

    def seeds(self) -> list[bytes]:
        self._files = _files(GROUPS)
        return [self._files[NOTE]]

    def run(self, data: bytes) -> None:
        directory = self.clear()
        _write(directory, self._files | {NOTE: data})
        with suppress(StorageRefused):
            require(_recovered(directory) == _content_after(len(GROUPS)), "another content was recovered")


@cache
def _content_without_snapshot() -> Recovery:
    """All that a server recovers from the files of `GROUPS` if the snapshot is lost: its slots are still in the log."""
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name), {path: data for path, data in _files(GROUPS).items() if path != SNAPSHOT})
        return _recovered(Path(name))


class SnapshotTarget(FileTarget):
    """Checks that a server does not start from a changed snapshot, and has all that was written without it."""

    name = "snapshots"
    help = "snapshots of data directories, changed by a disk"
    guided_by = ("pfsb/storage/log/snapshot_files.py", "pfsb/paxos/snapshot.py")

    def seeds(self) -> list[bytes]:
        self._files = _files(GROUPS)
        return [SNAPSHOT_BYTES]

    def run(self, data: bytes) -> None:
        directory = self.clear()
        _write(directory, self._files | {SNAPSHOT: data})
        expected = _content_after(len(GROUPS)) if data == SNAPSHOT_BYTES else _content_without_snapshot()
        require(_recovered(directory) == expected, "another content was recovered")


# ---------------------------------------------------------------------------------------------
# Other files
# ---------------------------------------------------------------------------------------------


SAID: Final = tuple(
    Event("CHAT", (("index", i), ("client", who), ("text", text)))
    for i, (who, text) in enumerate((("alice", "hello"), ("bob", "\xe9"), ("carol", "two\nlines")), start=1)
)
"""The lines of the chat whose logs are changed."""


class ChatLogTarget(FileTarget):
    """Opens chat logs with any content, and checks that each becomes the lines of the state, and keeps only whole lines
    behind them."""

    name = "chat-logs"
    help = "chat logs with any content"
    guided_by = ("pfsb/service/chat_log.py",)

    def seeds(self) -> list[bytes]:
        right = b"".join(map(line_of, SAID))
        return [right, right[:-3], b"", b"\n", right + b'4 "dave" "later"\n']

    def run(self, data: bytes) -> None:
        path = self.clear() / "chat.log"
        path.write_bytes(data)
        log = ChatLog(path)
        log.take(SAID[:2])
        log.take(SAID[2:])
        log.end_at(len(SAID))
        log.close()
        right, found = b"".join(map(line_of, SAID)), path.read_bytes()
        require(found.startswith(right), "a line is not as the state has it")
        rest = found[len(right) :]
        require(not rest or (found == data[: len(found)] and rest.endswith(b'"\n')), "what follows is no line")


CONFIGURATIONS: Final = (
    b"""cluster: four
f: 1
transport: udp
apps: [chat, lock, kv]
storage: var/four
servers:
  0: {peer: "127.0.0.1:7400", client: "tcp:9400:interface=127.0.0.1", http: "tcp:8400:interface=127.0.0.1"}
  1: {peer: "127.0.0.1:7401", client: "tcp:9401:interface=127.0.0.1", http: "tcp:8401:interface=127.0.0.1"}
  2: {peer: "127.0.0.1:7402", client: "tcp:9402:interface=127.0.0.1", http: "tcp:8402:interface=127.0.0.1"}
  3: {peer: "127.0.0.1:7403", client: "tcp:9403:interface=127.0.0.1", http: "tcp:8403:interface=127.0.0.1"}
timers: {progress: 1.0, update: 0.5, alive: 0.2}
limits: {command_bytes: 32768, connections: 10000, session_window: 128, request_seconds: 10}
window: 16
snapshot_every: 10000
faults: false
""",
    b"""# one server
cluster: "one"
storage: memory
secret_file: /dev/null
transport: tls
transport_before: udp
certificates: made
insecure: true
servers:
  65535:
    peer: "[::1]:7400"
    client: "unix:/tmp/socket"
""",
)


class ConfigurationTarget(FileTarget):
    """Checks that a changed configuration file is refused with a text of one line, or can be used."""

    name = "configurations"
    help = "configuration files with any content"
    guided_by = ("pfsb/config/",)
    words = (b"{", b"}", b"[", b"]", b": ", b"&a ", b"*a", b"!!binary ", b"- ", b"|\n", b'"\\U0010FFFF"', b"<<: ", b"~")

    def seeds(self) -> list[bytes]:
        return list(CONFIGURATIONS)

    def run(self, data: bytes) -> None:
        path = self.clear() / "four.yaml"
        path.write_bytes(data)
        try:
            config = load(path)
            config.settings()
            config.secrets()
        except ConfigError as error:
            require("\n" not in str(error), f"the refusal has several lines: {error}")
            return
        require(config.n == len(config.ids) > 0 and len(config.membership_digest()) == 8, "the servers are odd")
