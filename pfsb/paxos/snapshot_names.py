"""Departure 40: servers compare the names of their snapshots, so that a state is noticed that went wrong in silence.

The digests of histories differ as soon as a result has differed. A state may be wrong before that: if an error of
memory has changed an entry, no result shows it until the entry is read. A snapshot contains all of the state, and those
of one slot have the same bytes on all servers, so their digests compare the states themselves. Every ALIVE carries slot
and digest of the last snapshot that its sender has made since its start. A snapshot that was fetched is not told: its
name would be another server's word once more.

* A complete snapshot counts (`SnapshotTaker`) when so many have told the same digest for its slot that they are a
  majority with this server. If none has told another digest, it also counts after a while: others may take their
  snapshots at other slots.
* If a majority of all servers tells one and the same digest for a slot, and this server has another one there, this
  server stops, as it does if its history differs. It has not named the snapshot then, so its next start executes anew
  what may have gone wrong.
* A snapshot is not fetched while another server than its source has told another digest for its slot, unless a majority
  has told that of its name.

A server that is not heard any more contradicts nothing: others need not wait for one that is gone for good.

As with histories, one ALIVE stops no server: each server of the majority must have told the same twice, half a period
of ALIVE apart.
"""

from __future__ import annotations

from attrs import define
from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.divergence import TIMES, StateDiverged
from pfsb.paxos.messages import Alive
from pfsb.paxos.snapshot import SnapshotName

SLOTS_KEPT = 4
"""Number of slots of which the digests of this server's snapshots, and those that one peer has told, are remembered."""
SILENCE_PERIODS = 10
"""Number of periods of ALIVE after the last ALIVE of a peer for which it may contradict a snapshot."""


@define
class Told:
    """The digest of a snapshot that a peer has told."""

    digest: bytes
    times: int
    """Number of ALIVEs, half a period of ALIVE apart at least, that have told it."""
    counted_at: float
    """Clock time at which the last ALIVE came that `times` counts."""


class SnapshotNames(Handler):
    """Tells the name of this server's last snapshot in its ALIVEs, and compares those in the ALIVEs of the others."""

    _log = Logger()

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.own: dict[int, bytes] = {}
        """Slot -> the digest of the snapshot that this server has made of it since its start; the last slots only."""
        self.told: dict[int, dict[int, Told]] = {}
        """Server id -> slot -> what it has told since its start."""
        self.heard_at: dict[int, float] = {}
        """Server id -> clock time of its last ALIVE."""
        self._logged = 0
        """The last slot of which the text log says that other servers have another state there."""

    @property
    def last(self) -> tuple[int, bytes]:
        """Slot and digest of the last snapshot that this server has made since its start; 0 and no bytes: none."""
        return next(reversed(self.own.items()), (0, b""))

    def complete(self, name: SnapshotName) -> None:
        """Called when a snapshot of this server's state is complete on its disk."""
        self.own.pop(name.seq, None)
        self.own[name.seq] = name.digest
        _keep_last(self.own)

    def forget_start(self, server_id: int) -> None:
        """Called when a peer has started again: it executes anew what it executed before."""
        self.told.pop(server_id, None)

    def compare(self, message: Alive) -> None:
        """Note the name in an ALIVE. Raises `StateDiverged`, which ends the turn, if this server must stop."""
        seq, digest, now = message.snapshot_seq, message.snapshot_digest, self._clock.seconds()
        self.heard_at[message.server_id] = now
        if not seq:
            return
        told = self.told.setdefault(message.server_id, {})
        found = told.get(seq)
        if found is None or found.digest != digest:
            told.pop(seq, None)
            told[seq] = Told(digest, 1, now)
            _keep_last(told)
        elif now >= found.counted_at + self._settings.alive_seconds / 2:
            found.times, found.counted_at = min(found.times + 1, TIMES), now
        for slot, own in self.own.items():
            for other in {told[slot].digest for told in self.told.values() if slot in told} - {own}:
                self._judge(slot, own, other)

    def is_agreed(self, name: SnapshotName, *, has_waited: bool) -> bool:
        """Whether this server's snapshot counts: a majority, this server included, has told the same name; or it has
        waited for that long enough, and no server has told another one."""
        if self.is_majority([self._data.server.server_id, *self._same(name.seq, name.digest)]):
            return True
        return has_waited and not self._others(name.seq, name.digest)

    def is_contradicted(self, name: SnapshotName) -> bool:
        """Whether a server has told another digest for the slot of a snapshot that this server could fetch, and no
        majority has told this one."""
        return bool(self._others(name.seq, name.digest)) and not self.is_majority(self._same(name.seq, name.digest))

    # ------------------------------------------------------------------ conclusions

    def _same(self, seq: int, digest: bytes, times: int = 1) -> list[int]:
        """Ids of the peers that have told this digest for slot `seq` so often."""
        found = [(server_id, told[seq]) for server_id, told in self.told.items() if seq in told]
        return [server_id for server_id, each in found if each.digest == digest and each.times >= times]

    def _others(self, seq: int, digest: bytes) -> list[int]:
        """Ids of the peers that have told another digest for slot `seq`, and were heard lately."""
        oldest = self._clock.seconds() - SILENCE_PERIODS * self._settings.alive_seconds
        found = [server_id for server_id, told in self.told.items() if seq in told and told[seq].digest != digest]
        return [server_id for server_id in found if self.heard_at[server_id] >= oldest]

    def _judge(self, seq: int, own: bytes, digest: bytes) -> None:
        """Compare this server's digest for slot `seq` with another one that was told. Raises `StateDiverged` if a
        majority has told that one."""
        servers = sorted(self._same(seq, digest, TIMES))
        shown = ", ".join(map(str, servers))
        if self.is_majority(servers):
            raise StateDiverged(
                f"server {self._data.server.server_id} has another state after slot {seq} than servers {shown}, which "
                f"are a majority, though no result has differed: the digest of its snapshot is {own.hex()}, theirs "
                f"{digest.hex()}. Start it again: executing anew heals an error of memory. If it stops here again, its "
                "last snapshot may be wrong, too: with its file removed, the server fetches a state from the others"
            )
        if servers and self._logged != seq:
            self._logged = seq
            self._log.error(
                "server {servers} has another state after slot {seq} than this server, though no result has differed; "
                "no snapshot of it counts until a majority agrees",
                servers=shown,
                seq=seq,
            )


def _keep_last(slots: dict[int, bytes] | dict[int, Told]) -> None:
    while len(slots) > SLOTS_KEPT:
        del slots[next(iter(slots))]
