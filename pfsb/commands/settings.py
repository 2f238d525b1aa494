"""`pfsb settings`: shows or changes the settings that all servers of a cluster share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO

import click
from attrs import define

from pfsb.client.clerks import calls
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.replies import Reply
from pfsb.commands.columns import in_columns
from pfsb.commands.exit_status import ExitStatus, status_of
from pfsb.commands.line_client import LineClient
from pfsb.commands.options import cluster_addresses, cluster_options, read_config
from pfsb.commands.survey import NoAnswer, in_time
from pfsb.config.config import Config
from pfsb.sessions.cluster_settings import RANGES
from pfsb.support.command_line import subcommand

_MEANINGS: Final = {
    "apps": "applications that run, in this order",
    "members": "ids of the servers; not to be changed",
    "cluster": "identity drawn at the cluster's birth; not to be changed",
}


@define
class Options:
    """Command line of `pfsb settings`: where the cluster is, then changes."""

    addresses: Sequence[ServerAddress]
    changes: dict[str, str]
    timeout: float
    json: bool


@subcommand("settings")
@click.argument("words", nargs=-1, metavar="[CONFIG] [NAME=VALUE]...")
@cluster_options
@click.option("--json", is_flag=True, help="Show the settings as one JSON object.")
def command(
    words: tuple[str, ...], config: Config | None, servers: tuple[str, ...], timeout: float, json: bool
) -> Options:
    """Show the settings that all servers of a cluster share, or change those that are named, all or none.

    The exit status is 1 if the cluster refuses, 3 if it does not answer, and 4 if no server can be reached.
    """
    if words and "=" not in words[0] and config is None:
        config, words = read_config(words[0]), words[1:]
    changes = changes_of(words)
    return Options(cluster_addresses(config, servers), changes, timeout, json)


def changes_of(words: Sequence[str]) -> dict[str, str]:
    """Setting -> its new value, of words such as "window=16". Raises `click.UsageError` for other words."""
    changes: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{word!r} must be NAME=VALUE (example: session_window=64)")
        if name in changes:
            raise click.UsageError(f"{name} is there twice")
        changes[name] = value
    return changes


async def run(reactor: Any, options: Options) -> None:
    """Show or change settings. Raises `SystemExit` with an `ExitStatus` if the cluster refuses, or does not answer in
    time."""
    show = as_json if options.json else table
    status = await settle(reactor, options.addresses, options.changes, options.timeout, sys.stdout, sys.stderr, show)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


async def settle(
    reactor: Any,
    addresses: Sequence[ServerAddress],
    changes: dict[str, str],
    timeout_seconds: float,
    out: TextIO,
    err: TextIO,
    show: Callable[[Reply], str] | None = None,
) -> ExitStatus:
    """Make the changes, if there are any, and write all settings to `out`, as the text that `show` makes of the reply
    to SETTINGS, or else as a table.

    Returns `OK` if that succeeds; otherwise one line on `err` tells the reason.
    """
    client = LineClient(reactor, ClientCore(addresses))
    client.core.on_unreachable = lambda text: print(f"pfsb settings: {text}; trying again", file=err, flush=True)
    client.start()
    wanted = [calls.change_settings(changes).line] if changes else []
    reply = None
    try:
        for line in [*wanted, calls.settings().line]:
            try:
                reply = await in_time(reactor, addresses, client.command(line), timeout_seconds)
            except NoAnswer as error:
                err.write(f"pfsb settings: no answer within {timeout_seconds:g} s; {error}\n")
                return ExitStatus.UNAVAILABLE if error.found.up else ExitStatus.UNREACHABLE
            if not reply.ok:
                err.write(f"pfsb settings: {reply.text} ({reply.code}, fate={reply.fate})\n")
                return status_of(reply)
    finally:
        await client.stop()
    assert reply is not None
    out.write((show or table)(reply))
    return ExitStatus.OK


def as_json(reply: Reply) -> str:
    """The settings in a reply to SETTINGS as a line with a JSON object: name -> value."""
    return json.dumps(dict(calls.settings().read(reply))) + "\n"


def table(reply: Reply) -> str:
    """The text of a table with the settings in a reply to SETTINGS: name, value, and meaning."""
    values = calls.settings().read(reply)
    rows = [("setting", "value", "meaning"), *((name, _shown(value), _meaning(name)) for name, value in values.items())]
    return in_columns(rows)


def _shown(value: int | str) -> str:
    """A value as text, in the form in which a person would type it.

    Control characters, which no server of this version sends, never reach the terminal.
    """
    text = str(value)
    return text if text.isprintable() else json.dumps(text)


def _meaning(name: str) -> str:
    """The meaning of a setting; empty for one that only servers of a later version have."""
    known = RANGES.get(name)
    return _MEANINGS.get(name, "") if known is None else f"{known.help}; {known.least} to {known.most}"
