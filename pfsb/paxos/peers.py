"""Peers: the table of the other servers, with the facts that this server knows from their messages."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IReactorTime

from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import State
from pfsb.paxos.settings import Settings

NEVER = float("-inf")
SILENT_ALIVES = 2.5
"""For how many periods of ALIVE a server is not heard before its next frame counts as a return: two ALIVEs are lost."""


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
    """The highest incarnation of the peer's storage that a frame has told, since this server's start."""
    position: int = 0
    """The highest log position of the peer's storage that a frame has told, since this server's start."""


class Peers:
    """The table of the other servers, shared by all handlers."""

    def __init__(self, membership: Membership, clock: IReactorTime, settings: Settings) -> None:
        self.by_id = {server_id: Peer() for server_id in membership.others}
        self._clock = clock
        self._heard_seconds = settings.progress_seconds
        self._silence = SILENT_ALIVES * settings.alive_seconds
        self.on_return: Callable[[], None] = lambda: None
        """Called when a frame comes from a server that was silent for `SILENT_ALIVES` periods of ALIVE or more, or that
        was not heard because this server itself stood still."""

    def note_heard(self, server_id: int) -> None:
        """Record that a message of server `server_id` has come, which shows that it is running."""
        peer = self.by_id[server_id]
        peer.last_heard = self._clock.seconds()
        peer.refused_at = NEVER

    def note_frame(self, server_id: int, incarnation: int, position: int) -> None:
        """Note a frame: its sender is running, and its storage had `position` groups on disk at the time."""
        peer = self.by_id[server_id]
        now = self._clock.seconds()
        if now - peer.last_heard > self._silence:
            self.on_return()
        peer.last_heard = now
        peer.refused_at = NEVER
        if incarnation > peer.incarnation:
            peer.incarnation = incarnation
        if position > peer.position:
            peer.position = position

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
