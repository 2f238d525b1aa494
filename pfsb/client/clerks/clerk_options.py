"""The options that every clerk takes, and the core that is made from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any, Final, TypedDict, Unpack

from pfsb.client.clerks.clerk_core import ClerkCore
from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.client_core import TTL_SECONDS, ClientCore, new_client_id
from pfsb.client.core.timeouts import RESPONSE_SECONDS, ResponseTimeout
from pfsb.client.servers import Servers, addresses_of, with_token
from pfsb.support.limits import CLIENT_ID_CHARACTERS_MAX, TTL_SECONDS_MAX
from pfsb.support.spelling import nearest
from pfsb.support.tokens import is_token

TIMEOUT_SECONDS: Final = 60.0
"""How long, in seconds, a call waits for an answer from any server, unless the program chooses another time."""


def _ignore(_what: object) -> None:
    """Do nothing: the default of a callback."""


class ClerkOptions(TypedDict, total=False):
    """The options that every clerk takes by name, beside `timeout_seconds`. Each may be left out."""

    client_id: str | None
    """Name of the session, of 1 to 64 printable characters without spaces; the first one is neither ~ nor !. It is
    needed only for a session that outlives the program: two clerks must not have the same one. None: a random one."""
    ttl_seconds: int
    """How long, in seconds, the session lives after the servers have last heard from the clerk: 1 to 3600; 10 unless
    given."""
    patience_seconds: float
    """How long, in seconds, a server may leave a request without an answer before the clerk tries another server; 2
    unless given. Each server without an answer makes this time longer."""
    on_session_end: Callable[[SessionEnd], None]
    """Called once for each session of this clerk that is lost, with a `SessionEnd` that tells why."""
    authority: str | None
    """The file with the certificates that may have signed those of servers that speak TLS. None, or left out: the file
    that the configuration names, or the certificates that the machine believes."""
    token: str | None
    """The token that the clerk shows to servers, as `pfsb token` has written it; None, or left out: it shows none."""
    learn_servers: bool
    """Whether the clerk asks the servers for the addresses of all servers, and so goes on at servers that were added to
    the cluster later; True unless given. False: only the given addresses are used."""
    dice: Random | None
    """Chooses the server that the clerk tries first, so that the clerks of a cluster do not all begin at the same
    server; a `random.Random` of its own unless given."""


def make_clerk_core(servers: Servers, **options: Unpack[ClerkOptions]) -> ClerkCore:
    """Make the core of a clerk from the options that every clerk takes.

    Raises `ConfigError` for addresses that a client cannot reach, `TypeError` for an option that does not exist or has
    the wrong type, and `ValueError` for one that is out of its range.
    """
    check_options(options)
    dice = options.get("dice") or Random()
    addresses = addresses_of(servers, options.get("authority"))
    token = options.get("token")
    if token is not None:
        addresses = with_token(addresses, token)
    core = ClientCore(
        addresses,
        client_id=options.get("client_id") or new_client_id(),
        ttl_seconds=options.get("ttl_seconds", TTL_SECONDS),
        response_timeout=ResponseTimeout(options.get("patience_seconds", RESPONSE_SECONDS)),
        dice=dice,
        index=dice.randrange(len(addresses)),
        learns=options.get("learn_servers", True),
    )
    return ClerkCore(core, options.get("on_session_end", _ignore))


def check_timeout(timeout_seconds: Any) -> float | None:
    """Return the option `timeout_seconds` of a clerk. Raises `TypeError` or `ValueError` if it is neither None nor a
    number of seconds above 0."""
    if timeout_seconds is not None:
        _check_seconds("timeout_seconds", timeout_seconds, "; None waits for ever")
    found: float | None = timeout_seconds
    return found


def check_options(options: Any) -> None:
    """Raise `TypeError` or `ValueError`, with a text that says what would be right, for a wrong option of a clerk."""
    for name in options:
        if name not in _CHECKS:
            known = ["timeout_seconds", *_CHECKS]
            longer = next((each for each in known if each.startswith(name)), None)
            right = nearest(name, known) if longer is None else f'did you mean "{longer}"?'
            raise TypeError(f'a clerk has no option "{name}"; {right}')
    for name, value in options.items():
        _CHECKS[name](name, value)


def _check_client_id(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise _wrong_type(name, value, "a str, or None for a random one")
    if not 1 <= len(value) <= CLIENT_ID_CHARACTERS_MAX or not value.isprintable() or " " in value:
        raise ValueError(
            f"{name} is {value!r:.80}; it has 1 to {CLIENT_ID_CHARACTERS_MAX} printable characters and no space"
        )
    if value[0] in "~!":
        raise ValueError(f"{name} is {value!r:.80}; names that begin with ~ or ! are reserved for the servers")


def _check_ttl(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, value, "an int: whole seconds")
    if not 1 <= value <= TTL_SECONDS_MAX:
        raise ValueError(f"{name} is {value}; it is from 1 to {TTL_SECONDS_MAX} seconds")


def _check_seconds(name: str, value: Any, otherwise: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(name, value, f"a number of seconds{otherwise}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it is a number of seconds above 0{otherwise}")


def _check_callback(name: str, value: Any) -> None:
    if not callable(value):
        raise _wrong_type(name, value, "a function that takes a SessionEnd")


def _check_authority(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise _wrong_type(name, value, "a str: the path of a file, or None")


def _check_token(name: str, value: Any) -> None:
    """Raise an error if a value is no token. The error does not show the value, since it comes into logs."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} is of type {type(value).__name__}; it must be a str, or None for no token")
    if not is_token(value):
        raise ValueError(f"{name} is no token: a name, a dot and a secret, as pfsb token has written it")


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _wrong_type(name, value, "a bool")


def _check_dice(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Random):
        raise _wrong_type(name, value, "a random.Random")


def _wrong_type(name: str, value: object, right: str) -> TypeError:
    return TypeError(f"{name} is {value!r:.80}, of type {type(value).__name__}; it must be {right}")


_CHECKS: Final[dict[str, Callable[[str, Any], None]]] = {
    "client_id": _check_client_id,
    "ttl_seconds": _check_ttl,
    "patience_seconds": _check_seconds,
    "on_session_end": _check_callback,
    "authority": _check_authority,
    "token": _check_token,
    "learn_servers": _check_flag,
    "dice": _check_dice,
}
