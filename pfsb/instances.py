"""The Paxos library that teaching labs ask for: peers, in one process or in several, decide many instances, each once.

::

    peers = ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]
    pxa = [make(peers, me, reactor) for me in range(3)]
    pxa[0].start(0, b"hello")           # returns at once
    pxa[2].status(0)                    # (False, None) at first, later (True, b"hello")

Each peer is a whole server of `pfsb`, and the instances are its application `instances` on the ordered log: an
instance is decided to be the value of the first proposal for it in that order. A peer with a `storage` has on disk
everything that it has promised or answered. A peer without one loses everything when it ends, so no new peer may be
started in its place: the new peer could break the promises of the old one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.instances import Instances, encoded, part_bytes_max
from pfsb.applications.interfaces import Command, Done, Refused, Result
from pfsb.config.addresses import peer_address
from pfsb.config.config import Config, ServerConfig
from pfsb.config.yaml_file import Place
from pfsb.server import Server
from pfsb.service.assembly import real_server

UNDER_WAY_MAX: Final = 64
"""Maximum number of commands of one peer that may be under way at once; further ones wait."""
RETRY_SECONDS: Final = 0.5
"""Pause, in seconds, after the refusal of a command, before it is sent again."""
_TEXT: Final = "tag:yaml.org,2002:str"


class _Wanted(Protocol):
    """One thing that a peer wants of its server: to propose a value for an instance; or to say DONE, which tells that
    the peer's program needs the values up to an instance no more. It takes one command, or several commands one after
    the other."""

    number: int
    """The number under which the present command was submitted to the server; 0: the command waits to be submitted."""
    is_large: bool
    """Whether the value is too large for one command, and is proposed in several. The server keeps few unfinished
    values, so this peer has one large value under way at a time."""

    def command(self) -> Command:
        """The command that is to be submitted now: the next one, or the one before, if that must be repeated."""

    def is_settled_by(self, result: Result) -> bool:
        """Called with a result of the present command. Returns True if this thing is done, so that no further command
        is needed.

        If the result says that a part of a value was taken, the next part becomes the present command.
        """

    def begin_anew(self) -> None:
        """Called when the session has ended: a value in parts begins again with its first part, under a number of the
        new session."""


@define(eq=False)
class _OneCommand:
    """A thing that is wanted and takes a single command: PROPOSE, with a value of at most `part_bytes_max` bytes for an
    instance; or DONE, which says that the peer's program needs the values up to an instance no more. Either command has
    no effect when it runs a second time."""

    _command: Command
    number: int = 0
    is_large: bool = False

    def command(self) -> Command:
        return self._command

    def is_settled_by(self, result: Result) -> bool:
        return isinstance(result, Done) or result.code == "CONFLICT"

    def begin_anew(self) -> None:
        self.number = 0


@define(eq=False)
class _LargeProposal:
    """A value for an instance that is larger than `part_bytes_max` bytes, and is proposed by several commands PART. The
    next PART is submitted when the server has taken the one before."""

    _seq: int
    _value: bytes
    number: int = 0
    is_large: bool = True
    _offset: int = 0
    """Number of bytes that the server has taken."""

    def command(self) -> Command:
        part = self._value[self._offset : self._offset + part_bytes_max]
        return ("PART", self._seq, self._offset, len(self._value), encoded(part))

    def is_settled_by(self, result: Result) -> bool:
        if isinstance(result, Refused):
            if result.code == "NOTFOUND":
                # The parts before were dropped to make room for others. The value begins anew.
                self._offset = 0
            return result.code == "CONFLICT"
        received = dict(result.fields).get("received")
        if received is None:
            return True
        self._offset, self.number = int(received), 0
        return False

    def begin_anew(self) -> None:
        self.number = self._offset = 0


class Peer:
    """One peer, with the interface that the labs prescribe.

    The methods of that interface return at once, with what this peer knows itself, and ask no other peer. `server` runs
    the application `instances`; `attach` must be called when the server has started.
    """

    _log = Logger()

    def __init__(self, server: Server, application: Instances, clock: IReactorTime) -> None:
        self.server = server
        self.application = application
        self._clock = clock
        self._decided: dict[int, bytes] = {}
        self._least = 0
        self._highest = -1
        self._done = -1
        self.wanted: dict[tuple[object, ...], _Wanted] = {}
        """Everything that this peer wants of its server and that is not executed yet, by a key: ("PROPOSE", instance,
        value), or the words of a DONE."""
        self._under_way = 0
        self._number = 0
        self._retry: IDelayedCall | None = None
        self._killed = False

    # ------------------------------------------------------------------ the lab's interface

    def start(self, seq: int, value: bytes) -> None:
        """Propose `value` for instance `seq`; returns at once. Ignored if `seq` is below `min()`.

        A value of up to 1 MiB: a large one reaches the server in parts, and all peers see it as a whole. Raises
        `ValueError` for a value that is too large.
        """
        allowed = self.application.limits.value_bytes
        if len(value) > allowed:
            raise ValueError(f"a value of {len(value)} bytes is too large: {allowed} are allowed")
        if seq >= self.min():
            self._highest = max(self._highest, seq)
            if seq not in self._decided:
                is_large = len(value) > part_bytes_max
                wanted = _LargeProposal(seq, value) if is_large else _OneCommand(("PROPOSE", seq, encoded(value)))
                self._want(("PROPOSE", seq, value), wanted)

    def status(self, seq: int) -> tuple[bool, bytes | None]:
        """Whether this peer knows `seq` to be decided, and the value; (False, None) for a forgotten instance."""
        value = self._decided.get(seq)
        return value is not None, value

    def done(self, seq: int) -> None:
        """Called by the program when it needs the values of the instances up to `seq` no more.

        An instance is forgotten when the programs of all peers have said so.
        """
        if seq > self._done:
            self._done = seq
            command = ("DONE", self.server.server_id, self.server.replica.membership.n, seq)
            self._want(command, _OneCommand(command))

    def max(self) -> int:
        """Return the number of the highest instance that this peer knows of; -1: none."""
        return self._highest

    def min(self) -> int:
        """The lowest instance that is not forgotten: this peer knows that all peers are done with the lower ones."""
        return self._least

    def kill(self) -> Any:
        """Stop the peer. Returns None, or a Deferred that fires when it has stopped."""
        self._killed = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        return self.server.stop()

    # ------------------------------------------------------------------ decisions, as the server executes them

    def attach(self) -> None:
        """Called once, when the server has started.

        The peer takes over the decisions that the server has read from its disk, and from then on each decision when
        the server executes it.
        """
        turn = self.server.replica.turn
        self._note_forgotten(self.application.least)
        for seq, value in self.application.decided.items():
            self._note_decided(seq, value)
        self.application.on_decided = partial(turn.call, self._note_decided)
        self.application.on_forgotten = partial(turn.call, self._note_forgotten)
        self._connect()

    def _note_decided(self, seq: int, value: bytes) -> None:
        self._highest = max(self._highest, seq)
        if seq >= self._least:
            self._decided[seq] = value

    def _note_forgotten(self, least: int) -> None:
        self._least = max(self._least, least)
        self._decided = {seq: value for seq, value in self._decided.items() if seq >= self._least}

    # ------------------------------------------------------------------ commands to the server

    def _connect(self) -> None:
        self._connection = self.server.local_clients.connect(lambda _code, _text: self._connect_again())
        self._number = self._under_way = 0
        for wanted in self.wanted.values():
            wanted.begin_anew()

    def _connect_again(self) -> None:
        """Called when the session has ended, since this server was cut off for long: open another session.

        Commands that were under way may have run, and are sent again: they have no effect the second time.
        """
        if not self._killed:
            self._connection.disconnected()
            self._connect()
            self._ask()

    def _want(self, key: tuple[object, ...], wanted: _Wanted) -> None:
        self.wanted.setdefault(key, wanted)
        self._ask()

    def _ask(self) -> None:
        for key, wanted in list(self.wanted.items()):
            if self._under_way >= UNDER_WAY_MAX or self._killed:
                return
            if not wanted.number and not (wanted.is_large and self._has_large_under_way):
                self._number += 1
                wanted.number = self._number
                self._submit(key, wanted)

    @property
    def _has_large_under_way(self) -> bool:
        """Whether a part of a large value was submitted, and is not answered yet or is to be repeated."""
        return any(wanted.is_large and wanted.number for wanted in self.wanted.values())

    def _submit(self, key: tuple[object, ...], wanted: _Wanted) -> None:
        self._under_way += 1
        answered = partial(self._answered, self._connection, key, wanted)
        self._connection.submit(wanted.number, wanted.command(), answered)

    def _answered(self, connection: Any, key: tuple[object, ...], wanted: _Wanted, result: Result) -> None:
        if connection is not self._connection:
            return
        self._under_way -= 1
        if wanted.is_settled_by(result):
            self.wanted.pop(key, None)
        if isinstance(result, Refused) and key in self.wanted:
            self._log.debug("{command} again: {text}", command=key[:2], text=result.text)
            self._ask_later(key, wanted, is_unknown=result.fate != "none")
        else:
            self._ask()

    def _ask_later(self, key: tuple[object, ...], wanted: _Wanted, *, is_unknown: bool) -> None:
        """Send a refused command again after `RETRY_SECONDS`: under its old number if it may have run (`is_unknown`),
        else under a new one. `key` is the key of `wanted` in `Peer.wanted`."""
        if is_unknown:
            self._clock.callLater(RETRY_SECONDS, self._repeat, self._connection, key, wanted)
            return
        wanted.number = 0
        if self._retry is None and not self._killed:
            self._retry = self._clock.callLater(RETRY_SECONDS, self._ask_now)

    def _ask_now(self) -> None:
        self._retry = None
        self._ask()

    def _repeat(self, connection: Any, key: tuple[object, ...], wanted: _Wanted) -> None:
        if connection is self._connection and wanted.number and not self._killed:
            self._submit(key, wanted)


def make(peers: Sequence[str], me: int, reactor: Any, *, storage: str | os.PathLike[str] | None = None) -> Peer:
    """Make and start the peer at position `me` of `peers`, the addresses of all peers (such as "127.0.0.1:7101", for
    UDP).

    `storage` is a directory for the data of this peer alone; None: the peer keeps its data in memory. Raises
    `ConfigError` for a wrong address, `CannotListenError` if the port is in use.
    """
    config = _configuration(peers)
    application = Instances()
    directory = None if storage is None else Path(storage)
    server = real_server(config, me, Catalogue([application]), directory=directory, clock=reactor, on_failure=_failed)
    peer = Peer(server, application, reactor)
    server.start()
    peer.attach()
    return peer


def _configuration(peers: Sequence[str]) -> Config:
    places = [Place("peers", (str(i),), yaml.ScalarNode(_TEXT, text)) for i, text in enumerate(peers)]
    servers = {i: ServerConfig(i, peer_address(place), "tcp:1") for i, place in enumerate(places)}
    return Config("peers", "instances", servers, f=(len(peers) - 1) // 2, apps=(Instances.name,), snapshot_every=0)


def _failed(failure: Failure) -> None:
    """Called when the server of a peer has stopped itself: give the reason to Twisted's log.

    To the other peers this server has crashed, which they tolerate as long as a majority runs.
    """
    Peer._log.failure("this peer stops", failure)
