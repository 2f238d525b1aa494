"""Disks that hang or are full, from the client's side (Departures 44 and 45)."""

from __future__ import annotations

from typing import Any

from pfsb.applications.interfaces import Done, Refused
from pfsb.frontends.http.server_info import unready
from pfsb.paxos.records import PeerRecord
from pfsb.sessions.revision_waiters import RevisionWaiters
from tests.sessions.support import ClusterTestCase, code, small_limits, value

NOTICED_SECONDS = 9.0
"""How long, in seconds, after a write began to hang the server has noticed it: `disk_seconds` and some looks."""


class HangingDiskTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3, small_limits(request_seconds=100.0))
        self.leader = self.cluster.leader() or 0
        self.do(self.connect(self.leader), "PUT", "k", "1")

    def hang(self, server_id: int | None = None) -> None:
        self.cluster.storage(self.leader if server_id is None else server_id).hang()

    def go_on(self) -> None:
        self.cluster.storage(self.leader).go_on()
        self.cluster.run(3.0)

    def test_command_under_way_is_answered_with_an_unknown_fate(self) -> None:
        """A command that was under way when the disk began to hang is answered with an unknown fate, since its PROPOSAL
        may have left; it is not answered again when the disk works."""
        client = self.connect(self.leader)
        self.hang()
        told = client.ask("PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS)
        self.assertEqual(code(told.result), ("UNAVAILABLE", "unknown"))
        self.go_on()
        self.assertEqual(len(told.results), 1)
        self.assertEqual(value(self.do(self.connect(self.leader), "GET", "k")), "2")

    def test_repetition_at_another_server_tells_the_result(self) -> None:
        """A repetition at another server, which the text of the refusal advises, gets the result."""
        client = self.open("alice", self.leader)
        self.hang()
        client.ask("INCR", "n", number=1)
        self.cluster.run(NOTICED_SECONDS)
        other = self.open("alice", (self.leader + 1) % 3)
        self.assertEqual(value(self.do(other, "INCR", "n", number=1)), "1")

    def test_refusals_are_given_at_once(self) -> None:
        """While the disk hangs, refusals are given at once: a new command has not run, and one whose number was used
        may have."""
        client = self.open("alice", self.leader)
        self.do(client, "INCR", "n", number=1)
        waiting = self.connect(self.leader)
        self.hang()
        waiting.ask("PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS)
        self.assertEqual(code(client.ask("PUT", "k", "3").result), ("UNAVAILABLE", "none"))
        self.assertEqual(code(client.ask("GET", "k").result), ("UNAVAILABLE", "none"))
        self.assertEqual(code(client.ask("INCR", "n", number=1).result), ("UNAVAILABLE", "unknown"))
        hello: list[Any] = []
        self.connect(self.leader).connection.hello("bob", 10, hello.append)
        self.assertEqual(code(hello[0]), ("UNAVAILABLE", "none"))

    def test_commands_behind_the_one_under_way_have_not_happened(self) -> None:
        """Commands behind the one that was under way have not run, since they were not sent."""
        follower = (self.leader + 1) % 3
        client = self.connect(follower)
        self.hang(follower)
        self.do(self.connect(self.leader), "PUT", "k", "2")
        self.cluster.isolate(follower)
        under_way = client.ask("PUT", "k", "3")
        self.cluster.run(0.1)
        behind = client.ask("PUT", "k", "4")
        self.cluster.run(NOTICED_SECONDS)
        self.assertEqual(code(under_way.result), ("UNAVAILABLE", "unknown"))
        self.assertEqual(code(behind.result), ("UNAVAILABLE", "none"))
        self.assertIn("disk", str(behind.result))

    def test_client_that_waits_for_a_lock_is_told(self) -> None:
        """A client that waits for a lock is answered when the disk hangs, since the server may not learn for days that
        the lock was granted. Its number can be repeated at another server."""
        self.do(holder := self.open("holder", (self.leader + 1) % 3), "LOCK", "door")
        client = self.open("alice", self.leader)
        waiting = client.ask("LOCK", "door", number=1)
        self.cluster.run(1)
        self.assertFalse(waiting.answered)
        self.hang()
        self.do(self.connect((self.leader + 1) % 3), "PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS)
        self.assertEqual(code(waiting.result), ("UNAVAILABLE", "unknown"))
        other = self.open("alice", (self.leader + 2) % 3)
        again = other.ask("LOCK", "door", number=1)
        self.do(holder, "UNLOCK", "door")
        self.cluster.run(1)
        self.assertIsInstance(again.result, Done)

    def test_lock_that_was_waited_for_is_told_to_a_repetition_when_the_disk_works(self) -> None:
        """A lock that was waited for is told to a repetition of the number when the disk works; the first call, which
        was answered, is not answered again."""
        self.do(holder := self.open("holder", (self.leader + 1) % 3), "LOCK", "door")
        client = self.open("alice", self.leader)
        waiting = client.ask("LOCK", "door", number=1)
        self.cluster.run(1)
        self.hang()
        self.do(self.connect((self.leader + 1) % 3), "PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS)
        self.go_on()
        again = client.ask("LOCK", "door", number=1)
        self.cluster.run(1)
        self.do(holder, "UNLOCK", "door")
        self.cluster.run(1)
        self.assertIsInstance(again.result, Done)
        self.assertEqual(code(waiting.result), ("UNAVAILABLE", "unknown"))

    def test_stale_read_shows_only_what_rests_on_nothing_that_waits(self) -> None:
        """While the disk hangs, a stale read is answered as long as all executed slots are on disk, and refused once a
        later slot was executed."""
        follower = (self.leader + 1) % 3
        client = self.connect(follower)
        self.hang(follower)
        self.do(self.connect(self.leader), "PUT", "other", "2")
        self.cluster.run(NOTICED_SECONDS)
        self.assertEqual(code(client.look("GET", "k").result), ("UNAVAILABLE", "none"))

    def test_stale_read_is_answered_if_nothing_was_executed_since(self) -> None:
        """A stale read is answered if no slot was executed since the write that hangs, such as that of a view, which
        changes nothing that clients see."""
        follower = (self.leader + 1) % 3
        client = self.connect(follower)
        turn = self.server(follower).replica.turn
        self.hang(follower)
        self.cluster.isolate(self.leader)
        self.cluster.run(NOTICED_SECONDS + 2)
        self.assertTrue(turn.trouble is None or turn.shows_only_what_is_durable)
        self.assertEqual(value(client.look("GET", "k").result), "1")

    def test_another_server_leads_and_the_old_leader_follows_later(self) -> None:
        """If a leader's disk hangs, two servers elect another one without waiting for the disk, and the old leader
        follows later without a restart."""
        self.hang()
        self.connect(self.leader).ask("PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS + 2)
        leader = self.cluster.leader()
        self.assertNotEqual(leader, self.leader)
        self.do(self.connect((self.leader + 1) % 3), "PUT", "k", "3")
        self.go_on()
        self.assertEqual(self.server(self.leader).leader(), leader)
        self.assertEqual(value(self.do(self.connect(self.leader), "GET", "k")), "3")
        self.assertEqualServers()

    def test_status_and_readiness_tell(self) -> None:
        """STATUS and readiness tell that the disk hangs, for people and load balancers."""
        self.hang()
        self.connect(self.leader).ask("PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS)
        server = self.server(self.leader)
        status: Any = server.status()["disk"]
        self.assertEqual((status["trouble"], status["begun"]), ("hangs", {"hangs": 1, "full": 0}))
        self.assertIn("does not answer", str(unready(server)))
        self.go_on()
        self.assertIsNone(unready(server))
        self.assertEqual(server.status()["disk"], {"trouble": None, "seconds": 0.0, "begun": {"hangs": 1, "full": 0}})

    def test_digest_is_refused(self) -> None:
        """While the disk hangs, DIGEST is refused: the answer would rest on slots that are not on disk."""
        answers: list[Any] = []
        self.hang()
        self.connect(self.leader).ask("PUT", "k", "2")
        self.cluster.run(1)
        self.server(self.leader).digest(None, answers.append)
        self.cluster.run(NOTICED_SECONDS)
        self.assertEqual(code(answers[0]), ("UNAVAILABLE", "none"))

    def test_drain_does_not_wait_for_the_disk(self) -> None:
        """A drain does not wait for a disk that hangs: all clients were refused."""
        drained: list[float] = []
        self.hang()
        self.connect(self.leader).ask("PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS)
        self.server(self.leader).drain(lambda: drained.append(self.cluster.now))
        self.assertEqual(len(drained), 1)

    def test_revision_is_told_only_when_it_is_on_disk(self) -> None:
        """A revision is told only when it is on disk: otherwise `Pfsb-Revision` would let a client wait elsewhere for a
        revision that a crash may undo."""
        revisions: RevisionWaiters = self.server(self.leader).revisions
        before = revisions.told
        self.hang()
        self.connect(self.leader).ask("PUT", "k", "2")
        self.cluster.run(NOTICED_SECONDS)
        self.assertEqual(revisions.told, before)
        self.go_on()
        self.assertGreater(revisions.told, before)


class FullDiskTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.do(self.connect(self.leader), "PUT", "k", "1")

    def fill(self, *server_ids: int) -> None:
        for server_id in server_ids or self.cluster.ids:
            disk = self.cluster.disk(server_id)
            disk.free_records = disk.reserve_records = 1_000
        self.cluster.run(0.5)

    def empty(self) -> None:
        for server_id in self.cluster.ids:
            self.cluster.disk(server_id).free_records = None
        self.cluster.run(0.5)

    def test_changes_are_refused_and_questions_answered_while_all_disks_are_full(self) -> None:
        """While all disks are full, changes are refused, and questions answered at every server, also linearizable
        ones, since the leader goes on to lead."""
        self.fill()
        for server_id in self.cluster.ids:
            client = self.connect(server_id)
            self.assertEqual(code(client.ask("PUT", "k", "2").result), ("READONLY", "none"))
            self.assertEqual(value(self.do(client, "GET", "k")), "1")
            self.assertIn("full", str(unready(self.server(server_id))))
        self.empty()
        for server_id in self.cluster.ids:
            self.assertIsInstance(self.do(self.connect(server_id), "PUT", "k", str(server_id)), Done)
            self.assertIsNone(unready(self.server(server_id)))

    def test_nothing_is_written_while_the_disks_are_full(self) -> None:
        """While the disks are full, nothing is written: the reserve is for writes that are under way when the server
        notices."""
        self.fill()
        before = [self.cluster.disk(i).free_records for i in self.cluster.ids]
        client = self.connect(self.leader)
        for number in range(20):
            client.ask("PUT", "k", str(number))
            self.cluster.run(0.5)
        self.assertEqual([self.cluster.disk(i).free_records for i in self.cluster.ids], before)

    def test_stale_read_does_not_wait_for_a_write_that_has_no_room(self) -> None:
        """A stale read does not wait for a write that has no room, and that is under way until there is room."""
        follower = (self.leader + 1) % 3
        client = self.connect(follower)
        self.cluster.run(0.5)  # votes to a server without clients may be delayed
        self.cluster.storage(follower).hang()
        turn = self.server(follower).replica.turn
        turn.run(lambda: turn.append(PeerRecord(self.leader, b"i" * 16)))
        self.fill(follower)
        self.assertTrue(turn.is_writing)
        self.assertEqual(value(client.look("GET", "k").result), "1")

    def test_drain_does_not_wait_for_room(self) -> None:
        """A drain does not wait for room on a full disk: the client of the command under way was refused."""
        follower = (self.leader + 1) % 3
        self.cluster.isolate(follower)
        self.connect(follower).ask("PUT", "k", "2")
        self.cluster.run(0.1)
        self.fill(follower)
        drained: list[float] = []
        self.server(follower).drain(lambda: drained.append(self.cluster.now))
        self.assertEqual(len(drained), 1)

    def test_leader_with_a_full_disk_is_replaced_when_a_command_waits(self) -> None:
        """A leader with a full disk is replaced when a command waits: the two others are a majority that can write."""
        self.fill(self.leader)
        client = self.connect((self.leader + 1) % 3)
        told = client.ask("PUT", "k", "2")
        self.cluster.run_until(lambda: told.answered, 6)
        self.assertIsInstance(told.result, Done)
        self.assertNotEqual(self.cluster.leader(), self.leader)

    def test_server_that_falls_behind_refuses_linearizable_questions_too(self) -> None:
        """A server with a full disk that falls behind refuses linearizable questions, too, since it does not know the
        latest state."""
        follower = (self.leader + 1) % 3
        self.fill(follower)
        self.do(self.connect(self.leader), "PUT", "k", "2")
        self.cluster.run(1)
        client = self.connect(follower)
        told = client.ask("GET", "k")
        self.cluster.run(2)
        self.assertEqual(code(told.result), ("UNAVAILABLE", "none"))
        self.empty()
        self.cluster.run(2)
        self.assertEqual(value(self.do(client, "GET", "k")), "2")

    def test_command_under_way_is_refused_with_an_unknown_fate(self) -> None:
        """A command that was under way when the disk became full has an unknown fate: the server may not learn whether
        the others order it."""
        follower = (self.leader + 1) % 3
        self.cluster.isolate(follower)
        client = self.connect(follower)
        told = client.ask("PUT", "k", "2")
        self.cluster.run(0.1)
        self.fill(follower)
        result = told.result
        assert isinstance(result, Refused)
        self.assertEqual(code(result), ("UNAVAILABLE", "unknown"))
        self.assertIn("full", result.text)
