"""Servers that are down, lose frames, stand still, or have nothing to do (real processes)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.integration.case import ClusterCase

AWAY_UPDATES = int(os.environ.get("PFSB_TEST_AWAY_UPDATES", "3000"))
"""Number of updates that a server misses; 100000 for the long test."""
IDLE_SECONDS = float(os.environ.get("PFSB_TEST_IDLE_SECONDS", "5"))
"""How long an idle cluster is watched; 300 for the long test."""

LOSS_AT_EACH_END = 1 - 0.7**0.5
"""Probability of losing a frame when it leaves, and again when it arrives: together 30 %."""


class TroubleTests(ClusterCase):
    timeout = 150 + AWAY_UPDATES / 100 + IDLE_SECONDS

    async def test_server_that_was_away_catches_up_while_load_goes_on(self) -> None:
        """A server that was away gets, by reconciliation, the updates that it has missed, while load goes on (section
        5.6)."""
        cluster = await self.start_cluster(4)
        _view, leader = await cluster.wait_leader()
        away = next(server_id for server_id in cluster.ids if server_id != leader)
        await cluster.kill(away)
        load = self.start_load(cluster, AWAY_UPDATES + 4000)
        await load.until(AWAY_UPDATES)
        missed = (await cluster.status(leader))["aru"]
        cluster.start(away)
        await cluster.wait_up([away])
        caught_up = await cluster.digest(away, missed)
        self.assertLess(load.batch.account.answered, load.lines, "it is back before the load has ended")
        self.assertEqual(caught_up, await cluster.digest(leader, missed))
        await self.finish(cluster, load)

    async def test_loss_of_three_frames_in_ten_slows_but_does_not_stop(self) -> None:
        """If three frames in ten are lost, the cluster is slow but goes on, since lost messages are sent again (section
        5.9)."""
        cluster = await self.start_cluster(4, faults=True)
        load = self.start_load(cluster, 2500)
        await load.until(100)
        for server_id in cluster.ids:
            self.assertTrue((await cluster.ask(server_id, f"FAULT LOSS {LOSS_AT_EACH_END:.4f}")).ok)
        before = load.batch.account.answered
        await cluster.pause(4)
        progress = load.batch.account.answered - before
        lost = [(await cluster.status(server_id))["frames"]["lost_by_fault"] for server_id in cluster.ids]
        for server_id in cluster.ids:
            self.assertTrue((await cluster.ask(server_id, "FAULT HEAL")).ok)
        self.assertGreater(progress, 20)
        self.assertGreater(min(lost), 20)
        await self.finish(cluster, load)

    async def test_frozen_leader_finds_out_and_follows(self) -> None:
        """A leader whose process stood still, and which then believes that it leads, finds out and follows another
        one."""
        cluster = await self.start_cluster(4)
        view, frozen = await cluster.wait_leader()
        others = [server_id for server_id in cluster.ids if server_id != frozen]
        load = self.start_load(cluster, 4000)
        await load.until(200)
        cluster.freeze(frozen)
        new_view, leader = await cluster.wait_leader(above=view, server_ids=others)
        self.assertNotEqual(leader, frozen)
        await cluster.pause(5)
        self.assertEqual(list(await cluster.statuses([frozen])), [], "it is frozen")
        cluster.thaw(frozen)

        async def follows() -> bool:
            status = await cluster.status(frozen)
            return bool(status["state"] == "REG_NONLEADER" and status["view"] >= new_view)

        await cluster.wait_for(f"server {frozen} to follow", follows, 30)
        await self.finish(cluster, load)

    async def test_idle_cluster_writes_nothing_and_keeps_its_leader(self) -> None:
        """An idle cluster elects no leader and writes nothing (Departure 10)."""
        cluster = await self.start_cluster(4)
        await self.finish(cluster, self.start_load(cluster, 200))

        async def sessions_are_closed() -> bool:
            return all(status["sessions"] == 0 for status in (await cluster.statuses()).values())

        await cluster.wait_for("the clients' sessions to be closed", sessions_are_closed, 30)
        before = await cluster.wait_equal()
        data = cluster.directory / "var"

        async def last_records_are_written() -> bool:
            files = _files(data)
            await cluster.pause(1)
            return _files(data) == files

        await cluster.wait_for("the last records to be written", last_records_are_written, 30)
        files = _files(data)
        await cluster.pause(IDLE_SECONDS)
        self.assertEqual(_files(data), files)
        self.assertTrue(any(name.endswith(".log") for name in files))
        for status in (await cluster.statuses(cluster.ids)).values():
            self.assertEqual(
                [status[key] for key in ("view", "attempted", "aru")], [before["view"]] * 2 + [before["aru"]]
            )

    async def test_leader_that_is_asked_to_stop_does_so_with_status_0(self) -> None:
        """A leader that gets SIGTERM ends with exit status 0; clients lose nothing, and the other servers go on."""
        cluster = await self.start_cluster(4)
        load = self.start_load(cluster, 1500)
        await load.until(300)
        _view, leader = await cluster.wait_leader()
        self.assertEqual(await cluster.terminate(leader), 0)
        self.assertEqual(len(await load.finish()), load.lines)
        cluster.start(leader)
        await cluster.wait_up([leader])
        await self.finish(cluster, load)
        statuses = [await cluster.terminate(server_id) for server_id in cluster.ids]
        self.assertEqual(statuses, [0] * 4)


class ProcessClusterTests(ClusterCase):
    async def test_no_process_outlives_the_block_even_when_it_fails(self) -> None:
        """Every server process of a `ProcessCluster` ends with its block, even if the block fails, and even one that is
        stopped."""
        cluster = self.make_cluster(2)
        with self.assertRaisesRegex(RuntimeError, "the scenario fails"):
            async with cluster:
                await cluster.start_all()
                pids = cluster.pids
                cluster.freeze(0)
                raise RuntimeError("the scenario fails")
        self.assertEqual([pid for pid in pids if Path(f"/proc/{pid}").exists()], [])
        self.assertEqual(await cluster.ended(0), -signal.SIGKILL)


def _files(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of each file below a directory."""
    found = {path: path.stat() for path in sorted(directory.rglob("*")) if path.is_file()}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}
