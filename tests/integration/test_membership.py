"""Servers that come and go while clients write: real processes."""

from __future__ import annotations

from pfsb.demo.processes import ProcessCluster, Status
from pfsb.demo.verdict import account
from pfsb.support.hosts import shown
from tests.integration.case import ClusterCase, reactor
from tests.integration.membership_rounds import arguments, run_changes

SECONDS = 60.0


class MembershipTests(ClusterCase):
    """A cluster of servers 0, 1 and 2; server 3 stands in the configuration as well, and joins."""

    async def begin(self) -> ProcessCluster:
        cluster = self.make_cluster(4, founders=[0, 1, 2])
        for server_id in (0, 1, 2):
            cluster.start(server_id)
        await cluster.wait_up([0, 1, 2])
        await cluster.wait_admitted([0, 1, 2])
        await cluster.wait_leader(server_ids=[0, 1, 2])

        async def has_rules() -> bool:
            return (await cluster.ask(0, "SETTINGS SET rules=2")).ok

        await cluster.wait_for("rules that know changes of the membership", has_rules, SECONDS)
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


class RoundsTests(ClusterCase):
    """A short form of `tests.integration.membership_rounds`."""

    async def test_all_servers_are_replaced_and_some_are_killed_meanwhile(self) -> None:
        """No acknowledged write is lost, and none runs twice."""
        said: list[str] = []
        directory = self.directory()
        directory.mkdir()
        options = arguments(["6", "--kind", "replace", "--seed", "1", "--directory", str(directory)])
        await run_changes(reactor, options, said.append)
        self.assertIn("none lost, none twice", said[-1])
        self.assertEqual(list(directory.iterdir()), [], "the directory of rounds that went well is removed")
