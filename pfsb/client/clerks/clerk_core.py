"""The part that the three clerks have in common, without sockets and clock: deadlines of calls, locks, the chat."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from attrs import define, field

from pfsb.client.clerks import calls
from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import ClerkError, Closed, StateError, error_of
from pfsb.client.clerks.listening import Listener, Listeners
from pfsb.client.core.actions import Action, SessionEnd
from pfsb.client.core.chat_cursor import has_ended
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.command import Answered, Command
from pfsb.client.core.replies import EventLine, Reply, refusal

T = TypeVar("T")

_log = logging.getLogger("pfsb.client")


def _ignore(_what: object) -> None:
    """Do nothing: the default of a callback."""


def log_failure(text: str) -> None:
    """Log the exception that is being handled, with `text`, which says which callback of the program has raised it."""
    _log.exception(text)


@define(eq=False)
class HeldLock:
    """A lock that this clerk holds until it is released or lost."""

    name: str
    token: int
    """Fencing token, which grows with each grant of the lock. A resource that gets the token with each access can
    refuse the accesses of former holders."""
    is_lost: bool = field(init=False, default=False)
    may_be_lost: bool = field(init=False, default=False)
    """True as long as the clerk cannot tell whether it still holds the lock: for `ttl_seconds` no majority of the
    servers has answered it. If a server then finds the session alive, this is False again; if not, `is_lost` is
    True."""
    _watchers: list[Callable[[HeldLock], None]] = field(init=False, factory=list)
    _doubters: list[Callable[[HeldLock], None]] = field(init=False, factory=list)

    def on_lost(self, tell: Callable[[HeldLock], None]) -> None:
        """Have `tell` called, once, with this lock, when the lock is lost; at once, if it is lost already."""
        if self.is_lost:
            tell(self)
        else:
            self._watchers.append(tell)

    def on_doubt(self, tell: Callable[[HeldLock], None]) -> None:
        """Have `tell` called with this lock each time that `may_be_lost` becomes true; at once, if it is true already.

        While `may_be_lost` is false, no other client can have the lock, as long as the clocks of servers and client run
        equally fast. When it becomes true, another client may get the lock from then on.
        """
        self._doubters.append(tell)
        if self.may_be_lost:
            tell(self)

    def check(self) -> None:
        """Raise `LockLost` if the lock is lost."""
        if self.is_lost:
            raise error_of(lock_lost(self.name))

    def lose(self, failed: Callable[[str], None] = log_failure) -> None:
        """Called by the clerk when its session has ended: the lock is lost, and the `on_lost` callbacks are called.

        If a callback raises an exception, `failed` is called inside of the exception's handler, with a text that says
        so.
        """
        self.is_lost, self.may_be_lost = True, False
        watchers, self._watchers = self._watchers, []
        for tell in watchers:
            call_safely(tell, self, failed)

    def doubt(self, failed: Callable[[str], None] = log_failure) -> None:
        """Called by the clerk when the lock may be lost: the `on_doubt` callbacks are called. If a callback raises an
        exception, `failed` is called inside of the exception's handler, with a text that says so."""
        self.may_be_lost = True
        for tell in list(self._doubters):
            call_safely(tell, self, failed)


def call_safely(tell: Callable[[T], object], what: T, failed: Callable[[str], None]) -> None:
    """Call `tell`, a callback of the program, with `what`. If it raises an exception, `failed` is called with a text,
    and the clerk goes on: otherwise the connection would end, and calls that wait would never be answered."""
    try:
        tell(what)
    except Exception:
        failed(f"a callback of the program has failed, and the clerk goes on: {tell!r}")


def lock_lost(name: str) -> Reply:
    """The refusal (LOCKLOST) for every call of a clerk that has lost the lock `name`, until the program releases that
    lock."""
    return refusal("LOCKLOST", "none", f'lock "{name}" is lost: its session has ended')


@define(eq=False)
class ClerkCore:
    """A client that adds deadlines, locks and the chat to a `ClientCore`; a driver calls it like a `ClientCore`."""

    _core: ClientCore
    on_session_end: Callable[[SessionEnd], None] = _ignore
    failed: Callable[[str], None] = log_failure
    """Called with a text inside of the handler of each exception that a callback of the program has raised."""
    listeners: Listeners = field(init=False)
    _now: float = field(init=False, default=0.0)
    _deadlines: list[tuple[float, int, Command, Callable[[], None]]] = field(init=False, factory=list)
    _order: count[int] = field(init=False, factory=count)
    _locks: dict[str, HeldLock | None] = field(init=False, factory=dict)
    """The locks of this clerk, by name; None: the lock was asked for, or is being given back."""
    _is_closed: bool = field(init=False, default=False)
    _is_in_doubt: bool = field(init=False, default=False)
    """True if the locks may be lost, and the program was told so."""

    @listeners.default
    def _make_listeners(self) -> Listeners:
        return Listeners(self._ask_to_listen, self._stop_listening)

    def __attrs_post_init__(self) -> None:
        self._core.on_event = self._heard_event
        self._core.on_session_end = self._session_ended

    # ------------------------------------------------------------------ calls

    def call(
        self,
        line: str,
        answered: Answered,
        now: float,
        timeout_seconds: float | None,
        late: Answered = _ignore,
        *,
        asks: bool = False,
    ) -> Command | None:
        """Carry out a command line; `answered` is called with the reply, once, perhaps before this method returns.

        Returns the command, or None if it was refused without being sent. If there is no reply within `timeout_seconds`
        (None: for ever), `answered` is called with the refusal UNAVAILABLE, and later `late` with the reply, if it
        still arrives. `asks` says that the line is a question, for a verb that the client library does not know.
        """
        self._now = now
        lost = next((each.name for each in self._locks.values() if each is not None and each.is_lost), None)
        if lost is not None and not self._is_closed:
            answered(lock_lost(lost))
            return None
        return self._submit(line, answered, timeout_seconds, late, asks=asks)

    def give_up(self, command: Command) -> None:
        """Stop waiting for the answer to a command. If the command was sent, servers may execute it all the same."""
        self._core.give_up(command)

    def _submit(
        self,
        line: str,
        answered: Answered,
        timeout_seconds: float | None,
        late: Answered = _ignore,
        *,
        asks: bool = False,
    ) -> Command:
        command = self._core.submit(line, answered, self._now, asks=asks)
        while self._deadlines and self._deadlines[0][2].is_over:
            heappop(self._deadlines)
        if timeout_seconds is not None and not command.is_over:
            give_up: Callable[[], None] = partial(self._time_out, command, answered, late)
            heappush(self._deadlines, (self._now + timeout_seconds, next(self._order), command, give_up))
        return command

    def _time_out(self, command: Command, answered: Answered, late: Answered) -> None:
        if command.verb == "UNLOCK":
            # The client never gives up an UNLOCK, even an unsent one: the lock would be held until the session ends.
            command.hand_over(late)
            fate = "unknown"
        else:
            fate = self._core.give_up(command, late)
        answered(refusal("UNAVAILABLE", fate, f"no answer in time; {self._core.outage}"))

    def _expire(self) -> None:
        while self._deadlines and (self._deadlines[0][2].is_over or self._deadlines[0][0] <= self._now):
            _, _, command, give_up = heappop(self._deadlines)
            if not command.is_over:
                give_up()

    # ------------------------------------------------------------------ locks

    def lock(
        self,
        name: str,
        wait: float | None,
        told: Callable[[HeldLock | ClerkError], None],
        now: float,
        timeout_seconds: float | None,
    ) -> Callable[[], None]:
        """Get a lock; `told` is called, once, with the lock, or with the error if the session does not get it.

        The session waits for the lock for `wait` seconds, and the clerk for the answer `timeout_seconds` longer; if one
        of the two is None, there is no limit. `told` may be called before this method returns. Returns a function
        without arguments and result, which the caller must call if the program does not wait for the lock any more.
        """
        line = calls.lock(name, wait).line
        if name in self._locks:
            # The clerk has, or wants, the lock: servers would grant it again at once, as they know only the session.
            told(StateError(f'this clerk has, or wants, lock "{name}" already; another Clerk can wait', "HELD", "none"))
            return lambda: None
        self._locks[name] = None
        timeout = None if wait is None or timeout_seconds is None else wait + timeout_seconds
        late = partial(self._granted_too_late, name)
        command = self.call(line, partial(self._lock_answered, name, told), now, timeout, late)
        return lambda: None if command is None else self._give_up_lock(name, command)

    def release(self, held: HeldLock, answered: Answered, now: float, timeout_seconds: float | None) -> None:
        """Give a lock back; `answered` is called, once, with the reply.

        If the lock is lost, the reply is LOCKLOST, and from then on the clerk accepts calls again. If no server answers
        within `timeout_seconds`, the reply is UNAVAILABLE, and the clerk goes on until a server has taken UNLOCK.
        """
        self._now = now
        if self._locks.get(held.name) is not held:
            answered(refusal("NOTHELD", "none", f'lock "{held.name}" was released before'))
        elif held.is_lost and not self._is_closed:
            del self._locks[held.name]
            answered(lock_lost(held.name))
        else:
            self._locks[held.name] = None
            line = calls.unlock(held.name, held.token).line
            given_back = partial(self._unlock_answered, held.name)
            self._submit(line, partial(given_back, answered), timeout_seconds, partial(given_back, _ignore))

    def _lock_answered(self, name: str, told: Callable[[HeldLock | ClerkError], None], reply: Reply) -> None:
        if reply.ok:
            held = self._locks[name] = HeldLock(name, int(reply.fields["token"]))
            told(held)
        else:
            if reply.code != "UNAVAILABLE" or reply.fate == "none":
                self._locks.pop(name, None)
            told(error_of(reply))

    def _give_up_lock(self, name: str, command: Command) -> None:
        if command.is_over:
            return
        if self._core.give_up(command, partial(self._granted_too_late, name)) == "none":
            self._locks.pop(name, None)

    def _granted_too_late(self, name: str, reply: Reply) -> None:
        """Called with the reply to a LOCK that the program has stopped waiting for: gives the lock back if it was
        granted.

        Until UNLOCK is answered, the clerk refuses further calls for this lock: the servers would grant it to the same
        session at once, and this UNLOCK would then take it away again.
        """
        if reply.ok:
            line = calls.unlock(name, int(reply.fields["token"])).line
            self._submit(line, partial(self._unlock_answered, name, _ignore), None)
        else:
            self._locks.pop(name, None)

    def _unlock_answered(self, name: str, answered: Answered, reply: Reply) -> None:
        if reply.code != "UNAVAILABLE":
            self._locks.pop(name, None)
        answered(reply)

    @property
    def _held(self) -> list[HeldLock]:
        return [held for held in self._locks.values() if held is not None and not held.is_lost]

    def _session_ended(self, end: SessionEnd) -> None:
        self._lose_locks()
        call_safely(self.on_session_end, end, self.failed)

    def _lose_locks(self) -> None:
        for held in self._held:
            held.lose(self.failed)

    def _look_for_doubt(self) -> None:
        """Tell the program when its locks may be lost, and take that back when a server has found the session alive."""
        was_in_doubt, self._is_in_doubt = self._is_in_doubt, bool(self._locks) and self._now >= self._core.sure_until
        if self._is_in_doubt:
            for held in self._held:
                if not held.may_be_lost:
                    held.doubt(self.failed)
        elif was_in_doubt:
            for held in self._held:
                held.may_be_lost = False

    # ------------------------------------------------------------------ the chat

    def listen(self, listener: Listener, now: float) -> None:
        """Begin to deliver lines of the chat to this listener."""
        self._now = now
        calls.listen(listener.next)  # a wrong number raises an exception here, before the listener is registered
        self.listeners.add(listener)

    def unlisten(self, listener: Listener, now: float) -> None:
        """Stop delivering lines of the chat to this listener."""
        self._now = now
        self.listeners.remove(listener)

    def catch_up(self, listener: Listener, now: float) -> None:
        """Called when `listener`, which had refused a line for lack of room, has room again: that line, and those after
        it, are then delivered to the listener."""
        self._now = now
        self.listeners.catch_up(listener)

    def _ask_to_listen(self, first: int | None) -> None:
        call = calls.listen(first)

        def answered(reply: Reply) -> None:
            if reply.ok:
                self.listeners.began(call.read(reply))
            else:
                self.listeners.fail(error_of(reply))

        self._core.submit(call.line, answered, self._now)

    def _stop_listening(self) -> None:
        self._core.submit("UNLISTEN", _ignore, self._now)

    def _heard_event(self, event: EventLine) -> None:
        if event.name == "CHAT":
            fields = event.fields
            self.listeners.heard(ChatLine(int(fields["index"]), str(fields["client"]), str(fields["text"])))
        elif has_ended(event):
            self.listeners.fail(error_of(refusal("ENDED", "none", str(event.fields.get("text", "the chat has ended")))))

    # ------------------------------------------------------------------ calls of the driver

    @property
    def stopped(self) -> bool:
        return self._core.stopped

    @property
    def wake_at(self) -> float | None:
        times = [self._core.wake_at, self._deadlines[0][0] if self._deadlines else None]
        if self._locks and not self._is_in_doubt and self._held:
            times.append(self._core.sure_until)
        return None if self.stopped else min((at for at in times if at is not None), default=None)

    def start(self, now: float) -> None:
        self._now = now
        self._core.start(now)

    def stop(self, now: float) -> None:
        self._now = now
        self._core.stop(now)
        self._is_closed = True
        self._lose_locks()
        self.listeners.fail(Closed("this clerk was closed", "CLOSED", "none"))

    def connected(self, now: float) -> None:
        self._now = now
        self._core.connected(now)

    def received(self, data: bytes, now: float) -> None:
        self._now = now
        self._core.received(data, now)
        if self._is_in_doubt:
            self._look_for_doubt()

    def lost(self, why: str, now: float) -> None:
        self._now = now
        self._core.lost(why, now)

    def woken(self, now: float) -> None:
        self._now = now
        self._expire()
        self._core.woken(now)
        if self._locks:
            self._look_for_doubt()

    def take_actions(self) -> list[Action]:
        return self._core.take_actions()
