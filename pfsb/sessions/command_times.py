"""CommandTimes: how long this server's clients waited for their answers, by verb and outcome, for the metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter, sub
from typing import Any, Final

from pfsb.applications.interfaces import PENDING, Command, Done, Refused, RunResults
from pfsb.support.histogram import SECONDS, Histogram

NOTED_MAX: Final = 64
"""Maximum number of groups of commands that are noted and not counted yet."""

DONE: Final = "OK"
"""The outcome, in the metrics, of a command with a `Done`: one that was neither refused nor is PENDING."""

Noted = tuple[float, float, Sequence[Command], Sequence[Any]]
"""(since, until, commands, results) of commands that came together and were answered together: when they were
submitted, and when their results were given to the front end, in seconds by the server's clock."""

_ALL_DONE: Final = {Done}
_ALL_RUNS: Final = {RunResults}
_verb = itemgetter(0)
_results = itemgetter(3)


class CommandTimes:
    """The times from the submission of each command to its answer, in one histogram for each verb and outcome.

    The commands that were submitted together form a group. When a group is answered, it is only noted, which takes some
    40 instructions of byte code. Up to `NOTED_MAX` groups are counted together later, which takes some 3 instructions
    for each.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds` tells the server's time, in seconds."""
        self._seconds = seconds
        self.noted: list[Noted] = []
        """Groups of answered commands that were noted and are not in the histograms yet."""
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def note(self, since: float, commands: Sequence[Command], results: Sequence[Any]) -> None:
        """Called when the front end has the results of `commands`, which were submitted together at the time `since`,
        in seconds by the server's clock."""
        noted = self.noted
        noted.append((since, self._seconds(), commands, results))
        if len(noted) >= NOTED_MAX:
            self.count_noted()

    def count_noted(self) -> None:
        """Counts all noted groups in the histograms, and forgets the notes. Called also from time to time, so that the
        results in the notes do not stay in memory for long."""
        noted, self.noted = self.noted, []
        if not noted:
            return
        kinds = {*map(type, map(_results, noted))}
        if len(kinds) == 1 or RunResults not in kinds:
            self._count(noted, are_runs=kinds == _ALL_RUNS)
        else:
            self._count([each for each in noted if type(each[3]) is RunResults], are_runs=True)
            self._count([each for each in noted if type(each[3]) is not RunResults], are_runs=False)

    def histograms(self) -> Mapping[tuple[str, str], Histogram]:
        """(verb, outcome) -> the times, in seconds, of the commands of that verb with that outcome.

        The outcome is `DONE`, or the code of a refusal.
        """
        self.count_noted()
        return self._histograms

    def _count(self, noted: Sequence[Noted], *, are_runs: bool) -> None:
        """Counts these groups in the histograms. `are_runs` is True if the results of each group are `RunResults`, so
        that no command was refused."""
        sinces, untils, commands, results = zip(*noted, strict=True)
        seconds = [*map(sub, untils, sinces)]
        if min(seconds) < 0.0:  # the clock was set back
            seconds = [max(0.0, each) for each in seconds]
        verbs = {*map(_verb, chain.from_iterable(commands))}
        if len(verbs) == 1 and (are_runs or {*map(type, chain.from_iterable(results))} == _ALL_DONE):
            self._histogram(verbs.pop(), DONE).observe_all(seconds, [*map(len, commands)])
            return
        kinds: defaultdict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
        for took, group, answers in zip(seconds, commands, results, strict=True):
            are_done = are_runs or {*map(type, answers)} == _ALL_DONE
            outcomes = [DONE] * len(group) if are_done else [*map(_outcome, answers)]
            for kind, count in Counter(zip(map(_verb, group), outcomes, strict=True)).items():
                kinds[kind].append((took, count))
        for kind, counted in kinds.items():
            self._histogram(*kind).observe_all(*zip(*counted, strict=True))

    def _histogram(self, verb: str, outcome: str) -> Histogram:
        found = self._histograms.get((verb, outcome))
        if found is None:
            found = self._histograms[verb, outcome] = Histogram(SECONDS)
        return found


def _outcome(result: Any) -> str:
    if isinstance(result, Refused):
        return result.code
    return "PENDING" if result is PENDING else DONE
