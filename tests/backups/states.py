"""A small state of a cluster, made by executing commands, for the tests of backups."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from pathlib import Path
from typing import Any

from pfsb.applications.catalogue import Catalogue, PluginApplications
from pfsb.applications.interfaces import Command, Done
from pfsb.backups.backup_file import BackupState
from pfsb.backups.new_cluster import write
from pfsb.config.config import Config, load
from pfsb.paxos.frozen_history import History
from pfsb.paxos.messages import DIGEST_BYTES, ClientUpdate
from pfsb.paxos.snapshot import SNAPSHOT_DIGEST_BYTES, SnapshotName
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.cluster_settings import RULES_KNOWN, ClusterSettings
from pfsb.sessions.observer import NoObserver
from pfsb.sessions.state_machine import OPEN, SessionStateMachine, birth
from tests.sessions.support import encoded

FORMER = b"former-1"
"""The identity of the cluster from which the states come."""
MEMBERS = (0, 1, 2)


class _Results(NoObserver):
    """An observer that keeps the results of the last slot."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def executed(self, update: ClientUpdate, position: int, results: Any) -> None:
        self.results += results


class MadeState:
    """A state machine of a cluster that runs chat, lock and kv, and the history behind it."""

    def __init__(self) -> None:
        self.machine = SessionStateMachine(0, Catalogue((), PluginApplications()))
        self.machine.observer = self._results = _Results()
        self.seq = 0
        self._timestamps = count(1)
        apps = (("chat", 1), ("lock", 1), ("kv", 1))
        self._execute(birth(0, ClusterSettings(MEMBERS, apps, cluster_identity=FORMER, rules=RULES_KNOWN)))

    def _execute(self, update: ClientUpdate) -> list[Any]:
        self.seq += 1
        self._results.results.clear()
        self.machine.execute(self.seq, 1_700_000_000_000 + self.seq, [update])
        return self._results.results

    def open(self, client_id: str) -> dict[str, Any]:
        """Open the session of a client. Returns the fields of the answer."""
        (result,) = self._bundle(Bundle(bundle.SERVER, 0, False, ((0, (OPEN, client_id, 10_000)),)))
        assert isinstance(result, Done), result
        return dict(result.fields)

    def run(self, client_id: str, epoch: int, number: int, command: Command) -> Any:
        """Run a command in an open session. Returns its result."""
        return self._bundle(Bundle(client_id, epoch, False, ((number, command),)))[0]

    def anonymous(self, *commands: Command) -> None:
        """Run commands, each in an anonymous session of its own."""
        entries = tuple(enumerate(commands, start=1))
        self._bundle(Bundle(f"~0.{self.seq}", 0, True, entries))

    def operation(self, command: Command) -> None:
        """Execute an operation of server 0."""
        self._bundle(Bundle(bundle.SERVER, 0, False, ((0, command),)))

    def _bundle(self, content: Bundle) -> list[Any]:
        update = ClientUpdate(f"0.x.{self.seq}", 0, next(self._timestamps), self.seq, encoded(content))
        return self._execute(update)

    def state(self) -> BackupState:
        history = History(
            self.seq, b"h" * DIGEST_BYTES, 1_700_000_000_000 + self.seq, 0, OrderedDict([("0.x.1", (1, 2))])
        )
        return BackupState(SnapshotName(self.seq, 1, bytes(SNAPSHOT_DIGEST_BYTES)), FORMER, history, self.machine)

    def backup(self, file: Path) -> SnapshotName:
        """Write a backup of this state."""
        return write(self.state(), file)


def configuration(directory: Path, servers: int = 3, cluster: str = "anew") -> Config:
    """The configuration of a cluster with its data in `directory`, whose ports no test opens."""
    lines = [f"cluster: {cluster}", f"f: {(servers - 1) // 2}", f"storage: {directory / cluster}", "servers:"]
    for each in range(servers):
        lines.append(
            f'  {each}: {{peer: "127.0.0.1:{17400 + each}", client: "tcp:{19400 + each}:interface=127.0.0.1"}}'
        )
    file = directory / f"{cluster}.yaml"
    file.write_text("\n".join(lines))
    return load(file)
