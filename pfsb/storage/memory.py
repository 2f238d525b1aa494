"""Stable storage in memory, for simulated servers and for servers with `storage: memory` in their configuration.

A `MemoryDisk` survives the crash of a simulated server, as a real disk would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, evolve, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.paxos.interfaces import IStableStorage, StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted, Record, Recovered, ViewRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.paxos.start_number import start_number
from pfsb.storage.acknowledgements import Acknowledgements
from pfsb.storage.counters import StorageCounters
from pfsb.storage.effect import KEPT_SLOTS, Effect, HistoryCallback, SnapshotCallback, batch_bytes, ignore_lost
from pfsb.storage.memory_snapshots import (
    MemoryFetchedSnapshot,
    MemorySnapshotFile,
    MemorySnapshots,
    Steps,
    is_right,
)
from pfsb.storage.refusals import history_gap
from pfsb.support.limits import IDENTITY_BYTES, START_MARK_BYTES

PORTION_BYTES = 65_536
"""Maximum size, in bytes, of one portion of `Recovered.snapshot_bytes`."""


class ReserveUsedUp(Exception):
    """The failure of a storage that went on writing to a full disk, until its reserve was used up, too (Departure
    45)."""


@define(eq=False)
class MemoryDisk:
    """A simulated disk, which survives crashes. A server with `storage: memory` gets a new one at each start."""

    identity: bytes = b""
    incarnation: int = 0
    start_mark: int = 0
    """The random mark of the last start. A real disk does not keep it."""
    position: int = 0
    """Number of groups that are completely on this disk, counted since the disk was made; each start counts as one
    more."""
    contents: Effect = field(factory=Effect)
    passes: dict[int, bytes] = field(factory=dict)
    """Slot -> digest of its batch, for the slots that a server passes without executing them (Departure 38)."""
    in_use: bool = False
    free_records: int | None = None
    """Number of records that the disk has room for; None: any number. Set by the simulator."""
    reserve_records: int = 0
    """The disk counts as full when it has room for no more records than this."""
    forgotten: int = 0
    """Slots up to here are no longer stored, since every server has executed them (`MemoryStorage.forget_history`)."""
    compacted: int = 0
    """Slots up to here are no longer read, since a snapshot holds the state after them."""
    snapshots: dict[SnapshotName, bytes] = field(factory=dict)
    """All complete snapshots; at most one of them is named by a record (`Effect.snapshot`)."""
    parts: dict[SnapshotName, bytes] = field(factory=dict)
    """The parts of snapshots that have come from other servers, from the beginning of each."""

    def copy(self) -> MemoryDisk:
        """A new disk with the present contents of this one. Later writes to either disk do not change the other."""
        now = self.contents
        contents = evolve(now, slots=dict(now.slots), peers=dict(now.peers))
        return MemoryDisk(
            self.identity,
            self.incarnation,
            self.start_mark,
            self.position,
            contents,
            dict(self.passes),
            forgotten=self.forgotten,
            compacted=self.compacted,
            snapshots=dict(self.snapshots),
            parts=dict(self.parts),
        )

    @property
    def start_number(self) -> int:
        """The number by which frames name the last start with this disk (Departure 53)."""
        return start_number(self.incarnation, self.start_mark)

    def first_gap(self) -> int | None:
        """The first slot up to Local_Aru that is not stored, and that no snapshot stands for; None: there is none."""
        local_aru = self.local_aru
        return next((seq for seq in range(self.gone + 1, local_aru + 1) if seq not in self.contents.slots), None)

    @property
    def gone(self) -> int:
        """Slots up to here need not be stored: every server has executed them, or a snapshot holds their effect."""
        return max(self.forgotten, self.compacted)

    def has(self, seq: int) -> bool:
        """Whether this slot is stored, or need not be: every server had executed it before it was forgotten, or a
        snapshot on this disk holds its effect."""
        return seq <= self.gone or seq in self.contents.slots

    @property
    def snapshot_seq(self) -> int:
        """The slot of the snapshot that a record names; 0: there is none."""
        return 0 if self.contents.snapshot is None else self.contents.snapshot.seq

    def is_another_named(self, name: SnapshotName) -> bool:
        """Whether a record names another snapshot of the same slot as `name`."""
        return self.snapshot_seq == name.seq and self.contents.snapshot != name

    def compact(self, kept_slots: int, kept_above: int | None = None) -> None:
        """Let slots be read no more, up to that of the snapshot that a record names, less `kept_slots`, but none above
        `kept_above`. They stay on the disk until `delete_superfluous`."""
        last = self.snapshot_seq - kept_slots
        if kept_above is not None:
            last = min(last, kept_above)
        self.compacted = max(self.compacted, self.contents.skipped, last)

    def delete_superfluous(self) -> None:
        """Delete the slots that `compact` has let go, and the snapshots older than the one that a record names."""
        slots = self.contents.slots
        for seq in [seq for seq in slots if seq <= self.compacted]:
            del slots[seq]
        for name in [name for name in self.snapshots if name.seq < self.snapshot_seq]:
            del self.snapshots[name]

    def delete_leftovers(self) -> None:
        """Delete the leftovers of a crash: parts of work that had not come to its end, and snapshots that no record
        names."""
        self.delete_superfluous()
        lost = self.lost_snapshot
        first = self.snapshot_seq + (lost is None)
        self.snapshots = {name: data for name, data in self.snapshots.items() if name == self.contents.snapshot != lost}
        self.parts = {name: data for name, data in self.parts.items() if name.seq >= first and data}

    @property
    def lost_snapshot(self) -> SnapshotName | None:
        """The snapshot that a record names, if it is missing or damaged; else None."""
        name = self.contents.snapshot
        return None if name is None or is_right(self.snapshots.get(name, b""), name) else name

    def forget_up_to(self, seq: int) -> None:
        for number in range(self.forgotten + 1, seq + 1):
            self.contents.slots.pop(number, None)
        self.forgotten = max(self.forgotten, seq)

    @property
    def local_aru(self) -> int:
        """Local_Aru, which is not below the slot of the snapshot."""
        return max(self.contents.local_aru or 0, self.snapshot_seq)

    def ordered(self, first: int, last: int) -> Iterator[tuple[int, Batch]]:
        """Yield the slots from `first` to `last`, but none above Local_Aru, as (seq, batch); ends before the first slot
        that is missing. Nothing if `first` is compacted."""
        if first <= self.compacted:
            return
        for seq in range(first, min(last, self.local_aru) + 1):
            slot = self.contents.slots.get(seq)
            if slot is None:
                return
            yield seq, slot.batch


def _raise(failure: Failure) -> None:
    failure.raiseException()


def _never() -> bool:
    return False


@define
class Group:
    """Records that reach the disk together: those of one or several calls of `sync`.

    `write` is the number that `Acknowledgements` gave to the last of these syncs that had records. Once the group is on
    disk, the callbacks of all syncs up to that last one may be called.
    """

    records: list[Record] = field(factory=list)
    write: int = 0


@implementer(IStableStorage)
@define(eq=False)
class MemoryStorage:
    """The storage of one incarnation of a server, on a `MemoryDisk`, from its start to `close` or `crash`.

    Writing a group takes as many seconds as `sync_seconds()` returns, which is called for each group; even after 0.0 a
    delayed call of the clock puts the group on the disk. But if no write is under way and `writes_at_once()` is true,
    the group is on disk before `sync` returns. `on_failure` is called once, with the exception of the first write that
    fails (see `fail_next`) as a Failure; by default it raises the exception again. `is_transient` says that the disk
    ends with this storage: no later incarnation starts from it, so it need not keep the history that every server has
    executed. A record that names a snapshot drops the slots up to that of the snapshot, less `kept_slots`.
    """

    _disk: MemoryDisk
    _clock: IReactorTime
    _sync_seconds: Callable[[], float]
    _random_bytes: Callable[[int], bytes]
    _on_failure: Callable[[Failure], None] = _raise
    _writes_at_once: Callable[[], bool] = _never
    _is_transient: bool = False
    _kept_slots: int = KEPT_SLOTS
    counters: StorageCounters = field(factory=StorageCounters, init=False)
    on_snapshot_lost: Callable[[SnapshotName, str], None] = field(default=ignore_lost, init=False)
    kept_above: int | None = field(default=None, init=False)
    _acknowledgements: Acknowledgements = field(init=False)
    _appended: list[Record] = field(factory=list, init=False)
    _waiting: Group = field(factory=Group, init=False)
    _under_way: Group | None = field(default=None, init=False)
    _write_call: IDelayedCall | None = field(default=None, init=False)
    running: bool = field(default=False, init=False)
    """Whether the storage takes records: True from `recover` to `close`, `crash` or a failure."""
    _silent: bool = field(default=False, init=False)
    """True after a crash or a failure: no callback is called any more."""
    next_error: Exception | None = field(default=None, init=False)
    """The exception with which the next write of a group fails (see `fail_next`); None: it does not fail."""
    _hangs: bool = field(default=False, init=False)
    """Whether no write ends at present (see `hang`)."""
    _snapshots: MemorySnapshots = field(init=False)

    @_snapshots.default
    def _make_snapshots(self) -> MemorySnapshots:
        steps = Steps(self._clock, self._sync_seconds, self._step_fails)
        return MemorySnapshots(self._disk, steps, lambda: self.is_full, self.counters)

    @_acknowledgements.default
    def _make_acknowledgements(self) -> Acknowledgements:
        return Acknowledgements(self._fail)

    @property
    def position(self) -> int:
        return self._disk.position

    @property
    def contents(self) -> Effect:
        """The records on the disk, as the next incarnation finds them."""
        return self._disk.contents

    @property
    def is_full(self) -> bool:
        free = self._disk.free_records
        return free is not None and free <= self._disk.reserve_records

    # IStableStorage

    @property
    def snapshot(self) -> SnapshotName | None:
        name = self._disk.contents.snapshot
        return name if name in self._disk.snapshots else None

    @property
    def compacted(self) -> int:
        return self._disk.compacted

    def recover(self) -> Recovered:
        assert not self.running, "recover is called once"
        disk = self._disk
        if disk.in_use:
            raise StorageRefused("memory: in use by another server; each server needs a disk of its own")
        if disk.forgotten > disk.snapshot_seq:
            raise StorageRefused(
                f"memory: the history up to slot {disk.forgotten} is forgotten; this memory ends with its server"
            )
        gap = disk.first_gap()
        if gap is not None:
            raise history_gap("memory", gap, disk.local_aru, disk.gone + 1)
        lost = disk.lost_snapshot
        disk.delete_leftovers()
        self._snapshots.count_bytes()
        disk.in_use = self.running = True
        disk.identity = disk.identity or self._random_bytes(IDENTITY_BYTES)
        disk.incarnation += 1
        disk.start_mark = int.from_bytes(self._random_bytes(START_MARK_BYTES), "big")
        disk.position += 1
        return self._recovered(lost)

    def append(self, record: Record) -> None:
        if self.running:
            self._appended.append(record)

    def sync(self, durable: Callable[[], None]) -> None:
        if not self.running:
            return
        is_alone = self._acknowledgements.all_reached
        self._hand_over()
        if self._acknowledgements.wait(durable):
            self._clock.callLater(0, self._acknowledgements.release)
        elif is_alone and not self._hangs and self._writes_at_once():
            group, self._waiting = self._waiting, Group()
            if self.write(group):
                self._acknowledge(group, 0.0)
        elif self._under_way is None:
            self._begin_group()

    def read_history(self, first: int, last: int, bytes_max: int, found: HistoryCallback) -> None:
        if self.running:
            self._clock.callLater(0, self._answer, found, self._range(first, last, bytes_max))

    def forget_history(self, up_to: int) -> bool:
        """Forget the slots from 1 to `up_to` if the disk ends with this storage. Returns whether it does; see
        `IStableStorage.forget_history`."""
        if self._is_transient and self.running:
            self._disk.forget_up_to(min(up_to, self._disk.local_aru))
        return self._is_transient

    def write_snapshot(self, seq: int, cluster_identity: bytes) -> MemorySnapshotFile:
        return self._snapshots.write(seq, cluster_identity)

    def fetch_snapshot(self, name: SnapshotName) -> MemoryFetchedSnapshot:
        return self._snapshots.fetch(name)

    def read_snapshot(self, name: SnapshotName, offset: int, bytes_max: int, found: SnapshotCallback) -> None:
        if self.running:
            data = self._snapshots.read(name, offset, bytes_max)
            self._clock.callLater(0, self._answer_snapshot, found, data)

    def close(self) -> bool:
        """Put all appended records on the disk now. The callbacks of waiting syncs are called later, by the clock.

        If the disk hangs, the records are lost, as in a crash, and False is returned.
        """
        if not self.running:
            return True
        if self._hangs:
            self.crash()
            return False
        self._hand_over()
        self._cancel_write()
        for group in self.pending():
            if not self.write(group):
                return True
            self._clock.callLater(0, self._acknowledge, group, 0.0)
        self._let_go()
        return True

    # For the simulator

    def crash(self, groups_kept: int = 0, records_torn: int = 0, bytes_kept: int = 0) -> None:
        """Let the storage's server die: no callback is called any more, and records that are not on disk are lost.

        At most two groups are pending, the one being written and the one that waits for it. A real disk may finish a
        write without the server hearing of that: so the first `groups_kept` pending groups reach the disk as a whole,
        and so do the first `records_torn` records of the next one. (A log on disk never keeps a part of a group; a
        protocol that survives such groups does not depend on that.) Records that were appended but not synced never
        reach the disk. Of the bytes of a snapshot that is being fetched, the first `bytes_kept` of those that were
        given to the storage and are not on the disk yet reach it.
        """
        if not self.running:
            return
        if self._snapshots.fetched is not None:
            self._snapshots.fetched.keep(bytes_kept)
        self._cancel_write()
        pending = self.pending()
        self._disk.position += len(pending[:groups_kept])
        kept = [record for group in pending[:groups_kept] for record in group.records]
        torn = [record for group in pending[groups_kept : groups_kept + 1] for record in group.records[:records_torn]]
        self._disk.contents.apply_all(kept + torn)
        self._disk.compact(self._kept_slots, self.kept_above)
        self._silence()
        self._let_go()

    def pending_groups(self) -> list[int]:
        """How many records are in each group that is `pending`: one count for each group, the oldest first."""
        return [len(group.records) for group in self.pending()]

    @property
    def seconds_left(self) -> float:
        """How long, in seconds, the write under way still takes; 0.0 if no write is under way."""
        return 0.0 if self._write_call is None else self._write_call.getTime() - self._clock.seconds()

    def fail_next(self, error: Exception | None) -> None:
        """Let the next write of a group fail with `error`, so that none of the group gets to the disk; None cancels
        this."""
        self.next_error = error

    def lose_snapshot(self) -> None:
        """Let the snapshot that this storage holds be missing from now on, and be noticed at once."""
        name = self.snapshot
        assert name is not None, "there is a snapshot"
        del self._disk.snapshots[name]
        self.on_snapshot_lost(name, "missing")

    def hang(self) -> None:
        """Let no write end from now on, neither with success nor with an error, until `go_on`."""
        self._hangs = True
        self._cancel_write()
        self._snapshots.steps.hang()

    def go_on(self) -> None:
        """End the state that `hang` has begun: the write that is under way ends soon."""
        if self._hangs:
            self._hangs = False
            if self._under_way is not None:
                self._write_call = self._clock.callLater(0, self._finish_group, self._under_way, 0.0)
            self._snapshots.steps.go_on()

    # Groups

    def pending(self) -> list[Group]:
        """The groups that `crash` can keep, lose or cut, the oldest first."""
        return [group for group in (self._under_way, self._waiting) if group is not None and group.records]

    def _hand_over(self) -> None:
        if self._appended:
            self._waiting.records += self._appended
            self._waiting.write = self._acknowledgements.new_write()
            self._appended = []

    def _begin_group(self) -> None:
        self._under_way, self._waiting = self._waiting, Group()
        seconds = self._sync_seconds()
        if not self._hangs:
            self._write_call = self._clock.callLater(seconds, self._finish_group, self._under_way, seconds)

    def _finish_group(self, group: Group, seconds: float) -> None:
        self._write_call = self._under_way = None
        if self.write(group):
            if self._waiting.records:
                self._begin_group()
            self._acknowledge(group, seconds)

    def write(self, group: Group) -> bool:
        """Put a group on the disk; False if that failed and the storage has therefore stopped."""
        if self.next_error is not None and self._next_write_fails():
            return False
        if self._disk.free_records is not None:
            self._disk.free_records -= len(group.records)
            if self._disk.free_records < 0:
                self._fail(Failure(ReserveUsedUp("the disk has no room, although it was full long before")))
                return False
        contents = self._disk.contents
        before = contents.snapshot
        contents.apply_all(group.records)
        self._disk.position += 1
        if contents.snapshot is not None and contents.snapshot is not before:
            self._disk.compact(self._kept_slots, self.kept_above)
            self._snapshots.named(contents.snapshot, self._disk.delete_superfluous)
        return True

    def _next_write_fails(self) -> bool:
        """Let this write fail if `fail_next` says so; then the storage has stopped."""
        error, self.next_error = self.next_error, None
        if error is not None:
            self._fail(Failure(error))
        return error is not None

    def _step_fails(self) -> bool:
        """Called at the end of each step of work on snapshots: whether the storage has failed in it."""
        return self._next_write_fails()

    def _acknowledge(self, group: Group, seconds: float) -> None:
        self.counters.count(len(group.records), batch_bytes(group.records), seconds)
        if not self._silent:
            self._acknowledgements.reached(group.write)

    def _cancel_write(self) -> None:
        if self._write_call is not None:
            self._write_call.cancel()
            self._write_call = None

    def _let_go(self) -> None:
        self._under_way = None
        self._waiting = Group()
        self._appended = []
        self._snapshots.steps.stop()
        self.running = False
        self._disk.in_use = False

    def _silence(self) -> None:
        self._silent = True
        self._acknowledgements.forget()

    def _fail(self, failure: Failure) -> None:
        if not self._silent:
            self._silence()
            self._cancel_write()
            self._let_go()
            self._on_failure(failure)

    # Reading

    def _recovered(self, lost: SnapshotName | None) -> Recovered:
        """The content of the disk. If the snapshot `lost` is lost, and no slot was dropped for it, the whole history is
        executed again."""
        disk = self._disk
        name = disk.contents.snapshot if lost is None else None
        needs_state = lost is not None and disk.gone > 0
        views = disk.contents.views or ViewRecord(0, 0)
        local_aru = disk.local_aru
        above = sorted((seq, slot) for seq, slot in disk.contents.slots.items() if seq > disk.local_aru)
        return Recovered(
            identity=disk.identity,
            incarnation=disk.incarnation,
            start_mark=disk.start_mark,
            last_attempted=views.last_attempted,
            last_installed=views.last_installed,
            local_aru=disk.local_aru,
            snapshot=name,
            snapshot_bytes=self._snapshot_portions(name),
            lost=lost if needs_state else None,
            ordered=() if needs_state else disk.ordered(1 if name is None else name.seq + 1, disk.local_aru),
            ordered_after=lambda seq: disk.ordered(seq + 1, local_aru),
            accepted=[Accepted(seq, slot.view, slot.batch) for seq, slot in above],
            peers=dict(disk.contents.peers),
            passes=dict(disk.passes),
            members=disk.contents.members,
        )

    def _snapshot_portions(self, name: SnapshotName | None) -> Iterator[bytes]:
        data = b"" if name is None else self._disk.snapshots[name]
        for at in range(0, len(data), PORTION_BYTES):
            yield data[at : at + PORTION_BYTES]

    def _range(self, first: int, last: int, bytes_max: int) -> list[tuple[int, Batch]]:
        found: list[tuple[int, Batch]] = []
        for seq, batch in self._disk.ordered(first, last):
            bytes_max -= len(batch.data)
            if found and bytes_max < 0:
                break
            found.append((seq, batch))
        return found

    def _answer(self, found: HistoryCallback, batches: list[tuple[int, Batch]]) -> None:
        if not self._silent:
            found(batches)

    def _answer_snapshot(self, found: SnapshotCallback, data: bytes) -> None:
        if not self._silent:
            found(data)
