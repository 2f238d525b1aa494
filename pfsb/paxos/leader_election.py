"""Figure 6: servers vote for the next view when there is no global progress, and install it together.

Block A, the expiry of the Progress_Timer, is in `progress_timer`. Two ideas keep the election stable (section 5.3 of
the paper). The timer's length doubles at each preinstall. And a server joins the attempt for a higher view only if it
suspects its own leader already, and no preinstalled view is being prepared.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.alive_counts import AliveCounts
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.demand import Demand
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import Alive, Proposal, State, VCProof, ViewChange
from pfsb.paxos.peers import Peers
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.support.views import shown


class NoViewLeft(Exception):
    """Raised when a view above the highest one of the epoch would be attempted."""


class LeaderElectionHandler(Handler):
    """Votes for views (VIEW_CHANGE), installs the view for which a majority has voted, and tells of it (VC_PROOF)."""

    _log = Logger()

    def __init__(
        self,
        core: Core,
        prepare: PrepareHandler,
        update_queue: UpdateQueue,
        alive: AliveHandler,
        progress_timer: ProgressTimer,
        peers: Peers,
        demand: Demand,
    ) -> None:
        super().__init__(core)
        self._prepare = prepare
        self._update_queue = update_queue
        self._alive = alive
        self._progress_timer = progress_timer
        self._peers = peers
        self._demand = demand
        self.on_begin: Callable[[], None] = lambda: None
        """Called each time that this server sends a first VIEW_CHANGE for a view."""
        self.just_recovered = True
        """Whether this server has neither suspected a leader nor rejoined a view since it started; if so, it may rejoin
        the installed view, which means to follow the leader of that view again (G9 i)."""
        self._aru_at_suspicion = 0
        self._leader_attempts = (0, 0)
        """(installed view, later view): the leader of the installed view, perhaps this server, has last voted for the
        later view."""
        self._denials = AliveCounts(core.clock, core.settings)
        """For each other server: the number of its latest ALIVEs, one after the other, that deny its last VIEW_CHANGE,
        since they say that it leads or follows an earlier view (`forget_denied_vote`)."""
        self._in_installed_view = AliveCounts(core.clock, core.settings)
        """For each other server: the number of its latest ALIVEs, one after the other, by which it has said that it
        leads or follows the installed view. The count begins anew when this server votes for another view, and when the
        other server says otherwise or votes."""

    def suspect(self) -> None:
        """Figure 6, line A1: attempt the next view, since the leader of the attempted view brings no progress.

        Departure 50: if the leader of the installed view has voted for a view that is later still, attempt that view.
        """
        self.just_recovered = False
        self.shift_to_leader_election(max(self._data.views.last_attempted + 1, self.attempted_by_leader()))

    def raise_view(self, view: int) -> None:
        """Departure 50: leave the view that this server leads, and attempt `view`, a later view that this server leads,
        too. Servers that have installed a view between the two can then follow this server again.
        """
        self.leave_view(view)

    def leave_view(self, view: int) -> None:
        """Leave the installed view together with its leader, perhaps this server, and attempt `view`, for which the
        leader votes (Departures 50 and 59)."""
        self.just_recovered = False
        self._leader_attempts = self._data.views.last_installed, view
        self.shift_to_leader_election(view)

    def on_view_change(self, message: ViewChange) -> bool:
        """Figure 6, Block B: vote for the sender's view if it is higher, count votes, preinstall with a majority.

        Returns whether the sender's vote was stored, and was not before.
        """
        self._note_vote_of_leader(message)
        self._denials.forget(message.server_id)
        self._in_installed_view.forget(message.server_id)
        if message.attempted > self._data.views.last_attempted:
            self.shift_to_leader_election(message.attempted)
        is_new = False
        if message.attempted == self._data.views.last_attempted:
            if message.server_id not in self._data.views.vc:
                # Departure 16: send this server's vote to the sender again, which may have discarded it before
                # (Figure 4 A4).
                self._turn.send(ViewChange(self._data.server.server_id, message.attempted), message.server_id)
            is_new = self._data.apply_view_change(message)
            self._if_preinstalled_prepare()
        return is_new

    def leader_has_left(self, message: ViewChange) -> None:
        """Hurry the Progress_Timer: the leader of the installed view votes for another view.

        Such a leader never leads the installed view again (G10), so its vote is as good a hint as a refused frame
        (Departure 11). The VIEW_CHANGE itself is discarded, as every VIEW_CHANGE is while this server follows a leader;
        but when this server suspects the leader, it attempts the view that the leader has voted for (Departure 50).
        """
        if self._note_vote_of_leader(message):
            self._progress_timer.hurry()

    def _note_vote_of_leader(self, message: ViewChange) -> bool:
        """If a VIEW_CHANGE is a vote of the leader of the installed view for a later one, remember it. Returns whether
        it is."""
        installed = self._data.views.last_installed
        if message.attempted <= installed or not self._leads_installed_view(message.server_id):
            return False
        self._leader_attempts = installed, message.attempted
        self._denials.forget(message.server_id)
        return True

    def attempted_by_leader(self) -> int:
        """The view that the leader of the installed view has last voted for; 0: none."""
        installed, attempted = self._leader_attempts
        return attempted if installed == self._data.views.last_installed else 0

    def on_alive(self, message: Alive) -> None:
        """Draw conclusions for this election from a peer's ALIVE. Must not be called while this server is a
        newcomer."""
        self.forget_denied_vote(message)
        if self._data.server.state is State.LEADER_ELECTION:
            self.rejoin_if_idle(message)

    def forget_denied_vote(self, message: Alive) -> None:
        """Departure 52: forget the vote of a server that leads or follows an earlier view than it has voted for.

        The vote was untrue, or its sender has gone back to its view (G9). A server that still votes tells the state
        LEADER_ELECTION in its ALIVEs, and repeats its VIEW_CHANGE, which makes this server remember the vote again.
        """
        sender = message.server_id
        if message.state is State.LEADER_ELECTION or message.view >= self._voted_by(sender):
            self._denials.forget(sender)
            return
        self._denials.add(sender)
        if self._denials.are_believed(sender):
            self._denials.forget(sender)
            self._data.views.vc.pop(sender, None)
            if self._leads_installed_view(sender):
                self._leader_attempts = (0, 0)

    def _voted_by(self, server_id: int) -> int:
        """The latest view for which a vote of this server is remembered; 0: none."""
        vote = self._data.views.vc.get(server_id)
        voted = vote.attempted if vote is not None else 0
        return max(voted, self.attempted_by_leader()) if self._leads_installed_view(server_id) else voted

    def _leads_installed_view(self, server_id: int) -> bool:
        return self._membership.leader_of(self._data.views.last_installed) == server_id

    def rejoin_if_idle(self, message: Alive) -> None:
        """Departure 51: leave the election and go back to the installed view, if it works without this server.

        That is so when the leader of that view says that it leads, the leader and a majority have said more than once
        during this attempt that they are in that view (`installed_view_works`), and no update waits, for which the view
        would have to show that it orders. The conditions are for liveness. The one for safety is, as in
        `rejoin_if_ordering`, that the view is Last_Installed.

        A server whose disk hangs does not go back, nor count. It discards VIEW_CHANGE and CLIENT_UPDATE (`DiskWatch`),
        so it does not learn that others vote or that updates wait.
        """
        installed, sender = self._data.views.last_installed, message.server_id
        if self._turn.trouble is DiskTrouble.HANGS:
            self._in_installed_view.clear()
            return
        if message.state is State.LEADER_ELECTION or message.view != installed:
            self._in_installed_view.forget(sender)
            return
        self._in_installed_view.add(sender)
        is_led = message.state is State.REG_LEADER and self._leads_installed_view(sender)
        if is_led and self.installed_view_works() and self.may_rejoin(installed):
            self._rejoin(installed)

    def installed_view_works(self) -> bool:
        """Whether a majority without this server, the leader included, is in the installed view, the leader has not
        voted for a later one, and no update waits to be ordered in it, as far as this server knows."""
        present = self.present_in_installed_view()
        return (
            self.is_majority(present)
            and self._membership.leader_of(self._data.views.last_installed) in present
            and not self.attempted_by_leader()
            and not self._demand.knows_of_unexecuted_update()
        )

    def present_in_installed_view(self) -> set[int]:
        """The ids of the servers that lead or follow the installed view, by the ALIVEs that they have sent during this
        attempt.

        A server that was not heard within the last `progress_seconds` is left out, since it may have died.
        """
        believed = self._in_installed_view.are_believed
        return {i for i in self._peers.by_id if believed(i) and self._peers.heard_lately(i)}

    def on_vc_proof(self, message: VCProof) -> None:
        """Figure 6, Block C: install a later view that another server has installed already."""
        data = self._data
        if message.installed == data.views.last_installed:
            self._rejoin_after_recovery(message.installed)
        elif self.leader_goes_beyond(message.installed):
            return
        elif message.installed > data.views.last_installed:
            if self._membership.i_lead(message.installed):
                self._led_it_before(message.installed)
                return
            data.views.last_attempted = message.installed
            data.views.vc.clear()  # G4: the stored votes are for another view
            self._prepare.shift_to_reg_nonleader()

    def shift_to_leader_election(self, view: int) -> None:
        """Figure 6, Block E: leave the present view, and vote for `view`.

        This method also sets State and stops the Progress_Timer, though the figure does not say so (G3).
        """
        if view > self._membership.last_view:
            raise NoViewLeft(f"the highest view, {shown(view - 1)}, is over: this cluster needs a new epoch")
        data = self._data
        data.server.state = State.LEADER_ELECTION
        self._progress_timer.stop()
        self._aru_at_suspicion = data.ordering.local_aru
        data.views.vc.clear()
        self._in_installed_view.clear()
        data.preparing.prepare = None
        data.preparing.prepare_oks.clear()
        self._update_queue.forget_enqueued()
        data.views.last_attempted = view
        vote = ViewChange(data.server.server_id, view)
        self._turn.send(vote)
        self.on_begin()
        data.apply_view_change(vote)
        self._if_preinstalled_prepare()  # G6: in a cluster of one, this server's own vote is a majority

    def send_view_change(self) -> None:
        """Send this server's VIEW_CHANGE for the attempted view again, as long as the election lasts (section 5.9)."""
        self._turn.send(ViewChange(self._data.server.server_id, self._data.views.last_attempted))

    def rejoin_if_ordering(self, message: Proposal) -> None:
        """G9: leave the election and go back to the installed view, when the leader of that view sends a PROPOSAL.

        This server goes back in one of two cases: it has suspected no leader since it started; or its Local_Aru has
        grown since it began to suspect, which shows that the installed view still orders updates. A PROPOSAL alone does
        not show that: a leader that orders nothing repeats its proposals as well, and would keep every server that
        suspects it in its view.

        Safety needs one condition only: the view of the PROPOSAL must be Last_Installed. The two cases are for
        liveness. The model in docs/spec/index.rst lets a server go back at any time, and breaks S1 if the view may be
        another one.
        """
        # For safety: see docs/spec/index.rst, breaks AcceptsOlderViews and AcceptsNewerViews.
        if message.view != self._data.views.last_installed or message.view == 0:
            return
        if self._membership.leader_of(message.view) != message.server_id:
            return
        if self._data.ordering.local_aru > self._aru_at_suspicion and self.may_rejoin(message.view):
            self._rejoin(message.view)
        else:
            self._rejoin_after_recovery(message.view)

    def _if_preinstalled_prepare(self) -> None:
        data = self._data
        if not self._progress_timer.running and self._preinstall_ready(data.views.last_attempted):
            self._progress_timer.double()
            self._progress_timer.start()
            self._alive.hurry_if_leader_is_gone()
            if self._membership.i_lead(data.views.last_attempted):
                self._prepare.shift_to_prepare_phase()

    def _preinstall_ready(self, view: int) -> bool:
        """Figure 6, Block D: whether a majority votes for `view`."""
        return self.is_majority(i for i, vote in self._data.views.vc.items() if vote.attempted == view)

    def leader_goes_beyond(self, view: int) -> bool:
        """Departure 50: whether a VC_PROOF of `view` is to be ignored, since the leader raises the view above it.

        That is so if this server attempts, together with the leader of its installed view, a view above `view`. The
        leader has left its own view because some servers have installed `view`, in which no server leads. To install
        `view` because one of them sends a VC_PROOF would strand this server there, too. If a server is heard that leads
        a later view than the installed one, the VC_PROOF is not ignored.
        """
        data = self._data
        attempted = data.views.last_attempted
        is_raised = data.views.last_installed < view < attempted == self.attempted_by_leader()
        return is_raised and not self._peers.a_later_view_is_led(data.views.last_installed)

    def _rejoin_after_recovery(self, view: int) -> None:
        if self.just_recovered and self.may_rejoin(view):
            self._rejoin(view)

    def may_rejoin(self, view: int) -> bool:
        """Whether this server may leave the election and follow the leader of `view`, its installed view, again.

        It may if no higher view is preinstalled here, and if another server leads `view`. The first condition is for
        liveness. The second one keeps a server out of a view that it led before. Safety needs that it never leads such
        a view again (G10; break LeadsAgain in docs/spec/index.rst).
        """
        return view > 0 and not self._progress_timer.running and not self._membership.i_lead(view)

    def _rejoin(self, view: int) -> None:
        """Follow the leader of the installed view again.

        Why safe (G9): the VIEW_CHANGEs that this server has sent for later views are no promises. Its only promise is
        Last_Installed, which does not change here.
        """
        self.just_recovered = False
        self._data.views.last_attempted = view
        self._data.views.vc.clear()
        self._prepare.shift_to_reg_nonleader()

    def _led_it_before(self, view: int) -> None:
        """G10: attempt a later view, since another server has installed `view`, which this server led: its disk does
        not say so, and may be an old copy.

        If this server led the view again, it could bind another batch to a slot for which the view has chosen one.
        """
        self._log.error(
            "view {view} was led from here, and is not on this disk: is that an old copy?", view=shown(view)
        )
        self.shift_to_leader_election(max(view, self._data.views.last_attempted) + 1)
