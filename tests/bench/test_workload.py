"""What a load client is told, and how a mix is written."""

from __future__ import annotations

import io

from twisted.trial.unittest import SynchronousTestCase

from pfsb.bench.plain_load import read_workload
from pfsb.bench.workload import Workload, WrongMix, fill, needs_depth_one, operations


class MixTests(SynchronousTestCase):
    def test_mix_has_weights_and_values_of_the_size_asked_for(self) -> None:
        """A part without a weight has 1."""
        put, get, say = operations("put=70,get=29,say", 5, "stale")
        self.assertEqual([put.weight, get.weight, say.weight], [70, 29, 1])
        self.assertEqual(put.steps, ("PUT key-%k vvvvv",))
        self.assertEqual(get.steps, ("GET key-%k read=stale",))

    def test_lock_is_a_pair_and_goes_one_at_a_time(self) -> None:
        """A grant comes when it comes: with several under way nobody could tell whose it is."""
        locks = operations("lockone", 1)
        self.assertEqual(locks[0].steps, ("LOCK lock", "UNLOCK lock"))
        self.assertTrue(needs_depth_one(locks))
        self.assertFalse(needs_depth_one(operations("put,get,say", 1)))

    def test_wrong_mix_is_told_what_is_known(self) -> None:
        """An unknown verb, a weight of nothing, and no number."""
        for wrong in ("putt", "put=0", "put=x", "", "put,"):
            self.assertIn("known are put, get", str(self.assertRaises(WrongMix, operations, wrong, 1)))


class RenderTests(SynchronousTestCase):
    def test_workload_is_read_back_as_it_was(self) -> None:
        """The client in Python reads what the one in C does."""
        targets = [("127.0.0.1", 9400), ("::1", 9401)]
        mix = operations("put=2,lock", 3)
        workload = Workload(targets, mix, connections=3, depth=1, seconds=0.25, warmup=0.5, keys=7, rate=1.5e6)
        found = read_workload(io.StringIO(workload.render()))
        self.assertEqual((found.targets, found.operations), (targets, mix))
        self.assertEqual((found.connections, found.depth, found.keys), (3, 1, 7))
        self.assertEqual((found.seconds, found.warmup, found.count, found.rate), (0.25, 0.5, 0, 1.5e6))

    def test_measured_time_is_not_limited_by_the_limit_of_a_count(self) -> None:
        """A run of 500 s is no failure after 120 s."""
        long = Workload([("h", 1)], operations("put", 1), seconds=500.0)
        self.assertGreater(read_workload(io.StringIO(long.render())).limit, 500)

    def test_filling_writes_every_key_once(self) -> None:
        """In order, as many as there are."""
        filling = fill([("h", 1)], 1_000, 10)
        self.assertEqual((filling.count, filling.keys, filling.sequential), (1_000, 1_000, True))
