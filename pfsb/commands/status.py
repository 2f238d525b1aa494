"""`pfsb status`: one line per server of a cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.replies import Reply
from pfsb.commands.one_question import ask
from pfsb.commands.options import ConfigOptions

STATUS_SECONDS: Final = 2.0
"""How long, in seconds, a server may take to answer STATUS; it answers without asking other servers."""

Status = dict[str, Any]

_COLUMNS: Final = ("state", "view", "leader", "aru", "last_ordered", "revision", "sessions", "connections", "pending")


class Options(ConfigOptions):
    """Command line of `pfsb status`."""

    synopsis = "Usage: pfsb status CONFIG"
    longdesc = "Shows one line per server. The exit status is 1 if no majority of them answers."


async def run(reactor: Any, options: Options) -> None:
    """Ask all servers at once, and print a table. Raises `SystemExit` with status 1 if no majority answers."""
    if not await show_status(reactor, options.addresses, options.config.quorum, sys.stdout):
        raise SystemExit(1)


async def show_status(reactor: Any, addresses: Sequence[ServerAddress], quorum: int, out: TextIO) -> bool:
    """Ask all servers for STATUS and write a table to `out`.

    Returns True if at least `quorum` servers answer.
    """
    found = await gatherResults([ask_status(reactor, address) for address in addresses])
    out.write(table([_cells(address, status) for address, status in zip(addresses, found, strict=True)]))
    return sum(isinstance(status, dict) for status in found) >= quorum


def ask_status(reactor: Any, address: ServerAddress) -> Deferred[Status | str]:
    """Get a server's STATUS (docs/operating.rst), or else a text with the reason why there is none.

    The Deferred never fails.
    """

    def heard(reply: Reply) -> Status | str:
        if reply.ok and reply.rows:
            status: Status = json.loads(reply.rows[0])
            return status
        return reply.line

    return ask(reactor, address, "STATUS", STATUS_SECONDS).addCallbacks(heard, _why)


def _why(reason: Failure) -> str:
    return "unreachable: " + reason.getErrorMessage().rstrip(".").splitlines()[0]


def _cells(address: ServerAddress, status: Status | str) -> list[str]:
    head = [str(address.id), address.shown]
    if isinstance(status, str):
        return [*head, status]
    shown = ["-" if status.get(column) is None else str(status[column]) for column in _COLUMNS]
    return [*head, *shown, _duration(status.get("uptime"))]


def table(rows: Sequence[Sequence[str]]) -> str:
    """The text of a table, with aligned columns under their names.

    A row that is shorter ends in the reason why a server did not answer; this cell does not make its column wider.
    """
    names = ["id", "address", *(name.replace("_", "-") for name in _COLUMNS), "uptime"]
    full = [row for row in rows if len(row) == len(names)]
    widths = [max(len(row[column]) for row in [names, *full]) for column in range(len(names))]
    for row in rows:
        widths[1] = max(widths[1], len(row[1]))
    lines = [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)]).rstrip()
        for row in [names, *rows]
    ]
    return "".join(f"{line}\n" for line in lines)


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
