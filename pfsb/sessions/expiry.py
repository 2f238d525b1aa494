"""Sessions end when nothing is heard of them for their `ttl`; waits end when their time has come (design part 5).

The server that a session was opened at knows whether its client is connected, and introduces the expiry. Of a
server that is silent itself, the leader does so for all its sessions (Departure 9). Durations are measured by one
server's clock; that the session is over is ordered like everything else, and void if it was opened anew meanwhile.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.paxos.messages import State
from pfsb.paxos.replica import Replica
from pfsb.sessions.desk import Desk
from pfsb.sessions.machine import EXPIRE, Session, SessionMachine

LOOK_SECONDS = 0.1
"""How exactly the end of a wait is kept."""
SWEEP_EVERY = 5
"""Every so many looks, all sessions are gone through."""


class Expiry:
    def __init__(
        self, server_id: int, replica: Replica, machine: SessionMachine, desk: Desk, clock: IReactorTime
    ) -> None:
        self._server_id = server_id
        self._replica = replica
        self._machine = machine
        self._desk = desk
        self._clock = clock
        self._silent_since: dict[tuple[str, int], float] = {}
        """(client id, epoch) -> since when nothing was heard of it."""
        self._asked: set[tuple[str, int]] = set()
        """Whose expiry was introduced."""
        self._looks = 0
        self._call: IDelayedCall = clock.callLater(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        if self._call.active():
            self._call.cancel()

    def _look(self) -> None:
        self._replica.perform(self._end_waits)
        self._looks += 1
        if self._looks % SWEEP_EVERY == 0:
            self._sweep()
        if not self._replica.turn.stopped:
            self._call = self._clock.callLater(LOOK_SECONDS, self._look)

    def _end_waits(self) -> None:
        """In a turn: nothing may be ordered for long, so the leader orders the time."""
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline <= self._replica.proposals.now_ms():
            self._replica.proposals.propose_time()

    def _sweep(self) -> None:
        now = self._clock.seconds()
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
        leads = self._replica.data.server.state is State.REG_LEADER
        return leads and not self._replica.flow_control.heard_lately(session.server_id)
