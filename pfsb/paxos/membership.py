"""The servers of the cluster: majority, succession of leaders, and storage identities (sections 2 and 5.1).

All that follows from who the servers are is here: how many are a majority, and whether some of them are one
(`Membership.is_majority`); which server leads a view; which servers a message to all goes to. Other parts ask each
time, or are told of a change (`Membership.on_change`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field

from pfsb.paxos.members import Members
from pfsb.support.limits import VIEW_MAX
from pfsb.support.views import view_of

TELLING_SERVERS = 5
"""Number of voters from which on the leader tells what is ordered: in a smaller cluster one or two votes that arrive
order a slot, so votes to all cost little and save the way by the leader."""
NO_LEADER = -1
"""Stands for the id of the leader of a view that no server of this epoch leads: no server has this id."""


@define
class Membership:
    """The servers of the cluster at present, from the point of view of server `server_id`.

    One object serves all parts of a server. A change of the membership changes it (`enter`), so its values are read
    when they are needed.
    """

    server_id: int
    members: Members
    identities: dict[int, bytes] = field(factory=dict)
    """server id -> that server's storage identity, once this server has received a frame from it (Departure 12)."""
    on_change: list[Callable[[], None]] = field(factory=list)
    """Functions that are called, in this order, when `members` has changed: each part of this server that keeps a table
    of the servers, or works in another way for another number of them, has one here."""
    epoch: int = field(init=False)
    """Number of the present epoch."""
    ids: tuple[int, ...] = field(init=False)
    """Ids of all servers, ascending."""
    others: tuple[int, ...] = field(init=False)
    """Ids of all servers but this one, ascending."""
    voters: tuple[int, ...] = field(init=False)
    """Ids of the servers that vote and lead, ascending."""
    quorum: int = field(init=False)
    """Number of voters in a majority."""
    leader_tells: bool = field(init=False)
    """Departure 55: whether the leader counts the votes alone, and tells the others what is ordered.

    Follows from the number of voters, so all servers agree on it.
    """
    last_view: int = field(init=False)
    """The highest view of this epoch."""
    _first_view: int = field(init=False)
    _voting: frozenset[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._follow()

    def enter(self, members: Members) -> None:
        """Go on with the servers of the next epoch, and tell all parts of this server."""
        assert members.epoch > self.members.epoch, "epochs follow each other"
        self.members = members
        self._follow()
        # Ordered identities rule over those that this server has heard: all servers then know one storage of each id.
        self.identities |= {i: identity for i, identity in members.storages.items() if i != self.server_id}
        for changed in self.on_change:
            changed()

    def _follow(self) -> None:
        members = self.members
        self.epoch = members.epoch
        self.ids, self.voters, self.quorum = members.ids, members.voters, members.quorum
        self.others = tuple(i for i in members.ids if i != self.server_id)
        self.leader_tells = len(members.voters) >= TELLING_SERVERS
        self._first_view, self.last_view = view_of(members.epoch, 1), view_of(members.epoch, VIEW_MAX)
        self._voting = frozenset(members.voters)

    @property
    def n(self) -> int:
        """Number of voters."""
        return len(self.voters)

    def is_majority(self, server_ids: Iterable[int]) -> bool:
        """Whether the voters among these servers are a majority."""
        return len(self._voting.intersection(server_ids)) >= self.quorum

    def lacking(self, server_ids: Iterable[int]) -> int:
        """Number of voters that are missing, besides these servers, for a majority; at least 0."""
        return max(0, self.quorum - len(self._voting.intersection(server_ids)))

    @property
    def other_voters(self) -> list[int]:
        """Ids of the voters but this server, ascending."""
        return [i for i in self.voters if i != self.server_id]

    @property
    def acquaintances(self) -> int:
        """Departure 12: number of other voters that must know a new storage before it takes part; 0 for a cluster of
        one.

        It is a majority of the other voters, N - majority + 1 for a voter: two such groups, for two storages of one id,
        share a server.
        """
        others = len(self.other_voters)
        return others // 2 + 1 if others else 0

    def leader_of(self, view: int) -> int:
        """The leader of `view`; `NO_LEADER` for a view of another epoch, and for view 0, which is a placeholder.

        Departure 26: the server at position (n - 1) mod N of the ids of the voters in ascending order, n being the
        number of the view in its epoch, so view 1 is led by the lowest id.
        """
        if not self._first_view <= view <= self.last_view:
            return NO_LEADER
        return self.voters[(view - self._first_view) % len(self.voters)]

    def next_led(self, view: int) -> int:
        """The first view above `view` that this server leads."""
        return self.next_led_by(self.server_id, view)

    def next_led_by(self, server_id: int, view: int) -> int:
        """The first view above `view` that server `server_id` leads, or the one after the last view of the epoch."""
        views = range(view + 1, view + self.n + 1)
        return next((later for later in views if self.leader_of(later) == server_id), self.last_view + 1)

    def i_lead(self, view: int) -> bool:
        return self.leader_of(view) == self.server_id
