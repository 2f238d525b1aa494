"""Messages of every type, as hypothesis strategies and as single examples."""

from __future__ import annotations

from hypothesis import strategies as st

from pfsb.paxos.messages import (
    DIGEST_BYTES,
    Accept,
    Acquainted,
    Alive,
    Batch,
    ClientUpdate,
    Confirm,
    Confirmed,
    GloballyOrderedUpdate,
    HandOver,
    HandOverReason,
    Heard,
    KnownPosition,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
    Stranger,
    VCProof,
    ViewChange,
)
from pfsb.paxos.snapshot import SnapshotName
from pfsb.support.limits import CLIENT_ID_CHARS_MAX, NUMBER_MAX, SERVER_ID_MAX, TIME_MS_MAX

SENDER = 3

numbers = st.integers(0, NUMBER_MAX)
seqs = st.integers(1, NUMBER_MAX)
views = st.integers(1, NUMBER_MAX)
server_ids = st.integers(0, SERVER_ID_MAX)
client_ids = st.text(st.characters(codec="utf-8"), max_size=20) | st.just("é" * CLIENT_ID_CHARS_MAX)

client_updates = st.builds(ClientUpdate, client_ids, server_ids, numbers, numbers, st.binary(max_size=50))
batches = st.builds(Batch.of, st.integers(0, TIME_MS_MAX), st.lists(client_updates, max_size=4))
ordered_updates = st.builds(GloballyOrderedUpdate, st.just(SENDER), seqs, batches)
accepted_proposals = st.builds(Proposal, server_ids, views, seqs, batches)
digests = st.binary(min_size=64, max_size=64)
data_lists = st.lists(ordered_updates | accepted_proposals, max_size=3).map(tuple)


@st.composite
def prepare_oks(draw: st.DrawFn) -> PrepareOK:
    parts = draw(st.integers(1, 10_000))
    return PrepareOK(SENDER, draw(numbers), draw(data_lists), draw(st.integers(0, parts - 1)), parts, draw(numbers))


@st.composite
def reconciliation_replies(draw: st.DrawFn) -> ReconciliationReply:
    first = draw(st.integers(1, NUMBER_MAX - 10))
    found = draw(st.lists(batches, max_size=3))
    updates = tuple(GloballyOrderedUpdate(SENDER, first + i, batch) for i, batch in enumerate(found))
    burst_end = draw(st.integers(first + len(found), NUMBER_MAX))
    return ReconciliationReply(SENDER, burst_end, draw(numbers), updates)


@st.composite
def reconciliation_requests(draw: st.DrawFn) -> ReconciliationRequest:
    first = draw(seqs)
    return ReconciliationRequest(SENDER, first, draw(st.integers(first, NUMBER_MAX)))


@st.composite
def accepts(draw: st.DrawFn) -> Accept:
    slots = draw(st.lists(seqs, max_size=20).map(tuple))
    size = len(slots) * DIGEST_BYTES
    return Accept(SENDER, draw(numbers), slots, draw(st.binary(min_size=size, max_size=size)))


@st.composite
def told(draw: st.DrawFn) -> Ordered:
    voted = draw(accepts())
    return Ordered(SENDER, draw(views), voted.seqs, voted.digests)


snapshot_names = st.builds(SnapshotName, seqs, seqs, st.binary(min_size=16, max_size=16))

BY_TYPE: dict[type[Message], st.SearchStrategy[Message]] = {
    ClientUpdate: client_updates,
    ViewChange: st.builds(ViewChange, st.just(SENDER), numbers),
    VCProof: st.builds(VCProof, st.just(SENDER), numbers),
    Prepare: st.builds(Prepare, st.just(SENDER), views, numbers),
    PrepareOK: prepare_oks(),
    Proposal: st.builds(Proposal, st.just(SENDER), views, seqs, batches),
    Accept: accepts(),
    Ordered: told(),
    GloballyOrderedUpdate: ordered_updates,
    Alive: st.builds(Alive, st.just(SENDER), numbers, st.sampled_from(State), numbers, st.booleans(), digests),
    ReconciliationRequest: reconciliation_requests(),
    ReconciliationReply: reconciliation_replies(),
    Stranger: st.builds(Stranger, st.just(SENDER), st.binary(min_size=8, max_size=8)),
    Heard: st.builds(Heard, st.just(SENDER), st.binary(min_size=8, max_size=8)),
    KnownPosition: st.builds(KnownPosition, st.just(SENDER), st.binary(min_size=8, max_size=8), numbers, numbers),
    Acquainted: st.builds(Acquainted, st.just(SENDER), st.binary(min_size=8, max_size=8)),
    SnapshotOffer: st.builds(SnapshotOffer, st.just(SENDER), numbers, snapshot_names),
    SnapshotRequest: st.builds(SnapshotRequest, st.just(SENDER), snapshot_names, numbers, seqs),
    SnapshotPart: st.builds(SnapshotPart, st.just(SENDER), snapshot_names, numbers, st.binary(max_size=100)),
    ReadRequest: st.builds(ReadRequest, st.just(SENDER), numbers),
    ReadIndex: st.builds(ReadIndex, st.just(SENDER), numbers, numbers),
    Confirm: st.builds(Confirm, st.just(SENDER), views, numbers),
    Confirmed: st.builds(Confirmed, st.just(SENDER), views, numbers),
    HandOver: st.builds(HandOver, st.just(SENDER), views, views, st.sampled_from(HandOverReason)),
}
any_message = st.one_of(*BY_TYPE.values())


def accept(seq: int = 812, sender: int = SENDER) -> Accept:
    return Accept(sender, 7, (seq,), bytes(range(DIGEST_BYTES)))


def proposal(payload: bytes = b"x" * 100, updates: int = 1, sender: int = SENDER) -> Proposal:
    made = [ClientUpdate(f"client-{i}", sender, 41, 800, payload) for i in range(updates)]
    return Proposal(sender, 7, 812, Batch.of(1_700_000_000_000, made))
