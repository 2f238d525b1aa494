"""Expiry: sessions end when their client was silent for their ttl, and the waits of applications at their deadlines.

The server at which a session was opened knows whether its client is connected, and introduces the expiry. The leader
introduces it for the sessions of a server that is silent, or that has stopped executing updates (Departure 9).

A server that the leader does not hear may serve its clients all the same: others relay its updates, and tell it what is
executed. So the leader asks it through the log (ASK), and it answers through the log (HERE). As long as updates of that
server are executed, its sessions are not expired (Departure 36).

A silence is measured by the clock of one server, so servers may disagree whether a client was silent for too long. The
expiry itself is ordered like every other operation, and names the epoch of the session: if a client has opened the
session again in the meantime, the epoch differs and the expiry has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Done, Result
from pfsb.paxos.messages import State
from pfsb.paxos.replica import Replica
from pfsb.sessions.session import Session
from pfsb.sessions.state_machine import ASK, EXPIRE, SessionStateMachine
from pfsb.sessions.submission import Submission

LOOK_SECONDS = 0.1
"""Time, in seconds, between two looks at the time limits of PENDING commands: a command gets its result at most this
much after its time limit."""
TIME_EVERY_MS = 10_000
"""Milliseconds after the time of the last executed slot, at which a leader orders an empty batch to tell the time, if a
PENDING command has a time limit, even one that is not over yet."""
DEAF_TIMEOUTS = 4
"""How long, in units of `progress_seconds`, another server may be behind and execute nothing before the leader counts
the clients of its sessions as silent."""
ANSWER_UPDATES = 4
"""How long a server has to answer an ASK (`Expiry.ask`), in units of `update_seconds`, in addition to one
`progress_seconds`.

The server needs one `update_seconds` to learn of the ASK, and two until its answer goes to all servers, which relay the
answer (Departure 17).
"""
SWEEP_EVERY = 5
"""Number of looks at time limits, one each `LOOK_SECONDS`, after which all sessions are searched for those that must
expire."""


@frozen
class Silence:
    """Since when the client of a session is silent, and which updates of the server at which the session was opened had
    been executed by then."""

    since: float
    heard: int
    """The last slot in which an update of the server at which the session was opened had been executed; 0: none, or
    that server is this one."""


@frozen
class Asked:
    """An ASK, the question whether a server still serves its clients, that the leader has submitted for another server
    whose last executed update was in slot `heard`."""

    heard: int
    executed_at: float | None = None
    """Clock time at which this server executed the ASK; None: not yet."""


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
        """`on_sweep` is called twice a second, after each search of all sessions, for periodic checks of other parts of
        the server."""
        self._server_id = server_id
        self._replica = replica
        self._machine = machine
        self._submission = submission
        self._clock = clock
        self._on_sweep = on_sweep
        self.silences: dict[tuple[str, int], Silence] = {}
        """(client id, epoch) -> the silence of the client, for the sessions that this server may expire."""
        self._asked: dict[int, Asked] = {}
        """Server id -> the last ASK that this server has submitted for that server; emptied when this server does not
        lead."""
        self._progress: dict[int, tuple[int, float]] = {}
        """Server id -> (its Local_Aru as this server knows it, clock time at which that Local_Aru last grew or was no
        less than this server's own)."""
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
        """Proposes an empty batch for its time alone, in a turn at the leader, if no other batch has brought the time.

        The batch is due when the time limit of a PENDING command has passed. It is also due `TIME_EVERY_MS` after the
        last executed slot, as long as a command with a time limit is PENDING: so a server that is restarted, or that
        missed some slots, has lost little of the time when it leads (Departure 35).
        """
        deadline = self._machine.next_deadline()
        if deadline is None:
            return
        now_ms = self._replica.proposals.now_ms()
        if deadline <= now_ms or now_ms - self._machine.time_ms >= TIME_EVERY_MS:
            self._replica.proposals.propose_time()

    def sweep(self) -> None:
        now = self._clock.seconds()
        self._note_progress(now)
        if self._replica.data.server.state is not State.REG_LEADER:
            self._asked.clear()
        silences: dict[tuple[str, int], Silence] = {}
        for session in self._machine.sessions.values():
            if self.is_silent(session):
                key = (session.client_id, session.epoch)
                silences[key] = silence = self.silence_of(session, key, now)
                self._expire_if_due(session, key, silence, now)
        self.silences = silences

    def silence_of(self, session: Session, key: tuple[str, int], now: float) -> Silence:
        """The silence of a session's client; `key` is (client id, epoch) of the session.

        A silence that the last search of all sessions has found goes on; otherwise one begins at `now`. If the session
        was opened at another server, a silence also begins anew when a later update of that server was executed.
        """
        is_own = session.server_id == self._server_id
        heard = 0 if is_own else self._machine.heard_in.get(session.server_id, 0)
        silence = self.silences.get(key)
        return silence if silence is not None and silence.heard == heard else Silence(now, heard)

    def _expire_if_due(self, session: Session, key: tuple[str, int], silence: Silence, now: float) -> None:
        quiet, ttl = now - silence.since, session.ttl_ms / 1000
        if session.server_id == self._server_id:
            if quiet >= ttl:
                self._expire(key)
        elif quiet >= ttl / 2:
            self.ask(session.server_id, silence.heard)
            if quiet >= ttl and self.has_not_answered(session.server_id, silence.heard, now):
                self._expire(key, silence.heard)

    def _expire(self, key: tuple[str, int], *heard: int) -> None:
        if key not in self._expiring:
            self._expiring.add(key)
            self._submission.submit_operation((EXPIRE, *key, *heard), partial(self._on_expiry_result, key))

    def _on_expiry_result(self, key: tuple[str, int], _: object) -> None:
        self._expiring.discard(key)

    def ask(self, server_id: int, heard: int) -> None:
        """Has an ASK ordered: the question to server `server_id`, which the leader does not hear, whether it still
        serves its clients. That server must answer by an update in the log (Departure 36).

        `heard` is the last slot in which an update of that server was executed. There is one ASK for each value of
        `heard`: the next ASK follows only when a later update of the server was executed, or when the ASK was refused.
        """
        asked = self._asked.get(server_id)
        if asked is None or asked.heard != heard:
            asked = self._asked[server_id] = Asked(heard)
            self._submission.submit_operation((ASK, server_id), partial(self._on_asked, server_id, asked))

    def _on_asked(self, server_id: int, asked: Asked, result: Result) -> None:
        """Called in a turn with the result of an ASK for server `server_id`.

        ASK orders that server to show, by any update of its own, that it serves its clients. If the ASK was executed,
        the time begins within which such an update must be executed; afterwards the sessions of that server may be
        expired (`has_not_answered`). If the ASK was refused, `asked` is forgotten, so that the next search of all
        sessions submits a new ASK for the server.
        """
        if self._asked.get(server_id) is not asked:
            return
        if isinstance(result, Done):
            self._asked[server_id] = Asked(asked.heard, self._clock.seconds())
        else:
            del self._asked[server_id]

    def has_not_answered(self, server_id: int, heard: int, now: float) -> bool:
        """Whether the time has passed within which a server must answer an ASK, and no update of that server was
        executed after slot `heard`.

        False as long as the ASK is not executed, since the time begins when it is.
        """
        asked, settings = self._asked.get(server_id), self._replica.settings
        if asked is None or asked.heard != heard or asked.executed_at is None:
            return False
        return now - asked.executed_at >= settings.progress_seconds + ANSWER_UPDATES * settings.update_seconds

    def is_silent(self, session: Session) -> bool:
        """True if the session's client is silent at present, and this server is the one that must expire the session.

        A new leader, or a restarted server, counts the silence of a client from its own first search of all sessions
        (`sweep`) on.
        """
        if session.server_id == self._server_id:
            return not self._submission.speaks_for(session.client_id, session.epoch)
        if self._replica.data.server.state is not State.REG_LEADER:
            return False
        if session.server_id not in self._replica.peers.by_id:
            return True
        return not self._replica.peers.heard_lately(session.server_id) or self._is_deaf(session.server_id)

    def _is_deaf(self, server_id: int) -> bool:
        """True of another server that sends messages, but executes nothing: it serves no client and ends no session."""
        now = self._clock.seconds()
        _, since = self._progress.get(server_id, (-1, now))
        return now - since > DEAF_TIMEOUTS * self._replica.settings.progress_seconds

    def _note_progress(self, now: float) -> None:
        """Note how far the other servers have executed; servers that are gone from the cluster are forgotten."""
        own_aru, before = self._replica.data.ordering.local_aru, self._progress
        self._progress = {}
        for server_id, peer in self._replica.peers.by_id.items():
            aru, since = before.get(server_id, (-1, now))
            grows = peer.local_aru > aru or peer.local_aru >= own_aru
            self._progress[server_id] = (peer.local_aru, now) if grows else (aru, since)
