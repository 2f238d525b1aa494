"""Many random runs: servers crash, links break, disks are slow, clients repeat themselves (design part 10)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.simulator.runs.random_schedule import RandomRun

SEEDS = range(60)


class RandomRuns(SynchronousTestCase):
    def test_every_promise_is_kept(self) -> None:
        """Safety after every event; at the end, when all is well again, everyone is served and all are equal."""
        views = answers = incarnations = 0
        for seed in SEEDS:
            run = RandomRun(seed)
            try:
                run.run()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, at {run.cluster.now:.3f} s: {error}") from error
            views += max(run.cluster.checks.messages.leaders)
            answers += len(run.cluster.answers)
            incarnations += sum(server.incarnations for server in run.cluster.servers.values())
        # A run in which nothing happens proves nothing.
        self.assertGreater(views, 2 * len(SEEDS))
        self.assertGreater(answers, 20 * len(SEEDS))
        self.assertGreater(incarnations, 5 * len(SEEDS))
