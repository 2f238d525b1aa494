"""One server that the explorer drives step by step: it makes any possible step from any of its states.

The server runs the real protocol on a memory disk. A step is the arrival of a frame with one message, a request of a
client, the expiry of a timer, the end of a disk write, or a crash together with the restart after it. To be down for a
while needs no step of its own: to the other servers that looks like a server to which nothing happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, assert_never

from twisted.python.failure import Failure

from pfsb.paxos import invariants
from pfsb.paxos.data_structures import PrepareOKs
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Acquainted, KnownPosition, Prepare
from pfsb.paxos.records import PeerRecord, ProposalRecord
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.defects.defect import do_nothing, override
from pfsb.simulator.model_checking.snapshots import UPDATE_SECONDS, Frozen, Snapshots
from pfsb.simulator.model_checking.stepped_environment import (
    UPDATE_TIMER,
    ChosenNumbers,
    ExecutionProbe,
    SteppedClock,
    SteppedStorage,
    SteppedTransport,
    require,
)
from pfsb.simulator.model_checking.steps import Ask, Crash, Deliver, Fire, Step, StepOutcome, Sync, in_words
from pfsb.storage.effect import ORDERED_VIEW
from pfsb.storage.memory import MemoryDisk
from pfsb.support.limits import IDENTITY_BYTES

SETTINGS = Settings(
    progress_seconds=0.0,
    update_seconds=UPDATE_SECONDS,
    alive_seconds=0.0,
    resend_seconds=0.0,
    lazy_seconds=0.0,
    reconciliation_seconds=0.0,
    window_slots=3,
    batch_bytes_max=1,
    history_slots_kept=100,
    horizon_slots=100,
    digests_kept=4,
)
"""Settings of the explored servers.

Times are 0 where possible, so that no two states differ only in a time. A batch holds one update, so that two updates
need two slots.
"""

PROGRESS_TIMER = "ProgressTimer.expire"
HEARTBEAT = "Retransmission.alive_due"
PERIODIC = (HEARTBEAT, "Retransmission.resend_due")
RECONCILIATION_TIMER = "ReconciliationHandler.ask_again"
WITH_A_CHOICE = (RECONCILIATION_TIMER, UPDATE_TIMER)
SEQ_MAX = 1_000_000


class SteppedServer:
    """Makes one step of one server from any of its states.

    `checks_gate` says whether each message that leaves is checked against the disk. Without this check the explorer
    finds the later consequences of a planted defect. `patch` is called once, with the new replica, to plant a defect
    in it.
    """

    def __init__(
        self,
        server_id: int,
        servers: Sequence[int],
        *,
        checks_gate: bool = True,
        patch: Callable[[Replica], None] | None = None,
        settings: Settings = SETTINGS,
    ) -> None:
        self.server_id = server_id
        self._checks_gate = checks_gate
        self._identities = {i: bytes([i]) * IDENTITY_BYTES for i in servers}
        others = {i: PeerRecord(i, identity) for i, identity in self._identities.items() if i != server_id}
        self.disk = MemoryDisk(self._identities[server_id])
        self.disk.contents.peers = others
        self.clock = SteppedClock()
        self.storage = SteppedStorage(self.disk)
        self.transport = SteppedTransport(self.storage, tuple(others), checks_gate)
        self._dice = ChosenNumbers()
        self._failures: list[Failure] = []
        self.replica = Replica(
            server_id=server_id,
            servers=servers,
            settings=settings,
            clock=self.clock,
            rng=self._dice,  # type: ignore[arg-type]
            storage=self.storage,
            transport=self.transport,
            state_machine=ExecutionProbe(self.transport),
            on_failure=self._failures.append,
        )
        self.transport.replica = self.replica
        # `tell_state` would log a line for each of millions of states. `answer_alive` would tell the other servers that
        # their storage identities are known here, and `ask_again` would ask for that, but all explored servers know
        # that from the start.
        override(self.replica, "tell_state", lambda _: do_nothing)
        override(self.replica.storage_identity, "answer_alive", lambda _: do_nothing)
        override(self.replica.storage_identity, "ask_again", lambda _: do_nothing)
        # Longer waits would keep Update_Timers from firing: the clock shows the first wait when they do.
        override(self.replica.update_timers.round_trip, "back_off", lambda _: do_nothing)
        # All frames of the explorer tell the same log position, so a server need not write which one it tells.
        for name in ("write_start", "write_admission"):
            override(self.replica.log_positions, name, lambda _: do_nothing)
        if patch is not None:
            patch(self.replica)
        memory = invariants.install(self.replica)
        self.snapshots = Snapshots(self.replica, self.storage, self.transport, self.clock, memory)
        self._unstarted = self.snapshots.take()
        self._disk_places = {self.snapshots.place(MemoryDisk, name) for name in ("incarnation", "contents")}

    def first(self) -> StepOutcome:
        """Let the server start for the first time."""
        self._start()
        return self._outcome()

    def make(self, state: Frozen, step: Step) -> StepOutcome:
        """Make `step` from `state`. Raises AssertionError, or its subclass `Violation`, if the step breaks a promise.

        An exception leaves the server in no state of the protocol, so that state is discarded.
        """
        self.snapshots.put_back(state)
        try:
            self._make(step)
            return self._outcome()
        except Exception as error:
            self.snapshots.put_back_all(self._unstarted)
            if isinstance(error, StorageRefused):
                raise Violation(f"does not start again: {error}") from error
            raise

    def steps(self, state: Frozen) -> list[Step]:
        """The steps that are possible in this state, except the arrival of messages and requests of clients."""
        self.snapshots.put_back(state)
        steps: list[Step] = []
        for name in self.clock.names():
            # A periodic timer only sends messages. It need not fire during a disk write: each of its messages has left
            # before the write, waits for the end of the write, or may as well leave after it.
            if name in PERIODIC and self.storage.groups:
                continue
            steps.append(Fire(name))
            if name in WITH_A_CHOICE:
                steps.append(Fire(name, choice=1))
        if self.storage.groups:
            steps.append(Sync())
        return [*steps, *self.crashes(state)]

    def crashes(self, state: Frozen) -> list[Step]:
        self.snapshots.put_back(state)
        torn = len(self.storage.groups[0][0]) if self.storage.groups else 1
        return [Crash(kept) for kept in range(torn)]

    def is_done_at_once(self, state: Frozen) -> bool:
        """Whether a disk write is under way and no message has left during it: then the explorer ends the write at
        once."""
        self.snapshots.put_back(state)
        return bool(self.storage.groups) and not self.transport.is_ahead

    def is_writing(self, state: Frozen) -> bool:
        self.snapshots.put_back(state)
        return bool(self.storage.groups)

    def look(self, state: Frozen) -> Replica:
        """The replica, put into `state`. The caller may read it until the next step, and must not change it."""
        self.snapshots.put_back(state)
        return self.replica

    def _make(self, step: Step) -> None:
        match step:
            case Deliver(sender, message):
                promise = self._own_promise()
                self.replica.receive(sender, self._identities[sender], [message])
                if self._checks_gate and isinstance(message, Prepare) and self._own_promise() is not promise:
                    self._promise_is_complete(message)
            case Ask(update):
                self.replica.perform(self.replica.introduce, update)
            case Fire(timer, choice):
                self._choose(choice)
                self.clock.fire(timer)
            case Sync():
                self.storage.finish()
            case Crash(records_kept):
                self._crash(records_kept)
            case _:
                assert_never(step)

    def _choose(self, choice: int) -> None:
        """Set the values of the replica that decide the effect of a timer.

        `choice` is the index of the peer that is asked for missing slots, and tells the Update_Timer whether an update
        goes to the leader (0) or to all servers (1).
        """
        for number, peer in enumerate(self.replica.peers.by_id.values()):
            peer.local_aru = SEQ_MAX if number == choice else 0
        for timer in self.replica.update_timers.running():
            timer.expiries = choice

    def _crash(self, records_kept: int) -> None:
        self.storage.lose(records_kept)
        frozen = self.snapshots.take()
        restarted = tuple(frozen[i] if i in self._disk_places else value for i, value in enumerate(self._unstarted))
        self.snapshots.put_back(restarted)
        self._start()

    def _start(self) -> None:
        self.replica.start()
        disk, replica = self.disk, self.replica
        for peer in replica.membership.others:
            known = KnownPosition(peer, disk.identity, disk.start_number, 0)
            replica.perform(replica.log_positions.on_known_position, known)
            replica.perform(replica.storage_identity.on_acquainted, Acquainted(peer, disk.identity))

    def _outcome(self) -> StepOutcome:
        if self._failures:
            error = self._failures.pop().value
            if isinstance(error, AssertionError):
                raise error
            raise Violation(f"stops with {type(error).__name__}: {error}") from error
        self._let_idle_timers_run_out()
        self._tidy()
        transport = self.transport
        transport.is_ahead = bool(self.storage.groups) and (transport.is_ahead or bool(transport.sent))
        sent, facts = tuple(transport.sent), tuple(transport.facts)
        transport.sent.clear()
        transport.facts.clear()
        return StepOutcome(self.snapshots.take(), sent, facts)

    def _let_idle_timers_run_out(self) -> None:
        """Fire timers that have no effect any more, since no update is pending, or no slot is missing."""
        armed = self.clock.names()
        if UPDATE_TIMER in armed and not self.replica.data.clients.pending_updates:
            self.clock.fire(UPDATE_TIMER)
        reconciliation = self.replica.reconciliation
        if not reconciliation.is_behind():
            if RECONCILIATION_TIMER in armed:
                self.clock.fire(RECONCILIATION_TIMER)
            reconciliation.forget_requests()

    def _tidy(self) -> None:
        """Bring states that differ in form only into one form, so that the explorer takes them for one state.

        The numbers that `Turn` gives to its disk writes, which only grow, begin at 0 again; messages that wait for the
        same write are put into one outbox; and Last_Enqueued, whose order means nothing, is sorted.
        """
        clients = self.replica.data.clients
        clients.last_enqueued = dict(sorted(clients.last_enqueued.items()))
        behind = self.replica.turn.renumber_writes()
        if behind:
            self.storage.groups = deque(
                (records, self._earlier(durable, behind)) for records, durable in self.storage.groups
            )

    def _earlier(self, durable: Any, behind: int) -> Callable[[], None]:
        position, now_durable = durable.args
        return partial(durable.func, position - behind, now_durable)

    def _own_promise(self) -> PrepareOKs | None:
        return self.replica.data.preparing.prepare_oks.get(self.server_id)

    def _promise_is_complete(self, message: Prepare) -> None:
        """Require that a new promise lists all that this server has accepted above the leader's Local_Aru (G19).

        The PREPARE `message` has just arrived, and the server has made the promise for it. All accepted proposals of
        older views, on disk or on their way there, must be in the data list of the PREPARE_OK. Later PREPAREs of the
        view get the same promise and are not checked. Even one with a lower Local_Aru, which was sent before `message`,
        needs no data list with more slots: the leader has executed all slots up to the Local_Aru in `message`.
        """
        promise = self._own_promise()
        if promise is None or promise.view != message.view:
            return
        listed = {entry.seq for part in promise.arrived.values() for entry in part.data_list}
        for record in self.storage.records():
            if isinstance(record, ProposalRecord) and ORDERED_VIEW < record.view < message.view:
                is_listed = record.seq <= message.local_aru or record.seq in listed
                require(is_listed, f"keeps quiet about its vote at slot {record.seq}, asked by {in_words(message)}")
