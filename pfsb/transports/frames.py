"""Frames: the pieces in which messages travel between servers.

A frame is a header and a body of messages (`pfsb.transports.wire`). docs/internals/formats.rst defines both byte by
byte; docs/internals/frames.rst explains them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from hmac import compare_digest
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, TypeVar

import msgpack
from attrs import define, field
from attrs.setters import frozen as frozen_attribute
from attrs.setters import validate
from xxhash import xxh3_128

from pfsb.paxos.start_number import incarnation_of
from pfsb.support.limits import IDENTITY_BYTES
from pfsb.transports.notices import TAG_BYTES, TYPE_OF, Notice, decode_notice
from pfsb.transports.replay import ReplayGuard
from pfsb.transports.wire import Malformed, decode_all, join_encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pfsb.paxos.messages import Message

T = TypeVar("T")

FRAME_BYTES_MAX: Final = 60_000
"""Maximum size, in bytes, of a frame: it fits a UDP datagram over IPv4 and IPv6, with room to spare."""

MAGIC: Final = b"PFSB"
VERSION: Final = 3
TYPE_MESSAGES: Final = 1
TYPE_LATER_MESSAGES: Final = 16
"""Frame type for messages of kinds that were added to format version 3 later (`LATER` in `pfsb.transports.wire`).

A server that does not know this type refuses the frame, and takes the other messages, which travel in other frames.
"""
FLAG_KEYED: Final = 1

HEADER: Final = struct.Struct(">4sBBBI8s8s8sIH8sQQQ")
"""The header without its tag: magic, version, type, flags, size of the body, cluster digest, cluster identity, pass
digest, epoch of the membership, sender, storage identity, start number, counter of the sender's frames, log
position.
"""
_IN_PARTS: Final = struct.Struct(">7sI28sH8sQQQ")
"""`HEADER` in fewer parts: the first seven bytes are one part, and so are the four fields that all servers share.

These two parts are compared as a whole, and taken apart only where they differ.
"""
_MARKS: Final = struct.Struct(">4sBBB")
_TYPE_AT: Final = 5
"""Offset, in bytes, of the frame type in a frame. A frame begins with a magic number of four bytes, and one byte each
for version, type and flags."""
_SHARED: Final = struct.Struct(">8s8s8sI")
_TAG_AT: Final = HEADER.size
OVERHEAD_BYTES: Final = HEADER.size + TAG_BYTES
"""Bytes of a frame in addition to its body."""
DIGEST_BYTES: Final = 8
NOT_KNOWN: Final = bytes(DIGEST_BYTES)
"""The cluster identity in the frames of a server that does not know it yet, and the pass digest of an empty list."""

_JOIN_BYTES = 3
"""Number of bytes, at most, that `join_encoded` adds to the messages of one frame.

msgpack's array header has three bytes for up to 65,535 elements, and a frame has room for fewer messages.
"""
_PERSON = b"pfsb frame"
"""Personalisation of BLAKE2b: tags of frames differ from hashes of the same bytes that serve another purpose."""

_NOTICE_TYPES: Final = frozenset(TYPE_OF.values())
_TYPES: Final = _NOTICE_TYPES | {TYPE_MESSAGES, TYPE_LATER_MESSAGES}

RefusalReason = Literal[
    "size",
    "magic",
    "version",
    "type",
    "cluster",
    "checksum",
    "tag",
    "sender",
    "address",
    "certificate",
    "passes",
    "replay",
    "body",
]


class FrameRefused(Exception):
    """Raised for bytes that are not a frame, or not one for this server.

    `reason` is a word by which such frames are counted; the text is for a person.
    """

    def __init__(self, reason: RefusalReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class FrameTooLarge(ValueError):
    """Raised for a message that is too large for a frame."""


def tag_of(frame: bytes) -> bytes:
    """The tag of a frame, by which notices refer to it."""
    return frame[_TAG_AT:OVERHEAD_BYTES]


def cluster_digest(name: str, server_ids: Iterable[int]) -> bytes:
    """Eight bytes that tell one cluster from another: a hash of its name and the ids of its founding members."""
    return blake2b(msgpack.packb((name, sorted(server_ids))), digest_size=DIGEST_BYTES).digest()


def _of_length(length: int) -> Callable[[object, object, bytes], None]:
    def check(_instance: object, _attribute: object, value: bytes) -> None:
        if len(value) != length:
            raise ValueError(f"{value!r} has {len(value)} bytes, it must have {length}")

    return check


def _pack_shared_anew(identity: FrameIdentity, changed: Any, value: T) -> T:
    """Called by attrs before a field of `identity` gets another value: packs `shared` with it. Returns the value."""
    fields = {name: getattr(identity, name) for name in ("cluster", "cluster_identity", "passes", "epoch")}
    identity.shared = _SHARED.pack(*(fields | {changed.name: value}).values())
    return value


@define
class FrameIdentity:
    """How a server names itself in the headers of its frames, and from which cluster and servers it accepts frames.

    All but the server's id and the digest of the cluster may be set at any time: the next frame carries the new values.
    Setting `cluster_identity` or `passes`, the pass digest, to another length than eight bytes raises ValueError.
    """

    server_id: int = field(on_setattr=frozen_attribute)
    peers: frozenset[int]
    """The ids of the other servers, to which a message to all goes."""
    cluster: bytes = field(validator=_of_length(DIGEST_BYTES), on_setattr=frozen_attribute)
    """Digest of the cluster, as `cluster_digest` makes it."""
    epoch: int = field(default=0, on_setattr=_pack_shared_anew)
    """Number of the epoch of the membership. Each frame tells that of its sender; frames of all epochs are taken."""
    cluster_identity: bytes = field(
        default=NOT_KNOWN, validator=_of_length(DIGEST_BYTES), on_setattr=[validate, _pack_shared_anew]
    )
    """Random bytes that tell a cluster from any other, also of the same name and servers; zeros: not known yet.

    Two servers that know different identities refuse each other's frames.
    """
    passes: bytes = field(
        default=NOT_KNOWN, validator=_of_length(DIGEST_BYTES), on_setattr=[validate, _pack_shared_anew]
    )
    """Digest of the list of slots that this server passes without executing them; zeros: none.

    Servers with different lists refuse each other's frames.
    """
    former: frozenset[int] = frozenset()
    """The ids of servers that have been removed: frames are taken from them, and are sent to them alone."""
    named: frozenset[int] = frozenset()
    """The ids of all other servers that this one's configuration names. Of those that are no peers, frames of later
    epochs are taken: changes that this server has not executed yet may have brought them."""
    shared: bytes = field(init=False)
    """The part of the header that is the same for all servers: cluster digest, cluster identity, pass digest, epoch."""

    @shared.default
    def _pack_shared(self) -> bytes:
        return _SHARED.pack(self.cluster, self.cluster_identity, self.passes, self.epoch)

    def __attrs_post_init__(self) -> None:
        assert self.server_id not in self.peers, "a server is no peer of itself"

    @property
    def receivers(self) -> frozenset[int]:
        """The ids of all servers to which frames may be sent."""
        return self.peers | self.former | self.named


class OpenedFrame(NamedTuple):
    """A frame that has passed all checks."""

    sender: int
    identity: bytes
    start: int
    position: int
    """Log position that the frame tells: the number of groups that the sender had written while admitted (Departure
    43)."""
    messages: list[Message]
    notice: Notice | None = None
    """The notice in the frame, which then has no messages; None: a frame of messages."""
    epoch: int = 0
    """The epoch of the membership in which the sender has made the messages."""


def as_secrets(given: bytes | Sequence[bytes] | None) -> Sequence[bytes]:
    """The secrets of a cluster as a sequence: `given` may be a single secret, or None for no secret."""
    if given is None:
        return ()
    return (given,) if isinstance(given, bytes) else tuple(given)


def _keyed(secret: bytes) -> blake2b:
    """The hash of a tag whose key is this secret."""
    if not secret:
        raise ValueError("the cluster secret is empty: it must have at least one byte, and should have 32")
    key = blake2b(secret, digest_size=blake2b.MAX_KEY_SIZE, person=b"pfsb frames").digest()
    return blake2b(key=key, digest_size=TAG_BYTES, person=_PERSON)


def _nothing_written() -> int:
    return 0


@define(eq=False)
class FrameCodec:
    """Packs messages into frames of one server, and opens the frames that come from other servers.

    Departure 41: every frame carries a tag, a hash of all its other bytes. `secrets` are known to all servers of the
    cluster, and have at least one byte each; the first is the key of the tag, which then is BLAKE2b, and frames with
    the tag of any of them are taken. With no secret the tag is XXH3, which takes a thirtieth of the time and has no
    key: it shows damage, and proves nothing about who made the frame.
    Servers with a secret and servers without one refuse each other's frames: a secret that a sender may leave out
    protects nothing.

    A keyed tag proves that a server of the cluster made the frame: header and body cannot be changed or recombined
    without the secret. It does not prove which server it was, since all of them share the secret, and does not encrypt.
    Each frame of one storage has another pair of start number and counter, because starts are counted on disk before
    the server sends anything; so a receiver can refuse repetitions (`ReplayGuard`). It does so with a secret
    only: without one, a forged counter could silence a server.
    """

    message_bytes_max: ClassVar[int] = FRAME_BYTES_MAX - OVERHEAD_BYTES - _JOIN_BYTES
    """Maximum size, in bytes, of an encoded message that fits a frame."""

    membership: FrameIdentity
    identity: bytes = field(validator=_of_length(IDENTITY_BYTES))
    start: int
    secrets: Sequence[bytes] = field(default=(), converter=as_secrets, repr=False)
    position: Callable[[], int] = _nothing_written
    """Returns the log position that the next frame tells: see `ITransport.start`."""
    _counter: Iterator[int] = field(init=False, factory=lambda: count(1))
    _replays: ReplayGuard = field(init=False, factory=ReplayGuard)
    _hash: blake2b | xxh3_128 = field(init=False)
    """The hash of a tag, with its key, before any bytes are put into it; copied for each frame."""
    _other_hashes: Sequence[blake2b] = field(init=False)
    """The hashes of a tag, each with its key, for the other secrets with which frames are taken."""
    _flags: int = field(init=False)
    _marks: bytes = field(init=False)
    _notice_marks: Mapping[type[Notice], bytes] = field(init=False)
    _marks_of_later: bytes = field(init=False)

    @_hash.default
    def _make_hash(self) -> blake2b | xxh3_128:
        return _keyed(self.secrets[0]) if self.secrets else xxh3_128()

    @_other_hashes.default
    def _make_other_hashes(self) -> Sequence[blake2b]:
        return [_keyed(secret) for secret in self.secrets[1:]]

    def take_secrets(self, secrets: Sequence[bytes]) -> None:
        """Use these secrets from now on. Raises ValueError if there were none before, or are none now."""
        if not secrets or not self.secrets:
            raise ValueError("frames cannot begin to be keyed, or cease to be, while servers run")
        first, *others = [_keyed(secret) for secret in secrets]
        self.secrets, self._hash, self._other_hashes = secrets, first, others

    @_flags.default
    def _make_flags(self) -> int:
        return FLAG_KEYED if self.secrets else 0

    @_marks.default
    def _make_marks(self) -> bytes:
        return _MARKS.pack(MAGIC, VERSION, TYPE_MESSAGES, self._flags)

    @_marks_of_later.default
    def _make_marks_of_later(self) -> bytes:
        return _MARKS.pack(MAGIC, VERSION, TYPE_LATER_MESSAGES, self._flags)

    @_notice_marks.default
    def _make_notice_marks(self) -> Mapping[type[Notice], bytes]:
        return {kind: _MARKS.pack(MAGIC, VERSION, number, self._flags) for kind, number in TYPE_OF.items()}

    # -- out --------------------------------------------------------------------------------------

    def seal(
        self, encoded: Sequence[bytes], packed_bytes: int = FRAME_BYTES_MAX, *, later: bool = False
    ) -> list[bytes]:
        """Pack these encoded messages, in this order, into frames: as few frames as the order allows.

        A frame with several messages has at most `packed_bytes`; a message for which that is too little has a frame of
        its own. With `later` the frames have the type for kinds of messages that were added later. Raises
        `FrameTooLarge`, and makes no frame, if one of the messages is too large for a frame.
        """
        marks = self._marks_of_later if later else self._marks
        if self.fits(encoded, packed_bytes):
            return [self._frame(marks, join_encoded(encoded))]  # nearly always all messages fit one frame
        return [self._frame(marks, join_encoded(group)) for group in self._groups(encoded, packed_bytes)]

    @staticmethod
    def fits(encoded: Sequence[bytes], packed_bytes: int) -> bool:
        """Whether these encoded messages, of which there is at least one, fit one frame of at most `packed_bytes`."""
        return 0 < sum(map(len, encoded)) <= packed_bytes - OVERHEAD_BYTES - _JOIN_BYTES

    def seal_notice(self, notice: Notice) -> bytes:
        """Make the frame of a notice, which has `OVERHEAD_BYTES` in addition to the body of the notice."""
        return self._frame(self._notice_marks[type(notice)], notice.body())

    def _groups(self, encoded: Sequence[bytes], packed_bytes: int) -> list[list[bytes]]:
        groups: list[list[bytes]] = []
        room, packed_room = 0, packed_bytes - OVERHEAD_BYTES - _JOIN_BYTES
        for message in encoded:
            if len(message) > self.message_bytes_max:
                raise FrameTooLarge(
                    f"a message of {len(message)} bytes fits no frame: the limit is {self.message_bytes_max} bytes"
                )
            if not groups or len(message) > room:
                groups.append([])
                room = packed_room
            groups[-1].append(message)
            room -= len(message)
        return groups

    def _frame(self, marks: bytes, body: bytes) -> bytes:
        us = self.membership
        number = next(self._counter)
        head = _IN_PARTS.pack(
            marks, len(body), us.shared, us.server_id, self.identity, self.start, number, self.position()
        )
        return head + self.tag(head, body) + body

    def tag(self, head: bytes, body: bytes) -> bytes:
        """The tag of a frame with this body; `head` is the header without the tag."""
        tag = self._hash.copy()
        tag.update(head)
        tag.update(body)
        return tag.digest()

    # -- in ---------------------------------------------------------------------------------------

    def open(self, frame: bytes, came_in_parts: bool = False) -> OpenedFrame:
        """Check a frame and decode all of its messages. Raises `FrameRefused` and nothing else, whatever the bytes are.

        The tag is checked before anything is believed but the cluster: a frame of another cluster has another key. A
        frame that came in parts may be late, after many later frames; each part of it was checked for repetition, so
        the frame itself is not.
        """
        if not OVERHEAD_BYTES <= len(frame) <= FRAME_BYTES_MAX:
            raise FrameRefused("size", f"{len(frame)} bytes; a frame has {OVERHEAD_BYTES} to {FRAME_BYTES_MAX}")
        marks, size, shared, sender, identity, start, counter, position = _IN_PARTS.unpack_from(frame)
        us = self.membership
        is_alike, epoch = shared == us.shared, us.epoch
        if marks != self._marks or len(frame) != OVERHEAD_BYTES + size or not is_alike:
            self._check_format(marks, size, shared, sender, len(frame))
        body = frame[OVERHEAD_BYTES:]
        self.check_tag(sender, frame, body)
        if not is_alike:
            epoch = self.check_shared(shared, sender)
        if sender not in us.peers and sender not in us.former and not (sender in us.named and epoch > us.epoch):
            raise FrameRefused("sender", f"from server {sender}; our peers are {sorted(us.peers)}")
        if self._flags and not came_in_parts and not self._replays.admit(sender, identity, start, counter):
            raise FrameRefused(
                "replay", f"frame {incarnation_of(start)}/{counter} of server {sender} was here, or is too old"
            )
        try:
            if marks[_TYPE_AT] in _NOTICE_TYPES:
                return OpenedFrame(sender, identity, start, position, [], decode_notice(marks[_TYPE_AT], body), epoch)
            return OpenedFrame(sender, identity, start, position, decode_all(sender, body), None, epoch)
        except Malformed as error:
            raise FrameRefused("body", str(error)) from error

    def _check_format(self, marks: bytes, size: int, shared: bytes, sender: int, length: int) -> None:
        """Refuse a frame of another format, size, cluster, or way of keying.

        All but `length`, the number of bytes of the frame, are from its header: `marks` are its first seven bytes, and
        `size` is that of the body.
        """
        magic, version, kind, flags = _MARKS.unpack(marks)
        if magic != MAGIC:
            raise FrameRefused("magic", f"starts with {magic!r}; a frame starts with {MAGIC!r}")
        if version != VERSION:
            raise FrameRefused("version", f"format version {version}; this server speaks {VERSION}")
        if kind not in _TYPES:
            raise FrameRefused("type", f"frame type {kind}; this server knows {sorted(_TYPES)}")
        if length != OVERHEAD_BYTES + size:
            raise FrameRefused("size", f"{length} bytes; the header announces {OVERHEAD_BYTES + size}")
        cluster = shared[:DIGEST_BYTES]
        if cluster != self.membership.cluster:
            ours = f"ours is {self.membership.cluster.hex()}"
            raise FrameRefused("cluster", f"of cluster {cluster.hex()}; {ours}: another name, or other founders")
        if flags != self._flags:
            raise self._wrong_flags(flags, sender)

    def check_tag(self, sender: int, frame: bytes, body: bytes) -> None:
        """Check the tag of `frame`, a whole frame with this body.

        Raises `FrameRefused` if the tag does not fit the header, the body and the secret.
        """
        if compare_digest(frame[_TAG_AT:OVERHEAD_BYTES], self.tag(frame[:_TAG_AT], body)):
            return
        for other in self._other_hashes:
            tag = other.copy()
            tag.update(frame[:_TAG_AT])
            tag.update(body)
            if compare_digest(frame[_TAG_AT:OVERHEAD_BYTES], tag.digest()):
                return
        if self._flags:
            raise FrameRefused("tag", f"wrong tag in the name of server {sender}: another secret, forged, or damaged")
        raise FrameRefused("checksum", f"damaged on the way: wrong checksum in the name of server {sender}")

    def _wrong_flags(self, flags: int, sender: int) -> FrameRefused:
        if flags not in (0, FLAG_KEYED):
            return FrameRefused("version", f"flags {flags:#04x} have no meaning in version {VERSION}")
        if flags:
            return FrameRefused("tag", f"server {sender} keys its frames; no secret is configured here")
        return FrameRefused("tag", f"server {sender} does not key its frames; a secret is configured here")

    def check_shared(self, shared: bytes, sender: int) -> int:
        """Compare `shared`, the part of a header that is the same for all servers of an epoch (`FrameIdentity.shared`),
        with this server's own. Returns the epoch that the header tells, which may be another one.

        Raises `FrameRefused` if the sender is of another cluster, or passes other slots.
        """
        us = self.membership
        _cluster, cluster_identity, passes, epoch = _SHARED.unpack(shared)
        if cluster_identity != us.cluster_identity and NOT_KNOWN not in (cluster_identity, us.cluster_identity):
            raise FrameRefused(
                "cluster",
                f"server {sender} belongs to another cluster of the same name and servers: "
                f"that one is {cluster_identity.hex()}, ours is {us.cluster_identity.hex()}",
            )
        if passes != us.passes:
            raise FrameRefused(
                "passes",
                f"server {sender} passes other slots than this server: its list has digest {passes.hex()}, ours "
                f"{us.passes.hex()} (zeros: none); run `pfsb pass` with the same arguments at every server",
            )
        return int(epoch)
