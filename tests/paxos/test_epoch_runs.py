"""Departure 60: whole clusters of replicas whose membership changes while messages are lost and servers crash."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.paxos import invariants
from pfsb.paxos.interfaces import IStateMachine, ITransport
from pfsb.paxos.members import Members
from pfsb.paxos.messages import ClientUpdate, Message, State
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot import Piece
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from tests.long import long

SETTINGS = Settings(lazy_seconds=0.0, snapshot_slots=0)
FOUNDERS = (1, 2, 3)
LATER = (4, 5, 6)


@implementer(IStateMachine)
@define(eq=False)
class Machine:
    """Executes updates, and changes of the membership: each names the epoch that it expects, and the servers after
    it."""

    run: Run
    replica: Replica | None = None
    executed: list[bytes] = field(factory=list)
    members: Members = field(factory=lambda: Members(FOUNDERS))

    def is_valid(self, update: ClientUpdate) -> bool:
        return True

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        for update in updates:
            self.executed.append(update.payload)
            wanted = self.run.changes.get(update.payload)
            if wanted is not None and wanted.epoch == self.members.epoch + 1:
                self.members = evolve(wanted, since=seq)
                assert self.replica is not None
                self.replica.ordered_queue.change_members(self.members)
        self.run.executed(seq, [update.payload for update in updates])
        return b""

    def too_old(self, update: ClientUpdate) -> None:
        raise AssertionError("no run is as long")

    def freeze(self) -> Generator[Piece, None, None]:
        raise AssertionError("no snapshots are taken")

    def restorer(self) -> Any:
        raise AssertionError("no snapshots are taken")


@implementer(ITransport)
@define(eq=False)
class Transport:
    """Sends to the servers of the epoch, and tells the epoch with each frame, as `Links` do."""

    run: Run
    server_id: int
    others: tuple[int, ...]
    epoch: int = 0
    start_number: int = 0
    identity: bytes = b""
    position: Callable[[], int] = lambda: 0

    def start(self, receiver: Any, identity: bytes, start: int, position: Callable[[], int], passes: bytes) -> None:
        self.identity, self.start_number, self.position = identity, start, position

    def know_cluster(self, identity: bytes) -> None:
        pass

    def enter_epoch(self, members: Members, others: Collection[int]) -> None:
        self.epoch, self.others = members.epoch, tuple(others)

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        told = self.server_id, self.identity, tuple(messages), self.start_number, self.position(), self.epoch
        for receiver in self.others if to is None else (to,):
            self.run.carry(receiver, told)

    def stop(self) -> None:
        pass


class Run:
    """A cluster of three servers, of which some are replaced; all from one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.disks: dict[int, MemoryDisk] = {}
        self.replicas: dict[int, Replica] = {}
        self.machines: dict[int, Machine] = {}
        self.changes: dict[bytes, Members] = {}
        self.slots: dict[int, list[bytes]] = {}
        self.loss = 0.0
        self.cut: set[int] = set()
        self.numbers = 0
        for server_id in FOUNDERS:
            self.begin(server_id)

    def executed(self, seq: int, payloads: list[bytes]) -> None:
        """S1, over all servers, epochs and starts."""
        before = self.slots.setdefault(seq, payloads)
        assert before == payloads, f"S1: slot {seq} executes {payloads}; but before {before}"

    def begin(self, server_id: int) -> None:
        """A server starts: for the first time, or with its disk."""
        disk = self.disks.setdefault(server_id, MemoryDisk())
        disk.in_use = False
        machine = self.machines[server_id] = Machine(self)
        delay = self.dice.choice((0.0005, 0.01))
        storage = MemoryStorage(disk, self.clock, lambda: delay, self.dice.randbytes, _fail)
        others = tuple(i for i in FOUNDERS if i != server_id)
        machine.replica = replica = Replica(
            server_id=server_id,
            servers=FOUNDERS if server_id in FOUNDERS else others,
            learners=() if server_id in FOUNDERS else (server_id,),
            settings=SETTINGS,
            clock=self.clock,
            rng=random.Random(self.dice.random()),
            storage=storage,
            transport=Transport(self, server_id, others),
            state_machine=machine,
            on_failure=_fail,
        )
        invariants.install(replica)
        self.replicas[server_id] = replica
        replica.start()

    def crash(self, server_id: int) -> None:
        replica = self.replicas.pop(server_id, None)
        if replica is not None:
            replica.stop()
            storage = replica.storage
            assert isinstance(storage, MemoryStorage)
            storage.crash(self.dice.randint(0, 1), self.dice.choice((0, 0, 1, 2, 3, 5)))

    def carry(self, receiver: int, told: tuple[Any, ...]) -> None:
        sender = told[0]
        if self.dice.random() < self.loss or {sender, receiver} & self.cut:
            return
        copies = 2 if self.dice.random() < self.loss / 4 else 1
        for _ in range(copies):
            self.clock.callLater(self.dice.choice((0.001, 0.003, 0.02)), self.arrive, receiver, told)

    def arrive(self, receiver: int, told: tuple[Any, ...]) -> None:
        replica = self.replicas.get(receiver)
        if replica is not None:
            replica.receive(*told)

    def let_pass(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while (due := [c.getTime() for c in self.clock.getDelayedCalls() if c.getTime() <= end]) and due:
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    # ------------------------------------------------------------------ what clients and operators do

    @property
    def latest(self) -> Members:
        return max((machine.members for machine in self.machines.values()), key=lambda members: members.epoch)

    def ask(self, payload: bytes) -> None:
        """A client of some server that runs asks for an update."""
        self.numbers += 1
        voters = [i for i in self.latest.voters if i in self.replicas]
        if voters:
            server_id = self.dice.choice(voters)
            replica = self.replicas[server_id]
            aru = replica.data.ordering.local_aru
            update = ClientUpdate(f"client {self.numbers}", server_id, 1, aru, payload)
            replica.perform(lambda: replica.introduce(update))

    def ask_for_change(self) -> bytes:
        """A server is added as a learner, a learner becomes a voter, or a voter goes."""
        now = self.latest
        new = [i for i in LATER if i not in now.ids and i not in now.retired]
        voters, learners, retired = set(now.voters), set(now.learners), set(now.retired)
        kind = self.dice.random()
        if learners and kind < 0.5:
            voters.add(server_id := self.dice.choice(sorted(learners)))
            learners.discard(server_id)
            if len(voters) > 3 and self.dice.random() < 0.7:
                gone = self.dice.choice(sorted(voters - {server_id}))
                voters.discard(gone)
                retired.add(gone)
        elif new:
            learners.add(server_id := self.dice.choice(new))
            if server_id not in self.replicas:
                self.begin(server_id)
        elif len(voters) > 2:
            gone = self.dice.choice(sorted(voters))
            voters.discard(gone)
            retired.add(gone)
        first = self.dice.choice(sorted(voters))
        payload = b"change %d" % self.numbers
        members = Members(voters, learners, now.epoch + 1, first=first, retired=retired)
        self.changes[payload] = members
        self.ask(payload)
        return payload

    def trouble(self) -> None:
        """Something goes wrong, or is over: a majority of the voters stays up."""
        kind = self.dice.random()
        up = [i for i in self.latest.voters if i in self.replicas]
        if kind < 0.25 and len(up) > len(self.latest.voters) // 2 + 1:
            self.crash(self.dice.choice(up))
        elif kind < 0.55:
            down = [i for i in self.disks if i not in self.replicas]
            if down:
                self.begin(self.dice.choice(down))
        elif kind < 0.8:
            self.cut = (
                {self.dice.choice(sorted(self.replicas))} if self.replicas and self.dice.random() < 0.6 else set()
            )
        else:
            self.loss = self.dice.choice((0.0, 0.0, 0.05, 0.2))

    def heal(self) -> None:
        self.loss, self.cut = 0.0, set()
        for server_id in self.disks:
            if server_id not in self.replicas:
                self.begin(server_id)

    def stop(self) -> None:
        for server_id in [*self.replicas]:
            self.replicas.pop(server_id).stop()


def _fail(failure: Any) -> None:
    failure.raiseException()


@long
class RunTests(SynchronousTestCase):
    """Random runs; a seed repeats its run."""

    def run_seed(self, seed: int) -> Run:
        run = Run(seed)
        self.addCleanup(run.stop)
        run.let_pass(1.0)
        for step in range(60):
            run.ask(b"update %d" % step)
            if step % 8 == 3:
                run.ask_for_change()
            if run.dice.random() < 0.4:
                run.trouble()
            run.let_pass(run.dice.choice((0.02, 0.1, 0.5)))
        run.heal()
        run.let_pass(20.0)
        return run

    def assertServes(self, run: Run, seed: int) -> None:
        """After all is healed, an update is executed by all servers of the latest epoch."""
        run.ask(b"last")
        run.let_pass(10.0)
        members = run.latest
        for server_id in members.ids:
            self.assertIn(b"last", run.machines[server_id].executed, f"seed {seed}: server {server_id} of {members}")
            self.assertEqual(run.replicas[server_id].membership.epoch, members.epoch, f"seed {seed}")
        leaders = [i for i in members.ids if run.replicas[i].data.server.state is State.REG_LEADER]
        self.assertEqual(len(leaders), 1, f"seed {seed}")

    def test_no_two_servers_execute_different_updates_in_a_slot(self) -> None:
        """S1, and progress at the end, over changes that add, promote and remove servers."""
        epochs = 0
        for seed in range(12):
            run = self.run_seed(seed)
            self.assertServes(run, seed)
            epochs += run.latest.epoch
            run.stop()
        self.assertGreater(epochs, 20, "the membership has changed")
