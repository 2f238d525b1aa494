"""Protection against replayed frames, for clusters with a secret: each frame of a start of a sender is admitted once.

Which start of a sender counts is not decided here: the protocol does that, since it knows the log positions
(`Peers.note_frame`). If an older copy of a storage was started some times, and then the right storage is brought back,
the starts of the copy have higher numbers than the next one of the right storage, whose frames must be admitted all the
same (Departure 53).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from attrs import define, field

WINDOW_FRAMES: Final = 1_024
"""Size of the replay window: a number of frames of one sender. A late frame is refused if a frame whose counter is
higher by this much, or more, was admitted before."""
STORAGES_MAX: Final = 8
"""Maximum number of storages remembered for each server id.

An id has more than one storage only if the server's disk was lost or replaced.
"""
STARTS_MAX: Final = 64
"""Maximum number of starts remembered for each storage of a server id: those of which a frame was admitted last. A
frame of an earlier one can be admitted a second time; the protocol handles frames of the present start only."""

_MASK = (1 << WINDOW_FRAMES) - 1


@define
class ReplayWindow:
    """The frame counters that were received from one start of a peer, to tell new frames from repeated ones.

    Each counter is admitted once. A counter that is lower than the highest one by `WINDOW_FRAMES` or more cannot be
    told from a repeated one, and is refused. The window is kept in memory only, so after a restart the receiver admits
    replayed frames until the sender's next frame arrives. The protocol is safe with any message delivered late or
    twice, so this costs time, not safety.
    """

    highest: int = 0
    _seen: int = 0
    """Bits for the counters that were admitted: bit k stands for the counter `highest` - k."""

    def admit(self, counter: int) -> bool:
        """Decide whether the frame with this counter is new, and remember that it has come."""
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
    """The replay windows of all peers: one window for each start of each storage of each server id.

    A server that lost its disk counts its starts from 1 again. Its frames must be admitted, so that it can be told that
    its storage is not the one known under its id (Departure 12).
    """

    _windows: dict[int, dict[bytes, OrderedDict[int, ReplayWindow]]] = field(factory=dict)
    """Server id -> storage identity -> start number -> the window of that start. The starts of a storage are in the
    order in which their last frames were admitted."""

    def admit(self, sender: int, identity: bytes, start: int, counter: int) -> bool:
        """Decide whether a frame is new, and remember that it has come.

        The caller must have checked the frame's tag before. Otherwise a forged counter could make the replay window
        refuse true frames.
        """
        storages = self._windows.setdefault(sender, {})
        starts = storages.get(identity)
        if starts is None:
            if len(storages) >= STORAGES_MAX:
                del storages[next(iter(storages))]
            starts = storages[identity] = OrderedDict()
        window = starts.get(start)
        if window is None:
            if len(starts) >= STARTS_MAX:
                starts.popitem(last=False)
            window = starts[start] = ReplayWindow()
        if not window.admit(counter):
            return False
        starts.move_to_end(start)
        return True
