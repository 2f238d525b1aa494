"""Servers that come and go while clients write: real processes."""

from __future__ import annotations

import yaml
from twisted.internet.defer import Deferred

from pfsb.client import TwistedClerk
from pfsb.client.servers import server_addresses
from pfsb.commands.survey import survey
from pfsb.config.config import load
from pfsb.demo.processes import ProcessCluster, Status
from pfsb.demo.verdict import account
from pfsb.support.hosts import shown
from tests.integration.case import ClusterCase, reactor
from tests.integration.membership_rounds import arguments, run_changes

SECONDS = 60.0


class MembershipTests(ClusterCase):
    """A cluster of servers 0, 1 and 2; server 3 stands in the configuration as well, and joins."""

    async def begin(self, servers: int = 4) -> ProcessCluster:
        cluster = self.make_cluster(servers, founders=[0, 1, 2])
        for server_id in (0, 1, 2):
            cluster.start(server_id)
        await cluster.wait_up([0, 1, 2])
        await cluster.wait_admitted([0, 1, 2])
        await cluster.wait_leader(server_ids=[0, 1, 2])
        return cluster

    def peer(self, cluster: ProcessCluster, server_id: int) -> str:
        return shown(*cluster.config.server(server_id).peer)

    async def until(self, cluster: ProcessCluster, server_id: int, what: str, **fields: object) -> Status:
        """Wait until STATUS of a server has these fields."""

        async def look() -> Status | None:
            found = (await cluster.statuses([server_id])).get(server_id, {})
            return found if all(found.get(name) == value for name, value in fields.items()) else None

        found = await cluster.wait_for(what, look, SECONDS)
        assert found is not None
        return found

    async def test_server_is_replaced_under_load_and_nothing_is_lost(self) -> None:
        """A fourth server is added and votes by itself; the leader is killed, and then removed. Every line that was
        acknowledged is there once, at each of the three that are left."""
        cluster = await self.begin()
        load = self.start_load(cluster, 6_000)
        added = await cluster.ask(0, f'SERVERS ADD 3 "{self.peer(cluster, 3)}"', SECONDS)
        self.assertEqual(added.line, "OK epoch=1")
        cluster.start(3)
        await self.until(cluster, 3, "server 3 to vote", role="voter", epoch=2)
        await self.until(cluster, 3, "server 3 to be admitted", admitted=True)
        _, leader = await cluster.wait_leader()
        gone = leader if leader != 3 else 0
        await cluster.kill(gone)
        left = [i for i in cluster.ids if i != gone]
        await cluster.wait_leader(server_ids=left)
        await self.until(cluster, left[0], "the server that is asked to know it", epoch=2)
        removed = await cluster.ask(left[0], f"SERVERS REMOVE {gone}", SECONDS)
        self.assertEqual(removed.line, "OK epoch=3")
        acknowledged = await load.finish()
        self.assertEqual((len(acknowledged), load.errors), (load.lines, {}))
        await cluster.wait_equal(left)
        for server_id in left:
            status = await cluster.status(server_id)
            self.assertEqual((status["epoch"], status["n"], status["role"]), (3, 3, "voter"))
            found = account(cluster.chat_log(server_id), acknowledged, {line.text for line in acknowledged})
            self.assertEqual((found.missing, found.doubled, found.foreign, found.disordered), ([], [], [], 0))
        cluster.start(gone)
        status = await self.until(cluster, gone, "the removed server to know it", role="removed", epoch=3)
        self.assertFalse(status["admitted"])
        refused = await cluster.ask(gone, "SAY hello")
        self.assertEqual((refused.code, refused.fate), ("UNAVAILABLE", "none"))

    async def test_read_replica_answers_what_it_knows_and_is_never_needed(self) -> None:
        """A server that learns for good answers sequential reads soon after a write, has no vote after a restart
        either, and its end changes nothing for the others."""
        cluster = await self.begin()
        cluster.start(3)
        added = await cluster.ask(0, f'SERVERS ADD 3 "{self.peer(cluster, 3)}" LEARNER', SECONDS)
        self.assertEqual(added.line, "OK epoch=1")
        await self.until(cluster, 3, "server 3 to learn", role="permanent-learner", epoch=1)

        async def reads(value: str) -> None:
            async def look() -> bool:
                return (await cluster.ask(3, "GET a read=sequential")).fields.get("value") == value

            await cluster.wait_for(f"server 3 to know {value}", look, SECONDS)

        for value in ("one", "two"):
            self.assertTrue((await cluster.ask(0, f"PUT a {value}", SECONDS)).ok)
            await reads(value)
            refused = await cluster.ask(3, "GET a")
            self.assertEqual((refused.code, refused.fate), ("UNAVAILABLE", "none"))
            self.assertIn("server 3 learns for good", refused.text)
            await cluster.kill(3)
            self.assertTrue((await cluster.ask(1, f"PUT a {value}", SECONDS)).ok)
            cluster.start(3)
            await cluster.wait_up([3])
            await self.until(cluster, 3, "server 3 to learn again", role="permanent-learner", epoch=1)
        self.assertEqual((await cluster.status(0))["n"], 3)

    async def test_servers_start_again_with_their_old_configuration(self) -> None:
        """All servers are killed after a change: the stored membership rules, and a server that its file does not have
        is found at the address that the change has brought."""
        cluster = await self.begin()
        content = dict(cluster.config.servers)
        self.assertEqual(sorted(content), [0, 1, 2, 3])
        added = await cluster.ask(0, f'SERVERS ADD 3 "{self.peer(cluster, 3)}"', SECONDS)
        self.assertTrue(added.ok, added.line)
        cluster.start(3)
        await self.until(cluster, 3, "server 3 to vote", role="voter", epoch=2, admitted=True)
        await self.until(cluster, 1, "the server that is asked to know it", epoch=2)
        removed = await cluster.ask(1, "SERVERS REMOVE 0", SECONDS)
        self.assertTrue(removed.ok, removed.line)
        await cluster.kill(0, 1, 2, 3)
        for server_id in (1, 2, 3):
            cluster.start(server_id)
        await cluster.wait_up([1, 2, 3])
        await cluster.wait_leader(server_ids=[1, 2, 3])
        rows = (await cluster.ask(2, "SERVERS")).row_fields
        self.assertEqual([(row["id"], row["role"]) for row in rows], [(1, "voter"), (2, "voter"), (3, "voter")])
        said = await cluster.ask(3, "SAY hello", SECONDS)
        self.assertTrue(said.ok, said.line)
        self.assertIn("epoch 3 of the membership", cluster.log_file(1).read_text())

    async def test_server_comes_back_when_all_that_it_knew_are_gone(self) -> None:
        """Server 2 was down while servers 3 and 4 took the places of servers 0 and 1, whose processes are gone. Its
        file has their addresses, so it learns of the changes, and votes: one of two would be no majority without it."""
        cluster = await self.begin(5)
        for server_id in (0, 1, 2):  # a change names only storages that are known to have voted
            self.assertTrue((await cluster.ask(server_id, "SAY hello", SECONDS)).ok)
        await cluster.wait_equal([0, 1, 2])
        await cluster.kill(2)
        for old, new, asked in ((0, 3, 1), (1, 4, 3)):
            cluster.start(new)
            replaced = await cluster.ask(asked, f'SERVERS REPLACE {old} {new} "{self.peer(cluster, new)}"', SECONDS)
            self.assertTrue(replaced.ok, replaced.line)
            epoch = (await self.until(cluster, old, "the replaced server to know it", role="removed"))["epoch"]
            await self.until(cluster, new, "the new server to vote", role="voter", admitted=True, epoch=epoch)
            await cluster.kill(old)
        cluster.start(2)
        await self.until(cluster, 2, "server 2 to vote", role="voter", admitted=True, epoch=epoch)
        await cluster.kill(3)
        said = await cluster.ask(2, "SAY hello", SECONDS)
        self.assertTrue(said.ok, said.line)

    async def test_clerks_go_on_when_all_servers_that_they_were_given_are_replaced(self) -> None:
        """While each server that a clerk was given is killed and replaced by one command, its counting goes on: no sum
        is left out, and none comes twice. The commands with the old configuration find the new servers, too."""
        cluster = await self.begin(6)
        given = [cluster.address(i).shown for i in (0, 1, 2)]
        clerk = TwistedClerk(reactor, given, timeout_seconds=SECONDS)
        self.addCleanup(clerk.close)
        idle = TwistedClerk(reactor, given, timeout_seconds=SECONDS)
        self.addCleanup(idle.close)
        await idle.put("colour", "blue")
        sums: list[int] = []
        done = Deferred.fromCoroutine(self.count_up(clerk, sums))
        for former, new in ((0, 3), (1, 4), (2, 5)):
            at = next(i for i in cluster.running if i != former)
            await cluster.kill(former)
            cluster.start(new)
            asked = f'SERVERS REPLACE {former} {new} "{self.peer(cluster, new)}"'

            async def replaced(at: int = at, asked: str = asked) -> bool:
                return (await cluster.ask(at, asked, SECONDS)).ok

            await cluster.wait_for("a server to be replaced", replaced, SECONDS)
            await self.until(cluster, new, "the new server to be there alone", role="voter", admitted=True, n=3)
            before = len(sums)

            async def counts(before: int = before) -> bool:
                return len(sums) > before + 20

            await cluster.wait_for("more sums", counts, SECONDS)
        self.is_counting = False
        await done
        self.assertEqual(sums, [*range(1, len(sums) + 1)])
        self.assertEqual(await idle.get("colour"), "blue")
        self.assertEqual(await idle.get("n"), str(len(sums)))
        self.reconfigure(cluster, servers={i: given for i, given in self.servers(cluster).items() if i in (2, 3)})
        found = await survey(reactor, server_addresses(load(str(cluster.directory / "cluster.yaml"))))
        self.assertEqual((sorted(found.voting), found.voters), ([3, 4, 5], [3, 4, 5]))
        self.assertRegex(found.summary, "leads: [345], 3 of 3 up, tolerates 1 more")

    is_counting = True

    async def count_up(self, clerk: TwistedClerk, sums: list[int]) -> None:
        while self.is_counting:
            sums.append(await clerk.incr("n"))

    def servers(self, cluster: ProcessCluster) -> dict[int, dict[str, str]]:
        """The servers in the configuration file of a cluster."""
        found: dict[int, dict[str, str]] = yaml.safe_load((cluster.directory / "cluster.yaml").read_text())["servers"]
        return found


class RoundsTests(ClusterCase):
    """A short form of `tests.integration.membership_rounds`."""

    async def test_all_servers_are_replaced_and_some_are_killed_meanwhile(self) -> None:
        """While all servers are replaced, and some are killed meanwhile, no acknowledged write is lost, and none runs
        twice."""
        said: list[str] = []
        directory = self.directory()
        directory.mkdir()
        options = arguments(["3", "--kind", "replace", "--seed", "1", "--directory", str(directory)])
        await run_changes(reactor, options, said.append)
        self.assertIn("none lost, none twice", said[-1])
        self.assertEqual(list(directory.iterdir()), [], "the directory of rounds that went well is removed")
