"""`pfsb pass`: leaves out a slot that no server can execute (Departure 38).

The command is run once for each server of a stopped cluster, and changes nothing but that server's data directory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from attrs import define
from twisted.python.failure import Failure

from pfsb.config.config import Config, ConfigError, load
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.passes import DIGEST_BYTES
from pfsb.storage.log.storage import LogStorage
from pfsb.support.command_line import one_argument, subcommand
from pfsb.support.limits import SLOT_MAX

EXAMPLE = "pfsb pass 812 --digest 0123456789abcdef --config etc/four.yaml --id 0"


@define
class Options:
    """Command line of `pfsb pass`."""

    seq: int
    digest: bytes
    config: Config
    server_id: int
    storage: str | None
    unseen: bool

    @property
    def directory(self) -> Path | None:
        """The data directory of the server; None if it has none."""
        if self.storage is None:
            return self.config.storage_directory(self.server_id)
        return None if self.storage == "memory" else Path(self.storage)


@subcommand("pass")
@one_argument("seq", f"the number of one slot is needed (example: {EXAMPLE})")
@click.option(
    "--digest", metavar="HEX", help="The digest of the slot's batch, from the log of a server that stopped there."
)
@click.option("--config", "-c", type=click.Path(), metavar="FILE", help="The cluster's configuration.")
@click.option("--id", "-i", "server_id", metavar="N", help="Which server of the configuration.")
@click.option("--storage", metavar="DIR", help="Data directory of this server (instead of the configured one).")
@click.option("--unseen", is_flag=True, help="Note the slot although this server does not have it yet.")
def command(
    seq: str, digest: str | None, config: str | None, server_id: str | None, storage: str | None, unseen: bool
) -> Options:
    """Note in the data directory of server N that slot SEQ is left out: its updates count as executed, and change
    nothing.

    Only for a slot at which every server stops, again at each start; its log says so, with the digest. Stop all servers
    first, and run this for each of them with the same SEQ and HEX: servers that leave out different slots refuse each
    other.
    """
    slot = _whole(seq, "SEQ", 1, SLOT_MAX)
    if digest is None or config is None or server_id is None:
        missing = next(name for name, value in (("digest", digest), ("config", config), ("id", server_id)) if not value)
        raise click.UsageError(f"--{missing} is missing (example: {EXAMPLE})")
    try:
        loaded = load(config)
        options = Options(slot, _digest(digest), loaded, _whole(server_id, "--id", 0, 65_535), storage, unseen)
        loaded.server(options.server_id)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if options.directory is None:
        raise click.UsageError(f"server {server_id} keeps its data in memory: nothing of it is left to pass")
    return options


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_BYTES:
        raise click.UsageError(f"--digest takes {2 * DIGEST_BYTES} hexadecimal digits, not {text}")
    return digest


async def run(reactor: Any, options: Options) -> None:
    """Note in the data directory that the slot is left out, and print that this was done. If the directory refuses it,
    print the reason on standard error and exit with status 1."""
    assert options.directory is not None, "the options were checked"
    config, server_id = options.config, options.server_id
    storage = LogStorage(
        options.directory,
        config.membership_digest(),
        config.cluster,
        server_id,
        reactor,
        os.urandom,
        Failure.raiseException,
        config.founding_ids,
    )
    try:
        storage.add_pass(options.seq, options.digest, unseen=options.unseen)
    except StorageRefused as error:
        sys.stderr.write(f"pfsb: {error}\n")
        raise SystemExit(1) from None
    others = ", ".join(str(i) for i in config.ids if i != server_id)
    sys.stdout.write(f"server {server_id} leaves out slot {options.seq} from now on")
    sys.stdout.write(f"; run the same for servers {others} before any of them starts\n" if others else "\n")


def _whole(text: str, name: str, least: int, most: int) -> int:
    """The number that `text` is, which errors call `name`. Raises `click.UsageError` unless it is a whole number from
    `least` to `most`."""
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise click.UsageError(f"{name} takes a whole number from {least} to {most}, not {text}")
    return int(text)
