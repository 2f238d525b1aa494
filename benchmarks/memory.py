"""Memory for a million keys, and for their snapshot: `python -m benchmarks.memory --help`.

Two processes are measured: one that has only the application kv; and a whole server, which gets the same keys from a
client over its socket, and has the protocol, the sessions and the storage as well.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import eq
from pathlib import Path
from random import Random
from typing import Final

from pfsb.applications.key_value import KeyValue
from pfsb.demo.processes import server_command, write_config
from pfsb.sessions.cluster_settings import ClusterSettings

KEYS_AT_ONCE: Final = 200
COMMANDS_AT_ONCE: Final = 8
MIB: Final = 1 << 20
UP_SECONDS: Final = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and snapshots of kv with many keys.")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--part", choices=("application", "server"), help="measure this one only (default: both)")
    options = parser.parse_args()
    print(f"{options.keys} keys of 16 bytes in random order, values of {options.value_bytes} bytes")
    if options.part != "server":
        application(options.keys, options.value_bytes)
    if options.part != "application":
        server(options.keys, options.value_bytes)


def shuffled_keys(count: int) -> list[str]:
    keys = [f"key:{number:012d}" for number in range(count)]
    Random(1).shuffle(keys)
    return keys


def value_of(key: str, size: int) -> str:
    """A value of `size` characters. Each is a string of its own, as values that come from a socket are."""
    return (key * (size // len(key) + 1))[:size]


class Revision:
    """The part of an `IContext` that the application kv needs."""

    revision = 0
    quotas = ClusterSettings(members=(0,), apps=(("kv", 1),), kv_bytes=2**50)


def application(keys: int, value_bytes: int) -> None:
    """Measure the application alone: write all keys, read pages of rows, make the pieces of a snapshot, and restore
    them in a second application beside the first one, as a server does that fetches a snapshot."""
    print("application:")
    before = resident(os.getpid())
    kv, context = KeyValue(), Revision()
    began = time.perf_counter()
    for key in shuffled_keys(keys):
        context.revision += 1
        kv.execute(("PUT", key.encode(), value_of(key, value_bytes).encode()), context)  # type: ignore[arg-type]
    report("PUT of all", began, before)
    assert kv.used() == keys * (16 + value_bytes), "a command was refused"
    began = time.perf_counter()
    for number in range(0, keys, max(keys // 100, 1)):
        kv.query(("RANGE", b"key:%012d" % number, b"", 100))
    report("100 pages of 100 rows", began, before)
    began = time.perf_counter()
    size = sum(map(len, kv.freeze()))
    report(f"snapshot of {size / MIB:.0f} MiB", began, before)
    began = time.perf_counter()
    other = KeyValue()
    for piece in kv.freeze():
        other.take_piece(piece)
    other.pieces_end()
    report("snapshot, and restore beside", began, before)
    assert all(map(eq, kv.freeze(), other.freeze())), "a restored server is the same"


def server(keys: int, value_bytes: int) -> None:
    """Measure a cluster of one server that writes to disk; it gets the keys by MSET of the Redis protocol."""
    print("server:")
    shuffled = shuffled_keys(keys)
    with one_server() as (client, pid):
        before = resident(pid)
        began = time.perf_counter()
        load(client, shuffled, value_bytes)
        report("MSET of all", began, before, pid)


@contextmanager
def one_server() -> Iterator[tuple[socket.socket, int]]:
    """Run a cluster of one server. Yields a connection to the server and the server's process id."""
    with tempfile.TemporaryDirectory() as directory:
        config = write_config(Path(directory) / "one.yaml", 1, Random())
        command = server_command("--id", "0", "--config", "one.yaml")
        with open(Path(directory) / "server.log", "wb") as log:
            process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        try:
            with connected(int(config.server(0).client.split(":")[1])) as client:
                yield client, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def load(client: socket.socket, keys: list[str], value_bytes: int) -> None:
    """Write keys to a server, with at most `COMMANDS_AT_ONCE` commands under way."""
    replies = client.makefile("rb")
    waiting = 0
    for command in commands(keys, value_bytes):
        client.sendall(command)
        waiting += 1
        if waiting == COMMANDS_AT_ONCE:
            expect_ok(replies.readline())
            waiting -= 1
    for _ in range(waiting):
        expect_ok(replies.readline())


def commands(keys: list[str], value_bytes: int) -> Iterator[bytes]:
    """MSET commands that write these keys."""
    for first in range(0, len(keys), KEYS_AT_ONCE):
        words = [text for key in keys[first : first + KEYS_AT_ONCE] for text in (key, value_of(key, value_bytes))]
        parts = [f"${len(word)}\r\n{word}\r\n" for word in ("MSET", *words)]
        yield f"*{len(parts)}\r\n{''.join(parts)}".encode()


def expect_ok(reply: bytes) -> None:
    if reply != b"+OK\r\n":
        sys.exit(f"the server has answered {reply.decode(errors='replace')!r}")


def connected(port: int) -> socket.socket:
    """A connection to a server that may still be starting."""
    deadline = time.perf_counter() + UP_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except OSError:
            if time.perf_counter() > deadline:
                raise
            time.sleep(0.1)


def report(what: str, began: float, before: float, pid: int | None = None) -> None:
    took, now = time.perf_counter() - began, resident(pid or os.getpid())
    print(
        f"  {what:<28} {took:7.2f} s, {now:6.0f} MiB resident ({now - before:.0f} more), at most {peak(pid):.0f} so far"
    )


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    return _status(pid, "VmRSS")


def peak(pid: int | None) -> float:
    """Largest resident memory of a process so far, in MiB; None: this process."""
    return _status(pid or os.getpid(), "VmHWM")


def _status(pid: int, name: str) -> float:
    """The value of one line in a process's status file in Linux's /proc, such as VmRSS, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


if __name__ == "__main__":
    main()
