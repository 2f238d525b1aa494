"""The client without sockets and clocks: told what it hears and what time it is, it says what to send, and where.

It keeps one session, at one server at a time, and goes to the next as soon as one does not answer. It numbers the
commands; those that are unanswered when it moves on are repeated with the same numbers, in order, so that each runs
once whichever server answers (interface part 3). Whoever drives it does what `take_actions` says after each call, and
calls `woken` at `wake_at`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from attrs import define, field

from pfsb.client.core.actions import Action, Connect, HangUp, Send, SessionEnd
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.chat_cursor import ChatCursor
from pfsb.client.core.command import QUESTION_VERBS, Answered, Command
from pfsb.client.core.command_queue import CommandQueue
from pfsb.client.core.connection import LineConnection
from pfsb.client.core.held_locks import HeldLocks
from pfsb.client.core.hello import Hello
from pfsb.client.core.replies import EventLine, Reply, refusal
from pfsb.client.core.retry_policy import belongs_elsewhere, is_to_be_renumbered
from pfsb.client.core.server_rotation import ServerRotation
from pfsb.client.core.timeouts import ResponseTimeout

WINDOW: Final = 64
"""Commands under way at once; a server keeps the replies of the last `session_window` (128) for repetition."""
BYE_SECONDS: Final = 1.0
TTL_SECONDS: Final = 10
PROBES_PER_TTL: Final = 3
"""How often a session at rest makes sure, in each `ttl`, that it is still there."""


def new_client_id() -> str:
    """An id that nobody else has."""
    return secrets.token_hex(16)


def _ignore(_what: object) -> None:
    pass


def _is_of_session(command: Command) -> bool:
    return not command.is_local


@define(eq=False)
class ClientCore:
    """See the module. Times in seconds, all of one clock."""

    addresses: Sequence[ServerAddress]
    client_id: str = field(factory=new_client_id)
    ttl_seconds: int = TTL_SECONDS
    window: int = WINDOW
    response_timeout: ResponseTimeout = field(factory=ResponseTimeout)
    on_event: Callable[[EventLine], None] = _ignore
    on_server: Callable[[ServerAddress], None] = _ignore
    """Told whenever another server has taken the connection."""
    on_session_end: Callable[[SessionEnd], None] = _ignore
    """Told before the commands are that cannot go on because of it."""
    dice: Random = field(factory=Random)
    index: int = 0
    """Where in `addresses` it begins."""

    retries: int = field(init=False, default=0)
    """Commands sent again so far."""
    stopped: bool = field(init=False, default=False)
    """Nothing more will happen: the connection is closed."""
    held_locks: HeldLocks = field(init=False, factory=HeldLocks)
    _now: float = field(init=False, default=0.0)
    _actions: list[Action] = field(init=False, factory=list)
    _commands: CommandQueue = field(init=False)
    _connection: LineConnection | None = field(init=False, default=None)
    _next_try: float | None = field(init=False, default=None)
    _bye_until: float | None = field(init=False, default=None)
    _hello: Hello = field(init=False)
    _chat_cursor: ChatCursor = field(init=False, factory=ChatCursor)
    _rotation: ServerRotation = field(init=False)
    _final_refusal: Reply | None = field(init=False, default=None)
    """Why no command is taken any more."""

    @_commands.default
    def _make_commands(self) -> CommandQueue:
        return CommandQueue(self.window)

    @_hello.default
    def _make_hello(self) -> Hello:
        return Hello(self.client_id, self.ttl_seconds)

    @_rotation.default
    def _make_rotation(self) -> ServerRotation:
        return ServerRotation(self.addresses, self.dice, self.index)

    # ------------------------------------------------------------------ what the user wants

    def start(self, now: float) -> None:
        """Connect to the first server that can be reached."""
        self._now = now
        self._connect()

    def submit(self, line: str, answered: Answered, now: float) -> Command:
        """Have a line without number carried out; `answered` is called with its reply, OK or not, perhaps at once."""
        self._now = now
        command = Command(line, answered)
        if self._final_refusal is not None and (self.stopped or self._bye_until is not None or not command.is_local):
            command.answer(self._final_refusal)
        else:
            self._commands.add(command)
            self._pump()
        return command

    def give_up(self, command: Command, late: Answered = _ignore) -> str:
        """Wait no longer for the answer; returns the command's fate: "none" or "unknown".

        If unknown, it is repeated all the same until its answer is there, which `late` is told.
        """
        if command.may_have_run:
            command.hand_over(late)
            return "unknown"
        command.hand_over(_ignore)
        command.is_over = True
        return "none"

    def stop(self, now: float) -> None:
        """Close the session, if a server is there to be told, and the connection."""
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

    # ------------------------------------------------------------------ what happens to it

    def connected(self, now: float) -> None:
        """The server of the last `Connect` has taken the connection."""
        self._now = now
        self._connection = LineConnection(self._heard_event, self._move_on)
        self.on_server(self.server)
        if self._chat_cursor.listen_line is not None:
            self._request(None, self._chat_cursor.listen_line, _ignore)
        if self._hello.has_session and self._final_refusal is None:
            self._say_hello()
        self._pump()

    def received(self, data: bytes, now: float) -> None:
        self._now = now
        if self._connection is not None:
            self._connection.receive(data)

    def lost(self, why: str, now: float) -> None:
        """The connection is gone, or there never was one."""
        self._now = now
        if self._bye_until is not None:
            self._close()
        elif not self.stopped:
            self._move_on(why)

    @property
    def wake_at(self) -> float | None:
        """When to call `woken`; None: nothing is waited for."""
        if self.stopped:
            return None
        if self._connection is None or self._bye_until is not None:
            return self._bye_until or self._next_try
        if self._is_awaiting:
            return self.response_timeout.ends_at
        return self._probe_at

    def woken(self, now: float) -> None:
        """It is `wake_at`, or later."""
        wake_at = self.wake_at
        if wake_at is None or now < wake_at:
            return
        self._now = now
        if self._bye_until is not None:
            self._close()
        elif self._connection is None:
            self._connect()
        elif self._is_awaiting:
            # A server that is there but has no majority keeps us waiting: another one may have it.
            self._move_on(f"no answer for {self.response_timeout.expire():g} s")
        else:
            self._probe()

    def take_actions(self) -> list[Action]:
        """What is to be done now, in this order."""
        actions, self._actions = self._actions, []
        return actions

    # ------------------------------------------------------------------ looking in

    @property
    def server(self) -> ServerAddress:
        """The one that it is at, or tries to be."""
        return self._rotation.server

    @property
    def last_trouble(self) -> str:
        """Why the last server was left, or could not be reached."""
        return self._rotation.last_trouble

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    @property
    def _is_awaiting(self) -> bool:
        """Whether an answer is due that does not take its time although all is well."""
        return self._hello.under_way or self.response_timeout.expected > 0

    # ------------------------------------------------------------------ connections

    def _connect(self) -> None:
        self._next_try = None
        self._actions.append(Connect(self.server))

    def _move_on(self, why: str) -> None:
        """To the next server."""
        self._rotation.note_trouble(why)
        self._hello.connection_lost()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._actions.append(HangUp(at_once=True))
        self._take_back()
        self._next_try = self._now + self._rotation.move_to_next()

    def _take_back(self) -> None:
        """What was sent and not answered is to be sent again, but for what was meant for this server alone."""
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
        """Send what may be sent now."""
        while self._connection is not None and (command := self._commands.next()) is not None:
            if not command.is_local and not self._hello.done:
                self._say_hello()
                return
            self._send(command)

    def _send(self, command: Command) -> None:
        self._commands.mark_sent(command)
        if command.number is None and not command.is_local:
            command.number = self._hello.take_number()
        if not command.times_sent:
            self.held_locks.sent(command)
        command.times_sent += 1
        self.response_timeout.expect(command.verb, self._now)
        self._request(command.number, command.line, partial(self._heard_reply, command))

    def _request(self, number: int | None, line: str, heard: Callable[[Reply], None]) -> None:
        assert self._connection is not None
        self._actions.append(Send(self._connection.request(number, line, heard)))

    # ------------------------------------------------------------------ hearing

    def _heard_reply(self, command: Command, reply: Reply) -> None:
        if belongs_elsewhere(command, reply, self._hello):
            self._move_on(reply.line)
            return
        if reply.code == "REPLACED" and not command.is_local:
            self._replaced(reply.text)
            return
        self._commands.mark_answered(command)
        self.response_timeout.answered(command.verb, self._now)
        self._rotation.has_served()
        if is_to_be_renumbered(command, reply):
            command.number, command.is_renumbered = None, True
            self._commands.add_first(command)
        else:
            self._finish(command, reply)
        self._pump()

    def _finish(self, command: Command, reply: Reply) -> None:
        if command.number is not None and reply.ok and command.verb not in QUESTION_VERBS:
            self._hello.answered(command.number)
        self.held_locks.answered(command, reply)
        self._chat_cursor.answered(command, reply)
        command.answer(reply)

    def _heard_event(self, event: EventLine) -> None:
        self._chat_cursor.heard(event)
        self.on_event(event)
        if event.name == "SESSION":
            self._session_ended(str(event.fields.get("state")))

    # ------------------------------------------------------------------ the session

    def _say_hello(self) -> None:
        if not self._hello.under_way:
            self._hello.under_way = True
            self.response_timeout.begin(self._now)
            self._request(None, self._hello.line, self._heard_hello)

    def _heard_hello(self, reply: Reply) -> None:
        if reply.ok:
            self.response_timeout.heard(self._now)
            self._rotation.has_served()
            may_have_run = self._hello.accept(reply)
            if may_have_run is not None:
                self._session_is_another(may_have_run)
            self._pump()
        elif reply.code in ("BADREQUEST", "DENIED"):
            # No server will ever take this client: that is the answer to all its commands.
            self._hello.under_way = False
            self._commands.refuse(reply.code, reply.text, _is_of_session)
            self._pump()
        else:
            self._hello.under_way = reply.fate == "unknown"
            self._move_on(reply.line)

    def _session_ended(self, state: str) -> None:
        """The server tells it by itself."""
        if state != "replaced" or self._hello.was_own_hello():
            self._move_on(f"the session is {state}")
        else:
            self._replaced("the session was opened anew from another connection")

    def _replaced(self, why: str) -> None:
        """Two programs under one name would take the session from each other for ever: leave it to the other."""
        self._final_refusal = refusal("REPLACED", "none", why)
        self._move_on(why)
        self.on_session_end(SessionEnd("REPLACED", self.held_locks.take_all(), why))
        self._commands.refuse("REPLACED", why, _is_of_session)

    def _session_is_another(self, may_have_run: int) -> None:
        """The former one has expired. What has not run goes on, unless it may rest on a lock that is gone."""
        was_holding, locks = self.held_locks.may_hold_any, self.held_locks.take_all()
        text = "the session has expired, and another was begun; locks held in it are gone"
        self._commands.did_not_run(may_have_run)
        self.on_session_end(SessionEnd("NOSESSION", locks, text))
        self._commands.refuse(
            "NOSESSION", text, lambda command: _is_of_session(command) and (was_holding or command.may_have_run)
        )

    @property
    def _probe_at(self) -> float | None:
        """When somebody who only waits, or holds, is to make sure that the server is still there."""
        if self._chat_cursor.listen_line is None and not (self._hello.done and self.held_locks.may_hold_any):
            return None
        return self.response_timeout.quiet_since + self.ttl_seconds / PROBES_PER_TTL

    def _probe(self) -> None:
        """Of a lock a majority must know: a server that is cut off from it would answer PING for ever."""
        self.submit("LOCKS limit=1" if self.held_locks.may_hold_any else "PING", _ignore, self._now)
