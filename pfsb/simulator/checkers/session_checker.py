"""Sessions: a command runs exactly once, and has the same answer every time (docs/internals/sessions.rst).

Simulated connections report each command when it reaches a server, and each answer when it leaves the server; the
sessions of each server report the commands that ran, with their results. A command counts as run from the moment when
the durability gate lets out the effects of its slot.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from attrs import define, field
from zope.interface import implementer

from pfsb.applications.interfaces import PENDING, Command, Done, Refused, Result, Ticket
from pfsb.applications.results import check_result
from pfsb.paxos.interfaces import IRestorer, IStateMachine
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.snapshot import Piece
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.observer import NoObserver
from pfsb.sessions.session import Session
from pfsb.sessions.state_machine import EXPIRE, SessionStateMachine, failed_alike
from pfsb.simulator.checkers.electorate import Electorate
from pfsb.simulator.checkers.session_model import Expired, SessionModel
from pfsb.simulator.checkers.snapshot_checker import WatchedRestorer
from pfsb.simulator.checkers.violation import Violation
from pfsb.storage.memory import MemoryDisk

REFUSED_BY_LOCAL_CLIENTS = frozenset(
    {"BADREQUEST", "NOSESSION", "REPLACED", "BUSY", "UNAVAILABLE", "SHUTDOWN", "DIVERGED", "READONLY"}
)
"""Codes of refusals by `LocalClients`, the part of a server to which clients are connected.

Such a refusal is not the result of running the command; only its `fate` says whether the command has run.
"""


FASTEST_RATE = 2.0
"""The fastest rate of a simulated server's clock: such a server counts two seconds in one."""
ROUNDING_MS = 2
"""How many milliseconds before its time limit a wait may end, since times are rounded to milliseconds."""


@define
class Slot:
    """The effect of one slot on the sessions. Each list is in the order in which its entries came about.

    The name of this class is part of the texts of violations, which `expected_catches.json` repeats.
    """

    seq: int
    ran: list[tuple[Ticket, Command, Any]] = field(factory=list)
    """(ticket, command, result or PENDING) of each command that ran in this slot."""
    completed: list[tuple[Ticket, Result]] = field(factory=list)
    """(ticket, result) of each command that had waited as PENDING, and whose result came in this slot."""
    ended: list[str] = field(factory=list)
    """Client ids of the sessions that were closed or expired in this slot."""
    fenced_off: list[tuple[Ticket, int, int]] = field(factory=list)
    """(ticket, epoch in its bundle, latest epoch of the session) of each command that ran under a former epoch.

    Each entry is a violation: the session had been opened anew, so the command should have been refused.
    """
    ran_under: dict[Ticket, int] = field(factory=dict)
    """Ticket -> the epoch in the bundle with which the command came.

    A ticket that is missing here counts as epoch 0.
    """
    epochs: dict[str, int] = field(factory=dict)
    """Client id -> epoch of each session that is open after the slot."""
    revision: int = 0
    """The revision of the state machine of the sessions after this slot."""
    updates: Sequence[ClientUpdate] | None = field(default=None, eq=False, repr=False)
    """The updates that the slot has executed, for the `SessionModel`; None: the slot is not compared with the model."""
    expired_by_others: int = 0
    """Number of sessions that were expired in this slot by another server than the one at which they were last opened.
    """

    def compared(self) -> tuple[object, ...]:
        """The part of the effect that servers compare with each other (Departure 40): the fields of results and the
        codes of refusals, without their texts."""
        ran = [(ticket, _compared(result)) for ticket, _, result in self.ran]
        completed = [(ticket, _compared(result)) for ticket, result in self.completed]
        return ran, completed, self.revision


@define
class Asked:
    """A command that a client has sent under one of its numbers, and how often this command has reached a server.

    One number may stand for two commands: a client that learns by HELLO that its command has not run may use the number
    for another command.
    """

    first_at: float
    """When the command was first asked for, in simulated seconds."""
    times: int = 0
    refused: int = 0
    """Number of refusals that told the client that the command has not run, and never will."""


@define
class SessionChecker:
    """Checks that each command of a client runs exactly once and is answered alike every time.

    This must hold whichever servers the command was sent to, and however often these were restarted.
    """

    disks: dict[int, MemoryDisk]
    horizon_slots: int
    marks: Counter[str]
    on_session_end: Callable[[str], None] = lambda client_id: None
    now: Callable[[], float] = lambda: 0.0
    """Returns the simulated time, in seconds."""
    in_error: Collection[int] = ()
    """Ids of the servers at which an application has gone wrong in their present incarnation
    (`SimulatedCluster.in_error`)."""
    electorate: Electorate | None = None
    """The servers that vote on each slot; None: all that have a disk."""
    contradicting: dict[int, int] = field(factory=dict)
    """Server in error -> the first slot to which it has come, in its present incarnation, with results that differ from
    those of correct servers in what servers compare (Departure 40)."""
    slots: dict[int, Slot] = field(factory=dict)
    _of_servers_in_error: defaultdict[int, dict[int, Slot]] = field(factory=lambda: defaultdict(dict))
    """Server in error -> slot -> its effect there; for the slots that no correct server has settled yet."""
    asked: dict[Ticket, dict[Command, Asked]] = field(factory=dict)
    results: dict[Ticket, tuple[int, Any]] = field(factory=dict)
    """Ticket -> (the slot in which the command ran or got its result, the result or PENDING)."""
    _ran_as: dict[Ticket, tuple[Command, int]] = field(factory=dict)
    """Ticket -> (the command that ran, the epoch of the connection that it came from)."""
    _executed_at: dict[int, float] = field(factory=dict)
    """Slot -> when the first server executed it, in simulated seconds."""
    model: SessionModel = field(init=False)
    _latest: dict[str, tuple[int, int]] = field(factory=dict)
    """Client -> (the number of its command that ran last, the slot in which that command ran)."""
    _answered_up_to: dict[str, int] = field(factory=dict)
    """Client -> the highest command number that was answered in the client's present session.

    Numbers of ended sessions are not counted, since servers may forget them.
    """
    _ended_at: dict[str, int] = field(factory=dict)
    """Client -> the slot that ended its latest session."""

    @model.default
    def _make_model(self) -> SessionModel:
        return SessionModel(self.horizon_slots)

    # ------------------------------------------------------------------ reports of clients

    def ask(self, ticket: Ticket, command: Command) -> None:
        meanings = self.asked.setdefault(ticket, {})
        asked = meanings.setdefault(command, Asked(self.now()))
        asked.times += 1
        self.marks["two meanings for one number"] += asked.times == 1 and len(meanings) > 1
        if self.results.get(ticket, (0, PENDING))[1] is not PENDING:
            self.marks["asked again for what had run"] += 1

    def answered(self, ticket: Ticket, command: Command, result: Result, epoch: int) -> None:
        """Check the answer to the command `ticket`: called at the moment when the answer leaves the server.

        `epoch` is the one under which the client's connection has opened the session.
        """
        slot, known = self.results.get(ticket, (0, None))
        if known is not None and known == result:
            self._is_its_own(ticket, command, epoch)
            self._is_in_time(ticket, command, result)
            self._is_durable(ticket, slot)
            if slot > self._ended_at.get(ticket[0], 0):
                self._answered_up_to[ticket[0]] = max(ticket[1], self._answered_up_to.get(ticket[0], 0))
            if self.asked[ticket][command].times > 1:
                self.marks["answer given for a repetition"] += 1
            return
        if isinstance(result, Done) or result.code not in REFUSED_BY_LOCAL_CLIENTS:
            raise Violation(f"{ticket} is answered {result}, but what ran came to {known} in slot {slot}")
        self.marks[f"{result.code} fate={result.fate}"] += 1
        if result.fate == "none":
            self._did_not_run(ticket, command, result)

    def _is_its_own(self, ticket: Ticket, command: Command, epoch: int) -> None:
        """Require that a result goes to no connection that is fenced off, and to none that asked for something else."""
        ran, ran_epoch = self._ran_as[ticket]
        if epoch < ran_epoch:
            raise Violation(
                f"{ticket} ran for a connection of epoch {ran_epoch}, and one of epoch {epoch}, which is fenced off, "
                "is told the result"
            )
        if ran != command:
            raise Violation(f"{ticket} ran as {ran}, and its result is the answer to {command}")

    def _is_in_time(self, ticket: Ticket, command: Command, result: Result) -> None:
        """Require that a LOCK that is answered TIMEOUT has waited for its whole time limit.

        The limit is measured by the clocks of servers, which may run as fast as `FASTEST_RATE`, so the wait may be
        shorter by this factor. Other answers are not looked at.
        """
        if not isinstance(result, Refused) or result.code != "TIMEOUT":
            return
        waited_ms = (self.now() - self.asked[ticket][command].first_at) * 1000
        if waited_ms + ROUNDING_MS < command[2] / FASTEST_RATE:
            raise Violation(f"{ticket} has waited for {waited_ms:.0f} ms, and is told that {command[2]} ms are over")

    def answered_up_to(self, client_id: str) -> int:
        return self._answered_up_to.get(client_id, 0)

    def opened(self, client_id: str, last: int, resumed: bool, answered: int) -> None:
        """Check the answer to HELLO: a resumed session must know every command that was answered before HELLO.

        `last` is the field of that name in the answer: the highest command number that the session has run. `answered`
        is the highest command number that was answered when HELLO reached the server.
        """
        if resumed and last < answered:
            raise Violation(f"{client_id} was answered up to {answered}, and its session goes on from {last}")

    def _did_not_run(self, ticket: Ticket, command: Command, result: Refused) -> None:
        asked = self.asked[ticket][command]
        asked.refused += 1
        if asked.refused == asked.times and self._ran_as.get(ticket, (None, 0))[0] == command:
            raise Violation(f"{ticket} is told {result}, but it ran in slot {self.results[ticket][0]}")

    def _is_durable(self, ticket: Ticket, seq: int) -> None:
        holders = [i for i, disk in self.disks.items() if disk.has(seq)]
        electorate = self.electorate
        is_majority = 2 * len(holders) > len(self.disks) if electorate is None else electorate.is_majority(holders, seq)
        if not is_majority:
            raise Violation(f"{ticket} is answered from slot {seq}, which is only on the disks of {holders}")

    # ------------------------------------------------------------------ reports of servers

    def executes(self, seq: int) -> None:
        """Note the time at which a slot is executed for the first time. Called for each execution of the slot."""
        self._executed_at.setdefault(seq, self.now())

    def started(self, server_id: int) -> None:
        """Called for each incarnation of a server, before it executes anything."""
        self.contradicting.pop(server_id, None)
        self._of_servers_in_error.pop(server_id, None)

    def settled(self, server_id: int, slot: Slot) -> None:
        """Check the effect of a slot at a server. The effect at a server in error is no truth: it is only compared."""
        if server_id in self.in_error:
            self._of_servers_in_error[server_id][slot.seq] = slot
        else:
            self._settled(server_id, slot)
        for other, unknown in self._of_servers_in_error.items():
            if slot.seq in unknown and slot.seq in self.slots:
                differs = unknown.pop(slot.seq).compared() != self.slots[slot.seq].compared()
                if differs and other not in self.contradicting:
                    self.contradicting[other] = slot.seq

    def _settled(self, server_id: int, slot: Slot) -> None:
        known = self.slots.setdefault(slot.seq, slot)
        if known is not slot:
            if known != slot:
                raise Violation(f"slot {slot.seq} came to {known} elsewhere, and to {slot} at server {server_id}")
            return
        for ticket, epoch, latest in slot.fenced_off:
            raise Violation(
                f"{ticket} ran in slot {slot.seq} for a connection of epoch {epoch}, after the session was opened anew "
                f"in epoch {latest}"
            )
        for ticket, command, result in slot.ran:
            self._ran(slot.seq, ticket, command, result, slot.ran_under.get(ticket, 0))
        for ticket, result in slot.completed:
            self.results[ticket] = slot.seq, result
        for client_id in slot.ended:
            self._ended_at[client_id] = slot.seq
            self._answered_up_to.pop(client_id, None)
            self.on_session_end(client_id)
        self.marks["session expired by another server"] += slot.expired_by_others
        self.marks["answer came in a later slot"] += len(slot.completed)
        if slot.updates is not None:
            self._agrees_with_model(slot, slot.updates)
            slot.updates = None

    def _agrees_with_model(self, slot: Slot, updates: Sequence[ClientUpdate]) -> None:
        """Require that a slot had the effect that `SessionModel` computes from the ordered updates."""
        expected = self.model.execute(slot.seq, updates)
        ran = [ticket for ticket, _, _ in slot.ran]
        if ran != expected.ran:
            raise Violation(f"by the ordered updates {expected.ran} must run in slot {slot.seq}, and {ran} ran")
        if slot.epochs != (epochs := self.model.epochs()):
            differing = dict(set(slot.epochs.items()) ^ set(epochs.items()))
            raise Violation(
                f"by the ordered updates other sessions or epochs are open after slot {slot.seq}: {differing}"
            )
        if slot.revision != self.model.revision:
            raise Violation(f"by the ordered updates the revision is {self.model.revision}, and it is {slot.revision}")
        wanted = expected.results
        found = {ticket: _compared(result) for ticket, _, result in slot.ran if ticket in wanted}
        if found != wanted:
            raise Violation(f"by the ordered updates the results in slot {slot.seq} are {wanted}, and they are {found}")
        for expired in expected.expired:
            self._was_silent(slot.seq, expired)

    def _was_silent(self, seq: int, expired: Expired) -> None:
        """Departure 36: require that a session which another server than its own has expired was silent.

        That is: no update of the session's own server was executed for the whole ttl, and none after an ASK, by which
        the leader has asked that server through the log whether it serves its clients.
        """
        if expired.asked <= expired.heard:
            raise Violation(
                f"the session {expired.client_id} has expired, and its server {expired.server_id} was not asked before"
            )
        since = self._executed_at.get(expired.heard)
        if since is None or seq not in self._executed_at:
            return
        silent_ms = (self._executed_at[seq] - since) * 1000
        if silent_ms + ROUNDING_MS < expired.ttl_ms / FASTEST_RATE:
            raise Violation(
                f"the session {expired.client_id} with a ttl of {expired.ttl_ms} ms has expired, but an update of its "
                f"server {expired.server_id} was executed {silent_ms:.0f} ms before"
            )

    def _ran(self, seq: int, ticket: Ticket, command: Command, result: Any, epoch: int) -> None:
        asked = self.asked.get(ticket, {}).get(command)
        if asked is None:
            known = list(self.asked.get(ticket, ())) or None
            raise Violation(f"S2: {command} ran as {ticket}, which nobody asked for: {known}")
        if asked.refused == asked.times:
            raise Violation(f"{ticket} ran in slot {seq}, after its client was told that it never would")
        client_id, number = ticket
        latest, slot = self._latest.get(client_id, (0, 0))
        oldest = max(self.model.oldest_kept, seq - self.model.horizon_slots)
        if number <= latest and slot >= oldest:
            raise Violation(f"S3: {ticket} ran in slot {seq}, after number {latest} in slot {slot}")
        self._latest[client_id] = number, seq
        self.results[ticket] = seq, result
        self._ran_as[ticket] = command, epoch


def _compared(result: Any) -> object:
    if result is PENDING:
        return None
    return (result.fields, result.rows) if isinstance(result, Done) else result.code


def _as_told(command: Command, result: Any) -> Any:
    """The result that a client is told: INTERNAL instead of an answer that cannot be printed."""
    if result is not PENDING:
        try:
            check_result(result)
        except (TypeError, ValueError):
            return failed_alike(command[0])
    return result


@implementer(IStateMachine)
class WatchedSessions:
    """Stands between the protocol and the sessions of one server, and reports the effect of each slot to the checker.

    It reports a slot as soon as the slot is settled at this server.
    """

    def __init__(
        self,
        server_id: int,
        machine: SessionStateMachine,
        checks: SessionChecker,
        settle: Callable[..., None],
        begins_restoring: Callable[[], None] = lambda: None,
    ) -> None:
        """`begins_restoring` is called before a state is built from a snapshot."""
        self._server_id = server_id
        self._machine = machine
        self._checks = checks
        self._settle = settle
        self._begins_restoring = begins_restoring
        self._slot = Slot(0)
        self._epochs: dict[str, int] = {}
        """Client -> the epoch in its bundle that is running at this moment, or has run last."""
        self._latest_epoch: dict[str, int] = {}
        """Client -> the epoch that its session got when it was last opened."""
        checks.started(server_id)
        self._watch_commands()
        self._watch_epochs()

    def is_valid(self, update: ClientUpdate) -> bool:
        return self._machine.is_valid(update)

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        self._slot = slot = Slot(seq, updates=tuple(updates))
        self._checks.executes(seq)
        recovers = isinstance(self._machine.observer, NoObserver)
        # Outside recovery, `_settle` puts the check behind the durability gate. The check must be put there before the
        # execution puts the answers there, so that the slot is settled before its answers leave. In recovery, `_settle`
        # runs the check at once, so `_settle` is called after the execution.
        if not recovers:
            self._settle(self._checks.settled, self._server_id, slot)
        sessions: dict[str, Session] = {}
        for update in updates:
            bundles = bundle.decode(update.payload) or ()
            clients = sum(each.client_id != bundle.SERVER for each in bundles)
            self._checks.marks["update of several sessions"] += clients > 1
            for each in bundles:
                if each.client_id == bundle.SERVER:
                    sessions = sessions or dict(self._machine.sessions)
                    slot.expired_by_others += self._expired_by_others(update.server_id, each, sessions)
        outcomes = self._machine.execute(seq, time_ms, updates)
        # A session that was ended and then opened anew in this slot has ended, too: the new session is another object.
        slot.ended += sorted(i for i, session in sessions.items() if self._machine.sessions.get(i) is not session)
        slot.epochs = {client_id: session.epoch for client_id, session in self._machine.sessions.items()}
        slot.revision = self._machine.revision
        if recovers:
            self._settle(self._checks.settled, self._server_id, slot)
        return outcomes

    def freeze(self) -> Generator[Piece, None, None]:
        pieces: Generator[Piece, None, None] = self._machine.freeze()
        return pieces

    def restorer(self) -> IRestorer:
        self._begins_restoring()
        return WatchedRestorer(self._machine.restorer(), self._restored)

    def _restored(self) -> None:
        """Go on from the epochs of a snapshot. `SnapshotChecker` requires that they are those of the model."""
        self._epochs = {}
        self._latest_epoch = {client_id: session.epoch for client_id, session in self._machine.sessions.items()}

    def too_old(self, update: ClientUpdate) -> None:
        self._checks.marks["bundle ordered beyond its horizon"] += 1
        self._machine.too_old(update)

    @staticmethod
    def _expired_by_others(server_id: int, operations: Bundle, sessions: dict[str, Session]) -> int:
        found = 0
        for _, command in operations.entries:
            if command[0] != EXPIRE:
                continue
            session = sessions.get(command[1])
            if session is not None and session.epoch == command[2]:
                found += session.server_id != server_id
        return found

    def _watch_commands(self) -> None:
        """Wrap the methods of the sessions that run a command, that run several together, and that complete a PENDING
        command, to record what they do."""
        machine = self._machine
        execute, execute_run, complete = machine.execute_command, machine.execute_run, machine.complete

        def executed(session: Session, number: int, command: Command) -> Any:
            result = execute(session, number, command)
            self._note((session.client_id, number), command, _as_told(command, result))
            return result

        def run_executed(
            application: Any, tickets: Sequence[Ticket], commands: Sequence[Command]
        ) -> Sequence[Result] | None:
            results = execute_run(application, tickets, commands)
            if results is not None:
                self._checks.marks["run executed together"] += 1
                self._checks.marks["run of several sessions"] += len({client_id for client_id, _ in tickets}) > 1
                self._checks.marks["run of lines said"] += commands[0][0] == "SAY"
                for ticket, command, result in zip(tickets, commands, results, strict=True):
                    self._note(ticket, command, result)
            return results

        def completed(ticket: Ticket, result: Result) -> None:
            self._slot.completed.append((ticket, result))
            complete(ticket, result)

        machine.execute_command = executed  # type: ignore[method-assign]
        machine.execute_run = run_executed  # type: ignore[method-assign]
        machine.complete = completed  # type: ignore[method-assign]

    def _note(self, ticket: Ticket, command: Command, result: Any) -> None:
        """Record a command that has run, with its result."""
        self._slot.ran.append((ticket, command, result))
        epoch = self._epochs[ticket[0]]
        self._slot.ran_under[ticket] = epoch
        latest = self._latest_epoch.get(ticket[0], 0)
        if epoch < latest:
            self._slot.fenced_off.append((ticket, epoch, latest))

    def _watch_epochs(self) -> None:
        """Record the epoch in each bundle, and the epoch that each opening gives to its session.

        The checker compares them itself, so that it does not depend on the comparison in the code of the sessions.
        """
        machine = self._machine
        run_bundle, open_session = machine.run_bundle, machine.open_session
        run_bundles_together = machine.run_bundles_together

        def runs(server_id: int, content: Bundle) -> Sequence[Any]:
            self._epochs[content.client_id] = content.epoch
            return run_bundle(server_id, content)

        def run_together(server_id: int, contents: Sequence[Bundle]) -> Sequence[Result] | None:
            self._epochs.update((content.client_id, content.epoch) for content in contents)
            return run_bundles_together(server_id, contents)

        def opened(server_id: int, client_id: str, ttl_ms: int) -> Result:
            result = open_session(server_id, client_id, ttl_ms)
            if isinstance(result, Done):
                self._latest_epoch[client_id] = machine.sessions[client_id].epoch
            return result

        machine.run_bundle = runs  # type: ignore[method-assign]
        machine.run_bundles_together = run_together  # type: ignore[method-assign]
        machine.open_session = opened  # type: ignore[method-assign]
