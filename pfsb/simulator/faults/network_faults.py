"""Faults between servers: bad links, kinds of messages that are late or lost, and partitions."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from pfsb.paxos.messages import (
    Accept,
    Alive,
    ClientUpdate,
    Confirm,
    Confirmed,
    GloballyOrderedUpdate,
    HandOver,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    VCProof,
    ViewChange,
)
from pfsb.simulator.cluster.network import MessageFault, SelectiveLink
from pfsb.simulator.faults.injector import FaultInjector
from pfsb.simulator.faults.parameters import draw_link_quality, draw_path_limits
from pfsb.simulator.faults.plan import between

EXCHANGES: Final = (
    (Alive,),
    (ViewChange, VCProof, HandOver),
    (Prepare, PrepareOK),
    (Proposal, Accept, Ordered),
    (ClientUpdate,),
    (ReadRequest, ReadIndex),
    (Confirm, Confirmed),
    (ReconciliationRequest, ReconciliationReply, GloballyOrderedUpdate),
)
"""Groups of kinds of messages that belong together, such as a request and its answer.

A kind is of little use to the servers if the other kinds of its group do not get through.
"""
SNAPSHOT_EXCHANGE: Final = (SnapshotOffer, SnapshotRequest, SnapshotPart)
"""One more group of kinds of messages that belong together, in runs with snapshots."""


class NetworkFaults(FaultInjector):
    """Faults of links, of kinds of messages, and partitions. The name of a method is the kind of the fault."""

    def weather(self) -> None:
        """Draw one new quality (delays, losses and so on), and give it to all links."""
        self._cluster.network.set_quality(draw_link_quality(self._rng))

    def weather_of_one(self) -> None:
        """Draw one new quality, and give this quality either to all links from one server, or to all links to that
        server."""
        one, is_sender = self._rng.choice(self._cluster.ids), self._rng.random() < 0.5
        others = [i for i in self._cluster.ids if i != one]
        links = [(one, i) if is_sender else (i, one) for i in others]
        self._cluster.network.set_quality(draw_link_quality(self._rng), links)

    def path_size(self) -> None:
        """Draw one new set of limits (`PathLimits`), and give it to all links: so they carry larger datagrams, or only
        smaller ones."""
        self._cluster.network.set_limits(draw_path_limits(self._rng))

    def path_size_of_one(self) -> None:
        """Draw one new set of limits (`PathLimits`), and give it to one direction of one link."""
        pair = tuple(self._rng.sample(self._cluster.ids, 2)) if len(self._cluster.ids) > 1 else None
        if pair is not None:
            self._cluster.network.set_limits(draw_path_limits(self._rng), [(pair[0], pair[1])])

    # ------------------------------------------------------------------ kinds of messages

    def late_kind(self) -> None:
        """Delay all messages of one kind, so that messages of other kinds overtake them, until the fault
        `no_more_moods` happens."""
        longest = between(self._rng, 0.02, 2)
        self._cluster.network.passing_faults[self._kind()] = MessageFault((longest / 4, longest))

    def lost_kind(self) -> None:
        """For a while, lose each message of one kind with a chance of 30 % or 70 %, or all messages of that kind."""
        kind = self._kind()
        self._cluster.network.passing_faults[kind] = MessageFault(loss=self._rng.choice((0.3, 0.7, 1.0)))
        self._later(between(self._rng, 0.1, 5), self._end_fault_of_kind, kind)

    def _end_fault_of_kind(self, kind: type[Message]) -> None:
        self._cluster.network.passing_faults.pop(kind, None)

    def no_more_moods(self) -> None:
        """End all faults that `late_kind` and `lost_kind` have begun."""
        self._cluster.network.passing_faults.clear()

    def _kind(self) -> type[Message]:
        kind: type[Message] = self._rng.choice(self._parameters.faulty_kinds)
        return kind

    # ------------------------------------------------------------------ partitions

    def heal(self) -> None:
        self._cluster.heal()

    def split(self) -> None:
        size = self._rng.randint(1, len(self._cluster.ids) - 1)
        self._repartition()
        self._cluster.isolate(*self._rng.sample(self._cluster.ids, size))

    def isolate(self) -> None:
        self._repartition()
        self._cluster.isolate(self._rng.choice(self._cluster.ids))

    def isolate_leader(self) -> None:
        """Isolate the leader, which goes on leading for a while if its clock is slow."""
        leader = self._cluster.leader()
        self._repartition()
        if leader is not None:
            self._cluster.isolate(leader)

    def star(self) -> None:
        """Cut all links but those of one server, the hub, which is not the leader."""
        leader = self._cluster.leader()
        hub = self._rng.choice([i for i in self._cluster.ids if i != leader])
        self._repartition()
        self._keep_links(lambda a, b: hub in (a, b))

    def chain(self) -> None:
        """Cut all links but those between neighbours in a random order of the servers."""
        order = self._rng.sample(self._cluster.ids, len(self._cluster.ids))
        self._repartition()
        self._keep_links(lambda a, b: abs(order.index(a) - order.index(b)) == 1)

    def one_way(self) -> None:
        """Cut one direction of some links."""
        self._repartition()
        for a in self._cluster.ids:
            for b in self._cluster.ids:
                if a < b and self._rng.random() < 0.6:
                    self._cluster.cut(*((a, b) if self._rng.random() < 0.5 else (b, a)), one_way=True)

    def mute_leader(self) -> None:
        """Cut all links from the leader, and none to it."""
        leader = self._cluster.leader()
        self._repartition()
        for other in self._cluster.ids:
            if leader is not None and other != leader:
                self._cluster.cut(leader, other, one_way=True)

    def deaf(self) -> None:
        """Cut all links to one server, and none from it."""
        self._repartition()
        self._deafen(self._rng.choice(self._cluster.ids))

    def deaf_leader(self) -> None:
        """Cut all links to the leader, and none from it."""
        leader = self._cluster.leader()
        self._repartition()
        if leader is not None:
            self._deafen(leader)

    def _deafen(self, server_id: int) -> None:
        for other in self._cluster.ids:
            if other != server_id:
                self._cluster.cut(other, server_id, one_way=True)

    def one_by_one(self) -> None:
        """Cut all links, each direction by itself, one after the other; then mend them in the same way in another
        order."""
        pairs = [(a, b) for a in self._cluster.ids for b in self._cluster.ids if a != b]
        step = self._rng.choice((0.05, 0.2))
        for place, (a, b) in enumerate(self._rng.sample(pairs, len(pairs))):
            self._later(place * step, self._cluster.network.cut, a, b)
        for place, (a, b) in enumerate(self._rng.sample(pairs, len(pairs)), len(pairs)):
            self._later(place * step, self._cluster.network.mend, a, b)

    def keyhole(self) -> None:
        """Let only some kinds of messages pass on the links from one server, to it, or both.

        They are those of some of the groups that `EXCHANGES` lists; the messages of a group belong to one exchange,
        such as an election.
        """
        self._repartition()
        self._narrow(self._rng.choice(self._cluster.ids))

    def keyhole_of_leader(self) -> None:
        """Let only some kinds of messages pass on the links from the leader, to it, or both: see `keyhole`.

        The leader may then be deposed without noticing it.
        """
        leader = self._cluster.leader()
        self._repartition()
        if leader is not None:
            self._narrow(leader)

    def _narrow(self, server_id: int) -> None:
        """Make the links from a server, to it, or both selective.

        Messages of one to three groups of `EXCHANGES` pass as usual; all other messages are lost, or very late.
        """
        has_snapshots = "snapshots" in self._parameters.families
        groups = (*EXCHANGES, SNAPSHOT_EXCHANGE) if has_snapshots else EXCHANGES
        exchanges = self._rng.sample(groups, self._rng.choice((1, 2, 3)))
        longest = between(self._rng, 0.3, 3)
        others = self._rng.choice((MessageFault(loss=1.0), MessageFault((longest / 4, longest))))
        link = SelectiveLink(frozenset(kind for exchange in exchanges for kind in exchange), others)
        goes_in, goes_out = self._rng.choice(((True, True), (True, True), (True, False), (False, True)))
        for other in self._cluster.ids:
            if other != server_id and goes_in:
                self._cluster.network.selective_links[other, server_id] = link
            if other != server_id and goes_out:
                self._cluster.network.selective_links[server_id, other] = link

    def _repartition(self) -> None:
        self._cluster.heal()

    def _keep_links(self, keeps: Callable[[int, int], bool]) -> None:
        for a in self._cluster.ids:
            for b in self._cluster.ids:
                if a < b and not keeps(a, b):
                    self._cluster.cut(a, b)

    def cut_links(self, rng: random.Random) -> None:
        """Cut links in one of the profile's shapes (`partitions`). The run calls this once, when the faults are over.

        No fault mends these links, but the run may heal some of them.
        """
        self._rng = rng
        cut: Callable[[], None] = getattr(self, rng.choice(self._parameters.partitions))
        cut()
