"""Writes to a connection without waiting for the reactor, where that is possible."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def write_now(transport: Any, data: bytes) -> None:
    """Writes `data` to the socket at once, if the transport has nothing else to send.

    `transport.write` waits until the reactor says that the socket can be written. That costs two system calls and an
    iteration of the reactor for each write: 12 us of the 70 us that a command costs where clients do not pipeline. Data
    that cannot be sent at once, and every error, is left to `transport.write`.
    """
    if (
        isinstance(transport, Connection)
        and not transport.TLS
        and transport.connected
        and not transport.disconnecting
        and not transport._tempDataBuffer
        and transport.offset == len(transport.dataBuffer)
    ):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            data = data[sent:]
    if data:
        transport.write(data)
