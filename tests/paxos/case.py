"""One real replica whose disk, network, clock and state machine the test controls."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, TypeVar

from attrs import astuple, define, evolve, field
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.paxos import invariants, membership
from pfsb.paxos.interfaces import IFetchedSnapshot, ISnapshotFile, IStableStorage, IStateMachine, ITransport
from pfsb.paxos.members import Members
from pfsb.paxos.messages import (
    Accept,
    Acquainted,
    Alive,
    Batch,
    ClientUpdate,
    Heard,
    KnownPosition,
    Message,
    Ordered,
    Prepare,
    ReconciliationRequest,
    State,
    VCProof,
    ViewChange,
)
from pfsb.paxos.records import PeerRecord, Record, Recovered
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot import Piece, SnapshotDecoder, SnapshotEncoder, SnapshotName, WrongSnapshot
from pfsb.paxos.snapshot_rows import FrozenPieces, RowReader, packed
from tests.paxos.messages import accept, alive, prepare_ok, proposal, vc_proof, view_change

M = TypeVar("M")

Found = Callable[[list[tuple[int, Batch]]], None]

SMALL = Settings(
    window_slots=4,
    batch_bytes_max=200,
    frame_data_bytes_max=300,
    queue_updates_max=5,
    history_slots_kept=8,
    horizon_slots=100,
    digests_kept=50,
)
"""Settings of the protocol with times as in production, and sizes that a test can fill."""


UNPROPOSED = Batch(b"a batch that no leader has proposed")


def identity_of(server_id: int) -> bytes:
    return bytes([server_id]) * 8


@implementer(IStableStorage)
@define(eq=False)
class FakeStorage:
    """A disk that finishes a sync when it is told to."""

    found: Recovered
    position: int = 0
    is_full: bool = False
    records: list[Record] = field(factory=list)
    """Records that were appended, in order; a test takes out the ones that it has looked at."""
    waiting: list[Callable[[], None]] = field(factory=list)
    """Syncs that were asked for and are not done."""
    syncs: int = 0
    reads: list[tuple[int, int, int, Found]] = field(factory=list)
    """(first, last, bytes_max, found) of the reads of history that were asked for."""
    forgets: bool = False
    """Whether `forget_history` forgets the slots, and returns True."""
    forgotten: int = 0
    """The highest slot that the storage was told to be of no use to any server."""
    snapshot: SnapshotName | None = None
    on_snapshot_lost: Callable[[SnapshotName, str], None] = lambda name, fate: None
    compacted: int = 0
    kept_above: int | None = None
    files: list[FakeSnapshotFile] = field(factory=list)
    """The files of snapshots that were begun here."""
    fetched: list[FakeFetchedSnapshot] = field(factory=list)
    """The files of snapshots of other servers that were begun or gone on with."""
    complete: dict[SnapshotName, bytes] = field(factory=dict)
    """The snapshots that `read_snapshot` finds, with their bytes."""
    parts_left: dict[SnapshotName, bytes] = field(factory=dict)
    """Beginnings of fetched files that an earlier fetch has left on disk."""

    def write_snapshot(self, seq: int, cluster_identity: bytes) -> FakeSnapshotFile:
        self.files.append(FakeSnapshotFile(self, SnapshotEncoder(seq, cluster_identity)))
        return self.files[-1]

    def fetch_snapshot(self, name: SnapshotName) -> FakeFetchedSnapshot:
        self.fetched.append(FakeFetchedSnapshot(self, name, self.parts_left.get(name, b"")))
        return self.fetched[-1]

    def read_snapshot(self, name: SnapshotName, offset: int, bytes_max: int, found: Callable[[bytes], None]) -> None:
        self.snapshot_reads.append((name, offset, bytes_max, found))

    snapshot_reads: list[tuple[SnapshotName, int, int, Callable[[bytes], None]]] = field(factory=list)

    def finish_snapshot_reads(self) -> None:
        """Answer all reads of snapshots that were asked for, those included that these answers cause, with the bytes in
        `complete`."""
        while self.snapshot_reads:
            name, offset, bytes_max, found = self.snapshot_reads.pop(0)
            found(self.complete.get(name, b"")[offset : offset + bytes_max])

    def recover(self) -> Recovered:
        return self.found

    def append(self, record: Record) -> None:
        self.records.append(record)

    def sync(self, durable: Callable[[], None]) -> None:
        self.syncs += 1
        self.waiting.append(durable)

    def read_history(self, first: int, last: int, bytes_max: int, found: Found) -> None:
        self.reads.append((first, last, bytes_max, found))

    def forget_history(self, up_to: int) -> bool:
        self.forgotten = max(self.forgotten, up_to)
        return self.forgets

    def close(self) -> None:
        pass

    def finish_sync(self) -> None:
        """Let the oldest sync that is under way be done."""
        self.waiting.pop(0)()

    def finish_all(self) -> None:
        while self.waiting:
            self.finish_sync()


@implementer(ISnapshotFile)
@define(eq=False)
class FakeSnapshotFile:
    """A file of a snapshot that is complete when the test says so."""

    storage: FakeStorage
    encoder: SnapshotEncoder
    waiting_bytes: int = 0
    has_failed: bool = False
    pieces: list[Piece] = field(factory=list)
    abandoned: bool = False
    finished: Callable[[SnapshotName], None] | None = None

    def write(self, piece: Piece) -> None:
        self.pieces.append(piece)

    def finish(self, finished: Callable[[SnapshotName], None]) -> None:
        self.finished = finished

    def abandon(self) -> None:
        self.abandoned = True
        self.finished = None

    def complete(self) -> SnapshotName:
        """Let file and directory be on disk now. Returns the name of the snapshot."""
        assert self.finished is not None
        data = b"".join([self.encoder.head(), *map(self.encoder.piece, self.pieces), self.encoder.end()])
        self.storage.complete[self.encoder.name] = data
        self.finished(self.encoder.name)
        return self.encoder.name


@implementer(IFetchedSnapshot)
@define(eq=False)
class FakeFetchedSnapshot:
    """A file of a snapshot that another server sends."""

    storage: FakeStorage
    name: SnapshotName
    data: bytes
    has_failed: bool = False
    finished: Callable[[bool], None] | None = None
    waiting_bytes: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data
        self.storage.parts_left[self.name] = self.data

    def finish(self, finished: Callable[[bool], None]) -> None:
        self.finished = finished

    def check(self) -> None:
        """Compare the file with its name, and call the callback with the result."""
        assert self.finished is not None
        decoder = SnapshotDecoder()
        try:
            list(decoder.feed(self.data))
            is_right = decoder.is_complete and decoder.name == self.name
        except WrongSnapshot:
            is_right = False
        if is_right:
            self.storage.complete[self.name] = self.data
        self.storage.parts_left.pop(self.name, None)
        self.finished(is_right)


@define(eq=False)
class Sent:
    """A message that left, and whether an assertion has looked at it."""

    message: Message
    to: int | None
    looked_at: bool = False


@implementer(ITransport)
@define(eq=False)
class FakeTransport:
    """A network that keeps the messages that it is given."""

    sent: list[Sent] = field(factory=list)
    running: bool = False
    epoch: int = 0
    others: tuple[int, ...] = ()

    def start(self, receiver: Any, identity: bytes, start: int, position: Callable[[], int], passes: bytes) -> None:
        self.running = True

    def know_cluster(self, identity: bytes) -> None:
        pass

    def enter_epoch(self, members: Members, others: Collection[int]) -> None:
        self.epoch, self.others = members.epoch, tuple(others)

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        self.sent += [Sent(message, to) for message in messages]

    def stop(self) -> None:
        self.running = False


INVALID_PAYLOAD = b"not valid"
"""The payload of an update that the state machine of these tests does not take as valid."""


@implementer(IStateMachine)
@define(eq=False)
class RecordingStateMachine:
    """A state machine that notes the updates that it is told to execute."""

    executed: list[tuple[int, int, list[ClientUpdate]]] = field(factory=list)
    expired: list[ClientUpdate] = field(factory=list)
    outcomes: bytes = b""

    def is_valid(self, update: ClientUpdate) -> bool:
        return update.payload != INVALID_PAYLOAD

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        self.executed.append((seq, time_ms, list(updates)))
        return self.outcomes

    def freeze(self) -> Generator[Piece, None, None]:
        executed = [(seq, time_ms, [astuple(update) for update in updates]) for seq, time_ms, updates in self.executed]
        return FrozenPieces(iter([Piece("executed", packed(executed))]), lambda: None)

    def restorer(self) -> ListRestorer:
        return ListRestorer(self)

    def too_old(self, update: ClientUpdate) -> None:
        self.expired.append(update)


@define(eq=False)
class ListRestorer:
    """Restores what a `RecordingStateMachine` has executed."""

    machine: RecordingStateMachine
    pieces: list[Piece] = field(factory=list)
    adopted: bool = False

    def take(self, piece: Piece) -> None:
        self.pieces.append(piece)

    def end(self) -> bool:
        if len(self.pieces) != 1:
            raise WrongSnapshot("its list is missing")
        return True

    def adopt(self) -> None:
        (rows,) = RowReader().rows(self.pieces[0].data)
        self.machine.executed = [
            (seq, time_ms, [ClientUpdate(*each) for each in updates]) for seq, time_ms, updates in rows
        ]
        self.adopted = True


@define(eq=False)
class Notes:
    """A tracer that keeps the events that it gets."""

    events: list[tuple[str, dict[str, Any]]] = field(factory=list)

    def trace(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


class ReplicaTestCase(SynchronousTestCase):
    """Server 2 of five, started, its vote for view 1 sent; it knows the storage of each server.

    Each disk write is done as soon as the event that asked for it is over, unless `hold_syncs` is set. Every message
    that leaves must be looked at by an assertion; ALIVE and VC_PROOF only if `ignore_periodic` is False, and a vote
    that answers another one only if `ignore_answered_votes` is. The invariants are checked after every turn.
    """

    server_id = 2
    servers: tuple[int, ...] = (1, 2, 3, 4, 5)
    settings = SMALL
    ignore_periodic = True
    ignore_answered_votes = True
    starts = True
    position_at_start = 0
    """Number of groups on disk after the start."""
    leader_tells = False
    """Whether the leader tells what is ordered (Departure 55), as it does among five servers. If False, these five
    servers vote as three or four do, so that a test has more servers to name."""
    introduced = True
    """Whether the other servers have this server's identity on disk."""

    def setUp(self) -> None:
        if not self.leader_tells:
            self.patch(membership, "TELLING_SERVERS", len(self.servers) + 1)
        self.found = Recovered(identity_of(self.server_id), incarnation=1)
        self.found.peers = {i: PeerRecord(i, identity_of(i)) for i in self.servers if i != self.server_id}
        if self.starts:
            self.start()

    def start(self) -> None:
        """Build the replica on the state in `found`, start it, and look at its vote."""
        self.clock = Clock()
        self.storage = FakeStorage(self.found, self.position_at_start)
        self.transport = FakeTransport()
        self.machine = RecordingStateMachine()
        self.notes = Notes()
        self.failures: list[Failure] = []
        self.hold_syncs = False
        self.replica = Replica(
            server_id=self.server_id,
            servers=self.servers,
            settings=self.settings,
            clock=self.clock,
            rng=random.Random(7),
            storage=self.storage,
            transport=self.transport,
            state_machine=self.machine,
            on_failure=self.failures.append,
            tracer=self.notes,
        )
        invariants.install(self.replica)
        self.data = self.replica.data
        self._discarded_before: dict[str, int] = {}
        self.replica.start()
        if self.introduced:
            for peer in self.replica.membership.others:
                self.replica.perform(self._known_to, peer)
        self._after_event()
        peers = [each for each in self.storage.records if isinstance(each, PeerRecord)]
        self.records_of_own_storage = own = [each for each in peers if each.server_id == self.server_id]
        self.storage.records = [each for each in self.storage.records if each not in own]
        self.asked_at_start = self.take(ReconciliationRequest)
        if self.introduced:
            self.take(Heard)
        if not self.replica.storage_identity.is_newcomer:
            self.assertIn(ViewChange(self.server_id, self.found.last_installed + 1), self.take(ViewChange))
        self.after_start()

    def _known_to(self, peer: int) -> None:
        self.replica.log_positions.on_known_position(
            KnownPosition(peer, self.found.identity, self.replica.log_positions.start, 0)
        )
        self.replica.storage_identity.on_acquainted(Acquainted(peer, self.found.identity))

    def after_start(self) -> None:
        """A hook for subclasses: the last step of the set-up."""

    def tearDown(self) -> None:
        if not hasattr(self, "replica"):
            return
        self.replica.stop()
        self.assertEqual([failure.getTraceback() for failure in self.failures], [], "a turn failed")
        self.assertEqual(self._not_looked_at(), [], "messages that no assertion has looked at")

    # ------------------------------------------------------------------ what happens to the replica

    def receive(self, *messages: Any, sender: int | None = None, epoch: int | None = None) -> None:
        """Let one frame arrive with these messages. Its sender is that of the first message, and its epoch that of this
        server, unless the test names others."""
        origin = messages[0].server_id if sender is None else sender
        made_in = self.replica.membership.members.epoch if epoch is None else epoch
        self._discarded_before = dict(self.replica.discarded)
        named = [self.named(message) for message in messages]
        self.replica.receive(origin, identity_of(origin), named, epoch=made_in)
        self._after_event()

    def introduce(self, *updates: ClientUpdate) -> None:
        """Let clients of this server ask for updates, in one turn."""
        self.replica.perform(self._introduce_all, updates)
        self._after_event()

    def _introduce_all(self, updates: Sequence[ClientUpdate]) -> None:
        for update in updates:
            self.replica.introduce(update)

    def advance(self, seconds: float) -> None:
        """Let time pass; each call is made at its own time."""
        end = self.clock.seconds() + seconds
        while (due := [c.getTime() for c in self.clock.getDelayedCalls() if c.getTime() <= end]) and not self.failures:
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
            self._after_event()
        self.clock.advance(max(0.0, end - self.clock.seconds()))
        self._after_event()

    def expire_progress_timer(self) -> None:
        self.assertTrue(self.replica.progress_timer.running)
        self.replica.progress_timer.stop()
        self.replica.turn.run(self.replica.progress_timer.on_expiry)
        self._after_event()

    def expected_failure(self, kind: type[Exception]) -> Exception:
        """The failure that has stopped the server, which must be the only one."""
        self.assertEqual(len(self.failures), 1)
        failure = self.failures.pop()
        failure.trap(kind)
        value: Exception = failure.value
        return value

    def _after_event(self) -> None:
        if not self.hold_syncs:
            self.storage.finish_all()

    def named(self, message: Any) -> Any:
        """The message; an ACCEPT or ORDERED without digests gets those of the batches that the replica holds now."""
        if not isinstance(message, Accept | Ordered) or message.digests:
            return message
        return evolve(message, digests=b"".join(self.batch_held_at(seq).digest for seq in message.seqs))

    def batch_held_at(self, seq: int) -> Batch:
        """The batch that the replica holds in a slot; if it holds none, a batch that no leader has proposed."""
        slot = self.data.ordering.global_history.get(seq)
        if slot is not None and slot.ordered is not None:
            return slot.ordered
        return UNPROPOSED if slot is None or slot.proposal is None else slot.proposal.batch

    # ------------------------------------------------------------------ how a replica gets where the test begins

    def follow(self, view: int = 1) -> None:
        """Become REG_NONLEADER of a view that another server leads."""
        leader = self.replica.membership.leader_of(view)
        self.receive(vc_proof(leader, view))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.storage.records.clear()

    def preinstall(self, view: int) -> None:
        """Let a majority vote for `view`."""
        for other in self._helpers():
            self.receive(view_change(other, view))
        self.assertTrue(self.replica.progress_timer.running)
        self.assertLessEqual(set(self.take(ViewChange)), {ViewChange(self.server_id, view)})

    def begin_prepare_phase(self, view: int = 2) -> None:
        """Let this server be elected leader of `view`, which it leads; its PREPARE is sent."""
        self.preinstall(view)
        self.assertSent(Prepare(self.server_id, view, self.data.ordering.local_aru))
        self.storage.records.clear()

    def lead(self, view: int = 2, *data_list: Any) -> None:
        """Let this server become REG_LEADER of `view`; the first promise brings `data_list`."""
        self.begin_prepare_phase(view)
        helpers = self._helpers()
        for other in helpers:
            self.receive(prepare_ok(other, view, *(data_list if other == helpers[0] else ())))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def order(self, seq: int, *updates: ClientUpdate, time_ms: int = 0) -> None:
        """Let this server, as a follower, order slot `seq`: the leader's proposal gets the votes of a majority."""
        view = self.data.views.last_installed
        leader = self.replica.membership.leader_of(view)
        self.receive(proposal(leader, view, seq, *updates, time_ms=time_ms))
        self.assertSent(accept(self.server_id, view, seq))
        for other in self._helpers():
            self.receive(accept(other, view, seq))
        self.assertGreaterEqual(self.data.ordering.local_aru, seq)

    def hear_leader(self, view: int = 1, local_aru: int = 0) -> None:
        self.receive(alive(self.replica.membership.leader_of(view), view, State.REG_LEADER, local_aru))

    def _helpers(self) -> tuple[int, ...]:
        """Ids of as many other servers as make a majority together with this server."""
        return self.replica.membership.others[: self.replica.membership.quorum - 1]

    # ------------------------------------------------------------------ assertions

    def assertSent(self, message: Message, to: int | None = None) -> None:
        """Assert that a message has left to that destination (None: to all others), and that no assertion has looked at
        it yet; mark it as looked at."""
        expected = self.named(message)
        for sent in self.transport.sent:
            if not sent.looked_at and sent.message == expected and sent.to == to:
                sent.looked_at = True
                return
        self.fail(f"not sent: {message} to {to}; sent and not looked at: {self._not_looked_at()}")

    def assertNotSent(self, kind: type) -> None:
        """Assert that no message of that kind has left, other than those that assertions have looked at."""
        self.assertEqual([sent for sent in self._not_looked_at() if isinstance(sent.message, kind)], [])

    def assertNothingSent(self) -> None:
        self.assertEqual(self._not_looked_at(), [])

    def take(self, kind: type[M]) -> list[M]:
        """The messages of one kind that no assertion has looked at yet; mark them as looked at."""
        found = []
        for sent in self.transport.sent:
            if not sent.looked_at and isinstance(sent.message, kind) and not self._is_answered_vote(sent):
                sent.looked_at = True
                found.append(sent.message)
        return found

    def take_records(self, kind: type[M]) -> list[M]:
        """The records of one kind that were appended since the last look."""
        found = [record for record in self.storage.records if isinstance(record, kind)]
        self.storage.records = [record for record in self.storage.records if not isinstance(record, kind)]
        return found

    def assertDiscarded(self, line: str) -> None:
        """Assert that the last frame was discarded by exactly this line of Figure 4."""
        self.assertEqual(self._discarded_lately(), {line: 1})

    def assertNotDiscarded(self) -> None:
        self.assertEqual(self._discarded_lately(), {})

    def assertExecuted(self, *expected: Sequence[ClientUpdate]) -> None:
        """Assert that the state machine has executed these lists of updates, one for each slot from 1 on."""
        self.assertEqual(
            [(seq, updates) for seq, _, updates in self.machine.executed],
            [(seq, list(updates)) for seq, updates in enumerate(expected, start=1)],
        )

    def _discarded_lately(self) -> dict[str, int]:
        now, before = self.replica.discarded, self._discarded_before
        return {line: count - before.get(line, 0) for line, count in now.items() if count != before.get(line, 0)}

    def _not_looked_at(self) -> list[Sent]:
        return [sent for sent in self.transport.sent if not sent.looked_at and not self._is_ignored(sent)]

    def _is_ignored(self, sent: Sent) -> bool:
        periodic = isinstance(sent.message, Alive | VCProof)
        return (self.ignore_periodic and periodic) or self._is_answered_vote(sent)

    def _is_answered_vote(self, sent: Sent) -> bool:
        return self.ignore_answered_votes and isinstance(sent.message, ViewChange) and sent.to is not None
