"""UDP: each datagram carries one frame, or a part of one.

Towards a peer on another machine, no datagram travels in IP fragments, which many networks drop
(`pfsb.transports.path`).

A server receives on one port and sends from one *connected* socket for each peer: only on a connected socket does the
kernel report that the peer's host has answered that no process listens there (Departure 11). Each server sends from
its own configured address; without a secret it takes a peer's frames from that peer's configured address only.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorFDSet,
    IReactorTime,
    IReactorUDP,
    IReadDescriptor,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.paxos.interfaces import IFrameReceiver, ITransport
from pfsb.transports.faults import LinkFaults
from pfsb.transports.fragmentation import can_forbid_fragments, datagram_limit, forbid_fragments
from pfsb.transports.frames import FRAME_BYTES_MAX, NOT_KNOWN, FrameIdentity
from pfsb.transports.hosts import ServerAddress
from pfsb.transports.links import Links, TransportCounters
from pfsb.transports.path_size import BASE_BYTES
from pfsb.transports.pending_calls import PendingCalls

if TYPE_CHECKING:
    from pfsb.paxos.messages import Message

DATAGRAM_BYTES_MAX: Final = 65_535
SOCKET_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Size, in bytes, of the send and receive buffers that sockets ask for; the kernel gives as much as its limits allow.

The buffers are large because one turn may send as many full frames to a peer as the window has slots.
"""
REOPEN_SECONDS: Final = 1.0
"""Time, in seconds, between two attempts to open the receiving port again after it was lost."""

_PASSING_ERRORS = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.EMSGSIZE, errno.ECONNREFUSED})
"""Errors that lose one frame and leave the socket usable: a full queue, a rule of a firewall, a frame that is too
large, no process at the peer's address.
"""


class IDatagramReactor(IReactorTime, IReactorUDP, IReactorFDSet):
    """The parts of the reactor that this transport uses."""


class PortTaken(CannotListenError):
    """Raised if this server cannot receive at its own address, most likely because another process does."""

    def __str__(self) -> str:
        return (
            f"cannot receive UDP on {self.interface}:{self.port}: {self.socketError.strerror}"
            " (is this server running already, and is this an address of this machine?)"
        )


@implementer(IReadDescriptor)
@define(eq=False)
class SendingSocket:
    """A connected socket to one peer, opened when it is needed, and opened again after it broke.

    A port made by `listenUDP` would not do: when the peer's host answers that no process listens there, the epoll
    reactor reports a lost connection. The port would close, each time with two lines in the log.
    """

    _reactor: IDatagramReactor
    _address: ServerAddress
    _source: tuple[Any, ...] | None
    """The address to send from, as `socket.bind` takes it; None: the kernel chooses one."""
    _refused: Callable[[], None]
    """Called, without arguments, each time that the peer's host has answered that no process listens there; the call
    may come inside `write`."""
    _doubted: Callable[[], None]
    """Called, without arguments, when a router has said that it dropped a datagram as too large; the call may come
    inside `write`."""
    _socket: socket.socket | None = field(init=False, default=None)

    def write(self, frame: bytes) -> None:
        """Send one frame. Raises OSError if it could not be sent; later frames may still be sent."""
        try:
            self._send(self._socket or self._open(), frame)
        except OSError as error:
            if error.errno not in _PASSING_ERRORS:
                self.close()
            raise

    def _send(self, connected: socket.socket, frame: bytes) -> None:
        try:
            connected.send(frame)
        except ConnectionRefusedError:
            # The kernel reports here that an earlier frame was refused, and has not sent this one. Send this one now:
            # the peer may be back.
            self._refused()
            connected.send(frame)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            # The error is about this frame, or about an earlier one that a router has dropped. In the first case it
            # comes again.
            connected.send(frame)
            self._doubted()

    def datagram_limit(self) -> int | None:
        """Size, in bytes, of the largest datagram that this machine sends to the peer; None: not known."""
        return None if self._socket is None else datagram_limit(self._socket)

    def _open(self) -> socket.socket:
        opened = socket.socket(self._address.family, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
            if self._source is not None:
                opened.bind(self._source)
            if not self._address.is_loopback:
                forbid_fragments(opened)
            opened.connect(self._address.where)
        except OSError:
            opened.close()
            raise
        self._socket = opened
        self._reactor.addReader(self)
        return opened

    def close(self) -> None:
        """Close the socket, if it is open. A later `write` opens it again."""
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    def doRead(self) -> None:
        """Called by the reactor when this socket has an error to report.

        No frames come here, since peers send theirs to the receiving port.
        """
        assert self._socket is not None
        try:
            self._socket.recv(1)
        except ConnectionRefusedError:
            self._refused()
        except OSError as error:
            # A frame was lost on its way. UDP may lose frames, and the protocol sends again what it needs.
            if error.errno == errno.EMSGSIZE:
                self._doubted()

    def connectionLost(self, reason: Failure) -> None:
        """Called when the reactor has removed this socket: after an error on it (epoll), or at the reactor's shutdown.

        After an error the socket is handed to the reactor again; at the shutdown it is closed.
        """
        if self._socket is None:
            return
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not number:
            self.close()
            return
        self._reactor.addReader(self)
        if number == errno.ECONNREFUSED:
            self._refused()
        elif number == errno.EMSGSIZE:
            self._doubted()

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return f"frames to {self._address.where[0]}:{self._address.where[1]}"


@define(eq=False)
class ReceivingProtocol(DatagramProtocol):
    """The protocol on the receiving port: passes each datagram on, and reports when the port is lost."""

    noisy = False

    _arrived: Callable[[bytes, object], None]
    _lost: Callable[[], None]

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self._arrived(datagram, addr)

    def stopProtocol(self) -> None:
        self._lost()


@implementer(ITransport)
@define(eq=False)
class UDPTransport:
    """`ITransport` over UDP. `addresses` maps the id of every server, this one included, to its (host, port)."""

    log = Logger()

    _reactor: IDatagramReactor
    membership: FrameIdentity
    _addresses: Mapping[int, tuple[str, int]]
    faults: LinkFaults
    _secret: bytes | None = field(default=None, repr=False)
    links: Links = field(init=False)
    _port: IListeningPort | None = field(init=False, default=None)
    _senders: dict[int, SendingSocket] = field(init=False, factory=dict)
    _reopening: PendingCalls = field(init=False)
    _found: dict[int, ServerAddress] = field(init=False, factory=dict)
    """The looked up addresses of all servers, by id."""

    @links.default
    def _make_links(self) -> Links:
        return Links(self.membership, self._reactor, self.faults, self._send_frame, self._secret, self._is_from)

    @_reopening.default
    def _make_reopening(self) -> PendingCalls:
        return PendingCalls(self._reactor)

    @property
    def counters(self) -> TransportCounters:
        return self.links.counters

    def start(
        self,
        receiver: IFrameReceiver,
        identity: bytes,
        incarnation: int,
        position: Callable[[], int],
        passes: bytes = NOT_KNOWN,
    ) -> None:
        """Look up the addresses of all servers, once and for all, and begin to receive.

        Raises `UnknownHost`, `PortTaken` (a `CannotListenError`), or ValueError if the secret cannot be used.
        """
        self._found = {i: ServerAddress.find(i, *where) for i, where in sorted(self._addresses.items())}
        self._senders = {peer: self._sender(peer) for peer in sorted(self.membership.peers)}
        self.links.start(receiver, identity, incarnation, position, passes)
        for peer in sorted(self.membership.peers):
            if not self._found[peer].is_loopback:
                # A probe that was sent in fragments proves nothing, so without that option the size never grows.
                self.links.measure(peer, FRAME_BYTES_MAX if can_forbid_fragments() else BASE_BYTES)
        try:
            self._listen()
        except CannotListenError:
            self.links.stop()
            raise

    def know_cluster(self, identity: bytes) -> None:
        """Pass the identity of the cluster to the links; see `ITransport`."""
        self.links.know_cluster(identity)

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        """Send messages as `ITransport.send` promises."""
        self.links.send(messages, to)

    def stop(self) -> Any:
        """Stop at once. Returns a Deferred that fires when the port is closed, or None if there is no port."""
        self.links.stop()
        self._reopening.cancel()
        for sender in self._senders.values():
            sender.close()
        port, self._port = self._port, None
        return port.stopListening() if port is not None else None

    @property
    def _own(self) -> ServerAddress:
        return self._found[self.membership.server_id]

    def _sender(self, peer: int) -> SendingSocket:
        address = self._found[peer]
        source = self._own.source_for(address)
        return SendingSocket(
            self._reactor,
            address,
            source,
            lambda: self.links.connection_refused(peer),
            lambda: self.links.path_doubted(peer),
        )

    def _is_from(self, peer: int, source: object) -> bool:
        """Whether the address that a datagram came from is one of that peer's configured host."""
        host = source[0] if isinstance(source, tuple) else ""
        return self._found[peer].is_source(host)

    def _listen(self) -> None:
        host, port = self._own.where[:2]
        protocol = ReceivingProtocol(self.links.frame_arrived, self._port_lost)
        try:
            # Twisted silently cuts off datagrams that are longer than maxPacketSize.
            listening: Any = self._reactor.listenUDP(port, protocol, interface=host, maxPacketSize=DATAGRAM_BYTES_MAX)
        except CannotListenError as error:
            raise PortTaken(error.interface, error.port, error.socketError) from error
        listening.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        self._port = listening

    def _port_lost(self) -> None:
        """Open the receiving port again, which the reactor closes after an error that it does not know.

        Without that, the server would hear nothing and still send ALIVE: its peers would take it for alive.
        """
        if self._port is not None:
            self._port = None
            self.log.error("the receiving port was lost; opening it again")
            # The reactor closes the lost port only after this call.
            self._reopening.call(0, self._reopen)

    def _reopen(self) -> None:
        try:
            self._listen()
        except PortTaken as error:
            self.log.error("{error}; trying again in {seconds} s", error=error, seconds=REOPEN_SECONDS)
            self._reopening.call(REOPEN_SECONDS, self._reopen)

    def _send_frame(self, peer: int, frame: bytes) -> None:
        try:
            self._senders[peer].write(frame)
        except OSError as error:
            if error.errno == errno.EMSGSIZE and not self._found[peer].is_loopback:
                limit = self._senders[peer].datagram_limit()
                self.links.datagram_refused(peer, len(frame), len(frame) - 1 if limit is None else limit)
            else:
                self.links.send_failed(peer, error)
