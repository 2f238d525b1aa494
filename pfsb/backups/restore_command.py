"""`pfsb restore`: makes the data directories of a new cluster of a backup."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import click
from attrs import define

from pfsb.backups.backup_file import BackupState, load
from pfsb.backups.new_cluster import JUMP, REVISION_MAX, CannotBegin, begin_anew, write
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.options import read_config
from pfsb.config.config import Config
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.snapshot import SnapshotName, WrongSnapshot
from pfsb.service.assembly import log_storage
from pfsb.sessions.state_machine import CannotRun
from pfsb.storage.log.snapshot_files import portions_of
from pfsb.support.command_line import Number, subcommand
from pfsb.support.limits import IDENTITY_BYTES


@define
class Options:
    """Command line of `pfsb restore`."""

    file: Path
    config: Config
    servers: Sequence[int]
    identity: bytes | None
    revision: int | None
    dry_run: bool


@subcommand("restore")
@click.argument("file", type=click.Path(dir_okay=False))
@click.argument("config", metavar="CONFIG")
@click.option("--id", "servers", type=Number(0, 65_535), multiple=True, help="Only this server; repeatable.")
@click.option("--cluster", metavar="HEX", help="Identity of the new cluster, as the first restore told it.")
@click.option(
    "--revision",
    type=Number(0, REVISION_MAX),
    help=f"Go on above this revision, the highest that the former cluster may have had; else {JUMP} are left out.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def command(
    file: str, config: str, servers: tuple[int, ...], cluster: str | None, revision: int | None, dry_run: bool
) -> Options:
    """Make the data directories of a new cluster, which begins with the state in the backup FILE.

    CONFIG describes the new cluster; all of its servers must be made from the same FILE, with one --cluster, before
    the first one is started. All sessions and locks of the former cluster are void. A directory that has a storage
    already is refused.
    """
    read = read_config(config)
    unknown = [each for each in servers if each not in read.ids]
    if unknown:
        raise click.UsageError(f"there is no server {unknown[0]}; known are {', '.join(map(str, read.ids))}")
    if any(read.storage_directory(each) is None for each in read.ids):
        raise click.UsageError(f"{config}: storage: memory has no data directories")
    return Options(Path(file), read, servers or read.ids, _identity(cluster), revision, dry_run)


def _identity(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        identity = bytes.fromhex(text)
    except ValueError:
        identity = b""
    if len(identity) != IDENTITY_BYTES:
        raise click.UsageError(f"--cluster takes {2 * IDENTITY_BYTES} hexadecimal digits, as pfsb restore shows them")
    return identity


async def run(reactor: Any, options: Options) -> None:
    """Make the directories. Raises `SystemExit` with an `ExitStatus` if that fails."""
    status = restore(reactor, options, sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


def restore(reactor: Any, options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    """Make the directories, and write to `out` what was done, or to `err` why not. Nothing is made if the file is wrong
    or any of the directories is in use."""
    try:
        state = load(options.file)
        former, revision, sessions = state.cluster_identity, state.machine.revision, len(state.machine.sessions)
        identity = options.identity or os.urandom(IDENTITY_BYTES)
        new = begin_anew(state, options.config.ids, identity, options.revision)
        for server_id in options.servers:
            _storage(reactor, options.config, server_id).refuse_if_in_use()
        told = (
            f"{options.file}: the state after slot {state.name.seq}, revision {revision}, of cluster {former.hex()}\n"
            f"the new cluster {identity.hex()} goes on from revision {new.machine.revision}; "
            f"{sessions} sessions end, and all locks are free\n"
        )
        if options.dry_run:
            out.write(told + "nothing was done (--dry-run)\n")
            return ExitStatus.OK
        out.write(told)
        make_directories(reactor, options.config, options.servers, new, out)
    except (WrongSnapshot, CannotRun, CannotBegin, StorageRefused) as error:
        err.write(f"pfsb restore: {error}\n")
        return ExitStatus.REFUSED
    except OSError as error:
        err.write(f"pfsb restore: {error.filename or options.file}: {error.strerror or error}\n")
        return ExitStatus.REFUSED
    left = [each for each in options.config.ids if each not in options.servers]
    if left:
        ids = " ".join(f"--id {each}" for each in left)
        out.write(
            f"before any server starts: pfsb restore FILE CONFIG {ids} --cluster {identity.hex()}, on their machines"
        )
        out.write("" if options.revision is None else f" and with --revision {options.revision}")
        out.write("\n")
    return ExitStatus.OK


def make_directories(
    reactor: Any, config: Config, servers: Sequence[int], state: BackupState, out: TextIO
) -> SnapshotName:
    """Make the data directory of each of these servers, with the state of a new cluster in it, and say so."""
    parent = Path(config.storage)
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix=".restore-") as scratch:
        file = Path(scratch) / "state.snapshot"
        name = write(state, file)
        for server_id in servers:
            _storage(reactor, config, server_id).begin_with_snapshot(name, portions_of(file))
            out.write(f"{config.storage_directory(server_id)}: made, for server {server_id}\n")
    return name


def _storage(reactor: Any, config: Config, server_id: int) -> Any:
    directory = config.storage_directory(server_id)
    assert directory is not None, "the command line was checked"
    return log_storage(config, server_id, directory, reactor, lambda failure: None)
