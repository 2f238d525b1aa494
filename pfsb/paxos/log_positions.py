"""Departure 43: a storage that is in an earlier state than it was known in does not take part.

Every frame tells how many groups its sender's storage has on disk (`IStableStorage.position`). A storage that tells
less than it told before has lost votes and promises: an older copy of a data directory was put back, or the end of a
log is gone. Its identity is the right one, so Departure 12 does not find that.

Three parts work together. `Peers.note_frame` keeps the latest state of each peer's storage in memory, and refuses
frames of an earlier one, votes included. This handler has those states written to disk, a little later, so that a
server that was restarted knows them, too; and it tells another server what is known of its storage (KNOWN_POSITION):
one that asks, since it waits to be admitted after its start (`StorageIdentityHandler`) and has not voted, and one whose
frames are refused. That server alone knows for certain whether it lacks something, since a frame may also be late; so
it keeps what it was told (`Opinion`), and decides whether it takes part, waits or stops.

A later incarnation of a peer is on disk before anything leaves that rests on its frames, and positions within it are
not: what they protect is on this server's own disk by then (Departure 43, "What is kept when").
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define
from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.interfaces import IStableStorage
from pfsb.paxos.messages import Heard, KnownPosition
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.records import PeerRecord, Recovered
from pfsb.support.limits import NUMBER_MAX

TOLD_PER_ALIVE = 4
"""Maximum number of KNOWN_POSITIONs, within `alive_seconds`, to one server."""
WORDS_BELIEVED = 4
"""Number of KNOWN_POSITIONs in a row, from one server, that this server believes. A server that has refused a frame
refuses all later ones, and says so each time; a server in error, or a forged frame, says it now and then."""
WORD_PERIODS = 0.5
"""Least time between two KNOWN_POSITIONs of one server that count as two, in periods of ALIVE: copies of a frame come
sooner."""
DOUBT_PERIODS = 20
"""How long a KNOWN_POSITION keeps this server from being admitted, in periods of ALIVE. A server that knows a later
state says so each time that it is asked, which is in each period, so many losses in a row are unlikely."""
SILENCE_PERIODS = 3
"""Most time between two KNOWN_POSITIONs that follow each other in a row, in periods of ALIVE. While this server is not
admitted, it asks in each period."""


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


@define
class Opinion:
    """The last words (KNOWN_POSITION) of another server about this storage, since this server's start."""

    knows_this_start: bool = False
    """Whether the last word was that the other server takes frames of this start, and knows no later state."""
    doubts: int = 0
    """Number of words in a row, without copies, that the other server knows a later state."""
    doubted_at: float = NEVER
    """Time by the clock of the last such word."""
    counted_at: float = NEVER
    """Time by the clock of the last such word that is counted in `doubts`."""


class StorageWentBack(Exception):
    """This server may not vote: its storage was in a later state before, and lacks what it promised then."""


class LogPositionHandler(Handler):
    """Keeps what is known of the other servers' storages, and compares this server's with what others know of it."""

    _log = Logger()

    def __init__(self, core: Core, peers: Peers, storage: IStableStorage) -> None:
        super().__init__(core)
        self._peers = peers
        self._storage = storage
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
        self._opinions: dict[int, Opinion] = {}
        """Server id -> what it has told of this storage."""

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
            self.tell_known(sender)

    def tell_known(self, server_id: int) -> None:
        """Tell another server, whose storage's identity is known, in which state its storage is known here."""
        peer, identity = self._peers.by_id[server_id], self._membership.identities[server_id]
        known = KnownPosition(self._data.server.server_id, identity, peer.incarnation, peer.position)
        self._turn.send(known, server_id)

    def is_known_by(self, server_id: int) -> bool:
        """Whether another server has told last that it takes frames of this start, and knows no later state.

        It says so in answer to a frame of this start. A word from before may arrive late, when the storage has gone
        back meanwhile; that word names an earlier start, and is nothing.
        """
        opinion = self._opinions.get(server_id)
        return opinion is not None and opinion.knows_this_start

    @property
    def is_doubted(self) -> bool:
        """Whether another server has told lately that it knows of a later state of this storage, and has not taken that
        back."""
        oldest = self._clock.seconds() - DOUBT_PERIODS * self._settings.alive_seconds
        return any(opinion.doubted_at >= oldest for opinion in self._opinions.values())

    def on_known_position(self, message: KnownPosition) -> None:
        """Take what another server knows of this storage. Stop this server if that is a later state, again and again.

        One word may be a forged frame. From the first one on this server waits, if it is not admitted yet, until the
        other server has said it often enough, or has taken it back: it takes this server's frames then.
        """
        if message.identity != self._identity:
            return
        if self._lacks(message):
            self._doubt(message)
        elif message.incarnation == self._incarnation:
            self._opinions[message.server_id] = Opinion(knows_this_start=True)

    def _doubt(self, message: KnownPosition) -> None:
        sender = message.server_id
        if self._doubts_in_a_row(sender) >= WORDS_BELIEVED:
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

    def _doubts_in_a_row(self, sender: int) -> int:
        """Count a word that a later state is known. Returns how many have come in a row, with this one."""
        opinion, now = self._opinions.setdefault(sender, Opinion()), self._clock.seconds()
        opinion.knows_this_start = False
        opinion.doubted_at = now
        silence = now - opinion.counted_at
        if silence > SILENCE_PERIODS * self._settings.alive_seconds:
            opinion.doubts = 0
        if silence >= WORD_PERIODS * self._settings.alive_seconds:
            opinion.doubts += 1
            opinion.counted_at = now
        return opinion.doubts

    def _lacks(self, message: KnownPosition) -> bool:
        """Whether this storage has never been in the state that is told."""
        own = self._first_told if message.incarnation < self._incarnation else self.told()
        return message.incarnation > self._incarnation or message.position > own
