"""Checks before a server leaves the terminal, so that the operator sees what is wrong. See docs/operating.rst."""

from __future__ import annotations

import socket

from pfsb.config.addresses import Address, listens_at
from pfsb.config.config import Config


class PortInUse(Exception):
    """Raised if an address of this server is taken or cannot be used; the text is one line for a person."""


def refuse_used_ports(config: Config, server_id: int) -> None:
    """Raise `PortInUse` if a process listens already at an address of this server, or an address cannot be used."""
    server = config.server(server_id)
    path = f"{config.file}: servers.{server_id}"
    _try(socket.SOCK_DGRAM, server.peer, f"{path}.peer")
    for port, endpoint in (("client", server.client), ("http", server.http)):
        address = None if endpoint is None else listens_at(endpoint)
        if address is not None:
            _try(socket.SOCK_STREAM, address, f"{path}.{port}")


def _try(kind: socket.SocketKind, address: Address, place: str) -> None:
    host, port = address
    try:
        found = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise PortInUse(f"{place}: {host} cannot be found: {error.strerror}") from error
    family, _, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as trial:
        if kind is socket.SOCK_STREAM:
            # Twisted sets this option, too: connections of an earlier process that are still being closed do not make
            # the port unusable.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(where)
        except OSError as error:
            raise PortInUse(
                f"{place}: cannot listen at {host or '*'}:{port}: {error.strerror}; does the server run already?"
            ) from error
