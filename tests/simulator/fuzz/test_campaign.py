"""The loop of the fuzzer: it finds failures, reports them so that they can be repeated, and finds them again with the
same seed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.checkers.violation import require
from pfsb.simulator.fuzz import watchdog
from pfsb.simulator.fuzz.campaign import Campaign, attempt, replay, write_finding
from pfsb.simulator.fuzz.finding import Finding
from pfsb.simulator.fuzz.target import Target
from tests.long import long
from tests.simulator.fuzz import needle

FOREVER = float("inf")


class NeedleTarget(Target):
    """A target that fails for one word of four letters, which is found letter by letter or not at all."""

    name = "needle"

    def __init__(self, guided: bool) -> None:
        self.guided_by = ("tests/simulator/fuzz/needle.py",) if guided else ()
        self.words = (b"\x00",)

    def seeds(self) -> list[bytes]:
        return [b"...."]

    def run(self, data: bytes) -> None:
        needle.read(data)


class MemoryTarget(Target):
    """A target that fails at the third input of one round that contains an exclamation mark."""

    name = "memory"
    inputs_per_round = 400

    def seeds(self) -> list[bytes]:
        return [b"!", b"?"]

    def begin(self, name: str) -> None:
        self._marks = 0

    def run(self, data: bytes) -> None:
        self._marks += b"!" in data
        require(self._marks < 3, "three marks")


class BadInputTarget(Target):
    """A target that calls a function of the test at its first input, such as one that never returns."""

    name = "bad"

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self.was_dropped = False

    def seeds(self) -> list[bytes]:
        return [b"x"]

    def run(self, data: bytes) -> None:
        self._act()

    def drop(self) -> None:
        self.was_dropped = True


class CampaignTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.found: list[Finding] = []

    def campaign(self, target: Target, seed: int = 1) -> Campaign:
        return Campaign(seed, [target], lambda: 0.0, self.found.append)

    def run_rounds(self, campaign: Campaign, rounds: int) -> Campaign:
        for _ in range(rounds):
            campaign.run_round(campaign.records[0], FOREVER)
        return campaign


class SearchTests(CampaignTestCase):
    @long
    def test_inputs_that_reach_new_lines_lead_further(self) -> None:
        """Inputs that reach new lines of code lead to others: four bytes are found one after the other, which would
        take 2**32 inputs by chance."""
        self.run_rounds(self.campaign(NeedleTarget(guided=True)), 60)
        self.assertTrue(self.found)
        self.assertIn("the needle", self.found[0].failure)

    @long
    def test_without_lines_to_go_by_the_needle_is_not_found(self) -> None:
        """Without guidance by lines the failing input of `needle` is not found, so it is the guidance that finds it."""
        self.run_rounds(self.campaign(NeedleTarget(guided=False)), 60)
        self.assertEqual(self.found, [])

    def test_same_seed_tries_the_same(self) -> None:
        """One seed and number of inputs try the same inputs in each campaign; another seed tries others."""
        findings = []
        for seed in (5, 5, 6):
            self.found = []
            self.run_rounds(self.campaign(MemoryTarget(), seed), 2)
            findings.append([(finding.inputs, finding.failure) for finding in self.found])
        self.assertEqual(findings[0], findings[1])
        self.assertNotEqual(findings[0], findings[2])

    def test_targets_get_the_same_share_of_the_time(self) -> None:
        """All targets get the same share of the time: a slow one is not given up, and does not starve the others."""
        now = [0.0]
        times = {"slow": 0.0, "quick": 0.0}

        def target(name: str, seconds: float) -> Target:
            def act() -> None:
                now[0] += seconds
                times[name] += seconds

            made = BadInputTarget(act)
            made.inputs_per_round = 10
            return made

        campaign = Campaign(1, [target("slow", 0.5), target("quick", 0.01)], lambda: now[0], self.found.append)
        for _ in campaign.rounds(until=100.0):
            pass
        self.assertGreaterEqual(now[0], 100.0)
        self.assertApproximates(times["slow"], times["quick"], 3.0)


class FindingTests(CampaignTestCase):
    def test_only_the_inputs_that_it_takes_are_reported(self) -> None:
        """A failure that needs three inputs of one round is reported with just these three."""
        self.run_rounds(self.campaign(MemoryTarget()), 1)
        [finding] = self.found
        self.assertEqual(len(finding.inputs), 3)
        self.assertTrue(all(b"!" in data for data in finding.inputs))
        self.assertEqual(finding.failure, "Violation: three marks")
        self.assertIn("test_campaign.py", finding.place)

    def test_file_repeats_the_failure(self) -> None:
        """The written file repeats the failure alone, and the report names the command that does so."""
        self.run_rounds(self.campaign(MemoryTarget()), 1)
        directory = Path(self.mktemp())
        report = write_finding(self.found[0], directory)
        [path] = directory.iterdir()
        self.assertIn(f"pfsb fuzz --replay {path}", report)
        self.assertEqual(Finding.read(path), self.found[0])
        self.assertIn("three marks", replay(MemoryTarget(), Finding.read(path)))
        content = json.loads(path.read_text())
        content["inputs"].pop()
        path.write_text(json.dumps(content))
        self.assertEqual(replay(MemoryTarget(), Finding.read(path)), "")

    def test_same_place_is_reported_a_few_times(self) -> None:
        """A fault at one place of the code that thousands of inputs reach is reported a few times; all of these inputs
        are counted."""
        campaign = self.run_rounds(self.campaign(MemoryTarget()), 10)
        self.assertEqual((len(self.found), campaign.failures), (3, 10))

    def test_state_of_a_failed_round_is_dropped(self) -> None:
        """The state of a round that has failed is dropped: directories and observers of the log do not pile up."""

        def fail() -> None:
            raise KeyError("no such thing")

        target = BadInputTarget(fail)
        self.assertIn("KeyError: 'no such thing'", attempt(target, "state", [b"x"]))
        self.assertTrue(target.was_dropped)


class WatchdogTests(CampaignTestCase):
    def test_input_that_does_not_end_is_a_finding(self) -> None:
        """An input that does not end is a finding, even in code that catches every Exception, as a server does."""
        self.patch(watchdog, "HANG_SECONDS", 0.05)

        def loop() -> None:
            while True:
                try:
                    while True:
                        pass
                except Exception:
                    pass

        found = attempt(BadInputTarget(loop), "state", [b"x"])
        self.assertIn("Hang: does not end within 0.05 s of the processor", found)

    def test_input_that_waits_is_a_hang_only_after_long(self) -> None:
        """An input that waits is a hang only after a long time: on a busy machine a process may get no time of the
        processor for a while."""
        self.patch(watchdog, "HANG_SECONDS", 0.05)
        self.assertEqual(attempt(BadInputTarget(lambda: time.sleep(0.3)), "state", [b"x"]), "")
        self.patch(watchdog, "WAITING_SECONDS", 0.1)
        found = attempt(BadInputTarget(lambda: time.sleep(5)), "state", [b"x"])
        self.assertIn("Hang: does not end within 0.1 s of waiting", found)

    def test_many_quick_inputs_are_no_hang(self) -> None:
        """Many quick inputs are no hang: the time of one input counts, not that of the round."""
        self.patch(watchdog, "HANG_SECONDS", 0.02)
        self.assertEqual(attempt(BadInputTarget(lambda: sum(range(20_000))), "state", [b"x"] * 500), "")

    def test_input_that_takes_much_memory_is_a_finding(self) -> None:
        """An input that takes much memory is a finding: a small message must not become a large table."""
        megabytes = [100]
        self.patch(watchdog, "megabytes_in_use", lambda: megabytes[0])

        def grow() -> None:
            megabytes[0] += 300

        self.assertIn(
            "Greed: the highest use of memory has grown by 300 MB", attempt(BadInputTarget(grow), "s", [b"x"])
        )
