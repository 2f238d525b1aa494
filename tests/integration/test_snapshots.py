"""Snapshots, backups and restores of real servers, as operators meet them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pfsb.demo.processes import ProcessCluster
from tests.integration.http_case import HTTPClusterCase, run, url

FILE = "cluster.yaml"
"""The configuration of a cluster of processes, in its directory."""
MAIN = "from pfsb.cli import main; main()"
VALUE = "v" * 20_000
"""A value of which some fifty fill the first file of a log."""


class SnapshotCase(HTTPClusterCase):
    timeout = 300

    async def put(self, cluster: ProcessCluster, server_id: int, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            reply = await cluster.ask(server_id, f"PUT key{number % 10} {number}{VALUE}", seconds=30.0)
            self.assertTrue(reply.ok, reply.line)

    async def status(self, cluster: ProcessCluster, server_id: int) -> dict[str, Any]:
        return (await cluster.statuses([server_id]))[server_id]

    async def pfsb(self, cluster: ProcessCluster, *arguments: str, status: int = 0) -> str:
        """Run a subcommand of `pfsb` where the servers of a cluster run; it must end with this exit status. Returns
        what it has printed."""
        place = str(cluster.directory)
        said, found = await run(sys.executable, "-c", MAIN, *arguments, seconds=60.0, env=os.environ, path=place)
        self.assertEqual(found, status, said)
        return said

    def directory(self) -> Path:
        return super().directory().absolute()


class CatchingUpTests(SnapshotCase):
    async def test_a_server_that_was_away_fetches_a_snapshot_and_starts_from_it(self) -> None:
        """A server that was away fetches a snapshot, since the slots that it lacks are gone everywhere (Departures 56
        and 57). It can start from it, and its chat.log has all lines."""
        cluster = await self.start_cluster(3, snapshot_every=40)
        self.assertTrue((await cluster.ask(0, "SAY before")).ok)
        await cluster.wait_equal(cluster.ids)
        await cluster.kill(2)
        self.assertTrue((await cluster.ask(0, "SAY meanwhile")).ok)
        await self.put(cluster, 0, 300)

        async def dropped() -> bool:
            found = await cluster.statuses([0, 1])
            return all(status["compacted"] > 50 for status in found.values())

        await cluster.wait_for("logs without their beginning", dropped, 60)
        cluster.start(2)
        await cluster.wait_equal(cluster.ids, 60)
        status = await self.status(cluster, 2)
        self.assertEqual(status["snapshots"]["installed"], 1)
        for number in (0, 1, 2):
            reply = await cluster.ask(number, "GET key9 read=stale")
            self.assertTrue(reply.line.startswith('OK value="299'), reply.line[:40])

        async def has_lines() -> bool:
            logs = [(cluster.data(i) / "chat.log").read_bytes() for i in cluster.ids]
            return len({*logs}) == 1 and logs[0].count(b"\n") == 2

        await cluster.wait_for("equal chat logs", has_lines, 30)
        # The fetched snapshot is this server's own from now on: a start begins with it.
        await cluster.kill(2)
        cluster.start(2)
        await cluster.wait_equal(cluster.ids, 60)
        self.assertEqual((await self.status(cluster, 2))["snapshots"]["installed"], 0)
        reply = await cluster.ask(2, "DIGEST seq=3")
        self.assertEqual(reply.code, "COMPACTED", reply.line)

    async def test_a_restart_executes_nothing_that_a_snapshot_holds(self) -> None:
        cluster = await self.start_cluster(3, snapshot_every=0)
        await self.put(cluster, 0, 30)
        await cluster.wait_equal(cluster.ids)
        reply = await cluster.ask(1, "SNAPSHOT wait=30", seconds=40.0)
        self.assertTrue(reply.ok, reply.line)
        await cluster.kill(1)
        cluster.start(1)
        await cluster.wait_equal(cluster.ids, 60)
        status = await self.status(cluster, 1)
        self.assertEqual(status["snapshot"], reply.fields["seq"])
        self.assertLess(status["updates"], 30)


class LostSnapshotTests(SnapshotCase):
    """Snapshots that are missing or damaged when their servers start (Departure 58)."""

    async def compacted(self, cluster: ProcessCluster) -> None:
        """Have all servers execute so much that they take snapshots, and drop slots for them."""
        self.assertTrue((await cluster.ask(0, "SAY hello")).ok)
        await self.put(cluster, 0, 300)
        await cluster.wait_equal(cluster.ids)

        async def dropped() -> bool:
            found = (await cluster.statuses()).values()
            return all(status["compacted"] > 0 and not status["snapshots"]["taking"] for status in found)

        await cluster.wait_for("logs without their beginning", dropped, 30)

    async def snapshot(self, cluster: ProcessCluster, server_id: int) -> Path:
        """The file of the snapshot with which a server would start, once it takes no other one."""

        async def takes_none() -> bool:
            return not (await self.status(cluster, server_id))["snapshots"]["taking"]

        await cluster.wait_for("a server that takes no snapshot", takes_none, 30)
        seq = (await self.status(cluster, server_id))["snapshot"]
        return cluster.data(server_id) / "snapshots" / f"{seq:012d}.snapshot"

    def damage(self, file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    async def test_a_server_without_its_snapshot_gets_one_of_another_server(self) -> None:
        """A server that starts without its snapshot gets one of another server. At first the others go on without it;
        afterwards a majority needs it. Its incarnation and its chat lines are kept."""
        cluster = await self.start_cluster(3, snapshot_every=40)
        await self.compacted(cluster)
        for spoil, fate in ((Path.unlink, "missing"), (self.damage, "damaged")):
            file = await self.snapshot(cluster, 2)
            await cluster.kill(2)
            spoil(file)
            await self.put(cluster, 0, 5)
            cluster.start(2)
            await cluster.wait_equal(cluster.ids, 60)
            self.assertIn(f"{file.name}: {fate}", cluster.last_words(2))
            status = await self.status(cluster, 2)
            self.assertEqual((status["snapshots"]["installed"], status["snapshots"]["lost"]), (1, None))
        self.assertEqual(status["incarnation"], 3)
        self.assertEqual((cluster.data(2) / "chat.log").read_bytes(), (cluster.data(0) / "chat.log").read_bytes())
        await cluster.kill(2)
        cluster.start(2)
        await cluster.wait_equal(cluster.ids, 60)
        self.assertEqual((await self.status(cluster, 2))["snapshots"]["installed"], 0)
        await cluster.kill(0)
        await self.put(cluster, 2, 5)

    async def test_a_running_server_replaces_a_snapshot_that_is_deleted_or_damaged(self) -> None:
        """A running server replaces a snapshot that is deleted or damaged, even if nothing is executed meanwhile; a
        start begins with the new one."""
        cluster = await self.start_cluster(3, snapshot_every=40)
        await self.compacted(cluster)
        for spoil, fate in ((Path.unlink, "missing"), (self.damage, "damaged")):
            file = await self.snapshot(cluster, 2)
            taken = (await self.status(cluster, 2))["snapshots"]["taken"]
            spoil(file)

            async def replaced(taken: int = taken) -> bool:
                found = (await self.status(cluster, 2))["snapshots"]
                return found["taken"] > taken and found["lost"] is None

            await cluster.wait_for("another snapshot", replaced, 30)
            self.assertIn(f"{file.name}: {fate}", cluster.last_words(2))
        await cluster.kill(2)
        cluster.start(2)
        await cluster.wait_equal(cluster.ids, 60)
        self.assertEqual((await self.status(cluster, 2))["snapshots"]["installed"], 0)

    async def test_a_cluster_without_any_snapshot_says_what_to_do(self) -> None:
        """If no server has a snapshot, each says what to do, and answers nothing from a state that it does not have.
        With the latest of the files back, all of the state is there again."""
        cluster = await self.start_cluster(3, snapshot_every=40)
        await self.compacted(cluster)
        files = [await self.snapshot(cluster, server_id) for server_id in cluster.ids]
        await cluster.kill(*cluster.ids)
        keeper = max(cluster.ids, key=lambda i: files[i].name)  # on a busy machine their slots may differ
        kept = files[keeper].rename(cluster.directory / "kept")
        for server_id in cluster.ids:
            files[server_id].unlink(missing_ok=True)
            cluster.start(server_id)

        async def all_wait() -> bool:
            found = await cluster.statuses()
            return len(found) == 3 and all(status["snapshots"]["lost"] for status in found.values())

        await cluster.wait_for("servers without their states", all_wait, 30)
        for question in ("GET key1 read=stale", "GET key1"):
            reply = await cluster.ask(0, question, seconds=30.0)
            self.assertEqual(reply.code, "UNAVAILABLE", reply.line)
        said = await self.pfsb(cluster, "why", FILE, status=1)
        self.assertIn("make a new cluster of a backup (pfsb restore)", said)
        await cluster.kill(keeper)
        kept.rename(files[keeper])
        cluster.start(keeper)
        await cluster.wait_equal(cluster.ids, 60)
        self.assertTrue((await cluster.ask(0, "GET key1")).ok)


class BackupTests(SnapshotCase):
    async def backed_up(self, cluster: ProcessCluster) -> Path:
        file = cluster.directory / "backup.snapshot"
        said = await self.pfsb(cluster, "backup", FILE, str(file))
        self.assertIn("the state after slot", said)
        return file

    async def test_a_restored_cluster_refuses_old_tokens_and_old_servers(self) -> None:
        former = await self.start_cluster(3)
        visitor = await self.visit(former, 0)
        self.assertTrue((await visitor.ask("HELLO alice ttl=600")).startswith("OK"))
        token = self._token(await visitor.ask("LOCK printer"))
        self.assertTrue((await visitor.ask("PUT colour blue")).startswith("OK"))
        file = await self.backed_up(former)
        self.assertIn("locks held", await self.pfsb(former, "backup", "--verify", str(file)))
        # After the backup the former cluster grants the lock to another client, with a higher token.
        self.assertTrue((await visitor.ask("UNLOCK printer")).startswith("OK"))
        bob = await self.visit(former, 1)
        self.assertTrue((await bob.ask("HELLO bob")).startswith("OK"))
        later = self._token(await bob.ask("LOCK printer"))
        self.assertGreater(later, token)
        new = self.make_cluster(3)
        said = await self.pfsb(new, "restore", str(file), FILE)
        self.assertIn("1 sessions end", said)
        await new.start_all()
        await new.wait_leader()
        alice = await self.visit(new, 1)
        hello = await alice.ask("HELLO alice")
        self.assertIn("resumed=no", hello)
        self.assertGreater(self._token(await alice.ask("LOCK printer")), later)
        self.assertTrue((await alice.ask("GET colour")).startswith('OK value="blue"'))
        self.assertIn("resumed=no", hello)
        identities = {json.dumps((await self.status(each, 0))["settings"]["cluster"]) for each in (former, new)}
        self.assertEqual(len(identities), 2)

    def _token(self, reply: str) -> int:
        self.assertIn("token=", reply)
        return int(reply.rpartition("token=")[2])

    async def test_a_backup_over_http_is_the_same_file(self) -> None:
        cluster = await self.start_cluster(3)
        self.assertTrue((await cluster.ask(0, "SAY hello")).ok)
        await cluster.wait_equal(cluster.ids)
        files = [cluster.directory / f"{server_id}.snapshot" for server_id in (0, 1)]
        for server_id, file in enumerate(files):
            said, status = await run(
                "curl", "-sS", "-X", "POST", "-o", str(file), f"{url(cluster, server_id)}/v1/backup"
            )
            self.assertEqual((said, status), ("", 0))
        self.assertEqual(files[0].read_bytes(), files[1].read_bytes())
        last = (await self.status(cluster, 0))["snapshots"]["last_backup"]
        self.assertGreater(last["seq"], 0)
        lines = (await self.pfsb(cluster, "export", str(files[0]))).splitlines()
        self.assertEqual(json.loads(lines[-1])["chat"]["text"], "hello")

    async def test_no_web_page_can_have_a_backup_made(self) -> None:
        cluster = await self.start_cluster(1)
        answer = await self.curl(cluster, 0, "POST", "/v1/backup", Origin="http://evil.example")
        self.assertEqual(answer.status, 403)
        self.assertEqual((await self.curl(cluster, 0, "GET", "/v1/backup")).status, 405)

    async def test_backups_without_a_server_fail_with_a_reason(self) -> None:
        cluster = self.make_cluster(3)
        file = cluster.directory / "none.snapshot"
        said = await self.pfsb(cluster, "backup", FILE, str(file), status=4)
        self.assertIn("does not answer", said)
        self.assertFalse(file.exists())

    async def test_a_cluster_goes_on_from_what_one_directory_holds(self) -> None:
        """When a majority is lost for ever, a cluster goes on from what one data directory holds (`pfsb recover`)."""
        former = await self.start_cluster(3)
        await self.put(former, 0, 5)
        await former.wait_equal(former.ids)
        for server_id in former.ids:
            await former.kill(server_id)
        new = self.make_cluster(3)
        said = await self.pfsb(new, "recover", FILE, str(former.data(1)))
        self.assertIn("1 of 3 servers are left", said)
        await new.start_all()
        reply = await new.ask(2, "GET key4")
        self.assertTrue(reply.line.startswith('OK value="4'), reply.line[:40])

    async def test_an_export_is_imported(self) -> None:
        cluster = await self.start_cluster(1)
        lines = cluster.directory / "lines.jsonl"
        entries = [{"kv": {"key": f"k{number}", "value": str(number)}} for number in range(200)]
        said = [{"chat": {"client": name, "text": f"I am {name}"}} for name in ("alice", "bob", "alice")]
        lines.write_text("".join(json.dumps(each) + "\n" for each in (*entries, *said)))
        out = await self.pfsb(cluster, "import", FILE, "--file", str(lines))
        self.assertIn("200 keys and 3 lines of the chat", out)
        self.assertTrue((await cluster.ask(0, "GET k199")).line.startswith('OK value="199"'))
        (row, *_) = (await cluster.ask(0, "LOG from=2 limit=1")).rows
        self.assertIn('client="bob"', row)
