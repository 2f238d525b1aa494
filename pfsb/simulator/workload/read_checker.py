"""What may be read without the log: answers of one server (read=sequential, read=stale), and events (LISTEN).

Each is compared with the executed history: a read with what stood there after a slot, an event with what was said.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from zope.interface import implementer

from pfsb.applications.interfaces import Event, Result
from pfsb.paxos.interfaces import IStateMachine
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions.observer import NoObserver
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.process import ServerParts


@define
class AnswerVersions:
    """What one question was answered with, by the slot from which on."""

    slots: list[int] = field(factory=list)
    answers: list[Result] = field(factory=list)

    def note(self, seq: int, answer: Result) -> None:
        if not self.answers or self.answers[-1] != answer:
            self.slots.append(seq)
            self.answers.append(answer)

    def at(self, seq: int) -> Result | None:
        """None: nothing was executed so early."""
        place = bisect_right(self.slots, seq)
        return self.answers[place - 1] if place else None


@define
class SlotReads:
    """What executing one slot came to, for those who read."""

    seq: int
    answers: dict[str, Result] = field(factory=dict)
    events: list[Event] = field(factory=list)


@define
class ReadHistory:
    """The history as those see it who read beside it, over all servers and all their lives."""

    names: Sequence[str]
    """The keys that users read."""
    marks: Counter[str]
    events: list[Event] = field(factory=list)
    """All that was said, in the order of execution."""
    up_to: int = 0
    """The slot that was settled last."""
    _versions: dict[str, AnswerVersions] = field(factory=dict)
    _seen: dict[str, int] = field(factory=dict)
    """client -> the latest slot that something it was told comes from."""

    def settled(self, found: SlotReads) -> None:
        """What executing a slot came to at one server is out of its door, for the first time of that slot or again."""
        if found.seq > self.up_to:
            self.up_to = found.seq
            for name, answer in found.answers.items():
                self._versions.setdefault(name, AnswerVersions()).note(found.seq, answer)
            self.events += found.events

    # ------------------------------------------------------------------ reads

    def seen(self, client: str, seq: int) -> None:
        """The client was told something that comes from this slot."""
        self._seen[client] = max(seq, self._seen.get(client, 0))

    def seen_by(self, client: str) -> int:
        return self._seen.get(client, 0)

    def read(self, name: str, seq: int, answer: Result, oldest: int, where: str) -> None:
        """`where` has answered from what it was after slot `seq`; the client has seen slot `oldest` already.

        Raises `Violation`. A stale read may be older than anything: `oldest` is 0.
        """
        if seq < oldest:
            raise Violation(f"{where} reads {name} as of slot {seq}, and the session has seen slot {oldest}")
        versions = self._versions.get(name)
        expected = versions.at(seq) if versions is not None else None
        if expected is not None and answer != expected:
            raise Violation(f"{where} reads {name} as {answer}, and after slot {seq} it was {expected}")
        self.marks["read beside the log"] += 1

    # ------------------------------------------------------------------ events

    def heard(self, number: int, event: Event, where: str) -> None:
        """Somebody who listens was told this as event `number`. Raises `Violation`."""
        told = dict(event.fields)["index"]
        if told != number:
            raise Violation(f"{where} tells of event {told}, and {number} is next")
        if number > len(self.events):
            raise Violation(f"{where} tells of event {number}, and only {len(self.events)} have happened")
        if event != self.events[number - 1]:
            raise Violation(f"{where} tells of {event}, and event {number} is {self.events[number - 1]}")
        self.marks["event heard"] += 1


@implementer(IStateMachine)
@define(eq=False)
class WatchedReads:
    """Looks, after each slot, at what a reader would find."""

    _inner: Any
    _machine: SessionStateMachine
    _chat: Any
    _log: ReadHistory
    _settle: Callable[..., None]
    _told: int = 0

    @classmethod
    def of(cls, parts: ServerParts, log: ReadHistory) -> Callable[[Any, SessionStateMachine, Any], WatchedReads]:
        """Makes one around (state machine, the sessions inside it, the chat application)."""
        return lambda inner, machine, chat: cls(inner, machine, chat, log, parts.settle)

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        found = SlotReads(seq)
        recovers = isinstance(self._machine.observer, NoObserver)
        if not recovers:  # now, so that it is settled before those who listen are told
            self._settle(self._log.settled, found)
        self._inner.execute(seq, time_ms, updates)
        length = self._chat.length()
        if seq > self._log.up_to:
            found.answers.update((name, self._machine.question(("GET", name))) for name in self._log.names)
            found.events += self._chat.events(self._told + 1, length - self._told)
        self._told = length
        if recovers:  # from its disk, where it was before
            self._log.settled(found)

    def too_old(self, update: ClientUpdate) -> None:
        self._inner.too_old(update)
