"""A whole simulated cluster on one clock. Its servers send the same bytes in each run of a seed (docs/testing.rst)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.failure import Failure

from pfsb.paxos import invariants
from pfsb.paxos.divergence import StateDiverged
from pfsb.paxos.interfaces import ITracer
from pfsb.paxos.members import Members
from pfsb.paxos.messages import VOTES, ClientUpdate, Message, State
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot import SnapshotName
from pfsb.server import DRAIN_LOOK_SECONDS, DRAIN_SECONDS
from pfsb.simulator.checkers.cluster_checker import ClusterChecker
from pfsb.simulator.checkers.divergence_checker import check_stop
from pfsb.simulator.checkers.position_checker import position_of
from pfsb.simulator.checkers.update_checker import Identity
from pfsb.simulator.checkers.violation import Findings, Violation
from pfsb.simulator.cluster.clock import ServerClock, SimulatedClock
from pfsb.simulator.cluster.dice import Dice
from pfsb.simulator.cluster.names import SimulatedNames
from pfsb.simulator.cluster.network import LinkQuality, SimulatedNetwork
from pfsb.simulator.cluster.probe import Probe, Unsettled
from pfsb.simulator.cluster.process import (
    ProtocolProcess,
    RunningServer,
    ServerParts,
    SimulatedProcess,
    SimulatedServer,
    WatchedStateMachine,
)
from pfsb.simulator.cluster.storage import SimulatedStorage
from pfsb.simulator.cluster.tracing import Trace, Tracers
from pfsb.simulator.cluster.transport import SimulatedTransport
from pfsb.storage.effect import KEPT_SLOTS
from pfsb.storage.memory import MemoryDisk
from pfsb.support.limits import START_MARK_BYTES
from pfsb.transports.frames import OVERHEAD_BYTES
from pfsb.transports.links import Links
from pfsb.transports.wire import Malformed, decode_all

SHARES_WRITTEN_AT_ONCE = (0.0, 0.0, 0.9)
"""Shares from which each incarnation of a server draws one: how many of its writes end before `MemoryStorage.sync`
returns, and so within the turn that began them. The shares hold for quick disks (`QUICK_SECONDS_MAX`).
"""
QUICK_SECONDS_MAX = 0.002
"""Maximum time, in seconds, that a write takes on a disk that counts as quick."""


class SimulatedCluster:
    """A cluster in which nothing happens unless `step`, `run` or `run_until` lets time go on."""

    def __init__(
        self,
        seed: int | str,
        servers: int | Sequence[int] = 3,
        *,
        settings: Settings | None = None,
        quality: LinkQuality | None = None,
        build: Callable[[ServerParts], SimulatedProcess] = ProtocolProcess,
        patch: Callable[[Any], None] | None = None,
        trace: Trace | None = None,
        tracer: Callable[[int], ITracer] | None = None,
        start: bool = True,
        has_disks: bool = True,
        names: Callable[[SimulatedClock, Sequence[int]], SimulatedNames] | None = None,
        kept_slots: int = KEPT_SLOTS,
        founders: Sequence[int] | None = None,
    ) -> None:
        """`servers` has the ids of the servers, or their number, and then the ids begin with 0 and have no gap.

        `build` is called at each start of a server, with its `ServerParts`, and makes the `SimulatedProcess`.

        `patch` is called with each process that `build` has made, and may change it before it starts. `trace` is called
        with every event of the cluster as a dict. `tracer` is called with a server's id at each of its starts, and
        makes a tracer for the events of that server. Without `has_disks` the servers run with `storage: memory`, and
        none of them can be started again. `names` makes the addresses of the servers; without it, each server is always
        where the others expect it. `kept_slots` is the number of slots, up to that of a snapshot, that disks keep.
        `founders` are the servers with which the cluster begins; None: all of them. The others may be added later.
        """
        self.seed = seed
        self.machines = tuple(range(servers)) if isinstance(servers, int) else tuple(servers)
        """Ids of all servers that there are, ascending: of members, of former ones, and of those that may be added."""
        self.founders = self.machines if founders is None else tuple(founders)
        """Ids of the servers with which the cluster begins."""
        self.ids = self.founders
        """Ids of the servers of the latest epoch of the membership that a disk holds, ascending."""
        self.settings = settings or Settings()
        self.clock = SimulatedClock()
        self.network = SimulatedNetwork(
            self.clock, random.Random(f"{seed}/network"), self.machines, quality or LinkQuality()
        )
        self.network.founders = self.founders
        self.network.names = None if names is None else names(self.clock, self.machines)
        self.servers = {i: SimulatedServer() for i in self.machines}
        disks = {i: server.disk for i, server in self.servers.items()}
        self.checks = ClusterChecker(disks, self._digest, self.settings.horizon_slots, founders)
        self.amnesiacs: set[int] = set()
        """Ids of the servers whose disk was lost and not given back.

        The checkers ignore the messages of these servers, since no other server may rely on them.
        """
        self.checks.amnesiacs = self.amnesiacs
        self.renewed_files: set[int] = set()
        """Ids of the founders whose configuration file names the present servers, too, from their next start on."""
        self.slipped: set[int] = set()
        """Ids of the servers that have gone wrong in their present incarnation, except those that have installed a
        snapshot since: their digest of the history was changed by `slip`, or an application has executed something
        otherwise than a correct one (`in_error`)."""
        self.in_error: set[int] = set()
        """Ids of the servers at which an application has gone wrong in their present incarnation (`throw_dice`).

        The checkers do not believe the results, the state and the answers of these servers. The order of updates is
        checked as ever. There are no snapshots in a cluster with such servers.
        """
        self.dice: dict[int, Dice] = {}
        """Server -> the dice that its applications throw at present, or throw again after its next start."""
        self.window_max = 0
        """Largest window to which the setting may be changed in the run; 0: no run changes it."""
        self.stopped_by_majority = 0
        """Number of times that a server has stopped itself because a majority had executed something otherwise."""
        self.network.observers.append(self._sent)
        self.network.frame_observers.append(self._frame_sent)
        self.network.misdirection_observers.append(self._misdirected)
        self.findings = Findings()
        self.tracers = Tracers(self.clock, trace, tracer)
        self.answers: dict[Identity, int] = {}
        """Update -> the slot in the first answer that its client got."""
        self.expected_failures: tuple[type[Exception], ...] = ()
        """Exceptions with which a server may stop itself, such as OSError when its disk fails.

        Any other exception in a server ends the simulation.
        """
        self.failures: dict[int, Failure] = {}
        self.asks_members_only = False
        """Whether clients go to members of the cluster only, and no more to servers that were removed."""
        self.epoch_observers: list[Callable[[int], None]] = []
        """Functions that are called with a server's id when a record of an epoch has got to its disk."""
        self._unsettled = {i: Unsettled() for i in self.machines}
        self._kept_slots = kept_slots
        self._has_disks = has_disks
        self._build = build
        self._patch = patch
        if start:
            for server_id in self.machines:
                self.restart(server_id)

    # ------------------------------------------------------------------ servers

    def restart(self, server_id: int) -> None:
        """Start a server that is not running, with the contents of its disk."""
        server = self.servers[server_id]
        assert server.running is None, f"server {server_id} is running"
        self.slipped.discard(server_id)
        self.in_error.discard(server_id)
        server.incarnations += 1
        name = f"{self.seed}/{server_id}/{server.incarnations}"
        rng = random.Random(name)
        server_clock = self.clock.server_clock(name, server.rate, server.clock_offset)
        disk_rng = random.Random(f"{name}/disk")
        mark_rng = random.Random(f"{name}/mark")
        at_once_rng = random.Random(f"{name}/here")
        share_at_once = at_once_rng.choice(SHARES_WRITTEN_AT_ONCE)
        storage = SimulatedStorage(
            server.disk,
            server_clock,
            lambda: disk_rng.uniform(*server.sync_seconds),
            lambda count: (mark_rng if count == START_MARK_BYTES else disk_rng).randbytes(count),
            lambda failure: self._failed(server_id, failure),
            lambda: server.sync_seconds[1] <= QUICK_SECONDS_MAX and at_once_rng.random() < share_at_once,
            is_transient=not self._has_disks,
            kept_slots=self._kept_slots,
            server_clock=server_clock,
            on_named=lambda name: self._named(server_id, name),
            on_epoch=lambda members: self._epoch_on_disk(server_id, members),
        )
        secret = None if self.network.names is None else self.network.names.secret
        transport = SimulatedTransport(self.network, server_id, server_clock, rng, secret, self.file_of(server_id))
        process = self._build(self._server_parts(server_id, server_clock, rng, storage, transport))
        server.running = RunningServer(process, server_clock, storage, transport)
        if self._patch is not None:
            self._patch(process)
        self._load_dice(server_id)
        if server.is_disk_full:
            storage.fail_next(OSError("no space left on device"))
        self._probe(server_id, server_clock).watch(process.replica)
        invariants.install(process.replica, self.window_max)
        for check, args in self._unsettled[server_id].take_up_to(server.disk.snapshot_seq):
            self.findings.note(check, *args)
        self.checks.started(server_id)
        process.start()
        self.findings.raise_first()

    def crash(self, server_id: int, groups_kept: int = 0, records_torn: int = 0, bytes_kept: int = 0) -> None:
        """Let a server lose power: nothing of this incarnation runs again.

        The first `groups_kept` pending groups of records reach the disk, and the first `records_torn` records of the
        next group. All other records that are not on disk are lost. Of a snapshot that is being fetched, the first
        `bytes_kept` of those bytes reach the disk that are not on it yet.
        """
        running = self._running(server_id)
        self.tracers.tell(server_id, "crash")
        running.storage.crash(groups_kept, records_torn, bytes_kept)
        running.server_clock.close()
        self.network.detach(server_id)
        self.servers[server_id].running = None

    def doom(self, server_id: int, frames: int, groups_kept: int = 0, records_torn: int = 0) -> None:
        """Crash a server right after it has sent `frames` more frames. The crash may come in the middle of a turn.

        `groups_kept` and `records_torn` say which pending records the crash leaves on disk, as for `crash`.
        """
        running = self._running(server_id)
        running.transport.after_frames(frames, lambda: self.crash(server_id, groups_kept, records_torn))

    def stop(self, server_id: int) -> None:
        """Stop a server in order: all records that it has appended get to its disk first."""
        running = self._running(server_id)
        self.tracers.tell(server_id, "stop in order")
        running.process.stop()
        running.storage.close()
        running.server_clock.close()
        self.servers[server_id].running = None

    def drain(self, server_id: int) -> None:
        """Tell a server to stop, as SIGTERM does, but for handing its view over.

        The server takes no more commands. It stops when the commands under way are answered, and after `DRAIN_SECONDS`
        at the latest.
        """
        self._end_in_order(server_id, self._running(server_id).process.drain)

    def retire(self, server_id: int) -> None:
        """Tell a server to hand its view over, if it leads, and to `drain`: that is all that SIGTERM does."""
        self._end_in_order(server_id, self._running(server_id).process.retire)

    def _end_in_order(self, server_id: int, end: Callable[[Callable[[], None]], None]) -> None:
        running = self._running(server_id)
        running.is_draining = True
        running.server_clock.callLater(0, self._begin_drain, server_id, running, end)

    def _begin_drain(self, server_id: int, running: RunningServer, end: Callable[[Callable[[], None]], None]) -> None:
        """Begin the drain. The clock of the server calls this, so a paused server begins when it is resumed."""
        end(lambda: self._drained(server_id, running))
        running.server_clock.callLater(DRAIN_SECONDS + 2 * DRAIN_LOOK_SECONDS, self._must_have_stopped, server_id)

    def _drained(self, server_id: int, running: RunningServer) -> None:
        if self.servers[server_id].running is running:
            self.stop(server_id)

    def _must_have_stopped(self, server_id: int) -> None:
        raise Violation(f"server {server_id} was asked to stop, and has not after {DRAIN_SECONDS:g} s")

    def lose_disk(self, server_id: int, instead: MemoryDisk | None = None) -> None:
        """Give a server that is down an empty disk, or the disk `instead`, an older copy of its own disk, if that is
        not None.

        Such a copy can also stand for a disk whose log was cut at the end of a group. `bring_back` gives the server
        the disk back that it has lost here.
        """
        server = self.servers[server_id]
        assert server.running is None and server_id not in self.amnesiacs, f"server {server_id} has its disk in use"
        self.amnesiacs.add(server_id)
        server.disk = instead or MemoryDisk()

    def bring_back(self, server_id: int) -> None:
        """Give a server back the disk that it had lost, unchanged since then, and start the server with it."""
        if self.is_running(server_id):
            self.crash(server_id)
        self.amnesiacs.discard(server_id)
        self.servers[server_id].disk = self.checks.durability.disks[server_id]
        self.failures.pop(server_id, None)
        self.restart(server_id)

    def slip(self, server_id: int) -> None:
        """Give a server another digest of the history from its last executed slot on, as if the slot had other results
        there.

        The server executes its history anew when it starts again, and then agrees with the others.
        """
        chain = self.replica(server_id).ordered_queue.digests
        if chain.seq:
            chain.replace_head(bytes(byte ^ 1 for byte in chain.head))
            self.slipped.add(server_id)

    def throw_dice(self, server_id: int, dice: Dice) -> None:
        """Let the applications of a server that runs go wrong by chance from now on, until `cure` is called.

        Unless the dice are lasting, the next start of the server has correct applications, too.
        """
        self._running(server_id)
        self.cure(server_id)
        self.dice[server_id] = dice
        dice.load(self.process(server_id), lambda: self._has_gone_wrong(server_id))

    def cure(self, server_id: int) -> None:
        """Let the applications of a server go wrong no more. Their wrong state stays until its next start."""
        dice = self.dice.pop(server_id, None)
        if dice is not None:
            dice.is_over = True

    def has_other_digest(self, server_id: int) -> bool:
        """Whether a running server has another digest of the history than correct servers, as far as is known."""
        chain, known = self.replica(server_id).ordered_queue.digests, self.checks.execution.digests
        seq = next((seq for seq in range(chain.seq, 0, -1) if seq in known), 0)
        own = chain.at(seq) if seq else None
        return own is not None and own != known[seq]

    def pause(self, server_id: int) -> None:
        self._running(server_id).server_clock.pause()

    def resume(self, server_id: int) -> None:
        self._running(server_id).server_clock.resume()

    def is_running(self, server_id: int) -> bool:
        return self.servers[server_id].running is not None

    def is_draining(self, server_id: int) -> bool:
        return self._running(server_id).is_draining

    @property
    def running_ids(self) -> list[int]:
        """Ids of the servers that run, those included that are no members of the cluster (any more, or yet)."""
        return [i for i in self.machines if self.is_running(i)]

    def is_voter(self, server_id: int) -> bool:
        """Whether a server votes in the latest epoch that a disk holds."""
        return server_id in self.checks.electorate.latest.voters

    def file_of(self, server_id: int) -> tuple[int, ...]:
        """Ids of the servers in the configuration file with which a server would start now: those that there are in the
        present epoch, and the founders, and the server itself. The file of a founder names the founders alone, unless
        it was renewed."""
        if server_id in self.founders and server_id not in self.renewed_files:
            return self.founders
        return tuple(i for i in self.machines if i in self.founders or i in self.ids or i == server_id)

    @property
    def serving_ids(self) -> list[int]:
        """Ids of the servers that clients may use: those that run, except those that have lost their disk, and servers
        that were never added; at the end of a run only members (`asks_members_only`).

        A server with an empty disk counts its incarnations from 1 again. The incarnation is part of the client ids that
        a server gives to Paxos clients and anonymous sessions, so such a server would give the same ids a second time.
        """
        known = self.ids if self.asks_members_only else (*self.ids, *self.checks.electorate.latest.retired)
        return [i for i in self.running_ids if i not in self.amnesiacs and i in known]

    def process(self, server_id: int) -> Any:
        """The `SimulatedProcess` of the present incarnation of a server: the object that the function `build` has made
        at its start. Its class depends on `build`."""
        return self._running(server_id).process

    def replica(self, server_id: int) -> Replica:
        return self._running(server_id).process.replica

    def server_clock(self, server_id: int) -> ServerClock:
        return self._running(server_id).server_clock

    def links(self, server_id: int) -> Links:
        return self._running(server_id).transport.links

    def storage(self, server_id: int) -> SimulatedStorage:
        return self._running(server_id).storage

    def disk(self, server_id: int) -> MemoryDisk:
        return self.servers[server_id].disk

    # ------------------------------------------------------------------ links

    def cut(self, a: int, b: int, *, one_way: bool = False) -> None:
        """Cut the link from `a` to `b`, and the link from `b` to `a` unless `one_way`."""
        self.network.cut(a, b)
        if not one_way:
            self.network.cut(b, a)

    def isolate(self, *group: int) -> None:
        """Cut the links, in both directions, between each server in `group` and each server outside of it."""
        for a in group:
            for b in set(self.machines) - set(group):
                self.cut(a, b)

    def heal(self) -> None:
        """Mend all links that are cut or selective. The quality of the links stays as it is."""
        self.network.mend_all()

    # ------------------------------------------------------------------ clients

    def submit(self, server_id: int, client_id: str, timestamp: int, payload: bytes = b"") -> None:
        """Let a client ask a server, a `ProtocolProcess`, for an update.

        A paused server takes the update when it is resumed.
        """
        running = self._running(server_id)
        made_at = running.process.replica.data.ordering.local_aru
        update = ClientUpdate(client_id, server_id, timestamp, made_at, payload)
        self.checks.execution.introduce(update)
        running.server_clock.callLater(0, self.process(server_id).submit, update)

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def step(self) -> bool:
        """Run the next call of the clock. Returns False if no call waits."""
        happened = self.clock.step()
        self.findings.raise_first()
        return happened

    def run(self, seconds: float) -> None:
        """Let this number of simulated seconds pass."""
        self._run_until_time(self.now + seconds)

    def run_until(self, predicate: Callable[[], bool], seconds: float = 30.0) -> None:
        """Let time pass until `predicate` holds. Raises AssertionError after `seconds` of the simulation."""
        until = self.now + seconds
        while not predicate():
            if not self.clock.step_until(until):
                raise AssertionError(f"in vain for {seconds} s; now it is {self.now:.3f} s\n{self.picture()}")
            self.findings.raise_first()

    # ------------------------------------------------------------------ looking

    def leader(self) -> int | None:
        """The server that leads a view; of several such servers the one with the highest view; None if none leads."""
        return max(self._leaders(), key=self._installed, default=None)

    def required_leader(self) -> int:
        """The server that `leader` returns. Raises `Violation` if no server leads."""
        leader = self.leader()
        if leader is None:
            raise Violation(f"no server leads, though all was well\n{self.picture()}")
        return leader

    def oldest_leader(self) -> int | None:
        """The server that leads a view; of several such servers the one with the lowest view; None if none leads.

        If it is not also `leader()`, it was deposed, and has not learned that yet.
        """
        return min(self._leaders(), key=self._installed, default=None)

    def _leaders(self) -> list[int]:
        return [i for i in self.running_ids if self.replica(i).data.server.state is State.REG_LEADER]

    def _installed(self, server_id: int) -> int:
        return self.replica(server_id).data.views.last_installed

    def has_leader(self) -> bool:
        """Whether a server leads, and a majority of the servers (the leader included) has installed the leader's view
        and is not electing another leader."""
        leader = self.leader()
        if leader is None:
            return False
        view = self._installed(leader)
        followers = sum(
            self._installed(i) == view and self.replica(i).data.server.state is not State.LEADER_ELECTION
            for i in self.running_ids
        )
        return followers >= self.replica(leader).membership.quorum

    def executed(self, server_id: int) -> list[tuple[int, str, int, bytes]]:
        """A list of the updates that a server, a `ProtocolProcess`, has run since it started, in the order of
        execution. Each is (seq, client_id, timestamp, payload)."""
        return list(self.process(server_id).state_machine.executed)

    def aru(self, server_id: int) -> int:
        return self.replica(server_id).data.ordering.local_aru

    def all_equal(self) -> bool:
        """Whether each running member has executed up to one slot, the same for all, and has settled all its
        executions."""
        return self.checks.all_equal([i for i in self.ids if self.is_running(i)])

    def picture(self) -> str:
        """A text with one line for each server, which tells its state."""
        return "\n".join(f"server {i}: {server.describe()}" for i, server in self.servers.items())

    def hand_over(self, sender: int, receiver: int, messages: Sequence[Message]) -> None:
        """Let server `receiver` receive these messages at once, past the network.

        They come in the name of server `sender` and of its present storage; `sender` need not run.
        """
        disk = self.disk(sender)
        assert disk.identity is not None, f"server {sender} was never started"
        self.replica(receiver).receive(sender, disk.identity, messages, disk.start_number, position_of(disk, sender))

    # ------------------------------------------------------------------ inside

    def _probe(self, server_id: int, server_clock: ServerClock) -> Probe:
        return Probe(
            server_id,
            server_clock,
            self.network,
            self.checks,
            self.findings,
            self.answers,
            self.process,
            self._unsettled[server_id],
            self.slipped,
        )

    def _server_parts(
        self,
        server_id: int,
        server_clock: ServerClock,
        rng: random.Random,
        storage: SimulatedStorage,
        transport: SimulatedTransport,
    ) -> ServerParts:
        probe = self._probe(server_id, server_clock)
        return ServerParts(
            server_id=server_id,
            servers=self.founders,
            settings=self.settings,
            clock=server_clock,
            rng=rng,
            storage=storage,
            transport=transport,
            watched=lambda inner: WatchedStateMachine(inner, probe.executed),
            on_failure=lambda failure: self._failed(server_id, failure),
            answered=probe.answered,
            introduced=self.checks.execution.introduce if server_id not in self.amnesiacs else lambda update: None,
            settle=probe.settle,
            tracer=self.tracers.tracer_of(server_id),
        )

    def _sent(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        if server_id not in self.amnesiacs:
            self.checks.sent(server_id, to, messages)
            if not VOTES.isdisjoint(map(type, messages)):
                told, disk = self.replica(server_id).log_positions.told(), self.servers[server_id].disk
                self.findings.note(self.checks.positions.voted, server_id, told, disk)

    def _named(self, server_id: int, name: SnapshotName) -> None:
        self.findings.note(self.checks.named, server_id, name, self.servers[server_id].disk)

    def _epoch_on_disk(self, server_id: int, members: Members) -> None:
        """Called when a record of an epoch has got to the disk of a server. The disk of a server that has lost its own
        does not count."""
        if self.servers[server_id].disk is self.checks.electorate.disks[server_id]:
            self.checks.electorate.hold(members)
        self.ids = self.checks.electorate.latest.ids
        for observer in self.epoch_observers:
            observer(server_id)

    def _frame_sent(self, server_id: int, frame: bytes) -> None:
        disk, true = self.servers[server_id].disk, self.checks.durability.disks[server_id]
        # With an older copy of its disk, a server rightly tells a lower position than before.
        if disk is true or disk.identity != true.identity:
            self.findings.note(self.checks.positions.sent, server_id, frame, disk)

    def _misdirected(self, sender: int, receiver: int, frame: bytes) -> None:
        try:
            messages = decode_all(sender, frame[OVERHEAD_BYTES:])
        except Malformed:
            self.checks.relays.parts_misdirected(sender, receiver)
            return
        for message in messages:
            if isinstance(message, ClientUpdate):
                self.checks.relays.misdirected(sender, receiver, message)

    def _run_until_time(self, until: float) -> None:
        while self.clock.step_until(until):
            self.findings.raise_first()
        self.findings.raise_first()

    def _running(self, server_id: int) -> RunningServer:
        running = self.servers[server_id].running
        assert running is not None, f"server {server_id} is down"
        return running

    def _digest(self, server_id: int, seq: int) -> bytes | None:
        if server_id in self.slipped:
            return None
        return self.replica(server_id).ordered_queue.digests.at(seq)

    def _load_dice(self, server_id: int) -> None:
        """Let the applications of a server that starts throw dice, if those of its former incarnation did and the dice
        are lasting."""
        dice = self.dice.get(server_id)
        if dice is not None and dice.is_lasting:
            dice.load(self.process(server_id), lambda: self._has_gone_wrong(server_id))
        else:
            self.cure(server_id)

    def _has_gone_wrong(self, server_id: int) -> None:
        self.slipped.add(server_id)
        self.in_error.add(server_id)

    def _check_stop(self, server_id: int, failure: Failure) -> None:
        """Check that a server which stops because a majority has executed something otherwise says so truly."""
        self.stopped_by_majority += 1
        chain, known = self.replica(server_id).ordered_queue.digests, self.checks.execution.digests
        is_exact, electorate = server_id in self.in_error, self.checks.electorate
        voters = electorate.of(electorate.epoch_on_disk(server_id)).voters
        self.findings.note(check_stop, server_id, failure.getErrorMessage(), voters, chain.at, known, is_exact)

    def _failed(self, server_id: int, failure: Failure) -> None:
        """Called when a server has stopped itself after a failure.

        If the failure is expected, the server crashes after the present call of the clock. Otherwise the failure ends
        the simulation.
        """
        self.failures[server_id] = failure
        stops_for_nothing = failure.check(StateDiverged) and server_id not in self.slipped
        if failure.check(StateDiverged) and not stops_for_nothing:
            self._check_stop(server_id, failure)
        if failure.check(*self.expected_failures) is None or stops_for_nothing:
            self.findings.add(failure)
        else:
            self.clock.callLater(0, self._end, server_id, self.servers[server_id].running)

    def _end(self, server_id: int, failed: RunningServer | None) -> None:
        """Crash the incarnation `failed`, which has failed, unless it has ended since by other means; None: there was
        none any more.
        """
        if failed is not None and self.servers[server_id].running is failed:
            self.crash(server_id)
