"""Planted defects are found, each by the check that is there for it, and a correct server passes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Accept, ViewChange
from pfsb.simulator import defects
from pfsb.simulator.defects.all_defects import DEFECTS, describe, planted
from pfsb.simulator.defects.defect import Defects, become, instead_of, override
from pfsb.simulator.defects.expected_catches import CAUGHT, DIRECTED, Catch
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.defect_hunt import MANY_SEEDS, SLIPS, attempt, check_of
from pfsb.simulator.schedules.all_schedules import SCHEDULES
from tests.long import long, longest

BY_DIRECTED_SCHEDULES = {
    "catch-up-left-out": "torn-while-learning",
    "lost-disk-unnoticed": "disk-is-lost",
    "promise-in-part": "promise-of-two-lives",
    "editions-mixed": "promise-of-two-lives",
    "executed-twice": "bound-twice",
    "horizon-ignored": "late-duplicate",
    "prepare-not-answered": "prepare-is-overtaken",
    "holes-left": "hole-without-clients",
    "early-votes-dropped": "votes-overtake",
    "pending-not-dropped": "everyone-comes-back",
    "lock-waits-for-ever": "lock-is-not-free-in-time",
    "read-not-confirmed": "leader-is-not-heard",
    "read-confirmed-by-anyone": "leader-hears-only-confirmations",
    "read-joins-round": "round-is-under-way",
    "read-of-former-life": "answer-to-a-former-life",
    "votes-without-state": "snapshot-is-lost-at-a-start",
    "votes-forgotten": "vote-outlives-a-lost-snapshot",
}
"""Defect -> a directed schedule that shows its situation, to which random runs come by chance only."""

NOT_SHOWN_BY_CHANCE = {
    "accept-not-repeated",
    "failed-fetch-unnoticed",
    "admission-told-early",
    "anybody-vouches",
    "arrived-updates-repeated",
    "back-on-one-word-of-the-leader",
    "back-to-a-lonely-leader",
    "back-while-updates-wait",
    "change-on-full-disk",
    "contested-ignored",
    "copies-in-parts",
    "copy-does-not-notice",
    "copy-is-a-later-start",
    "copy-shuts-out",
    "deaf-server-keeps-sessions",
    "denied-votes-counted",
    "denied-votes-kept",
    "displaced-not-told",
    "doubt-for-ever",
    "dropped-vote-believed",
    "editions-mixed",
    "empty-reply-doubted",
    "far-position-believed",
    "fenced-connection-told",
    "fetchers-forgotten",
    "first-frame-binds",
    "horizon-goes-back",
    "incarnations-not-forced",
    "install-not-told",
    "keyed-copy-unanswered",
    "late-word-admits",
    "list-goes-on-past-change",
    "lost-bytes-not-asked-for",
    "new-storage-few-know",
    "newcomer-goes-back",
    "newcomers-never-vouch",
    "newcomers-tell-all",
    "old-starts-without-incarnation",
    "older-proposal-replaces",
    "older-snapshot-installed",
    "one-lost-group-unnoticed",
    "operators-shut-out",
    "overtaken-is-admitted",
    "overtaken-leader-stays",
    "parts-unbounded",
    "positions-not-written",
    "preference-without-pause",
    "program-fault-stops",
    "promise-at-once",
    "proof-never-renewed",
    "proposals-not-held",
    "read-joins-request",
    "read-joins-round",
    "read-of-former-life",
    "restarted-votes-for-nobody",
    "size-unproved",
    "small-behind-large",
    "snapshot-for-few-slots",
    "snapshot-names-ignored",
    "starts-without-marks",
    "the-dead-count",
    "timer-of-former-writes",
    "told-after-all-writes",
    "told-before-incarnation",
    "told-of-a-view-that-is-over",
    "told-of-far-views",
    "told-slot-not-missed",
    "told-with-own-disk-only",
    "two-lives-count",
    "vote-told-once-forgotten",
    "votes-before-word",
    "wrong-names-told",
    "slots-not-waited-for",
    "no-snapshot-before-admission",
    "storages-not-followed",
    "strangers-not-asked",
    "target-leads-at-once",
    "two-changes-of-one-epoch",
    "window-closed-over-change",
}
"""Defects that only a directed schedule has shown. For most of them, 60 mixed seeds and some hundred seeds of one
profile were tried without a find; more seeds may show them."""

LONG_RUNS = {
    "divergence-unnoticed",
    "full-counts-as-follower",
    "known-holes-skipped",
    "lost-part-not-asked-again",
    "parts-not-asked-for",
    "prepare-not-answered",
    "promise-below-snapshot",
    "proof-ignored",
    "raised-without-pause",
    "told-never",
    "told-too-early",
    "view-not-raised",
    "wrong-aru-for-ever",
}
"""Defects whose pinned run takes from four to thirty times as long as the run of most others: each of them waits for
something that does not happen. All together take nearly half of the time that all pinned runs take."""


def check_that_finds(run: tuple[str, str, int]) -> str:
    """Make one run (name of a planted defect, or "" for a correct server; schedule; seed).

    Returns the check that fails, or "".
    """
    name, schedule, seed = run
    return check_of(attempt(schedule, seed, planted(name) if name else None))


def checks_that_find(runs: Sequence[tuple[str, str, int]]) -> list[str]:
    """Make runs in as many processes as there are processors; returns the check that fails in each."""
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(check_that_finds, runs))


def is_long(name: str, schedule: str) -> bool:
    """Whether the run that shows a defect takes several times as long as others: runs of some schedules and profiles
    have many snapshots, an idle hour, or measure times."""
    profile = PROFILES.get(schedule)
    if profile is None:
        return name in LONG_RUNS or schedule == "snapshots-follow-each-other-fast"
    return name in LONG_RUNS or profile.has_snapshots or profile.has_idle_hour or profile.has_pace_drills


@long
class ExpectedCatchTests(SynchronousTestCase):
    timeout = 600
    """Time limit of each test of this class, in seconds: the longest pinned runs, of the profile pace, take half a
    minute each."""

    def setUp(self) -> None:
        self.addCleanup(self.flushLoggedErrors)

    def _assert_caught(self, table: Mapping[str, Catch], *, by_long_runs: bool) -> None:
        self.maxDiff = None
        pins = {name: catch for name, catch in table.items() if is_long(name, catch.schedule) is by_long_runs}
        found = checks_that_find([(name, catch.schedule, catch.seed) for name, catch in pins.items()])
        expected = {name: catch.check for name, catch in pins.items()}
        self.assertEqual(dict(zip(pins, found, strict=True)), expected)

    def test_every_defect_is_caught_by_its_check(self) -> None:
        """Each pinned seed shows its defect. `python docs/make_broken_table.py --hunt NAME ...` looks for new seeds."""
        self._assert_caught(CAUGHT, by_long_runs=False)

    @longest
    def test_every_defect_of_a_long_run_is_caught_by_its_check(self) -> None:
        """The pinned seeds of schedules and profiles with long runs (`is_long`) show their defects, too."""
        self._assert_caught(CAUGHT, by_long_runs=True)
        self._assert_caught(DIRECTED, by_long_runs=True)

    @longest
    def test_correct_server_passes_with_the_same_seeds(self) -> None:
        """A correct server passes with the pinned seeds: they fail because of the defect only."""
        catches = (*CAUGHT.values(), *DIRECTED.values())
        runs = [("", *pin) for pin in sorted({(catch.schedule, catch.seed) for catch in catches})]
        found = dict(zip(runs, checks_that_find(runs), strict=True))
        self.assertEqual({run: check for run, check in found.items() if check}, {})

    def test_directed_schedules_show_rare_defects(self) -> None:
        """The pinned seeds of directed schedules show their defects; those that `CAUGHT` has as well are run there."""
        others = {name: catch for name, catch in DIRECTED.items() if CAUGHT.get(name) != catch}
        self._assert_caught(others, by_long_runs=False)
        self.assertLessEqual({catch.schedule for catch in DIRECTED.values()}, set(SCHEDULES))

    def test_every_defect_is_pinned(self) -> None:
        """Every planted defect has a pinned run that shows it; one without would be a blind spot of the simulator."""
        self.assertEqual(set(DEFECTS), set(CAUGHT))

    def test_every_defect_is_caught_by_random_runs(self) -> None:
        """Each defect is shown by random runs, since the author of a schedule knows the defect in advance."""
        not_shown = {name for name, catch in CAUGHT.items() if catch.schedule not in PROFILES}
        self.assertEqual(not_shown, NOT_SHOWN_BY_CHANCE)
        self.assertLess(max(catch.seed for catch in CAUGHT.values()), MANY_SEEDS)

    def test_no_defect_is_caught_by_its_own_mistake(self) -> None:
        """No run with a defect ends with an error of the defect's own code: such a defect does not fit the server, and
        shows nothing."""
        self.assertEqual([name for name, catch in CAUGHT.items() if catch.check.startswith(SLIPS)], [])

    def test_defects_that_chance_shows_are_shown_by_a_schedule_too(self) -> None:
        """Each defect that random runs show is shown by a directed schedule, too, at its first seed, however the pinned
        seeds change with the simulator."""
        for name, schedule in BY_DIRECTED_SCHEDULES.items():
            self.assertNotEqual(attempt(schedule, 0, planted(name)), "", name)
            self.assertEqual(attempt(schedule, 0, None), "", name)


class ScheduleTests(SynchronousTestCase):
    """Schedules for faults that come to random runs so seldom that no defect of the list stands for them."""

    def setUp(self) -> None:
        self.addCleanup(self.flushLoggedErrors)

    def test_batch_that_was_learned_first_is_not_the_one_that_was_ordered(self) -> None:
        """A schedule finds a leader that does not settle contested slots: servers execute different batches."""

        def unsettled(process: Any) -> None:
            override(process.replica.prepare.contested, "settle", lambda _: lambda: True)

        for seed in range(3):
            self.assertIn("S1", attempt("bit-flips-and-leader-is-gone", seed, unsettled))
            self.assertEqual(attempt("bit-flips-and-leader-is-gone", seed, None), "")


class RegistryTests(SynchronousTestCase):
    def test_unknown_name_is_refused_with_the_known_names(self) -> None:
        """The error of `pfsb simulate --broken NAME` for an unknown name lists the known ones."""
        error = str(self.assertRaises(KeyError, planted, "no-such-thing"))
        self.assertIn("no-such-thing", error)
        self.assertIn("accept-early", error)

    def test_list_has_each_defect_with_its_source(self) -> None:
        """`pfsb simulate --list-broken` prints each defect with its source."""
        self.assertIn("G11", dict(describe())["holes-left"])
        self.assertEqual([name for name, _ in describe()], list(DEFECTS))

    def test_defects_above_the_protocol_need_sessions(self) -> None:
        """Only defects above the protocol need a cluster with sessions."""
        self.assertTrue(DEFECTS["lock-not-fair"].needs_sessions)
        self.assertFalse(DEFECTS["accept-early"].needs_sessions)

    def test_defects_of_all_modules_have_different_names(self) -> None:
        """Defects of all modules have different names: a table by name would lose one of two."""
        modules = [import_module(module.name) for module in iter_modules(defects.__path__, f"{defects.__name__}.")]
        registries = [value for module in modules for value in vars(module).values() if isinstance(value, Defects)]
        names = [name for registry in registries for name in registry.by_name]
        self.assertEqual(sorted(names), sorted(DEFECTS))

    def test_second_defect_of_a_name_is_refused(self) -> None:
        """A second defect with the name of another is refused: it would hide the first."""
        variants = Defects()
        variants.add("one", "", "")(lambda process: None)
        self.assertRaises(AssertionError, variants.add("one", "", ""), lambda process: None)


class _Clock:
    __slots__ = ("hands",)

    def tell(self) -> str:
        return "late"


class _Watch(_Clock):
    __slots__ = ()

    def tell(self) -> str:
        return "early"


class PlantingTests(SynchronousTestCase):
    def test_override_wraps_the_method_of_one_object(self) -> None:
        """`override` replaces the method of one object, and other objects of the class keep theirs."""

        class Speaker:
            def say(self) -> str:
                return "yes"

        broken, whole = Speaker(), Speaker()
        override(broken, "say", lambda say: lambda: say() + " and no")
        self.assertEqual((broken.say(), whole.say()), ("yes and no", "yes"))

    def test_override_of_a_missing_method_fails(self) -> None:
        """An override of a method that does not exist fails: a defect must not get lost because a method was
        renamed."""
        self.assertRaises(AttributeError, override, object(), "renamed", lambda method: method)

    def test_function_instead_of_a_method_is_given_the_method_first(self) -> None:
        """A function that `instead_of` puts in the place of a method gets the method first, then the arguments of the
        call."""

        class Speaker:
            def say(self, word: str, *, loud: bool = False) -> str:
                return word.upper() if loud else word

        speaker = Speaker()

        @instead_of(speaker, "say")
        def broken(say: Callable[..., str], word: str, *, loud: bool = False) -> str:
            return say(word, loud=not loud)

        self.assertEqual((speaker.say("yes"), speaker.say("no", loud=True)), ("YES", "no"))
        self.assertRaises(AttributeError, instead_of(speaker, "renamed"), broken)

    def test_become_changes_one_object_with_slots(self) -> None:
        """`become` changes the class of one object, since an object with slots takes no methods of its own."""
        broken, whole = _Clock(), _Clock()
        become(broken, _Watch)
        become(broken, _Watch)
        self.assertEqual((broken.tell(), whole.tell()), ("early", "late"))

    def test_become_an_unrelated_class_fails(self) -> None:
        """An object can become one of a subclass only: another class is refused."""
        self.assertRaises(AssertionError, become, _Clock(), Accept)


@long
class CheckOfTests(SynchronousTestCase):
    def test_numbers_and_values_are_left_out(self) -> None:
        """The text by which a run's check is known leaves out numbers and values, so it is the same with another
        seed."""
        texts = (Accept(1, 2, (3,), bytes(16)), ViewChange(1, 2))
        for text in texts:
            self.assertEqual(
                check_of(f"Violation: server 4 has view 0 on disk, but sends {text}\nmore"),
                f"Violation: server N has view N on disk, but sends {type(text).__name__}",
            )

    def test_names_of_properties_stay(self) -> None:
        """The text by which a check is known keeps names of properties such as S1."""
        self.assertEqual(check_of("Violation: S1: slot 7 is (1, 2)"), "Violation: S1: slot N is")

    def test_tickets_are_left_out(self) -> None:
        """The text by which a check is known leaves out the ticket of a command."""
        self.assertEqual(check_of("Violation: ('a b', 3) ran in slot 7"), "Violation: X ran in slot N")
