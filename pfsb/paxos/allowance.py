"""Allowance: how much one peer may make this server send.

A request of some bytes may be answered by a hundred thousand bytes. A peer that is in error and asks without pause must
not fill this server's memory and its network, so each peer has an allowance of bytes that grows with time.
"""

from __future__ import annotations

from typing import Final

from attrs import define

SERVED_BYTES_PER_SECOND: Final = 32_000_000
"""Bytes of ordered batches by which the allowance of a peer grows in a second: more than a server can execute in that
time."""
SERVED_BYTES_AT_ONCE: Final = 8_000_000
"""Maximum of a peer's allowance, in bytes of ordered batches: a peer has that at the start, and after a silence."""


@define
class Allowance:
    """The bytes that one peer may still be sent; below zero after a burst that was larger than the rest of them."""

    _left: float = SERVED_BYTES_AT_ONCE
    _counted_at: float = 0.0

    def is_left(self, now: float) -> bool:
        """Whether anything may be sent to the peer at the time `now`, in seconds by the clock."""
        grown = self._left + max(0.0, now - self._counted_at) * SERVED_BYTES_PER_SECOND
        self._left, self._counted_at = min(SERVED_BYTES_AT_ONCE, grown), now
        return self._left > 0

    def spend(self, size: int) -> None:
        self._left -= size
