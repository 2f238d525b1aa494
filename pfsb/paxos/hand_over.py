"""Departure 59: a leader hands its view over to another server, and no Progress_Timer has to expire.

The leader does so when it is asked to stop, when a client says LEAD, or when the configuration prefers another server.
It asks the other server, the target, whether that is there; proposes nothing new until all that it has proposed is
executed; and leaves its view with HAND_OVER, by which all servers vote at once for the next view that the target leads.

Why safe: every server may vote for any later view at any time. The next view is prepared as after a suspicion, and its
promises bring whatever was still open. Why live: a server that has missed the HAND_OVER hears the former leader's vote.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from attrs import define
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.messages import Confirm, HandOver, HandOverReason, State
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.read_index import ReadIndexHandler
from pfsb.paxos.round_trip import RoundTrip
from pfsb.paxos.window import Window
from pfsb.support.views import shown

LOOK_SECONDS: Final = 0.002
"""Time, in seconds, between two looks at a hand-over that is under way."""
ASK_SECONDS: Final = 0.2
"""How long, in seconds, the leader waits for the target's answer; it goes on proposing meanwhile."""
ASKS: Final = 4
"""How often, at most, the leader asks the target within `ASK_SECONDS`."""
WAIT_SECONDS: Final = (0.1, 0.5)
"""The least and the longest time, in seconds, that a leader which proposes nothing new waits until all that it has
proposed is executed; between the two, the time within which nearly all slots were ordered lately."""
STOP_SECONDS: Final = 1.0
"""How long, in seconds, a server that was asked to stop may take to hand its view over."""
PREFERENCE: Final = 2
"""How long a preferred server must have been fit to lead before the leader hands over to it, in units of the
Progress_Timer's default. The time is longer after hand-overs that have failed (`PREFERENCE_MAX`)."""
PREFERENCE_MAX: Final = 512
"""Maximum of the time that `PREFERENCE` begins, in the same units: the time doubles each time that a view of the
preferred server ends, or that it does not take the view over."""


class Step(Enum):
    """How far a hand-over has come."""

    ASKS = "asks"
    """The leader proposes, and waits for the target's answer."""
    WAITS = "waits"
    """The leader proposes nothing new, and waits until all that it has proposed is executed."""
    LEFT = "left"
    """The leader has left its view, and waits until the target leads the next one."""


Told = Callable[[str | None], None]
"""Function that is called once, in a turn, when a hand-over is over: with None if the target leads, else with the
reason why it does not, as a text for people."""


@define(eq=False)
class UnderWay:
    """The hand-over that this server, as leader, carries out at present."""

    target: int
    reason: HandOverReason
    view: int
    """The view that is handed over."""
    next_view: int
    """The next view that the target leads."""
    number: int
    """Number of the CONFIRM by which the target was asked."""
    until: float
    """Time by the clock at which the present step ends in any case."""
    told: Told
    step: Step = Step.ASKS
    is_answered: bool = False
    """Whether the target has answered."""
    asked_at: float = NEVER
    """Time by the clock at which the target was asked last."""
    closed_at: float = NEVER
    """Time by the clock from which on the leader has proposed nothing new."""


@define
class _Preferred:
    """Facts about a server that the configuration prefers to some other one."""

    wait: float
    """How long, in seconds, it must have been fit to lead before a leader hands over to it."""
    fit_since: float | None = None
    """Time by the clock of the first of the latest looks, all of which have found it fit; None: the last one has not.
    """
    ended_at: float = NEVER
    """Time by the clock at which a view of it ended last, or it did not take over a view."""


class HandOverHandler(Handler):
    """Hands the view of this server over when it leads, and follows the hand-overs of other leaders (HAND_OVER)."""

    _log = Logger()

    def __init__(
        self,
        core: Core,
        peers: Peers,
        alive: AliveHandler,
        election: LeaderElectionHandler,
        reads: ReadIndexHandler,
        window: Window,
        slot_time: RoundTrip,
    ) -> None:
        super().__init__(core)
        self._peers = peers
        self._alive = alive
        self._election = election
        self._reads = reads
        self._window = window
        self._slot_time = slot_time
        self.under_way: UnderWay | None = None
        """The hand-over that this server carries out at present, or None."""
        self.done = 0
        """Number of views that this server has handed over since its start: the target led the next one."""
        self.failed = 0
        """Number of hand-overs of this server that have failed since its start."""
        self.followed = 0
        """Number of HAND_OVERs of other leaders that have made this server leave a view since its start."""
        self.last_seconds: float | None = None
        """How long, in seconds, nothing new was proposed in the last hand-over of this server that was done."""
        self._given = (0, HandOverReason.STOPS)
        """(view that was handed over to this server, why): the last one."""
        self.is_stopping = False
        """Whether this server was asked to stop, and hands its view over before."""
        self._stops_by = 0.0
        """Time by the clock at which a server that was asked to stop waits for no hand-over any more."""
        self._silent: set[int] = set()
        """Servers that have not taken over since this server was asked to stop."""
        self.shortest_wait = PREFERENCE * core.settings.progress_seconds
        self.longest_wait = PREFERENCE_MAX * core.settings.progress_seconds
        self._preferred: dict[int, _Preferred] = {}
        """Server -> facts about it, for the other servers that the configuration names in `priority`."""
        self._last_leader = 0, -1
        """(last installed view, its leader), as the last look has found them."""
        self._call: IDelayedCall | None = None
        reads.on_other_confirmed = self.on_confirmed

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # ------------------------------------------------------------------ the leader

    def why_not(self, target: int) -> str | None:
        """Why this server cannot hand its view over to server `target` now, as a text for people; None: it can."""
        data = self._data
        if target not in self._membership.other_voters:
            return f"server {target} does not vote"
        if data.server.state is not State.REG_LEADER:
            return "this server does not lead"
        if self.under_way is not None:
            return f"the view is being handed over to server {self.under_way.target} already"
        if self._turn.trouble is not None:
            return "the disk of this server takes nothing at present"
        if not self._alive.is_followed():
            return "no majority follows this server, so none would follow another one"
        peer = self._peers.by_id[target]
        if not self._peers.heard_lately(target):
            return f"server {target} is not heard"
        if peer.state is not State.REG_NONLEADER or peer.view != data.views.last_installed:
            return f"server {target} does not follow in the present view, or has not told so yet"
        if peer.lag > 2 * self._window.slots:
            return f"server {target} is {peer.lag} slots behind"
        if self._membership.next_led_by(target, data.views.last_installed) > self._membership.last_view:
            return "no view is left in this epoch"
        return None

    def begin(self, target: int, reason: HandOverReason, told: Told) -> None:
        """Begin, in a turn, to hand this server's view over to server `target`, which is fit for it (`why_not`).

        `told` is called once, in a later turn: a target leads soon, or not at all.
        """
        assert self.why_not(target) is None, "the target is fit to lead"
        view = self._data.views.last_installed
        now = self._clock.seconds()
        next_view = self._membership.next_led_by(target, view)
        self.under_way = UnderWay(target, reason, view, next_view, self._reads.new_number(), now + ASK_SECONDS, told)
        self._tell_step()
        self._ask()
        self._watch()

    def _ask(self) -> None:
        """Ask the target by CONFIRM whether it follows in this view. Its answer waits for its disk (Departure 24)."""
        under_way = self.under_way
        assert under_way is not None
        under_way.asked_at = self._clock.seconds()
        self._turn.send(Confirm(self._data.server.server_id, under_way.view, under_way.number), under_way.target)

    def on_confirmed(self, server_id: int, view: int, number: int) -> None:
        """Take a CONFIRMED that belongs to no round of reads: it may be the target's answer."""
        under_way = self.under_way
        if under_way is not None and (under_way.target, under_way.view, under_way.number) == (server_id, view, number):
            under_way.is_answered = True

    def _watch(self) -> None:
        if self._call is None:
            self._call = self._clock.callLater(LOOK_SECONDS, self.look_again)

    def look_again(self) -> None:
        """Called by the timer while a hand-over is under way, or while this server waits for one before it stops."""
        self._call = None
        self._turn.run(self.step)
        if not self._turn.stopped and (self.under_way is not None or self.is_stopping):
            self._watch()

    def step(self) -> None:
        """Carry the hand-over that is under way one step on, if it is time for it.

        A leader that has left its view for another reason, such as a suspicion, gives the hand-over up.
        """
        if self.under_way is not None:
            self._step_of(self.under_way)
        if self.is_stopping:
            self._go_on_to_stop()

    def _step_of(self, under_way: UnderWay) -> None:
        now = self._clock.seconds()
        if under_way.step is Step.LEFT:
            target = self._peers.by_id.get(under_way.target)
            if target is None:
                self._end(f"server {under_way.target} has left the cluster")
            elif target.state is State.REG_LEADER and target.view == under_way.next_view:
                self._end(None)
            elif self._data.views.last_installed > under_way.next_view:
                self._end(f"another view than that of server {under_way.target} has come")
            elif now >= under_way.until:
                self._end(f"server {under_way.target} does not lead yet; an election is under way")
        elif not self.leads(under_way.view):
            self._end("this server leads no more")
        elif under_way.step is Step.ASKS:
            if under_way.is_answered:
                self._close(under_way, now)
            elif now >= under_way.until:
                self._end(f"server {under_way.target} has not answered")
            elif now - under_way.asked_at >= ASK_SECONDS / ASKS:
                self._ask()
        elif now >= under_way.until or not self.has_slots_under_way():
            self.leave(under_way)

    def leads(self, view: int) -> bool:
        return self._data.server.state is State.REG_LEADER and self._data.views.last_installed == view

    def has_slots_under_way(self) -> bool:
        """Whether this server, as leader, has proposed a slot that is not executed here yet."""
        ordering = self._data.ordering
        return ordering.last_proposed > ordering.local_aru

    def _close(self, under_way: UnderWay, now: float) -> None:
        """Propose nothing new from now on, and wait for what is under way."""
        self._window.close()
        shortest, longest = WAIT_SECONDS
        under_way.step, under_way.closed_at = Step.WAITS, now
        under_way.until = now + min(max(shortest, self._slot_time.measured), longest)
        self._tell_step()
        if not self.has_slots_under_way():
            self.leave(under_way)

    def leave(self, under_way: UnderWay) -> None:
        """Leave the view with HAND_OVER, and vote for the next view of the target."""
        self._window.open()
        under_way.step, under_way.until = Step.LEFT, self._clock.seconds() + STOP_SECONDS
        self._tell_step()
        self._log.info(
            "hands view {view} over to server {target}, {why}",
            view=shown(under_way.view),
            target=under_way.target,
            why=IN_WORDS[under_way.reason],
        )
        own_id = self._data.server.server_id
        self._turn.send(HandOver(own_id, under_way.view, under_way.next_view, under_way.reason))
        self._election.leave_view(under_way.next_view)

    def begin_epoch(self) -> None:
        """Departure 60: a change of the membership has ended the view that this server hands over. The hand-over is
        given up, so that the first leader of the epoch proposes at once; the target has done nothing wrong."""
        if self.under_way is not None and self.under_way.step is not Step.LEFT:
            self._end("the membership has changed meanwhile", blames=False)

    def _end(self, why_not: str | None, *, blames: bool = True) -> None:
        """The hand-over is over: the target leads, or `why_not` says why it does not. If the target is to blame for
        that, it is not asked again soon."""
        under_way = self.under_way
        assert under_way is not None
        self._window.open()
        self.under_way = None
        seconds = self._clock.seconds() - under_way.closed_at
        if why_not is None:
            self.done += 1
            self.last_seconds = seconds
            self._log.info(
                "server {target} leads view {view}: nothing was proposed for {ms:.0f} ms",
                target=under_way.target,
                view=shown(under_way.next_view),
                ms=1_000 * seconds,
            )
        else:
            self.failed += 1
            if blames:
                self._silent.add(under_way.target)
                self.note_end(under_way.target)
            # A server that stops has nothing else to try, and perhaps all of the others stop, too.
            tell = self._log.info if under_way.reason is HandOverReason.STOPS else self._log.warn
            tell(
                "view {view} is not handed over to server {target}: {why}",
                view=shown(under_way.view),
                target=under_way.target,
                why=why_not,
            )
        if self._tracer is not None:
            self._tracer.trace("hand_over", step="done" if why_not is None else "failed", to=under_way.target)
        under_way.told(why_not)

    def _tell_step(self) -> None:
        under_way = self.under_way
        assert under_way is not None
        if self._tracer is not None:
            self._tracer.trace(
                "hand_over",
                step=under_way.step.value,
                to=under_way.target,
                view=under_way.view,
                next_view=under_way.next_view,
                reason=under_way.reason.value,
            )

    # ------------------------------------------------------------------ the others

    def on_hand_over(self, message: HandOver) -> None:
        """Leave the installed view at once, as its leader has, and vote for the next one."""
        leader = self._membership.leader_of(message.next_view)
        self.followed += 1
        if leader == self._data.server.server_id:
            self._given = message.next_view, message.reason
        self._log.info(
            "server {former} hands view {view} over to server {leader}, {why}",
            former=message.server_id,
            view=shown(message.view),
            leader=leader,
            why=IN_WORDS[message.reason],
        )
        self._election.leave_view(message.next_view)

    # ------------------------------------------------------------------ a server that is to stop

    def hand_over_to_stop(self) -> None:
        """Hand this server's view over, if it leads, since it was asked to stop. Called in a turn.

        `is_stopping` is True until the server may stop, which takes `STOP_SECONDS` at most.
        """
        self.is_stopping = True
        self._stops_by = self._clock.seconds() + STOP_SECONDS
        self._silent.clear()
        self._go_on_to_stop()
        if self.is_stopping:
            self._watch()

    def _go_on_to_stop(self) -> None:
        if self._clock.seconds() < self._stops_by:
            if self.under_way is not None or self.is_about_to_lead():
                return
            target = self.best_target()
            if target is not None:
                self.begin(target, HandOverReason.STOPS, _told_nobody)
                return
            if self._may_find_a_target():
                return
        self.is_stopping = False

    def _may_find_a_target(self) -> bool:
        """Whether this server leads, and another one is heard that may soon tell that it follows, or has caught up."""
        others = [i for i in self._membership.other_voters if i not in self._silent and self._peers.heard_lately(i)]
        return self._data.server.state is State.REG_LEADER and self._turn.trouble is None and bool(others)

    def is_about_to_lead(self) -> bool:
        """Whether this server attempts a view that another leader has handed over to it, and does not lead it yet."""
        views = self._data.views
        return self._data.server.state is State.LEADER_ELECTION and views.last_attempted == self._given[0]

    def best_target(self) -> int | None:
        """The server to which this leader hands over when it stops: the first of `priority` that is fit to lead, else
        the one that is least behind; None: no server is fit, or has answered."""
        fit = [i for i in self._membership.other_voters if i not in self._silent and self.why_not(i) is None]
        return min(fit, key=lambda i: (self.rank(i), self._peers.by_id[i].lag, i), default=None)

    # ------------------------------------------------------------------ a server that is preferred

    def rank(self, server_id: int) -> int:
        """The place of a server in `priority`; servers that are not named there come last."""
        priority = self._settings.priority
        return priority.index(server_id) if server_id in priority else len(priority)

    def look(self) -> None:
        """Hand this server's view over, if it leads and a preferred server has been fit to lead for long enough.

        Called in a turn, every `alive_seconds`; does nothing without `priority`.
        """
        if not self._settings.priority:
            return
        views = self._data.views
        view, leader = views.last_installed, self._membership.leader_of(views.last_installed)
        before, self._last_leader = self._last_leader, (view, leader)
        if before[0] != view and before[1] != leader:
            self.note_end(before[1])
        if self._data.server.state is not State.REG_LEADER or self.is_stopping or self.rests:
            for facts in self._preferred.values():
                facts.fit_since = None
            return
        self._look_at_preferred()

    @property
    def rests(self) -> bool:
        """Whether the preference makes no difference at present, since LEAD has brought the view of this server."""
        return self._given == (self._data.views.last_installed, HandOverReason.ASKED)

    def _look_at_preferred(self) -> None:
        now = self._clock.seconds()
        for server_id in self._settings.priority[: self.rank(self._data.server.server_id)]:
            facts = self._facts(server_id)
            if self.why_not(server_id) is not None:
                facts.fit_since = None
                continue
            if facts.fit_since is None:
                facts.fit_since = now
            if now - facts.ended_at > self.longest_wait:
                facts.wait = self.shortest_wait
            if now - facts.fit_since >= facts.wait:
                self.begin(server_id, HandOverReason.PREFERRED, _told_nobody)
                return

    def note_end(self, server_id: int) -> None:
        """A view of a preferred server has ended, or it has not taken over a view: let leaders wait for longer."""
        if server_id in self._settings.priority:
            facts = self._facts(server_id)
            facts.wait = min(2 * facts.wait, self.longest_wait)
            facts.ended_at = self._clock.seconds()
            facts.fit_since = None

    def _facts(self, server_id: int) -> _Preferred:
        return self._preferred.setdefault(server_id, _Preferred(self.shortest_wait))

    def wait_for(self, server_id: int) -> float:
        """How long, in seconds, a preferred server must have been fit to lead before this server, as leader, hands
        over to it."""
        return self._facts(server_id).wait


IN_WORDS: Final = {
    HandOverReason.ASKED: "as a client has asked (LEAD)",
    HandOverReason.STOPS: "since it stops",
    HandOverReason.PREFERRED: "which the configuration prefers",
}


def _told_nobody(why_not: str | None) -> None:
    """Does nothing: no client waits for the hand-over."""
