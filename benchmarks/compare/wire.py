"""Builds and calls `wire_load.go`, the load client for systems whose wire protocol it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.compare.system import KEYS, VALUE_BYTES, Load
from benchmarks.compare.tools import built, program

_SOURCE: Final = Path(__file__).with_name("wire_load.go")


def client() -> str:
    """The path of the load client, which is built at first use. Raises `Missing`."""
    go = program("go", "golang-go")
    command = [go, "build", "-o", "{out}/wire_load", str(_SOURCE)]
    return str(built(_SOURCE, "wire-load", command, {"GO111MODULE": "off", "GOFLAGS": ""}) / "wire_load")


def command(client: str, protocol: str, port: int, load: Load, connections: int, depth: int) -> Sequence[str]:
    """The command line that puts a load on the server at a port, on so many connections."""
    arguments = {
        "protocol": protocol,
        "endpoint": f"127.0.0.1:{port}",
        "mode": load.kind,
        "connections": connections,
        "depth": depth,
        "seconds": load.seconds,
        "warmup": load.warmup,
        "count": load.count,
        "keys": KEYS,
        "value-bytes": VALUE_BYTES,
    }
    return [client, *(f"-{name}={value}" for name, value in arguments.items())]
