"""A cluster of real server processes: started, killed, frozen and asked from outside, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import yaml
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.replies import Reply
from pfsb.client.servers import server_addresses
from pfsb.commands.one_question import ask
from pfsb.config.config import Config, load

Status = dict[str, Any]
"""Interface part 4."""

T = TypeVar("T")

PORTS: Final = range(20_000, 32_000)
"""Below the ports that the system gives to outgoing connections: a killed server's port must be free when it is back,
and a client that tries it meanwhile must not happen to be given it as its own, and so reach itself."""
LOOK_SECONDS: Final = 0.02
UP_SECONDS: Final = 60.0
ASK_SECONDS: Final = 5.0
_LOG_LINES_SHOWN: Final = 8


class ClusterTrouble(Exception):
    """What was waited for did not come, or must never be; the text says what was seen instead."""


def free_ports(count: int, dice: Random) -> list[int]:
    """Ports of 127.0.0.1 that are free for UDP and for TCP just now."""
    found: list[int] = []
    for port in dice.sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            found.append(port)
    return found


def _is_free(port: int, kind: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_config(path: Path, servers: int, dice: Random, **changes: Any) -> Config:
    """A configuration with ports of its own; `changes` add or replace keys of its top level."""
    ports = free_ports(3 * servers, dice)
    content = {
        "cluster": "demo",
        "servers": {
            server_id: {
                "peer": f"127.0.0.1:{ports[3 * server_id]}",
                "client": f"tcp:{ports[3 * server_id + 1]}:interface=127.0.0.1",
                "http": f"tcp:{ports[3 * server_id + 2]}:interface=127.0.0.1",
            }
            for server_id in range(servers)
        },
        "storage": "var",
    }
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False), encoding="utf-8")
    return load(path)


def server_command(*arguments: str) -> list[str]:
    """`twistd -n pfsb` of this Python's environment. No pid file: a killed server would leave it behind."""
    return [sys.executable, str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "pfsb", *arguments]


@define(eq=False, slots=False)
class _Child(ProcessProtocol):
    """One life of one server process."""

    ended: Deferred[None] = field(init=False, factory=Deferred)
    exit_status: int | None = field(init=False, default=None)
    """As `subprocess` has it: -9 for SIGKILL. None while it lives."""

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.exit_status = value.exitCode if value.signal is None else -value.signal
        self.ended.callback(None)

    def signal(self, number: int) -> None:
        """Raises ClusterTrouble if it has ended."""
        process: Any = self.transport
        if self.exit_status is not None or process is None or process.pid is None:
            raise ClusterTrouble(f"the process has ended already, with status {self.exit_status}")
        os.kill(process.pid, number)


@define(eq=False)
class ProcessCluster:
    """All files are in `directory`: `cluster.yaml`, `server-<id>.log`, the data in `var/<id>`, and, with `trace`, one
    `trace-<id>-<life>.jsonl` for each life of each server. Use it with `async with`: no process outlives the block."""

    _reactor: Any
    directory: Path
    servers: int = 4
    trace: bool = False
    changes: Mapping[str, Any] = field(factory=dict)
    """Keys of the configuration, other than the defaults."""
    _dice: Random = field(factory=Random)
    config: Config = field(init=False)
    _addresses: dict[int, ServerAddress] = field(init=False)
    _children: dict[int, _Child] = field(init=False, factory=dict)
    _lives: dict[int, int] = field(init=False, factory=dict)
    _trigger: Any = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config = write_config(self.directory / "cluster.yaml", self.servers, self._dice, **self.changes)
        self._addresses = {address.id: address for address in server_addresses(self.config)}

    async def __aenter__(self) -> ProcessCluster:
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self.stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):  # it has been triggered
            self._reactor.removeSystemEventTrigger(self._trigger)
        await self.stop()

    # ------------------------------------------------------------------ processes

    @property
    def ids(self) -> tuple[int, ...]:
        return self.config.ids

    @property
    def running(self) -> list[int]:
        """The servers whose process lives, frozen or not."""
        return [server_id for server_id, child in sorted(self._children.items()) if child.exit_status is None]

    @property
    def addresses(self) -> list[ServerAddress]:
        return list(self._addresses.values())

    def address(self, server_id: int) -> ServerAddress:
        return self._addresses[server_id]

    def start(self, server_id: int, *arguments: str) -> None:
        """Start its process, with further arguments of `twistd pfsb`; it is not up yet when this returns."""
        if server_id in self.running:
            raise ClusterTrouble(f"server {server_id} runs already")
        life = self._lives[server_id] = self._lives.get(server_id, 0) + 1
        command = server_command("--id", str(server_id), "--config", "cluster.yaml", *arguments)
        if self.trace:
            command += ["--trace", self.trace_file(server_id, life).name]
        # Servers must agree whatever order a set has: each gets a hash seed of its own.
        environment = {**os.environ, "PYTHONHASHSEED": str(100 * life + server_id)}
        child = self._children[server_id] = _Child()
        with open(os.devnull, "rb") as nothing, open(self.log_file(server_id), "ab") as log:
            files = {0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()}
            self._reactor.spawnProcess(
                child, command[0], command, env=environment, path=str(self.directory), childFDs=files
            )

    async def start_all(self, seconds: float = UP_SECONDS) -> tuple[int, int]:
        """Start all that do not run, wait until they are up; returns (view, leader)."""
        for server_id in self.ids:
            if server_id not in self.running:
                self.start(server_id)
        await self.wait_up(seconds=seconds)
        return await self.wait_leader(seconds=seconds)

    def signal(self, server_id: int, number: int) -> None:
        self._children[server_id].signal(number)

    async def kill(self, *server_ids: int) -> None:
        """kill -9, all of them at once; returns when they are gone."""
        for server_id in server_ids:
            self.signal(server_id, signal.SIGKILL)
        for server_id in server_ids:
            await self.ended(server_id)

    async def terminate(self, server_id: int) -> int | None:
        """SIGTERM; returns the exit status."""
        self.signal(server_id, signal.SIGTERM)
        return await self.ended(server_id)

    def freeze(self, server_id: int) -> None:
        """SIGSTOP: its sockets take what comes, and it does nothing."""
        self.signal(server_id, signal.SIGSTOP)

    def thaw(self, server_id: int) -> None:
        """SIGCONT."""
        self.signal(server_id, signal.SIGCONT)

    async def ended(self, server_id: int, seconds: float = 30.0) -> int | None:
        """Wait until its process has ended; returns the exit status, negative for a signal."""
        child = self._children[server_id]

        async def look() -> bool:
            return child.exit_status is not None

        await self.wait_for(f"the end of server {server_id}", look, seconds)
        return child.exit_status

    def stop(self) -> Deferred[Any]:
        """End every process, at once and for certain."""
        alive = [child for child in self._children.values() if child.exit_status is None]
        for child in alive:
            with contextlib.suppress(ProcessLookupError):
                child.signal(signal.SIGKILL)
        return gatherResults([child.ended for child in alive]) if alive else succeed(None)

    # ------------------------------------------------------------------ files

    def log_file(self, server_id: int) -> Path:
        return self.directory / f"server-{server_id}.log"

    def trace_file(self, server_id: int, life: int) -> Path:
        """Each life has its own: a killed server leaves half a line, to which the next one would add."""
        return self.directory / f"trace-{server_id}-{life}.jsonl"

    def trace_files(self) -> list[Path]:
        """Those that are there, by server and life."""
        files = [self.trace_file(i, life) for i, lives in sorted(self._lives.items()) for life in range(1, lives + 1)]
        return [file for file in files if file.exists()]

    def data(self, server_id: int) -> Path:
        """The directory of its database."""
        return self.directory / "var" / str(server_id)

    def chat_log(self, server_id: int) -> bytes:
        try:
            return (self.data(server_id) / "chat.log").read_bytes()
        except FileNotFoundError:
            return b""

    def last_words(self, server_id: int) -> str:
        """The end of its log."""
        lines = self.log_file(server_id).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES_SHOWN:])

    # ------------------------------------------------------------------ questions

    def ask(self, server_id: int, line: str, seconds: float = ASK_SECONDS) -> Deferred[Reply]:
        """One line of the protocol to one server."""
        return ask(self._reactor, self._addresses[server_id], line, seconds)

    async def status(self, server_id: int) -> Status:
        reply = await self.ask(server_id, "STATUS")
        status: Status = json.loads(reply.rows[0])
        return status

    async def statuses(self, server_ids: Iterable[int] | None = None) -> dict[int, Status]:
        """Of those that answer, of all that run."""
        asked = self.running if server_ids is None else list(server_ids)
        found: dict[int, Status] = {}
        for server_id in asked:
            try:
                found[server_id] = await self.status(server_id)
            except CancelledError:
                raise
            except Exception:
                continue  # it is just starting, or going
        return found

    async def digest(self, server_id: int, seq: int | None = None) -> str:
        """The hash over all that it has executed, up to `seq` (default: now). Fails if it is not told."""
        reply = await self.ask(server_id, "DIGEST" if seq is None else f"DIGEST seq={seq}", seconds=30.0)
        if not reply.ok:
            raise ClusterTrouble(f"server {server_id}: {reply.line}")
        return str(reply.fields["digest"])

    # ------------------------------------------------------------------ waiting

    async def pause(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds)

    async def wait_for(self, what: str, look: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Look again and again until what is seen is true. Raises ClusterTrouble after `seconds`."""
        deadline = self._reactor.seconds() + seconds
        while not (seen := await look()):
            if self._reactor.seconds() >= deadline:
                raise ClusterTrouble(f"{what}: not within {seconds:g} s")
            await self.pause(LOOK_SECONDS)
        return seen

    async def wait_up(self, server_ids: Sequence[int] | None = None, seconds: float = UP_SECONDS) -> None:
        """Wait until these, or all that were started, answer."""
        for server_id in self.running if server_ids is None else server_ids:

            async def look(server_id: int = server_id) -> bool:
                if server_id not in self.running:
                    raise ClusterTrouble(f"server {server_id} has ended at its start: {self.last_words(server_id)}")
                return server_id in await self.statuses([server_id])

            await self.wait_for(f"an answer of server {server_id}", look, seconds)

    async def wait_leader(
        self, above: int = 0, server_ids: Sequence[int] | None = None, seconds: float = UP_SECONDS
    ) -> tuple[int, int]:
        """(view, leader) of the first view above `above` whose leader leads and which a majority has installed."""

        async def look() -> tuple[int, int] | None:
            statuses = (await self.statuses(server_ids)).values()
            for status in statuses:
                view, leader = status["view"], status["server"]
                followers = sum(1 for other in statuses if other["view"] == view and other["leader"] == leader)
                if status["state"] == "REG_LEADER" and view > above and followers >= self.config.quorum:
                    return view, leader
            return None

        found = await self.wait_for(f"a leader of a view above {above}", look, seconds)
        assert found is not None
        return found

    async def wait_equal(self, server_ids: Sequence[int] | None = None, seconds: float = UP_SECONDS) -> Status:
        """Wait until these servers have executed the same, and their chat logs are the same; returns one's status.

        Raises ClusterTrouble at once if two have executed as much and not the same.
        """
        wanted = self.running if server_ids is None else list(server_ids)

        async def look() -> Status | None:
            statuses = list((await self.statuses(wanted)).values())
            digests: dict[int, set[str]] = {}
            for status in statuses:
                digests.setdefault(status["aru"], set()).add(status["digest"])
            diverged = [seq for seq, seen in digests.items() if len(seen) > 1]
            if diverged:
                raise ClusterTrouble(f"DIVERGED: different digests of all up to {diverged[0]}: {statuses}")
            if len(statuses) < len(wanted) or len(digests) > 1 or any(status["pending"] for status in statuses):
                return None
            return statuses[0] if len({self.chat_log(server_id) for server_id in wanted}) == 1 else None

        try:
            found = await self.wait_for(f"servers {wanted} to be equal", look, seconds)
        except ClusterTrouble as trouble:
            raise ClusterTrouble(f"{trouble}; {await self._how_they_are(wanted)}") from None
        assert found is not None
        return found

    async def _how_they_are(self, server_ids: Iterable[int]) -> str:
        statuses = await self.statuses(server_ids)
        shown = ("state", "view", "attempted", "aru", "last_ordered", "pending", "digest")
        described = [f"{i}: {', '.join(f'{k} {status[k]}' for k in shown)}" for i, status in statuses.items()]
        sizes = [f"{server_id}: {len(self.chat_log(server_id))}" for server_id in server_ids]
        return f"{'; '.join(described)}; bytes of chat.log: {', '.join(sizes)}"
