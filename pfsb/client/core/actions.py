"""The interface between the client's core and its driver: the actions that the driver carries out for the core, and
the methods of the core that the driver calls."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from pfsb.client.core.addresses import ServerAddress


@frozen
class Connect:
    """An action: the driver must try to connect to the server at `address`, and then call the core's `connected` if the
    server has accepted the connection, or its `lost` if not."""

    address: ServerAddress


@frozen
class Send:
    """An action: the driver must write these bytes to the connection, if there still is a connection."""

    data: bytes


@frozen
class HangUp:
    """An action: the driver must end the connection, or the attempt to connect, and drop bytes that still arrive."""

    at_once: bool
    """True: abort the connection, so that the server notices at once. False: send what is still unsent, then close."""


Action = Connect | Send | HangUp


@frozen
class SessionEnd:
    """The report to a program that the session of its client was lost.

    The locks of the session are free now, or others hold them.
    """

    code: str
    """NOSESSION: the session has expired, and the client begins another session. REPLACED: another program has opened
    the session, and keeps it."""
    locks: tuple[str, ...]
    """Names of the locks that the session held, as far as the client knew."""
    text: str
    """The reason of the loss, as a text for people."""


class Driven(Protocol):
    """A client without sockets and clock, as its driver sees it.

    After each call of a method, the driver carries out the actions that `take_actions` returns. The methods are
    documented at `pfsb.client.core.client_core.ClientCore`.
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
    """Return these actions with each run of neighbouring `Send`s merged into one, which takes fewer system calls."""
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
