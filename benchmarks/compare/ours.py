"""pfsb as a system of the comparison. Its servers are started in the way that an operator starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

from benchmarks.compare.system import KEYS, VALUE_BYTES, Choices, Load, System, Tail, Write
from pfsb import __version__
from pfsb.bench.client import LoadResult, client_command
from pfsb.bench.probe import Probe, Status, status, target_of
from pfsb.bench.workload import Target, Workload, fill, operations
from pfsb.client.servers import server_addresses
from pfsb.demo.processes import server_command, write_config

WRITE_SECONDS: Final = 0.25
"""How long, in seconds, a writer waits for an answer before it tries another server."""
_MIXES: Final = {
    "put": ("put", "linearizable"),
    "get": ("get", "linearizable"),
    "local": ("get", "stale"),
    "lock": ("lock", "linearizable"),
    "lockone": ("lockone", "linearizable"),
}


class Pfsb(System):
    name: ClassVar[str] = "pfsb"
    durability: ClassVar[str] = "its only way: a server forces what it tells to disk first; acknowledged by a majority"
    _transport: ClassVar[str] = "udp"

    def __init__(self, directory: Path, servers: int, settings: Mapping[str, Any] | None = None) -> None:
        """`settings`: names and values of the configuration that replace the defaults."""
        super().__init__(directory, servers)
        self._settings = {"transport": self._transport, **(settings or {})}
        self._targets: dict[int, Target] = {}
        self._is_filled = False

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        client_command("auto")
        cls._transport = choices.transport
        return f"{__version__} over {choices.transport}"

    def configure(self) -> None:
        config = write_config(self.directory / "cluster.yaml", self.servers, Random(), **self._settings)
        self._targets = {address.id: target_of(address) for address in server_addresses(config)}
        if "tls" in config.transports:
            words = [str(Path(sys.executable).with_name("pfsb")), "certificates", "cluster.yaml"]
            subprocess.run(words, cwd=self.directory, check=True, capture_output=True)

    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        repository = str(Path(__file__).parents[2])
        paths = [repository, *filter(None, [os.environ.get("PYTHONPATH")])]
        command = server_command("--id", str(server), "--config", "cluster.yaml")
        # The empty value lets Python keep compiled files, as for an installed program, if this process forbids it: else
        # each start of a server would compile all modules anew.
        return command, {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": ""}

    def target(self, server: int) -> Target:
        """Where a server accepts clients."""
        return self._targets[server]

    def storages(self) -> list[Path]:
        """The directories in which the servers keep their data."""
        return [self.directory / "var" / str(server) for server in range(self.servers)]

    def probe(self) -> Probe:
        """A `Probe` for these servers."""
        return Probe(self._targets, self.pids())

    def statuses(self) -> dict[int, Status]:
        found = {server: status(self._targets[server]) for server in self.running()}
        return {server: said for server, said in found.items() if said is not None}

    def leader(self) -> int | None:
        statuses = self.statuses()
        for server, said in statuses.items():
            agree = [other for other in statuses.values() if other["leader"] == server]
            if said["state"] == "REG_LEADER" and len(agree) == len(self.running()):
                return server
        return None

    def load(self, load: Load) -> LoadResult | None:
        mix, read = _MIXES[load.kind]
        targets = [self._targets[self.wait_leader()]]
        command = client_command("auto")
        if mix == "get" and not self._is_filled:
            self.run_client(command, load, fill(targets, KEYS, VALUE_BYTES).render())
            self._is_filled = True
        workload = Workload(
            targets,
            operations(mix, VALUE_BYTES, read),
            load.connections,
            load.depth,
            seconds=load.seconds,
            warmup=load.warmup,
            count=load.count,
            keys=KEYS,
        )
        return self.run_client(command, load, workload.render())

    def open_writer(self, server: int) -> Write:
        connection = socket.create_connection(self._targets[server], WRITE_SECONDS)
        tail = Tail(connection.recv)
        tail.line()  # WELCOME
        line = f"PUT written {'v' * VALUE_BYTES}\n".encode()

        def write() -> None:
            connection.sendall(line)
            said = tail.line()
            if not said.startswith(b"OK"):
                connection.close()
                raise ConnectionError(said.decode())

        return write

    def position(self, server: int) -> object | None:
        said = status(self._targets[server])
        return None if said is None else (said["aru"], said["digest"])
