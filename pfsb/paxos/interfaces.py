"""The seams of the protocol: the disk, the network and the state machine that it asks, and the tracer that it tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import Interface

from pfsb.paxos.messages import Batch, ClientUpdate, Message
from pfsb.paxos.records import Record, Recovered


class IStableStorage(Interface):
    """What a server will still know after power loss."""

    def recover() -> Recovered:
        """Read what is there (an empty directory is initialised). Called once, before anything else.

        Raises `StorageRefused` with one clear line rather than return anything doubtful.
        """

    def append(record: Record) -> None:
        """Take a record into the next group. Nothing is written yet."""

    def sync(durable: Callable[[], None]) -> None:
        """Write all records appended so far, as one group with whatever else waits by then.

        `durable` is called in the reactor, in the order of the calls, when they are on disk. `sync` does not wait for a
        disk; who has none may call before it returns.
        """

    def read_history(first: int, last: int, bytes_max: int, found: Callable[[list[tuple[int, Batch]]], None]) -> None:
        """Ordered batches of the slots first..last (inclusive), at least one, then up to `bytes_max`.

        `found` is called in the reactor, later, with consecutive (seq, batch) from `first` on; with an
        empty list if `first` is not known as ordered here.
        """

    def close() -> None:
        """Write what waits and let go of the files. Idempotent."""


class StorageRefused(Exception):
    """The data directory cannot be used; the text is one line for a person."""


class IFrameReceiver(Interface):
    """What a transport tells the server above it."""

    def receive(sender: int, identity: bytes, messages: Sequence[Message]) -> None:
        """Messages of one well-formed frame of this cluster."""

    def peer_refused(server_id: int) -> None:
        """The address of that server has just refused a frame: most likely nobody is there."""


class ITransport(Interface):
    """Frames between servers: may lose, delay, duplicate and reorder them, never corrupt them."""

    def start(receiver: IFrameReceiver, identity: bytes, incarnation: int) -> None:
        """Begin to receive. `identity` and `incarnation` are those of this server's storage."""

    def send(messages: Sequence[Message], to: int | None) -> None:
        """Send to one server, or to all others (None), in as few frames as possible. Never raises, never blocks."""

    def stop() -> Any:
        """Stop; returns None or a Deferred."""


class IStateMachine(Interface):
    """What the ordered update queue drives: sessions, and the applications behind them."""

    def execute(seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        """Run, in order, the updates of slot `seq` that have not run before (Figure 11 C).

        `time_ms` is the state machine's time; it never goes back.
        """

    def too_old(update: ClientUpdate) -> None:
        """The update was ordered beyond its horizon and did not run."""


class ITracer(Interface):
    """Takes the events of interface part 6."""

    def trace(event: str, **fields: Any) -> None:
        """Note one event, now."""
