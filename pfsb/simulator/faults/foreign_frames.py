"""Frames that must not change the server that gets them.

They are random bytes, frames of another cluster, and frames that name a known server as their sender, but have a
storage identity that is not the sender's.
"""

from __future__ import annotations

import random

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    ClientUpdate,
    Message,
    Ordered,
    Proposal,
    State,
    VCProof,
    ViewChange,
)
from pfsb.paxos.replica import Replica
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.support.limits import IDENTITY_BYTES
from pfsb.transports.frames import FRAME_BYTES_MAX, FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.notices import FIRST_TIME, TAG_BYTES, Part
from pfsb.transports.wire import encode_any


def frame_of_a_stranger(cluster: SimulatedCluster, receiver: int, rng: random.Random) -> bytes:
    """Make a frame that must not change the receiver, of one of the three kinds, drawn at random."""
    replica = cluster.replica(receiver)
    sender = rng.choice([i for i in cluster.ids if i != receiver])
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(rng.randint(0, 100))
    if kind == 1:
        identity = cluster.disk(sender).identity or bytes(IDENTITY_BYTES)
        return _frame(cluster, "another", sender, identity, _messages(replica, sender, rng))
    return _frame(cluster, "simulated", sender, rng.randbytes(IDENTITY_BYTES), _messages(replica, sender, rng))


def frame_of_an_impostor(cluster: SimulatedCluster, receiver: int, rng: random.Random) -> bytes:
    """Make a frame that is right in all but its missing key or the address that it comes from."""
    sender = rng.choice([i for i in cluster.ids if i != receiver])
    identity = cluster.disk(sender).identity or bytes(IDENTITY_BYTES)
    return _frame(cluster, "simulated", sender, identity, _messages(cluster.replica(receiver), sender, rng))


def part_of_an_impostor(cluster: SimulatedCluster, receiver: int, rng: random.Random) -> bytes:
    """Make a part of a large frame that is right in all but its missing key or the address that it comes from."""
    sender = rng.choice([i for i in cluster.ids if i != receiver])
    identity = cluster.disk(sender).identity or bytes(IDENTITY_BYTES)
    piece = rng.randbytes(rng.randint(1, 400))
    part = Part(rng.randbytes(TAG_BYTES), FRAME_BYTES_MAX, rng.randrange(10_000), FIRST_TIME, piece)
    return _codec(cluster, "simulated", sender, identity).seal_notice(part)


def require_no_change(cluster: SimulatedCluster, receiver: int, frame: bytes) -> None:
    """Deliver the frame to the receiver. Raises `Violation` if that has changed the state of the receiver."""
    replica = cluster.replica(receiver)
    replica.perform(_nothing)  # the end of every turn may change the state, so one turn runs before the comparison
    before = _state(replica) + _incomplete(cluster, receiver)
    cluster.network.hand_over(receiver, frame)
    after = _state(replica) + _incomplete(cluster, receiver)
    if before != after:
        raise Violation(f"a stranger's frame has changed server {receiver}:\n{before}\n{after}")


def _nothing() -> None:
    """Do nothing: `require_no_change` lets the server run this as a turn."""


def _frame(cluster: SimulatedCluster, name: str, sender: int, identity: bytes, messages: list[Message]) -> bytes:
    return _codec(cluster, name, sender, identity).seal([encode_any(message) for message in messages])[0]


def _codec(cluster: SimulatedCluster, name: str, sender: int, identity: bytes) -> FrameCodec:
    """A codec whose frames name the present start of the server `sender`: one of another start would be refused for
    that."""
    digest, epoch = cluster_digest(name, cluster.founders), cluster.checks.electorate.epoch_on_disk(sender)
    us = FrameIdentity(sender, frozenset(cluster.machines) - {sender}, digest, epoch=epoch)
    return FrameCodec(us, identity, cluster.disk(sender).start_number)


def _incomplete(cluster: SimulatedCluster, receiver: int) -> str:
    """The bytes that a server keeps of frames that came in parts, peer by peer."""
    links = cluster.links(receiver)
    return f"\n{[links.path(peer).kept_bytes for peer in sorted(links.membership.peers)]}"


def _messages(replica: Replica, sender: int, rng: random.Random) -> list[Message]:
    """The messages that would do the most harm if the receiver took them for messages of the sender."""
    views, aru = replica.data.views, replica.data.ordering.local_aru
    view = rng.choice((views.last_installed, views.last_attempted, views.last_attempted + 1))
    update = ClientUpdate("nobody", sender, 1, aru, b"never asked for")
    batch = Batch.of(0, (update,))
    return [
        Proposal(sender, view, aru + 1, batch),
        Ordered(sender, max(view, 1), (aru + 1,), batch.digest),
        Accept(sender, view, (aru + 1,), batch.digest),
        ViewChange(sender, view),
        VCProof(sender, view),
        Alive(sender, view, State.REG_LEADER, aru + 5),
        update,
    ]


def _state(replica: Replica) -> str:
    return f"{replica.data}\n{replica.peers.by_id}\n{replica.ordered_queue.digests.head.hex()}"
