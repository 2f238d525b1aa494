"""Members: the servers of a cluster in one epoch, as a value and as bytes.

An epoch is the time from one change of the membership to the next. The founding servers are those of the configuration
file; the servers of a later epoch stand in the log, in snapshots and on disk, always in the form of `encode_members`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgpack
from attrs import field, frozen

from pfsb.support.limits import IDENTITY_BYTES, NUMBER_MAX, SERVER_ID_MAX, SLOT_MAX
from pfsb.support.views import view_of

EPOCH_MAX: Final = 2**31 - 1
"""Highest number of an epoch: a view of it still fits a signed integer of 64 bits."""
ADDRESS_CHARS_MAX: Final = 300
"""Maximum number of characters of the address of a server."""
SERVERS_MAX: Final = 64
"""Maximum number of servers of an epoch that a change brings."""
RETIRED_MAX: Final = 4_096
"""Maximum number of servers that may ever be removed from one cluster."""
MEMBERS_BYTES_MAX: Final = 48_000
"""Maximum size, in bytes, of the form of `Members`: it fits an update, and the message that tells it fits a frame."""


class WrongMembers(ValueError):
    """Raised for bytes that are the form of no members."""


def _ascending(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(ids))


@frozen
class Members:
    """The servers of a cluster in one epoch."""

    voters: tuple[int, ...] = field(converter=_ascending)
    """Ids of the servers that vote and lead, ascending."""
    learners: tuple[int, ...] = field(default=(), converter=_ascending)
    """Ids of the servers that only execute what the others order, ascending."""
    epoch: int = 0
    """Number of the epoch; 0 is that of the founding servers."""
    since: int = 0
    """The slot whose execution has begun the epoch: what earlier epochs have proposed above it is void. 0 for epoch
    0."""
    first: int = -1
    """Id of the voter that leads first; -1: the one with the lowest id. The change names it, so that the epoch begins
    without an election."""
    storages: Mapping[int, bytes] = field(factory=dict, hash=False)
    """Server id -> identity of its storage (Departure 12), for the servers whose storage the server knew that has made
    the change. No other storage is taken for that server's from then on."""
    addresses: Mapping[int, str] = field(factory=dict, hash=False)
    """Server id -> where the other servers reach it, for the servers to which a change has given an address. The
    configuration file has the others."""
    retired: tuple[int, ...] = field(default=(), converter=_ascending)
    """Ids of servers that have been removed, ascending: no server gets them again."""
    replacing: tuple[int, int] | None = None
    """(id of a voter, id of the server that takes its place): the leader lets the second one vote when it keeps up, and
    then removes the first one, by a change for each. None: no server is being replaced."""
    permanent: tuple[int, ...] = field(default=(), converter=_ascending)
    """Ids of the learners that never vote, however far they are, ascending."""

    def __attrs_post_init__(self) -> None:
        ids = {*self.voters, *self.learners}
        assert self.voters, "an epoch has a voter"
        assert len(ids) == len(self.voters) + len(self.learners), "a server votes, or it learns, and is there once"
        assert not ids & {*self.retired}, "an id is not used again"
        assert {*self.permanent} <= {*self.learners}, "a server that never votes is one that learns"
        if self.replacing is not None:
            former, new = self.replacing
            assert former in self.voters and new in ids and former != new, "a voter is replaced, by another server"

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of all servers, ascending."""
        return _ascending((*self.voters, *self.learners))

    @property
    def candidates(self) -> tuple[int, ...]:
        """Ids of the learners that vote once they keep up, ascending."""
        return tuple(i for i in self.learners if i not in self.permanent)

    @property
    def quorum(self) -> int:
        """Number of voters in a majority, floor(N/2) + 1: any two majorities share a server, also for even N (G27)."""
        return len(self.voters) // 2 + 1

    @property
    def first_view(self) -> int:
        """The view that `first` leads: the lowest one that a server of the epoch installs after a change."""
        rank = 0 if self.first == -1 else self.voters.index(self.first)
        return view_of(self.epoch, rank + 1)


def why_no_successor(present: Members, following: Members) -> str | None:
    """Why `following` cannot be the members of the epoch after that of `present`; None: they can. All servers that
    execute a change come to the same answer."""
    if following.epoch != present.epoch + 1:
        made_for = following.epoch - 1
        return f"another change came first: the epoch is {present.epoch}, and the change was made for {made_for}"
    back = [i for i in following.ids if i in present.retired]
    if back:
        return f"server {back[0]} was removed, and its id is not used again"
    gone = {*present.ids} - {*following.ids}
    if not {*present.retired, *gone} <= {*following.retired}:
        return "the ids of servers that have been removed are left out"
    return None


def encode_members(members: Members) -> bytes:
    """The form of `members`: one value has exactly one form."""
    storages, addresses = members.storages, members.addresses
    rows = [
        (server_id, server_id in members.voters, storages.get(server_id, b""), addresses.get(server_id, ""))
        for server_id in members.ids
    ]
    fields: tuple[Any, ...] = (members.epoch, members.since, members.first, rows, members.retired)
    if members.permanent:
        fields = (*fields, members.replacing, members.permanent)
    elif members.replacing is not None:
        fields = (*fields, members.replacing)
    form: bytes = msgpack.packb(fields)
    assert len(form) <= MEMBERS_BYTES_MAX, "a change of the membership is refused before it has so many servers"
    return form


def decode_members(form: bytes) -> Members:
    """The members whose form this is. Raises `WrongMembers` if it is the form of none."""
    try:
        epoch, since, first, rows, retired, *more = msgpack.unpackb(form, use_list=False, raw=False)
        replacing, permanent = more + [None, ()][len(more) :]
        members = _checked(epoch, since, first, rows, retired, replacing, permanent)
        if encode_members(members) != form:
            raise WrongMembers("another form has the same meaning")
    except (AssertionError, TypeError, ValueError, KeyError, OverflowError, msgpack.UnpackException) as error:
        raise WrongMembers(f"no members: {error}") from error
    return members


def _checked(epoch: Any, since: Any, first: Any, rows: Any, retired: Any, replacing: Any, permanent: Any) -> Members:
    if not (_is_number(epoch, EPOCH_MAX) and _is_number(since, SLOT_MAX) and isinstance(rows, tuple)):
        raise WrongMembers("a number is too large, or of another type")
    roles: dict[bool, list[int]] = {True: [], False: []}
    storages, addresses = {}, {}
    for server_id, votes, identity, address in rows:
        if not (_is_number(server_id, SERVER_ID_MAX) and isinstance(identity, bytes) and isinstance(address, str)):
            raise WrongMembers("a server has another form")
        roles[votes].append(server_id)
        if identity:
            storages[server_id] = identity
        if address:
            addresses[server_id] = address
    wrong = [identity for identity in storages.values() if len(identity) != IDENTITY_BYTES]
    if wrong or any(len(address) > ADDRESS_CHARS_MAX for address in addresses.values()):
        raise WrongMembers("an identity or an address has another length")
    if first != -1 and first not in roles[True]:
        raise WrongMembers("a server that does not vote leads first")
    if not all(_is_number(server_id, SERVER_ID_MAX) for ids in (retired, permanent) for server_id in ids):
        raise WrongMembers("an id is too large, or of another type")
    if replacing is not None and not (isinstance(replacing, tuple) and [type(i) for i in replacing] == [int, int]):
        raise WrongMembers("what is replaced has another form")
    return Members(roles[True], roles[False], epoch, since, first, storages, addresses, retired, replacing, permanent)


def _is_number(value: Any, largest: int) -> bool:
    return type(value) is int and 0 <= value <= min(largest, NUMBER_MAX)
