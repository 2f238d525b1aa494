"""Expiry: sessions end when their client was silent for their ttl, and the waits of applications at their deadlines.

The server at which a session was opened knows whether its client is connected, and introduces the expiry. The leader
introduces it for the sessions of a server that is silent, or that has stopped executing updates (Departure 9).

A silence is measured by the clock of one server, so servers may disagree whether a client was silent for too long. The
expiry itself is ordered like every other operation, and names the epoch of the session: if a client has opened the
session again in the meantime, the epoch differs and the expiry has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.paxos.messages import State
from pfsb.paxos.replica import Replica
from pfsb.sessions.state_machine import EXPIRE, Session, SessionStateMachine
from pfsb.sessions.submission import Submission

LOOK_SECONDS = 0.1
"""Time, in seconds, between two looks at the time limits of PENDING commands: a command gets its result at most so much
later."""
DEAF_TIMEOUTS = 4
"""How long, in units of `progress_seconds`, another server may be behind and execute nothing before the leader counts
the clients of its sessions as silent."""
SWEEP_EVERY = 5
"""After this many looks at time limits (`LOOK_SECONDS`), all sessions are searched for those that must expire."""


class Expiry:
    """Notices, at one server, sessions and PENDING commands whose time is over, and introduces the operation or the
    proposal that ends them."""

    def __init__(
        self,
        server_id: int,
        replica: Replica,
        machine: SessionStateMachine,
        submission: Submission,
        clock: IReactorTime,
        on_sweep: Callable[[], None],
    ) -> None:
        """`on_sweep` is called at each search of all sessions, twice a second, for what else must be looked at."""
        self._server_id = server_id
        self._replica = replica
        self._machine = machine
        self._submission = submission
        self._clock = clock
        self._on_sweep = on_sweep
        self._silent_since: dict[tuple[str, int], float] = {}
        """(client id, epoch) -> clock time since which the client is silent, if this server may expire the session."""
        self._progress: dict[int, tuple[int, float]] = {}
        """server id -> (its Local_Aru, clock time when that last grew or was no less than this server's Local_Aru)."""
        self._expiring: set[tuple[str, int]] = set()
        """(client id, epoch) of the sessions whose expiry is submitted and has no result yet."""
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
            self._on_sweep()
        if not self._replica.turn.stopped:
            self._call = self._clock.callLater(LOOK_SECONDS, self.look)

    def _end_waits(self) -> None:
        """Proposes an empty batch, in a turn at the leader, if the time limit of a PENDING command has passed and no
        update brings the new time."""
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline <= self._replica.proposals.now_ms():
            self._replica.proposals.propose_time()

    def sweep(self) -> None:
        now = self._clock.seconds()
        self._note_progress(now)
        silent: dict[tuple[str, int], float] = {}
        for session in self._machine.sessions.values():
            if self._is_silent(session):
                key = (session.client_id, session.epoch)
                silent[key] = since = self._silent_since.get(key, now)
                if now - since >= session.ttl_ms / 1000 and key not in self._expiring:
                    self._expiring.add(key)
                    self._submission.submit_operation((EXPIRE, *key), partial(self._on_expiry_result, key))
        self._silent_since = silent

    def _on_expiry_result(self, key: tuple[str, int], _: object) -> None:
        self._expiring.discard(key)

    def _is_silent(self, session: Session) -> bool:
        """True if the session's client is silent at present, and this server is the one that must expire the session.

        A new leader, or a restarted server, counts the silence of a client from its own first search of all sessions
        (`sweep`) on.
        """
        if session.server_id == self._server_id:
            return not self._submission.speaks_for(session.client_id, session.epoch)
        if self._replica.data.server.state is not State.REG_LEADER:
            return False
        return not self._replica.peers.heard_lately(session.server_id) or self._is_deaf(session.server_id)

    def _is_deaf(self, server_id: int) -> bool:
        """True of another server that sends messages, but executes nothing: it serves no client and ends no session."""
        _, since = self._progress[server_id]
        return self._clock.seconds() - since > DEAF_TIMEOUTS * self._replica.settings.progress_seconds

    def _note_progress(self, now: float) -> None:
        own_aru = self._replica.data.ordering.local_aru
        for server_id, peer in self._replica.peers.by_id.items():
            aru, _ = self._progress.get(server_id, (-1, now))
            if peer.local_aru > aru or peer.local_aru >= own_aru:
                self._progress[server_id] = peer.local_aru, now
