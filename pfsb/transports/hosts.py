"""Addresses of servers: host names are looked up once, and datagrams are told by the address that they come from."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from typing import Any

from attrs import frozen


class UnknownHost(Exception):
    """Raised if a server's host name has no address; the text is one line for a person."""


def canonical(host: str) -> str:
    """One way to write an IP address: without a scope, and as IPv4 if it is IPv4 in IPv6. Raises ValueError."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


@frozen
class ServerAddress:
    """A server's address with its host name resolved, so that it needs no further look-up."""

    family: socket.AddressFamily
    where: tuple[Any, ...]
    """The address as `socket.connect` takes it; host and port come first."""
    hosts: frozenset[str]
    """All IP addresses of the host name, as `canonical` writes them."""

    @classmethod
    def find(cls, server_id: int, host: str, port: int) -> ServerAddress:
        """Look up the address of a host; blocks. Raises `UnknownHost`."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise UnknownHost(f'server {server_id}: the host "{host}" has no address: {error}') from error
        family, _, _, _, where = found[0]
        return cls(family, where, frozenset(canonical(str(each[4][0])) for each in found))

    @property
    def is_wildcard(self) -> bool:
        """Whether this stands for all addresses of a machine, so that nothing can be sent from or to it."""
        return ip_address(canonical(str(self.where[0]))).is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether this stands for this machine itself: no network is in between."""
        return ip_address(canonical(str(self.where[0]))).is_loopback

    def source_for(self, other: ServerAddress) -> tuple[Any, ...] | None:
        """The address that datagrams from this server to `other` come from, with port 0 for any port.

        None leaves the choice to the kernel: for a wildcard, and for a peer of the other IP version, to which nothing
        can be sent from this address.
        """
        if self.is_wildcard or self.family != other.family:
            return None
        return (self.where[0], 0, *self.where[2:])

    def is_source(self, host: str) -> bool:
        """Whether a datagram from this IP address may come from this server."""
        if host in self.hosts or self.is_wildcard:
            return True
        try:
            return canonical(host) in self.hosts
        except ValueError:
            return False
