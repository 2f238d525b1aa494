"""Snapshots of the applications, piece by piece: `python -m benchmarks.snapshots --help`.

Each application runs in a process of its own, without protocol and sessions. It is frozen twice, and its pieces are
taken: first while nothing else happens, then with commands between the pieces, which change keys, locks or lines that
were not taken yet. The figures are those that a server feels: how long each call holds it, CPU time, and memory. Then
an application is restored from the pieces.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, Final

from attrs import define, field

from benchmarks.memory import MIB, resident, shuffled_keys, value_of
from pfsb.applications.chat import Chat
from pfsb.applications.instances import Instances
from pfsb.applications.interfaces import Result, Ticket
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.service.service import GARBAGE_THRESHOLDS
from pfsb.sessions.cluster_settings import ClusterSettings

COMMANDS_BETWEEN: Final = 100
"""Number of commands between two pieces in the second measurement."""
LOOK_EVERY: Final = 20
"""Number of pieces between two looks at the resident memory."""


class Context:
    """The parts of an `IContext` that the applications need."""

    def __init__(self) -> None:
        self.revision = 0
        self.time_ms = 1_000_000
        self.session = ""
        self.ticket: Ticket = ("", 0)
        self.quotas = ClusterSettings(
            members=(0,), apps=(("kv", 1),), kv_bytes=2**50, chat_bytes=2**50, instance_bytes=2**50, session_locks=10**6
        )

    @property
    def sessions(self) -> Any:
        return _Always(self.session)

    def complete(self, ticket: Ticket, result: Result) -> None:
        pass


class _Always:
    """The session of each command of a run: always the same one."""

    def __init__(self, session: str) -> None:
        self._session = session

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self._session


@define
class Calls:
    """How long calls took, in seconds: all together, and the longest one."""

    total: float = 0.0
    longest: float = 0.0
    cpu: float = 0.0
    longest_cpu: float = 0.0

    def time(self, call: Callable[[], Any]) -> Any:
        began, cpu_began = time.perf_counter(), time.process_time()
        result = call()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        self.total, self.longest = self.total + took, max(self.longest, took)
        self.cpu, self.longest_cpu = self.cpu + cpu, max(self.longest_cpu, cpu)
        return result

    def __str__(self) -> str:
        """The longest call. On a machine that is busy with other programs, its CPU time tells more."""
        return f"{self.longest * 1e3:.2f} ms ({self.longest_cpu * 1e3:.2f} ms CPU)"


@define
class Load:
    """An application that is filled with a state, and commands that change the state."""

    application: Any
    execute: Callable[[Any, Context], None]
    """Executes `COMMANDS_BETWEEN` commands on the application."""
    context: Context = field(factory=Context)


def command(application: Any, context: Context, session: str, *words: Any) -> None:
    context.revision += 1
    context.session, context.ticket = session, (session, context.revision)
    application.execute(words, context)


def kv(count: int, value_bytes: int) -> Load:
    """Keys in random order. Later commands change keys, add some and delete some, all in random places."""
    application, context, dice = KeyValue(), Context(), Random(1)
    for key in shuffled_keys(count):
        command(application, context, "a", "PUT", key.encode(), value_of(key, value_bytes).encode())

    def execute(application: Any, context: Context) -> None:
        keys = [b"key:%012d" % dice.randrange(count) for _ in range(COMMANDS_BETWEEN)]
        changed = len(keys) * 8 // 10
        for key in keys[changed:]:
            command(application, context, "a", "DEL", key)
            command(application, context, "a", "PUT", key + b"/new", bytes(value_bytes))
        context.revision += 1
        application.execute_run([("PUT", key, b"%0*d" % (value_bytes, 7)) for key in keys[:changed]], context)
        context.revision += changed

    return Load(application, execute, context)


def lock(count: int, _value_bytes: int) -> Load:
    """Locks of a tenth as many sessions; a third of them have a session that waits. Later commands pass locks on, time
    out waits, and get new locks."""
    application, context, dice = Lock(), Context(), Random(1)
    sessions = max(count // 10, 2)
    for number in range(count):
        command(application, context, f"client{number % sessions}", "LOCK", f"lock{number}", -1)
    for number in range(0, count, 3):
        command(application, context, f"client{dice.randrange(sessions)}", "LOCK", f"lock{number}", 60_000)

    def execute(application: Any, context: Context) -> None:
        for _ in range(COMMANDS_BETWEEN):
            number = dice.randrange(count)
            verb, *words = dice.choice([("UNLOCK", -1), ("LOCK", 60_000), ("TRYLOCK",)])
            command(application, context, f"client{number % sessions}", verb, f"lock{number}", *words)

    return Load(application, execute, context)


def queue(count: int, _value_bytes: int) -> Load:
    """One lock, for which as many sessions wait. Later commands pass it on."""
    application, context = Lock(), Context()
    for number in range(count):
        command(application, context, f"client{number}", "LOCK", "door", -1)

    def execute(application: Any, context: Context) -> None:
        for _ in range(COMMANDS_BETWEEN):
            command(application, context, application.locks["door"].holder, "UNLOCK", "door", -1)

    return Load(application, execute, context)


def chat(count: int, value_bytes: int) -> Load:
    application, context = Chat(), Context()
    for number in range(count):
        command(application, context, f"client{number % 1_000}", "SAY", f"line {number} ".ljust(value_bytes, "."))

    def execute(application: Any, context: Context) -> None:
        for number in range(COMMANDS_BETWEEN):
            command(application, context, "a", "SAY", f"later {number} ".ljust(value_bytes, "."))

    return Load(application, execute, context)


def instances(count: int, value_bytes: int) -> Load:
    application, context, dice = Instances(), Context(), Random(1)
    value = "eHh4" * (value_bytes // 3)
    for number in range(count):
        command(application, context, "a", "PROPOSE", number, value)

    def execute(application: Any, context: Context) -> None:
        for _ in range(COMMANDS_BETWEEN):
            command(application, context, "a", "PROPOSE", dice.randrange(count, 2 * count), value)
        command(application, context, "a", "DONE", 0, 1, context.revision - count)

    return Load(application, execute, context)


LOADS: Final[dict[str, tuple[Callable[[int, int], Load], Callable[[], Any], int]]] = {
    "kv": (kv, KeyValue, 1_000_000),
    "lock": (lock, Lock, 100_000),
    "queue": (queue, Lock, 100_000),
    "chat": (chat, Chat, 1_000_000),
    "instances": (instances, Instances, 100_000),
}
"""Name -> (function that fills an application, the application, number of keys, locks, sessions, lines or instances).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Snapshots of the applications, piece by piece.")
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--count", type=int, help="number of keys, locks, sessions in a queue, lines, instances")
    parser.add_argument("--only", choices=LOADS, help="measure this one, in this process (default: all)")
    options = parser.parse_args()
    if options.only:
        measure(options.only, options.count or LOADS[options.only][2], options.value_bytes)
        return
    for name in LOADS:
        subprocess.run([sys.executable, "-m", "benchmarks.snapshots", "--only", name, *sys.argv[1:]], check=True)


def measure(name: str, count: int, value_bytes: int) -> None:
    fill, make, _ = LOADS[name]
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    empty = resident(os.getpid())
    load = fill(count, value_bytes)
    print(f"{name}: {count}, values of {value_bytes} bytes, {resident(os.getpid()) - empty:.0f} MiB")
    with tempfile.TemporaryFile() as file:
        digests = []
        for commands in (0, COMMANDS_BETWEEN):
            sizes = taken(load, commands, file)
            digests.append(hashlib.file_digest(at_the_beginning(file), "sha256").digest())
        assert digests[0] == digests[1], "the pieces are those of the state that was frozen"
        restore(make, pieces_in(file, sizes))


def taken(load: Load, commands: int, file: Any) -> list[int]:
    """Freeze the application, and write its pieces to a file; `commands` run between two pieces. Returns the sizes of
    the pieces."""
    application = load.application
    before = most = resident(os.getpid())
    freezing, steps, executing = Calls(), Calls(), Calls()
    sizes: list[int] = []
    pieces = freezing.time(application.freeze)
    at_the_beginning(file)
    while (piece := steps.time(lambda: next(pieces, None))) is not None:
        sizes.append(len(piece))
        file.write(piece)
        if commands:
            executing.time(lambda: load.execute(application, load.context))
        if len(sizes) % LOOK_EVERY == 1:
            most = max(most, resident(os.getpid()))
    what = f"{commands} commands between pieces" if commands else "pieces alone"
    print(f"  {what}:")
    print(f"    freeze {freezing}; longest step {steps}; all {steps.cpu + freezing.cpu:.2f} s CPU")
    print(f"    {sum(sizes) / MIB:.1f} MiB in {len(sizes)} pieces; resident {before:.0f} MiB, at most {most:.0f} MiB")
    if commands:
        print(f"    longest time of the commands {executing}")
    return sizes


def at_the_beginning(file: Any) -> Any:
    file.seek(0)
    return file


def pieces_in(file: Any, sizes: Iterable[int]) -> Iterator[bytes]:
    at_the_beginning(file)
    for size in sizes:
        yield file.read(size)


def restore(make: Callable[[], Any], pieces: Iterable[bytes]) -> None:
    application, steps, ending = make(), Calls(), Calls()
    for piece in pieces:
        steps.time(lambda piece=piece: application.take_piece(piece))  # type: ignore[misc]
    ending.time(application.pieces_end)
    print(f"  restore: {steps.total:.2f} s, {steps.cpu:.2f} s CPU; longest piece {steps}; end {ending}")


if __name__ == "__main__":
    main()
