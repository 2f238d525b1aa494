"""The input of load clients, and the notation of mixes."""

from __future__ import annotations

import io

from twisted.trial.unittest import SynchronousTestCase

from pfsb.bench.plain_load import read_workload
from pfsb.bench.workload import Workload, WrongMix, fill, needs_depth_one, operations


class MixTests(SynchronousTestCase):
    def test_mix_has_weights_and_values_of_the_given_size(self) -> None:
        """The mix has the given weights and values of the given size; a part without a weight has weight 1."""
        put, get, say = operations("put=70,get=29,say", 5, "stale")
        self.assertEqual([put.weight, get.weight, say.weight], [70, 29, 1])
        self.assertEqual(put.steps, ("PUT key-%k vvvvv",))
        self.assertEqual(get.steps, ("GET key-%k read=stale",))

    def test_lock_has_two_steps_and_needs_depth_one(self) -> None:
        """Grants come in any order: with several locks under way, a load client could not match them to requests."""
        locks = operations("lockone", 1)
        self.assertEqual(locks[0].steps, ("LOCK lock", "UNLOCK lock"))
        self.assertTrue(needs_depth_one(locks))
        self.assertFalse(needs_depth_one(operations("put,get,say", 1)))

    def test_error_of_a_wrong_mix_names_the_known_operations(self) -> None:
        """Wrong are an unknown operation, a weight of 0, a weight that is no number, and an empty part."""
        for wrong in ("putt", "put=0", "put=x", "", "put,"):
            self.assertIn("known are put, get", str(self.assertRaises(WrongMix, operations, wrong, 1)))


class RenderTests(SynchronousTestCase):
    def test_workload_is_read_back_as_it_was(self) -> None:
        """The client in Python reads the format that `Workload.render` writes for both clients."""
        targets = [("127.0.0.1", 9400), ("::1", 9401)]
        mix = operations("put=2,lock", 3)
        workload = Workload(targets, mix, connections=3, depth=1, seconds=0.25, warmup=0.5, keys=7, rate=1.5e6)
        found = read_workload(io.StringIO(workload.render()))
        self.assertEqual((found.targets, found.operations), (targets, mix))
        self.assertEqual((found.connections, found.depth, found.keys), (3, 1, 7))
        self.assertEqual((found.seconds, found.warmup, found.count, found.rate), (0.25, 0.5, 0, 1.5e6))

    def test_measured_time_is_not_limited_by_the_limit_of_a_count(self) -> None:
        """The limit of a run with a count does not hold for a run with a fixed time: one of 500 s does not fail after
        120 s."""
        long = Workload([("h", 1)], operations("put", 1), seconds=500.0)
        self.assertGreater(read_workload(io.StringIO(long.render())).limit, 500)

    def test_filling_writes_every_key_once(self) -> None:
        """The workload that fills a cluster writes each key once, in order."""
        filling = fill([("h", 1)], 1_000, 10)
        self.assertEqual((filling.count, filling.keys, filling.sequential), (1_000, 1_000, True))
