"""Planted defects: messages that leave before their records are on disk, and faulty recovery from a disk.

docs/defects.rst, "What must be durable before what", says which records each message must wait for. Some of the servers
do not notice that a disk is empty, or is an older copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pfsb.paxos.log_positions import LogPositionHandler, StorageWentBack
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Accept, Alive, Batch, KnownPosition, Message, Prepare, PrepareOK, VCProof
from pfsb.paxos.ordered_update_queue import DigestChain
from pfsb.paxos.peers import Peer
from pfsb.paxos.records import AruRecord, OrderedRecord, PeerRecord, ProposalRecord, Record, Recovered, ViewRecord
from pfsb.paxos.start_number import are_of_two_copies, incarnation_of, start_number
from pfsb.paxos.storage_identity import StorageIdentityHandler
from pfsb.paxos.turn import Turn
from pfsb.simulator.cluster.storage import SimulatedStorage
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override
from pfsb.storage.effect import Effect
from pfsb.transports.frames import HEADER
from pfsb.transports.links import Links

DEFECTS = Defects()


def _send_past_the_gate(turn: Turn, kind: type) -> None:
    @instead_of(turn, "send")
    def broken(send: Callable[..., None], message: Message, to: int | None = None) -> None:
        if isinstance(message, kind):
            turn.send_early(message, to)
        else:
            send(message, to)


def _do_not_force(turn: Turn, kind: type) -> None:
    """Make records of one kind lazy: no message waits for them, and they get to disk with a later group."""

    @instead_of(turn, "append")
    def broken(append: Callable[..., None], record: Record, *, lazy: bool = False) -> None:
        append(record, lazy=lazy or isinstance(record, kind))


@DEFECTS.add("accept-early", "section 5.8, Figure 10 B", "ACCEPT leaves before the proposal is on disk")
def _accept_early(process: Any) -> None:
    _send_past_the_gate(process.replica.turn, Accept)


@DEFECTS.add(
    "proposal-not-forced", "section 5.8, Figure 11 A", "one's own vote counts, and replies leave, without a sync"
)
def _proposal_not_forced(process: Any) -> None:
    _do_not_force(process.replica.turn, ProposalRecord)


@DEFECTS.add("prepare-ok-early", "section 5.8, Figure 9 B", "PREPARE_OK leaves before Last_Installed is on disk")
def _prepare_ok_early(process: Any) -> None:
    _send_past_the_gate(process.replica.turn, PrepareOK)


@DEFECTS.add("prepare-early", "section 5.8, Figure 7 A", "PREPARE leaves before Last_Installed is on disk")
def _prepare_early(process: Any) -> None:
    _send_past_the_gate(process.replica.turn, Prepare)


@DEFECTS.add("proposal-early", "section 5.8, Figure 11 A", "PROPOSAL leaves before Last_Installed is on disk")
def _proposal_early(process: Any) -> None:
    """Send each PROPOSAL early, whether or not its view is on disk.

    This has an effect only in a cluster of one server. In a larger cluster, a leader proposes only when others have
    answered its PREPARE, and the PREPARE leaves only when the view is on the leader's disk.
    """
    turn = process.replica.turn
    override(turn, "send_proposal_early", lambda _: turn.send_early)


@DEFECTS.add("vc-proof-volatile", "section 5.8, Figure 6 C", "VC_PROOF tells of a view that is not on disk yet")
def _vc_proof_volatile(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.turn, "send")
    def broken(send: Callable[..., None], message: Message, to: int | None = None) -> None:
        if isinstance(message, VCProof):
            proof = VCProof(message.server_id, replica.data.views.last_installed)
            replica.turn.send_early(proof, to)
        else:
            send(message, to)


@DEFECTS.add("alive-volatile", "sections 5.8 and 5.10", "ALIVE tells of a Local_Aru that is not on disk yet")
def _alive_volatile(process: Any) -> None:
    data = process.replica.data

    @instead_of(process.replica.alive, "own_alive")
    def broken(_: Callable[[], Alive]) -> Alive:
        return Alive(data.server.server_id, data.views.last_installed, data.server.state, data.ordering.local_aru)


@DEFECTS.add("view-not-written", "section 5.8, Figure 14", "Last_Installed is forgotten in a crash")
def _view_not_written(process: Any) -> None:
    @instead_of(process.replica.turn, "append")
    def broken(append: Callable[..., None], record: Record, *, lazy: bool = False) -> None:
        if not isinstance(record, ViewRecord):
            append(record, lazy=lazy)


@DEFECTS.add("reply-early", "Departure 1", "clients are answered before the server's own vote is on disk")
def _reply_early(process: Any) -> None:
    turn = process.replica.turn

    made: list[Callable[[], None]] = []

    @instead_of(turn, "call")
    def keep(_: Any, function: Callable[..., None], *args: Any) -> None:
        made.append(partial(function, *args))

    @instead_of(turn, "answer")
    def keep_answer(_: Any, function: Callable[..., None], results: Any, refusal: Any) -> None:
        made.append(partial(function, results))

    @instead_of(turn, "run")
    def broken(run: Callable[..., None], event: Callable[..., None], *args: Any) -> None:
        run(event, *args)
        calls, made[:] = made[:], []
        for call in calls:
            call()


@DEFECTS.add(
    "sync-not-awaited",
    "docs/internals/storage.rst",
    "the storage says that a group is on disk when it only begins to write",
)
def _sync_not_awaited(process: Any) -> None:
    clock = process.clock

    class HastyStorage(SimulatedStorage):
        """A storage whose `sync` says at once that the group is on disk."""

        __slots__ = ()

        def sync(self, durable: Callable[[], None]) -> None:
            super().sync(do_nothing)
            if self.running:
                clock.callLater(0, durable)

    become(process.replica.storage, HastyStorage)


class _StubbornStorage(SimulatedStorage):
    __slots__ = ()

    def write(self, group: Any) -> bool:
        if self.next_error is not None:
            self.next_error = None
            return True
        return super().write(group)


@DEFECTS.add("write-error-ignored", "Departure 1", "a write that failed is taken for done, and the server goes on")
def _write_error_ignored(process: Any) -> None:
    become(process.replica.storage, _StubbornStorage)


class _TearingStorage(SimulatedStorage):
    __slots__ = ()

    def crash(self, groups_kept: int = 0, records_torn: int = 0, bytes_kept: int = 0) -> None:
        records = [record for group in self.pending()[groups_kept : groups_kept + 1] for record in group.records]
        contents = self.contents
        super().crash(groups_kept, records_torn, bytes_kept)
        match records[records_torn : records_torn + 1]:
            case [ProposalRecord(seq, view, batch)]:
                contents.apply(ProposalRecord(seq, view, Batch(batch.data[: len(batch.data) // 2])))


@DEFECTS.add(
    "torn-tail-kept",
    "G20, docs/internals/storage.rst",
    "of the last record before a crash one half is read as the whole",
)
def _torn_tail_kept(process: Any) -> None:
    become(process.replica.storage, _TearingStorage)


class _BackwardEffect(Effect):
    __slots__ = ()

    def apply_all(self, records: Iterable[Record]) -> None:
        super().apply_all(reversed(list(records)))


@DEFECTS.add("replayed-backwards", "Figure 14", "of the records in a group the first one stands, not the last")
def _replayed_backwards(process: Any) -> None:
    become(process.replica.storage.contents, _BackwardEffect)


@DEFECTS.add("aru-ahead", "section 5.8", "Local_Aru is written before the slots that it speaks of")
def _aru_ahead(process: Any) -> None:
    data = process.replica.data

    @instead_of(process.replica.turn, "append")
    def broken(append: Callable[..., None], record: Record, *, lazy: bool = False) -> None:
        if isinstance(record, OrderedRecord | ProposalRecord):
            append(AruRecord(max(record.seq, data.ordering.local_aru)), lazy=True)
        append(record, lazy=lazy)


@DEFECTS.add(
    "catch-up-left-out", "Figure 14", "ordered slots above the Local_Aru on disk are not executed at the start"
)
def _catch_up_left_out(process: Any) -> None:
    override(process.replica.ordered_queue, "catch_up", lambda _: do_nothing)


class _ForgetfulChain(DigestChain):
    def extend(self, batch: bytes, outcomes: bytes) -> None:
        head = self.head
        super().extend(batch, outcomes)
        if self.seq % 7 == 0:
            self.replace_head(head)


@DEFECTS.add(
    "digest-gap",
    "docs/protocol.rst, DIGEST",
    "the server with the lowest id leaves every seventh slot out of its digest",
)
def _digest_gap(process: Any) -> None:
    queue = process.replica.ordered_queue
    if process.replica.membership.server_id == process.replica.membership.ids[0]:
        become(queue.digests, _ForgetfulChain)


@DEFECTS.add(
    "lost-disk-unnoticed", "G20, Departure 12", "a server with an empty disk votes where another one had promised"
)
def _lost_disk_unnoticed(process: Any) -> None:
    @instead_of(process.replica.storage_identity, "is_who_it_says")
    def broken(_: Any, sender: int, identity: bytes, messages: object) -> bool:
        if process.replica.membership.identities.get(sender) != identity:
            process.replica.membership.identities[sender] = identity
            process.replica.peers.by_id[sender] = Peer()
        return True


@DEFECTS.add("new-storage-few-know", "Departure 42", "a majority with itself admits a new storage")
def _new_storage_few_know(process: Any) -> None:
    membership = process.replica.membership
    become(membership, _HastyMembership)


class _HastyMembership(Membership):
    __slots__ = ()

    @property
    def acquaintances(self) -> int:
        return self.quorum - 1


@DEFECTS.add("old-copy-unnoticed", "Departure 43", "a frame is taken whatever its sender's storage has lost")
def _old_copy_unnoticed(process: Any) -> None:
    peers = process.replica.peers

    @instead_of(peers, "note_frame")
    def broken(note: Callable[..., bool], server_id: int, start: int, position: int) -> bool:
        peer = peers.by_id[server_id]
        if start != peer.start or position < peer.position:
            peer.start, peer.position, peer.claimed_position = start, position, position
        return note(server_id, start, position)


@DEFECTS.add("positions-not-written", "Departure 43", "what is known of the others' storages is forgotten in a crash")
def _positions_not_written(process: Any) -> None:
    process.replica.turn.due_records = tuple
    process.replica.peers.on_incarnation = process.replica.peers.on_first_vote = do_nothing


@DEFECTS.add("incarnations-not-forced", "Departure 43", "a later incarnation of a peer gets to disk some time later")
def _incarnations_not_forced(process: Any) -> None:
    process.replica.peers.on_incarnation = do_nothing


@DEFECTS.add("two-lives-count", "Departure 43", "late frames of a former incarnation count beside those of a later one")
def _two_lives_count(process: Any) -> None:
    peers = process.replica.peers

    @instead_of(peers, "note_frame")
    def broken(note: Callable[..., bool], server_id: int, start: int, position: int) -> bool:
        return note(server_id, start, position) or start != peers.by_id[server_id].start


@DEFECTS.add("one-lost-group-unnoticed", "Departure 43", "a storage that has lost its last group is taken")
def _one_lost_group_unnoticed(process: Any) -> None:
    @instead_of(process.replica.peers, "note_frame")
    def broken(note: Callable[..., bool], server_id: int, start: int, position: int) -> bool:
        peer = process.replica.peers.by_id[server_id]
        if position == peer.position - 1:
            peer.position = peer.claimed_position = position
        return note(server_id, start, position)


@DEFECTS.add("newcomers-tell-all", "Departure 43", "frames tell starts, and what newcomers wrote")
def _newcomers_tell_all(process: Any) -> None:
    positions = process.replica.log_positions
    override(positions, "told", lambda _: lambda: process.replica.storage.position)


@DEFECTS.add("admission-told-early", "Departure 43", "frames tell more groups before the admission is on disk")
def _admission_told_early(process: Any) -> None:
    positions = process.replica.log_positions

    @instead_of(positions, "write_admission")
    def broken(write: Callable[[], None]) -> None:
        write()
        positions.is_admitted = True


@DEFECTS.add("anybody-vouches", "Departure 43", "a server that comes back counts a new one that it has never met")
def _anybody_vouches(process: Any) -> None:
    @instead_of(process.replica.storage_identity, "begin_admission")
    def broken(begin: Callable[..., None], identity: bytes) -> None:
        begin(identity)
        process.replica.storage_identity.known_at_start = set(process.replica.membership.others)


@DEFECTS.add("late-word-admits", "Departure 43", "an ACQUAINTED counts, whatever start of a storage it was sent to")
def _late_word_admits(process: Any) -> None:
    override(process.replica.log_positions, "is_known_by", lambda _: lambda server_id: True)


@DEFECTS.add("word-believed-at-once", "Departure 43", "a server stops when it is told once that its storage went back")
def _word_believed_at_once(process: Any) -> None:
    positions = process.replica.log_positions

    @instead_of(positions, "on_known_position")
    def broken(take: Callable[[KnownPosition], None], message: KnownPosition) -> None:
        take(message)
        if positions.is_doubted:
            raise StorageWentBack(f"server {message.server_id} has said so")


class _DoubtsForEver(LogPositionHandler):
    def on_known_position(self, message: KnownPosition) -> None:
        super().on_known_position(message)
        self.was_doubted = super().is_doubted

    @property
    def is_doubted(self) -> bool:
        return getattr(self, "was_doubted", False)


@DEFECTS.add("doubt-for-ever", "Departure 43", "a word that a storage went back counts although it is not repeated")
def _doubt_for_ever(process: Any) -> None:
    become(process.replica.log_positions, _DoubtsForEver)


@DEFECTS.add("overtaken-is-admitted", "Departure 43", "a storage that tells less than is known is not told so")
def _overtaken_is_admitted(process: Any) -> None:
    @instead_of(process.replica.log_positions, "tell_known")
    def broken(_: object, server_id: int) -> None:
        peer, identity = process.replica.peers.by_id[server_id], process.replica.membership.identities[server_id]
        known = KnownPosition(process.replica.membership.server_id, identity, peer.start, 0)
        process.replica.turn.send(known, server_id)


@DEFECTS.add("votes-before-word", "Departure 43", "a server that comes back votes before the others have said a word")
def _votes_before_word(process: Any) -> None:
    @instead_of(process.replica.storage_identity, "begin_admission")
    def broken(begin: Callable[..., None], identity: bytes) -> None:
        begin(identity)
        if process.replica.storage_identity.returns and process.replica.storage_identity.is_newcomer:
            process.replica.storage_identity.is_newcomer = False
            process.replica.take_part()


@DEFECTS.add("starts-without-marks", "Departure 53", "two starts with the same incarnation have the same start number")
def _starts_without_marks(process: Any) -> None:
    @instead_of(process.replica.log_positions, "begin")
    def broken(begin: Callable[[Recovered], None], found: Recovered) -> None:
        found.start_mark = 0
        begin(found)


@DEFECTS.add(
    "copy-is-a-later-start", "Departure 53", "a copy with the incarnation that is known counts as a later start"
)
def _copy_is_a_later_start(process: Any) -> None:
    peers = process.replica.peers

    @instead_of(peers, "note_frame")
    def broken(note: Callable[..., bool], server_id: int, start: int, position: int) -> bool:
        peer = peers.by_id[server_id]
        if are_of_two_copies(start, peer.start):
            peer.start = start_number(incarnation_of(start) - 1, 0)
        return note(server_id, start, position)


@DEFECTS.add("copy-does-not-notice", "Departure 53", "a word about another start with the own incarnation is nothing")
def _copy_does_not_notice(process: Any) -> None:
    positions = process.replica.log_positions

    @instead_of(positions, "on_known_position")
    def broken(take: Callable[[KnownPosition], None], message: KnownPosition) -> None:
        if not are_of_two_copies(message.start, positions.start):
            take(message)


def _drop_frames(process: Any, unless: Callable[[int, int, int], bool]) -> None:
    """Drop each keyed frame whose start number is lower than the highest one in any frame of the same storage so far,
    unless `unless(sender, start, highest)` is true: `start` is the number in the frame, and `highest` that highest one.
    """
    highest: dict[bytes, int] = {}

    def broken(links: Links, frame: bytes, source: object = "") -> None:
        if links.codec is not None and links.codec.secrets and len(frame) >= HEADER.size:
            *_, sender, identity, start, _counter, _position = HEADER.unpack_from(frame)
            highest[identity] = max(start, highest.get(identity, 0))
            if start < highest[identity] and not unless(sender, start, highest[identity]):
                return
        Links.frame_arrived(links, frame, source)

    become(process.transport.links, type("_Links", (Links,), {"__slots__": (), "frame_arrived": broken}))


@DEFECTS.add("keyed-copy-unanswered", "Departure 53", "a keyed frame of an earlier start is refused without a word")
def _keyed_copy_unanswered(process: Any) -> None:
    _drop_frames(process, lambda *_: False)


@DEFECTS.add("copy-shuts-out", "Departure 53", "a keyed frame is dropped since a copy had a start with a higher number")
def _copy_shuts_out(process: Any) -> None:
    peers = process.replica.peers
    _drop_frames(process, lambda sender, start, _: start <= peers.by_id[sender].start)


@DEFECTS.add("old-starts-without-incarnation", "Departure 53", "an incarnation on disk counts as a start number")
def _old_starts_without_incarnation(process: Any) -> None:
    peers = process.replica.peers

    @instead_of(peers, "remember")
    def broken(remember: Callable[[PeerRecord], None], record: PeerRecord) -> None:
        remember(record)
        peers.by_id[record.server_id].start = record.incarnation


@DEFECTS.add("first-vote-not-noted", "Departure 54", "the log position of a first vote gets to disk some time later")
def _first_vote_not_noted(process: Any) -> None:
    peers = process.replica.peers

    def broken(server_id: int, _position: int) -> None:
        peers.by_id[server_id].voted_in = peers.by_id[server_id].start

    peers.on_first_vote = broken


@DEFECTS.add("proposals-not-held", "Departure 54", "a PROPOSAL leaves before what is known of those who promised")
def _proposals_not_held(process: Any) -> None:
    override(process.replica.turn, "hold_proposals", lambda _: do_nothing)


@DEFECTS.add("dropped-vote-believed", "Departure 54", "a vote that is not stored makes its log position known")
def _dropped_vote_believed(process: Any) -> None:
    @instead_of(process.replica.accepts, "on_accept")
    def broken(accept: Callable[[Accept], bool], message: Accept) -> bool:
        accept(message)
        return True


@DEFECTS.add("far-position-believed", "Departure 54", "a single frame with a vote makes any log position known")
def _far_position_believed(process: Any) -> None:
    peers = process.replica.peers

    @instead_of(peers, "believe")
    def broken(believe: Callable[[int, int], None], server_id: int, position: int) -> None:
        peers.by_id[server_id].position = max(position, peers.by_id[server_id].position)
        believe(server_id, position)


@DEFECTS.add("vote-told-once-forgotten", "Departure 54", "a log position with a vote counts from the second frame on")
def _vote_told_once_forgotten(process: Any) -> None:
    override(process.replica.peers, "believe", lambda _: do_nothing)


@DEFECTS.add("admission-told-late", "Departure 54", "the first vote of an admitted server tells no group")
def _admission_told_late(process: Any) -> None:
    override(process.replica.turn, "call_first", lambda _: process.replica.turn.call)


@DEFECTS.add("newcomers-never-vouch", "Departure 43", "a server that comes back never counts one that it had not met")
def _newcomers_never_vouch(process: Any) -> None:
    others = process.replica.membership.others

    class _OnlyOldFriends(StorageIdentityHandler):
        @property
        def missing(self) -> list[int]:
            unmet = set(others) - self.known_at_start if self.returns else set()
            return sorted(unmet.union(super().missing))

    become(process.replica.storage_identity, _OnlyOldFriends)


@DEFECTS.add("newcomer-votes", "Departure 12", "a server with an empty disk takes part before anybody knows it")
def _newcomer_votes(process: Any) -> None:
    admission = process.replica.storage_identity

    @instead_of(admission, "begin_admission")
    def broken(begin_admission: Callable[[bytes], None], identity: bytes) -> None:
        begin_admission(identity)
        if admission.is_newcomer:
            admission.is_newcomer = False
            process.replica.take_part()
