"""What a load client is to do: whom to ask, what, how much at once, for how long."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import field, frozen
from attrs.validators import gt

KEY: Final = "%k"
"""Stands in a step for the number of a key."""
CONNECTION: Final = "%c"
"""Stands in a step for the number of the connection."""

LIMIT_SECONDS: Final = 120.0
"""Nothing takes longer, or something is wrong."""
OPERATIONS_MAX: Final = 16
TARGETS_MAX: Final = 64
"""As many as load.c has room for."""

READS: Final = ("linearizable", "sequential", "stale")

Target = tuple[str, int]
"""(host, port) of a server's line protocol."""


@frozen
class Operation:
    """One thing that is measured: lines that are sent one after the other, each when the one before is answered."""

    weight: int
    """How often, as against the other operations of a mix."""
    steps: tuple[str, ...]
    """Lines of the protocol, with `KEY` and `CONNECTION` in them."""


class WrongMix(ValueError):
    """Somebody wrote a mix that is none; the text says what would be right."""


@frozen
class Workload:
    targets: Sequence[Target]
    """Connections go to them in turn."""
    operations: Sequence[Operation]
    connections: int = field(default=8, validator=gt(0))
    depth: int = field(default=8, validator=gt(0))
    """Operations that one connection has under way."""
    seconds: float = 5.0
    """Measured time: after `warmup`, and in a closed loop not before each connection has had an answer."""
    warmup: float = 1.0
    count: int = 0
    """If not 0: so many operations, however long they take, measured from the first to the last."""
    keys: int = field(default=10_000, validator=gt(0))
    sequential: bool = False
    """Take the keys one after the other; else at random."""
    rate: float = 0.0
    """If not 0, an open loop: so many operations are due each second, whether those before are answered or not. They
    count from when they were due. One that is due while every connection has `depth` under way is missed."""
    limit: float = LIMIT_SECONDS
    """A `count` that takes longer has failed; in seconds."""

    @property
    def under_way(self) -> int:
        return self.connections * self.depth

    def render(self) -> str:
        """As the load clients read it from standard input."""
        lines = [
            *(f"target {host} {port}" for host, port in self.targets),
            f"connections {self.connections}",
            f"depth {self.depth}",
            f"seconds {self.seconds:g}",
            f"warmup {self.warmup:g}",
            f"count {self.count}",
            f"keys {self.keys}",
            f"sequential {int(self.sequential)}",
            f"rate {self.rate:g}",
            f"limit {self.limit + (0 if self.count else self.seconds + self.warmup):g}",
        ]
        for operation in self.operations:
            lines += [f"operation {operation.weight} {len(operation.steps)}", *operation.steps]
        return "\n".join([*lines, "end", ""])


def operations(mix: str, value_bytes: int, read: str = "linearizable") -> list[Operation]:
    """Read a mix such as `put=70,get=30`, or `lock`. Raises `WrongMix`."""
    parts = [re.fullmatch(r"(\w+)(?:=(\d+))?", part) for part in mix.split(",")]
    known = _steps("v" * value_bytes, read)
    found = []
    for part, written in zip(parts, mix.split(","), strict=True):
        if part is None or part[1] not in known or part[2] == "0":
            raise WrongMix(f"{written!r} is no part of a mix; known are {', '.join(known)} (example: put=70,get=30)")
        found.append(Operation(int(part[2] or 1), known[part[1]]))
    if len(found) > OPERATIONS_MAX:
        raise WrongMix(f"a mix has at most {OPERATIONS_MAX} parts, not {len(found)}")
    return found


def _steps(value: str, read: str) -> dict[str, tuple[str, ...]]:
    asked = "" if read == "linearizable" else f" read={read}"
    return {
        "put": (f"PUT key-{KEY} {value}",),
        "get": (f"GET key-{KEY}{asked}",),
        "incr": (f"INCR count-{KEY}",),
        "append": (f"APPEND log-{KEY} {value}",),
        "puthash": (f"PUTHASH hash-{KEY} {value}",),
        "say": (f"SAY {value}",),
        "lock": (f"LOCK lock-{CONNECTION}", f"UNLOCK lock-{CONNECTION}"),
        "lockone": ("LOCK lock", "UNLOCK lock"),
        "ping": ("PING",),
    }


def needs_depth_one(operations: Sequence[Operation]) -> bool:
    """True if replies may come in another order than the requests, which only one at a time can tell apart."""
    return any(step.startswith("LOCK ") for operation in operations for step in operation.steps)


def fill(targets: Sequence[Target], keys: int, value_bytes: int) -> Workload:
    """Write every key once, so that reads find something."""
    put = operations("put", value_bytes)
    return Workload(targets, put, connections=4, depth=32, count=keys, keys=keys, sequential=True)
