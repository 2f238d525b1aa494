"""The clock, random numbers, disk and network of one server that the explorer drives step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from pfsb.paxos.interfaces import (
    IFetchedSnapshot,
    IRestorer,
    ISnapshotFile,
    IStableStorage,
    IStateMachine,
    ITransport,
)
from pfsb.paxos.members import Members
from pfsb.paxos.messages import Accept, Alive, ClientUpdate, Message, Prepare, PrepareOK, Proposal, VCProof
from pfsb.paxos.records import ProposalRecord, Record, Recovered
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import Piece, SnapshotName
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.model_checking.snapshots import UPDATE_SECONDS
from pfsb.simulator.model_checking.steps import Executed, Led, in_words
from pfsb.storage.effect import ORDERED_VIEW, ignore_lost
from pfsb.storage.memory import MemoryDisk, MemoryStorage

UPDATE_TIMER = "UpdateTimers.expire"


@implementer(IDelayedCall)
@frozen
class SteppedCall:
    """An armed timer of an explored server, identified by the method that it calls."""

    function: Callable[[], object]
    clock: SteppedClock = field(eq=False, repr=False)

    def getTime(self) -> float:
        return 0.0

    def cancel(self) -> None:
        self.clock.armed.discard(self.function)

    def reset(self, secondsFromNow: float) -> None:
        """Do nothing: the explorer decides when a timer fires."""

    delay = reset

    def active(self) -> bool:
        return self.function in self.clock.armed


@implementer(IReactorTime)
class SteppedClock:
    """A clock that stands still: it knows which timers are armed, and a timer fires only when `fire` is called."""

    def __init__(self) -> None:
        self.armed: set[Callable[[], object]] = set()
        self.now = 0.0

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> SteppedCall:
        assert not args and not kw, f"{callable} is told apart by its name only"
        assert callable not in self.armed, f"{callable} waits already"
        self.armed.add(callable)
        return SteppedCall(callable, self)

    def getDelayedCalls(self) -> list[SteppedCall]:
        return [SteppedCall(function, self) for function in self.armed]

    def callFromThread(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        raise AssertionError("there are no threads here")

    def names(self) -> list[str]:
        """The names of the armed timers."""
        return sorted(function.__qualname__ for function in self.armed)

    def fire(self, name: str) -> None:
        """Let the armed timer of this name fire.

        The clock shows 0, except while the Update_Timers fire: these read it, and find the time at which they are due.
        """
        function = next(function for function in self.armed if function.__qualname__ == name)
        self.armed.discard(function)
        self.now = UPDATE_SECONDS if name == UPDATE_TIMER else 0.0
        function()
        self.now = 0.0


class ChosenNumbers:
    """Takes the place of random numbers: gives the item at index `pick` of a sequence, and the low end of a range."""

    def __init__(self) -> None:
        self.pick = 0

    def choice(self, among: Sequence[int]) -> int:
        return among[self.pick % len(among)]

    def uniform(self, low: float, high: float) -> float:
        return low


@implementer(IStableStorage)
class SteppedStorage:
    """Storage on a memory disk. Records reach the disk only when the explorer calls `finish` or `lose`."""

    is_full = False
    kept_above: int | None = None
    on_snapshot_lost = staticmethod(ignore_lost)
    position = 0
    """The log position, which is always 0 here.

    If groups were counted, states that differ in nothing but their count would be explored one by one.
    """

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        self.appended: list[Record] = []
        self.groups: deque[tuple[tuple[Record, ...], Callable[[], None]]] = deque()
        """Groups of records being written, oldest first, each with the function to call when it is on disk."""

    def recover(self) -> Recovered:
        reader = MemoryStorage(self.disk, SteppedClock(), float, bytes)
        found = reader.recover()
        reader.crash()
        return found

    def append(self, record: Record) -> None:
        self.appended.append(record)

    def sync(self, durable: Callable[[], None]) -> None:
        self.groups.append((tuple(self.appended), durable))
        self.appended = []

    def read_history(self, first: int, last: int, bytes_max: int, found: Callable[..., None]) -> None:
        raise AssertionError("all slots are kept in memory here")

    def forget_history(self, up_to: int) -> bool:
        return False

    snapshot = None
    compacted = 0

    def write_snapshot(self, seq: int, cluster_identity: bytes) -> ISnapshotFile:
        raise AssertionError("servers take no snapshots here")

    def fetch_snapshot(self, name: SnapshotName) -> IFetchedSnapshot:
        raise AssertionError("servers take no snapshots here")

    def read_snapshot(self, name: SnapshotName, offset: int, bytes_max: int, found: Callable[[bytes], None]) -> None:
        raise AssertionError("servers take no snapshots here")

    def close(self) -> bool:
        raise AssertionError("servers end by crashes only here")

    def finish(self) -> None:
        """Let the records of the oldest group reach the disk, and call the function that waits for this."""
        records, durable = self.groups.popleft()
        self._write(records)
        durable()

    def lose(self, records_kept: int) -> None:
        """Lose power: of the oldest group only the first `records_kept` records get to the disk, and of the younger
        groups none."""
        if records_kept:
            self._write(self.groups[0][0][:records_kept])
        self.groups.clear()
        self.appended = []

    def _write(self, records: Sequence[Record]) -> None:
        before = self.installed
        self.disk.contents.apply_all(records)
        if self.installed < before:
            raise Violation(f"Last_Installed goes back on disk, from {before} to {self.installed}")

    @property
    def installed(self) -> int:
        views = self.disk.contents.views
        return 0 if views is None else views.last_installed

    def records(self) -> Iterator[Record]:
        """The slots on disk, as ProposalRecords, and all records that are on their way to the disk."""
        yield from (ProposalRecord(seq, slot.view, slot.batch) for seq, slot in self.disk.contents.slots.items())
        for records, _ in self.groups:
            yield from records
        yield from self.appended


@implementer(ITransport)
class SteppedTransport:
    """Collects the messages that leave a server, and checks that the records they require are on disk.

    docs/defects.rst says, under "What must be durable before what", which records each message requires.
    """

    def __init__(self, storage: SteppedStorage, others: tuple[int, ...], check: bool) -> None:
        self._storage = storage
        self._others = others
        self._check = check
        self.replica: Replica
        self.listens = False
        self.is_ahead = False
        """Whether a message has left before the end of the disk write that is under way.

        If so, a crash during that write can no longer be taken for a crash before the turn.
        """
        self.sent: dict[tuple[Message, int], None] = {}
        self.facts: dict[Executed | Led, None] = {}
        """Facts that became visible outside the server in this step. A dict keeps their order and each only once."""

    def start(self, receiver: Any, identity: bytes, start: int, position: Callable[[], int], passes: bytes) -> None:
        self.listens = True

    def stop(self) -> None:
        self.listens = False

    def know_cluster(self, identity: bytes) -> None:
        """Do nothing: these servers know of one cluster only."""

    def enter_epoch(self, members: Members, others: Collection[int]) -> None:
        """Raise AssertionError: the membership of these servers does not change."""
        raise AssertionError("no change of the membership is explored")

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        receivers = self._others if to is None else (to,)
        for message in messages:
            if isinstance(message, Prepare | Proposal):
                self.facts[Led(message.view, message.server_id, self._storage.disk.incarnation)] = None
            for part in _parts(message):
                if self._check:
                    self._must_be_on_disk(part)
                self.sent.update({(part, receiver): None for receiver in receivers})

    def _must_be_on_disk(self, message: Message) -> None:
        installed = self._storage.installed
        match message:
            case Accept(_, view):
                votes = all(self._vote_is_on_disk(view, seq, digest) for seq, digest in message.votes())
                require(votes, f"sends {in_words(message)}, and that vote is not on disk")
            case Prepare(_, view) | Proposal(_, view) | PrepareOK(_, view) | Alive(_, view) | VCProof(_, view):
                pass
            case _:
                return
        require(installed >= view, f"sends {in_words(message)}, but has view {installed} on disk")

    def _vote_is_on_disk(self, view: int, seq: int, digest: bytes) -> bool:
        """Whether an ACCEPT may leave: the proposal that it names is on disk, or one of a later view for the slot.

        The ACCEPT may also leave if the server knows that the slot is ordered (G18).
        """
        stored = self._storage.disk.contents.slots.get(seq)
        if stored is not None and (stored.view == ORDERED_VIEW or stored.view > view):
            return True
        if stored is not None and stored.view == view:
            return stored.batch.digest == digest
        ordering = self.replica.data.ordering
        slot = ordering.global_history.get(seq)
        return seq <= ordering.local_aru or (slot is not None and slot.ordered is not None)


def _parts(message: Message) -> Iterator[Message]:
    """Split an ACCEPT into one for each slot, so that each may be received or lost; leave other messages whole."""
    if isinstance(message, Accept):
        yield from (Accept(message.server_id, message.view, (seq,), digest) for seq, digest in message.votes())
    else:
        yield message


def require(condition: bool, text: str) -> None:
    if not condition:
        raise Violation(text)


@implementer(IStateMachine)
class ExecutionProbe:
    """State machine of an explored server. It does nothing but report each executed slot as a fact.

    The fact is reported when the durability gate lets out the effects of the slot (docs/internals/turn.rst), or at once
    if the server executes the slot again from its disk, at its start.
    """

    def __init__(self, transport: SteppedTransport) -> None:
        self._transport = transport

    def is_valid(self, update: ClientUpdate) -> bool:
        return True

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        fact = Executed(seq, (time_ms, tuple((u.client_id, u.timestamp, u.payload) for u in updates)))
        if self._transport.listens:
            self._transport.replica.turn.call(self._settled, fact)
        else:
            self._settled(fact)  # at the start, the server executes slots that are on its disk already
        return b""

    def freeze(self) -> Generator[Piece, None, None]:
        raise Violation("there are no snapshots in the explored cluster")

    def restorer(self) -> IRestorer:
        raise Violation("there are no snapshots in the explored cluster")

    def too_old(self, update: ClientUpdate) -> None:
        raise Violation(f"{update} is too old already")

    def _settled(self, fact: Executed) -> None:
        self._transport.facts[fact] = None
