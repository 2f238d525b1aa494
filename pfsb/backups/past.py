"""States of the past: the state after any revision, or at any time, of which snapshots and logs are left.

A state is built as a start of a server builds it: from the snapshot before it, by executing the slots above that. In
the slot that holds the revision the commands are executed one by one, up to that one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from pfsb.applications.catalogue import Catalogue, PluginApplications
from pfsb.applications.frozen_keys import Entry
from pfsb.applications.interfaces import Command, Refused, Result
from pfsb.backups.backup_file import BackupState
from pfsb.backups.idle_replica import make_replica
from pfsb.paxos.frozen_history import HISTORY, History
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.records import Recovered
from pfsb.paxos.recovery import recover
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import SnapshotDecoder, SnapshotName, WrongSnapshot
from pfsb.paxos.snapshot_rows import RowReader
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.bundle import Entry as BundleEntry
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.frozen_state import STATE, StateHead
from pfsb.sessions.session import Session
from pfsb.sessions.state_machine import SessionStateMachine, is_birth
from pfsb.storage.log.past import ClusterHistory, KeptSnapshot, Missing, StorageHistory
from pfsb.storage.log.snapshot_files import portions_of

NO_SERVER: Final = -1
"""The id of the server for which a state of the past is built: no server has it, so none of the clients is its own."""
COMMAND_BYTES_MIN: Final = 4
"""Minimum size, in bytes, of a command with its number in a batch."""

Progress = Callable[[int, int], None]
"""Function that is called now and then with the number of slots executed so far, and of all that are to be executed."""


def no_progress(done: int, of: int) -> None:
    """A `Progress` that tells nothing."""


class NotKept(StorageRefused):
    """Raised if the state that is asked for is before the first one that can be built."""

    def __init__(self, lowest: int) -> None:
        super().__init__(
            f"what is kept goes back to revision {lowest}; an archive (archive: in the configuration) keeps more, from "
            "the moment on at which it is set"
        )
        self.lowest = lowest


class NotReached(StorageRefused):
    """Raised if the state that is asked for is behind the last one that can be built."""

    def __init__(self, highest: int) -> None:
        super().__init__(f"the last revision that the files show as executed is {highest}")
        self.highest = highest


class _Reached(BaseException):
    """Raised in the middle of a slot before the command behind the revision that is sought."""


@frozen
class Target:
    """The state that is sought: that after a revision, or the last one at or before a time. If both are None: the
    latest one that can be built."""

    revision: int | None = None
    time_ms: int | None = None
    """Milliseconds since 1970, by the state machine's time."""


@frozen
class SnapshotFacts:
    """The beginning of a snapshot: which state it holds."""

    path: Path
    name: SnapshotName | None
    seq: int
    digest: bytes
    """The digest of the history."""
    time_ms: int
    revision: int
    cluster_identity: bytes

    def is_at_or_before(self, target: Target) -> bool:
        if target.revision is not None:
            return self.revision <= target.revision
        return target.time_ms is None or self.time_ms <= target.time_ms


def facts_of(stored: KeptSnapshot) -> SnapshotFacts:
    """Read the beginning of a snapshot, which need not be whole behind it. Raises `WrongSnapshot`, or OSError."""
    decoder, rows = SnapshotDecoder(), RowReader()
    history: Sequence[Any] = ()
    for portion in portions_of(stored.path):
        for piece in decoder.feed(portion):
            found = [*rows.rows(piece.data)] if piece.section == STATE or not history else []
            if piece.section == HISTORY:
                history = history or found[0]
            elif piece.section == STATE and history and found:
                head, (seq, digest, time_ms, *_) = StateHead(*found[0]), history
                identity = decoder.cluster_identity
                return SnapshotFacts(stored.path, stored.name, seq, digest, time_ms, head.revision, identity)
            else:
                raise WrongSnapshot("its sections stand in another order")
    raise WrongSnapshot("its end is missing")


@frozen
class Change:
    """A command about a key, and the value that the key has behind it."""

    key: bytes
    revision: int
    verb: str
    """The verb of the command; for IF, followed by that of the command that it runs."""
    before: Entry | None
    """The value of the key, with the revision at which it was written, before the command; None: there was no key."""
    after: Entry | None
    """Value and revision behind the command: another object than `before` if it has written or deleted the key."""
    refusal: Refused | None
    """The refusal of the command; None: the command was carried out."""
    slot: int
    time_ms: int
    """The state machine's time, in milliseconds since 1970."""
    client_id: str
    number: int

    @property
    def has_changed(self) -> bool:
        """Whether the command has written or deleted the key."""
        return self.after is not self.before

    @property
    def value(self) -> bytes | None:
        """The value of the key behind the command; None: there is no key."""
        return None if self.after is None else self.after[0]


@define(eq=False)
class Watch:
    """Notes the commands about keys."""

    key: bytes | None = None
    """The key that is watched; None: all are."""
    changes: list[Change] = field(factory=list, init=False)
    """The commands that were noted since `take` was called last; a command about several keys once for each."""

    def take(self) -> list[Change]:
        taken, self.changes = self.changes, []
        return taken

    def keys_of(self, command: Command) -> set[bytes]:
        """The keys that a command names as ones to be changed, of those that are watched."""
        named = _keys_of(command)
        return named if self.key is None else named & {self.key}


def _keys_of(command: Command) -> set[bytes]:
    verb, *words = command
    if verb == "IF":
        return _keys_of(tuple(words[2:])) if len(words) > 2 else set()
    if verb == "MPUT":
        found = words[::2]
    elif verb == "DEL":
        found = words
    else:
        found = words[:1] if verb in _WRITING else []
    return {each for each in found if type(each) is bytes}


_WRITING: Final = frozenset({"PUT", "CAS", "INCR", "APPEND", "PUTHASH"})


class PastMachine(SessionStateMachine):
    """A state machine that can stop in the middle of a slot, and that can note what becomes of keys."""

    def __init__(self) -> None:
        self.one_by_one = False
        """Whether commands are executed one by one. The state is the same as if runs were executed together."""
        self.stop_at: int | None = None
        """The revision behind which nothing is executed any more (`_Reached`); None: all is."""
        self.watch: Watch | None = None
        self.slot = 0
        """The slot that is being executed, or was executed last."""
        super().__init__(NO_SERVER, Catalogue((), PluginApplications()))

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        self.slot = seq
        return super().execute(seq, time_ms, updates)

    def run_together(self, session: Session, entries: Sequence[BundleEntry]) -> Sequence[Result] | None:
        return None if self.one_by_one else super().run_together(session, entries)

    def run_bundles_together(self, server_id: int, contents: Sequence[Bundle]) -> Sequence[Result] | None:
        return None if self.one_by_one else super().run_bundles_together(server_id, contents)

    def run_operation(self, server_id: int, command: Command) -> Result:
        self._stop_if_reached()
        return super().run_operation(server_id, command)

    def run_command(self, session: Session, number: int, command: Command) -> Any:
        if number <= session.last_number:
            return super().run_command(session, number, command)
        self._stop_if_reached()
        watch = self.watch
        if watch is None or not self.one_by_one:
            return super().run_command(session, number, command)
        before = {key: self.entry(key) for key in sorted(watch.keys_of(command))}
        result = super().run_command(session, number, command)
        verb = f"IF {command[3]}" if command[0] == "IF" and len(command) > 3 else command[0]
        refusal = result if isinstance(result, Refused) else None
        about = self.slot, self.time_ms, session.client_id, number
        watch.changes += [
            Change(key, self.revision, verb, former, self.entry(key), refusal, *about) for key, former in before.items()
        ]
        return result

    def entry(self, key: bytes) -> Entry | None:
        """The entry of a key in the application `kv`; None: there is none, or `kv` does not run."""
        kv: Any = next((each for each in self.applications if each.name == "kv"), None)
        found: Entry | None = None if kv is None else kv.entries.get(key)
        return found

    def _stop_if_reached(self) -> None:
        if self.stop_at is not None and self.revision >= self.stop_at:
            raise _Reached


@define(eq=False)
class Replay:
    """A state that goes through the past, slot by slot."""

    _past: Past
    machine: PastMachine
    _replica: Replica
    _slots: Iterator[tuple[int, Batch]] = field(factory=lambda: iter(()), init=False)
    """The next slots, for `step`."""
    is_within: bool = field(default=False, init=False)
    """Whether the replay has stopped in the middle of a slot, and cannot go on."""

    @property
    def seq(self) -> int:
        """The slot that was executed last, as a whole or, if `is_within`, in part."""
        return self._replica.data.ordering.local_aru

    def steps(self, target: Target, end: int | None = None) -> Iterator[int]:
        """Execute slots, until the target is reached or slot `end` is executed; yield after each that was executed as a
        whole. Raises `Missing` at a slot that is not there, and `StorageRefused` if the state is another one than that
        of a snapshot."""
        machine, queue, revision = self.machine, self._replica.ordered_queue, target.revision
        if self.has_reached(target):
            return
        for seq, batch in self._past.history.ordered(self.seq + 1, end):
            if target.time_ms is not None and self._time_of(batch) > target.time_ms:
                return
            is_near = revision is not None and revision - machine.revision <= len(batch.data) // COMMAND_BYTES_MIN
            machine.stop_at = revision if is_near else None
            machine.one_by_one = is_near or (machine.watch is not None and (machine.watch.key or b"") in batch.data)
            try:
                queue.recover(seq, batch)
            except _Reached:
                self.is_within = True
                return
            self._past.check(seq, queue.digests.head)
            yield seq
            if self.has_reached(target):
                return

    def step(self, watch: Watch, revision: int) -> bool:
        """Execute the next slot as a whole; `watch` notes the commands about keys if the slot may be the one with this
        revision. Returns False if there is no next slot."""
        found = next(self._slots, None)
        if found is None:
            self._slots = self._past.history.ordered(self.seq + 1)
            found = next(self._slots, None)
        if found is None:
            return False
        seq, batch = found
        machine, queue = self.machine, self._replica.ordered_queue
        machine.one_by_one = revision - machine.revision <= len(batch.data) // COMMAND_BYTES_MIN
        machine.watch, machine.stop_at = watch if machine.one_by_one else None, None
        queue.recover(seq, batch)
        self._past.check(seq, queue.digests.head)
        return True

    def has_reached(self, target: Target) -> bool:
        """Whether the state is that after the target's revision."""
        return target.revision is not None and self.machine.revision >= target.revision

    def state(self) -> BackupState:
        """The present state. Its name is no snapshot's, but tells it from all other states of the cluster."""
        machine, queue = self.machine, self._replica.ordered_queue
        digest, time_ms = queue.digests.head, machine.time_ms
        history = History(self.seq, digest, time_ms, queue.oldest_valid, queue.last_executed.timestamps)
        name = SnapshotName(self.seq, machine.revision, digest)
        return BackupState(name, machine.settings.values.cluster_identity, history, machine)

    def _time_of(self, batch: Batch) -> int:
        """The state machine's time after a batch that was not executed yet."""
        time = copy(self._replica.ordered_queue.time)
        return time.execute(Batch(batch.data).open()[0], False)


@define(eq=False)
class Past:
    """The past of a cluster, as far as its files are there."""

    history: ClusterHistory
    snapshots: list[SnapshotFacts] = field(factory=list, init=False)
    """All snapshots whose beginnings can be read, ascending by slot."""
    faults: dict[Path, str] = field(factory=dict, init=False)
    """Path of a snapshot that cannot be used -> the reason, in words."""
    _known: list[SnapshotFacts] = field(factory=list, init=False)
    _facts: dict[int, list[SnapshotFacts]] = field(factory=dict, init=False)
    """Slot -> the snapshots of this slot that are in `_known`, the list of snapshots from which this table was made."""

    @classmethod
    def of(cls, places: Iterable[Path], data: Iterable[Path] = ()) -> Past:
        """The past in these archives and data directories.

        `data` are those that tell which cluster is meant, if an archive holds the past of a former one, too. Raises
        `StorageRefused` if they are of several clusters otherwise, or hold nothing.
        """
        history = ClusterHistory.of(places)
        history.storages = _of_one_cluster(history.storages, {*data})
        past = cls(history)
        past.look()
        return past

    def look(self) -> None:
        """Find the files that are there now."""
        self.history.look()
        known = {each.path: each for each in self.snapshots}
        self.snapshots = []
        for stored in self.history.snapshots():
            try:
                self.snapshots.append(known.get(stored.path) or facts_of(stored))
            except (OSError, WrongSnapshot) as error:
                self.faults[stored.path] = str(error)

    @property
    def lowest(self) -> int:
        """The lowest revision of which the state can be built."""
        if self.history.has(1, 1):
            return 0
        return min((each.revision for each in self.snapshots), default=0)

    def begin(self, target: Target) -> Replay:
        """The state of the last snapshot at or before the target, or that before slot 1. Raises `NotKept` if none is
        left, or `CannotRun` if an application is not installed here."""
        for facts in reversed(self.snapshots):
            if facts.is_at_or_before(target) and facts.path not in self.faults:
                try:
                    return self.begin_with(facts)
                except (OSError, WrongSnapshot, StorageRefused) as error:
                    self.faults[facts.path] = str(error)
        if self.history.has(1, 1):
            return self.begin_with(None)
        raise NotKept(self.lowest)

    def begin_with(self, facts: SnapshotFacts | None) -> Replay:
        """The state of a snapshot; None: that before slot 1. Raises `StorageRefused` if the snapshot is damaged, or
        OSError."""
        machine = PastMachine()
        members = self.history.owner.members
        replica = make_replica(members[0], members, machine)
        queue = replica.ordered_queue
        queue.passes = self.history.passes
        if facts is not None:
            name = facts.name or name_of(facts.path)
            found = Recovered(
                identity=b"",
                incarnation=0,
                local_aru=name.seq,
                snapshot=name,
                snapshot_bytes=portions_of(facts.path),
            )
            recover(replica.data, found, queue)
        return Replay(self, machine, replica)

    def state_at(self, target: Target, progress: Progress = no_progress) -> Replay:
        """Build the state that is sought. Raises `NotKept`, `NotReached`, `Missing`, `CannotRun`, or `StorageRefused`
        if the rebuilt state is another one than that of a snapshot."""
        try:
            replay = self.begin(target)
            first, end = replay.seq, self.history.aru
            for seq in replay.steps(target):
                progress(seq - first, end - first)
        except Missing as error:
            raise self._with_next(error) from None
        if target.revision is not None and replay.machine.revision < target.revision:
            raise NotReached(replay.machine.revision)
        return replay

    def verify(self, replay: Replay, progress: Progress = no_progress) -> SnapshotFacts | None:
        """Build the state of the next snapshot behind a state that was built, in the same way, and compare both.

        Returns that snapshot; None: there is none, or slots before it are missing. Raises `StorageRefused` if the state
        is another one.
        """
        whole = replay.seq - replay.is_within
        facts = next((each for each in self.snapshots if each.seq > whole), None)
        if facts is None or not self.history.has(whole + 1, facts.seq):
            return None
        again = self.begin(Target(replay.machine.revision))
        first = again.seq
        for seq in again.steps(Target(), facts.seq):
            progress(seq - first, facts.seq - first)
        return facts

    def check(self, seq: int, digest: bytes) -> None:
        """Compare the digest of the history up to slot `seq` with that in a snapshot of this slot, if there is one.
        Raises `StorageRefused` if they differ."""
        for facts in self._by_seq().get(seq, ()):
            if facts.digest != digest:
                raise StorageRefused(
                    f"{facts.path}: the state after slot {seq} that the slots before lead to is another one: digest "
                    f"{digest.hex()} instead of {facts.digest.hex()}"
                )

    def _by_seq(self) -> dict[int, list[SnapshotFacts]]:
        if self._known is not self.snapshots:
            self._known = self.snapshots
            self._facts = {}
            for each in self._known:
                self._facts.setdefault(each.seq, []).append(each)
        return self._facts

    def changes(
        self, key: bytes, first: Target, last: Target, progress: Progress = no_progress
    ) -> Iterator[Change | Before]:
        """Yield all commands about a key, from those at `first` on, up to those at `last`; before them, if what is kept
        begins later than `first`, the value that the key had at that beginning, if it had one.

        Slots are executed only where a snapshot to the next contains the bytes of the key. Raises as `state_at` does.
        """
        replay: Replay | None = self._begin_changes(first)
        assert replay is not None
        begun, end = replay.seq, self.history.aru
        entry = replay.machine.entry(key)
        is_all = first == Target() or not self._is_before(replay, first)
        if entry is not None and is_all:
            yield Before(entry[1], entry[0], replay.machine.revision)
        position: SnapshotFacts | None = None
        at = replay.seq
        while True:
            following = next((each for each in self.snapshots if each.seq > at), None)
            up_to = None if following is None else following.seq
            if self._is_named(key, at, up_to, progress, begun, end):
                replay = replay or self._go_to(position)
                replay.machine.watch = watch = Watch(key)
                for seq in replay.steps(last, up_to):
                    progress(seq - begun, end - begun)
                    yield from watch.take()
                yield from watch.take()  # of a slot that is executed in part
                if replay.is_within or replay.seq != up_to:
                    return
            else:
                replay = None
            if following is None or not following.is_at_or_before(last):
                return
            position, at = following, following.seq

    def _begin_changes(self, first: Target) -> Replay:
        try:
            return self.begin(first if first != Target() else Target(self.lowest))
        except NotKept as error:
            return self.begin(Target(error.lowest))

    def _is_before(self, replay: Replay, target: Target) -> bool:
        """Whether a state is at or before a target."""
        if target.revision is not None:
            return replay.machine.revision <= target.revision
        return target.time_ms is None or replay.machine.time_ms <= target.time_ms

    def _go_to(self, facts: SnapshotFacts | None) -> Replay:
        """The state of a snapshot; if that is damaged, it is built from an earlier one."""
        if facts is None:
            return self.begin_with(None)
        replay = self.begin(Target(facts.revision))
        for _ in replay.steps(Target(), facts.seq):
            pass
        return replay

    def _is_named(self, key: bytes, after: int, up_to: int | None, progress: Progress, begun: int, end: int) -> bool:
        """Whether a batch behind slot `after` contains the bytes of a key."""
        try:
            for seq, batch in self.history.ordered(after + 1, up_to):
                if key in batch.data:
                    return True
                progress(seq - begun, end - begun)
        except Missing as error:
            raise self._with_next(error) from None
        return False

    def _with_next(self, error: Missing) -> Missing:
        """A refusal that also says from which revision on states can be built again."""
        following = next((each for each in self.snapshots if each.seq >= error.first), None)
        if following is None:
            return error
        text = f"{error}. From revision {following.revision} on states can be built again"
        return Missing(text, error.first, error.last)


@frozen
class Before:
    """The value that a key had in the earliest state that can be built."""

    revision: int
    """The revision at which the value was written."""
    value: bytes
    at: int
    """The revision of the earliest state that can be built, at which the key had this value."""


def name_of(path: Path) -> SnapshotName:
    """The name of the snapshot in a file, which is read as a whole. Raises `WrongSnapshot`, or OSError."""
    decoder = SnapshotDecoder()
    for portion in portions_of(path):
        for _ in decoder.feed(portion):
            pass
    if not decoder.is_complete:
        raise WrongSnapshot("its end is missing")
    return decoder.name


def _of_one_cluster(storages: list[StorageHistory], data: set[Path]) -> list[StorageHistory]:
    """The storages of one cluster: of that to which the directories `data` belong, if there are several. Raises
    `StorageRefused` if that does not tell."""
    identities = [_cluster_identity(storage) for storage in storages]
    found = dict(zip(identities, storages, strict=True))
    found.pop(None, None)
    if len(found) < 2:
        return storages
    meant = {identity for identity, storage in zip(identities, storages, strict=True) if data & {*storage.directories}}
    if len(meant) != 1:
        told = ", ".join(
            f"{each.directories[0]} of cluster {identity.hex()}" for identity, each in found.items() if identity
        )
        raise StorageRefused(
            f"these are of several clusters, which have the same name: {told}; give only directories of one of them"
        )
    return [storage for identity, storage in zip(identities, storages, strict=True) if identity in meant]


def _cluster_identity(storage: StorageHistory) -> bytes | None:
    """The random identity of the cluster of a storage; None: nothing in its files tells it."""
    for stored in storage.snapshots():
        return stored.cluster_identity
    for path, offset, length in storage.find(1, 1).values():
        _, updates = Batch(path.read_bytes()[offset : offset + length]).open()
        for update in filter(is_birth, updates):
            contents = bundle.decode(update.payload)
            assert contents is not None, "it is a birth"
            return ClusterSettings.decode(contents[0].entries[0][1][1]).cluster_identity
    return None


def target_of(text: str) -> Target:
    """The target that a text names: a revision in digits, a time by ISO 8601 with a zone, or @ and the seconds since
    1970. Raises ValueError, whose text says what would be right."""
    if re.fullmatch("[0-9]{1,19}", text, re.ASCII):
        return Target(int(text))
    if re.fullmatch(r"@[0-9]{1,12}(\.[0-9]{1,9})?", text, re.ASCII):
        return Target(time_ms=int(Decimal(text[1:]) * 1000))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError(
            "a revision (1234), a time with its zone (2026-11-30T08:00:00Z) or @ and seconds since 1970 (@1796025600.5)"
        )
    return Target(time_ms=(found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))


def moment(time_ms: int) -> str:
    """The state machine's time as a text that `--at` takes."""
    whole = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{time_ms % 1000:03d}Z"
