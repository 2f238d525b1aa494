"""Workloads: which servers and operations, how many at once and for how long, in one run of a load client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import field, frozen
from attrs.validators import gt

KEY: Final = "%k"
"""Placeholder in a line that an `Operation` sends: for each sending, the load client puts the number of a key in its
place."""
CONNECTION: Final = "%c"
"""Placeholder in a line that an `Operation` sends: the load client puts the number of the connection in its place."""

LIMIT_SECONDS: Final = 120.0
"""Default of `Workload.limit`, in seconds."""
OPERATIONS_MAX: Final = 16
"""Maximum number of operations in a mix; the tables of load.c have this size."""
TARGETS_MAX: Final = 64
"""Maximum number of servers in a workload; the tables of load.c have this size."""

READS: Final = ("linearizable", "sequential", "stale")

Target = tuple[str, int]
"""(host, port) at which a server accepts clients of the line protocol."""


@frozen
class Operation:
    """One kind of operation that is measured: lines that are sent in order, each when the one before is answered."""

    weight: int
    """How often the operation is chosen, in proportion to the weights of the other operations of a mix."""
    steps: tuple[str, ...]
    """The lines to send, in which `KEY` and `CONNECTION` may stand for numbers."""


class WrongMix(ValueError):
    """The text of a mix is invalid; the message says what would be valid."""


@frozen
class Workload:
    """The input of a load client."""

    targets: Sequence[Target]
    """The servers; connections are spread over them in turn."""
    operations: Sequence[Operation]
    connections: int = field(default=8, validator=gt(0))
    depth: int = field(default=8, validator=gt(0))
    """Maximum number of operations under way at once on one connection."""
    seconds: float = 5.0
    """Length of the measured time, in seconds. The measured time begins after `warmup` seconds, but in a closed loop
    not before each connection has had an answer."""
    warmup: float = 1.0
    count: int = 0
    """If not 0: run this number of operations and measure from the first to the last; `seconds` is not used."""
    keys: int = field(default=10_000, validator=gt(0))
    sequential: bool = False
    """True: take the keys in order. False: take them at random."""
    rate: float = 0.0
    """If not 0, an open loop: this number of operations is due each second, whether earlier ones are answered or not.
    Latencies count from the moment when an operation was due. An operation that is due while every connection has
    `depth` operations under way is missed."""
    token: str | None = field(default=None, repr=False)
    """The token that is shown on each connection; None: none is."""
    limit: float = LIMIT_SECONDS
    """How long, in seconds, a run may take before it counts as failed. A run with a `count` may take this time; a run
    that is measured for a fixed time may take it in addition to `warmup` and `seconds`."""

    @property
    def under_way(self) -> int:
        """Maximum number of operations under way at once, on all connections together."""
        return self.connections * self.depth

    def render(self) -> str:
        """The workload in the form that load clients read from standard input."""
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
        if self.token is not None:
            lines.append(f"token {self.token}")
        for operation in self.operations:
            lines += [f"operation {operation.weight} {len(operation.steps)}", *operation.steps]
        return "\n".join([*lines, "end", ""])


def operations(mix: str, value_bytes: int, read: str = "linearizable") -> list[Operation]:
    """Read a mix, a text with operations and their weights, such as `put=70,get=30` or `lock`. Raises `WrongMix`.

    `value_bytes` is the size of each value that is written; `read` is the read level of each get.
    """
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
    """Whether replies may come in another order than the requests, as those to LOCK do.

    A load client matches the replies on one connection to the requests by their order. So such operations need a
    `depth` of 1.
    """
    return any(step.startswith("LOCK ") for operation in operations for step in operation.steps)


def fill(targets: Sequence[Target], keys: int, value_bytes: int) -> Workload:
    """The workload that writes each key once before a measurement, so that reads find a value."""
    put = operations("put", value_bytes)
    return Workload(targets, put, connections=4, depth=32, count=keys, keys=keys, sequential=True)
