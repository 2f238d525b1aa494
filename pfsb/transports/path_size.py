"""The largest datagram that the path to a peer carries, found by probes (RFC 8899, DPLPMTUD).

A network may drop a datagram that is larger than one of its links carries, and may do so silently: most clouds drop
fragments, and many firewalls drop the message by which a router reports the loss. So a server relies only on sizes
whose probes were answered. It begins with datagrams that nearly every network carries, and sends larger ones after a
probe of that size was answered.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pfsb.transports.path_round_trip import PathRoundTrip

BASE_BYTES: Final = 1_200
"""Size, in bytes, of the datagrams with which a path begins (RFC 8899, section 5.1.2)."""
FLOOR_BYTES: Final = 508
"""Size, in bytes, of the largest datagram on a path that does not carry `BASE_BYTES`: every host that speaks IPv4 takes
a datagram of this size without fragments (RFC 791: 576 bytes, less 60 for the longest IP header and 8 for that of
UDP)."""
CONTROL_BYTES: Final = 128
"""Size, in bytes, of the small probe that goes with each probe."""
GRAIN_BYTES: Final = 32
"""Number of bytes to within which the largest size that passes is known when a search ends."""
ETHERNET_BYTES: Final = 1_472
"""Size, in bytes, of the largest datagram over IPv4 on an Ethernet with the usual MTU of 1,500 bytes."""

SEARCH_LOSSES: Final = 3
"""Number of lost probes of one size after which a search takes that size for too large (RFC 8899: MAX_PROBES)."""
CONFIRM_LOSSES: Final = 5
"""Number of lost probes after which the present size counts as no longer carried. The number is larger than that of a
search, because a wrong conclusion costs more: where a network loses 30 % of all datagrams by chance, one in 200
conclusions is wrong."""
ROUNDS_MAX: Final = 15
"""Maximum number of rounds of probes for one size; a round is a probe of that size and a small one. If the last round
settles nothing, nothing is concluded: the peer does not answer."""
CONFIRM_SECONDS: Final = 0.5
"""How old, in seconds, the proof of the present size may be while datagrams of more than `FLOOR_BYTES` are sent."""
RAISE_SECONDS: Final = 600.0
"""Time, in seconds, from the end of a search to the next one, as paths may get better (PMTU_RAISE_TIMER)."""
RETRY_SECONDS: Final = 5.0
"""Time, in seconds, to the next search on a path that has not carried `BASE_BYTES`, or has answered nothing."""


@define(eq=False)
class _Probing:
    """The probes of one size that are under way."""

    size: int
    losses_max: int
    sent: dict[bytes, tuple[int, bool, float]] = field(factory=dict)
    """Tag of a probe -> (number of the round, whether the probe has the size that is tried, time at which it was sent).
    A round is a probe of that size and a small one."""
    rounds: int = 0
    controls: set[int] = field(factory=set)
    """Numbers of the rounds whose small probe was answered. If the larger probe of such a round is not, it was lost by
    its size or by chance."""


@define(eq=False)
class PathSize:
    """The size of the datagrams that one peer is sent, and the probes by which it is found.

    With each probe goes a small one. A probe counts as lost only if its small companion was answered: then the peer
    lives, and both directions of the path carry small datagrams. So nothing is concluded from a peer that is down.
    """

    _clock: IReactorTime
    round_trip: PathRoundTrip
    _send_probe: Callable[[int], bytes]
    """send_probe(size): sends a probe of `size` bytes, and returns its tag. May call `refused` before it returns."""
    most: int
    """Maximum size, in bytes, of any datagram, whatever the probes show."""
    _changed: Callable[[int, int], None]
    """changed(before, now): called when `size` has changed."""
    size: int = field(init=False, default=BASE_BYTES)
    """Maximum size, in bytes, of a datagram."""
    due: float = field(init=False, default=inf)
    """Time by the clock, in seconds, at which `tick` has something to do."""
    ceiling: int = field(init=False)
    """Size, in bytes, of the largest datagram that the path may carry: none that is larger is tried."""
    _is_ceiling_untried: bool = field(init=False, default=True)
    _probing: _Probing | None = field(init=False, default=None)
    _search_at: float = field(init=False, default=0.0)
    """Time by the clock, in seconds, before which no search begins."""
    _proved_at: float = field(init=False, default=-inf)

    @ceiling.default
    def _first_ceiling(self) -> int:
        return self.most

    def larger_wanted(self) -> None:
        """A frame is to be sent that is larger than `size`: search for the largest size, if it is time for that."""
        if self._probing is None and self.due == inf and self._clock.seconds() >= self._search_at:
            self._search()

    def used(self) -> None:
        """Called when a datagram of more than `FLOOR_BYTES` is sent: probe the present size if its last proof is old or
        missing.

        Even `BASE_BYTES` needs a proof: on a path that carries less, a datagram of that size would be lost each time
        that it is sent.
        """
        if self._clock.seconds() - self._proved_at > CONFIRM_SECONDS:
            self.doubt()

    def doubt(self) -> None:
        """Find out by probes whether the path still carries `size`: there is reason to doubt it."""
        if self._probing is None or self._probing.size > self.size:
            self._begin(self.size, CONFIRM_LOSSES)

    def refused(self, size: int, limit: int) -> None:
        """Take in that this machine has refused to send a datagram of `size` bytes; it sends at most `limit` bytes.

        The limit may rest on a message of a router, which can be forged. It ends a search early, but `size` is reduced
        only if the refused datagram was no larger than `size`.
        """
        limit = max(min(limit, size - 1), FLOOR_BYTES)
        self.ceiling, self._is_ceiling_untried = limit, True
        if size <= self.size:
            self.set_size(limit)
        if self._probing is not None and self._probing.size > self.ceiling:
            self._probing = None
            self.due = self._clock.seconds()

    def proved(self, size: int) -> None:
        """Take in that a datagram of `size` bytes has arrived: it proves the present size, unless that is larger than
        `size`."""
        if size >= self.size:
            self._proved_at = self._clock.seconds()

    def answered(self, tag: bytes) -> None:
        """Take in the echo of the probe with this tag: the path carries datagrams of the size of that probe."""
        probing = self._probing
        if probing is None or tag not in probing.sent:
            return
        number, is_tried_size, sent_at = probing.sent[tag]
        self.round_trip.observe(self._clock.seconds() - sent_at)
        if not is_tried_size:
            probing.controls.add(number)
            return
        self.set_size(max(self.size, probing.size))
        self._proved_at = self._clock.seconds()
        self._end_probing(is_searching=self._proved_at >= self._search_at)

    def tick(self) -> None:
        """Do what is due: send the next round of probes (one of the size that is tried, and a small one), or draw the
        conclusion from those that were sent."""
        if self._clock.seconds() < self.due:
            return
        probing = self._probing
        if probing is None:
            self._search()
        elif len(probing.controls) >= probing.losses_max:
            self._not_carried(probing.size)
        elif probing.rounds >= ROUNDS_MAX:
            self._search_at = self._clock.seconds() + RETRY_SECONDS
            self._end_probing(is_searching=False)
        else:
            self._send_round(probing)

    def _not_carried(self, size: int) -> None:
        self.ceiling, self._is_ceiling_untried = size - 1, False
        if size <= self.size:
            self.set_size(BASE_BYTES if size > BASE_BYTES else FLOOR_BYTES)
            self._search_at = 0.0
        self._end_probing(is_searching=True)

    def set_size(self, size: int) -> None:
        """Let datagrams have at most `size` bytes from now on; if that is a change, call the function `changed`."""
        before, self.size = self.size, size
        if size != before:
            self._changed(before, size)

    def _end_probing(self, is_searching: bool) -> None:
        self._probing, self.due = None, inf
        if is_searching:
            self._search()

    def _search(self) -> None:
        """Probe the next size; if none is left to try, wait until it is time to search again."""
        self.due = inf
        size = self._candidate()
        if size is not None:
            self._begin(size, SEARCH_LOSSES)
            return
        wait = RAISE_SECONDS if self.size >= BASE_BYTES else RETRY_SECONDS
        self._search_at = self._clock.seconds() + wait
        self.ceiling, self._is_ceiling_untried = self.most, True

    def _candidate(self) -> int | None:
        if self.ceiling <= self.size:
            return None
        if self._is_ceiling_untried:
            return self.ceiling
        if self.ceiling - self.size < GRAIN_BYTES:
            return None
        for size in (ETHERNET_BYTES, BASE_BYTES):
            if self.size < size <= self.ceiling:
                return size
        return (self.size + self.ceiling + 1) // 2

    def _begin(self, size: int, losses_max: int) -> None:
        self._probing = _Probing(size, losses_max)
        self._send_round(self._probing)

    def _send_round(self, probing: _Probing) -> None:
        now = self._clock.seconds()
        probing.rounds += 1
        self.due = now + self.round_trip.seconds
        probing.sent[self._send_probe(CONTROL_BYTES)] = (probing.rounds, False, now)
        # The network of this machine may refuse the large probe at once, which ends this probing.
        probing.sent[self._send_probe(probing.size)] = (probing.rounds, True, now)
