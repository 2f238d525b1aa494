"""Messages as tests write them: every field has a plain default, so that a test names only what matters to it."""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    ClientUpdate,
    DataEntry,
    GloballyOrderedUpdate,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    ReconciliationRequest,
    State,
    VCProof,
    ViewChange,
)


def client_update(
    client_id: str = "alice", timestamp: int = 1, *, server_id: int = 1, made_at: int = 0, payload: bytes = b"x"
) -> ClientUpdate:
    return ClientUpdate(client_id, server_id, timestamp, made_at, payload)


def batch(*updates: ClientUpdate, time_ms: int = 0) -> Batch:
    return Batch.of(time_ms, updates)


def view_change(server_id: int, attempted: int) -> ViewChange:
    return ViewChange(server_id, attempted)


def vc_proof(server_id: int, installed: int) -> VCProof:
    return VCProof(server_id, installed)


def prepare(server_id: int, view: int, local_aru: int = 0) -> Prepare:
    return Prepare(server_id, view, local_aru)


def prepare_ok(server_id: int, view: int, *data_list: DataEntry, part: int = 0, parts: int = 1) -> PrepareOK:
    return PrepareOK(server_id, view, data_list, part, parts)


def proposal(server_id: int, view: int, seq: int, *updates: ClientUpdate, time_ms: int = 0) -> Proposal:
    return Proposal(server_id, view, seq, batch(*updates, time_ms=time_ms))


def accept(server_id: int, view: int, *seqs: int, of: Sequence[Batch] = ()) -> Accept:
    """An ACCEPT for the batches `of`; without them a `ReplicaTestCase` names the batches that the replica holds."""
    return Accept(server_id, view, seqs, b"".join(batch.digest for batch in of))


def told(server_id: int, view: int, *seqs: int, of: Sequence[Batch] = ()) -> Ordered:
    """An ORDERED that names the batches `of`; without them a `ReplicaTestCase` names the batches that the replica
    holds."""
    return Ordered(server_id, view, seqs, b"".join(batch.digest for batch in of))


def ordered(server_id: int, seq: int, *updates: ClientUpdate, time_ms: int = 0) -> GloballyOrderedUpdate:
    return GloballyOrderedUpdate(server_id, seq, batch(*updates, time_ms=time_ms))


def alive(
    server_id: int,
    view: int,
    state: State = State.REG_NONLEADER,
    local_aru: int = 0,
    *,
    has_clients: bool = True,
) -> Alive:
    return Alive(server_id, view, state, local_aru, has_clients)


def request(server_id: int, first: int, last: int) -> ReconciliationRequest:
    return ReconciliationRequest(server_id, first, last)


def reply(
    server_id: int, *updates: GloballyOrderedUpdate, burst_end: int | None = None, local_aru: int = 0
) -> ReconciliationReply:
    """A RECONCILIATION_REPLY whose burst ends with the last of `updates`, unless the test says where it ends."""
    end = burst_end if burst_end is not None else updates[-1].seq if updates else 1
    return ReconciliationReply(server_id, end, local_aru, updates)
