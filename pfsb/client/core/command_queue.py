"""The commands of one client: what waits to be sent, and what is sent and not answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field

from pfsb.client.core.command import Command
from pfsb.client.core.replies import Reply, refusal


@define(eq=False)
class CommandQueue:
    """In the order in which they were asked for."""

    window: int
    """How many may be under way at once."""
    _waiting: deque[Command] = field(factory=deque)
    _sent: dict[int, Command] = field(factory=dict)

    def add(self, command: Command) -> None:
        self._waiting.append(command)

    def add_first(self, command: Command) -> None:
        self._waiting.appendleft(command)

    def next(self) -> Command | None:
        """What may be sent now."""
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting and len(self._sent) < self.window else None

    def mark_sent(self, command: Command) -> None:
        """It was `next`, and is sent."""
        assert self._waiting.popleft() is command
        self._sent[id(command)] = command

    def mark_answered(self, command: Command) -> None:
        """It is not under way any more."""
        del self._sent[id(command)]

    def take_back(self) -> list[Command]:
        """What was sent is first in the queue again, in the order in which it was sent; returns it."""
        unanswered = list(self._sent.values())
        self._sent.clear()
        self._waiting.extendleft(reversed(unanswered))
        return unanswered

    def did_not_run(self, above: int) -> None:
        """What is waiting with a higher number than that was sent in vain."""
        for command in self._waiting:
            if command.number is not None and command.number > above:
                command.times_sent = 0

    def refuse(self, code: str, text: str, concerns: Callable[[Command], bool]) -> None:
        """Answer what waits with a refusal; the fate is each command's own."""
        waiting = [command for command in self._waiting if not command.is_over]
        self._waiting = deque(command for command in waiting if not concerns(command))
        for command in filter(concerns, waiting):
            command.answer(refused(command, code, text))


def refused(command: Command, code: str, text: str) -> Reply:
    """A refusal that says what may have become of the command."""
    fate = "unknown" if command.may_have_run and (not command.is_local or command.verb == "FAULT") else "none"
    return refusal(code, fate, text)
