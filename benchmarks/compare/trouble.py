"""Measurements of failures: the time without a leader after a kill, and the time that a follower needs to catch up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from benchmarks.compare.system import Load, System, Trouble, Write, wait_for

WRITERS: Final = 4
"""Number of clients that write while the leader is killed."""
BEFORE_SECONDS: Final = 0.7
"""How long, in seconds, clients write before the leader is killed."""
PATIENCE_SECONDS: Final = 15.0
"""How long, in seconds, a cluster may take until it acknowledges a write."""
_RETRY_SECONDS: Final = 0.005


@define(eq=False)
class Writers:
    """Clients that each write in a loop. Each is at one server, and moves to the next when a write fails."""

    _system: System
    count: int = WRITERS
    longest: float = field(init=False, default=0.0)
    """The longest time, in seconds, from one acknowledged write of a client to its next one."""
    answered: list[tuple[float, float]] = field(init=False, factory=list)
    """The times at which each acknowledged write was begun and acknowledged, by time.monotonic."""
    _stopping: threading.Event = field(init=False, factory=threading.Event)
    _threads: list[threading.Thread] = field(init=False, factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._write, args=(at,), daemon=True) for at in range(self.count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def first_after(self, moment: float) -> float | None:
        """The time of the first acknowledgement of a write that was begun after `moment`; None if there is none yet."""
        return min((at for begun, at in list(self.answered) if begun > moment), default=None)

    def _write(self, first: int) -> None:
        count = self._system.servers
        servers = itertools.cycle((first + step) % count for step in range(count))
        write: Write | None = None
        last: float | None = None
        while not self._stopping.is_set():
            try:
                write = write or self._system.open_writer(next(servers))
                begun = time.monotonic()
                write()
                now = time.monotonic()
                self.answered.append((begun, now))
                self.longest = max(self.longest, now - (last or begun))
                last = now
            except OSError:
                write = None
                self._stopping.wait(_RETRY_SECONDS)


def seconds_without_leader(system: System) -> float:
    """Kill the leader with SIGKILL, and restart it later.

    The result is the time, in seconds, from the kill to the first answer to a write that was begun after the leader's
    end: answers to earlier ones may have been on their way.
    """
    leader = system.wait_leader()
    writers = Writers(system)
    writers.start()
    try:
        wait_for(f"{system.name}: a first write", lambda: writers.answered or None, PATIENCE_SECONDS)
        time.sleep(BEFORE_SECONDS)
        killed = system.kill(leader)
        ended = time.monotonic()
        answered = wait_for(
            f"{system.name}: a write after the leader was killed",
            lambda: writers.first_after(ended),
            PATIENCE_SECONDS,
        )
    finally:
        writers.stop()
    system.start_server(leader)
    system.wait_leader()
    settle(system)
    return answered - killed


def seconds_to_catch_up(system: System, writes: int) -> float:
    """Kill a follower, write, and restart the follower; returns the seconds until it has executed all writes."""
    leader = system.wait_leader()
    follower = next(server for server in system.running() if server != leader)
    system.kill(follower)
    if system.load(Load("put", 8, 32, count=writes)) is None:
        raise Trouble(f"{system.name}: it cannot write")
    system.write_once(leader)  # then the state that `position` looks at exists, and is complete
    begun = time.monotonic()
    system.start_server(follower)
    wait_for(f"{system.name}: the follower to catch up", lambda: _are_equal(system, (leader, follower)))
    took = time.monotonic() - begun
    settle(system)
    return took


def settle(system: System) -> None:
    """Wait until all servers have executed the same writes."""
    wait_for(f"{system.name}: all servers to be equal", lambda: _are_equal(system, system.running()))


def _are_equal(system: System, servers: Sequence[int]) -> bool:
    system.check_alive()
    positions = {system.position(server) for server in servers}
    return len(positions) == 1 and None not in positions
