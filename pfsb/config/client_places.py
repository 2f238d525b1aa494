"""Where clients reach a server, in the words of a person, as far as its configuration tells."""

from __future__ import annotations

from pfsb.config.addresses import EVERY_INTERFACE
from pfsb.config.config import ServerConfig
from pfsb.support.endpoint_strings import endpoint_parts
from pfsb.support.hosts import bracketed


def client_place(server: ServerConfig) -> str | None:
    """Where clients reach a server: host:port, tls://host:port, or the path of a unix socket; None: its endpoint is one
    that clients cannot reach. A server that listens at all addresses of its machine is reached at the host of its
    `peer`."""
    words, options = endpoint_parts(server.client)
    kind = words[0] if words else ""
    if kind == "unix":
        return options.get("address") or words[1]
    if kind not in ("tcp", "tcp4", "tcp6", "tls", "tls6"):
        return None
    host = options.get("interface", "")
    host = server.peer[0] if host in EVERY_INTERFACE else host
    place = f"{bracketed(host)}:{options.get('port') or words[1]}"
    return f"tls://{place}" if kind.startswith("tls") else place
