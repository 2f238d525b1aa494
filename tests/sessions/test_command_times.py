"""CommandTimes: how long clients wait, by verb and outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Done, Refused, RunResults
from pfsb.sessions.command_times import NOTED_MAX, CommandTimes
from pfsb.support.histogram import SECONDS, Histogram
from tests.examples import examples
from tests.sessions.support import ClusterTestCase, code

REFUSED = Refused("CONFLICT", "no")
OUTCOMES: dict[str, Any] = {"OK": Done(), "CONFLICT": REFUSED, "PENDING": PENDING}


def shown(times: CommandTimes) -> dict[tuple[str, str], tuple[int, list[tuple[float, int]], float]]:
    return {
        key: (each.count, [*each.cumulated()], round(each.sum, 6)) for key, each in sorted(times.histograms().items())
    }


groups = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.0004, 0.0005, 0.003, 0.2, 9.0, -5.0)),
        st.lists(st.tuples(st.sampled_from("GP"), st.sampled_from([*OUTCOMES, "OK", "OK"])), min_size=1, max_size=4)
        | st.integers(1, 5),
    ),
    max_size=9,
)
"""Groups of commands: (seconds until the answer, verb and outcome of each command; or the length of a run of PUTs)."""


class CountTests(SynchronousTestCase):
    @examples(100)
    @given(groups)
    def test_histograms_are_those_of_counting_each_command(self, noted: Sequence[tuple[float, Any]]) -> None:
        """Groups of commands that are counted together give the same histograms as if each command were counted by
        itself."""
        clock = Clock()
        clock.advance(100.0)
        times = CommandTimes(clock.seconds)
        expected: dict[tuple[str, str], Histogram] = {}
        for seconds, group in noted:
            if isinstance(group, int):
                verbs, results = ["PUT"] * group, RunResults(range(1, 1 + group))
                outcomes = ["OK"] * group
            else:
                verbs, outcomes = [verb for verb, _ in group], [outcome for _, outcome in group]
                results = [OUTCOMES[outcome] for outcome in outcomes]
            times.note(100.0 - seconds, [(verb, "key") for verb in verbs], results)
            for key in zip(verbs, outcomes, strict=True):
                expected.setdefault(key, Histogram(SECONDS)).observe(max(0.0, 100.0 - (100.0 - seconds)))
        wanted = {key: (e.count, [*e.cumulated()], round(e.sum, 6)) for key, e in sorted(expected.items())}
        self.assertEqual(shown(times), wanted)

    def test_results_are_not_held_for_long(self) -> None:
        """Results are released as soon as their group is counted, since they may be large."""
        times = CommandTimes(Clock().seconds)
        for _ in range(10 * NOTED_MAX):
            times.note(0.0, [("GET", "key")], [Done()])
            self.assertLess(len(times.noted), NOTED_MAX)
        times.count_noted()
        self.assertEqual(len(times.noted), 0)
        self.assertEqual(times.histograms()["GET", "OK"].count, 10 * NOTED_MAX)


class WaitTests(ClusterTestCase):
    """Times from a command's arrival to its answer, in whatever way it is answered."""

    def setUp(self) -> None:
        self.begin(3)
        self.user = self.connect()
        self.times = self.server().local_clients.times

    def count(self, verb: str, outcome: str = "OK") -> int:
        found = self.times.histograms().get((verb, outcome))
        return 0 if found is None else found.count

    def test_every_way_to_an_answer_is_counted_once(self) -> None:
        """Each way to an answer is counted once: of commands, questions, commands that came together, questions of this
        server's state, HELLO and BYE."""
        user = self.open("user")
        self.do(user, "PUT", "key", "value")
        self.do(user, "GET", "key")
        told = user.ask_all((None, ("PUT", "key", "1")), (None, ("PUT", "key", "2")))
        assert told is not None
        self.answer(told[-1])
        self.answer(user.look("GET", "key"))
        self.answer(user.bye())
        found = {verb: self.count(verb) for verb in ("PUT", "GET", "HELLO", "BYE")}
        self.assertEqual(found, {"PUT": 3, "GET": 2, "HELLO": 1, "BYE": 1})

    def test_wait_for_a_lock_is_counted_with_its_end(self) -> None:
        """The time of a LOCK ends when the lock is granted, and the LOCK is answered."""
        holder = self.connect()
        self.do(holder, "LOCK", "door")
        told = self.user.ask("LOCK", "door")
        self.cluster.run(0.7)
        self.assertEqual(self.count("LOCK"), 1)
        self.do(holder, "UNLOCK", "door")
        self.answer(told)
        self.assertEqual(self.count("LOCK"), 2)
        self.assertGreater(self.times.histograms()["LOCK", "OK"].sum, 0.7)

    def test_refusals_are_counted_by_code(self) -> None:
        """Refusals are counted by code, also those that the server itself gives to a command that waits in vain without
        a majority."""
        self.cluster.isolate(0)
        told = self.user.ask("PUT", "key", "value")
        self.assertEqual(code(self.answer(told)), ("UNAVAILABLE", "unknown"))
        self.assertEqual(self.count("PUT", "UNAVAILABLE"), 1)
        self.assertGreater(self.times.histograms()["PUT", "UNAVAILABLE"].sum, 1.0)

    def test_client_that_is_gone_waits_for_nothing(self) -> None:
        """For a client that has hung up, and gets no answer, no time is counted."""
        self.user.ask("PUT", "key", "value")
        self.user.disconnect()
        self.cluster.run(2.0)
        self.assertEqual(self.count("PUT"), 0)
