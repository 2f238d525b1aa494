"""Simulated operators: they change the ordered settings of the cluster while users work."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from attrs import define

from pfsb.applications.interfaces import Done, Result
from pfsb.simulator.checkers.session_checker import SessionChecker
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.workload.connection import SimulatedConnection

PAUSE_SECONDS = 1.5
"""How long, in seconds, an operator waits from one change of the settings to the next, on average."""
ANSWER_SECONDS = 3.0
"""How long, in seconds, an operator waits for the answer to a change before it hangs up."""
SETTINGS_MAX = 3
"""Maximum number of settings in one change: a server makes all of them, or none."""


@define(eq=False)
class SimulatedOperator:
    """A person who connects to a server, changes some settings by SETTINGS SET, and hangs up, again and again."""

    cluster: SimulatedCluster
    checks: SessionChecker
    rng: random.Random
    choices: Mapping[str, Sequence[int]]
    """Name of each setting that the operator may change -> the values that it may get."""
    changes: int = 0
    """Number of changes of settings that were answered with OK."""
    _has_finished: bool = False

    def start(self) -> None:
        self._later()

    def finish(self) -> None:
        """Change nothing more. A change that is under way may still be made."""
        self._has_finished = True

    def _later(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, 2) * PAUSE_SECONDS, self._act)

    def _act(self) -> None:
        able = self.cluster.serving_ids
        if self._has_finished:
            return
        if able:
            self._change(self.rng.choice(able))
        self._later()

    def _change(self, server_id: int) -> None:
        names = self.rng.sample(sorted(self.choices), self.rng.randint(1, SETTINGS_MAX))
        pairs = [f"{name}={self.rng.choice(self.choices[name])}" for name in names]
        line = SimulatedConnection(self.cluster, self.checks, self.rng, server_id, lambda line, code: None)

        def answered(result: Result) -> None:
            self.changes += isinstance(result, Done)

        line.connect(lambda: line.submit(1, ("SETTINGS SET", *pairs), answered))
        self.cluster.clock.callLater(ANSWER_SECONDS, line.disconnect)
