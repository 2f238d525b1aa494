"""Faults of single servers: crashes, pauses, clocks and disks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pfsb.applications.interfaces import IContext
from pfsb.paxos.peers import Peer
from pfsb.server import DRAIN_SECONDS
from pfsb.simulator.checkers.position_checker import position_of
from pfsb.simulator.cluster.dice import Dice
from pfsb.simulator.faults.injector import FaultInjector
from pfsb.simulator.faults.plan import CLOCKS_BEGIN_SECONDS, DAY_SECONDS, LOOK_SECONDS, LOOKS_MAX, between
from pfsb.storage.memory import MemoryDisk

RESERVE_RECORDS = 3_000
"""Number of records for which room is reserved on a disk that fills: more than a server writes between the moment at
which only the reserved room is left and the moment at which it notices."""

LOSING_VOTERS_MIN = 4
"""Minimum number of voters of which one may lose its disk, in runs that change the membership: another one may be
removed at the same time."""
COPY_STARTS = 3
"""Number of times that a server is started with an older copy of its disk, each time if it has stopped itself, as by a
supervisor."""


class ServerFaults(FaultInjector):
    """Faults of single servers. The name of a method is the kind of the fault."""

    def crash(self) -> None:
        self._crash(self._any_server())

    def crash_leader(self) -> None:
        self._crash(self._cluster.leader())

    def slip(self) -> None:
        """Change a server's digest of the history, as if an error of its memory had made it execute a slot otherwise
        (Departure 40).

        There is at most one such server at a time, and only in a cluster in which the others are a majority: they must
        find it out.
        """
        server_id = self._any_server()
        may_slip = not self._cluster.slipped and not self._is_a_snapshot_lost() and not self._is_change_under_way()
        if server_id is not None and self._cluster.is_voter(server_id) and len(self._voters) > 2 and may_slip:
            self._cluster.slip(server_id)

    def throw_dice(self) -> None:
        """Let the applications of a server go wrong by chance from now on (`Dice`). If the server stops, since a
        majority contradicts it, it is started again some times, as by a supervisor.

        All faults of this kind in a run choose the same server. There is none in a cluster of one or two: the correct
        servers must be a majority.
        """
        server_id = random.Random(f"{self._cluster.seed}/dice").choice(self._cluster.founders)
        is_able = self._cluster.is_running(server_id) and self._cluster.is_voter(server_id)
        if len(self._voters) > 2 and is_able and not self._is_change_under_way():
            chance, is_lasting = self._rng.choice((0.02, 0.2, 1.0)), self._rng.random() < 0.5
            dice_rng = random.Random(self._rng.random())
            self._cluster.throw_dice(server_id, Dice(dice_rng, chance, is_lasting))
            for _ in range(3):
                self._later(between(self._rng, 0.5, 8), self._restart, server_id)

    def crash_loop(self) -> None:
        """Crash a server several times, each time soon after its start, and restart it at once."""
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
        """Crash all servers, as a power loss of the whole cluster."""
        for server_id in self._cluster.running_ids:
            self._crash(server_id)

    def crash_in_turn(self) -> None:
        """Crash a server after it has sent some more frames, so that part of a turn's messages may not have left."""
        server_id = self._any_server()
        if server_id is not None:
            frames = self._rng.choice((1, 2, 3, 5, 20))
            kept, torn = self._rng.choice((0, 0, 1, 2)), self._rng.choice((0, 0, 1, 2))
            self._cluster.doom(server_id, frames, kept, torn)
            self._later(1.0 + between(self._rng, 0.05, 4), self._restart, server_id)

    def crash_in_write(self) -> None:
        """Crash a server while it writes a group of several records; only the first of these get to the disk."""
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
        """The running server that has executed the fewest slots, which writes many records at once when it catches up;
        None: no server runs.
        """
        return min(self._cluster.running_ids, key=self._cluster.aru, default=None)

    def drain(self) -> None:
        """Tell a server to stop, as SIGTERM does: it finishes the commands under way, and stops in order."""
        self._drain(self._any_server())

    def drain_leader(self) -> None:
        self._drain(self._cluster.leader())

    def _drain(self, server_id: int | None, *, hands_over: bool = False) -> None:
        if server_id is None or self._cluster.is_draining(server_id):
            return
        (self._cluster.retire if hands_over else self._cluster.drain)(server_id)
        self._later(DRAIN_SECONDS + between(self._rng, 0.5, 4), self._restart, server_id)

    def leave_a_hole(self) -> None:
        """Let the leader leave the next slot without a proposal, and crash the leader soon after.

        The command FAULT SKIP of a real server has the same effect on the slot.
        """
        leader = self._cluster.leader()
        if leader is not None:
            replica = self._cluster.replica(leader)
            replica.proposals.skipped.add(replica.data.ordering.last_proposed + 1)
            self._later(between(self._rng, 0.05, 1), self._crash_if_up, leader)

    def skip_everywhere(self) -> None:
        """Tell every running server to leave the same next slot without a proposal whenever it leads."""
        ordering = [self._cluster.replica(i).data.ordering for i in self._cluster.running_ids]
        if ordering:
            slot = 1 + max(max(each.last_proposed, each.global_history.top) for each in ordering)
            for server_id in self._cluster.running_ids:
                self._cluster.replica(server_id).proposals.skipped.add(slot)

    def _crash_if_up(self, server_id: int) -> None:
        if self._cluster.is_running(server_id):
            self._crash(server_id)

    def _crash(self, server_id: int | None) -> None:
        if server_id is not None:
            self._die(server_id)
            self._later(between(self._rng, 0.05, 4), self._restart, server_id)

    def _die(self, server_id: int) -> None:
        """Crash a server. Chance decides how many of the records that are being written get to its disk, and how many
        bytes of a snapshot that it fetches."""
        pending = self._cluster.storage(server_id).pending_groups()
        kept = self._rng.randint(0, len(pending))
        torn = self._rng.randint(0, pending[kept]) if kept < len(pending) and self._rng.random() < 0.5 else 0
        fetched = self._rng.choice((0, 1, 100)) if "snapshots" in self._parameters.families else 0
        self._marks.crash(kept, torn)
        self._cluster.crash(server_id, kept, torn, fetched)

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
        """Give a server a clock that runs at another rate, and may be wrong by a day, from its next start on.

        A server that runs is crashed, and restarts soon.
        """
        server_id = self._rng.choice(self._cluster.ids)
        server = self._cluster.servers[server_id]
        server.rate = between(self._rng, 0.5, 2)
        server.clock_offset = CLOCKS_BEGIN_SECONDS + self._rng.choice((0.0, 0.0, -DAY_SECONDS, DAY_SECONDS, 0.7))
        if self._cluster.is_running(server_id):
            self._crash(server_id)

    def wall_clock(self) -> None:
        """Set the clock of a machine wrong by up to a day. Its server uses the new time from its next start on."""
        server = self._cluster.servers[self._rng.choice(self._cluster.ids)]
        server.clock_offset = CLOCKS_BEGIN_SECONDS + self._rng.uniform(-DAY_SECONDS, DAY_SECONDS)

    def run_out_of_memory(self) -> None:
        """Let the next command of an application fail at one server, before or after it has changed something.

        The server stops, and starts again a while later. The fault goes away when faults cease.
        """
        server_id = self._any_server()
        if server_id is None:
            return
        catalogue = self._cluster.process(server_id).server.catalogue
        application = self._rng.choice(catalogue.applications)
        methods = {
            name: getattr(application, name) for name in ("execute", "execute_run") if hasattr(application, name)
        }
        error = self._rng.choice((MemoryError, RecursionError))
        changes_first, restarts_after = self._rng.random() < 0.5, between(self._rng, 0.05, 4)

        def fails(execute: Callable[..., Any], command: Any, context: IContext) -> Any:
            for name, method in methods.items():
                setattr(application, name, method)
            if self._has_ceased or changes_first:
                result = execute(command, context)
            if self._has_ceased:
                return result
            self._marks.counts["command failed for want of memory"] += 1
            self._later(restarts_after, self._restart, server_id)
            raise error

        for name, method in methods.items():
            setattr(application, name, partial(fails, method))

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
        """Let a server's disk be full for two seconds: the server stops, and a restart in this time fails."""
        server_id = self._any_server()
        if server_id is not None:
            self._cluster.servers[server_id].is_disk_full = True
            self._cluster.storage(server_id).fail_next(OSError("no space left on device"))
            self._later(1, self._restart, server_id)
            self._later(2, self._make_room, server_id)
            self._later(3, self._restart, server_id)

    def _make_room(self, server_id: int) -> None:
        self._cluster.servers[server_id].is_disk_full = False

    def hang_disk(self) -> None:
        """Let a server's disk neither answer nor fail for a while, or until the server is healed or dies."""
        self._hang_disk(self._any_server())

    def hang_disk_of_leader(self) -> None:
        self._hang_disk(self._cluster.leader())

    def _hang_disk(self, server_id: int | None) -> None:
        seconds = between(self._rng, 0.1, 20)
        if server_id is not None:
            self._cluster.storage(server_id).hang()
            self._later(seconds, self._let_disk_go_on, server_id, self._cluster.servers[server_id].incarnations)

    def _let_disk_go_on(self, server_id: int, incarnation: int) -> None:
        if self._cluster.is_running(server_id) and self._cluster.servers[server_id].incarnations == incarnation:
            self._cluster.storage(server_id).go_on()

    def fill_disk(self) -> None:
        """Leave a server's disk room for up to 50 more records until it counts as full. Make room a while later.

        The room for `RESERVE_RECORDS` records comes on top, so that no write fails (Departure 45).
        """
        self._fill_disk(self._any_server())

    def fill_disk_of_leader(self) -> None:
        self._fill_disk(self._cluster.leader())

    def fill_all_disks(self) -> None:
        for server_id in self._cluster.ids:
            self._fill_disk(server_id)

    def _fill_disk(self, server_id: int | None, rooms: Sequence[int] = (0, 1, 5, 50)) -> None:
        """Leave a server's disk room for one of these numbers of records, and empty it a while later."""
        room, seconds = self._rng.choice(rooms), between(self._rng, 0.1, 10)
        if server_id is not None:
            disk = self._cluster.disk(server_id)
            disk.reserve_records = RESERVE_RECORDS
            disk.free_records = RESERVE_RECORDS + room
            self._later(seconds, self._empty_disk, disk)

    def _empty_disk(self, disk: MemoryDisk) -> None:
        disk.free_records = None

    def disk_of_seconds(self) -> None:
        """Let each write to a server's disk take up to some seconds."""
        longest = between(self._rng, 1, 4)
        self._cluster.servers[self._rng.choice(self._cluster.ids)].sync_seconds = (longest / 4, longest)

    def lose_disk(self) -> None:
        """Crash a server whose storage identity the others know, and restart it with an empty disk.

        The fault does not happen if, after it, less than a majority of the servers would have kept their disks.
        """
        able = self.able_to_lose_their_disk()
        if able:
            server_id = self._rng.choice(able)
            self._crash(server_id)
            self._cluster.lose_disk(server_id)

    def put_back_old_copy(self) -> None:
        """Copy a server's disk. Later crash the server, and restart it with the copy, as if its log had been cut where
        the copy ends.

        This happens only if the other servers have written down by then that the server's log was longer than the copy.
        Otherwise they could not tell the copy from the server's last disk.
        """
        server_id = self._any_server()
        if server_id is not None and server_id not in self._cluster.amnesiacs:
            copy = self._cluster.disk(server_id).copy()
            self._later(between(self._rng, 0.5, 3), self._put_back, server_id, copy, self._rng.uniform(0.5, 2))

    def _put_back(self, server_id: int, copy: MemoryDisk, seconds: float) -> None:
        cluster = self._cluster
        is_able = self.may_lose_a_disk() and cluster.is_running(server_id)
        if is_able and self._is_known_to_be_past(server_id, copy):
            self._marks.counts["older copy put back"] += 1
            self._die(server_id)
            cluster.lose_disk(server_id, copy)
            self._later(seconds, self._restart, server_id)

    def _is_known_to_be_past(self, server_id: int, copy: MemoryDisk) -> bool:
        """Whether the disks of all other servers say that this server's log was longer than that of `copy`.

        Servers that have lost their own disks are left out.
        """
        whole = [i for i in self._cluster.ids if i != server_id and i not in self._cluster.amnesiacs]
        known = [self._cluster.disk(i).contents.peers.get(server_id) for i in whole]
        return all(peer is not None and peer.position > position_of(copy, server_id) for peer in known)

    def put_back_copy_of_start(self) -> None:
        """Crash a server, copy its disk and start it. Later crash it again, give it the copy in place of its disk, and
        start it with the copy `COPY_STARTS` times.

        So the first start with the copy repeats the incarnation of the start before. The copy is put back only if all
        other servers, except those that have lost their own disks, have counted a vote of that start before: otherwise
        the copy would lack nothing that the others know, and they might admit it.
        """
        server_id = self._any_server()
        if server_id is not None and self._may_be_given_a_copy(server_id):
            self._copy_and_start(server_id, loses_power=False)

    def lose_power_before_copy(self) -> None:
        """Do the same as `put_back_copy_of_start`, except that all servers lose power at once before the server is
        started with the copy of its disk.

        The others then know the last start of the server, and that it has voted, from their disks alone. This happens
        only while no server has lost a part of its disk: the others may know in memory only what such a server had
        before.
        """
        server_id = self._any_server()
        if server_id is not None and not self._cluster.amnesiacs and self._may_be_given_a_copy(server_id):
            self._copy_and_start(server_id, loses_power=True)

    def _copy_and_start(self, server_id: int, *, loses_power: bool) -> None:
        self._die(server_id)
        copy = self._cluster.disk(server_id).copy()
        down = between(self._rng, 0.05, 1)
        self._later(down, self._restart, server_id)
        seconds = [self._rng.uniform(0.05, 2 * number) for number in range(1, COPY_STARTS + 1)]
        # Before a loss of power there is little time, in which the others do not note how far the server has come.
        wait = down + LOOK_SECONDS if loses_power else between(self._rng, 1.5, 5)
        self._later(wait, self._start_copy, server_id, copy, seconds, loses_power, LOOKS_MAX)

    def _start_copy(
        self, server_id: int, copy: MemoryDisk, seconds: list[float], loses_power: bool, looks: int
    ) -> None:
        """Give a server the copy of its disk as soon as all others have counted a vote of its present start, the first
        one after the copy was made, and start it once after each of these `seconds` from then.

        `loses_power` says that all servers are crashed first. If the others have not counted a vote yet, they are
        looked at again later, `looks` times in all.
        """
        cluster = self._cluster
        is_next = cluster.disk(server_id).incarnation == copy.incarnation + 1
        is_able = cluster.is_running(server_id) and self._may_be_given_a_copy(server_id)
        if not looks or not is_next or not is_able or (loses_power and cluster.amnesiacs):
            return
        if not self._all_have_counted_a_vote(server_id, is_on_disk=loses_power):
            self._later(LOOK_SECONDS, self._start_copy, server_id, copy, seconds, loses_power, looks - 1)
            return
        self._marks.counts["copy started after a loss of power" if loses_power else "start repeated with a copy"] += 1
        for each in cluster.running_ids if loses_power else (server_id,):
            self._die(each)
            if each != server_id:
                self._later(self._rng.uniform(0.01, 0.5), self._restart, each)
        cluster.lose_disk(server_id, copy)
        for each_seconds in seconds:
            self._later(each_seconds, self._restart, server_id)

    def _all_have_counted_a_vote(self, server_id: int, *, is_on_disk: bool) -> bool:
        """Whether all other servers have counted a vote of the present start of this server, and, if `is_on_disk`, no
        write is under way at any of them, so that their disks can tell."""
        cluster, start = self._cluster, self._cluster.disk(server_id).start_number
        others = self._whole_others(server_id)
        return all(
            cluster.is_running(i)
            and self._facts_at(i, server_id).voted_in == start
            and (cluster.replica(i).turn.idle or not is_on_disk)
            for i in others
        )

    def lose_last_group(self) -> None:
        """Crash a server when all others know how far its log is, and restart it without the last group of its log.

        The others may know it from a single frame. Those that have lost their own disks are left out.
        """
        server_id = self._any_server()
        if server_id is not None and self._may_be_given_a_copy(server_id):
            self._lose_last_group(server_id, self._cluster.disk(server_id).copy(), LOOKS_MAX)

    def _lose_last_group(self, server_id: int, copy: MemoryDisk, looks: int) -> None:
        cluster = self._cluster
        if not looks or not cluster.is_running(server_id) or not self._may_be_given_a_copy(server_id):
            return
        disk = cluster.disk(server_id)
        if disk.position == copy.position + 1 and self._all_know_more(server_id, position_of(copy, server_id)):
            self._marks.counts["last group lost"] += 1
            cluster.crash(server_id)
            cluster.lose_disk(server_id, copy)
            self._later(between(self._rng, 0.01, 1), self._restart, server_id)
            return
        if disk.position > copy.position + 1:
            copy = disk.copy()
        self._later(LOOK_SECONDS, self._lose_last_group, server_id, copy, looks - 1)

    def _may_be_given_a_copy(self, server_id: int) -> bool:
        """Whether a further server may lose a part of its disk: a minority has, and each of them has noticed it.

        Until then the other servers must not be crashed: only some of them may know what the disk has lost.
        """
        cluster = self._cluster
        is_whole = cluster.is_voter(server_id) and server_id not in cluster.amnesiacs
        return self.may_lose_a_disk() and is_whole and cluster.amnesiacs <= set(cluster.failures)

    def _is_a_snapshot_lost(self) -> bool:
        """Whether a server has lost its snapshot, and no other one has taken its place yet: it may need all others."""
        cluster = self._cluster
        return bool(cluster.checks.without_state) or any(cluster.disk(i).lost_snapshot for i in cluster.ids)

    def may_lose_a_disk(self) -> bool:
        """Whether a further server may lose its disk, or a part of it, as far as the others are concerned."""
        lost = len(self._cluster.amnesiacs)
        is_too_small = self._parameters.joiners and len(self._voters) < LOSING_VOTERS_MIN
        if lost >= (len(self._voters) - 1) // 2 or is_too_small or (lost and not self._are_admitted()):
            return False
        return not (self._is_a_snapshot_lost() or self._is_change_under_way())

    def _are_admitted(self) -> bool:
        """Whether all voters that have kept their disks were admitted: until then each of them needs more others than
        the rest of a majority (Departure 42)."""
        disks = [self._cluster.disk(i) for i in self._voters if i not in self._cluster.amnesiacs]
        views = [disk.contents.views for disk in disks]
        return all(view is not None and view.last_installed > 0 for view in views)

    def _is_change_under_way(self) -> bool:
        """Whether a change of the membership may be under way, which was checked when all servers were well."""
        return False

    @property
    def _voters(self) -> Sequence[int]:
        return self._cluster.checks.electorate.latest.voters

    def _whole_others(self, server_id: int) -> list[int]:
        return [i for i in self._cluster.ids if i != server_id and i not in self._cluster.amnesiacs]

    def _all_know_more(self, server_id: int, position: int) -> bool:
        """Whether all other servers run, and know a higher log position of this server than `position`."""
        others = self._whole_others(server_id)
        return all(self._cluster.is_running(i) and self._facts_at(i, server_id).position > position for i in others)

    def _facts_at(self, server_id: int, about: int) -> Peer:
        """The facts that a running server has about another one; empty ones if it does not know that one yet."""
        return self._cluster.replica(server_id).peers.by_id.get(about, Peer())

    def lose_disk_of_follower(self) -> None:
        """Wait until a new leader leads while the deposed one does not know it. Then empty the disk of a third server.

        The third server restarts with an empty disk. It gets messages only from the deposed leader, and only that
        leader, if any server, gets messages from it.
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
        able = [i for i in self.able_to_lose_their_disk() if i not in (old, new)]
        if old is None or old == new or not able:
            return
        server_id = self._rng.choice(able)
        cluster.crash(server_id)
        cluster.lose_disk(server_id)
        cluster.isolate(server_id)
        cluster.network.mend(old, server_id)
        if self._rng.random() < 0.7:
            # Without this link the server would never hear of the deposed leader.
            cluster.network.mend(server_id, old)
        self._later(between(self._rng, 0.01, 0.3), self._restart, server_id)

    def able_to_lose_their_disk(self) -> list[int]:
        """The servers that may lose their disk now: voters whose loss leaves a majority, and would be noticed."""
        cluster = self._cluster
        if not self.may_lose_a_disk():
            return []
        able = [i for i in cluster.running_ids if i not in cluster.amnesiacs and cluster.is_voter(i)]
        return [i for i in able if self._is_known(i)]

    def _is_known(self, server_id: int) -> bool:
        """Whether the other servers would notice if this one came back with another storage identity.

        A server notices it if the present identity is on its disk. Two kinds of servers are left out: those that have
        lost their own disks, and those whose disk holds a view but no storage identity of another server. The latter
        have voted before they knew the others, a defect that the checkers find only if a disk is lost all the same.
        """
        whole = [i for i in self._cluster.ids if i != server_id and i not in self._cluster.amnesiacs]
        others = [self._cluster.disk(i).contents for i in whole]
        return all(server_id in other.peers or (other.views is not None and len(other.peers) < 2) for other in others)
