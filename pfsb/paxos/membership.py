"""The servers of the cluster: majority, succession of leaders, and storage identities (sections 2 and 5.1)."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

TELLING_SERVERS = 5
"""Number of servers from which on the leader tells what is ordered: in a smaller cluster one or two votes that arrive
order a slot, so votes to all cost little and save the way by the leader."""


def _ascending(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(ids))


@define
class Membership:
    """The fixed set of servers of the cluster, from the point of view of server `server_id`."""

    server_id: int
    ids: tuple[int, ...] = field(converter=_ascending)
    identities: dict[int, bytes] = field(factory=dict)
    """server id -> that server's storage identity, once this server has received a frame from it (Departure 12)."""

    @property
    def n(self) -> int:
        return len(self.ids)

    @property
    def quorum(self) -> int:
        """Number of servers in a majority, floor(N/2) + 1: any two majorities share a server, also for even N (G27)."""
        return len(self.ids) // 2 + 1

    @property
    def leader_tells(self) -> bool:
        """Departure 55: whether the leader counts the votes alone, and tells the others what is ordered.

        Follows from the size of the cluster, so all servers agree on it.
        """
        return len(self.ids) >= TELLING_SERVERS

    @property
    def acquaintances(self) -> int:
        """Departure 12: number of other servers that must know a new storage before it takes part; 0 for a cluster of
        one.

        It is a majority of the others, N - majority + 1: two such groups, for two storages of one id, share a server.
        """
        return min(self.n - self.quorum + 1, self.n - 1)

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(i for i in self.ids if i != self.server_id)

    def leader_of(self, view: int) -> int:
        """The leader of `view`.

        Departure 26: the server at position (view - 1) mod N of the ids in ascending order, so view 1 is
        led by the lowest id. View 0 has no leader.
        """
        assert view > 0, "view 0 is a placeholder that nobody leads"
        return self.ids[(view - 1) % len(self.ids)]

    def next_led(self, view: int) -> int:
        """The first view above `view` that this server leads."""
        return next(later for later in range(view + 1, view + self.n + 1) if self.i_lead(later))

    def i_lead(self, view: int) -> bool:
        return view > 0 and self.leader_of(view) == self.server_id
