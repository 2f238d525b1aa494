"""What goes wrong at one server."""

from __future__ import annotations

from pfsb.server import DRAIN_SECONDS
from pfsb.simulator.faults.injector import FaultInjector
from pfsb.simulator.faults.plan import CLOCKS_BEGIN_SECONDS, DAY_SECONDS, LOOK_SECONDS, LOOKS_MAX, between


class ServerFaults(FaultInjector):
    """Crashes, pauses, clocks and disks."""

    def crash(self) -> None:
        self._crash(self._any_server())

    def crash_leader(self) -> None:
        self._crash(self._cluster.leader())

    def crash_loop(self) -> None:
        """Somebody dies soon after each start, some times, and is started again at once."""
        server_id = self._any_server()
        if server_id is not None:
            self._crash_soon(server_id, self._rng.randint(2, 5))

    def _crash_soon(self, server_id: int, times: int) -> None:
        if not times:
            return
        if self._cluster.is_running(server_id):
            self._die(server_id)
        self._later(between(self._rng, 0.01, 0.3), self._restart, server_id)
        self._later(between(self._rng, 0.5, 3), self._crash_soon, server_id, times - 1)

    def crash_all(self) -> None:
        """Power loss of the whole cluster."""
        for server_id in self._cluster.running_ids:
            self._crash(server_id)

    def crash_in_turn(self) -> None:
        """After some more frames: some of what one turn says has left, the rest has not."""
        server_id = self._any_server()
        if server_id is not None:
            frames = self._rng.choice((1, 2, 3, 5, 20))
            kept, torn = self._rng.choice((0, 0, 1, 2)), self._rng.choice((0, 0, 1, 2))
            self._cluster.doom(server_id, frames, kept, torn)
            self._later(1.0 + between(self._rng, 0.05, 4), self._restart, server_id)

    def crash_in_write(self) -> None:
        """While several records are on their way to the disk; some of them get there."""
        self._crash_in_write(self._least_advanced() if self._rng.random() < 0.5 else self._any_server(), LOOKS_MAX)

    def _crash_in_write(self, server_id: int | None, looks: int) -> None:
        if server_id is None or not self._cluster.is_running(server_id) or not looks:
            return
        sizes = self._cluster.storage(server_id).pending_groups()
        if sizes and sizes[0] > 1:
            torn = self._rng.randint(1, sizes[0] - 1)
            self._marks.crash(0, torn)
            self._cluster.crash(server_id, 0, torn)
            self._later(between(self._rng, 0.05, 4), self._restart, server_id)
        else:
            self._later(LOOK_SECONDS, self._crash_in_write, server_id, looks - 1)

    def _least_advanced(self) -> int | None:
        """Who has executed least: it learns much at once."""
        return min(self._cluster.running_ids, key=self._cluster.aru, default=None)

    def drain(self) -> None:
        """As SIGTERM does: a server lets its clients finish what is under way, and stops in order."""
        self._drain(self._any_server())

    def drain_leader(self) -> None:
        self._drain(self._cluster.leader())

    def _drain(self, server_id: int | None) -> None:
        if server_id is None or self._cluster.is_draining(server_id):
            return
        self._cluster.drain(server_id)
        self._later(DRAIN_SECONDS + between(self._rng, 0.5, 4), self._restart, server_id)

    def leave_a_hole(self) -> None:
        """The leader leaves out a number, as FAULT SKIP makes it do, and dies when it has gone on."""
        leader = self._cluster.leader()
        if leader is not None:
            replica = self._cluster.replica(leader)
            replica.proposals.skipped.add(replica.data.ordering.last_proposed + 1)
            self._later(between(self._rng, 0.05, 1), self._crash_if_up, leader)

    def _crash_if_up(self, server_id: int) -> None:
        if self._cluster.is_running(server_id):
            self._crash(server_id)

    def _crash(self, server_id: int | None) -> None:
        if server_id is not None:
            self._die(server_id)
            self._later(between(self._rng, 0.05, 4), self._restart, server_id)

    def _die(self, server_id: int) -> None:
        """What of the disk's work gets done is left to chance."""
        pending = self._cluster.storage(server_id).pending_groups()
        kept = self._rng.randint(0, len(pending))
        torn = self._rng.randint(0, pending[kept]) if kept < len(pending) and self._rng.random() < 0.5 else 0
        self._marks.crash(kept, torn)
        self._cluster.crash(server_id, kept, torn)

    def _restart(self, server_id: int) -> None:
        if not self._cluster.is_running(server_id):
            self._cluster.restart(server_id)

    def pause(self) -> None:
        self._pause(self._any_server())

    def pause_leader(self) -> None:
        self._pause(self._cluster.leader())

    def _pause(self, server_id: int | None) -> None:
        if server_id is not None:
            self._cluster.pause(server_id)
            self._later(between(self._rng, 0.1, 60), self._resume, server_id)

    def _resume(self, server_id: int) -> None:
        if self._cluster.is_running(server_id):
            self._cluster.resume(server_id)

    def clock(self) -> None:
        """From its next start on, which is soon, a server's clock runs at another rate, or is wrong by a day."""
        server_id = self._rng.choice(self._cluster.ids)
        server = self._cluster.servers[server_id]
        server.rate = between(self._rng, 0.5, 2)
        server.clock_offset = CLOCKS_BEGIN_SECONDS + self._rng.choice((0.0, 0.0, -DAY_SECONDS, DAY_SECONDS, 0.7))
        if self._cluster.is_running(server_id):
            self._crash(server_id)

    def wall_clock(self) -> None:
        """Somebody sets the clock of a machine, by up to a day. The server there goes by it from its next start on."""
        server = self._cluster.servers[self._rng.choice(self._cluster.ids)]
        server.clock_offset = CLOCKS_BEGIN_SECONDS + self._rng.uniform(-DAY_SECONDS, DAY_SECONDS)

    # ------------------------------------------------------------------ disks

    def slow_disk(self) -> None:
        server = self._cluster.servers[self._rng.choice(self._cluster.ids)]
        longest = between(self._rng, 0.01, 1)
        server.sync_seconds = (longest / 10, longest)

    def failing_disk(self) -> None:
        server_id = self._any_server()
        if server_id is not None:
            self._cluster.storage(server_id).fail_next(OSError("input/output error"))
            self._later(between(self._rng, 1, 5), self._restart, server_id)

    def full_disk(self) -> None:
        """Until somebody makes room; the server is started again, in vain, before that."""
        server_id = self._any_server()
        if server_id is not None:
            self._cluster.servers[server_id].is_disk_full = True
            self._cluster.storage(server_id).fail_next(OSError("no space left on device"))
            self._later(1, self._restart, server_id)
            self._later(2, self._make_room, server_id)
            self._later(3, self._restart, server_id)

    def _make_room(self, server_id: int) -> None:
        self._cluster.servers[server_id].is_disk_full = False

    def lose_disk(self) -> None:
        """A server that others know comes back with an empty disk. Never so many that a majority has lost theirs."""
        able = self._able_to_lose_their_disk()
        if able:
            server_id = self._rng.choice(able)
            self._crash(server_id)
            self._cluster.lose_disk(server_id)

    def lose_disk_of_follower(self) -> None:
        """While a leader that was deposed does not know it yet, one who follows the new one loses its disk.

        It starts again where it hears the old leader, and nobody hears it.
        """
        self._await_two_leaders(LOOKS_MAX)

    def _await_two_leaders(self, looks: int) -> None:
        if self._cluster.leader() != self._cluster.oldest_leader():
            self._later(between(self._rng, 0.02, 0.5), self._lose_disk_under_two_leaders)
        elif looks:
            self._later(LOOK_SECONDS, self._await_two_leaders, looks - 1)

    def _lose_disk_under_two_leaders(self) -> None:
        cluster = self._cluster
        old, new = cluster.oldest_leader(), cluster.leader()
        able = [i for i in self._able_to_lose_their_disk() if i not in (old, new)]
        if old is None or old == new or not able:
            return
        server_id = self._rng.choice(able)
        cluster.crash(server_id)
        cluster.lose_disk(server_id)
        cluster.isolate(server_id)
        cluster.network.mend(old, server_id)
        self._later(between(self._rng, 0.01, 0.3), self._restart, server_id)

    def _able_to_lose_their_disk(self) -> list[int]:
        cluster = self._cluster
        if len(cluster.amnesiacs) >= (len(cluster.ids) - 1) // 2:
            return []
        return [i for i in cluster.running_ids if i not in cluster.amnesiacs and self._is_known(i)]

    def _is_known(self, server_id: int) -> bool:
        """On each disk that was not lost; or they have voted and know nobody, which is for the checks to find."""
        whole = [i for i in self._cluster.ids if i != server_id and i not in self._cluster.amnesiacs]
        others = [self._cluster.disk(i).contents for i in whole]
        return all(server_id in other.peers or (other.views is not None and not other.peers) for other in others)
