"""The faults that an operator puts on the links of one server by the command FAULT of the line protocol.

See docs/operating.rst, "Trying out faults".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pfsb.applications.interfaces import BadRequest
from pfsb.transports.pending_calls import PendingCalls

DELAY_MS_MAX: Final = 60_000
"""Maximum delay, in milliseconds, that FAULT DELAY takes."""
DELAYED_FRAMES_MAX: Final = 4_000
"""Maximum number of frames that are held back at a time; more are lost, as in a router whose queue is full."""


@define(eq=False)
class LinkFaults:
    """The faults on the links of one server, until `heal`.

    LOSS p loses each frame that this server sends, and each that it receives, with probability p. So a server with 30 %
    loses 30 % in both directions; between two servers that both have 30 %, 51 % of the frames are lost. CUT lets no
    frame pass, from or to the servers named. DELAY holds back the frames that this server sends: set on one server, it
    makes a round trip longer by that time; set on both ends, by twice that time.
    """

    _clock: IReactorTime
    _rng: Random
    loss: float = field(init=False, default=0.0)
    """Probability, for each frame sent or received, that the frame is lost: from 0 to 1."""
    delay_ms: int = field(init=False, default=0)
    cut_off: frozenset[int] = field(init=False, default=frozenset())
    """Ids of the servers to which no frame is sent, and from which none is taken."""
    _delayed: PendingCalls = field(init=False)

    @_delayed.default
    def _make_delayed(self) -> PendingCalls:
        return PendingCalls(self._clock)

    @property
    def delay_seconds(self) -> float:
        return self.delay_ms / 1000

    def lose(self, probability: float) -> None:
        """FAULT LOSS: lose each frame, sent or received, with this probability, from now on.

        Raises `BadRequest` if the probability is not from 0 to 1.
        """
        if not 0 <= probability <= 1:
            raise BadRequest(f"LOSS takes a probability from 0 to 1 (example: 0.3), not {probability}")
        self.loss = probability

    def delay(self, milliseconds: int) -> None:
        """FAULT DELAY: hold back each frame that is sent from now on for this number of milliseconds; 0: no delay.

        Raises `BadRequest` if the number is out of range.
        """
        if not 0 <= milliseconds <= DELAY_MS_MAX:
            raise BadRequest(f"DELAY takes milliseconds from 0 to {DELAY_MS_MAX} (example: 50), not {milliseconds}")
        self.delay_ms = milliseconds

    def cut(self, server_ids: Iterable[int]) -> None:
        """FAULT CUT: cut off the servers with these ids, besides those that are cut off already."""
        self.cut_off |= frozenset(server_ids)

    def heal(self) -> None:
        """FAULT HEAL: end loss, delay and cuts. Frames that are held back still leave when they are due."""
        self.loss, self.delay_ms, self.cut_off = 0.0, 0, frozenset()

    def admits(self, peer_id: int) -> bool:
        """Decide whether one frame, to or from that server, gets through.

        While FAULT LOSS is on, the decision is random, so ask once for each frame.
        """
        return peer_id not in self.cut_off and (not self.loss or self._rng.random() >= self.loss)

    def hold_back(self, send_frame: Callable[[int, bytes], None], peer_id: int, frame: bytes) -> bool:
        """Call `send_frame(peer_id, frame)` after the delay.

        Returns False if too many frames are held back already, so that this one is lost.
        """
        if len(self._delayed) >= DELAYED_FRAMES_MAX:
            return False
        self._delayed.call(self.delay_seconds, send_frame, peer_id, frame)
        return True

    def stop(self) -> None:
        """Drop the frames that are held back."""
        self._delayed.cancel()
