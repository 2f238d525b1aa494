"""Records that the protocol puts on disk (section 5.8, Figure 14), and the state that it finds there again."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field, frozen

from pfsb.paxos.messages import Batch


@frozen
class ViewRecord:
    """A promise: nothing of a view below `last_installed` is accepted any more."""

    last_attempted: int
    last_installed: int


@frozen
class ProposalRecord:
    """The proposal of `view` was accepted at `seq`; replaces a proposal of an older view."""

    seq: int
    view: int
    batch: Batch


@frozen
class OrderedRecord:
    """`batch` is ordered at `seq`, as this server has learned from another; replaces any proposal there."""

    seq: int
    batch: Batch


@frozen
class AruRecord:
    """Every slot up to `local_aru` is ordered, and this disk holds the batch that was ordered there. Written lazily."""

    local_aru: int


@frozen
class PeerRecord:
    """The storage of server `server_id` has this identity (Departure 12)."""

    server_id: int
    identity: bytes
    incarnation: int = 0
    """Incarnation of that storage when it was seen; 0: not noted."""
    position: int = 0
    """Number of groups that were on its disk when it was seen; 0: not noted."""


Record = ViewRecord | ProposalRecord | OrderedRecord | AruRecord | PeerRecord


@frozen
class Accepted:
    """A proposal on disk above Local_Aru."""

    seq: int
    view: int
    batch: Batch


@define
class Recovered:
    """The state on disk when the server started."""

    identity: bytes
    """Eight random bytes, made with the storage."""
    incarnation: int
    """How often this storage was started, this time included; durable before anything is sent."""
    last_attempted: int = 0
    last_installed: int = 0
    local_aru: int = 0
    ordered: Iterable[tuple[int, Batch]] = ()
    """The slots 1..local_aru in order: an iterator, since they may be many."""
    accepted: list[Accepted] = field(factory=list)
    """Slots above local_aru, ascending. A view of 0 stands for an OrderedRecord."""
    peers: dict[int, bytes] = field(factory=dict)
    """Identity of the storage of each other server that was heard, by id."""
