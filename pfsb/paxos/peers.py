"""Peers: the table of the other servers, with the facts that this server knows from their messages."""

from __future__ import annotations

from attrs import define
from twisted.internet.interfaces import IReactorTime

from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import State
from pfsb.paxos.records import PeerRecord
from pfsb.paxos.settings import Settings

NEVER = float("-inf")
OVERTAKEN_PERIODS = 2
"""How long after the latest state of a peer was heard an earlier one may still be, in periods of ALIVE.

A running peer tells its latest state with each ALIVE. After a silence, an earlier state is that of a server that was
started with less than it had.
"""


@define
class Peer:
    """One other server: the content of its last ALIVE, and when a message came from it."""

    last_heard: float = NEVER
    refused_at: float = NEVER
    """Time by the clock at which the peer's address last refused a frame; `NEVER` if a message has come since."""
    view: int = 0
    state: State = State.LEADER_ELECTION
    local_aru: int = 0
    in_doubt_until: float = NEVER
    """Time by the clock until which the peer's Local_Aru does not count, because the peer had no slots to give
    (`Peers.doubt`)."""
    has_clients: bool = True
    """Whether clients of the peer wait for results; True until an ALIVE says that none do (Departure 25)."""
    incarnation: int = 0
    """The highest incarnation of the peer's storage that is noted (`Peers.note_frame`)."""
    position: int = 0
    """The highest log position of the peer's storage that is noted."""
    claimed_incarnation: int = 0
    claimed_position: int = 0
    """With `claimed_incarnation`: what one frame has told, and is noted when another one confirms it."""
    overtaken_at: float = NEVER
    """Time by the clock at which a frame last told less than is noted."""
    reached_at: float = NEVER
    """Time by the clock at which a frame last confirmed a claim: the peer is in its latest known state, and runs."""


class Peers:
    """The table of the other servers, shared by all handlers."""

    def __init__(self, membership: Membership, clock: IReactorTime, settings: Settings) -> None:
        self.by_id = {server_id: Peer() for server_id in membership.others}
        self._clock = clock
        self._heard_seconds = settings.progress_seconds
        self._overtaken_seconds = OVERTAKEN_PERIODS * settings.alive_seconds

    def note_heard(self, server_id: int) -> None:
        """Record that a message of server `server_id` has come, which shows that it is running."""
        peer = self.by_id[server_id]
        peer.last_heard = self._clock.seconds()
        peer.refused_at = NEVER

    def remember(self, record: PeerRecord) -> None:
        """Take over what is on this server's disk about a peer's storage."""
        peer = self.by_id[record.server_id]
        peer.incarnation = peer.claimed_incarnation = record.incarnation
        peer.position = peer.claimed_position = record.position

    def note_frame(self, server_id: int, incarnation: int, position: int) -> bool:
        """Departure 43: note a frame, whose sender's storage had `position` groups on disk in this incarnation.

        Returns False, and notes nothing, if the storage was further before: then the frame must not be handled. A state
        is noted when two frames have told it or more, so that a single forged frame does not silence a server.
        """
        peer = self.by_id[server_id]
        now = self._clock.seconds()
        if incarnation == peer.claimed_incarnation and position >= peer.claimed_position:
            peer.incarnation = incarnation
            peer.position = peer.claimed_position
            peer.claimed_position = position
            peer.reached_at = now
        elif not self._may_be(peer, incarnation, position, now):
            return False
        peer.last_heard = now
        peer.refused_at = NEVER
        return True

    def is_overtaken(self, server_id: int) -> bool:
        """Whether the frame that was noted last from this server has told less than is noted of the server."""
        peer = self.by_id[server_id]
        return peer.overtaken_at == peer.last_heard

    def _may_be(self, peer: Peer, incarnation: int, position: int, now: float) -> bool:
        """Whether a storage of which more is claimed, or another incarnation, may be in this state, or lately was.

        A later incarnation begins with all groups of the former ones. A frame of the present incarnation may be
        overtaken by others, as long as its sender runs.
        """
        is_running = now - peer.reached_at <= self._overtaken_seconds
        if position < peer.position:
            peer.overtaken_at = now
            return incarnation == peer.incarnation and is_running
        if incarnation < peer.incarnation:
            return False
        is_news = (incarnation, position) > (peer.claimed_incarnation, peer.claimed_position)
        if is_news or not is_running:
            peer.claimed_incarnation, peer.claimed_position = incarnation, position
        return True

    def is_ahead(self, server_id: int, local_aru: int) -> bool:
        """Whether the peer says that it has executed more than `local_aru`, and is not in doubt."""
        peer = self.by_id[server_id]
        return peer.local_aru > local_aru and self._clock.seconds() >= peer.in_doubt_until

    def any_is_ahead(self, local_aru: int) -> bool:
        """Whether any peer that is not in doubt says that it has executed more than `local_aru`."""
        return any(self.is_ahead(server_id, local_aru) for server_id in self.by_id)

    def doubt(self, server_id: int, local_aru: int) -> None:
        """Departure 37: doubt the Local_Aru of a peer that was asked for slots and has none to give.

        The peer's Local_Aru is lowered to `local_aru`, which its answer tells, and does not count for
        `progress_seconds`. So a wrong Local_Aru does not make this server ask without end, nor suspect its leader of
        not ordering what was executed.
        """
        peer = self.by_id[server_id]
        peer.local_aru = min(peer.local_aru, local_aru)
        peer.in_doubt_until = self._clock.seconds() + self._heard_seconds

    def heard_lately(self, server_id: int) -> bool:
        """Whether a message of that server has come within the last `progress_seconds`."""
        return self._clock.seconds() - self.by_id[server_id].last_heard <= self._heard_seconds

    def a_later_view_is_led(self, view: int) -> bool:
        """Whether a server that was heard within the last `progress_seconds` leads a view later than `view`."""
        return any(
            peer.state is State.REG_LEADER and peer.view > view and self.heard_lately(server_id)
            for server_id, peer in self.by_id.items()
        )
