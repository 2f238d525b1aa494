"""Departure 43: a server whose storage is in an earlier state than others have known it in takes no part.

Every frame tells its sender's log position: how many of the groups on disk were written while the sender was admitted
(`LogPositionHandler.told`). A storage whose frames tell less than before has lost votes and promises: an older copy of
a data directory was put back, or the end of a log is gone. Its identity is the right one, so Departure 12 does not find
that.

Three parts work together. `Peers.note_frame` keeps the latest state of each peer's storage in memory, and refuses
frames of an earlier one, votes included. This handler has those states written to disk, a little later, so that a
server that was restarted knows them, too; and it tells another server what is known of its storage (KNOWN_POSITION):
one that asks, since it waits to be admitted after its start (`StorageIdentityHandler`) and has not voted, and one whose
frames are refused. That server alone knows for certain whether it lacks something, since a frame may also be late; so
it keeps what it was told (`Opinion`), and decides whether it takes part, waits or stops.

Before anything leaves that rests on frames of a later incarnation of a peer, that incarnation is noted on disk. Before
anything leaves that rests on the first vote of that incarnation that counts here, the log position that came with the
vote is noted on disk, too. Later log positions are not waited for: the batches that their votes are for are on this
server's own disk by then, or, if an ORDERED overtakes this server's own record, on the disks of a majority of others
(Departure 43, "What is kept when"; Departure 55).
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
from pfsb.paxos.start_number import are_of_two_copies, incarnation_of, start_number
from pfsb.support.limits import NUMBER_MAX

TOLD_PER_ALIVE = 4
"""Maximum number of KNOWN_POSITIONs that are sent to one server within `alive_seconds`. A KNOWN_POSITION tells a server
in which state its sender knows that server's storage."""
WORDS_BELIEVED = 4
"""Number of messages in a row, from one server, which tell that this server's storage was in a later state than now
(KNOWN_POSITION), after which this server believes them and stops. A server that has refused one frame for that reason
refuses all later ones, and says so each time. A forged or mistaken message comes only now and then."""
WORD_PERIODS = 0.5
"""Minimum time, in periods of ALIVE, between two KNOWN_POSITIONs of one server that are both counted
(`Opinion.doubts`): a message that comes sooner may be a copy of the one before."""
DOUBT_PERIODS = 20
"""How long, in periods of ALIVE, a message that tells of a later state of this server's storage (KNOWN_POSITION) keeps
this server from being admitted. A server that knows a later state is asked in each period, and says so each time; that
so many answers in a row are lost is unlikely."""
SILENCE_PERIODS = 3
"""Maximum time, in periods of ALIVE, between two KNOWN_POSITIONs of one server that count as following each other.
While this server is not admitted, it asks in each period."""


def first_told(own: PeerRecord | None, incarnation: int, position: int) -> int:
    """The log position that a server's frames tell, after a start, until the server is admitted.

    The start is that of this `incarnation`, with `position` groups on disk. `own` is the record that the server has
    last written of its own storage. None: it was never admitted, and the log position is 0. A record of incarnation 0
    was written at a start, and holds the log position itself. Any other record was written when the server was
    admitted, in the incarnation that it names, and holds the number of groups that the log position leaves out; the
    starts since then are left out, too.
    """
    if own is None:
        return 0
    starts = incarnation - own.incarnation
    return position - starts - own.position if own.incarnation else own.position


@define
class Opinion:
    """The content of the last messages KNOWN_POSITION that another server has sent since this server's start: in which
    state it knows this server's storage."""

    knows_this_start: bool = False
    """True: the other server has told, about this server's present incarnation, that it handles frames of it, and has
    not told since that it knows a later state of this server's storage. False: it has not."""
    doubts: int = 0
    """Number of messages in a row by which the other server has told that it knows a later state. A copy that the
    network has made of a message does not count."""
    doubted_at: float = NEVER
    """Time by the clock at which the other server has last told that it knows a later state."""
    counted_at: float = NEVER
    """Time by the clock at which the last KNOWN_POSITION came that is counted in `doubts`."""


class StorageWentBack(Exception):
    """Raised if this server may not vote: its storage was in a later state before, and lacks votes or promises that the
    server has given since.
    """


class LogPositionHandler(Handler):
    """Keeps what is known of the other servers' storages, and compares this server's with what others know of it."""

    _log = Logger()

    def __init__(self, core: Core, peers: Peers, storage: IStableStorage) -> None:
        super().__init__(core)
        self._peers = peers
        self._storage = storage
        self._identity = b""
        self._incarnation = 0
        self.start = 0
        """The number by which frames name this start (Departure 53)."""
        self._first_told = 0
        """The log position that this server's frames tell until it is admitted."""
        self._left_out = 0
        """Number of groups on disk that the log position in frames leaves out once this server is admitted."""
        self.is_admitted = False
        """Whether this server has been admitted since its start (`StorageIdentityHandler`), and its disk says so."""
        self._written: dict[int, tuple[int, int]] = {}
        """Server id -> (start number, position) of that server's storage in the record about it that was last given to
        the storage here."""
        self._told_at: dict[int, float] = {}
        """Server id -> the time by the clock at which that server was last sent a KNOWN_POSITION."""
        self._opinions: dict[int, Opinion] = {}
        """Server id -> the state in which that server knows this server's storage, as its KNOWN_POSITIONs say."""

    def begin(self, found: Recovered) -> None:
        """Take over, at the start, the records on this server's disk about its own storage and those of the others."""
        self._identity, self._incarnation = found.identity, found.incarnation
        self.start = start_number(found.incarnation, found.start_mark)
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
        """Write, in the first turn and before any other record, that this server is not admitted yet.

        The record is lazy: no message waits for it. But it is in the first group that this incarnation writes, so no
        later group is on disk without it.
        """
        own_id = self._data.server.server_id
        self._turn.append(PeerRecord(own_id, self._identity, 0, self._first_told), lazy=True)

    def write_admission(self) -> None:
        """Write, in the turn in which this server is admitted, how many groups its frames leave out from now on.

        The frames tell a higher log position only when this record is on disk. If they told it sooner, a crash could
        lose the record, and the frames after the next start would tell a lower one. They tell it from then on: the
        first of them may carry the vote of this turn.
        """
        own_id = self._data.server.server_id
        self._turn.append(PeerRecord(own_id, self._identity, self._incarnation, self._left_out))
        self._turn.call_first(self._begin_to_tell)

    def _begin_to_tell(self) -> None:
        self.is_admitted = True

    def due_records(self) -> Iterator[PeerRecord]:
        """The records of those peers whose storages are in a later state than was last written; from now on they count
        as written."""
        for server_id, peer in self._peers.by_id.items():
            state = peer.start, peer.position
            if peer.start and state != self._written.get(server_id) and max(state) <= NUMBER_MAX:
                self._written[server_id] = state
                yield PeerRecord(server_id, self._membership.identities[server_id], *state)

    def write_incarnation(self, server_id: int) -> None:
        """Called when frames of a later incarnation of server `server_id` are handled from now on: force that
        incarnation to this server's disk.

        Then this server, also after a restart of its own, handles no frame of an earlier incarnation of that server,
        nor of an older copy of that server's storage. While the disk is in trouble nothing is forced (Departures 44,
        45), and the record goes with a later group.
        """
        if self._turn.trouble is None:
            for record in self.due_records():
                self._turn.append(record)
            self._turn.hold_ordered()

    def write_first_vote(self, server_id: int, position: int) -> None:
        """Departure 54: force to this server's disk the log position `position` of server `server_id`, since a vote
        that came with it counts, the first one of that server's present start.

        The record makes this server refuse, also after a restart of its own, any copy of that storage that was made
        before the vote, however often the copy is started. Without it this server would remember of that start only the
        log position at its beginning, and would take a start of such a copy for a later start of the storage itself.
        Nothing is written while the disk is in trouble, or if the position is not believed (`Peers.believe`); then the
        next vote is taken for the first one.
        """
        peer = self._peers.by_id[server_id]
        if self._turn.trouble is None and position <= peer.position:
            peer.voted_in = peer.start
            self.write_incarnation(server_id)

    def refuse(self, sender: int, identity: bytes, start: int) -> None:
        """Answer a frame that must not be handled (`Peers.note_frame`).

        The answer is HEARD, which asks for another frame, if the frame was the first one of a later start.
        Otherwise it is KNOWN_POSITION, which tells the sender the state that is known of its storage; at most
        `TOLD_PER_ALIVE` of these go to one server within `alive_seconds`.
        """
        own_id = self._data.server.server_id
        if self._peers.waits_for_second(sender, start):
            self._turn.send(Heard(own_id, identity), sender)
            return
        now = self._clock.seconds()
        if now - self._told_at.get(sender, NEVER) >= self._settings.alive_seconds / TOLD_PER_ALIVE:
            self._told_at[sender] = now
            self.tell_known(sender)

    def tell_known(self, server_id: int) -> None:
        """Tell another server, whose storage's identity is known, in which state its storage is known here."""
        peer, identity = self._peers.by_id[server_id], self._membership.identities[server_id]
        known = KnownPosition(self._data.server.server_id, identity, peer.start, peer.position)
        self._turn.send(known, server_id)

    def is_known_by(self, server_id: int) -> bool:
        """Whether another server has told that it handles frames of this server's present incarnation, and has not told
        since that it knows a later state of its storage.

        It tells so in answer to a frame of this incarnation. A message from before may arrive late, when the storage
        has gone back meanwhile; it names an earlier incarnation, and counts for nothing.
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
        """Handle a message that tells in which state its sender knows this server's storage. If several in a row tell a
        later state than the present one, stop this server.

        A single such message may be forged. From the first one on, this server, if it is not admitted yet, waits until
        the sender has told a later state `WORDS_BELIEVED` times, or tells one that is not later. Raises
        `StorageWentBack` to stop.
        """
        if message.identity != self._identity:
            return
        if self._lacks(message):
            self._doubt(message)
        elif message.start == self.start:
            self._opinions[message.server_id] = Opinion(knows_this_start=True)

    def _doubt(self, message: KnownPosition) -> None:
        sender = message.server_id
        if self._doubts_in_a_row(sender) >= WORDS_BELIEVED:
            raise StorageWentBack(
                f"this storage was further than it is: server {sender} has known it with {message.position} groups of "
                f"records in its start number {incarnation_of(message.start)}, and now it has {self.told()} in number "
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
        """Count a KNOWN_POSITION of server `sender` with a later state. Returns how many of that server have come in a
        row, with this one."""
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
        """Whether the message names a start or a log position that this storage has not reached.

        A start with the present incarnation and another mark counts as not reached: it is the start of another copy of
        the storage (Departure 53).
        """
        own = self._first_told if message.start < self.start else self.told()
        is_other = message.start > self.start or are_of_two_copies(message.start, self.start)
        return is_other or message.position > own
