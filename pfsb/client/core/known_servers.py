"""The addresses that a client knows: those that the program has given, and those that servers tell (MEMBERS)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Final

from attrs import define, evolve, field

from pfsb.client.core.addresses import ServerAddress, address_from_text
from pfsb.config.yaml_file import ConfigError

_NAME: Final = "server"
"""Beginning of the names of the fields of the event MEMBERS that tell an address; the id of the server follows."""
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,253}")
"""The form of a host that a client takes: a name, or an IP address of either version."""
_ID_DIGITS_MAX: Final = 9
"""Maximum number of digits of the id of a server."""
TOLD_MAX: Final = 256
"""Maximum number of addresses that a client takes from one event MEMBERS. A cluster has fewer servers."""


@define(eq=False)
class KnownServers:
    """Combines the given addresses with those that servers tell.

    The servers tell who belongs to the cluster. The given addresses stay behind them: a given one may be a name that
    leads to several servers, or the only one that reaches a server from here.
    """

    _given: Sequence[ServerAddress]
    _epoch: int = field(init=False, default=-1)
    """The latest epoch of the membership of which a server has told."""
    _latest: Sequence[ServerAddress] = field(init=False, default=())
    """The addresses that were told for that epoch."""
    _is_near: bool = field(init=False, default=False)
    """Whether servers have told an address that was given: then those that mean something on one machine alone, such as
    127.0.0.1, mean the same here. At the end of a tunnel they would lead to programs of this machine."""

    def with_told(self, fields: Mapping[str, int | str]) -> list[ServerAddress]:
        """The addresses to use from now on, by the fields of an event MEMBERS: those told, and then the given ones that
        are none of them.

        A server that was removed, or is cut off, tells of an earlier epoch, whose servers may all be gone. Its
        addresses come behind those of the latest epoch that was told, and take the place of none."""
        told, epoch = self.told(fields), fields.get("epoch")
        if isinstance(epoch, int) and epoch < self._epoch:
            told = [*self._latest, *told]
        elif isinstance(epoch, int):
            self._epoch, self._latest = epoch, told
        return _distinct([*told, *self._given])

    def told(self, fields: Mapping[str, int | str]) -> list[ServerAddress]:
        """The addresses of servers in the fields of an event MEMBERS, of the kinds that the client was given. So one
        with addresses with TLS, or of its own machine alone, never shows its token without TLS on a network.

        Addresses that lead nowhere but to their own machine are left out until a given one was told."""
        told: list[ServerAddress] = []
        for name, text in fields.items():
            server_id = name.removeprefix(_NAME)
            is_id = server_id.isdecimal() and len(server_id) <= _ID_DIGITS_MAX
            if name != server_id and is_id and isinstance(text, str) and len(told) < TOLD_MAX:
                address = self._address(int(server_id), text)
                if address is not None:
                    told.append(address)
        given = {each.shown for each in self._given}
        self._is_near = self._is_near or any(each.shown in given for each in told)
        return [each for each in told if self._is_near or not _stays_on_machine(each)]

    def _address(self, server_id: int, text: str) -> ServerAddress | None:
        given = next((each for each in self._given if each.shown == text), None)
        if given is not None:
            return evolve(given, id=server_id)
        authority = next((each.authority for each in self._given if each.tls), None)
        try:
            found = address_from_text(server_id, text, authority)
        except ConfigError:
            return None
        is_host = isinstance(found.place, str) or _HOST.fullmatch(found.place[0])
        if not is_host or _kind(found) not in map(_kind, self._given):
            return None
        token = self._given[0].token
        if token is not None and not _stays_or_tls(found) and all(map(_stays_or_tls, self._given)):
            return None
        return evolve(found, token=token)


def _distinct(addresses: Sequence[ServerAddress]) -> list[ServerAddress]:
    """The addresses in their order, each place once, the first time, with an id that none before it has. A client that
    had a place twice would go from one to the other, and back at the next event."""
    by_place = {each.shown: each for each in reversed(addresses)}
    found, ids = [], set[int]()
    free = 1 + max((each.id for each in addresses), default=0)
    for place in dict.fromkeys(each.shown for each in addresses):
        each = by_place[place]
        if each.id in ids:
            each, free = evolve(each, id=free), free + 1
        ids.add(each.id)
        found.append(each)
    return found


def _stays_on_machine(address: ServerAddress) -> bool:
    """Whether an address leads from any machine to that machine itself."""
    if isinstance(address.place, str):
        return True
    host = address.place[0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stays_or_tls(address: ServerAddress) -> bool:
    """Whether what is sent to an address is never readable on a network."""
    return address.tls or _stays_on_machine(address)


def _kind(address: ServerAddress) -> str:
    """The kind of an address: tls, unix or tcp."""
    return "tls" if address.tls else "unix" if address.shown.startswith("/") else "tcp"
