"""Hosts: how names are looked up, and how addresses of sockets are written, compared, bound and sent from."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from threading import Thread
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

FAMILIES = (socket.AF_INET, socket.AF_INET6)
PORT_MAX = 65_535
HOST_AND_PORT = re.compile(r"(?:\[(?P<ip6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?P<port>:[^:]*)?")
"""The form of `host:port`, or `[host]:port` for an IPv6 address, with or without the port; its parts may be wrong."""


def is_of_one_machine(host: str) -> bool:
    """Whether a host can be the address of one machine: a name, or an IP address that is not for all machines of a
    group, or for none."""
    try:
        address = _ip(host)
    except ValueError:
        return True
    return not (address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255")


def canonical(host: str) -> str:
    """An IP address in the one form in which addresses are compared: without a scope, and as IPv4 if it is IPv4 in
    IPv6.

    Raises ValueError if `host` is no IP address.
    """
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
        """Whether this address stands for all addresses of a machine, so that nothing can be sent from or to it."""
        return _ip(self.host).is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether only processes on the same machine can reach this address."""
        return is_loopback(self.host)

    def source_for(self, other: SocketAddress) -> tuple[Any, ...] | None:
        """The address from which to send datagrams to `other` if a server listens here. Its port is 0, which stands for
        any port.

        None leaves the choice to the kernel: if this address is a wildcard, and if nothing can be sent from it to
        `other`, since they are of different IP versions, or this one is a loopback address and the other is not.
        """
        if self.is_wildcard or self.family != other.family or (self.is_loopback and not other.is_loopback):
            return None
        return (self.where[0], 0, *self.where[2:])


def bracketed(host: str) -> str:
    """A host as it stands before a port: with brackets around an IPv6 address."""
    return f"[{host}]" if ":" in host else host


def shown(host: str, port: int) -> str:
    """A host and a port as a person writes them: with brackets around an IPv6 address."""
    return f"{bracketed(host)}:{port}"


def parsed(text: str) -> tuple[str, int] | None:
    """The (host, port) in an address as a person writes it: `host:port`, or `[host]:port` for an IPv6 address.

    None: the text is no such address.
    """
    match = HOST_AND_PORT.fullmatch(text)
    if match is None or not match["port"] or not is_port(match["port"][1:]):
        return None
    host = host_in(match)
    return None if host is None else (host, int(match["port"][1:]))


def host_in(match: re.Match[str]) -> str | None:
    """The host in a text that matches `HOST_AND_PORT`; None: there is none, or it is no host."""
    name, ip6 = match["host"], match["ip6"]
    if ip6 is not None:
        return ip6 if is_ip(ip6, 6) else None
    return name if is_host(name) else None


def is_port(text: str) -> bool:
    """Whether a text is a port from 1 to `PORT_MAX`, in digits."""
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 1 <= int(text) <= PORT_MAX


def is_host(text: str) -> bool:
    """Whether a text is an IPv4 address, or may be the name of a host."""
    if re.fullmatch(r"[0-9.]+", text):
        return is_ip(text, 4)
    return bool(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", text))


def is_loopback(host: str) -> bool:
    """Whether a text is an IP address that only processes on the same machine can reach."""
    try:
        return _ip(host).is_loopback
    except ValueError:
        return False


def is_ip(text: str, version: int) -> bool:
    """Whether a text is an IP address of this version, 4 or 6."""
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def addresses_of(found: Iterable[tuple[Any, ...]]) -> tuple[SocketAddress, ...]:
    """The addresses in `found`, an answer of `socket.getaddrinfo`, in their order, each once."""
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


LookUp = Callable[[str, int], "Deferred[tuple[SocketAddress, ...]]"]
"""Function of (host, port) that looks up a host's addresses without blocking.

The Deferred that it returns may fire late or never. It fails with an exception whose text tells why there is none.
"""


def is_far(addresses: tuple[SocketAddress, ...]) -> bool:
    """Whether these are addresses of a server that other machines can reach: there are some, and none is loopback."""
    return bool(addresses) and not any(each.is_loopback for each in addresses)


def is_near(addresses: tuple[SocketAddress, ...]) -> bool:
    """Whether these are addresses of a server that no other machine can reach: there are some, and all are loopback."""
    return bool(addresses) and all(each.is_loopback for each in addresses)


def loopback_warning(server_id: int, own: tuple[str, int], far: str) -> str:
    """The text for an operator whose server has a loopback address while other servers have none.

    `own` is the server's (host, port) in the configuration, and `far` says where one of the others is.
    """
    host, port = own
    if literal(host, port) is None:
        advice = f'give "{host}" its address in /etc/hosts, or add listen: "0.0.0.0:{port}" to servers.{server_id}'
    else:
        advice = f"servers.{server_id}.peer must be where the others reach it"
    return (
        f'server {server_id}: the host "{host}" is a loopback address on this machine, so a server here that listens '
        f"at it cannot be reached by the others, while {far} is none: {advice}"
    )


def look_up_in_threads(reactor: Any) -> LookUp:
    """Make the `LookUp` of a real server: the system's resolver, each time in a thread of its own.

    The threads of Twisted's resolver would not do: the reactor waits for them at its shutdown, so a name server that
    does not answer would keep a server from stopping.
    """

    def look_up(host: str, port: int) -> Deferred[tuple[SocketAddress, ...]]:
        answer: Deferred[tuple[SocketAddress, ...]] = Deferred()

        def work() -> None:
            try:
                found = addresses_of(socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM))
            except Exception as error:  # OSError, or UnicodeError for a name that cannot be one
                reactor.callFromThread(answer.errback, Failure(error))
            else:
                reactor.callFromThread(answer.callback, found)

        try:
            Thread(target=work, name=f"look up {shown(host, port)}", daemon=True).start()
        except RuntimeError as error:  # no thread can be started
            return fail(OSError(str(error)))
        return answer

    return look_up
