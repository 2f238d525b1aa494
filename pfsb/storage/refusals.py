"""One-line texts for data directories that a server must not use (`StorageRefused`)."""

from __future__ import annotations

from pathlib import Path

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage import sqlite
from pfsb.storage.durable import NoRoom

MUST_NOT_VOTE_AGAIN = (
    "a server that has lost part of its storage must not vote again: leave it stopped, and the others go on without it "
    "as long as they are a majority"
)
"""The last words of each text that refuses a storage because a part of it is lost or damaged."""


def history_gap(where: str, seq: int, local_aru: int, first: int = 1) -> StorageRefused:
    """The refusal of a history that lacks slot `seq`, although Local_Aru says that all slots from `first` up to it are
    stored; `where` names the storage.

    A slot is stored before, or together with, the Local_Aru that covers it. So a gap means that a slot was stored and
    has been removed.
    """
    return StorageRefused(
        f"{where}: slot {seq} is missing from the history, which should hold every slot from {first} to {local_aru}; "
        f"{MUST_NOT_VOTE_AGAIN}"
    )


def other_format(where: Path, found: object, ours: int) -> StorageRefused:
    """The refusal of a file whose format `found` is not `ours`, the one that this version of pfsb reads and writes."""
    newer = isinstance(found, int) and found > ours
    advice = (
        "start the version of pfsb that wrote it"
        if newer
        else "it cannot be taken over: to begin anew, stop all servers of this cluster and give each an empty directory"
    )
    return StorageRefused(f"{where}: has format {found}; this version of pfsb reads format {ours}; {advice}")


def unusable(path: Path, error: Exception) -> StorageRefused:
    """The refusal of a file for which the operating system, or SQLite, has raised `error`."""
    problem = " ".join(str(error).split())
    if isinstance(error, (OSError, NoRoom, *sqlite.operational_errors())):
        return StorageRefused(f"{path}: cannot be used ({problem}); it must be on a disk with room, and ours to write")
    return StorageRefused(f"{path}: damaged, or no storage of pfsb ({problem}); {MUST_NOT_VOTE_AGAIN}")
