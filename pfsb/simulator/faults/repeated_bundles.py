"""Faults of bundles: a server has commands ordered again that have run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.bundler import BUNDLE_BYTES_MAX
from pfsb.simulator.faults.injector import FaultInjector

SLOTS: Final = 20
"""Number of the latest slots whose bundles are ordered again."""


class RepeatedBundles(FaultInjector):
    """Bundles that are ordered a second time. The name of a method is the kind of the fault."""

    def order_again(self) -> None:
        """Let a running server introduce the bundles of clients that have run lately, in one new update.

        The latest bundles are taken, as many as an update has room for: there may be more of them, since those that
        were ordered again stand in the log several times, and no server would take a larger update. No correct server
        orders bundles again: its connections answer repeated numbers themselves. Only bundles of sessions with names
        are taken, since the first bundle of an anonymous session opens the session again when it has ended.
        """
        server_id = self._any_server()
        if server_id is None:
            return
        replica, disk = self._cluster.replica(server_id), self._cluster.disk(server_id)
        aru = disk.local_aru
        found = [
            encoded(content)
            for _, batch in disk.ordered(max(1, aru - SLOTS), aru)
            for update in batch.open()[1]
            for content in bundle.decode(update.payload) or ()
            if content.client_id[0] not in (bundle.SERVER, bundle.ANONYMOUS)
        ]
        if found:
            name = f"{server_id}.again.{self._cluster.now}"
            payload = bundle.encode(_latest(found))
            update = ClientUpdate(name, server_id, 1, replica.data.ordering.local_aru, payload)
            replica.perform(replica.introduce, update)


def _latest(bundles: Sequence[bytes]) -> Sequence[bytes]:
    """The last of these bundles, as many as `BUNDLE_BYTES_MAX` allows, and one at least."""
    sizes = accumulate(map(len, reversed(bundles)))
    return bundles[-max(1, sum(size <= BUNDLE_BYTES_MAX for size in sizes)) :]


def encoded(content: Bundle) -> bytes:
    """The bytes of a bundle, from its decoded form."""
    head = bundle.encode_head(content.client_id, content.epoch, content.opens)
    return bundle.encode_bundle(head, len(content.entries), [bundle.encode_entries(content.entries)])
