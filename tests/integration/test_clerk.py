"""Clerks while servers are killed and started again at random (real processes): every call runs exactly once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from pfsb.applications.arguments import absent
from pfsb.applications.interfaces import Command, Done, Refused, Result
from pfsb.client import AsyncClerk, Clerk
from pfsb.client.clerks import calls
from pfsb.client.clerks.calls import Call
from pfsb.client.core.replies import Reply
from pfsb.demo.processes import ProcessCluster
from pfsb.simulator.linearizability.history import History, HistoryEntry
from tests.integration.case import ClusterCase, reactor

SECONDS = 60.0 if os.environ.get("PFSB_TEST_LONG") else 6.0
"""How long servers are killed and started again."""
CLERKS = 3
"""Number of clerks of each kind: blocking ones in threads, asynchronous ones in a loop."""
TTL_SECONDS = 120
"""Time to live of a session: none expires during the test, so no call may be lost."""
KEYS = ("a", "b", "c")


@define(eq=False)
class SharedHistory:
    """The calls and replies of all clerks, in the order in which they happened in this process."""

    history: History = field(factory=History)
    counted: int = 0
    _mutex: threading.Lock = field(factory=threading.Lock)

    def called(self, client: str, command: Command) -> HistoryEntry:
        with self._mutex:
            return self.history.called(client, command)

    def answered(self, entry: HistoryEntry, result: Result) -> None:
        with self._mutex:
            self.history.answered(entry, result)
            self.counted += entry.command[:2] == ("INCR", "counter") and isinstance(result, Done)


def random_call(dice: Random, unique: str) -> tuple[Command, Call[Any]]:
    """A random command in two forms: as the linearizability checker knows it, and as a call of a clerk."""
    key, number = dice.choice(KEYS), dice.choice(("n1", "n2"))
    made: list[tuple[Command, Call[Any]]] = [
        (("PUT", key, unique), calls.put(key, unique)),
        (("GET", key), calls.get(key)),
        (("GET", "counter"), calls.get("counter")),
        (("DEL", key), calls.delete(key)),
        (("CAS", key, 0, "", unique), calls.cas(key, None, unique)),
        (("INCR", number, 3), calls.incr(number, 3)),
        (("APPEND", f"{key}+", unique[-1]), calls.append(f"{key}+", unique[-1])),
        (("PUTHASH", f"{key}#", unique), calls.puthash(f"{key}#", unique)),
        (("SAY", unique), calls.say(unique)),
        *[(("INCR", "counter", 1), calls.incr("counter"))] * 4,
    ]
    return dice.choice(made)


def raw(call: Call[Any]) -> Call[Reply]:
    """Wrap a call so that its result is the reply."""
    return Call(call.line, lambda reply: reply, frozenset({"NOTFOUND", "CONFLICT"}))


def result_of(reply: Reply) -> Result:
    return Done(tuple(reply.fields.items())) if reply.ok else Refused(reply.code, reply.text, reply.fate)


@define(eq=False)
class ScriptUser:
    """A script with a clerk of its own: mostly single calls, sometimes many at once, sometimes under a lock."""

    shared: SharedHistory
    clerk: Clerk
    client_id: str
    dice: Random
    is_over: Callable[[], bool]
    n: int = 0

    def live(self) -> None:
        with self.clerk:
            while not self.is_over():
                if self.dice.random() < 0.1:
                    self.with_lock()
                else:
                    self.call(1 if self.dice.random() < 0.7 else 5)

    def call(self, count: int) -> None:
        """Make this number of calls at once, which the checker then takes for overlapping."""
        wanted = [self.next_call() for _ in range(count)]
        entries = [self.shared.called(self.client_id, command) for command, _ in wanted]
        replies = self.clerk.run_all([raw(call) for _, call in wanted])
        for entry, reply in zip(entries, replies, strict=True):
            self.shared.answered(entry, result_of(reply))

    def with_lock(self) -> None:
        """Make two calls under a lock, which must have the effect of one step."""
        asked = self.shared.called(self.client_id, ("LOCK", "door", absent))
        with self.clerk.lock("door") as held:
            self.shared.answered(asked, Done((("token", held.token),)))
            before = int(self.clerk.get("guarded") or 0)
            self.clerk.put("guarded", str(before + 1))
            given_back = self.shared.called(self.client_id, ("UNLOCK", "door", held.token))
        self.shared.answered(given_back, Done())

    def next_call(self) -> tuple[Command, Call[Any]]:
        self.n += 1
        return random_call(self.dice, f"{self.client_id}.{self.n}")


async def live_with_asyncio(
    shared: SharedHistory, clerk: AsyncClerk, client_id: str, dice: Random, is_over: Callable[[], bool]
) -> None:
    async with clerk:
        n = 0
        while not is_over():
            n += 1
            command, call = random_call(dice, f"{client_id}.{n}")
            entry = shared.called(client_id, command)
            shared.answered(entry, result_of(await clerk.run(raw(call))))


class ClerkTests(ClusterCase):
    timeout = 240 + 2 * SECONDS
    _log = Logger()

    async def test_every_call_runs_exactly_once_while_servers_are_killed_at_random(self) -> None:
        """While servers are killed and restarted at random, every call runs exactly once: a counter and the recorded
        history are checked."""
        cluster = await self.start_cluster(3)
        shared, over = SharedHistory(), threading.Event()
        self.addCleanup(over.set)
        users = self.start_users(cluster, shared, over.is_set)
        kills = await self.kill_at_random(cluster, Random(os.urandom(8)))
        over.set()
        await users
        await self.judge(cluster, shared, kills)

    def start_users(
        self, cluster: ProcessCluster, shared: SharedHistory, is_over: Callable[[], bool]
    ) -> Deferred[list[Any]]:
        def clerk_options(client_id: str) -> dict[str, Any]:
            return {"client_id": client_id, "ttl_seconds": TTL_SECONDS, "timeout_seconds": 100.0}

        def script(i: int) -> None:
            clerk = Clerk(cluster.addresses, **clerk_options(f"script{i}"))
            ScriptUser(shared, clerk, f"script{i}", Random(i), is_over).live()

        async def all_async() -> None:
            names = [f"async{i}" for i in range(CLERKS)]
            clerks = [AsyncClerk(cluster.addresses, **clerk_options(name)) for name in names]
            lives = [
                live_with_asyncio(shared, clerk, name, Random(name), is_over)
                for clerk, name in zip(clerks, names, strict=True)
            ]
            await asyncio.gather(*lives)

        reactor.suggestThreadPoolSize(CLERKS + 5)
        scripts = [deferToThread(script, i) for i in range(CLERKS)]
        return gatherResults([*scripts, deferToThread(asyncio.run, all_async())], consumeErrors=True)

    async def kill_at_random(self, cluster: ProcessCluster, dice: Random) -> int:
        """Kill one server, or sometimes a majority, and start each again. Returns the number of kills."""
        until, kills = reactor.seconds() + SECONDS, 0
        while reactor.seconds() < until:
            await cluster.pause(dice.uniform(0.2, 1))
            victims = dice.sample(cluster.running, dice.choice((1, 1, 1, 2)))
            await cluster.kill(*victims)
            kills += len(victims)
            await cluster.pause(dice.uniform(0, 1))
            for victim in victims:
                cluster.start(victim)
            await cluster.wait_up(victims)
        return kills

    async def judge(self, cluster: ProcessCluster, shared: SharedHistory, kills: int) -> None:
        await cluster.wait_equal(cluster.ids)
        counter = (await cluster.ask(0, "GET counter")).fields["value"]
        guarded = (await cluster.ask(0, "GET guarded")).fields.get("value", "0")
        entries = shared.history.entries
        under_lock = sum(entry.command[0] == "UNLOCK" for entry in entries)
        outcome = shared.history.check()
        self._log.info(
            "{calls} calls, {counted} counted, {under_lock} under the lock, {kills} kills; {outcome}",
            calls=len(entries),
            counted=shared.counted,
            under_lock=under_lock,
            kills=kills,
            outcome=outcome.text,
        )
        self.assertEqual(counter, str(shared.counted))
        self.assertEqual(guarded, str(under_lock))
        self.assertEqual({entry.fate for entry in entries}, {"done"})
        self.assertTrue(outcome.ok, outcome.text)
        self.assertGreater(kills, 0)
        self.assertGreater(shared.counted, 20)
