"""`pfsb export`: shows what is in a backup as JSON lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

import click
from attrs import define

from pfsb.backups.backup_file import load, no_backup
from pfsb.backups.json_lines import KINDS, lines_of
from pfsb.commands.exit_status import ExitStatus
from pfsb.paxos.snapshot import WrongSnapshot
from pfsb.sessions.state_machine import CannotRun
from pfsb.support.command_line import OneOf, one_argument, subcommand


@define
class Options:
    """Command line of `pfsb export`."""

    file: Path
    only: tuple[str, ...]


@subcommand("export")
@one_argument("file", "which backup? (example: pfsb export four.snapshot > four.jsonl)")
@click.option("--only", type=OneOf(KINDS), multiple=True, help="Only these: keys, the chat, or locks. Repeatable.")
def command(file: str, only: tuple[str, ...]) -> Options:
    """Write the keys, the chat and the locks in the backup FILE to standard output, as one JSON object a line.

    "pfsb import" puts keys and chat into a running cluster.
    """
    return Options(Path(file), only or KINDS)


async def run(reactor: Any, options: Options) -> None:
    """Write the lines. Raises `SystemExit` with an `ExitStatus` if the file is no backup."""
    status = export(options, sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


def export(options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    try:
        state = load(options.file)
    except (WrongSnapshot, CannotRun, OSError) as error:
        err.write(f"pfsb export: {no_backup(options.file, error)}\n")
        return ExitStatus.REFUSED
    for line in lines_of(state, options.only):
        out.write(line + "\n")
    return ExitStatus.OK
