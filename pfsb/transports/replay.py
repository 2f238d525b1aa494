"""Which frames of a sender were here before (docs/internals/frames.rst)."""

from __future__ import annotations

from typing import Final

from attrs import define, field

WINDOW_FRAMES: Final = 1_024
"""How far a frame may be overtaken by younger ones of its sender and still be taken."""
STORAGES_MAX: Final = 8
"""Storages remembered per server id; more than one only where a disk was lost or replaced."""

_MASK = (1 << WINDOW_FRAMES) - 1


@define
class ReplayWindow:
    """The counters seen of one storage: each is admitted once, in its storage's latest incarnation only.

    Kept in memory. A receiver that restarts can be shown old frames until the sender's next one arrives; the protocol
    bears duplicates, so that this costs time, not safety.
    """

    incarnation: int = 0
    highest: int = 0
    _seen: int = 0
    """Bit k stands for the counter `highest` - k."""

    def admit(self, incarnation: int, counter: int) -> bool:
        """Whether this frame is new; it is known from then on."""
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
    """A window per server and storage.

    Not per server alone: a server that lost its disk starts again at incarnation 1, and must be heard in order to be
    told that it is a stranger (docs/departures.rst).
    """

    _windows: dict[int, dict[bytes, ReplayWindow]] = field(factory=dict)

    def admit(self, sender: int, identity: bytes, incarnation: int, counter: int) -> bool:
        """Whether this frame, whose tag was found right, is new."""
        storages = self._windows.setdefault(sender, {})
        window = storages.get(identity)
        if window is None:
            if len(storages) >= STORAGES_MAX:
                del storages[next(iter(storages))]
            window = storages[identity] = ReplayWindow()
        return window.admit(incarnation, counter)
