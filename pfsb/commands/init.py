"""`pfsb init`: writes a configuration for a cluster on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click
from attrs import define

from pfsb.commands.options import HERE
from pfsb.config.config import ConfigError, load
from pfsb.config.sample import SERVERS, SERVERS_MAX, sample_configuration
from pfsb.support.command_line import Number, subcommand

CLUSTER: Final = "mine"
"""Name of the cluster, unless the command line names another."""


@define
class Options:
    """Command line of `pfsb init`."""

    directory: Path
    servers: int
    cluster: str

    @property
    def file(self) -> Path:
        """The configuration to be written."""
        return self.directory / HERE


@subcommand("init")
@click.argument("directory", type=click.Path(file_okay=False), default=".", metavar="[DIR]")
@click.option("--servers", type=Number(1, SERVERS_MAX), default=SERVERS, help="How many servers there are.")
@click.option("--cluster", default=CLUSTER, metavar="NAME", help="Name of the cluster.")
def command(directory: str, servers: int, cluster: str) -> Options:
    """Write a configuration, pfsb.yaml, for a cluster on this machine to DIR, which is made if need be.

    The commands of pfsb that need a configuration take pfsb.yaml of the current directory if none is named. A file that
    is there already is left as it is.
    """
    options = Options(Path(directory), servers, cluster)
    if options.file.exists():
        raise click.UsageError(f"{options.file} is there already; delete it first, or name another directory")
    return options


async def run(_reactor: Any, options: Options) -> None:
    """Write the file, and say what to type next. Raises `SystemExit` with status 1 if it cannot be written."""
    try:
        write_sample(options.file, options.servers, options.cluster)
    except (OSError, ConfigError) as error:
        sys.stderr.write(f"pfsb init: {error}\n")
        raise SystemExit(1) from None
    enter = "" if options.directory == Path() else f"cd {options.directory} && "
    sys.stdout.write(
        f"wrote {options.file}: {options.servers} server{'s' * (options.servers > 1)} on this machine\n"
        f"  {enter}pfsb cluster     starts all of them in this terminal\n"
        f"  {enter}pfsb client      is for another terminal: type SAY hello\n"
    )


def write_sample(file: Path, servers: int = SERVERS, cluster: str = CLUSTER) -> None:
    """Write a configuration to a new file.

    Raises `ConfigError` if the cluster's name cannot be one, and OSError if the file is there or cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "x", encoding="utf-8") as stream:
        stream.write(sample_configuration(servers, cluster, file.name))
    try:
        load(file)
    except ConfigError:
        os.unlink(file)
        raise
