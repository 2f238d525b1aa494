"""The sections of a snapshot in which the state of a `SessionStateMachine` is.

They are, in their order: the machine's own numbers and the settings; sessions that have ended; values that grow, which
kept results share; sessions, with the results that they keep (`pfsb.sessions.frozen_sessions`); and one section for
each application.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, Final

from attrs import astuple, define

from pfsb.applications.catalogue import version_of
from pfsb.applications.interfaces import IFrozenState
from pfsb.paxos.snapshot import Piece
from pfsb.paxos.snapshot_rows import cut
from pfsb.support.limits import PIECE_BYTES_MAX

STATE: Final = "state"
CLOSED: Final = "closed sessions"
GROWING: Final = "growing values"
SESSIONS: Final = "sessions"


def section_of(name: str, version: int) -> str:
    """The section of an application."""
    return f"app {name} {version}"


@define
class StateHead:
    """The one row of the section `STATE`, field by field."""

    seq: int
    revision: int
    time_ms: int
    forgotten: int
    oldest_kept: int
    heard_in: Sequence[tuple[int, int]]
    """(server id, last slot in which an update of that server was executed), by ascending ids
    (`SessionStateMachine.heard_in`)."""
    overdue: Sequence[tuple[str, int]]
    """(name of an application, deadline that it has not dealt with), by ascending names
    (`SessionStateMachine._overdue`)."""
    replies_bytes: int
    """Number of bytes of the results that all sessions keep (`KeptReplies.size`)."""
    pages_numbered: int
    """The highest number that a page of kept results has got (`KeptReplies.numbered`)."""
    closed: int
    """Number of rows of the section `CLOSED`, the sessions that have ended. The next fields count the rows of other
    sections."""
    growing: int
    sessions: int
    settings: bytes | None
    announced: Sequence[tuple[int, bytes]]
    applications: Sequence[tuple[str, int, int | None]]
    """(name, version, size) of each application, in their order. `size` is the number of bytes of a snapshot that was
    made in one go; None: the application has made the pieces itself (`IFrozenState`)."""
    members: bytes | None = None
    """The encoded servers of the present epoch; None: no change of the membership was executed."""

    def row(self) -> tuple[object, ...]:
        """The fields, in their order; without the last one if it is None, so that a snapshot of a cluster whose
        membership has never changed is as it was before there were changes."""
        fields = astuple(self, recurse=False)
        return fields[:-1] if self.members is None else fields


@define
class FrozenApplication:
    """An application whose state was frozen: its pieces, or its snapshot in one go."""

    name: str
    version: int
    size: int | None
    """Number of bytes of the application's snapshot, if it was made in one go; None: the application makes the pieces
    itself."""
    _pieces: Iterator[bytes]
    _data: bytes = b""

    @classmethod
    def of(cls, application: Any) -> FrozenApplication:
        name, version = application.name, version_of(application)
        if IFrozenState.providedBy(application):
            return cls(name, version, None, application.freeze())
        data = _as_bytes(application.snapshot(), name)
        return cls(name, version, len(data), iter(()), data)

    def pieces(self) -> Iterator[Piece]:
        section = section_of(self.name, self.version)
        if self.size is None:
            return (Piece(section, _as_bytes(data, self.name, PIECE_BYTES_MAX)) for data in self._pieces)
        return cut(section, self._data)

    def close(self) -> None:
        if self.size is None:
            self._pieces.close()  # type: ignore[attr-defined]


def _as_bytes(data: object, name: str, bytes_max: float = inf) -> bytes:
    """Returns the state of an application, or a piece of it, as bytes. Raises `TypeError` if the application has given
    something else."""
    if type(data) is not bytes or len(data) > bytes_max:
        raise TypeError(f"the application {name} has made {data!r:.40}, which is no state, or no piece of one")
    return data


def raising(error: Exception) -> Iterator[Piece]:
    raise error
    yield  # makes this function a generator, which raises in its first step
