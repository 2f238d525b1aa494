"""Reads the data directories that are left of a cluster whose majority is lost for ever, and builds the latest state
that they hold.

The directories are read and not changed. They hold all that a leader would learn from the servers to which they belong:
the slots up to the highest Local_Aru are ordered. Of the slots above, each holds the proposal of the highest view
that one of these servers has accepted; it may have been ordered or not. They are executed, too, up to the first slot of
which none of the directories holds anything: a command that was answered is rather run than lost. Whatever only lost
servers knew is lost.

The directories may be of different epochs of the membership (Departure 60). As at every server, executing a change ends
its epoch, and what that epoch has accepted above the change, or stored as ordered there, is void: of a slot that none
of the servers has executed, only directories count that are in the epoch of the slots before it.

The state begins with the latest snapshot that one of the directories has, and with slot 1 if none has one. All servers
have the same batches in ordered slots, so each slot behind it may come from any directory. Thus a log whose own
snapshot is missing or damaged counts, if it goes back to slot 1, or to slots that another directory leads up to
(Departure 58).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from attrs import define, frozen

from pfsb.applications.catalogue import Catalogue, PluginApplications
from pfsb.backups.backup_file import BackupState
from pfsb.backups.idle_replica import make_replica
from pfsb.paxos.frozen_history import History
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.members import Members
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted, Recovered
from pfsb.paxos.recovery import ORDERED, execute_again, recover
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import SNAPSHOT_DIGEST_BYTES, SnapshotDecoder, SnapshotName
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.storage.directory import DirectoryLock
from pfsb.storage.log.reader import LogReader
from pfsb.storage.log.scan import Log, scan
from pfsb.storage.log.snapshot_files import SnapshotFiles


@frozen(eq=False)
class Survivor:
    """One data directory that is left, as far as it was read."""

    directory: Path
    log: Log
    accepted: Sequence[Accepted]
    """The slots above its Local_Aru that are on its disk."""
    lost: str | None = None
    """The fate, in words, of the snapshot that the log names, if its file is missing or damaged; else None."""

    @property
    def local_aru(self) -> int:
        return self.log.state.local_aru

    @property
    def server_id(self) -> int:
        return self.log.head.owner.server_id

    @property
    def named(self) -> SnapshotName | None:
        """The present snapshot, as the log names it, whether or not its file is whole; None: there is none."""
        return None if self.log.state.snapshot is None else self.log.state.snapshot.name

    @property
    def snapshot(self) -> SnapshotName | None:
        """The present snapshot; None: there is none, or it is lost."""
        return None if self.lost is not None else self.named

    @property
    def files(self) -> SnapshotFiles:
        return SnapshotFiles.beside(self.log.directory)

    @property
    def compacted(self) -> int:
        """The slot up to which its log holds no slots any more."""
        return self.log.state.compacted

    @property
    def epoch(self) -> int:
        """The epoch of the membership in which its server was, and has accepted the slots above its Local_Aru."""
        return self.log.state.epoch

    def identity_of(self, server_id: int) -> bytes | None:
        """The storage of another server, as this one has noted it, or as its epoch names it; None: neither does."""
        effect = self.log.state.effect
        if server_id in effect.peers:
            return effect.peers[server_id].identity
        return None if effect.members is None else effect.members.storages.get(server_id)


class UnreadableSurvivor(StorageRefused):
    """Raised for a data directory that is damaged, or lacks something."""


@define
class Recovery:
    """The latest state that some directories hold, and where it comes from."""

    state: BackupState
    ordered_up_to: int
    """The slot up to which all that is executed was ordered. If every slot was found, it is the highest Local_Aru of a
    directory."""
    open_slots: int
    """Number of slots above that were executed although it is not known that they were ordered."""
    left_out: int
    """Number of slots further above that one of the directories holds, and that were not executed, since nothing is
    known of a slot before them."""
    ordered_left_out: int
    """Number of those among them that are known as ordered."""
    void: int
    """Number of slots further above that one of the directories holds, and that a change of the membership has made
    void."""
    members: Members
    """The servers of the last epoch."""


def read_survivor(directory: Path) -> Survivor:
    """Read a data directory. Raises `UnreadableSurvivor` if it is damaged, `StorageRefused` if there is no log in it or
    its server runs, `OSError` if it cannot be read."""
    path = directory / "log"
    if not path.is_dir():
        raise StorageRefused(f"{directory}: no data directory with a log in it")
    lock = DirectoryLock(directory)
    lock.acquire()
    lock.release()
    try:
        log = scan(path)
        log.refuse_gap()
        stored = log.state.snapshot
        lost = None if stored is None else SnapshotFiles.beside(path).fate(stored.name)
        reader = LogReader(log)
        accepted = reader.accepted()
        reader.close()
    except StorageRefused as error:
        raise UnreadableSurvivor(str(error)) from error
    return Survivor(directory, log, accepted, lost)


def latest_state(survivors: Sequence[Survivor], progress: Callable[[int, int], None]) -> Recovery:
    """Build the latest state that the directories hold, which must be of one cluster.

    `progress(done, of)` is called now and then with numbers of slots. Raises `StorageRefused` if they are of several
    clusters, if two are of one server, if their states differ, if none leads to a state, or if a snapshot has changed
    since it was checked; `CannotRun` if an application is not installed here.
    """
    _refuse_several(survivors)
    _refuse_different_states(survivors)
    best = max(survivors, key=lambda each: each.local_aru)
    machine, replica = _begin_with_latest(survivors)
    ordering, queue = replica.data.ordering, replica.ordered_queue
    accepted = _accepted(survivors)
    ordered_up_to = None
    while True:
        execute_again(_ordered(survivors, ordering.local_aru), best.local_aru, queue, progress)
        if ordered_up_to is None:
            ordered_up_to = ordering.local_aru
        batch_accepted = _highest(accepted.get(ordering.local_aru + 1, ()), _epoch(machine))
        if batch_accepted is None:
            break
        queue.recover(ordering.local_aru + 1, batch_accepted)
    seq, epoch = ordering.local_aru, _epoch(machine)
    if not machine.settings.is_born:
        raise StorageRefused(_why_nothing(survivors, best))
    ordered = {s for each in survivors for s in range(max(each.compacted, seq) + 1, each.local_aru + 1)}
    above = {each: {found_in for found_in, _ in holders} for each, holders in accepted.items() if each > seq}
    left_out = ordered.union(each for each, epochs in above.items() if epoch in epochs)
    history = History(seq, queue.digests.head, queue.time.time_ms, queue.oldest_valid, queue.last_executed.timestamps)
    name = SnapshotName(seq, 0, bytes(SNAPSHOT_DIGEST_BYTES))
    state = BackupState(name, machine.settings.values.cluster_identity, history, machine)
    void = len(above.keys() - left_out)
    members = machine.settings.members
    return Recovery(state, ordered_up_to, seq - ordered_up_to, len(left_out), len(ordered), void, members)


def _begin_with_latest(survivors: Sequence[Survivor]) -> tuple[SessionStateMachine, Replica]:
    """The state of the latest snapshot that one of the directories has; that before slot 1 if none has one.

    Of all snapshots the latest leads to the most slots: whatever slots another one leads to either end below the latest
    one, or lead on behind it.
    """
    whole = [each for each in survivors if each.snapshot is not None]
    first = max(whole, key=lambda each: each.snapshot.seq, default=survivors[0])  # type: ignore[union-attr]
    machine, replica = _begin(first)
    replica.ordered_queue.passes = {seq: digest for each in survivors for seq, digest in each.log.state.passes.items()}
    name = first.snapshot
    if name is not None:
        found = Recovered(
            identity=first.log.head.identity,
            incarnation=0,
            local_aru=name.seq,
            snapshot=name,
            snapshot_bytes=first.files.portions(name),
        )
        recover(replica.data, found, replica.ordered_queue)
    return machine, replica


def _ordered(survivors: Sequence[Survivor], after: int) -> Iterator[tuple[int, Batch]]:
    """Yield (slot, batch) of the ordered slots behind slot `after`, as long as one of the directories holds the next
    one."""
    while holders := [each for each in survivors if each.compacted <= after < each.local_aru]:
        furthest = max(holders, key=lambda each: each.local_aru)
        yield from LogReader(furthest.log).ordered(furthest.local_aru, after)
        after = furthest.local_aru


def _refuse_different_states(survivors: Sequence[Survivor]) -> None:
    """Raise `StorageRefused` if two servers have named snapshots of one slot that are not the same."""
    by_seq: dict[int, tuple[Survivor, SnapshotName]] = {}
    for each in survivors:
        if each.named is None:
            continue
        other, name = by_seq.setdefault(each.named.seq, (each, each.named))
        if name != each.named:
            raise StorageRefused(
                f"{other.directory} and {each.directory} have different states after slot {name.seq}: one of their "
                "servers had executed a slot otherwise than the others. Leave out the one that is wrong"
            )


def _why_nothing(survivors: Sequence[Survivor], best: Survivor) -> str:
    """The reason, in words, why no state can be built."""
    lost = [each for each in survivors if each.lost is not None]
    if not lost:
        return f"{best.directory}: nothing was ever executed there; there is nothing to recover"
    files = "; ".join(f"{each.files.path(each.named.seq)} is {each.lost}" for each in lost if each.named is not None)
    return (
        f"no state leads to the slots in these directories: {files}. Bring one of these files back, or make a new "
        "cluster of a backup (pfsb restore)"
    )


def _refuse_several(survivors: Sequence[Survivor]) -> None:
    """Raise `StorageRefused` if directories are of several clusters, or of one server."""
    first, owner = survivors[0], survivors[0].log.head.owner
    by_server: dict[int, Survivor] = {}
    known: tuple[Survivor, bytes] | None = None
    for each in survivors:
        other = each.log.head.owner
        if (other.cluster_digest, other.members) != (owner.cluster_digest, owner.members):
            raise StorageRefused(f"{first.directory} and {each.directory} are of two clusters")
        same = by_server.setdefault(each.server_id, each)
        if same is not each:
            raise StorageRefused(f"{same.directory} and {each.directory} are both of server {each.server_id}")
        _refuse_stranger(each, survivors)
        identity = _cluster_identity(each)
        if identity is None:
            continue
        if known is None:
            known = each, identity
        elif known[1] != identity:
            raise StorageRefused(
                f"{known[0].directory} is of cluster {known[1].hex()}, and {each.directory} of cluster "
                f"{identity.hex()}, which has the same name; give only directories of one of them"
            )


def _refuse_stranger(survivor: Survivor, survivors: Sequence[Survivor]) -> None:
    """Raise `StorageRefused` if another directory knows another storage of this one's server, or if nothing tells that
    the directory belongs to the others: nothing was executed there, and no other one knows its storage, nor it theirs.
    """
    others = [each for each in survivors if each.server_id != survivor.server_id]
    for other in others:
        known = other.identity_of(survivor.server_id)
        if known not in (None, survivor.log.head.identity):
            raise StorageRefused(
                f"{other.directory} knows server {survivor.server_id} with another storage than "
                f"{survivor.directory}: they are of two clusters, or one of them was made anew since"
            )
    is_unknown = not survivor.local_aru or (survivor.lost is not None and survivor.compacted > 0)
    if others and is_unknown and not any(_have_met(survivor, other) for other in others):
        why = "its snapshot is lost" if survivor.local_aru else "nothing was executed there"
        raise StorageRefused(
            f"{survivor.directory}: {why}, and nothing tells that it belongs to the others; leave it out"
        )


def _have_met(one: Survivor, other: Survivor) -> bool:
    return one.identity_of(other.server_id) is not None or other.identity_of(one.server_id) is not None


def _cluster_identity(survivor: Survivor) -> bytes | None:
    """The random identity of the cluster of a directory; None: nothing is left there that would tell it."""
    log = survivor.log
    if survivor.snapshot is not None:
        decoder = SnapshotDecoder()
        for portion in survivor.files.portions(survivor.snapshot):
            for _ in decoder.feed(portion):
                pass
            if decoder.seq:
                return decoder.cluster_identity
    if survivor.compacted:
        return None
    machine, replica = _begin(survivor)
    reader = LogReader(log)
    try:
        for seq, batch in reader.ordered(log.state.local_aru):
            replica.ordered_queue.recover(seq, batch)
            if machine.settings.is_born:
                return machine.settings.values.cluster_identity
    finally:
        reader.close()
    return None


def _begin(survivor: Survivor) -> tuple[SessionStateMachine, Replica]:
    """A state machine that has executed nothing, and the replica that executes the slots of this directory with it."""
    machine = SessionStateMachine(survivor.server_id, Catalogue((), PluginApplications()))
    replica = make_replica(survivor.server_id, survivor.log.head.owner.members, machine)
    replica.ordered_queue.passes = dict(survivor.log.state.passes)
    return machine, replica


def _epoch(machine: SessionStateMachine) -> int:
    """The epoch of the membership behind the slots that were executed."""
    later = machine.settings.later_members
    return 0 if later is None else later.epoch


def _accepted(survivors: Sequence[Survivor]) -> dict[int, list[tuple[int, Accepted]]]:
    """Slot -> (epoch of the directory, content) for each directory that holds the slot above its Local_Aru."""
    found: dict[int, list[tuple[int, Accepted]]] = {}
    for survivor in survivors:
        for accepted in survivor.accepted:
            found.setdefault(accepted.seq, []).append((survivor.epoch, accepted))
    return found


def _highest(holders: Iterable[tuple[int, Accepted]], epoch: int) -> Batch | None:
    """The ordered batch that one of the servers knows in a slot, or else the batch of the highest view that one of them
    has accepted there; None: none of those that are in this epoch has one."""
    chosen: Accepted | None = None
    for found_in, accepted in holders:
        if found_in != epoch:
            continue
        if chosen is None or (chosen.view != ORDERED and (accepted.view == ORDERED or accepted.view > chosen.view)):
            chosen = accepted
    return None if chosen is None else chosen.batch
