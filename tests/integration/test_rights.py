"""Tokens at all doors of real servers: made by `pfsb token`, shown by every kind of client, revoked by SIGHUP."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.threads import deferToThread

from pfsb.client import Clerk
from pfsb.client.clerks.errors import NoRight
from pfsb.demo.processes import ProcessCluster, free_ports, server_command
from tests.integration.case import ClusterCase
from tests.integration.http_case import port, run
from tests.integration.redis_case import redis_port

TOKEN_FILE = "clients.tokens"
READ_AGAIN_SECONDS = 20.0


def pfsb(directory: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command `pfsb`, with nothing of a token in its environment but what is given."""
    program = [str(Path(sys.executable).with_name("pfsb")), *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PFSB_TOKEN")}
    return subprocess.run(
        program, cwd=directory, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def own_address() -> str | None:
    """An address of this machine that is not loopback; None: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            return None
        found: str = probe.getsockname()[0]
    return None if found.startswith("127.") else found


class TokensCase(ClusterCase):
    tokens: dict[str, str]
    """Role -> a token with that role."""

    async def start_with_tokens(self, servers: int) -> ProcessCluster:
        ports = iter(free_ports(4 * servers, Random()))
        given = {
            server_id: {
                "peer": f"127.0.0.1:{next(ports)}",
                **{key: f"tcp:{next(ports)}:interface=127.0.0.1" for key in ("client", "http", "redis")},
            }
            for server_id in range(servers)
        }
        cluster = self.make_cluster(servers, servers=given, token_file=TOKEN_FILE)
        self.tokens = {role: await self.make_token(cluster, f"the-{role}", role) for role in ("read", "write", "admin")}
        cluster.show(self.tokens["admin"])
        await cluster.start_all()
        return cluster

    async def make_token(self, cluster: ProcessCluster, name: str, role: str) -> str:
        done = await deferToThread(pfsb, cluster.directory, "token", TOKEN_FILE, name, "--role", role)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    async def read_again(self, cluster: ProcessCluster, said: str) -> None:
        """Send all servers SIGHUP, and wait until each of them has logged `said` once more."""
        before = {i: cluster.log_file(i).read_text().count(said) for i in cluster.running}
        for server_id in cluster.running:
            cluster.signal(server_id, signal.SIGHUP)

        async def look() -> bool:
            return all(cluster.log_file(i).read_text().count(said) > count for i, count in before.items())

        await cluster.wait_for("the log's line", look, READ_AGAIN_SECONDS)


class DoorTests(TokensCase):
    async def test_every_kind_of_client_shows_its_token(self) -> None:
        """Clerks, redis-py, curl and the tools show a token, of the right role and of too low a one, or none.
        Afterwards no file of a server holds a secret of a token."""
        cluster = await self.start_with_tokens(3)
        await deferToThread(self.look_at_clerks, cluster)
        if importlib.util.find_spec("redis"):
            await deferToThread(self.look_at_redis, redis_port(cluster, 1))
        await self.look_at_http(cluster)
        await deferToThread(self.look_at_tools, cluster)
        for server_id in cluster.ids:
            await cluster.terminate(server_id)
        secrets = [token.partition(".")[2].encode() for token in self.tokens.values()]
        for path in cluster.directory.rglob("*"):
            if path.is_file() and not path.name.endswith(".token"):
                self.assertFalse([path for secret in secrets if secret in path.read_bytes()])

    def look_at_clerks(self, cluster: ProcessCluster) -> None:
        servers = [address.shown for address in cluster.addresses]
        with Clerk(servers, token=self.tokens["write"], timeout_seconds=30) as clerk:
            clerk.put("a", "1")
            with clerk.lock("door"):
                self.assertEqual(clerk.get("a"), "1")
        with Clerk(servers, token=self.tokens["read"], timeout_seconds=30) as clerk:
            self.assertEqual(clerk.get("a"), "1")
            self.assertEqual(clerk.get("a", read="sequential"), "1")
            self.assertEqual(self.assertRaises(NoRight, clerk.put, "a", "2").code, "DENIED")
            self.assertEqual(clerk.get("a"), "1")
        for token, code in ((None, "NOAUTH"), (self.tokens["read"] + "x", "BADTOKEN")):
            with Clerk(servers, token=token, timeout_seconds=30) as clerk:
                error = self.assertRaises(NoRight, clerk.get, "a")
                self.assertEqual((error.code, error.fate), (code, "none"))

    def look_at_redis(self, number: int) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        def client(**given: Any) -> Any:
            # The library takes a refused password for trouble of the network, and tries again for ten seconds.
            return redis.Redis(port=number, socket_timeout=30, retry=Retry(NoBackoff(), 0), **given)

        for version in (2, 3):
            with client(password=self.tokens["write"], protocol=version) as writer:
                self.assertTrue(writer.set("b", f"{version}"))
            with client(username="the-read", password=self.tokens["read"], protocol=version) as reader:
                self.assertEqual(reader.get("b"), f"{version}".encode())
                self.assertRaises(redis.exceptions.NoPermissionError, reader.set, "b", "3")
                with reader.pipeline(transaction=False) as pipeline:
                    pipeline.get("b")
                    pipeline.get("b")
                    self.assertEqual(pipeline.execute(), 2 * [f"{version}".encode()])
            for wrong in ({}, {"password": "hunter2"}, {"username": "other", "password": self.tokens["read"]}):
                with client(protocol=version, **wrong) as stranger:
                    self.assertRaises(redis.exceptions.AuthenticationError, stranger.get, "b")

    async def look_at_http(self, cluster: ProcessCluster) -> None:
        place = f"http://127.0.0.1:{port(cluster, 2)}"

        async def status(path: str, role: str | None, *more: str) -> str:
            shown = [] if role is None else ["-H", f"Authorization: Bearer {self.tokens[role]}"]
            out, _ = await run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *shown, *more, place + path)
            return out

        change = ("-X", "PUT", "-H", "Content-Type: application/json", "-d", '{"value": "1"}')
        self.assertEqual(await status("/v1/kv/c", "write", *change), "200")
        self.assertEqual(await status("/v1/kv/c", "read", *change), "403")
        self.assertEqual(await status("/v1/kv/c", None, *change), "401")
        self.assertEqual(await status("/v1/kv/c", "read"), "200")
        self.assertEqual(await status("/readyz", None), "200")
        self.assertEqual(await status("/metrics", None), "401")
        self.assertEqual(await status("/v1/snapshot", "write", "-X", "POST"), "403")

    def look_at_tools(self, cluster: ProcessCluster) -> None:
        directory = cluster.directory
        admin = {"PFSB_TOKEN": self.tokens["admin"]}
        (file := directory / "mine.token").write_text(self.tokens["write"])
        file.chmod(0o600)
        client = ("client", "--token-file", "mine.token", "cluster.yaml")
        bench = ("bench", "cluster.yaml", "-c", "1", "-d", "1", "--seconds", "0.2", "--warmup", "0.01")
        bench = (*bench, "--client", "python")
        for words, environment, status, said in (
            (("status", "cluster.yaml"), admin, 0, "3 of 3 up"),
            (("status", "cluster.yaml"), {}, 1, "NOAUTH"),
            (("why", "cluster.yaml"), {"PFSB_TOKEN": self.tokens["read"]}, 0, "3 of 3 up"),
            (("settings", "cluster.yaml", "window=12"), admin, 0, "12"),
            (("settings", "cluster.yaml", "window=13"), {"PFSB_TOKEN": self.tokens["write"]}, 1, "DENIED"),
            (("snapshot", "cluster.yaml"), {"PFSB_TOKEN_FILE": "mine.token"}, 1, "DENIED"),
            (("snapshot", "cluster.yaml", "--id", "0"), admin, 0, "the state after slot"),
            (("backup", "cluster.yaml", "kept.snapshot"), {}, 5, "401"),
            (("backup", "cluster.yaml", "kept.snapshot"), admin, 0, "kept.snapshot"),
            ((*client, "PUT", "d", "1"), {}, 0, "OK revision="),
            ((*client, "SNAPSHOT"), {}, 1, "ERR DENIED fate=none SNAPSHOT needs the right admin"),
            (("client", "cluster.yaml", "GET", "d"), {}, 1, "ERR NOAUTH fate=none"),
            ((*bench, "--token-file", "mine.token"), {}, 0, "python"),
            ((*bench, "--client", "auto"), admin, 0, "per second"),
            (("client", "cluster.yaml", "AUTH", self.tokens["read"]), {}, 2, "--token-file"),
        ):
            done = pfsb(directory, *words, **environment)
            self.assertIn(said, done.stdout + done.stderr)
            if words[0] != "backup" or not status:
                self.assertEqual(done.returncode, status, (words, done.stdout, done.stderr))
        self.assertIn("the token the-write", pfsb(directory, *client, "SNAPSHOT").stdout)


class RevocationTests(TokensCase):
    async def test_changed_file_counts_at_sighup(self) -> None:
        """A new token is taken, a revoked one ends its connections, whose locks are free after the ttl; and a broken
        file changes nothing."""
        cluster = await self.start_with_tokens(1)
        holder, listener = await self.visit(cluster, 0), await self.visit(cluster, 0)
        self.assertIn("role=write", await holder.ask(f"AUTH {self.tokens['write']}"))
        await holder.ask("HELLO holder ttl=1")
        self.assertTrue((await holder.ask("LOCK door")).startswith("OK"))
        await listener.ask(f"AUTH {self.tokens['write']}")
        await listener.ask("LISTEN")
        new = await self.make_token(cluster, "new", "write")
        done = await deferToThread(pfsb, cluster.directory, "token", TOKEN_FILE, "the-write", "--remove")
        self.assertEqual(done.returncode, 0, done.stderr)
        await self.read_again(cluster, "2 connections have lost their rights")
        for visitor in (holder, listener):
            self.assertIn("the token the-write", await visitor.hear())
            await visitor.gone
        other = await self.visit(cluster, 0)
        self.assertRefused(await other.ask(f"AUTH {self.tokens['write']}"), "BADTOKEN")
        self.assertEqual(await other.ask(f"AUTH {new}"), 'OK name="new" role=write')
        await other.ask("HELLO other")
        self.assertTrue((await other.ask("LOCK door wait=20")).startswith("OK"))
        file = cluster.directory / TOKEN_FILE
        kept = file.read_text()
        for broken, mode, said in (
            (f"{kept}nonsense\n", 0o600, "has not the form"),
            (kept, 0o640, "chmod 600"),
            ("", 0o600, "holds no token"),
        ):
            file.write_text(broken)
            file.chmod(mode)
            await self.read_again(cluster, said)
            self.assertTrue((await other.ask("PUT a 1")).startswith("OK"))
        file.unlink()
        await self.read_again(cluster, "there is no such file; the tokens that were read before stay in use")
        self.assertTrue((await other.ask("PUT a 1")).startswith("OK"))

    async def test_server_does_not_start_with_a_file_that_cannot_be_used(self) -> None:
        """A server whose token file cannot be used does not start, and prints one line in the terminal."""
        cluster = self.make_cluster(1, token_file=TOKEN_FILE)

        def start() -> subprocess.CompletedProcess[str]:
            command = server_command("--id", "0", "--config", "cluster.yaml")
            return subprocess.run(
                command, cwd=cluster.directory, capture_output=True, text=True, timeout=60, check=False
            )

        for prepare, said in (
            (lambda file: None, "there is no such file"),
            (lambda file: file.write_text(""), "chmod 600 would be right"),
            (lambda file: file.chmod(0o600), "holds no token; `pfsb token FILE NAME --role admin` makes one"),
        ):
            prepare(cluster.directory / TOKEN_FILE)
            done = await deferToThread(start)
            self.assertEqual(done.returncode, 1, done.stdout)
            (line,) = done.stderr.splitlines()
            self.assertTrue(line.startswith('pfsb: cluster.yaml: token_file: "clients.tokens": '), line)
            self.assertIn(said, line)


class WithoutTokenFileTests(ClusterCase):
    async def test_only_this_machine_administers(self) -> None:
        """By an address that other machines reach, a client reads and writes as ever, and administers nothing; by
        loopback it administers as ever."""
        address = own_address()
        peer, client, http = free_ports(3, Random())
        given = {0: {"peer": f"127.0.0.1:{peer}", "client": f"tcp:{client}", "http": f"tcp:{http}"}}
        cluster = await self.start_cluster(1, servers=given, faults=True, cluster="one")
        self.assertTrue((await (await self.visit(cluster, 0)).ask("SNAPSHOT")).startswith("OK seq="))
        if address is None:
            return  # this machine has no other address
        done = await deferToThread(pfsb, cluster.directory, "settings", "--server", f"{address}:{client}", "window=12")
        self.assertEqual(done.returncode, 1)
        self.assertIn("`pfsb token FILE NAME --role admin` makes a token file", done.stderr)
        shown = await deferToThread(pfsb, cluster.directory, "settings", "--server", f"{address}:{client}", "--json")
        self.assertEqual(json.loads(shown.stdout)["window"], 16)
        out, _ = await run("curl", "-s", "-X", "POST", f"http://{address}:{http}/v1/backup")
        self.assertIn('"error":"DENIED","fate":"none"', out)
        out, _ = await run("curl", "-s", f"http://{address}:{http}/v1/status")
        self.assertEqual(json.loads(out)["server"], 0)
