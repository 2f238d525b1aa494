"""Instances: many small agreements, each on one value that never changes (docs/instances.rst).

The first PROPOSE for an instance, in the order of execution, decides the value of the instance; every later PROPOSE for
it changes nothing. There is a fixed number of peers, and each says by DONE up to which instance it needs no value any
more. Instances up to the minimum of all peers' numbers are forgotten, and can neither be asked for nor be decided
again. Values are bytes, written as base64 (RFC 4648, section 4).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

import msgpack
from zope.interface import implementer

from pfsb.applications.application import Application, Verb
from pfsb.applications.arguments import Arguments, bounded_rows, refuse_other_format, row_limit
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Done,
    Fields,
    IContext,
    IReplicatedApplication,
    Refused,
    Result,
    Word,
)

instance_bytes_max = 24_000
"""Maximum number of bytes of a value: in base64, with its verb, it fits into a line of the default `command_bytes`."""
peers_max = 1_000
"""Maximum number of peers."""

_snapshot_format = 1


def _ignore(*_: object) -> None:
    pass


@implementer(IReplicatedApplication)
class Instances(Application):
    """A table of values, each written once.

    `on_decided(instance, value)` and `on_forgotten(least)` are called while a command that decides or forgets instances
    is executed.
    """

    name = "instances"
    commands: Sequence[CommandDescription] = (
        CommandDescription(
            "PROPOSE", "PROPOSE seq value", "Decide instance seq, unless it is; value is base64 of any bytes."
        ),
        CommandDescription("DECIDED", "DECIDED seq", "Show what instance seq was decided to be.", changes=False),
        CommandDescription(
            "DONE", "DONE peer peers seq", "Peer (one of peers, counted from 0) needs nothing up to seq any more."
        ),
        CommandDescription("INSTANCES", "INSTANCES [limit=N]", "Show what is decided, in order.", changes=False),
    )

    def __init__(self) -> None:
        self.decided: dict[int, str] = {}  # instance number -> its value in base64
        self.least = 0  # instances below this number are forgotten
        self.on_decided: Callable[[int, str], None] = _ignore
        self.on_forgotten: Callable[[int], None] = _ignore
        self._peers = 0  # number of peers; 0 until the first DONE, which tells it
        self._done: dict[int, int] = {}  # peer -> number of the last instance that it no longer needs
        super().__init__(
            {
                "PROPOSE": Verb(_check_propose, (str, int, str), self._propose),
                "DECIDED": Verb(_check_decided, (str, int), self._show),
                "DONE": Verb(_check_done, (str, int, int, int), self._note_done),
                "INSTANCES": Verb(_check_instances, (str, int), self._list),
            }
        )

    def snapshot(self) -> bytes:
        """The state as msgpack: (format, least, peers, [(peer, seq)], [(seq, base64)]), both lists ascending."""
        state = (self.least, self._peers, sorted(self._done.items()), sorted(self.decided.items()))
        data: bytes = msgpack.packb((_snapshot_format, *state))
        return data

    def restore(self, data: bytes) -> None:
        """Replace the state by that of a snapshot. Raises `ValueError` for a snapshot of another format."""
        found, *state = msgpack.unpackb(data)
        refuse_other_format(self.name, found, _snapshot_format)
        self.least, self._peers, done, decided = state
        self._done, self.decided = dict(done), dict(decided)

    def _propose(self, command: Command, context: IContext) -> Result:
        """Run PROPOSE. The answer does not contain the value, because the session's reply cache keeps the answer."""
        _, seq, value = command
        if seq < self.least:
            return Refused("CONFLICT", f"instance {seq} is forgotten: all below {self.least} are")
        is_first = seq not in self.decided
        if is_first:
            self.decided[seq] = value
            self.on_decided(seq, value)
        return Done((("first", Word("yes" if is_first else "no")), ("revision", context.revision)))

    def _note_done(self, command: Command, context: IContext) -> Result:
        _, peer, peers, seq = command
        if self._peers not in (0, peers):
            return Refused("CONFLICT", f"there are {self._peers} peers, not {peers}")
        self._peers = peers
        self._done[peer] = max(seq, self._done.get(peer, -1))
        if len(self._done) == peers and min(self._done.values()) >= self.least:
            self._forget_below(min(self._done.values()) + 1)
        return Done((("min", self.least), ("revision", context.revision)))

    def _forget_below(self, least: int) -> None:
        """Forget the instances below `least`.

        The loop goes over the numbers from the old to the new `least`, or over all decided instances if they are fewer.
        """
        passing = range(self.least, least)
        for seq in passing if len(passing) <= len(self.decided) else [seq for seq in self.decided if seq < least]:
            self.decided.pop(seq, None)
        self.least = least
        self.on_forgotten(least)

    def _show(self, command: Command) -> Result:
        seq = command[1]
        if seq < self.least:
            return Done((("decided", Word("forgotten")),))
        value = self.decided.get(seq)
        if value is None:
            return Done((("decided", Word("no")),))
        return Done((("decided", Word("yes")), ("value", value)))

    def _list(self, command: Command) -> Result:
        seqs = sorted(self.decided)[: row_limit(command[1])]
        rows: tuple[Fields, ...] = tuple((("seq", seq), ("value", self.decided[seq])) for seq in seqs)
        shown = bounded_rows(rows)
        if isinstance(shown, Refused):
            return shown
        return Done((*shown.fields, ("min", self.least), ("max", max(self.decided, default=-1))), rows)


def encoded(value: bytes) -> str:
    """A value as base64 text. Raises `ValueError` if the value is too large."""
    if len(value) > instance_bytes_max:
        raise ValueError(f"a value of {len(value)} bytes is too large: {instance_bytes_max} are allowed")
    return base64.b64encode(value).decode()


def decoded(text: str) -> bytes:
    """The value whose base64 text is `text`, as `encoded` has made it."""
    return base64.b64decode(text)


def _check_propose(asked: Arguments) -> Command:
    seq, text = asked.words(2, 2)
    try:
        value = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise asked.refused("the value is no base64 (example: aGVsbG8=)") from None
    if len(value) > instance_bytes_max:
        raise asked.refused(f"the value has {len(value)} bytes, {instance_bytes_max} are allowed", "TOOLARGE")
    return ("PROPOSE", _seq(asked, seq), base64.b64encode(value).decode())


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


def _check_instances(asked: Arguments) -> Command:
    asked.words(0, 0, options=("limit",))
    return ("INSTANCES", asked.limit())


def _seq(asked: Arguments, word: str) -> int:
    seq = asked.integer(word, "seq")
    if seq < 0:
        raise asked.refused("instances are numbered from 0")
    return seq
