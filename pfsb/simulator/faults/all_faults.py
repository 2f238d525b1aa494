"""All faults of a run: those of the network, of single servers and of names, and those that concern views."""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.paxos.messages import Message, PrepareOK
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.faults.confusion import ConfusionFaults
from pfsb.simulator.faults.foreign_frames import frame_of_a_stranger, require_no_change
from pfsb.simulator.faults.membership_faults import MembershipFaults
from pfsb.simulator.faults.name_faults import NameFaults
from pfsb.simulator.faults.network_faults import NetworkFaults
from pfsb.simulator.faults.parameters import Parameters
from pfsb.simulator.faults.plan import between
from pfsb.simulator.faults.repeated_bundles import RepeatedBundles
from pfsb.simulator.faults.snapshot_faults import SnapshotFaults


class AllFaults(NetworkFaults, NameFaults, ConfusionFaults, RepeatedBundles, SnapshotFaults, MembershipFaults):
    """Injects faults into a cluster until `cease` is called.

    After that, no further fault happens, and earlier faults do not heal by themselves.
    """

    def __init__(self, cluster: SimulatedCluster, parameters: Parameters, marks: Marks) -> None:
        super().__init__(cluster, parameters, marks)
        self._next_promiser_dies = False
        cluster.network.observers.append(self._watch_promises)

    # ------------------------------------------------------------------ views

    def laggard_leads(self) -> None:
        """Isolate the leader of the next view for a while. Then mend its links and crash the present leader.

        So a server that has missed some slots must lead.
        """
        leader = self._cluster.leader()
        if leader is not None and len(self._cluster.ids) > 2:
            view = self._cluster.replica(leader).data.views.last_installed
            next_leader = self._cluster.replica(leader).membership.leader_of(view + 1)
            self._repartition()
            self._cluster.isolate(next_leader)
            self._later(between(self._rng, 0.2, 2), self._laggard_is_back, leader)

    def crash_promiser(self) -> None:
        """Crash the next server that sends a part of a PREPARE_OK of several parts. It restarts soon.

        The crash comes 1 or 50 milliseconds after the part was sent.
        """
        self._next_promiser_dies = True

    def _watch_promises(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        is_in_parts = any(
            isinstance(message, PrepareOK) and message.parts > 1 and message.data_list for message in messages
        )
        if self._next_promiser_dies and is_in_parts:
            self._next_promiser_dies = False
            self._later(self._rng.choice((0.001, 0.05)), self._crash_and_restart, server_id)

    def _crash_and_restart(self, server_id: int) -> None:
        if self._cluster.is_running(server_id):
            self._cluster.crash(server_id)
            self._later(between(self._rng, 0.01, 0.1), self._restart, server_id)

    def _laggard_is_back(self, leader: int) -> None:
        self._repartition()
        self._crash_if_up(leader)

    # ------------------------------------------------------------------ foreign frames

    def stranger(self) -> None:
        """Deliver a frame of `foreign_frames` to a running server, and require that it does not change the server."""
        server_id = self._any_server()
        if server_id is not None and len(self._cluster.ids) > 1:
            frame = frame_of_a_stranger(self._cluster, server_id, self._rng)
            require_no_change(self._cluster, server_id, frame)
