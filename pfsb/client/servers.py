"""The addresses of a cluster's servers, as its clients need them, from the configuration or from a list.

This module is not in `pfsb.client.core`, because it imports the check of configurations, which imports Twisted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike

from attrs import evolve

from pfsb.client.core.addresses import ServerAddress, address_from_text, unix_address
from pfsb.config.client_places import client_place
from pfsb.config.config import Config, ConfigError, ServerConfig, load

Servers = str | PathLike[str] | Config | Sequence[str | ServerAddress]
"""The servers of a cluster, as programs name them: a configuration, the path of its file, or a list of addresses such
as "127.0.0.1:9400"."""


def addresses_of(servers: object, authority: str | None = None) -> list[ServerAddress]:
    """The servers' addresses in `servers`: a configuration, the path of a configuration file, or a list of addresses
    such as ["127.0.0.1:9400"].

    An address in a list is `host:port`, `tls://host:port`, the path of a unix socket, or a `ServerAddress`.
    `authority` is the file with the certificates that may have signed those of servers with TLS; None: the file that a
    configuration names, or the certificates that the machine believes. Raises `ConfigError` for an address that a
    client cannot reach.
    """
    if isinstance(servers, str | PathLike):
        return _signed_by(authority, server_addresses(load(os.fspath(servers))))
    if isinstance(servers, Config):
        return _signed_by(authority, server_addresses(servers))
    if not isinstance(servers, Sequence) or not servers:
        raise ConfigError("a clerk needs the path of a configuration, or a list of addresses such as 127.0.0.1:9400")
    return [
        each if isinstance(each, ServerAddress) else address_from_text(i, each, authority)
        for i, each in enumerate(servers)
    ]


def with_token(addresses: Sequence[ServerAddress], token: str | None) -> list[ServerAddress]:
    """The addresses with the token that a client shows at each of them; None: it shows none."""
    return [*addresses] if token is None else [evolve(each, token=token) for each in addresses]


def _signed_by(authority: str | None, found: list[ServerAddress]) -> list[ServerAddress]:
    if authority is None:
        return found
    return [evolve(each, authority=authority) if each.tls else each for each in found]


def server_addresses(config: Config) -> list[ServerAddress]:
    """The client address of each server in a configuration, in the order of their ids.

    Raises `ConfigError` for a kind of endpoint that a client cannot reach.
    """
    return [_address(config, server) for server in config.servers.values()]


def _address(config: Config, server: ServerConfig) -> ServerAddress:
    place = client_place(server)
    if place is None:
        where = f"{config.file}: servers.{server.id}.client"
        raise ConfigError(f'{where}: "{server.client}" cannot be reached by this client, only tcp:, tls: and unix: can')
    if server.client.startswith("unix:"):
        return unix_address(server.id, place)
    return address_from_text(server.id, place, str(config.certificate_directory / "authority.pem"))
