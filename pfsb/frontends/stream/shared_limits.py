"""SharedLimits: the limits that hold for all clients of a server together, at all of its doors, and their rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from pfsb.frontends.rights import ServerRights
from pfsb.frontends.stream.addresses import Addresses
from pfsb.frontends.stream.farewells import Farewells
from pfsb.frontends.stream.large_requests import LargeRequests
from pfsb.frontends.stream.reply_queue import EndOfIteration
from pfsb.frontends.stream.unread import UnreadOutput

if TYPE_CHECKING:
    from pfsb.server import Server


@frozen
class SharedLimits:
    """The limits that the doors of one server share, and the `EndOfIteration` and the `ServerRights` that all of them
    use."""

    iteration_end: EndOfIteration
    unread: UnreadOutput
    addresses: Addresses
    large_requests: LargeRequests
    rights: ServerRights
    farewells: Farewells

    @classmethod
    def of(cls, server: Server, clock: IReactorTime) -> SharedLimits:
        """Make the limits of one server from its configuration. `clock` is the clock of the reactor.

        Raises the exception of `Config.tokens` if the token file cannot be used.
        """
        limits = server.config.limits
        iteration_end = EndOfIteration(clock)
        return cls(
            iteration_end,
            UnreadOutput(clock, limits.unread_bytes, limits.unread_seconds),
            Addresses(clock, limits.connections_of_one_address, limits.address_sessions, server.has_session),
            LargeRequests(iteration_end, clock, limits.request_seconds),
            ServerRights(clock, server.config.tokens),
            Farewells(clock),
        )
