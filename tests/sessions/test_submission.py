"""Updates of a server's own session (HELLO and other operations): for which of them a client waits."""

from __future__ import annotations

from tests.sessions.support import ClusterTestCase


class WaitingTests(ClusterTestCase):
    """Departure 25: other servers send their votes without delay to a server that has clients waiting for updates."""

    def setUp(self) -> None:
        self.begin(3)
        self.follower = next(i for i in self.cluster.ids if i != self.cluster.leader())
        self.demand = self.server(self.follower).replica.demand

    def test_what_a_server_makes_for_itself_is_no_request_of_a_client(self) -> None:
        """A server that has only announced the versions that it can run, half a second ago, counts as one without
        waiting clients."""
        self.assertFalse(self.demand.has_clients())
        submission = self.server(self.follower).local_clients.submission
        told: list[object] = []
        submission.submit_operation(("HERE",), told.append)
        self.cluster.run_until(lambda: bool(told))
        self.assertFalse(self.demand.has_clients())

    def test_session_that_a_client_opens_is_one(self) -> None:
        """A server with a client that says HELLO counts as one with waiting clients: HELLO is an operation of the
        server's own session, too."""
        client = self.open("alice", self.follower)
        self.assertTrue(self.demand.has_clients())
        self.cluster.run(3)
        self.assertFalse(self.demand.has_clients())
        self.do(client, "INCR", "n")
        self.assertTrue(self.demand.has_clients())
