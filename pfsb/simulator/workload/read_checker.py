"""Checks of reads that do not go through the log: answers of one server (read=sequential, read=stale), and LISTEN.

Both are compared with what servers have executed: a read with the value that the key had after the slot at which the
server has read it, and an event with the line of the chat that has the event's number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence

from attrs import define, field
from zope.interface import implementer

from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import Event, Result
from pfsb.paxos.interfaces import IRestorer, IStateMachine
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.snapshot import Piece
from pfsb.sessions.observer import NoObserver
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.simulator.checkers.snapshot_checker import WatchedRestorer
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.process import ServerParts
from pfsb.simulator.linearizability.texts import ordered_form, result_in_text


@define
class AnswerVersions:
    """The right answers to one question in the course of a run, each with the first slot after which it was right."""

    slots: list[int] = field(factory=list)
    answers: list[Result] = field(factory=list)

    def note(self, seq: int, answer: Result) -> None:
        if not self.answers or self.answers[-1] != answer:
            self.slots.append(seq)
            self.answers.append(answer)

    def at(self, seq: int) -> Result | None:
        """The right answer after slot `seq`; None if the first known one holds only after a later slot."""
        place = bisect_right(self.slots, seq)
        return self.answers[place - 1] if place else None


@define
class SlotReads:
    """The right answer, after one slot, to a read of each key, and the events of the chat that this slot has caused."""

    seq: int
    answers: dict[str, Result] = field(factory=dict)
    events: list[Event] = field(factory=list)


@define
class ReadHistory:
    """The values of the keys after each executed slot of one run, and the events of the chat.

    Each read that a server has answered without the log is compared with these, and each event that a listener has got.
    """

    names: Sequence[str]
    """The keys that users read."""
    marks: Counter[str]
    in_error: Collection[int] = ()
    """Ids of the servers at which an application has gone wrong in their present incarnation
    (`SimulatedCluster.in_error`): their states are not the right ones."""
    events: list[Event] = field(factory=list)
    """All events of the chat that are settled, in the order of execution."""
    up_to: int = 0
    """The highest slot that is settled: some server has executed it and has its records on disk."""
    _versions: dict[str, AnswerVersions] = field(factory=dict)
    _seen: dict[str, int] = field(factory=dict)
    """Client id -> the latest slot of which this client has seen an effect."""

    def settled(self, server_id: int, found: SlotReads) -> None:
        """Add a slot's effects at a server to the history, unless another server's execution of the same slot has added
        them, or the server is in error.

        Called at each server when its durability gate lets out the effects of the slot, or at once if the server
        executes the slot again from its disk, at its start.
        """
        if found.seq > self.up_to and server_id not in self.in_error:
            self.up_to = found.seq
            for name, answer in found.answers.items():
                self._versions.setdefault(name, AnswerVersions()).note(found.seq, answer)
            self.events += found.events

    # ------------------------------------------------------------------ reads

    def seen(self, client: str, seq: int) -> None:
        """Record that a client has seen an effect of this slot."""
        self._seen[client] = max(seq, self._seen.get(client, 0))

    def seen_by(self, client: str) -> int:
        return self._seen.get(client, 0)

    def read(self, name: str, seq: int, answer: Result, oldest: int, where: str) -> None:
        """Check the answer to a read of key `name` that a server has given after slot `seq`. Raises `Violation`.

        The client has seen effects of slot `oldest`, so that the read must not be of an earlier slot; `oldest` is 0 for
        a stale read, which may be of any age. `where` names client and server.
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
        """Check that `event`, which a listener has got, is event `number` of the history, counted from 1. `where` says
        in the text of a violation who got it.

        Raises `Violation`.
        """
        told = dict(event.fields)["index"]
        if told != number:
            raise Violation(f"{where} tells of event {told!r}, and {number} is next")
        if number > len(self.events):
            raise Violation(f"{where} tells of event {number}, and only {len(self.events)} have happened")
        if event != self.events[number - 1]:
            raise Violation(f"{where} tells of {event}, and event {number} is {self.events[number - 1]}")
        self.marks["event heard"] += 1


@implementer(IStateMachine)
@define(eq=False)
class WatchedReads:
    """Stands in front of the state machine of one server, and tells a `ReadHistory` what each slot has changed.

    After a slot that the history does not have yet, it asks the state machine for the right answer to a read of each
    key, and for the events that the slot has caused.
    """

    _inner: IStateMachine
    _machine: SessionStateMachine
    _chat: Callable[[], Chat]
    """Returns the chat application that runs at the moment."""
    _log: ReadHistory
    _server_id: int
    _settle: Callable[..., None]
    _told: int = 0

    @classmethod
    def of(
        cls, parts: ServerParts, log: ReadHistory
    ) -> Callable[[IStateMachine, SessionStateMachine, Callable[[], Chat]], WatchedReads]:
        """Make the function that puts a `WatchedReads`, with the history `log`, around the state machine of a server,
        for one incarnation of it. `parts` are the `ServerParts` of this incarnation.

        The constructor of `ServerProcess` calls the function once, with the state machine to wrap, the
        `SessionStateMachine` inside of that, and a function that returns the chat application. The function returns the
        `WatchedReads`.
        """
        return lambda inner, machine, chat: cls(inner, machine, chat, log, parts.server_id, parts.settle)

    def is_valid(self, update: ClientUpdate) -> bool:
        return self._inner.is_valid(update)

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        found = SlotReads(seq)
        recovers = isinstance(self._machine.observer, NoObserver)
        if not recovers:  # asked for before the execution, so that the slot is settled before listeners get its events
            self._settle(self._log.settled, self._server_id, found)
        outcomes = self._inner.execute(seq, time_ms, updates)
        chat = self._chat()
        length = chat.length()
        if seq > self._log.up_to:
            found.answers.update((name, self._read(name)) for name in self._log.names)
            found.events += chat.events(self._told + 1, length - self._told)
        self._told = length
        if recovers:  # a server that starts again executes slots that are on its disk: they are settled at once
            self._log.settled(self._server_id, found)
        return outcomes

    def freeze(self) -> Generator[Piece, None, None]:
        pieces: Generator[Piece, None, None] = self._inner.freeze()
        return pieces

    def restorer(self) -> IRestorer:
        return WatchedRestorer(self._inner.restorer(), self._restored)

    def _restored(self) -> None:
        """Take no notice of the events of a snapshot: other servers have executed the slots that have caused them."""
        self._told = self._chat().length()

    def too_old(self, update: ClientUpdate) -> None:
        self._inner.too_old(update)

    def _read(self, name: str) -> Result:
        return result_in_text(self._machine.question(ordered_form(("GET", name))))
