"""Clients that try thousands of tokens, at all doors at once (real processes): other clients do not wait for them."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.threads import deferToThread

from pfsb.config.token_file import read_tokens
from pfsb.demo.processes import ProcessCluster
from pfsb.support.tokens import KnownToken
from tests.integration.case import Visitor, reactor
from tests.integration.hostile.case import BUSY_FACTOR, GROWTH_BYTES_MAX, P99_SECONDS, HostileCase
from tests.integration.http_case import port
from tests.integration.test_rights import TOKEN_FILE, pfsb

CLIENTS = 100
"""Number of hostile clients at each door."""
TRIES = 100
"""Number of tokens that each hostile client shows, one behind the other without waiting."""


def fitting(known: KnownToken, count: int) -> list[str]:
    """Wrong tokens that fit the quick hash in the token file, as a thief of the file can make them."""

    def guesses() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"{known.name}.{number:043}"

    fits = (guess for guess in guesses() if known.may_be(guess))
    return [next(fits) for _ in range(count)]


class TokenTests(HostileCase):
    token = ""
    """The token that `visit` shows."""

    async def visit(self, cluster: ProcessCluster, server_id: int) -> Visitor:
        visitor = await super().visit(cluster, server_id)
        self.assertTrue((await visitor.ask(f"AUTH {self.token}")).startswith("OK"))
        return visitor

    async def start_with_tokens(self) -> tuple[ProcessCluster, float, str]:
        """A cluster, how quick it is without an attack, and a token that its server has never been shown."""
        cluster = self.make_cluster(1, token_file=TOKEN_FILE)
        made = []
        for name in ("alice", "newcomer"):
            done = await deferToThread(pfsb, cluster.directory, "token", TOKEN_FILE, name, "--role", "write")
            made.append(done.stdout.strip())
        self.token, newcomer = made
        cluster.show(self.token)
        await cluster.start_all()
        return cluster, await self.quiet_p99(cluster), newcomer

    async def test_thousands_of_wrong_tokens(self) -> None:
        """While clients show 20,000 wrong tokens, by lines and over HTTP, the server answers others as ever, takes a
        token that it sees for the first time, from the same address, within a second, and holds little for the
        attackers."""
        cluster, quiet, newcomer = await self.start_with_tokens()
        before = self.memory(cluster, 0)
        lines = "".join(f"AUTH alice.{number:043}\n" for number in range(TRIES)).encode()
        requests = "".join(
            f"GET /v1/kv HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer alice.{number:043}\r\n\r\n"
            for number in range(TRIES)
        ).encode()
        for client in await self.connect_many(cluster, CLIENTS):
            client.send(lines)
        for client in await self.connect_many(cluster, CLIENTS, f"tcp:127.0.0.1:{port(cluster, 0)}"):
            client.send(requests)
        await self.require_in_time(cluster, quiet)
        self.token = newcomer
        begun = reactor.seconds()
        await self.visit(cluster, 0)
        self.assertLess(reactor.seconds() - begun, max(1.0, BUSY_FACTOR * quiet))
        self.assertLess(self.memory(cluster, 0) - before, GROWTH_BYTES_MAX)
        self.assertLess(cluster.log_file(0).read_text().count("wrong tokens were shown"), 10)

    async def test_tokens_of_a_thief_of_the_file(self) -> None:
        """Tokens that fit the quick hash, as a thief of the token file can make them, cost 16 MiB and 50 ms each; but
        few are checked at once, and in other threads than that of the clients."""
        cluster, quiet, _ = await self.start_with_tokens()
        before = self.memory(cluster, 0)
        known = read_tokens(str(cluster.directory / TOKEN_FILE), TOKEN_FILE)["alice"]
        tokens = await deferToThread(fitting, known, 40)
        for place, client in enumerate(await self.connect_many(cluster, CLIENTS)):
            client.send("".join(f"AUTH {tokens[(place + each) % len(tokens)]}\n" for each in range(TRIES)).encode())
        await self.require_in_time(cluster, max(quiet, P99_SECONDS / BUSY_FACTOR))
        self.assertLess(self.memory(cluster, 0) - before, GROWTH_BYTES_MAX)
