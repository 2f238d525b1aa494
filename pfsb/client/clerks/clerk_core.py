"""What the three faces of a clerk have in common: deadlines, locks, the chat. No sockets, no clock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count

from attrs import define, field

from pfsb.client.clerks import calls
from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import ClerkError, Closed, StateError, error_of
from pfsb.client.clerks.listening import Listener, Listeners
from pfsb.client.core.actions import Action, SessionEnd
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.command import Answered, Command
from pfsb.client.core.replies import EventLine, Reply, refusal


def _ignore(_what: object) -> None:
    pass


@define(eq=False)
class HeldLock:
    """A lock that this clerk holds, until it is released or `is_lost`."""

    name: str
    token: int
    """Grows from grant to grant: whoever is given it can refuse those who held the lock before."""
    is_lost: bool = field(init=False, default=False)
    _watchers: list[Callable[[HeldLock], None]] = field(init=False, factory=list)

    def on_lost(self, tell: Callable[[HeldLock], None]) -> None:
        """Call this when the lock is lost; at once, if it is lost already."""
        if self.is_lost:
            tell(self)
        else:
            self._watchers.append(tell)

    def check(self) -> None:
        """Raises `LockLost` if it is lost."""
        if self.is_lost:
            raise error_of(lock_lost(self.name))

    def lose(self) -> None:
        """For the clerk: the session is gone, and the lock with it."""
        self.is_lost = True
        watchers, self._watchers = self._watchers, []
        for tell in watchers:
            tell(self)


def lock_lost(name: str) -> Reply:
    return refusal("LOCKLOST", "none", f'lock "{name}" is lost: its session has ended')


@define(eq=False)
class ClerkCore:
    """`Driven`, like the core below it."""

    _core: ClientCore
    on_session_end: Callable[[SessionEnd], None] = _ignore
    listeners: Listeners = field(init=False)
    _now: float = field(init=False, default=0.0)
    _deadlines: list[tuple[float, int, Command, Callable[[], None]]] = field(init=False, factory=list)
    _order: count[int] = field(init=False, factory=count)
    _locks: dict[str, HeldLock | None] = field(init=False, factory=dict)
    """None: asked for, or on its way back."""

    @listeners.default
    def _make_listeners(self) -> Listeners:
        return Listeners(self._ask_to_listen, self._stop_listening)

    def __attrs_post_init__(self) -> None:
        self._core.on_event = self._heard_event
        self._core.on_session_end = self._session_ended

    # ------------------------------------------------------------------ calls

    def call(
        self, line: str, answered: Answered, now: float, timeout_seconds: float | None, late: Answered = _ignore
    ) -> Command | None:
        """Have a line carried out; `answered` may be called at once. None: it was refused without being sent.

        After `timeout_seconds` it is answered UNAVAILABLE, and `late` is told what is heard of it after all.
        """
        self._now = now
        lost = next((each.name for each in self._locks.values() if each is not None and each.is_lost), None)
        if lost is not None:
            answered(lock_lost(lost))
            return None
        return self._submit(line, answered, timeout_seconds, late)

    def give_up(self, command: Command) -> None:
        """Nobody waits for it any more. It may run all the same, if it was sent."""
        self._core.give_up(command)

    def _submit(
        self, line: str, answered: Answered, timeout_seconds: float | None, late: Answered = _ignore
    ) -> Command:
        command = self._core.submit(line, answered, self._now)
        while self._deadlines and self._deadlines[0][2].is_over:
            heappop(self._deadlines)
        if timeout_seconds is not None and not command.is_over:
            give_up: Callable[[], None] = partial(self._time_out, command, answered, late)
            heappush(self._deadlines, (self._now + timeout_seconds, next(self._order), command, give_up))
        return command

    def _time_out(self, command: Command, answered: Answered, late: Answered) -> None:
        if command.verb == "UNLOCK":
            # Also if it was not sent yet: a lock that nobody gives back is held for as long as the session lasts.
            command.hand_over(late)
            fate = "unknown"
        else:
            fate = self._core.give_up(command, late)
        answered(refusal("UNAVAILABLE", fate, f"no answer in time; {self._core.last_trouble}"))

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
        """Get a lock; returns what to call if nobody waits for it any more."""
        if name in self._locks:
            # The servers would grant it at once: to them it is the same session.
            told(StateError(f'this clerk has, or wants, lock "{name}" already; another Clerk can wait', "HELD", "none"))
            return lambda: None
        line = calls.lock(name, wait).line
        self._locks[name] = None
        timeout = None if wait is None or timeout_seconds is None else wait + timeout_seconds
        late = partial(self._granted_too_late, name)
        command = self.call(line, partial(self._lock_answered, name, told), now, timeout, late)
        return lambda: None if command is None else self._give_up_lock(name, command)

    def release(self, held: HeldLock, answered: Answered, now: float, timeout_seconds: float | None) -> None:
        """Give it back. If it is lost: the clerk's calls go on after this, and the answer is LOCKLOST.

        After `timeout_seconds` the answer is UNAVAILABLE; it is given back all the same, once a server answers.
        """
        self._now = now
        if self._locks.get(held.name) is not held:
            answered(refusal("NOTHELD", "none", f'lock "{held.name}" was released before'))
        elif held.is_lost:
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
        """Nobody wants it any more. Until it is back, nobody here may ask for it: it would be given away again."""
        if reply.ok:
            line = calls.unlock(name, int(reply.fields["token"])).line
            self._submit(line, partial(self._unlock_answered, name, _ignore), None)
        else:
            self._locks.pop(name, None)

    def _unlock_answered(self, name: str, answered: Answered, reply: Reply) -> None:
        if reply.code != "UNAVAILABLE":
            self._locks.pop(name, None)
        answered(reply)

    def _session_ended(self, end: SessionEnd) -> None:
        for held in list(self._locks.values()):
            if held is not None and not held.is_lost:
                held.lose()
        self.on_session_end(end)

    # ------------------------------------------------------------------ the chat

    def listen(self, listener: Listener, now: float) -> None:
        self._now = now
        self.listeners.add(listener)

    def unlisten(self, listener: Listener, now: float) -> None:
        self._now = now
        self.listeners.remove(listener)

    def catch_up(self, listener: Listener, now: float) -> None:
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

    # ------------------------------------------------------------------ driven

    @property
    def stopped(self) -> bool:
        return self._core.stopped

    @property
    def wake_at(self) -> float | None:
        times = [self._core.wake_at, self._deadlines[0][0] if self._deadlines else None]
        return None if self.stopped else min((at for at in times if at is not None), default=None)

    def start(self, now: float) -> None:
        self._now = now
        self._core.start(now)

    def stop(self, now: float) -> None:
        self._now = now
        self._core.stop(now)
        self.listeners.fail(Closed("this clerk was closed", "CLOSED", "none"))

    def connected(self, now: float) -> None:
        self._now = now
        self._core.connected(now)

    def received(self, data: bytes, now: float) -> None:
        self._now = now
        self._core.received(data, now)

    def lost(self, why: str, now: float) -> None:
        self._now = now
        self._core.lost(why, now)

    def woken(self, now: float) -> None:
        self._now = now
        self._expire()
        self._core.woken(now)

    def take_actions(self) -> list[Action]:
        return self._core.take_actions()
