"""Injection of faults into a cluster, each at its time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.faults.parameters import Parameters
from pfsb.simulator.faults.plan import Fault


class FaultInjector:
    """The base class of all faults. The name of a method is the kind of the fault that it carries out.

    `schedule` has the method of each fault called at the fault's time, until `cease` is called.
    """

    def __init__(self, cluster: SimulatedCluster, parameters: Parameters, marks: Marks) -> None:
        self._cluster = cluster
        self._parameters = parameters
        self._marks = marks
        self._rng = random.Random()
        self._has_ceased = False

    def schedule(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._cluster.clock.callLater(max(0.0, fault.at - self._cluster.now), self._happen, fault)

    def cease(self) -> None:
        self._has_ceased = True

    def _happen(self, fault: Fault) -> None:
        if self._has_ceased or (fault.family == "partitions" and len(self._cluster.ids) < 2):
            return
        self._marks.fault(fault.kind)
        self._cluster.tracers.tell(None, "fault", kind=str(fault))
        self._rng = random.Random(f"{self._cluster.seed}/fault/{fault.number}")
        act: Callable[[], None] = getattr(self, fault.kind)
        act()

    def _later(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        def happen() -> None:
            if not self._has_ceased:
                act(*args)

        self._cluster.clock.callLater(seconds, happen)

    def _any_server(self) -> int | None:
        up = self._cluster.running_ids
        return self._rng.choice(up) if up else None
