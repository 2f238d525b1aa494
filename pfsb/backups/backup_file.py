"""Reads a backup: checks it, and builds the state that is in it, as a server does that starts from it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from pfsb.applications.catalogue import Catalogue, PluginApplications
from pfsb.paxos.frozen_history import History, HistoryRestorer
from pfsb.paxos.interfaces import IRestorer
from pfsb.paxos.members import Members
from pfsb.paxos.snapshot import MAGIC, SnapshotDecoder, SnapshotName, WrongSnapshot
from pfsb.sessions.cluster_settings import show_app
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.storage.log.snapshot_files import portions_of


@frozen
class BackupState:
    """The state in a backup, as a state machine of its own, which no server drives."""

    name: SnapshotName
    cluster_identity: bytes
    """The random identity of the cluster from which the backup comes."""
    history: History
    machine: SessionStateMachine

    def application(self, name: str) -> Any:
        """The application of this name; None: the cluster did not run it."""
        return next((each for each in self.machine.applications if each.name == name), None)


@define(eq=False)
class _Adopted:
    """Takes the history out of a restorer, where a server would put it in the place of its own."""

    history: History | None = field(default=None, init=False)

    def adopt(self, history: History, machine: IRestorer) -> None:
        self.history = history
        machine.adopt()


def load(file: Path, progress: Callable[[int], None] = lambda size: None) -> BackupState:
    """Read a backup, and build its state. `progress` is called with the number of bytes that were read so far.

    Raises `WrongSnapshot` if the file is no snapshot, is damaged, or cannot be understood; `CannotRun` if an
    application that it needs is not installed here; `OSError` if it cannot be read.
    """
    machine = SessionStateMachine(0, Catalogue((), PluginApplications()))
    adopted = _Adopted()
    restorer = HistoryRestorer(machine.restorer(), adopted.adopt)
    decoder = SnapshotDecoder()
    portion = b""
    for portion in portions_of(file):
        if not decoder.seq and portion[: len(MAGIC)] != MAGIC:
            raise WrongSnapshot("it does not begin as a backup does")
        for piece in decoder.feed(portion):
            restorer.take(piece)
        progress(decoder.size)
    if not decoder.is_complete:
        raise WrongSnapshot("its end is missing" if portion else "it is empty")
    restorer.adopt()
    history = adopted.history
    assert history is not None, "the restorer has adopted it"
    if history.seq != decoder.seq:
        raise WrongSnapshot(f"its head names slot {decoder.seq}, and its history slot {history.seq}")
    return BackupState(decoder.name, decoder.cluster_identity, history, machine)


def no_backup(file: Path, error: Exception) -> str:
    """The words for a file that cannot be restored, with the reason."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return f"{file} is no backup that could be restored: {why}"


def describe(file: Path) -> str:
    """The text of `pfsb backup --verify`: what is in a backup. Raises as `load` does."""
    state = load(file)
    machine, name = state.machine, state.name
    values = machine.settings.values
    rows = [
        ("slot", name.seq),
        ("revision", machine.revision),
        ("digest", name.digest.hex()),
        ("cluster", values.cluster_identity.hex()),
        *_servers(machine.settings.members),
        ("applications", ", ".join(show_app(*each) for each in values.apps)),
        ("time", _moment(state.history.time_ms)),
        ("sessions", len(machine.sessions)),
        *_contents(state),
    ]
    width = max(len(title) for title, _ in rows)
    lines = [f"{title:{width}}  {value}\n" for title, value in rows]
    return f"{file}: a whole backup of {name.size} bytes\n" + "".join(lines)


def _servers(members: Members) -> list[tuple[str, object]]:
    """The servers of the cluster, and from the first change of the membership on the epoch."""
    found: list[tuple[str, object]] = [("servers", ", ".join(map(str, members.voters)))]
    if members.learners:
        found.append(("learning", ", ".join(map(str, members.learners))))
    return [*found, ("epoch", members.epoch)] if members.epoch else found


def _contents(state: BackupState) -> list[tuple[str, object]]:
    """How much the applications of pfsb itself hold."""
    found: list[tuple[str, object]] = []
    if (kv := state.application("kv")) is not None:
        found.append(("keys", f"{len(kv.entries)}, {kv.used()} bytes with their values"))
    if (lock := state.application("lock")) is not None:
        found.append(("locks held", len(lock.locks)))
    if (chat := state.application("chat")) is not None:
        found.append(("lines of chat", chat.length()))
    return found


def _moment(time_ms: int) -> str:
    """The state machine's time as a moment, which is near that of the backup unless the cluster's clock was wrong."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
