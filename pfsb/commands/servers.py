"""`pfsb servers`: shows the servers of a cluster, or adds, removes, moves or replaces one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

import click
from attrs import define
from twisted.internet.error import ConnectError

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.replies import Reply
from pfsb.commands.columns import in_columns
from pfsb.commands.exit_status import ExitStatus, status_of
from pfsb.commands.one_question import ask
from pfsb.commands.options import cluster_addresses, cluster_options, read_config
from pfsb.config.config import Config
from pfsb.support.command_line import subcommand
from pfsb.support.hosts import parsed
from pfsb.support.limits import SERVER_ID_MAX, server_id_of

_CHANGES: Final = {"add": 2, "move": 2, "remove": 1, "replace": 3}
"""Word of a change -> how many words follow it."""
_COLUMNS: Final = ("id", "role", "alive", "state", "aru", "address", "client")


@define
class Options:
    """Command line of `pfsb servers`: where the cluster is, and the line that is sent to one of its servers."""

    addresses: Sequence[ServerAddress]
    line: str
    timeout: float
    json: bool


@subcommand("servers")
@click.argument(
    "words", nargs=-1, metavar="[CONFIG] [add ID ADDRESS | remove ID | move ID ADDRESS | replace ID NEW ADDRESS]"
)
@cluster_options
@click.option("--learner", is_flag=True, help="With add: the server learns for good, and never votes.")
@click.option("--json", is_flag=True, help="Show the servers as JSON.")
def command(
    words: tuple[str, ...],
    config: Config | None,
    servers: tuple[str, ...],
    timeout: float,
    learner: bool,
    json: bool,
) -> Options:
    """Show the servers of a cluster, or add, remove, move or replace one; ADDRESS is where the other servers reach it.

    A server that is added learns what the others have executed, and then votes by itself. One that replaces another
    one, which may be dead, takes its place then: the other one is removed. An id that was removed is not used again.
    The exit status is 1 if the cluster refuses, 3 if it does not answer, and 4 if no server can be reached.
    """
    if words and words[0] not in _CHANGES and config is None:
        config, words = read_config(words[0]), words[1:]
    line = line_of(words)
    if learner:
        if words[:1] != ("add",):
            raise click.UsageError("--learner belongs to add (example: add 4 127.0.0.1:7404 --learner)")
        line += " LEARNER"
    return Options(cluster_addresses(config, servers), line, timeout, json)


def line_of(words: Sequence[str]) -> str:
    """The line to send. Raises `click.UsageError` for words that are no change."""
    if not words:
        return "SERVERS"
    change, rest = words[0], words[1:]
    if _CHANGES.get(change) != len(rest):
        raise click.UsageError(
            "a change is add ID ADDRESS, remove ID, move ID ADDRESS or replace ID NEW ADDRESS "
            "(example: add 4 127.0.0.1:7404)"
        )
    ids, address = (rest, []) if change == "remove" else (rest[:-1], rest[-1:])
    for word in ids:
        if server_id_of(word) is None:
            raise click.UsageError(f"an id is a whole number from 0 to {SERVER_ID_MAX}, not {word!r}")
    if address and parsed(address[0]) is None:
        raise click.UsageError(f'{address[0]!r} is no address (example: 127.0.0.1:7404, or "[::1]:7404")')
    return " ".join(["SERVERS", change.upper(), *ids, *(f'"{word}"' for word in address)])


async def run(reactor: Any, options: Options) -> None:
    """Show or change the servers. Raises `SystemExit` with an `ExitStatus` if that does not succeed."""
    status = await settle(reactor, options, sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


async def settle(reactor: Any, options: Options, out: TextIO, err: TextIO) -> ExitStatus:
    """Send the line to one server after the other, until one answers it; and write the answer to `out`, or the reason
    why there is none to `err`.

    A server that refuses since it cannot serve now is followed by the next one. A line that was sent, and has no
    answer, is sent to no other server: the change may happen.
    """
    refusal: Reply | None = None
    for address in options.addresses:
        try:
            reply = await ask(reactor, address, options.line, options.timeout)
        except ConnectError:
            continue
        except Exception as error:
            what = "the change may have happened, or may still: " if " " in options.line else ""
            err.write(f"pfsb servers: no answer of {address} ({error or type(error).__name__}); {what}ask again\n")
            return ExitStatus.UNAVAILABLE
        if reply.ok:
            out.write(_shown(reply, options))
            return ExitStatus.OK
        refusal = reply
        if reply.fate != "none" or status_of(reply) is ExitStatus.REFUSED:
            break
    if refusal is None:
        err.write("pfsb servers: no server accepts a connection\n")
        return ExitStatus.UNREACHABLE
    err.write(f"pfsb servers: {refusal.text} ({refusal.code}, fate={refusal.fate})\n")
    return status_of(refusal)


def _shown(reply: Reply, options: Options) -> str:
    fields, rows = reply.fields, reply.row_fields
    if options.json:
        return json.dumps({**fields, "servers": rows} if rows else fields) + "\n"
    if not rows and " REPLACE " in options.line:
        return f"in epoch {fields['epoch']} the new server learns; when it votes, the former one is removed by itself\n"
    if not rows:
        return f"done, in epoch {fields['epoch']}\n"
    table = [_COLUMNS, *(tuple(str(row.get(column, "")) for column in _COLUMNS) for row in rows)]
    replacing = f"; server {fields['by']} takes the place of server {fields['replacing']}" if "by" in fields else ""
    return f"epoch {fields.get('epoch', 0)}{replacing}\n{in_columns(table)}"
