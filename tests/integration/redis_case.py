"""Common parts of the tests of the Redis protocol on real servers."""

from __future__ import annotations

from random import Random
from typing import Any

from pfsb.demo.processes import ProcessCluster, free_ports


def servers_with_redis_ports(servers: int) -> dict[int, dict[str, Any]]:
    """The part `servers` of a configuration in which each server also has a port for the Redis protocol alone."""
    ports = iter(free_ports(3 * servers, Random()))
    return {
        server_id: {
            "peer": f"127.0.0.1:{next(ports)}",
            "client": f"tcp:{next(ports)}:interface=127.0.0.1",
            "redis": f"tcp:{next(ports)}:interface=127.0.0.1",
        }
        for server_id in range(servers)
    }


def client_port(cluster: ProcessCluster, server_id: int) -> int:
    """The client port of a server, which speaks both protocols."""
    return int(cluster.address(server_id).shown.rpartition(":")[2])


def redis_port(cluster: ProcessCluster, server_id: int) -> int:
    """The port for the Redis protocol alone, of a cluster with `servers_with_redis_ports`."""
    endpoint = cluster.config.server(server_id).redis
    assert endpoint is not None
    return int(endpoint.split(":")[1])
