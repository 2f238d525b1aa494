"""Faults of confusion: a server in error that sends wrong messages, and frames that are damaged on their way."""

from __future__ import annotations

import random
from typing import Final

from pfsb.paxos.messages import ClientUpdate
from pfsb.simulator.checkers.position_checker import position_of
from pfsb.simulator.faults.injector import FaultInjector
from pfsb.simulator.faults.plan import between
from pfsb.simulator.faults.wrong_messages import WrongMessages
from pfsb.support.limits import IDENTITY_BYTES
from pfsb.transports.frames import FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.wire import LATER, encode_any

PAUSE_SECONDS: Final = (0.001, 0.1)
"""Shortest and longest time, in seconds, between two wrong frames of one server."""


class ConfusionFaults(FaultInjector):
    """Wrong messages and damaged frames. The name of a method is the kind of the fault."""

    def confused_peer(self) -> None:
        """Let a server, running or not, send wrong messages to the others for a while, in well-formed frames.

        All faults of this kind in a run choose the same server: no protocol stands a majority of servers that are in
        error.
        """
        if len(self._cluster.ids) > 1:
            sender = random.Random(f"{self._cluster.seed}/confused").choice(self._cluster.founders)
            self.send_wrong(sender, self._cluster.now + between(self._rng, 0.1, 3))

    def damaged_frames(self) -> None:
        """Damage some of the frames on all links for a while: flip bits, cut them short, or repeat a part of them."""
        self._cluster.network.damage = self._rng.choice((0.01, 0.1, 0.5))
        self._later(between(self._rng, 0.1, 3), self._end_damage)

    def _end_damage(self) -> None:
        self._cluster.network.damage = 0.0

    def send_wrong(self, sender: int, until: float) -> None:
        """Let wrong messages in the name of server `sender` arrive, one after the other, until that simulated time."""
        receivers = [i for i in self._cluster.running_ids if i != sender]
        if receivers:
            receiver = self._rng.choice(receivers)
            messages = WrongMessages(sender, self._cluster.replica(receiver), self._rng).draw()
            for message in messages:
                if isinstance(message, ClientUpdate) and message.server_id == sender:
                    self._cluster.checks.relays.sent(sender, receiver, message)  # the receiver may relay this copy
            later = isinstance(messages[0], LATER)
            for frame in self._codec(sender).seal([encode_any(message) for message in messages], later=later):
                self._cluster.network.hand_over(receiver, frame)
        if self._cluster.now < until:
            self._later(between(self._rng, *PAUSE_SECONDS), self.send_wrong, sender, until)

    def _codec(self, sender: int) -> FrameCodec:
        """Make a codec that seals frames in the name of `sender`.

        It numbers its frames from the beginning again. Receivers allow that, since the cluster has no secret.
        """
        cluster, disk = self._cluster, self._cluster.disk(sender)
        digest, epoch = cluster_digest("simulated", cluster.founders), cluster.checks.electorate.epoch_on_disk(sender)
        us = FrameIdentity(sender, frozenset(cluster.machines) - {sender}, digest, epoch=epoch)
        return FrameCodec(
            us, disk.identity or bytes(IDENTITY_BYTES), disk.start_number, position=lambda: position_of(disk, sender)
        )
