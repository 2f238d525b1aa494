"""The interfaces of the protocol to the disk, the network, the state machine and the tracer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from pfsb.paxos.messages import Batch, ClientUpdate, Message
from pfsb.paxos.records import Record, Recovered


class IStableStorage(Interface):
    """The records of a server that outlast a loss of power."""

    position: int = Attribute(
        """Number of groups that are known to be on disk, counted over the whole life of the storage.

        The count is written with each group, and found again by `recover`; it never falls as long as the disk keeps
        what was forced to it. Every frame carries it, so that a storage that has lost something can be told from its
        own past.
        """
    )

    def recover() -> Recovered:
        """Read what is there (an empty directory is initialised). Called once, before anything else.

        Raises `StorageRefused` with one clear line rather than return anything doubtful.
        """

    def append(record: Record) -> None:
        """Take a record into the next group; the next `sync` writes it."""

    def sync(durable: Callable[[], None]) -> None:
        """Write all records appended so far, as one group with the records of other calls that wait by then.

        `durable` is called in the reactor when the records are on disk, in the order of the calls of `sync`. `sync`
        does not wait for the disk. An implementation without a disk may call `durable` before `sync` returns.
        """

    def read_history(first: int, last: int, bytes_max: int, found: Callable[[list[tuple[int, Batch]]], None]) -> None:
        """Ordered batches of the slots first..last (inclusive), at least one, then up to `bytes_max`.

        `found` is called in the reactor, later, with consecutive (seq, batch) from `first` on; with an
        empty list if `first` is not known as ordered here.
        """

    def close() -> None:
        """Write the records that wait, and close the files. Idempotent."""


class StorageRefused(Exception):
    """The data directory cannot be used; the text is one line for the operator."""


class IFrameReceiver(Interface):
    """The server above a transport, as the transport sees it."""

    def receive(
        sender: int, identity: bytes, messages: Sequence[Message], incarnation: int = 0, position: int = 0
    ) -> None:
        """Messages of one well-formed frame of this cluster.

        `identity`, `incarnation` and `position` are those of the sender's storage when it sent the frame; zeros tell
        nothing.
        """

    def peer_refused(server_id: int) -> None:
        """The address of that server has just refused a frame: most likely no process listens there."""


class ITransport(Interface):
    """Frames between servers: may lose, delay, duplicate and reorder them, never corrupt them."""

    def start(receiver: IFrameReceiver, identity: bytes, incarnation: int, position: Callable[[], int]) -> None:
        """Begin to receive. `identity` and `incarnation` are those of this server's storage.

        `position` returns the storage's `position`, and is asked for each frame that leaves.
        """

    def send(messages: Sequence[Message], to: int | None) -> None:
        """Send to one server, or to all others (None), in as few frames as possible. Never raises, never blocks."""

    def stop() -> Any:
        """Stop; returns None or a Deferred."""


class IStateMachine(Interface):
    """The state machine that the ordered update queue drives: sessions, and the applications behind them."""

    def execute(seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        """Run, in order, the updates of slot `seq` that have not run before (Figure 11 C).

        `time_ms` is the state machine's time; it never goes back.
        """

    def too_old(update: ClientUpdate) -> None:
        """The update was ordered beyond its horizon and is not executed."""


class ITracer(Interface):
    """Takes the events of the trace (docs/operating.rst)."""

    def trace(event: str, **fields: Any) -> None:
        """Note one event, now."""
