"""`pfsb log`: shows and checks the log in a data directory, and changes nothing in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from attrs import define

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage import sqlite
from pfsb.storage.log.listing import groups_of, plain_group, plain_log, plain_state, write_tables
from pfsb.storage.log.scan import Log, scan
from pfsb.storage.log.snapshot_files import SnapshotFiles
from pfsb.storage.position_note import PositionNote, note_of
from pfsb.support.command_line import one_argument, subcommand
from pfsb.support.views import shown


@define
class Options:
    """Command line of `pfsb log`."""

    directory: Path
    groups: bool
    json: bool
    sqlite: Path | None

    def __attrs_post_init__(self) -> None:
        if not self.log.is_dir():
            raise click.UsageError(f"{self.directory}: no data directory with a log in it")
        if self.sqlite is not None and self.sqlite.exists():
            raise click.UsageError(f"--sqlite {self.sqlite}: exists already; the file must be new")

    @property
    def log(self) -> Path:
        """The directory of the log. The command line may name this directory itself, or the data directory in which it
        lies."""
        inner = self.directory / "log"
        return inner if inner.is_dir() or self.directory.name != "log" else self.directory


@subcommand("log")
@one_argument("directory", "one data directory is needed (example: pfsb log var/four/2)")
@click.option("--groups", "-g", is_flag=True, help="Show each group, too.")
@click.option("--json", "-j", is_flag=True, help="Show one JSON object a line: each group, and then the log.")
@click.option(
    "--sqlite", type=click.Path(), metavar="FILE", help="Write everything into this new file, for the sqlite3 tool."
)
def command(directory: str, groups: bool, json: bool, sqlite: str | None) -> Options:
    """Read the whole log in a data DIRECTORY, check it as a start of its server would, and say what it holds.

    The exit status is 1 if a start would refuse it. Nothing in the directory is changed. While the server runs, its
    last group may look torn.
    """
    return Options(Path(directory), groups, json, None if sqlite is None else Path(sqlite))


async def run(reactor: Any, options: Options) -> None:
    """Show the log, or say in one line why it would be refused, with exit status 1."""
    try:
        log = scan(options.log)
        _show(log, options)
        _check(log)
        if options.sqlite is not None:
            write_tables(log, options.sqlite)
    except sqlite.errors_and(StorageRefused, OSError) as error:
        sys.stdout.flush()
        sys.stderr.write(f"pfsb: {error}\n")
        raise SystemExit(1) from None


def _check(log: Log) -> None:
    """Raise `StorageRefused` if a start of the server would refuse this log, although all that is in it is right: a
    slot is missing, or there are fewer groups than the position note says; or if the snapshot is missing or wrong, so
    that a start would have to fetch one."""
    log.refuse_gap()
    note = PositionNote(note_of(log.directory), log.head.identity, lambda: 0.0)
    if log.state.incarnation is not None or note.path.exists():
        note.refuse_less(log.directory, log.position)
    if log.state.snapshot is not None:
        SnapshotFiles.beside(log.directory).refuse_wrong(log.state.snapshot.name)


def _show(log: Log, options: Options) -> None:
    say = sys.stdout.write
    if options.json:
        for listed in groups_of(log):
            say(json.dumps(plain_group(listed)) + "\n")
        say(json.dumps(plain_log(log)) + "\n")
        return
    if options.groups:
        for number, place, size, content in groups_of(log):
            slots = "".join(f" {seq}@{shown(slot.view)}" for seq, slot in content.effect.slots.items())
            state = "".join(f" {name}={_short(value)}" for name, value in plain_state(content).items())
            where = f"group {number}: segment {place.segment}, byte {place.offset}, {size} bytes"
            say(f"{where};{state}{' slots' if slots else ''}{slots}\n")
    for name, value in plain_log(log).items():
        say(f"{name:<20} {_short(value)}\n")


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
