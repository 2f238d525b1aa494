"""Resident memory of a server with many keys and with many sessions."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks.compare.ours import Pfsb
from benchmarks.compare.system import Trouble
from benchmarks.memory import load, one_server, resident, shuffled_keys
from benchmarks.scale.point import MIB
from pfsb.bench.workload import Target
from pfsb.support.open_files import allow_many_files

TTL_SECONDS: Final = 600
"""Time to live of the sessions, in seconds: longer than the measurement, since the clients send nothing meanwhile."""
AT_ONCE: Final = 100
"""Number of sessions that are opened at the same time."""


def memory_over_keys(counts: Sequence[int], value_bytes: int) -> Iterator[tuple[int, float]]:
    """Write more and more keys to a cluster of one server; yields (number of keys, resident MiB) for each count."""
    keys = shuffled_keys(max(counts))
    with one_server() as (client, pid):
        done = 0
        for count in sorted(counts):
            load(client, keys[done:count], value_bytes)
            done = count
            yield count, resident(pid)


def memory_over_sessions(cluster: Pfsb, counts: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Open more and more sessions; yields (number of sessions, MiB of the largest server) for each count.

    Each session has a connection to the leader, and has run one command. Raises `Trouble` if a session is refused.
    """
    allow_many_files()
    [target] = cluster.probe().towards("leader")
    with ExitStack() as connections:
        done = 0
        for count in sorted(counts):
            for first in range(done, count, AT_ONCE):
                _open(target, range(first, min(first + AT_ONCE, count)), connections)
            done = count
            yield count, cluster.memory() / MIB


def _open(target: Target, numbers: Sequence[int], connections: ExitStack) -> None:
    opened = []
    for number in numbers:
        connection = connections.enter_context(socket.create_connection(target, timeout=60))
        connection.sendall(f"HELLO client-{number} ttl={TTL_SECONDS}\n#1 PUT session-{number} v\n".encode())
        opened.append(connection)
    for connection in opened:
        _expect_done(connection)


def _expect_done(connection: socket.socket) -> None:
    said = b""
    while b"#1 " not in said or not said.endswith(b"\n"):
        data = connection.recv(4096)
        if not data:
            raise Trouble(f"a session was refused: {said.decode()}")
        said += data
    if b"ERR" in said:
        raise Trouble(f"a session was refused: {said.decode()}")
