"""Addresses of sockets: how one address is written in one way, compared with others, and bound or sent from."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from attrs import frozen

FAMILIES = (socket.AF_INET, socket.AF_INET6)


def canonical(host: str) -> str:
    """One way to write an IP address: without a scope, and as IPv4 if it is IPv4 in IPv6. Raises ValueError."""
    return str(_ip(host))


def _ip(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@frozen(slots=False)
class SocketAddress:
    """The IP address and port of a socket, so that nothing has to be looked up to use it."""

    family: socket.AddressFamily
    where: tuple[Any, ...]
    """The address as `socket.connect` takes it; host and port come first."""

    @cached_property
    def host(self) -> str:
        """The IP address, as `canonical` writes it."""
        return canonical(str(self.where[0]))

    @property
    def shown(self) -> str:
        """The address as a person writes it, such as 127.0.0.1:7400 or [::1]:7400."""
        return shown(str(self.where[0]), self.where[1])

    @property
    def interface(self) -> str:
        """The IP address as `listenUDP` takes it, with the scope of a link-local address."""
        host = str(self.where[0])
        scope = self.where[3] if len(self.where) > 3 else 0
        return f"{host}%{scope}" if scope and "%" not in host else host

    @property
    def is_wildcard(self) -> bool:
        """Whether this stands for all addresses of a machine, so that nothing can be sent from or to it."""
        return _ip(self.host).is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether only processes on the same machine can reach this address."""
        return _ip(self.host).is_loopback

    def source_for(self, other: SocketAddress) -> tuple[Any, ...] | None:
        """The address that datagrams to `other` come from if a server listens here, with port 0 for any port.

        None leaves the choice to the kernel: for a wildcard, and where nothing can be sent from this address to the
        other one, since they are of different IP versions, or this one is a loopback address and the other is not.
        """
        if self.is_wildcard or self.family != other.family or (self.is_loopback and not other.is_loopback):
            return None
        return (self.where[0], 0, *self.where[2:])


def shown(host: str, port: int) -> str:
    """A host and a port as a person writes them: with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses_of(found: Iterable[tuple[Any, ...]]) -> tuple[SocketAddress, ...]:
    """The addresses in an answer of `socket.getaddrinfo`, in their order, each once."""
    each = (SocketAddress(row[0], row[4]) for row in found if row[0] in FAMILIES)
    return tuple(dict.fromkeys(each))


def literal(host: str, port: int) -> SocketAddress | None:
    """The address of a host that is written as an IP address; None for a name, which has to be looked up."""
    try:
        canonical(host)
    except ValueError:
        return None
    try:
        [found, *_] = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return None
    return SocketAddress(found[0], found[4])
