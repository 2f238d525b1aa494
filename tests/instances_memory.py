"""Three peers in a process of its own that decide and forget values, and print how much memory is left each time.

    python -m tests.instances_memory ROUNDS VALUES BYTES [DIRECTORY]

In each of `ROUNDS` rounds the peers decide `VALUES` values of `BYTES` bytes each, and are done with them. After each
round one line of JSON is printed. `resident` is the number of bytes of memory that the process occupies (`VmRSS`),
`traced` the number that Python objects occupy, as `tracemalloc` counts them. With a `DIRECTORY` the peers have a
storage on disk there.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react

from pfsb.demo.processes import free_ports
from pfsb.instances import Peer, make

reactor: Any = _reactor

LOOK_SECONDS = 0.02
QUIET_SECONDS = 0.6
"""How long a round waits at its end: the peers tell each other with an ALIVE, every 0.2 s, how far they have come."""


def resident_bytes() -> int:
    """Number of bytes of memory that this process occupies (Linux only)."""
    status = Path("/proc/self/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kibibytes) * 1024


async def _round(peers: list[Peer], first: int, values: int, size: int) -> None:
    """Decide the instances from `first` on, and let all peers forget them."""
    last = first + values - 1
    for seq in range(first, last + 1):
        peers[seq % 3].start(seq, os.urandom(size))
    while not all(peer.status(seq)[0] for peer in peers for seq in range(first, last + 1)):
        await deferLater(reactor, LOOK_SECONDS)
    for peer in peers:
        peer.done(last)
    while not all(peer.min() == last + 1 for peer in peers):
        await deferLater(reactor, LOOK_SECONDS)
    await deferLater(reactor, QUIET_SECONDS)


async def _rounds(_reactor: Any, rounds: int, values: int, size: int, directory: str | None) -> None:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3, Random(os.urandom(8)))]
    places = [None if directory is None else Path(directory) / str(me) for me in range(3)]
    peers = [make(addresses, me, reactor, storage=places[me]) for me in range(3)]
    for number in range(rounds):
        await _round(peers, number * values, values, size)
        gc.collect()
        found = {"resident": resident_bytes(), "traced": tracemalloc.get_traced_memory()[0]}
        sys.stdout.write(json.dumps(found) + "\n")
    for peer in peers:
        await _stopped(peer)


async def _stopped(peer: Peer) -> None:
    stopping = peer.kill()
    if stopping is not None:
        await stopping


if __name__ == "__main__":
    tracemalloc.start()
    numbers = [int(word) for word in sys.argv[1:4]]
    react(lambda clock: ensureDeferred(_rounds(clock, *numbers, *(sys.argv[4:5] or [None]))))
