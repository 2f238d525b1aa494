"""Instances: many small agreements, each on one value that never changes (docs/instances.rst).

The first PROPOSE for an instance, in the order of execution, decides the value of the instance; every later PROPOSE for
it changes nothing. A value that is too large for one command comes in PARTs, the last of which proposes it. There is a
fixed number of peers, and each says by DONE up to which instance it needs no value any more. Instances up to the
minimum of all peers' numbers are forgotten, and can neither be asked for nor be decided again. Values are bytes,
written as base64 (RFC 4648, section 4).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgpack
from attrs import define, field, frozen
from zope.interface import implementer

from pfsb.applications.application import Verb
from pfsb.applications.arguments import Arguments, paged_rows
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Done,
    Fields,
    IContext,
    IQuotaUser,
    Refused,
    Result,
    Word,
)
from pfsb.applications.pieces import PiecewiseApplication
from pfsb.applications.unfinished import Key, Unfinished, UnfinishedValues

part_bytes_max = 24_000
"""Maximum number of bytes of a value, or of a part of one, in one command.

In base64, with its verb, it fits into a line of the default `command_bytes`.
"""
peers_max = 1_000
"""Maximum number of peers: the programs that share the instances, and say by DONE which values they need no longer."""

decided_overhead_bytes = 64
"""Number of bytes that each decided instance counts besides its value, so that the number of them is limited, too."""


@frozen
class InstanceLimits:
    """Limits on values. They decide results, so they are equal at all servers."""

    value_bytes: int = 1_048_576
    """Maximum number of bytes of one value."""
    unfinished_bytes: int = 67_108_864
    """Maximum number of bytes that all unfinished values occupy together. A value is unfinished while some of its parts
    have not come (`UnfinishedValues`)."""
    unfinished_of_session: int = 4
    """Maximum number of unfinished values of one session."""
    unfinished_idle_ms: int = 30_000
    """How long, in milliseconds of the state machine's time, an unfinished value is kept after its latest part, even if
    another value needs the room."""


def _ignore(*_: object) -> None:
    pass


@define(eq=False)
class FrozenInstances:
    """All instances of one moment.

    A row is (instance, value) of an instance that is decided, in the order of their decisions; or (client id, instance,
    size, touched_ms, began, bytes so far) of an unfinished value.
    """

    head: tuple[Any, ...]
    """The lowest instance that is not forgotten, the number of peers, [(peer, the instance in its last DONE)], and how
    many unfinished values have begun."""
    unfinished: list[tuple[Key, Unfinished]]
    order: list[int]
    """The decided instances in the order of their decisions, to which later ones are added; some are forgotten."""
    length: int
    """Length of `order` at that moment."""
    decided: dict[int, bytes]
    """The table of decided instances, as it is now."""
    forgotten: dict[int, bytes] = field(factory=dict)
    """The instances that were forgotten since, with their values."""

    def rows(self) -> Iterator[bytes]:
        pack = msgpack.Packer().pack
        for seq in islice(self.order, self.length):
            value = self.decided.get(seq)
            if value is None:
                value = self.forgotten.pop(seq, None)
            if value is not None:  # otherwise the instance was forgotten before this moment
                yield pack((seq, value))
        self.forgotten.clear()
        for (session, seq), unfinished in self.unfinished:
            numbers = (unfinished.size, unfinished.touched_ms, unfinished.began)
            yield pack((session, seq, *numbers, unfinished.bytes_so_far()))


@implementer(IQuotaUser)
class Instances(PiecewiseApplication[FrozenInstances]):
    """A table of values, each written once.

    While a command is executed, `on_decided(instance, value)` is called once if the command decides an instance, and
    `on_forgotten(least)` once if the command makes this server forget the instances below `least`. Both are for the
    owner of this object to set; by default they do nothing.
    """

    name = "instances"
    snapshot_format = 3
    quota = "instance_bytes"
    commands: Sequence[CommandDescription] = (
        CommandDescription(
            "PROPOSE", "PROPOSE seq value", "Decide instance seq, unless it is; value is base64 of any bytes."
        ),
        CommandDescription(
            "PART",
            "PART seq offset size value",
            "Give the bytes from offset on of a value of size bytes; the last part proposes the value for seq.",
        ),
        CommandDescription("DECIDED", "DECIDED seq", "Show what instance seq was decided to be.", changes=False),
        CommandDescription(
            "DONE", "DONE peer peers seq", "Peer (one of peers, counted from 0) needs nothing up to seq any more."
        ),
        CommandDescription(
            "INSTANCES", "INSTANCES [from=N] [limit=N]", "Show what is decided, in order.", changes=False
        ),
    )

    def __init__(self, limits: InstanceLimits | None = None) -> None:
        self.limits = limits or InstanceLimits()
        self.decided: dict[int, bytes] = {}  # instance number -> its value
        self._order: list[int] = []
        """The decided instances in the order of their decisions; some of them may be forgotten."""
        self._used_bytes = 0  # a running sum over the decided instances
        self.least = 0  # instances below this number are forgotten
        self.unfinished = UnfinishedValues(
            self.limits.unfinished_bytes, self.limits.unfinished_of_session, self.limits.unfinished_idle_ms
        )
        self.on_decided: Callable[[int, bytes], None] = _ignore
        self.on_forgotten: Callable[[int], None] = _ignore
        self._peers = 0  # number of peers; 0 until the first DONE, which tells it
        self._done: dict[int, int] = {}  # peer -> number of the last instance that it no longer needs
        super().__init__(
            {
                "PROPOSE": Verb(_check_propose, (str, int, str), self._propose),
                "PART": Verb(self._check_part, (str, int, int, int, str), self._take_part),
                "DECIDED": Verb(_check_decided, (str, int), self._show),
                "DONE": Verb(_check_done, (str, int, int, int), self._note_done),
                "INSTANCES": Verb(_check_instances, (str, int, int), self._list),
            }
        )

    def state_now(self) -> FrozenInstances:
        head = (self.least, self._peers, sorted(self._done.items()), self.unfinished.begun)
        return FrozenInstances(head, self.unfinished.items(), self._order, len(self._order), self.decided)

    def begin(self, head: Sequence[Any]) -> None:
        self.least, self._peers, done, begun = head
        self._done, self.decided, self._order, self._used_bytes = dict(done), {}, [], 0
        self.unfinished.clear(begun)

    def take_rows(self, rows: Sequence[tuple[Any, ...]]) -> None:
        for row in rows:
            if len(row) == 2:
                self._set_decided(*row)
            else:
                session, seq, size, touched_ms, began, so_far = row
                unfinished = Unfinished(size, touched_ms, began, [so_far], len(so_far))
                self.unfinished.put_back((session, seq), unfinished)

    def used(self) -> int:
        return self._used_bytes

    def session_ended(self, client_id: str, context: IContext) -> None:
        """Drop the unfinished values of a session that has ended: only that session could have sent their remaining
        parts."""
        self.unfinished.drop_session(client_id)

    # ------------------------------------------------------------------ proposals

    def _propose(self, command: Command, context: IContext) -> Result:
        _, seq, text = command
        value = decoded(text)
        if isinstance(value, Refused):
            return value
        return (
            self._settled(seq, context) or self._beyond_quota(len(value), context) or self._decide(seq, value, context)
        )

    def _take_part(self, command: Command, context: IContext) -> Result:
        """Run PART, which brings one part of a value that is too large for one command.

        One session sends the parts of a value in order, and no question shows anything of the value before its last
        part has come. No part is kept for an instance that is decided or forgotten, since no value can be decided for
        it any more.
        """
        _, seq, offset, size, text = command
        part = decoded(text)
        if isinstance(part, Refused):
            return part
        refused = self._misplaced(offset, size, part)
        if refused is not None:
            return refused
        return (
            self._settled(seq, context)
            or self._beyond_quota(size, context)
            or self._collect((context.session, seq), offset, size, part, context)
        )

    def _collect(self, key: tuple[str, int], offset: int, size: int, part: bytes, context: IContext) -> Result:
        unfinished = self.unfinished
        if offset == 0:
            refused = unfinished.begin(key, size, context.time_ms)
            if refused is not None:
                return refused
        elif offset != unfinished.next_offset(key, size):
            expected = f"the next part of a value of {size} bytes begins at {unfinished.next_offset(key, size)}"
            return Refused("NOTFOUND", f"the parts before {offset} are not here: {expected}")
        whole = unfinished.add_part(key, part, context.time_ms)
        if whole is None:
            return Done((("received", unfinished.received(key)), ("revision", context.revision)))
        return self._decide(key[1], whole, context)

    def _misplaced(self, offset: int, size: int, part: bytes) -> Refused | None:
        """The refusal of a PART if its value of `size` bytes would be too large, or if the bytes `part` at `offset` do
        not lie within the value; None if the PART is right."""
        if size > self.limits.value_bytes:
            return Refused("TOOLARGE", _too_large(size, self.limits.value_bytes))
        if not part or offset < 0 or offset + len(part) > size:
            return Refused("BADREQUEST", _no_part(offset, size, len(part)))
        return None

    def _beyond_quota(self, size: int, context: IContext) -> Refused | None:
        """The refusal of a command that decides a value of `size` bytes, if a quota does not allow it; None if it
        does."""
        quotas = context.quotas
        if size > quotas.value_bytes:
            return Refused("TOOLARGE", f"{_too_large(size, quotas.value_bytes)} (value_bytes)")
        used = self._used_bytes + size + decided_overhead_bytes
        if used <= quotas.instance_bytes:
            return None
        return Refused(
            "TOOLARGE",
            f"decided instances would have {used} bytes, and instance_bytes allows {quotas.instance_bytes}: all peers "
            "must be done with some (DONE), or that setting be raised",
        )

    def _settled(self, seq: int, context: IContext) -> Result | None:
        """The answer to a command that proposes a value for instance `seq`, if the instance is forgotten or decided
        already; None if it can still be decided."""
        if seq < self.least:
            return Refused("CONFLICT", f"instance {seq} is forgotten: all below {self.least} are")
        return _proposed("no", context) if seq in self.decided else None

    def _decide(self, seq: int, value: bytes, context: IContext) -> Result:
        """Give an instance its value. The caller has made sure that it has none (`_settled`).

        The answer leaves the value out, because the session's reply cache keeps the answer.
        """
        self._set_decided(seq, value)
        self.unfinished.drop_instance(seq)
        self.on_decided(seq, value)
        return _proposed("yes", context)

    def _set_decided(self, seq: int, value: bytes) -> None:
        self.decided[seq] = value
        self._order.append(seq)
        self._used_bytes += _charge(value)

    # ------------------------------------------------------------------ forgetting

    def _note_done(self, command: Command, context: IContext) -> Result:
        _, peer, peers, seq = command
        if not _are_in_range(peer, peers, seq):
            return Refused("BADREQUEST", f"there is no peer {peer} of {peers}, or no instance {seq}")
        if self._peers not in (0, peers):
            return Refused("CONFLICT", f"there are {self._peers} peers, not {peers}")
        self._peers = peers
        self._done[peer] = max(seq, self._done.get(peer, -1))
        if len(self._done) == peers and min(self._done.values()) >= self.least:
            self._forget_below(min(self._done.values()) + 1)
        return Done((("min", self.least), ("revision", context.revision)))

    def _forget_below(self, least: int) -> None:
        """Forget all instances with numbers below `least`, and the unfinished values for them.

        The loop goes over the numbers from the old to the new `least`, or over all decided instances if they are fewer.
        """
        passing = range(self.least, least)  # its length may be too large for len()
        is_short = least - self.least <= len(self.decided)
        for seq in passing if is_short else [seq for seq in self.decided if seq < least]:
            value = self.decided.pop(seq, None)
            if value is not None:
                self._used_bytes -= _charge(value)
                if self._frozen is not None:
                    self._frozen.forgotten[seq] = value
        if len(self._order) > 2 * len(self.decided) + 64:
            self._order = [*filter(self.decided.__contains__, self._order)]
        for seq in [seq for seq in self.unfinished.instances if seq < least]:
            self.unfinished.drop_instance(seq)
        self.least = least
        self.on_forgotten(least)

    # ------------------------------------------------------------------ questions

    def _show(self, command: Command) -> Result:
        seq = command[1]
        if seq < self.least:
            return Done((("decided", Word("forgotten")),))
        value = self.decided.get(seq)
        if value is None:
            return Done((("decided", Word("no")),))
        return Done((("decided", Word("yes")), ("value", encoded(value))))

    def _list(self, command: Command) -> Result:
        _, first, limit = command
        page = paged_rows(self._rows(first), limit)
        return Done((*page.fields, ("min", self.least), ("max", max(self.decided, default=-1))), page.rows)

    def _rows(self, first: int) -> Iterator[Fields]:
        for seq in sorted(seq for seq in self.decided if seq >= first):
            yield (("seq", seq), ("value", encoded(self.decided[seq])))

    # ------------------------------------------------------------------ as the commands are typed

    def _check_part(self, asked: Arguments) -> Command:
        seq, offset, size, text = asked.words(4, 4)
        value = _value(asked, text)
        numbers = (_seq(asked, seq), asked.integer(offset, "offset"), asked.integer(size, "size"))
        refused = self._misplaced(*numbers[1:], value)
        if refused is not None:
            raise asked.refused(refused.text, refused.code)
        return ("PART", *numbers, encoded(value))


def _proposed(first: str, context: IContext) -> Done:
    return Done((("first", Word(first)), ("revision", context.revision)))


def _charge(value: bytes) -> int:
    return len(value) + decided_overhead_bytes


def _too_large(size: int, allowed: int) -> str:
    return f"the value has {size} bytes, {allowed} are allowed"


def _no_part(offset: int, size: int, length: int) -> str:
    return f"{length} bytes from {offset} on are no part of a value of {size} bytes"


def encoded(value: bytes) -> str:
    """A value, or a part of one, as text in base64."""
    return base64.b64encode(value).decode()


def decoded(text: str) -> bytes | Refused:
    """The bytes of a text that `encoded` has made; a refusal for any other text, which another version let through."""
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        return Refused("BADREQUEST", "the value is no base64 (example: aGVsbG8=)")
    if len(value) > part_bytes_max:
        text = f"{_too_large(len(value), part_bytes_max)} in one command; a larger value comes in parts (PART)"
        return Refused("TOOLARGE", text)
    return value


def _value(asked: Arguments, text: str) -> bytes:
    value = decoded(text)
    if isinstance(value, Refused):
        raise asked.refused(value.text, value.code)
    return value


def _check_propose(asked: Arguments) -> Command:
    seq, text = asked.words(2, 2)
    value = _value(asked, text)
    return ("PROPOSE", _seq(asked, seq), encoded(value))


def _check_decided(asked: Arguments) -> Command:
    (seq,) = asked.words(1, 1)
    return ("DECIDED", _seq(asked, seq))


def _check_done(asked: Arguments) -> Command:
    peer, peers, seq = (asked.integer(word, what) for word, what in zip(asked.words(3, 3), _done_names, strict=True))
    if not 1 <= peers <= peers_max or not 0 <= peer < peers:
        raise asked.refused(f"of 1 to {peers_max} peers, the first is peer 0")
    if seq < 0:
        raise asked.refused("instances are numbered from 0")
    return ("DONE", peer, peers, seq)


_done_names = ("peer", "peers", "seq")


def _are_in_range(peer: int, peers: int, seq: int) -> bool:
    """Whether the numbers of a DONE are possible: peer number `peer` of `peers` peers needs the values up to instance
    `seq` no more. They may be impossible although a server has checked the DONE, since that may have been a server of
    another version of pfsb."""
    return 1 <= peers <= peers_max and 0 <= peer < peers and seq >= 0


def _check_instances(asked: Arguments) -> Command:
    asked.words(0, 0, options=("from", "limit"))
    return ("INSTANCES", asked.option("from", 0, least=0), asked.limit())


def _seq(asked: Arguments, word: str) -> int:
    seq = asked.integer(word, "seq")
    if seq < 0:
        raise asked.refused("instances are numbered from 0")
    return seq
