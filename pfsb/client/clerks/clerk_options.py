"""The options that every clerk takes, and the core that is made from them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from pfsb.client.clerks.clerk_core import ClerkCore
from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.client_core import TTL_SECONDS, ClientCore, new_client_id
from pfsb.client.core.timeouts import RESPONSE_SECONDS, ResponseTimeout
from pfsb.client.servers import Servers, addresses_of

TIMEOUT_SECONDS: Final = 60.0
"""How long, in seconds, a call waits for an answer from any server, unless the program chooses another time."""


def _ignore(_what: object) -> None:
    """Do nothing: the default of a callback."""


def make_clerk_core(
    servers: Servers,
    *,
    client_id: str | None = None,
    ttl_seconds: int = TTL_SECONDS,
    patience_seconds: float = RESPONSE_SECONDS,
    on_session_end: Callable[[SessionEnd], None] = _ignore,
    dice: Random | None = None,
) -> ClerkCore:
    """Make the core of a clerk from the options that every clerk takes.

    `client_id` names the session, and is needed only for a session that outlives the program; two clerks must not have
    the same client id. `patience_seconds` is how long a server may leave a request without an answer before the clerk
    tries another server; each server without an answer makes this time longer. `on_session_end` is called once for each
    session of this clerk that is lost, with a `SessionEnd` that tells why. `dice` chooses the server that the clerk
    tries first, so that the clerks of a cluster do not all begin at the same server. Raises `ConfigError` for addresses
    that a client cannot reach.
    """
    dice = Random() if dice is None else dice
    addresses = addresses_of(servers)
    core = ClientCore(
        addresses,
        client_id=client_id or new_client_id(),
        ttl_seconds=ttl_seconds,
        response_timeout=ResponseTimeout(patience_seconds),
        dice=dice,
        index=dice.randrange(len(addresses)),
    )
    return ClerkCore(core, on_session_end)
