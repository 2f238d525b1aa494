"""The client without sockets and clock: a driver tells it the time and what has arrived, and gets actions from it.

The client keeps one session, is connected to one server at a time, and goes to the next server when the present one
does not answer in time. It numbers the commands. Commands that are unanswered when the client moves on are repeated
with the same numbers, in order, so that each runs once whichever server answers (docs/protocol.rst). After each call
of the core, the driver carries out the actions that `take_actions` returns, and arranges to call `woken` at `wake_at`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from attrs import define, evolve, field

from pfsb.client.core.actions import Action, Connect, HangUp, Send, SessionEnd
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.chat_cursor import ChatCursor
from pfsb.client.core.command import Answered, Command
from pfsb.client.core.command_queue import CommandQueue
from pfsb.client.core.connection import LineConnection
from pfsb.client.core.held_locks import HeldLocks
from pfsb.client.core.hello import Hello
from pfsb.client.core.known_servers import KnownServers
from pfsb.client.core.odd_replies import OddReply, check_event, check_reply
from pfsb.client.core.outage import outage_text
from pfsb.client.core.replies import EventLine, Reply, refusal
from pfsb.client.core.retry_policy import ReadonlyServers, belongs_elsewhere, is_final_for_hello, is_to_be_renumbered
from pfsb.client.core.server_rotation import ServerRotation
from pfsb.client.core.showing import Showing, is_refused_token
from pfsb.client.core.timeouts import ResponseTimeout

WINDOW: Final = 64
"""Maximum number of commands of a client under way at once. A server keeps the replies to the last `session_window`
(128) commands of each session, so that every unanswered command still gets its reply when it is repeated."""
BYE_SECONDS: Final = 1.0
"""How long, in seconds, a client that stops waits for the answer to BYE."""
TTL_SECONDS: Final = 10
"""How long, in seconds, a session lives after the servers have last heard from its client, unless the program chooses
another time."""
PROBES_PER_TTL: Final = 3
"""How many times in `ttl_seconds` an idle client asks its server for an answer, to notice a server that has failed."""


def new_client_id() -> str:
    """A random client id of 128 bits, which no other client has."""
    return secrets.token_hex(16)


def _ignore(_what: object) -> None:
    """Do nothing: the default of a callback."""


def _is_of_session(command: Command) -> bool:
    return not command.is_local


@define(eq=False)
class ClientCore:
    """One client of a cluster, with one session. All times are in seconds, and by the clock of the driver."""

    addresses: Sequence[ServerAddress]
    client_id: str = field(factory=new_client_id)
    ttl_seconds: int = TTL_SECONDS
    window: int = WINDOW
    response_timeout: ResponseTimeout = field(factory=ResponseTimeout)
    on_event: Callable[[EventLine], None] = _ignore
    on_server: Callable[[ServerAddress], None] = _ignore
    """Called with the server's address whenever a server has accepted a connection."""
    on_session_end: Callable[[SessionEnd], None] = _ignore
    """Called once for each session of this client that is lost, with the reason and the session's locks, before the
    commands that cannot go on without this session are refused."""
    on_unreachable: Callable[[str], None] = _ignore
    """Called with a text for people when none of the servers has accepted a connection. It is not called again before a
    server has accepted one."""
    dice: Random = field(factory=Random)
    index: int = 0
    """Position in `addresses` of the server that is tried first."""
    learns: bool = False
    """Whether the client asks each server for the servers of the cluster, and takes the addresses that they tell into
    `addresses`: so it goes on when all servers that it was given have been replaced."""

    retries: int = field(init=False, default=0)
    """How many times the client has had to send a command again since the client was made: the sum over all
    commands."""
    stopped: bool = field(init=False, default=False)
    """True: the client has stopped for good. Its last action is a `HangUp`."""
    held_locks: HeldLocks = field(init=False, factory=HeldLocks)
    _now: float = field(init=False, default=0.0)
    _actions: list[Action] = field(init=False, factory=list)
    _commands: CommandQueue = field(init=False)
    _connection: LineConnection | None = field(init=False, default=None)
    _next_try: float | None = field(init=False, default=None)
    _bye_until: float | None = field(init=False, default=None)
    _hello: Hello = field(init=False)
    _showing: Showing = field(init=False)
    _is_told: bool = field(init=False, default=False)
    """Whether `on_unreachable` was called since a server last accepted a connection."""
    _connections: int = field(init=False, default=0)
    """Number of connections that servers have accepted so far."""
    _sure_at: float = field(init=False, default=0.0)
    """The latest time of which the client knows that the session was alive, and its server in touch with a majority:
    the time at which the last request was sent that has got an answer which only a majority can give."""
    _probed_at: float = field(init=False, default=0.0)
    """The time at which the client last sent a probe."""
    _seen_at: int = field(init=False, default=0)
    """The number of the connection, counted from 1, on which a sequential or linearizable read was last sent outside of
    a session; 0: none was."""
    _chat_cursor: ChatCursor = field(init=False, factory=ChatCursor)
    _rotation: ServerRotation = field(init=False)
    _readonly: ReadonlyServers = field(init=False)
    _known: KnownServers = field(init=False)
    _final_refusal: Reply | None = field(init=False, default=None)
    """The refusal that answers every further command, after the session was closed or was taken over by another
    program. None: commands are accepted."""

    @_commands.default
    def _make_commands(self) -> CommandQueue:
        return CommandQueue(self.window)

    @_hello.default
    def _make_hello(self) -> Hello:
        return Hello(self.client_id, self.ttl_seconds)

    @_known.default
    def _make_known(self) -> KnownServers:
        return KnownServers(self.addresses)

    @_showing.default
    def _make_showing(self) -> Showing:
        return Showing(len(self.addresses))

    @_rotation.default
    def _make_rotation(self) -> ServerRotation:
        return ServerRotation(self.addresses, self.dice, self.index)

    @_readonly.default
    def _make_readonly(self) -> ReadonlyServers:
        return ReadonlyServers(len(self.addresses))

    # ------------------------------------------------------------------ calls of the user

    def start(self, now: float) -> None:
        """Connect to the first server that can be reached."""
        self._now = now
        self._connect()

    def submit(self, line: str, answered: Answered, now: float, *, asks: bool = False) -> Command:
        """Carry out a command line, to which the client gives a number.

        `answered` is called with the reply, OK or not, once, perhaps before this method returns. `asks` says that the
        line is a question, for a verb that the client does not know (`Command.asks`).
        """
        self._now = now
        command = Command(line, answered, asks=asks)
        if self._final_refusal is not None and (self.stopped or self._bye_until is not None or not command.is_local):
            command.answer(self._final_refusal)
        else:
            self._commands.add(command)
            self._pump()
        return command

    def give_up(self, command: Command, late: Answered = _ignore) -> str:
        """Stop waiting for the answer to a command; returns the command's fate, "none" or "unknown".

        The client goes on repeating a command of unknown fate until its answer arrives, and calls `late` with this
        answer, so that the caller can give back a lock which the command has taken.
        """
        fate = command.fate
        if fate == "unknown" or (command.is_local and command.may_have_run):
            command.hand_over(late)
        else:
            command.hand_over(_ignore)
            command.is_over = True
        return fate

    def stop(self, now: float) -> None:
        """Close the session with BYE, if a server has answered HELLO on this connection, then close the connection."""
        if self.stopped or self._bye_until is not None:
            return
        self._now = now
        self._final_refusal = refusal("CLOSED", "none", "this client is closed")
        self._commands.take_back()
        self._commands.refuse("CLOSED", "this client was closed", lambda _command: True)
        if self._connection is not None and self._hello.done:
            self._connection.forget()
            self._bye_until = now + BYE_SECONDS
            self._request(None, "BYE", lambda _reply: self._close(at_once=False))
        else:
            self._close()

    # ------------------------------------------------------------------ calls of the driver

    def connected(self, now: float) -> None:
        """Called by the driver when the server of the last `Connect` has accepted the connection."""
        self._now = now
        self._connection = LineConnection(self._heard_event, self._move_on)
        self._connections += 1
        self._is_told = False
        token = self.server.token
        if token is not None:
            self._showing.under_way = True
            self.response_timeout.begin(now)
            self._request(None, f"AUTH {token}", self._heard_auth)
        self.on_server(self.server)
        if token is None:
            self._begin()

    def _begin(self) -> None:
        """Called when the present connection is ready, with the token shown if there is one: go on where the former
        connection has ended.

        MEMBERS goes first: a server that refuses HELLO, since it was removed or only learns, tells before that which
        servers do not.
        """
        if self.learns:
            self._request(None, "MEMBERS", _ignore)
        if self._chat_cursor.listen_line is not None:
            self._request(None, self._chat_cursor.listen_line, _ignore)
        if self._hello.has_session and self._final_refusal is None:
            self._say_hello()
        self._pump()

    def received(self, data: bytes, now: float) -> None:
        """Called by the driver when the connected server has sent these bytes."""
        self._now = now
        if self._connection is not None:
            try:
                self._connection.receive(data)
            except OddReply as error:
                self._move_on(str(error))

    def lost(self, why: str, now: float) -> None:
        """Called by the driver when the connection has ended or could not be made; `why` is the reason, as a text for
        people."""
        self._now = now
        if self._bye_until is not None:
            self._close()
        elif not self.stopped:
            self._move_on(why)

    @property
    def wake_at(self) -> float | None:
        """The time at which the driver must call `woken`; None: the client has no deadline now."""
        if self.stopped:
            return None
        if self._connection is None or self._bye_until is not None:
            return self._bye_until or self._next_try
        probe_at = self._probe_at
        if not self._is_awaiting:
            return probe_at
        ends_at, holds = self.response_timeout.ends_at, self._hello.done and self.held_locks.may_hold_any
        return min(ends_at, probe_at) if holds and probe_at is not None else ends_at

    def woken(self, now: float) -> None:
        """Called by the driver at `wake_at` or later; an earlier call does nothing."""
        wake_at = self.wake_at
        if wake_at is None or now < wake_at:
            return
        self._now = now
        if self._bye_until is not None:
            self._close()
        elif self._connection is None:
            self._connect()
        elif self._is_awaiting and now >= self.response_timeout.ends_at:
            # A server that is cut off from the majority cannot answer, but another server may be able to.
            self._move_on(f"no answer for {self.response_timeout.expire():g} s")
        else:
            self._probe()

    def take_actions(self) -> list[Action]:
        """Return the actions that the driver must carry out now, in this order, and forget them."""
        actions, self._actions = self._actions, []
        return actions

    # ------------------------------------------------------------------ state

    @property
    def server(self) -> ServerAddress:
        """The server that the client is connected to, or tries to reach."""
        return self._rotation.server

    @property
    def last_trouble(self) -> str:
        """Why the client has left the server before the present one, or could not reach it, as a text for people."""
        return self._rotation.last_trouble

    @property
    def outage(self) -> str:
        """A text for people: which servers this client could reach, and, for each that does not serve, the reason."""
        return outage_text(self.addresses, self._rotation.troubles)

    @property
    def was_connected(self) -> bool:
        """Whether any server has accepted a connection since the start."""
        return self._connections > 0

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    @property
    def sure_until(self) -> float:
        """The time up to which the session, and with it every lock, is certainly alive, since servers end a session
        only `ttl_seconds` after they have last heard from its client. After this time the session may have ended."""
        return self._sure_at + self.ttl_seconds

    @property
    def _is_awaiting(self) -> bool:
        """Whether the client waits for an answer to AUTH or HELLO, or to a command that a healthy server answers at
        once."""
        return self._showing.under_way or self._hello.under_way or self.response_timeout.expected > 0

    # ------------------------------------------------------------------ connections

    def _connect(self) -> None:
        self._next_try = None
        self._actions.append(Connect(self.server))

    def _move_on(self, why: str) -> None:
        """Leave the present server for the next one, because of `why`."""
        self._rotation.note_trouble(why, is_unreachable=self._connection is None)
        self._hello.connection_lost()
        self._showing.under_way = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._actions.append(HangUp(at_once=True))
        self._take_back()
        self._next_try = self._now + self._rotation.move_to_next()
        if self._rotation.none_is_reachable and not self._is_told:
            self._is_told = True
            self.on_unreachable(self.outage)

    def _take_back(self) -> None:
        """Put the unanswered commands back into the queue, and refuse those FAULT commands that were sent.

        FAULT changes only the server that it was sent to, and so must not be repeated at another server.
        """
        self.response_timeout.expected = 0
        self.retries += sum(1 for command in self._commands.take_back() if command.verb != "FAULT")
        self._commands.refuse(
            "UNAVAILABLE",
            f"it was meant for one server: {self.last_trouble}",
            lambda command: command.verb == "FAULT" and command.may_have_run,
        )

    def _close(self, at_once: bool = True) -> None:
        self.stopped = True
        self._bye_until = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._actions.append(HangUp(at_once))

    # ------------------------------------------------------------------ sending

    def _pump(self) -> None:
        """Send the commands that may be sent now; HELLO goes before the first command of the session."""
        if self._showing.under_way:
            return
        while self._connection is not None and (command := self._commands.next()) is not None:
            if not command.is_local and not self._hello.done and not self._needs_no_session(command):
                self._say_hello()
                return
            self._send(command)

    def _needs_no_session(self, command: Command) -> bool:
        """Whether `command`, a question, may be sent on this connection without a session, which only a majority can
        open.

        A stale read may always be sent so, since it promises nothing. A sequential read must not be older than the
        state that this client has seen before. As long as the client had no session, it has seen only the answers to
        such reads; so it may be sent if those came on this connection, from a server whose state never goes back.

        A client that may only read has no session, and needs none: `_send` makes a linearizable read of a sequential
        one behind a change of connections.
        """
        if self._showing.is_reader and command.is_question:
            return True
        if command.read_level != "sequential":
            return command.read_level == "stale"
        is_new = not self._hello.has_session and not self._hello.under_way and not self._hello.unanswered
        return is_new and self._seen_at in (0, self._connections)

    def _send(self, command: Command) -> None:
        self._commands.mark_sent(command)
        line = command.line
        if not self._hello.done and not command.is_local:
            command.number = None
            if command.read_level == "sequential" and self._seen_at not in (0, self._connections):
                line = command.line_at("linearizable")
            if command.read_level in ("sequential", "linearizable"):
                self._seen_at = self._connections
        elif command.number is None and not command.is_local:
            command.number = self._hello.take_number()
        if not command.times_sent:
            self.held_locks.sent(command)
        command.times_sent, command.is_refused = command.times_sent + 1, False
        command.sent_at = self._now
        self.response_timeout.expect(command.verb, self._now)
        self._request(command.number, line, partial(self._heard_reply, command))

    def _request(self, number: int | None, line: str, heard: Callable[[Reply], None]) -> None:
        assert self._connection is not None
        self._actions.append(Send(self._connection.request(number, line, heard)))

    # ------------------------------------------------------------------ receiving

    def _heard_reply(self, command: Command, reply: Reply) -> None:
        check_reply(command.verb, reply)
        if belongs_elsewhere(command, reply, self._hello, self._readonly, self._now):
            command.is_refused = reply.fate == "none"
            self._move_on(reply.line)
            return
        if reply.code == "REPLACED" and not command.is_local:
            self._replaced(reply.text)
            return
        self._commands.mark_answered(command)
        self.response_timeout.answered(command.verb, self._now)
        if reply.ok and command.number is not None and command.read_level in ("", "linearizable"):
            self._sure_at = max(self._sure_at, command.sent_at)
        self._rotation.has_served()
        if is_to_be_renumbered(command, reply):
            command.number, command.is_renumbered = None, True
            self._commands.add_first(command)
        else:
            self._finish(command, reply)
        self._pump()

    def _finish(self, command: Command, reply: Reply) -> None:
        if command.number is not None and reply.ok and not command.is_question:
            self._hello.answered(command.number)
        self.held_locks.answered(command, reply)
        self._chat_cursor.answered(command, reply)
        command.answer(reply)

    def _heard_event(self, event: EventLine) -> None:
        check_event(event)
        if event.name == "MEMBERS" and self.learns:
            self._learn(self._known.with_told(event.fields))
            return
        self._chat_cursor.heard(event)
        self.on_event(event)
        if event.name == "SESSION":
            self._session_ended(str(event.fields.get("state")))

    def _learn(self, addresses: Sequence[ServerAddress]) -> None:
        """Use these servers from now on; the present one stays the present one, whether it is among them or not."""
        here = self.server
        if all(each.shown != here.shown for each in addresses):
            addresses = [*addresses, evolve(here, id=1 + max(each.id for each in addresses))] if addresses else [here]
        self.addresses = addresses
        self._rotation.replace(addresses)
        self._showing.servers = self._readonly.servers = len(addresses)

    # ------------------------------------------------------------------ the session

    def _heard_auth(self, reply: Reply) -> None:
        if is_refused_token(reply):
            is_final = self._showing.refused(reply)
            self._move_on(reply.line)
            if is_final:
                self._commands.refuse(reply.code, reply.text, lambda _command: True)
            return
        self._showing.accepted(reply)
        self.response_timeout.heard(self._now)
        self._begin()

    def _say_hello(self) -> None:
        if not self._hello.under_way:
            # A server without a majority cannot answer HELLO, and so nothing that is sent behind it.
            while (stale := self._commands.next_stale()) is not None:
                self._send(stale)
            self._hello.under_way = True
            self.response_timeout.begin(self._now)
            self._request(None, self._hello.line, partial(self._heard_hello, self._now))

    def _heard_hello(self, sent_at: float, reply: Reply) -> None:
        check_reply("HELLO", reply)
        if reply.ok:
            self._sure_at = max(self._sure_at, sent_at)
            self.response_timeout.heard(self._now)
            self._rotation.has_served()
            may_have_run = self._hello.accept(reply)
            if may_have_run is not None:
                self._session_is_another(may_have_run)
            self._pump()
        elif reply.code in ("BADREQUEST", "DENIED", "NOAUTH"):
            # No server will ever accept this client, so all its commands that need a session are refused, too.
            self._hello.under_way = False
            self._commands.refuse(reply.code, reply.text, self._is_refused_with_hello)
            self._pump()
        else:
            self._hello.under_way = reply.fate == "unknown"
            is_final = is_final_for_hello(reply, self._readonly, self._now)
            self._move_on(reply.line)
            if is_final:
                self._commands.refuse(reply.code, reply.text, self._ends_without_session)

    def _is_refused_with_hello(self, command: Command) -> bool:
        return _is_of_session(command) and not (self._showing.is_reader and command.is_question)

    def _ends_without_session(self, command: Command) -> bool:
        """Whether `command` is refused when no server opens the session for a reason that lasts. An UNLOCK waits for
        the session: if that is alive, the lock would be held as long as it lives."""
        return _is_of_session(command) and command.verb != "UNLOCK" and not self._needs_no_session(command)

    def _session_ended(self, state: str) -> None:
        """Called for a SESSION event, which says that this connection has no session any more; `state` is the reason.

        The state "replaced" may be the effect of a late HELLO of this client on an earlier connection. Then the session
        is still this client's, and a new HELLO takes it back.
        """
        if state != "replaced" or self._hello.was_own_hello():
            self._move_on(f"the session is {state}")
        else:
            self._replaced("the session was opened anew from another connection")

    def _replaced(self, why: str) -> None:
        """Called when another program has opened the session, for the reason `why`: leave it to that program.

        Two programs that both reopened one session would take it from each other for ever.
        """
        self._final_refusal = refusal("REPLACED", "none", why)
        self._move_on(why)
        self.on_session_end(SessionEnd("REPLACED", self.held_locks.take_all(), why))
        self._commands.refuse("REPLACED", why, _is_of_session)

    def _session_is_another(self, may_have_run: int) -> None:
        """Called when the former session has expired, and HELLO has begun a new one.

        No command with a higher number than `may_have_run` has run. Commands that may have run are refused, since the
        new session cannot recognise their numbers. Commands that have not run go on in the new session, unless the
        former session may have held a lock: then they may rely on a lock that is gone, and are refused, too.
        """
        was_holding, locks = self.held_locks.may_hold_any, self.held_locks.take_all()
        text = "the session has expired, and another was begun; locks held in it are gone"
        self._commands.did_not_run(may_have_run)
        self.on_session_end(SessionEnd("NOSESSION", locks, text))
        self._commands.refuse(
            "NOSESSION", text, lambda command: _is_of_session(command) and (was_holding or command.may_have_run)
        )

    @property
    def _probe_at(self) -> float | None:
        """The time at which an idle client that follows the chat or holds a lock must ask its server for an answer.

        None: the client does neither.
        """
        if self._chat_cursor.listen_line is None and not (self._hello.done and self.held_locks.may_hold_any):
            return None
        since = self.response_timeout.quiet_since
        if self.held_locks.may_hold_any:
            # The answers to stale reads say nothing about the session.
            since = max(min(since, self._sure_at), self._probed_at)
        return since + self.ttl_seconds / PROBES_PER_TTL

    def _probe(self) -> None:
        """Send the server a request, so that a server which has failed is noticed.

        A client that holds locks sends LOCKS, which a server can answer only with a majority: a server that is cut off
        from the majority would answer PING while the session expires and its locks go to other clients.
        """
        self._probed_at = self._now
        self.submit("LOCKS limit=1" if self.held_locks.may_hold_any else "PING", _ignore, self._now)
