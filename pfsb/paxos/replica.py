"""The protocol of one server: all handlers, built bottom up, the dispatch of messages, and the end of a turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.paxos import conflict
from pfsb.paxos.accept import AcceptHandler
from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.birth import Birth
from pfsb.paxos.client_update import ClientUpdateHandler
from pfsb.paxos.core import Core
from pfsb.paxos.data_structures import (
    ClientData,
    DataStructures,
    LastExecuted,
    OrderingData,
    PrepareData,
    ServerData,
    TimerData,
    ViewData,
)
from pfsb.paxos.demand import Demand
from pfsb.paxos.disk_watch import LINE, DiskWatch
from pfsb.paxos.divergence import DivergenceHandler
from pfsb.paxos.epochs import OTHER_EPOCH, EpochHandler, FromStranger
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.hand_over import HandOverHandler
from pfsb.paxos.interfaces import (
    IFrameReceiver,
    IStableStorage,
    IStateMachine,
    ITracer,
    ITransport,
    StorageRefused,
)
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.learner_news import LearnerNews
from pfsb.paxos.log_positions import LogPositionHandler
from pfsb.paxos.members import Members
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import (
    Accept,
    Acquainted,
    Alive,
    ClientUpdate,
    Confirm,
    Confirmed,
    GloballyOrderedUpdate,
    HandOver,
    Heard,
    KnownPosition,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    RareMessage,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
    Stranger,
    VCProof,
    ViewChange,
)
from pfsb.paxos.ordered_update_queue import OrderedUpdateQueue
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.passes import list_digest
from pfsb.paxos.peers import Peers
from pfsb.paxos.plausibility import IMPLAUSIBLE, Plausibility
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.proposal import ProposalHandler
from pfsb.paxos.read_index import ReadIndexHandler
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.records import Recovered
from pfsb.paxos.recovery import recover, recover_behind, recover_views
from pfsb.paxos.retransmission import Retransmission
from pfsb.paxos.round_trip import RoundTrip
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot import SnapshotName
from pfsb.paxos.snapshot_fetching import SnapshotFetcher
from pfsb.paxos.snapshot_names import SnapshotNames
from pfsb.paxos.snapshot_taking import SnapshotTaker
from pfsb.paxos.storage_identity import FOR_NEWCOMERS, StorageIdentityHandler
from pfsb.paxos.telling import TellingHandler
from pfsb.paxos.turn import Turn
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.paxos.update_timers import UpdateTimers
from pfsb.paxos.validity import INVALID, Validity
from pfsb.paxos.view_raise import ViewRaise
from pfsb.paxos.window import Window
from pfsb.support.limits import SLOT_MAX
from pfsb.support.views import shown

WITHOUT_STATE = (Acquainted, Alive, Heard, KnownPosition, Stranger, SnapshotOffer, SnapshotPart)
"""Kinds of messages that a server handles which has lost its state (Departure 58)."""


def new_data(server_id: int, settings: Settings) -> DataStructures:
    """The variables of Figure 2 with their initial values."""
    return DataStructures(
        ServerData(server_id),
        ViewData(),
        PrepareData(),
        OrderingData(),
        TimerData(settings.progress_seconds),
        ClientData(LastExecuted()),
    )


def _nothing() -> None:
    """Does nothing: stands for a callback of the layer above until `attach` sets it."""


@implementer(IFrameReceiver)
class Replica:
    """The protocol of one server. Messages, timers and clients start its turns; no turn waits for anything."""

    _log = Logger()

    def __init__(
        self,
        *,
        server_id: int,
        servers: Sequence[int],
        settings: Settings,
        clock: IReactorTime,
        rng: random.Random,
        storage: IStableStorage,
        transport: ITransport,
        state_machine: IStateMachine,
        on_failure: Callable[[Failure], None],
        tracer: ITracer | None = None,
        birth: Birth | None = None,
        learners: Sequence[int] = (),
    ) -> None:
        """`on_failure` is called once, with the reason, if this server has stopped itself. `birth` makes the update
        that the first leader proposes first, with the settings of the cluster (Departure 34); None: the state machine
        needs none.

        `servers` are the founding servers. A server that is none of them is one of the `learners`, which it takes for
        members, too: it learns until a change of the membership makes it vote (Departure 60).
        """
        self.storage = storage
        self._transport = transport
        self._tracer = tracer
        self._clock = clock
        self.settings = settings
        self.membership = membership = Membership(server_id, Members(servers, learners))
        self.data = data = new_data(server_id, settings)
        self.peers = peers = Peers(membership, clock, settings)
        self.window = window = Window(data.ordering, settings.window_slots, is_born=birth is None)
        self.outbound = Outbound(membership, peers, transport, clock, settings, window, tracer)
        self.turn = Turn(data, storage, self.outbound, on_failure, self.end_turn, tracer)
        core = Core(data, membership, self.turn, clock, settings, tracer)
        self.demand = Demand(core, peers)
        self.slot_time = slot_time = RoundTrip(settings.resend_seconds, rng)
        self.progress_timer = ProgressTimer(core, rng, slot_time)
        self.update_timers = UpdateTimers(core, rng, slot_time, window)
        self.update_queue = UpdateQueue(data, settings, self.update_timers.start_timer, self.update_timers.executed)
        self.ordered_queue = OrderedUpdateQueue(core, state_machine)
        self.plausibility = Plausibility(data, membership)
        self.validity = validity = Validity(membership, state_machine, birth)
        self.ordering = GlobalOrderingHandler(
            core, self.ordered_queue, self.update_queue, self.progress_timer, peers, self.demand, slot_time
        )
        self.reconciliation = ReconciliationHandler(core, rng, storage, self.ordering, peers, self.demand, slot_time)
        self.snapshot_names = SnapshotNames(core)
        self.snapshot_taker = SnapshotTaker(core, self.ordered_queue, storage, self.snapshot_names)
        self.snapshot_fetcher = SnapshotFetcher(
            core,
            self.ordered_queue,
            storage,
            self.ordering,
            self.reconciliation,
            self.snapshot_taker,
            self.snapshot_names,
            peers,
        )
        self.divergence = DivergenceHandler(core, self.ordered_queue.digests)
        self.alive = AliveHandler(
            core,
            peers,
            self.demand,
            self.divergence,
            self.snapshot_names,
            self.progress_timer,
            on_behind=self.reconciliation.catch_up_to,
            on_leader_at_work=self.update_timers.forward_pending_updates,
        )
        self.proposals = ProposalHandler(
            core,
            self.ordered_queue,
            self.ordering,
            self.update_queue,
            window,
            validity,
            self.reconciliation.catch_up_to,
            self.reconciliation.catch_up_to,
            birth,
        )
        self.telling = TellingHandler(core, self.ordering, window, self.reconciliation.catch_up_to_told)
        self.accepts = AcceptHandler(core, self.ordering, window, self.telling)
        self.client_updates = ClientUpdateHandler(
            core, self.update_queue, self.demand, validity, self.reconciliation.offer
        )
        self.prepare = PrepareHandler(core, self.ordering, self.update_queue, self.alive, self.progress_timer, window)
        self.election = LeaderElectionHandler(
            core, self.prepare, self.update_queue, self.alive, self.progress_timer, peers, self.demand
        )
        self.view_raise = ViewRaise(core, peers, self.alive, self.election, self.progress_timer)
        self.reads = ReadIndexHandler(core, self.alive, rng)
        self.hand_over = HandOverHandler(core, peers, self.alive, self.election, self.reads, window, slot_time)
        self.log_positions = LogPositionHandler(core, peers, storage)
        self.storage_identity = StorageIdentityHandler(core, self.alive, peers, self.log_positions, self.take_part)
        self.disk_watch = DiskWatch(core, storage, self.alive)
        self.disk_watch.on_end = self.ordering.go_on
        self.epochs = EpochHandler(
            core,
            transport=transport,
            outbound=self.outbound,
            peers=peers,
            alive=self.alive,
            progress_timer=self.progress_timer,
            update_queue=self.update_queue,
            prepare=self.prepare,
            election=self.election,
            proposals=self.proposals,
            telling=self.telling,
            reads=self.reads,
            hand_over=self.hand_over,
            reconciliation=self.reconciliation,
            snapshots=self.snapshot_fetcher,
            storage_identity=self.storage_identity,
        )
        self.retransmission = Retransmission(
            core,
            self.election,
            self.prepare,
            self.proposals,
            self.alive,
            self.reconciliation,
            self.storage_identity,
            self.disk_watch,
            self.view_raise,
            self.hand_over,
            self.demand,
            rng,
            slot_time,
            self.update_timers.round_trip,
        )
        self._wire()
        self._introduce_waiting: Callable[[], None] = _nothing
        self._after_answers: Callable[[], None] = _nothing
        self.checks: list[Callable[[], None]] = []
        """Functions called last at the end of every turn: tests and the simulator check the invariants by them, and
        `LearnerNews` looks what is to be told, if there are servers that learn for good."""
        self.learner_news = LearnerNews(core, peers, self.alive, self.reconciliation, self.checks)
        self.discarded: dict[str, int] = {}
        """Line of Figure 4, or another reason -> number of messages that this server has discarded for it since its
        start."""
        self.shifts: dict[State, int] = dict.fromkeys(State, 0)
        """State -> number of times, since this server's start, that it has entered the state, or stayed in it with
        another attempted view."""
        self._told: tuple[State, int] | None = None
        self._has_found_leader = False
        """Whether the text log says that this server has led or followed since its start."""
        self._is_unlogged = False
        """Whether the text log has no line yet about the last change of State or Last_Attempted."""
        self._log_from = 0.0
        """Clock time, in seconds, from which on changes of State and Last_Attempted are logged."""

    def _wire(self) -> None:
        """Set the callbacks by which a handler calls another handler that is built later."""
        # Reconciliation executes slots through global ordering, which starts reconciliation when it finds a gap in the
        # ordered slots (section 5.6, trigger 2).
        self.ordering.on_gap = self._on_gap
        # A snapshot takes the place of slots that this server lacks: updates in them are pending no more.
        self.ordered_queue.on_adopted = self.update_queue.drop_spent
        self.proposals.may_begin = self.epochs.may_begin
        # The leader tells what it orders, in a cluster of many servers (Departure 55).
        self._follow_membership()
        self.membership.on_change.append(self._follow_membership)
        self.turn.due_messages = self.telling.take_due
        # The election starts and stops the Progress_Timer, whose expiry begins an election (Figure 6, Block A).
        self.progress_timer.on_expiry = self.election.suspect
        # A group that is written takes along what is known of the other servers' storages (Departure 43).
        self.turn.due_records = self.log_positions.due_records
        self.peers.on_incarnation = self._peer_has_started
        self.peers.on_first_vote = self.log_positions.write_first_vote
        # Retransmission repeats the messages of handlers that are built before it (Departure 49).
        self.proposals.on_sent = self.retransmission.proposal_sent
        self.election.on_begin = self.retransmission.election_begun
        self.reconciliation.on_unordered = self.retransmission.resend_to
        # A server that asks for slots below a snapshot is offered the snapshot (Departure 57).
        self.reconciliation.on_dropped = self.snapshot_fetcher.offer
        self.reconciliation.is_fetching = lambda: self.snapshot_fetcher.is_busy
        # A snapshot counts when a majority has executed the same (Departures 40 and 56).
        self.snapshot_taker.is_agreed = self.divergence.is_agreed
        self.peers.on_return = self._path_is_back
        self.update_timers.on_open_slot = self.reconciliation.ask_leader
        self.update_timers.is_behind = self.reconciliation.is_behind

    def _peer_has_started(self, server_id: int) -> None:
        """Called when a server has begun a later incarnation, which is noted on disk (Departure 43), and executes its
        history anew (Departure 40)."""
        self.log_positions.write_incarnation(server_id)
        self.divergence.forget_start(server_id)
        self.snapshot_names.forget_start(server_id)

    def _follow_membership(self) -> None:
        self.ordering.on_majority = self.telling.tell if self.membership.leader_tells else None

    def _on_gap(self, seq: int) -> None:
        """Slot `seq` is ordered here, and an earlier one is not: ask a peer for it or, as leader, repeat its
        PROPOSAL."""
        self.reconciliation.catch_up_to(seq)
        self.retransmission.gap_seen()

    def _path_is_back(self) -> None:
        """Called when a server is heard again after a silence: messages whose answers are missing are repeated soon,
        and the times of their answers are not measured.

        Departures 48 and 49.
        """
        self.retransmission.path_is_back()
        self.update_timers.path_is_back()

    def attach(
        self,
        *,
        introduce_waiting: Callable[[], None],
        after_answers: Callable[[], None],
        clients_wait: Callable[[], bool],
        disk_changed: Callable[[], None] = _nothing,
    ) -> None:
        """Connect the layer above (sessions), once, after `start`.

        `introduce_waiting` and `after_answers` are called at the end of every turn (see `end_turn`). `clients_wait`
        tells whether a client of this server waits for an answer or an event (Departure 25). `disk_changed` is called
        in a turn when the disk begins or ends to be in trouble (`DiskWatch`).
        """
        self.disk_watch.on_change = disk_changed
        self._introduce_waiting = introduce_waiting
        self._after_answers = after_answers
        self.demand.clients_wait = clients_wait

    def adopt(self, window_slots: int, horizon_slots: int, cluster_identity: bytes) -> None:
        """Follow the settings of the cluster, which the state machine executes in the present slot (Departure 34)."""
        self.window.adopt(window_slots)
        self.ordered_queue.horizon_slots = horizon_slots
        self.snapshot_taker.cluster_identity = cluster_identity

    # ------------------------------------------------------------------ start and stop

    def start(self) -> None:
        """Recover, listen, and enter an election (Figure 14) as soon as this storage is admitted (Departure 12)."""
        found = self.storage.recover()
        if found.members is not None:
            self.membership.enter(found.members)
            self._transport.enter_epoch(found.members, self.membership.others)
        self.log_positions.begin(found)
        identities, ordered = self.membership.identities, {**self.membership.identities}
        identities.update({server_id: peer.identity for server_id, peer in found.peers.items()})
        identities.update(ordered)
        self.ordered_queue.passes = found.passes
        if found.lost is None:
            recover(self.data, found, self.ordered_queue, self._report_recovery)
        else:
            self._begin_without_state(found, found.lost)
        self._log_from = self._clock.seconds() + self.settings.progress_seconds
        self.turn.durable.last_installed = self.data.views.last_installed
        self.turn.durable.local_aru = self.data.ordering.local_aru
        if self._tracer is not None:
            self._tracer.trace("start", view=found.last_installed, aru=found.local_aru, incarnation=found.incarnation)
        server = self.data.server
        server.incarnation, server.start_mark, server.storage_identity = (
            found.incarnation,
            found.start_mark,
            found.identity,
        )
        passes = list_digest(found.passes)
        self._transport.start(self, found.identity, self.log_positions.start, self.log_positions.told, passes)
        self.turn.run(self._begin_admission, found.identity)
        self.retransmission.start()
        self.snapshot_taker.begin()

    def _begin_without_state(self, found: Recovered, lost: SnapshotName) -> None:
        """Departure 58: start with the promises on this disk, and fetch the state of another server. Raises
        `StorageRefused` if there is no other server."""
        if not self.membership.others:
            raise StorageRefused(
                f"the snapshot of slot {lost.seq}, with which this server starts, is lost, and no other server of this "
                "cluster has one: bring the file back, or make a new cluster of a backup (pfsb restore)"
            )
        recover_views(self.data, found)
        self.storage_identity.has_state = lambda: self.snapshot_fetcher.lost is None
        self.snapshot_fetcher.on_state = lambda: recover_behind(
            self.data, found, self.ordered_queue, self._report_recovery
        )
        self.snapshot_fetcher.on_ready = self.storage_identity.admit_if_known
        self.snapshot_fetcher.begin_without_state(lost)
        self._log.error(
            "this server has lost its snapshot of slot {seq}: its promises are whole, and it fetches a snapshot from "
            "another server; until then it neither votes nor serves",
            seq=lost.seq,
        )

    def _begin_admission(self, identity: bytes) -> None:
        self.log_positions.write_start()
        self.ordered_queue.on_epoch = self._begin_epoch
        self.storage_identity.begin_admission(identity)
        if self.ordered_queue.next_members is not None:
            self.ordered_queue.begin_epoch(by_snapshot=True)  # the change was executed just now, by `recover`

    def _begin_epoch(self, members: Members, by_snapshot: bool) -> None:
        self.epochs.begin(members, by_snapshot=by_snapshot)

    def take_part(self) -> None:
        """Begin to vote, when this server is admitted: ask for missing slots, and enter an election."""
        self.log_positions.write_admission()
        self.reconciliation.ask_at_start()
        self.election.shift_to_leader_election(self.data.views.last_attempted + 1)

    def stop(self) -> Any:
        """Stop at once, as in a crash; the disk stays consistent.

        Returns None, or a Deferred that fires when the transport has stopped.
        """
        self.turn.stop()
        self.progress_timer.stop()
        self.update_timers.stop()
        self.reconciliation.stop()
        self.snapshot_taker.stop()
        self.snapshot_fetcher.stop()
        self.reads.stop()
        self.hand_over.stop()
        self.retransmission.stop()
        self.learner_news.stop()
        if self._tracer is not None:
            self._tracer.trace("stop")
        return self._transport.stop()

    # ------------------------------------------------------------------ events

    def perform(self, event: Callable[..., None], *args: Any) -> None:
        """Run an event of the layers above, the call `event(*args)`, as a turn."""
        self.turn.run(event, *args)

    def end_turn(self) -> None:
        """The end of every turn, inside it. The order of the steps is part of the protocol."""
        # The sessions introduce the updates whose predecessors have been executed in this turn. This step comes before
        # the leader proposes, so that its next proposal takes the updates along.
        self._introduce_waiting()
        # Figure 11, Block A: the leader proposes once a turn. In a cluster of one that executes the proposals at once.
        self.proposals.send_proposal()
        if self.epochs.is_to_fill:
            self.epochs.fill()
        # Answer the reads whose slot has been executed in this turn, also by the step above (in a cluster of one).
        self.reads.answer_ready()
        self.tell_state()
        # The sessions tell clients about revisions and digests. This step comes last, so that these calls stand behind
        # all answers of this turn in the outbox.
        self._after_answers()
        for check in self.checks:
            check()

    def introduce(self, update: ClientUpdate, *, is_asked: bool = True) -> None:
        """Take a new update of one of this server's own clients. Called in a turn.

        `is_asked` is False for an update that no client waits for, since the server has made it for itself.
        """
        if is_asked:
            self.alive.client_asks()
        self.client_updates.on_client_update(update, self.data.server.server_id)

    def receive(
        self,
        sender: int,
        identity: bytes,
        messages: Sequence[Message],
        start: int = 0,
        position: int = 0,
        epoch: int = 0,
    ) -> None:
        self.turn.run(self._receive, sender, identity, messages, start, position, epoch)

    def peer_refused(self, server_id: int) -> None:
        self.turn.run(self.alive.peer_refused, server_id)

    def _receive(
        self, sender: int, identity: bytes, messages: Sequence[Message], start: int, position: int, epoch: int
    ) -> None:
        """Handle all messages of one frame, which are one event and so one turn.

        While this server's disk is in trouble, most messages are discarded (`DiskWatch`).
        """
        if self.turn.trouble is not None:
            handled = self.disk_watch.handled(messages)
            self.discarded[LINE] = self.discarded.get(LINE, 0) + len(messages) - len(handled)
            messages = handled
        if sender not in self.peers.by_id:
            self._receive_from_stranger(sender, messages, epoch)
            return
        storage_identity, membership = self.storage_identity, self.membership
        members = membership.members
        if not storage_identity.is_who_it_says(sender, identity, messages):
            self.epochs.note_unknown(sender, epoch)
            return
        if not self.peers.note_frame(sender, start, position):
            self.log_positions.refuse(sender, identity, start)
            return
        for message in messages:
            if self._tracer is not None:
                self._tracer.trace("receive", sender=sender, message=message)
            if membership.members is members and epoch == members.epoch and not storage_identity.is_newcomer:
                line = self.dispatch(message, sender, position, epoch)
            else:
                line = self._dispatch_some(message, sender, position, epoch)
            if line is not None:
                self._discard(message, line)

    def _dispatch_some(self, message: Message, sender: int, position: int, epoch: int) -> str | None:
        """Dispatch a message of another epoch, or one that comes to a server that is not admitted, if it is of a kind
        that is handled all the same."""
        line: str | None = None
        without_state = self.snapshot_fetcher.lost is not None
        if without_state and not isinstance(message, WITHOUT_STATE):
            return "no state"
        if sender not in self.peers.by_id:  # a message before this one has brought the change that removes it
            self._receive_from_stranger(sender, [message], epoch)
            return OTHER_EPOCH
        if epoch != self.membership.epoch:
            line = self.epochs.line_against(message, sender, epoch)
        if line is None and self.storage_identity.is_newcomer and not without_state:
            line = None if isinstance(message, FOR_NEWCOMERS) else "newcomer"
        return self.dispatch(message, sender, position, epoch) if line is None else line

    def _receive_from_stranger(self, sender: int, messages: Sequence[Message], epoch: int) -> None:
        """Handle the messages of a server that is none of this epoch: those that ask for executed slots or bring them,
        but for what cannot be right."""
        right = []
        for message in messages:
            if isinstance(message, FromStranger):
                line = self._line_against_stranger(message, sender)
                if line is None:
                    right.append(message)
                else:
                    self._discard(message, line)
        self.epochs.on_stranger_frame(sender, right, epoch)

    def _line_against_stranger(self, message: FromStranger, sender: int) -> str | None:
        if isinstance(message, Alive):  # its view is one of another epoch, and does not count
            return None if message.local_aru <= SLOT_MAX else IMPLAUSIBLE
        line = self.plausibility.line_against(message, sender)
        if line is None and isinstance(message, ReconciliationReply) and not self.validity.of_entries(message.updates):
            line = INVALID
        return line

    def dispatch(self, message: Message, sender: int, position: int = 0, epoch: int = 0) -> str | None:
        """Check a message by Figure 4 and hand it to its handler. Each kind of message has one branch, here or in
        `_dispatch_rare`. `position` is the log position that the sender's frame tells, `epoch` the epoch.

        Rare messages are checked by `Plausibility` first; to save work, the handlers of frequent ones check numbers
        themselves. Returns the line of Figure 4, or another reason, that discards the message, or None.
        """
        data = self.data
        match message:
            case Accept():
                line = conflict.accept(data, message)
                if line is None and message.view > data.views.last_installed:
                    line = self.plausibility.line_against(message, sender)
                if line is None and self.accepts.on_accept(message):
                    self.peers.believe(sender, position)
            case Proposal():
                if data.server.state is State.LEADER_ELECTION:
                    self.election.rejoin_if_ordering(message)
                line = conflict.proposal(data, self.membership, message)
                if line is None:
                    line = self.proposals.on_proposal(message)
            case ClientUpdate():
                line = self.client_updates.on_client_update(message, sender)
            case Ordered():
                line = conflict.ordered(data, self.membership, message)
                if line is None and message.view > data.views.last_installed:
                    line = self.plausibility.line_against(message, sender)
                if line is None:
                    self.telling.on_ordered(message)
            case _:
                line = self.plausibility.line_against(message, sender) or self._dispatch_rare(message, position, epoch)
        return line

    def _dispatch_rare(self, message: RareMessage, position: int, epoch: int) -> str | None:
        data, membership = self.data, self.membership
        line = None
        match message:
            case Alive():
                self.alive.on_alive(message)
                if not self.storage_identity.is_newcomer:
                    self.election.on_alive(message)
                self.storage_identity.answer_alive(message)
            case VCProof():
                line = conflict.vc_proof(data, message)
                if line is None:
                    self.election.on_vc_proof(message)
            case ViewChange():
                line = conflict.view_change(data, message, progress_timer_set=self.progress_timer.running)
                if line is None:
                    if self.election.on_view_change(message):
                        self.peers.believe(message.server_id, position)
                elif data.server.state is State.REG_NONLEADER:
                    self.election.leader_has_left(message)
            case Prepare():
                line = conflict.prepare(data, membership, message)
                if line is None:
                    self.prepare.on_prepare(message)
            case PrepareOK() if membership.leader_of(message.view) == message.server_id:
                line = conflict.part_wanted(data, message)
                if line is None:
                    self.prepare.on_part_wanted(message)
            case PrepareOK():
                line = conflict.prepare_ok(data, membership, message)
                if line is None and not self.validity.of_entries(message.data_list):
                    line = INVALID
                if line is None and self.prepare.on_prepare_ok(message):
                    self.peers.believe(message.server_id, position)
                    self.turn.hold_proposals()
            case GloballyOrderedUpdate():
                if self.validity.of_batch(message.seq, message.batch, is_ordered=True):
                    self.ordering.on_globally_ordered_update(message)
                else:
                    line = INVALID
            case ReconciliationRequest():
                self.reconciliation.on_reconciliation_request(message)
            case ReconciliationReply():
                if self.validity.of_entries(message.updates):
                    self.reconciliation.on_reconciliation_reply(message, epoch)
                else:
                    line = INVALID
            case SnapshotOffer():
                self.snapshot_fetcher.on_snapshot_offer(message)
            case SnapshotRequest():
                self.snapshot_fetcher.on_snapshot_request(message)
            case SnapshotPart():
                self.snapshot_fetcher.on_snapshot_part(message)
            case Confirm():
                self.reads.on_confirm(message)
            case Confirmed():
                self.reads.on_confirmed(message)
            case ReadRequest():
                self.reads.on_read_request(message)
            case ReadIndex():
                self.reads.on_read_index(message)
            case Stranger():
                self.storage_identity.on_stranger(message)
            case Acquainted():
                self.storage_identity.on_acquainted(message)
            case Heard():
                self.storage_identity.on_heard(message)
            case HandOver():
                line = conflict.proposal(data, membership, message)
                if line is None:
                    self.hand_over.on_hand_over(message)
            case KnownPosition():
                self.log_positions.on_known_position(message)
                self.storage_identity.admit_if_known()
            case _:
                assert_never(message)
        return line

    def _discard(self, message: Message, line: str) -> None:
        self.discarded[line] = self.discarded.get(line, 0) + 1
        if self._tracer is not None:
            self._tracer.trace("discard", line=line, message=message)

    # ------------------------------------------------------------------ log and trace

    def _report_recovery(self, done: int, of: int) -> None:
        if done % 10_000 == 0:
            self._log.info("recovering: {done} of {of} slots executed again", done=done, of=of)

    def tell_state(self) -> None:
        """At the end of each turn: if State or Last_Attempted has changed, write a line to the text log and the
        trace."""
        state, view = self.data.server.state, self.data.views.last_attempted
        if (state, view) == self._told or view == 0:
            if self._is_unlogged:
                self._log_state()
            return
        before = self._told[0].value if self._told is not None else None
        self._told = state, view
        self.shifts[state] += 1
        if self._tracer is not None:
            self._tracer.trace("state", **{"from": before, "to": state.value}, view=view)
        self._is_unlogged = True
        self._log_state()

    def _log_state(self) -> None:
        """Write a line to the text log about State and Last_Attempted, unless this server has just started.

        A server that starts may hear of several views within a moment, and seeks its first leader in any case: the
        first line comes when a Progress_Timer has passed, and attempts before the first leader have the level `debug`.
        """
        if self._clock.seconds() < self._log_from:
            return
        self._is_unlogged = False
        assert self._told is not None, "there is a state to tell"
        state, view = self._told
        self._has_found_leader |= state is not State.LEADER_ELECTION
        tell = self._log.info if self._has_found_leader else self._log.debug
        match state:
            case State.LEADER_ELECTION:
                if self.membership.server_id in self.membership.voters:
                    tell("attempts view {view}", view=shown(view))
            case State.REG_LEADER:
                tell("leads view {view}", view=shown(view))
            case State.REG_NONLEADER:
                leader = self.membership.leader_of(view)
                tell("follows server {leader} in view {view}", leader=leader, view=shown(view))
