"""`pfsb snapshot`: has the servers of a cluster write their states to disk as a whole."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import click
from attrs import define
from twisted.internet.defer import gatherResults
from twisted.python.failure import Failure

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.replies import Reply
from pfsb.commands.one_question import ask
from pfsb.commands.options import ConfigOptions, config_argument, require_server
from pfsb.support.command_line import Number, subcommand
from pfsb.support.limits import SNAPSHOT_SECONDS_MAX

ANSWER_SECONDS = 5.0
"""How much longer, in seconds, than the server was told to wait its answer may take."""


@define
class Options(ConfigOptions):
    """Command line of `pfsb snapshot`."""

    server_id: int | None
    wait: int


@subcommand("snapshot")
@config_argument()
@click.option("--id", "server_id", type=Number(0, 65_535), help="Only this server.")
@click.option("--wait", type=Number(1, SNAPSHOT_SECONDS_MAX), default=600, help="Seconds within which it must be done.")
def command(**given: Any) -> Options:
    """Have each server write its state to disk as a whole, now: a start begins there, and older history can go.

    Servers do so by themselves, as snapshot_every says. The exit status is 1 if one of the servers that were asked has
    not done it.
    """
    options = Options(**given)
    require_server(options.config, options.server_id)
    return options


async def run(reactor: Any, options: Options) -> None:
    """Ask the servers, all at once, and print a line for each. Raises `SystemExit` with status 1 if one refuses."""
    if not await take_snapshots(reactor, options, sys.stdout):
        raise SystemExit(1)


async def take_snapshots(reactor: Any, options: Options, out: TextIO) -> bool:
    """Ask the servers for snapshots, and write a line about each to `out`. Returns whether all have done it."""
    addresses = [each for each in options.addresses if options.server_id in (None, each.id)]
    asked = [_ask(reactor, address, options.wait) for address in addresses]
    answers = await gatherResults(asked)
    for address, (_, text) in zip(addresses, answers, strict=True):
        out.write(f"server {address.id}: {text}\n")
    return all(is_done for is_done, _ in answers)


def _ask(reactor: Any, address: ServerAddress, wait: int) -> Any:
    def heard(reply: Reply) -> tuple[bool, str]:
        if not reply.ok:
            return False, f"{reply.text} ({reply.code})"
        fields = reply.fields
        return True, f"the state after slot {fields['seq']}, {fields['bytes']} bytes, digest {fields['digest']}"

    def failed(reason: Failure) -> tuple[bool, str]:
        return False, f"no answer: {reason.getErrorMessage().rstrip('.').splitlines()[0]}"

    return ask(reactor, address, f"SNAPSHOT wait={wait}", wait + ANSWER_SECONDS).addCallbacks(heard, failed)
