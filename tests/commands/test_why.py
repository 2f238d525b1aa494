"""`pfsb why` names what is in the way of a leader or of progress."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.addresses import ServerAddress
from pfsb.commands import why
from pfsb.commands.survey import Survey, ask_all
from pfsb.commands.why import ClockReading, can_take_commands, findings, servers
from tests.client.cluster import LoopbackTestCase, reactor

FINE = "nothing is in the way of commands, as far as the servers know"


def address(server_id: int) -> ServerAddress:
    return ServerAddress(server_id, f"tcp:127.0.0.1:{9400 + server_id}", f"127.0.0.1:{9400 + server_id}")


def status(**changes: Any) -> dict[str, Any]:
    """The STATUS of a server that follows server 1 in view 2, with some fields changed."""
    return {
        "state": "REG_NONLEADER",
        "view": 2,
        "attempted": 2,
        "leader": 1,
        "quorum": 3,
        "aru": 10,
        "last_ordered": 10,
        "pending": 0,
        "version": "0.1",
        "admitted": True,
        "peers": {},
        "disk": {"trouble": None, "seconds": 0},
        **changes,
    }


def seeking(view: int, **changes: Any) -> dict[str, Any]:
    return status(state="LEADER_ELECTION", attempted=view, leader=None, **changes)


def found(*answers: Any) -> Survey:
    return Survey([address(i) for i in range(len(answers))], answers)


class EpochTests(SynchronousTestCase):
    """Servers of different epochs of the membership answer."""

    def test_servers_of_the_latest_epoch_tell_who_votes(self) -> None:
        """The servers of the latest epoch tell who votes: a server that has not executed the change yet, and a removed
        one, do not count."""
        now = {"epoch": 2, "voters": [0, 1, 3], "quorum": 2, "view": "2.1"}
        survey = found(
            status(epoch=0, voters=[0, 1, 2], quorum=2),
            status(**now),
            status(epoch=2, voters=[0, 1, 3], role="removed", quorum=2, aru=1),
            "unreachable: x",
        )
        self.assertEqual((survey.voters, survey.quorum), ([0, 1, 3], 2))
        self.assertEqual(survey.summary, "leads: none, 2 of 3 up, tolerates 0 more")
        self.assertNotIn("server 2 is behind", "\n".join(findings(survey, {})))

    def test_removed_servers_are_no_majority(self) -> None:
        gone = status(epoch=3, voters=[3, 4, 5], quorum=2, role="removed", leader=None)
        survey = found(gone, gone, gone)
        self.assertEqual(survey.summary, "leads: none, 0 of 3 servers up (), 2 needed")
        self.assertFalse(can_take_commands(survey))

    def test_voter_that_is_none_in_the_latest_epoch_was_removed(self) -> None:
        """The server was cut off, or has lost its data, and does not know. The network is not blamed for it."""
        deaf = {"3": {"alive": False}}
        gone = status(epoch=0, voters=[0, 1, 2], aru=0, last_ordered=0, leader=None, role="voter", peers=deaf)
        known = status(epoch=3, voters=[1, 2, 3], quorum=2, role="voter")
        told = findings(found(gone, known, known, known), {})
        self.assertEqual(len(told), 1, told)
        self.assertIn("server 0 is no member since epoch 3 at the latest, and does not know it", told[0])

    def test_servers_that_were_added_are_asked_too(self) -> None:
        """Servers that a change has added are asked, too, once each, at the addresses that servers of the latest epoch
        tell."""
        clients = {"0": "127.0.0.1:9400", "1": "127.0.0.1:9401", "3": "127.0.0.1:9403"}
        asked: list[str] = []

        def ask(address: ServerAddress) -> Deferred[Any]:
            asked.append(address.shown)
            return succeed(status(epoch=2, voters=[0, 1, 3], quorum=2, clients=clients))

        survey = self.successResultOf(Deferred.fromCoroutine(ask_all([address(0), address(1)], ask)))
        self.assertEqual(asked, ["127.0.0.1:9400", "127.0.0.1:9401", "127.0.0.1:9403"])
        self.assertEqual(survey.summary, "leads: 1, 3 of 3 up, tolerates 1 more")


class FindingTests(SynchronousTestCase):
    def told(self, *answers: Any, clocks: dict[int, ClockReading] | None = None) -> str:
        return "\n".join(findings(found(*answers), clocks or {}))

    def test_healthy_cluster(self) -> None:
        healthy = found(status(), status(state="REG_LEADER"), status(), status())
        self.assertEqual(findings(healthy, {}), [FINE])
        self.assertEqual(healthy.summary, "leads: 1, 4 of 4 up, tolerates 1 more")
        self.assertTrue(can_take_commands(healthy))
        learning = found(status(role="permanent-learner", state="LEADER_ELECTION", attempted="1.1"))
        self.assertIn("learns for good; has executed 10", next(servers(learning)))
        first, second, *_ = servers(healthy)
        self.assertIn("server 0 (127.0.0.1:9400): follows server 1 in view 2; has executed 10, of 10", first)
        self.assertIn("server 1 (127.0.0.1:9401): leads view 2", second)

    def test_missing_majority(self) -> None:
        """If two of four servers are down, `pfsb why` says that one more at least is needed for a majority."""
        broken = found(seeking(5), "unreachable: Connection was refused by other side", "unreachable: x", seeking(5))
        self.assertEqual(broken.summary, "leads: none, 2 of 4 servers up (0, 3), 3 needed")
        self.assertEqual(
            findings(broken, {}),
            [
                "no majority: 2 of 4 servers up (0, 3), 3 needed; start 1 more at least "
                "(server 1 (127.0.0.1:9401): connection refused; server 2 (127.0.0.1:9402): x)"
            ],
        )
        self.assertFalse(can_take_commands(broken))
        self.assertEqual(found("unreachable: x").summary, "leads: none, no server can be reached")

    def test_votes_for_different_views(self) -> None:
        """If servers vote for different views, each view is told with its voters, its leader, and the votes that are
        missing."""
        told = self.told(seeking(8), seeking(7), "unreachable: x", seeking(8))
        self.assertIn(
            "view 8 (server 3 would lead it) has the votes of servers 0, 3, 3 needed; missing: 1 (votes for view 7), "
            "2 (down)",
            told,
        )
        self.assertIn("view 7 (server 2 would lead it) has the votes of servers 1, 3 needed", told)

    def test_leader_that_only_a_minority_follows_is_none(self) -> None:
        """A leader that only a minority follows, as one that was cut off, counts as none, although it believes that it
        leads."""
        torn = found(seeking(3), status(state="REG_LEADER"), status(), seeking(3))
        self.assertIsNone(torn.leader)
        self.assertFalse(can_take_commands(torn))

    def test_causes_at_single_servers(self) -> None:
        """A cause at a single server is told with the id of the server."""
        for change, text in (
            (
                {"peers": {"0": {"alive": False}, "3": {"alive": True}}},
                "server 2 does not hear servers 0, which are",
            ),
            ({"disk": {"trouble": "hangs", "seconds": 12.3}}, "the disk of server 2 hangs for 12 s"),
            ({"disk": {"trouble": "full", "seconds": 1}}, "the disk of server 2 is full"),
            (
                {"admitted": False, "not_acquainted": [0, 1]},
                "server 2 does not vote yet: its storage is not known",
            ),
            ({"admitted": False, "not_acquainted": [0], "role": "removed"}, "server 2 was removed from the cluster"),
            ({"admitted": False, "not_acquainted": [0], "role": "joining"}, "server 2 is no member of the cluster yet"),
            ({"admitted": False, "not_acquainted": [0], "role": "learner"}, "server 2 learns what the others"),
            ({"admitted": False, "role": "permanent-learner"}, "server 2 learns for good what the others"),
            (
                {"settings_differ": ["window"]},
                "the configuration of server 2 differs from the cluster's",
            ),
            ({"version": "0.2"}, "versions differ: server 0: 0.1"),
            (
                {"frames": {"refused": {"tag": 5, "size": 3}}},
                "server 2 has refused 5 frames since its start (tag)",
            ),
            ({"aru": 7}, "server 2 waits for number 8, and knows that 10 is ordered"),
            ({"aru": 7, "last_ordered": 7}, "server 2 is behind: it has executed 7 of 10"),
            ({"pending": 4}, "server 2 has 4 updates of clients that are not executed yet"),
            (
                {"diverged": True, "peers": {"0": {"differs_at": 5}}},
                "server 2 has executed something otherwise",
            ),
        ):
            told = self.told(status(), status(state="REG_LEADER"), status(**change), status())
            self.assertEqual(len(told.splitlines()), 1, told)
            self.assertIn(text, told)

    def test_clocks_that_certainly_differ(self) -> None:
        """Clocks count as different only if they certainly differ: a slow answer leaves open what the clock of its
        server shows."""
        clocks = {0: ClockReading(3599.0, 3600.0), 1: ClockReading(-70.0, -60.0), 2: ClockReading(-5.0, 0.5)}
        told = self.told(status(), status(state="REG_LEADER"), status(), status(), clocks=clocks)
        self.assertEqual(
            told.splitlines(),
            [
                "the clock of server 0 is 3599.0 s ahead of that of this machine",
                "the clock of server 1 is 60.0 s behind that of this machine",
            ],
        )


class ExplainTests(LoopbackTestCase):
    async def test_servers_are_asked(self) -> None:
        """All servers are asked for their STATUS; one of an older version tells no time, and fewer fields."""
        await self.cluster.members[2].crash()
        out = io.StringIO()
        self.assertIs(await why.explain(reactor, self.cluster.addresses, out), True)
        lines = out.getvalue().splitlines()
        self.assertRegex(lines[0], "^leads: [0-9], 2 of 3 up, tolerates 0 more$")
        self.assertEqual(len(lines), 5)
        self.assertIn("down, connection refused", lines[3])
        self.assertEqual(lines[4], FINE)
