"""Departure 60: the membership changes by an ordered update, and executing it ends its epoch.

The update of a change, in slot S, names the servers of the next epoch. A server that executes it goes on in the next
epoch within the same turn (`EpochHandler.begin`): whatever the former epoch has proposed, voted or ordered above S is
void, and the next epoch fills these slots anew. All servers compute that alike, since execution is in order, and no
client was answered from a slot above S, since none was executed.

Each frame tells the epoch in which its messages were made. That holds because `begin` drops all messages that have not
left, as a network may lose them, and because nothing of the new epoch leaves before its record is on disk. So a message
counts only in its own epoch (`line_against`), but for those that bring executed slots, and for those that ask for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.hand_over import HandOverHandler
from pfsb.paxos.interfaces import ITransport
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.members import Members
from pfsb.paxos.messages import (
    Acquainted,
    Alive,
    ClientUpdate,
    Heard,
    KnownPosition,
    Message,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
    Stranger,
)
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.proposal import ProposalHandler
from pfsb.paxos.read_index import ReadIndexHandler
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.records import AruRecord, EpochRecord, ViewRecord
from pfsb.paxos.snapshot_fetching import SnapshotFetcher
from pfsb.paxos.storage_identity import StorageIdentityHandler
from pfsb.paxos.telling import TellingHandler
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.support.limits import SLOT_MAX

OTHER_EPOCH: Final = "epoch"
"""Reason, given in place of a line of Figure 4, for which a message of another epoch is discarded."""
ANY_EPOCH: Final = (
    ReconciliationRequest,
    ReconciliationReply,
    SnapshotOffer,
    SnapshotRequest,
    SnapshotPart,
    ClientUpdate,
    Stranger,
    Acquainted,
    Heard,
    KnownPosition,
)
"""Kinds of messages that are handled whatever their epoch: they bring or ask for what was executed, and what was
executed holds in all epochs; or they are about storages."""
FromStranger = Alive | ReconciliationRequest | ReconciliationReply | SnapshotOffer | SnapshotRequest | SnapshotPart
"""A message of a kind that is handled if its sender is none of this epoch."""

LATER_SECONDS: Final = 10.0
"""How long, in seconds, after one frame of a later epoch a server that has executed nothing begins no cluster."""
UNKNOWN_SECONDS: Final = 2.0
"""How long, in seconds, a server must hear of a later epoch without being known until it begins none for good, and
refuses clients. A server that is a member becomes known within some messages."""


class EpochHandler(Handler):
    """Ends an epoch of the membership and begins the next, and discards messages of other epochs."""

    _log = Logger()

    def __init__(
        self,
        core: Core,
        *,
        transport: ITransport,
        outbound: Outbound,
        peers: Peers,
        alive: AliveHandler,
        progress_timer: ProgressTimer,
        update_queue: UpdateQueue,
        prepare: PrepareHandler,
        election: LeaderElectionHandler,
        proposals: ProposalHandler,
        telling: TellingHandler,
        reads: ReadIndexHandler,
        hand_over: HandOverHandler,
        reconciliation: ReconciliationHandler,
        snapshots: SnapshotFetcher,
        storage_identity: StorageIdentityHandler,
    ) -> None:
        super().__init__(core)
        self._transport = transport
        self._outbound = outbound
        self._peers = peers
        self._alive = alive
        self._progress_timer = progress_timer
        self._update_queue = update_queue
        self._prepare = prepare
        self._election = election
        self._proposals = proposals
        self._telling = telling
        self._reads = reads
        self._hand_over = hand_over
        self._reconciliation = reconciliation
        self._snapshots = snapshots
        self._storage_identity = storage_identity
        self._told_at: dict[int, float] = {}
        """Server of an earlier epoch -> time by the clock at which this server has told it last how far it has
        executed."""
        self._later_at = NEVER
        """Time by the clock at which a server that this one does not know has told last of a later epoch."""
        self._later_since = 0.0
        """Time by the clock at which such a server was heard first, without a pause of `LATER_SECONDS` since."""
        self.missed_epoch = 0
        """The epoch of which servers that do not know this one have told for `UNKNOWN_SECONDS`; 0: none have."""
        self.begun: dict[int, int] = {}
        """Epoch -> the slot that this server had executed when it began the epoch, for all that it has begun since its
        start."""
        self.is_to_fill = False
        """Whether this server leads an epoch that it has begun in this turn, and has proposed nothing in it yet."""

    # ------------------------------------------------------------------ the change

    def begin(self, members: Members, *, by_snapshot: bool = False) -> None:
        """Begin the next epoch, in the turn that has executed its change, or has installed a snapshot of that epoch.

        The slot of the change goes to all servers, of both epochs, that have not told that they have executed it. The
        votes for it, and what the leader tells as ordered, may not have left this server, and are dropped here; without
        them the others would learn of the change by an ALIVE or by an election.
        After a snapshot no server leads its first view: a server that has led it has executed the change.
        """
        data = self._data
        reached = data.ordering.local_aru
        lagging = {i: peer.local_aru for i, peer in self._peers.by_id.items() if peer.local_aru < reached}
        data.ordering.global_history.cut_above(reached)
        data.views.vc.clear()
        data.preparing.prepare = None
        data.preparing.prepare_oks.clear()
        self._telling.untold.clear()
        self._turn.begin_epoch()
        self._outbound.stop()
        former = self._membership.others
        self._membership.enter(members)
        self.begun[members.epoch] = reached
        self._transport.enter_epoch(members, self._membership.others)
        first_view = members.first_view
        assert first_view > data.views.last_installed, "views of a later epoch are above all views of earlier ones"
        data.views.last_attempted = data.views.last_installed = first_view
        self._turn.append(AruRecord(reached))
        self._turn.append(EpochRecord(members))
        self._turn.append(ViewRecord(first_view, first_view))
        self._hand_over.begin_epoch()
        if not by_snapshot:
            # A server that comes needs more than what is in memory, so it is brought the change alone.
            added = dict.fromkeys(set(self._membership.others) - set(former), reached - 1)
            self._reconciliation.bring(reached, dict(sorted((lagging | added).items())))
        self._take_place(first_view, by_snapshot=by_snapshot)
        self._reads.begin_epoch(reached)
        self._reconciliation.begin_epoch()
        if self._tracer is not None:
            self._tracer.trace("epoch", epoch=members.epoch, seq=reached)
        self._log.info(
            "epoch {epoch} of the membership begins behind slot {seq}: servers {voters} vote, {learners}",
            epoch=members.epoch,
            seq=reached,
            voters=", ".join(map(str, members.voters)),
            learners=f"servers {', '.join(map(str, members.learners))} learn" if members.learners else "none learns",
        )

    def _take_place(self, first_view: int, *, by_snapshot: bool) -> None:
        """Lead or follow in the first view of the epoch, if this server votes in it."""
        was_newcomer = self._storage_identity.is_newcomer
        if not was_newcomer:
            self._data.server.state = State.LEADER_ELECTION
        self._storage_identity.begin_epoch()
        if self._storage_identity.is_newcomer:
            self._update_queue.clear()
            self._progress_timer.stop()
        elif was_newcomer:
            return  # this server votes from now on, and has entered an election
        elif not self._membership.i_lead(first_view):
            self._prepare.shift_to_reg_nonleader()
        elif by_snapshot:
            self._election.shift_to_leader_election(first_view + 1)
        else:
            # No view of this epoch was before this one, so there is nothing to learn by a Prepare phase (Figure 7).
            self._update_queue.drop_of_strangers(self._membership.ids)
            self._prepare.shift_to_reg_leader()
            self.is_to_fill = True

    def fill(self) -> None:
        """At the end of the turn that has begun an epoch: let its leader propose the slot after the change, if only a
        no-op. The epoch is in force when that slot is executed."""
        self.is_to_fill = False
        self._proposals.propose_time()

    # ------------------------------------------------------------------ messages

    def line_against(self, message: Message, sender: int, epoch: int) -> str | None:
        """`OTHER_EPOCH` if a message that was made in `epoch` must be discarded for that, else None.

        A sender in an earlier epoch is told that there is a later one.
        """
        own = self._membership.epoch
        if epoch == own or isinstance(message, ANY_EPOCH):
            return None
        if isinstance(message, Alive) and message.local_aru <= SLOT_MAX:
            self._note_alive(message, is_later=epoch > own)
        if epoch < own:
            self.tell(sender)
        return OTHER_EPOCH

    def on_stranger_frame(self, sender: int, messages: Sequence[FromStranger], epoch: int) -> None:
        """Take a frame of a server that is none of this epoch: serve it the slots or the snapshot that it asks for, and
        tell it that there are some. If it is in a later epoch, ask it in turn: all servers of this epoch may be gone. A
        server that has lost its own state has nothing to serve (Departure 58)."""
        if self._snapshots.lost is not None:
            return
        for message in messages:
            match message:
                case ReconciliationRequest():
                    self._reconciliation.on_reconciliation_request(message)
                case SnapshotRequest():
                    self._snapshots.on_snapshot_request(message)
                case _:
                    if epoch > self._membership.epoch:
                        self._learn(message, epoch)
        self.tell(sender)

    def _learn(self, message: Alive | ReconciliationReply | SnapshotOffer | SnapshotPart, epoch: int) -> None:
        """Learn from a server of a later epoch, which is none of this one, which updates were executed. They hold in
        all epochs; and once the changes that have brought that server are executed here, it is a peer."""
        match message:
            case Alive():
                self._reconciliation.ask_stranger(message.server_id, message.local_aru)
            case ReconciliationReply():
                self._reconciliation.on_stranger_reply(message, epoch)
            case SnapshotOffer():
                self._snapshots.on_snapshot_offer(message)
            case SnapshotPart():
                self._snapshots.on_snapshot_part(message)

    def tell(self, sender: int) -> None:
        """Tell a server of an earlier epoch by an ALIVE how far this server has executed, so that it asks for the slots
        that it lacks, the change among them. It is told once within `resend_seconds`."""
        now = self._clock.seconds()
        if now - self._told_at.get(sender, NEVER) >= self._settings.resend_seconds:
            self._told_at[sender] = now
            self._turn.send(self._alive.own_alive(), sender)

    def note_unknown(self, sender: int, epoch: int) -> None:
        """Note the epoch of a frame whose sender's storage this server does not know, so that it was discarded."""
        membership = self._membership
        if epoch <= membership.epoch or self._data.ordering.local_aru or membership.server_id not in membership.voters:
            return
        now = self._clock.seconds()
        if now - self._later_at > LATER_SECONDS:
            self._later_since = now
        self._later_at = now
        if self.missed_epoch == 0 and now - self._later_since >= UNKNOWN_SECONDS:
            self.missed_epoch = epoch
            self._log.warn(
                "server {other} is in epoch {epoch} of this cluster, and does not know this server, which has executed "
                "nothing, and begins no second cluster: if it was removed, stop it, and delete its configuration",
                other=sender,
                epoch=epoch,
            )

    @property
    def is_left_behind(self) -> bool:
        """Whether this server is a founder that has executed nothing, while others, which do not know it, are in a
        later epoch: it was removed and has lost its data, as far as it knows."""
        return self.missed_epoch > 0 and self._data.ordering.local_aru == 0

    def may_begin(self) -> bool:
        """Whether the cluster may begin, as far as this server knows, which has executed nothing.

        A cluster in a later epoch has begun, and a majority of its founders had executed slots then. So when a majority
        of them has nothing in slot 1, they were removed and have lost their data: they would begin a second cluster.
        """
        return self.missed_epoch == 0 and self._clock.seconds() - self._later_at > LATER_SECONDS

    def _note_alive(self, message: Alive, *, is_later: bool) -> None:
        """Take from an ALIVE of another epoch how far its sender has executed, and nothing about views.

        A leader that hears of executed slots from a later epoch leaves its view, since leaders ask for no slots; one
        whose disk is in trouble does so when it takes records again.
        """
        sender = message.server_id
        peer = self._peers.by_id[sender]
        peer.view, peer.state, peer.has_clients = 0, State.LEADER_ELECTION, message.has_clients
        peer.local_aru = message.local_aru
        self._storage_identity.answer_alive(message)
        if not self._peers.is_ahead(sender, self._data.ordering.local_aru):
            return
        if is_later and self._data.server.state is State.REG_LEADER and self._turn.trouble is None:
            self._election.suspect()
        self._reconciliation.catch_up_to(message.local_aru)
