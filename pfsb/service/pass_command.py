"""`pfsb pass`: leaves out a slot that no server can execute (Departure 38).

The command is run once for each server of a stopped cluster, and changes nothing but that server's data directory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.python import usage
from twisted.python.failure import Failure

from pfsb.config.config import Config, ConfigError, load
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.passes import DIGEST_BYTES
from pfsb.storage.log.storage import LogStorage
from pfsb.support.limits import SLOT_MAX
from pfsb.support.one_argument import OneArgumentOptions

EXAMPLE = "pfsb pass 812 --digest 0123456789abcdef --config etc/four.yaml --id 0"


class Options(OneArgumentOptions):
    """Command line of `pfsb pass`."""

    needed = f"the number of one slot is needed (example: {EXAMPLE})"
    synopsis = "Usage: pfsb pass SEQ --digest HEX --config FILE --id N [options]"
    longdesc = (
        "Notes in the data directory of server N that slot SEQ is left out: its updates count as executed, and change "
        "nothing. Only for a slot at which every server stops, again at each start; its log says so, with the digest. "
        "Stop all servers first, and run this for each of them with the same SEQ and HEX: servers that leave out "
        "different slots refuse each other."
    )
    optParameters: ClassVar[list[list[str | None]]] = [
        ["digest", None, None, "the digest of the slot's batch, from the log of a server that stopped there"],
        ["config", "c", None, "the cluster's configuration"],
        ["id", "i", None, "which server of the configuration"],
        ["storage", None, None, "data directory of this server (instead of the configured one)"],
    ]
    optFlags: ClassVar[list[list[str | None]]] = [
        ["unseen", None, "note the slot although this server does not have it yet"],
    ]

    config: Config
    server_id: int
    seq: int
    digest: bytes

    def take(self, argument: str) -> None:
        self.seq = _whole(argument, "SEQ", 1, SLOT_MAX)

    def postOptions(self) -> None:
        for name in ("digest", "config", "id"):
            if self[name] is None:
                raise usage.UsageError(f"--{name} is missing (example: {EXAMPLE})")
        try:
            self.digest = bytes.fromhex(self["digest"])
        except ValueError:
            self.digest = b""
        if len(self.digest) != DIGEST_BYTES:
            raise usage.UsageError(f"--digest takes {2 * DIGEST_BYTES} hexadecimal digits, not {self['digest']}")
        try:
            self.config = load(self["config"])
            self.server_id = _whole(self["id"], "--id", 0, 65_535)
            self.config.server(self.server_id)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None
        if self.directory is None:
            raise usage.UsageError(f"server {self.server_id} keeps its data in memory: nothing of it is left to pass")

    @property
    def directory(self) -> Path | None:
        """The data directory of the server; None if it has none."""
        if self["storage"] is None:
            return self.config.storage_directory(self.server_id)
        return None if self["storage"] == "memory" else Path(self["storage"])


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
        config.ids,
    )
    try:
        storage.add_pass(options.seq, options.digest, unseen=bool(options["unseen"]))
    except StorageRefused as error:
        sys.stderr.write(f"pfsb: {error}\n")
        raise SystemExit(1) from None
    others = ", ".join(str(i) for i in config.ids if i != server_id)
    sys.stdout.write(f"server {server_id} leaves out slot {options.seq} from now on")
    sys.stdout.write(f"; run the same for servers {others} before any of them starts\n" if others else "\n")


def _whole(text: str, name: str, least: int, most: int) -> int:
    """The number that `text` is. Raises UsageError unless it is a whole number from `least` to `most`."""
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise usage.UsageError(f"{name} takes a whole number from {least} to {most}, not {text}")
    return int(text)
