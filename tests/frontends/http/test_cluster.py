"""Sessions, fencing and revisions over HTTP, on all servers of a simulated cluster."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.task import Clock

from pfsb.frontends.http.protocol import HTTPSite
from pfsb.service.metrics import Metrics
from pfsb.service.reactor_lag import ReactorLag
from tests.frontends.http.http_client import Connection, Reply
from tests.sessions.support import ClusterTestCase


class ClusterCase(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.sites = {i: HTTPSite(self.server(i), self.cluster.clock, bytes) for i in self.cluster.ids}

    def browser(self, server_id: int) -> Connection:
        """A connection to a server whose requests are answered while the simulation goes on."""
        connection = Connection(self.sites[server_id], Clock())
        connection.heard()
        return connection

    def ask(self, server_id: int, method: str, path: str, body: object = None, **headers: str) -> Reply:
        client = self.browser(server_id)
        client.request(method, path, body, **headers)
        self.cluster.run(1.0)
        return client.reply()

    def other(self) -> int:
        return next(i for i in self.cluster.ids if i != self.leader)


class SessionTests(ClusterCase):
    def test_repeated_everywhere_runs_once(self) -> None:
        """A command under one number that is sent to every server twice runs once, with one answer everywhere."""
        replies = [
            self.ask(i, "PATCH", "/v1/kv/n", {"op": "incr"}, Pfsb_Client="alice", Pfsb_Number="1")
            for i in (*self.cluster.ids, *self.cluster.ids)
        ]
        self.assertEqual([reply.status for reply in replies], [200] * 6)
        self.assertEqual({reply.body for reply in replies}, {replies[0].body})
        self.assertEqual(self.ask(0, "GET", "/v1/kv/n").content["value"], "1")

    def test_what_was_fenced_off_does_not_run_late(self) -> None:
        """A command waits at a server that was cut off, and its client goes on at another server. When the link is
        back, the command does not run."""
        self.ask(self.leader, "POST", "/v1/session", None, Pfsb_Client="alice", Pfsb_Ttl="60")
        self.cluster.isolate(self.leader)
        late = self.browser(self.leader)
        late.request("PUT", "/v1/kv/colour", {"value": "old"}, Pfsb_Client="alice", Pfsb_Number="1")
        self.cluster.run(8.0)
        refused = late.reply()
        self.assertEqual((refused.status, refused.content["fate"]), (503, "unknown"))
        new = self.ask(self.other(), "PUT", "/v1/kv/colour", {"value": "new"}, Pfsb_Client="alice", Pfsb_Number="2")
        self.assertEqual((new.status, new.headers["Pfsb-Session"]), (200, "resumed"))
        self.cluster.heal()
        self.cluster.run(10.0)
        for server_id in self.cluster.ids:
            self.assertEqual(self.ask(server_id, "GET", "/v1/kv/colour").content["value"], "new")

    def test_locks_stay_with_a_session_that_moves_and_go_with_its_end(self) -> None:
        """Locks stay with a session that moves to another server; the end of its ttl frees the lock for a client that
        waits."""
        headers = {"Pfsb_Client": "alice", "Pfsb_Ttl": "3"}
        token = self.ask(0, "POST", "/v1/locks/a", None, **headers).content["token"]
        self.assertEqual(self.ask(1, "POST", "/v1/locks/a", None, **headers).content["token"], token)
        waiting = self.browser(2)
        waiting.request("POST", "/v1/locks/a", {"wait": 30}, Pfsb_Client="bob")
        self.cluster.run(1.5)
        self.assertEqual(waiting.heard(), b"")
        self.cluster.run(3.0)
        self.assertGreater(waiting.reply().content["token"], token)

    def test_idle_sessions_leave_nothing(self) -> None:
        """A session without requests is gone from the replicated state after its ttl."""
        for server_id in self.cluster.ids:
            self.ask(server_id, "PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Client=f"client{server_id}", Pfsb_Ttl="1")
        self.cluster.run(5.0)
        self.assertEqual(set(self.server(0).machine.sessions), set())


class RevisionTests(ClusterCase):
    def test_read_your_writes_at_a_server_that_is_behind(self) -> None:
        """At a server that is behind, a sequential read with the revision of a write waits for the write; without it,
        the read may show the state before."""
        follower = self.other()
        self.cluster.isolate(follower)
        written = self.ask(self.leader, "PUT", "/v1/kv/a", {"value": "1"})
        self.assertEqual(written.content["revision"], int(written.headers["Pfsb-Revision"]))
        self.assertEqual(self.ask(follower, "GET", "/v1/kv/a?read=sequential").status, 404)
        reader = self.browser(follower)
        reader.request("GET", "/v1/kv/a?read=sequential", Pfsb_Revision=written.headers["Pfsb-Revision"])
        self.cluster.run(0.3)
        self.assertEqual(reader.heard(), b"")
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertEqual(reader.reply().content["value"], "1")

    def test_header_is_never_older_than_the_answer(self) -> None:
        """The header Pfsb-Revision is not lower than the revision at which the content of the answer was written."""
        for server_id in self.cluster.ids:
            for number in range(3):
                reply = self.ask(server_id, "PUT", f"/v1/kv/{number}", {"value": "1"})
                self.assertGreaterEqual(int(reply.headers["Pfsb-Revision"]), reply.content["revision"])


_SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})? (-?[0-9.e+-]+)')


class MetricsTests(ClusterCase):
    def figures(self, server_id: int) -> dict[str, float]:
        """The figures of /metrics, by name with labels. Each line must announce a family, or be a sample of one that
        was announced."""
        clock: Any = self.cluster.clock
        metrics = Metrics(self.server(server_id).facts, ReactorLag(clock))
        metrics.site = self.sites[server_id]
        found: dict[str, float] = {}
        family = ""
        for line in metrics.render().decode().splitlines():
            if line.startswith("# "):
                family = line.split(" ")[2]
                continue
            sample = _SAMPLE.fullmatch(line)
            assert sample is not None, line
            self.assertIn(sample[1].removeprefix(family), ("", "_bucket", "_sum", "_count"))
            found[line.rpartition(" ")[0]] = float(sample[4])
        return found

    def test_what_has_happened_is_counted(self) -> None:
        """/metrics counts commands by verb and result, proposals and their sizes, and views."""
        self.ask(self.leader, "PUT", "/v1/kv/a", {"value": "1"})
        self.ask(self.leader, "GET", "/v1/kv/b")
        figures = self.figures(self.leader)
        self.assertEqual(figures['pfsb_client_commands_total{result="OK",verb="PUT"}'], 1)
        self.assertEqual(figures['pfsb_http_answers_total{method="GET",status="404"}'], 1)
        self.assertGreaterEqual(figures["pfsb_proposals_total"], 1)
        self.assertEqual(figures["pfsb_proposal_size_bytes_count"], figures["pfsb_proposals_total"])
        self.assertGreaterEqual(figures["pfsb_proposal_size_updates_sum"], 1)
        self.assertGreaterEqual(figures["pfsb_view_changes_total"], 1)
        self.assertGreater(figures["pfsb_turns_total"], 10)
        self.assertEqual(figures["pfsb_leads"], 1)
        self.assertEqual(self.figures(self.other())["pfsb_leads"], 0)

    def test_trouble_is_counted(self) -> None:
        """/metrics counts expired timers, view changes, and the slots by which a former leader, which was cut off,
        catches up."""
        before = self.figures(self.other())["pfsb_view_changes_total"]
        away = self.leader
        self.cluster.isolate(away)
        self.cluster.run(5.0)
        self.ask(self.other(), "PUT", "/v1/kv/a", {"value": "1"})
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertGreater(self.figures(self.other())["pfsb_view_changes_total"], before)
        self.assertGreater(self.figures(away)["pfsb_progress_timer_expiries_total"], 0)
        self.assertGreater(self.figures(away)['pfsb_reconciliation_bytes_total{way="received"}'], 0)

    def test_calls_of_a_late_reactor_are_counted(self) -> None:
        """A call that the reactor makes late is counted, with its delay."""
        clock = Clock()
        lag = ReactorLag(clock)
        lag.start()
        clock.advance(0.1)
        clock.advance(0.4)
        self.assertEqual((lag.late.count, round(lag.late.sum, 6)), (2, 0.3))
