"""A stand-in for the server above a transport, with what a transport uses of it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from zope.interface import implementer

from pfsb.paxos.interfaces import IFrameReceiver
from pfsb.paxos.messages import Message


@implementer(IFrameReceiver)
@define
class NotingReceiver:
    """Notes the calls of its transport."""

    frames: list[tuple[int, bytes, list[Message]]] = field(factory=list)
    storages: list[tuple[int, int]] = field(factory=list)
    """(start number, position) of the sender's storage in each of the frames."""
    epochs: list[int] = field(factory=list)
    """The epoch of the membership in each of the frames."""
    refusals: list[int] = field(factory=list)

    @property
    def messages(self) -> list[Message]:
        return [message for _, _, messages in self.frames for message in messages]

    def receive(
        self,
        sender: int,
        identity: bytes,
        messages: Sequence[Message],
        start: int = 0,
        position: int = 0,
        epoch: int = 0,
    ) -> None:
        self.frames.append((sender, identity, list(messages)))
        self.storages.append((start, position))
        self.epochs.append(epoch)

    def peer_refused(self, server_id: int) -> None:
        self.refusals.append(server_id)
