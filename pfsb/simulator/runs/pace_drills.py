"""Pace drills at the end of a run: how fast a cluster is on slow disks and lossy links, and after its leader's death.

The other checks of the simulator ask whether all is right in the end. These drills measure: how many updates were
answered, how many copies were sent, and how many views it took. Their bounds hold for the default timers (Departures 48
and 49).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

from attrs import define, evolve, field

from pfsb.paxos.messages import ClientUpdate, Message, Proposal
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.cluster.network import LinkQuality

SYNCS: Final = (0.6, 1.2, 5.0)
"""The times, in seconds, of which the drill `slow_disks` draws one: so long does each write of a disk take."""
SYNCS_MEASURED: Final = 40
"""How long the drill `slow_disks` measures, as a multiple of the time that one write takes."""
SYNCS_PER_UPDATE: Final = 3.2
"""Maximum mean time from one answer of a client to its next in the drill `slow_disks`, where the client always has one
update under way. The unit is the time that one write of a disk takes.

An update needs one write. In addition it may have to wait for the end of a write that is under way already: once at the
disk, and once at the durability gate of the client's server.
"""
COPIES_MAX: Final = 3
"""Maximum number of CLIENT_UPDATEs that are sent for each update, on disks of any speed."""
PROPOSALS_MAX: Final = 2
"""Maximum number of PROPOSALs that each other server is sent for each update, on disks of any speed."""
PROPOSALS_AT_FIRST: Final = 20
"""Number of PROPOSALs that each other server may be sent beyond those of `PROPOSALS_MAX`, since the leader must first
measure how slow the disks have become."""
SLOW_LINK: Final = 0.3
"""Minimum delay, in seconds, of frames from the leader in the drill `slow_links`. All other frames are quick."""
QUICK_LINK_SECONDS: Final = 3.0
"""How long, in seconds, clients ask over quick links before `slow_links` makes the leader's links slow."""
SLOW_LINK_SECONDS: Final = 10.0
SLOW_LINK_PROPOSALS_MAX: Final = 1.5
"""Maximum number of PROPOSALs that each other server is sent for each update, when the links have been slow for
`SLOW_LINK_SECONDS`."""
LOSS: Final = 0.3
"""Share of the frames that is lost on each link, in each direction, in the drill `lossy_links`."""
LOSSY_CLIENTS: Final = 10
LOSSY_SECONDS: Final = 10.0
LOSSY_UPDATES: Final = {3: 150, 5: 100}
"""Number of servers in the cluster -> minimum number of updates that must be answered in each second of the drill
`lossy_links`, on average."""
LOSSY_UPDATES_OTHERWISE: Final = 30
"""Minimum number of updates in each second of the drill `lossy_links`, for clusters whose size is not in
`LOSSY_UPDATES`."""
BETRAYED_SECONDS: Final = 0.25
"""Maximum time, in seconds, from a leader's death until the next leader has ordered an update, if each frame to the
dead server is refused, so that its sender notices the death."""
SILENT_TIMERS: Final = 4
"""Maximum time from a leader's death until the next leader has ordered an update, as a multiple of the Progress_Timer's
default, if frames to the dead server are lost without notice."""
PAUSE_SECONDS: Final = 40.0
"""How long, in seconds, a server is paused in the drill `death_after_a_pause`, while a slot waits for votes there."""
SYNC_BEFORE_A_PAUSE: Final = 0.05
"""How long, in seconds, each write takes in `death_after_a_pause`, so that a slot waits long enough for its votes."""
LOOK_SECONDS: Final = 0.002
PATIENCE_SECONDS: Final = 60.0
"""How long, in seconds, a healed cluster may take to have its timers at their defaults again."""


@define(eq=False)
class Load:
    """Clients, spread over all servers, each of which asks for one update after the other."""

    cluster: SimulatedCluster
    name: str
    clients: int
    asked: int = 0
    answered: int = 0
    copies: Counter[type[Message]] = field(factory=Counter)
    """Class of messages -> how many of them were sent, each counted once for each receiver."""
    _timestamps: dict[str, int] = field(factory=dict)

    def run(self, seconds: float, look_seconds: float = LOOK_SECONDS) -> None:
        """Let the clients send updates for `seconds` of the simulation, and count the copies of messages meanwhile."""
        self.cluster.network.observers.append(self._sent)
        until = self.cluster.now + seconds
        while self.cluster.now < until:
            for number in range(self.clients):
                self._ask_next(number)
            self.cluster.run(look_seconds)
        self.cluster.network.observers.remove(self._sent)

    def finish(self, seconds: float) -> None:
        """Wait until the last updates are answered. Raises AssertionError if that takes more than `seconds`."""
        self.cluster.run_until(lambda: all(map(self._is_answered, self._timestamps)), seconds)

    def _ask_next(self, number: int) -> None:
        client_id = f"{self.name}-{number}"
        if client_id in self._timestamps:
            if not self._is_answered(client_id):
                return
            self.answered += 1
        self._timestamps[client_id] = self._timestamps.get(client_id, 0) + 1
        self.asked += 1
        ids = self.cluster.running_ids
        self.cluster.submit(ids[number % len(ids)], client_id, self._timestamps[client_id], b"x" * 100)

    def _is_answered(self, client_id: str) -> bool:
        return (client_id, self._timestamps[client_id]) in self.cluster.answers

    def _sent(self, sender: int, to: int | None, messages: Sequence[Message]) -> None:
        receivers = len(self.cluster.ids) - 1 if to is None else 1
        for message in messages:
            self.copies[type(message)] += receivers


@define(eq=False)
class PaceDrills:
    """Runs the drills in a cluster without faults, and heals it after each. Raises `Violation`."""

    cluster: SimulatedCluster
    rng: random.Random
    marks: Marks

    def run(self) -> None:
        """Run all drills: four in an order that is drawn at random, then `death_after_a_pause`, and last
        `slow_links`."""
        drills = [self.slow_disks, self.lossy_links, self.silent_death, self.betrayed_death]
        self.rng.shuffle(drills)
        for drill in [*drills, self.death_after_a_pause, self.slow_links]:
            self.settle_pace()
            self.marks.counts[f"drill: {drill.__name__}"] += 1
            self.cluster.tracers.tell(None, "drill", kind=drill.__name__)
            drill()
            heal_all(self.cluster)
        self.settle_pace()

    def slow_disks(self) -> None:
        """Departures 48 and 49: with slow disks there is no election, few messages are sent again, and updates take
        hardly longer than their writes to disk."""
        sync = self.rng.choice(SYNCS)
        view = self._view()
        for server in self.cluster.servers.values():
            server.sync_seconds = (sync, sync)
        load = self._load(f"slow-{sync:g}", 2)
        load.run(SYNCS_MEASURED * sync, 0.02)
        at_least = load.clients * (SYNCS_MEASURED / SYNCS_PER_UPDATE - 1)  # the last one of each is under way
        self._require(self._view() == view, f"with writes of {sync:g} s, view {view} became view {self._view()}")
        self._require(load.answered >= at_least, f"with writes of {sync:g} s, {load.answered} updates were answered")
        copies = load.copies[ClientUpdate]
        self._require(copies <= COPIES_MAX * load.asked, f"{copies} copies of {load.asked} updates were sent")
        proposals, others = load.copies[Proposal], len(self.cluster.ids) - 1
        at_most = (PROPOSALS_MAX * load.asked + PROPOSALS_AT_FIRST) * others
        self._require(proposals <= at_most, f"{proposals} PROPOSALs of {load.asked} updates were sent")
        load.finish(20 * sync)

    def lossy_links(self) -> None:
        """Departure 49: lost messages are repeated so soon that many updates are answered over lossy links
        (`LOSSY_UPDATES`)."""
        self.cluster.network.set_quality(evolve(LinkQuality(), loss=LOSS))
        load = self._load("lossy", LOSSY_CLIENTS)
        load.run(LOSSY_SECONDS)
        at_least = LOSSY_UPDATES.get(len(self.cluster.ids), LOSSY_UPDATES_OTHERWISE) * LOSSY_SECONDS
        lost = f"with {LOSS:.0%} of all frames lost"
        self._require(load.answered >= at_least, f"{lost}, {load.answered} updates were answered")
        heal_all(self.cluster)
        load.finish(PATIENCE_SECONDS)

    def silent_death(self) -> None:
        """G8 and Departure 48: a leader dies, and frames to it are lost without notice. Soon another server leads.

        An update must be answered within `SILENT_TIMERS` times the Progress_Timer.
        """
        self._replace_leader(SILENT_TIMERS * self.cluster.settings.progress_seconds, refusals=False)

    def betrayed_death(self) -> None:
        """Departure 11: a leader dies, and the senders of frames to it are told that it does not run. Another server
        leads almost at once: an update must be answered within `BETRAYED_SECONDS`."""
        self._replace_leader(BETRAYED_SECONDS, refusals=True)

    def death_after_a_pause(self) -> None:
        """Departure 48: a server is paused while a slot waits for votes there. Later its leader dies.

        The server must not count the pause as time that slots take, which would make its Progress_Timer longer. So the
        leader must be replaced as soon as in `silent_death`.
        """
        leader = self.cluster.required_leader()
        for server in self.cluster.servers.values():
            server.sync_seconds = (SYNC_BEFORE_A_PAUSE, SYNC_BEFORE_A_PAUSE)
        paused = next(i for i in self.cluster.ids if i != leader)
        self.cluster.submit(leader, f"pause-{self.cluster.now:g}", 1, b"x")
        self.cluster.run_until(lambda: self._has_open_slot(paused))
        self.cluster.pause(paused)
        self.cluster.run(PAUSE_SECONDS)
        self.cluster.resume(paused)
        self.cluster.run_until(lambda: not self._has_open_slot(paused))
        self.silent_death()

    def slow_links(self) -> None:
        """Departure 49: when frames from the leader become slow for good, it soon sends hardly any PROPOSAL twice.

        A leader that took a late answer to its first PROPOSAL for an early one to a repetition would measure too short
        a time, and go on repeating. There must be no election either.
        """
        self._load("quick-links", len(self.cluster.ids)).run(QUICK_LINK_SECONDS)
        leader, view = self.cluster.required_leader(), self._view()
        slow = evolve(LinkQuality(), delay_seconds=(SLOW_LINK, 1.2 * SLOW_LINK))
        self.cluster.network.set_quality(slow, [(leader, i) for i in self.cluster.ids if i != leader])
        load = self._load("slow-links", LOSSY_CLIENTS)
        load.run(SLOW_LINK_SECONDS, 0.01)
        asked = load.asked
        load.copies.clear()  # from now on times are measured
        load.run(SLOW_LINK_SECONDS, 0.01)
        self._require(self._view() == view, f"links of the leader are slow, and view {view} became view {self._view()}")
        proposals, others = load.copies[Proposal], len(self.cluster.ids) - 1
        at_most = SLOW_LINK_PROPOSALS_MAX * (load.asked - asked) * others
        self._require(
            proposals <= at_most, f"{proposals} PROPOSALs of {load.asked - asked} updates were sent over slow links"
        )
        load.finish(PATIENCE_SECONDS)

    def _has_open_slot(self, server_id: int) -> bool:
        """Whether the server has a PROPOSAL for a slot of which it does not know yet that it is ordered."""
        ordering = self.cluster.replica(server_id).data.ordering
        slots = ordering.global_history.above(ordering.local_aru)
        return any(slot.proposal is not None and slot.ordered is None for _, slot in slots)

    def _replace_leader(self, seconds: float, *, refusals: bool) -> None:
        before = self.cluster.network.refusals
        self.cluster.network.refusals = refusals
        self.cluster.crash(self.cluster.required_leader())
        load = self._load(f"death-{self.cluster.now:g}", 1)
        load.run(seconds)
        self._require(load.answered > 0, f"the leader died, and after {seconds:g} s no update was answered")
        self.cluster.network.refusals = before
        heal_all(self.cluster)
        load.finish(PATIENCE_SECONDS)

    def settle_pace(self) -> None:
        """Let the cluster order updates until its timers and waits are those of quick disks and whole links, and a vote
        of each server has counted at the leader. With five servers or more, the first one that counts makes an ORDERED
        wait for one more write (Departure 54)."""
        load = self._load(f"settle-{self.cluster.now:g}", len(self.cluster.ids))
        until = self.cluster.now + PATIENCE_SECONDS
        while not self._is_settled():
            self._require(self.cluster.now < until, "the timers do not come down")
            load.run(0.5, 0.01)
        load.finish(PATIENCE_SECONDS)

    def _is_settled(self) -> bool:
        settings, leader = self.cluster.settings, self.cluster.leader()
        if leader is None:
            return False
        views = {self.cluster.replica(i).data.views.last_attempted for i in self.cluster.ids}
        if any(peer.voted_in != peer.start for peer in self.cluster.replica(leader).peers.by_id.values()):
            return False
        replicas = [self.cluster.replica(i) for i in self.cluster.ids]
        return len(views) == 1 and all(
            replica.progress_timer.seconds == settings.progress_seconds
            and replica.slot_time.seconds <= settings.resend_seconds
            and replica.update_timers.round_trip.seconds <= settings.update_seconds
            for replica in replicas
        )

    def _load(self, name: str, clients: int) -> Load:
        return Load(self.cluster, name, clients)

    def _view(self) -> int:
        return max(self.cluster.replica(i).data.views.last_attempted for i in self.cluster.running_ids)

    def _require(self, holds: bool, text: str) -> None:
        if not holds:
            raise Violation(f"{text}\n{self.cluster.picture()}")
