"""Figure 3: the messages, and the batch that a PROPOSAL binds to a sequence number.

The names are the paper's; the fields are its fields. Three messages that it describes in prose have
theirs here: ALIVE (section 5.10) and the two of reconciliation (section 5.6). How they look on the wire is
`pfsb.transports.wire`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgpack
from attrs import field, frozen


class State(Enum):
    """Section 5.2: an elected leader stays in LEADER_ELECTION until its view is prepared."""

    LEADER_ELECTION = "LEADER_ELECTION"
    REG_LEADER = "REG_LEADER"
    REG_NONLEADER = "REG_NONLEADER"


@frozen
class ClientUpdate:
    """Figure 3, Block A: the pair (client_id, timestamp) names it, over all servers and for ever."""

    client_id: str
    server_id: int
    timestamp: int
    made_at: int
    """Local_Aru of the client's server when it was made: valid for `horizon` slots from there."""
    payload: bytes
    """What it asks for; opaque to the protocol."""


@frozen
class Batch:
    """What one sequence number binds: client updates in order, and the leader's clock.

    Encoded once, by the leader. An empty batch is a no-op: it changes nothing but the time.
    """

    data: bytes
    _opened: list[tuple[int, list[ClientUpdate]]] = field(factory=list, eq=False, repr=False)
    """What `data` means, if whoever made this batch has just seen it: for the first who opens it."""

    @classmethod
    def of(cls, time_ms: int, updates: Sequence[ClientUpdate]) -> Batch:
        rows = [(u.client_id, u.server_id, u.timestamp, u.made_at, u.payload) for u in updates]
        return cls(msgpack.packb((time_ms, rows)), [(time_ms, list(updates))])

    def open(self) -> tuple[int, list[ClientUpdate]]:
        """(time_ms, updates): ask once and keep it, since from the second time on it is decoded anew."""
        if self._opened:
            return self._opened.pop()
        time_ms, rows = msgpack.unpackb(self.data, use_list=False)
        return time_ms, [ClientUpdate(*row) for row in rows]


@frozen
class ViewChange:
    """Figure 3, Block B: a vote to install view `attempted`."""

    server_id: int
    attempted: int


@frozen
class VCProof:
    """Figure 3, Block C: the sender has installed view `installed`."""

    server_id: int
    installed: int


@frozen
class Prepare:
    """Figure 3, Block D: the leader of `view` asks what was accepted above `local_aru`."""

    server_id: int
    view: int
    local_aru: int


@frozen
class Proposal:
    """Figure 3, Block F: the leader of `view` binds `batch` to `seq`. Not a vote (Departure 2)."""

    server_id: int
    view: int
    seq: int
    batch: Batch


@frozen
class Accept:
    """Figure 3, Block G: the sender has forced the proposals of `view` at `seqs` to its disk."""

    server_id: int
    view: int
    seqs: tuple[int, ...]


@frozen
class GloballyOrderedUpdate:
    """Figure 3, Block H: `batch` is what stands at `seq`, for ever."""

    server_id: int
    seq: int
    batch: Batch


DataEntry = Proposal | GloballyOrderedUpdate


@frozen
class PrepareOK:
    """Figure 3, Block E: a promise to follow the leader of `view`, with all that the sender accepted above its aru.

    A long data list travels in `parts` messages, numbered from 0; the promise counts when all are there. Parts of two
    editions are never mixed: what one life of a server cut into parts, its next life may cut elsewhere.
    """

    server_id: int
    view: int
    data_list: tuple[DataEntry, ...]
    part: int = 0
    parts: int = 1
    edition: int = 0
    """The sender's incarnation: within one life, a view's promise is built once."""


@frozen
class Alive:
    """Section 5.10: periodic; only what the sender has on disk (paper.md 6.2)."""

    server_id: int
    view: int
    state: State
    local_aru: int
    has_clients: bool = True
    """Departure 25: somebody waits for results at the sender, so that votes shall not be late there."""


@frozen
class ReconciliationRequest:
    """Section 5.6: the sender asks for the ordered updates first..last."""

    server_id: int
    first: int
    last: int


@frozen
class ReconciliationReply:
    """Section 5.6: consecutive ordered updates, one part of a burst; empty when the sender cannot serve."""

    server_id: int
    burst_end: int
    """The last slot of the burst: when it is there, ask on."""
    local_aru: int
    updates: tuple[GloballyOrderedUpdate, ...] = field(factory=tuple)


@frozen
class Stranger:
    """Design part 4: the id of the receiver belongs to another storage; it has lost its promises."""

    server_id: int
    identity: bytes
    """The identity that was refused: the receiver's own, if it is the one who is meant."""


@frozen
class Acquainted:
    """Departure 12: the sender has on disk that the receiver's id belongs to this storage."""

    server_id: int
    identity: bytes


@frozen
class ReadRequest:
    """Departure 24: the sender asks the leader how far one must have executed to answer a read."""

    server_id: int
    number: int
    """Counts the sender's requests, over all its lives."""


@frozen
class ReadIndex:
    """Departure 24: whoever has executed slot `seq` may answer what was asked before request `number`."""

    server_id: int
    number: int
    seq: int


@frozen
class Confirm:
    """Departure 24: the leader of `view` asks whether it still is followed; `number` counts its questions."""

    server_id: int
    view: int
    number: int


@frozen
class Confirmed:
    """Departure 24: the sender follows the leader of `view`: it has installed no later one."""

    server_id: int
    view: int
    number: int


Message = (
    ClientUpdate
    | ViewChange
    | VCProof
    | Prepare
    | PrepareOK
    | Proposal
    | Accept
    | GloballyOrderedUpdate
    | Alive
    | ReconciliationRequest
    | ReconciliationReply
    | Stranger
    | Acquainted
    | ReadRequest
    | ReadIndex
    | Confirm
    | Confirmed
)
