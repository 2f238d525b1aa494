"""Session: the replicated state of one client's session."""

from __future__ import annotations

from attrs import define, field

from pfsb.sessions.reply_cache import ReplyCache

Closed = tuple[int, int, int]
"""(last command number, slot and revision of its end) of a session that has ended."""


@define
class Session:
    """The replicated state of one client's session."""

    client_id: str
    epoch: int
    """The revision at which the session was last opened: commands that come under another epoch are fenced off."""
    server_id: int
    """The id of the server at which the session was last opened, and which knows whether its client is connected."""
    ttl_ms: int
    answers: ReplyCache
    last_number: int = 0
    """The highest command number executed."""
    waiting: dict[int, str] = field(factory=dict)
    """Number of each command of this session that has run and is PENDING -> name of its application.

    The result comes later, as that of a LOCK does. The settings `session_window` and `session_waits` limit how many
    commands may be PENDING.
    """
    opened: int = 0
    """The revision at which the session began. A client to which HELLO gives another value than before knows that its
    former session has ended."""
    frozen_in: int = field(default=0, eq=False, repr=False)
    """Number of the last snapshot, counted since this server's start, that needs this session no more: the state of the
    session was taken or kept aside for the snapshot, or the session began later. Not part of the replicated state."""
