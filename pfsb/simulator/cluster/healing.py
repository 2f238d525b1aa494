"""How a simulated cluster, or a part of it, becomes well: links are whole and good, and servers run as they should."""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.simulator.cluster.cluster import World
from pfsb.simulator.cluster.network import LinkQuality
from pfsb.simulator.cluster.process import Running


def heal_all(world: World) -> None:
    """All links carry well, paused servers go on, and those that are down start again."""
    heal_some(world, world.ids)


def heal_some(world: World, group: Sequence[int]) -> None:
    """The same for these servers and the links between them, and for nothing else."""
    links = [(a, b) for a in group for b in group if a != b]
    world.network.passing.clear()
    world.network.set_quality(LinkQuality(), links)
    for a, b in links:
        world.network.mend(a, b)
    for server_id in group:
        _heal_server(world, server_id)


def _heal_server(world: World, server_id: int) -> None:
    server = world.servers[server_id]
    server.sync_seconds = (0.0005, 0.002)
    server.is_disk_full = False
    if server.running is not None:
        server.running.transport.after_frames(None)
        server.running.storage.fail_next(None)
        _end_what_was_begun(world, server_id, server.running)
    if server.running is None:
        world.restart(server_id)
    elif server.running.lane.paused:
        world.resume(server_id)


def _end_what_was_begun(world: World, server_id: int, running: Running) -> None:
    if running.is_draining:
        world.stop(server_id)
    elif running.process.replica.proposals.skipped:
        world.crash(server_id)  # else a server that is alone leads on, and never gets past the hole
