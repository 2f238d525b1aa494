"""The load client of `pfsb bench` for machines without a C compiler: load.c in Python, with equal input and output.

    python -m pfsb.bench.plain_load < workload

On a machine that it shares with the servers, this program may take so much CPU time that it slows them down; therefore
the report shows how much it takes.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time
from collections import deque
from random import Random
from typing import Any, Final, NoReturn, TextIO

from attrs import define, field

from pfsb.bench.histogram import Histogram
from pfsb.bench.workload import CONNECTION, KEY, Operation, Workload
from pfsb.support.open_files import allow_many_files

_READ_BYTES: Final = 262_144


def read_workload(text: TextIO) -> Workload:
    """Read a workload from the text that `Workload.render` has made."""
    settings: dict[str, Any] = {}
    targets: list[tuple[str, int]] = []
    operations: list[Operation] = []
    for line in text:
        name, _, value = line.rstrip("\n").partition(" ")
        if name == "end":
            break
        if name == "target":
            host, port = value.split()
            targets.append((host, int(port)))
        elif name == "operation":
            weight, steps = map(int, value.split())
            operations.append(Operation(weight, tuple(next(text).rstrip("\n") for _ in range(steps))))
        elif name == "token":
            settings[name] = value
        else:
            settings[name] = float(value) if name in ("seconds", "warmup", "rate", "limit") else int(value)
    return Workload(targets, operations, **settings)


def fail(why: str) -> NoReturn:
    """Print why the run has failed, and end the program with status 2."""
    print(why, file=sys.stderr)
    raise SystemExit(2)


@define(eq=False)
class Connection:
    """A socket, the operations under way on it (oldest first), and the bytes that could not be sent yet."""

    socket: socket.socket
    index: int
    under_way: deque[tuple[int, int, int]] = field(factory=deque)
    """For each operation under way: (when it began, in nanoseconds; index of the operation in the workload; index of
    the line that was sent last)."""
    out: bytearray = field(factory=bytearray)
    partial: bytes = b""


class Loop:
    """Runs one workload: as a closed loop, in which each answer lets the next operation begin, or as an open loop, in
    which operations begin at a given rate."""

    def __init__(self, workload: Workload, dice: Random) -> None:
        self._workload = workload
        self._dice = dice
        self._weights = [operation.weight for operation in workload.operations]
        self._selector = selectors.DefaultSelector()
        self._next_key = 0
        self._issued = 0
        self._measuring = False
        self.under_way = 0
        self.errors = 0
        self.missed = 0
        self._due = 0
        self._next_connection = 0
        self.first_error = ""
        self.histogram = Histogram()
        self._connections = [self._open(index) for index in range(workload.connections)]
        self._strangers = set(range(workload.connections))
        """Indexes of the connections on which no answer has come yet."""

    def run(self) -> dict[str, Any]:
        """Run the workload, printing `begin` and `end`; returns the result, which the caller prints as JSON."""
        workload = self._workload
        started = time.perf_counter()
        if workload.count:
            begun, cpu_begun = self._begin()
        for connection in self._connections if not workload.rate else ():
            for _ in range(workload.depth):
                self._begin_one(connection, time.perf_counter_ns())
            self._flush(connection)
        if workload.count:
            while self.under_way:
                self._poll(self._left(started))
        else:
            self._run_until(started + workload.warmup, started)
            while self._strangers and not workload.rate:
                self._poll(self._left(started))
            begun, cpu_begun = self._begin()
            self._run_until(begun + workload.seconds, started)
        seconds, cpu_seconds = time.perf_counter() - begun, _cpu_seconds() - cpu_begun
        print("end", flush=True)
        return {
            "client": "python",
            "operations": self.histogram.total,
            "errors": self.errors,
            "missed": self.missed,
            "first_error": self.first_error,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "histogram": self.histogram.counts(),
        }

    def _run_until(self, end: float, started: float) -> None:
        while (left := end - time.perf_counter()) > 0:
            self._poll(min(left, self._begin_due(started)) if self._workload.rate else left)

    def _begin_due(self, started: float) -> float:
        """Open loop: begin the operations that have become due; returns the seconds until the next one is due."""
        rate = self._workload.rate
        wanted = int((time.perf_counter() - started) * rate)
        touched = {}
        while self._due < wanted:
            connection = self._next_with_room()
            if connection is None:
                self.missed += (wanted - self._due) * self._measuring
                self._due = wanted
                break
            self._due += 1
            self._begin_one(connection, int((started + self._due / rate) * 1e9))
            touched[connection.index] = connection
        for connection in touched.values():
            self._flush(connection)
        return max(0.0, started + (self._due + 1) / rate - time.perf_counter())

    def _next_with_room(self) -> Connection | None:
        """The next connection, in turn, that has room; None if all have `depth` operations under way."""
        for _ in self._connections:
            connection = self._connections[self._next_connection]
            self._next_connection = (self._next_connection + 1) % len(self._connections)
            if len(connection.under_way) < self._workload.depth:
                return connection
        return None

    def _begin(self) -> tuple[float, float]:
        self._measuring = True
        print("begin", flush=True)
        return time.perf_counter(), _cpu_seconds()

    def _left(self, started: float) -> float:
        left = started + self._workload.limit - time.perf_counter()
        if left <= 0:
            fail(f"not done within {self._workload.limit:g} seconds: {self.under_way} under way")
        return left

    def _open(self, index: int) -> Connection:
        host, port = self._workload.targets[index % len(self._workload.targets)]
        try:
            opened = socket.create_connection((host, port))
        except OSError as error:
            fail(f"{host} port {port}: {error}")
        if self._workload.token is not None:
            self._show(opened, self._workload.token)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        connection = Connection(opened, index)
        self._selector.register(opened, selectors.EVENT_READ, connection)
        return connection

    def _show(self, opened: socket.socket, token: str) -> None:
        """Show the token on a new connection, and wait until the server has taken it."""
        opened.settimeout(self._workload.limit)
        try:
            opened.sendall(f"AUTH {token}\n".encode())
            # The file buffers nothing that comes behind the reply, since nothing was asked for yet.
            lines = (line.rstrip() for line in opened.makefile("r", encoding="utf-8"))
            reply = next((line for line in lines if line.startswith(("OK", "ERR"))), "ERR the connection was closed")
        except OSError:
            fail("a server has not answered AUTH")
        if reply.startswith("ERR"):
            fail(f"a server said: {reply}")

    def _poll(self, seconds: float) -> None:
        for key, events in self._selector.select(min(seconds, 0.1)):
            if events & selectors.EVENT_WRITE:
                self._flush(key.data)
            if events & selectors.EVENT_READ:
                self._serve(key.data)

    def _serve(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            fail(f"a server closed a connection{self.first_error and ', after: '}{self.first_error}")
        *lines, connection.partial = (connection.partial + data).split(b"\n")
        now = time.perf_counter_ns()
        for line in lines:
            if line.startswith((b"OK", b"ERR")):
                self._replied(connection, line, now)
        self._flush(connection)

    def _replied(self, connection: Connection, line: bytes, now: int) -> None:
        if not connection.under_way:
            fail(f"a server said, without being asked: {line.decode()}")
        self._strangers.discard(connection.index)
        begun, operation, step = connection.under_way.popleft()
        if line.startswith(b"ERR"):
            self.errors += self._measuring
            self.first_error = self.first_error or line.decode()
        elif step + 1 < len(self._workload.operations[operation].steps):
            self._put_step(connection, begun, operation, step + 1)
            return
        elif self._measuring:
            self.histogram.add(now - begun)
        self.under_way -= 1
        if not self._workload.rate:
            self._begin_one(connection, now)

    def _begin_one(self, connection: Connection, now: int) -> None:
        if self._workload.count and self._issued >= self._workload.count:
            return
        [operation] = self._dice.choices(range(len(self._weights)), self._weights)
        self._issued += 1
        self.under_way += 1
        self._put_step(connection, now, operation, 0)

    def _put_step(self, connection: Connection, begun: int, operation: int, step: int) -> None:
        connection.under_way.append((begun, operation, step))
        text = self._workload.operations[operation].steps[step]
        line = text.replace(KEY, f"{self._key():08}").replace(CONNECTION, f"{connection.index:08}")
        connection.out += line.encode() + b"\n"

    def _key(self) -> int:
        self._next_key += 1
        return (self._next_key - 1) % self._workload.keys if self._workload.sequential else self._random_key()

    def _random_key(self) -> int:
        return self._dice.randrange(self._workload.keys)

    def _flush(self, connection: Connection) -> None:
        try:
            del connection.out[: connection.socket.send(connection.out)]
        except BlockingIOError:
            pass
        except OSError as error:
            fail(f"a connection broke: {error}")
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
        if self._selector.get_key(connection.socket).events != wanted:
            self._selector.modify(connection.socket, wanted, connection)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the workload on standard input and print the result."""
    workload = read_workload(sys.stdin)
    allow_many_files()
    print(json.dumps(Loop(workload, Random()).run()))


if __name__ == "__main__":
    main()
