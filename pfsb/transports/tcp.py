"""TCP and TLS: frames travel in streams, each behind its length.

A server opens one connection to each peer, from the address where it listens, and sends on it
(`pfsb.transports.outgoing_stream`). The frames of its peers come on the connections that they have opened
(`pfsb.transports.incoming_streams`). Between two servers there are so two connections, each of which is used in one
direction; neither has to be agreed on.

While a cluster changes from one transport to another, a server listens for both. It sends to each peer over a stream if
one can be opened, else by datagrams (`StreamTransport`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from pfsb.support.hosts import SocketAddress
from pfsb.transports.frames import FrameRefused
from pfsb.transports.incoming_streams import Door
from pfsb.transports.links import FrameSender, Links
from pfsb.transports.names import AddressBook
from pfsb.transports.outgoing_stream import OutgoingLink, OutgoingStream
from pfsb.transports.peer_transport import Network, PeerTransport
from pfsb.transports.pending_calls import PendingCalls
from pfsb.transports.pieces_of_stream import Source
from pfsb.transports.stream_security import ServerSecurity, WrongCertificate
from pfsb.transports.udp import UDPNetwork

CONNECT_SECONDS: Final = 2.0
"""How long, in seconds, a peer's machine may take to accept a connection."""
TICK_SECONDS: Final = 0.25
"""Time, in seconds, between two looks at all connections."""
REOPEN_SECONDS: Final = 1.0
"""Time, in seconds, between two attempts to listen at an address that cannot be used."""
BACKLOG: Final = 128
"""Maximum number of connections that may wait at the port to be accepted."""


class StreamPortTaken(CannotListenError):
    """Raised if this server cannot take connections at its own address, most likely because another process does."""

    def __str__(self) -> str:
        return (
            f"cannot take connections on {self.interface}:{self.port}: {self.socketError.strerror}"
            " (is this server running already, and is this an address of this machine? `listen` beside `peer` can name"
            " another address to listen at)"
        )


@define(eq=False, slots=False)
class _Given(Factory):
    """A factory that gives a connection a protocol object that was made before, and does not start or stop the factory
    of that object."""

    noisy = False

    _given: Any

    def buildProtocol(self, addr: object) -> Any:
        return self._given


@define(eq=False)
class StreamNetwork:
    """`Network` of streams. `kinds` are the ways to speak, "tcp" and "tls", the preferred one first."""

    log = Logger()

    _reactor: Any
    _own_id: int
    links: Links
    book: AddressBook
    _kinds: Sequence[str]
    _security: ServerSecurity | None
    _refused: Callable[[int], object]
    """Called with the id of a peer at whose address no process listens."""
    _changed: Callable[[int], object]
    """Called with the id of a peer whose frames have begun to travel over a connection, or no longer do."""
    _otherwise: str = "none"
    """The transport by which frames travel to a peer to which there is no connection; none: they do not."""
    _rng: Random = field(factory=Random)
    door: Door = field(init=False)
    outgoing: dict[int, OutgoingLink] = field(init=False)
    """Peer -> the link that keeps the connection to it."""
    _port: Any = field(init=False, default=None)
    _bound: SocketAddress | None = field(init=False, default=None)
    """The address where this server listens; None: nowhere yet."""
    _reopening: PendingCalls = field(init=False)
    _ticking: IDelayedCall | None = field(init=False, default=None)

    @_reopening.default
    def _make_reopening(self) -> PendingCalls:
        return PendingCalls(self._reactor)

    @door.default
    def _make_door(self) -> Door:
        return Door(self._reactor, self.links, frozenset(self._kinds), self._security, self._heard)

    @outgoing.default
    def _make_outgoing(self) -> dict[int, OutgoingLink]:
        return {peer: self._link(peer) for peer in sorted(self.links.membership.peers)}

    def _link(self, peer: int) -> OutgoingLink:
        return OutgoingLink(
            peer,
            self._reactor,
            self.links,
            self._kinds,
            self._dial,
            self._addresses,
            lambda certificate: self._check_certificate(peer, certificate),
            self._refused,
            self._note_change,
            self._rng,
        )

    # -- Network ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Listen, if this server's own address is known, and begin to connect to all peers.

        Raises `StreamPortTaken` if the own address cannot be used.
        """
        self._listen()
        self.outgoing = self._make_outgoing()  # the peers may be others than when this object was made
        for peer, link in self.outgoing.items():
            self.links.counters.streams.via[peer] = self._otherwise
            link.open()
        self._ticking = self._reactor.callLater(TICK_SECONDS, self._tick)

    def moved(self, server_id: int) -> None:
        """Called when the address book has another address for a server, which may be this one: connect anew, or listen
        anew."""
        if server_id != self._own_id:
            if server_id in self.outgoing:
                self.outgoing[server_id].moved()
            return
        self._reopening.cancel()
        self._reopen()

    def send_frame(self, peer: int, frame: bytes) -> None:
        """Send a frame to a peer, or lose the frame."""
        link = self.outgoing.get(peer)
        if link is None:  # it was removed, and asks: it learns so by the answer
            link = self._begin_link(peer)
        link.send(frame)

    def members_changed(self) -> None:
        """Connect to new peers, and no longer to servers that were removed; see `Network`."""
        peers = self.links.membership.peers
        for peer in sorted({*self.outgoing} - peers):
            self.outgoing.pop(peer).close()
            self.links.counters.streams.via.pop(peer, None)
        for peer in sorted(peers - {*self.outgoing}):
            self._begin_link(peer)

    def _begin_link(self, peer: int) -> OutgoingLink:
        link = self.outgoing[peer] = self._link(peer)
        self.links.counters.streams.via[peer] = self._otherwise
        link.open()
        return link

    def close(self) -> Any:
        """Close all connections. Returns a Deferred that fires when the port is closed, or None if there is none."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        self._reopening.cancel()
        for link in self.outgoing.values():
            link.close()
        self.door.close()
        port, self._port = self._port, None
        return None if port is None else maybeDeferred(port.stopListening)

    def reaches(self, peer: int) -> bool:
        """Whether there is a connection that carries the frames for a peer."""
        link = self.outgoing.get(peer)
        return link is not None and link.stream is not None

    # -- connections ------------------------------------------------------------------------------

    def _heard(self, peer: int) -> None:
        link = self.outgoing.get(peer)
        if link is not None:
            link.heard()

    def _note_change(self, peer: int) -> None:
        link = self.outgoing.get(peer)
        if link is None:
            return
        stream = link.stream
        self.links.counters.streams.via[peer] = self._otherwise if stream is None else stream.kind
        self._changed(peer)

    def _addresses(self, peer: int) -> Sequence[SocketAddress]:
        found = (self.book.where(peer), self.book.copies_to(peer))
        return [address for address in found if address is not None]

    def _dial(self, kind: str, address: SocketAddress, stream: OutgoingStream) -> Deferred[Any]:
        source = None if self._bound is None else self._bound.source_for(address)
        bind = None if source is None else (source[0], 0)
        make = TCP6ClientEndpoint if ":" in address.interface else TCP4ClientEndpoint
        endpoint = make(self._reactor, address.interface, address.where[1], CONNECT_SECONDS, bind)
        outer: Any = stream
        if kind == "tls":
            assert self._security is not None
            outer = self._security.client(stream)
        return endpoint.connect(_Given(outer))

    def _check_certificate(self, peer: int, certificate: Any) -> None:
        assert self._security is not None
        found = self._security.server_id(certificate)
        if found != peer:
            raise WrongCertificate(f"shows the certificate of server {found}")

    def _tick(self) -> None:
        self._ticking = self._reactor.callLater(TICK_SECONDS, self._tick)
        self.door.tick(TICK_SECONDS)
        for link in [*self.outgoing.values()]:
            link.tick(TICK_SECONDS)

    # -- the port ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        address = self.book.where(self._own_id)
        if address is None or (self._port is not None and address == self._bound):
            return
        try:
            port = self._reactor.listenTCP(address.where[1], self.door, BACKLOG, address.interface)
        except CannotListenError as error:
            raise StreamPortTaken(error.interface, error.port, error.socketError) from error
        if self._port is not None:
            self._port.stopListening()
        self._port, self._bound = port, address

    def _reopen(self) -> None:
        former = self._bound
        try:
            self._listen()
        except StreamPortTaken as error:
            self.log.error("{error}; trying again in {seconds} s", error=error, seconds=REOPEN_SECONDS)
            self._reopening.call(REOPEN_SECONDS, self._reopen)
            self.book.doubt(self._own_id)
        if self._bound != former:
            for link in self.outgoing.values():
                link.renew()  # the peers must see frames come from the new address


@define(eq=False)
class StreamTransport(PeerTransport):
    """`ITransport` over TCP or TLS, or over two of UDP, TCP and TLS while a cluster changes from one to the other.

    `kinds` are "udp", "tcp" and "tls": first the one that is preferred.
    """

    kinds: Sequence[str] = ("tcp",)
    _security: ServerSecurity | None = None
    streams: StreamNetwork = field(init=False)
    _datagrams: UDPNetwork | None = field(init=False, default=None)

    def make_networks(self) -> list[Network]:
        """Make the streams and, if they are used as well, the datagrams."""
        self._datagrams = None
        own = self.membership.server_id
        kinds = [kind for kind in self.kinds if kind != "udp"]
        if "udp" in self.kinds:
            self._datagrams = UDPNetwork(self._reactor, own, self.links, self.book, self._is_in_stream)
        self.streams = StreamNetwork(
            self._reactor,
            own,
            self.links,
            self.book,
            kinds,
            self._security,
            self._no_process,
            self._changed,
            "none" if self._datagrams is None else "udp",
        )
        return [self.streams] if self._datagrams is None else [self._datagrams, self.streams]

    def believes_frames(self) -> bool:
        """Whether frames show where their sender is (`PeerTransport.believes_frames`): a secret proves who has sent a
        frame, and so does a certificate if each connection has one."""
        return bool(self._secrets) or tuple(self.kinds) == ("tls",)

    def comes_from(self) -> Callable[[int, object], bool]:
        """The function by which `Links` decides where a frame of a peer may come from (`PeerTransport.comes_from`): a
        frame behind a certificate must be one of the server that the certificate names."""
        accepts, needs_certificate = self.book.accepts, tuple(self.kinds) == ("tls",)

        def comes_from(peer: int, source: object) -> bool:
            certified = source.certified if isinstance(source, Source) else None
            if certified != peer and (certified is not None or needs_certificate):
                shown = "no certificate" if certified is None else f"the certificate of server {certified}"
                raise FrameRefused("certificate", f"in the name of server {peer}, with {shown}")
            return accepts(peer, source)

        return comes_from

    def frame_sender(self) -> FrameSender:
        """The function by which `Links` sends a frame to a peer: over its stream if there is one, else, if datagrams
        are used as well, in datagrams."""
        return self.streams.send_frame if self._datagrams is None else self._send_frame

    def _send_frame(self, peer: int, frame: bytes) -> None:
        assert self._datagrams is not None
        if self.streams.reaches(peer):
            self.streams.send_frame(peer, frame)
        else:
            self._datagrams.send_frame(peer, frame)

    def _is_in_stream(self, peer: int) -> bool:
        return self.streams.reaches(peer)

    def _no_process(self, peer: int) -> None:
        """Called when the address of a peer has refused a connection. Where frames travel by datagrams as well, the
        peer may take these only, and a refused datagram tells if it does not."""
        if self._datagrams is None and self.book.copies_to(peer) is None:
            self.links.connection_refused(peer)

    def _changed(self, peer: int) -> None:
        if self._datagrams is None or not self.links.is_running:
            return
        if self.streams.reaches(peer):
            self.links.carry_whole(peer)
        else:
            self._datagrams.measure(peer)
