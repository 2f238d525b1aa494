"""The loop of the fuzzer: rounds of inputs for each target, and a file for each input that fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

from attrs import define, field

from pfsb.simulator.fuzz.coverage import LineCoverage
from pfsb.simulator.fuzz.finding import Finding
from pfsb.simulator.fuzz.mutation import Mutation
from pfsb.simulator.fuzz.target import Target
from pfsb.simulator.fuzz.watchdog import Hang, Watchdog

ROUND_SECONDS: Final = 2.0
"""How long, in seconds, a round goes on at most, so that all targets get their share."""
FRESH: Final = 0.7
"""Share of inputs that are made from real input of the present state (`Target.fresh`), if the target has any; the
others are made from kept inputs (`TargetRecord.kept`)."""
KEPT_MAX: Final = 2_000
"""Maximum number of inputs that are kept to be changed into further inputs of a target: those that it began with
(`Target.seeds`), and those that have reached new lines of the code."""
SHORTENING_SECONDS: Final = 20.0
"""How long, in seconds, rounds are repeated to find a shorter way to one failure."""
CHECKS: Final = "pfsb/simulator/checkers/violation.py"
"""End of the path of the file with `require` and `forbid`, which raise the violations of all checks.

The place of a finding is never in this file, but in the check that has called it.
"""
FILES_PER_PLACE: Final = 3
"""Maximum number of files for failures of one target at one place; further failures there are only counted."""


@define(eq=False)
class TargetRecord:
    """A target, the inputs that are kept to be changed into further ones (`kept`, `Target.seeds` at first), and figures
    about the rounds that the campaign has run with the target so far.
    """

    target: Target
    coverage: LineCoverage
    kept: list[bytes]
    inputs: int = 0
    rounds: int = 0
    seconds: float = 0.0
    failures: int = 0


@define(eq=False)
class Campaign:
    """Gives changed inputs to some targets, in rounds.

    The random numbers of a round follow from the campaign's seed, the target's name and the number of the round.
    """

    seed: int
    targets: Sequence[Target]
    _clock: Callable[[], float]
    """Returns the time in seconds, to give each target the same share."""
    _report: Callable[[Finding], None]
    """Called with each new finding, as short as it could be made."""
    records: list[TargetRecord] = field(init=False)
    _places: dict[str, int] = field(factory=dict, init=False)

    @records.default
    def _make_records(self) -> list[TargetRecord]:
        return [TargetRecord(target, LineCoverage(target.guided_by), list(target.seeds())) for target in self.targets]

    @property
    def failures(self) -> int:
        return sum(record.failures for record in self.records)

    @property
    def inputs(self) -> int:
        return sum(record.inputs for record in self.records)

    def rounds(self, until: float) -> Iterator[TargetRecord]:
        """Run rounds until the time `until`, each of the target that has had the least time so far."""
        while (begun := self._clock()) < until:
            record = min(self.records, key=lambda each: each.seconds)
            self.run_round(record, min(until, begun + ROUND_SECONDS))
            record.seconds += self._clock() - begun
            yield record

    def run_round(self, record: TargetRecord, until: float) -> None:
        """Give a target a new state, and inputs until the time `until`. A failure ends the round."""
        target, name = record.target, f"{self.seed}/{record.target.name}/{record.rounds}"
        record.rounds += 1
        mutation = Mutation(Random(name), target.words)
        inputs: list[bytes] = []
        failure = _attempt(target, name, self._inputs(record, mutation, inputs, until), record.coverage)
        if failure is not None:
            record.failures += 1
            self._note(target, name, inputs, failure)

    def _inputs(self, record: TargetRecord, mutation: Mutation, inputs: list[bytes], until: float) -> Iterator[bytes]:
        """Make the inputs of a round, and append each to `inputs`.

        An input that reaches new lines is kept for later rounds, unless the target has fresh input of its own.
        """
        for _ in range(record.target.inputs_per_round):
            if self._clock() >= until:
                return
            fresh = record.target.fresh()
            seeds = fresh if fresh and mutation.dice.random() < FRESH else record.kept
            data = record.target.change(mutation, mutation.dice.choice(seeds), mutation.dice.choice(seeds))
            lines = record.coverage.lines
            inputs.append(data)
            record.inputs += 1
            yield data
            if record.coverage.lines > lines and len(record.kept) < KEPT_MAX and not fresh:
                record.kept.append(data)

    def _note(self, target: Target, name: str, inputs: list[bytes], failure: _Failure) -> None:
        """Report a failure that round `name` of a target has ended in, unless `FILES_PER_PLACE` failures of this target
        at the same place were reported before."""
        place = f"{target.name} {failure.place}"
        self._places[place] = self._places.get(place, 0) + 1
        if self._places[place] <= FILES_PER_PLACE:
            short, failure = self._shortened(target, name, inputs, failure)
            self._report(Finding(target.name, name, tuple(short), failure.text, failure.place))

    def _shortened(
        self, target: Target, name: str, inputs: list[bytes], failure: _Failure
    ) -> tuple[list[bytes], _Failure]:
        """Leave out inputs of round `name` as long as the others still end in a failure at the same place.

        Returns the inputs that are left, and the failure that they end in.
        """
        until = self._clock() + SHORTENING_SECONDS
        best, size = inputs, len(inputs)
        while size >= 1:
            start = 0
            while start < len(best):
                if self._clock() >= until:
                    return best, failure
                shorter = best[:start] + best[start + size :]
                found = _attempt(target, name, shorter, LineCoverage(())) if shorter else None
                if found is not None and found.place == failure.place:
                    best, failure = shorter, found
                else:
                    start += size
            size //= 2
        return best, failure


# ---------------------------------------------------------------------------------------------
# Attempts
# ---------------------------------------------------------------------------------------------


@define
class _Failure:
    """A failure that was found: the text of an exception that a target has raised, and the place where it did so."""

    text: str
    place: str


def attempt(target: Target, name: str, inputs: Sequence[bytes]) -> str:
    """Give the target the new state of round `name`, and these inputs; returns the failure as a text, or "" if there is
    none."""
    failure = _attempt(target, name, inputs, LineCoverage(()))
    return "" if failure is None else f"{failure.text}\n{failure.place}"


def _attempt(
    target: Target, name: str, inputs: Iterator[bytes] | Sequence[bytes], coverage: LineCoverage
) -> _Failure | None:
    watchdog = Watchdog()
    try:
        with watchdog.watching():
            watchdog.next_input()
            target.begin(name)
            for data in inputs:
                watchdog.next_input()
                with coverage.watching():
                    target.run(data)
            watchdog.next_input()
            target.end()
    except (Exception, Hang) as error:
        target.drop()
        return _failure(error)
    return None


def _failure(error: BaseException) -> _Failure:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if not frame.filename.endswith(CHECKS)), frames[-1])
    file = last.filename.rpartition("site-packages/")[2].rpartition("/pfsb/")
    where = f"pfsb/{file[2]}" if file[1] else file[2]
    return _Failure(f"{type(error).__name__}: {error}", f"{where}:{last.lineno} in {last.name}")


def replay(target: Target, finding: Finding) -> str:
    """Repeat a finding; returns the failure as a text, or "" if there is none any more."""
    return attempt(target, finding.round_name, finding.inputs)


def write_finding(finding: Finding, directory: Path) -> str:
    """Write a finding to a file; returns the lines that tell a person of it."""
    path = finding.write(directory)
    inputs = "1 input" if len(finding.inputs) == 1 else f"{len(finding.inputs)} inputs"
    repeat = f"{finding.place}, after {inputs}; repeat: pfsb fuzz --replay {path}"
    return f"FAILED {finding.target}: {finding.failure}\n    {repeat}"
