"""The time limit of a waiting LOCK: neither a wrong clock, nor an idle hour, nor a new leader makes it come too early
(Departure 35)."""

from __future__ import annotations

from tests.sessions.support import ClusterTestCase, Told, code

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0


class WaitTestCase(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        for server_id, offset in zip(self.cluster.ids, (0.0, DAY_SECONDS, -DAY_SECONDS), strict=True):
            self.restart(server_id, offset)
        self.do(self.connect(self.leader()), "PUT", "k", "v")

    def leader(self) -> int:
        self.cluster.run_until(self.cluster.has_leader)
        leader = self.cluster.leader()
        assert leader is not None
        return leader

    def restart(self, server_id: int, offset: float) -> None:
        """Start a server anew, with a clock that is wrong by so many seconds."""
        if self.cluster.is_running(server_id):
            self.cluster.crash(server_id)
        self.cluster.servers[server_id].clock_offset = offset
        self.cluster.restart(server_id)
        self.cluster.run(2.0)
        self.leader()

    def wait(self, seconds: float) -> Told:
        """Let another session hold the lock, and ask for it with a limit of so many seconds, both at a server that does
        not lead. Returns what the client is told."""
        at = next(i for i in self.cluster.running_ids if i != self.leader())
        self.do(self.open("holder", at, 1_000), "LOCK", "door")
        told = self.open("waiting", at, 1_000).ask("LOCK", "door", f"wait={seconds}", number=1)
        self.cluster.run(0.5)
        self.assertFalse(told.answered)
        return told

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass in which no server executes a turn, while all their clocks go on."""
        for server_id in self.cluster.running_ids:
            self.cluster.pause(server_id)
        self.cluster.run(seconds)
        for server_id in self.cluster.running_ids:
            self.cluster.resume(server_id)
        self.leader()


class WaitTests(WaitTestCase):
    def test_leader_whose_clock_is_a_day_ahead(self) -> None:
        """A wait does not end early when each server leads once, with clocks that are up to two days apart."""
        self.wait(60)
        for _ in range(3):
            before = self.leader()
            self.cluster.crash(before)
            self.cluster.run(2.0)
            self.assertNotEqual(self.leader(), before)
            self.cluster.restart(before)
            self.cluster.run(2.0)
        deadline = self.server(self.leader()).machine.next_deadline()
        assert deadline is not None, "the session waits, although the server of its client was restarted"
        left_ms = deadline - self.server(self.leader()).replica.proposals.now_ms()
        self.assertTrue(30_000 < left_ms < 60_000, left_ms)

    def test_wait_begins_after_an_idle_hour(self) -> None:
        """After an idle hour a LOCK waits for its whole time: the hour passes before the LOCK is executed, or is left
        out."""
        self.pause(HOUR_SECONDS)
        told = self.wait(30)
        self.cluster.run(25)
        self.assertFalse(told.answered)
        self.assertEqual(code(self.answer(told, 10)), ("TIMEOUT", "none"))

    def test_wait_begins_after_an_idle_week(self) -> None:
        """After an idle week a LOCK waits for its whole time: what is beyond the most time that one slot may bring is
        left out, and the next slots do not make up for it."""
        self.pause(7 * DAY_SECONDS)
        told = self.wait(30)
        self.cluster.run(25)
        self.assertFalse(told.answered)
        self.assertEqual(code(self.answer(told, 10)), ("TIMEOUT", "none"))

    def test_time_is_ordered_while_something_waits(self) -> None:
        """While a LOCK waits, slots with the time are ordered, since a restarted server knows only the time of the last
        slot."""
        told = self.wait(60)
        self.cluster.run(30)
        for server_id in self.cluster.ids:
            self.cluster.crash(server_id)
        for server_id in self.cluster.ids:
            self.cluster.restart(server_id)
        self.leader()
        left_ms = (self.server().machine.next_deadline() or 0) - self.server().machine.time_ms
        self.assertTrue(15_000 < left_ms < 40_000, left_ms)
        self.assertFalse(told.answered)
