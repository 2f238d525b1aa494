"""`pfsb status`: one line per server of a cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import click
from attrs import define

from pfsb.client.core.addresses import ServerAddress
from pfsb.commands.columns import in_columns
from pfsb.commands.options import ConfigOptions, config_argument
from pfsb.commands.survey import Status, Survey, survey
from pfsb.support.command_line import subcommand

_COLUMNS: Final = ("state", "view", "leader", "aru", "last_ordered", "revision", "sessions", "connections", "pending")


@define
class Options(ConfigOptions):
    """Command line of `pfsb status`."""

    json: bool


@subcommand("status")
@config_argument()
@click.option("--json", is_flag=True, help="Show everything that the servers tell as one JSON object.")
def command(**given: Any) -> Options:
    """Show one line per server, and a line about the cluster.

    The exit status is 1 if no majority of the servers answers.
    """
    return Options(**given)


async def run(reactor: Any, options: Options) -> None:
    """Ask all servers at once, and print a table. Raises `SystemExit` with status 1 if no majority answers."""
    if not await show_status(reactor, options.addresses, sys.stdout, as_json=options.json):
        raise SystemExit(1)


async def show_status(reactor: Any, addresses: Sequence[ServerAddress], out: TextIO, *, as_json: bool = False) -> bool:
    """Ask all servers for STATUS, and write a table and a summary to `out`, or all of it as one line of JSON.

    Returns True if a majority answers.
    """
    found = await survey(reactor, addresses)
    if as_json:
        out.write(json.dumps(_plain(found)) + "\n")
    else:
        rows = [_cells(address, status) for address, status in zip(found.addresses, found.answers, strict=True)]
        out.write(f"{table(rows)}{found.summary}\n{archives(found.up)}")
    return len(found.voting) >= found.quorum


def archives(up: Mapping[int, Status]) -> str:
    """A line for the archive of each server that answers and has one; with the reason if it does not take files."""
    lines = ""
    for server_id, status in sorted(up.items()):
        if isinstance(archive := status.get("archive"), dict):
            lines += (
                f"archive of server {server_id}: {archive.get('bytes')} bytes, slots up to {archive.get('slot')}, in "
                f"{archive.get('directory')}\n"
            )
            if archive.get("error"):
                lines += (
                    f"archive of server {server_id} takes no files, {archive.get('waiting')} wait: "
                    f"{archive.get('error')}\n"
                )
    return lines


def _plain(found: Survey) -> dict[str, Any]:
    """A survey as a value for JSON. Its member `servers` has, for each server by its id as text, the object of STATUS,
    or an object whose member `error` is the reason why the server did not answer."""
    servers = {i: found.up.get(i) or {"error": found.down[i]} for i in (address.id for address in found.addresses)}
    return {
        "summary": found.summary,
        "leader": found.leader,
        "up": sorted(found.up),
        "down": sorted(found.down),
        "quorum": found.quorum,
        "tolerates_more": len(found.voting) - found.quorum,
        "voters": found.voters,
        "servers": {str(server_id): answer for server_id, answer in servers.items()},
    }


def _cells(address: ServerAddress, status: Status | str) -> list[str]:
    head = [str(address.id), address.shown]
    if isinstance(status, str):
        return [*head, status]
    if status.get("role", "voter") in ("joining", "removed"):
        return [*head, f"{status['role']}: no member of the cluster"]
    if status.get("role", "voter") != "voter":
        status = {**status, "state": status["role"]}
    shown = ["-" if status.get(column) is None else str(status[column]) for column in _COLUMNS]
    return [*head, *shown, _duration(status.get("uptime"))]


def table(rows: Sequence[Sequence[str]]) -> str:
    """The text of a table with aligned columns: a line with their names, and a line for each of `rows`.

    The last cell of a row with too few cells is the reason why a server did not answer, and does not make its column
    wider.
    """
    names = ["id", "address", *(name.replace("_", "-") for name in _COLUMNS), "uptime"]
    full = [row for row in rows if len(row) == len(names)]
    widths = [max(len(row[column]) for row in [names, *full]) for column in range(len(names))]
    for row in rows:
        widths[1] = max(widths[1], len(row[1]))
    return in_columns([names, *rows], widths)


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
