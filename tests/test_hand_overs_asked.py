"""LEAD, as clients ask for it: one server hands over to another one, or says why it does not (Departure 59)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import BadRequest, Done, Refused, Result
from pfsb.frontends.line.arguments import server_id
from tests.sessions.support import ClusterTestCase, code, value


class LeadTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.required_leader()
        self.follower, self.other = (i for i in self.cluster.ids if i != self.leader)

    def lead(self, target: int, at: int | None = None, seconds: float = 2.0) -> Result:
        results: list[Result] = []
        self.server(self.leader if at is None else at).hand_overs.answer(target, results.append)
        self.cluster.run_until(lambda: bool(results), seconds)
        return results[0]

    def text(self, result: Result) -> str:
        assert isinstance(result, Refused), result
        return result.text

    def test_named_server_leads(self) -> None:
        """LEAD is answered when the named server leads; commands of clients go on meanwhile."""
        client = self.open("alice", self.follower)
        self.assertEqual(value(self.do(client, "INCR", "n")), "1")
        done = self.lead(self.follower)
        assert isinstance(done, Done)
        view = self.server(self.follower).replica.data.views.last_installed
        self.assertEqual(done.fields, (("leader", self.follower), ("view", view), ("changed", "yes")))
        self.assertEqual(self.cluster.leader(), self.follower)
        self.assertEqual(value(self.do(client, "INCR", "n")), "2")
        self.assertEqual(self.server(self.leader).status()["hand_over"]["done"], 1)  # type: ignore[index]

    def test_new_leader_hands_over_as_soon_as_it_is_followed(self) -> None:
        """A LEAD at a server that has just come to lead waits until ALIVEs tell that others follow, and is then carried
        out."""
        self.lead(self.follower)
        self.assertEqual(value(self.lead(self.other, at=self.follower), "changed"), "yes")
        self.assertEqual(self.cluster.leader(), self.other)

    def test_server_that_leads_already(self) -> None:
        """LEAD for the present leader changes nothing, and is no mistake."""
        self.assertEqual(value(self.lead(self.leader), "changed"), "no")
        self.assertEqual(value(self.lead(self.leader, at=self.follower), "changed"), "no")

    def test_server_that_there_is_none_of(self) -> None:
        result = self.lead(7)
        self.assertEqual(code(result), ("NOTFOUND", "none"))
        self.assertEqual(self.text(result), "there is no server 7; known are 0, 1, 2")

    def test_follower_says_who_leads(self) -> None:
        """A follower refuses LEAD, and names the leader with its address, since only the leader hands over."""
        result = self.lead(self.other, at=self.follower)
        self.assertEqual(code(result), ("CONFLICT", "none"))
        self.assertIn(f"server {self.leader} leads now, and only it can hand over", self.text(result))
        self.assertIn(self.server().config.server(self.leader).client, self.text(result))

    def test_server_that_is_not_heard(self) -> None:
        self.cluster.crash(self.follower)
        self.cluster.run(1.5)
        result = self.lead(self.follower)
        self.assertEqual(code(result), ("UNAVAILABLE", "none"))
        self.assertEqual(self.text(result), f"server {self.follower} is not heard; server {self.leader} leads on")

    def test_server_that_stands_still(self) -> None:
        """If the target of LEAD does not answer, the leader leads on, and says so."""
        self.cluster.pause(self.follower)
        result = self.lead(self.follower)
        self.assertEqual(code(result), ("UNAVAILABLE", "none"))
        expected = f"server {self.follower} has not answered; server {self.leader} leads now"
        self.assertEqual(self.text(result), expected)

    def test_no_leader_is_known(self) -> None:
        self.cluster.crash(self.leader)
        self.cluster.crash(self.other)
        self.cluster.run(3.0)
        result = self.lead(self.other, at=self.follower)
        self.assertEqual(code(result), ("UNAVAILABLE", "none"))
        self.assertEqual(self.text(result), "this server knows no leader: an election is under way")


class RetiringTests(ClusterTestCase):
    def test_server_is_drained_when_another_one_leads(self) -> None:
        """A leader is drained when another server leads; a server that does not lead, at once."""
        self.begin(3)
        leader = self.cluster.required_leader()
        drained: list[int] = []
        self.server(leader).retire(lambda: drained.append(leader))
        self.assertEqual(drained, [])
        self.cluster.run_until(lambda: bool(drained), 0.5)
        self.assertNotEqual(self.cluster.leader(), leader)
        self.server(leader).retire(lambda: drained.append(leader))
        self.assertEqual(drained, [leader, leader])


class ArgumentTests(SynchronousTestCase):
    def test_what_is_no_id(self) -> None:
        """A text that is no id is refused with the text that is given for that."""
        self.assertEqual(server_id("2", "no id"), 2)
        for text in ("", "x", "-1", "2.0", "\u0662", "9999999999"):
            refusal = self.assertRaises(BadRequest, server_id, text, "no id")
            self.assertEqual(str(refusal), "no id")
