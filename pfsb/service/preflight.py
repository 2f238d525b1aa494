"""Checks before a server leaves the terminal, so that the operator sees what is wrong. See docs/operating.rst."""

from __future__ import annotations

import errno
import socket
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final

from pfsb.config.addresses import Address, listens_at
from pfsb.config.config import Config
from pfsb.support.hosts import literal, shown

LOOK_UP_SECONDS: Final = 5.0
"""How long, in seconds, the look-up of one name may take; a start does not wait any longer for a name server."""

_Found = tuple[Any, ...]
"""An element of the answer of `socket.getaddrinfo`."""


class PortInUse(Exception):
    """Raised if an address of this server is taken or cannot be used; the text is one line for a person."""


def refuse_used_ports(config: Config, server_id: int) -> None:
    """Raise `PortInUse` if a process listens already at an address of this server, or an address cannot be used.

    A host name at which the server shall receive from its peers is not refused if it has no address of this machine
    yet: the server looks the name up again and again while it runs.
    """
    server = config.server(server_id)
    path = f"{config.file}: servers.{server_id}"
    key = "peer" if server.listen is None else "listen"
    for kind in sorted({socket.SOCK_DGRAM if each == "udp" else socket.SOCK_STREAM for each in config.transports}):
        _try(kind, server.receives_at, f"{path}.{key}", may_come=literal(*server.receives_at) is None)
    for port, endpoint in server.endpoints.items():
        address = listens_at(endpoint)
        if address is not None:
            _try(socket.SOCK_STREAM, address, f"{path}.{port}", is_peer=False)


def _try(
    kind: socket.SocketKind, address: Address, place: str, *, may_come: bool = False, is_peer: bool = True
) -> None:
    """Bind the address for a moment, to see whether it is free. Raises `PortInUse`, whose text begins with `place`, if
    that fails.

    `is_peer` says whether the address is for the other servers. If `may_come` is True, it is no failure that the host
    has no address of this machine: it may get one later.
    """
    host, port = address
    try:
        family, _, protocol, _, where = _first_found(host, port, kind)
    except OSError as error:
        if may_come:
            return
        raise PortInUse(f"{place}: {host} cannot be found: {error.strerror or error}") from error
    with socket.socket(family, kind, protocol) as trial:
        if kind is socket.SOCK_STREAM:
            # Twisted sets this option, too: connections of an earlier process that are still being closed do not make
            # the port unusable.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(where)
        except OSError as error:
            if may_come and error.errno == errno.EADDRNOTAVAIL:
                return
            advice = _advice(error, port, is_peer)
            raise PortInUse(
                f"{place}: cannot listen at {shown(host or '*', port)}: {error.strerror}; {advice}"
            ) from error


def _advice(error: OSError, port: int, is_peer: bool) -> str:
    if error.errno != errno.EADDRNOTAVAIL:
        return "does the server run already?"
    if is_peer:
        return f'this machine has no such address, and listen: "0.0.0.0:{port}" beside peer would receive at all it has'
    return "this machine has no such address"


def _first_found(host: str, port: int, kind: socket.SocketKind) -> _Found:
    """The first address of a host. Raises OSError if there is none, or no answer for `LOOK_UP_SECONDS`.

    The look-up has a thread of its own, since nothing else can limit its time.
    """
    answers: SimpleQueue[list[_Found] | OSError] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE))
        except OSError as error:
            answers.put(error)
        except UnicodeError:
            answers.put(OSError("this can be no name of a host"))

    Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    try:
        found = answers.get(timeout=LOOK_UP_SECONDS)
    except Empty:
        raise OSError(f"no answer for {LOOK_UP_SECONDS:g} s") from None
    if isinstance(found, OSError):
        raise found
    return found[0]
