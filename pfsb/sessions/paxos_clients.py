"""Carriers: the clients that the protocol knows (Figure 12), each with one outstanding update.

Departure 8: bundles of several sessions that become ready together travel as one update, whose client is a carrier of
their server. There are as many as updates have been under way at once. What an update costs the protocol - a place in
each queue and table, a timer - those who travel together share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import define, field

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundler import BUNDLE_BYTES_MAX, Bundler


@define(eq=False)
class PaxosClient:
    client_id: str
    timestamp: int = 0
    aboard: Sequence[Bundler] = field(default=())
    """Whose bundles are in the outstanding update, in their order; none if the carrier is free."""


class PaxosClients:
    """Of one life of a server: the next one has others, so what is still under way cannot be taken for its own."""

    def __init__(self, server_id: int, incarnation: int, batch_bytes_max: int) -> None:
        self._server_id = server_id
        self._incarnation = incarnation
        self._bytes_max = min(BUNDLE_BYTES_MAX, batch_bytes_max)
        """Of the bundles in one update; a larger one travels alone. No more than a batch takes: bundles in one update
        cannot be split up among proposals."""
        self._carriers: dict[str, PaxosClient] = {}
        self._free: list[PaxosClient] = []

    def updates(self, bundlers: Iterable[Bundler], local_aru: int) -> Iterator[ClientUpdate]:
        """What they have to send and may send now, in as few updates as take it."""
        aboard: list[Bundler] = []
        bundles: list[bytes] = []
        size = 0
        for bundler in bundlers:
            encoded = bundler.next_bundle()
            if encoded is None:
                continue
            if bundles and size + len(encoded) > self._bytes_max:
                yield self._update(aboard, bundles, local_aru)
                aboard, bundles, size = [], [], 0
            aboard.append(bundler)
            bundles.append(encoded)
            size += len(encoded)
        if bundles:
            yield self._update(aboard, bundles, local_aru)

    def know(self, update: ClientUpdate) -> bool:
        """It was made in this life."""
        return update.client_id in self._carriers

    def aboard(self, update: ClientUpdate) -> Sequence[Bundler]:
        """Whose bundles an update brings; nobody's if it is not outstanding."""
        carrier = self._carriers.get(update.client_id)
        return carrier.aboard if carrier is not None and carrier.timestamp == update.timestamp else ()

    def unload(self, update: ClientUpdate) -> Sequence[Bundler]:
        """The same, and the update is no longer outstanding."""
        aboard = self.aboard(update)
        if aboard:
            carrier = self._carriers[update.client_id]
            carrier.aboard = ()
            self._free.append(carrier)
        return aboard

    def _update(self, aboard: Sequence[Bundler], bundles: Sequence[bytes], local_aru: int) -> ClientUpdate:
        carrier = self._free.pop() if self._free else self._new()
        carrier.timestamp += 1
        carrier.aboard = aboard
        return ClientUpdate(carrier.client_id, self._server_id, carrier.timestamp, local_aru, bundle.encode(bundles))

    def _new(self) -> PaxosClient:
        carrier = PaxosClient(f"{self._server_id}.{self._incarnation}.{len(self._carriers) + 1}")
        self._carriers[carrier.client_id] = carrier
        return carrier
