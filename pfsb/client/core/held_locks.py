"""The locks that a session holds, as far as its client knows."""

from __future__ import annotations

import json
from typing import Final

from attrs import define, field

from pfsb.client.core.command import Command
from pfsb.client.core.replies import Reply

_TAKING: Final = frozenset({"LOCK", "TRYLOCK"})


@define(eq=False)
class HeldLocks:
    """Finds out from the client's LOCK, TRYLOCK and UNLOCK commands and their replies which locks the session holds."""

    tokens: dict[str, int] = field(factory=dict)
    """The fencing token of each held lock, by name."""
    _asked: int = 0
    """How many LOCK and TRYLOCK commands have been sent and are unanswered."""

    @property
    def may_hold_any(self) -> bool:
        """Whether the session may hold a lock, or wait for one."""
        return bool(self.tokens or self._asked)

    def sent(self, command: Command) -> None:
        """Called when a command is sent for the first time: counts a LOCK or TRYLOCK as unanswered.

        A lock is taken as free as soon as its UNLOCK is sent, since the client does not rely on the lock any more.
        """
        if command.verb in _TAKING:
            self._asked += 1
        elif command.verb == "UNLOCK":
            self.tokens.pop(name_of(command.line), None)

    def answered(self, command: Command, reply: Reply) -> None:
        """Called when a server has given its final answer to a command: notes a lock that the server has granted, and
        forgets a lock that was given back."""
        if command.verb in _TAKING:
            self._asked -= 1
            if reply.ok:
                self.tokens[str(reply.fields["name"])] = int(reply.fields["token"])
        elif command.verb == "UNLOCK" and reply.ok:
            self.tokens.pop(name_of(command.line), None)

    def take_all(self) -> tuple[str, ...]:
        """Called when the session has ended: forget all locks, and return their names."""
        names = tuple(self.tokens)
        self.tokens.clear()
        self._asked = 0
        return names


def name_of(line: str) -> str:
    """The name of the lock in a LOCK, TRYLOCK or UNLOCK line."""
    rest = line.split(None, 1)[1] if len(line.split(None, 1)) > 1 else ""
    if rest.startswith('"'):
        try:
            name, _end = json.JSONDecoder().raw_decode(rest)
        except ValueError:
            return rest  # the name is not well-formed, so the server will refuse the line
        return str(name)
    return (rest.split(None, 1) or [""])[0]
