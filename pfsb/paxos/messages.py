"""Figure 3: the messages, and the batch that a PROPOSAL binds to a sequence number.

Names and fields are the paper's. The paper describes ALIVE (section 5.10) and the two messages of reconciliation
(section 5.6) in prose only, so their fields were chosen here. Messages that the paper does not have name the departure
that they belong to. The encoding of messages is in `pfsb.transports.wire`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from hashlib import blake2b
from typing import Final, Self

import msgpack
from attrs import field

from pfsb.paxos.snapshot import SnapshotName
from pfsb.support.values import value

DIGEST_BYTES: Final = 16
"""Size, in bytes, of the digest of a batch."""
POINTS: Final = (1, 16, 256, 4_096)
"""Numbers that give the slots whose digests of the history an ALIVE tells: for each number, the highest multiple of it
that is not above the Local_Aru in the ALIVE (Departure 40)."""
NOT_TOLD: Final = bytes(DIGEST_BYTES)
"""Bytes that stand, in an ALIVE, for a digest that its sender does not know."""
_PERSON: Final = b"pfsb batch"
"""Personalisation of BLAKE2b: digests of batches differ from hashes of the same bytes that serve another purpose."""


class State(Enum):
    """The state of a server. An elected leader stays in LEADER_ELECTION until its view is prepared (section 5.3)."""

    LEADER_ELECTION = "LEADER_ELECTION"
    REG_LEADER = "REG_LEADER"
    REG_NONLEADER = "REG_NONLEADER"


@value
class ClientUpdate:
    """Figure 3, Block A: an update of a client, named by (client_id, timestamp) at all servers and for ever."""

    client_id: str
    server_id: int
    timestamp: int
    made_at: int
    """Local_Aru of the client's server when the update was made; `horizon_slots` later it is too old (Departure 7)."""
    payload: bytes
    """The content of the update; opaque to the protocol."""


@value
class Batch:
    """The content of one sequence number: client updates in order, and the time of the leader's clock (Departure 4).

    The leader encodes a batch once. An empty batch is a no-op: executing it changes nothing but the time.
    """

    data: bytes
    _opened: list[tuple[int, list[ClientUpdate]]] = field(factory=list, eq=False, repr=False)
    """Cache of at most one element: the decoded form of `data`, which `of` puts in and the first `open` takes out."""
    digest: bytes = field(init=False, eq=False, repr=False)
    """BLAKE2b-16 of `data`: an ACCEPT names the batch by it (Departure 39), and the digest of the history rests on it.
    """

    @digest.default
    def _make_digest(self) -> bytes:
        return blake2b(self.data, digest_size=DIGEST_BYTES, person=_PERSON).digest()

    @classmethod
    def of(cls, time_ms: int, updates: Sequence[ClientUpdate]) -> Batch:
        rows = [(u.client_id, u.server_id, u.timestamp, u.made_at, u.payload) for u in updates]
        return cls(msgpack.packb((time_ms, rows)), [(time_ms, list(updates))])

    def open(self) -> tuple[int, list[ClientUpdate]]:
        """Return (time_ms, updates). Callers should keep the result: each further call decodes `data` again."""
        if self._opened:
            return self._opened.pop()
        time_ms, rows = msgpack.unpackb(self.data, use_list=False)
        return time_ms, [ClientUpdate(*row) for row in rows]

    def updates(self) -> list[ClientUpdate]:
        """Return the updates, and keep the decoded form for the next `open`."""
        if not self._opened:
            self._opened.append(self.open())
        return self._opened[0][1]


@value
class ViewChange:
    """Figure 3, Block B: a vote to install view `attempted`."""

    server_id: int
    attempted: int


@value
class VCProof:
    """Figure 3, Block C: the sender has installed view `installed`."""

    server_id: int
    installed: int


@value
class Prepare:
    """Figure 3, Block D: the leader of `view` asks what the receiver has accepted in slots above `local_aru`."""

    server_id: int
    view: int
    local_aru: int


@value
class Proposal:
    """Figure 3, Block F: the leader of `view` binds `batch` to `seq`. Not a vote (Departure 2)."""

    server_id: int
    view: int
    seq: int
    batch: Batch


@value
class NamedBatches:
    """Base class of ACCEPT and ORDERED: names the batches of some slots in one view, by their digests."""

    server_id: int
    view: int
    seqs: tuple[int, ...]
    digests: bytes
    """The digests of the batches, one after the other in the order of `seqs`."""

    def votes(self) -> Iterator[tuple[int, bytes]]:
        """Yield a pair (seq, digest of the batch) for each slot that this message names."""
        digests = self.digests
        for index, seq in enumerate(self.seqs):
            at = index * DIGEST_BYTES
            yield seq, digests[at : at + DIGEST_BYTES]

    def joined(self, later: NamedBatches) -> Self:
        """One message with the slots of this one and of a later one of the same class, server and view, each slot
        once."""
        seqs, digests = self.seqs + later.seqs, self.digests + later.digests
        if len(set(seqs)) < len(seqs):
            by_seq = {**dict(self.votes()), **dict(later.votes())}
            seqs, digests = tuple(by_seq), b"".join(by_seq.values())
        return type(self)(self.server_id, self.view, seqs, digests)


@value
class Accept(NamedBatches):
    """Figure 3, Block G: the sender has forced the proposals of `view` at `seqs` to its disk.

    Departure 39: the vote for a slot names the batch that the sender has accepted there, by the batch's digest.
    Departure 55: in a cluster of five servers or more, only the leader of `view` gets it.
    """


@value
class Ordered(NamedBatches):
    """Departure 55: a majority has accepted the proposals of `view` at `seqs`, as the sender, its leader, has counted.

    It stands for the ACCEPTs of that majority, which has the proposals on its disks: the slots are ordered.
    """


@value
class GloballyOrderedUpdate:
    """Figure 3, Block H: `batch` is ordered at `seq`, for ever."""

    server_id: int
    seq: int
    batch: Batch


DataEntry = Proposal | GloballyOrderedUpdate


@value
class PrepareOK:
    """Figure 3, Block E: a promise to follow the leader of `view`, with a data list of what the sender has accepted.

    The data list covers the slots above the Local_Aru of the PREPARE. A long list travels in `parts` messages, numbered
    from 0; the promise counts when all parts have arrived (Departure 6). Parts of two editions are never mixed: two
    incarnations of a server may cut a list differently.

    A PREPARE_OK that the leader of `view` itself sends is no promise but a request: the receiver shall send this part
    of its own PREPARE_OK (Departure 47). Its data list is empty, and `parts` and `edition` are the receiver's.
    """

    server_id: int
    view: int
    data_list: tuple[DataEntry, ...]
    part: int = 0
    parts: int = 1
    edition: int = 0
    """The sender's incarnation. Within one incarnation the PREPARE_OK for a view is built only once."""


@value
class Alive:
    """ALIVE, sent periodically (section 5.10 of the paper): values that the sender has on disk."""

    server_id: int
    view: int
    state: State
    local_aru: int
    has_clients: bool = True
    """Whether clients of the sender wait for results; then ACCEPTs to the sender are not delayed (Departure 25)."""
    digests: bytes = NOT_TOLD * len(POINTS)
    """The digests of the history at four points up to `local_aru`, one after the other (Departure 40)."""
    snapshot_seq: int = 0
    """The slot of the last snapshot that the sender has made since its start; 0: none (Departure 40)."""
    snapshot_digest: bytes = b""
    """The digest of that snapshot; no bytes if there is none."""


@value
class ReconciliationRequest:
    """The sender asks for the ordered updates first..last (section 5.6 of the paper)."""

    server_id: int
    first: int
    last: int


@value
class ReconciliationReply:
    """One message of the burst that answers a request: batches of consecutive ordered slots (section 5.6 of the paper).

    Without any slot it says that the sender cannot serve the request.
    """

    server_id: int
    burst_end: int
    """The last slot of the burst."""
    local_aru: int
    updates: tuple[GloballyOrderedUpdate, ...] = field(factory=tuple)


@value
class Stranger:
    """Departure 12: the sender knows the receiver's id with another storage, whose promises the receiver may lack."""

    server_id: int
    identity: bytes
    """The storage identity that the sender has refused. The receiver ignores the message unless this is its own."""


@value
class Acquainted:
    """Departure 12: the sender has on disk that `identity` is the receiver's storage identity."""

    server_id: int
    identity: bytes


@value
class Heard:
    """Departure 12: the sender has received a frame of the storage with this identity, and asks for an answer.

    The receiver learns that the sender hears it, and so may remember the sender's storage.
    """

    server_id: int
    identity: bytes
    """The storage identity in the frame that the sender has received. The receiver ignores the message unless it is its
    own."""


@value
class KnownPosition:
    """Departure 43: the state in which the sender knows the receiver's storage.

    A server sends KNOWN_POSITION with each ACQUAINTED. It also sends KNOWN_POSITION in answer to a frame that it has
    refused because it knows a later state of the storage than the frame tells.

    The receiver compares the told state with that of its storage. If its storage is at least as far, and the told start
    is the present one, the receiver counts the ACQUAINTED. If the told start is an earlier one, the message was
    delayed, and counts for nothing. If the told state is later, the receiver's storage has lost something.
    """

    server_id: int
    identity: bytes
    """Identity of the storage. The receiver ignores the message unless it is its own."""
    start: int
    """The highest start number of that storage that the sender has noted (Departure 53)."""
    position: int
    """The highest log position of that storage that the sender has noted."""


@value
class ReadRequest:
    """Departure 24: the sender asks the leader which slot the sender must have executed before it answers its reads."""

    server_id: int
    number: int
    """The number of the request, unique over all incarnations of the sender."""


@value
class ReadIndex:
    """Departure 24: the leader's answer to ReadRequest `number`.

    The receiver may answer the reads that its clients asked before that request, once it has executed slot `seq`.
    """

    server_id: int
    number: int
    seq: int


@value
class Confirm:
    """Departure 24: the leader of `view` asks, in its round `number`, whether the receiver still follows it."""

    server_id: int
    view: int
    number: int


@value
class Confirmed:
    """Departure 24: an answer to CONFIRM: the sender follows the leader of `view`, and has installed no later view."""

    server_id: int
    view: int
    number: int


@value
class SnapshotOffer:
    """Departure 57: the answer to a RECONCILIATION_REQUEST for slots that the sender has dropped: it has this
    snapshot, which stands for them. Also the answer to a SNAPSHOT_REQUEST for any snapshot (Departure 58)."""

    server_id: int
    local_aru: int
    name: SnapshotName


@value
class SnapshotRequest:
    """Departure 57: the sender asks for the part of a snapshot that begins at `offset` and has `size` bytes.

    If the name tells a size of 0, the sender has lost its state, and asks for an offer of any snapshot of that slot or
    a later one (Departure 58).
    """

    server_id: int
    name: SnapshotName
    offset: int
    size: int


@value
class SnapshotPart:
    """Departure 57: a part of the snapshot of this name; without data, the sender has no such snapshot any more."""

    server_id: int
    name: SnapshotName
    offset: int
    data: bytes


class HandOverReason(Enum):
    """Why a leader hands its view over (Departure 59)."""

    ASKED = "asked"
    """A client has said LEAD."""
    STOPS = "stops"
    """The leader was asked to stop."""
    PREFERRED = "preferred"
    """The configuration prefers the server that leads the next view."""


@value
class HandOver:
    """Departure 59: the leader of `view` leaves it, and asks all to attempt `next_view`, which another server leads."""

    server_id: int
    view: int
    next_view: int
    reason: HandOverReason


VOTES: Final = frozenset({ViewChange, PrepareOK, Accept})
"""Kinds of messages that are votes (VIEW_CHANGE, ACCEPT) or promises (PREPARE_OK)."""
AcceptOrOrdered = Accept | Ordered
"""A vote of one server, or a message that stands for the votes of a majority."""
FrequentMessage = ClientUpdate | Proposal | Accept | Ordered
"""The messages that a server gets for each command."""
RareMessage = (
    ViewChange
    | VCProof
    | Prepare
    | PrepareOK
    | GloballyOrderedUpdate
    | Alive
    | ReconciliationRequest
    | ReconciliationReply
    | Stranger
    | Acquainted
    | Heard
    | KnownPosition
    | ReadRequest
    | ReadIndex
    | Confirm
    | Confirmed
    | SnapshotOffer
    | SnapshotRequest
    | SnapshotPart
    | HandOver
)
Message = FrequentMessage | RareMessage
