"""`pfsb history`: lists all changes of a key, from archives and data directories."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import click
from attrs import define

from pfsb.backups.past import Before, Change, Past, Target, moment, target_of
from pfsb.backups.progress import Progress
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.options import read_config
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.snapshot import WrongSnapshot
from pfsb.sessions.state_machine import CannotRun
from pfsb.support.command_line import subcommand

VALUE_CHARACTERS_MAX: Final = 60
"""Maximum number of characters of a value that are shown without --json."""


@define
class Options:
    """Command line of `pfsb history`."""

    key: bytes
    places: Sequence[Path]
    data: Sequence[Path]
    """The data directories in `places` that a configuration names: they tell which cluster is meant."""
    first: Target
    last: Target
    everything: bool
    json: bool


@subcommand("history")
@click.argument("key")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--from", "first", metavar="REVISION|TIME", help="Begin with this revision, or time.")
@click.option("--to", "last", metavar="REVISION|TIME", help="End with this revision, or time.")
@click.option("--all", "everything", is_flag=True, help="Commands that were refused or changed nothing, too.")
@click.option("--json", is_flag=True, help="Show one JSON object a line, with whole values.")
def command(
    key: str, places: tuple[str, ...], first: str | None, last: str | None, everything: bool, json: bool
) -> Options:
    """Show each change of KEY: its revision, when it was, the command, the session, and the value.

    PLACE is an archive, a data directory, or a configuration, which stands for all archives and data directories of its
    servers that are on this machine. Servers may be running. A TIME is as 2026-11-30T08:00:00Z, or @ and seconds since
    1970.
    """
    found, data = list[Path](), list[Path]()
    for place in map(Path, places):
        if place.is_dir():
            found.append(place)
        else:
            config = read_config(str(place))
            data += _on_this_machine(map(config.storage_directory, config.ids))
            found += [*_on_this_machine(map(config.archive_directory, config.ids)), *data]
    if not found:
        raise click.UsageError("none of the data directories and archives of that configuration is on this machine")
    return Options(os.fsencode(key), found, data, _target("--from", first), _target("--to", last), everything, json)


def _on_this_machine(places: Iterable[Path | None]) -> list[Path]:
    return [place for place in places if place is not None and place.is_dir()]


def _target(option: str, text: str | None) -> Target:
    try:
        return Target() if text is None else target_of(text)
    except ValueError as error:
        raise click.UsageError(f"{option} takes {error}, not {text}") from None


async def run(reactor: Any, options: Options) -> None:
    """List the changes. Raises `SystemExit` with an `ExitStatus` if that fails."""
    status = history(reactor, options, sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


def history(reactor: Any, options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    """Write the changes to `out`. If slots are missing, or files are damaged, all before is written, and `err` says
    what is missing."""
    with Progress("slots read", err, reactor.seconds) as progress:
        try:
            past = Past.of(options.places, options.data)
            for each in _wanted(past, options, progress):
                progress.clear()
                out.write((_plain(options.key, each) if options.json else _shown(each)) + "\n")
                out.flush()
        except (StorageRefused, WrongSnapshot, CannotRun) as error:
            progress.clear()
            err.write(f"pfsb history: {error}\n")
            return ExitStatus.REFUSED
        except BrokenPipeError:
            raise
        except OSError as error:
            progress.clear()
            err.write(f"pfsb history: {error.filename or options.places[0]}: {error.strerror or error}\n")
            return ExitStatus.REFUSED
    for path, fault in past.faults.items():
        err.write(f"pfsb history: {path} is left out: {fault}\n")
    return ExitStatus.OK


def _wanted(past: Past, options: Options, progress: Progress) -> Iterator[Change | Before]:
    first = options.first
    for each in past.changes(options.key, first, options.last, progress):
        if isinstance(each, Change):
            is_late = each.revision >= (first.revision or 0) and each.time_ms >= (first.time_ms or 0)
            if not is_late or not (each.has_changed or options.everything):
                continue
        yield each


def _shown(each: Change | Before) -> str:
    """A line for a person: revision, time, command, session, value."""
    if isinstance(each, Before):
        return f"{each.revision:>12}  {'(what is kept begins later)':39}  {shortened(each.value)}"
    if each.refusal is not None:
        outcome = f"refused: {each.refusal.code} {each.refusal.text}"
    elif not each.has_changed:
        outcome = "changed nothing"
    else:
        outcome = "deleted" if each.value is None else shortened(each.value)
    return f"{each.revision:>12}  {moment(each.time_ms)}  {each.verb:<13} {each.client_id:<16} {outcome}"


def shortened(value: bytes) -> str:
    """A value as a text of limited length, without characters that a terminal would act on."""
    text = value.decode("utf-8", "backslashreplace")
    text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    if len(text) > VALUE_CHARACTERS_MAX:
        text = f"{text[: VALUE_CHARACTERS_MAX - 1]}… ({len(value)} bytes)"
    return text or '""'


def _plain(key: bytes, each: Change | Before) -> str:
    """A line of JSON: one object."""
    found: dict[str, Any] = {"revision": each.revision, **_text("key", key)}
    if isinstance(each, Before):
        return json.dumps({**found, "verb": None, **_text("value", each.value), "kept_from": each.at})
    found |= {
        "verb": each.verb,
        **({"value": None} if each.value is None else _text("value", each.value)),
        "changed": each.has_changed,
        "refused": None if each.refusal is None else {"code": each.refusal.code, "text": each.refusal.text},
        "time": moment(each.time_ms),
        "time_ms": each.time_ms,
        "client": each.client_id,
        "number": each.number,
        "slot": each.slot,
    }
    return json.dumps(found, ensure_ascii=False)


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
