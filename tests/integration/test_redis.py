"""Redis's own programs, and its client library for Python, against any server (real processes)."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from pfsb.demo.processes import ProcessCluster
from pfsb.simulator.fuzz.port_targets import resp_command
from tests.integration.case import ClusterCase, reactor
from tests.integration.redis_case import client_port, redis_port, servers_with_redis_ports

T = TypeVar("T")

PROGRAM_SECONDS = 90.0
BENCHMARK_REQUESTS = 20_000
NO_TOOLS = "" if shutil.which("redis-cli") and shutil.which("redis-benchmark") else "redis-tools are not installed"
NO_LIBRARY = "" if importlib.util.find_spec("redis") else "redis-py is not installed; the extra dev has it"


class RedisToolsTests(ClusterCase):
    if NO_TOOLS:
        skip = NO_TOOLS

    async def run_program(self, program: str, *arguments: str) -> str:
        """Run a program, which must succeed. Returns its output."""
        out, err, status = await self.run_to_its_end(program, *arguments)
        self.assertEqual(status, 0, err)
        return out

    async def run_to_its_end(self, program: str, *arguments: str) -> tuple[str, str, int]:
        """Run a program to its end. Returns output, errors and exit status."""
        path = shutil.which(program)
        assert path is not None
        started = getProcessOutputAndValue(path, arguments, env=dict(os.environ), reactor=reactor)
        out, err, status = await started.addTimeout(PROGRAM_SECONDS, reactor)
        return out.decode(), err.decode(), status

    async def test_redis_cli_reads_at_one_server_what_it_wrote_at_another(self) -> None:
        """redis-cli reads at one server what it wrote at another, in both versions of the protocol, and gets errors as
        Redis gives them."""
        cluster = await self.start_cluster(3)

        async def cli(server_id: int, *words: str) -> str:
            return (await self.run_program("redis-cli", "-p", str(client_port(cluster, server_id)), *words)).rstrip(
                "\n"
            )

        self.assertEqual(await cli(0, "PING"), "PONG")
        self.assertEqual(await cli(0, "MSET", "colour", "bl\u00fc\n", "count", "41"), "OK")
        self.assertEqual(await cli(1, "--no-raw", "GET", "colour"), r'"bl\xc3\xbc\n"')
        self.assertEqual(await cli(2, "INCR", "count"), "42")
        self.assertEqual(await cli(1, "--scan", "--pattern", "co*"), "colour\ncount")
        self.assertEqual(await cli(1, "-3", "MGET", "count", "nothing"), "42")
        self.assertTrue((await cli(1, "INCR", "colour")).startswith("CONFLICT fate=none "))

    async def test_redis_benchmark_completes(self) -> None:
        """redis-benchmark comes to its end at a server that does not lead, as most servers do not."""
        cluster = await self.start_cluster(3)
        options = ("-t", "set,get", "-n", str(BENCHMARK_REQUESTS), "-P", "16", "--csv")
        said = await self.run_program("redis-benchmark", "-p", str(client_port(cluster, 2)), *options)
        self.assertEqual([line.split(",")[0] for line in said.splitlines()], ['"test"', '"SET"', '"GET"'])
        await cluster.wait_equal()

    async def test_redis_benchmark_sends_all_that_there_is(self) -> None:
        """All tests that redis-benchmark has for commands of pfsb run at a port for Redis alone, where PING may be sent
        as a line, too."""
        cluster = await self.start_cluster(1, servers=servers_with_redis_ports(1))
        options = ("-t", "ping,set,get,incr,mset", "-n", str(BENCHMARK_REQUESTS // 10), "-P", "16", "--csv")
        said = await self.run_program("redis-benchmark", "-p", str(redis_port(cluster, 0)), *options)
        names = [line.split(",")[0].strip('"') for line in said.splitlines()]
        self.assertEqual(names, ["test", "PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"])

    async def test_redis_benchmark_ends_at_the_first_command_that_is_unknown(self) -> None:
        """redis-benchmark without a choice of tests ends at the first command that pfsb does not have, one for lists.
        It says so, and does not hang."""
        cluster = await self.start_cluster(1, servers=servers_with_redis_ports(1))
        options = ("-p", str(redis_port(cluster, 0)), "-n", "1000", "-q")
        out, err, status = await self.run_to_its_end("redis-benchmark", *options)
        self.assertEqual((status, "INCR:" in out), (1, True), out)
        self.assertIn("unknown command LPUSH", err)

    async def test_redis_benchmark_without_a_choice_ends_on_the_client_port(self) -> None:
        """redis-benchmark without a choice of tests ends on the client port, too: it begins with PING as a line, which
        is one of the line protocol there, gets an error, and does not wait for ever."""
        cluster = await self.start_cluster(1)
        options = ("-p", str(client_port(cluster, 0)), "-n", "100", "-q")
        _, err, status = await self.run_to_its_end("redis-benchmark", *options)
        self.assertEqual((status, err.strip()), (1, "Error: Bad multi-bulk length"))

    async def test_mass_insertion_of_redis_cli_comes_to_its_end(self) -> None:
        """`redis-cli --pipe` comes to its end, when the reply to an ECHO of random bytes has come."""
        cluster = await self.start_cluster(1)
        commands = self.directory()
        commands.write_bytes(b"".join(resp_command("SET", f"key:{n}", "v") for n in range(1_000)))
        shell = f"redis-cli -p {client_port(cluster, 0)} --pipe < {commands}"
        said = await self.run_program("sh", "-c", shell)
        self.assertIn("errors: 0, replies: 1000", said)


class RedisLibraryTests(ClusterCase):
    if NO_LIBRARY:
        skip = NO_LIBRARY

    async def with_client(self, cluster: ProcessCluster, server_id: int, work: Callable[[Any], T], protocol: int) -> T:
        """Run `work` with a client, in a thread of its own: the library blocks."""
        from redis import Redis

        def run() -> T:
            with Redis(
                port=client_port(cluster, server_id),
                protocol=protocol,
                decode_responses=True,
                socket_timeout=PROGRAM_SECONDS,
            ) as client:
                return work(client)

        return await deferToThread(run)

    async def test_redis_py_does_what_it_does_elsewhere(self) -> None:
        """redis-py does the same with pfsb as with Redis, in both versions of the protocol, at different servers."""
        cluster = await self.start_cluster(3)

        def write(client: Any) -> None:
            self.assertTrue(client.ping())
            self.assertTrue(client.set("colour", "bl\u00fc"))
            self.assertIsNone(client.set("colour", "red", nx=True))
            self.assertTrue(client.mset({f"key:{n:03}": str(n) for n in range(100)}))
            self.assertEqual(client.incrby("count", 41), 41)

        def read(client: Any) -> None:
            self.assertEqual((client.get("colour"), client.get("nothing")), ("bl\u00fc", None))
            self.assertEqual(client.mget("key:007", "x", "key:042"), ["7", None, "42"])
            self.assertEqual(list(client.scan_iter("key:*", count=7)), [f"key:{n:03}" for n in range(100)])
            self.assertEqual((client.incr("count"), client.strlen("colour"), client.append("colour", "!")), (42, 4, 5))
            self.assertEqual((client.exists("colour", "x", "count"), client.delete("count", "x")), (2, 1))

        await self.with_client(cluster, 0, write, protocol=2)
        await self.with_client(cluster, 2, read, protocol=3)

    async def test_any_bytes_pass_through_redis_py(self) -> None:
        cluster = await self.start_cluster(1)
        data = bytes(range(256))

        def work() -> None:
            from redis import Redis

            with Redis(port=client_port(cluster, 0), protocol=3, socket_timeout=PROGRAM_SECONDS) as client:
                self.assertTrue(client.set(data, data))
                self.assertEqual((client.get(data), client.echo(data), client.keys()), (data, data, [data]))
                self.assertEqual(client.command_count(), len(client.command()))
                self.assertEqual(client.command()["get"]["flags"], {"readonly", "fast"})

        await deferToThread(work)

    async def test_transaction_of_redis_py_runs_nothing(self) -> None:
        """A transaction of redis-py, which its pipelines are by default, fails as a whole and runs nothing, so that it
        may be sent again."""
        cluster = await self.start_cluster(1)

        def work(client: Any) -> None:
            from redis import RedisError

            for _ in range(3):
                with self.assertRaisesRegex(RedisError, "no transactions"):
                    client.pipeline().incr("count").set("colour", "SAY hello").execute()
            self.assertEqual((client.get("count"), client.get("colour")), (None, None))
            self.assertEqual(client.pipeline(transaction=False).incr("count").execute(), [1])

        await self.with_client(cluster, 0, work, protocol=2)
        await self.with_client(cluster, 0, lambda client: self.assertEqual(client.incr("count"), 2), protocol=3)

    async def test_pipeline_and_errors_of_redis_py(self) -> None:
        cluster = await self.start_cluster(1)

        def work(client: Any) -> None:
            from redis import ResponseError

            pipeline = client.pipeline(transaction=False)
            for n in range(500):
                pipeline.set(f"k{n}", n).get(f"k{n}")
            self.assertEqual(pipeline.execute(), [reply for n in range(500) for reply in (True, str(n))])
            with self.assertRaisesRegex(ResponseError, "NX only"):
                client.set("k", "v", ex=5)
            with self.assertRaisesRegex(ResponseError, "unknown command HSET"):
                client.hset("k", "field", "v")
            with self.assertRaisesRegex(ResponseError, "not UTF-8"):
                client.execute_command("SAY", b"\xff")
            self.assertEqual(client.client_info()["lib-name"], "redis-py")
            token = client.execute_command("LOCK", "printer")
            self.assertIsInstance(token, int)
            self.assertEqual(client.execute_command("UNLOCK", "printer", f"token={token}"), "OK")

        await self.with_client(cluster, 0, work, protocol=3)
