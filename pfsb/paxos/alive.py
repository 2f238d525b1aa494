"""ALIVE and VC_PROOF messages (section 5.10 of the paper), and hints that a server is down.

Departure 10: an idle system elects no new leader. While a server knows of no unexecuted update, an ALIVE from the
leader of its view counts as progress. A leader restarts its own Progress_Timer while it hears ALIVE from a majority in
its view, and suspects itself otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.demand import Demand
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.divergence import DivergenceHandler
from pfsb.paxos.messages import Alive, State, VCProof
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.snapshot_names import SnapshotNames


class AliveHandler(Handler):
    """Sends ALIVE and VC_PROOF, and draws conclusions from the ALIVE messages of the other servers."""

    def __init__(
        self,
        core: Core,
        peers: Peers,
        demand: Demand,
        divergence: DivergenceHandler,
        snapshot_names: SnapshotNames,
        progress_timer: ProgressTimer,
        on_behind: Callable[[int], None],
        on_leader_at_work: Callable[[], None],
    ) -> None:
        """`on_behind` is called for each ALIVE that carries a higher Local_Aru than this server's, with that Local_Aru
        (section 5.6, trigger 3). `on_leader_at_work` is called once for each view that this server follows: at the
        first ALIVE by which the leader says that it leads (Departure 18)."""
        super().__init__(core)
        self._peers = peers
        self._demand = demand
        self._divergence = divergence
        self._snapshot_names = snapshot_names
        self._progress_timer = progress_timer
        self._on_behind = on_behind
        self.on_leader_at_work = on_leader_at_work
        self._leader_at_work_in = 0
        """The latest view in which this server, as a follower, has got an ALIVE that says that the leader leads; 0:
        none."""

    # ------------------------------------------------------------------ sending

    def send_alive(self) -> None:
        """Send ALIVE to all other servers, and VC_PROOF of the latest installed view that is on disk, if any.

        This is also when a leader looks whether a majority follows it (`stay_if_followed`).
        """
        self._demand.forget_foreign_updates()
        self._turn.send_early(self.own_alive())
        if self._turn.durable.last_installed > 0:
            self._turn.send(VCProof(self._data.server.server_id, self._turn.durable.last_installed))
        self.stay_if_followed()

    def own_alive(self) -> Alive:
        """This server's ALIVE message, with values that are on disk.

        While a newly installed view is not on disk yet, the message carries the state LEADER_ELECTION. It also does
        while the disk is in trouble, so that no server counts on this one (Departures 44 and 45).
        """
        durable, server = self._turn.durable, self._data.server
        installing = durable.last_installed != self._data.views.last_installed
        state = State.LEADER_ELECTION if installing or self._is_out() else server.state
        return Alive(
            server.server_id,
            durable.last_installed,
            state,
            durable.local_aru,
            self._demand.has_clients(),
            self._divergence.own_digests(durable.local_aru),
            *self._snapshot_names.last,
        )

    def _is_out(self) -> bool:
        """Whether others must not count on this server's votes, since its disk is in trouble: then its ALIVE tells the
        state LEADER_ELECTION.

        False for a leader whose disk is full: it tells that it leads, since reads need a leader if all disks are full.
        """
        trouble = self._turn.trouble
        return trouble is DiskTrouble.HANGS or (
            trouble is DiskTrouble.FULL and self._data.server.state is not State.REG_LEADER
        )

    def announce_leadership(self) -> None:
        """Departure 18: send an ALIVE in this turn, not at the next period, because this server has begun to lead.

        The message waits at the durability gate, since the view that it carries may not be on disk yet.
        """
        self._turn.send(
            Alive(
                self._data.server.server_id,
                self._data.views.last_installed,
                self._data.server.state,
                self._turn.durable.local_aru,
                self._demand.has_clients(),
                self._divergence.own_digests(self._turn.durable.local_aru),
                *self._snapshot_names.last,
            )
        )

    def client_asks(self) -> None:
        """Record, in a turn, that a client of this server has asked for an update or a read (Departure 25).

        At the first request after a silence an ALIVE asks the other servers to send their ACCEPTs to this server
        without delay. A leader does not ask, because ACCEPTs to a leader are never delayed.
        """
        if self._demand.note_request() and self._data.server.state is not State.REG_LEADER:
            self._turn.send_early(self.own_alive())

    # ------------------------------------------------------------------ receiving

    def on_alive(self, message: Alive) -> None:
        """Store the content of a peer's ALIVE, which may count as progress, or show that this server is behind."""
        server_id = message.server_id
        self._peers.note_heard(server_id)
        peer = self._peers.by_id[server_id]
        peer.view, peer.state, peer.has_clients = message.view, message.state, message.has_clients
        peer.local_aru = message.local_aru  # not the highest so far: a wrong one must not count for ever
        peer.lag = max(0, self._data.ordering.local_aru - message.local_aru)
        self._divergence.compare(message)
        self._snapshot_names.compare(message)
        if self._peers.is_ahead(server_id, self._data.ordering.local_aru):
            self._on_behind(message.local_aru)
        if self._is_my_leader(message):
            if not self._demand.knows_of_unexecuted_update():
                self._progress_timer.start()
            if self._leader_at_work_in != message.view:
                self._leader_at_work_in = message.view
                self.on_leader_at_work()
        elif self._has_stepped_down(message):
            # Departure 44: the leader cannot lead, since its disk hangs, or it has left the view.
            self._leader_at_work_in = 0
            self._progress_timer.hurry()
        elif message.state is State.REG_LEADER and message.view > self._data.views.last_installed:
            # The sender leads a later view, which a majority has promised to follow, so this server's view is over
            # (Departure 23).
            self._progress_timer.hurry()
        self.stay_if_followed()

    def stay_if_followed(self) -> None:
        """Restart the Progress_Timer if this server leads and a majority follows it (`is_followed`), unless its
        followers go on without it (`is_overtaken`)."""
        if self.is_followed() and not self.is_overtaken():
            self._progress_timer.start()

    def is_followed(self) -> bool:
        """Whether this server leads, and a majority, itself included, follows it in its view.

        A server counts as a follower if its last ALIVE said that it follows this leader in this view, and if any
        message of it has come within the last `progress_seconds`.
        """
        data = self._data
        if data.server.state is not State.REG_LEADER:
            return False
        oldest = self._clock.seconds() - self._settings.progress_seconds
        view, follows = data.views.last_installed, State.REG_NONLEADER
        followers = [
            server_id
            for server_id, peer in self._peers.by_id.items()
            if peer.last_heard >= oldest and peer.state is follows and peer.view == view
        ]
        return self.is_majority((data.server.server_id, *followers))

    def is_overtaken(self) -> bool:
        """Departure 10: whether this server leads, has waited for its next slot for longer than its Progress_Timer
        lasts, and a follower says that it has executed that slot.

        So followers execute slots, and this server cannot: the ACCEPTs for its proposal do not come. Either they are
        lost again and again, or the followers were told of another batch in that slot, which takes a false message, and
        vote for this proposal no more.
        """
        data = self._data
        aru, view = data.ordering.local_aru, data.views.last_installed
        slot = data.ordering.global_history.get(aru + 1)
        if data.server.state is not State.REG_LEADER or slot is None or slot.proposal is None:
            return False
        if self._clock.seconds() - slot.first_sent_at < self._progress_timer.seconds:
            return False
        return any(
            peer.state is State.REG_NONLEADER and peer.view == view and self._peers.is_ahead(server_id, aru)
            for server_id, peer in self._peers.by_id.items()
        )

    def _is_my_leader(self, message: Alive) -> bool:
        data = self._data
        return (
            data.server.state is State.REG_NONLEADER
            and message.state is State.REG_LEADER
            and message.view == data.views.last_installed
            and message.server_id == self._membership.leader_of(message.view)
        )

    def _has_stepped_down(self, message: Alive) -> bool:
        """Whether the leader that this server follows has led the view, and tells by this ALIVE that it leads the view
        no more.

        An ALIVE that the leader sent before it led looks the same, and may arrive late. Then this server suspects a
        leader that works, which costs an election. That happens once: afterwards this method returns False until the
        leader is heard to lead again.
        """
        data = self._data
        return (
            message.state is State.LEADER_ELECTION
            and data.server.state is State.REG_NONLEADER
            and message.view == data.views.last_installed == self._leader_at_work_in
            and message.server_id == self._membership.leader_of(message.view)
        )

    # ------------------------------------------------------------------ hints that a server is down (Departure 11)

    def peer_refused(self, server_id: int) -> None:
        """Take the hint that server `server_id` is down: its address has refused a frame of this server.

        If that server leads the attempted view, the Progress_Timer is hurried. A refused frame is a hint only: no view
        is ever installed because of it.
        """
        peer = self._peers.by_id.get(server_id)
        if peer is None:
            return  # the peer was removed
        if peer.last_heard == NEVER:
            return  # the peer has not been started yet: when all servers start together, the first view shall be kept
        peer.refused_at = self._clock.seconds()
        self.hurry_if_leader_is_gone()

    def hurry_if_leader_is_gone(self) -> None:
        """Hurry the Progress_Timer if the leader of the attempted view has refused a frame within two periods of ALIVE.

        A message from that leader since then cancels the hint.
        """
        view = max(self._data.views.last_attempted, self._data.views.last_installed)
        if view == 0 or self._membership.i_lead(view):
            return
        leader = self._peers.by_id[self._membership.leader_of(view)]
        recent = 2 * self._settings.alive_seconds
        if self._clock.seconds() - leader.refused_at <= recent:
            self._progress_timer.hurry()
