"""MembershipChanges: the changes of the membership that clients of a server ask for (SERVERS ADD, REMOVE, MOVE and
REPLACE), and those that the leader makes by itself: it lets servers vote that have learned enough, and removes those
that are replaced (Departure 60).

A change is an operation of the server's own session, EPOCH, with the servers of the next epoch. Everything that can be
known before is checked before it is ordered, and refused with the fate "none". Two servers may order changes for one
epoch at the same time: the second one to be executed changes nothing, since it was made for an epoch that is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from attrs import define, evolve, field, frozen
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.interfaces import Answer, Done, Refused, Result
from pfsb.paxos.members import RETIRED_MAX, SERVERS_MAX, Members, encode_members
from pfsb.paxos.messages import State
from pfsb.paxos.replica import Replica
from pfsb.sessions.cluster_settings import RULES_OF_EPOCHS
from pfsb.sessions.refusals import HANGING, Provisional
from pfsb.sessions.state_machine import EPOCH, SessionStateMachine
from pfsb.sessions.submission import Submission
from pfsb.support.hosts import LookUp, is_of_one_machine, literal, parsed, shown
from pfsb.support.limits import SERVER_ID_MAX

LOOKS_UNTIL_PROMOTED: Final = 3
"""Number of looks in a row, one each half second, at which a server that learns must have kept up until it votes."""
KNOWN_SECONDS: Final = 5.0
"""How long, in seconds, a change waits at most until the other servers have told enough for it (`_NotYet`)."""
ALIVES_SINCE: Final = 5
"""Number of periods of ALIVE, at least, after which a server is expected to have told of a slot: some may be lost, and
clocks differ."""
EXAMPLE: Final = 'as in 127.0.0.1:7404, server4.example.com:7400 or "[::1]:7404"'
MAY_HAPPEN: Final = Refused(
    "UNAVAILABLE",
    "no majority has answered in time; the change may still happen: SERVERS shows whether it has",
    fate="unknown",
)
"""The answer to a change that is under way when its time is over."""

Change = Callable[[Members], "Members | Refused"]
"""Function that makes the servers of the next epoch of those of the present one, or refuses."""


@frozen
class _Asked:
    """A change that a client has asked for, which is executed and not in force yet."""

    answer: Answer
    members: Members
    until: float
    """Clock time at which the client is told, if the change is not in force by then, that its fate is unknown."""


@frozen
class _NotYet(Refused):
    """The refusal of a change that may be possible soon: servers that are heard have not told yet how far they are, or
    what their storages are."""


@define(eq=False)
class MembershipChanges:
    """Checks and orders changes of the membership for one server."""

    log = Logger()

    _server_id: int
    _replica: Replica
    _machine: SessionStateMachine
    _clock: IReactorTime
    _seconds: float
    """How long, in seconds, a client waits for an answer at most."""
    _submission: Callable[[], Submission]
    _address_of: Callable[[int], str | None]
    """Gives the address of a server, as far as the membership or the configuration has one."""
    look_up: LookUp | None = None
    """How the name of a host is looked up; None: names are taken as they are."""
    _waiting: list[_Asked] = field(init=False, factory=list)
    _is_ordering: bool = field(init=False, default=False)
    """Whether a change of this server is under way in the log."""
    _arus: deque[tuple[float, int]] = field(init=False, factory=deque)
    """(clock time, slot up to which this server had executed) of the last looks, the oldest first."""
    _looks: dict[int, int] = field(init=False, factory=dict)
    """Id of a server that learns -> number of looks in a row at which it has kept up."""
    _held: list[tuple[Change, Answer, float]] = field(init=False, factory=list)
    """(change, whom to answer, clock time at which it is refused) of the changes that are not possible yet."""
    _is_stopped: bool = field(init=False, default=False)

    def stop(self) -> None:
        """Answer nothing more."""
        self._is_stopped = True

    # ------------------------------------------------------------------ asked by clients

    def add(self, server_id: int, address: str, answer: Answer, *, permanent: bool = False) -> None:
        """Add a server, which learns until it votes, or for good if `permanent`. The answer comes when the change is in
        force."""
        self._when_found(address, answer, partial(self._added, server_id, permanent=permanent))

    def move(self, server_id: int, address: str, answer: Answer) -> None:
        """Tell all servers that they reach a server at another address."""
        self._when_found(address, answer, partial(self._moved, server_id))

    def replace(self, former: int, server_id: int, address: str, answer: Answer) -> None:
        """Add a server that takes the place of another one: when it votes, the leader removes that one. The answer
        comes when the new one learns."""
        self._when_found(address, answer, partial(self._replacing, former, server_id))

    def remove(self, server_id: int, answer: Answer) -> None:
        """Remove a server for good."""
        self._replica.perform(self._order, partial(self._removed, server_id), answer)

    def _when_found(self, address: str, answer: Answer, change_to: Callable[[str, Members], Members | Refused]) -> None:
        """Look the host of an address up, and then order the change to it."""
        where = parsed(address)
        if where is None:
            answer(Refused("BADREQUEST", f"{address[:80]!r} is no address, {EXAMPLE}"))
            return
        if not is_of_one_machine(where[0]):
            answer(Refused("BADREQUEST", f"{where[0]} is the address of no single machine; nothing was changed"))
            return
        change = partial(change_to, shown(*where))
        if literal(*where) is not None or self.look_up is None:
            self._replica.perform(self._order, change, answer)
            return
        asked = self.look_up(*where).addTimeout(self._seconds, self._clock)
        asked.addCallbacks(
            lambda found: self._found(where[0], bool(found), answer, change),
            lambda failure: self._not_found(where[0], failure, answer),
        )
        asked.addErrback(lambda failure: self.log.failure("a change of the membership", failure))

    def _found(self, host: str, has_addresses: bool, answer: Answer, change: Change) -> None:
        if self._is_stopped:
            return
        if has_addresses:
            self._replica.perform(self._order, change, answer)
        else:
            answer(Refused("BADREQUEST", f"the host {host} has no address; nothing was changed"))

    def _not_found(self, host: str, failure: Failure, answer: Answer) -> None:
        if not self._is_stopped:
            late = failure.check(TookTooLong)
            why = f"no answer for {self._seconds:g} s" if late else " ".join(failure.getErrorMessage().split())
            answer(Refused("BADREQUEST", f"the host {host} has no address ({why}); nothing was changed"))

    # ------------------------------------------------------------------ what a change makes of the servers

    def _added(self, server_id: int, address: str, now: Members, *, permanent: bool = False) -> Members | Refused:
        if server_id in now.ids:
            return Refused("CONFLICT", f"server {server_id} is a member already")
        if server_id in now.retired:
            return Refused("CONFLICT", f"server {server_id} was removed, and an id is not used again: take another one")
        if not 0 <= server_id <= SERVER_ID_MAX:
            return Refused("BADREQUEST", f"an id is from 0 to {SERVER_ID_MAX}, not {server_id}")
        if now.candidates or now.replacing is not None:
            return _is_under_way(now)
        if len(now.ids) >= SERVERS_MAX:
            return Refused("CONFLICT", f"the cluster has {SERVERS_MAX} servers, and more cannot be")
        taken = self._holder_of(address, now.ids)
        if taken is not None:
            return Refused("CONFLICT", f"{address} is the address of server {taken}")
        return self._next(
            now,
            learners=(*now.learners, server_id),
            addresses={**now.addresses, server_id: address},
            permanent=(*now.permanent, *[server_id] * permanent),
        )

    def _replacing(self, former: int, server_id: int, address: str, now: Members) -> Members | Refused:
        if former not in now.ids:
            return _no_member(former, now)
        if former in now.permanent:
            text = f"server {former} does not vote, so no other takes its place: remove it, and add another"
            return Refused("CONFLICT", text)
        if len(now.retired) >= RETIRED_MAX:
            return _too_many_removed()
        following = self._added(server_id, address, now)
        return following if isinstance(following, Refused) else evolve(following, replacing=(former, server_id))

    def _moved(self, server_id: int, address: str, now: Members) -> Members | Refused:
        if server_id not in now.ids:
            return _no_member(server_id, now)
        if self._address_of(server_id) == address:
            return Refused("CONFLICT", f"{address} is the address of server {server_id} already")
        taken = self._holder_of(address, (i for i in now.ids if i != server_id))
        if taken is not None:
            return Refused("CONFLICT", f"{address} is the address of server {taken}")
        if (now.candidates or now.replacing is not None) and server_id not in now.learners:
            return _is_under_way(now)
        following = self._next(now, addresses={**now.addresses, server_id: address})
        if server_id in now.voters and len(now.voters) > 2:
            # With two servers both are needed in any case, wherever they are.
            return self._if_majority(following, f"while server {server_id} moves", {server_id})
        return following

    def _removed(self, server_id: int, now: Members) -> Members | Refused:
        if server_id not in now.ids:
            return _no_member(server_id, now)
        if now.voters == (server_id,):
            return Refused("CONFLICT", f"server {server_id} is the only one that votes")
        if now.replacing is not None and server_id not in (*now.learners, *now.replacing):
            return _is_under_way(now)
        if now.candidates and server_id not in now.learners:
            return _is_under_way(now)
        if len(now.retired) >= RETIRED_MAX:
            return _too_many_removed()
        following = self._next(
            now,
            voters=[i for i in now.voters if i != server_id],
            learners=[i for i in now.learners if i != server_id],
            permanent=[i for i in now.permanent if i != server_id],
            addresses={i: address for i, address in now.addresses.items() if i != server_id},
            retired=(*now.retired, server_id),
            replacing=None if server_id in (now.replacing or ()) else now.replacing,
        )
        return following if server_id in now.learners else self._if_majority(following, f"without server {server_id}")

    def _next(self, now: Members, **changes: Any) -> Members:
        """The members after these ones, with the given changes; with the storages that this server knows, and the
        server that leads first."""
        following = evolve(now, epoch=now.epoch + 1, since=0, first=-1, storages={}, **changes)
        storages = {i: found for i in following.voters if (found := self._storage_of(i, now)) is not None}
        return evolve(following, storages=storages, first=self._first_of(following))

    def _storage_of(self, server_id: int, now: Members) -> bytes | None:
        """The identity of the storage with which a server votes; None: this server does not know it.

        If the server votes already, that is the storage which an earlier change has named, or one that was admitted, as
        its log position shows (Departure 43), since another storage of that id may have voted before.
        """
        if server_id in now.storages:
            return now.storages[server_id]
        if server_id == self._server_id:
            return self._replica.data.server.storage_identity
        peer = self._replica.peers.by_id.get(server_id)
        if peer is None or (server_id in now.voters and not peer.position):
            return None
        return self._replica.membership.identities.get(server_id)

    def _first_of(self, following: Members) -> int:
        """The server that leads the next epoch first: the present leader if it stays; else the one of the servers that
        are heard which has executed most."""
        leader = self._replica.membership.leader_of(self._replica.data.views.last_installed)
        if leader in following.voters:
            return leader
        if self._server_id in following.voters:
            return self._server_id
        heard = [i for i in following.voters if self._hears(i)]
        peers = self._replica.peers
        return max(heard, key=lambda i: peers.by_id[i].local_aru, default=following.voters[0])

    def _holder_of(self, address: str, server_ids: Iterable[int]) -> int | None:
        return next((i for i in server_ids if self._address_of(i) == address), None)

    def _if_majority(self, following: Members, when: str, away: Iterable[int] = ()) -> Members | Refused:
        """Returns `following` if the voters in it that are there and keep up are a majority of its voters; else the
        refusal."""
        there = [i for i in following.voters if i not in away and self._keeps_up(i)]
        if len(there) >= following.quorum:
            return following
        voters = len(following.voters)
        missing = ", ".join(str(i) for i in following.voters if i not in there and i not in away)
        text = f"{when}: {voters} servers vote, {following.quorum} are needed, {len(there)} are there and keep up"
        text = f"{text} (not server {missing}); nothing was changed" if missing else text
        heard = [i for i in following.voters if i not in away and (i in there or self._hears(i))]
        return (_NotYet if len(heard) >= following.quorum else Refused)("CONFLICT", text)

    def _if_known(self, following: Members | Refused) -> Members | Refused:
        """Returns `following` if it holds the storages of all its voters; else the refusal.

        Servers that come later would take any storage for that of a voter which the change does not know.
        """
        if isinstance(following, Refused):
            return following
        unknown = [i for i in following.voters if i not in following.storages]
        if not unknown:
            return following
        text = f"this server does not know the storage of server {unknown[0]} yet, which the change must name"
        text = f"{text}: ask again soon, or another server; if that one is lost, remove it first"
        return (_NotYet if all(map(self._hears, unknown)) else Refused)("CONFLICT", text)

    def _hears(self, server_id: int) -> bool:
        peers = self._replica.peers
        return server_id in peers.by_id and peers.heard_lately(server_id)

    def _keeps_up(self, server_id: int) -> bool:
        """Whether a server is this one; or is heard, and has executed, but for a window of slots, what this server had
        executed at the last look."""
        if server_id == self._server_id:
            return True
        if not self._hears(server_id):
            return False
        peer = self._replica.peers.by_id[server_id]
        before = self._arus[0][1] if self._arus else 0
        return peer.local_aru + self._replica.window.slots >= before

    # ------------------------------------------------------------------ on the way through the log

    def _order(self, change: Change, answer: Answer, until: float | None = None) -> None:
        """Order a change, in a turn, or refuse it.

        If it is only not possible yet (`_NotYet`), as after a start or just after another change, it waits. At the
        clock time `until` it is refused; None: that is `KNOWN_SECONDS` from now.
        """
        following = self._refusal() or self._if_known(change(self._machine.settings.members))
        now = self._clock.seconds()
        until = now + KNOWN_SECONDS if until is None else until
        if isinstance(following, Members):
            self._submit(following, answer)
        elif isinstance(following, _NotYet) and now < until:
            self._held.append((change, answer, until))
        else:
            self._replica.turn.refuse(answer, Refused(following.code, following.text))

    def _order_held(self) -> None:
        held, self._held = self._held, []
        for change, answer, until in held:
            self._order(change, answer, until)

    def _refusal(self) -> Refused | None:
        """The refusal of any change at this moment; None: changes can be ordered."""
        settings, membership = self._machine.settings, self._replica.membership
        if self._submission().draining:
            return Refused("SHUTDOWN", "this server is stopping; ask another one")
        if not settings.is_born:
            return Refused("UNAVAILABLE", "this server has executed nothing yet; ask another one")
        if self._server_id not in membership.voters:
            voters = ", ".join(map(str, membership.voters))
            return Refused("UNAVAILABLE", f"this server does not vote; ask one that does: {voters}")
        if self._replica.storage_identity.is_newcomer:
            return Refused("UNAVAILABLE", "this server is not admitted yet; ask another one")
        if self._replica.turn.trouble is not None:
            return Refused("UNAVAILABLE", "the disk of this server takes nothing at present; ask another server")
        if settings.values.rules < RULES_OF_EPOCHS:
            text = f"the cluster follows rules {settings.values.rules}, which know no change of the membership"
            return Refused(
                "CONFLICT", f"{text}: say SETTINGS SET rules={RULES_OF_EPOCHS} once every server runs this version"
            )
        if self._is_ordering or settings.members.epoch != membership.epoch or self._waiting:
            return Refused("CONFLICT", "another change of the membership is under way: ask again when it is done")
        return None

    def _submit(self, following: Members, answer: Answer | None) -> None:
        self._is_ordering = True
        answered = partial(self._executed, following, answer)
        self._submission().submit_operation((EPOCH, encode_members(following)), answered, is_asked=answer is not None)

    def _executed(self, following: Members, answer: Answer | None, result: Result) -> None:
        """Called in a turn with the result of a change."""
        self._is_ordering = False
        if isinstance(result, Refused):
            self.log.info("epoch {epoch} of the membership: {text}", epoch=following.epoch, text=result.text)
            if answer is not None:
                self._replica.turn.refuse(answer, MAY_HAPPEN if isinstance(result, Provisional) else result)
        elif answer is not None:
            self._waiting.append(_Asked(answer, following, self._clock.seconds() + self._seconds))

    def answer_in_force(self) -> None:
        """Called at the end of each turn: answer the changes that are in force, since the slot after them is executed
        by a server that votes in the new epoch: then a majority of its voters has begun it.

        A server that a change has removed executes no more, and waits until one of the others tells by ALIVE that it
        has executed that slot. Until then its disk may be needed, and a client that was told would stop it for good.
        """
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        now, present = self._clock.seconds(), self._replica.membership.members
        reached = self._reached_in(present)
        for asked in waiting:
            if present.epoch > asked.members.epoch or (
                present.epoch == asked.members.epoch and reached > present.since
            ):
                done = Done((("epoch", asked.members.epoch),))
                self._replica.turn.answer(partial(_answer_one, asked.answer), [done], HANGING.question)
            elif now >= asked.until:
                self._replica.turn.refuse(asked.answer, MAY_HAPPEN)
            else:
                self._waiting.append(asked)

    def _reached_in(self, present: Members) -> int:
        """The slot up to which a voter of the present epoch has executed, as far as this server knows."""
        if self._server_id in present.voters:
            return self._replica.data.ordering.local_aru
        peers = self._replica.peers.by_id
        return max((peers[i].local_aru for i in present.voters if i in peers), default=0)

    # ------------------------------------------------------------------ servers that learn

    def look(self) -> None:
        """Called every half second: note how far this server is, and at the leader let servers vote that keep up."""
        if self._held:
            self._replica.perform(self._order_held)
        members = self._replica.membership.members
        if members.candidates or members.replacing is not None:
            self._replica.perform(self._look)
        self._note_aru()

    def _note_aru(self) -> None:
        """Note how far this server has executed. The first note that is kept is so old that the others have sent an
        ALIVE since: by a younger one, no server would keep up under load."""
        now, arus = self._clock.seconds(), self._arus
        arus.append((now, self._replica.data.ordering.local_aru))
        old_enough = now - ALIVES_SINCE * self._replica.settings.alive_seconds
        while len(arus) > 1 and arus[1][0] <= old_enough:
            arus.popleft()

    def _look(self) -> None:
        leads = self._replica.data.server.state is State.REG_LEADER
        may_change = leads and self._refusal() is None
        learners = self._replica.membership.members.candidates if may_change else ()
        identities, announced = self._replica.membership.identities, self._machine.settings.announced
        before, self._looks = self._looks, {}
        for server_id in learners:
            if self._keeps_up(server_id) and server_id in identities and server_id in announced:
                self._looks[server_id] = before.get(server_id, 0) + 1
        ready = next((i for i, looks in self._looks.items() if looks >= LOOKS_UNTIL_PROMOTED), None)
        if ready is not None:
            self._promote(ready)
        elif may_change:
            self._remove_replaced()

    def _remove_replaced(self) -> None:
        """Remove the server that is replaced, once the new one votes and a majority without the former one is there."""
        now = self._machine.settings.members
        if now.replacing is None or now.candidates:
            return
        former, new = now.replacing
        following = self._if_known(self._removed(former, now))
        if isinstance(following, Members):
            self.log.info("server {new} votes, and server {former} is removed", new=new, former=former)
            self._submit(following, None)

    def _promote(self, server_id: int) -> None:
        now = self._machine.settings.members
        learners = [i for i in now.learners if i != server_id]
        promoted = self._next(now, voters=(*now.voters, server_id), learners=learners)
        following = self._if_known(self._if_majority(promoted, f"with server {server_id}"))
        if isinstance(following, Members):
            self.log.info("server {server_id} keeps up, and votes from now on", server_id=server_id)
            self._submit(following, None)


def _answer_one(answer: Answer, results: Sequence[Result]) -> None:
    answer(results[0])


def _too_many_removed() -> Refused:
    return Refused("CONFLICT", f"{RETIRED_MAX} servers were removed from this cluster, and more cannot be")


def _is_under_way(now: Members) -> Refused:
    if not now.candidates and now.replacing is not None:
        former, new = now.replacing
        text = f"another change is under way: server {new} votes in the place of server {former}, which is removed by"
        return Refused("CONFLICT", f"{text} itself when a majority of the others is there; ask again then")
    learners = ", ".join(map(str, now.candidates))
    return Refused(
        "CONFLICT",
        f"another change is under way: server {learners} still learns, and votes by itself when it keeps up; "
        f"ask again then, or SERVERS REMOVE {learners}",
    )


def _no_member(server_id: int, now: Members) -> Refused:
    members = ", ".join(map(str, now.ids))
    return Refused("NOTFOUND", f"server {server_id} is no member; they are {members}")
