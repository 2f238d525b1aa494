"""In which session a request's command runs: its client's own, or one of a few anonymous ones (docs/http.rst).

HTTP has no connection that a session could hang on. So the name stands for it: the first request with `Pfsb-Client`
says HELLO for that name, and the session is this server's while requests come; `ttl` after the last one it is closed. A
request of the same client at another server takes the session over, which fences off whatever is under way here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Answer, Command, Done, Refused, Result
from pfsb.frontends.stream.reply_queue import SHUTDOWN, refusal

if TYPE_CHECKING:
    from pfsb.server import Server
    from pfsb.sessions.connection import ClientConnection

ANONYMOUS_MAX: Final = 8
"""Anonymous sessions of this door. Each has one bundle under way, so a few fill the batches of the leader."""

Granted = Callable[[str, int], None]
"""Told the name and the token of a lock that the session got."""


def ask(server: Server, connection: ClientConnection, command: Command, answer: Answer) -> None:
    """A question, from this server's own state."""
    if server.local_clients.draining:
        answer(SHUTDOWN)
        return
    try:
        connection.query_local(command, answer)
    except Exception as error:
        answer(refusal(error))


def submit(connection: ClientConnection, number: int | None, command: Command, answer: Answer) -> None:
    """Through the log. What raises has had no effect: the command cannot be encoded."""
    try:
        connection.submit(number, command, answer)
    except Exception as error:
        answer(refusal(error))


@define(eq=False)
class Anonymous:
    """One of the sessions that requests without a name share."""

    connection: ClientConnection
    unanswered: int = 0
    over: bool = False

    def counted(self, answer: Answer) -> Answer:
        self.unanswered += 1

        def answered(result: Result) -> None:
            self.unanswered -= 1
            answer(result)
            if self.over and not self.unanswered:
                self.connection.disconnected()

        return answered


class AnonymousPool:
    """Made as they are needed: as long as nobody waits, there is one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._members: list[Anonymous] = []

    def submit(self, command: Command, answer: Answer) -> None:
        member = self._least_busy()
        submit(member.connection, None, command, member.counted(answer))

    def ask(self, command: Command, answer: Answer) -> None:
        member = self._least_busy()
        ask(self._server, member.connection, command, member.counted(answer))

    def _least_busy(self) -> Anonymous:
        member = min(self._members, key=lambda each: each.unanswered, default=None)
        if member is None or (member.unanswered and len(self._members) < ANONYMOUS_MAX):
            member = self._new_member()
        return member

    def _new_member(self) -> Anonymous:
        def ended(_code: str, _text: str) -> None:
            """It expired while this server was cut off: what is under way still gets its answers."""
            self._members.remove(member)
            member.over = True
            if not member.unanswered:
                member.connection.disconnected()

        member = Anonymous(self._server.local_clients.connect(ended))
        self._members.append(member)
        return member


@define(eq=False)
class NamedSession:
    """The session of one client id, from its HELLO at this server until it is taken over, expires or is left alone."""

    _sessions: Sessions
    client_id: str
    ttl_seconds: int
    epoch: int = field(init=False, default=0)
    """0 until it is open."""
    resumed: bool = field(init=False, default=False)
    """HELLO found it: nothing that it held was lost."""
    _is_new_here: bool = field(init=False, default=True)
    _connection: ClientConnection = field(init=False)
    highest: int = field(init=False, default=0)
    """The highest number in use, or that was."""
    _unanswered: int = field(init=False, default=0)
    _users: int = field(init=False, default=0)
    """Requests that are not answered yet."""
    _entering: list[tuple[Callable[[NamedSession], None], Answer]] = field(init=False, factory=list)
    _idle: IDelayedCall | None = field(init=False, default=None)
    over: bool = field(init=False, default=False)
    """It takes nothing more; a new one stands in its place, or will."""

    def open(self) -> None:
        self._connection = self._sessions.server.local_clients.connect(self._ended)
        try:
            self._connection.hello(self.client_id, self.ttl_seconds, self._opened)
        except Exception as error:
            self._opened(refusal(error))

    def enter(self, ready: Callable[[NamedSession], None], refused: Answer) -> None:
        """Keep it, and call `ready(session)` once it is open, or `refused(Refused)`. Ready ends with one `leave`."""
        self._users += 1
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self.epoch:
            ready(self)
        else:
            self._entering.append((ready, refused))

    def leave(self) -> None:
        """A request is answered, or nobody waits for its answer any more."""
        self._users -= 1
        if self._users:
            return
        if self.over:
            self._connection.disconnected()
        else:
            self._wait_for_the_next()

    def heard(self) -> None:
        """A sign of life other than a request: `ttl` begins anew."""
        if self._idle is not None:
            self._idle.reset(self.ttl_seconds)

    def how_opened(self) -> str:
        """For the header `Pfsb-Session`: what the client's earlier session held is lost if it is `new`."""
        if not self._is_new_here:
            return "kept"
        return "resumed" if self.resumed else "new"

    # ------------------------------------------------------------------ commands

    def submit(self, number: int | None, command: Command, answer: Answer) -> int:
        """Once for each number; None stands for the next one. Returns the number.

        Every number is given here and none by the connection, so that the client can be told which one it was.
        """
        is_used = number is not None and number <= self.highest
        number = self.highest + 1 if number is None else number
        window = self._sessions.server.config.limits.session_window
        if self._unanswered >= window:
            text = f"{self._unanswered} requests of {self.client_id} are not answered yet, no more may be"
            answer(Refused("BUSY", text, fate="unknown" if is_used else "none"))
            return number
        self.highest = max(self.highest, number)
        submit(self._connection, number, command, self._noting(answer))
        return number

    def question(self, command: Command, answer: Answer) -> None:
        """Linearizable. It runs as often as it is asked, so it has no number."""
        submit(self._connection, None, command, answer)

    def ask(self, command: Command, answer: Answer) -> None:
        """From this server's own state: it has executed the session's HELLO, and so all that the session has seen."""
        ask(self._sessions.server, self._connection, command, answer)

    def close(self, answer: Answer) -> None:
        """BYE: its locks are free. `answer` is told how that went."""
        self.over = True
        self._sessions.forget(self)
        self._sessions.ended(self.client_id, "closed")
        try:
            self._connection.bye(answer)
        except Exception as error:
            answer(refusal(error))

    def _noting(self, answer: Answer) -> Answer:
        """Tell whoever listens of a lock that was granted; the request may be gone by then."""
        self._unanswered += 1

        def answered(result: Result) -> None:
            self._unanswered -= 1
            if isinstance(result, Done) and "token" in (fields := dict(result.fields)):
                self._sessions.granted(self.client_id, str(fields["name"]), int(fields["token"]))
            answer(result)

        return answered

    # ------------------------------------------------------------------ its life

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
        """Locks that it has asked for elsewhere: to repeat a number is how one hears of its answer here."""
        for number in self._sessions.server.waiting(self.client_id):
            submit(self._connection, number, ("LOCK", "", 0), self._noting(lambda _result: None))

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

    def _wait_for_the_next(self) -> None:
        self._idle = self._sessions.clock.callLater(self.ttl_seconds, self._left_alone)

    def _left_alone(self) -> None:
        """Nothing was heard of the client for `ttl`. If the closing does not go through, the expiry will see to it."""
        self._idle = None
        if self._sessions.is_listened(self.client_id):
            self._wait_for_the_next()
        else:
            self.close(lambda _result: self._connection.disconnected())


class Sessions:
    """The named sessions that are open at this server's HTTP door."""

    def __init__(self, server: Server, clock: IReactorTime) -> None:
        self.server = server
        self.clock = clock
        self.anonymous = AnonymousPool(server)
        self._named: dict[str, NamedSession] = {}
        self._listeners: dict[str, dict[Listener, None]] = {}

    def __len__(self) -> int:
        return len(self._named)

    def enter(self, client_id: str, ttl_seconds: int, ready: Callable[[NamedSession], None], refused: Answer) -> None:
        """Call `ready(session)` when the client's session is open here, or `refused(Refused)`."""
        session = self._named.get(client_id)
        if session is None:
            if self.server.local_clients.draining:
                refused(SHUTDOWN)
                return
            limit = self.server.config.limits.connections
            if len(self._named) >= limit:
                refused(Refused("BUSY", f"{limit} sessions are open here and no more may be; try another server"))
                return
            session = self._named[client_id] = NamedSession(self, client_id, ttl_seconds)
            session.enter(ready, refused)
            session.open()
        else:
            session.enter(ready, refused)

    def forget(self, session: NamedSession) -> None:
        if self._named.get(session.client_id) is session:
            del self._named[session.client_id]

    # ------------------------------------------------------------------ who listens

    def listen(self, client_id: str, listener: Listener) -> None:
        self._listeners.setdefault(client_id, {})[listener] = None

    def unlisten(self, client_id: str, listener: Listener) -> None:
        listeners = self._listeners.get(client_id, {})
        listeners.pop(listener, None)
        if not listeners:
            self._listeners.pop(client_id, None)
            session = self._named.get(client_id)
            if session is not None:
                session.heard()

    def is_listened(self, client_id: str) -> bool:
        return client_id in self._listeners

    def granted(self, client_id: str, name: str, token: int) -> None:
        for listener in tuple(self._listeners.get(client_id, ())):
            listener.granted(name, token)

    def ended(self, client_id: str, state: str) -> None:
        for listener in tuple(self._listeners.get(client_id, ())):
            listener.session_ended(state)


@define(eq=False)
class Listener:
    """Somebody who is told of the locks of a client's session, and of its end."""

    granted: Granted
    session_ended: Callable[[str], None]
