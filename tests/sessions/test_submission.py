"""Updates of a server's own session: which of them a client waits for."""

from __future__ import annotations

from tests.sessions.support import ClusterTestCase


class WaitingTests(ClusterTestCase):
    """Departure 25: the others send their votes without delay to a server whose clients wait."""

    def setUp(self) -> None:
        self.begin(3)
        self.follower = next(i for i in self.cluster.ids if i != self.cluster.leader())
        self.demand = self.server(self.follower).replica.demand

    def test_what_a_server_makes_for_itself_is_no_request_of_a_client(self) -> None:
        """A server that has said half a second ago what it can run counts as one without clients."""
        self.assertFalse(self.demand.has_clients())
        submission = self.server(self.follower).local_clients.submission
        told: list[object] = []
        submission.submit_operation(("HERE",), told.append)
        self.cluster.run_until(lambda: bool(told))
        self.assertFalse(self.demand.has_clients())

    def test_session_that_a_client_opens_is_one(self) -> None:
        """HELLO is an operation of the server's own session, too, as are its commands afterwards."""
        client = self.open("alice", self.follower)
        self.assertTrue(self.demand.has_clients())
        self.cluster.run(3)
        self.assertFalse(self.demand.has_clients())
        self.do(client, "INCR", "n")
        self.assertTrue(self.demand.has_clients())
