"""Messages as bytes: the body of a frame (docs/internals/formats.rst).

A message is one msgpack array, whose first element is a small number that names the type (`MessageKind`); a body is one
array of messages. The field `server_id` of a message is left out where it equals the sender in the frame's header. A
CLIENT_UPDATE carries it, since there it names the client's server, and so does a PROPOSAL inside a PREPARE_OK, where it
names the leader of an older view. The bytes of a batch are sent, and stored, as the leader made them.

Every field that comes in is checked, so that no handler ever meets a value outside its range. Batches are opened and
checked, too (`content_of`): a server that accepted a batch which it cannot open could never execute past that slot.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, Final, assert_never

import msgpack

from pfsb.paxos.messages import (
    DIGEST_BYTES,
    POINTS,
    Accept,
    Acquainted,
    Alive,
    Batch,
    ClientUpdate,
    Confirm,
    Confirmed,
    DataEntry,
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
from pfsb.paxos.snapshot import SNAPSHOT_DIGEST_BYTES, SnapshotName
from pfsb.support.limits import CLIENT_ID_CHARS_MAX, IDENTITY_BYTES, NUMBER_MAX, SERVER_ID_MAX, TIME_MS_MAX

LIST_ENTRIES_MAX: Final = 10_000
PARTS_MAX: Final = 10_000

_UPDATE_FIELDS = 5
_FEW = 4
"""Minimum number of updates in a batch for which a check field by field, of all updates together, costs less than a
check update by update.
"""
_STATES = {State.LEADER_ELECTION: 0, State.REG_LEADER: 1, State.REG_NONLEADER: 2}
_STATES_BY_NUMBER = {number: state for state, number in _STATES.items()}
_REASONS = {HandOverReason.ASKED: 0, HandOverReason.STOPS: 1, HandOverReason.PREFERRED: 2}
_REASONS_BY_NUMBER = {number: reason for reason, number in _REASONS.items()}


class MessageKind:
    """The numbers that name the types of messages, and are the first element of each encoded message.

    A number is never given a second meaning, not even when its type is no longer used.
    """

    CLIENT_UPDATE: Final = 1
    VIEW_CHANGE: Final = 2
    VC_PROOF: Final = 3
    PREPARE: Final = 4
    PREPARE_OK: Final = 5
    PROPOSAL: Final = 6
    ACCEPT: Final = 7
    GLOBALLY_ORDERED_UPDATE: Final = 8
    ALIVE: Final = 9
    RECONCILIATION_REQUEST: Final = 10
    RECONCILIATION_REPLY: Final = 11
    STRANGER: Final = 12
    READ_REQUEST: Final = 13
    READ_INDEX: Final = 14
    CONFIRM: Final = 15
    CONFIRMED: Final = 16
    ACQUAINTED: Final = 17
    HEARD: Final = 18
    KNOWN_POSITION: Final = 19
    ORDERED: Final = 20
    SNAPSHOT_OFFER: Final = 21
    SNAPSHOT_REQUEST: Final = 22
    SNAPSHOT_PART: Final = 23
    HAND_OVER: Final = 24


LaterMessage = KnownPosition | Ordered | SnapshotOffer | SnapshotRequest | SnapshotPart | HandOver
LATER: Final = (KnownPosition, Ordered, SnapshotOffer, SnapshotRequest, SnapshotPart, HandOver)
"""The types of messages that were added to format version 3 after its first use: frames with one of them have a type of
their own."""


class Malformed(ValueError):
    """Raised for bytes that are no message. The text says which field or element is wrong, and what would be right."""


# ---------------------------------------------------------------------------------------------
# Out
# ---------------------------------------------------------------------------------------------


class OtherFrame(ValueError):
    """Raised by `encode` for a message that travels in a frame of another type (`encode_later`)."""


def encode(message: Message) -> bytes:
    """The bytes of one message, as they stand in the body of a frame.

    Raises `OtherFrame` for a message of `LATER`, the kinds that travel in frames of a type of their own
    (`encode_later`).
    """
    packed: bytes = msgpack.packb(_row(message))
    return packed


def encode_later(message: LaterMessage) -> bytes:
    """The bytes of one message of a kind that was added after the first wire format (`LATER`).

    Such messages travel in frames of the type `TYPE_LATER_MESSAGES`, in the body of which these bytes stand.
    """
    packed: bytes = msgpack.packb(_later_row(message))
    return packed


def _later_row(message: LaterMessage) -> tuple[object, ...]:
    match message:
        case Ordered(_, view, seqs, digests):
            return (MessageKind.ORDERED, view, seqs, digests)
        case KnownPosition(_, identity, start, position):
            return (MessageKind.KNOWN_POSITION, identity, start, position)
        case SnapshotOffer(_, local_aru, name):
            return (MessageKind.SNAPSHOT_OFFER, local_aru, *_name_row(name))
        case SnapshotRequest(_, name, offset, size):
            return (MessageKind.SNAPSHOT_REQUEST, *_name_row(name), offset, size)
        case SnapshotPart(_, name, offset, data):
            return (MessageKind.SNAPSHOT_PART, *_name_row(name), offset, data)
        case HandOver(_, view, next_view, reason):
            return (MessageKind.HAND_OVER, view, next_view, _REASONS[reason])
        case _:
            assert_never(message)


def _name_row(name: SnapshotName) -> tuple[object, ...]:
    return (name.seq, name.size, name.digest)


def encode_any(message: Message) -> bytes:
    """The bytes of one message of any type, whatever frame it travels in."""
    return encode_later(message) if isinstance(message, LATER) else encode(message)


def join_encoded(encoded: Sequence[bytes]) -> bytes:
    """The body of a frame with these messages, each as `encode` made it; at most 5 bytes longer than all of them."""
    header: bytes = msgpack.Packer().pack_array_header(len(encoded))
    return header + b"".join(encoded)


def _row(message: Message) -> tuple[object, ...]:
    # The most frequent messages come first: a busy server spends its time on the first three.
    match message:
        case Accept(_, view, seqs, digests):
            return (MessageKind.ACCEPT, view, seqs, digests)
        case Proposal(_, view, seq, batch):
            return (MessageKind.PROPOSAL, view, seq, batch.data)
        case ClientUpdate(client_id, server_id, timestamp, made_at, payload):
            return (MessageKind.CLIENT_UPDATE, client_id, server_id, timestamp, made_at, payload)
        case Alive(_, view, state, local_aru, has_clients, digests, seq, digest):
            row = (MessageKind.ALIVE, view, _STATES[state], local_aru, has_clients, digests)
            return (*row, seq, digest) if seq else row
        case VCProof(_, installed):
            return (MessageKind.VC_PROOF, installed)
        case ViewChange(_, attempted):
            return (MessageKind.VIEW_CHANGE, attempted)
        case Prepare(_, view, local_aru):
            return (MessageKind.PREPARE, view, local_aru)
        case PrepareOK(_, view, data_list, part, parts, edition):
            return (MessageKind.PREPARE_OK, view, [_entry_row(entry) for entry in data_list], part, parts, edition)
        case GloballyOrderedUpdate(_, seq, batch):
            return (MessageKind.GLOBALLY_ORDERED_UPDATE, seq, batch.data)
        case ReconciliationRequest(_, first, last):
            return (MessageKind.RECONCILIATION_REQUEST, first, last)
        case ReconciliationReply(_, burst_end, local_aru, updates):
            return (MessageKind.RECONCILIATION_REPLY, burst_end, local_aru, [(u.seq, u.batch.data) for u in updates])
        case Stranger(_, identity):
            return (MessageKind.STRANGER, identity)
        case Acquainted(_, identity):
            return (MessageKind.ACQUAINTED, identity)
        case Heard(_, identity):
            return (MessageKind.HEARD, identity)
        case KnownPosition() | Ordered() | SnapshotOffer() | SnapshotRequest() | SnapshotPart() | HandOver():
            raise OtherFrame("this type of message was added later, and travels in a frame of another type")
        case ReadRequest(_, number):
            return (MessageKind.READ_REQUEST, number)
        case ReadIndex(_, number, seq):
            return (MessageKind.READ_INDEX, number, seq)
        case Confirm(_, view, number):
            return (MessageKind.CONFIRM, view, number)
        case Confirmed(_, view, number):
            return (MessageKind.CONFIRMED, view, number)
        case _:
            assert_never(message)


def _entry_row(entry: DataEntry) -> tuple[object, ...]:
    """An entry of a data list, ready for msgpack: a proposal has four elements, an ordered batch has two."""
    match entry:
        case Proposal(server_id, view, seq, batch):
            return (server_id, view, seq, batch.data)
        case GloballyOrderedUpdate(_, seq, batch):
            return (seq, batch.data)
        case _:
            assert_never(entry)


# ---------------------------------------------------------------------------------------------
# In
# ---------------------------------------------------------------------------------------------


def decode_all(sender: int, body: bytes) -> list[Message]:
    """The messages of a frame's body. Raises `Malformed`, and nothing else, whatever the bytes are."""
    rows = _unpack(body)
    if type(rows) is not tuple:
        raise Malformed(f"a body must be an array of messages, not {reprlib.repr(rows)}")
    return [decode(sender, row) for row in rows]


def decode(sender: int, row: object) -> Message:
    """Return the message in `row`, an array that msgpack has unpacked. Raises `Malformed` if it is none."""
    # Only an int may name the type: True and 1.0 are equal to 1, so `match` would take them for CLIENT_UPDATE.
    if type(row) is not tuple or not row or type(row[0]) is not int:
        raise Malformed(f"a message must be an array that starts with its type, not {reprlib.repr(row)}")
    match row:
        case (MessageKind.ACCEPT, view, seqs, digests):
            return Accept(sender, checked_number("view", view), *_named_batches(seqs, digests))
        case (MessageKind.PROPOSAL, view, seq, data):
            return Proposal(sender, checked_number("view", view, least=1), _seq(seq), _batch(data))
        case (MessageKind.CLIENT_UPDATE, client_id, server_id, timestamp, made_at, payload):
            return ClientUpdate(
                _client_id(client_id),
                checked_number("server_id", server_id, most=SERVER_ID_MAX),
                checked_number("timestamp", timestamp),
                checked_number("made_at", made_at),
                _bytes("payload", payload),
            )
        case (MessageKind.ORDERED, view, seqs, digests):
            return Ordered(sender, checked_number("view", view, least=1), *_named_batches(seqs, digests))
        case (MessageKind.ALIVE, view, state, local_aru, has_clients, digests, *snapshot):
            return Alive(
                sender,
                checked_number("view", view),
                _state(state),
                checked_number("local_aru", local_aru),
                _flag("has_clients", has_clients),
                _digests(digests),
                *_told_snapshot(snapshot),
            )
        case (MessageKind.VC_PROOF, installed):
            return VCProof(sender, checked_number("installed", installed))
        case (MessageKind.VIEW_CHANGE, attempted):
            return ViewChange(sender, checked_number("attempted", attempted))
        case (MessageKind.PREPARE, view, local_aru):
            return Prepare(sender, checked_number("view", view, least=1), checked_number("local_aru", local_aru))
        case (MessageKind.PREPARE_OK, view, data_list, part, parts, edition):
            return _prepare_ok(sender, view, data_list, part, parts, edition)
        case (MessageKind.GLOBALLY_ORDERED_UPDATE, seq, data):
            return GloballyOrderedUpdate(sender, _seq(seq), _batch(data))
        case (MessageKind.RECONCILIATION_REQUEST, first, last):
            low = checked_number("first", first, least=1)
            return ReconciliationRequest(sender, low, checked_number("last", last, least=low))
        case (MessageKind.RECONCILIATION_REPLY, burst_end, local_aru, updates):
            return _reconciliation_reply(sender, burst_end, local_aru, updates)
        case (MessageKind.STRANGER, identity):
            return Stranger(sender, _identity(identity))
        case (MessageKind.ACQUAINTED, identity):
            return Acquainted(sender, _identity(identity))
        case (MessageKind.HEARD, identity):
            return Heard(sender, _identity(identity))
        case (MessageKind.KNOWN_POSITION, identity, start, position):
            known = checked_number("start", start), checked_number("position", position)
            return KnownPosition(sender, _identity(identity), *known)
        case (MessageKind.READ_REQUEST, number):
            return ReadRequest(sender, checked_number("number", number))
        case (MessageKind.READ_INDEX, number, seq):
            return ReadIndex(sender, checked_number("number", number), checked_number("seq", seq))
        case (MessageKind.CONFIRM, view, number):
            return Confirm(sender, checked_number("view", view, least=1), checked_number("number", number))
        case (MessageKind.CONFIRMED, view, number):
            return Confirmed(sender, checked_number("view", view, least=1), checked_number("number", number))
        case (MessageKind.SNAPSHOT_OFFER, local_aru, seq, size, digest):
            return SnapshotOffer(sender, checked_number("local_aru", local_aru), _snapshot_name(seq, size, digest))
        case (MessageKind.SNAPSHOT_REQUEST, seq, size, digest, offset, wanted):
            name = _snapshot_name(seq, size, digest, least=0)
            begin = checked_number("offset", offset), checked_number("size", wanted, least=min(name.size, 1))
            return SnapshotRequest(sender, name, *begin)
        case (MessageKind.SNAPSHOT_PART, seq, size, digest, offset, data):
            part = checked_number("offset", offset), _bytes("data", data)
            return SnapshotPart(sender, _snapshot_name(seq, size, digest), *part)
        case (MessageKind.HAND_OVER, view, next_view, reason):
            views = checked_number("view", view, least=1), checked_number("next_view", next_view, least=1)
            return HandOver(sender, *views, _reason(reason))
        case _:
            raise Malformed(f"no message has this type and number of fields: {reprlib.repr(row)}")


def _named_batches(seqs: object, digests: object) -> tuple[tuple[int, ...], bytes]:
    """The slots and digests of an ACCEPT or an ORDERED."""
    voted = _seqs(seqs)
    if type(digests) is not bytes or len(digests) != len(voted) * DIGEST_BYTES:
        raise Malformed(
            f"digests must be {DIGEST_BYTES} bytes for each of the seqs, not {reprlib.repr((seqs, digests))}"
        )
    return voted, digests


def _snapshot_name(seq: object, size: object, digest: object, least: int = 1) -> SnapshotName:
    return SnapshotName(_seq(seq), checked_number("size", size, least=least), _snapshot_digest(digest))


def _told_snapshot(fields: Sequence[object]) -> tuple[()] | tuple[int, bytes]:
    """Slot and digest of the snapshot of an ALIVE, or nothing."""
    match fields:
        case ():
            return ()
        case (seq, digest):
            return _seq(seq), _snapshot_digest(digest)
        case _:
            raise Malformed(f"an ALIVE has two fields about a snapshot or none, not {reprlib.repr(fields)}")


def _snapshot_digest(digest: object) -> bytes:
    if type(digest) is not bytes or len(digest) != SNAPSHOT_DIGEST_BYTES:
        raise Malformed(f"the digest of a snapshot must be {SNAPSHOT_DIGEST_BYTES} bytes, not {reprlib.repr(digest)}")
    return digest


def content_of(data: bytes) -> tuple[int, tuple[Any, ...]] | None:
    """The time and the rows of a batch, if all fields are in range, so that `Batch.open` succeeds; else None.

    A row is one update. In long batches each field is checked for all updates together: with one step of the
    interpreter for each field, instead of one for each field of each update, checking a long batch takes a hundredth of
    the time.
    """
    try:
        content = _unpack(data)
    except Malformed:
        return None
    if type(content) is not tuple or len(content) != 2:
        return None
    time_ms, rows = content
    if type(time_ms) is not int or not 0 <= time_ms <= TIME_MS_MAX or type(rows) is not tuple:
        return None
    if rows and not are_updates(rows):
        return None
    return time_ms, rows


def are_updates(rows: tuple[Any, ...]) -> bool:
    """Whether each of the rows of a batch, of which there is one at least, has the fields of an update."""
    if len(rows) < _FEW:
        return all(map(_is_update, rows))
    if set(map(type, rows)) != {tuple} or set(map(len, rows)) != {_UPDATE_FIELDS}:
        return False
    client_ids, server_ids, timestamps, made_at, payloads = zip(*rows, strict=True)
    return (
        set(map(type, client_ids)) == {str}
        and max(map(len, client_ids)) <= CLIENT_ID_CHARS_MAX
        and _integers(server_ids, most=SERVER_ID_MAX)
        and _integers(timestamps)
        and _integers(made_at)
        and set(map(type, payloads)) == {bytes}
    )


_ONLY_INT = {int}
_UPDATE_TYPES = (str, int, int, int, bytes)


def _is_update(row: object) -> bool:
    if type(row) is not tuple or tuple(map(type, row)) != _UPDATE_TYPES:
        return False
    client_id, server_id, timestamp, made_at, _ = row
    return (
        len(client_id) <= CLIENT_ID_CHARS_MAX
        and 0 <= server_id <= SERVER_ID_MAX
        and 0 <= timestamp <= NUMBER_MAX
        and 0 <= made_at <= NUMBER_MAX
    )


def _integers(column: tuple[Any, ...], most: int = NUMBER_MAX) -> bool:
    return set(map(type, column)) == _ONLY_INT and min(column) >= 0 and max(column) <= most


def _unpack(data: bytes) -> object:
    try:
        return msgpack.unpackb(data, use_list=False)
    except Exception as error:
        # msgpack raises at least ValueError, TypeError and OverflowError, and documents no complete list. Its C code
        # depends on nothing but these bytes, so every exception means that the bytes are wrong.
        raise Malformed(f"not msgpack: {error}") from error


def _prepare_ok(
    sender: int, view: object, data_list: object, part: object, parts: object, edition: object
) -> PrepareOK:
    count = checked_number("parts", parts, least=1, most=PARTS_MAX)
    return PrepareOK(
        sender,
        checked_number("view", view),
        tuple(_entry(sender, entry) for entry in _list("data_list", data_list)),
        checked_number("part", part, most=count - 1),
        count,
        checked_number("edition", edition),
    )


def _entry(sender: int, row: object) -> DataEntry:
    match row:
        case (server_id, view, seq, data):
            leader = checked_number("server_id", server_id, most=SERVER_ID_MAX)
            return Proposal(leader, checked_number("view", view, least=1), _seq(seq), _batch(data))
        case (seq, data):
            return GloballyOrderedUpdate(sender, _seq(seq), _batch(data))
        case _:
            raise Malformed(f"an entry of a data list has 2 or 4 fields, not {reprlib.repr(row)}")


def _reconciliation_reply(sender: int, burst_end: object, local_aru: object, updates: object) -> ReconciliationReply:
    ordered = tuple(_ordered(sender, row) for row in _list("updates", updates))
    first = ordered[0].seq if ordered else 1
    if any(update.seq != seq for seq, update in enumerate(ordered, start=first)):
        raise Malformed(f"the updates of a reconciliation reply must follow each other from {first} on")
    end = checked_number("burst_end", burst_end, least=ordered[-1].seq if ordered else 1)
    return ReconciliationReply(sender, end, checked_number("local_aru", local_aru), ordered)


def _ordered(sender: int, row: object) -> GloballyOrderedUpdate:
    match row:
        case (seq, data):
            return GloballyOrderedUpdate(sender, _seq(seq), _batch(data))
        case _:
            raise Malformed(f"an ordered update has 2 fields, not {reprlib.repr(row)}")


def checked_number(name: str, value: object, least: int = 0, most: int = NUMBER_MAX) -> int:
    """The value of a field, if it is an integer from `least` to `most`; raises `Malformed`, with its name, if not."""
    if type(value) is not int or not least <= value <= most:
        raise Malformed(f"{name} must be an integer from {least} to {most}, not {reprlib.repr(value)}")
    return value


def _flag(name: str, value: object) -> bool:
    if type(value) is not bool:
        raise Malformed(f"{name} must be true or false, not {reprlib.repr(value)}")
    return value


def _seq(value: object) -> int:
    return checked_number("seq", value, least=1)


def _seqs(value: object) -> tuple[int, ...]:
    if type(value) is tuple and len(value) == 1 and type(value[0]) is int and 1 <= value[0] <= NUMBER_MAX:
        return value  # most ACCEPTs of a server that is not busy name one slot
    seqs = _list("seqs", value)
    if seqs and not (_integers(seqs) and min(seqs)):
        raise Malformed(f"seqs must be integers from 1 to {NUMBER_MAX}, not {reprlib.repr(seqs)}")
    return seqs


def _list(name: str, value: object) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > LIST_ENTRIES_MAX:
        raise Malformed(f"{name} must be an array of at most {LIST_ENTRIES_MAX} entries, not {reprlib.repr(value)}")
    return value


def _bytes(name: str, value: object) -> bytes:
    if type(value) is not bytes:
        raise Malformed(f"{name} must be bytes, not {reprlib.repr(value)}")
    return value


def _batch(value: object) -> Batch:
    data = _bytes("a batch", value)
    content = content_of(data)
    if content is None:
        raise Malformed(f"these bytes are no batch: {reprlib.repr(data)}")
    time_ms, rows = content
    return Batch(data, [(time_ms, [ClientUpdate(*row) for row in rows])])


def _client_id(value: object) -> str:
    if type(value) is not str or len(value) > CLIENT_ID_CHARS_MAX:
        raise Malformed(f"client_id must be at most {CLIENT_ID_CHARS_MAX} characters, not {reprlib.repr(value)}")
    return value


def _state(value: object) -> State:
    return _STATES_BY_NUMBER[checked_number("state", value, most=len(_STATES) - 1)]


def _reason(value: object) -> HandOverReason:
    return _REASONS_BY_NUMBER[checked_number("reason", value, most=len(_REASONS) - 1)]


def _digests(value: object) -> bytes:
    if type(value) is not bytes or len(value) != DIGEST_BYTES * len(POINTS):
        raise Malformed(f"digests must be {DIGEST_BYTES * len(POINTS)} bytes, not {reprlib.repr(value)}")
    return value


def _identity(value: object) -> bytes:
    if type(value) is not bytes or len(value) != IDENTITY_BYTES:
        raise Malformed(f"identity must be {IDENTITY_BYTES} bytes, not {reprlib.repr(value)}")
    return value
