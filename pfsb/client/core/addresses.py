"""Where the clients of a cluster find its servers, from the configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from os import PathLike
from typing import Final

from attrs import frozen

from pfsb.config.addresses import EVERY_INTERFACE
from pfsb.config.config import Config, ConfigError, ServerConfig, load

CONNECT_SECONDS: Final = 1
"""A server that does not take a connection in this time is taken for dead."""


@frozen
class ServerAddress:
    id: int
    endpoint: str
    """Client endpoint string of Twisted."""
    shown: str
    """As a person writes it: 127.0.0.1:9402."""

    @property
    def place(self) -> tuple[str, int] | str:
        """Host and port, or the path of a unix socket."""
        (kind, *words), options = _endpoint(self.endpoint)
        if kind == "unix":
            return options.get("path") or words[0]
        return options.get("host") or words[0], int(options.get("port") or words[-1])


def addresses_of(servers: object) -> list[ServerAddress]:
    """From a configuration, the path of its file, or a list of addresses, as in "127.0.0.1:9400" or "/run/pfsb.sock".

    Raises `ConfigError` for what cannot be reached.
    """
    if isinstance(servers, str | PathLike):
        return server_addresses(load(os.fspath(servers)))
    if isinstance(servers, Config):
        return server_addresses(servers)
    if not isinstance(servers, Sequence) or not servers:
        raise ConfigError("a clerk needs the path of a configuration, or a list of addresses such as 127.0.0.1:9400")
    return [each if isinstance(each, ServerAddress) else _written(i, each) for i, each in enumerate(servers)]


def _written(server_id: int, text: str) -> ServerAddress:
    if text.startswith("/"):
        return ServerAddress(server_id, f"unix:{_escaped(text)}:timeout={CONNECT_SECONDS}", text)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ConfigError(f'"{text}" is no address of a server (example: 127.0.0.1:9400)')
    return _tcp(server_id, host.strip("[]"), [port], {})


def server_addresses(config: Config) -> list[ServerAddress]:
    """One per server, by id. Raises `ConfigError` for a kind of endpoint that a client cannot reach by itself."""
    return [_address(config, server) for server in config.servers.values()]


def _address(config: Config, server: ServerConfig) -> ServerAddress:
    words, options = _endpoint(server.client)
    kind = words[0] if words else ""
    if kind in ("tcp", "tcp4", "tcp6"):
        host = options.get("interface", "")
        return _tcp(server.id, server.peer[0] if host in EVERY_INTERFACE else host, words[1:], options)
    if kind == "unix":
        path = options.get("address") or words[1]
        return ServerAddress(server.id, f"unix:{_escaped(path)}:timeout={CONNECT_SECONDS}", path)
    where = f"{config.file}: servers.{server.id}.client"
    raise ConfigError(f'{where}: "{server.client}" cannot be reached by this client, only tcp: and unix: can')


def _tcp(server_id: int, host: str, words: list[str], options: dict[str, str]) -> ServerAddress:
    port = options.get("port") or words[0]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    endpoint = f"tcp:host={_escaped(host)}:port={port}:timeout={CONNECT_SECONDS}"
    return ServerAddress(server_id, endpoint, shown)


def _endpoint(text: str) -> tuple[list[str], dict[str, str]]:
    """An endpoint string's positional parts and its name=value parts; a backslash takes the meaning from a colon."""
    words: list[str] = []
    options: dict[str, str] = {}
    for part in re.split(r"(?<!\\):", text):
        name, equals, value = part.partition("=")
        if equals:
            options[name] = _unescaped(value)
        else:
            words.append(_unescaped(part))
    return words, options


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _escaped(text: str) -> str:
    return re.sub(r"([:=\\])", r"\\\1", text)
