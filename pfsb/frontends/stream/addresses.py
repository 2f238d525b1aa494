"""Addresses: how many connections and sessions the clients of one address may have at this server.

An address is all that a server knows of who a client is. Without these limits the clients at one address could take
all connections of a server, and all sessions of the cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pfsb.applications.interfaces import Refused

LOCAL: Final = "local"
"""The address of all clients that connect by a Unix socket."""
_NETWORK_BITS: Final = 64
"""Number of leading bits of an IPv6 address that count as the client's address: one client usually has all addresses of
a network of that size."""
CLEAN_SECONDS: Final = 1.0
"""Minimum time, in seconds, between two searches for sessions that have ended."""
FORGET_SECONDS: Final = 60.0
"""Maximum time, in seconds, between two searches for sessions that have ended, while clients connect or open
sessions."""
OPENING_SECONDS: Final = 60.0
"""Time, in seconds, for which a session counts whose HELLO is not answered, as when its client has hung up before."""
_OPENED: Final = float("-inf")
_SIZE_LEAST: Final = 256


def address_of(transport: Any) -> str:
    """Where the client of this connection is: its IPv4 address, the /64 network of its IPv6 address, or `LOCAL`."""
    host = getattr(transport.getPeer(), "host", None)
    if not isinstance(host, str):
        return LOCAL
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or ip_network((address, _NETWORK_BITS), strict=False))


@define(eq=False)
class Addresses:
    """Connections and sessions at one server, by address."""

    _clock: IReactorTime
    connections_max: int
    """Maximum number of connections of one address, at all doors together."""
    sessions_max: int
    """Maximum number of open sessions with a name that clients of one address have opened at this server."""
    _is_open: Callable[[str], bool]
    """Function that returns whether the cluster has an open session with this client id."""
    refused: Counter[str] = field(init=False, factory=Counter)
    """Kind, "connection" or "session" -> how many of this kind were refused because their address had too many."""
    _connections: Counter[str] = field(init=False, factory=Counter)
    _sessions: dict[str, dict[str, float]] = field(init=False, factory=dict)
    """Address -> client id of each session that its clients have opened -> when its HELLO came, or `_OPENED` when that
    is answered. Some may have ended since then."""
    _size: int = field(init=False, default=0)
    """Number of client ids in `_sessions`."""
    _size_max: int = field(init=False, default=_SIZE_LEAST)
    """Number of client ids from which on those that have ended are searched: half more than the last search left."""
    _cleaned_at: float = field(init=False, default=float("-inf"))
    _forget_at: float = field(init=False)
    """Time by the clock of the next search for sessions that have ended, due even if no address has too many of
    them."""

    @_forget_at.default
    def _first_forget_at(self) -> float:
        return self._clock.seconds() + FORGET_SECONDS

    def connects(self, address: str) -> bool:
        """Counts a connection. Returns False, without counting it, if the address has as many as it may have."""
        if self._connections[address] >= self.connections_max:
            self.refused["connection"] += 1
            return False
        self._clean_now_and_then()
        self._connections[address] += 1
        return True

    def disconnects(self, address: str) -> None:
        """Called when a connection of this address has ended that `connects` has counted."""
        self._connections[address] -= 1
        if not self._connections[address]:
            del self._connections[address]

    def refusal(self, address: str, client_id: str) -> Refused | None:
        """Counts the session of this client id, which a client at `address` opens, and returns None; or returns the
        refusal, without counting it, if clients of this address have too many open sessions. After None, the caller
        calls `answered` when HELLO is answered."""
        if self._may_open(address, client_id):
            return None
        text = f"clients of your address have opened {self.sessions_max} sessions that are still open, and may not more"
        return Refused("BUSY", text)

    def answered(self, address: str, client_id: str) -> None:
        """Called when the HELLO for a session that was counted is answered: from now on it counts while it is open."""
        opened = self._sessions.get(address, {})
        if client_id in opened:
            opened[client_id] = _OPENED

    def _may_open(self, address: str, client_id: str) -> bool:
        self._clean_now_and_then()
        opened = self._sessions.get(address, {})
        if client_id not in opened:
            if len(opened) >= self.sessions_max:
                self._clean()
                opened = self._sessions.get(address, {})
            if len(opened) >= self.sessions_max:
                self.refused["session"] += 1
                return False
            self._size += 1
        self._sessions.setdefault(address, opened)[client_id] = self._clock.seconds()
        return True

    def _clean_now_and_then(self) -> None:
        """Forgets the sessions that have ended, and so the addresses without any: otherwise each address of which a
        client ever came would be kept for ever."""
        if self._size > self._size_max or self._clock.seconds() >= self._forget_at:
            self._clean()

    def _clean(self) -> None:
        """Forgets the sessions that have ended, unless it has done so within the last `CLEAN_SECONDS`: it looks at all
        sessions that clients of any address have opened here, which takes long."""
        now = self._clock.seconds()
        if now - self._cleaned_at < CLEAN_SECONDS:
            return
        self._cleaned_at = now
        self._forget_at = now + FORGET_SECONDS
        self._size = 0
        for address, opened in list(self._sessions.items()):
            still_open = {
                client_id: since
                for client_id, since in opened.items()
                if now - since < OPENING_SECONDS or self._is_open(client_id)
            }
            self._size += len(still_open)
            if still_open:
                self._sessions[address] = still_open
            else:
                del self._sessions[address]
        self._size_max = max(_SIZE_LEAST, self._size + self._size // 2)

    @property
    def remembered(self) -> int:
        """Number of addresses that are kept in memory, for their connections or sessions."""
        return len(self._sessions.keys() | self._connections.keys())
