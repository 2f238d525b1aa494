"""How faults come to happen in a world, whatever they are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pfsb.simulator.cluster.cluster import World
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.faults.parameters import Knobs
from pfsb.simulator.faults.plan import Fault


class Causes:
    """What all kinds of trouble have in common: when they happen, and that after `cease` nothing more does."""

    def __init__(self, world: World, knobs: Knobs, marks: Marks) -> None:
        self._world = world
        self._knobs = knobs
        self._marks = marks
        self._rng = random.Random()
        self._has_ceased = False

    def schedule(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._world.clock.callLater(max(0.0, fault.at - self._world.now), self._happen, fault)

    def cease(self) -> None:
        self._has_ceased = True

    def _happen(self, fault: Fault) -> None:
        if self._has_ceased:
            return
        self._marks.fault(fault.kind)
        self._world.tracers.tell(None, "fault", kind=str(fault))
        self._rng = random.Random(f"{self._world.seed}/fault/{fault.number}")
        act: Callable[[], None] = getattr(self, fault.kind)
        act()

    def _later(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        def happen() -> None:
            if not self._has_ceased:
                act(*args)

        self._world.clock.callLater(seconds, happen)

    def _somebody(self) -> int | None:
        up = self._world.running_ids
        return self._rng.choice(up) if up else None
