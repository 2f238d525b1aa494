"""The behaviour of the users of a simulated cluster."""

from __future__ import annotations

from attrs import frozen


@frozen
class UserProfile:
    """The behaviour of users. A chance is the probability that a user does something each time that it could do so."""

    patience_seconds: float = 1.5
    think_seconds: float = 0.2
    pipeline: int = 3
    """Maximum number of commands under way at once."""
    ttl_seconds: int = 3
    batching_seconds: float = 0.0
    """Length of the periods whose requests reach a server together, as they reach a busy server; 0: one by one."""
    rhythm_seconds: float = 0.0
    """Length of the periods in whose second halves no user begins a new command; 0: there are no such periods."""
    leaves: float = 0.0
    """Chance that a user disconnects, and comes back after a while."""
    vanishes: float = 0.0
    """Chance that a user disconnects for good."""
    doubles: float = 0.0
    """Chance that a user which connects anew leaves its old connection open for a while."""
    goes_back: float = 0.0
    """Chance that a user skips a number; also the chance that it uses a skipped number, or sends a command again that
    was answered."""
    says_goodbye: float = 0.0
    """Chance that a user closes its session, and then opens a new one."""
