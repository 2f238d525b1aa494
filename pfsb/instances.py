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
from typing import Any, Final

import yaml
from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.instances import Instances, decoded, encoded
from pfsb.applications.interfaces import Command, Done, Result
from pfsb.config.addresses import peer_address
from pfsb.config.config import Config, ServerConfig
from pfsb.config.yaml_file import Place
from pfsb.server import Server
from pfsb.service.assembly import real_server

UNDER_WAY_MAX: Final = 64
"""Maximum number of commands of one peer that may be under way at once; further ones wait."""
RETRY_SECONDS: Final = 0.5
"""How long, in seconds, a command that was refused waits before it is sent again."""
_TEXT: Final = "tag:yaml.org,2002:str"


@define(eq=False)
class _Wanted:
    number: int = 0
    """The number under which the command was submitted to the server; 0: it waits to be submitted."""


class Peer:
    """One peer, with the interface that the labs prescribe.

    The methods of that interface return at once, with what this peer knows itself, and ask no other peer. `server` runs
    the application `instances`; `attach` must be called when the server has started.
    """

    _log = Logger()

    def __init__(self, server: Server, application: Instances, clock: IReactorTime) -> None:
        self.server = server
        self._application = application
        self._clock = clock
        self._peers = server.config.n
        self._decided: dict[int, bytes] = {}
        self._least = 0
        self._highest = -1
        self._done = -1
        self._wanted: dict[Command, _Wanted] = {}
        self._under_way = 0
        self._number = 0
        self._retry: IDelayedCall | None = None
        self._killed = False

    # ------------------------------------------------------------------ the lab's interface

    def start(self, seq: int, value: bytes) -> None:
        """Propose `value` for instance `seq`; returns at once. Ignored if `seq` is below `min()`.

        Raises `ValueError` for a value that is too large.
        """
        text = encoded(value)
        if seq >= self.min():
            self._highest = max(self._highest, seq)
            if seq not in self._decided:
                self._want(("PROPOSE", seq, text))

    def status(self, seq: int) -> tuple[bool, bytes | None]:
        """Whether this peer knows `seq` to be decided, and the value; (False, None) for a forgotten instance."""
        value = self._decided.get(seq)
        return value is not None, value

    def done(self, seq: int) -> None:
        """Called by the program when it does not need the instances up to `seq` any more.

        An instance is forgotten when the programs of all peers do not need it.
        """
        if seq > self._done:
            self._done = seq
            self._want(("DONE", self.server.server_id, self._peers, seq))

    def max(self) -> int:
        """The highest instance that this peer knows of; -1: none."""
        return self._highest

    def min(self) -> int:
        """The lowest instance that is not forgotten: this peer knows that all peers are done with the lower ones."""
        return self._least

    def kill(self) -> Any:
        """Stop the peer. Returns None or a Deferred."""
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
        self._note_forgotten(self._application.least)
        for seq, text in self._application.decided.items():
            self._note_decided(seq, text)
        self._application.on_decided = partial(turn.call, self._note_decided)
        self._application.on_forgotten = partial(turn.call, self._note_forgotten)
        self._connect()

    def _note_decided(self, seq: int, text: str) -> None:
        self._highest = max(self._highest, seq)
        if seq >= self._least:
            self._decided[seq] = decoded(text)

    def _note_forgotten(self, least: int) -> None:
        self._least = max(self._least, least)
        self._decided = {seq: value for seq, value in self._decided.items() if seq >= self._least}

    # ------------------------------------------------------------------ commands to the server

    def _connect(self) -> None:
        self._connection = self.server.local_clients.connect(lambda _code, _text: self._connect_again())
        self._number = self._under_way = 0
        for wanted in self._wanted.values():
            wanted.number = 0

    def _connect_again(self) -> None:
        """Called when the session has ended, since this server was cut off for long: open another one.

        Commands that were under way may have run, and are sent again: they have no effect the second time.
        """
        if not self._killed:
            self._connection.disconnected()
            self._connect()
            self._ask()

    def _want(self, command: Command) -> None:
        self._wanted.setdefault(command, _Wanted())
        self._ask()

    def _ask(self) -> None:
        for command, wanted in list(self._wanted.items()):
            if self._under_way >= UNDER_WAY_MAX or self._killed:
                return
            if not wanted.number:
                self._number += 1
                wanted.number = self._number
                self._submit(command, wanted)

    def _submit(self, command: Command, wanted: _Wanted) -> None:
        self._under_way += 1
        answered = partial(self._answered, self._connection, command, wanted)
        self._connection.submit(wanted.number, command, answered)

    def _answered(self, connection: Any, command: Command, wanted: _Wanted, result: Result) -> None:
        if connection is not self._connection:
            return
        self._under_way -= 1
        if isinstance(result, Done) or result.code == "CONFLICT":
            self._wanted.pop(command, None)
            self._ask()
            return
        self._log.debug("{command} again: {text}", command=command[:2], text=result.text)
        if result.fate == "none":
            wanted.number = 0
        self._ask_later(command, wanted)

    def _ask_later(self, command: Command, wanted: _Wanted) -> None:
        """Send a refused command again after a pause: under its old number if it may have run, else under a new one."""
        if wanted.number:
            self._clock.callLater(RETRY_SECONDS, self._repeat, self._connection, command, wanted)
        elif self._retry is None and not self._killed:
            self._retry = self._clock.callLater(RETRY_SECONDS, self._ask_now)

    def _ask_now(self) -> None:
        self._retry = None
        self._ask()

    def _repeat(self, connection: Any, command: Command, wanted: _Wanted) -> None:
        if connection is self._connection and wanted.number and not self._killed:
            self._submit(command, wanted)


def make(peers: Sequence[str], me: int, reactor: Any, *, storage: str | os.PathLike[str] | None = None) -> Peer:
    """Start peer number `me` of the peers at these addresses ("127.0.0.1:7101", for UDP).

    `storage` is a directory of this peer's own. Raises `ConfigError` for a wrong address, `CannotListenError` if
    the port is in use.
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
    """Called when the server of a peer has stopped itself: log the reason.

    To the other peers the server has crashed, which they tolerate as long as a majority runs.
    """
    Peer._log.failure("this peer stops", failure)
