"""Vectors of the formats: bytes and their meaning, for every message, frame, batch, bundle and record.

    python -m tests.formats

writes them to tests/data anew. A vector that changes means that servers of two versions no longer understand each
other, or that a data directory is no longer read. So vectors are renewed on purpose only, together with
docs/internals/formats.rst and the version of the format. `tests/test_formats.py` holds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from pfsb.paxos import messages
from pfsb.paxos.members import Members
from pfsb.paxos.messages import (
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
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.records import (
    AruRecord,
    EpochRecord,
    OrderedRecord,
    PeerRecord,
    ProposalRecord,
    Record,
    SnapshotRecord,
    ViewRecord,
)
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.storage.effect import Effect
from pfsb.storage.log.groups import NO_GROUP, seal
from pfsb.storage.log.items import Content, StoredSnapshot, encode
from pfsb.storage.log.listing import plain_members
from pfsb.storage.log.segments import SegmentHead
from pfsb.storage.owner import StorageOwner
from pfsb.support.limits import NUMBER_MAX, SERVER_ID_MAX, TIME_MS_MAX
from pfsb.transports.frames import NOT_KNOWN, FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.notices import TYPE_OF, Echo, Notice, Part, Probe, Report
from pfsb.transports.wire import LATER, encode_any

DATA: Final = Path(__file__).parent / "data"
SENDER: Final = 3
SERVERS: Final = frozenset({0, 1, 2, SENDER})
SECRET: Final = bytes(range(32))

Plain = Any
"""A value of JSON."""


# ---------------------------------------------------------------------------------------------
# Values and JSON
# ---------------------------------------------------------------------------------------------


def to_plain(value: object) -> Plain:
    """The value as a value of JSON: bytes become {"hex": ...}, a message or a batch becomes an object that names its
    class."""
    match value:
        case bytes():
            return {"hex": value.hex()}
        case State():
            return {"state": value.name}
        case HandOverReason():
            return {"reason": value.name}
        case Batch():
            time_ms, updates = Batch(value.data).open()
            return {"class": "Batch", "time_ms": time_ms, "updates": to_plain(updates)}
        case Bundle():
            return {name: to_plain(part) for name, part in value._asdict().items()}
        case list() | tuple():
            return [to_plain(item) for item in value]
        case _ if attrs.has(type(value)):
            parts = {field.name: to_plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
            return {"class": type(value).__name__, **parts}
    assert value is None or isinstance(value, str | int | bool), value
    return value


def from_plain(plain: Plain) -> Any:
    """The value that `to_plain` has turned into JSON; lists become tuples."""
    match plain:
        case {"hex": digits}:
            return bytes.fromhex(digits)
        case {"state": str(name)}:
            return State[name]
        case {"reason": str(name)}:
            return HandOverReason[name]
        case {"class": "Batch", "time_ms": time_ms, "updates": updates}:
            return Batch.of(time_ms, from_plain(updates))
        case {"class": name, **parts}:
            return getattr(messages, name)(**{key: from_plain(part) for key, part in parts.items()})
        case dict():
            return {key: from_plain(part) for key, part in plain.items()}
        case list():
            return tuple(from_plain(item) for item in plain)
    return plain


# ---------------------------------------------------------------------------------------------
# Encoding
# ---------------------------------------------------------------------------------------------


def encoded_payload(bundles: Iterator[Bundle] | list[Bundle]) -> bytes:
    """The payload that carries these bundles."""
    parts = []
    for client_id, epoch, opens, entries in bundles:
        head = bundle.encode_head(client_id, epoch, opens)
        parts.append(bundle.encode_bundle(head, len(entries), [bundle.encode_entries(entries)]))
    return bundle.encode(parts)


def codec(meaning: dict[str, Any], server_id: int = SENDER) -> FrameCodec:
    """The codec of the server that makes the frame of a vector with this meaning; or, for another server, one that can
    open that frame."""
    identity = FrameIdentity(
        server_id,
        SERVERS - {server_id},
        cluster_digest(meaning["cluster_name"], SERVERS),
        meaning["epoch"],
        meaning["cluster_identity"],
        meaning["passes"],
    )
    return FrameCodec(identity, meaning["identity"], meaning["start"], meaning["secret"], lambda: meaning["position"])


def encoded_frame(meaning: dict[str, Any]) -> bytes:
    """The frame with this meaning, from a codec that has sent frames with all lower counters before."""
    sender = codec(meaning)
    for _ in range(meaning["counter"]):
        later = any(isinstance(message, LATER) for message in meaning["messages"])
        [frame] = sender.seal([encode_any(message) for message in meaning["messages"]], later=later)
    return frame


def sealed_notice(notice: Notice) -> bytes:
    """The first frame of a server without a secret, with this notice."""
    return codec(_FRAME).seal_notice(notice)


def plain_notice(notice: Notice) -> dict[str, Plain]:
    return {name: to_plain(value) for name, value in notice._asdict().items()}


def notice_from_plain(meaning: dict[str, Any]) -> Notice:
    kind = {kind.__name__: kind for kind in TYPE_OF}[meaning["kind"]]
    return kind(**{name: from_plain(value) for name, value in meaning.items() if name != "kind"})


# ---------------------------------------------------------------------------------------------
# The cases
# ---------------------------------------------------------------------------------------------

UPDATE = ClientUpdate("3.1.2", SENDER, 41, 800, b"opaque")
FAR_UPDATE = ClientUpdate("grüße 世界", SERVER_ID_MAX, NUMBER_MAX, NUMBER_MAX, bytes(range(256)))
EMPTY_BATCH = Batch.of(0, [])
BATCH = Batch.of(1_700_000_000_000, [UPDATE])
FAR_BATCH = Batch.of(TIME_MS_MAX, [UPDATE, FAR_UPDATE, UPDATE, UPDATE])

SNAPSHOT = SnapshotName(800, 150_000, bytes(range(16)))
BATCHES: Final[dict[str, Batch]] = {
    "empty, which is a no-op": EMPTY_BATCH,
    "one update": BATCH,
    "four updates, one with the largest values": FAR_BATCH,
}

MESSAGES: Final[dict[str, Message]] = {
    "CLIENT_UPDATE": UPDATE,
    "CLIENT_UPDATE, largest values": FAR_UPDATE,
    "VIEW_CHANGE": ViewChange(SENDER, 7),
    "VIEW_CHANGE, largest view": ViewChange(SENDER, NUMBER_MAX),
    "VC_PROOF": VCProof(SENDER, 6),
    "PREPARE": Prepare(SENDER, 7, 811),
    "PREPARE_OK, empty": PrepareOK(SENDER, 7, ()),
    "PREPARE_OK, part 1 of 3 with both kinds of entries": PrepareOK(
        SENDER, 7, (GloballyOrderedUpdate(SENDER, 812, BATCH), Proposal(2, 6, 813, EMPTY_BATCH)), 1, 3, 9
    ),
    "PROPOSAL": Proposal(SENDER, 7, 812, BATCH),
    "PROPOSAL of a no-op": Proposal(SENDER, 7, NUMBER_MAX, EMPTY_BATCH),
    "ACCEPT of one slot": Accept(SENDER, 7, (812,), BATCH.digest),
    "ACCEPT of no slot and view 0": Accept(SENDER, 0, (), b""),
    "ACCEPT of twenty slots": Accept(SENDER, 7, tuple(range(812, 832)), bytes(range(160)) * 2),
    "GLOBALLY_ORDERED_UPDATE": GloballyOrderedUpdate(SENDER, 812, FAR_BATCH),
    "ALIVE in an election": Alive(SENDER, 0, State.LEADER_ELECTION, 0, True),
    "ALIVE of a leader": Alive(SENDER, 7, State.REG_LEADER, 811, True, bytes(range(64))),
    "ALIVE of a follower without clients": Alive(SENDER, 7, State.REG_NONLEADER, 811, False),
    "ALIVE of a server with a snapshot": Alive(
        SENDER, 7, State.REG_NONLEADER, 811, True, bytes(range(64)), 800, bytes(range(16))
    ),
    "RECONCILIATION_REQUEST": ReconciliationRequest(SENDER, 5, 70),
    "RECONCILIATION_REPLY": ReconciliationReply(
        SENDER, 70, 811, (GloballyOrderedUpdate(SENDER, 5, BATCH), GloballyOrderedUpdate(SENDER, 6, EMPTY_BATCH))
    ),
    "RECONCILIATION_REPLY, empty": ReconciliationReply(SENDER, 1, 0),
    "STRANGER": Stranger(SENDER, b"disk-001"),
    "ACQUAINTED": Acquainted(SENDER, b"disk-001"),
    "HEARD": Heard(SENDER, b"disk-001"),
    "KNOWN_POSITION": KnownPosition(SENDER, b"disk-001", 4, 70_000),
    "SNAPSHOT_OFFER": SnapshotOffer(SENDER, 811, SNAPSHOT),
    "SNAPSHOT_REQUEST": SnapshotRequest(SENDER, SNAPSHOT, 50_000, 50_000),
    "SNAPSHOT_PART": SnapshotPart(SENDER, SNAPSHOT, 50_000, bytes(range(256))),
    "SNAPSHOT_PART of a snapshot that is gone": SnapshotPart(SENDER, SNAPSHOT, 0, b""),
    "ORDERED of one slot": Ordered(SENDER, 7, (812,), BATCH.digest),
    "ORDERED of twenty slots": Ordered(SENDER, 7, tuple(range(812, 832)), bytes(range(160)) * 2),
    "READ_REQUEST": ReadRequest(SENDER, (1 << 40) + 5),
    "READ_INDEX": ReadIndex(SENDER, (1 << 40) + 5, 812),
    "CONFIRM": Confirm(SENDER, 7, 33),
    "CONFIRMED": Confirmed(SENDER, 7, 33),
    "HAND_OVER of a server that stops": HandOver(SENDER, 7, 9, HandOverReason.STOPS),
}

BUNDLES: Final[dict[str, list[Bundle]]] = {
    "an anonymous session opens with two commands": [
        Bundle("~3.1.2", 0, True, ((1, ("PUT", b"colour", b"blue")), (2, ("INCR", b"visits", 1)))),
    ],
    "a key and a value that are no UTF-8": [
        Bundle("~3.1.2", 0, False, ((3, ("PUT", b"\xff\x00", bytes(range(256)))),))
    ],
    "two sessions, a question, and an operation of the server's own session": [
        Bundle("alice", 77, False, ((0, ("GET", "grüße".encode())), (12, ("SAY", "世界")))),
        Bundle("!", 0, False, ((0, ("OPEN", "bob", 30_000)), (0, ("CLOSE", "alice", 77)))),
    ],
}

_FRAME: Final[dict[str, Any]] = {
    "cluster_name": "four",
    "cluster_identity": NOT_KNOWN,
    "passes": NOT_KNOWN,
    "epoch": 0,
    "identity": b"disk-003",
    "start": 1,
    "counter": 1,
    "position": 0,
    "secret": None,
    "messages": (Accept(SENDER, 7, (812,), BATCH.digest),),
}

_FULL: Final = _FRAME | {
    "cluster_identity": b"cluster!",
    "passes": b"passes 7",
    "epoch": 0x01020304,
    "start": 0x1112131415161718,
    "counter": 3,
    "position": 0x2122232425262728,
}

FRAMES: Final[dict[str, dict[str, Any]]] = {
    "without a secret": _FRAME,
    "with a secret": _FRAME | {"secret": SECRET},
    "every field has a value of its own": _FULL,
    "a kind of message that was added later, in a frame of its own type": _FRAME
    | {"messages": (MESSAGES["KNOWN_POSITION"],)},
    "a kind of message that was added later, and an older one in the same frame": _FRAME
    | {"messages": (MESSAGES["ORDERED of one slot"], MESSAGES["PROPOSAL"])},
    "every field has a value of its own, with a secret, and three messages": _FULL
    | {
        "secret": SECRET,
        "messages": (MESSAGES["ALIVE of a leader"], MESSAGES["PROPOSAL"], MESSAGES["ACCEPT of twenty slots"]),
    },
}

NOTICES: Final[dict[str, Notice]] = {
    "a part that is sent for the first time": Part(bytes(range(16)), 3_000, 1_083, 0, b"piece"),
    "a part that was asked for": Part(bytes(range(16)), 0xEA60, 0, 0xFE, bytes(range(256))),
    "a part that asks for a report": Part(bytes(range(16)), 5, 0, 0xFF, b"piece"),
    "a report of missing bytes": Report(bytes(range(16)), 7, ((0, 1_083), (2_166, 0xEA60))),
    "a report that nothing is missing": Report(bytes(range(16)), 0, ()),
    "a probe": Probe(39),
    "an echo": Echo(bytes(range(16))),
}

OWNER: Final = StorageOwner("four", cluster_digest("four", SERVERS), tuple(sorted(SERVERS)), SENDER)
RANDOM: Final = b"disk-003" * 2
"""All that is random in the log of the vectors."""
SEGMENT: Final = SegmentHead(1, 1_048_576, RANDOM[:8], RANDOM, OWNER)

PIECES: Final = (Piece("kv", b"key and value"), Piece("chat", b""))
CLUSTER: Final = b"cluster!"
"""The identity of the cluster in the snapshot."""


def snapshot_parts() -> tuple[SnapshotName, list[bytes]]:
    """The name of the snapshot of slot 1, and its parts: head, pieces and end."""
    encoder = SnapshotEncoder(1, CLUSTER)
    parts = [encoder.head(), *map(encoder.piece, PIECES), encoder.end()]
    return encoder.name, parts


SNAPSHOT_NAME, SNAPSHOT = snapshot_parts()

MEMBERS: Final = Members(
    (1, 3, 4),
    learners=(65_535,),
    epoch=1,
    since=3,
    first=3,
    storages={4: b"disk-004", 65_535: b"disk-far"},
    addresses={3: "10.0.0.3:7103", 4: "[2001:db8::4]:7104"},
    retired=(0, 2),
)

GROUPS: Final[dict[str, tuple[Record, ...]]] = {
    "views": (ViewRecord(9, 7),),
    "slot 1, learned as ordered, and slot 2, accepted in view 7": (
        OrderedRecord(1, EMPTY_BATCH),
        ProposalRecord(2, 7, BATCH),
    ),
    "peers, with and without start number and position": (
        PeerRecord(0, b"disk-000"),
        PeerRecord(1, b"disk-001", 12, 34_567),
    ),
    "Local_Aru": (AruRecord(1),),
    "everything at once": (ViewRecord(10, 8), PeerRecord(0, b"disk-000", 1, 2), ProposalRecord(3, 8, FAR_BATCH)),
    "a snapshot": (SnapshotRecord(SNAPSHOT_NAME),),
    "an epoch, and a proposal of it": (
        AruRecord(3),
        EpochRecord(MEMBERS),
        ViewRecord(MEMBERS.first_view, MEMBERS.first_view),
        ProposalRecord(4, MEMBERS.first_view, BATCH),
    ),
}
"""The groups of records in the log of the vectors, between the group of the first start and the one that leaves slot 2
out."""
PASSES: Final = {2: batch_digest(BATCH.data)}


def contents() -> Iterator[tuple[str, Content]]:
    """The content of each group of the log, in order, with a name."""
    yield "first start", Content(1)
    for name, records in GROUPS.items():
        effect = Effect()
        effect.apply_all(records)
        stored = None if effect.snapshot is None else StoredSnapshot(effect.snapshot, 1, 0)
        yield name, Content(None, effect, snapshot=stored)
    yield "slot 2, left out", Content(passes=PASSES)


def log_vectors() -> Iterator[dict[str, Plain]]:
    """The head of a segment, and the groups that follow it."""
    yield vector("head", SEGMENT.encode(), {"head": plain_head(SEGMENT)})
    before = NO_GROUP
    for number, (name, content) in enumerate(contents(), start=1):
        group = seal(RANDOM, before, number, encode(content))
        meaning = {"number": number, "before": to_plain(before), "content": plain_content(content)}
        yield vector(name, b"".join(group.pieces), meaning)
        before = group.chain


def plain_head(head: SegmentHead) -> dict[str, Plain]:
    return {field.name: to_plain(getattr(head, field.name)) for field in attrs.fields(SegmentHead)}


def plain_content(content: Content) -> dict[str, Plain]:
    effect = content.effect
    return {
        "incarnation": content.incarnation,
        "views": to_plain(effect.views),
        "local_aru": effect.local_aru,
        "peers": [to_plain(peer) for peer in effect.peers.values()],
        "passes": [[seq, digest.hex()] for seq, digest in content.passes.items()],
        "slots": [[seq, slot.view, to_plain(slot.batch)] for seq, slot in effect.slots.items()],
        "snapshot": to_plain(content.snapshot),
        "epoch": None if effect.members is None else plain_members(effect.members),
    }


def snapshot_vectors() -> Iterator[dict[str, Plain]]:
    """The head of a snapshot, its pieces and its end, which follow each other in its file."""
    head, *pieces, end = SNAPSHOT
    yield vector("head", head, {"seq": 1, "cluster_identity": CLUSTER.hex()})
    for piece, data in zip(PIECES, pieces, strict=True):
        yield vector(f"a piece of {piece.section}", data, piece)
    yield vector("end", end, SNAPSHOT_NAME)


def vectors() -> dict[str, list[dict[str, Plain]]]:
    """The content of the files in tests/data, by name of the file."""
    return {
        "batches.json": [vector(name, batch.data, batch) for name, batch in BATCHES.items()],
        "messages.json": [vector(name, encode_any(message), message) for name, message in MESSAGES.items()],
        "bundles.json": [vector(name, encoded_payload(bundles), bundles) for name, bundles in BUNDLES.items()],
        "frames.json": [
            vector(name, encoded_frame(meaning), {key: to_plain(part) for key, part in meaning.items()})
            for name, meaning in FRAMES.items()
        ],
        "notices.json": [
            vector(name, sealed_notice(notice), {"kind": type(notice).__name__, **plain_notice(notice)})
            for name, notice in NOTICES.items()
        ],
        "log.json": list(log_vectors()),
        "snapshot.json": list(snapshot_vectors()),
    }


def vector(name: str, data: bytes, meaning: object) -> dict[str, Plain]:
    plain = meaning if isinstance(meaning, dict) else to_plain(meaning)
    return {"name": name, "hex": data.hex(), "meaning": plain}


def renew() -> None:
    """Write all vectors into tests/data anew."""
    for file_name, content in vectors().items():
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (DATA / file_name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    renew()
