"""Targets that read what comes from other servers: frames, headers, bodies and batches."""

from __future__ import annotations

from functools import cache
from typing import Final

import msgpack
from twisted.internet.task import Clock

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
from pfsb.paxos.snapshot import SnapshotName
from pfsb.service.assembly import frame_identity
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.fuzz.mutation import Mutation, packed, unpacked
from pfsb.simulator.fuzz.small_cluster import CapturedFrame, SmallCluster
from pfsb.simulator.fuzz.target import Target
from pfsb.transports.frames import (
    HEADER,
    MAGIC,
    OVERHEAD_BYTES,
    TYPE_LATER_MESSAGES,
    TYPE_MESSAGES,
    VERSION,
    FrameCodec,
    FrameRefused,
)
from pfsb.transports.notices import TYPE_OF, Echo, Notice, Part, Probe, Report, decode_notice
from pfsb.transports.path import Path, PathCounters
from pfsb.transports.reassembly import KEPT_BYTES_MAX
from pfsb.transports.wire import Malformed, content_of, decode_all, encode_any, join_encoded

SERVERS: Final = 3
RECEIVER: Final = 1
SECRET: Final = b"a secret of the small cluster"
COMMANDS: Final = 60
"""Number of commands that a cluster orders while its frames are captured."""

_UPDATE = ClientUpdate("0.1.1", 0, 4, 2, packed((("~0.1.1", 0, True, ((1, ("PUT", b"k", b"v")),)),)))
_BATCH = Batch.of(1_700_000_000_000, [_UPDATE])
_SNAPSHOT = SnapshotName(2, 1_000, bytes(16))
EXAMPLES: Final[tuple[Message, ...]] = (
    _UPDATE,
    ViewChange(0, 2),
    VCProof(0, 2),
    Prepare(0, 2, 1),
    PrepareOK(0, 2, (GloballyOrderedUpdate(0, 1, _BATCH), Proposal(1, 1, 2, _BATCH)), 0, 2, 1),
    Proposal(0, 1, 3, _BATCH),
    Accept(0, 1, (3, 4), 2 * _BATCH.digest),
    GloballyOrderedUpdate(0, 3, _BATCH),
    Alive(0, 1, State.REG_LEADER, 2, False),
    ReconciliationRequest(0, 1, 3),
    ReconciliationReply(0, 2, 2, (GloballyOrderedUpdate(0, 1, _BATCH), GloballyOrderedUpdate(0, 2, _BATCH))),
    Stranger(0, b"disk-001"),
    Acquainted(0, b"disk-001"),
    ReadRequest(0, 1),
    ReadIndex(0, 1, 3),
    Confirm(0, 1, 1),
    Confirmed(0, 1, 1),
    Heard(0, b"disk-001"),
    KnownPosition(0, b"disk-001", 1, 1),
    Ordered(0, 1, (3, 4), 2 * _BATCH.digest),
    SnapshotOffer(0, 2, _SNAPSHOT),
    SnapshotRequest(0, _SNAPSHOT, 0, 50),
    SnapshotPart(0, _SNAPSHOT, 0, b"part"),
    HandOver(0, 1, 2, HandOverReason.STOPS),
)
"""One message of each kind, since some kinds are rare among captured frames."""


@cache
def captured(secret: bytes | None) -> list[CapturedFrame]:
    """Frames that servers other than `RECEIVER` have sent in a small cluster: the last ones of its first election, and
    the last ones of the time in which it ordered commands. They are keyed frames if `secret` is given."""
    cluster = SmallCluster("captured", SERVERS, secret)
    try:
        cluster.run_until_led()
        frames = list(cluster.frames)
        cluster.work(COMMANDS)
        return [each for each in (*frames, *cluster.frames) if each.sender != RECEIVER]
    finally:
        cluster.close()


@cache
def captured_bodies() -> list[bytes]:
    """The different bodies of the frames that `captured` gives, and after them, for each message of `EXAMPLES`, a body
    with that message alone.
    """
    bodies = [each.frame[OVERHEAD_BYTES:] for each in captured(None)]
    return [*dict.fromkeys(bodies), *(join_encoded([encode_any(message)]) for message in EXAMPLES)]


def receiving_codec(secret: bytes | None) -> FrameCodec:
    """Make a codec with which server `RECEIVER` can open captured frames, and has opened none so far."""
    cluster = SmallCluster("codec", SERVERS, secret)
    cluster.close()
    return FrameCodec(frame_identity(cluster.config, RECEIVER), b"disk-001", 1, secret)


class FrameTarget(Target):
    """Changes frames on their way, and checks that each changed frame is refused, whichever of its bytes were
    changed."""

    guided_by = ("pfsb/transports/",)

    def __init__(self, name: str, secret: bytes | None) -> None:
        self.name = name
        self.help = "frames " + ("without a secret" if secret is None else "with a secret") + ", changed on the way"
        self._secret = secret
        self._sent = {each.frame for each in captured(secret)}

    def seeds(self) -> list[bytes]:
        return sorted(self._sent)

    def begin(self, name: str) -> None:
        self._codec = receiving_codec(self._secret)

    def run(self, data: bytes) -> None:
        try:
            self._codec.open(data)
        except FrameRefused:
            return
        require(data in self._sent, "a frame that no server has sent was taken")


class HeaderTarget(Target):
    """Changes the headers of frames, with tags that are computed anew so that they fit, and checks that a server takes
    such a frame only if its sender is a peer and all other fields of its header have the values that this server
    expects.
    """

    name = "headers"
    help = "headers of frames, changed by their sender: the tag is right"
    guided_by = ("pfsb/transports/frames.py",)

    def seeds(self) -> list[bytes]:
        return sorted({each.frame[: HEADER.size] + each.frame[OVERHEAD_BYTES:] for each in captured(None)})

    def begin(self, name: str) -> None:
        self._codec = receiving_codec(None)

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        head = mutation.changed(data[: HEADER.size], other[: HEADER.size])[: HEADER.size]
        return head.ljust(HEADER.size, b"\x00") + data[HEADER.size :]

    def run(self, data: bytes) -> None:
        head, body = data[: HEADER.size], data[HEADER.size :]
        frame = head + self._codec.tag(head, body) + body
        try:
            opened = self._codec.open(frame)
        except FrameRefused:
            return
        us = self._codec.membership
        require(opened.sender in us.peers, f"a frame of server {opened.sender} was taken")
        magic, version, kind, flags, size, cluster, _, passes, epoch, *_ = HEADER.unpack(head)
        said = (magic, version, kind, flags, size, cluster, passes)
        kinds = (TYPE_MESSAGES, TYPE_LATER_MESSAGES) if opened.notice is None else (TYPE_OF[type(opened.notice)],)
        right = (MAGIC, VERSION, kind, 0, len(body), us.cluster, us.passes)
        require(kind in kinds and said == right, f"a frame with another header was taken:\n{said}\n{right}")
        # Frames of all epochs are taken: whether a message counts in another epoch is for the protocol to say.
        require(opened.epoch == epoch, f"a frame of epoch {epoch} is handed up as one of epoch {opened.epoch}")


class BodyTarget(Target):
    """Checks that a changed body is refused, or that its messages are the same after they were encoded and decoded
    again."""

    name = "bodies"
    help = "bodies of frames, changed by their sender in their bytes or in fields of their messages"
    guided_by = ("pfsb/transports/wire.py",)

    def seeds(self) -> list[bytes]:
        return captured_bodies()

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        return changed_body(mutation, data, other)

    def run(self, data: bytes) -> None:
        try:
            messages = decode_all(0, data)
        except Malformed:
            return
        again = decode_all(0, join_encoded([encode_any(message) for message in messages]))
        require(again == messages, f"another message than was decoded is sent on:\n{messages}\n{again}")


class NoticeTarget(Target):
    """Gives changed notices to the path of a peer, and checks that they raise only `Malformed`, and that the frames
    which the path keeps for their parts stay bounded. The first byte of the input is the type of the notice."""

    name = "notices"
    help = "bodies of notices, changed by their sender: parts of frames, reports, probes and echoes"
    guided_by = ("pfsb/transports/notices.py", "pfsb/transports/reassembly.py", "pfsb/transports/outgoing_parts.py")

    def seeds(self) -> list[bytes]:
        return [bytes([TYPE_OF[type(notice)]]) + notice.body() for notice in NOTICES]

    def begin(self, name: str) -> None:
        self._clock = Clock()
        codec = receiving_codec(None)
        self._path = Path(0, self._clock, codec, lambda frame: None, PathCounters())
        self._path.measure()
        # A frame that is too large for one datagram, so that reports and echoes find something to be about.
        self._path.send(codec.seal([bytes(20_000)])[0])
        self._frame = codec.seal_notice(Probe(10))

    def run(self, data: bytes) -> None:
        try:
            notice = decode_notice(data[0] if data else 0, data[1:])
            self._path.arrived(notice, self._frame)
        except Malformed:
            return
        self._clock.advance(0.02)
        require(self._path.kept_bytes <= KEPT_BYTES_MAX, f"{self._path.kept_bytes} bytes of parts are kept")


NOTICES: Final[tuple[Notice, ...]] = (
    Part(bytes(16), 3_000, 1_000, 0, bytes(100)),
    Part(bytes(16), 3_000, 0, 255, bytes(2_000)),
    Report(bytes(16), 1, ((0, 1_000), (2_000, 3_000))),
    Report(bytes(16), 0, ()),
    Probe(20),
    Echo(bytes(16)),
)
"""Some notices of each kind."""


class BatchTarget(Target):
    """Checks that a changed batch is refused, or that opening it gives the content that was checked."""

    name = "batches"
    help = "batches, which every server opens when it executes their slot"
    guided_by = ("pfsb/transports/wire.py",)

    def seeds(self) -> list[bytes]:
        found = [batch for body in captured_bodies() for batch in _batches_in(unpacked(body))]
        return [*dict.fromkeys(found), _BATCH.data, Batch.of(0, [_UPDATE] * 6).data]

    def change(self, mutation: Mutation, data: bytes, other: bytes) -> bytes:
        return changed_value(mutation, data, other)

    def run(self, data: bytes) -> None:
        content = content_of(data)
        if content is None:
            return
        time_ms, updates = Batch(data).open()
        again = msgpack.unpackb(Batch.of(time_ms, updates).data, use_list=False)
        require(again == content, "a batch has another content when it is opened than when it is checked")


def _batches_in(value: object) -> list[bytes]:
    """All encoded batches inside a msgpack value, such as a body."""
    if isinstance(value, bytes):
        return [value] if content_of(value) is not None else []
    return [batch for part in value for batch in _batches_in(part)] if isinstance(value, tuple) else []


def changed_body(mutation: Mutation, data: bytes, other: bytes) -> bytes:
    """A changed copy of the body `data`: most often with a changed field or shape, or with one message more, taken from
    the body `other`; seldom with changed bytes."""
    rows, others = unpacked(data), unpacked(other)
    if isinstance(rows, tuple) and isinstance(others, tuple) and others and mutation.dice.random() < 0.2:
        return packed((*rows, mutation.dice.choice(others))) or data
    return changed_value(mutation, data, other)


def changed_value(mutation: Mutation, data: bytes, other: bytes) -> bytes:
    """A changed copy of `data`, the bytes of a msgpack value: mostly with a change inside the value, seldom with
    changed bytes. The change may take parts from `other`, the bytes of another value."""
    value = unpacked(data)
    if value is None or mutation.dice.random() < 0.2:
        return mutation.changed(data, other)
    return packed(mutation.value(value, unpacked(other))) or data
