"""Tells where the data of a server is, and whether there is a storage of it elsewhere: a relative path leads to another
directory when the server is started in another one.

A server that is started in another directory would begin with an empty storage. It would have forgotten its promises,
and the others would refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from pfsb.config.addresses import EVERY_INTERFACE, listens_at
from pfsb.config.config import MEMORY, Config
from pfsb.storage.log.scan import owner_of
from pfsb.storage.owner import StorageOwner
from pfsb.support.hosts import shown

ENTRIES_MAX: Final = 200
"""Maximum number of entries of one directory that are looked at."""


def data_place(directory: Path | None) -> str:
    """The end of a sentence for people that tells where a server keeps its data: in `directory`; None: in memory."""
    return "its data is only in memory" if directory is None else f"its data is in {directory.absolute()}"


def client_place(config: Config, server_id: int) -> str:
    """Where clients connect to a server, as a person writes it: host and port, or its endpoint string."""
    server = config.server(server_id)
    address = listens_at(server.client)
    if address is None:
        return server.client
    host, port = address
    return shown(server.peer[0] if host in EVERY_INTERFACE else host, port)


def holds_storage(directory: Path) -> bool:
    """Whether there is a storage of any server in the data directory `directory`."""
    return (directory / "log").exists() or (directory / "pfsb.sqlite3").exists()


def storages_elsewhere(config: Config, server_id: int, directory: Path) -> list[Path]:
    """Data directories near `directory`, or near the configuration, that were made for this server of this cluster.

    The paths are absolute. Only a few likely places are looked at.
    """
    owner = StorageOwner(config.cluster, config.membership_digest(), config.founding_ids, server_id)
    own = _resolved(directory)
    found: dict[Path, None] = {}
    for place in _likely_places(config, server_id, directory):
        path = _resolved(place)
        if path != own and owner_of(path / "log") == owner:
            found[path] = None
    return list(found)


def warnings_of_start(config: Config, server_id: int, directory: Path) -> Iterator[str]:
    """Yield a warning for each other place with a storage of this server, if a start in `directory` would begin with an
    empty storage."""
    if not holds_storage(directory):
        for other in storages_elsewhere(config, server_id, directory):
            yield (
                f"server {server_id} begins with an empty storage in {directory.absolute()}, and {other} has one that "
                "was made for it. If that is its storage, stop it, and start it with that one (--storage, or in the "
                "directory where it was started before)"
            )


def _likely_places(config: Config, server_id: int, directory: Path) -> Iterator[Path]:
    yield from _entries(directory.absolute().parent)
    here, there = Path.cwd(), Path(config.file).absolute().parent
    storages = {config.storage, f"var/{config.cluster}"} - {MEMORY}
    for base in dict.fromkeys((here, *here.parents[:2], there, *there.parents[:2], *_entries(here))):
        for storage in sorted(storages):
            yield base / storage / str(server_id)


def _entries(directory: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(islice((each for each in directory.iterdir() if each.is_dir()), ENTRIES_MAX))
    return []


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
