"""PostgreSQL as a system of the comparison: a primary, whose commits wait for standbys, and a table of keys and values.

With three servers a commit waits until one of two standbys has forced it to disk, with five until two of four have: so
a majority has it. PostgreSQL elects no new primary, so the time after a kill of the leader cannot be measured. It does
not replicate locks. A SELECT on the primary is no linearizable read, since a primary does not ask whether it has been
replaced.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmarks.compare.system import VALUE_BYTES, Choices, Missing, Trouble, Write, ports, wait_for
from benchmarks.compare.wire import WireSystem

WRITE_SECONDS: Final = 0.25
"""How long, in seconds, a writer waits for an answer before it tries again."""
PRIMARY: Final = 0
PROGRAMS: Final = Path("/usr/lib/postgresql")
"""Where Debian puts the programs of each version of PostgreSQL."""
_ASK_SECONDS: Final = 2.0
_INIT_SECONDS: Final = 120.0
_USERS: Final = ("postgres", "nobody")
"""Users of whom the first that exists runs the servers if this program runs as root, which PostgreSQL refuses."""


class PostgreSQL(WireSystem):
    name: ClassVar[str] = "PostgreSQL"
    durability: ClassVar[str] = (
        "fsync = on, full_page_writes = on, synchronous_commit = on, synchronous_standby_names = ANY (half of the "
        "servers, rounded down): on the disks of the primary and of so many standbys, which are a majority"
    )
    packages: ClassVar[Sequence[str]] = ("postgresql-15", "golang-go")
    lacks: ClassVar[frozenset[str]] = frozenset({"get", "lock", "lockone", "failover"})
    # PostgreSQL removes its shared memory only if it ends by itself. SIGQUIT makes it end at once, with the files that
    # a crash would leave.
    ending: ClassVar[signal.Signals] = signal.SIGQUIT
    protocol: ClassVar[str] = "postgresql"
    connections_max: ClassVar[int] = 256
    """Maximum number of connections of a load: each carries one write at a time, and is a process of the server."""
    is_pipelined: ClassVar[bool] = False
    _programs: ClassVar[Path] = PROGRAMS

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        """Find PostgreSQL's programs, those of the newest version, and build the load client. Raises `Missing`."""
        found = sorted(PROGRAMS.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
        if not found:
            raise Missing(f"there is no PostgreSQL below {PROGRAMS} (Debian: apt-get install postgresql-15)")
        cls._programs = found[-1].parent
        cls.build_client()
        if os.geteuid() == 0 and _other_user() is None:
            raise Missing(f"it refuses to run as root, and there is no user named {' or '.join(_USERS)}")
        said = subprocess.run([found[-1], "--version"], capture_output=True, text=True).stdout.split()
        return said[2] if len(said) > 2 else "unknown"

    def owner(self) -> dict[str, Any]:
        user = _other_user() if os.geteuid() == 0 else None
        return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def configure(self) -> None:
        self._ports = ports(self.servers)
        owner = self.owner()
        if owner:
            os.chown(self.directory, owner["user"], owner["group"])
            self._check_reachable(owner)
        self._call("initdb", "-D", "data-0", "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C")
        for server in range(1, self.servers):
            # A standby begins with a copy of the primary's files, which are complete while the primary is not running.
            copy = self.directory / f"data-{server}"
            shutil.copytree(self.directory / "data-0", copy)
            (copy / "standby.signal").touch()
            if owner:
                for path in (copy, *copy.rglob("*")):
                    os.chown(path, owner["user"], owner["group"])

    def _check_reachable(self, owner: dict[str, Any]) -> None:
        tried = subprocess.run(["/bin/ls", str(self.directory)], cwd="/", capture_output=True, text=True, **owner)
        if tried.returncode:
            raise Trouble(
                f"{self.name}: it does not run as root, and user {owner['user']} may not enter {self.directory}; "
                "choose another place with --directory"
            )

    def _call(self, name: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / name), *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=_INIT_SECONDS,
            **self.owner(),
        )
        if done.returncode:
            raise Trouble(f"{self.name}: {name}: {done.stderr.strip()[-400:]}")

    def command(self, server: int) -> tuple[Sequence[str], dict[str, str]]:
        settings = self._settings(server)
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", f"data-{server}", *words], {}

    def _settings(self, server: int) -> dict[str, str]:
        standbys = ", ".join(f"s{standby}" for standby in range(1, self.servers))
        majority = {"synchronous_standby_names": f"ANY {self.servers // 2} ({standbys})"} if self.servers > 1 else {}
        primary = f"host=127.0.0.1 port={self._ports[PRIMARY]} user=bench application_name=s{server}"
        return {
            "listen_addresses": "127.0.0.1",
            "port": str(self._ports[server]),
            "unix_socket_directories": "",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "wal_level": "replica",
            "max_connections": str(self.connections_max + 40),
            "max_wal_size": "4GB",
            "wal_keep_size": "1GB",
            "primary_conninfo": primary,
            "wal_retrieve_retry_interval": "200ms",
            # Servers that are paused for long would otherwise give each other up.
            "wal_sender_timeout": "0",
            "wal_receiver_timeout": "0",
            **majority,
        }

    def start(self) -> None:
        super().start()
        made = "CREATE TABLE IF NOT EXISTS kv (key text PRIMARY KEY, value text) WITH (fillfactor = 50)"
        _Client(self._ports[PRIMARY], 10 * _ASK_SECONDS).query(made)

        def look() -> bool:
            return all(self._ask(server, "SELECT count(*) FROM kv") is not None for server in self.running())

        wait_for(f"{self.name}: the table on all servers", look)

    def leader(self) -> int | None:
        """The primary; None until it sends its log to all standbys that run."""
        streaming = self._ask(PRIMARY, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        return PRIMARY if streaming == str(len(self.running()) - 1) else None

    def _ask(self, server: int, query: str) -> str | None:
        try:
            return _Client(self._ports[server], _ASK_SECONDS).query(query)
        except OSError:
            return None

    def leader_port(self) -> int:
        return self._ports[self.wait_leader()]

    def open_writer(self, server: int) -> Write:
        client = _Client(self._ports[server], WRITE_SECONDS)
        value = "v" * VALUE_BYTES
        upsert = f"INSERT INTO kv VALUES ('written', '{value}') ON CONFLICT (key) DO UPDATE SET value = excluded.value"

        def write() -> None:
            client.query(upsert)

        return write

    def position(self, server: int) -> object | None:
        function = "pg_current_wal_flush_lsn" if server == PRIMARY else "pg_last_wal_replay_lsn"
        return self._ask(server, f"SELECT {function}()")


def _other_user() -> pwd.struct_passwd | None:
    """The user who runs the servers instead of root; None if this machine has none of them."""
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class _Client:
    """The part of PostgreSQL's client protocol that a simple query needs."""

    def __init__(self, port: int, seconds: float) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), seconds)
        self._file = self._connection.makefile("rb")
        body = struct.pack(">i", 3 << 16) + b"user\0bench\0database\0postgres\0\0"
        self._connection.sendall(struct.pack(">i", len(body) + 4) + body)
        self._until_ready()

    def query(self, text: str) -> str | None:
        """The first column of the first row of a query's result; None if it has none. Raises OSError."""
        body = text.encode() + b"\0"
        self._connection.sendall(b"Q" + struct.pack(">i", len(body) + 4) + body)
        return self._until_ready()

    def _until_ready(self) -> str | None:
        found: str | None = None
        refused = ""
        while True:
            kind, size = struct.unpack(">ci", self._exactly(5))
            body = self._exactly(size - 4)
            if kind == b"E":
                refused = body.replace(b"\0", b" ").decode(errors="replace")
            elif kind == b"D" and found is None:
                length = struct.unpack_from(">i", body, 2)[0]
                found = body[6 : 6 + length].decode() if length >= 0 else None
            if kind == b"Z" or (refused and refused[1:6] == "FATAL"):
                break
        if refused:
            raise ConnectionError(refused)
        return found

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionError("the server hung up")
        return data
