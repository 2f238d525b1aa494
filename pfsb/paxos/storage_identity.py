"""Departure 12: a storage has an identity, and a server with a new storage takes part when other servers know it.

A server with an empty disk may have had another disk before, and have made promises that were lost with that disk.
Servers that know the former storage identity tell the server so (STRANGER). But a server that receives messages while
its own are all lost would not be told; it would follow some old leader, and count its own vote. So a server with a new
storage, a newcomer, neither votes nor leads until enough other servers to make a majority with it have told it that
they have its storage identity on disk (ACQUAINTED).

Why safe: a server that has received a frame of the former storage refuses the new one, and never sends it ACQUAINTED.
So the servers that make a majority with an admitted newcomer have received no frame of its former storage. The
departure says which cases are left to the operator.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.messages import (
    Acquainted,
    Alive,
    ClientUpdate,
    GloballyOrderedUpdate,
    Message,
    ReconciliationReply,
    ReconciliationRequest,
    Stranger,
)
from pfsb.paxos.records import PeerRecord

FOR_NEWCOMERS = (
    Acquainted,
    Alive,
    Stranger,
    ClientUpdate,
    GloballyOrderedUpdate,
    ReconciliationReply,
    ReconciliationRequest,
)
"""Kinds of messages that a newcomer handles: none of them asks for a vote or a promise."""


class StorageWasReplaced(Exception):
    """Another server knows this server's id with another storage: this storage lacks promises that were made."""


class StorageIdentityHandler(Handler):
    _log = Logger()

    def __init__(self, core: Core, alive: AliveHandler, on_admitted: Callable[[], None]) -> None:
        """`on_admitted` is called once, in a turn, when this server may vote and lead."""
        super().__init__(core)
        self._alive = alive
        self._on_admitted = on_admitted
        self._identity = b""
        self._acquainted: set[int] = set()
        """Ids of the other servers that have told (ACQUAINTED) that they have this storage's identity on disk."""
        self.is_newcomer = False

    def begin_admission(self, identity: bytes) -> None:
        """Begin the admission of this server, in a turn, at the start.

        A server that has installed a view before was admitted then, so it is admitted again at once.
        """
        self._identity = identity
        self.is_newcomer = True
        self._admit_if_known()
        if self.is_newcomer:
            others = self._membership.quorum - 1
            self._log.info("this storage is new: to take part it must be known to {others} others", others=others)

    def takes(self, message: Message) -> bool:
        """Whether this server handles `message` now: a newcomer handles only the kinds `FOR_NEWCOMERS`."""
        return not self.is_newcomer or isinstance(message, FOR_NEWCOMERS)

    def is_who_it_says(self, sender: int, identity: bytes) -> bool:
        """Whether a frame carries the storage identity that this server has remembered for the sender.

        The identity of a sender that this server does not know yet is remembered, on disk.
        """
        known = self._membership.identities.get(sender)
        if known is None:
            self._membership.identities[sender] = identity
            self._turn.append(PeerRecord(sender, identity))
            return True
        if known != identity:
            self._turn.send(Stranger(self._data.server.server_id, identity), sender)
            return False
        return True

    def on_stranger(self, message: Stranger) -> None:
        """Stop this server: another server knows its id with an earlier storage, whose promises this storage lacks.

        A STRANGER that names another identity was meant for a storage that this server had before, and is ignored.
        """
        if message.identity == self._identity:
            raise StorageWasReplaced(
                f"server {self._data.server.server_id} was here before with another storage, says server "
                f"{message.server_id}: this one lacks its promises and must not vote. Bring the old data directory back"
            )

    def answer_alive(self, message: Alive) -> None:
        """Answer an ALIVE of view 0, whose sender may be a newcomer, with ACQUAINTED.

        The ACQUAINTED waits at the durability gate, so the record of the sender's identity is on disk when it leaves.
        A newcomer answers an ALIVE from a server that has not sent it ACQUAINTED with an ALIVE of its own, since that
        server may have missed the newcomer's last ALIVE.
        """
        sender = message.server_id
        if message.view == 0:
            self._turn.send(Acquainted(self._data.server.server_id, self._membership.identities[sender]), sender)
        if self.is_newcomer and sender not in self._acquainted:
            self._turn.send(self._alive.own_alive(), sender)

    def on_acquainted(self, message: Acquainted) -> None:
        """Count a server that has this storage's identity on disk; ignore ACQUAINTED for a former storage."""
        if self.is_newcomer and message.identity == self._identity:
            self._acquainted.add(message.server_id)
            self._admit_if_known()

    def _admit_if_known(self) -> None:
        promised = self._data.views.last_installed > 0
        if promised or len(self._acquainted) + 1 >= self._membership.quorum:
            self.is_newcomer = False
            self._on_admitted()
