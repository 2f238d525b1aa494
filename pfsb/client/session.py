"""A client session that survives its servers: each command runs once, whichever of them answers (interface part 3)."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from pfsb.client.addresses import ServerAddress
from pfsb.client.protocol import ClientProtocol, EventLine, Reply

WINDOW: Final = 64
"""Commands under way at once; a server keeps the replies of the last `session_window` (128) for repetition."""
PATIENCE_SECONDS: Final = 2.0
PATIENCE_DOUBLINGS_MAX: Final = 2
BACKOFF_SECONDS_MAX: Final = 1.0
BYE_SECONDS: Final = 1.0
NO_SESSION_RETRIES: Final = 3

LOCAL_VERBS: Final = frozenset(
    {"PING", "STATUS", "DIGEST", "SERVERS", "HELP", "FAULT", "LISTEN", "UNLISTEN", "HELLO", "BYE", "QUIT"}
)
"""What is asked of one server, without a number and outside the session."""
WAITING_VERBS: Final = frozenset({"LOCK", "DIGEST"})
"""Whose answer may take long although all is well."""


class ClientStopped(Exception):
    """The client was stopped before the command was answered: what became of it is unknown."""


class ServerLost(Exception):
    """The connection to the one server that a command was meant for is gone: what became of it is unknown."""


@define(eq=False)
class _Command:
    line: str
    answered: Deferred[Reply]
    number: int | None = None
    no_session: int = 0

    @property
    def verb(self) -> str:
        return verb_of(self.line)

    @property
    def is_local(self) -> bool:
        return self.verb in LOCAL_VERBS


def verb_of(line: str) -> str:
    """The verb of a line without a number, in upper case."""
    return (line.split(None, 1) or [""])[0].upper()


def _ignore(_what: object) -> None:
    pass


@define(eq=False)
class FailoverClient:
    """Keeps one session, at one server at a time, and goes to the next as soon as one does not answer.

    It numbers the commands; those that are unanswered when it moves on are repeated with the same numbers, in order.
    Give it commands with `command`; begin with `start`, end with `stop`.
    """

    _reactor: Any
    _addresses: Sequence[ServerAddress]
    client_id: str = field(factory=lambda: secrets.token_hex(16))
    ttl_seconds: int = 10
    window: int = WINDOW
    patience_seconds: float = PATIENCE_SECONDS
    on_event: Callable[[EventLine], None] = _ignore
    on_server: Callable[[ServerAddress], None] = _ignore
    """Told whenever another server has taken the connection."""
    _dice: Random = field(factory=Random)
    _index: int = 0

    retries: int = field(init=False, default=0)
    """Commands sent again so far."""
    last_trouble: str = field(init=False, default="no server was tried yet")
    """Why the last server was left, or could not be reached."""
    _queue: deque[_Command] = field(init=False, factory=deque)
    _sent: dict[int, _Command] = field(init=False, factory=dict)
    _protocol: ClientProtocol | None = field(init=False, default=None)
    _connecting: Deferred[Any] | None = field(init=False, default=None)
    _next_try: IDelayedCall | None = field(init=False, default=None)
    _impatience: IDelayedCall | None = field(init=False, default=None)
    _quiet_since: float = field(init=False, default=0.0)
    _doublings: int = field(init=False, default=0)
    _failures: int = field(init=False, default=0)
    _introduced: bool = field(init=False, default=False)
    _introducing: bool = field(init=False, default=False)
    _hellos_left_behind: int = field(init=False, default=0)
    """Sent and not answered: each may still be ordered, and takes the session from the connection that has it then."""
    _next_number: int = field(init=False, default=1)
    _listen: str | None = field(init=False, default=None)
    """The line that follows the chat where it was left."""
    _stopped: bool = field(init=False, default=False)

    @property
    def server(self) -> ServerAddress:
        """The one that it is at, or tries to be."""
        return self._addresses[self._index % len(self._addresses)]

    @property
    def is_connected(self) -> bool:
        return self._protocol is not None

    def start(self) -> None:
        """Connect to the first server that can be reached."""
        self._connect()

    def command(self, line: str) -> Deferred[Reply]:
        """Send a line without number; fires with its reply, OK or not. Errors: `ClientStopped`, `ServerLost`."""
        answered: Deferred[Reply] = Deferred()
        self._queue.append(_Command(line, answered))
        self._pump()
        return answered

    def stop(self) -> Deferred[None]:
        """Close the session, if a server is there to be told, and the connection. Fires when that is done."""
        if self._stopped:
            return succeed(None)
        self._stopped = True
        done: Deferred[None] = Deferred()
        unanswered = [*self._sent.values(), *self._queue]
        self._queue.clear()
        self._sent.clear()
        if self._impatience is not None and self._impatience.active():
            self._impatience.cancel()
        for command in unanswered:
            command.answered.errback(ClientStopped(command.line))
        if self._protocol is not None and self._introduced:
            self._protocol.forget()
            limit = self._reactor.callLater(BYE_SECONDS, self._close, done)
            self._protocol.on_lost = lambda _reason: self._close(done, limit)
            self._protocol.request(None, "BYE", lambda _reply: self._close(done, limit))
        else:
            self._close(done)
        return done

    def _close(self, done: Deferred[None], limit: IDelayedCall | None = None) -> None:
        for call in (limit, self._next_try):
            if call is not None and call.active():
                call.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None
        if not done.called:
            done.callback(None)

    def _connect(self) -> None:
        protocol = ClientProtocol(self._heard_event, self._lost)
        endpoint = clientFromString(self._reactor, self.server.endpoint)
        self._connecting = endpoint.connect(Factory.forProtocol(lambda: protocol))
        self._connecting.addCallbacks(self._connected, self._cannot_connect)

    def _connected(self, protocol: ClientProtocol) -> None:
        self._connecting = None
        if self._stopped:
            protocol.close()
            return
        self._protocol = protocol
        self._introduced = self._introducing = False
        self.on_server(self.server)
        if self._listen is not None:
            protocol.request(None, self._listen, _ignore)
        self._pump()

    def _cannot_connect(self, reason: Failure) -> None:
        self._connecting = None
        if not self._stopped:
            self._move_on(reason.getErrorMessage())

    def _lost(self, reason: Failure) -> None:
        self._move_on(reason.getErrorMessage())

    def _move_on(self, why: str) -> None:
        """To the next server: at once, or after a small pause if a whole round of them was in vain."""
        self.last_trouble = f"server {self.server.id} ({self.server.shown}): {why.rstrip('.')}"
        self._hellos_left_behind += self._introducing
        self._introducing = False
        if self._protocol is not None:
            self._protocol.abort()
            self._protocol = None
        self._take_back()
        self._index += 1
        self._failures += 1
        rounds, rest = divmod(self._failures, len(self._addresses))
        pause = 0.0 if rest else self._dice.uniform(0.05, min(0.1 * 2 ** min(rounds, 10), BACKOFF_SECONDS_MAX))
        self._next_try = self._reactor.callLater(pause, self._connect)

    def _take_back(self) -> None:
        """What was sent and not answered is first in the queue again, in the order in which it was sent."""
        unanswered = list(self._sent.values())
        self._sent.clear()
        lost = [command for command in unanswered if command.verb == "FAULT"]
        again = [command for command in unanswered if command.verb != "FAULT"]
        self.retries += len(again)
        self._queue.extendleft(reversed(again))
        for command in lost:
            command.answered.errback(ServerLost(self.last_trouble))

    def _pump(self) -> None:
        """Send what may be sent now."""
        while self._protocol is not None and self._queue and len(self._sent) < self.window:
            if not self._queue[0].is_local and not self._introduced:
                self._introduce(self._protocol)
                return
            self._send(self._queue.popleft(), self._protocol)

    def _send(self, command: _Command, protocol: ClientProtocol) -> None:
        if command.number is None and not command.is_local:
            command.number = self._next_number
            self._next_number += 1
        self._expect_an_answer()
        self._sent[id(command)] = command
        protocol.request(command.number, command.line, partial(self._heard, command))

    def _introduce(self, protocol: ClientProtocol) -> None:
        if not self._introducing:
            self._introducing = True
            self._expect_an_answer()
            protocol.request(None, f"HELLO {self.client_id} ttl={self.ttl_seconds}", self._heard_hello)

    def _heard_hello(self, reply: Reply) -> None:
        self._introducing = False
        if reply.ok:
            self._answered()
            self._introduced = True
            self._next_number = max(self._next_number, int(reply.fields.get("last", 0)) + 1)
            self._pump()
        elif reply.code in ("BADREQUEST", "DENIED"):
            self._give_up(reply)
        else:
            self._hellos_left_behind += reply.fate == "unknown"
            self._move_on(reply.line)

    def _give_up(self, reply: Reply) -> None:
        """No server will ever take this client: that is the answer to all its commands."""
        commands = list(self._queue)
        self._queue.clear()
        for command in commands:
            command.answered.callback(reply)

    def _heard(self, command: _Command, reply: Reply) -> None:
        if self._belongs_elsewhere(command, reply):
            self._move_on(reply.line)
            return
        del self._sent[id(command)]
        self._answered()
        self._note_listening(command, reply)
        command.answered.callback(reply)
        self._pump()

    def _belongs_elsewhere(self, command: _Command, reply: Reply) -> bool:
        """Whether the same number should be tried at another server."""
        if reply.ok or (command.is_local and reply.code != "SHUTDOWN"):
            return False
        if reply.code == "NOSESSION":
            command.no_session += 1
            return command.no_session <= NO_SESSION_RETRIES
        if reply.code == "REPLACED" and self._hellos_left_behind:
            self._hellos_left_behind -= 1  # it was nobody else
            return True
        return reply.code == "SHUTDOWN" or (reply.code == "UNAVAILABLE" and reply.fate == "unknown")

    def _note_listening(self, command: _Command, reply: Reply) -> None:
        if reply.ok and command.verb == "LISTEN":
            self._listen = command.line
        elif command.verb == "UNLISTEN":
            self._listen = None

    def _heard_event(self, event: EventLine) -> None:
        if event.name == "CHAT" and self._listen is not None:
            self._listen = f"LISTEN from={int(event.fields['index']) + 1}"
        self.on_event(event)

    def _answered(self) -> None:
        self._failures = self._doublings = 0
        self._quiet_since = self._reactor.seconds()

    def _expect_an_answer(self) -> None:
        if not self._sent:
            self._quiet_since = self._reactor.seconds()
        if self._impatience is None:
            self._impatience = self._reactor.callLater(self._patience(), self._lose_patience)

    def _patience(self) -> float:
        """Longer after each server that did not answer: under heavy load a short one would never see an answer."""
        return self.patience_seconds * 2.0**self._doublings

    def _lose_patience(self) -> None:
        """A server that is there but has no majority keeps us waiting: another one may have it."""
        self._impatience = None
        if not self._introducing and all(command.verb in WAITING_VERBS for command in self._sent.values()):
            return
        left = self._quiet_since + self._patience() - self._reactor.seconds()
        if left > 0:
            self._impatience = self._reactor.callLater(left, self._lose_patience)
        elif self._protocol is not None:
            waited = self._patience()
            self._doublings = min(self._doublings + 1, PATIENCE_DOUBLINGS_MAX)
            self._move_on(f"no answer for {waited:g} s")
