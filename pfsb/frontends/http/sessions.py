"""Sessions for requests over HTTP: a command runs in the session of its client, or in one of a few anonymous ones.

A session cannot belong to a connection, since HTTP clients use connections as they like. It belongs to a name instead:
the first request with the header `Pfsb-Client` opens the session (HELLO) at this server, later requests use it, and it
is closed when there was no request for `ttl`. A request of the same client at another server takes the session over;
from then on commands that are still under way at this server do not run. See docs/http.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Answer, Command, Done, Refused, Result
from pfsb.frontends.stream.reply_queue import SHUTDOWN, refusal

if TYPE_CHECKING:
    from pfsb.frontends.stream.addresses import Addresses
    from pfsb.server import Server
    from pfsb.sessions.connection import ClientConnection

ANONYMOUS_SESSIONS_MAX: Final = 8
"""Maximum number of anonymous sessions at a server.

Each session has at most one bundle under way. This number of sessions is enough to fill the leader's batches.
"""

_TAKES_A_LOCK: Final = frozenset({"LOCK", "TRYLOCK"})

LOCK_AGAIN_SECONDS: Final = 1.0
"""Seconds after a LOCK was refused with an unknown fate, after which this server asks for the result again."""

Granted = Callable[[str, int], None]
"""Call-back of a stream of events, called for each lock that its client's session is granted: takes the name and the
token of the lock."""


def ask(server: Server, connection: ClientConnection, command: Command, answer: Answer) -> None:
    """Ask a question at this server, in the session of `connection`. `answer` is called at once, with a result from
    this server's own state or with a refusal."""
    if server.local_clients.draining:
        answer(SHUTDOWN)
        return
    try:
        connection.query_local(command, answer)
    except Exception as error:
        answer(refusal(error))


def submit(connection: ClientConnection, number: int | None, command: Command, answer: Answer) -> None:
    """Order a command in the session of `connection`, under the command number `number`; None: under the next number.
    `answer` is called with the result, or with a refusal if the command cannot be encoded."""
    try:
        connection.submit(number, command, answer)
    except Exception as error:
        answer(refusal(error))


@define(eq=False)
class AnonymousSession:
    """One of the sessions that requests without the header `Pfsb-Client` share."""

    connection: ClientConnection
    unanswered: int = 0
    over: bool = False

    def counted(self, answer: Answer) -> Answer:
        """Count one more unanswered request of this session. Returns the call-back that must be called with its result.

        The call-back counts the request as answered, and passes the result on to `answer`. If the session has ended and
        has no other unanswered request, the call-back also ends the session's connection to the server.
        """
        self.unanswered += 1

        def answered(result: Result) -> None:
            self.unanswered -= 1
            answer(result)
            if self.over and not self.unanswered:
                self.connection.disconnected()

        return answered


class AnonymousSessionPool:
    """The anonymous sessions of the HTTP port. One more is opened when all of them have requests under way, up to
    `ANONYMOUS_SESSIONS_MAX`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._members: list[AnonymousSession] = []

    def submit(self, command: Command, answer: Answer) -> None:
        member = self._least_busy()
        submit(member.connection, None, command, member.counted(answer))

    def ask(self, command: Command, answer: Answer) -> None:
        member = self._least_busy()
        ask(self._server, member.connection, command, member.counted(answer))

    def _least_busy(self) -> AnonymousSession:
        member = min(self._members, key=lambda each: each.unanswered, default=None)
        if member is None or (member.unanswered and len(self._members) < ANONYMOUS_SESSIONS_MAX):
            member = self._new_member()
        return member

    def _new_member(self) -> AnonymousSession:
        def ended(_code: str, _text: str) -> None:
            """Called when a session of the pool has ended, as it expires while this server is cut off: takes it out of
            the pool.

            Commands under way in the session are still answered.
            """
            self._members.remove(member)
            member.over = True
            if not member.unanswered:
                member.connection.disconnected()

        member = AnonymousSession(self._server.local_clients.connect(ended))
        self._members.append(member)
        return member


@define(eq=False)
class NamedSession:
    """The session of one client id, from its HELLO at this server until it is closed, taken over or has expired."""

    _sessions: HTTPSessions
    client_id: str
    ttl_seconds: int
    epoch: int = field(init=False, default=0)
    """The epoch of the session; 0 until it is open."""
    resumed: bool = field(init=False, default=False)
    """True if HELLO found the session alive, so that its locks are still held; False if HELLO made a new session."""
    _is_new_here: bool = field(init=False, default=True)
    """True until the requests that have waited for HELLO begin to use the session."""
    _connection: ClientConnection = field(init=False)
    highest: int = field(init=False, default=0)
    """The highest command number that has been used in the session."""
    _unanswered: int = field(init=False, default=0)
    _users: int = field(init=False, default=0)
    """Number of requests that have entered the session and have not left it (`enter`, `leave`)."""
    _entering: list[tuple[Callable[[NamedSession], None], Answer]] = field(init=False, factory=list)
    _idle: IDelayedCall | None = field(init=False, default=None)
    over: bool = field(init=False, default=False)
    """True once the session takes no more requests: the next request of its client opens another session."""

    def open(self, answered: Callable[[], None]) -> None:
        """Say HELLO. `answered` is called, once, when that is answered."""

        def opened(result: Result) -> None:
            answered()
            self._opened(result)

        self._connection = self._sessions.server.local_clients.connect(self._ended)
        try:
            self._connection.hello(self.client_id, self.ttl_seconds, opened)
        except Exception as error:
            opened(refusal(error))

    def enter(self, ready: Callable[[NamedSession], None], refused: Answer) -> None:
        """Call `ready(session)` when the session is open, or `refused(Refused)` if opening it fails: one of them, once.

        The call may come before this method returns. If `ready` is called, the request has entered the session, and the
        caller must call `leave` once, when the request is answered or its client is gone.
        """
        self._users += 1
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self.epoch:
            ready(self)
        else:
            self._entering.append((ready, refused))

    def leave(self) -> None:
        """Called once for each request that has entered the session (`enter`), when it is answered or its client is
        gone.

        When no request is left in the session, the time `ttl` begins after which the session is closed. If the session
        is over already, its connection to the server is ended instead.
        """
        self._users -= 1
        if self._users:
            return
        if self.over:
            self._connection.disconnected()
        else:
            self._start_idle_timer()

    def heard(self) -> None:
        """Begin the time `ttl` anew, after which the session is closed. Called when a stream of events of the client
        has ended: the client was alive until then, although it sent no request."""
        if self._idle is not None:
            self._idle.reset(self.ttl_seconds)

    def how_opened(self) -> str:
        """The value of the header `Pfsb-Session`: whether the session was open here, was found alive, or is new.

        `kept`: the session was open at this server before. `resumed`: HELLO found it alive, with its locks. `new`:
        HELLO made it, so the locks of an earlier session of the client are lost.
        """
        if not self._is_new_here:
            return "kept"
        return "resumed" if self.resumed else "new"

    # ------------------------------------------------------------------ commands

    def submit(self, number: int | None, command: Command, answer: Answer) -> int:
        """Order a command under the command number `number`, which runs at most once; None: under the next number.
        Returns the number.

        `answer` is called with the result, or with BUSY if too many commands of the session are unanswered. The next
        number is chosen here, and not by the `ClientConnection`, so that the client can be told which number its
        command has.
        """
        is_used = number is not None and number <= self.highest
        number = self.highest + 1 if number is None else number
        window = self._sessions.server.session_window
        if self._unanswered >= window:
            text = f"{self._unanswered} requests of {self.client_id} are not answered yet, no more may be"
            answer(Refused("BUSY", text, fate="unknown" if is_used else "none"))
            return number
        self.highest = max(self.highest, number)
        submit(self._connection, number, command, self._noting(command[0], number, answer))
        return number

    def question(self, command: Command, answer: Answer) -> None:
        """Ask a linearizable question. It may run more than once without harm, so it has no command number."""
        submit(self._connection, None, command, answer)

    def ask(self, command: Command, answer: Answer) -> None:
        """Ask a question that is answered from this server's own state.

        This server has executed the session's HELLO, and so everything that the session saw before at other servers.
        """
        ask(self._sessions.server, self._connection, command, answer)

    def close(self, answer: Answer) -> None:
        """Close the session (BYE), which frees its locks. `answer` is called with the result."""
        self.over = True
        self._sessions.forget(self)
        self._sessions.ended(self.client_id, "closed")
        try:
            self._connection.bye(answer)
        except Exception as error:
            answer(refusal(error))

    def _noting(self, verb: str, number: int, answer: Answer) -> Answer:
        """Return a call-back that passes the result of command `number` on to `answer`, and tells the client's streams
        of events if a lock was granted.

        The request that asked for the lock may be gone by then. If the result of a LOCK is a refusal with the fate
        unknown, as when this server's disk hangs, the lock may still be granted: so the result is asked for again until
        it is known.
        """
        self._unanswered += 1

        def answered(result: Result) -> None:
            self._unanswered -= 1
            if verb in _TAKES_A_LOCK and isinstance(result, Done) and "token" in (fields := dict(result.fields)):
                self._sessions.granted(self.client_id, str(fields["name"]), int(fields["token"]))
            elif verb == "LOCK" and isinstance(result, Refused) and result.fate == "unknown":
                self._sessions.clock.callLater(LOCK_AGAIN_SECONDS, self._take_up, number)
            answer(result)

        return answered

    # ------------------------------------------------------------------ opening and ending

    def _opened(self, result: Result) -> None:
        if isinstance(result, Done):
            fields = dict(result.fields)
            self.epoch, self.highest = int(fields["epoch"]), int(fields["last"])
            self.resumed = fields["resumed"] == "yes"
            self._take_up_waits()
        else:
            self.over = True
            self._sessions.forget(self)
        entering, self._entering = self._entering, []
        for ready, refused in entering:
            if isinstance(result, Refused):
                refused(result)
                self.leave()
            else:
                ready(self)
        self._is_new_here = False

    def _take_up_waits(self) -> None:
        """Repeat the command numbers of those LOCKs that were sent while the session was at another server, and that
        still wait for their locks. So their results come to this server.

        A repeated number does not run again, so the arguments of LOCK do not matter.
        """
        for number in self._sessions.server.waiting(self.client_id):
            self._take_up(number)

    def _take_up(self, number: int) -> None:
        if not self.over:
            submit(self._connection, number, ("LOCK", "", 0), self._noting("LOCK", number, lambda _result: None))

    def _ended(self, code: str, _text: str) -> None:
        if not self.over:
            self.over = True
            self._sessions.forget(self)
            self._sessions.ended(self.client_id, "replaced" if code == "REPLACED" else "expired")
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
        if not self._users:
            self._connection.disconnected()

    def _start_idle_timer(self) -> None:
        self._idle = self._sessions.clock.callLater(self.ttl_seconds, self._idle_too_long)

    def _idle_too_long(self) -> None:
        """Close the session, since the client was silent for `ttl`; but not while the client has a stream of events.

        If the BYE fails, the session expires later.
        """
        self._idle = None
        if self._sessions.is_kept_open(self.client_id):
            self._start_idle_timer()
        else:
            self.close(lambda _result: self._connection.disconnected())


@frozen
class SessionOpener:
    """The HTTP connection whose request opens a session, as far as the sessions must know it."""

    opened: set[str]
    """Client ids for which requests of the connection have begun to open sessions, whether that succeeded or not."""
    address: str
    """Where the client is (`pfsb.frontends.stream.addresses.address_of`)."""


class HTTPSessions:
    """Holds the sessions that clients use over HTTP at this server, and tells a client's streams of events (`listen`)
    when its session gets a lock or ends."""

    def __init__(self, server: Server, clock: IReactorTime, addresses: Addresses) -> None:
        self.server = server
        self.clock = clock
        self._addresses = addresses
        self.anonymous = AnonymousSessionPool(server)
        self._named: dict[str, NamedSession] = {}
        self._listeners: dict[str, dict[SessionListener, None]] = {}

    def __len__(self) -> int:
        return len(self._named)

    def enter(
        self,
        client_id: str,
        ttl_seconds: int,
        opener: SessionOpener,
        ready: Callable[[NamedSession], None],
        refused: Answer,
    ) -> None:
        """Call `ready(session)` when the client's session is open at this server; open it first if it is not.

        If opening fails, `refused(Refused)` is called instead. One of the two is called, once. One connection opens no
        more than `limits.opened_sessions` sessions: a client that makes up ids would leave a session behind with each.
        """
        session = self._named.get(client_id)
        if session is None:
            if self.server.local_clients.draining:
                refused(SHUTDOWN)
                return
            limit = self.server.config.limits.connections
            if len(self._named) >= limit:
                refused(Refused("BUSY", f"{limit} sessions are open here and no more may be; try another server"))
                return
            opened_max = self.server.config.limits.opened_sessions
            if client_id not in opener.opened and len(opener.opened) >= opened_max:
                refused(Refused("BUSY", f"this connection has opened {opened_max} sessions; open a new connection"))
                return
            too_many = self._addresses.refusal(opener.address, client_id)
            if too_many is not None:
                refused(too_many)
                return
            opener.opened.add(client_id)
            session = self._named[client_id] = NamedSession(self, client_id, ttl_seconds)
            session.enter(ready, refused)
            session.open(partial(self._addresses.answered, opener.address, client_id))
        else:
            session.enter(ready, refused)

    def forget(self, session: NamedSession) -> None:
        if self._named.get(session.client_id) is session:
            del self._named[session.client_id]

    # ------------------------------------------------------------------ listeners

    def listen(self, client_id: str, listener: SessionListener) -> None:
        self._listeners.setdefault(client_id, {})[listener] = None

    def stop_listening(self, client_id: str, listener: SessionListener) -> None:
        listeners = self._listeners.get(client_id, {})
        listeners.pop(listener, None)
        if not listeners:
            self._listeners.pop(client_id, None)
        session = self._named.get(client_id)
        if session is not None and listener.keeps_session and not self.is_kept_open(client_id):
            session.heard()

    def is_kept_open(self, client_id: str) -> bool:
        """Whether a stream of events keeps the client's session open, although no request comes."""
        return any(listener.keeps_session for listener in self._listeners.get(client_id, ()))

    def granted(self, client_id: str, name: str, token: int) -> None:
        for listener in tuple(self._listeners.get(client_id, ())):
            listener.granted(name, token)

    def ended(self, client_id: str, state: str) -> None:
        for listener in tuple(self._listeners.get(client_id, ())):
            listener.session_ended(state)


@define(eq=False)
class SessionListener:
    """Call-backs of a stream of events, about the sessions of its client at this server's HTTP port: `granted` is
    called for each lock that is granted, `session_ended` at the end of a session with `closed`, `replaced` or
    `expired`."""

    granted: Granted
    session_ended: Callable[[str], None]
    keeps_session: bool
    """True if the session of the client is kept open as long as the stream is."""
