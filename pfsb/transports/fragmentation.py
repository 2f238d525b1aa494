"""IP fragments: a socket is told not to make any, and tells how large a datagram may be.

Linux, macOS and FreeBSD name these options differently. Python names only some of them; the numbers are those of the
header files.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from attrs import frozen

UDP_HEADER_BYTES: Final = 8
IPV4_HEADER_BYTES: Final = 20
IPV6_HEADER_BYTES: Final = 40


@frozen
class _Options:
    """The options of one operating system: (level, number, value) to forbid fragments, for each version of IP."""

    forbid_ipv4: tuple[int, int, int]
    forbid_ipv6: tuple[int, int, int]
    mtu_ipv4: tuple[int, int] | None = None
    """(level, number) of the option that tells the MTU towards the peer, with the IP header; None: the system has no
    such option."""
    mtu_ipv6: tuple[int, int] | None = None


_BY_SYSTEM: Final = {
    # IP_MTU_DISCOVER and IPV6_MTU_DISCOVER with the value PROBE: no fragments, and no belief in what routers say about
    # the size of packets, which any host can forge.
    "linux": _Options(
        (socket.IPPROTO_IP, 10, 3),
        (socket.IPPROTO_IPV6, 23, 3),
        (socket.IPPROTO_IP, 14),
        (socket.IPPROTO_IPV6, 24),
    ),
    # IP_DONTFRAG and IPV6_DONTFRAG.
    "darwin": _Options((socket.IPPROTO_IP, 28, 1), (socket.IPPROTO_IPV6, 62, 1)),
    "freebsd": _Options((socket.IPPROTO_IP, 67, 1), (socket.IPPROTO_IPV6, 62, 1)),
}


def _options() -> _Options | None:
    return next((options for name, options in _BY_SYSTEM.items() if sys.platform.startswith(name)), None)


def can_forbid_fragments() -> bool:
    """Whether this operating system can be told never to send datagrams in fragments."""
    return _options() is not None


def forbid_fragments(opened: socket.socket) -> None:
    """Tell the system never to send datagrams of this socket in fragments.

    Does nothing on a system without such an option. Raises OSError if the system refuses the option.
    """
    options = _options()
    if options is None:
        return
    opened.setsockopt(*(options.forbid_ipv6 if _is_ipv6(opened) else options.forbid_ipv4))
    if _is_ipv6(opened) and sys.platform.startswith("linux"):
        # IPV6_DONTFRAG: forbids fragments that this machine would make itself.
        opened.setsockopt(socket.IPPROTO_IPV6, 62, 1)


def datagram_limit(connected: socket.socket) -> int | None:
    """Size, in bytes, of the largest datagram that this machine sends over a connected socket; None: not known."""
    options = _options()
    mtu = None if options is None else options.mtu_ipv6 if _is_ipv6(connected) else options.mtu_ipv4
    if mtu is None:
        return None
    try:
        whole = connected.getsockopt(*mtu)
    except OSError:
        return None
    return whole - UDP_HEADER_BYTES - (IPV6_HEADER_BYTES if _is_ipv6(connected) else IPV4_HEADER_BYTES)


def _is_ipv6(opened: socket.socket) -> bool:
    return opened.family == socket.AF_INET6
