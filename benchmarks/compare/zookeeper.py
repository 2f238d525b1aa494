"""ZooKeeper as a system of the comparison. Its load client uses ZooKeeper's own client library for Java."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.compare.system import KEYS, VALUE_BYTES, Choices, Load, Missing, System, Write, ports
from benchmarks.compare.tools import built, program
from pfsb.bench.client import LoadResult

WRITE_SECONDS: Final = 0.25
CONNECTIONS_MAX: Final = 4
"""Maximum number of sessions: a session carries many calls at once, and more sessions make ZooKeeper no faster.

Loads of locks have more sessions, since a lock belongs to a session.
"""
WARM_SECONDS: Final = 6.0
"""How long, in seconds, a load runs before the first measurement, since Java compiles code while it runs."""
_SOURCE: Final = Path(__file__).with_name("ZooKeeperLoad.java")
_JARS: Final = Path("/usr/share/java")
_NEEDED: Final = (
    *("zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-nop", "netty-all", "netty-handler", "netty-transport"),
    *("netty-buffer", "netty-common", "netty-codec", "netty-resolver", "netty-transport-native-epoll"),
    *("netty-transport-native-unix-common", "commons-io", "metrics-core", "snappy-java", "commons-cli"),
    *("jackson-core", "jackson-databind", "jackson-annotations", "jetty9-server", "log4j-1.2"),
)


class ZooKeeper(System):
    name: ClassVar[str] = "ZooKeeper"
    durability: ClassVar[str] = "its default: forceSync=yes, acknowledged by a majority"
    packages: ClassVar[Sequence[str]] = ("zookeeper", "default-jdk-headless")
    _java: ClassVar[str] = ""
    _class_path: ClassVar[str] = ""

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        if not (_JARS / "zookeeper.jar").exists():
            raise Missing(f"{_JARS}/zookeeper.jar is not there (Debian: apt-get install zookeeper)")
        cls._java = program("java", "default-jdk-headless")
        compiler = program("javac", "default-jdk-headless")
        jars = ":".join(str(_JARS / f"{name}.jar") for name in _NEEDED)
        classes = built([_SOURCE], "zookeeper-load", [compiler, "-cp", jars, "-d", "{out}", str(_SOURCE)])
        cls._class_path = f"{classes}:{jars}"
        named = [re.fullmatch(r"zookeeper-(\d[\d.]*)\.jar", file.name) for file in _JARS.glob("zookeeper-*.jar")]
        return next((found[1] for found in named if found), "unknown")

    def configure(self) -> None:
        found = ports(3 * self.servers)
        self._clients = found[: self.servers]
        self._is_warm = False
        quorum = "".join(
            f"server.{i + 1}=127.0.0.1:{found[self.servers + i]}:{found[2 * self.servers + i]}\n"
            for i in range(self.servers)
        )
        for server, port in enumerate(self._clients):
            data = self.directory / f"data-{server}"
            data.mkdir()
            (data / "myid").write_text(f"{server + 1}\n")
            settings = (
                "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nadmin.enableServer=false\n"
                f"dataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\n4lw.commands.whitelist=srvr\n"
            )
            (data / "zoo.cfg").write_text(settings + quorum)

    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [self._java, "-Xmx1000m", "-cp", self._class_path, main, f"data-{server}/zoo.cfg"], {}

    def leader(self) -> int | None:
        """The server that leads; None until all running servers serve, since joining would disturb measurements."""
        said = {server: self._srvr(server) for server in self.running()}
        if not all("Mode:" in words for words in said.values()):
            return None
        return next((server for server, words in said.items() if "Mode: leader" in words), None)

    def _srvr(self, server: int) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self._clients[server]), 1.0) as connection:
                connection.sendall(b"srvr")
                with connection.makefile() as file:
                    return file.read()
        except OSError:
            return ""

    def load(self, load: Load) -> LoadResult | None:
        if not self._is_warm:
            self._is_warm = True
            self._run(Load("put", 4, 32, seconds=WARM_SECONDS))
        return self._run(load)

    def _run(self, load: Load) -> LoadResult:
        connections = load.under_way if load.kind in ("lock", "lockone") else min(load.under_way, CONNECTIONS_MAX)
        address = f"127.0.0.1:{self._clients[self.wait_leader()]}"
        words = (load.kind, address, connections, load.under_way, load.seconds, load.warmup, load.count)
        # These options make the client warm up quickly, though slower later: its compiler takes CPU from the servers.
        java = [self._java, "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", self._class_path]
        command = [*java, "ZooKeeperLoad", *map(str, words), str(KEYS), str(VALUE_BYTES)]
        return self.run_client(command, load)

    def open_writer(self, server: int) -> Write:
        """Connect by ZooKeeper's wire protocol: the Java client waits up to a second before it tries another server."""
        connection = socket.create_connection(("127.0.0.1", self._clients[server]), WRITE_SECONDS)
        wire = _Wire(connection)
        wire.open_session()
        wire.create("/written")
        return wire.set_data

    def position(self, server: int) -> object | None:
        found = re.search(r"Zxid: (\S+)", self._srvr(server))
        return found[1] if found else None


class _Wire:
    """The part of ZooKeeper's client protocol that a writer needs."""

    _CREATE, _SET_DATA = 1, 5
    _NODE_EXISTS = -110

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._number = 0

    def open_session(self) -> None:
        self._send(struct.pack(">iqiqi16sb", 0, 0, 10_000, 0, 16, bytes(16), 0))
        self._receive()

    def create(self, path: str) -> None:
        anyone = struct.pack(">ii", 1, 31) + _text("world") + _text("anyone")
        self._call(self._CREATE, _text(path) + _text("") + anyone + struct.pack(">i", 0))

    def set_data(self) -> None:
        self._call(self._SET_DATA, _text("/written") + _text("v" * VALUE_BYTES) + struct.pack(">i", -1))

    def _call(self, kind: int, body: bytes) -> None:
        self._number += 1
        self._send(struct.pack(">ii", self._number, kind) + body)
        error: int = struct.unpack_from(">iqi", self._receive())[2]
        if error not in (0, self._NODE_EXISTS):
            raise ConnectionError(f"error {error}")

    def _send(self, body: bytes) -> None:
        self._connection.sendall(struct.pack(">i", len(body)) + body)

    def _receive(self) -> bytes:
        [size] = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = self._connection.recv(size - len(data))
            if not got:
                raise ConnectionError("the server hung up")
            data += got
        return data


def _text(text: str) -> bytes:
    return struct.pack(">i", len(text)) + text.encode()
