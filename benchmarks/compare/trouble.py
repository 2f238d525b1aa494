"""What is measured by making trouble: how soon writes go on without the leader, how soon a follower catches up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from benchmarks.compare.system import Load, System, Trouble, Write, wait_for

WRITERS: Final = 4
BEFORE_SECONDS: Final = 0.7
"""How long there is peace before the leader is killed."""
GUARD_SECONDS: Final = 0.02
"""An answer that comes so soon after the kill was on its way before it."""
PATIENCE_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 0.005


@define(eq=False)
class Writers:
    """Clients that write one after the other, each at one server, and go on to the next server when it fails them."""

    _system: System
    answered: list[float] = field(init=False, factory=list)
    """When, by time.monotonic."""
    _stopping: threading.Event = field(init=False, factory=threading.Event)
    _threads: list[threading.Thread] = field(init=False, factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._write, args=(at,), daemon=True) for at in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def first_after(self, moment: float) -> float | None:
        return next((at for at in sorted(self.answered) if at > moment), None)

    def _write(self, first: int) -> None:
        count = self._system.servers
        servers = itertools.cycle((first + step) % count for step in range(count))
        write: Write | None = None
        while not self._stopping.is_set():
            try:
                write = write or self._system.open_writer(next(servers))
                write()
                self.answered.append(time.monotonic())
            except OSError:
                write = None
                self._stopping.wait(_RETRY_SECONDS)


def seconds_without_leader(system: System) -> float:
    """kill -9 of the leader; how long until a write is answered again. The killed one is started again afterwards."""
    leader = system.wait_leader()
    writers = Writers(system)
    writers.start()
    try:
        wait_for(f"{system.name}: a first write", lambda: writers.answered or None, PATIENCE_SECONDS)
        time.sleep(BEFORE_SECONDS)
        killed = time.monotonic()
        system.kill(leader)
        answered = wait_for(
            f"{system.name}: a write after the leader was killed",
            lambda: writers.first_after(killed + GUARD_SECONDS),
            PATIENCE_SECONDS,
        )
    finally:
        writers.stop()
    system.start_server(leader)
    system.wait_leader()
    settle(system)
    return answered - killed


def seconds_to_catch_up(system: System, writes: int) -> float:
    """A follower that missed so many writes is started: how long until its own state has them."""
    leader = system.wait_leader()
    follower = next(server for server in system.running() if server != leader)
    system.kill(follower)
    if system.load(Load("put", 8, 32, count=writes)) is None:
        raise Trouble(f"{system.name}: it cannot write")
    _write_once(system, leader)
    begun = time.monotonic()
    system.start_server(follower)
    wait_for(f"{system.name}: the follower to catch up", lambda: _are_equal(system, (leader, follower)))
    took = time.monotonic() - begun
    settle(system)
    return took


def settle(system: System) -> None:
    """Wait until all servers have executed the same."""
    wait_for(f"{system.name}: all servers to be equal", lambda: _are_equal(system, system.running()))


def _are_equal(system: System, servers: Sequence[int]) -> bool:
    system.check_alive()
    positions = {system.position(server) for server in servers}
    return len(positions) == 1 and None not in positions


def _write_once(system: System, server: int) -> None:
    """What `position` looks at must be there, and stand still."""

    def look() -> bool:
        try:
            system.open_writer(server)()
        except OSError:
            return False
        return True

    wait_for(f"{system.name}: one more write", look)
