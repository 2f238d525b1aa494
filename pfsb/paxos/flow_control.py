"""Section 5.10: the window of proposals under way, and ALIVE messages; design part 4, "Idle".

Departure 10: an idle system elects nobody. As long as a server knows of no unexecuted update, an ALIVE from the
leader of its view stands in for progress. A leader hears ALIVE from a majority in its view, or it suspects itself.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IReactorTime

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Alive, ClientUpdate, State, VCProof
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.settings import Settings
from pfsb.paxos.turn import Turn

NEVER = float("-inf")
LINGER_ALIVES = 5
"""For how many ALIVEs after its last question a client counts as one who will ask again."""


@define
class Peer:
    """What another server's ALIVE messages have told."""

    last_heard: float = NEVER
    refused_at: float = NEVER
    """When its address last refused a frame: nobody is there."""
    view: int = 0
    state: State = State.LEADER_ELECTION
    local_aru: int = 0
    has_clients: bool = True
    """Until it tells otherwise."""


@define
class ForeignUpdate:
    """An update of another server's client that is known to wait (G8.3)."""

    timestamp: int
    until: float
    """Its origin repeats itself; if it falls silent, the update no longer counts as waiting."""


class FlowControl:
    def __init__(
        self,
        data: DataStructures,
        membership: Membership,
        turn: Turn,
        clock: IReactorTime,
        settings: Settings,
        progress_timer: ProgressTimer,
    ) -> None:
        self._data = data
        self._membership = membership
        self._turn = turn
        self._clock = clock
        self._settings = settings
        self._progress_timer = progress_timer
        self.peers = {i: Peer() for i in membership.others}
        self._foreign_updates: dict[str, ForeignUpdate] = {}
        self._asked_until = NEVER
        """Until when the last question that was asked here counts."""
        self.somebody_waits: Callable[[], bool] = lambda: False
        """Whether a client waits here for what others will do: a lock, an event."""
        self._leader_at_work_in = 0
        """The last view in which the leader was seen to lead."""
        self.on_behind: Callable[[int], None] = lambda seq: None
        """Told of a Local_Aru above ours (section 5.6, trigger 3)."""
        self.on_leader_at_work: Callable[[], None] = lambda: None
        """The leader of our view has begun to lead."""

    # ------------------------------------------------------------------ the window

    def may_propose(self, seq: int) -> bool:
        """A leader proposes `seq` only after executing `seq - window`, a fixed number (Departure 20)."""
        return seq <= self._data.ordering.local_aru + self._settings.window_slots

    def may_accept(self, seq: int) -> bool:
        """A follower may lag by another window: a leader's aru is not always its own.

        Two windows above Local_Aru nothing can exist here, which bounds PREPARE_OK.
        """
        return seq <= self._data.ordering.local_aru + 2 * self._settings.window_slots

    def executed_by_leader_of(self, seq: int) -> int:
        """What a leader has executed at least, who proposes `seq`."""
        return seq - self._settings.window_slots

    # ------------------------------------------------------------------ ALIVE and VC_PROOF

    def send_alive(self) -> None:
        """Tell all what is on disk here."""
        self._forget_foreign_updates()
        self._turn.send_early(self.own_alive())
        if self._turn.durable.last_installed > 0:
            self._turn.send(VCProof(self._data.server.server_id, self._turn.durable.last_installed))
        self._leader_hears_a_majority()

    def own_alive(self) -> Alive:
        durable, server = self._turn.durable, self._data.server
        installing = durable.last_installed != self._data.views.last_installed
        state = State.LEADER_ELECTION if installing else server.state
        return Alive(server.server_id, durable.last_installed, state, durable.local_aru, self.has_clients())

    def announce_leadership(self) -> None:
        """Departure 18: an ALIVE out of turn, since this server has begun to lead."""
        self._turn.send(
            Alive(
                self._data.server.server_id,
                self._data.views.last_installed,
                self._data.server.state,
                self._turn.durable.local_aru,
                self.has_clients(),
            )
        )

    def on_alive(self, message: Alive) -> None:
        """Section 5.10: note what a peer tells; it may mean progress, or that we are behind."""
        peer = self.peers[message.server_id]
        peer.last_heard = self._clock.seconds()
        peer.refused_at = NEVER
        peer.view, peer.state, peer.has_clients = message.view, message.state, message.has_clients
        peer.local_aru = max(peer.local_aru, message.local_aru)
        if message.local_aru > self._data.ordering.local_aru:
            self.on_behind(message.local_aru)
        if self._is_my_leader(message):
            if not self.knows_of_unexecuted_update():
                self._progress_timer.start()
            if self._leader_at_work_in != message.view:
                self._leader_at_work_in = message.view
                self.on_leader_at_work()
        elif message.state is State.REG_LEADER and message.view > self._data.views.last_installed:
            # A majority has promised to follow that leader: this view is over, for everybody.
            self._progress_timer.hurry()
        self._leader_hears_a_majority()

    def note_heard(self, server_id: int) -> None:
        """Any message shows that its sender is there."""
        peer = self.peers[server_id]
        peer.last_heard = self._clock.seconds()
        peer.refused_at = NEVER

    def heard_lately(self, server_id: int) -> bool:
        return self._clock.seconds() - self.peers[server_id].last_heard <= self._settings.progress_seconds

    # ------------------------------------------------------------------ who waits for results (Departure 25)

    def client_asks(self) -> None:
        """In a turn, of each question and update of this server's own clients: the first one is announced at once.

        A leader needs no announcement: it gets all votes at once anyway.
        """
        now = self._clock.seconds()
        is_news = now >= self._asked_until and self._settings.lazy_seconds > 0
        self._asked_until = now + LINGER_ALIVES * self._settings.alive_seconds
        if is_news and self._data.server.state is not State.REG_LEADER:
            self._turn.send_early(self.own_alive())

    def is_waited_at(self, server_id: int) -> bool:
        """Whether that server has clients who would see that a vote comes late."""
        return self.peers[server_id].has_clients

    def has_clients(self) -> bool:
        """Who delays no votes has no use for others that do."""
        return (
            self._settings.lazy_seconds <= 0
            or self._clock.seconds() < self._asked_until
            or bool(self._data.clients.pending_updates)
            or self.somebody_waits()
        )

    # ------------------------------------------------------------------ what waits

    def note_foreign_update(self, update: ClientUpdate) -> None:
        """An update of another server's client waits: an ALIVE alone is no progress any more."""
        if update.timestamp > self._data.clients.last_executed.of(update.client_id):
            until = self._clock.seconds() + 4 * self._settings.update_seconds
            self._foreign_updates[update.client_id] = ForeignUpdate(update.timestamp, until)

    def knows_of_unexecuted_update(self) -> bool:
        """Own, heard of, accepted, or executed elsewhere (design part 4, "Idle")."""
        ordering = self._data.ordering
        return bool(
            self._data.clients.pending_updates
            or self._an_accepted_update_waits()
            or any(peer.local_aru > ordering.local_aru for peer in self.peers.values())
            or self._a_foreign_update_waits()
        )

    def _an_accepted_update_waits(self) -> bool:
        """A proposal of this view, or an ordered slot behind a gap.

        What an older view left does not count: if it was chosen, the leader proposes it again in this view.
        """
        ordering = self._data.ordering
        view = self._data.views.last_installed
        return ordering.global_history.top > ordering.local_aru and any(
            slot.ordered is not None or (slot.proposal is not None and slot.proposal.view == view)
            for _, slot in ordering.global_history.above(ordering.local_aru)
        )

    def _a_foreign_update_waits(self) -> bool:
        self._forget_foreign_updates()
        return bool(self._foreign_updates)

    def _forget_foreign_updates(self) -> None:
        """What has run, and what its origin repeats no more."""
        now = self._clock.seconds()
        last_executed = self._data.clients.last_executed
        for client_id, waiting in list(self._foreign_updates.items()):
            if waiting.until < now or waiting.timestamp <= last_executed.of(client_id):
                del self._foreign_updates[client_id]

    # ------------------------------------------------------------------ the leader

    def peer_refused(self, server_id: int) -> None:
        """Design part 4, "A dead peer is often known at once": only a hint, never a reason to install anything.

        Departure 11: the Progress_Timer is not the only failure detector.
        """
        self.peers[server_id].refused_at = self._clock.seconds()
        self.hurry_if_leader_is_gone()

    def hurry_if_leader_is_gone(self) -> None:
        """The leader of the view that is installed, or just preinstalled, has refused a frame and not spoken since."""
        view = max(self._data.views.last_attempted, self._data.views.last_installed)
        if view == 0 or self._membership.i_lead(view):
            return
        leader = self.peers[self._membership.leader_of(view)]
        recent = 2 * self._settings.alive_seconds
        if self._clock.seconds() - leader.refused_at <= recent:
            self._progress_timer.hurry()

    def a_later_view_is_led(self) -> bool:
        """Others have gone on: what this server learns from them is no progress of its own view."""
        installed = self._data.views.last_installed
        return any(
            peer.state is State.REG_LEADER and peer.view > installed and self.heard_lately(server_id)
            for server_id, peer in self.peers.items()
        )

    def _leader_hears_a_majority(self) -> None:
        data = self._data
        if data.server.state is not State.REG_LEADER:
            return
        oldest = self._clock.seconds() - self._settings.progress_seconds
        followers = sum(
            peer.last_heard >= oldest and peer.state is State.REG_NONLEADER and peer.view == data.views.last_installed
            for peer in self.peers.values()
        )
        if followers + 1 >= self._membership.quorum:
            self._progress_timer.start()

    def _is_my_leader(self, message: Alive) -> bool:
        data = self._data
        return (
            data.server.state is State.REG_NONLEADER
            and message.state is State.REG_LEADER
            and message.view == data.views.last_installed
            and message.server_id == self._membership.leader_of(message.view)
        )
