"""Addresses in a configuration: `host:port` of peers, and Twisted's endpoint strings for clients."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import define
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString

from pfsb.config.yaml_file import Place, quoted
from pfsb.support.hosts import HOST_AND_PORT, PORT_MAX, host_in, is_host, is_ip, is_port, shown

Address = tuple[str, int]
"""(host, port)"""

BACKLOG: Final = 4_096
"""Maximum number of connections that may wait at a port to be accepted: as many as Linux allows by default.

A client that finds this queue full tries again a second later. With Twisted's default of 50, 5,000 clients that
reconnected together took 50 seconds.
"""

_PEER: Final = '(example: "127.0.0.1:7402")'
_LISTEN: Final = '(example: "0.0.0.0:7402")'
_ENDPOINT: Final = '(example: "tcp:9402:interface=127.0.0.1")'
EVERY_INTERFACE: Final = ("", "0.0.0.0", "::")
"""Hosts that mean all addresses of a machine: a server can listen there, but no peer or client can connect to them."""


def peer_address(place: Place) -> Address:
    """Parse the address of a peer: `host:port`, or `[host]:port` for an IPv6 address."""
    address = _host_and_port(place, _PEER)
    if address[0] in EVERY_INTERFACE:
        raise place.wrong(f"{quoted(place.text())} is nowhere that the other servers could send to {_PEER}")
    return address


def listening_address(place: Place) -> Address:
    """Parse the address where a server receives from its peers: an IP address and a port. It may be a wildcard."""
    address = _host_and_port(place, _LISTEN)
    if not (is_ip(address[0], 4) or is_ip(address[0], 6)):
        raise place.wrong(f"{quoted(place.text())} has a name where an IP address must be {_LISTEN}")
    return address


def host_name(place: Place) -> str:
    """Parse a name of a host, without a port."""
    name = place.text()
    if not is_host(name):
        raise place.wrong(f'{quoted(name)} is no name of a host (example: "pfsb.example.com")')
    return name


def _host_and_port(place: Place, example: str) -> Address:
    text = place.text()
    match = HOST_AND_PORT.fullmatch(text)
    if not match:
        raise place.wrong(f"{quoted(text)} is no address {example}")
    if not match["port"]:
        raise place.wrong(f"{quoted(text)} has no port {example}")
    if not is_port(match["port"][1:]):
        raise place.wrong(f"{quoted(text)} has no port from 1 to 65535 {example}")
    host = host_in(match)
    if host is None:
        raise place.wrong(f"{quoted(text)} names no host {example}")
    return host, int(match["port"][1:])


def endpoint_string(place: Place) -> str:
    """Check that a value is an endpoint string at which Twisted can listen, without listening; returns the string."""
    text = place.text()
    try:
        address = listens_at(text)
    except Exception:  # parsers of endpoint plugins raise exceptions of any kind, KeyError and RuntimeError too
        raise place.wrong(f"{quoted(text)} is no endpoint that Twisted knows {_ENDPOINT}") from None
    if address is not None and not 1 <= address[1] <= PORT_MAX:
        raise place.wrong(f"{quoted(text)} has no port from 1 to 65535 {_ENDPOINT}")
    return text


def with_backlog(endpoint: str) -> str:
    """Add `BACKLOG` to a TCP endpoint that does not set a backlog itself."""
    if re.match(r"(tcp6?|ssl|tls):", endpoint) and ":backlog=" not in endpoint:
        return f"{endpoint}:backlog={BACKLOG}"
    return endpoint


def below_tls(endpoint: str) -> str | None:
    """The TCP endpoint string below a `tls:` one, which takes the same options; None for any other endpoint string."""
    head, colon, rest = endpoint.partition(":")
    return f"tcp{'6' if head == 'tls6' else ''}:{rest}" if colon and head in ("tls", "tls6") else None


def listening_place(endpoint: str, host: str) -> Address | str:
    """The place at which the endpoint string `endpoint` of the server on `host` listens: (host, port), or a text if the
    endpoint has no port. Two endpoints with equal places collide.

    For an endpoint on all interfaces of the machine, the host of the place is `host`; so it is for one on the loopback
    interface, if `host` is another address. For servers on two different hosts may both use such a port.
    """
    address = listens_at(endpoint)
    if address is None:
        return f"{endpoint} on {host}"
    interface, port = address
    return place_on(interface, port, host)


def place_on(interface: str, port: int, host: str) -> Address:
    """The (host, port) that tells the place of a server which is advertised at `host` and listens at `interface`.

    The host is `interface`, if that is one address of the machine. It is `host` if the server listens at all
    interfaces, or at the loopback interface while it is advertised at another address: see `listening_place`.
    """
    own = interface in EVERY_INTERFACE or (_is_loopback(interface) and not _is_loopback(host))
    return (host if own else interface), port


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def listens_at(endpoint: str) -> Address | None:
    """The (interface, port) where a TCP endpoint listens, or one with TLS on it, with "" for all interfaces; None for
    other endpoints.

    Raises exceptions of any kind for texts that are no endpoint.
    """
    noting = _Noting()
    found = serverFromString(noting, below_tls(endpoint) or endpoint)
    if isinstance(found, TCP4ServerEndpoint | TCP6ServerEndpoint):
        found.listen(None)
    return noting.address


@define
class _Noting:
    """Stands in for a reactor, to learn where an endpoint would listen without listening there."""

    address: Address | None = None

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        self.address = (interface, port)


def refuse_shared(places: Iterable[tuple[Place, Address | str]]) -> None:
    """Raise `ConfigError` if two of these places in the configuration give the same address.

    The error names both places.
    """
    owners: dict[Address | str, Place] = {}
    for place, address in places:
        if address in owners:
            text = address if isinstance(address, str) else shown(*address)
            raise place.wrong(f"{quoted(text)} is already the address of {'.'.join(owners[address].path)}")
        owners[address] = place
