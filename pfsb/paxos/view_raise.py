"""Departure 50: a leader raises its view above the view of servers that have installed a later one.

A server that has installed a view never follows a leader of an earlier view again. If a minority has installed a later
view, and a majority works in an earlier one, the minority stays out until the majority elects another leader. So the
leader attempts a view that it leads itself, above all views that such servers have told in their ALIVEs for long
enough. Its followers attempt the same view with it, and the other servers join.

A server in error may tell such a view again and again. So each raise doubles the time that the leader waits before the
next one, and goes up by a bounded number of views.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.messages import State
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.support.views import shown

PATIENCE: Final = 2
"""How long a server must have told a later view before the leader raises its own, in units of the Progress_Timer: of
its default at first, and of its maximum length when several raises have followed each other."""
RAISE_VIEWS_MAX: Final = 1_024
"""Maximum number of views by which one raise goes up, besides the few up to the next view that the leader leads.

A server in error makes a leader raise its view, in the long run, at most once in the time of ten Progress_Timers. With
the default of one second, the 2**32 views of a cluster then last for more than a year. A server that has installed a
view further above comes back after several raises.
"""


class ViewRaise(Handler):
    """Looks, at the leader, for servers that have installed a later view, and raises the leader's view above theirs."""

    _log = Logger()

    def __init__(
        self,
        core: Core,
        peers: Peers,
        alive: AliveHandler,
        election: LeaderElectionHandler,
        progress_timer: ProgressTimer,
    ) -> None:
        super().__init__(core)
        self._peers = peers
        self._alive = alive
        self._election = election
        self.shortest_wait = PATIENCE * core.settings.progress_seconds
        """How long, in seconds, a server must have told a later view before the first raise."""
        self.longest_wait = PATIENCE * progress_timer.longest
        """Maximum of `wait`, in seconds. If for that long no server has told a later view, `wait` is `shortest_wait`
        again."""
        self.wait = self.shortest_wait
        """How long, in seconds, a server must have told a later view before the next raise. Each raise doubles it, up
        to `longest_wait`."""
        self._beyond_since: dict[int, float] = {}
        """Server id -> time by the clock of the first of the latest looks, all of which have found that server in a
        later view than the one that this server leads. Emptied by each raise, and when this server does not lead."""
        self._last_beyond = NEVER
        """Time by the clock of the last look that has found a server in a later view."""

    def look(self) -> None:
        """Raise the view if this server leads, and another server has been in a later view for `wait` seconds.

        Called in a turn, every `alive_seconds`. A leader that no majority follows raises nothing, since the election
        would fail and its Progress_Timer ends its view anyway; nor does one whose disk is in trouble.
        """
        if self._data.server.state is not State.REG_LEADER:
            self._beyond_since.clear()
            return
        now = self._clock.seconds()
        if now - self._last_beyond > self.longest_wait:
            self.wait = self.shortest_wait
        self._note_who_is_beyond(now)
        stuck = [i for i, since in self._beyond_since.items() if now - since >= self.wait]
        if stuck and self._turn.trouble is None and self._alive.is_followed():
            self._raise_above(stuck)

    def _note_who_is_beyond(self, now: float) -> None:
        own = self._data.views.last_installed
        for removed in self._beyond_since.keys() - self._peers.by_id.keys():
            del self._beyond_since[removed]
        for server_id, peer in self._peers.by_id.items():
            if peer.view > own and self._peers.heard_lately(server_id):
                self._beyond_since.setdefault(server_id, now)
                self._last_beyond = now
            else:
                self._beyond_since.pop(server_id, None)

    def _raise_above(self, stuck: list[int]) -> None:
        """Attempt the first view that this server leads above the views of the servers `stuck`."""
        own = self._data.views.last_installed
        highest = max(self._peers.by_id[server_id].view for server_id in stuck)
        view = self._membership.next_led(min(highest, own + RAISE_VIEWS_MAX))
        if view > self._membership.last_view:
            return
        self.wait = min(2 * self.wait, self.longest_wait)
        self._beyond_since.clear()
        self._log.info(
            "servers {stuck} have installed view {highest}, and cannot follow view {own}: the leader goes on to {view}",
            stuck=", ".join(map(str, stuck)),
            highest=shown(highest),
            own=shown(own),
            view=shown(view),
        )
        self._election.raise_view(view)
