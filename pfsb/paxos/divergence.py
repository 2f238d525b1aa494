"""Departure 40: servers compare digests of what they have executed, and a server that differs from a majority stops.

Every ALIVE carries the digests of the history at four points: the Local_Aru on the sender's disk, rounded down to a
multiple of 1, 16, 256 and 4,096 slots. The receiver compares them with its own digests at those points, as far as it
has executed. Servers that are idle have the fine points in common, busy ones the coarse ones. The digest of a point
covers all slots before it, so digests that are equal once show that all was equal before, and digests that differ once
differ at all later points.

A server draws a conclusion only from a peer that has differed in two ALIVEs, half a period of ALIVE apart at least:

* If a majority of all servers tells one and the same digest for a point, and this server has another one there, this
  server stops. The majority goes on.
* If a peer differs, and no majority agrees with this server at that point, it cannot be told which server is right:
  this server refuses changes until the digests agree again (`is_undecided`).

So one forged, damaged or late message stops no server: a server stops only after two differing ALIVEs of each server of
a majority.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from attrs import define, field
from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.messages import DIGEST_BYTES, NOT_TOLD, POINTS, Alive
from pfsb.paxos.ordered_update_queue import DigestChain
from pfsb.paxos.peers import NEVER

POINTS_KEPT = 2 * len(POINTS)
"""Number of points of one peer whose digests are remembered: those of two ALIVEs."""
TIMES = 2
"""Number of ALIVEs, one after the other, in which a peer must differ before this server draws a conclusion."""


class StateDiverged(Exception):
    """Raised if a majority has executed the same slots with other results than this server."""


@define
class Comparison:
    """The history of one peer, as far as its ALIVEs have told of it, compared with this server's."""

    agrees_up_to: int = 0
    """The highest point at which the peer's digest was equal to this server's; 0: none."""
    differs_at: int = 0
    """The lowest point at which the peer's digest was not equal to this server's; 0: it agrees, or nothing could be
    compared."""
    times: int = 0
    """Number of ALIVEs, one after the other, in which the peer has differed; at most `TIMES` are counted, and only such
    as came half a period of ALIVE apart."""
    counted_at: float = NEVER
    """Clock time at which the last ALIVE came that `times` counts."""
    told: dict[int, bytes] = field(factory=dict)
    """Point -> the digest that the peer has told there; for the last `POINTS_KEPT` points that this server could
    compare."""
    has_differed: bool = False
    """Whether the peer has differed before its present start, and has neither agreed nor differed `TIMES` times since.

    Such a difference does not stop this server: the peer may execute its history otherwise now. But changes are refused
    because of it as before.
    """

    @property
    def differs(self) -> bool:
        return self.times >= TIMES

    @property
    def is_in_doubt(self) -> bool:
        """Whether the peer has executed something otherwise, as far as it has told since it differed first."""
        return self.differs or self.has_differed


class DivergenceHandler(Handler):
    """Tells digests in this server's ALIVEs, and compares those in the ALIVEs of the others."""

    _log = Logger()

    def __init__(self, core: Core, digests: DigestChain) -> None:
        super().__init__(core)
        self._digests = digests
        self.by_peer = defaultdict(Comparison, {server_id: Comparison() for server_id in core.membership.others})
        self.is_undecided = False
        """Whether a peer differs and no majority agrees with this server: then this server takes no changes from
        clients."""
        core.membership.on_change.append(self._follow)

    def _follow(self) -> None:
        """Departure 60: forget what servers that are gone have told, a server that differs among them."""
        for gone in self.by_peer.keys() - set(self._membership.others):
            del self.by_peer[gone]
        self.is_undecided = not self._is_decided()

    def own_digests(self, local_aru: int) -> bytes:
        """The digests of this server's history that its ALIVE with this Local_Aru carries."""
        told = (self._digests.at(point) if point else None for point in points(local_aru))
        return b"".join(NOT_TOLD if digest is None else digest for digest in told)

    def compare(self, message: Alive) -> None:
        """Compare the digests of an ALIVE. Raises `StateDiverged`, which ends the turn, if this server must stop."""
        comparison = self.by_peer[message.server_id]
        was_in_doubt = comparison.is_in_doubt
        if not self._note(comparison, message):
            return
        if comparison.differs or was_in_doubt or self.is_undecided:
            self._judge()
        if comparison.is_in_doubt != was_in_doubt:
            self._log_change(message.server_id, comparison)

    def forget_start(self, server_id: int) -> None:
        """Called when a peer has started again: what it told before does not count as told by this start of it."""
        comparison = self.by_peer[server_id]
        comparison.has_differed = comparison.is_in_doubt
        comparison.times = 0
        comparison.told.clear()
        if not comparison.has_differed:
            comparison.differs_at = 0

    def _note(self, comparison: Comparison, message: Alive) -> bool:
        """Note the digests that an ALIVE tells. Returns whether this server could compare at least one of them."""
        agrees = differs = 0
        for point, digest in _told(message):
            own = self._digests.at(point)
            if own is None:
                continue
            comparison.told.pop(point, None)
            comparison.told[point] = digest
            if own != digest:
                differs = differs or point
            elif not differs:
                agrees = point
        while len(comparison.told) > POINTS_KEPT:
            del comparison.told[next(iter(comparison.told))]
        if differs:
            self._note_difference(comparison, agrees, differs)
        elif agrees:
            comparison.agrees_up_to, comparison.differs_at, comparison.times = agrees, 0, 0
            comparison.has_differed = False
        return bool(agrees or differs)

    def _note_difference(self, comparison: Comparison, agrees: int, differs: int) -> None:
        comparison.agrees_up_to = max(agrees, comparison.agrees_up_to)
        if comparison.agrees_up_to >= differs:
            comparison.agrees_up_to = agrees  # the peer has started again since, and has another history now
        if not (comparison.times and agrees < comparison.differs_at < differs):
            comparison.differs_at = differs
        now = self._clock.seconds()
        if now >= comparison.counted_at + self._settings.alive_seconds / 2:
            comparison.counted_at = now
            comparison.times = min(comparison.times + 1, TIMES)
        if comparison.differs:
            comparison.has_differed = False

    def is_agreed(self, seq: int) -> bool:
        """Whether a majority of all servers, this one included, has told that it has executed the slots up to `seq` as
        this server has."""
        return self.is_majority(self._agreeing_at(seq))

    # ------------------------------------------------------------------ conclusions

    def _judge(self) -> None:
        self._stop_if_a_majority_differs({server_id: each for server_id, each in self.by_peer.items() if each.differs})
        self.is_undecided = not self._is_decided()

    def _is_decided(self) -> bool:
        """Whether a majority agrees with this server wherever a peer differs."""
        in_doubt = [each for each in self.by_peer.values() if each.is_in_doubt]
        return all(self.is_majority(self._agreeing_at(each.differs_at)) for each in in_doubt)

    def _stop_if_a_majority_differs(self, differing: dict[int, Comparison]) -> None:
        """Raise `StateDiverged` if a majority of all servers tells one digest for a point, and this server has
        another."""
        by_digest: dict[tuple[int, bytes], list[int]] = {}
        for server_id, each in differing.items():
            for point, digest in each.told.items():
                if digest != self._digests.at(point):
                    by_digest.setdefault((point, digest), []).append(server_id)
        for (point, digest), servers in by_digest.items():
            if self.is_majority(servers):
                raise StateDiverged(self._text(point, digest, servers))

    def _text(self, point: int, digest: bytes, servers: list[int]) -> str:
        majority = [self.by_peer[server_id] for server_id in servers]
        first = max(each.agrees_up_to for each in majority) + 1
        last = min(each.differs_at for each in majority)
        own = self._digests.at(point)
        assert own is not None, "points are compared only where this server has a digest"
        return (
            f"server {self._data.server.server_id} has executed slots {first} to {last} otherwise than servers "
            f"{', '.join(map(str, sorted(servers)))}, which are a majority: after slot {point} its digest is "
            f"{own.hex()}, theirs {digest.hex()}. Start it again: executing anew heals an error of memory. If it stops "
            "here again, its disk or its applications differ from theirs"
        )

    def _agreeing_at(self, point: int) -> list[int]:
        """Ids of the servers that agree with this one up to `point`, this one included."""
        agreeing = [server_id for server_id, each in self.by_peer.items() if each.agrees_up_to >= point]
        return [self._data.server.server_id, *agreeing]

    def _log_change(self, server_id: int, comparison: Comparison) -> None:
        if not comparison.is_in_doubt:
            self._log.info("the digests of server {server} agree with this server's again", server=server_id)
            return
        self._log.error(
            "server {server} has executed slots {first} to {last} otherwise than this server; {conclusion}",
            server=server_id,
            first=comparison.agrees_up_to + 1,
            last=comparison.differs_at,
            conclusion="no majority agrees, so this server refuses changes"
            if self.is_undecided
            else "a majority agrees with this server",
        )


def points(local_aru: int) -> Iterator[int]:
    """The slots whose digests an ALIVE with this Local_Aru carries, in the order of `POINTS`."""
    return (local_aru - local_aru % multiple for multiple in POINTS)


def _told(message: Alive) -> Iterator[tuple[int, bytes]]:
    """Pairs (slot, digest) of an ALIVE, ascending; without slot 0, and without slots that the sender does not know."""
    digests = message.digests
    pieces = [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]
    for point, digest in reversed([*zip(points(message.local_aru), pieces, strict=True)]):
        if point and digest != NOT_TOLD:
            yield point, digest
