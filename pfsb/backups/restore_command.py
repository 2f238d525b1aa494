"""`pfsb restore`: makes the data directories of a new cluster of a backup."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TextIO

import click
from attrs import define, evolve

from pfsb.backups.backup_file import BackupState, load, no_backup
from pfsb.backups.new_cluster import (
    JUMP,
    REVISION_MAX,
    TOKEN_BYTES,
    CannotBegin,
    answering,
    begin_anew,
    token_of,
    write,
)
from pfsb.backups.past import Past, Target, moment, target_of
from pfsb.backups.progress import Progress
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.options import read_config, require_server
from pfsb.config.config import Config
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.snapshot import SnapshotName, WrongSnapshot
from pfsb.service.assembly import log_storage
from pfsb.sessions.state_machine import CannotRun
from pfsb.storage.directory import DirectoryLock
from pfsb.storage.log.snapshot_files import portions_of
from pfsb.support.command_line import Number, subcommand
from pfsb.support.limits import IDENTITY_BYTES

SCRATCH: Final = ".restore-"
"""Beginning of the name of a directory in which a restore works."""


@define
class Options:
    """Command line of `pfsb restore`."""

    files: Sequence[Path]
    """The backup; or, with `at`, archives and data directories."""
    config: Config
    servers: Sequence[int]
    token: bytes | None
    """The token that the first restore has shown (`token_of`); None: this is the first."""
    revision: int | None
    dry_run: bool
    at: Target | None = None
    """The state of the past with which the new cluster begins; None: that in the backup."""


@subcommand("restore")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.argument("config", metavar="CONFIG")
@click.option(
    "--at",
    metavar="REVISION|TIME",
    help="The state after this revision, or at this time (2026-11-30T08:00:00Z, or @ and seconds since 1970), from the "
    "archives and data directories FILE...",
)
@click.option("--id", "servers", type=Number(0, 65_535), multiple=True, help="Only this server; repeatable.")
@click.option("--cluster", metavar="HEX", help="Token of the new cluster, as the first restore told it.")
@click.option(
    "--revision",
    type=Number(0, REVISION_MAX),
    help=f"Go on above this revision, the highest that the former cluster may have had; else {JUMP} are left out.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def command(
    files: tuple[str, ...],
    config: str,
    at: str | None,
    servers: tuple[int, ...],
    cluster: str | None,
    revision: int | None,
    dry_run: bool,
) -> Options:
    """Make the data directories of a new cluster, which begins with the state in the backup FILE.

    With --at it begins with a state of the past instead, also one in the middle of a batch: FILE... are archives and
    data directories of the former servers then, of one or of several, which may be running. They are only read.

    CONFIG describes the new cluster; all of its servers must be made from the same FILE, with the same --revision,
    before the first one is started. On other machines --cluster takes the token that the first restore has shown. All
    sessions and locks of the former cluster are void. A directory that has a storage already is refused.
    """
    read = read_config(config)
    for each in servers:
        require_server(read, each)
    require_new_cluster(read, config)
    paths = [Path(each) for each in files]
    target = None if at is None else _target(at)
    if target is None and len(paths) > 1:
        raise click.UsageError("one backup is restored, or with --at a state of the past, from several directories")
    if target is None and paths[0].is_dir():
        raise click.UsageError(f"{paths[0]} is a directory; from archives and data directories --at restores")
    return Options(paths, read, servers or read.ids, _token(cluster), revision, dry_run, target)


def require_new_cluster(read: Config, config: str) -> None:
    """Raise `click.UsageError` if the configuration `read`, in the file `config`, is not that of a cluster whose data
    directories can be made: all of its servers found it, and have such a directory."""
    if any(read.storage_directory(each) is None for each in read.ids):
        raise click.UsageError(f"{config}: storage: memory has no data directories")
    if read.founding_ids != read.ids:
        raise click.UsageError(f"{config}: founders: a new cluster is founded by all servers of its configuration")


def _target(text: str) -> Target:
    try:
        return target_of(text)
    except ValueError as error:
        raise click.UsageError(f"--at takes {error}, not {text}") from None


def _token(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        token = bytes.fromhex(text)
    except ValueError:
        token = b""
    if len(token) != TOKEN_BYTES:
        raise click.UsageError(f"--cluster takes {2 * TOKEN_BYTES} hexadecimal digits, as pfsb restore shows them")
    return token


async def run(reactor: Any, options: Options) -> None:
    """Make the directories. Raises `SystemExit` with an `ExitStatus` if that fails."""
    status = restore(reactor, options, sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


def restore(reactor: Any, options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    """Make the directories, and write to `out` what was done, or to `err` why not. Nothing is made if the file is wrong
    or any of the directories is in use."""
    config, made = options.config, list[int]()
    token = b""
    found = _find_state(reactor, options, out, err)
    if found is None:
        return ExitStatus.REFUSED
    state, told = found
    if options.at is not None:  # what other machines must ask for to get the same state
        options = evolve(options, at=Target(state.machine.revision))
    try:
        former, sessions = state.cluster_identity, len(state.machine.sessions)
        identity = os.urandom(IDENTITY_BYTES) if options.token is None else options.token[:IDENTITY_BYTES]
        new = begin_anew(state, config.ids, identity, options.revision)
        token = token_of(new)
        if options.token not in (None, token):
            raise CannotBegin(
                f"--cluster {options.token.hex()} is of another state: FILE, --revision or the servers in CONFIG are "
                "others than at the first restore"
            )
        in_use = _in_use(reactor, config, options.servers)
        if in_use:
            err.write("".join(f"pfsb restore: {why}\n" for why in in_use.values()))
            err.write(_if_interrupted(options, [each for each in options.servers if each not in in_use]))
            return ExitStatus.REFUSED
        out.write(
            f"{told}, of cluster {former.hex()}\n"
            f"the new cluster {identity.hex()} goes on from revision {new.machine.revision}; "
            f"{sessions} sessions end, and all locks are free\n"
        )
        if options.dry_run:
            out.write("nothing was done (--dry-run)\n")
            return ExitStatus.OK
        out.write(f"token of the new cluster, for --cluster: {token.hex()}\n")
        out.flush()
        make_directories(reactor, config, options.servers, new, out, made)
    except (CannotBegin, StorageRefused) as error:
        err.write(f"pfsb restore: {error}\n")
    except OSError as error:
        err.write(f"pfsb restore: {error.filename or config.storage}: {error.strerror or error}\n")
    else:
        made_earlier = _in_use(reactor, config, config.ids)
        left = [each for each in config.ids if each not in made_earlier]
        if left:
            again = _again(options, left, token.hex())
            out.write(f"before any server starts: {again}, on their machines, unless that was done\n")
        out.write(answering(config.ids))
        return ExitStatus.OK
    if made:
        rest = [each for each in options.servers if each not in made]
        err.write(
            f"{made_before(config, made)}. Delete them, or make the rest with {_again(options, rest, token.hex())}\n"
        )
    return ExitStatus.REFUSED


def _in_use(reactor: Any, config: Config, servers: Sequence[int]) -> dict[int, StorageRefused]:
    """Server -> why no storage can be made in its directory."""
    found = {}
    for server_id in servers:
        try:
            storage_of(reactor, config, server_id).refuse_if_in_use()
        except StorageRefused as error:
            found[server_id] = error
    return found


def _find_state(reactor: Any, options: Options, out: TextIO, err: TextIO) -> tuple[BackupState, str] | None:
    """The state with which the cluster begins, and a text that says which it is; None: there is none, and `err` has the
    reason."""
    if options.at is None:
        (file,) = options.files
        try:
            state = load(file)
        except (WrongSnapshot, CannotRun, OSError) as error:
            err.write(f"pfsb restore: {no_backup(file, error)}\n")
            return None
        return state, f"{file}: the state after slot {state.name.seq}, revision {state.machine.revision}"
    try:
        past = Past.of(options.files)
        with Progress("slots executed again", err, reactor.seconds) as progress:
            replay = past.state_at(options.at, progress)
            checked = past.verify(replay, progress)
        for path, fault in past.faults.items():
            out.write(f"{path} is left out: {fault}\n")
        if not replay.machine.settings.is_born:
            raise StorageRefused("no cluster was born yet: slot 1 brings its settings")
        state = replay.state()
    except (StorageRefused, WrongSnapshot, CannotRun) as error:
        err.write(f"pfsb restore: {error}\n")
        return None
    except OSError as error:
        err.write(f"pfsb restore: {error.filename or options.files[0]}: {error.strerror or error}\n")
        return None
    if checked is not None:
        out.write(f"the slots behind it lead to the snapshot of slot {checked.seq}, as they should\n")
    where, machine = "in the middle of" if replay.is_within else "after", state.machine
    return state, f"the state {where} slot {state.name.seq}, revision {machine.revision}, at {moment(machine.time_ms)}"


def _again(options: Options, servers: Sequence[int], token: str) -> str:
    """The command line that makes the directories of these servers of the same new cluster."""
    ids = " ".join(f"--id {each}" for each in servers)
    revision = "" if options.revision is None else f" --revision {options.revision}"
    files, at = "FILE", ""
    if options.at is not None:
        files, at = "FILE...", "" if options.at.revision is None else f" --at {options.at.revision}"
    return f"pfsb restore{at} {files} CONFIG {ids} --cluster {token}{revision}"


def _if_interrupted(options: Options, free: Sequence[int]) -> str:
    """A line that says what may be done about directories which an interrupted restore has left."""
    text = "if a restore that was interrupted has made this, and no server was started with it: delete it"
    if free:
        text += f", or make the rest with {_again(options, free, 'TOKEN')}, with the token that it has shown"
    return text + "\n"


def made_before(config: Config, made: Sequence[int]) -> str:
    """The beginning of a line that names the directories that were made before something failed."""
    return f"made before that: {', '.join(str(config.storage_directory(each)) for each in made)}"


def make_directories(
    reactor: Any, config: Config, servers: Sequence[int], state: BackupState, out: TextIO, made: list[int]
) -> SnapshotName:
    """Make the data directory of each of these servers, with the state of a new cluster in it, and say so. Those that
    are complete are added to `made`. Raises `StorageRefused`, or `OSError`."""
    parent = Path(config.storage)
    parent.mkdir(parents=True, exist_ok=True)
    delete_leftovers(parent, out)
    with TemporaryDirectory(dir=parent, prefix=SCRATCH) as scratch:
        lock = DirectoryLock(Path(scratch))
        lock.acquire()
        try:
            file = Path(scratch) / "state.snapshot"
            name = write(state, file)
            for server_id in servers:
                storage_of(reactor, config, server_id).begin_with_snapshot(name, portions_of(file))
                made.append(server_id)
                out.write(f"{config.storage_directory(server_id)}: made, for server {server_id}\n")
                out.flush()
        finally:
            lock.release()
    return name


def delete_leftovers(parent: Path, out: TextIO) -> None:
    """Delete what restores have left that were killed, and say so. A directory whose restore still runs is locked, and
    stays."""
    for left in sorted(parent.glob(f"{SCRATCH}*")):
        lock = DirectoryLock(left)
        try:
            lock.acquire()
        except StorageRefused:
            continue
        shutil.rmtree(left, ignore_errors=True)
        lock.release()
        out.write(f"{left}: left by a restore that was killed; deleted\n")


def storage_of(reactor: Any, config: Config, server_id: int) -> Any:
    """The storage of a server of the new cluster, which is not there yet."""
    directory = config.storage_directory(server_id)
    assert directory is not None, "the command line was checked"
    return log_storage(config, server_id, directory, reactor, lambda failure: None)
