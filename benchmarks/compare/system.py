"""What the comparison asks of each system: be started, loaded, killed and caught up with."""

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
_LOOK_SECONDS: Final = 0.01
_END_SECONDS: Final = 10.0

T = TypeVar("T")

Write = Callable[[], None]
"""One write on a connection that is open: returns when it is acknowledged, raises OSError if it is not in time."""


class Missing(Exception):
    """A system that cannot be had here; the text says what it needs."""


class Trouble(Exception):
    """A system that did not do what it should have; the text says what."""


def wait_for(what: str, look: Callable[[], T | None], seconds: float = UP_SECONDS) -> T:
    """Look again and again until something is seen. Raises `Trouble` after `seconds`."""
    deadline = time.monotonic() + seconds
    while (seen := look()) is None or seen is False:
        if time.monotonic() >= deadline:
            raise Trouble(f"{what}: not within {seconds:g} s")
        time.sleep(_LOOK_SECONDS)
    return seen


@define(eq=False)
class Load:
    """What is to be measured, in words that every system understands."""

    kind: str
    """put, get (linearizable), local (a read of one server's own state), lock (each client its own), lockone."""
    connections: int = 1
    depth: int = 1
    seconds: float = 3.0
    warmup: float = 0.5
    count: int = 0
    """If not 0: so many operations, however long they take."""

    @property
    def under_way(self) -> int:
        return self.connections * self.depth


@frozen
class Choices:
    """What somebody may choose about single systems."""

    etcd: str | None = None
    """Another server binary of etcd."""
    transport: str = "udp"
    """What pfsb's servers speak to each other over."""


class System(ABC):
    """A cluster of one system: `start`, measure, `stop`. Servers are numbered from 0."""

    name: ClassVar[str]
    durable: ClassVar[bool] = True
    """A write that was acknowledged survives a power cut."""

    def __init__(self, directory: Path, servers: int) -> None:
        self.directory = directory
        self.servers = servers
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    # ------------------------------------------------------------------ of each system its own

    @classmethod
    @abstractmethod
    def prepare(cls, choices: Choices) -> str:
        """Find or build what is needed; returns the version. Raises `Missing`."""

    @abstractmethod
    def configure(self) -> None:
        """Choose ports and write the files that all servers need. Called once, before any of them starts."""

    @abstractmethod
    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        """The command line that starts one server, and what it needs in its environment."""

    @abstractmethod
    def leader(self) -> int | None:
        """Which server leads, if one does and the others know."""

    @abstractmethod
    def load(self, load: Load) -> LoadResult | None:
        """Run it with the client that serves this system best, and `look` at both ends. None: it cannot do that."""

    @abstractmethod
    def open_writer(self, server: int) -> Write:
        """A connection to one server. Raises OSError."""

    @abstractmethod
    def position(self, server: int) -> object | None:
        """How far a server's own state has come; equal when two have executed the same. None: it does not say."""

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
                # Ctrl-C is for the comparison, which stops the servers itself.
                start_new_session=True,
            )

    def wait_leader(self) -> int:
        """Raises `Trouble` if a server ends meanwhile, or none leads in time."""

        def look() -> int | None:
            self.check_alive()
            return self.leader()

        return wait_for(f"{self.name}: a leader", look)

    def check_alive(self) -> None:
        """Raises `Trouble` if a server has ended that nobody killed."""
        for server, process in self._processes.items():
            if process.poll() is not None:
                raise Trouble(f"{self.name}: server {server} has ended: {self._last_words(server)}")

    def kill(self, server: int) -> None:
        """kill -9; returns when it is gone."""
        process = self._processes.pop(server)
        process.kill()
        process.wait(_END_SECONDS)

    def running(self) -> list[int]:
        return [server for server, process in self._processes.items() if process.poll() is None]

    def stop(self) -> None:
        """End every server that was started here, by its process id. Never fails."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
        for process in self._processes.values():
            process.wait(_END_SECONDS)
        self._processes.clear()

    def look(self) -> Moment:
        """What the servers have taken of the processor so far."""
        return Moment({}, cpu_seconds_of_all(self.pids()), busy_seconds())

    def pids(self) -> list[int]:
        """Of the servers that run."""
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
    """The part of a text stream that was not read yet; for line protocols over blocking sockets."""

    _receive: Callable[[int], bytes]
    _partial: bytes = field(init=False, default=b"")

    def line(self) -> bytes:
        """Raises OSError when the other side hangs up."""
        while b"\n" not in self._partial:
            data = self._receive(65_536)
            if not data:
                raise ConnectionError("the server hung up")
            self._partial += data
        line, self._partial = self._partial.split(b"\n", 1)
        return line
