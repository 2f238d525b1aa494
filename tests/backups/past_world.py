"""A cluster of the past for tests: random commands in batches, a model of them, and storages that hold them."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path
from typing import Any

from attrs import define, field

from pfsb.applications.catalogue import Catalogue, PluginApplications
from pfsb.applications.interfaces import Command
from pfsb.backups.idle_replica import make_replica
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import SnapshotEncoder
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Entry
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.state_machine import CLOSE, OPEN, SessionStateMachine, birth
from tests.backups.states import FORMER, MEMBERS
from tests.storage.log.disks import Disk, Old

BEGIN_MS = 1_700_000_000_000
KEYS = [b"colour", b"col", b"\xff key", b"visits"]


@define
class Write:
    """A command about a key, as the model knows it."""

    revision: int
    verb: str
    value: bytes | None
    client_id: str
    slot: int


@define(eq=False)
class World:
    """The true history: batches, the state after each, and what each key was at each revision."""

    dice: random.Random
    home: Path
    batches: dict[int, Batch] = field(factory=dict)
    snapshots: dict[int, bytes] = field(factory=dict)
    values: list[dict[bytes, bytes]] = field(factory=lambda: [{}])
    """Revision -> all keys and values."""
    writes: dict[bytes, list[Write]] = field(factory=lambda: {key: [] for key in KEYS})
    refusals: dict[bytes, list[int]] = field(factory=lambda: {key: [] for key in KEYS})
    """Key -> the revisions of commands about it that were refused."""
    slots: list[int] = field(factory=lambda: [0])
    """Revision -> the slot in which it was reached."""
    disks: list[Disk] = field(factory=list)
    machine: SessionStateMachine = field(init=False)
    replica: Replica = field(init=False)
    _numbers: dict[str, int] = field(factory=dict, init=False)
    _epochs: dict[str, int] = field(factory=dict, init=False)
    _timestamps: Any = field(factory=lambda: count(1), init=False)

    def __attrs_post_init__(self) -> None:
        self.machine = SessionStateMachine(0, Catalogue((), PluginApplications()))
        self.replica = make_replica(0, MEMBERS, self.machine)
        values = ClusterSettings(MEMBERS, (("chat", 1), ("lock", 1), ("kv", 1)), cluster_identity=FORMER)
        self._execute([birth(0, values)])

    @property
    def seq(self) -> int:
        return self.replica.data.ordering.local_aru

    @property
    def revision(self) -> int:
        return len(self.values) - 1

    def time_of(self, seq: int) -> int:
        return BEGIN_MS + 1_000 * seq

    def disk(self, old: Old = Old.ARCHIVED, server_id: int | None = None) -> Disk:
        number = len(self.disks) if server_id is None else server_id
        disk = Disk(self.home, number, old, self.batches.__getitem__, self.snapshots.__getitem__, room=20_000)
        self.disks.append(disk)
        return disk

    def order(self, slots: int) -> None:
        """Order and execute batches of random commands."""
        for _ in range(slots):
            bundles = [self._bundle() for _ in range(self.dice.randrange(4))]
            payloads = [bundle.encode([each]) for each in bundles]
            if len(bundles) > 1 and self.dice.random() < 0.5:
                payloads = [bundle.encode(bundles)]
            self._execute([self._update(payload) for payload in payloads])

    def idle(self) -> None:
        """Order a slot that does not raise the revision."""
        self._execute([])

    def puts(self, key: bytes, number: int) -> None:
        """Order one batch with a run of PUTs, which servers execute together."""
        entries = [self._entry("~0.run", ("PUT", key, b"run %d" % each)) for each in range(number)]
        head = bundle.encode_head("~0.run", 0, opens=True)
        payload = bundle.encode([bundle.encode_bundle(head, len(entries), [bundle.encode_entries(entries)])])
        self._execute([self._update(payload)])

    def _update(self, payload: bytes) -> ClientUpdate:
        return ClientUpdate(f"{self.dice.choice(MEMBERS)}.x", 0, next(self._timestamps), self.seq, payload)

    def _execute(self, updates: list[ClientUpdate]) -> None:
        seq = self.seq + 1
        batch = self.batches[seq] = Batch.of(self.time_of(seq), updates)
        self.replica.ordered_queue.recover(seq, Batch(batch.data))
        assert self.machine.revision == self.revision, (self.machine.revision, self.revision)
        kv = next(each for each in self.machine.applications if each.name == "kv")
        assert {key: entry[0] for key, entry in kv.entries.items()} == self.values[-1]

    def freeze(self) -> int:
        """Take a snapshot of the last slot, which disks may have then."""
        encoder = SnapshotEncoder(self.seq, FORMER)
        pieces = map(encoder.piece, self.replica.ordered_queue.freeze())
        self.snapshots[self.seq] = encoder.head() + b"".join(pieces) + encoder.end()
        return self.seq

    # ------------------------------------------------------------------ commands, and the model of them

    def _bundle(self) -> bytes:
        dice = self.dice
        kind = dice.random()
        if kind < 0.15:
            name = dice.choice(["alice", "bob"])
            if name in self._epochs:
                command: Command = (CLOSE, name, self._epochs.pop(name))
                self._add(dict(self.values[-1]))
            else:
                command = (OPEN, name, 60_000)
                self._add(dict(self.values[-1]))
                self._epochs[name] = self.revision
            head = bundle.encode_head(bundle.SERVER, 0, opens=False)
            return bundle.encode_bundle(head, 1, [bundle.encode_entries([(0, command)])])
        name = dice.choice([*self._epochs, "~0.1", "~1.1"])
        entries = []
        if kind < 0.5:
            verbs = [("PUT", dice.choice(KEYS), b"%d" % dice.randrange(100)) for _ in range(dice.randrange(1, 7))]
            entries = [self._entry(name, command) for command in verbs]
        else:
            for _ in range(dice.randrange(1, 5)):
                key, value = dice.choice(KEYS), b"%d" % dice.randrange(100)
                command = dice.choice(
                    [
                        ("PUT", key, value),
                        ("DEL", key, dice.choice(KEYS)),
                        ("INCR", key, 5),
                        ("APPEND", key, value),
                        ("CAS", key, 1, value, b"swapped"),
                        ("MPUT", key, value, dice.choice(KEYS), value),
                        ("IF", key, -1, "PUT", key, value),
                        ("SAY", "hello"),
                        ("GET", key),
                    ]
                )
                if command[0] == "GET":
                    entries.append((0, command))
                else:
                    entries.append(self._entry(name, command))
        is_anonymous = name.startswith("~")
        head = bundle.encode_head(name, 0 if is_anonymous else self._epochs[name], opens=is_anonymous)
        return bundle.encode_bundle(head, len(entries), [bundle.encode_entries(entries)])

    def _entry(self, client_id: str, command: Command) -> Entry:
        number = self._numbers[client_id] = self._numbers.get(client_id, 0) + 1
        values = dict(self.values[-1])
        touched = self._apply(command, values)
        self._add(values)
        verb = command[0] if command[0] != "IF" else f"IF {command[3]}"
        for key, is_done in touched.items():
            if is_done:
                self.writes[key].append(Write(self.revision, verb, values.get(key), client_id, self.seq + 1))
            else:
                self.refusals[key].append(self.revision)
        return number, command

    def _add(self, values: dict[bytes, bytes]) -> None:
        self.values.append(values)
        self.slots.append(self.seq + 1)

    def _apply(self, command: Any, values: dict[bytes, bytes]) -> dict[bytes, bool]:
        """Change the values as a command does. Returns key -> whether it was written; False: it was refused."""
        match command:
            case ("PUT", key, value):
                values[key] = value
                return {key: True}
            case ("DEL", *keys):
                return {key: True for key in keys if values.pop(key, None) is not None}
            case ("INCR", key, step):
                old = values.get(key, b"0")
                try:
                    number = int(old)
                except ValueError:
                    return {key: False}
                if b"%d" % number != old or abs(number) > 2**62:
                    return {key: False}
                values[key] = b"%d" % (number + step)
                return {key: True}
            case ("APPEND", key, value):
                values[key] = values.get(key, b"") + value
                return {key: True}
            case ("CAS", key, 1, old, new):
                if values.get(key) != old:
                    return {key: False}
                values[key] = new
                return {key: True}
            case ("MPUT", one, value, other, same):
                values |= {one: value, other: same}
                return {one: True, other: True}
            case ("IF", key, -1, *inner):
                return self._apply(tuple(inner), values) if key in values else {key: False}
        return {}
