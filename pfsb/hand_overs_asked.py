"""HandOversAsked: the hand-overs that clients of a server ask for (LEAD, POST /v1/leader)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from pfsb.applications.interfaces import Answer, Done, Refused, Word
from pfsb.config.config import Config
from pfsb.paxos.messages import HandOverReason
from pfsb.paxos.replica import Replica
from pfsb.support.views import shown

PATIENCE_ALIVES = 2.5
"""How long, in periods of ALIVE, a request waits until its target is fit to lead."""
LOOK_SECONDS = 0.02
"""Time, in seconds, between two looks whether a target is fit."""


@frozen
class HandOversAsked:
    """Has this server hand its view over for a client, and tells the client what came of it."""

    _replica: Replica
    _config: Config
    _clock: IReactorTime
    _leader: Callable[[], int | None]
    """Tells the id of the leader, as far as this server knows; None during an election."""
    _no_member: Callable[[], Refused | None]
    """Gives the refusal for the clients of a server that is no member of the cluster; None: this server is one."""

    def answer(self, target: int, answer: Answer) -> None:
        """Let server `target` lead, and answer a client when it does, or with the reason why it does not."""
        patience = PATIENCE_ALIVES * self._replica.settings.alive_seconds
        self._replica.perform(self._begin, target, answer, self._clock.seconds() + patience)

    def _begin(self, target: int, answer: Answer, until: float) -> None:
        """Begin the hand-over. A server that is not fit to lead yet is looked at again until the time `until`: a leader
        that is new hears that others follow it by their next ALIVEs."""
        replica, turn = self._replica, self._replica.turn
        leader, no_member = self._leader(), self._no_member()
        if no_member is not None:
            turn.refuse(answer, no_member)
        elif target not in replica.membership.ids:
            known = ", ".join(map(str, replica.membership.ids))
            turn.refuse(answer, Refused("NOTFOUND", f"there is no server {target}; known are {known}"))
        elif leader is None:
            turn.refuse(answer, Refused("UNAVAILABLE", "this server knows no leader: an election is under way"))
        elif leader == target:
            turn.refuse(answer, _leads(target, replica.data.views.last_installed, is_changed=False))
        elif leader != replica.data.server.server_id:
            where = self._config.server(leader).client if leader in self._config.servers else "another place"
            text = f"server {leader} leads now, and only it can hand over: say LEAD {target} there ({where})"
            turn.refuse(answer, Refused("CONFLICT", text))
        elif (why_not := replica.hand_over.why_not(target)) is not None:
            if self._clock.seconds() < until:
                self._clock.callLater(LOOK_SECONDS, replica.perform, self._begin, target, answer, until)
                return
            turn.refuse(answer, Refused("UNAVAILABLE", f"{why_not}; server {leader} leads on"))
        else:
            replica.hand_over.begin(target, HandOverReason.ASKED, partial(self._told, target, answer))

    def _told(self, target: int, answer: Answer, why_not: str | None) -> None:
        if why_not is None:
            view = self._replica.peers.by_id[target].view
            result: Done | Refused = _leads(target, view, is_changed=True)
        else:
            leader = self._leader()
            now = "no server leads now" if leader is None else f"server {leader} leads now"
            result = Refused("UNAVAILABLE", f"{why_not}; {now}")
        self._replica.turn.refuse(answer, result)


def _leads(leader: int, view: int, *, is_changed: bool) -> Done:
    changed = Word("yes" if is_changed else "no")
    number = shown(view)
    named = Word(number) if isinstance(number, str) else number
    return Done((("leader", leader), ("view", named), ("changed", changed)))
