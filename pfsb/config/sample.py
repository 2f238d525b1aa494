"""The configuration that `pfsb init` writes: a cluster on one machine, to begin with."""

from __future__ import annotations

from typing import Final

SERVERS: Final = 4
"""Number of servers, unless the command line names another one."""
SERVERS_MAX: Final = 9

_TEXT: Final = """\
# A cluster of {count} on this machine; {failures}
#   pfsb check {file}      says what this file means, or what is wrong with it
#   pfsb cluster {file}    starts all servers in one terminal
#   pfsb client {file}     is a client to type at
cluster: {cluster}
apps: [chat, lock, kv]
# Server 2 keeps its data in {storage}/2, below the directory where it is started.
storage: {storage}
# peer: for the other servers. client: for telnet, redis-cli and pfsb client. http: for browsers and curl.
servers:
{servers}
"""


def sample_configuration(servers: int, cluster: str, file: str) -> str:
    """The text of a configuration of `servers` servers for a cluster named `cluster`, on ports of this machine that are
    the same each time.

    `file` is the name of the configuration file in the commands that its comments show.
    """
    rows = (
        f'  {i}: {{peer: "127.0.0.1:{7400 + i}", client: "tcp:{9400 + i}:interface=127.0.0.1", '
        f'http: "tcp:{8400 + i}:interface=127.0.0.1"}}'
        for i in range(servers)
    )
    spare = (servers - 1) // 2
    failures = f"it goes on while no more than {spare} of them are down." if spare else "it stops when one is down."
    return _TEXT.format(
        count=f"{servers} server" + "s" * (servers > 1),
        failures=failures,
        file=file,
        cluster=cluster,
        storage=f"var/{cluster}",
        servers="\n".join(rows),
    )
