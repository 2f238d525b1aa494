"""The behaviour of the users of a simulated cluster."""

from __future__ import annotations

from attrs import frozen


@frozen
class UserProfile:
    """The behaviour of users. Chances are for each occasion."""

    patience_seconds: float = 1.5
    think_seconds: float = 0.2
    pipeline: int = 3
    """Maximum number of commands under way at once."""
    ttl_seconds: int = 3
    batching_seconds: float = 0.0
    """Length of the periods whose requests a server sees together, as a busy server does; 0: one after the other."""
    rhythm_seconds: float = 0.0
    """Length of the periods in whose second halves no user begins a new command; 0: users do so at any time."""
    leaves: float = 0.0
    """Chance that a user disconnects, and comes back after a while."""
    vanishes: float = 0.0
    """Chance that a user disconnects for good."""
    doubles: float = 0.0
    """Chance that the old connection stays open for a while when there is a new one."""
    goes_back: float = 0.0
    """Chance that a user repeats a number that was answered, or uses one that it has skipped."""
    says_goodbye: float = 0.0
    """Chance that a user closes its session, to open it anew."""
