"""Schedules with a network between the servers that carries no large datagrams, and drops all fragments."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import evolve

from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.simulator.cluster.names import SimulatedNames
from pfsb.simulator.cluster.network import LinkQuality, PathLimits
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.faults.foreign_frames import part_of_an_impostor, require_no_change
from pfsb.simulator.schedules.long_messages import PARTS, UPDATE_BYTES, accept_everywhere
from pfsb.simulator.schedules.scenario import Scenario, Schedule
from pfsb.transports.frames import FRAME_BYTES_MAX
from pfsb.transports.notices import FIRST_TIME, TAG_BYTES, TYPE_PROBE, Part
from pfsb.transports.path_size import BASE_BYTES, ETHERNET_BYTES
from pfsb.transports.reassembly import KEPT_BYTES_MAX, KEPT_SECONDS

Names = Callable[[SimulatedClock, Sequence[int]], SimulatedNames]
LARGE_BYTES: Final = 40_000
"""Size, in bytes, of a large update: a frame has room for one such update, and a datagram over Ethernet for a small
part of it."""


def large_updates_on_ethernet(seed: int, patch: Plant | None) -> None:
    """Updates of 4 KB and 40 KB are ordered where no datagram of more than 1,472 bytes passes, and cost no election."""
    scene = _scene(seed, patch, PathLimits())
    view = scene.view()
    for number, size in enumerate((4_000, LARGE_BYTES, 10), 1):
        _execute(scene, number, size, 0.5)
    scene.require_view(view)


def many_updates_on_ethernet(seed: int, patch: Plant | None) -> None:
    """576 small updates at once, whose batch is larger than a datagram, are ordered, and cost no election."""
    scene = _scene(seed, patch, PathLimits())
    view, follower = scene.view(), scene.follower()
    for number in range(576):
        scene.cluster.submit(follower, f"client-{number}", 1, b"x" * 20)
    scene.cluster.run_until(lambda: len(scene.cluster.answers) == 576, 1.0)
    scene.require_view(view)


def large_updates_with_loss(seed: int, patch: Plant | None) -> None:
    """Large updates are ordered soon, though each datagram is lost with a chance of 10 %.

    Only the parts that are missing are sent again. A frame of 40 parts would arrive whole once in 70 times.
    """
    scene = _scene(seed, patch, PathLimits())
    scene.cluster.network.set_quality(LinkQuality(loss=0.1))
    for number in range(1, 6):
        _execute(scene, number, LARGE_BYTES, 2.0)


def black_hole(seed: int, patch: Plant | None) -> None:
    """Servers notice that paths lose large datagrams from some moment on, without an error, and no election follows.

    They send small datagrams, and then find a larger size that passes.
    """
    scene = _scene(seed, patch, PathLimits(interface_bytes=8_972, path_bytes=8_972))
    cluster, view = scene.cluster, scene.view()
    _execute(scene, 1, LARGE_BYTES, 0.5)
    cluster.run(1)
    leader = scene.leader()
    require(_sizes(scene, leader) == {8_972}, f"datagrams have {_sizes(scene, leader)} bytes, and 8972 pass")
    cluster.network.set_limits(PathLimits(interface_bytes=8_972, path_bytes=1_350))
    for number in range(2, 6):
        _execute(scene, number, LARGE_BYTES, 1.0)
        cluster.run(1)
    sizes = _sizes(scene, leader)
    require(min(sizes) > BASE_BYTES and max(sizes) <= 1_350, f"datagrams have {sizes} bytes, and 1350 pass")
    scene.require_view(view)


def small_frames_fall_into_a_black_hole(seed: int, patch: Plant | None) -> None:
    """A path that gets narrower is noticed even if all frames are small enough to need no parts, but no longer pass."""
    scene = _scene(seed, patch, PathLimits())
    cluster = scene.cluster
    _execute(scene, 1, LARGE_BYTES, 0.5)
    cluster.run(1)
    leader = scene.leader()
    require(_sizes(scene, leader) == {ETHERNET_BYTES}, f"datagrams have {_sizes(scene, leader)} bytes, and 1472 pass")
    cluster.network.set_limits(PathLimits(path_bytes=1_250))
    for number in range(2, 5):
        # With its headers, a PROPOSAL with this update has between 1,250 and 1,472 bytes.
        _execute(scene, number, 1_200, 3.0)


TYPE_OFFSET: Final = 5
"""Offset, in bytes, of the frame type in a frame (docs/internals/formats.rst)."""


def large_update_on_a_long_way(seed: int, patch: Plant | None) -> None:
    """Departure 46: a large message is not sent a second time while its parts are on their way over slow links."""
    scene = _scene(seed, patch, PathLimits(), progress_seconds=5.0, update_seconds=3.0)
    cluster = scene.cluster
    cluster.network.set_quality(LinkQuality(delay_seconds=(0.3, 0.301)))
    sent = [0]

    def count(_sender: int, frame: bytes) -> None:
        # Probes are bounded by themselves, and more of them are sent if the path was measured while it was short.
        if frame[TYPE_OFFSET] != TYPE_PROBE:
            sent[0] += len(frame)

    cluster.network.frame_observers.append(count)
    _execute(scene, 1, LARGE_BYTES, 3.0)
    # The update goes to the leader once, and to each of two followers once.
    most = 5 * LARGE_BYTES
    require(sent[0] <= most, f"an update of {LARGE_BYTES} bytes has cost {sent[0]} bytes; {most} are enough")


def long_promise_on_ethernet(seed: int, patch: Plant | None) -> None:
    """Departure 47: a promise of 64 parts of 31 KB arrives where no datagram of more than 1,472 bytes passes.

    The queues of the links hold less than one part. One election is enough.
    """
    sizes: dict[str, Any] = {"batch_bytes_max": 1, "frame_data_bytes_max": UPDATE_BYTES + 50}
    scene = _scene(seed, patch, PathLimits(buffer_bytes=30_000), window_slots=PARTS, **sizes)
    view = scene.view()
    accept_everywhere(scene, PARTS)
    scene.cluster.crash(scene.leader())
    scene.cluster.run_until(lambda: scene.cluster.leader() is not None, 10)
    scene.require_view(view + 1)


def narrow_path(seed: int, patch: Plant | None) -> None:
    """Servers begin with datagrams of 1,200 bytes. If a path carries only less, they notice that by lost probes."""
    scene = _scene(seed, patch, PathLimits(path_bytes=600))
    for number in range(1, 4):
        _execute(scene, number, LARGE_BYTES, 5.0)


def medium_updates_on_a_narrow_path(seed: int, patch: Plant | None) -> None:
    """A path that does not carry 1,200 bytes is noticed if all frames are smaller than that, and need no parts."""
    scene = _scene(seed, patch, PathLimits(path_bytes=600))
    for number in range(1, 4):
        _execute(scene, number, 700, 5.0)


def small_updates_beside_large_ones(seed: int, patch: Plant | None) -> None:
    """Frames of small messages do not wait for the parts of large ones that fill the queue of the link.

    The queue holds less than one large frame. ALIVE and VC_PROOF arrive in time all the same, so the view is kept.
    """
    limits = PathLimits(buffer_bytes=30_000)
    scene = _scene(seed, patch, limits)
    cluster, view = scene.cluster, scene.view()
    for number in range(20):
        cluster.submit(scene.follower(), f"large-{number}", 1, bytes(LARGE_BYTES))
    cluster.run(0.2)
    cluster.submit(scene.follower(), "small", 1, b"x")
    cluster.run_until(lambda: ("small", 1) in cluster.answers, 10)
    cluster.run_until(lambda: len(cluster.answers) == 21, 10)
    scene.require_view(view)


def small_updates_beside_one_that_never_arrives(seed: int, patch: Plant | None) -> None:
    """Where a path carries not even the smallest parts, small updates go on while a server tries to send a large one.

    The large update never gets to the leader, and the small ones of the same server do.
    """
    scene = _scene(seed, patch, PathLimits(path_bytes=400))
    cluster, follower = scene.cluster, scene.follower()
    cluster.submit(follower, "large", 1, bytes(LARGE_BYTES))
    for number in range(1, 20):
        cluster.submit(follower, f"small-{number}", 1)
        cluster.run_until(lambda number=number: (f"small-{number}", 1) in cluster.answers, 0.4)  # type: ignore[misc]
        cluster.run(0.1)
    require(("large", 1) not in cluster.answers, "a datagram of more than 400 bytes has passed")


def parts_that_never_end(seed: int, patch: Plant | None) -> None:
    """A server keeps a bounded number of bytes of frames whose last parts do not come."""
    scene = _scene(seed, patch, PathLimits())
    cluster = scene.cluster
    leader, follower = scene.leader(), scene.follower()
    path = cluster.links(follower).path(leader)
    for number in range(100):
        part = Part(number.to_bytes(TAG_BYTES, "big"), FRAME_BYTES_MAX, 0, FIRST_TIME, bytes(1_000))
        cluster.links(leader).path(follower).send_notice(part)
        cluster.run(0.001)
        require(path.kept_bytes <= KEPT_BYTES_MAX, f"{path.kept_bytes} bytes are kept of frames that are not whole")
    cluster.run(2 * KEPT_SECONDS)
    require(path.kept_bytes == 0, f"{path.kept_bytes} bytes are kept of frames that will never be whole")


def parts_of_an_impostor_come(seed: int, patch: Plant | None) -> None:
    """Departure 41: without a secret, a server keeps nothing of a part that comes from an address that no server has,
    though the part names a server and the identity of its storage rightly."""
    scene = _scene(seed, patch, PathLimits(), names=_without_secret(seed))
    for number in range(20):
        scene.cluster.run(0.05)
        receiver = scene.leader() if number % 2 else scene.follower()
        require_no_change(scene.cluster, receiver, part_of_an_impostor(scene.cluster, receiver, scene.rng))


def _scene(seed: int, patch: Plant | None, limits: PathLimits, names: Names | None = None, **settings: Any) -> Scenario:
    """A cluster whose links have these limits from the beginning, with a leader, and without clients of its own.

    `names` makes the addresses of its servers (`SimulatedCluster`).
    """
    values = evolve(Settings(), **settings)
    scene = Scenario(seed, patch, clients=0, settings=values, start=False, names=names)
    scene.cluster.network.set_limits(limits)
    for server_id in scene.cluster.ids:
        scene.cluster.restart(server_id)
    scene.cluster.run_until(scene.cluster.has_leader)
    return scene


def _without_secret(seed: int) -> Names:
    """Make the parameter `names` of a cluster whose servers have addresses, and no secret."""
    return lambda clock, ids: SimulatedNames(clock, random.Random(f"{seed}/names"), ids)


def _execute(scene: Scenario, number: int, size: int, seconds: float) -> None:
    """Submit the update that gets slot `number`, with a payload of this size, and require that every server executes it
    within `seconds`."""
    scene.cluster.submit(scene.follower(), f"client-{number}", 1, bytes(size))
    scene.everyone_executes(number, seconds)


def _sizes(scene: Scenario, server_id: int) -> set[int]:
    """The different sizes, in bytes, of the largest datagrams that a server would send now to each of its peers."""
    links = scene.cluster.links(server_id)
    return {links.path(peer).size for peer in scene.cluster.ids if peer != server_id}


SCHEDULES: Final[Sequence[Schedule]] = (
    large_updates_on_ethernet,
    many_updates_on_ethernet,
    large_updates_with_loss,
    black_hole,
    small_frames_fall_into_a_black_hole,
    large_update_on_a_long_way,
    long_promise_on_ethernet,
    narrow_path,
    medium_updates_on_a_narrow_path,
    small_updates_beside_large_ones,
    small_updates_beside_one_that_never_arrives,
    parts_that_never_end,
    parts_of_an_impostor_come,
)
