"""`pfsb settings`: shows or changes the settings that all servers of a cluster share."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

from twisted.python import usage

from pfsb.client.clerks import calls
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.replies import Reply
from pfsb.client.servers import addresses_of
from pfsb.commands.exit_status import ExitStatus, status_of
from pfsb.commands.line_client import LineClient
from pfsb.commands.options import ConfigOptions, seconds
from pfsb.commands.survey import survey
from pfsb.config.config import ConfigError
from pfsb.sessions.cluster_settings import RANGES

SURVEY_SECONDS: Final = 1.0
"""How long, in seconds, servers may take to tell their state after a command had no answer."""
_MEANINGS: Final = {
    "apps": "applications that run, in this order",
    "members": "ids of the servers; not to be changed",
    "cluster": "identity drawn at the cluster's birth; not to be changed",
}


class Options(ConfigOptions):
    """Command line of `pfsb settings`: the servers by a configuration file or by `--server`, then changes."""

    synopsis = "Usage: pfsb settings [CONFIG | --config CONFIG | --server HOST:PORT ...] [NAME=VALUE ...]"
    longdesc = (
        "Shows the settings that all servers of a cluster share, or changes those that are named, all or none. "
        "The exit status is 1 if the cluster refuses, 3 if it does not answer, and 4 if no server can be reached."
    )
    optParameters = [  # noqa: RUF012 (read by Twisted, never changed)
        ["timeout", None, 30.0, "give up after so many seconds without an answer", seconds],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.changes: dict[str, str] = {}
        self._servers: list[str] = []

    def opt_config(self, file: str) -> None:
        """the cluster's configuration, for example etc/four.yaml"""
        self._read(file)

    def opt_server(self, address: str) -> None:
        """a server's client port, as host:port (repeatable; instead of a configuration)"""
        self._servers.append(address)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        given = list(sys.argv[1:] if options is None else options)
        if given and not given[0].startswith("-") and "=" not in given[0]:
            self._read(given.pop(0))
        usage.Options.parseOptions(self, given)

    def parseArgs(self, *arguments: str) -> None:
        rest = list(arguments)
        if rest and "=" not in rest[0] and not self._knows_servers:
            self._read(rest.pop(0))
        self.take(rest)

    def take(self, rest: list[str]) -> None:
        for word in rest:
            name, equals, value = word.partition("=")
            if not name or not equals:
                raise usage.UsageError(f"{word!r} must be NAME=VALUE (example: session_window=64)")
            if name in self.changes:
                raise usage.UsageError(f"{name} is there twice")
            self.changes[name] = value

    def postOptions(self) -> None:
        if not self._knows_servers:
            raise usage.UsageError("which cluster? Name a configuration (etc/four.yaml), or --server 127.0.0.1:9400")
        if self._servers:
            if hasattr(self, "config"):
                raise usage.UsageError("name either a configuration or --server, not both")
            try:
                self.addresses = addresses_of(self._servers)
            except (ConfigError, ValueError) as error:
                raise usage.UsageError(str(error)) from None

    @property
    def _knows_servers(self) -> bool:
        return bool(self._servers) or hasattr(self, "config")


async def run(reactor: Any, options: Options) -> None:
    """Show or change settings. Raises `SystemExit` with an `ExitStatus` if the cluster refuses, or does not answer in
    time."""
    status = await settle(reactor, options.addresses, options.changes, options["timeout"], sys.stdout, sys.stderr)
    if status is not ExitStatus.OK:
        raise SystemExit(int(status))


async def settle(
    reactor: Any,
    addresses: Sequence[ServerAddress],
    changes: dict[str, str],
    timeout_seconds: float,
    out: TextIO,
    err: TextIO,
) -> ExitStatus:
    """Make the changes, if there are any, and write a table of all settings to `out`.

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
                reply = await client.command(line).addTimeout(timeout_seconds, reactor)
            except Exception:
                found = await survey(reactor, addresses, SURVEY_SECONDS)
                err.write(f"pfsb settings: no answer within {timeout_seconds:g} s; {found.outage}\n")
                return ExitStatus.UNAVAILABLE if found.up else ExitStatus.UNREACHABLE
            if not reply.ok:
                err.write(f"pfsb settings: {reply.text} ({reply.code}, fate={reply.fate})\n")
                return status_of(reply)
    finally:
        await client.stop()
    assert reply is not None
    out.write(table(reply))
    return ExitStatus.OK


def table(reply: Reply) -> str:
    """The text of a table with the settings in a reply to SETTINGS, and the meaning of each of them."""
    values = calls.settings().read(reply)
    rows = [("setting", "value", "meaning"), *((name, _shown(value), _meaning(name)) for name, value in values.items())]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "".join(
        f"{name:{widths[0]}}  {value:{widths[1]}}  {meaning}".rstrip() + "\n" for name, value, meaning in rows
    )


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
