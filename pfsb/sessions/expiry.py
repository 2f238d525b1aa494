"""Sessions end when nothing is heard of them for their `ttl`; waits end when their time has come.

The server that a session was opened at knows whether its client is connected, and introduces the expiry. The leader
does so for the sessions of a server that is silent itself, or that learns of nothing (Departure 9). Durations are
measured by one server's clock; that the session is over is ordered like everything else, and void if it was opened
anew meanwhile.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.paxos.messages import State
from pfsb.paxos.replica import Replica
from pfsb.sessions.local_clients import LocalClients
from pfsb.sessions.state_machine import EXPIRE, Session, SessionStateMachine

LOOK_SECONDS = 0.1
"""How exactly the end of a wait is kept."""
DEAF_TIMEOUTS = 4
"""Progress timeouts without any progress, while others have made some, after which a server counts as deaf."""
SWEEP_EVERY = 5
"""Every so many looks, all sessions are gone through."""


class Expiry:
    def __init__(
        self, server_id: int, replica: Replica, machine: SessionStateMachine, desk: LocalClients, clock: IReactorTime
    ) -> None:
        self._server_id = server_id
        self._replica = replica
        self._machine = machine
        self._desk = desk
        self._clock = clock
        self._silent_since: dict[tuple[str, int], float] = {}
        """(client id, epoch) -> since when nothing was heard of it."""
        self._kept_up: dict[int, tuple[int, float]] = {}
        """server -> (its Local_Aru, when it last grew or was no less than this server's)."""
        self._asked: set[tuple[str, int]] = set()
        """Whose expiry was introduced."""
        self._looks = 0
        self._call: IDelayedCall = clock.callLater(LOOK_SECONDS, self.look)

    def stop(self) -> None:
        if self._call.active():
            self._call.cancel()

    def look(self) -> None:
        self._replica.perform(self._end_waits)
        self._looks += 1
        if self._looks % SWEEP_EVERY == 0:
            self.sweep()
        if not self._replica.turn.stopped:
            self._call = self._clock.callLater(LOOK_SECONDS, self.look)

    def _end_waits(self) -> None:
        """In a turn: nothing may be ordered for long, so the leader orders the time."""
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline <= self._replica.proposals.now_ms():
            self._replica.proposals.propose_time()

    def sweep(self) -> None:
        now = self._clock.seconds()
        self._note_who_keeps_up(now)
        silent: dict[tuple[str, int], float] = {}
        for session in self._machine.sessions.values():
            if self._is_silent(session):
                key = (session.client_id, session.epoch)
                silent[key] = since = self._silent_since.get(key, now)
                if now - since >= session.ttl_ms / 1000 and key not in self._asked:
                    self._asked.add(key)
                    self._desk.operate((EXPIRE, *key), partial(self._expired, key))
        self._silent_since = silent

    def _expired(self, key: tuple[str, int], _: object) -> None:
        self._asked.discard(key)

    def _is_silent(self, session: Session) -> bool:
        """Only of what this server has to answer for; what it does not hear of in time, it counts from now on."""
        if session.server_id == self._server_id:
            return not self._desk.is_connected(session.client_id, session.epoch)
        if self._replica.data.server.state is not State.REG_LEADER:
            return False
        return not self._replica.peers.heard_lately(session.server_id) or self._is_deaf(session.server_id)

    def _is_deaf(self, server_id: int) -> bool:
        """It is heard, but learns of nothing that is executed: it can serve no client, and end no session."""
        _, since = self._kept_up[server_id]
        return self._clock.seconds() - since > DEAF_TIMEOUTS * self._replica.settings.progress_seconds

    def _note_who_keeps_up(self, now: float) -> None:
        own_aru = self._replica.data.ordering.local_aru
        for server_id, peer in self._replica.peers.by_id.items():
            aru, _ = self._kept_up.get(server_id, (-1, now))
            if peer.local_aru > aru or peer.local_aru >= own_aru:
                self._kept_up[server_id] = peer.local_aru, now
