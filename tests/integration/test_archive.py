"""The past of real servers with an archive: restore --at, history, and GET at=, against what clients were told."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from pathlib import Path

from attrs import define, field

from pfsb.client.core.replies import Reply, read_reply
from pfsb.demo.processes import ProcessCluster
from tests.integration.case import Visitor
from tests.integration.http_case import Answer
from tests.integration.test_snapshots import FILE, VALUE, SnapshotCase

KEYS = ("colour", "visits", "log")
TIMES_MAX = 6
"""How often a question about the past is asked, each time for the seconds that a server lets it wait."""


@define
class Model:
    """All changes of each key, as the answers have told them."""

    changes: dict[str, list[tuple[int, str | None]]] = field(factory=dict)

    def note(self, key: str, revision: int, value: str | None) -> None:
        self.changes.setdefault(key, []).append((revision, value))

    def at(self, key: str, revision: int) -> tuple[int, str] | None:
        """Look up what a key was after a revision. Returns (revision at which it was written, value), or None."""
        changes = self.changes.get(key, [])
        place = bisect_right(changes, revision, key=lambda each: each[0])
        written, value = changes[place - 1] if place else (0, None)
        return None if value is None else (written, value)

    def state(self, revision: int) -> dict[str, str]:
        found = {key: self.at(key, revision) for key in self.changes}
        return {key: value[1] for key, value in found.items() if value is not None}

    @property
    def revisions(self) -> list[int]:
        return sorted({revision for changes in self.changes.values() for revision, _ in changes})


class ArchiveTests(SnapshotCase):
    timeout = 500

    def setUp(self) -> None:
        self.dice = random.Random(5)
        self.model = Model()

    async def write(self, visitor: Visitor, rounds: int) -> None:
        """Write small values, many at a time, and a large one; all that `rounds` times."""
        for _ in range(rounds):
            lines = [self.line() for _ in range(40)]
            large = f"big{self.dice.randrange(8)}"
            lines.append((f"PUT {large} {len(self.model.revisions)}{VALUE}", large))
            visitor.send("".join(f"{line}\r\n" for line, _ in lines).encode())
            for line, key in lines:
                self.told(line, key, await visitor.reply())

    def line(self) -> tuple[str, str]:
        key = self.dice.choice(KEYS)
        if key == "visits":
            return "INCR visits 3", key
        if self.dice.random() < 0.1:
            return f"DEL {key}", key
        return f"PUT {key} {self.dice.randrange(10**6)}", key

    def told(self, line: str, key: str, answer: str) -> None:
        reply = read_reply(answer)
        assert reply is not None and reply.ok, answer
        revision = int(reply.fields["revision"])
        if line.startswith("DEL"):
            if reply.fields["deleted"]:
                self.model.note(key, revision, None)
        else:
            value = str(reply.fields["value"]) if line.startswith("INCR") else line.split(" ", 2)[2]
            self.model.note(key, revision, value)

    async def life(self) -> ProcessCluster:
        """A cluster with an archive whose servers are killed now and then, and one of which fetches a snapshot."""
        cluster = self.make_cluster(3, snapshot_every=30, archive="archive")
        (cluster.directory / "archive").mkdir()
        await cluster.start_all()
        visitor = await self.visit(cluster, 0)
        await self.write(visitor, 80)
        await cluster.kill(1)
        await self.write(visitor, 20)
        cluster.start(1)
        await cluster.wait_equal(cluster.ids, 60)
        await cluster.kill(2)
        await self.write(visitor, 290)

        async def dropped() -> bool:
            await self.write(visitor, 5)  # snapshots are taken at slots, and some are left out under load
            found = await cluster.statuses([0, 1])
            return all(status["compacted"] > 120 for status in found.values())

        await cluster.wait_for("logs without their beginning", dropped, 60)
        await cluster.kill(0, 1)
        for server_id in cluster.ids:
            cluster.start(server_id)
        await cluster.wait_equal(cluster.ids, 90)
        visitor = await self.visit(cluster, 1)
        await self.write(visitor, 60)
        await cluster.wait_equal(cluster.ids, 60)
        return cluster

    async def past(self, visitor: Visitor, key: str, revision: int) -> Reply:
        """The answer to GET at=. On a busy machine the process that builds the state may take longer than a question
        may wait. Then the process goes on, and the question is asked again."""
        for _ in range(TIMES_MAX):
            reply = read_reply(await visitor.ask(f"GET {key} at={revision}"))
            assert reply is not None
            if reply.code != "UNAVAILABLE":
                break
        return reply

    async def past_by_http(self, cluster: ProcessCluster, server_id: int, revision: int) -> Answer:
        """The answer to GET at= over HTTP for the key visits, asked again as in `past`."""
        for _ in range(TIMES_MAX):
            answer = await self.curl(cluster, server_id, "GET", f"/v1/kv/visits?at={revision}")
            if answer.status != 503:
                break
        return answer

    async def keys_of(self, cluster: ProcessCluster) -> dict[str, str]:
        """The keys in the snapshot with which a restored cluster begins."""
        (file,) = (cluster.data(0) / "snapshots").iterdir()
        lines = (await self.pfsb(cluster, "export", str(file), "--only", "kv")).splitlines()
        found = [json.loads(line)["kv"] for line in lines if line.startswith('{"kv"')]
        return {each["key"]: each["value"] for each in found}

    async def test_past_of_servers_that_were_killed(self) -> None:
        cluster = await self.life()
        archive, data = str(cluster.directory / "archive"), str(cluster.data(0).parent)
        for server_id in (0, 1):
            status = await self.status(cluster, server_id)
            self.assertIsNone(status["archive"]["error"])
            self.assertEqual((status["archive"]["waiting"], status["archive"]["slot"]), (0, status["compacted"]))
            self.assertTrue(list(Path(cluster.directory, status["archive"]["directory"], "log").iterdir()))
        self.assertEqual((await self.status(cluster, 2))["snapshots"]["installed"], 1)
        await self.check_history(cluster)
        await self.check_reads(cluster)
        await self.check_restores(archive, data)

    async def check_history(self, cluster: ProcessCluster) -> None:
        """Check that `pfsb history` shows all writes of a key while the servers run."""
        for key in KEYS:
            lines = (await self.pfsb(cluster, "history", key, FILE, "--json")).splitlines()
            found = [(each["revision"], each["value"]) for each in map(json.loads, lines)]
            self.assertEqual(found, self.model.changes[key])

    async def check_reads(self, cluster: ProcessCluster) -> None:
        """Check GET at= at a server with the whole past, and at one that has skipped slots: this one refuses their
        revisions, and says which slots are missing."""
        revisions = self.dice.sample(self.model.revisions, 60)
        visitor = await self.visit(cluster, 0)
        for revision in sorted(revisions):
            key = self.dice.choice([*KEYS, "big3", "nothing"])
            reply = await self.past(visitor, key, revision)
            expected = self.model.at(key, revision)
            if expected is None:
                self.assertEqual(reply.code, "NOTFOUND", reply.line)
            else:
                self.assertEqual((reply.fields["revision"], reply.fields["value"]), expected, reply.line[:200])
        expected = self.model.at("visits", revisions[0])
        assert expected is not None
        answer = await self.past_by_http(cluster, 0, revisions[0])
        self.assertEqual((answer.content["revision"], answer.content["value"]), expected)
        lagging = await self.visit(cluster, 2)
        middle = self.model.revisions[len(self.model.revisions) // 2]
        reply = await self.past(lagging, "visits", middle)
        self.assertEqual(reply.code, "COMPACTED", reply.line)
        self.assertIn("does not have slots ", reply.text)
        answer = await self.past_by_http(cluster, 2, middle)
        self.assertEqual((answer.status, answer.content["error"]), (410, "COMPACTED"))
        future = self.model.revisions[-1] + 10_000
        reply = read_reply(await visitor.ask(f"GET visits at={future}"))
        assert reply is not None
        self.assertEqual(reply.code, "UNAVAILABLE", reply.line)

    async def check_restores(self, archive: str, data: str) -> None:
        """Check restores of an early state, of one in the slots that a server has skipped, and of a late one; the new
        cluster goes on from there."""
        revisions = self.model.revisions
        for place in (0.05, 0.5, 0.97):
            revision = revisions[int(len(revisions) * place)]
            new = self.make_cluster(3)
            said = await self.pfsb(new, "restore", "--at", str(revision), archive, data, FILE)
            self.assertIn(f"revision {revision}, at 20", said)
            self.assertEqual(await self.keys_of(new), self.model.state(revision))
        await new.start_all()
        reply = await new.ask(1, "GET visits")
        self.assertEqual(reply.fields["value"], self.model.state(revision)["visits"])
        self.assertEqual(reply.fields["revision"], (self.model.at("visits", revision) or (0,))[0])
        reply = await self.past(await self.visit(new, 1), "visits", 1)
        self.assertEqual(reply.code, "COMPACTED", reply.line)
        self.assertIn("what is kept goes back to revision ", reply.text)
        middle = revisions[len(revisions) // 2]
        places = f"{archive}/2", f"{data}/2"
        refused = await self.pfsb(self.make_cluster(3), "restore", "--at", str(middle), *places, FILE, status=1)
        self.assertIn("none of the directories holds slots ", refused)
        self.assertIn("as ordered", refused)
