"""PySyncObj as a system of the comparison. It keeps all data in memory, and the load runs in the leader's process."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmarks.compare.system import KEYS, VALUE_BYTES, Choices, Load, System, Tail, Trouble, Write, ports
from benchmarks.compare.tools import python_environment
from pfsb.bench.client import LoadFailed, LoadResult, read_result
from pfsb.bench.probe import Moment

WRITE_SECONDS: Final = 0.25
"""How long, in seconds, a writer waits for an answer before it tries another server."""
_LOAD_SECONDS: Final = 150.0
_ASK_SECONDS: Final = 3.0
_NODE: Final = Path(__file__).with_name("pysyncobj_node.py")


class PySyncObj(System):
    name: ClassVar[str] = "PySyncObj"
    durable: ClassVar[bool] = False
    durability: ClassVar[str] = "none: all data is in memory"
    lacks: ClassVar[frozenset[str]] = frozenset({"local"})
    _python: ClassVar[str] = ""

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        environment = python_environment("pysyncobj", "pysyncobj")
        cls._python = str(environment / "bin" / "python")
        asked = [cls._python, "-c", "import pysyncobj.version; print(pysyncobj.version.VERSION)"]
        said = subprocess.run(asked, capture_output=True, text=True).stdout
        return re.sub(r"\s", "", said) or "unknown"

    def configure(self) -> None:
        found = ports(2 * self.servers)
        self._addresses = [f"127.0.0.1:{port}" for port in found[: self.servers]]
        self._control = found[self.servers :]

    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        others = [address for address in self._addresses if address != self._addresses[server]]
        spec = {"me": self._addresses[server], "others": others, "control": self._control[server]}
        return [self._python, str(_NODE), json.dumps(spec)], {"PYTHONPATH": str(_NODE.parents[2])}

    def leader(self) -> int | None:
        said = [self._ask(server, {"ask": "status"}) for server in self.running()]
        leaders = {str(words["leader"]) if words and words["ready"] else "" for words in said}
        named = leaders.pop() if len(leaders) == 1 else ""
        found = self._addresses.index(named) if named in self._addresses else None
        return found if found in self.running() else None

    def load(self, load: Load) -> LoadResult | None:
        asked = {
            "ask": "load",
            "kind": load.kind,
            "under_way": load.under_way,
            "seconds": load.seconds,
            "warmup": load.warmup,
            "count": load.count,
            "keys": KEYS,
            "value_bytes": VALUE_BYTES,
        }
        try:
            with socket.create_connection(
                ("127.0.0.1", self._control[self.wait_leader()]), _LOAD_SECONDS
            ) as connection:
                connection.sendall(json.dumps(asked).encode() + b"\n")
                tail = Tail(connection.recv)
                seen: dict[bytes, Moment] = {}
                while not (line := tail.line()).startswith(b"{"):
                    seen[line] = self.look()
            return read_result(json.loads(line), seen[b"begin"], seen[b"end"])
        except (OSError, ValueError, KeyError, LoadFailed) as error:
            raise Trouble(f"{self.name}: {error!r}") from None

    def _ask(self, server: int, asked: dict[str, Any]) -> Any:
        try:
            with socket.create_connection(("127.0.0.1", self._control[server]), _ASK_SECONDS) as connection:
                connection.sendall(json.dumps(asked).encode() + b"\n")
                return json.loads(Tail(connection.recv).line())
        except (OSError, ValueError):
            return None

    def open_writer(self, server: int) -> Write:
        connection = socket.create_connection(("127.0.0.1", self._control[server]), 2 * WRITE_SECONDS)
        tail = Tail(connection.recv)
        asked = {"ask": "put", "key": "written", "value": "v" * VALUE_BYTES, "seconds": WRITE_SECONDS}
        line = json.dumps(asked).encode() + b"\n"

        def write() -> None:
            connection.sendall(line)
            if tail.line() != b"true":
                raise ConnectionError("refused, or not in time")

        return write

    def position(self, server: int) -> object | None:
        said = self._ask(server, {"ask": "status"})
        return None if said is None else said["applied"]
