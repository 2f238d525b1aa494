"""The interface between the client's core and its driver: actions to carry out, and calls to make."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from pfsb.client.core.addresses import ServerAddress


@frozen
class Connect:
    """The driver tries to reach this server, and then calls `connected` or `lost`."""

    address: ServerAddress


@frozen
class Send:
    """The driver writes these bytes to the connection, if there still is one."""

    data: bytes


@frozen
class HangUp:
    """The driver leaves the connection, or the attempt at one; bytes that arrive on it later are dropped."""

    at_once: bool
    """True: abort the connection, so that the server notices at once. False: send what is still unsent, then close."""


Action = Connect | Send | HangUp


@frozen
class SessionEnd:
    """The session was lost: its locks are free, or are held by another session."""

    code: str
    """NOSESSION: the session has expired, and another was begun. REPLACED: another program has it, and keeps it."""
    locks: tuple[str, ...]
    """Names of the locks that the session held, as far as the client knew."""
    text: str
    """The reason, for a person."""


class Driven(Protocol):
    """A client without sockets and clock, as its driver sees it; after each call the driver runs `take_actions`.

    The methods are documented at `pfsb.client.core.client_core.ClientCore`.
    """

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
    """The actions with neighbouring `Send`s merged, so that they take one system call and often one packet."""
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
