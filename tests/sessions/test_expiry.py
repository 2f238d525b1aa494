"""Expiry: sessions end when their client was silent for their ttl; waits end at their deadlines."""

from __future__ import annotations

from tests.sessions.support import HORIZON_SLOTS, ClusterTestCase, code, value


class OwnServerTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_lost_session_is_expired_after_its_ttl(self) -> None:
        """A session whose connection was lost expires neither before its ttl nor much later."""
        for client_id, ttl in (("short", 2), ("long", 5)):
            self.open(client_id, ttl_seconds=ttl).disconnect()
        self.cluster.run(1.8)
        self.assertEqual(self.sessions(), ["short", "long"])
        self.cluster.run(1.2)
        self.assertEqual(self.sessions(), ["long"])
        self.cluster.run(1.8)
        self.assertEqual(self.sessions(), ["long"])
        self.cluster.run(1.2)
        self.assertEqual(self.sessions(), [])

    def test_connected_session_is_not_expired(self) -> None:
        """A session whose client is connected does not expire, however long the client is silent."""
        client = self.open("alice", ttl_seconds=1)
        self.cluster.run(20.0)
        self.assertEqual((self.sessions(), client.ends), (["alice"], []))

    def test_sessions_of_the_former_incarnation_are_expired(self) -> None:
        """After a restart, sessions of the former incarnation whose clients do not come back expire, anonymous or
        not."""
        self.open("alice", ttl_seconds=3)
        self.do(self.connect(), "LOCK", "x")
        self.cluster.run(0.5)
        self.cluster.crash(0)
        self.cluster.restart(0)
        self.cluster.run_until(self.cluster.has_leader)
        self.assertEqual(len(self.sessions()), 2)
        back = self.open("alice", ttl_seconds=3)
        self.cluster.run(12.0)
        self.assertEqual(self.sessions(), ["alice"])
        self.assertEqual(value(self.do(back, "TRYLOCK", "x"), "name"), "x")

    def test_idle_cluster_orders_nothing(self) -> None:
        """Departure 10: a cluster in which no client waits and no server is silent orders nothing."""
        self.open("alice", ttl_seconds=1)
        aru = self.cluster.aru(0)
        self.cluster.run(20.0)
        self.assertEqual(self.cluster.aru(0), aru)


class WaitTests(ClusterTestCase):
    def test_wait_ends_on_an_idle_cluster(self) -> None:
        """A wait ends at its deadline on an idle cluster, too: the leader orders the time, at whatever server the
        client is."""
        self.begin(3)
        self.do(self.connect(0), "LOCK", "x")
        for server_id in (1, 2):
            told = self.connect(server_id).ask("LOCK", "x", "wait=1.5")
            self.cluster.run(1.4)
            self.assertFalse(told.answered)
            self.assertEqual(code(self.answer(told, 0.5)), ("TIMEOUT", "none"))

    def test_one_slot_ends_a_wait(self) -> None:
        """For one deadline the time is ordered once, and not at every look."""
        self.begin()
        self.do(self.connect(), "LOCK", "x")
        told = self.connect().ask("LOCK", "x", "wait=1.5")
        self.cluster.run(1.0)
        aru = self.cluster.aru(0)
        self.answer(told)
        self.cluster.run(5.0)
        self.assertEqual(self.cluster.aru(0), aru + 1)


class LeaderTests(ClusterTestCase):
    """The leader expires the sessions of a server that is silent itself (Departure 9)."""

    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.at, self.other = (i for i in self.cluster.ids if i != self.leader)
        self.client = self.open("alice", self.at, 3)
        self.anonymous = self.connect(self.at)
        self.do(self.client, "LOCK", "x")
        self.do(self.anonymous, "LOCK", "y")
        self.waiting = [self.connect(self.other).ask("LOCK", name) for name in ("x", "y")]
        self.cluster.run(0.2)

    def test_sessions_of_a_dead_server_are_expired(self) -> None:
        """The sessions of a dead server are expired, and their locks go to the next clients."""
        self.cluster.crash(self.at)
        self.cluster.run(2.5)
        self.assertFalse(self.waiting[0].answered)
        self.assertEqual([value(self.answer(told, 12.0), "name") for told in self.waiting], ["x", "y"])
        self.assertNotIn("alice", self.sessions(self.leader))

    def test_only_the_leader_expires_them(self) -> None:
        """Only the leader expires the sessions of a dead server, though all others hear as little of it."""
        expiries = len(self.bundles("!", self.leader))
        others = len(self.bundles("!", self.other))
        self.cluster.crash(self.at)
        self.cluster.run(20.0)
        self.assertGreater(len(self.bundles("!", self.leader)), expiries)
        self.assertEqual(len(self.bundles("!", self.other)), others)

    def test_sessions_of_a_dead_leader_are_expired_by_the_next(self) -> None:
        """The sessions of a dead leader are expired by the next leader, which counts the silence from the beginning of
        its own view."""
        client = self.open("bob", self.leader, 2)
        self.do(client, "LOCK", "z")
        told = self.connect(self.other).ask("LOCK", "z")
        self.cluster.run(0.2)
        self.cluster.crash(self.leader)
        self.assertEqual(value(self.answer(told, 20.0), "name"), "z")

    def test_client_that_has_moved_is_not_expired(self) -> None:
        """The session of a client that has moved to another server is not expired when the first one is dead."""
        moved = self.open("alice", self.other, 3)
        self.cluster.crash(self.at)
        self.cluster.run(8.0)
        self.assertIn("alice", self.sessions(self.leader))
        self.assertEqual(value(self.do(moved, "LOCK", "x"), "name"), "x")

    def test_connected_client_is_told_that_its_session_is_over(self) -> None:
        """A server that was cut off for too long learns, when it is back, that a session of its client has expired, and
        tells the client."""
        self.cluster.isolate(self.at)
        self.cluster.run(12.0)
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertEqual((self.client.ends, self.anonymous.ends), (["NOSESSION"], ["NOSESSION"]))
        self.assertEqual(code(self.do(self.client, "INCR", "n")), ("NOSESSION", "none"))
        again = self.open("alice", self.at)
        self.assertEqual(value(self.do(again, "INCR", "n")), "1")

    def test_short_silence_expires_no_session(self) -> None:
        """A silence that is shorter than the ttl expires no session."""
        for _ in range(4):
            self.cluster.isolate(self.at)
            self.cluster.run(2.0)
            self.cluster.heal()
            self.cluster.run(2.0)
        self.assertEqual((self.client.ends, self.anonymous.ends), ([], []))
        self.assertEqual(value(self.do(self.client, "LOCK", "x"), "name"), "x")

    def test_sessions_of_a_server_that_is_heard_and_hears_nothing_are_expired(self) -> None:
        """The sessions of a server that is heard and hears nothing, over links that carry one way, are expired: its
        updates are ordered, and it never learns of that."""
        for other in (self.leader, self.other):
            self.cluster.cut(other, self.at, one_way=True)
        for number in range(10):
            self.do(self.connect(self.other), "PUT", "key", str(number))
            self.cluster.run(0.5)
        self.assertEqual([value(self.answer(told, 15.0), "name") for told in self.waiting], ["x", "y"])

    def test_server_that_has_nothing_to_learn_is_not_deaf(self) -> None:
        """A server with nothing to learn, since nothing is ordered for a long time, does not count as one that hears
        nothing."""
        self.cluster.run(60.0)
        self.assertEqual((self.client.ends, self.anonymous.ends), ([], []))


class ServedServerTests(ClusterTestCase):
    """Departure 36: a server that the leader does not hear serves its clients by way of the third server."""

    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.at, self.other = (i for i in self.cluster.ids if i != self.leader)
        self.client = self.open("alice", self.at, 3)
        self.do(self.client, "LOCK", "x")

    def test_client_that_is_being_served_keeps_its_session_and_its_locks(self) -> None:
        for one_way in (True, False):
            self.cluster.cut(self.at, self.leader, one_way=one_way)
            for number in range(12):
                self.do(self.client, "PUT", "k", str(number))
                self.cluster.run(0.5)
            self.cluster.heal()
        self.assertEqual(self.client.ends, [])
        self.assertEqual(code(self.do(self.connect(self.other), "TRYLOCK", "x")), ("HELD", "none"))

    def test_client_that_is_connected_and_silent_keeps_its_session(self) -> None:
        """A client that is connected and silent keeps its session: the leader asks its server through the log, and gets
        an answer each time."""
        self.cluster.cut(self.at, self.leader)
        self.cluster.run(20.0)
        self.assertEqual((self.client.ends, self.cluster.leader()), ([], self.leader))
        self.assertEqual(code(self.do(self.connect(self.other), "TRYLOCK", "x")), ("HELD", "none"))

    def test_leader_asks_a_dead_server_once(self) -> None:
        """The leader asks a dead server once, and orders nothing more until the sessions have expired, and nothing
        afterwards."""
        self.cluster.run(1.0)
        aru = self.cluster.aru(self.leader)
        self.cluster.crash(self.at)
        self.cluster.run(20.0)
        self.assertEqual(self.sessions(self.leader), [])
        self.assertEqual(self.cluster.aru(self.leader), aru + 2, "ASK and EXPIRE")

    def test_question_and_answer_count_no_revision(self) -> None:
        self.cluster.run(1.0)
        revision = self.server(self.leader).machine.revision
        self.cluster.cut(self.at, self.leader)
        self.cluster.run(10.0)
        self.assertEqual(self.server(self.leader).machine.revision, revision)

    def test_update_that_overtakes_the_expiry_keeps_the_session(self) -> None:
        """An update of the session's server that is ordered before the expiry keeps the session, since the expiry names
        the last slot with an update of that server that the leader has seen."""
        machine = self.server(self.leader).machine
        epoch, heard = machine.sessions["alice"].epoch, machine.heard_in[self.at]
        self.do(self.client, "PUT", "k", "v")
        submit = self.server(self.leader).local_clients.submission.submit_operation
        submit(("EXPIRE", "alice", epoch, heard))
        self.cluster.run(0.5)
        self.assertIn("alice", machine.sessions)
        submit(("EXPIRE", "alice", epoch, machine.heard_in[self.at]))
        self.cluster.run(0.5)
        self.assertNotIn("alice", machine.sessions)


class ForgottenTests(ClusterTestCase):
    """Departure 33: HELLO tells when the servers know nothing of the numbers of sessions that ended long ago."""

    def setUp(self) -> None:
        self.begin()

    def forgotten(self, client_id: str) -> object:
        told = self.connect().hello(client_id)
        return dict(self.answer(told).fields).get("forgotten")  # type: ignore[union-attr]

    def test_session_that_is_forgotten(self) -> None:
        alice = self.open("alice")
        began = self.server().machine.sessions["alice"].epoch
        self.do(alice, "INCR", "n", number=1)
        self.answer(alice.bye())
        ended = self.server().machine.revision
        self.assertIsNone(self.forgotten("bob"), "nothing is forgotten yet")
        self.assertEqual(self.server().machine.last_number("alice"), 1)
        for _ in range(HORIZON_SLOTS + 2):
            self.do(self.connect(), "PUT", "k", "v")
        self.assertEqual(self.server().machine.last_number("alice"), 0)
        self.assertEqual(self.forgotten("alice"), ended)
        self.assertGreater(ended, began)
