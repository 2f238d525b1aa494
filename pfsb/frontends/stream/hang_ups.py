"""How a server notices that a client is gone, also if it does not read the client's connection, or if the client's
machine vanishes."""

from __future__ import annotations

import select
import socket
from enum import Enum
from typing import Any, Final

PAUSED_LOOK_SECONDS: Final = 2.0
"""Time, in seconds, between two looks whether the client of a connection that is not read is still there."""

SILENCE_MS_MAX: Final = 25_000
"""How long, in milliseconds, sent data may stay unacknowledged by the client's machine, or the client with full buffers
may read nothing, before the kernel ends the connection."""
_OPTIONS: Final = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", SILENCE_MS_MAX),
)
"""Settings of TCP, each (socket option, its value).

With them a connection whose client's machine is gone ends within half a minute, so that its session can expire. The
first three are for a connection on which nothing is under way, the last one for all others: without it the kernel would
send again for a quarter of an hour.
"""
_READ_HANG_UP: Final[int] = getattr(select, "POLLRDHUP", 0)


class HangUp(Enum):
    """Ways in which a client leaves a connection."""

    CLOSED_ITS_SIDE = "closed its side"
    """The client sends nothing more, and may still read."""
    GONE = "gone"


def notice_vanished_machine(transport: Any) -> None:
    """Lets the kernel end the connection when the client's machine does not answer any more.

    Does nothing for a Unix socket, whose ends are on one machine.
    """
    if transport.getHandle().family not in (socket.AF_INET, socket.AF_INET6):
        return
    transport.setTcpKeepAlive(True)
    for option, value in _OPTIONS:
        if hasattr(socket, option):
            transport.getHandle().setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def hang_up_of(transport: Any) -> HangUp | None:
    """The way in which the client has left this connection, found also while the transport is not read. None if the
    client has not left it, and where that cannot be told: if the transport is no socket, or was closed by this
    server."""
    try:
        poll = select.poll()
        poll.register(transport.getHandle().fileno(), _READ_HANG_UP)
        seen = dict(poll.poll(0)).popitem()[1]
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None
    if seen & (select.POLLHUP | select.POLLERR):
        return HangUp.GONE
    return HangUp.CLOSED_ITS_SIDE if seen & _READ_HANG_UP else None
