"""Hand-overs at random times, and faults around them (Departure 59): of the leader, of the target, and of HAND_OVER."""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.paxos.messages import HandOver, HandOverReason, Message
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.cluster.network import MessageFault, Passage
from pfsb.simulator.faults.parameters import Parameters
from pfsb.simulator.faults.plan import between
from pfsb.simulator.faults.server_faults import ServerFaults

LONGEST_SECONDS = 0.03
"""Maximum time, in seconds, from the request for a hand-over to a fault in the middle of it."""


class HandOverFaults(ServerFaults):
    """Hand-overs, and faults around them. The name of a method is the kind of the fault."""

    def __init__(self, cluster: SimulatedCluster, parameters: Parameters, marks: Marks) -> None:
        super().__init__(cluster, parameters, marks)
        self._sent_before: list[HandOver] = []
        """The HAND_OVERs that leaders have sent in this run."""
        if "hand_overs" in parameters.families:
            cluster.network.observers.append(self._watch_hand_overs)

    def _watch_hand_overs(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        found = [message for message in messages if isinstance(message, HandOver)]
        self._marks.counts["HAND_OVER sent"] += len(found)
        self._sent_before += found

    # ------------------------------------------------------------------ hand-overs

    def hand_over(self) -> None:
        """Let the leader hand over to a server that is fit to lead."""
        self._begin_hand_over()

    def retire(self) -> None:
        """Tell a server to stop, and to hand over before if it leads, as SIGTERM does."""
        self._drain(self._any_server(), hands_over=True)

    def retire_leader(self) -> None:
        self._drain(self._cluster.leader(), hands_over=True)

    def retire_both(self) -> None:
        """Tell the leader to stop, and soon another server, which may be the one that it hands over to."""
        others = [i for i in self._cluster.running_ids if i != self._cluster.leader()]
        self._drain(self._cluster.leader(), hands_over=True)
        if others:
            self._later(self._rng.uniform(0, LONGEST_SECONDS), self._retire_if_up, self._rng.choice(others))

    def _retire_if_up(self, server_id: int) -> None:
        if self._cluster.is_running(server_id):
            self._drain(server_id, hands_over=True)

    def _begin_hand_over(self) -> tuple[int, int] | None:
        """Have the leader hand over to a server drawn at random; returns both, or None if no server leads."""
        leader = self._cluster.leader()
        others = [i for i in self._cluster.ids if i != leader]
        if leader is None or not others:
            return None
        target = self._rng.choice(others)
        self._cluster.server_clock(leader).callLater(0, self._ask_to_hand_over, leader, target)
        return leader, target

    def _ask_to_hand_over(self, leader: int, target: int) -> None:
        hand_over = self._cluster.replica(leader).hand_over
        if hand_over.why_not(target) is None:
            self._marks.counts["hand-over begun"] += 1
            self._cluster.replica(leader).perform(hand_over.begin, target, HandOverReason.ASKED, self._count_hand_over)

    def _count_hand_over(self, why_not: str | None) -> None:
        self._marks.counts["hand-over done" if why_not is None else "hand-over failed"] += 1

    # ------------------------------------------------------------------ faults in the middle of one

    def crash_in_hand_over(self) -> None:
        """Crash the leader, the target or both in the middle of a hand-over. They restart soon."""
        pair = self._begin_hand_over()
        if pair is not None:
            for server_id in self._rng.choice((pair, pair[:1], pair[1:])):
                self._later(self._rng.uniform(0, LONGEST_SECONDS), self._crash_if_up, server_id)

    def pause_in_hand_over(self) -> None:
        """Let the leader or the target stand still for a while in the middle of a hand-over."""
        pair = self._begin_hand_over()
        if pair is not None:
            server_id = self._rng.choice(pair)
            self._later(self._rng.uniform(0, LONGEST_SECONDS), self._pause_if_up, server_id, between(self._rng, 0.1, 5))

    def _pause_if_up(self, server_id: int, seconds: float) -> None:
        if self._cluster.is_running(server_id):
            self._cluster.pause(server_id)
            self._later(seconds, self._resume, server_id)

    def lose_hand_over(self) -> None:
        """Lose the HAND_OVERs of a hand-over, all of them or half of them."""
        self._disturb(MessageFault(loss=self._rng.choice((0.5, 1.0))))

    def late_hand_over(self) -> None:
        """Let the HAND_OVERs of a hand-over be late, so that votes for the next view overtake them, and its PREPARE,
        or views after it."""
        longest = between(self._rng, 0.005, 3)
        self._disturb(MessageFault((longest / 4, longest)))

    def _disturb(self, fault: MessageFault) -> None:
        self._cluster.network.passing_faults[HandOver] = fault
        self._begin_hand_over()
        self._later(0.5, self._leave_undisturbed)

    def _leave_undisturbed(self) -> None:
        self._cluster.network.passing_faults.pop(HandOver, None)

    # ------------------------------------------------------------------ messages that must do no harm

    def repeat_hand_over(self) -> None:
        """Let copies of an earlier HAND_OVER arrive at all servers, again and again for a while."""
        if self._sent_before:
            message, copies = self._rng.choice(self._sent_before[-3:]), self._rng.choice((1, 5, 50))
            for copy in range(copies):
                self._later(copy * self._rng.uniform(0.01, 0.1), self._send_wrong, message)

    def untrue_hand_over(self) -> None:
        """Let a server that does not lead send a HAND_OVER of the view of the leader, or of another view."""
        leader, sender = self._cluster.leader(), self._any_server()
        if leader is None or sender is None or sender == leader:
            return
        view = self._cluster.replica(leader).data.views.last_installed
        near = view + self._rng.choice((-1, 0, 0, 0, 1))
        message = HandOver(sender, max(1, near), max(1, near) + self._rng.choice((1, 2, 3, 100)), HandOverReason.ASKED)
        for copy in range(self._rng.choice((1, 20))):
            self._later(copy * 0.02, self._send_wrong, message)

    def _send_wrong(self, message: HandOver) -> None:
        for receiver in self._cluster.ids:
            if receiver != message.server_id:
                self._cluster.network.inject(Passage(message.server_id, receiver, message))
