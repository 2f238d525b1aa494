"""A cluster of real server processes, which are started, killed, frozen and asked from outside.

No server process outlives the `async with` block of its cluster, or the reactor.
"""

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
from pfsb.client.servers import server_addresses, with_token
from pfsb.commands.one_question import ask
from pfsb.config.config import Config, load
from pfsb.support.views import packed


def _ports_of(text: str) -> range:
    """The ports from FIRST to LAST, of a text FIRST-LAST."""
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1)


Status = dict[str, Any]
"""The JSON object of a STATUS reply; docs/operating.rst describes it."""

T = TypeVar("T")

PORTS: Final = _ports_of(os.environ.get("PFSB_PORTS", "20000-31999"))
"""Ports for servers, below the range from which Linux takes ports for outgoing connections. PFSB_PORTS in the
environment replaces them: two programs side by side that start servers need ranges of their own.

The port of a killed server must still be free when the server starts again. And while the server is down, a client that
tries to reach the port must not get the same port for its own end: TCP would connect the client to itself.
"""
LOOK_SECONDS: Final = 0.02
"""Time, in seconds, between two looks whether something that is waited for has happened."""
UP_SECONDS: Final = 60.0
"""How long, in seconds, servers may take to answer, to elect a leader or to have executed the same slots."""
ASK_SECONDS: Final = 5.0
"""How long, in seconds, a server may take to answer a question."""
_LOG_LINES_SHOWN: Final = 8


class ClusterTrouble(Exception):
    """Raised if the cluster did not come to an expected state in time, or did something that it never may; the text
    tells details.
    """


def free_ports(count: int, dice: Random) -> list[int]:
    """`count` ports of 127.0.0.1, chosen at random, that are free for UDP and for TCP at present."""
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


def write_config(path: Path, servers: int, dice: Random, /, **changes: Any) -> Config:
    """Write and load a configuration with free ports; `changes` add or replace keys of its top level."""
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
    """The command `twistd -n pfsb` of this Python, without a pid file, which kill -9 would leave behind."""
    return [sys.executable, str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "pfsb", *arguments]


@define(eq=False, slots=False)
class _Child(ProcessProtocol):
    """One process of a server; each start of the server makes a new one."""

    ended: Deferred[None] = field(init=False, factory=Deferred)
    exit_status: int | None = field(init=False, default=None)
    """The exit status, negative for a signal (-9 for SIGKILL); None while the process lives."""

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.exit_status = value.exitCode if value.signal is None else -value.signal
        self.ended.callback(None)

    def signal(self, number: int) -> None:
        """Send a signal. Raises ClusterTrouble if the process has ended."""
        process: Any = self.transport
        if self.exit_status is not None or process is None or process.pid is None:
            raise ClusterTrouble(f"the process has ended already, with status {self.exit_status}")
        os.kill(process.pid, number)


@define(eq=False)
class ProcessCluster:
    """A cluster whose servers are processes. It is used with `async with`: no process outlives the block.

    All files are in `directory`: `cluster.yaml`, `server-<id>.log`, the data in `var/<id>`, and with `trace` one file
    `trace-<id>-<incarnation>.jsonl` for each incarnation of each server.
    """

    _reactor: Any
    directory: Path
    servers: int = 4
    trace: bool = False
    changes: Mapping[str, Any] = field(factory=dict)
    """Top-level keys of the configuration that are added, or replace those of `write_config`."""
    prefixes: Mapping[int, Sequence[str]] = field(factory=dict)
    """Server id -> words before the command that starts the server, such as those of a program that runs another."""
    _dice: Random = field(factory=Random)
    config: Config = field(init=False)
    _addresses: dict[int, ServerAddress] = field(init=False)
    _children: dict[int, _Child] = field(init=False, factory=dict)
    _incarnations: dict[int, int] = field(init=False, factory=dict)
    _trigger: Any = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config = write_config(self.directory / "cluster.yaml", self.servers, self._dice, **self.changes)
        self._addresses = {address.id: address for address in server_addresses(self.config)}

    async def __aenter__(self) -> ProcessCluster:
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self.stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):  # the trigger has fired
            self._reactor.removeSystemEventTrigger(self._trigger)
        await self.stop()

    # ------------------------------------------------------------------ processes

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of all servers, ascending."""
        return self.config.ids

    @property
    def running(self) -> list[int]:
        """Ids of the servers whose process lives, frozen or not."""
        return [server_id for server_id, child in sorted(self._children.items()) if child.exit_status is None]

    @property
    def pids(self) -> list[int]:
        """The process id of the latest process of each server that was started, in the order of the servers' ids."""
        return [child.transport.pid for _, child in sorted(self._children.items()) if child.transport is not None]

    @property
    def addresses(self) -> list[ServerAddress]:
        """The addresses at which clients reach the servers, in the order of the servers' ids."""
        return list(self._addresses.values())

    def address(self, server_id: int) -> ServerAddress:
        """The address at which clients reach this server."""
        return self._addresses[server_id]

    def show(self, token: str) -> None:
        """Have this cluster, and who takes addresses of it, show a token to the servers from now on."""
        self._addresses = {each.id: each for each in with_token(self.addresses, token)}

    def start(self, server_id: int, *arguments: str) -> None:
        """Start a server's process, with these additional arguments; does not wait until the server is up."""
        if server_id in self.running:
            raise ClusterTrouble(f"server {server_id} runs already")
        incarnation = self._incarnations[server_id] = self._incarnations.get(server_id, 0) + 1
        command = [
            *self.prefixes.get(server_id, ()),
            *server_command("--id", str(server_id), "--config", "cluster.yaml", *arguments),
        ]
        if self.trace:
            command += ["--trace", self.trace_file(server_id, incarnation).name]
        # Each process gets a different hash seed, so that sets have different orders: servers must agree all the same.
        environment = {**os.environ, "PYTHONHASHSEED": str(100 * incarnation + server_id)}
        child = self._children[server_id] = _Child()
        with open(os.devnull, "rb") as nothing, open(self.log_file(server_id), "ab") as log:
            files = {0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()}
            self._reactor.spawnProcess(
                child, command[0], command, env=environment, path=str(self.directory), childFDs=files
            )

    async def start_all(self, seconds: float = UP_SECONDS) -> tuple[int, int]:
        """Start all servers that do not run, and wait until all of them vote and one leads; returns (view, leader)."""
        for server_id in self.ids:
            if server_id not in self.running:
                self.start(server_id)
        await self.wait_up(seconds=seconds)
        await self.wait_admitted(seconds=seconds)
        return await self.wait_leader(seconds=seconds)

    def signal(self, server_id: int, number: int) -> None:
        """Send a signal to a server's process. Raises ClusterTrouble if it has ended."""
        self._children[server_id].signal(number)

    async def kill(self, *server_ids: int) -> None:
        """Kill servers with SIGKILL, all at once; returns when their processes have ended."""
        for server_id in server_ids:
            self.signal(server_id, signal.SIGKILL)
        for server_id in server_ids:
            await self.ended(server_id)

    async def terminate(self, server_id: int) -> int | None:
        """Send SIGTERM to a server; returns its exit status, negative for a signal, when it has ended."""
        self.signal(server_id, signal.SIGTERM)
        return await self.ended(server_id)

    def freeze(self, server_id: int) -> None:
        """Send SIGSTOP to a server: its sockets still accept data, but it does nothing."""
        self.signal(server_id, signal.SIGSTOP)

    def thaw(self, server_id: int) -> None:
        """Send SIGCONT to a frozen server: it continues."""
        self.signal(server_id, signal.SIGCONT)

    async def ended(self, server_id: int, seconds: float = 30.0) -> int | None:
        """Wait until a server's process has ended; returns the exit status, negative for a signal.

        Raises ClusterTrouble if it has not ended within `seconds`.
        """
        child = self._children[server_id]

        async def look() -> bool:
            return child.exit_status is not None

        await self.wait_for(f"the end of server {server_id}", look, seconds)
        return child.exit_status

    def stop(self) -> Deferred[Any]:
        """Kill every process with SIGKILL; the Deferred fires when all have ended."""
        alive = [child for child in self._children.values() if child.exit_status is None]
        for child in alive:
            with contextlib.suppress(ProcessLookupError):
                child.signal(signal.SIGKILL)
        return gatherResults([child.ended for child in alive]) if alive else succeed(None)

    # ------------------------------------------------------------------ files

    def log_file(self, server_id: int) -> Path:
        """The file with the output of all incarnations of a server."""
        return self.directory / f"server-{server_id}.log"

    def trace_file(self, server_id: int, incarnation: int) -> Path:
        """The file with the trace of one incarnation of a server.

        Incarnations do not share a file: a killed server may leave an incomplete last line, and the next incarnation
        would write on in that line.
        """
        return self.directory / f"trace-{server_id}-{incarnation}.jsonl"

    def trace_files(self) -> list[Path]:
        """The trace files that exist, in the order of server ids and incarnations."""
        files = [
            self.trace_file(i, incarnation)
            for i, count in sorted(self._incarnations.items())
            for incarnation in range(1, count + 1)
        ]
        return [file for file in files if file.exists()]

    def data(self, server_id: int) -> Path:
        """The directory of a server's data."""
        return self.directory / "var" / str(server_id)

    def chat_log(self, server_id: int) -> bytes:
        """The chat log that a server has written; empty if it has written none."""
        try:
            return (self.data(server_id) / "chat.log").read_bytes()
        except FileNotFoundError:
            return b""

    def last_words(self, server_id: int) -> str:
        """The last lines of a server's output."""
        lines = self.log_file(server_id).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES_SHOWN:])

    # ------------------------------------------------------------------ questions

    def ask(self, server_id: int, line: str, seconds: float = ASK_SECONDS) -> Deferred[Reply]:
        """Send a line of the line protocol to a server; the Deferred fires with the reply."""
        return ask(self._reactor, self._addresses[server_id], line, seconds)

    async def status(self, server_id: int) -> Status:
        """A server's answer to STATUS. Raises the exception of `ask` if the server does not answer."""
        reply = await self.ask(server_id, "STATUS")
        status: Status = json.loads(reply.rows[0])
        return status

    async def statuses(self, server_ids: Iterable[int] | None = None) -> dict[int, Status]:
        """The answers of these servers (default: all that run) to STATUS, by server id. A server that does not answer
        is left out."""
        asked = self.running if server_ids is None else list(server_ids)
        found: dict[int, Status] = {}
        for server_id in asked:
            try:
                found[server_id] = await self.status(server_id)
            except CancelledError:
                raise
            except Exception:
                continue  # the server is just starting, or stopping
        return found

    async def digest(self, server_id: int, seq: int | None = None) -> str:
        """The digest of the history that a server has executed up to slot `seq` (default: all it has executed).

        Asks anew while the server says that it has not executed the slot in time. Raises ClusterTrouble if the server
        refuses, and the exception of `ask` if it does not answer in time.
        """
        question = "DIGEST" if seq is None else f"DIGEST seq={seq}"
        reply = await self.ask(server_id, question, seconds=30.0)
        for _ in range(3):
            if reply.code == "UNAVAILABLE":
                reply = await self.ask(server_id, question, seconds=30.0)
        if not reply.ok:
            raise ClusterTrouble(f"server {server_id}: {reply.line}")
        return str(reply.fields["digest"])

    # ------------------------------------------------------------------ waiting

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds` seconds."""
        await deferLater(self._reactor, seconds)

    async def wait_for(self, what: str, look: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Call `look` and await its result, again and again until that is true; returns that result.

        Raises ClusterTrouble after `seconds`, with `what` in its text: the thing that was waited for.
        """
        deadline = self._reactor.seconds() + seconds
        while not (seen := await look()):
            if self._reactor.seconds() >= deadline:
                raise ClusterTrouble(f"{what}: not within {seconds:g} s")
            await self.pause(LOOK_SECONDS)
        return seen

    async def wait_up(self, server_ids: Sequence[int] | None = None, seconds: float = UP_SECONDS) -> None:
        """Wait until each of these servers (default: all that run) has answered STATUS.

        Servers are asked one after the other. Raises ClusterTrouble if a server ends instead, or does not answer within
        `seconds` after it was first asked.
        """
        for server_id in self.running if server_ids is None else server_ids:

            async def look(server_id: int = server_id) -> bool:
                if server_id not in self.running:
                    raise ClusterTrouble(f"server {server_id} has ended at its start: {self.last_words(server_id)}")
                return server_id in await self.statuses([server_id])

            await self.wait_for(f"an answer of server {server_id}", look, seconds)

    async def wait_admitted(self, server_ids: Sequence[int] | None = None, seconds: float = UP_SECONDS) -> None:
        """Wait until all of these servers (default: all that run) vote.

        A cluster that is being born orders commands as soon as a majority votes. Each of the other servers waits until
        a majority of the others has told it that they know its storage. If a server is killed before that, the rest may
        wait for it in vain.
        """

        async def look() -> bool:
            statuses = await self.statuses(server_ids)
            asked = self.running if server_ids is None else server_ids
            return all(server_id in statuses and statuses[server_id]["admitted"] for server_id in asked)

        await self.wait_for("all servers to vote", look, seconds)

    async def wait_leader(
        self, above: int = 0, server_ids: Sequence[int] | None = None, seconds: float = UP_SECONDS
    ) -> tuple[int, int]:
        """Wait until a view above `above` has a leader and a majority has installed it; returns (view, leader).

        Only `server_ids` are asked; by default all servers that run.
        """

        async def look() -> tuple[int, int] | None:
            statuses = (await self.statuses(server_ids)).values()
            for status in statuses:
                view, leader = packed(status["view"]), status["server"]
                followers = sum(1 for other in statuses if packed(other["view"]) == view and other["leader"] == leader)
                if status["state"] == "REG_LEADER" and view > above and followers >= status["quorum"]:
                    return view, leader
            return None

        found = await self.wait_for(f"a leader of a view above {above}", look, seconds)
        assert found is not None
        return found

    async def wait_equal(self, server_ids: Sequence[int] | None = None, seconds: float = UP_SECONDS) -> Status:
        """Wait until these servers (default: all that run) have executed the same slots and have equal chat logs.

        Returns the STATUS of one of them.

        Raises ClusterTrouble at once if two servers have executed equally many slots with different digests.
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
