"""`pfsb backup`: writes the state of a running cluster into a file, once or on a schedule, and checks such files."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import click
from attrs import define
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from pfsb.backups.backup_file import describe, no_backup
from pfsb.backups.download import NoBackup, Unreachable, download, url_of
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.options import config_here, read_config, require_server
from pfsb.commands.own_token import own_token
from pfsb.config.config import Config
from pfsb.paxos.snapshot import SnapshotName, WrongSnapshot
from pfsb.sessions.state_machine import CannotRun
from pfsb.support.command_line import Number, Seconds, subcommand
from pfsb.support.limits import SNAPSHOT_SECONDS_MAX

SUFFIX: Final = ".snapshot"
TELL_SECONDS: Final = 5.0
"""How long, in seconds, nothing may come from a server before a line says what it may be waiting for."""
_SHOWN_EVERY_BYTES: Final = 16 * 1_048_576
"""How many bytes come from one line about the progress to the next."""


@define
class Options:
    """Command line of `pfsb backup`."""

    config: Config | None
    file: Path | None
    verify: Path | None
    into: Path | None
    every: float | None
    keep: int
    servers: Sequence[int]
    """Ids of the servers that are asked, in this order, until one gives a backup."""
    wait: int


@subcommand("backup")
@click.argument("words", nargs=-1, metavar="[CONFIG] FILE")
@click.option(
    "--verify", type=click.Path(dir_okay=False), metavar="FILE", help="Check a backup, and say what is in it."
)
@click.option(
    "--into", type=click.Path(file_okay=False), metavar="DIR", help="Write into DIR, under a name with the time."
)
@click.option("--every", type=Seconds(), metavar="SECONDS", help="With --into: go on, one backup each SECONDS.")
@click.option(
    "--keep", type=Number(1, 100_000), default=24, help="With --into: keep the newest so many, delete others."
)
@click.option("--id", "server_id", type=Number(0, 65_535), help="Ask this server; otherwise followers first.")
@click.option(
    "--wait", type=Number(1, SNAPSHOT_SECONDS_MAX), default=600, help="Seconds within which the server must be ready."
)
def command(
    words: tuple[str, ...],
    verify: str | None,
    into: str | None,
    every: float | None,
    keep: int,
    server_id: int | None,
    wait: int,
) -> Options:
    """Write the state of a running cluster into FILE: consistent, as it was after one slot, while the cluster goes on.

    The servers need an HTTP port. A FILE that is there is replaced when the new one is complete. Restore it with "pfsb
    restore". The exit status is 3 if no server gives a backup, and 4 if none can be reached.
    """
    if verify is not None:
        if words or into or every:
            raise click.UsageError("--verify FILE stands alone")
        return Options(None, None, Path(verify), None, None, keep, (), wait)
    if every is not None and into is None:
        raise click.UsageError("--every needs --into DIR, the directory for the backups")
    names = list(words)
    wanted = 0 if into is not None else 1
    if not wanted <= len(names) <= wanted + 1:
        raise click.UsageError("which file? (example: pfsb backup etc/four.yaml four.snapshot)")
    config = read_config(names.pop(0)) if len(names) > wanted else config_here()
    chosen = list(config.ids) if server_id is None else [server_id]
    require_server(config, server_id)
    if not any(url_of(config, each) for each in chosen):
        raise click.UsageError(f"{config.file}: a backup comes over HTTP, and these servers have no http: port")
    file = Path(names[0]) if names else None
    return Options(config, file, None, None if into is None else Path(into), every, keep, chosen, wait)


async def run(reactor: Any, options: Options) -> None:
    """Write or check a backup. Raises `SystemExit` with an `ExitStatus` if that fails."""
    if options.verify is not None:
        status = verify(options.verify, sys.stdout, sys.stderr)
    elif options.every is None:
        status = await back_up(reactor, options, sys.stdout, sys.stderr)
    else:
        status = ExitStatus.OK
        while True:
            begun = reactor.seconds()
            await back_up(reactor, options, sys.stdout, sys.stderr)
            await deferLater(reactor, max(0.0, begun + options.every - reactor.seconds()), lambda: None)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


def verify(file: Path, out: TextIO, err: TextIO) -> ExitStatus:
    """Read a backup as a server would that starts from it, and write what is in it to `out`."""
    try:
        out.write(describe(file))
    except (WrongSnapshot, CannotRun, OSError) as error:
        err.write(f"pfsb backup: {no_backup(file, error)}\n")
        return ExitStatus.REFUSED
    return ExitStatus.OK


async def back_up(reactor: Any, options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    """Ask one server after the other for a backup until one gives it; keep no more files than `options.keep` says."""
    assert options.config is not None, "a backup is of a cluster"
    reasons, unreachable = list[str](), 0
    for server_id in options.servers:
        url = url_of(options.config, server_id)
        if url is None:
            continue
        target = options.file or _new_file(options, reactor.seconds())
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            waits = reactor.callLater(TELL_SECONDS, _tell_of_waiting, server_id, err)
            try:
                progress = partial(_shown, _Progress(err), waits)
                name = await download(reactor, url, target, options.wait, progress, own_token())
            finally:
                if waits.active():
                    waits.cancel()
        except NoBackup as error:
            reasons.append(f"server {server_id}: {error}")
            unreachable += isinstance(error, Unreachable)
            continue
        except OSError as error:
            err.write(f"pfsb backup: {target} cannot be written: {error.strerror or error}\n")
            return ExitStatus.REFUSED
        out.write(_done(target, name, server_id))
        out.flush()
        if options.into is not None:
            _delete_old(options.into, options.config.cluster, options.keep)
        return ExitStatus.OK
    for reason in reasons:
        err.write(f"pfsb backup: {reason}\n")
    return ExitStatus.UNREACHABLE if unreachable == len(reasons) else ExitStatus.UNAVAILABLE


def _shown(progress: _Progress, waits: IDelayedCall, got: int, of: int) -> None:
    if waits.active():
        waits.cancel()
    progress.show(got, of)


def _tell_of_waiting(server_id: int, err: TextIO) -> None:
    err.write(
        f"server {server_id} takes a snapshot, which counts when a majority of the servers has told that it has "
        "executed the same (pfsb status shows which servers answer)\n"
    )
    err.flush()


def _done(target: Path, name: SnapshotName, server_id: int) -> str:
    what = f"{name.size} bytes, the state after slot {name.seq}, digest {name.digest.hex()}"
    return f"{target}: {what}, from server {server_id}\n"


def _new_file(options: Options, seconds: float) -> Path:
    assert options.into is not None and options.config is not None
    now = datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
    return options.into / f"{_file_name(options.config.cluster)}-{now}{SUFFIX}"


def _file_name(cluster: str) -> str:
    """The name of a cluster as the beginning of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", cluster)


def _delete_old(directory: Path, cluster: str, keep: int) -> None:
    """Delete all backups of the cluster in a directory but the newest ones. Their names tell their times."""
    names = re.compile(rf"{re.escape(_file_name(cluster))}-\d{{8}}T\d{{6}}Z{re.escape(SUFFIX)}")
    found = sorted(path for path in directory.iterdir() if names.fullmatch(path.name))
    for path in found[:-keep]:
        path.unlink(missing_ok=True)


@define
class _Progress:
    """Shows the progress of a large backup, on a terminal or not, by a line now and then."""

    _err: TextIO
    _next: int = _SHOWN_EVERY_BYTES

    def show(self, got: int, of: int) -> None:
        if got >= self._next:
            self._next = got + _SHOWN_EVERY_BYTES
            self._err.write(f"{got >> 20} of {of >> 20} MiB\n")
            self._err.flush()
