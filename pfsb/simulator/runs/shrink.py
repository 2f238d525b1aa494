"""Shrinking of a failing run: smaller plans that still fail, with fewer families of faults, users and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, evolve

from pfsb.simulator.faults.profiles import ALL_FAMILIES
from pfsb.simulator.runs.run import Plan, RunOutcome

TRIES_MAX = 60
"""Maximum number of smaller runs that are tried for one failing run."""


@define
class Shrinking:
    """A search for a smaller run that fails.

    `attempt` is called with each smaller plan, runs it, and returns the outcome. `best` is the smallest failing outcome
    so far: at first that of the run to be shrunk.
    """

    attempt: Callable[[Plan], RunOutcome]
    best: RunOutcome
    tries: int = 0

    def steps(self) -> Iterator[RunOutcome]:
        """Try smaller plans one after the other. After each try, yield `best`, the smallest failing outcome so far."""
        for make in (self._fewer_families, self._fewer_users, self._fewer_faults):
            for _ in make():
                yield self.best
                if self.tries >= TRIES_MAX:
                    return

    def _still_fails(self, plan: Plan) -> bool:
        self.tries += 1
        outcome = self.attempt(plan)
        if outcome.failure:
            self.best = outcome
        return bool(outcome.failure)

    def _fewer_families(self) -> Iterator[bool]:
        for family in ALL_FAMILIES:
            plan = self.best.plan
            if family not in plan.without:
                yield self._still_fails(evolve(plan, without=plan.without | {family}))

    def _fewer_users(self) -> Iterator[bool]:
        while (users := self.best.users) > 1:
            fails = self._still_fails(evolve(self.best.plan, users=users // 2))
            yield fails
            if not fails:
                return

    def _fewer_faults(self) -> Iterator[bool]:
        """Try to leave out halves of the list of faults, then quarters and so on, and in the end single faults.

        Yields after each try whether the run with fewer faults still fails.
        """
        size = len(self.best.faults)
        while size >= 1:
            size = (size + 1) // 2
            start = 0
            while start < len(self.best.faults):
                numbers = [fault.number for fault in self.best.faults]
                fails = self._still_fails(
                    evolve(self.best.plan, faults=tuple(numbers[:start] + numbers[start + size :]))
                )
                yield fails
                if not fails:
                    start += size
            if size == 1:
                return
