"""The refusals after which the client tries a command again, at another server or with another number."""

from __future__ import annotations

from typing import Final

from pfsb.client.core.command import Command
from pfsb.client.core.hello import Hello
from pfsb.client.core.replies import Reply

NO_SESSION_RETRIES: Final = 3
"""Maximum number of times that one command is tried again because it was answered NOSESSION."""
BUSY_RETRIES: Final = 20
"""Maximum number of times that a command may have been sent, for any reason, if it is to be tried again after the
answer BUSY. For a command that was sent more often, BUSY is the final answer."""


def belongs_elsewhere(command: Command, reply: Reply, hello: Hello) -> bool:
    """Whether, after this reply, the command is to be tried at another server with the same number."""
    if reply.ok or (command.is_local and reply.code != "SHUTDOWN"):
        return False
    if reply.code == "NOSESSION":
        command.no_session += 1
        return command.no_session <= NO_SESSION_RETRIES
    if reply.code == "REPLACED":
        return hello.was_own_hello()
    if reply.code == "BUSY":
        return command.times_sent <= BUSY_RETRIES
    return reply.code in ("SHUTDOWN", "UNAVAILABLE", "READONLY")


def is_to_be_renumbered(command: Command, reply: Reply) -> bool:
    """Whether the command needs another number, because servers have executed a command with a higher one.

    The numbers that a session executes only grow. A server without room refuses a command and may then accept a later
    one. When the client repeats the first command, it is refused with fate=none, which proves that it has not run.
    """
    is_past = reply.code == "BADREQUEST" and reply.fate == "none" and command.times_sent > 1
    return is_past and command.number is not None and not command.is_renumbered
