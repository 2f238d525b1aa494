"""Departure 43: a storage that is in an earlier state than it was known in does not take part.

Every frame tells how many groups its sender's storage has on disk (`IStableStorage.position`). A storage that tells
less than it told before has lost votes and promises: an older copy of a data directory was put back, or the end of a
log is gone. Its identity is the right one, so Departure 12 does not find that.

Three parts work together. `Peers.note_frame` keeps the latest state of each peer's storage in memory, and refuses
frames of an earlier one, votes included. This handler has those states written to disk, a little later, so that a
server that was restarted knows them, too; and it tells a refused server what is known of it (KNOWN_POSITION). The
refused server alone knows for certain whether it lacks something, since a frame may also be late; so it decides whether
it stops. While it waits to be admitted after its start (`StorageIdentityHandler`), it has not voted.

A later incarnation of a peer is on disk before anything leaves that rests on its frames, and positions within it are
not: what they protect is on this server's own disk by then (Departure 43, "What is kept when").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.interfaces import IStableStorage
from pfsb.paxos.messages import Heard, KnownPosition
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.records import PeerRecord, Recovered
from pfsb.support.limits import NUMBER_MAX

TOLD_PER_ALIVE = 4
"""Maximum number of KNOWN_POSITIONs, within `alive_seconds`, to one server."""


def first_told(own: PeerRecord | None, incarnation: int, position: int) -> int:
    """The log position that a server's frames tell after its start in this incarnation, with `position` groups on disk.

    `own` is the record that the server has written of its own storage last: in the incarnation in which it was admitted
    last, with the number of groups to leave out; or in incarnation 0, with the position that is told until it is
    admitted. Without such a record no group was written while it was admitted.
    """
    if own is None:
        return 0
    starts = incarnation - own.incarnation
    return position - starts - own.position if own.incarnation else own.position


class StorageWentBack(Exception):
    """This server may not vote: its storage was in a later state before, and lacks what it promised then."""


class LogPositionHandler(Handler):
    """Keeps what is known of the other servers' storages, and compares this server's with what others know of it."""

    _log = Logger()

    def __init__(self, core: Core, peers: Peers, storage: IStableStorage, on_doubt: Callable[[int], None]) -> None:
        """`on_doubt` is called, in a turn, with the id of a server that knows of a later state of this storage."""
        super().__init__(core)
        self._peers = peers
        self._storage = storage
        self._on_doubt = on_doubt
        self._identity = b""
        self._incarnation = 0
        self._first_told = 0
        """The log position that this server's frames tell until it is admitted."""
        self._left_out = 0
        """Number of groups on disk that the told position leaves out, from the admission on."""
        self.is_admitted = False
        """Whether this server has been admitted since its start (`StorageIdentityHandler`), and its disk says so."""
        self._written: dict[int, tuple[int, int]] = {}
        """Server id -> (incarnation, position) of its storage in the record that was last given to this server's own
        storage."""
        self._told_at: dict[int, float] = {}
        """Server id -> the time by the clock at which it was sent a KNOWN_POSITION last."""
        self._doubted_at: dict[int, float] = {}
        """Server id -> the time by the clock at which it first told of a later state of this storage."""

    def begin(self, found: Recovered) -> None:
        """Take over what is on this server's disk, at the start."""
        self._identity, self._incarnation = found.identity, found.incarnation
        own = found.peers.pop(self._data.server.server_id, None)
        self._first_told = first_told(own, found.incarnation, self._storage.position)
        self._left_out = self._storage.position - self._first_told
        self._written = {record.server_id: (record.incarnation, record.position) for record in found.peers.values()}
        for record in found.peers.values():
            self._peers.remember(record)

    def told(self) -> int:
        """The log position that this server's frames tell: the number of groups that it has written while admitted.

        A server that is not admitted has voted for nothing, but writes what it learns of its peers, and each start is a
        group, too. If frames told those groups, a storage that has lost as many would seem to have lost nothing, once
        it was started often enough.
        """
        return self._storage.position - self._left_out if self.is_admitted else self._first_told

    def write_start(self) -> None:
        """Write, in the first turn, before any other record, that what follows is written by a server that is not
        admitted.

        The record forces nothing. It is in the first group, or that group and all later ones are not there.
        """
        own_id = self._data.server.server_id
        self._turn.append(PeerRecord(own_id, self._identity, 0, self._first_told), lazy=True)

    def write_admission(self) -> None:
        """Write, in the turn in which this server is admitted, how many groups are left out from now on.

        The frames tell more groups when that is on disk: after a crash before, the next start would tell fewer.
        """
        own_id = self._data.server.server_id
        self._turn.append(PeerRecord(own_id, self._identity, self._incarnation, self._left_out))
        self._turn.call(self._begin_to_tell)

    def _begin_to_tell(self) -> None:
        self.is_admitted = True

    def due_records(self) -> Iterator[PeerRecord]:
        """The records of those peers whose storages are further than was written last; they count as written then."""
        for server_id, peer in self._peers.by_id.items():
            state = peer.incarnation, peer.position
            if peer.incarnation and state != self._written.get(server_id) and max(state) <= NUMBER_MAX:
                self._written[server_id] = state
                yield PeerRecord(server_id, self._membership.identities[server_id], *state)

    def write_incarnation(self, server_id: int) -> None:
        """Force to disk that a peer has started again: this server, restarted, handles no frame of a former
        incarnation, and none of a copy from before.

        While the disk is in trouble nothing is forced (Departures 44, 45), and the record goes with a later group.
        """
        if self._turn.trouble is None:
            for record in self.due_records():
                self._turn.append(record)

    def refuse(self, sender: int, identity: bytes, incarnation: int) -> None:
        """Answer a frame that was not handled: ask for another one if it was the first of a later incarnation.

        Otherwise tell its sender what is known of its storage, unless it was just told.
        """
        own_id = self._data.server.server_id
        if self._peers.waits_for_second(sender, incarnation):
            self._turn.send(Heard(own_id, identity), sender)
            return
        now = self._clock.seconds()
        if now - self._told_at.get(sender, NEVER) >= self._settings.alive_seconds / TOLD_PER_ALIVE:
            self._told_at[sender] = now
            peer = self._peers.by_id[sender]
            self._turn.send(KnownPosition(own_id, identity, peer.incarnation, peer.position), sender)

    def on_known_position(self, message: KnownPosition) -> None:
        """Stop this server if another one knows of a later state of its storage, and says so twice.

        The first time may be a forged frame. From then on this server waits, if it is not admitted yet, until the other
        server has told it again, or has admitted it.
        """
        if message.identity != self._identity or not self._lacks(message):
            return
        now, sender = self._clock.seconds(), message.server_id
        doubted_at = self._doubted_at.setdefault(sender, now)
        self._on_doubt(sender)
        if now - doubted_at >= self._settings.alive_seconds / 2:
            raise StorageWentBack(
                f"this storage was further than it is: server {sender} has known it with {message.position} groups of "
                f"records in its start number {message.incarnation}, and now it has {self.told()} in number "
                f"{self._incarnation}. An older copy was put back, or its log was cut. It lacks promises, and must not "
                "vote: bring the latest data directory back"
            )
        self._log.error(
            "server {other} knows a later state of this storage: {position} groups, and not {own}",
            other=sender,
            position=message.position,
            own=self.told(),
        )

    def believe(self, server_id: int) -> None:
        """Forget what a server has told, because it takes this server's frames now."""
        self._doubted_at.pop(server_id, None)

    def _lacks(self, message: KnownPosition) -> bool:
        """Whether this storage has never been in the state that is told."""
        own = self._first_told if message.incarnation < self._incarnation else self.told()
        return message.incarnation > self._incarnation or message.position > own
