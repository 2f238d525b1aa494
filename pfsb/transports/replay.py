"""Protection against replays: each sealed frame of a sender is admitted once."""

from __future__ import annotations

from typing import Final

from attrs import define, field

WINDOW_FRAMES: Final = 1_024
"""Maximum number of younger frames of its sender that may overtake a frame before the frame is refused."""
STORAGES_MAX: Final = 8
"""Maximum storages remembered for each server id; there is more than one only where a disk was lost or replaced."""

_MASK = (1 << WINDOW_FRAMES) - 1


@define
class ReplayWindow:
    """The counters seen of one storage: each counter is admitted once, and only in the latest incarnation seen.

    A counter that has fallen out of the window cannot be told from a repeated one, and is refused. The window is in
    memory. A receiver that was restarted can be shown old frames until the sender's next frame arrives. The protocol is
    safe with any message delivered late or twice, so this costs time, not safety.
    """

    incarnation: int = 0
    highest: int = 0
    _seen: int = 0
    """Counters that were admitted: bit k stands for the counter `highest` - k."""

    def admit(self, incarnation: int, counter: int) -> bool:
        """Whether a frame is new. From then on the frame is known."""
        if incarnation < self.incarnation:
            return False
        if incarnation > self.incarnation:
            self.incarnation, self.highest, self._seen = incarnation, 0, 0
        if counter > self.highest:
            self._advance(counter)
            return True
        bit = 1 << self.highest - counter if self.highest - counter < WINDOW_FRAMES else 0
        if not bit or self._seen & bit:
            return False
        self._seen |= bit
        return True

    def _advance(self, counter: int) -> None:
        # Not by a plain shift: the distance may be 2**64.
        step = min(counter - self.highest, WINDOW_FRAMES)
        self._seen = (self._seen << step | 1) & _MASK
        self.highest = counter


@define
class ReplayGuard:
    """A window for each server id and storage.

    One window for each id would not do: a server that lost its disk starts again at incarnation 1, and must be heard so
    that it can be told that its storage is not the one known under its id (Departure 12).
    """

    _windows: dict[int, dict[bytes, ReplayWindow]] = field(factory=dict)

    def admit(self, sender: int, identity: bytes, incarnation: int, counter: int) -> bool:
        """Whether a frame is new. Its tag must have been found right before: the window believes what it is told."""
        storages = self._windows.setdefault(sender, {})
        window = storages.get(identity)
        if window is None:
            if len(storages) >= STORAGES_MAX:
                del storages[next(iter(storages))]
            window = storages[identity] = ReplayWindow()
        return window.admit(incarnation, counter)
