"""Faults around snapshots: servers that are away until the others have dropped what they lack, and crashes at any step
of taking, fetching and installing a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pfsb.paxos.records import SnapshotRecord
from pfsb.simulator.faults.plan import between
from pfsb.simulator.faults.server_faults import ServerFaults
from pfsb.storage.memory import MemoryDisk

STEPS_OF_TAKING: Final = ("begun", "finishing", "noting")
STEPS_OF_FETCHING: Final = ("fetching", "fetching", "loading", "noting")
"""Names of the moments at which faults crash a server: while it takes a snapshot, and while it fetches one. At noting,
the record that names the snapshot is on its way to the disk."""
STEPS_OF_FILES: Final = ("fetching", "loading", "loading")
"""Names of the moments at which a disk that is full has no room for a snapshot that is fetched."""
LOOK_SECONDS: Final = 0.0001
"""How long, in seconds, a fault pauses between two looks whether a server has come to the moment for its crash."""
LOOKS_MAX: Final = 30_000
"""Maximum number of looks for one crash. If the moment has not come by then, the fault does not happen."""


class SnapshotFaults(ServerFaults):
    """Faults around snapshots. The name of a method is the kind of the fault."""

    def take_snapshot(self) -> None:
        """Let an operator have a server take a snapshot."""
        server_id = self._any_server()
        if server_id is not None:
            self._take(server_id)

    def stay_away(self) -> None:
        """Cut a server off, or crash it, until the others have taken snapshots."""
        self._bring_behind(lambda server_id: None)

    def crash_in_snapshot(self) -> None:
        """Crash a server at some step of taking a snapshot. It restarts soon."""
        server_id, step = self._any_server(), self._rng.choice(STEPS_OF_TAKING)
        if server_id is not None:
            self._take(server_id)
            self._crash_at(server_id, step, LOOKS_MAX)

    def crash_in_fetch(self) -> None:
        """Crash a server that was away, at some step of fetching a snapshot, of loading it, or of noting that it is
        installed. The server restarts soon."""
        step = self._rng.choice(STEPS_OF_FETCHING)
        self._bring_behind(lambda server_id: self._crash_at(server_id, step, LOOKS_MAX))

    def crash_source(self) -> None:
        """Crash the server from which another one fetches a snapshot."""
        self._bring_behind(lambda server_id: self._at_fetch(server_id, self._crash_if_up, LOOKS_MAX))

    def crash_both(self) -> None:
        """Crash the server from which another one fetches a snapshot, and a moment later that one, too."""

        def crash(server_id: int, source: int) -> None:
            self._crash_if_up(source)
            self._later(between(self._rng, 0.001, 0.1), self._crash_if_up, server_id)

        self._bring_behind(
            lambda server_id: self._at_fetch(server_id, lambda source: crash(server_id, source), LOOKS_MAX)
        )

    def cut_source(self) -> None:
        """Cut a server off from the one from which it fetches a snapshot, for a while."""

        def cut(server_id: int, source: int) -> None:
            self._cluster.cut(server_id, source)
            self._later(between(self._rng, 0.5, 5), self._mend, server_id, source)

        self._bring_behind(
            lambda server_id: self._at_fetch(server_id, lambda source: cut(server_id, source), LOOKS_MAX)
        )

    def replace_snapshot(self) -> None:
        """Have the server from which another one fetches a snapshot take the next one."""
        self._bring_behind(lambda server_id: self._at_fetch(server_id, self._take, LOOKS_MAX))

    def fill_in_fetch(self) -> None:
        """Let the disk of a server that was away be full at some step of fetching a snapshot or of checking it. Make
        room a while later."""
        step = self._rng.choice(STEPS_OF_FILES)
        self._bring_behind(lambda server_id: self._fill_at(server_id, step, LOOKS_MAX))

    def lose_snapshot(self) -> None:
        """Crash a server that has dropped slots for its snapshot, and let the snapshot be missing or damaged at its
        next start (Departure 58).

        The server needs a snapshot that is not older, which the others take if a majority has executed the same. So the
        fault does not happen while a server has lost its disk, a snapshot or its digests.
        """
        damage, seconds = self._rng.choice((None, None, 0.0, self._rng.random())), between(self._rng, 0.05, 4)
        able = [i for i in self._cluster.running_ids if self._cluster.is_voter(i) and self._needs_its_snapshot(i)]
        if not able or not self.may_lose_a_disk() or not self._are_all_whole():
            return
        server_id = self._rng.choice(able)
        self._die(server_id)
        if self._needs_its_snapshot(server_id):
            self._marks.counts["snapshot lost"] += 1
            self._spoil(self._cluster.disk(server_id), damage)
        self._later(seconds, self._restart, server_id)

    def _needs_its_snapshot(self, server_id: int) -> bool:
        disk = self._cluster.disk(server_id)
        return disk.snapshot_seq > 0 and disk.gone > 0

    def _are_all_whole(self) -> bool:
        return not (self._is_a_snapshot_lost() or self._cluster.amnesiacs or self._cluster.slipped)

    @staticmethod
    def _spoil(disk: MemoryDisk, damage: float | None) -> None:
        """Let the snapshot with which a server starts be missing, or have a wrong byte at `damage`, a part of its
        size."""
        name = disk.contents.snapshot
        assert name is not None, "the server has one"
        data = bytearray(disk.snapshots.pop(name))
        if damage is not None:
            data[int(damage * len(data))] ^= 0x20
            disk.snapshots[name] = bytes(data)

    # ------------------------------------------------------------------ situations

    def _bring_behind(self, when_back: Callable[[int], None]) -> None:
        """Cut a server off, or crash it, for a while; have the others take snapshots; let the server come back, and
        call `when_back` with it."""
        server_id = self._any_server()
        if server_id is None or len(self._cluster.ids) < 2:
            return
        if self._rng.random() < 0.5:
            self._cluster.isolate(server_id)
        else:
            self._die(server_id)
        away = between(self._rng, 0.5, 4)
        self._later(away, self._others_take, server_id)
        self._later(away + between(self._rng, 0.1, 1), self._come_back, server_id, when_back)

    def _others_take(self, server_id: int) -> None:
        for other in self._cluster.running_ids:
            if other != server_id:
                self._take(other)

    def _come_back(self, server_id: int, when_back: Callable[[int], None]) -> None:
        self._cluster.heal()
        self._restart(server_id)
        when_back(server_id)

    def _take(self, server_id: int) -> None:
        """Have a server take a snapshot, unless it has executed nothing, or its disk is in trouble."""
        if self._cluster.is_running(server_id):
            self._cluster.server_clock(server_id).callLater(0, self._ask, server_id)

    def _ask(self, server_id: int) -> None:
        replica = self._cluster.replica(server_id)
        if replica.data.ordering.local_aru and replica.turn.trouble is None:
            self._marks.counts["snapshot asked for"] += 1
            replica.perform(replica.snapshot_taker.take_now, lambda name: None)

    def _mend(self, a: int, b: int) -> None:
        self._cluster.network.mend(a, b)
        self._cluster.network.mend(b, a)

    def _at_fetch(self, server_id: int, act: Callable[[int], None], looks: int) -> None:
        """Wait until a server fetches a snapshot, and a moment longer; then call `act` with the source."""
        if not looks or not self._cluster.is_running(server_id):
            return
        fetch = self._cluster.replica(server_id).snapshot_fetcher.fetch
        if fetch is None:
            self._later(LOOK_SECONDS, self._at_fetch, server_id, act, looks - 1)
        else:
            self._marks.counts["snapshot disturbed while it is fetched"] += 1
            self._later(between(self._rng, 0.0005, 0.05), act, fetch.source)

    def _crash_at(self, server_id: int, step: str, looks: int) -> None:
        """Wait until a server is at this step of work on a snapshot, and crash it then or a moment later."""
        if not looks or not self._cluster.is_running(server_id):
            return
        if self._is_at(server_id, step):
            self._marks.counts[f"crash while a snapshot is at: {step}"] += 1
            seconds = 0.0 if step == "noting" else between(self._rng, 0.0001, 0.02)
            self._later(seconds, self._crash_if_up, server_id)
        else:
            self._later(LOOK_SECONDS, self._crash_at, server_id, step, looks - 1)

    def _fill_at(self, server_id: int, step: str, looks: int) -> None:
        """Wait until a server is at this step of work on a snapshot, and fill its disk then."""
        if not looks or not self._cluster.is_running(server_id):
            return
        if self._is_at(server_id, step):
            self._marks.counts[f"disk full while a snapshot is at: {step}"] += 1
            self._fill_disk(server_id, (0,))
        else:
            self._later(LOOK_SECONDS, self._fill_at, server_id, step, looks - 1)

    def _is_at(self, server_id: int, step: str) -> bool:
        replica, storage = self._cluster.replica(server_id), self._cluster.storage(server_id)
        match step:
            case "begun":
                return replica.snapshot_taker.file is not None
            case "finishing":
                return replica.snapshot_taker.is_finishing
            case "fetching":
                return replica.snapshot_fetcher.fetch is not None
            case "loading":
                return replica.snapshot_fetcher.loading is not None
            case _:
                groups = storage.pending()
                return any(isinstance(record, SnapshotRecord) for group in groups for record in group.records)
