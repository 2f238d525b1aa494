"""Options that are common to the subcommands of `pfsb` that speak to a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
from attrs import define

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.servers import addresses_of, server_addresses, with_token
from pfsb.commands.own_token import own_token
from pfsb.config.config import Config, ConfigError, load
from pfsb.support.command_line import Seconds

HERE: Final = "pfsb.yaml"
"""The configuration in the current directory that is used when the command line names none."""


@define
class ConfigOptions:
    """The options of a subcommand that needs a configuration."""

    config: Config

    @property
    def addresses(self) -> list[ServerAddress]:
        """The addresses at which the servers of the configuration accept clients, in the order of the servers' ids,
        with the token that this user shows to them. Raises `click.UsageError` if that cannot be read."""
        return with_token(server_addresses(self.config), own_token(self.token_file))

    @property
    def token_file(self) -> str | None:
        """The file with the token that the command line names; None: it names none, and the environment counts."""
        return None


def require_server(config: Config, server_id: int | None) -> None:
    """Raise `click.UsageError` if an id on the command line is that of no server. None: none was given."""
    if server_id is not None and server_id not in config.ids:
        raise click.UsageError(f"there is no server {server_id}; known are {', '.join(map(str, config.ids))}")


class ConfigFile(click.Path):
    """The type of a command line argument that names a configuration file. Its value is the configuration in the file,
    whose servers must have addresses that a client can reach."""

    name = "config"

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, Config) else read_config(value)


def read_config(file: str) -> Config:
    """Read the configuration in `file`. Raises `click.UsageError`, whose text names the mistake, if the file is
    wrong."""
    try:
        config = load(file)
        server_addresses(config)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    return config


def config_here() -> Config:
    """The configuration for a command line that names none: `HERE`.

    Raises `click.UsageError` if there is no such file.
    """
    if not Path(HERE).exists():
        raise click.UsageError(
            f"a configuration file is missing, for example etc/four.yaml; there is no {HERE} in this directory, which "
            "pfsb init would write"
        )
    return read_config(HERE)


def config_argument(missing: Callable[[], Config] = config_here) -> Callable[..., Any]:
    """Decorator: adds the argument CONFIG to a subcommand. If the command line does not give it, `missing` is called
    for its value."""

    def chosen(ctx: click.Context, _param: click.Parameter, value: Config | None) -> Config | None:
        return missing() if value is None and not ctx.resilient_parsing else value

    return click.argument("config", type=ConfigFile(), required=False, callback=chosen, metavar="[CONFIG]")


def token_file_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds to a subcommand the option that names the file with its token; the parameter is
    `named_token_file`, the value of `ConfigOptions.token_file`."""
    return click.option(
        "--token-file",
        "named_token_file",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Show the token in this file; otherwise that in the environment, PFSB_TOKEN_FILE or PFSB_TOKEN.",
    )(function)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds to a subcommand the options that say where a cluster is, and how long it may take to answer; the
    parameters are `config`, `servers` and `timeout`."""
    for option in (
        click.option(
            "--timeout", type=Seconds(), default=30.0, help="Give up after so many seconds without an answer."
        ),
        click.option(
            "--server",
            "servers",
            multiple=True,
            metavar="HOST:PORT",
            help="A server's client port; instead of a configuration, and repeatable.",
        ),
        click.option("--config", type=ConfigFile(), help="The cluster's configuration, for example etc/four.yaml."),
    ):
        function = option(function)
    return function


def cluster_addresses(config: Config | None, servers: Sequence[str]) -> Sequence[ServerAddress]:
    """The addresses at which the cluster of a command line accepts clients, with the token that this user shows: those
    of `config`, or `servers`, or those of `HERE`. Raises `click.UsageError`."""
    if config is not None and servers:
        raise click.UsageError("name either a configuration or --server, not both")
    if servers:
        try:
            return with_token(addresses_of(servers), own_token())
        except (ConfigError, ValueError) as error:
            raise click.UsageError(str(error)) from None
    if config is None and not Path(HERE).exists():
        raise click.UsageError("which cluster? Name a configuration (etc/four.yaml), or --server 127.0.0.1:9400")
    return with_token(server_addresses(config or config_here()), own_token())
