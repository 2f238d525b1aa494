"""What the client's core has to say to whoever drives it."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from pfsb.client.core.addresses import ServerAddress


@frozen
class Connect:
    """Try to reach this server; then call `connected` or `lost`."""

    address: ServerAddress


@frozen
class Send:
    data: bytes


@frozen
class HangUp:
    """Leave the connection, or the attempt at one; whatever it still says is not to be told."""

    at_once: bool
    """The server is to notice, although it may be waiting for something."""


Action = Connect | Send | HangUp


@frozen
class SessionEnd:
    """The session is not the one that it was: what it held is free, or somebody else's."""

    code: str
    """NOSESSION: it has expired, and another was begun. REPLACED: another program has it, and will keep it."""
    locks: tuple[str, ...]
    text: str


class Driven(Protocol):
    """What whoever has sockets and a clock may do with the client; after each call come its actions."""

    @property
    def stopped(self) -> bool: ...

    @property
    def wake_at(self) -> float | None: ...

    def start(self, now: float) -> None: ...

    def stop(self, now: float) -> None: ...

    def connected(self, now: float) -> None: ...

    def received(self, data: bytes, now: float) -> None: ...

    def lost(self, why: str, now: float) -> None: ...

    def woken(self, now: float) -> None: ...

    def take_actions(self) -> list[Action]: ...


def send_together(actions: list[Action]) -> list[Action]:
    """The same, with what is sent in one go made one piece: one system call, often one packet."""
    merged: list[Action] = []
    pieces: list[bytes] = []
    for action in actions:
        if isinstance(action, Send):
            pieces.append(action.data)
            continue
        _flush(pieces, merged)
        merged.append(action)
    _flush(pieces, merged)
    return merged


def _flush(pieces: list[bytes], merged: list[Action]) -> None:
    if pieces:
        merged.append(Send(b"".join(pieces)))
        pieces.clear()
