"""One server below its sockets, as the front ends use it (docs/protocol.rst, docs/operating.rst)."""

from __future__ import annotations

import json

from pfsb.applications.interfaces import Event, Refused, Result
from pfsb.server import DRAIN_SECONDS
from tests.sessions.support import DIGESTS_KEPT, ClusterTestCase, code, value

STATUS_NAMES = {
    *("cluster", "server", "version", "state", "view", "attempted", "leader", "n", "quorum", "tolerates"),
    *("aru", "last_ordered", "revision", "sessions", "connections", "pending", "queued"),
    *("compacted", "snapshot", "digest", "uptime", "transport", "apps", "peers"),
}
"""Names of STATUS that docs/operating.rst describes."""


class StatusTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0

    def test_status_has_the_names_of_the_interface_in_one_line_of_json(self) -> None:
        """STATUS is one line of JSON with the documented names, on which scripts rely; more may be added."""
        status = self.server().status()
        line = json.dumps(status)
        self.assertNotIn("\n", line)
        self.assertEqual(STATUS_NAMES - set(json.loads(line)), set())

    def test_status_tells_what_has_happened(self) -> None:
        """STATUS counts revision, Local_Aru, sessions and connections, and shows the digest, which is the same at all
        servers."""
        client = self.open("alice", self.leader)
        self.do(client, "INCR", "n")
        self.connect(self.leader)
        self.cluster.run(1.0)
        status = self.server(self.leader).status()
        expected = {
            "revision": 2,
            "aru": self.base + 2,
            "last_ordered": self.base + 2,
            "sessions": 1,
            "connections": 2,
            "pending": 0,
        }
        shown = {name: status[name] for name in expected}
        self.assertEqual(shown, expected)
        self.assertEqual(len({self.server(i).status()["digest"] for i in self.cluster.ids}), 1)

    def test_status_counts_what_a_measurement_divides_by(self) -> None:
        """STATUS counts updates at every server; proposals and their sizes only at the server that has made them."""
        before = self.server().status()["updates"]
        client = self.open("alice", self.leader)
        self.do(client, "INCR", "n")
        self.cluster.run(1.0)
        statuses = {i: self.server(i).status() for i in self.cluster.ids}
        self.assertEqual({status["updates"] for status in statuses.values()}, {before + 2})  # type: ignore[operator]
        proposed = {i: status["proposed"] for i, status in statuses.items() if status["proposed"]["count"]}  # type: ignore[index]
        self.assertEqual(list(proposed), [self.leader])
        self.assertEqual(proposed[self.leader]["count"], statuses[self.leader]["aru"])  # type: ignore[index]
        self.assertGreater(proposed[self.leader]["bytes"], len("alice") + len("INCR"))  # type: ignore[index]

    def test_status_tells_the_cluster(self) -> None:
        """STATUS shows the size of the cluster, and how many failures it tolerates."""
        status = self.server().status()
        self.assertEqual(
            [status[name] for name in ("cluster", "server", "n", "quorum", "tolerates", "transport", "apps")],
            ["simulated", 0, 3, 2, 1, "udp", ["chat", "kv", "lock", "later"]],
        )

    def test_all_servers_name_the_same_leader(self) -> None:
        """When a server leads, its STATUS has the state of a leader, and all servers name it."""
        statuses = [self.server(i).status() for i in self.cluster.ids]
        self.assertEqual({status["leader"] for status in statuses}, {self.leader})
        self.assertEqual([s["server"] for s in statuses if s["state"] == "REG_LEADER"], [self.leader])

    def test_no_leader_is_known_in_an_election(self) -> None:
        """A server that is cut off says in STATUS that it knows no leader."""
        self.cluster.isolate(self.leader)
        self.cluster.run(10.0)
        self.assertIsNone(self.server(self.leader).leader())
        self.assertEqual(self.server(self.leader).status()["state"], "LEADER_ELECTION")

    def test_peers_that_are_silent_are_not_alive(self) -> None:
        """STATUS and SERVERS agree about which peers are alive, and STATUS has the time since the last message of
        each."""
        gone, other = (i for i in self.cluster.ids if i != self.leader)
        self.cluster.crash(gone)
        self.cluster.run(5.0)
        peers = self.server(self.leader).status()["peers"]
        assert isinstance(peers, dict)
        self.assertEqual({i: peer["alive"] for i, peer in peers.items()}, {str(gone): False, str(other): True})
        self.assertGreater(peers[str(gone)]["last_heard"], 4.0)
        self.assertLess(peers[str(other)]["last_heard"], 1.0)
        rows = [dict(row) for row in self.server(self.leader).servers()]
        self.assertEqual([row["id"] for row in rows], [0, 1, 2])
        self.assertEqual([row["alive"] for row in rows], ["no" if row["id"] == gone else "yes" for row in rows])
        self.assertEqual(rows[self.leader]["state"], "REG_LEADER")

    def test_server_that_never_heard_of_a_peer_says_so(self) -> None:
        """For a peer that was never heard, the time since its last message is null, and not a very large number."""
        self.cluster.crash(0)
        self.cluster.isolate(0)
        self.cluster.restart(0)
        peers = self.server(0).status()["peers"]
        assert isinstance(peers, dict)
        self.assertEqual([peer["last_heard"] for peer in peers.values()], [None, None])


class DigestTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.answers: list[Result] = []

    def execute(self, slots: int) -> None:
        client = self.connect()
        for _ in range(slots):
            self.do(client, "INCR", "n")

    def test_digest_of_the_present_comes_at_once(self) -> None:
        """DIGEST without a number tells the digest of the last executed slot."""
        self.execute(3)
        self.server(0).digest(None, self.answers.append)
        self.assertEqual(value(self.answers[0], "seq"), self.base + 3)
        self.assertEqual(value(self.answers[0], "digest"), self.server(0).status()["digest"])

    def test_digest_waits_until_its_slot_is_executed(self) -> None:
        """DIGEST of a later slot waits until that slot is executed, and all servers answer alike."""
        for server_id in self.cluster.ids:
            self.server(server_id).digest(self.base + 4, self.answers.append)
        self.execute(3)
        self.cluster.run(1.0)
        self.assertEqual(self.answers, [])
        self.execute(3)
        self.cluster.run(1.0)
        self.assertEqual(len(self.answers), 3)
        self.assertEqual(len(set(self.answers)), 1)
        self.assertEqual(value(self.answers[0], "seq"), self.base + 4)

    def test_digest_of_a_slot_that_does_not_come_is_refused_in_time(self) -> None:
        """A DIGEST of a slot that does not come is refused after a time: questions that are never answered would count
        as under way, and keep other clients from being served."""
        self.server(0).digest(2**62, self.answers.append)
        seconds = self.server(0).config.limits.request_seconds
        self.cluster.run(seconds - 1)
        self.assertEqual(self.answers, [])
        self.cluster.run(2)
        (refused,) = self.answers
        assert isinstance(refused, Refused)
        self.assertEqual((refused.code, refused.fate), ("UNAVAILABLE", "none"))
        self.assertIn(f"not slot {2**62} in time", refused.text)

    def test_question_that_has_waited_elsewhere_keeps_its_deadline(self) -> None:
        """The time that a DIGEST has spent behind other requests of its client counts towards its deadline."""
        until = self.server(0).deadline()
        self.cluster.run(self.server(0).config.limits.request_seconds - 1)
        self.server(0).digest(2**62, self.answers.append, until)
        self.assertEqual(self.answers, [])
        self.cluster.run(2)
        self.assertEqual(len(self.answers), 1)

    def test_digests_of_different_slots_differ(self) -> None:
        """The digest is chained over the whole history, so it differs from slot to slot."""
        self.execute(3)
        for seq in (1, 2, 3):
            self.server(0).digest(seq, self.answers.append)
        self.assertEqual(len({value(answer, "digest") for answer in self.answers}), 3)

    def test_digest_that_is_not_kept_any_more_is_refused(self) -> None:
        """DIGEST of a slot before the last digests that are kept is refused."""
        self.execute(DIGESTS_KEPT + 1)
        for seq in (1, 2):
            self.server(0).digest(self.base + seq, self.answers.append)
        self.assertEqual(code(self.answers[0]), ("NOTFOUND", "none"))
        self.assertEqual(value(self.answers[1], "seq"), self.base + 2)


class LifeTests(ClusterTestCase):
    def test_follow_tells_what_is_said(self) -> None:
        """A client that follows the chat at any server is told the lines that were said at all servers."""
        self.begin(3)
        events: list[Event] = []
        self.server(2).event_feed.subscribe("LISTEN", 1, events.append, self.fail, self.fail)
        self.do(self.connect(1), "SAY", "hello")
        self.cluster.run(0.5)
        self.assertEqual([dict(event.fields)["text"] for event in events], ["hello"])

    def test_idle_server_is_drained_at_once(self) -> None:
        """A server without commands under way ends its drain at once."""
        self.begin()
        drained: list[bool] = []
        self.server().drain(lambda: drained.append(True))
        self.assertEqual(drained, [True])
        self.assertTrue(self.server().local_clients.draining)

    def test_server_without_a_majority_stops_waiting(self) -> None:
        """A server that drains without a majority stops after a time, although commands under way are not answered."""
        self.begin(3)
        at = self.cluster.leader() or 0
        self.cluster.isolate(at)
        self.connect(at).ask("INCR", "n")
        self.cluster.run(0.01)
        drained: list[float] = []
        began = self.cluster.now
        self.server(at).drain(lambda: drained.append(self.cluster.now))
        self.cluster.run(DRAIN_SECONDS + 1)
        (at_last,) = drained
        self.assertTrue(DRAIN_SECONDS <= at_last - began < DRAIN_SECONDS + 0.1, at_last - began)

    def test_stopped_server_leaves_no_timer_behind(self) -> None:
        """A stopped server has no timer left, not even for waiting clients, locks and digests."""
        self.begin()
        client = self.open("alice")
        self.do(client, "LOCK", "x")
        self.connect().ask("LOCK", "x", "wait=5")
        self.server().digest(100, lambda result: None)
        server, running = self.server(), self.cluster.servers[0].running
        assert running is not None
        server.stop()
        self.cluster.run(0.1)
        self.assertEqual(running.server_clock.getDelayedCalls(), [])

    def test_skipped_number_is_left_out(self) -> None:
        """FAULT SKIP leaves a slot out, a hole which only the next leader fills: nothing behind it is executed until
        then."""
        self.begin(3)
        leader = self.cluster.required_leader()
        before = self.cluster.aru(leader)
        self.server(leader).skip.add(before + 1)
        told = self.connect(leader).ask("INCR", "n")
        self.cluster.run(0.5)
        self.assertFalse(told.answered)
        self.assertEqual(self.server(leader).status()["aru"], before)
        self.cluster.run_until(lambda: told.answered, 20)
        self.assertEqual(self.cluster.aru(leader), before + 2)

    def test_server_that_votes_alone_leaves_no_number_out(self) -> None:
        """No other server would lead after it, and fill the hole."""
        self.begin()
        self.server().skip.add(self.base + 1)
        told = self.connect().ask("INCR", "n")
        self.cluster.run(0.5)
        self.assertTrue(told.answered)
