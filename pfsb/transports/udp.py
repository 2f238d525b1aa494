"""UDP: each datagram carries one frame, or a part of one.

Towards a peer on another machine, no datagram travels in IP fragments, which many networks drop
(`pfsb.transports.path`).

A server receives on one port and sends from one *connected* socket for each peer: only on a connected socket does the
kernel report that the peer's host has answered that no process listens there (Departure 11). Each server sends from
the address where it listens; without a secret it takes a peer's frames from the addresses of that peer's configured
host only. Names are looked up while the server runs (`pfsb.transports.names`), and sockets follow what is found.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorTime,
    IReactorUDP,
    IReadDescriptor,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.support.hosts import SocketAddress
from pfsb.transports.fragmentation import can_forbid_fragments, datagram_limit, forbid_fragments
from pfsb.transports.frames import FRAME_BYTES_MAX
from pfsb.transports.links import Links
from pfsb.transports.names import AddressBook
from pfsb.transports.path_size import BASE_BYTES
from pfsb.transports.peer_transport import Network, PeerTransport
from pfsb.transports.pending_calls import PendingCalls

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
            " (is this server running already, and is this an address of this machine? `listen` beside `peer` can name"
            " another address to receive at)"
        )


@implementer(IReadDescriptor)
@define(eq=False)
class SendingSocket:
    """A connected socket to one peer, opened when it is needed, and opened again after it broke.

    A port made by `listenUDP` would not do: when the peer's host answers that no process listens there, the epoll
    reactor reports a lost connection. The port would close, each time with two lines in the log.
    """

    _reactor: IDatagramReactor
    _address: SocketAddress
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
        return f"frames to {self._address.shown}"


@define(eq=False)
class ReceivingProtocol(DatagramProtocol):
    """The protocol on the receiving port: passes each datagram on, and reports when the port is lost."""

    noisy = False

    _arrived: Callable[[bytes, object], object]
    _lost: Callable[[ReceivingProtocol], None]

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self._arrived(datagram, addr)

    def stopProtocol(self) -> None:
        self._lost(self)


def _is_never(_peer: int) -> bool:
    return False


@define(eq=False)
class UDPNetwork:
    """Network (`Network`) of datagrams: the receiving port of this server, and its sockets to all peers."""

    log = Logger()

    _reactor: IDatagramReactor
    _own_id: int
    links: Links
    book: AddressBook
    _is_carried_elsewhere: Callable[[int], bool] = _is_never
    """Whether frames for a peer travel over another network at present, which carries them whole."""
    _receiving: ReceivingProtocol | None = field(init=False, default=None)
    """The protocol on the receiving port; None: there is no such port now."""
    _bound: SocketAddress | None = field(init=False, default=None)
    """The address of the receiving port, also while the port is lost; None: there was none yet."""
    _senders: dict[int, SendingSocket] = field(init=False, factory=dict)
    """Peer -> the socket to its address; no entry while it has none."""
    _copies: dict[int, SendingSocket] = field(init=False, factory=dict)
    """Peer -> the socket to a second address, for the few peers that have one (`AddressBook.copies_to`)."""
    _reopening: PendingCalls = field(init=False)

    @_reopening.default
    def _make_reopening(self) -> PendingCalls:
        return PendingCalls(self._reactor)

    def open(self) -> None:
        """Open the receiving port, if this server's own address is known. Raises `PortTaken` if it cannot be used."""
        self._listen()
        self._connect_all()

    def close(self) -> Any:
        """Close all sockets. Returns a Deferred that fires when the port is closed, or None if there is no port."""
        self._reopening.cancel()
        for sender in (*self._senders.values(), *self._copies.values()):
            sender.close()
        return self._close_port()

    # -- addresses --------------------------------------------------------------------------------

    def moved(self, server_id: int) -> None:
        """Take notice that the address book has another address for a server: let the sockets follow."""
        if server_id == self._own_id:
            self._reopening.cancel()
            self._reopen()
        else:
            self._connect(server_id)

    def members_changed(self) -> None:
        """Let there be sockets to new peers; see `Network`. Those to servers that were removed stay."""
        for peer in sorted(self.links.membership.peers):
            if peer not in self._senders:
                self._connect(peer)

    def _connect_all(self) -> None:
        for peer in sorted(self.links.membership.receivers):
            self._connect(peer)

    def _connect(self, peer: int) -> None:
        """Make new sockets to a peer, in the place of its former ones; each is opened when it is needed.

        If an address of the peer is on another machine, the size of the datagrams to it is measured anew.
        """
        addresses = (self.book.where(peer), self.book.copies_to(peer))
        for sockets, address in zip((self._senders, self._copies), addresses, strict=True):
            former = sockets.pop(peer, None)
            if former is not None:
                former.close()
            if address is not None:
                sockets[peer] = self._sender(peer, address)
        self.measure(peer)

    def measure(self, peer: int) -> None:
        """Find out anew how large a datagram to this peer may be, if an address of the peer is on another machine and
        its frames travel in datagrams."""
        addresses = (self.book.where(peer), self.book.copies_to(peer))
        if any(address is not None and not address.is_loopback for address in addresses) and (
            not self._is_carried_elsewhere(peer)
        ):
            # A probe that was sent in fragments proves nothing, so without that option the size never grows.
            self.links.measure(peer, FRAME_BYTES_MAX if can_forbid_fragments() else BASE_BYTES)

    def _sender(self, peer: int, address: SocketAddress) -> SendingSocket:
        source = None if self._bound is None else self._bound.source_for(address)
        return SendingSocket(
            self._reactor,
            address,
            source,
            lambda: self._refused(peer),
            lambda: self.links.path_doubted(peer),
        )

    def _refused(self, peer: int) -> None:
        """Tell the links that no process listens at a peer's address, unless the peer has another address as well.

        Of two addresses, the one that is wrong refuses each frame while the peer lives at the other. If the peer is
        gone, the learned address is forgotten soon, and a refusal at the remaining one counts.
        """
        if self.book.copies_to(peer) is None:
            self.links.connection_refused(peer)

    # -- the receiving port -----------------------------------------------------------------------

    def _listen(self) -> None:
        """Open the receiving port at this server's own address, if that is known, and then close the receiving port
        that was open before. Raises `PortTaken`."""
        address = self.book.where(self._own_id)
        if address is None or (self._receiving is not None and address == self._bound):
            return
        protocol = ReceivingProtocol(self.links.frame_arrived, self._port_lost)
        where, port = address.interface, address.where[1]
        try:
            # Twisted silently cuts off datagrams that are longer than maxPacketSize.
            listening: Any = self._reactor.listenUDP(port, protocol, interface=where, maxPacketSize=DATAGRAM_BYTES_MAX)
        except CannotListenError as error:
            raise PortTaken(error.interface, error.port, error.socketError) from error
        listening.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        self._close_port()
        self._receiving, self._bound = protocol, address

    def _close_port(self) -> Any:
        """Close the receiving port. Returns a Deferred that fires when it is closed, or None if there is none."""
        protocol, self._receiving = self._receiving, None
        transport: Any = None if protocol is None else protocol.transport
        return None if transport is None else transport.stopListening()

    def _port_lost(self, protocol: ReceivingProtocol) -> None:
        """Open the receiving port again, which the reactor closes after an error that it does not know.

        Without that, the server would hear nothing and still send ALIVE: its peers would take it for alive.
        """
        if protocol is self._receiving:
            self._receiving = None
            self.log.error("the receiving port was lost; opening it again")
            # The reactor closes the lost port only after this call.
            self._reopening.call(0, self._reopen)

    def _reopen(self) -> None:
        former = self._bound
        try:
            self._listen()
        except PortTaken as error:
            self.log.error("{error}; trying again in {seconds} s", error=error, seconds=REOPEN_SECONDS)
            self._reopening.call(REOPEN_SECONDS, self._reopen)
            self.book.doubt(self._own_id)
        if self._bound != former:
            self._connect_all()  # the peers must see frames come from the new address

    # -- frames -----------------------------------------------------------------------------------

    def send_frame(self, peer: int, frame: bytes) -> None:
        """Send a frame to a peer, or lose the frame."""
        try:
            self._senders[peer].write(frame)
        except OSError as error:
            self._not_sent(peer, self._senders[peer], frame, error)
        except KeyError:
            self.links.counters.send_errors += 1  # the peer's name has no address, which the address book has logged
        if self._copies:
            self._send_copy(peer, frame)

    def _send_copy(self, peer: int, frame: bytes) -> None:
        copies = self._copies.get(peer)
        if copies is not None:
            try:
                copies.write(frame)
            except OSError as error:
                self._not_sent(peer, copies, frame, error)

    def _not_sent(self, peer: int, sender: SendingSocket, frame: bytes, error: OSError) -> None:
        if error.errno == errno.EMSGSIZE and self.links.path(peer).is_measured:
            limit = sender.datagram_limit()
            self.links.datagram_refused(peer, len(frame), len(frame) - 1 if limit is None else limit)
        else:
            self.links.send_failed(peer, error)


@define(eq=False)
class UDPTransport(PeerTransport):
    """`ITransport` over UDP alone."""

    def make_networks(self) -> list[Network]:
        return [UDPNetwork(self._reactor, self.membership.server_id, self.links, self.book)]
