"""Frames: the pieces in which messages travel between servers (docs/internals/frames.rst).

A frame is a header, a seal if the cluster has a secret, and a body of messages (`pfsb.transports.wire`). Integers are
big-endian.

====== ======================================================================
bytes  header
====== ======================================================================
4      ``PFSB``
1      format version, 2
1      frame type, 1: messages of the protocol
1      flags; bit 0: a seal follows the header
4      size of the body
8      digest of the cluster's name and founding membership
4      number of the current membership
2      sender
8      identity of the sender's storage
====== ======================================================================

====== ======================================================================
bytes  seal
====== ======================================================================
8      the sender's incarnation
8      counter, from 1 on in each incarnation
16     BLAKE2b tag, keyed by the cluster secret, of all other bytes of the frame
====== ======================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from hmac import compare_digest
from itertools import count
from typing import TYPE_CHECKING, Final, Literal

import msgpack
from attrs import define, field, frozen

from pfsb.support.limits import IDENTITY_BYTES
from pfsb.transports.replay import ReplayGuard
from pfsb.transports.wire import Malformed, decode_all, join_encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pfsb.paxos.messages import Message

FRAME_BYTES_MAX: Final = 60_000
"""Maximum size, in bytes, of a frame: it fits a UDP datagram over IPv4 and IPv6, with room to spare."""

MAGIC: Final = b"PFSB"
VERSION: Final = 2
TYPE_MESSAGES: Final = 1
FLAG_SEALED: Final = 1

HEADER: Final = struct.Struct(">4sBBBI8sIH8s")
SEAL: Final = struct.Struct(">QQ")
TAG_BYTES: Final = 16
DIGEST_BYTES: Final = 8

_JOIN_BYTES = 3
"""Number of bytes, at most, that `join_encoded` adds to the messages of one frame.

msgpack's array header has three bytes for up to 65,535 elements, and a frame has room for fewer messages.
"""

RefusalReason = Literal["size", "magic", "version", "type", "cluster", "membership", "sender", "tag", "replay", "body"]


class FrameRefused(Exception):
    """Raised for bytes that are not a frame, or not one for this server.

    `reason` is a word by which such frames are counted; the text is for a person.
    """

    def __init__(self, reason: RefusalReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class FrameTooLarge(ValueError):
    """Raised for a message that is too large for a frame."""


def cluster_digest(name: str, server_ids: Iterable[int]) -> bytes:
    """Eight bytes that tell one cluster from another: a hash of its name and the ids of its founding members."""
    return blake2b(msgpack.packb((name, sorted(server_ids))), digest_size=DIGEST_BYTES).digest()


def _of_length(length: int) -> Callable[[object, object, bytes], None]:
    def check(_instance: object, _attribute: object, value: bytes) -> None:
        if len(value) != length:
            raise ValueError(f"{value!r} has {len(value)} bytes, it must have {length}")

    return check


@frozen
class FrameIdentity:
    """How a server names itself in the headers of its frames, and from which cluster and servers it accepts frames."""

    server_id: int
    peers: frozenset[int]
    """The ids of the other servers."""
    cluster: bytes = field(validator=_of_length(DIGEST_BYTES))
    """Digest of the cluster, as `cluster_digest` makes it."""
    number: int = 0
    """Number of the membership: always 0, since the membership cannot be changed yet; a change would add one."""


@frozen
class OpenedFrame:
    """A frame that has passed all checks."""

    sender: int
    identity: bytes
    messages: list[Message]


@define(eq=False)
class FrameCodec:
    """Packs messages into frames of one server, and opens the frames that come from other servers.

    `secret` is known to all servers of the cluster, and has at least one byte; None leaves frames unsealed. Servers
    with a secret and servers without one refuse each other's frames: if unsealed frames were taken, the secret would
    protect nothing.

    The seal proves that a server of the cluster made the frame: the BLAKE2b tag in it covers the whole frame, so header
    and body cannot be changed or recombined without the secret. The seal does not prove which server it was, since all
    of them share the secret, and does not encrypt. No two frames of one storage have the same pair of incarnation and
    counter, because the incarnation is increased on disk before the server sends anything; so a receiver can refuse
    repetitions (`ReplayGuard`).
    """

    membership: FrameIdentity
    identity: bytes = field(validator=_of_length(IDENTITY_BYTES))
    incarnation: int
    secret: bytes | None = field(default=None, repr=False)
    _counter: Iterator[int] = field(init=False, factory=lambda: count(1))
    _replays: ReplayGuard = field(init=False, factory=ReplayGuard)
    _keyed: blake2b | None = field(init=False)

    @_keyed.default
    def _make_keyed(self) -> blake2b | None:
        if self.secret is None:
            return None
        if not self.secret:
            raise ValueError("the cluster secret is empty: it must have at least one byte, and should have 32")
        key = blake2b(self.secret, digest_size=blake2b.MAX_KEY_SIZE, person=b"pfsb frames").digest()
        return blake2b(key=key, digest_size=TAG_BYTES)

    @property
    def message_bytes_max(self) -> int:
        """Maximum size, in bytes, of an encoded message that fits a frame."""
        return FRAME_BYTES_MAX - self._overhead - _JOIN_BYTES

    @property
    def _overhead(self) -> int:
        return HEADER.size + (SEAL.size + TAG_BYTES if self._keyed else 0)

    # -- out --------------------------------------------------------------------------------------

    def seal(self, encoded: Sequence[bytes]) -> list[bytes]:
        """Pack these encoded messages, in this order, into frames: as few frames as the order allows.

        Raises `FrameTooLarge`, and makes no frame, if one of the messages is too large for a frame.
        """
        return [self._frame(group) for group in self._groups(encoded)]

    def _groups(self, encoded: Sequence[bytes]) -> list[list[bytes]]:
        groups: list[list[bytes]] = []
        room = 0
        for message in encoded:
            if len(message) > self.message_bytes_max:
                raise FrameTooLarge(
                    f"a message of {len(message)} bytes fits no frame: the limit is {self.message_bytes_max} bytes"
                )
            if not groups or len(message) > room:
                groups.append([])
                room = self.message_bytes_max
            groups[-1].append(message)
            room -= len(message)
        return groups

    def _frame(self, group: Sequence[bytes]) -> bytes:
        body = join_encoded(group)
        us = self.membership
        flags = FLAG_SEALED if self._keyed else 0
        header = HEADER.pack(
            MAGIC,
            VERSION,
            TYPE_MESSAGES,
            flags,
            len(body),
            us.cluster,
            us.number,
            us.server_id,
            self.identity,
        )
        if self._keyed is None:
            return header + body
        head = header + SEAL.pack(self.incarnation, next(self._counter))
        return head + self._tag(self._keyed, head, body) + body

    # -- in ---------------------------------------------------------------------------------------

    def open(self, frame: bytes) -> OpenedFrame:
        """Check a frame and decode all of its messages. Raises `FrameRefused` and nothing else, whatever the bytes are.

        The counter of the seal is remembered only after the seal was found right, so that a forged frame cannot make
        the true frame with the same counter look like a repetition.
        """
        sender, identity = self._check_header(frame)
        if self._keyed is not None:
            self._check_seal(self._keyed, frame, sender, identity)
        try:
            return OpenedFrame(sender, identity, decode_all(sender, frame[self._overhead :]))
        except Malformed as error:
            raise FrameRefused("body", str(error)) from error

    def _check_header(self, frame: bytes) -> tuple[int, bytes]:
        if not HEADER.size <= len(frame) <= FRAME_BYTES_MAX:
            raise FrameRefused("size", f"{len(frame)} bytes; a frame has {HEADER.size} to {FRAME_BYTES_MAX}")
        magic, version, kind, flags, size, cluster, number, sender, identity = HEADER.unpack_from(frame)
        us = self.membership
        if magic != MAGIC:
            raise FrameRefused("magic", f"starts with {magic!r}; a frame starts with {MAGIC!r}")
        if version != VERSION:
            raise FrameRefused("version", f"format version {version}; this server speaks {VERSION}")
        if kind != TYPE_MESSAGES:
            raise FrameRefused("type", f"frame type {kind}; this server knows {TYPE_MESSAGES}")
        if cluster != us.cluster:
            raise FrameRefused("cluster", f"of cluster {cluster.hex()}; ours is {us.cluster.hex()}")
        if number != us.number:
            raise FrameRefused("membership", f"sent under membership {number}; ours is {us.number}")
        if sender not in us.peers or sender == us.server_id:
            raise FrameRefused("sender", f"from server {sender}; our peers are {sorted(us.peers)}")
        self._check_flags(flags, sender)
        if len(frame) != self._overhead + size:
            raise FrameRefused("size", f"{len(frame)} bytes; the header announces {self._overhead + size}")
        return sender, identity

    def _check_flags(self, flags: int, sender: int) -> None:
        if flags == FLAG_SEALED and self._keyed is None:
            raise FrameRefused("tag", f"server {sender} seals its frames; no secret is configured here")
        if flags == 0 and self._keyed is not None:
            raise FrameRefused("tag", f"server {sender} does not seal its frames; a secret is configured here")
        if flags not in (0, FLAG_SEALED):
            raise FrameRefused("version", f"flags {flags:#04x} have no meaning in version {VERSION}")

    def _check_seal(self, keyed: blake2b, frame: bytes, sender: int, identity: bytes) -> None:
        end = HEADER.size + SEAL.size
        tag = self._tag(keyed, frame[:end], frame[self._overhead :])
        if not compare_digest(frame[end : self._overhead], tag):
            raise FrameRefused("tag", f"wrong tag in the name of server {sender}: another secret, or forged")
        incarnation, counter = SEAL.unpack_from(frame, HEADER.size)
        if not self._replays.admit(sender, identity, incarnation, counter):
            raise FrameRefused("replay", f"frame {incarnation}/{counter} of server {sender} was here, or is too old")

    @staticmethod
    def _tag(keyed: blake2b, head: bytes, body: bytes) -> bytes:
        tag = keyed.copy()
        tag.update(head)
        tag.update(body)
        return tag.digest()
