"""WireSystem: a system of the comparison that is loaded by `wire_load.go`, which speaks its wire protocol."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.compare.system import KEYS, VALUE_BYTES, Load, System
from benchmarks.compare.tools import go_client
from pfsb.bench.client import LoadResult

_SOURCE: Final = Path(__file__).with_name("wire_load.go")


class WireSystem(System):
    """A system that `wire_load.go` loads at one of its servers."""

    protocol: ClassVar[str]
    """The protocol, by its name in `wire_load.go`."""
    connections_max: ClassVar[int]
    """Maximum number of connections of a load."""
    is_pipelined: ClassVar[bool]
    """Whether several operations may be under way on one connection."""
    _client: ClassVar[str] = ""

    @classmethod
    def build_client(cls) -> None:
        """Build the load client, unless that was done before. Raises `Missing`."""
        cls._client = go_client(_SOURCE)

    @abstractmethod
    def leader_port(self) -> int:
        """Wait for a leader; returns the port at which it takes operations."""

    def load(self, load: Load) -> LoadResult | None:
        if load.kind == "local":
            self._load(Load("fill", 8, 32, count=KEYS))
        return self._load(load)

    def _load(self, load: Load) -> LoadResult:
        connections = min(load.under_way, self.connections_max)
        arguments = {
            "protocol": self.protocol,
            "endpoint": f"127.0.0.1:{self.leader_port()}",
            "mode": load.kind,
            "connections": connections,
            "depth": load.under_way // connections if self.is_pipelined else 1,
            "seconds": load.seconds,
            "warmup": load.warmup,
            "count": load.count,
            "keys": KEYS,
            "value-bytes": VALUE_BYTES,
        }
        return self.run_client([self._client, *(f"-{name}={value}" for name, value in arguments.items())], load)
