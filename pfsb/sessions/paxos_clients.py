"""Paxos clients: the clients that the protocol knows (Figure 12), each with at most one outstanding update.

Departure 8: bundles of several sessions that become ready together are sent in one update, whose client is a Paxos
client of their server. A server has as many Paxos clients as it has ever had updates outstanding at once. The sessions
in one update share what an update costs the protocol: a place in each queue and table, and a timer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import define, field

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundler import BUNDLE_BYTES_MAX, Bundler


@define(eq=False)
class PaxosClient:
    """One client of the protocol: its id, and the timestamp of its latest update."""

    client_id: str
    timestamp: int = 0
    payload: bytes = b""
    """The payload of the latest update of this Paxos client."""
    bundlers: Sequence[Bundler] = field(default=())
    """The bundlers whose bundles the outstanding update holds, in that order; empty if no update is outstanding."""


class PaxosClients:
    """The Paxos clients of one incarnation of a server.

    Each incarnation has client ids of its own, also on a new disk (`ServerData.incarnation_name`). So an update of a
    former incarnation that is ordered late is never taken for an update of this incarnation.
    """

    def __init__(self, server_id: int, incarnation_name: str, batch_bytes_max: int) -> None:
        self._server_id = server_id
        self._incarnation_name = incarnation_name
        self._bytes_max = min(BUNDLE_BYTES_MAX, batch_bytes_max)
        """Maximum total bytes of the bundles in one update; a larger bundle has an update to itself.

        The maximum is not above that of a batch, because an update cannot be divided among proposals.
        """
        self.by_name: dict[str, PaxosClient] = {}
        """The Paxos clients of this incarnation by their names, without those that have been given up."""
        self._free: list[PaxosClient] = []
        self._made = 0
        """Number of Paxos clients so far, those that have been given up included."""

    def make_updates(self, bundlers: Iterable[Bundler], local_aru: int) -> Iterator[ClientUpdate]:
        """Takes the next bundle of each bundler, and yields as few updates as can hold these bundles.

        `local_aru` is the Local_Aru of this server now, which becomes `made_at` of the updates.
        """
        together: list[Bundler] = []
        bundles: list[bytes] = []
        size = 0
        for bundler in bundlers:
            encoded = bundler.next_bundle()
            if encoded is None:
                continue
            if bundles and size + len(encoded) > self._bytes_max:
                yield self._make_update(together, bundles, local_aru)
                together, bundles, size = [], [], 0
            together.append(bundler)
            bundles.append(encoded)
            size += len(encoded)
        if bundles:
            yield self._make_update(together, bundles, local_aru)

    def is_foreign(self, update: ClientUpdate) -> bool:
        """Whether an update names a Paxos client of this incarnation, and is none that this server has made.

        Only a server that is in error can have made such an update (Departure 37).
        """
        paxos_client = self.by_name.get(update.client_id)
        if paxos_client is None or update.timestamp < paxos_client.timestamp:
            return False
        return update.timestamp > paxos_client.timestamp or update.payload != paxos_client.payload

    def displaced(self, last_executed: Callable[[str], int]) -> list[PaxosClient]:
        """The Paxos clients of which an update with a later timestamp was executed than any that this server has made
        (`is_foreign`). `last_executed` tells the timestamp of a client's latest executed update."""
        return [each for each in self.by_name.values() if last_executed(each.client_id) > each.timestamp]

    def end_spent(self, pending: Mapping[str, ClientUpdate]) -> Sequence[Bundler]:
        """Frees the Paxos clients whose outstanding update is not pending any more: no later slot executes it. Returns
        the bundlers of these updates."""
        spent = [each for each in self.by_name.values() if each.bundlers and each.client_id not in pending]
        bundlers = [bundler for each in spent for bundler in each.bundlers]
        for each in spent:
            each.bundlers = ()
        self._free += spent
        return bundlers

    def give_up(self, client_id: str) -> Sequence[Bundler]:
        """Uses this Paxos client no more: its timestamps are used up, so no update of it would be executed.

        Returns the bundlers of its outstanding update, which no server will execute.
        """
        paxos_client = self.by_name.pop(client_id)
        if not paxos_client.bundlers:
            self._free.remove(paxos_client)
        return paxos_client.bundlers

    def bundlers_of(self, update: ClientUpdate) -> Sequence[Bundler]:
        """The bundlers whose bundles an outstanding update holds; empty if the update is not outstanding."""
        paxos_client = self.by_name.get(update.client_id)
        return paxos_client.bundlers if paxos_client is not None and paxos_client.timestamp == update.timestamp else ()

    def end_update(self, update: ClientUpdate) -> Sequence[Bundler]:
        """Frees the Paxos client of an outstanding update for its next one. Returns the bundlers of the update."""
        bundlers = self.bundlers_of(update)
        if bundlers:
            paxos_client = self.by_name[update.client_id]
            paxos_client.bundlers = ()
            self._free.append(paxos_client)
        return bundlers

    def _make_update(self, bundlers: Sequence[Bundler], bundles: Sequence[bytes], local_aru: int) -> ClientUpdate:
        paxos_client = self._free.pop() if self._free else self._add_paxos_client()
        paxos_client.timestamp += 1
        paxos_client.bundlers = bundlers
        paxos_client.payload = payload = bundle.encode(bundles)
        return ClientUpdate(paxos_client.client_id, self._server_id, paxos_client.timestamp, local_aru, payload)

    def _add_paxos_client(self) -> PaxosClient:
        self._made += 1
        paxos_client = PaxosClient(f"{self._incarnation_name}.{self._made}")
        self.by_name[paxos_client.client_id] = paxos_client
        return paxos_client
