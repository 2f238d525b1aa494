"""One server's end of the simulated network, where messages become frames.

Observers, filters and message faults of the network act here, where messages are still single. The rest of the network
sees only frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

from attrs import define, field
from zope.interface import implementer

from pfsb.paxos.interfaces import IFrameReceiver, ITransport
from pfsb.paxos.members import Members
from pfsb.paxos.messages import Message
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.names import Route
from pfsb.simulator.cluster.network import Endpoint, MessageFault, Passage, SimulatedNetwork
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import NOT_KNOWN, FrameIdentity, cluster_digest
from pfsb.transports.links import Links
from pfsb.transports.names import AddressBook


@implementer(ITransport)
@define(eq=False)
class SimulatedTransport:
    """One server's end of the network: the real links and codec, with the simulated network for a socket."""

    network: SimulatedNetwork
    server_id: int
    _clock: ServerClock
    _rng: random.Random
    _secret: bytes | None = None
    _file: Sequence[int] = ()
    """Ids of the servers in the server's configuration file; empty: all that there are."""
    book: AddressBook | None = field(init=False)
    """The addresses that this server knows; None if servers have no addresses (`SimulatedNetwork.names`)."""
    links: Links = field(init=False)
    _frames_left: int | None = field(default=None, init=False)
    _on_last_frame: Callable[[], None] = field(default=lambda: None, init=False)
    _fault: MessageFault | None = field(default=None, init=False)
    """The fault of the message that is being sent at this moment; None for messages without a fault."""

    @book.default
    def _make_book(self) -> AddressBook | None:
        names = self.network.names
        if names is None:
            return None
        look_up = names.look_up_by(self._clock)
        return AddressBook(self._clock, self.server_id, names.hosts, look_up, self._moved, self._secret is not None)

    @links.default
    def _make_links(self) -> Links:
        founders = self.network.founders or self.network.servers
        named = frozenset(self._file or self.network.servers) - {self.server_id}
        peers = named & frozenset(founders) if self.server_id in founders else named
        membership = FrameIdentity(self.server_id, peers, cluster_digest("simulated", founders), named=named)
        faults = LinkFaults(self._clock, self._rng)
        if self.book is None:
            return Links(membership, self._clock, faults, self._carry, self._secret)
        return Links(membership, self._clock, faults, self._carry_by_address, self._secret, self.book.accepts)

    def start(
        self,
        receiver: IFrameReceiver,
        identity: bytes,
        start: int,
        position: Callable[[], int],
        passes: bytes = NOT_KNOWN,
    ) -> None:
        self.links.start(receiver, identity, start, position, passes)
        self.network.attach(self.server_id, Endpoint(self._clock, self.links, self._refused))
        for peer in sorted(self.links.membership.receivers):
            self._measure(peer)
        if self.book is not None:
            self.book.start()

    def after_frames(self, frames: int | None, act: Callable[[], None] = lambda: None) -> None:
        """Call `act` once, right after this server has sent `frames` more frames, perhaps in the middle of a turn.

        A call of this method cancels the call of `act` for which an earlier call of it has asked, if that has not
        happened yet. With None for `frames`, nothing is to be called any more.
        """
        self._frames_left, self._on_last_frame = frames, act

    def know_cluster(self, identity: bytes) -> None:
        """Pass the identity of the cluster to the links; see `ITransport`."""
        self.links.know_cluster(identity)

    def enter_epoch(self, members: Members, others: Collection[int]) -> None:
        """Pass the servers of an epoch of the membership to the links, and measure the paths to new ones; see
        `ITransport`."""
        before = self.links.membership.peers
        self.links.enter_epoch(members, others)
        if self.links.is_running:
            for peer in sorted(self.links.membership.peers - before):
                self._measure(peer)

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        if self._clock.closed:
            return  # the server was crashed in the middle of this turn, so that nothing more may leave
        for observer in self.network.observers:
            observer(self.server_id, to, messages)
        if self.network.filters or self.network.selective_links:
            self._send_to_each(messages, to)
        else:
            self._send_by_fault(messages, to)

    def stop(self) -> None:
        self.links.stop()
        if self.book is not None:
            self.book.stop()
        self.network.detach(self.server_id)

    def _measure(self, peer: int) -> None:
        """Have the size of the datagrams to a peer measured, anew if it was before, if the link to it has limits."""
        is_peer = peer in self.links.membership.peers
        if is_peer and self.network.link(self.server_id, peer).limits is not None:
            self.links.measure(peer)

    def _moved(self, server_id: int) -> None:
        """Called by the address book when a server has another address: sockets are made anew, and so what was measured
        counts no more. If this server itself has moved, that holds for all peers.
        """
        for peer in self.network.servers if server_id == self.server_id else [server_id]:
            self._measure(peer)

    def _refused(self, peer: int) -> None:
        """Tell the links that no process listens at a peer's address, unless the peer has another address as well, as
        `UDPTransport` does. A peer that this incarnation does not know was sent a frame by a former one."""
        if peer not in self.links.membership.receivers:
            return
        if self.book is None or self.book.copies_to(peer) is None:
            self.links.connection_refused(peer)

    def _send_to_each(self, messages: Sequence[Message], to: int | None) -> None:
        """Send to each receiver by itself, since filters and selective links treat receivers differently."""
        receivers = sorted(self.links.membership.peers) if to is None else [to]
        for receiver in receivers:
            passages = [Passage(self.server_id, receiver, message) for message in messages]
            left = [p.message for p in passages if not any(stops(p) for stops in self.network.filters)]
            if left:
                self._send_by_fault(left, receiver)

    def _send_by_fault(self, messages: Sequence[Message], to: int | None) -> None:
        """Send messages without a fault in as few frames as usual, then each message with a fault in its own frame."""
        faults = [(message, self.network.fault_of(message, self.server_id, to)) for message in messages]
        plain = [message for message, fault in faults if fault is None]
        if plain:
            self.links.send(plain, to)
        for message, self._fault in faults:
            if self._fault is not None:
                self.links.send([message], to)
        self._fault = None

    def _carry_by_address(self, peer: int, frame: bytes) -> None:
        """Send a frame to each address at which this server believes the peer to be.

        If another server has such an address by now, that server gets the frame.
        """
        names, book = self.network.names, self.book
        assert names is not None and book is not None
        for address in (book.where(peer), book.copies_to(peer)):
            receiver = None if address is None else names.server_at(address.host)
            if address is None or receiver is None or receiver == self.server_id:
                continue
            if receiver != peer:
                for observer in self.network.misdirection_observers:
                    observer(self.server_id, receiver, frame)
            self._carry(receiver, frame, names.route(self.server_id, peer, address))

    def _carry(self, peer: int, frame: bytes, route: Route | None = None) -> None:
        if self._clock.closed:
            return
        self.network.carry(self.server_id, peer, frame, self._fault, route)
        if self._frames_left is not None:
            self._frames_left -= 1
            if self._frames_left <= 0:
                self._frames_left = None
                self._on_last_frame()
