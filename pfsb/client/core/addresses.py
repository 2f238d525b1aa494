"""Addresses of servers, in the forms that drivers and people need."""

from __future__ import annotations

from typing import Final

from attrs import evolve, field, frozen

from pfsb.config.yaml_file import ConfigError
from pfsb.support.endpoint_strings import endpoint_parts, escaped

CONNECT_SECONDS: Final = 1
"""How long, in seconds, a server may take to accept a connection before the client tries another server."""
PORT_MAX: Final = 65_535

TLS: Final = "tls://"
"""The beginning of the address of a server that speaks TLS, as a person writes it."""


@frozen
class ServerAddress:
    """The address at which one server accepts its clients."""

    id: int
    endpoint: str
    """The address as a client endpoint string of Twisted."""
    shown: str
    """The address as a person writes it, such as 127.0.0.1:9402."""
    tls: bool = False
    """Whether the server speaks TLS there; `endpoint` is what is below it."""
    authority: str | None = None
    """The file with the certificates that may have signed the server's; None: those that the machine believes."""
    token: str | None = field(default=None, repr=False)
    """The token that the client shows to the server; None: it shows none."""

    @property
    def place(self) -> tuple[str, int] | str:
        """The address as asyncio needs it: host and port, or the path of a unix socket."""
        (kind, *words), options = endpoint_parts(self.endpoint)
        if kind == "unix":
            return options.get("path") or words[0]
        return options.get("host") or words[0], int(options.get("port") or words[-1])


def address_from_text(server_id: int, text: str, authority: str | None = None) -> ServerAddress:
    """Read an address that a person wrote: `host:port`, `[host]:port`, `tls://host:port`, or a path that begins with a
    slash. `authority` is the file with the certificates that may have signed that of a server with TLS.

    Raises `ConfigError` for another text.
    """
    if text.startswith("/"):
        return unix_address(server_id, text)
    has_tls = text.startswith(TLS)
    host, colon, port = text.removeprefix(TLS).rpartition(":")
    if not colon or not host or not _is_port(port):
        raise ConfigError(f'"{text}" is no address of a server (example: 127.0.0.1:9400)')
    found = tcp_address(server_id, host.strip("[]"), port)
    return with_tls(found, authority) if has_tls else found


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= PORT_MAX


def with_tls(address: ServerAddress, authority: str | None) -> ServerAddress:
    """The address with TLS on it."""
    return evolve(address, shown=f"{TLS}{address.shown}", tls=True, authority=authority)


def tcp_address(server_id: int, host: str, port: str) -> ServerAddress:
    """The address of a server that listens at a TCP port."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    endpoint = f"tcp:host={escaped(host)}:port={port}:timeout={CONNECT_SECONDS}"
    return ServerAddress(server_id, endpoint, shown)


def unix_address(server_id: int, path: str) -> ServerAddress:
    """The address of a server that listens at a unix socket."""
    return ServerAddress(server_id, f"unix:{escaped(path)}:timeout={CONNECT_SECONDS}", path)
