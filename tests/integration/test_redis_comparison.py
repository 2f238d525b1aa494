"""Thousands of random commands, to a real Redis and to pfsb: what differs is what docs/redis.rst says."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from itertools import islice
from random import Random
from typing import Final

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from pfsb.applications.arguments import key_bytes_max
from pfsb.demo.processes import free_ports
from pfsb.frontends.resp.command_replies import every_command
from pfsb.frontends.resp.connection_commands import COMMANDS, REDIS_VERSION
from tests.frontends.resp.reading import Error, Reply
from tests.integration.case import ClusterCase
from tests.integration.redis_case import redis_port, servers_with_redis_ports
from tests.integration.redis_comparison import Comparison, RandomCommands, RedisConnection, description

REDIS: Final = shutil.which("redis-server") or shutil.which("valkey-server")
COMMANDS_EACH: Final = 2_000
SEEDS: Final = (1, 2)
START_SECONDS: Final = 20.0
KINDS_MIN: Final = 40
"""Minimum number of kinds of agreement, such as an integer from INCR, that the comparison must have found."""

KNOWN: Final = (
    (b"SET k v EX 100", "keys do not expire"),
    (b"SET k v XX", "options of SET"),
    (b"SET k v GET", "options of SET"),
    (b"KEYS *b", "patterns"),
    (b"KEYS a?", "patterns"),
    (b"SCAN 0 MATCH [ab]", "patterns"),
    (b"SCAN 7", "cursors"),
    (b"SELECT 1", "one database"),
    (b"SET  v", "empty keys"),
    (b"GET ", "empty keys"),
    (b"SET " + b"k" * (key_bytes_max + 1) + b" v", "long keys"),
    (b"COMMAND GETKEYS GET k", "COMMAND"),
    (b"HSET k f v", "types"),
    (b"CONFIG SET maxmemory 0", "settings"),
)
"""(command, subject of the sentence in docs/redis.rst) of commands that Redis carries out and pfsb refuses."""
BYTES: Final = (
    b"*-10\r\nPING\r\n",
    b"*0\r\nPING\r\n",
    b"\r\n\r\nPING\r\n",
    b"PING hello\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$-1\r\nPING\r\n",
    b"*1\r\n$ 4\r\nPING\r\n",
    b"*1\r\n:4\r\nPING\r\n",
    b"*x\r\n",
    b"*1\r\n$x\r\n",
    b"*2147483648\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
)
"""Bytes on a new connection. Both servers answer alike: a reply, or an error and the end of the connection."""


class RedisComparisonTests(ClusterCase):
    if REDIS is None:
        skip = "neither redis-server nor valkey-server is installed"

    timeout = 300

    def start_redis(self) -> int:
        """Starts a Redis that keeps nothing. Returns its port."""
        assert REDIS is not None
        (port,) = free_ports(1, Random())
        directory = self.directory()
        directory.mkdir(parents=True)
        command = [REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        output = subprocess.DEVNULL
        process = subprocess.Popen([*command, "--dir", str(directory)], stdout=output, stderr=output)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return port

    def connect(self, port: int, protocol: int = 2) -> RedisConnection:
        """Connects to a server that may just be starting."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                connection = RedisConnection(port, protocol)
            except ConnectionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                self.addCleanup(connection.close)
                return connection

    async def start_both(self) -> tuple[int, int]:
        """Start a Redis and a server of pfsb. Returns the two ports that speak the Redis protocol alone."""
        cluster = self.make_cluster(1, servers=servers_with_redis_ports(1))
        redis = self.start_redis()
        await cluster.start_all()
        return redis, redis_port(cluster, 0)

    async def test_random_commands_have_equal_replies(self) -> None:
        """Random commands have equal replies in both servers, with keys and values of any bytes, in both versions of
        the protocol."""
        redis, pfsb = await self.start_both()

        def compare() -> None:
            for seed in SEEDS:
                protocol = 2 + seed % 2
                comparison = Comparison(self.connect(redis, protocol), self.connect(pfsb, protocol))
                for words in islice(RandomCommands(seed), COMMANDS_EACH):
                    comparison.ask(words)
                self.assertEqual(comparison.report(), "", f"seed {seed}")
                self.assertGreater(len(comparison.agreed), KINDS_MIN)

        await deferToThread(compare)

    async def test_documented_differences_are_refusals(self) -> None:
        """Commands in which pfsb differs from Redis by the documentation are refused, and not carried out in another
        way than in Redis."""
        redis, pfsb = await self.start_both()

        def compare() -> None:
            ours, theirs = self.connect(pfsb), self.connect(redis)
            for command, subject in KNOWN:
                words = command.split(b" ")
                self.assertIsInstance(ours.ask(*words), Error, subject)
                self.assertFalse(isinstance(theirs.ask(*words), Error), subject)
            self.assertEqual(ours.ask(b"KEYS", b"*"), [])

        await deferToThread(compare)

    async def test_commands_are_described_as_in_the_version_that_info_shows(self) -> None:
        redis, pfsb = await self.start_both()

        def compare() -> None:
            for protocol in (2, 3):
                ours, theirs = self.connect(pfsb, protocol), self.connect(redis, protocol)
                if f"redis_version:{REDIS_VERSION[:4]}".encode() not in theirs.ask(b"INFO"):
                    raise SkipTest(f"{REDIS} is of another version than {REDIS_VERSION}, which INFO shows here")
                for name, command in every_command(COMMANDS):
                    if command.group == "pfsb" or command.since > REDIS_VERSION:
                        continue
                    replies = [each.ask(b"COMMAND", b"INFO", name.encode()) for each in (ours, theirs)]
                    found, wanted = (description(entry, not command.subcommands) for (entry,) in replies)
                    self.assertEqual(found, wanted)
                self.assertEqual(*[each.ask(b"COMMAND", b"INFO", b"nosuch") for each in (ours, theirs)])
                pages = [each.ask(b"COMMAND", b"DOCS", b"get", b"nosuch") for each in (ours, theirs)]
                self.assertEqual(*[(type(page), next(iter(page))) for page in pages])

        await deferToThread(compare)

    async def test_bytes_that_are_commands_or_none(self) -> None:
        redis, pfsb = await self.start_both()

        def compare() -> None:
            for data in BYTES:
                self.assertEqual(self.answers(pfsb, data), self.answers(redis, data), data)

        await deferToThread(compare)

    def answers(self, port: int, data: bytes) -> list[Reply]:
        """The replies to `data`, and to a PING behind it; "end" if the connection has ended."""
        connection = self.connect(port)
        found: list[Reply] = []
        with contextlib.suppress(OSError):
            connection.send(data + b"*2\r\n$4\r\nECHO\r\n$3\r\nend\r\n")
            try:
                while not found or found[-1] != b"end":
                    reply = connection.reply()
                    found.append("error" if isinstance(reply, Error) else reply)
            except (EOFError, ConnectionError):
                found.append("end of connection")
        return found
