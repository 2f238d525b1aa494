"""`pfsb migrate`: makes a log of the database in a data directory of format 3, as the first start would."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from attrs import define
from twisted.python.failure import Failure

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage import sqlite
from pfsb.storage.directory import DirectoryLock
from pfsb.storage.log.migration import old_files, owner_in
from pfsb.storage.log.scan import Log
from pfsb.storage.log.storage import LogStorage
from pfsb.storage.owner import StorageOwner
from pfsb.storage.refusals import unusable
from pfsb.support.command_line import one_argument, subcommand


@define
class Options:
    """Command line of `pfsb migrate`."""

    directory: Path

    def __attrs_post_init__(self) -> None:
        if not any(map(Path.exists, (self.directory / "log", *old_files(self.directory)))):
            raise click.UsageError(f"{self.directory}: no data directory of a server that has run")


@subcommand("migrate")
@one_argument("directory", "one data directory is needed (example: pfsb migrate var/four/2)")
def command(directory: str) -> Options:
    """Make a log of the database in a data DIRECTORY of an earlier version of pfsb, as the first start would.

    The log is compared with the database, and only then the database is deleted. The server must not be running. The
    exit status is 1 if the directory is refused; then nothing in it is changed.
    """
    return Options(Path(directory))


async def run(reactor: Any, options: Options) -> None:
    """Take the directory over and say what was done; or say in one line why it is refused, with exit status 1."""
    directory = options.directory
    database, *rest = old_files(directory)
    size = sum(path.stat().st_size for path in (database, *rest) if path.exists())
    is_new = not (directory / "log").exists()
    try:
        log = _taken_over(reactor, directory)
    except StorageRefused as error:
        sys.stderr.write(f"pfsb: {error}\n")
        raise SystemExit(1) from None
    sys.stdout.write(f"{directory}: {_contents(log)}\n")
    if is_new:
        sys.stdout.write(f"it was made of {database.name}, and compared with it slot by slot\n")
    if size:
        sys.stdout.write(f"{database.name} is not needed any more, and is deleted ({size:,} bytes)\n")
    if not is_new and not size:
        sys.stdout.write("nothing had to be done\n")


def _contents(log: Log) -> str:
    owner, slots = log.head.owner, len(log.index.above(log.state.compacted))
    return (
        f'the log of server {owner.server_id} of cluster "{owner.cluster_name}" holds {slots} slots in '
        f"{len(log.heads)} file{'s' if len(log.heads) > 1 else ''}, at log position {log.position}"
    )


def _taken_over(reactor: Any, directory: Path) -> Log:
    owner = _owner(directory)
    storage = LogStorage(
        directory,
        owner.cluster_digest,
        owner.cluster_name,
        owner.server_id,
        reactor,
        os.urandom,
        Failure.raiseException,
        owner.members,
    )
    return storage.take_over()


def _owner(directory: Path) -> StorageOwner:
    """The server that the directory says it was made for: the next start checks that it is its own."""
    lock = DirectoryLock(directory)
    lock.acquire()
    try:
        return owner_in(directory, directory / "log")
    except sqlite.errors_and(OSError, ValueError) as error:
        raise unusable(directory, error) from error
    finally:
        lock.release()
