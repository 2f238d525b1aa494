"""`pfsb check`: validates a configuration and prints a summary of it."""

from __future__ import annotations

import sys
from typing import Any

from twisted.python import usage

from pfsb.commands.options import ConfigOptions
from pfsb.config.config import Config, ConfigError


class Options(ConfigOptions):
    """Command line of `pfsb check`. A mistake in the file is reported like a mistake in the command line."""

    synopsis = "Usage: pfsb check CONFIG"
    longdesc = "Reads a configuration and says what it means, or what is wrong with it."

    def postOptions(self) -> None:
        try:
            self.config.secret()
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


async def run(reactor: Any, options: Options) -> None:
    """Print a summary of the configuration."""
    sys.stdout.write(summary(options.config))


def summary(config: Config) -> str:
    """The text that `pfsb check` prints: a line about the cluster, and one for each server."""
    secret = "authenticated" if config.secret() is not None else "not authenticated"
    lines = [
        f"{config.file}: cluster {config.cluster}: {config.n} servers, {config.quorum} are a majority, "
        f"{config.n - config.quorum} may fail; {config.transport}, {secret}; {', '.join(config.apps)}; "
        f"storage {config.storage}"
    ]
    for server in config.servers.values():
        host, port = server.peer
        http = f", http {server.http}" if server.http else ""
        lines.append(f"  server {server.id}: peer {host}:{port}, client {server.client}{http}")
    return "".join(f"{line}\n" for line in lines)
