"""Looks at the servers of a cluster from outside: their STATUS and their CPU time. All functions block."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

from attrs import field, frozen

from pfsb.bench.machine import busy_seconds, cpu_seconds_of_all, listening_process
from pfsb.bench.workload import Target
from pfsb.client.core.addresses import ServerAddress
from pfsb.commands.survey import is_token_wanted

ASK_SECONDS: Final = 5.0
"""How long, in seconds, a server may take to answer a request such as STATUS."""
LEADER_SECONDS: Final = 20.0
"""How long, in seconds, a cluster may take to have a leader."""
_LOOK_SECONDS: Final = 0.02

Status = dict[str, Any]
"""The JSON object of a STATUS reply; docs/operating.rst describes it."""


class NoCluster(Exception):
    """The servers cannot be measured: none answers, none leads, or one is unknown or has no TCP port; the text says
    which."""


def target_of(address: ServerAddress) -> Target:
    """Host and port of a server. Raises `NoCluster` for a server that listens on no TCP port."""
    host, _, port = address.shown.rpartition(":")
    if not port.isdigit():
        raise NoCluster(f"server {address.id} listens on {address.shown}; the load client needs a TCP port")
    return host.strip("[]"), int(port)


def ask(target: Target, line: str, seconds: float = ASK_SECONDS, token: str | None = None) -> list[str]:
    """Send a line to a server on a new connection, behind a token if there is one; returns the lines of its reply.
    Raises OSError, also if the server is silent for `seconds`, and `NoCluster` if it refuses the token."""
    with socket.create_connection(target, seconds) as connection, connection.makefile("rw", newline="\n") as file:
        if token is not None:
            refused = _reply(file, f"AUTH {token}", target)[-1]
            if refused.startswith("ERR"):
                raise NoCluster(f"{target[0]} port {target[1]}: {refused}")
        return _reply(file, line, target)


def _reply(file: TextIO, line: str, target: Target) -> list[str]:
    file.write(f"{line}\n")
    file.flush()
    lines = []
    for said in file:
        if said.startswith("* "):
            continue
        lines.append(said.strip())
        if said.startswith(("OK", "ERR")):
            return lines
    raise ConnectionError(f"{target[0]} port {target[1]} hung up")


def status(target: Target, token: str | None = None) -> Status | None:
    """The STATUS of a server; None if the server does not answer. Raises `NoCluster` if it wants another token."""
    try:
        first = ask(target, "STATUS", token=token)[0]
        if is_token_wanted(first):
            raise NoCluster(f"{target[0]} port {target[1]}: {first}")
        return dict(json.loads(first[1:]))
    except (OSError, ValueError):
        return None


@frozen
class Moment:
    """The servers' answers to STATUS and the CPU times, all read at about the same time."""

    statuses: Mapping[int, Status]
    cpu_seconds: float | None
    """User and system time, in seconds, of all servers together, since their starts; None if not all are on this
    machine."""
    busy_seconds: float | None = None
    """CPU time, in seconds, of all programs and the kernel of this machine; None if not all servers are on this
    machine."""


@frozen
class Probe:
    """Reads STATUS and CPU times of the servers of one cluster."""

    targets: Mapping[int, Target]
    pids: Sequence[int]
    """Process ids of all servers; empty if not all of them were found on this machine."""
    token: str | None = field(default=None, repr=False)
    """The token that is shown to the servers; None: none is."""

    @classmethod
    def of(cls, addresses: Sequence[ServerAddress]) -> Probe:
        """Make the probe of the cluster whose servers have these addresses, and look for their processes on this
        machine.

        Raises `NoCluster` if a server listens on no TCP port.
        """
        targets = {address.id: target_of(address) for address in addresses}
        found = [listening_process(port) for _host, port in targets.values()]
        pids = [pid for pid in found if pid is not None]
        token = next((address.token for address in addresses), None)
        return cls(targets, pids if len(pids) == len(found) else [], token)

    def look(self) -> Moment:
        """Read the CPU times and every server's STATUS now."""
        # CPU times are read first, to belong to the moment of the call: a busy server is slow to answer STATUS.
        cpu_seconds = cpu_seconds_of_all(self.pids) if self.pids else None
        busy = busy_seconds() if self.pids else None
        statuses = {server_id: status(target, self.token) for server_id, target in self.targets.items()}
        return Moment({i: found for i, found in statuses.items() if found is not None}, cpu_seconds, busy)

    def leader(self, seconds: float = LEADER_SECONDS) -> int:
        """Wait until a server leads; returns its id.

        Raises `NoCluster` if no server answers, or none leads within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            statuses = self.look().statuses
            for server_id, found in statuses.items():
                if found["state"] == "REG_LEADER":
                    return server_id
            if not statuses:
                raise NoCluster("no server answers; is the cluster started?")
            if time.monotonic() >= deadline:
                states = ", ".join(f"{i} {found['state']}" for i, found in statuses.items())
                raise NoCluster(f"no server leads: {states}")
            time.sleep(_LOOK_SECONDS)

    def towards(self, to: str) -> list[Target]:
        """Host and port of the servers to put load on; `to` is `leader`, `all` or a server's id. Raises `NoCluster`."""
        if to == "all":
            return list(self.targets.values())
        server_id = self.leader() if to == "leader" else int(to)
        if server_id not in self.targets:
            raise NoCluster(f"there is no server {server_id}; known are {', '.join(map(str, self.targets))}")
        return [self.targets[server_id]]
