"""The transport of a real server: links, an address book, and the networks that carry frames.

The networks are datagrams (`pfsb.transports.udp`) and streams (`pfsb.transports.tcp`, which carries TLS as well). A
server uses one of them or, while its cluster changes from one to another, two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from zope.interface import implementer

from pfsb.paxos.interfaces import IFrameReceiver, ITransport
from pfsb.support.hosts import LookUp, look_up_in_threads, parsed, shown
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import NOT_KNOWN, FrameIdentity, as_secrets
from pfsb.transports.links import FrameSender, Links, TransportCounters
from pfsb.transports.names import AddressBook
from pfsb.transports.secret_watch import SecretWatch

if TYPE_CHECKING:
    from pfsb.paxos.members import Members
    from pfsb.paxos.messages import Message


class Network(Protocol):
    """A way to carry frames between this server and its peers."""

    def open(self) -> None:
        """Begin to receive and to send, as far as the addresses of the servers are known.

        Raises `CannotListenError` if this server's own address is known and cannot be used.
        """

    def moved(self, server_id: int) -> None:
        """Take notice that the address book has another address for a server, which may be this one."""

    def members_changed(self) -> None:
        """Take notice that the links have other peers. Called between `open` and `close`."""

    def send_frame(self, peer: int, frame: bytes) -> None:
        """Send a frame to a peer, or lose it. Never raises and never blocks."""

    def close(self) -> Any:
        """Stop at once. Returns None, or a Deferred that fires when all sockets are closed."""


@implementer(ITransport)
@define(eq=False)
class PeerTransport:
    """`ITransport` over real networks; subclasses say which. `addresses` maps the id of every server, this one
    included, to its (host, port).

    `listen_at` is the (IP address, port) to receive at, where that is another than this server's entry in `addresses`.
    """

    _reactor: Any
    membership: FrameIdentity
    _addresses: Mapping[int, tuple[str, int]]
    faults: LinkFaults
    _secrets: Sequence[bytes] = field(default=(), converter=as_secrets, repr=False)
    """Secrets of the cluster: frames are sent with the first one, and taken with any. Empty: frames are not keyed."""
    _listen_at: tuple[str, int] | None = None
    _look_up: LookUp | None = None
    """How names are looked up; None: by the system's resolver, in threads."""
    book: AddressBook = field(init=False)
    links: Links = field(init=False)
    networks: list[Network] = field(init=False)
    _secret_watch: SecretWatch | None = field(init=False, default=None)
    _told: dict[int, str] = field(init=False, factory=dict)
    """Server id -> the address of which the text log has told that it rules over the configuration."""

    log = Logger()

    def __attrs_post_init__(self) -> None:
        own = self.membership.server_id
        hosts = {**self._addresses, own: self._listen_at or self._addresses[own]}
        look_up = self._look_up or look_up_in_threads(self._reactor)
        self.book = AddressBook(self._reactor, own, hosts, look_up, self._moved, self.believes_frames())
        self.links = Links(self.membership, self._reactor, self.faults, _nowhere, self._secrets, self.comes_from())
        self.networks = self.make_networks()
        self.links.send_by(self.frame_sender())

    # -- for subclasses ---------------------------------------------------------------------------

    def make_networks(self) -> list[Network]:
        """The networks of this transport, not opened yet. Called once; `links` and `book` are there."""
        raise NotImplementedError

    def believes_frames(self) -> bool:
        """Whether a frame that has passed all checks is known to come from a server of the cluster, so that it shows
        where its sender is."""
        return bool(self._secrets)

    def comes_from(self) -> Callable[[int, object], bool]:
        """The function by which `Links` decides whether a frame of a peer may have come from a source."""
        return self.book.accepts

    def frame_sender(self) -> FrameSender:
        """The function by which `Links` sends a frame to a peer. Called once, when the networks are made."""
        [network] = self.networks
        return network.send_frame

    # -- ITransport -------------------------------------------------------------------------------

    @property
    def counters(self) -> TransportCounters:
        return self.links.counters

    def start(
        self,
        receiver: IFrameReceiver,
        identity: bytes,
        start: int,
        position: Callable[[], int],
        passes: bytes = NOT_KNOWN,
    ) -> None:
        """Begin to receive and to send, as far as addresses are known; names are looked up from now on. The arguments
        are those of `ITransport.start`.

        If this server's own host is a name, the port is opened once the name has an address. Raises `PortTaken` (a
        `CannotListenError`) if the own address is known and cannot be used, or ValueError if the secret cannot be used.
        """
        self.links.start(receiver, identity, start, position, passes)
        try:
            for network in self.networks:
                network.open()
        except CannotListenError:
            for network in self.networks:
                network.close()
            self.links.stop()
            raise
        self.counters.addresses = dict(self.book.shown())
        self.book.start()
        if self._secret_watch is not None:
            self._secret_watch.start()

    def know_cluster(self, identity: bytes) -> None:
        """Pass the random identity of the cluster to the links, as `ITransport.know_cluster` says."""
        self.links.know_cluster(identity)

    def enter_epoch(self, members: Members, others: Collection[int]) -> None:
        """Send to the servers of an epoch of the membership, at the addresses that it gives them; see `ITransport`."""
        own = self.membership.server_id
        self.links.enter_epoch(members, others)
        for server_id, address in sorted(members.addresses.items()):
            where = parsed(address)
            if where is None:
                self.log.error("server {peer}: {address} is no address", peer=server_id, address=address)
            elif server_id != own:
                self._tell_difference(server_id, address)
                self.book.place(server_id, *where)
        for server_id in others:
            if self.book.host_of(server_id) is None:
                self.log.warn("the configuration has no address of server {peer}, a member", peer=server_id)
        if self.links.is_running:
            for network in self.networks:
                network.members_changed()
            self.counters.addresses = dict(self.book.shown())

    def _tell_difference(self, server_id: int, address: str) -> None:
        """Say in the text log that the address of a server in the configuration counts no more, once."""
        configured = self._addresses.get(server_id)
        if configured is not None and shown(*configured) != address and self._told.get(server_id) != address:
            self._told[server_id] = address
            self.log.warn(
                "server {peer} is at {configured} in this server's configuration; the cluster has moved it to "
                "{address}, and that rules",
                peer=server_id,
                configured=shown(*configured),
                address=address,
            )

    def watch_secrets(self, path: str, read: Callable[[], Sequence[bytes] | str]) -> None:
        """Let the transport use the secrets of a file, also those that it will hold later. Called before `start`.

        `read` returns the secrets, or a text that says why they cannot be used.
        """
        self._secret_watch = SecretWatch(self._reactor, path, read, self.links.take_secrets, self._secrets)

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        """Send messages as `ITransport.send` promises."""
        self.links.send(messages, to)

    def stop(self) -> Any:
        """Stop at once. Returns a Deferred that fires when all sockets are closed, or None if no socket was open."""
        self.book.stop()
        self.links.stop()
        if self._secret_watch is not None:
            self._secret_watch.stop()
        closing = [closed for network in self.networks if isinstance(closed := network.close(), Deferred)]
        if not closing:
            return None
        return closing[0] if len(closing) == 1 else gatherResults(closing)

    def _moved(self, server_id: int) -> None:
        """Called by the address book when a server has another address."""
        if not self.links.is_running:
            return
        for network in self.networks:
            network.moved(server_id)
        self.counters.addresses = dict(self.book.shown())


def _nowhere(_peer: int, _frame: bytes) -> None:
    """Loses a frame: the sender of links whose networks are not made yet."""
