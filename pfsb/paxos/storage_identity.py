"""Departure 12: a storage has an identity, and a server takes part when enough others know its storage.

A server with an empty disk may have had another disk before, and have made promises that were lost with that disk.
Servers that know the former storage identity tell the server so (STRANGER). But a server that receives messages while
its own are all lost would not be told; it would follow some old leader, and count its own vote. So a server with a new
storage, a newcomer, neither votes nor leads until enough others have told it that they have its storage identity on
disk (ACQUAINTED).

Departure 42: enough is a majority of the others, N - majority + 1 of them. Why safe: a server that knows the former
storage refuses the new one, and never sends it ACQUAINTED. The former storage was admitted by a majority of the others,
too, and any two such majorities share a server. So of two storages of one id at most one is ever admitted, as long as
the server that they share keeps its own disk.

Departure 43: with ACQUAINTED comes the state in which the storage is known (KNOWN_POSITION, `LogPositionHandler`). A
server counts only if it takes frames of the present start, and knows no later state. An ACQUAINTED alone may be late:
it was sent to this server before, and the storage has gone back since.

A server that comes back with a storage that was admitted before waits, too, but not for long: until all others count,
or, after a period of ALIVE, so many that they are a majority with it. Only those others count whose storages it knew
when it started: a server that is new itself has heard of no earlier state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.log_positions import LogPositionHandler
from pfsb.paxos.messages import (
    Acquainted,
    Alive,
    ClientUpdate,
    GloballyOrderedUpdate,
    Heard,
    KnownPosition,
    Message,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    Stranger,
)
from pfsb.paxos.peers import NEVER, Peers
from pfsb.paxos.records import PeerRecord

FOR_NEWCOMERS = (
    Acquainted,
    Alive,
    Heard,
    KnownPosition,
    Stranger,
    ClientUpdate,
    GloballyOrderedUpdate,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
)
"""Kinds of messages that a server handles while it is not admitted: none of them asks for a vote or a promise.

Among them are those that bring what was executed. A server that comes back after changes of the membership may be
admitted only in a later epoch (Departure 60): those that would have to know its storage in its own epoch may be gone.
"""
FROM_A_HEARER = (Acquainted, Heard, KnownPosition, Stranger)
"""Messages that name the identity of the receiver's storage, so that their sender must have received its frames."""
PERIODS_FOR_ALL = 1
"""Number of periods of ALIVE after a start in which a server that comes back is admitted only if all other servers
count for its admission. Later a majority is enough."""
PERIODS_UNTIL_LOG = 10
"""Number of periods of ALIVE after a start before the text log names the servers that this server waits for. Where all
servers are up, it is admitted earlier, and there is nothing to tell."""
LOG_SECONDS = 10.0
"""Time, in seconds, between two lines of the text log that say which servers have not admitted this server yet."""
ANSWERS_PER_ALIVE = 4
"""Maximum number of answers, within `alive_seconds`, to those frames of one server that are not handled."""


class StorageWasReplaced(Exception):
    """Raised if this server may not vote: too many others know its id with an earlier storage, whose promises its
    storage lacks."""


class StorageIdentityHandler(Handler):
    """Remembers the storage identity of each server, refuses frames of other storages, and admits newcomers."""

    _log = Logger()

    def __init__(
        self,
        core: Core,
        alive: AliveHandler,
        peers: Peers,
        positions: LogPositionHandler,
        on_admitted: Callable[[], None],
    ) -> None:
        """`on_admitted` is called once, in a turn, when this server may vote and lead."""
        super().__init__(core)
        self._alive = alive
        self._peers = peers
        self._positions = positions
        self._on_admitted = on_admitted
        self._identity = b""
        self._acquainted: set[int] = set()
        """Ids of the other servers that have told (ACQUAINTED), since this start, that they have this storage's
        identity on disk."""
        self._strangers: set[int] = set()
        """Ids of the other servers that have told (STRANGER) that they know this server's id with another storage."""
        self._answered_at: dict[int, float] = {}
        """Server -> the time by the clock at which a frame of that server that was not handled was last answered."""
        self.returns = False
        """Whether this storage has installed a view before, and so was admitted before."""
        self.known_at_start: set[int] = set()
        """Ids of the other servers whose storages this server knew when it started."""
        self._periods = 0
        """Number of periods of ALIVE that have begun since the start."""
        self._log_from = 0.0
        self.is_newcomer = False
        """Whether this server is not admitted yet: it neither votes nor leads."""
        self.has_state: Callable[[], bool] = lambda: True
        """Tells whether this server has its state. Without it the server is not admitted (Departure 58)."""

    def begin_admission(self, identity: bytes) -> None:
        """Begin the admission of this server, whose own storage has this identity. Called once, in a turn, when the
        server starts."""
        self._identity = identity
        self.returns = self._data.views.last_installed > 0
        self.known_at_start = set(self._membership.identities)
        self.is_newcomer = True
        self.admit_if_known()

    def begin_epoch(self) -> None:
        """Departure 60: a server that does not vote in the present epoch takes no part, as if it were not admitted.

        One that votes for the first time takes part once enough voters know its storage.
        """
        if not self._votes:
            self.is_newcomer = True
        else:
            self.admit_if_known()

    @property
    def _votes(self) -> bool:
        return self._data.server.server_id in self._membership.voters

    def ask_again(self) -> None:
        """Called in a turn with each ALIVE: ask for ACQUAINTED the other servers that have not sent it since this
        start.

        A newcomer need not ask, since its ALIVE is answered by ACQUAINTED (`answer_alive`); a server that comes back
        asks by HEARD, and so does one that has learned so far and votes now (Departure 60), since its ALIVE tells a
        view.
        """
        if not self.is_newcomer:
            return
        self._periods += 1
        if self._votes and self._data.views.last_installed > 0:
            for server_id in self.missing:
                known = self._membership.identities.get(server_id)
                if known is not None:
                    self._turn.send(Heard(self._data.server.server_id, known), server_id)
        self.admit_if_known()
        self._tell_who_is_missing()

    @property
    def missing(self) -> list[int]:
        """Ids of the other voters that have not told, since this start, that they know this storage in no later
        state."""
        return [i for i in self._membership.other_voters if not self._counts(i)]

    def _counts(self, server_id: int) -> bool:
        """Whether another server counts for the admission of this one.

        If this server comes back, another server that its storage does not know yet counts only once that server was
        admitted, which its log position shows (Departure 43). A server that was never admitted has voted for nothing,
        and cannot know whether this storage was in a later state.
        """
        knows = server_id in self._acquainted and self._positions.is_known_by(server_id)
        was_admitted = self._peers.by_id[server_id].position > 0
        return knows and (not self.returns or server_id in self.known_at_start or was_admitted)

    @property
    def needed(self) -> int:
        """How many other voters must know this storage before this server votes and leads."""
        if not self.returns:
            return self._membership.acquaintances
        if self._periods <= PERIODS_FOR_ALL:
            return len(self._membership.other_voters)
        return self._membership.lacking((self._data.server.server_id,))

    def _tell_who_is_missing(self) -> None:
        now = self._clock.seconds()
        is_time = self._periods >= PERIODS_UNTIL_LOG and now >= self._log_from
        if self.is_newcomer and self._votes and self.missing and is_time:
            self._log_from = now + LOG_SECONDS
            self._log.warn(
                "this server does not vote yet: its storage must be known to {needed} others, and it has no word yet "
                "of server {missing}",
                needed=self.needed,
                missing=", ".join(map(str, self.missing)),
            )

    def is_who_it_says(self, sender: int, identity: bytes, messages: Sequence[Message]) -> bool:
        """Whether a frame carries the storage identity that this server has remembered for the sender.

        The identity of a sender that this server does not know yet is remembered, on disk, as soon as a frame shows
        that the sender has received a frame of this server: it names the identity of this server's storage, which only
        receivers of its frames know. So a forged frame, in the name of a server that was not started yet, binds
        nothing.
        """
        known = self._membership.identities.get(sender)
        if known == identity:
            return True
        own_id = self._data.server.server_id
        if known is not None:
            self._answer(sender, Stranger(own_id, identity))
        elif any(isinstance(each, FROM_A_HEARER) and each.identity == self._identity for each in messages):
            self._membership.identities[sender] = identity
            self._turn.append(PeerRecord(sender, identity))
            if not any(isinstance(each, Heard) for each in messages):
                self._turn.send(Acquainted(own_id, identity), sender)
            return True
        else:
            self._answer(sender, Heard(own_id, identity))
        return False

    def _answer(self, sender: int, answer: Stranger | Heard) -> None:
        """Answer a frame that is not handled, but at most `ANSWERS_PER_ALIVE` frames of one sender within
        `alive_seconds`."""
        now = self._clock.seconds()
        if now - self._answered_at.get(sender, NEVER) >= self._settings.alive_seconds / ANSWERS_PER_ALIVE:
            self._answered_at[sender] = now
            self._turn.send(answer, sender)

    def on_stranger(self, message: Stranger) -> None:
        """Stop this server if so many others know its id with an earlier storage that no majority is left without them.

        This storage lacks the promises of the earlier one. Fewer servers may be wrong about the earlier storage, and
        they do not keep the others from admitting this one. Raises `StorageWasReplaced` to stop. A STRANGER that names
        another identity was meant for a storage that this server had before, and is ignored.
        """
        if message.identity != self._identity:
            return
        own_id = self._data.server.server_id
        self._strangers.add(message.server_id)
        if not self.is_majority(i for i in self._membership.voters if i not in self._strangers):
            others = " and ".join(map(str, sorted(self._strangers)))
            raise StorageWasReplaced(
                f"server {own_id} was here before with another storage, says server {others}: this one lacks its "
                "promises and must not vote. Bring the old data directory back; if it is lost, let a server with a new "
                "id take the place of this one"
            )
        self._log.error("server {other} knows server {own} with another storage", other=message.server_id, own=own_id)

    def answer_alive(self, message: Alive) -> None:
        """Answer an ALIVE of view 0, whose sender may be a newcomer, with ACQUAINTED; a newcomer answers others, too.

        The ACQUAINTED waits at the durability gate, so the record of the sender's identity is on disk when it leaves.
        A newcomer answers an ALIVE from a server that has not sent it ACQUAINTED with an ALIVE of its own, since that
        server may have missed the newcomer's last ALIVE. One that does not vote waits for no ACQUAINTED (Departure 60):
        it and a newcomer would answer each other without end.
        """
        sender = message.server_id
        if message.view == 0:
            self._acquaint(sender)
        if self.is_newcomer and self._votes and sender not in self._acquainted:
            self._turn.send(self._alive.own_alive(), sender)

    def on_acquainted(self, message: Acquainted) -> None:
        """Note a server that has this storage's identity on disk; ignore ACQUAINTED for a former storage."""
        if message.identity == self._identity:
            self._acquainted.add(message.server_id)
            self.admit_if_known()

    def on_heard(self, message: Heard) -> None:
        """Answer HEARD with ACQUAINTED."""
        if message.identity == self._identity:
            self._acquaint(message.server_id)

    def _acquaint(self, sender: int) -> None:
        """Send ACQUAINTED and KNOWN_POSITION to server `sender`, whose frame is being handled.

        ACQUAINTED says that the identity of that server's storage is on disk here, KNOWN_POSITION in which state the
        storage is known here. If that server was started with an earlier state of its storage, it learns so from
        KNOWN_POSITION, and is not admitted.
        """
        self._turn.send(Acquainted(self._data.server.server_id, self._membership.identities[sender]), sender)
        self._positions.tell_known(sender)

    def admit_if_known(self) -> None:
        """Admit this server, in a turn, if it is a newcomer, it has its state, enough others know its storage
        (`needed`), and no other has told lately that it knows a later state of it.

        An admission forces a record, and so waits while the disk is in trouble (Departures 44 and 45).
        """
        if (
            self.is_newcomer
            and self._turn.trouble is None
            and self._votes
            and self.has_state()
            and len(self._membership.other_voters) - len(self.missing) >= self.needed
            and not self._positions.is_doubted
        ):
            self.is_newcomer = False
            self._on_admitted()
