"""Simulated operators: they change the ordered settings of the cluster, and what it runs, while users work."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import define, field

from pfsb.applications.interfaces import Command, Done, Result
from pfsb.simulator.checkers.session_checker import SessionChecker
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.workload.connection import SimulatedConnection

PAUSE_SECONDS = 0.25
"""How long, in seconds, an operator waits from one command to the next, on average."""
ANSWER_SECONDS = 3.0
"""How long, in seconds, an operator waits for an answer before it hangs up."""
SETTINGS_MAX = 3
"""Maximum number of settings in one change: a server makes all of them, or none."""
SHARE_OF_TALLIES = 0.4
"""Share of TALLYs in all commands of an operator."""


OFTEN = ("horizon", "apps")
"""Settings that an operator changes more often than others: a change must follow another one soon to show a mistake."""
SHARE_OF_OFTEN = 0.5
"""Share of changes of one of these settings alone."""
LAST_CHANGE = ("sessions=100000",)
"""The last change of an operator: all users need a session at the end of a run."""
NAMES = ("a", "b")


@define(eq=False)
class SimulatedOperator:
    """A person who connects to a server, changes some settings by SETTINGS SET or counts a name by TALLY, and hangs up,
    again and again."""

    cluster: SimulatedCluster
    checks: SessionChecker
    rng: random.Random
    choices: Mapping[str, Sequence[int] | Sequence[str]]
    """Name of each setting that the operator may change -> the values that it may get."""
    told: Counter[str] = field(factory=Counter)
    """Number of answers that the operator has got, by the verb and the code of a refusal, or OK."""
    is_satisfied: bool = True
    """False from `finish` on, until the last change is answered with OK; or with CONFLICT, which says that a server has
    never announced what it can run: then no change was ever made."""
    _has_finished: bool = False

    def start(self) -> None:
        self._later()

    def finish(self) -> None:
        """Change nothing more but the settings in `LAST_CHANGE`. A change that is under way may still be made."""
        self._has_finished, self.is_satisfied = True, False

    def describe(self) -> str:
        return f"the operator waits for SETTINGS SET {' '.join(LAST_CHANGE)}"

    def _later(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, 2) * PAUSE_SECONDS, self._act)

    def _act(self) -> None:
        able = self.cluster.serving_ids
        if self._has_finished and self.is_satisfied:
            return
        if able:
            self._send(self.rng.choice(able))
        self._later()

    def _send(self, server_id: int) -> None:
        command = self._draw_command()
        line = SimulatedConnection(self.cluster, self.checks, self.rng, server_id, lambda line, code: None)

        def answered(result: Result) -> None:
            code = "OK" if isinstance(result, Done) else result.code
            self.told[f"{command[0]} {code}"] += 1
            if command[1:] == LAST_CHANGE and code in ("OK", "CONFLICT"):
                self.is_satisfied = True
            line.disconnect()

        line.connect(lambda: line.submit(1, command, answered))
        self.cluster.clock.callLater(ANSWER_SECONDS, line.disconnect)

    def _draw_command(self) -> Command:
        if self._has_finished:
            return ("SETTINGS SET", *LAST_CHANGE)
        if self.rng.random() < SHARE_OF_TALLIES:
            return ("TALLY", self.rng.choice(NAMES))
        often = [name for name in OFTEN if name in self.choices]
        names = self.rng.sample(sorted(self.choices), self.rng.randint(1, SETTINGS_MAX))
        if often and self.rng.random() < SHARE_OF_OFTEN:
            names = [self.rng.choice(often)]
        return ("SETTINGS SET", *[f"{name}={self.rng.choice(self.choices[name])}" for name in names])
