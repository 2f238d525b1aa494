"""One server's protocol: every handler built bottom up, and the one dispatch."""

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
from pfsb.paxos.client_update import ClientUpdateHandler
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
from pfsb.paxos.flow_control import FlowControl
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.interfaces import IFrameReceiver, IStableStorage, IStateMachine, ITracer, ITransport
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import (
    Accept,
    Acquainted,
    Alive,
    ClientUpdate,
    Confirm,
    Confirmed,
    GloballyOrderedUpdate,
    Message,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    ReconciliationRequest,
    State,
    Stranger,
    VCProof,
    ViewChange,
)
from pfsb.paxos.ordered_update_queue import OrderedUpdateQueue
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.proposal import ProposalHandler
from pfsb.paxos.read_index import ReadIndexHandler
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.recovery import recover
from pfsb.paxos.retransmission import Retransmission
from pfsb.paxos.settings import Settings
from pfsb.paxos.storage_identity import StorageIdentityHandler
from pfsb.paxos.turn import Turn
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.paxos.update_timers import UpdateTimers


def new_data(server_id: int, settings: Settings) -> DataStructures:
    """Figure 2 with its initial values."""
    return DataStructures(
        ServerData(server_id),
        ViewData(),
        PrepareData(),
        OrderingData(),
        TimerData(settings.progress_seconds),
        ClientData(LastExecuted(settings.horizon_slots)),
    )


@implementer(IFrameReceiver)
class Replica:
    """The protocol of one server. It is told what arrives, and by its clock what is due; it never waits."""

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
    ) -> None:
        self._storage = storage
        self._transport = transport
        self._tracer = tracer
        self.settings = settings
        self.membership = membership = Membership(server_id, tuple(servers))
        self.data = data = new_data(server_id, settings)
        self.outbound = Outbound(membership, transport, clock, settings, tracer)
        self.turn = turn = Turn(data, storage, self.outbound, on_failure, tracer)
        self.progress_timer = ProgressTimer(data.timers, turn, clock, rng, settings, tracer)
        self.update_timers = UpdateTimers(data, membership, turn, clock, settings, tracer)
        self.update_queue = UpdateQueue(data, settings, self.update_timers.start_timer)
        self.ordered_queue = OrderedUpdateQueue(data, turn, state_machine, settings, tracer)
        self.flow_control = FlowControl(data, membership, turn, clock, settings, self.progress_timer)
        self.ordering = GlobalOrderingHandler(
            data, membership, self.ordered_queue, self.update_queue, self.progress_timer, self.flow_control
        )
        self.proposals = ProposalHandler(
            data, turn, clock, self.ordered_queue, self.ordering, self.update_queue, self.flow_control
        )
        self.accepts = AcceptHandler(data, self.ordering, self.flow_control)
        self.client_updates = ClientUpdateHandler(data, membership, turn, self.update_queue, self.flow_control)
        self.prepare = PrepareHandler(
            data, membership, turn, settings, self.ordering, self.update_queue, self.flow_control, self.progress_timer
        )
        self.election = LeaderElectionHandler(
            data, membership, turn, self.prepare, self.update_queue, self.flow_control, self.progress_timer
        )
        self.reconciliation = ReconciliationHandler(
            data, membership, turn, clock, rng, storage, settings, self.ordering, self.flow_control, tracer
        )
        self.reads = ReadIndexHandler(data, membership, turn, clock, settings, self.flow_control)
        self.storage_identity = StorageIdentityHandler(data, membership, turn, self.flow_control)
        self.retransmission = Retransmission(
            data, membership, turn, clock, settings, self.election, self.prepare, self.proposals, self.flow_control
        )
        self.storage_identity.on_admitted = self.take_part
        self.outbound.is_waited_at = self.flow_control.is_waited_at
        self.ordering.on_gap = self.reconciliation.catch_up_to
        self.proposals.on_far_ahead = self.reconciliation.catch_up_to
        self.flow_control.on_behind = self.reconciliation.catch_up_to
        self.flow_control.on_leader_at_work = self.update_timers.forward_pending_updates
        turn.at_end.append(self.proposals.send_proposal)
        turn.at_end.append(self.reads.answer_ready)
        self.discarded: dict[str, int] = {}
        """How many messages ran into which line of Figure 4."""
        self.shifts: dict[State, int] = dict.fromkeys(State, 0)
        """How often this server has shifted to a state, or to the same one in another view."""
        self._told: tuple[State, int] | None = None
        turn.at_end.append(self._tell_state)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Recover, listen, and enter an election (Figure 14), as soon as others know whose disk this is."""
        found = self._storage.recover()
        self.membership.identities.update(found.peers)
        recover(self.data, found, self.ordered_queue, self._report_recovery)
        self.turn.durable.last_installed = self.data.views.last_installed
        self.turn.durable.local_aru = self.data.ordering.local_aru
        if self._tracer is not None:
            self._tracer.trace("start", view=found.last_installed, aru=found.local_aru, incarnation=found.incarnation)
        self._transport.start(self, found.identity, found.incarnation)
        self.data.server.incarnation = found.incarnation
        self.turn.run(self.storage_identity.begin_admission, found.identity)
        self.retransmission.start()

    def take_part(self) -> None:
        self.reconciliation.ask_at_start()
        self.election.shift_to_leader_election(self.data.views.last_attempted + 1)

    def stop(self) -> Any:
        """Stop at once, as a crash would; what is on disk is whole. Returns what the transport's stop returns."""
        self.turn.stop()
        self.progress_timer.stop()
        self.update_timers.stop()
        self.reconciliation.stop()
        self.reads.stop()
        self.retransmission.stop()
        if self._tracer is not None:
            self._tracer.trace("stop")
        return self._transport.stop()

    # ------------------------------------------------------------------ events

    def perform(self, event: Callable[..., None], *args: Any) -> None:
        """Run something of the layers above as a turn."""
        self.turn.run(event, *args)

    def introduce(self, update: ClientUpdate) -> None:
        """In a turn: an update of one of this server's own clients."""
        self.flow_control.client_asks()
        self.client_updates.on_client_update(update, self.data.server.server_id)

    def receive(self, sender: int, identity: bytes, messages: Sequence[Message]) -> None:
        self.turn.run(self._receive, sender, identity, messages)

    def peer_refused(self, server_id: int) -> None:
        self.turn.run(self.flow_control.peer_refused, server_id)

    def _receive(self, sender: int, identity: bytes, messages: Sequence[Message]) -> None:
        """All messages of one frame are one event."""
        if not self.storage_identity.is_who_it_says(sender, identity):
            return
        self.flow_control.note_heard(sender)
        for message in messages:
            if self._tracer is not None:
                self._tracer.trace("receive", sender=sender, message=message)
            line = self.dispatch(message, sender) if self.storage_identity.takes(message) else "newcomer"
            if line is not None:
                self._discard(message, line)

    def dispatch(self, message: Message, sender: int) -> str | None:
        """Figure 4, then the handler: the table of contents of the protocol. Returns the line that discards."""
        data, membership = self.data, self.membership
        line = None
        match message:
            case Accept():
                line = conflict.accept(data, message)
                if line is None:
                    self.accepts.on_accept(message)
            case Proposal():
                if data.server.state is State.LEADER_ELECTION:
                    self.election.rejoin_if_ordering(message)
                line = conflict.proposal(data, membership, message)
                if line is None:
                    self.proposals.on_proposal(message)
            case ClientUpdate():
                self.client_updates.on_client_update(message, sender)
            case Alive():
                self.flow_control.on_alive(message)
                self.storage_identity.answer_alive(message)
            case VCProof():
                line = conflict.vc_proof(data, message)
                if line is None:
                    self.election.on_vc_proof(message)
            case ViewChange():
                line = conflict.view_change(data, message, progress_timer_set=self.progress_timer.running)
                if line is None:
                    self.election.on_view_change(message)
                elif data.server.state is State.REG_NONLEADER:
                    self.election.leader_has_left(message)
            case Prepare():
                line = conflict.prepare(data, membership, message)
                if line is None:
                    self.prepare.on_prepare(message)
            case PrepareOK():
                line = conflict.prepare_ok(data, membership, message)
                if line is None:
                    self.prepare.on_prepare_ok(message)
            case GloballyOrderedUpdate():
                self.ordering.on_globally_ordered_update(message)
            case ReconciliationRequest():
                self.reconciliation.on_reconciliation_request(message)
            case ReconciliationReply():
                self.reconciliation.on_reconciliation_reply(message)
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
            case _:
                assert_never(message)
        return line

    def _discard(self, message: Message, line: str) -> None:
        self.discarded[line] = self.discarded.get(line, 0) + 1
        if self._tracer is not None:
            self._tracer.trace("discard", line=line, message=message)

    # ------------------------------------------------------------------ telling

    def _report_recovery(self, done: int, of: int) -> None:
        if done % 10_000 == 0:
            self._log.info("recovering: {done} of {of} slots executed again", done=done, of=of)

    def _tell_state(self) -> None:
        """A view's story, for the log and the trace."""
        state, view = self.data.server.state, self.data.views.last_attempted
        if view == 0 or (state, view) == self._told:
            return
        before = self._told[0].value if self._told is not None else None
        self._told = state, view
        self.shifts[state] += 1
        if self._tracer is not None:
            self._tracer.trace("state", **{"from": before, "to": state.value}, view=view)
        match state:
            case State.LEADER_ELECTION:
                self._log.info("attempts view {view}", view=view)
            case State.REG_LEADER:
                self._log.info("leads view {view}", view=view)
            case State.REG_NONLEADER:
                leader = self.membership.leader_of(view)
                self._log.info("follows server {leader} in view {view}", leader=leader, view=view)
