"""A bare cluster: the hops and the forced writes of a command with three servers, and nothing else.

A command goes the way that every protocol with a leader needs: its line to the leader, a datagram to each follower, a
forced write at every server, a datagram back from each follower, and the answer when a majority has written. There are
no checks, no retransmissions, no state and no Twisted. So the rates of this cluster are what is left for a server in
Python on this machine, and pfsb's rates can be read as shares of them.

Lines that arrive together share a datagram and a write, as in pfsb. Writes go into a file of zeros, whose size does not
change, since that is the quickest way to force data to disk.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from attrs import define, field, frozen

from benchmarks.processes import heard, process
from benchmarks.ways_to_write import BLOCK_BYTES, BUFFER_BYTES, Way, make_file
from pfsb.bench.client import LoadClient, LoadResult, client_command
from pfsb.bench.machine import cpu_seconds_of_all
from pfsb.bench.workload import Workload, operations

HOST: Final = "127.0.0.1"
REPLY: Final = b"OK revision=1234567\n"
SERVERS: Final = 3
MAJORITY: Final = SERVERS // 2 + 1
GROUP_BYTES_MAX: Final = 48_000
"""Maximum size of the lines that share a datagram, in bytes; as much as pfsb puts into a proposal."""
LOG_BYTES: Final = 32 * 2**20
"""Size of the file that is written into; when it is full, it is written from its beginning again."""
_READ_BYTES: Final = 65_536


class Disk(Enum):
    """The part of a server that forces a group of commands to disk."""

    NONE = "nobody"
    LOOP = "the loop"
    WRITER_SENDS = "a thread, which sends"
    WRITER_WAKES = "a thread, which wakes the loop"


Writer = Disk | type[Way]
"""The part that forces groups to disk. A `Way` is used by the loop, for one group at a time."""
Then = Callable[[], None]


class Log:
    """The file of zeros into which a server of the bare cluster writes. Each write is on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(self._file, bytes(LOG_BYTES))
        os.fsync(self._file)
        self._end = 0

    def force(self, data: bytes) -> None:
        if self._end + len(data) > LOG_BYTES:
            self._end = 0
        os.pwritev(self._file, [data], self._end, os.RWF_DSYNC)
        self._end += len(data)


class Loop:
    """Waits for sockets, and forces groups to disk in the way that `disk` says."""

    def __init__(self, disk: Writer, path: Path) -> None:
        self._disk = disk
        self._epoll = select.epoll()
        self._ready: dict[int, Then] = {}
        self._waiting: SimpleQueue[tuple[bytes, Then]] = SimpleQueue()
        self._written: SimpleQueue[Then] = SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self.watch(self._wake, self._send_written)
        self._asked: list[tuple[bytes, Then]] = []
        self._begun: list[Then] = []
        if not isinstance(disk, Disk):
            make_file(path)
            self._way = disk(path)
            self.watch(self._way.descriptor, self._end_write)
            return
        self._log = Log(path)
        if disk in (Disk.WRITER_SENDS, Disk.WRITER_WAKES):
            threading.Thread(target=self._write, daemon=True).start()

    def watch(self, file: int, ready: Then) -> None:
        """Call `ready` whenever a file can be read."""
        self._ready[file] = ready
        self._epoll.register(file, select.EPOLLIN)

    def forget(self, file: int) -> None:
        self._epoll.unregister(file)
        del self._ready[file]

    def commit(self, data: bytes, then: Then) -> None:
        """Call `then` when the data is on disk."""
        if self._disk is Disk.NONE:
            then()
        elif self._disk is Disk.LOOP:
            self._log.force(data)
            then()
        elif isinstance(self._disk, Disk):
            self._waiting.put((data, then))
        else:
            self._asked.append((data, then))
            self._begin_write()

    def run(self, after: Then) -> None:
        """Serve sockets for ever, and call `after` whenever all that were ready have been read."""
        while True:
            for file, _ in self._epoll.poll():
                self._ready[file]()
            after()

    def _begin_write(self) -> None:
        """Begin to write the data that waits, unless a write is under way."""
        size = taken = 0
        while not self._begun and taken < len(self._asked):
            size += len(self._asked[taken][0])
            if taken and size > BUFFER_BYTES - 2 * BLOCK_BYTES:
                break
            taken += 1
        if taken:
            group, self._asked = self._asked[:taken], self._asked[taken:]
            self._begun = [then for _, then in group]
            self._way.begin(b"".join(data for data, _ in group))

    def _end_write(self) -> None:
        self._way.end()
        ended, self._begun = self._begun, []
        for then in ended:
            then()
        self._begin_write()

    def _write(self) -> None:
        while True:
            group = [self._waiting.get()]
            while not self._waiting.empty():
                group.append(self._waiting.get())
            self._log.force(b"".join(data for data, _ in group))
            for _, then in group:
                if self._disk is Disk.WRITER_SENDS:
                    then()
                else:
                    self._written.put(then)
            if self._disk is Disk.WRITER_WAKES:
                os.eventfd_write(self._wake, 1)

    def _send_written(self) -> None:
        os.eventfd_read(self._wake)
        while not self._written.empty():
            self._written.get()()


@define(eq=False)
class _Group:
    """The commands that share a datagram and a write, until a majority has written them."""

    asked: Sequence[tuple[socket.socket, int]]
    """(connection, number of its commands in the group), for each connection with commands in it."""
    votes: int = 0


@define(eq=False)
class Leader:
    """Takes lines, sends them to the followers, and answers when a majority has written them."""

    _loop: Loop
    _followers: Sequence[socket.socket]
    _lines: list[tuple[socket.socket, bytes]] = field(init=False, factory=list)
    _groups: dict[int, _Group] = field(init=False, factory=dict)
    _last: int = field(init=False, default=0)
    _voting: threading.Lock = field(init=False, factory=threading.Lock)
    """The lock that a thread holds while it counts a vote: the thread that writes counts the leader's own vote, other
    threads count those of the followers."""

    def serve(self, listener: socket.socket) -> None:
        for follower in self._followers:
            follower.setblocking(False)
            self._loop.watch(follower.fileno(), partial(self._count_votes, follower))
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))
        self._loop.run(self._propose)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.watch(connection.fileno(), lambda: self._read(connection))

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_READ_BYTES)
        except OSError:
            data = b""
        if data:
            self._lines.append((connection, data))
        else:
            self._loop.forget(connection.fileno())
            connection.close()

    def _propose(self) -> None:
        lines, self._lines = self._lines, []
        while lines:
            size = taken = 0
            while taken < len(lines) and (not taken or size + len(lines[taken][1]) <= GROUP_BYTES_MAX):
                size += len(lines[taken][1])
                taken += 1
            self._send(lines[:taken])
            lines = lines[taken:]

    def _send(self, lines: Sequence[tuple[socket.socket, bytes]]) -> None:
        self._last += 1
        number = self._last
        self._groups[number] = _Group([(connection, data.count(b"\n")) for connection, data in lines])
        datagram = number.to_bytes(8, "big") + b"".join(data for _, data in lines)
        for follower in self._followers:
            follower.send(datagram)
        self._loop.commit(datagram, lambda: self._vote(number))

    def _count_votes(self, follower: socket.socket) -> None:
        while True:
            try:
                datagram = follower.recv(_READ_BYTES)
            except BlockingIOError:
                return
            self._vote(int.from_bytes(datagram, "big"))

    def _vote(self, number: int) -> None:
        with self._voting:
            group = self._groups.get(number)
            if group is None:
                return  # the group is answered already
            group.votes += 1
            if group.votes < MAJORITY:
                return
            del self._groups[number]
        for connection, count in group.asked:
            try:
                connection.send(REPLY * count)
            except OSError:
                continue  # the client has gone


def lead(
    told: Connection, disk: Writer, path: Path, followers: Sequence[socket.socket], listener: socket.socket
) -> None:
    """The work of the leader's process, which sends a word to `told` when it is ready."""
    leader = Leader(Loop(disk, path), followers)
    told.send("ready")
    leader.serve(listener)


def follow(told: Connection, disk: Writer, path: Path, leader: socket.socket) -> None:
    """The work of a follower's process: it writes each datagram to its file, and answers the datagram with the
    datagram's number."""
    loop = Loop(disk, path)
    leader.setblocking(False)

    def read() -> None:
        while True:
            try:
                datagram = leader.recv(_READ_BYTES)
            except BlockingIOError:
                return
            loop.commit(datagram, partial(_send, leader, datagram[:8]))

    loop.watch(leader.fileno(), read)
    told.send("ready")
    loop.run(lambda: None)


def _send(to: socket.socket, data: bytes) -> None:
    to.send(data)


@frozen
class Cluster:
    """The address and the processes of a bare cluster that runs."""

    port: int
    pids: Sequence[int]

    def load(self, connections: int, depth: int, seconds: float) -> LoadResult:
        """Put a load on the leader. Raises `LoadFailed`.

        `begun` and `ended` of the result are the CPU times of all servers, in seconds.
        """
        asked = operations("put", 100)
        workload = Workload([(HOST, self.port)], asked, connections, depth, seconds=seconds, warmup=seconds / 4)
        return LoadClient(client_command()).run(workload.render(), lambda: cpu_seconds_of_all(self.pids))


@contextmanager
def cluster(disk: Writer, directory: Path) -> Iterator[Cluster]:
    """Run a bare cluster until the end of the block. Raises `LoadFailed`."""
    with ExitStack() as stack:
        pairs = [datagram_pair() for _ in range(SERVERS - 1)]
        listener = stack.enter_context(socket.create_server((HOST, 0), backlog=1_000))
        for each in (each for pair in pairs for each in pair):
            stack.enter_context(each)
        started = [
            stack.enter_context(process(follow, disk, directory / f"log-{server}", theirs))
            for server, (_, theirs) in enumerate(pairs, 1)
        ]
        ours = [leader for leader, _ in pairs]
        started.append(stack.enter_context(process(lead, disk, directory / "log-0", ours, listener)))
        for told, _ in started:
            heard(told)
        yield Cluster(listener.getsockname()[1], [pid for _, pid in started])


def datagram_pair() -> tuple[socket.socket, socket.socket]:
    """Two UDP sockets of this machine that are connected to each other."""
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for each in (one, other):
        each.bind((HOST, 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other
