"""The commands of one client: those that wait to be sent, and those that were sent and are unanswered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field

from pfsb.client.core.command import Command
from pfsb.client.core.replies import Reply, refusal


@define(eq=False)
class CommandQueue:
    """The commands of one client, in the order in which they were submitted."""

    window: int
    """Maximum number of commands under way at once."""
    _waiting: deque[Command] = field(factory=deque)
    _sent: dict[int, Command] = field(factory=dict)

    def add(self, command: Command) -> None:
        """Queue a command behind all others."""
        self._waiting.append(command)

    def add_first(self, command: Command) -> None:
        """Queue a command before all others."""
        self._waiting.appendleft(command)

    def next(self) -> Command | None:
        """The first command that waits, if it may be sent now. It stays in the queue.

        None: no command waits, or as many commands as `window` allows are under way.
        """
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting and len(self._sent) < self.window else None

    def next_stale(self) -> Command | None:
        """The first waiting question with read=stale, which may be sent before all commands that wait in front of it;
        None if there is none, or as many commands as `window` allows are under way."""
        if len(self._sent) >= self.window:
            return None
        return next((each for each in self._waiting if not each.is_over and each.read_level == "stale"), None)

    def mark_sent(self, command: Command) -> None:
        """Called when the command that `next` or `next_stale` has returned is sent: it leaves the queue, and is under
        way."""
        if self._waiting[0] is command:
            self._waiting.popleft()
        else:
            self._waiting.remove(command)
        self._sent[id(command)] = command

    def mark_answered(self, command: Command) -> None:
        """Called when a command has been answered: it is no longer under way."""
        del self._sent[id(command)]

    def take_back(self) -> list[Command]:
        """Move the commands under way back to the front of the queue, in the order in which they were sent.

        Returns these commands.
        """
        unanswered = list(self._sent.values())
        self._sent.clear()
        self._waiting.extendleft(reversed(unanswered))
        return unanswered

    def did_not_run(self, above: int) -> None:
        """Called when it is known that no command with a higher number than `above` has run.

        Waiting commands with such a number are marked as if they had never been sent.
        """
        for command in self._waiting:
            if command.number is not None and command.number > above:
                command.times_sent = 0

    def refuse(self, code: str, text: str, concerns: Callable[[Command], bool]) -> None:
        """Refuse each waiting command for which `concerns(command)` is true, with this code and text; its refusal says
        whether it may have run.

        A waiting command may have run if it was sent on an earlier connection, and waits to be sent again
        (`take_back`).
        """
        waiting = [command for command in self._waiting if not command.is_over]
        self._waiting = deque(command for command in waiting if not concerns(command))
        for command in filter(concerns, waiting):
            command.answer(refused(command, code, text))


def refused(command: Command, code: str, text: str) -> Reply:
    """Make the refusal of a command, with this code and text; its fate says whether the command may have run."""
    return refusal(code, command.fate, text)
