"""The interface of a system in the comparison: starts, pauses, loads, kills and looks at the servers of a cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final, TypeVar

from attrs import define, field, frozen

from benchmarks.compare import family
from pfsb.bench.client import LoadClient, LoadFailed, LoadResult
from pfsb.bench.machine import busy_seconds
from pfsb.bench.probe import Moment
from pfsb.demo.processes import free_ports

VALUE_BYTES: Final = 100
KEYS: Final = 10_000
UP_SECONDS: Final = 60.0
"""How long, in seconds, `wait_for` waits by default."""
CALM_SECONDS: Final = 1.0
"""How long, in seconds, one server must have led before a cluster that was paused is measured.

Servers that go on after a pause name the leader of before, until their timers find that nothing was heard of it.
"""
CLIENT_SECONDS: Final = 60.0
"""How long, in seconds, a load client may take beyond the time of its load."""
COUNTED_SECONDS: Final = 240.0
"""How long, in seconds, a load client may take for a load that ends after a number of operations."""
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

    @property
    def seconds_max(self) -> float:
        """How long, in seconds, the load client may take from its start to its end."""
        return COUNTED_SECONDS if self.count else self.warmup + self.seconds + CLIENT_SECONDS


@frozen
class Choices:
    """Options of the command line that systems look at when they are prepared."""

    etcd: str | None = None
    """Path of the server binary of etcd; None: it is searched for."""
    transport: str = "udp"
    """The transport between pfsb's servers."""
    servers: int = 3
    """Number of servers that the clusters will have."""


class System(ABC):
    """A cluster of one system, which is started, measured and stopped. Servers are numbered from 0."""

    name: ClassVar[str]
    durable: ClassVar[bool] = True
    """True if every acknowledged write survives a power cut of all servers at once."""
    durability: ClassVar[str] = ""
    """The settings by which a write is on the disks of a majority before the system acknowledges it."""
    packages: ClassVar[Sequence[str]] = ()
    """The Debian packages that the system and its load client need."""
    lacks: ClassVar[frozenset[str]] = frozenset()
    """Keys of the rows, and kinds of loads, that cannot be measured: the system has no such operation."""
    ending: ClassVar[signal.Signals] = signal.SIGKILL
    """The signal that ends a server as a crash would. A server that does not end by it is killed with SIGKILL."""

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
                [*_ending_with_this_process(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **environment},
                # Ctrl-C must reach the comparison only, which stops the servers itself.
                start_new_session=True,
                **self.owner(),
            )

    def owner(self) -> dict[str, Any]:
        """The user as whom the servers run, as arguments of `subprocess.Popen`; nothing: the user of this program."""
        return {}

    def pause(self) -> None:
        """Stop all processes of the cluster with SIGSTOP: they keep their memory and use no CPU time."""
        for server in self.running():
            family.freeze(self._processes[server].pid)

    def resume(self) -> None:
        """Let a paused cluster go on; returns when it is as able as before the pause. Raises `Trouble`.

        Servers may elect a leader after a pause. So all servers must have followed one for `CALM_SECONDS`, and it
        must have acknowledged a write.
        """
        for server in self.running():
            family.thaw(self._processes[server].pid)
        self.write_once(self._wait_calm())

    def _wait_calm(self) -> int:
        seen: list[int | None] = [None]
        since = time.monotonic()

        def look() -> int | None:
            nonlocal since
            self.check_alive()
            leader = self.leader()
            if leader is None or leader != seen[-1]:
                seen.append(leader)
                since = time.monotonic()
            if leader is None:
                # A server that gave up its leader without need may come back only when a write shows that it leads.
                self._try_to_write(self.running()[len(seen) % len(self.running())])
            return leader if time.monotonic() - since >= CALM_SECONDS else None

        try:
            return wait_for(f"{self.name}: one leader for {CALM_SECONDS:g} s", look, UP_SECONDS)
        except Trouble as error:
            words = " | ".join(self._last_words(server) for server in self.running())
            raise Trouble(f"{error}; seen at last: {seen[-5:]}; {words}") from None

    def write_once(self, server: int) -> None:
        """Write until one write is acknowledged. Raises `Trouble` if that does not happen in time."""
        wait_for(f"{self.name}: one more write", lambda: self._try_to_write(server))

    def _try_to_write(self, server: int) -> bool:
        try:
            self.open_writer(server)()
        except OSError:
            return False
        return True

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

    def kill(self, server: int) -> float:
        """End all processes of a server as a crash would; returns when the first of them has ended.

        The result is the moment of the kill, by time.monotonic: to find the processes may take some hundredths of a
        second.
        """
        process = self._processes.pop(server)
        members = family.members(process.pid)
        killed = time.monotonic()
        process.send_signal(self.ending)
        if self.ending == signal.SIGKILL:
            family.signal_all(members[1:], signal.SIGKILL)
        self._end([process])
        return killed

    def running(self) -> list[int]:
        return [server for server, process in self._processes.items() if process.poll() is None]

    def stop(self) -> None:
        """End every server of this cluster, by process id, paused or not, and wait until the processes have ended."""
        self._end(list(self._processes.values()))
        self._processes.clear()

    def _end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        running = [process for process in processes if process.poll() is None]
        if self.ending != signal.SIGKILL:
            for process in running:
                family.thaw(process.pid)
                process.send_signal(self.ending)
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_SECONDS)
        for process in running:
            if process.poll() is None:
                family.kill(process.pid)
        for process in processes:
            process.wait(_END_SECONDS)

    def run_client(self, command: Sequence[str], load: Load, workload: str = "") -> LoadResult:
        """Run a load client, which is killed if it takes longer than `load.seconds_max`. Raises `Trouble`."""
        client = LoadClient(command)
        timer = threading.Timer(load.seconds_max, client.stop)
        timer.daemon = True
        timer.start()
        try:
            return client.run(workload, self.look)
        except LoadFailed as error:
            late = f" (it is killed after {load.seconds_max:g} s)" if not timer.is_alive() else ""
            raise Trouble(f"{self.name}: {error}{late}") from None
        finally:
            timer.cancel()

    def look(self) -> Moment:
        """The CPU time that the servers, and the whole machine, have used so far."""
        used = sum(family.cpu_seconds(pid) for pid in self.pids())
        return Moment({}, used, busy_seconds())

    def pids(self) -> list[int]:
        """Process ids of the servers that run: of a server with several processes, that of the first."""
        return [self._processes[server].pid for server in self.running()]

    def memory(self) -> int:
        """Resident bytes of the largest server."""
        return max(family.memory_bytes(pid) for pid in self.pids())

    def _last_words(self, server: int) -> str:
        lines = (self.directory / f"log-{server}").read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "without a word"


def _ending_with_this_process() -> list[str]:
    """The words before a command that let the kernel kill it when this process ends, however that happens."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]


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
