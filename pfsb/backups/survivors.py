"""Reads the data directories that are left of a cluster whose majority is lost for ever, and builds the latest state
that they hold.

The directories are read and not changed. What they hold is what a leader would learn from the servers that they belong
to: the slots up to the highest Local_Aru are ordered. Of the slots above, each holds the proposal of the highest view
that one of these servers has accepted; it may have been ordered or not. They are executed, too, up to the first slot of
which none of the directories holds anything: a command that was answered is rather run than lost. Whatever only lost
servers knew is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, frozen

from pfsb.applications.catalogue import Catalogue, PluginApplications
from pfsb.backups.backup_file import BackupState
from pfsb.backups.idle_replica import make_replica
from pfsb.paxos.frozen_history import History
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted, Recovered
from pfsb.paxos.recovery import ORDERED, recover
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

    @property
    def local_aru(self) -> int:
        return self.log.state.local_aru

    @property
    def server_id(self) -> int:
        return self.log.head.owner.server_id


class UnreadableSurvivor(StorageRefused):
    """Raised for a data directory that is damaged, or lacks something."""


@define
class Recovery:
    """The latest state that some directories hold, and where it comes from."""

    state: BackupState
    ordered_up_to: int
    """The highest Local_Aru of a directory: what is executed up to there was ordered."""
    open_slots: int
    """Number of slots above that were executed although it is not known that they were ordered."""
    left_out: int
    """Number of slots further above that were accepted by one of the servers, and were not executed, since nothing is
    known of a slot before them."""


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
        if log.state.snapshot is not None:
            SnapshotFiles.beside(path).refuse_wrong(log.state.snapshot.name)
        reader = LogReader(log)
        accepted = reader.accepted()
        reader.close()
    except StorageRefused as error:
        raise UnreadableSurvivor(str(error)) from error
    return Survivor(directory, log, accepted)


def latest_state(survivors: Sequence[Survivor], progress: Callable[[int, int], None]) -> Recovery:
    """Build the latest state that the directories hold, which must be of one cluster.

    `progress(done, of)` is called now and then with numbers of slots. Raises `StorageRefused` if they are of several
    clusters, if two are of one server, or if a snapshot has changed since it was checked; `CannotRun` if an application
    is not installed here.
    """
    _refuse_several(survivors)
    best = max(survivors, key=lambda each: each.local_aru)
    machine, replica = _begin(best)
    queue = replica.ordered_queue
    recover(replica.data, _recovered(best), queue, progress)
    proposals = _highest(survivors)
    ordered_up_to = replica.data.ordering.local_aru
    while (batch := proposals.pop(replica.data.ordering.local_aru + 1, None)) is not None:
        queue.recover(replica.data.ordering.local_aru + 1, batch)
    seq = replica.data.ordering.local_aru
    left_out = sum(each > seq for each in proposals)
    history = History(seq, queue.digests.head, queue.time.time_ms, queue.oldest_valid, queue.last_executed.timestamps)
    if not machine.settings.is_born:
        raise StorageRefused(f"{best.directory}: nothing was ever executed there; there is nothing to recover")
    name = SnapshotName(seq, 0, bytes(SNAPSHOT_DIGEST_BYTES))
    state = BackupState(name, machine.settings.values.cluster_identity, history, machine)
    return Recovery(state, ordered_up_to, seq - ordered_up_to, left_out)


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
        known = other.log.state.effect.peers.get(survivor.server_id)
        if known is not None and known.identity != survivor.log.head.identity:
            raise StorageRefused(
                f"{other.directory} knows server {survivor.server_id} with another storage than "
                f"{survivor.directory}: they are of two clusters, or one of them was made anew since"
            )
    if others and not survivor.local_aru and not any(_have_met(survivor, other) for other in others):
        raise StorageRefused(
            f"{survivor.directory}: nothing was executed there, and nothing tells that it belongs to the others; leave "
            "it out"
        )


def _have_met(one: Survivor, other: Survivor) -> bool:
    return other.server_id in one.log.state.effect.peers or one.server_id in other.log.state.effect.peers


def _cluster_identity(survivor: Survivor) -> bytes | None:
    """The random identity of the cluster of a directory; None: nothing was executed there that would tell it."""
    log = survivor.log
    if log.state.snapshot is not None:
        decoder = SnapshotDecoder()
        for portion in SnapshotFiles.beside(log.directory).portions(log.state.snapshot.name):
            for _ in decoder.feed(portion):
                pass
            if decoder.seq:
                return decoder.cluster_identity
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


def _recovered(survivor: Survivor) -> Recovered:
    """The state on disk of one directory up to its Local_Aru, as a start of its server would find it."""
    log = survivor.log
    snapshot = None if log.state.snapshot is None else log.state.snapshot.name
    return Recovered(
        identity=log.head.identity,
        incarnation=log.state.incarnation or 0,
        local_aru=log.state.local_aru,
        snapshot=snapshot,
        snapshot_bytes=() if snapshot is None else SnapshotFiles.beside(log.directory).portions(snapshot),
        ordered=LogReader(log).ordered(log.state.local_aru, log.state.snapshot_seq),
        passes=dict(log.state.passes),
    )


def _highest(survivors: Sequence[Survivor]) -> dict[int, Batch]:
    """Slot -> the ordered batch that one of the servers knows there, or else the batch of the highest view that one of
    them has accepted."""
    chosen: dict[int, Accepted] = {}
    for survivor in survivors:
        for accepted in survivor.accepted:
            known = chosen.get(accepted.seq)
            if known is None or (known.view != ORDERED and (accepted.view == ORDERED or accepted.view > known.view)):
                chosen[accepted.seq] = accepted
    return {seq: accepted.batch for seq, accepted in chosen.items()}
