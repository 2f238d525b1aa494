"""The interface of a system in the comparison: starts, loads, kills and looks at the servers of a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar, Final, TypeVar

from attrs import define, field, frozen

from pfsb.bench.client import LoadResult
from pfsb.bench.machine import busy_seconds, cpu_seconds_of_all, memory_bytes
from pfsb.bench.probe import Moment
from pfsb.demo.processes import free_ports

VALUE_BYTES: Final = 100
KEYS: Final = 10_000
UP_SECONDS: Final = 60.0
"""How long, in seconds, `wait_for` waits by default."""
_LOOK_SECONDS: Final = 0.01
_END_SECONDS: Final = 10.0

T = TypeVar("T")

Write = Callable[[], None]
"""Function that writes once on an open connection: returns when the write is acknowledged, or raises OSError."""


class Missing(Exception):
    """Raised when a system cannot be measured on this machine; the text says what it needs."""


class Trouble(Exception):
    """Raised when a system has failed; the text says how."""


def wait_for(what: str, look: Callable[[], T | None], seconds: float = UP_SECONDS) -> T:
    """Call `look` until it returns neither None nor False, and return its result. Raises `Trouble` after `seconds`."""
    deadline = time.monotonic() + seconds
    while (seen := look()) is None or seen is False:
        if time.monotonic() >= deadline:
            raise Trouble(f"{what}: not within {seconds:g} s")
        time.sleep(_LOOK_SECONDS)
    return seen


@define(eq=False)
class Load:
    """The description of a load, in terms that apply to every system."""

    kind: str
    """The operation: put, get (linearizable), local (a read of one server's own state), lock or lockone.

    With lock, each client takes and releases a lock of its own; with lockone, all clients the same lock.
    """
    connections: int = 1
    depth: int = 1
    seconds: float = 3.0
    warmup: float = 0.5
    count: int = 0
    """If not 0, the load ends after this number of operations, and not after `seconds`."""

    @property
    def under_way(self) -> int:
        return self.connections * self.depth


@frozen
class Choices:
    """Options of the command line that concern only one of the systems."""

    etcd: str | None = None
    """Path of the server binary of etcd; None: it is searched for."""
    transport: str = "udp"
    """The transport between pfsb's servers."""


class System(ABC):
    """A cluster of one system, which is started, measured and stopped. Servers are numbered from 0."""

    name: ClassVar[str]
    durable: ClassVar[bool] = True
    """True if every acknowledged write survives a power cut."""

    def __init__(self, directory: Path, servers: int) -> None:
        self.directory = directory
        self.servers = servers
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    # ------------------------------------------------------------------ different for each system

    @classmethod
    @abstractmethod
    def prepare(cls, choices: Choices) -> str:
        """Find or build the programs that the system needs; returns the system's version. Raises `Missing`."""

    @abstractmethod
    def configure(self) -> None:
        """Choose ports and write the files that all servers need. Called once, before a server starts."""

    @abstractmethod
    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        """The command line that starts one server, and variables for its environment."""

    @abstractmethod
    def leader(self) -> int | None:
        """The server that leads; None if none leads, or if some server does not know the leader yet."""

    @abstractmethod
    def load(self, load: Load) -> LoadResult | None:
        """Run a load with the client that is best for this system. Returns None if the system has no such operation.

        The client calls `look` at the beginning and at the end of the measured time.
        """

    @abstractmethod
    def open_writer(self, server: int) -> Write:
        """Connect to a server; returns a function that writes once. Raises OSError."""

    @abstractmethod
    def position(self, server: int) -> object | None:
        """How far a server has executed: equal for servers that have executed the same. None if it cannot say."""

    # ------------------------------------------------------------------ the same for all

    def start(self) -> None:
        """Start all servers; returns when one leads. Raises `Trouble`."""
        self.directory.mkdir(parents=True)
        self.configure()
        for server in range(self.servers):
            self.start_server(server)
        self.wait_leader()

    def start_server(self, server: int) -> None:
        command, environment = self.command(server)
        with open(self.directory / f"log-{server}", "ab") as log:
            self._processes[server] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **environment},
                # Ctrl-C must reach the comparison only, which stops the servers itself.
                start_new_session=True,
            )

    def wait_leader(self) -> int:
        """Wait for a leader. Raises `Trouble` if a server ends meanwhile, or none leads in time."""

        def look() -> int | None:
            self.check_alive()
            return self.leader()

        return wait_for(f"{self.name}: a leader", look)

    def check_alive(self) -> None:
        """Raise `Trouble` if the process of a server has ended although the comparison has not killed it."""
        for server, process in self._processes.items():
            if process.poll() is not None:
                raise Trouble(f"{self.name}: server {server} has ended: {self._last_words(server)}")

    def kill(self, server: int) -> None:
        """Kill a server with SIGKILL; returns when its process has ended."""
        process = self._processes.pop(server)
        process.kill()
        process.wait(_END_SECONDS)

    def running(self) -> list[int]:
        return [server for server, process in self._processes.items() if process.poll() is None]

    def stop(self) -> None:
        """Kill every server of this cluster, by its process id, and wait until the processes have ended."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
        for process in self._processes.values():
            process.wait(_END_SECONDS)
        self._processes.clear()

    def look(self) -> Moment:
        """The CPU time that the servers, and the whole machine, have used so far."""
        return Moment({}, cpu_seconds_of_all(self.pids()), busy_seconds())

    def pids(self) -> list[int]:
        """Process ids of the servers that run."""
        return [self._processes[server].pid for server in self.running()]

    def memory(self) -> int:
        """Resident bytes of the largest server."""
        return max(memory_bytes(pid) for pid in self.pids())

    def _last_words(self, server: int) -> str:
        lines = (self.directory / f"log-{server}").read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "without a word"


def ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1."""
    return free_ports(count, Random())


@define(eq=False)
class Tail:
    """Reads lines from a blocking socket, and keeps the bytes after the last line."""

    _receive: Callable[[int], bytes]
    _partial: bytes = field(init=False, default=b"")

    def line(self) -> bytes:
        """The next line. Raises OSError when the other side closes the connection."""
        while b"\n" not in self._partial:
            data = self._receive(65_536)
            if not data:
                raise ConnectionError("the server hung up")
            self._partial += data
        line, self._partial = self._partial.split(b"\n", 1)
        return line
