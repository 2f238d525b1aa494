"""Whether machines other than those of the cluster may speak for its servers."""

from __future__ import annotations

from pfsb.config.addresses import EVERY_INTERFACE
from pfsb.config.config import Config, ServerConfig
from pfsb.support.hosts import literal


def exposure(config: Config) -> str | None:
    """A warning, if other machines can reach peer ports of the cluster and nothing proves who sends to them; None:
    there is nothing to warn of, or the configuration says that it shall be so.

    A host that is written as a name counts as one that other machines can reach, except `localhost`.
    """
    if config.insecure or config.secret_file is not None or set(config.transports) == {"tls"}:
        return None
    open_ports = [server for server in config.servers.values() if _is_reachable(server)]
    if not open_ports:
        return None
    which = "server" if len(open_ports) == 1 else "servers"
    ids = ", ".join(str(server.id) for server in open_ports)
    return (
        f"INSECURE: other machines can reach the peer port of {which} {ids}, and any of them may speak for a server of "
        "this cluster: set secret_file (pfsb secret FILE) or transport: tls (pfsb certificates CONFIG), or insecure: "
        "true if the whole network is trusted"
    )


def _is_reachable(server: ServerConfig) -> bool:
    host = server.receives_at[0]
    if host in EVERY_INTERFACE:
        return True
    address = literal(*server.receives_at)
    return host != "localhost" if address is None else not address.is_loopback
