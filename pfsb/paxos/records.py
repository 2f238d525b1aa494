"""Records that the protocol puts on disk (section 5.8, Figure 14), and the state that it finds there again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, evolve, field

from pfsb.paxos.members import Members
from pfsb.paxos.messages import Batch
from pfsb.paxos.snapshot import SnapshotName
from pfsb.support.values import value


@value
class ViewRecord:
    """A promise: nothing of a view below `last_installed` is accepted any more."""

    last_attempted: int
    last_installed: int


@value
class ProposalRecord:
    """This server has accepted the proposal of `view` in slot `seq`.

    On disk, this record replaces an older view's proposal.
    """

    seq: int
    view: int
    batch: Batch


@value
class OrderedRecord:
    """`batch` is ordered in slot `seq`, as another server has told.

    On disk, this record replaces any proposal of the slot.
    """

    seq: int
    batch: Batch


@value
class AruRecord:
    """Every slot up to `local_aru` is ordered, and this disk holds the ordered batches.

    A lazy record: no message waits until it is on disk.
    """

    local_aru: int


@value
class PeerRecord:
    """The storage of server `server_id` has this identity (Departure 12).

    A server writes a record of this kind about its own storage, too. In that record `incarnation` and `position` have
    another meaning (`pfsb.paxos.log_positions.first_told`).
    """

    server_id: int
    identity: bytes
    incarnation: int = 0
    """Highest start number of that storage that was noted (Departure 43); 0: none. In a record about a server's own
    storage it is an incarnation, without the mark of a start."""
    position: int = 0
    """The log position that was noted for that incarnation; 0: none."""

    def leaving_out(self, groups: int) -> PeerRecord:
        """The record of a server's own storage after `groups` more groups were written while the server did not run.

        They hold no votes, so frames leave them out, too (`pfsb.paxos.log_positions.first_told`).
        """
        return evolve(self, position=self.position + groups) if self.incarnation else self


@value
class SnapshotRecord:
    """The snapshot of this name is complete on disk: a restart begins with it, and needs no slot up to its own.

    The storage may drop those slots when the record is on disk, and every older snapshot.
    """

    name: SnapshotName


@value
class EpochRecord:
    """An epoch of the membership has begun: the slots up to `members.since` are executed, and all that the disk holds
    above it is void.

    A record whose epoch is not above the one on disk changes nothing.
    """

    members: Members


Record = ViewRecord | ProposalRecord | OrderedRecord | AruRecord | PeerRecord | SnapshotRecord | EpochRecord


@value
class Accepted:
    """A slot above Local_Aru that is on disk: a proposal of `view`, or an ordered batch if `view` is 0."""

    seq: int
    view: int
    batch: Batch


@define
class Recovered:
    """The state on disk when the server started."""

    identity: bytes
    """Eight random bytes, made with the storage."""
    incarnation: int
    """Number of times that this storage was started, this time included; on disk before any message is sent."""
    start_mark: int = 0
    """32 random bits of this start. They tell it from the start of another copy of the storage with the same
    incarnation (Departure 53); 0 where no copies are made."""
    last_attempted: int = 0
    last_installed: int = 0
    local_aru: int = 0
    snapshot: SnapshotName | None = None
    """The snapshot from which the server starts; None: it executes its history from slot 1 on."""
    snapshot_bytes: Iterable[bytes] = ()
    """The bytes of the snapshot, in portions; an iterator."""
    lost: SnapshotName | None = None
    """The snapshot with which the server should start, and whose file is missing or damaged, so that `snapshot` is None
    and `ordered` is empty (Departure 58). None: nothing is lost, or the whole history is there."""
    ordered_after: Callable[[int], Iterable[tuple[int, Batch]]] = lambda seq: ()
    """Called if a snapshot is lost, with the slot of another one, not below that of the lost one: (sequence number,
    ordered batch) of the slots behind it up to local_aru."""
    ordered: Iterable[tuple[int, Batch]] = ()
    """(sequence number, ordered batch) of the slots from 1, or from the one after the snapshot, to local_aru, in order:
    an iterator, since there may be many."""
    accepted: list[Accepted] = field(factory=list)
    """The slots above local_aru that are on disk, whether accepted or known as ordered, in ascending order."""
    peers: dict[int, PeerRecord] = field(factory=dict)
    """Server id -> the facts on disk about the storage of each other server that was heard, and on this server's
    own storage."""
    passes: dict[int, bytes] = field(factory=dict)
    """Slot -> digest of its batch, for the slots that are to be passed without executing them (Departure 38)."""
    members: Members | None = None
    """The servers of the latest epoch that the disk knows; None: those of the configuration file, of epoch 0."""
