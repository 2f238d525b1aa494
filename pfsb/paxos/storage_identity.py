"""Departure 12: a server with an empty disk takes part when the others know whose disk it is.

It may be the heir of a server whose disk was lost, and which has made promises. Those whom it meets would tell it so
(`Stranger`), but one that hears others and is heard by nobody would learn nothing, follow some old leader, and count
its own vote. So a newcomer says that it is one, and neither votes nor leads before as many others as make a
majority with it have its identity on their disks.
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
"""What asks for no promise: a newcomer may learn what is ordered, and what others' clients want."""


class StorageWasReplaced(Exception):
    """The other servers know this id with another storage: this one lacks the promises that were made."""


class StorageIdentityHandler(Handler):
    _log = Logger()

    def __init__(self, core: Core, alive: AliveHandler, on_admitted: Callable[[], None]) -> None:
        """`on_admitted` is called, in a turn, when this server may take part."""
        super().__init__(core)
        self._alive = alive
        self._on_admitted = on_admitted
        self._identity = b""
        self._acquainted: set[int] = set()
        """The others that have this storage's identity on disk."""
        self.is_newcomer = False

    def begin_admission(self, identity: bytes) -> None:
        """In a turn: a server starts. One that has installed a view was admitted once, and that is for ever."""
        self._identity = identity
        self.is_newcomer = True
        self._admit_if_known()
        if self.is_newcomer:
            others = self._membership.quorum - 1
            self._log.info("this storage is new: to take part it must be known to {others} others", others=others)

    def takes(self, message: Message) -> bool:
        """Whether this server handles such a message now."""
        return not self.is_newcomer or isinstance(message, FOR_NEWCOMERS)

    def is_who_it_says(self, sender: int, identity: bytes) -> bool:
        """Whether a frame comes from the storage that its sender's id belongs to; an id that is new is noted."""
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
        if message.identity == self._identity:
            raise StorageWasReplaced(
                f"server {self._data.server.server_id} was here before with another storage, says server "
                f"{message.server_id}: this one lacks its promises and must not vote. Bring the old data directory back"
            )

    def answer_alive(self, message: Alive) -> None:
        """View 0: its sender has promised nothing yet. What it is told waits for the disk, like everything.

        A newcomer answers with an ALIVE of its own: the sender may not have been there for the last one.
        """
        sender = message.server_id
        if message.view == 0:
            self._turn.send(Acquainted(self._data.server.server_id, self._membership.identities[sender]), sender)
        if self.is_newcomer and sender not in self._acquainted:
            self._turn.send(self._alive.own_alive(), sender)

    def on_acquainted(self, message: Acquainted) -> None:
        """Another server knows the storage that it names; that may be a former one of this server's."""
        if self.is_newcomer and message.identity == self._identity:
            self._acquainted.add(message.server_id)
            self._admit_if_known()

    def _admit_if_known(self) -> None:
        promised = self._data.views.last_installed > 0
        if promised or len(self._acquainted) + 1 >= self._membership.quorum:
            self.is_newcomer = False
            self._on_admitted()
