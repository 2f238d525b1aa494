"""Peers: the table of the other servers, with the facts that this server knows from their messages."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IReactorTime

from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import State
from pfsb.paxos.records import PeerRecord
from pfsb.paxos.settings import Settings
from pfsb.paxos.start_number import are_of_two_copies, start_on_disk

NEVER = float("-inf")
OVERTAKEN_PERIODS = 2
"""How long, in periods of ALIVE, after the last frame that told the latest known state of a peer's storage, a frame
that tells an earlier state is taken for one that was late on its way.

A running peer tells its latest state with each ALIVE. So if no frame has told that state for longer, an earlier state
shows that the peer was started with less on its disk than it had.
"""
STEP_BELIEVED = 1_024
"""Maximum number of groups by which the log position in a single frame, one with a vote that counts, may be above the
highest one that two frames have told, to be noted at once. A server writes far fewer groups between two frames; a wrong
position is rarely as near."""
SILENT_ALIVES = 2.5
"""How long, in periods of ALIVE, a server must be silent so that its next frame counts as a return. Within this time,
two of its ALIVEs were due and did not come."""


@define
class Peer:
    """One other server: the content of its last ALIVE, the state of its storage, and when a message came from it."""

    last_heard: float = NEVER
    refused_at: float = NEVER
    """Time by the clock at which the peer's address last refused a frame; `NEVER` if a message has come since."""
    view: int = 0
    state: State = State.LEADER_ELECTION
    local_aru: int = 0
    lag: int = 0
    """By how many slots the peer's last ALIVE, when it came, was behind this server's Local_Aru."""
    in_doubt_until: float = NEVER
    """Time by the clock until which the peer's Local_Aru does not count, because the peer had no slots to give
    (`Peers.doubt`)."""
    has_clients: bool = True
    """Whether clients of the peer wait for results; True until an ALIVE says that none do (Departure 25)."""
    start: int = 0
    """The start number of the peer's incarnation whose frames are handled (`Peers.note_frame`); 0: no frame was handled
    yet."""
    position: int = 0
    """The highest log position in that incarnation that counts as certain: two frames of the peer have told this
    position or higher ones, or one with a vote that counts, or this server had it on its own disk."""
    told_twice: int = 0
    """The highest log position in that incarnation that at least two frames have told, or that stood on this server's
    disk at its start. Unlike `position`, it never rises by a single frame, even one with a vote."""
    claimed_position: int = 0
    """A log position in that incarnation that one frame has told. It becomes `position` when another frame tells this
    position or a higher one."""
    voted_in: int = 0
    """The start number of the peer in which a vote of the peer has first counted here, once a record of the log
    position that came with the vote was given to the storage here; 0: there was no such vote since this server's start.
    """
    next_start: int = 0
    """A later start number that one frame has told; 0: none. It becomes `start` when another frame tells it."""
    next_position: int = 0
    """The log position that was told with `next_start`."""
    reached_at: float = NEVER
    """Time by the clock at which a frame last told a log position that was not below `claimed_position`: at that time
    the peer ran, with its storage in the latest state that is known here."""


class Peers:
    """The table of the other servers, shared by all handlers."""

    def __init__(self, membership: Membership, clock: IReactorTime, settings: Settings) -> None:
        self._membership = membership
        self.by_id: dict[int, Peer] = {}
        """Server id -> the facts about that server, for the other servers of the present epoch, ids ascending."""
        self._follow()
        membership.on_change.append(self._follow)
        self._clock = clock
        self._heard_seconds = settings.progress_seconds
        self._overtaken_seconds = OVERTAKEN_PERIODS * settings.alive_seconds
        self.on_incarnation: Callable[[int], None] = lambda _: None
        """Called in a turn with the id of a peer that has begun a later incarnation, before the frame that shows it is
        handled."""
        self.on_first_vote: Callable[[int, int], None] = lambda *_: None
        """Called in a turn with the id of a peer and a log position, when a vote of the peer counts that was told with
        this position, unless `Peer.voted_in` names the present start of the peer."""
        self._silence = SILENT_ALIVES * settings.alive_seconds
        self.on_return: Callable[[], None] = lambda: None
        """Called when a frame comes from a server that was silent for `SILENT_ALIVES` periods of ALIVE or more, or that
        was not heard because this server itself stood still."""

    def _follow(self) -> None:
        """Take the other servers of the present epoch into the table, and leave out those that are gone."""
        before = dict(self.by_id)
        self.by_id.clear()  # the table stays the same object, since others keep it
        self.by_id.update((server_id, before.get(server_id) or Peer()) for server_id in self._membership.others)

    def note_heard(self, server_id: int) -> None:
        """Record that a message of server `server_id` has come, which shows that it is running."""
        peer = self.by_id[server_id]
        peer.last_heard = self._clock.seconds()
        peer.refused_at = NEVER

    def remember(self, record: PeerRecord) -> None:
        """Take over, at the start, the record on this server's disk about a peer's storage."""
        peer = self.by_id.get(record.server_id)
        if peer is None:
            return  # that server has been removed
        peer.start = start_on_disk(record.incarnation)
        peer.position = peer.told_twice = peer.claimed_position = record.position

    def note_frame(self, server_id: int, start: int, position: int) -> bool:
        """Departure 43: note a frame that tells this start number and log position of its sender's storage.

        Returns False if the frame must not be handled: the storage was further before, or the frame is the first one of
        a later incarnation. At any time the frames of one incarnation of a server are handled, and no others. Otherwise
        a late vote of a former incarnation could count although its storage has lost it, and the present one has voted
        otherwise.

        A log position is noted when two frames have told it or a higher one, so that a single forged frame does not
        silence a server. One frame is enough if a vote in it counts (`believe`).
        """
        peer = self.by_id[server_id]
        now = self._clock.seconds()
        if start != peer.start:
            if not self._is_later(peer, start, position):
                return False
            peer.reached_at = now
            self.on_incarnation(server_id)
        elif position >= peer.claimed_position:
            peer.told_twice = peer.claimed_position
            peer.claimed_position = position
            if peer.told_twice > peer.position:
                peer.position = peer.told_twice
            peer.reached_at = now
        elif not self._may_be_late(peer, position, now):
            return False
        if now - peer.last_heard > self._silence:
            self.on_return()
        peer.last_heard = now
        peer.refused_at = NEVER
        return True

    def believe(self, server_id: int, position: int) -> None:
        """Departure 54: note the log position that was told by a frame in which a vote counts. Called in a turn, when
        the vote has been stored.

        The position is noted at once, without a second frame that tells it, if it is at most `STEP_BELIEVED` above the
        highest one that two frames have told. So a storage that comes back without that vote is refused, even if no
        later frame was sent. A forged frame might silence its supposed sender in this way, but a forged vote that
        counts does more harm than that.
        """
        peer = self.by_id.get(server_id)
        if peer is None:
            return  # the vote has brought the change that removes its sender (Departure 60)
        if peer.position < position <= peer.told_twice + STEP_BELIEVED:
            peer.position = position
        if peer.voted_in != peer.start:
            self.on_first_vote(server_id, position)

    def waits_for_second(self, server_id: int, start: int) -> bool:
        """Whether one frame of this later start of a peer has come, so that the next one makes it the present one."""
        return 0 < start == self.by_id[server_id].next_start

    def _is_later(self, peer: Peer, start: int, position: int) -> bool:
        """Take a frame with a later start number of a peer than the present one, and the log position that it tells.

        The first such frame is noted only. With a second one of the same start, whose position is not below that of the
        first, that start becomes the present one. Returns whether it has become so.

        A start with the incarnation of the present one and another mark is that of a copy of the peer's storage, and
        never becomes the present one (Departure 53).
        """
        if start < peer.start or position < peer.position or are_of_two_copies(start, peer.start):
            return False
        if start != peer.next_start or position < peer.next_position:
            peer.next_start, peer.next_position = start, position
            return False
        peer.start, peer.claimed_position = start, position
        peer.position = peer.told_twice = peer.next_position
        peer.next_start = 0
        return True

    def _may_be_late(self, peer: Peer, position: int, now: float) -> bool:
        """Whether a frame that tells a lower log position than `claimed_position` may be handled.

        If the frame tells less than `told_twice`, too, it is handled only while the peer runs in its latest state: then
        later frames have overtaken it. If it tells at least `told_twice`, it is handled in any case: only one frame has
        told more, and that one may be forged. `Peer.position` does not matter here: frames of one start come from one
        copy of the storage (Departure 53), so a lower number only shows that a frame is late.
        """
        is_running = now - peer.reached_at <= self._overtaken_seconds
        if position < peer.told_twice:
            return is_running
        if not is_running:
            peer.claimed_position = position
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
        not ordering what was executed. A server that a change of the membership has removed meanwhile is asked for
        nothing any more.
        """
        peer = self.by_id.get(server_id)
        if peer is None:
            return
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
