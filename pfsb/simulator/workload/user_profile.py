"""The behaviour of the users of a simulated cluster."""

from __future__ import annotations

from attrs import frozen


@frozen
class UserProfile:
    """The behaviour of users.

    Whenever a user has paused for a while (`think_seconds` on average), and has less than `pipeline` commands under
    way, it takes an action: mostly a command, but with some chances something else.
    """

    patience_seconds: float = 1.5
    think_seconds: float = 0.2
    pipeline: int = 3
    """Maximum number of commands that a user has under way at once."""
    ttl_seconds: int = 3
    batching_seconds: float = 0.0
    """Length, in seconds, of the periods whose requests reach a server together, as they reach a busy server; 0: one by
    one."""
    rhythm_seconds: float = 0.0
    """Length, in seconds, of the periods in whose second halves no user begins a new command; 0: there are no such
    periods."""
    leaves: float = 0.0
    """Chance, per action, that the user disconnects, and comes back after a while."""
    vanishes: float = 0.0
    """Chance, per action, that the user disconnects for good."""
    doubles: float = 0.0
    """Chance, each time that a user with a name leaves a connection but does not vanish, that the connection stays open
    for a while beside the next one."""
    goes_back: float = 0.0
    """Chance, per new command, that the user skips a number before it.

    It is also the chance, per action, that the user gives a skipped number to a new command, or sends a command again
    that was answered.
    """
    says_goodbye: float = 0.0
    """Chance, per action, that the user closes its session and opens a new one; it does so only if no command is under
    way."""
