"""Which answers are not the last word about a command, because another server, or another number, may do better."""

from __future__ import annotations

from typing import Final

from pfsb.client.core.command import Command
from pfsb.client.core.hello import Hello
from pfsb.client.core.replies import Reply

NO_SESSION_RETRIES: Final = 3
BUSY_RETRIES: Final = 20


def belongs_elsewhere(command: Command, reply: Reply, hello: Hello) -> bool:
    """Whether the same number should be tried at another server."""
    if reply.ok or (command.is_local and reply.code != "SHUTDOWN"):
        return False
    if reply.code == "NOSESSION":
        command.no_session += 1
        return command.no_session <= NO_SESSION_RETRIES
    if reply.code == "REPLACED":
        return hello.was_own_hello()
    if reply.code == "BUSY":
        return command.times_sent <= BUSY_RETRIES
    return reply.code in ("SHUTDOWN", "UNAVAILABLE")


def is_to_be_renumbered(command: Command, reply: Reply) -> bool:
    """A server had no room for it, took one with a higher number, and numbers only grow."""
    is_past = reply.code == "BADREQUEST" and reply.fate == "none" and command.times_sent > 1
    return is_past and command.number is not None and not command.is_renumbered
