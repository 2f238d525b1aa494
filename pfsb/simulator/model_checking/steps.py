"""The steps that can happen to one server in the model checker, and their outcomes."""

from __future__ import annotations

from typing import assert_never

from attrs import frozen

from pfsb.paxos.messages import (
    Accept,
    Acquainted,
    Alive,
    Batch,
    ClientUpdate,
    Confirm,
    Confirmed,
    GloballyOrderedUpdate,
    HandOver,
    Heard,
    KnownPosition,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    Stranger,
    VCProof,
    ViewChange,
)
from pfsb.simulator.checkers.cluster_checker import Value
from pfsb.simulator.model_checking.snapshots import Frozen


@frozen
class Deliver:
    """A message arrives at the server, alone in its frame."""

    sender: int
    message: Message

    @property
    def kind(self) -> str:
        return type(self.message).__name__

    def __str__(self) -> str:
        return f"hears from server {self.sender}: {in_words(self.message)}"


@frozen
class Ask:
    """A client sends an update to this server, for the first time or again."""

    update: ClientUpdate
    kind = "Ask"

    def __str__(self) -> str:
        return f"is asked by its client for {in_words(self.update)}"


@frozen
class Fire:
    """An armed timer fires. `choice` selects between outcomes, such as which peer is asked for missing slots."""

    timer: str
    choice: int = 0

    @property
    def kind(self) -> str:
        """The class of the timer, such as `ProgressTimer`."""
        return self.timer.partition(".")[0]

    def __str__(self) -> str:
        return f"sees its {self.kind} run out"


@frozen
class Sync:
    """The oldest disk write that is under way ends."""

    kind = "Sync"

    def __str__(self) -> str:
        return "finishes its oldest disk write"


@frozen
class Crash:
    """The server loses power and starts again.

    Only the first `records_kept` records of its oldest disk write under way have reached the disk.
    """

    records_kept: int = 0
    kind = "Crash"

    def __str__(self) -> str:
        kept = f"; {self.records_kept} records of the write under way got there" if self.records_kept else ""
        return f"loses power, and starts again with what is on its disk{kept}"


Step = Deliver | Ask | Fire | Sync | Crash


@frozen
class Executed:
    """The fact that a server has executed slot `seq`, and may tell its clients the result.

    `value` has the content of the slot: the clock that the batch brings, and (client id, timestamp, payload) of each
    update.
    """

    seq: int
    value: Value


@frozen
class Led:
    """The fact that an incarnation of a server acts as the leader of a view."""

    view: int
    server_id: int
    incarnation: int


@frozen
class StepOutcome:
    """The state of a server after a step, and the messages and facts that left the server in that step."""

    state: Frozen
    sent: tuple[tuple[Message, int], ...]
    """Pairs (message, receiver), each pair once."""
    facts: tuple[Executed | Led, ...]


def in_words(message: Message) -> str:
    """A message in words: the paper's name for it, and the fields that tell it from others of that name."""
    match message:
        case ClientUpdate():
            return f"CLIENT_UPDATE {message.client_id}{message.timestamp}"
        case ViewChange():
            return f"VIEW_CHANGE to view {message.attempted}"
        case VCProof():
            return f"VC_PROOF of view {message.installed}"
        case Prepare():
            return f"PREPARE of view {message.view}, Local_Aru {message.local_aru}"
        case PrepareOK():
            return f"PREPARE_OK of view {message.view}, with {_all(message.data_list)}"
        case Proposal():
            return f"PROPOSAL of view {message.view} for slot {message.seq}: {_contents(message.batch)}"
        case Accept():
            return f"ACCEPT of view {message.view} for slot {', '.join(map(str, message.seqs))}"
        case Ordered():
            raise AssertionError("in the explored cluster the leader does not tell what is ordered (Departure 55)")
        case GloballyOrderedUpdate():
            return f"GLOBALLY_ORDERED_UPDATE at slot {message.seq}: {_contents(message.batch)}"
        case Alive():
            return f"ALIVE in {message.state.value} of view {message.view}, Local_Aru {message.local_aru}"
        case ReconciliationRequest():
            return f"a request for slots {message.first} to {message.last}"
        case ReconciliationReply():
            return f"what it asked for: {_all(message.updates)}"
        case ReadRequest() | ReadIndex() | Confirm() | Confirmed():
            raise AssertionError("there are no reads in the explored cluster")
        case Stranger():
            return "that its storage is another"
        case Acquainted():
            return "that its storage is known"
        case Heard():
            return "that it is heard"
        case KnownPosition():
            return "that its storage was further"
        case SnapshotOffer() | SnapshotRequest() | SnapshotPart():
            raise AssertionError("there are no snapshots in the explored cluster")
        case HandOver():
            raise AssertionError("no server of the explored cluster is asked to hand over")
        case _:
            assert_never(message)


def _all(entries: tuple[Proposal | GloballyOrderedUpdate, ...]) -> str:
    return "; ".join(map(in_words, entries)) or "nothing"


def _contents(batch: Batch) -> str:
    return ", ".join(f"{u.client_id}{u.timestamp}" for u in batch.open()[1]) or "a no-op"
