"""`pfsb recover`: makes a new cluster of the data directories that are left, when a majority is lost for ever."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import click
from attrs import define

from pfsb.backups.new_cluster import REVISION_MAX, CannotBegin, answering, begin_anew
from pfsb.backups.restore_command import made_before, make_directories, require_new_cluster, storage_of
from pfsb.backups.survivors import Recovery, Survivor, UnreadableSurvivor, latest_state, read_survivor
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.options import read_config
from pfsb.config.config import Config
from pfsb.paxos.interfaces import StorageRefused
from pfsb.sessions.state_machine import CannotRun
from pfsb.support.command_line import Number, subcommand
from pfsb.support.limits import IDENTITY_BYTES

_SHOWN_EVERY_SLOTS = 100_000


@define
class Options:
    """Command line of `pfsb recover`."""

    directories: Sequence[Path]
    config: Config
    revision: int | None
    dry_run: bool


@subcommand("recover")
@click.argument("config", metavar="CONFIG")
@click.argument("directories", nargs=-1, required=True, metavar="DIRECTORY...", type=click.Path(file_okay=False))
@click.option(
    "--revision",
    type=Number(0, REVISION_MAX),
    help="Go on above this revision, the highest that the former cluster may have had.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and what may be lost, and do nothing.")
def command(config: str, directories: tuple[str, ...], revision: int | None, dry_run: bool) -> Options:
    """Make a new cluster, as CONFIG says, of the data directories of servers that are left of a former one.

    Only when a majority of the former servers is lost for ever: what only they knew is lost, answered commands among
    it. Stop the servers that are left; give all of their directories. These are not changed. CONFIG must name another
    storage: than theirs.
    """
    read = read_config(config)
    require_new_cluster(read, config)
    return Options([Path(each) for each in directories], read, revision, dry_run)


async def run(reactor: Any, options: Options) -> None:
    """Make the new directories. Raises `SystemExit` with an `ExitStatus` if that fails."""
    status = recover(reactor, options, sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


def recover(reactor: Any, options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    """Make the new directories, and write to `out` what was done and what may be lost, or to `err` why nothing was."""

    def progress(done: int, of: int) -> None:
        if done % _SHOWN_EVERY_SLOTS == 0:
            err.write(f"{done} of {of} slots executed again\n")
            err.flush()

    made = list[int]()
    try:
        for server_id in options.config.ids:
            try:
                storage_of(reactor, options.config, server_id).refuse_if_in_use()
            except StorageRefused as error:
                err.write(
                    f"pfsb recover: {error}\n{options.config.file} must name another storage: than that of the former "
                    "servers. If a recover that was interrupted has made this directory, and no server was started "
                    "with it, delete it: all directories of a new cluster are made at once\n"
                )
                return ExitStatus.REFUSED
        survivors = []
        for directory in options.directories:
            try:
                survivors.append(read_survivor(directory))
            except UnreadableSurvivor as error:
                err.write(
                    f"pfsb recover: {error}\n{directory} can be left out of the command; what only its server knew is "
                    "lost then\n"
                )
                return ExitStatus.REFUSED
        for each in survivors:
            epoch = f", epoch {each.epoch} of the membership" if each.epoch else ""
            up_to = f"executed slots up to {each.local_aru}"
            out.write(f"{each.directory}: server {each.server_id}, {up_to}{epoch}{_lost(each)}\n")
        found = latest_state(survivors, progress)
        former, revision = found.state.cluster_identity, found.state.machine.revision
        sessions = len(found.state.machine.sessions)
        new = begin_anew(found.state, options.config.ids, os.urandom(IDENTITY_BYTES), options.revision)
        out.write(f"the state after slot {new.history.seq}, revision {revision}, of cluster {former.hex()}\n")
        out.write(_losses(found, survivors))
        out.write(
            f"the new cluster {new.cluster_identity.hex()} goes on from revision {new.machine.revision}; {sessions} "
            "sessions end, and all locks are free\n"
        )
        if options.dry_run:
            out.write("nothing was done (--dry-run)\n")
            return ExitStatus.OK
        make_directories(reactor, options.config, options.config.ids, new, out, made)
    except (CannotRun, CannotBegin, StorageRefused) as error:
        err.write(f"pfsb recover: {error}\n")
    except OSError as error:
        err.write(f"pfsb recover: {error.filename or options.config.storage}: {error.strerror or error}\n")
    else:
        out.write(answering(options.config.ids))
        return ExitStatus.OK
    if made:
        err.write(f"{made_before(options.config, made)}. Delete them, and recover again\n")
    return ExitStatus.REFUSED


def _lost(survivor: Survivor) -> str:
    """The part of a line which says that the snapshot of a directory is lost; else nothing."""
    if survivor.lost is None or survivor.named is None:
        return ""
    return f"; {survivor.files.path(survivor.named.seq)} is {survivor.lost}, and its log is whole"


def _losses(found: Recovery, survivors: Sequence[Survivor]) -> str:
    """Lines that say which commands may be lost, or count as run although that is not known."""
    lines = []
    members = found.members
    left = [each.server_id for each in survivors if each.server_id in members.voters]
    servers = f"{len(left)} of {len(members.voters)} servers"
    if members.epoch:
        voters = ", ".join(map(str, members.voters))
        lines.append(f"in epoch {members.epoch}, the last one, servers {voters} vote")
        servers += " that vote"
    if len(left) >= members.quorum:
        lines.append(
            f"{servers} are left, which is a majority: they could go on by themselves, and lose nothing. Recover only "
            "if they cannot"
        )
    else:
        lines.append(
            f"{servers} are left, and {members.quorum} were needed: commands that the others had answered behind slot "
            f"{found.state.history.seq} are lost, and it is unknown how many"
        )
    if found.open_slots:
        lines.append(
            f"slots {found.ordered_up_to + 1} to {found.state.history.seq} were accepted here, and it is not known "
            "whether they were ordered: their commands count as run"
        )
    if found.ordered_left_out:
        lines.append(
            f"{found.ordered_left_out} slots that were ordered are left out, since none of the directories leads up to "
            "them: a lost snapshot that comes back, or another directory, may save their commands"
        )
    if found.void:
        lines.append(
            f"{found.void} slots that servers of an earlier epoch have accepted are void, since the change of the "
            f"membership in slot {members.since} is executed"
        )
    if found.left_out > found.ordered_left_out:
        number = found.left_out - found.ordered_left_out
        lines.append(f"{number} slots that were accepted above a gap are left out: their commands are lost")
    return "".join(f"{line}\n" for line in lines)
