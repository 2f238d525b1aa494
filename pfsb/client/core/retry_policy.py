"""The refusals after which the client tries a command again, at another server or with another number."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from pfsb.client.core.command import Command
from pfsb.client.core.hello import Hello
from pfsb.client.core.replies import Reply

NO_SESSION_RETRIES: Final = 3
"""Maximum number of times that one command is tried again because it was answered NOSESSION."""
BUSY_RETRIES: Final = 20
"""Maximum number of times that a command may have been sent, for any reason, if it is to be tried again after the
answer BUSY. For a command that was sent more often, BUSY is the final answer."""
READONLY_ROUNDS: Final = 3
"""Number of times that each server is asked before READONLY is the final answer: a server whose memory or disk is full
stays so until an operator makes room."""
READONLY_SECONDS: Final = 5.0
"""How long, in seconds, after READONLY was a final answer for one command it is one at once for all others: a client
may have many of them under way."""


@define(eq=False)
class ReadonlyServers:
    """Counts the refusals of servers that take no changes (READONLY), to end the search for one that does."""

    servers: int
    """Number of servers of the cluster."""
    _refusals: int = field(init=False, default=0)
    _last_at: float = field(init=False, default=0.0)
    _final_until: float = field(init=False, default=0.0)

    def refused(self, now: float) -> bool:
        """Called at each READONLY. Returns whether it is the final answer: each server was asked `READONLY_ROUNDS`
        times."""
        if now < self._final_until:
            return True
        if now - self._last_at > READONLY_SECONDS:
            self._refusals = 0
        self._last_at = now
        self._refusals += 1
        if self._refusals < READONLY_ROUNDS * self.servers:
            return False
        self._refusals, self._final_until = 0, now + READONLY_SECONDS
        return True


def belongs_elsewhere(command: Command, reply: Reply, hello: Hello, readonly: ReadonlyServers, now: float) -> bool:
    """Whether, after this reply, the command is to be tried at another server with the same number.

    An UNLOCK is tried until a server takes it: otherwise the lock would be held as long as the session lives.
    """
    if reply.ok or (command.is_local and reply.code != "SHUTDOWN"):
        return False
    if reply.code == "NOSESSION":
        command.no_session += 1
        return command.no_session <= NO_SESSION_RETRIES
    if reply.code == "REPLACED":
        return hello.was_own_hello()
    if reply.code in ("BUSY", "READONLY") and command.verb == "UNLOCK":
        return True
    if reply.code == "BUSY":
        return command.times_sent <= BUSY_RETRIES
    if reply.code == "READONLY":
        return not readonly.refused(now)
    return reply.code in ("SHUTDOWN", "UNAVAILABLE")


def is_final_for_hello(reply: Reply, readonly: ReadonlyServers, now: float) -> bool:
    """Whether, after this refusal of HELLO, the commands that wait for the session are to be refused, too.

    DIVERGED counts like READONLY: a person has to look at the servers first. All other refusals pass with time.
    """
    return reply.code in ("READONLY", "DIVERGED") and readonly.refused(now)


def is_to_be_renumbered(command: Command, reply: Reply) -> bool:
    """Whether the command needs another number, because servers have executed a command with a higher one.

    The numbers that a session executes only grow. A server without room refuses a command and may then accept a later
    one. When the client repeats the first command, it is refused with fate=none, which proves that it has not run.
    """
    is_past = reply.code == "BADREQUEST" and reply.fate == "none" and command.times_sent > 1
    return is_past and command.number is not None and not command.is_renumbered
