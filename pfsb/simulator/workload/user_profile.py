"""What the users of a simulated cluster are like."""

from __future__ import annotations

from attrs import frozen


@frozen
class UserProfile:
    """What users are like. Chances are for each occasion."""

    patience_seconds: float = 1.5
    think_seconds: float = 0.2
    pipeline: int = 3
    """Commands under way at once."""
    ttl_seconds: int = 3
    batching_seconds: float = 0.0
    """What reaches a server within such a time it sees together, as one does that is busy; 0: one after the other."""
    rhythm_seconds: float = 0.0
    """All users ask something new in the first half of each such time, and nothing in the other; 0: at any time."""
    leaves: float = 0.0
    """That, instead of asking on, the user hangs up, and comes back after a while."""
    vanishes: float = 0.0
    """The same, and does not come back."""
    doubles: float = 0.0
    """That the old connection stays open when there is a new one."""
    goes_back: float = 0.0
    """To repeat a number that was answered, or to use one that was passed over."""
    says_goodbye: float = 0.0
    """That a session is closed, to be opened anew."""
