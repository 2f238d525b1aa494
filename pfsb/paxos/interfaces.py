"""The interfaces of the protocol to the disk, the network, the state machine and the tracer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from pfsb.paxos.members import Members
from pfsb.paxos.messages import Batch, ClientUpdate, Message
from pfsb.paxos.records import Record, Recovered
from pfsb.paxos.snapshot import Piece, SnapshotName


class IStableStorage(Interface):
    """The stable storage of one server: its records survive crashes and a loss of power."""

    position: int = Attribute(
        """Number of groups that are known to be on disk, counted over the whole life of the storage.

        The count is written with each group, and found again by `recover`; it never falls as long as the disk keeps
        what was forced to it. Every frame tells it, less the groups that were written before this server was admitted,
        so that a storage that has lost something can be told from its own past.
        """
    )

    is_full: bool = Attribute(
        """Whether the disk has no more free space than what is reserved.

        The storage finds that out by itself, and finds out when there is room again. It still takes records: the
        reserve is there for those that are under way when the server notices.
        """
    )

    def recover() -> Recovered:
        """Return the content of the storage, which is initialised if it is empty. Called once, before all else.

        Raises `StorageRefused`, with one line for the operator, if the content may be damaged or incomplete.
        """

    def append(record: Record) -> None:
        """Add a record to the next group, which the next `sync` writes."""

    def sync(durable: Callable[[], None]) -> None:
        """Begin to write all records appended so far, and return without waiting for the disk.

        The records of several calls that wait for an earlier write are written together, as one group. `durable` is
        called in the reactor when the records are on disk, in the order of the calls of `sync`. An implementation
        without a disk may call `durable` before `sync` returns.
        """

    def read_history(first: int, last: int, bytes_max: int, found: Callable[[list[tuple[int, Batch]]], None]) -> None:
        """Read ordered batches of the slots first..last (inclusive): at least one, and more up to `bytes_max` bytes.

        `found` is called later, in the reactor, with consecutive (sequence number, batch) pairs from `first` on, or
        with an empty list if this storage has no ordered batch for slot `first`.
        """

    def forget_history(up_to: int) -> bool:
        """Take notice that no server will ever ask for the slots 1..up_to again: every server has them on its own disk.

        A storage whose content ends with its process has no other use for these slots: it forgets them, and returns
        True. A storage that a server can start from again keeps them, and returns False.
        """

    snapshot: SnapshotName | None = Attribute(
        """The snapshot that this storage holds: the one that the last `SnapshotRecord` on disk names; None: there is
        none, or its file was found missing or damaged."""
    )

    on_snapshot_lost: Callable[[SnapshotName, str], None] = Attribute(
        """Called in the reactor with the snapshot that this storage has held, and its fate in words, when its file is
        found missing or damaged while the storage runs. Set by the protocol."""
    )

    compacted: int = Attribute(
        """Slots up to this one may be gone from the storage, since a snapshot holds the state after them; 0: none is.
        """
    )

    kept_above: int | None = Attribute(
        """Slots above this one stay readable when a snapshot stands for them, as far as they take no more room than
        that snapshot: another server needs them, which fetches an earlier one (Departure 57). None: there is no such
        server. Set by the protocol."""
    )

    def write_snapshot(seq: int, cluster_identity: bytes) -> ISnapshotFile:
        """Begin a file for the snapshot of slot `seq`, which replaces any other file that is being written."""

    def fetch_snapshot(name: SnapshotName) -> IFetchedSnapshot:
        """Begin, or go on with, the file of a snapshot that another server sends. Of the files of other names that were
        begun by this method the longest is kept, and the others are deleted."""

    def read_snapshot(name: SnapshotName, offset: int, bytes_max: int, found: Callable[[bytes], None]) -> None:
        """Read bytes of a complete snapshot, which need not be the one that a record names yet.

        `found` is called later, in the reactor, with at most `bytes_max` bytes from `offset` on; with none behind the
        end, and if this storage does not have that snapshot, or no longer.
        """

    def close() -> bool:
        """Write the records that still wait, and close the files. Further calls do nothing.

        Returns False if the disk does not answer: then a write is still under way.
        """


class ISnapshotFile(Interface):
    """The file of a snapshot that this server makes. A new file replaces one that was not finished."""

    waiting_bytes: int = Attribute("""Number of bytes that were given to the file and are not written yet.""")

    has_failed: bool = Attribute(
        """Whether the file was given up, since the disk has no room for it. Nothing more is written then, and
        `finished` is not called."""
    )

    def write(piece: Piece) -> None:
        """Add a piece, which is written later."""

    def finish(finished: Callable[[SnapshotName], None]) -> None:
        """End the file. `finished` is called in the reactor with the name of the snapshot, when file and directory are
        on disk. Until a `SnapshotRecord` names the snapshot, the file may be deleted at the next start."""

    def abandon() -> None:
        """Give up the file that is being written: the function given to `finish` is not called any more."""


class IFetchedSnapshot(Interface):
    """The file of a snapshot that another server sends, from its beginning on. It outlives a restart."""

    size: int = Attribute("""Number of bytes that the file has: the next part must begin there.""")

    waiting_bytes: int = Attribute("""Number of bytes that were given to the file and are not written yet.""")

    has_failed: bool = Attribute(
        """Whether the file was given up, since the disk has no room for it. Nothing more is written then, and
        `finished` is not called."""
    )

    def write(data: bytes) -> None:
        """Add the next bytes."""

    def finish(finished: Callable[[bool], None]) -> None:
        """Check the file against its name. `finished` is called in the reactor: with True when the file is right, and
        file and directory are on disk; with False when the file is wrong, which is then deleted."""


class StorageRefused(Exception):
    """Raised if a data directory cannot be used; the text is one line for the operator."""


class IFrameReceiver(Interface):
    """The part of a server that a transport calls: the protocol (`pfsb.paxos.replica`)."""

    def receive(
        sender: int, identity: bytes, messages: Sequence[Message], start: int = 0, position: int = 0, epoch: int = 0
    ) -> None:
        """Handle the messages of one well-formed frame of this cluster.

        `identity` is that of the sender's storage, `start` the number of the sender's start, `position` the log
        position that the frame tells, and `epoch` the epoch of the membership in which the sender has made the
        messages. A start or position of 0 stands for one that is not known.
        """

    def peer_refused(server_id: int) -> None:
        """Take a hint that server `server_id` is down: its address has just refused a frame."""


class ITransport(Interface):
    """Carries frames between servers: it may lose, delay, duplicate and reorder them, but never corrupts them."""

    def start(
        receiver: IFrameReceiver, identity: bytes, start: int, position: Callable[[], int], passes: bytes
    ) -> None:
        """Begin to receive, and call `receiver` with each frame.

        `identity` is that of this server's storage, and `start` the number of this start (Departure 53); each frame
        that is sent carries them.
        `position` is called for each frame that leaves, and returns the log position that the frame tells (Departure
        43). `passes` is the digest of the list of slots that this server leaves out (`pfsb.paxos.passes`): frames with
        another one are refused.
        """

    def know_cluster(identity: bytes) -> None:
        """Take the random identity of the cluster, which is known once its settings are executed (Departure 34).

        From now on frames carry this identity, and frames with another identity are refused. May be called before
        `start`.
        """

    def enter_epoch(members: Members, others: Collection[int]) -> None:
        """Go on in an epoch of the membership (Departure 60): a message to all goes to `others`, the servers of the
        epoch but this one, at the addresses that the epoch gives them, and frames tell the epoch.

        Frames are taken from `others`, and from the servers that have been removed, and those are sent messages to them
        alone. May be called before `start`.
        """

    def send(messages: Sequence[Message], to: int | None) -> None:
        """Send messages to server `to`, or to all other servers if None, in as few frames as possible.

        Never raises an exception, and never blocks.
        """

    def stop() -> Any:
        """Stop sending and receiving. Returns None, or a Deferred that fires when the transport has stopped."""


class IStateMachine(Interface):
    """The state machine that the ordered update queue drives: sessions, and the applications behind them."""

    def is_valid(update: ClientUpdate) -> bool:
        """Whether the update can be executed: its payload has the right shape (Departure 37).

        The answer depends on the update alone, and is the same at all servers and for ever. An update that is not valid
        is neither proposed nor accepted. If it is ordered nevertheless, `execute` refuses it, and raises no exception.
        """

    def execute(seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        """Execute, in order, the updates of slot `seq` that have not been executed before (Figure 11 C).

        `time_ms` is the state machine's time; it never goes back. Returns bytes that stand for the results of the
        executions: equal on every server whose state machine agrees, also after a restart (Departure 40).
        """

    def freeze() -> Generator[Piece, None, None]:
        """The present state, as pieces that may be taken later, one by one, while further slots are executed.

        The pieces are equal on all servers that have executed the same slots. At most one such iterator is in use at a
        time; a call of its method `close` ends it early.
        """

    def restorer() -> IRestorer:
        """Make a restorer, which builds a state from the pieces of a snapshot, beside the present state."""

    def too_old(update: ClientUpdate) -> None:
        """Take notice that an update is ordered but not executed: its slot is beyond its horizon (Departure 7), or not
        above its `made_at` (Departure 37), or passed (Departure 38)."""


class IRestorer(Interface):
    """Builds the state of a snapshot, piece by piece; the state machine goes on meanwhile."""

    def take(piece: Piece) -> None:
        """Take the next piece, in the order in which `IStateMachine.freeze` has made them.

        Raises `WrongSnapshot` if the piece cannot be understood.
        """

    def end() -> bool:
        """Called after the last piece, as often as it returns False: the state is whole when it has returned True. Each
        call is a step of some milliseconds. Raises `WrongSnapshot` if pieces are missing."""

    def adopt() -> None:
        """Put the whole state in the place of the present one of the state machine, in a turn if the server runs.
        Clients of this server whose sessions have changed are told. Calls `end` first, as often as is left, and changes
        nothing if that raises."""


class ITracer(Interface):
    """Takes the events of the trace (docs/operating.rst)."""

    def trace(event: str, **fields: Any) -> None:
        """Record one event, with the present time. The name and the fields of the event are the arguments."""
