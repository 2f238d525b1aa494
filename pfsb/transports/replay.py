"""Protection against replayed frames, for clusters with a secret: each frame of a sender is admitted once."""

from __future__ import annotations

from typing import Final

from attrs import define, field

WINDOW_FRAMES: Final = 1_024
"""Size of the replay window: a number of frames of one sender. A late frame is refused if a frame whose counter is
higher by this much, or more, was admitted before."""
STORAGES_MAX: Final = 8
"""Maximum number of storages remembered for each server id.

An id has more than one storage only if the server's disk was lost or replaced.
"""

_MASK = (1 << WINDOW_FRAMES) - 1


@define
class ReplayWindow:
    """The frame counters that were received from one storage of a peer, to tell new frames from repeated ones.

    Each counter is admitted once, and only in the latest start seen. A counter that is lower than the highest one by
    `WINDOW_FRAMES` or more cannot be told from a repeated one, and is refused. The window is kept in memory only, so
    after a restart the receiver admits replayed frames until the sender's next frame arrives. The protocol is safe with
    any message delivered late or twice, so this costs time, not safety.
    """

    start: int = 0
    highest: int = 0
    _seen: int = 0
    """Bits for the counters that were admitted: bit k stands for the counter `highest` - k."""

    def admit(self, start: int, counter: int) -> bool:
        """Decide whether the frame with this start number and counter is new, and remember that it has come."""
        if start < self.start:
            return False
        if start > self.start:
            self.start, self.highest, self._seen = start, 0, 0
        if counter > self.highest:
            self._advance(counter)
            return True
        bit = 1 << self.highest - counter if self.highest - counter < WINDOW_FRAMES else 0
        if not bit or self._seen & bit:
            return False
        self._seen |= bit
        return True

    def _advance(self, counter: int) -> None:
        # The distance may be up to 2**64, and shifting by so many bits would need that much memory: cut it off.
        step = min(counter - self.highest, WINDOW_FRAMES)
        self._seen = (self._seen << step | 1) & _MASK
        self.highest = counter


@define
class ReplayGuard:
    """The replay windows of all peers: one window for each pair of server id and storage identity.

    One window for each id would not do: a server that lost its disk counts its starts from 1 again. Its frames must be
    admitted, so that it can be told that its storage is not the one known under its id (Departure 12).
    """

    _windows: dict[int, dict[bytes, ReplayWindow]] = field(factory=dict)

    def admit(self, sender: int, identity: bytes, start: int, counter: int) -> bool:
        """Decide whether a frame is new, and remember that it has come.

        The caller must have checked the frame's tag before. Otherwise a forged counter could make the replay window
        refuse true frames.
        """
        storages = self._windows.setdefault(sender, {})
        window = storages.get(identity)
        if window is None:
            if len(storages) >= STORAGES_MAX:
                del storages[next(iter(storages))]
            window = storages[identity] = ReplayWindow()
        return window.admit(start, counter)
