"""What goes wrong in a run: a list that its seed draws beforehand, so that any part of it can be left out.

Each fault throws dice of its own. Without its neighbours it does the same, as far as the cluster is then the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import log
from typing import Final

from attrs import frozen

from pfsb.paxos.messages import Message, PrepareOK
from pfsb.server import DRAIN_SECONDS
from pfsb.simulator.knobs import Knobs, weather
from pfsb.simulator.marks import Marks
from pfsb.simulator.network import Mood
from pfsb.simulator.strangers import frame_of_a_stranger, require_no_change
from pfsb.simulator.world import World

LOOK_SECONDS: Final = 0.0005
LOOKS_MAX: Final = 6_000
"""A crash in the middle of a write waits for one so many times."""
DAY_SECONDS: Final = 86_400.0
CLOCKS_BEGIN_SECONDS: Final = 10 * DAY_SECONDS
"""So that a clock which is wrong by a day does not show a time before all time."""

_KINDS: Final = {
    "network": ("weather", "weather_of_one"),
    "moods": ("late_kind", "late_kind", "lost_kind", "no_more_moods"),
    "crashes": ("crash", "crash", "crash_in_turn", "crash_in_turn", "crash_in_write", "crash_leader", "crash_all"),
    "drains": ("drain", "drain_leader"),
    "holes": ("leave_a_hole", "laggard_leads"),
    "promises": ("laggard_leads", "laggard_leads", "crash_promiser"),
    "pauses": ("pause", "pause", "pause_leader"),
    "clocks": ("clock", "wall_clock"),
    "disks": ("slow_disk", "failing_disk", "full_disk"),
    "lost_disks": ("lose_disk",),
    "strangers": ("stranger",),
}
"""By family; those of the partitions are in the profile."""


@frozen
class Fault:
    """One thing that goes wrong, at `at` seconds from the beginning."""

    number: int
    at: float
    family: str
    kind: str

    def __str__(self) -> str:
        return f"{self.number} {self.kind} at {self.at:.2f} s"


def draw_faults(rng: random.Random, knobs: Knobs) -> tuple[Fault, ...]:
    """Partitions are drawn anew every 0.1 to 10 seconds, everything else comes by chance."""
    rows: list[tuple[float, str, str]] = []
    if "partitions" in knobs.families and knobs.servers > 1:
        at = rng.uniform(0, 2)
        while at < knobs.seconds:
            rows.append((at, "partitions", rng.choice((*knobs.partitions, "heal"))))
            at += between(rng, 0.1, 10)
    families = [family for family in _KINDS if family in knobs.families]
    at = rng.expovariate(knobs.faults_per_second)
    while families and at < knobs.seconds:
        family = rng.choice(families)
        rows.append((at, family, rng.choice(_KINDS[family])))
        at += rng.expovariate(knobs.faults_per_second)
    return tuple(Fault(number, *row) for number, row in enumerate(sorted(rows)))


def between(rng: random.Random, low: float, high: float) -> float:
    """Short times as likely as long ones."""
    return float(low * 2 ** rng.uniform(0, log(high / low, 2)))


class Trouble:
    """Carries faults out on a world, until `cease`: then nothing more goes wrong, and nothing heals by itself."""

    def __init__(self, world: World, knobs: Knobs, marks: Marks) -> None:
        self._world = world
        self._knobs = knobs
        self._marks = marks
        self._rng = random.Random()
        self._has_ceased = False
        self._next_promiser_dies = False
        world.network.observers.append(self._watch_promises)

    def schedule(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._world.clock.callLater(max(0.0, fault.at - self._world.now), self._happen, fault)

    def cease(self) -> None:
        self._has_ceased = True

    def cut_links(self, rng: random.Random) -> None:
        """Into one of the shapes of the profile, at once; nothing will heal them."""
        self._rng = rng
        cut: Callable[[], None] = getattr(self, rng.choice(self._knobs.partitions))
        cut()

    def _happen(self, fault: Fault) -> None:
        if self._has_ceased:
            return
        self._marks.fault(fault.kind)
        self._world.tell(None, "fault", kind=str(fault))
        self._rng = random.Random(f"{self._world.seed}/fault/{fault.number}")
        act: Callable[[], None] = getattr(self, fault.kind)
        act()

    def _later(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        def happen() -> None:
            if not self._has_ceased:
                act(*args)

        self._world.clock.callLater(seconds, happen)

    def _somebody(self) -> int | None:
        up = self._world.running_ids
        return self._rng.choice(up) if up else None

    # ------------------------------------------------------------------ network

    def weather(self) -> None:
        self._world.network.set_quality(weather(self._rng))

    def weather_of_one(self) -> None:
        """Of all links from, or to, one server."""
        one, is_sender = self._rng.choice(self._world.ids), self._rng.random() < 0.5
        others = [i for i in self._world.ids if i != one]
        links = [(one, i) if is_sender else (i, one) for i in others]
        self._world.network.set_quality(weather(self._rng), links)

    # ------------------------------------------------------------------ kinds of messages

    def late_kind(self) -> None:
        """All messages of one kind are slow, and are overtaken by the others."""
        longest = between(self._rng, 0.02, 2)
        self._world.network.passing[self._kind()] = Mood((longest / 4, longest))

    def lost_kind(self) -> None:
        """Of one kind, few messages get through, or none, for a while."""
        kind = self._kind()
        self._world.network.passing[kind] = Mood(loss=self._rng.choice((0.3, 0.7, 1.0)))
        self._later(between(self._rng, 0.1, 5), self._end_mood, kind)

    def _end_mood(self, kind: type[Message]) -> None:
        self._world.network.passing.pop(kind, None)

    def no_more_moods(self) -> None:
        self._world.network.passing.clear()

    def _kind(self) -> type[Message]:
        kind: type[Message] = self._rng.choice(self._knobs.moody)
        return kind

    # ------------------------------------------------------------------ partitions

    def heal(self) -> None:
        self._world.heal()

    def split(self) -> None:
        size = self._rng.randint(1, len(self._world.ids) - 1)
        self._repartition()
        self._world.isolate(*self._rng.sample(self._world.ids, size))

    def isolate(self) -> None:
        self._repartition()
        self._world.isolate(self._rng.choice(self._world.ids))

    def star(self) -> None:
        """The others reach each other only by way of a hub, which does not lead."""
        leader = self._world.leader()
        hub = self._rng.choice([i for i in self._world.ids if i != leader])
        self._repartition()
        self._keep_links(lambda a, b: hub in (a, b))

    def chain(self) -> None:
        order = self._rng.sample(self._world.ids, len(self._world.ids))
        self._repartition()
        self._keep_links(lambda a, b: abs(order.index(a) - order.index(b)) == 1)

    def one_way(self) -> None:
        """Any set of directions, one of each pair at most."""
        self._repartition()
        for a in self._world.ids:
            for b in self._world.ids:
                if a < b and self._rng.random() < 0.6:
                    self._world.cut(*((a, b) if self._rng.random() < 0.5 else (b, a)), one_way=True)

    def mute_leader(self) -> None:
        """It hears, and is not heard."""
        leader = self._world.leader()
        self._repartition()
        for other in self._world.ids:
            if leader is not None and other != leader:
                self._world.cut(leader, other, one_way=True)

    def one_by_one(self) -> None:
        """Links are stopped one after the other, and restored in another order."""
        pairs = [(a, b) for a in self._world.ids for b in self._world.ids if a != b]
        step = self._rng.choice((0.05, 0.2))
        for place, (a, b) in enumerate(self._rng.sample(pairs, len(pairs))):
            self._later(place * step, self._world.network.cut, a, b)
        for place, (a, b) in enumerate(self._rng.sample(pairs, len(pairs)), len(pairs)):
            self._later(place * step, self._world.network.mend, a, b)

    def _repartition(self) -> None:
        self._world.heal()

    def _keep_links(self, keeps: Callable[[int, int], bool]) -> None:
        for a in self._world.ids:
            for b in self._world.ids:
                if a < b and not keeps(a, b):
                    self._world.cut(a, b)

    # ------------------------------------------------------------------ servers

    def crash(self) -> None:
        self._crash(self._somebody())

    def crash_leader(self) -> None:
        self._crash(self._world.leader())

    def crash_all(self) -> None:
        """Power loss of the whole cluster."""
        for server_id in self._world.running_ids:
            self._crash(server_id)

    def crash_in_turn(self) -> None:
        """After some more frames: some of what one turn says has left, the rest has not."""
        server_id = self._somebody()
        if server_id is not None:
            frames = self._rng.choice((1, 2, 3, 5, 20))
            kept, torn = self._rng.choice((0, 0, 1, 2)), self._rng.choice((0, 0, 1, 2))
            self._world.doom(server_id, frames, kept, torn)
            self._later(1.0 + between(self._rng, 0.05, 4), self._restart, server_id)

    def crash_in_write(self) -> None:
        """While several records are on their way to the disk; some of them get there."""
        self._crash_in_write(self._hindmost() if self._rng.random() < 0.5 else self._somebody(), LOOKS_MAX)

    def _crash_in_write(self, server_id: int | None, looks: int) -> None:
        if server_id is None or not self._world.is_running(server_id) or not looks:
            return
        sizes = self._world.storage(server_id).pending_groups()
        if sizes and sizes[0] > 1:
            torn = self._rng.randint(1, sizes[0] - 1)
            self._marks.crash(0, torn)
            self._world.crash(server_id, 0, torn)
            self._later(between(self._rng, 0.05, 4), self._restart, server_id)
        else:
            self._later(LOOK_SECONDS, self._crash_in_write, server_id, looks - 1)

    def _hindmost(self) -> int | None:
        """Who has executed least: it learns much at once."""
        return min(self._world.running_ids, key=self._world.aru, default=None)

    def drain(self) -> None:
        """As SIGTERM does: a server lets its clients finish what is under way, and stops in order."""
        self._drain(self._somebody())

    def drain_leader(self) -> None:
        self._drain(self._world.leader())

    def _drain(self, server_id: int | None) -> None:
        if server_id is None or self._world.is_draining(server_id):
            return
        self._world.drain(server_id)
        self._later(DRAIN_SECONDS + between(self._rng, 0.5, 4), self._restart, server_id)

    def leave_a_hole(self) -> None:
        """The leader leaves out a number, as FAULT SKIP makes it do, and dies when it has gone on."""
        leader = self._world.leader()
        if leader is not None:
            replica = self._world.replica(leader)
            replica.proposals.skipped.add(replica.data.ordering.last_proposed + 1)
            self._later(between(self._rng, 0.05, 1), self._crash_if_up, leader)

    def laggard_leads(self) -> None:
        """Who leads next is out of reach for a while; when it is back, the leader dies."""
        leader = self._world.leader()
        if leader is not None and len(self._world.ids) > 2:
            view = self._world.replica(leader).data.views.last_installed
            next_leader = self._world.replica(leader).membership.leader_of(view + 1)
            self._repartition()
            self._world.isolate(next_leader)
            self._later(between(self._rng, 0.2, 2), self._laggard_is_back, leader)

    def crash_promiser(self) -> None:
        """Whoever next promises something in several parts dies when some of them may have left, and is back at once."""
        self._next_promiser_dies = True

    def _watch_promises(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        is_in_parts = any(isinstance(message, PrepareOK) and message.parts > 1 for message in messages)
        if self._next_promiser_dies and is_in_parts:
            self._next_promiser_dies = False
            self._later(self._rng.choice((0.001, 0.05)), self._crash_and_restart, server_id)

    def _crash_and_restart(self, server_id: int) -> None:
        if self._world.is_running(server_id):
            self._world.crash(server_id)
            self._later(between(self._rng, 0.01, 0.3), self._restart, server_id)

    def _laggard_is_back(self, leader: int) -> None:
        self._repartition()
        self._crash_if_up(leader)

    def _crash_if_up(self, server_id: int) -> None:
        if self._world.is_running(server_id):
            self._crash(server_id)

    def _crash(self, server_id: int | None) -> None:
        """What of the disk's work gets done is left to chance."""
        if server_id is None:
            return
        pending = self._world.storage(server_id).pending_groups()
        kept = self._rng.randint(0, len(pending))
        torn = self._rng.randint(0, pending[kept]) if kept < len(pending) and self._rng.random() < 0.5 else 0
        self._marks.crash(kept, torn)
        self._world.crash(server_id, kept, torn)
        self._later(between(self._rng, 0.05, 4), self._restart, server_id)

    def _restart(self, server_id: int) -> None:
        if not self._world.is_running(server_id):
            self._world.restart(server_id)

    def pause(self) -> None:
        self._pause(self._somebody())

    def pause_leader(self) -> None:
        self._pause(self._world.leader())

    def _pause(self, server_id: int | None) -> None:
        if server_id is not None:
            self._world.pause(server_id)
            self._later(between(self._rng, 0.1, 60), self._resume, server_id)

    def _resume(self, server_id: int) -> None:
        if self._world.is_running(server_id):
            self._world.resume(server_id)

    def clock(self) -> None:
        """From its next start on, which is soon, a server's clock runs at another rate, or is wrong by a day."""
        server_id = self._rng.choice(self._world.ids)
        server = self._world.servers[server_id]
        server.rate = between(self._rng, 0.5, 2)
        server.clock_offset = CLOCKS_BEGIN_SECONDS + self._rng.choice((0.0, 0.0, -DAY_SECONDS, DAY_SECONDS, 0.7))
        if self._world.is_running(server_id):
            self._crash(server_id)

    def wall_clock(self) -> None:
        """Somebody sets the clock of a machine, by up to a day. The server there goes by it from its next start on."""
        server = self._world.servers[self._rng.choice(self._world.ids)]
        server.clock_offset = CLOCKS_BEGIN_SECONDS + self._rng.uniform(-DAY_SECONDS, DAY_SECONDS)

    # ------------------------------------------------------------------ disks

    def slow_disk(self) -> None:
        server = self._world.servers[self._rng.choice(self._world.ids)]
        longest = between(self._rng, 0.01, 1)
        server.sync_seconds = (longest / 10, longest)

    def failing_disk(self) -> None:
        server_id = self._somebody()
        if server_id is not None:
            self._world.storage(server_id).fail_next(OSError("input/output error"))
            self._later(between(self._rng, 1, 5), self._restart, server_id)

    def full_disk(self) -> None:
        """Until somebody makes room; the server is started again, in vain, before that."""
        server_id = self._somebody()
        if server_id is not None:
            self._world.servers[server_id].is_disk_full = True
            self._world.storage(server_id).fail_next(OSError("no space left on device"))
            self._later(1, self._restart, server_id)
            self._later(2, self._make_room, server_id)
            self._later(3, self._restart, server_id)

    def _make_room(self, server_id: int) -> None:
        self._world.servers[server_id].is_disk_full = False

    def lose_disk(self) -> None:
        """A server that others know comes back with an empty disk. Never so many that a majority has lost theirs."""
        world = self._world
        able = [i for i in world.running_ids if i not in world.amnesiacs and self._is_known(i)]
        if not able or len(world.amnesiacs) >= (len(world.ids) - 1) // 2:
            return
        server_id = self._rng.choice(able)
        self._crash(server_id)
        world.lose_disk(server_id)

    def _is_known(self, server_id: int) -> bool:
        """On the disk of each other server; or they have voted and know nobody, which is for the checks to find."""
        others = [self._world.disk(i).contents for i in self._world.ids if i != server_id]
        return all(server_id in other.peers or (other.views is not None and not other.peers) for other in others)

    # ------------------------------------------------------------------ strangers

    def stranger(self) -> None:
        """A frame that is not of this cluster, or not of this server, arrives."""
        server_id = self._somebody()
        if server_id is not None and len(self._world.ids) > 1:
            frame = frame_of_a_stranger(self._world, server_id, self._rng)
            if frame is not None:
                require_no_change(self._world, server_id, frame)
