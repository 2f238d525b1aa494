"""A run of the comparison with fake systems: whose turn it is, who is paused meanwhile, and that all of them end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.compare.__main__ import SYSTEMS
from benchmarks.compare.results import DURABLE_PEERS, MEMORY_PEER
from benchmarks.compare.rows import rows
from benchmarks.compare.run import ATTEMPTS, Comparison, turns
from benchmarks.compare.system import Choices, Load, System, Trouble, Write
from pfsb.bench.client import LoadResult
from pfsb.bench.histogram import Histogram
from pfsb.bench.probe import Moment

RESULT = LoadResult("fake", 100, 0, 0, "", 1.0, 0.1, Histogram(), Moment({}, 1.0, 1.0), Moment({}, 2.0, 2.0))


class Fake(System):
    """A system without processes, whose state is one of up, paused and stopped."""

    name: ClassVar[str] = "fake"
    states: ClassVar[dict[str, str]] = {}
    """State of the cluster of each system, by its name; the same for all fakes."""
    events: ClassVar[list[str]] = []
    on_load: ClassVar[Callable[[Fake, Load], None] | None] = None
    """Called at each load of this system."""

    def __init__(self, directory: Path, servers: int) -> None:
        super().__init__(directory, servers)
        self.leads = 0

    @property
    def key(self) -> str:
        return self.directory.name

    def start(self) -> None:
        assert self.states.get(self.key, "stopped") == "stopped"
        self.states[self.key] = "up"
        self.events.append(f"start {self.key}")

    def pause(self) -> None:
        assert self.states[self.key] == "up"
        self.states[self.key] = "paused"

    def resume(self) -> None:
        assert self.states[self.key] == "paused"
        self.states[self.key] = "up"

    def stop(self) -> None:
        self.states[self.key] = "stopped"
        self.events.append(f"stop {self.key}")

    def load(self, load: Load) -> LoadResult | None:
        if not load.count:
            self.events.append(f"{self.key} {load.kind} {load.connections}x{load.depth}")
        if self.on_load is not None:
            type(self).on_load(self, load)  # type: ignore[misc]
        up = [key for key, state in self.states.items() if state == "up"]
        assert up == [self.key], f"others run during the load of {self.key}: {up}"
        return RESULT

    def wait_leader(self) -> int:
        return self.leads

    def memory(self) -> int:
        return 2**21

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        return "0"

    def configure(self) -> None:
        raise AssertionError("it has no files")

    def command(self, server: int) -> tuple[list[str], dict[str, str]]:
        raise AssertionError("it has no processes")

    def leader(self) -> int | None:
        return self.leads

    def open_writer(self, server: int) -> Write:
        raise AssertionError("nobody writes")

    def position(self, server: int) -> object | None:
        return 1


class AlternationTests(SynchronousTestCase):
    def setUp(self) -> None:
        Fake.states = {}
        Fake.events = []
        self.said: list[str] = []
        self.saved = 0

    def fake(self, called: str, on_load: Callable[[Fake, Load], None] | None = None, **more: object) -> type[Fake]:
        return type(called, (Fake,), {"name": called, "on_load": on_load, **more})

    def comparison(self, keys: str, *systems: type[System]) -> Comparison:
        scratch = Path(self.mktemp()).resolve()
        scratch.mkdir()

        def save() -> None:
            self.saved += 1

        return Comparison(systems, rows(keys), 3, 0.1, 1, 1.0, scratch, save, self.said.append)

    def loads(self) -> list[str]:
        return [event for event in Fake.events if not event.startswith(("start", "stop"))]

    def test_systems_take_turns_at_each_load_and_another_one_begins_each_time(self) -> None:
        """Systems take turns at each load, and each time another one begins. While one is measured all others are
        paused; a fake system fails otherwise."""
        first, second = self.fake("pfsb"), self.fake("etcd")
        self.comparison("1x1,16x1", first, second).run(2)
        one, many = "1x1", "16x1"
        expected = [("pfsb", one), ("etcd", one), ("etcd", many), ("pfsb", many)]
        expected += [("etcd", one), ("pfsb", one), ("pfsb", many), ("etcd", many)]
        self.assertEqual(self.loads(), [f"{name} put {load}" for name, load in expected])
        self.assertEqual([event for event in Fake.events if "start" in event], ["start pfsb", "start etcd"])
        self.assertEqual(Fake.states, {"pfsb": "stopped", "etcd": "stopped"})

    def test_loads_that_are_one_to_peers_are_measured_side_by_side(self) -> None:
        """The rows 8 x 8 and 64 x 1 are two loads for pfsb and one for another system, whose figure counts in both
        rows."""
        self.assertEqual(
            [[row.key for row in turn] for turn in turns(rows("8x8,16x1,64x1,memory"))],
            [["16x1"], ["8x8", "64x1"], ["memory"]],
        )
        comparison = self.comparison("8x8,64x1", self.fake("pfsb"), self.fake("etcd"))
        comparison.run(1)
        self.assertEqual(self.loads(), ["pfsb put 8x8", "pfsb put 64x1", "etcd put 64x1"])
        self.assertEqual(set(comparison.results.rounds[0]["etcd"]), {"8x8", "64x1"})

    def test_rows_that_a_system_lacks_are_not_measured(self) -> None:
        """A row that a system lacks is not measured for it; it is named by its key, or by the operation of its load."""
        lacking = self.fake("PostgreSQL", lacks=frozenset({"get", "memory"}))
        comparison = self.comparison("1x1,get,memory", lacking)
        comparison.run(1)
        self.assertEqual(set(comparison.results.rounds[0]["PostgreSQL"]), {"1x1"})
        self.assertEqual(self.said[-1], "round 1 of 1, writes, 1 x 1, PostgreSQL: 100/s")

    def test_memory_is_measured_in_a_cluster_of_its_own_while_others_are_paused(self) -> None:
        """Memory is measured in a cluster of its own, whose history is only that of the measurement, while all others
        are paused."""
        comparison = self.comparison("1x1,memory", self.fake("pfsb"), self.fake("etcd"))
        comparison.run(1)
        self.assertEqual([found["memory"] for found in comparison.results.rounds[0].values()], [{"values": [2.0]}] * 2)
        self.assertEqual(set(Fake.states.values()), {"stopped"})
        self.assertLess(Fake.events.index("stop etcd-alone"), Fake.events.index("stop etcd"))

    def test_system_in_trouble_is_started_anew_at_its_next_turn(self) -> None:
        """A system in trouble is started anew at its next turn. Meanwhile the others have their turns, and the trouble
        is in the results."""
        left = [Trouble("fell over")]

        def fail(fake: Fake, load: Load) -> None:
            if left:
                raise left.pop()

        comparison = self.comparison("1x1", self.fake("pfsb", fail), self.fake("etcd"))
        comparison.run(2)
        first, second = comparison.results.rounds
        self.assertEqual(first["pfsb"], {"trouble in 1x1": {"trouble": "fell over"}})
        self.assertEqual((set(first["etcd"]), set(second["pfsb"])), ({"1x1"}, {"1x1"}))
        self.assertEqual(Fake.events.count("start pfsb"), 2)
        self.assertIn("round 1 of 2, writes, 1 x 1, pfsb: ! fell over", self.said)

    def test_interruption_ends_all_systems_and_keeps_the_results(self) -> None:
        """An interruption (Ctrl-C) during any load ends all systems and keeps the results."""

        def interrupt(fake: Fake, load: Load) -> None:
            raise KeyboardInterrupt

        comparison = self.comparison("1x1", self.fake("pfsb"), self.fake("etcd", interrupt))
        self.assertRaises(KeyboardInterrupt, comparison.run, 3)
        self.assertEqual(Fake.states, {"pfsb": "stopped", "etcd": "stopped"})
        self.assertEqual(set(comparison.results.rounds[0]["pfsb"]), {"1x1"})

    def test_one_system_that_cannot_be_stopped_does_not_keep_the_others_up(self) -> None:
        """If one system cannot be stopped, the others are stopped all the same, and the run says which one could not
        be, and why."""

        def refuse(fake: Fake) -> None:
            raise OSError("no such luck")

        self.comparison("1x1", self.fake("pfsb", stop=refuse), self.fake("etcd")).run(1)
        self.assertEqual(Fake.states["etcd"], "stopped")
        self.assertIn("! stopping pfsb: no such luck", self.said)

    def test_load_during_which_the_leader_changed_is_repeated(self) -> None:
        """A load during which the leader changed is repeated; if that happens at every load, it is reported as
        trouble."""
        changes = iter([True, False])

        def change(fake: Fake, load: Load) -> None:
            fake.leads += next(changes, True)

        comparison = self.comparison("1x1", self.fake("pfsb", change))
        comparison.run(2)
        self.assertEqual(len(self.loads()), 2 + ATTEMPTS)
        first, second = comparison.results.rounds
        self.assertIn("1x1", first["pfsb"])
        self.assertIn("the leader changed", second["pfsb"]["trouble in 1x1"]["trouble"])

    def test_results_are_saved_after_each_turn(self) -> None:
        """Results are saved after each turn, so a run that is killed loses one turn."""
        self.comparison("1x1,16x1", self.fake("pfsb")).run(2)
        self.assertEqual(self.saved, 4)


class DurabilityTests(SynchronousTestCase):
    def test_each_durable_peer_says_what_makes_it_so(self) -> None:
        """The text by which each durable peer says what makes it durable goes into the file of results."""
        named = {system.name: system for system in SYSTEMS.values()}
        for peer in DURABLE_PEERS:
            self.assertTrue(named[peer].durable)
            self.assertIn("majority", named[peer].durability)
        self.assertFalse(named[MEMORY_PEER].durable)
