"""Changes of the membership that clients ask for, and servers that learn and then vote (Departure 60)."""

from __future__ import annotations

from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.frontends.http.server_info import unready
from pfsb.paxos.members import Members
from pfsb.paxos.messages import State
from pfsb.service.metrics import Metrics
from pfsb.service.reactor_lag import ReactorLag
from pfsb.simulator.cluster.cluster import ServerParts, SimulatedCluster
from pfsb.support.hosts import SocketAddress, literal
from tests.long import long
from tests.sessions import support
from tests.sessions.support import ClusterTestCase, ServerProcess

OTHER = "127.0.0.1:7500"


class Waiting:
    """The answer to one change."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def __call__(self, result: Result) -> None:
        self.results.append(result)


@long
class ChangesTestCase(ClusterTestCase):
    """Servers 0 to 2 have founded the cluster. Server 3 waits to be added, if `joining` is 1."""

    joining = 0
    rules = 2

    def setUp(self) -> None:
        founders, servers = (0, 1, 2), 3 + self.joining

        def config(servers: int, limits: object = None) -> object:
            return evolve(plain(servers), founders=founders)

        plain = support.config
        self.patch(support, "config", config)
        self.cluster = SimulatedCluster(self.id(), servers, build=self.build, founders=founders)
        self.cluster.run_until(lambda: any(self.leads(i) for i in founders))
        self.cluster.run_until(self.are_announced)
        self.cluster.run(0.5)
        if self.rules == 2:
            self.assertIsInstance(self.do(self.connect(), "SETTINGS SET", "rules=2"), Done)

    def build(self, parts: ServerParts) -> ServerProcess:
        return ServerProcess(parts)

    def leads(self, server_id: int) -> bool:
        return self.server(server_id).facts.state is State.REG_LEADER

    def lead(self, at: int, target: int) -> Result:
        """The answer of server `at` to LEAD for server `target`."""
        told = Waiting()
        self.server(at).hand_overs.answer(target, told)
        self.cluster.run_until(lambda: bool(told.results))
        return told.results[0]

    def are_announced(self) -> bool:
        return all(len(self.server(i).machine.settings.announced) == 3 for i in (0, 1, 2))

    @property
    def leader(self) -> int:
        return next(i for i in self.cluster.running_ids if self.leads(i))

    def change(self, verb: str, *args: object, at: int = 0, seconds: float = 30.0) -> Result:
        """Ask a server for a change, and let time pass until the answer has come."""
        told = Waiting()
        changes = self.server(at).changes
        ask = partial(changes.add, permanent=True) if verb == "add_for_good" else getattr(changes, verb)
        ask(*args, told)
        self.cluster.run_until(lambda: bool(told.results), seconds)
        (result,) = told.results
        return result

    def members(self, at: int = 0) -> Members:
        return self.server(at).replica.membership.members

    def assertDone(self, result: Result, epoch: int) -> None:
        self.assertEqual(result, Done((("epoch", epoch),)))

    def assertRefusedChange(self, result: Result, code: str, *parts: str) -> None:
        assert isinstance(result, Refused), result
        self.assertEqual((result.code, result.fate), (code, "none"))
        for part in parts:
            self.assertIn(part, result.text)


class BirthTests(ClusterTestCase):
    """Founders that were all removed but one, and have lost their data, are started again (Departure 60)."""

    def tell(self, seconds: float) -> None:
        """Server 9, which knows none of them, tells each of epoch 12, for so long."""
        self.cluster.run_until(lambda: len(self.cluster.running_ids) == 3)
        for _ in range(1 + int(2 * seconds)):
            for i in self.cluster.ids:
                replica = self.server(i).replica
                replica.perform(replica.epochs.note_unknown, 9, 12)
            self.cluster.run(0.5)

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(self.id(), 3, build=ServerProcess)

    def born(self) -> list[bool]:
        return [self.server(i).machine.settings.is_born for i in self.cluster.ids]

    @long
    def test_cluster_begins_once_nobody_tells_of_a_later_epoch(self) -> None:
        """A leader that has heard one frame begins nothing for ten seconds, and then the cluster works."""
        self.tell(0.0)
        self.cluster.run(5.0)
        self.assertEqual(self.born(), [False] * 3)
        self.assertTrue(any(self.server(i).facts.state is State.REG_LEADER for i in self.cluster.ids))
        self.cluster.run(10.0)
        self.assertEqual(self.born(), [True] * 3)

    @long
    def test_second_cluster_never_begins(self) -> None:
        """The servers know that they were removed, and refuse clients, reads too."""
        self.tell(2.5)
        self.cluster.run(20.0)
        self.assertEqual(self.born(), [False] * 3)
        for i in self.cluster.ids:
            self.assertEqual(self.server(i).facts.role, "removed")
            self.assertIn("no member in epoch 12", unready(self.server(i)) or "")
        refused = self.answer(self.connect().look("GET", "a"), 0.1)
        assert isinstance(refused, Refused)
        self.assertIn("no member in epoch 12 of the cluster", refused.text)


class RefusalTests(ChangesTestCase):
    """Changes that are refused before they are ordered."""

    def refused(self, *args: object, code: str = "CONFLICT", parts: tuple[str, ...] = ()) -> None:
        result = self.change(*args)  # type: ignore[arg-type]
        self.assertRefusedChange(result, code, *parts)
        self.assertEqual(self.members().epoch, self.epoch_before, "nothing was ordered")

    joining = 2

    def setUp(self) -> None:
        super().setUp()
        self.epoch_before = 0
        for server_id in (3, 4):
            self.cluster.crash(server_id)

    def test_wrong_ids_and_addresses_are_refused(self) -> None:
        """A change is refused if its id or its address is in use, if it names a server that is no member, or if its
        address is none of a single machine."""
        self.refused("add", 1, OTHER, parts=("server 1 is a member already",))
        self.refused("add", 3, "127.0.0.1:7402", parts=("is the address of server 2",))
        self.refused("add", 3, "nowhere", code="BADREQUEST", parts=("'nowhere' is no address",))
        self.refused("add", 3, "127.0.0.1:0", code="BADREQUEST")
        for nowhere in ("0.0.0.0", "[::]", "224.0.0.1", "255.255.255.255", "[::ffff:0.0.0.0]", "[ff02::1]"):
            for change in ("add", "move"):
                parts = ("is the address of no single machine",)
                self.refused(change, 3, f"{nowhere}:7500", code="BADREQUEST", parts=parts)
        self.refused("move", 9, OTHER, code="NOTFOUND", parts=("server 9 is no member; they are 0, 1, 2",))
        self.refused("move", 1, "127.0.0.1:7400", parts=("is the address of server 0",))
        self.refused("move", 1, "127.0.0.1:7401", parts=("already",))
        self.refused("remove", 9, code="NOTFOUND", parts=("server 9 is no member",))

    def test_name_without_an_address_is_refused(self) -> None:
        """The server that is asked looks the name up; nothing is ordered before it has found an address."""
        found: list[Deferred[tuple[SocketAddress, ...]]] = [fail(OSError("no such host")), succeed(())]
        self.server().changes.look_up = lambda host, port: found.pop(0)
        self.refused("add", 3, "nowhere.test:7400", code="BADREQUEST", parts=("nowhere.test has no address (no such",))
        self.refused("add", 3, "nowhere.test:7400", code="BADREQUEST", parts=("nowhere.test has no address",))
        found.append(succeed((literal("127.0.0.1", 7500),)))  # type: ignore[arg-type]
        self.assertDone(self.change("add", 3, "somewhere.test:7500"), 1)
        self.assertEqual(self.members().addresses, {3: "somewhere.test:7500"})

    def test_second_change_is_refused_while_a_server_learns(self) -> None:
        """While a server learns, no other change is made but its removal; its id is not used again."""
        self.assertDone(self.change("add", 3, OTHER), 1)
        self.epoch_before = 1
        self.refused("add", 4, "127.0.0.1:7501", parts=("another change is under way: server 3 still learns",))
        self.refused("remove", 1, parts=("SERVERS REMOVE 3",))
        self.assertDone(self.change("remove", 3), 2)
        self.epoch_before = 2
        self.refused("add", 3, OTHER, parts=("server 3 was removed, and an id is not used again",))

    def test_two_servers_that_change_at_once(self) -> None:
        """If two servers order a change at the same time, one of the two is made, and the other one changes nothing."""
        self.cluster.run_until(lambda: all(self.server(i).machine.settings.values.rules == 2 for i in (0, 1, 2)))
        told = [Waiting(), Waiting()]
        self.server(0).changes.add(3, OTHER, told[0])
        self.server(1).changes.add(4, "127.0.0.1:7501", told[1])
        self.cluster.run_until(lambda: all(each.results for each in told), 30.0)
        results = [each.results[0] for each in told]
        (done,) = [each for each in results if isinstance(each, Done)]
        (refused,) = [each for each in results if isinstance(each, Refused)]
        self.assertDone(done, 1)
        self.assertRefusedChange(refused, "CONFLICT", "another change came first")
        self.assertEqual(len(self.members().ids), 4)

    def test_removal_that_leaves_no_majority_is_refused_with_the_arithmetic(self) -> None:
        """While one of three servers is down, the removal of another one is refused, with the numbers; the server that
        is down can be removed."""
        self.cluster.crash(2)
        self.cluster.run(3.0)
        at = self.leader
        other = 1 - at
        text = f"without server {other}: 2 servers vote, 2 are needed, 1 are there and keep up (not server 2)"
        self.assertRefusedChange(self.change("remove", other, at=at), "CONFLICT", text)
        self.assertRefusedChange(self.change("move", other, OTHER, at=at), "CONFLICT", f"while server {other} moves")
        self.assertDone(self.change("remove", 2, at=at), 1)
        self.assertEqual(self.members(at).voters, (0, 1))


class OldRulesTests(ChangesTestCase):
    """A cluster whose setting `rules` is that of its birth."""

    joining, rules = 1, 1

    def test_change_is_refused_until_the_rules_know_it(self) -> None:
        """A change is refused while the setting `rules` does not know changes, and the refusal says which setting to
        change: earlier versions would execute the change in another way."""
        self.assertRefusedChange(self.change("add", 3, OTHER), "CONFLICT", "SETTINGS SET rules=2")
        self.assertIsInstance(self.do(self.connect(), "SETTINGS SET", "rules=2"), Done)
        self.assertDone(self.change("add", 3, OTHER), 1)


class RemovalTests(ChangesTestCase):
    """Servers that are removed for good."""

    def test_server_keeps_up_that_lags_by_what_was_executed_since_its_last_alive(self) -> None:
        """A server counts as keeping up even if it lags by all slots that the others have executed since its last
        ALIVE, as under load."""
        at, moved = self.leader, next(i for i in (0, 1, 2) if i != self.leader)
        server = self.server(at)
        connection = self.connect(at)
        for number in range(1, 40):
            self.do(connection, "PUT", "key", str(number))
        for peer in server.replica.peers.by_id.values():
            peer.local_aru = server.replica.data.ordering.local_aru - 2 * server.replica.window.slots
        server.changes.look()
        self.assertDone(self.change("move", moved, OTHER, at=at), 1)

    def test_removed_server_answers_when_the_others_go_on(self) -> None:
        """A server that removes itself answers its client when the others have begun the next epoch: until then its
        disk may be needed, and a client that is told would stop it for good."""
        gone, told = self.leader, Waiting()
        self.server(gone).changes.remove(gone, told)
        self.cluster.run_until(lambda: self.members(gone).epoch == 1)
        self.cluster.isolate(gone)
        self.cluster.run(1.0)
        self.assertEqual(told.results, [])
        self.cluster.heal()
        self.cluster.run_until(lambda: bool(told.results))
        self.assertDone(told.results[0], 1)

    def test_removed_server_that_hears_nothing_tells_no_fate(self) -> None:
        """A server that removes itself, and hears nothing of the others until the time of its client is over, answers
        with an unknown fate."""
        gone, told = self.leader, Waiting()
        self.server(gone).changes.remove(gone, told)
        self.cluster.run_until(lambda: self.members(gone).epoch == 1)
        self.cluster.isolate(gone)
        self.cluster.run_until(lambda: bool(told.results), 60.0)
        (result,) = told.results
        assert isinstance(result, Refused)
        self.assertEqual((result.code, result.fate), ("UNAVAILABLE", "unknown"))

    def test_server_that_was_removed_knows_it_and_takes_no_part(self) -> None:
        """A removed server shows the role `removed`, and sends its clients to the others."""
        gone = next(i for i in (0, 1, 2) if i != self.leader)
        at = next(i for i in (0, 1, 2) if i != gone)
        self.assertDone(self.change("remove", gone, at=at), 1)
        self.cluster.run_until(lambda: self.server(gone).facts.role == "removed", 30.0)
        refused = self.do(self.connect(gone), "PUT", "a", "b")
        assert isinstance(refused, Refused)
        self.assertEqual((refused.code, refused.fate), ("UNAVAILABLE", "none"))
        self.assertIn("was removed from the cluster", refused.text)
        self.assertEqual(self.answer(self.connect(gone).look("GET", "a"), 0.1), refused)
        self.assertEqual(self.lead(gone, at), refused, "there is no election whose end would help")
        self.assertIsInstance(self.do(self.connect(at), "PUT", "a", "b"), Done)
        self.assertEqual(self.server(at).status()["epoch"], 1)
        self.assertNotIn(gone, [dict(row)["id"] for row in self.server(at).servers()])

    def test_commands_under_way_are_answered_when_their_server_is_removed(self) -> None:
        """Commands that are under way when their server is removed are answered with an unknown fate, so that clients
        need not wait until their time is over to repeat them elsewhere."""
        gone = next(i for i in (0, 1, 2) if i != self.leader)
        at = next(i for i in (0, 1, 2) if i != gone)
        client = self.open("alice", gone)
        waits = client.ask("LOCK", "door")
        self.answer(waits)
        other = self.open("bob", gone)
        told = other.ask("LOCK", "door", "wait=60")
        self.cluster.run(0.5)
        self.assertFalse(told.answered)
        self.assertDone(self.change("remove", gone, at=at), 1)
        refused = self.answer(told, 1.5)
        assert isinstance(refused, Refused)
        self.assertEqual((refused.code, refused.fate), ("UNAVAILABLE", "unknown"))
        self.assertIn("was removed", refused.text)

    def test_change_needs_the_storages_of_all_voters(self) -> None:
        """A change is refused if the identity of a voter's storage is unknown: a server that comes later would take any
        storage for that of the voter."""
        leader = self.leader
        other = next(i for i in (0, 1, 2) if i != leader)
        self.cluster.crash(other)
        self.cluster.run(2.0)
        del self.server(leader).replica.membership.identities[other]
        refused = self.change("add", 9, OTHER, at=leader, seconds=0.1)
        self.assertRefusedChange(refused, "CONFLICT", f"does not know the storage of server {other}")
        self.assertDone(self.change("remove", other, at=leader), 1)

    def test_change_waits_until_storages_are_known(self) -> None:
        """After a start servers come to know one another's storages: a change that is asked for earlier waits."""
        leader = self.leader
        other = next(i for i in (0, 1, 2) if i != leader)
        peer = self.server(leader).replica.peers.by_id[other]
        position, peer.position = peer.position, 0
        told = Waiting()
        self.server(leader).changes.remove(3 - leader - other, told)
        self.assertEqual(told.results, [])
        peer.position = position
        self.cluster.run_until(lambda: bool(told.results), 5.0)
        self.assertDone(told.results[0], 1)

    def test_storage_that_was_not_admitted_is_not_named(self) -> None:
        """A change does not name a storage that was not admitted: the former disk of its server has perhaps voted."""
        leader = self.leader
        other = next(i for i in (0, 1, 2) if i != leader)
        self.server(leader).replica.peers.by_id[other].position = 0
        self.cluster.crash(other)
        result = self.change("add", 9, OTHER, at=leader)
        self.assertRefusedChange(result, "CONFLICT", f"does not know the storage of server {other}")

    def test_leader_removes_itself(self) -> None:
        """When a leader removes itself, the server that the change names leads without an election, and the client has
        its answer."""
        leader = self.leader
        self.assertDone(self.change("remove", leader, at=leader), 1)
        left = [i for i in (0, 1, 2) if i != leader]
        self.cluster.run_until(lambda: any(self.leads(i) for i in left), 30.0)
        self.assertIsInstance(self.do(self.connect(left[0]), "PUT", "a", "b"), Done)

    def test_servers_start_again_in_the_epoch(self) -> None:
        """Servers that all start again after a change are in its epoch, since the members are on disk."""
        gone = next(i for i in (0, 1, 2) if i != self.leader)
        left = [i for i in (0, 1, 2) if i != gone]
        self.assertDone(self.change("remove", gone, at=left[0]), 1)
        for server_id in left:
            self.cluster.crash(server_id)
        for server_id in left:
            self.cluster.restart(server_id)
        self.cluster.run_until(lambda: any(self.leads(i) for i in left), 30.0)
        self.assertEqual(self.members(left[0]).voters, tuple(left))
        self.assertIsInstance(self.do(self.connect(left[0]), "PUT", "a", "b"), Done)


class LearnerTests(ChangesTestCase):
    """Server 3 joins."""

    joining = 1

    def test_server_that_waits_refuses_its_clients(self) -> None:
        """A server that was not added yet refuses its clients, and says which command adds it."""
        self.assertEqual(self.server(3).facts.role, "joining")
        refused = self.do(self.connect(3), "PUT", "a", "b")
        assert isinstance(refused, Refused)
        self.assertEqual(refused.code, "UNAVAILABLE")
        self.assertIn("SERVERS ADD 3", refused.text)
        self.assertEqual(self.answer(self.connect(3).look("GET", "a"), 0.1), refused)
        self.assertEqual(self.lead(3, 0), refused)

    def test_server_that_learns_sends_its_clients_to_those_that_vote(self) -> None:
        """A server that learns refuses commands, and names the servers that vote; it answers questions about the state
        that it has itself."""
        self.assertIsInstance(self.do(self.connect(), "PUT", "a", "b"), Done)
        self.assertDone(self.change("add", 3, OTHER), 1)
        self.cluster.run_until(lambda: self.server(3).facts.role == "learner", 30.0)
        self.cluster.run_until(lambda: self.server(3).facts.revision > 0, 30.0)
        self.assertEqual(self.server(3).facts.role, "learner")
        client = self.connect(3)
        for question in (("GET", "a"), ("PUT", "a", "c")):
            refused = self.do(client, *question)
            assert isinstance(refused, Refused)
            self.assertEqual((refused.code, refused.fate), ("UNAVAILABLE", "none"))
            self.assertIn("server 3 still learns what the others have executed: ask server 0, 1, 2", refused.text)
        found = self.answer(client.look("GET", "a"), 0.1)
        assert isinstance(found, Done)
        self.assertIn(("value", b"b"), found.fields)
        self.cluster.run_until(lambda: self.server(3).facts.role == "voter", 60.0)
        self.cluster.run_until(lambda: self.server(3).facts.is_admitted, 60.0)
        self.assertIsInstance(self.do(self.connect(3), "GET", "a"), Done)

    def test_server_learns_for_good(self) -> None:
        """A read replica keeps up without a vote, answers what it knows, and holds up no other change."""
        self.assertDone(self.change("add_for_good", 3, OTHER), 1)
        self.assertIn("no member", unready(self.server(3)) or "")
        self.cluster.run_until(lambda: self.server(3).facts.role == "permanent-learner", 30.0)
        self.assertIsInstance(self.do(self.connect(), "PUT", "a", "b"), Done)
        self.cluster.run(5.0)
        self.assertEqual((self.members().voters, self.members().permanent), ((0, 1, 2), (3,)))
        self.assertEqual((self.server(3).facts.leader, unready(self.server(3))), (self.leader, None))
        figures = Metrics(self.server(3).facts, ReactorLag(Clock())).render().decode()
        for figure in ('pfsb_role{role="learner"} 1.0', 'pfsb_role{role="election"} 0.0', "pfsb_knows_leader 1.0"):
            self.assertIn(f"\n{figure}\n", figures)
        reader = self.connect(3)
        refused = self.do(reader, "GET", "a")
        assert isinstance(refused, Refused)
        self.assertIn("server 3 learns for good what the others have executed: ask server 0, 1, 2", refused.text)
        found = self.answer(reader.look("GET", "a"), 0.1)
        assert isinstance(found, Done)
        self.assertIn(("value", b"b"), found.fields)
        self.cluster.isolate(3)
        self.cluster.run(5.0)
        self.assertEqual((self.server(3).facts.leader, unready(self.server(3))), (None, "this server knows no leader"))
        self.cluster.heal()
        self.cluster.run(5.0)
        at = self.leader
        gone = next(i for i in (0, 1, 2) if i != at)
        self.assertRefusedChange(self.change("replace", 3, 9, "127.0.0.1:7999", at=at), "CONFLICT", "does not vote")
        self.assertDone(self.change("move", 3, "127.0.0.1:7501", at=at), 2)
        self.assertDone(self.change("remove", gone, at=at), 3)
        self.assertEqual(self.members(at).permanent, (3,))
        self.assertDone(self.change("remove", 3, at=at), 4)
        self.assertEqual((self.members(at).permanent, self.members(at).retired), ((), (*sorted((gone, 3)),)))
        self.assertNotIn(gone, self.server(at).places())
        self.assertEqual(self.server(gone).facts.role, "removed")
        self.assertIn(gone, self.server(gone).places(), "its clients are told that they reach the others as it does")

    def test_server_that_was_added_learns_and_then_votes(self) -> None:
        """A server that was added votes once it has the whole state; then the cluster can do without one of the
        others."""
        self.assertIsInstance(self.do(self.connect(), "PUT", "a", "b"), Done)
        self.assertDone(self.change("add", 3, OTHER), 1)
        self.cluster.run_until(lambda: self.server(3).facts.role == "learner", 60.0)
        self.assertIn("still learns", unready(self.server(3)) or "")
        self.cluster.run_until(lambda: self.members(3).voters == (0, 1, 2, 3), 60.0)
        self.cluster.run_until(lambda: self.server(3).facts.is_admitted, 60.0)
        self.assertEqual(self.server(3).facts.role, "voter")
        self.assertEqual(self.members(3).addresses, {3: OTHER})
        self.assertEqual(sorted(self.members(3).storages), [0, 1, 2, 3])
        self.cluster.crash(next(i for i in (0, 1, 2) if self.leads(i)))
        self.cluster.run_until(lambda: any(self.leads(i) for i in self.cluster.running_ids), 60.0)
        found = self.do(self.connect(3), "GET", "a")
        assert isinstance(found, Done)
        self.assertIn(("value", b"b"), found.fields)

    def test_server_takes_the_place_of_another_one(self) -> None:
        """A server takes the place of a dead one although the server that was asked is killed meanwhile: the leader
        makes both changes, one after the other."""
        gone, at = (i for i in (0, 1, 2) if not self.leads(i))
        self.assertIsInstance(self.do(self.connect(at), "PUT", "a", "b"), Done)
        self.cluster.crash(gone)
        self.cluster.crash(3)
        self.assertDone(self.change("replace", gone, 3, OTHER, at=at), 1)
        self.assertEqual(self.members(at).replacing, (gone, 3))
        self.assertEqual(self.server(at).replacing(), (("replacing", gone), ("by", 3)))
        self.cluster.crash(at)
        self.cluster.restart(at)
        self.cluster.restart(3)
        left = tuple(sorted({0, 1, 2, 3} - {gone}))
        self.cluster.run_until(lambda: self.members(3).voters == left, 90.0)
        members = self.members(3)
        self.assertEqual((members.epoch, members.retired, members.replacing), (3, (gone,), None))
        self.cluster.run_until(lambda: any(self.leads(i) for i in left), 60.0)
        self.assertIsInstance(self.do(self.connect(3), "PUT", "a", "c"), Done)

    def test_leader_that_is_replaced_removes_itself(self) -> None:
        gone = self.leader
        left = [i for i in (0, 1, 2, 3) if i != gone]
        self.assertDone(self.change("replace", gone, 3, OTHER, at=gone), 1)
        self.cluster.run_until(lambda: self.members(3).voters == tuple(left), 90.0)
        self.assertEqual(self.server(gone).facts.role, "removed")

    def test_replacement_may_be_given_up(self) -> None:
        """Either server may be removed while the new one learns; that ends the replacement, and no other change is made
        meanwhile."""
        self.cluster.crash(3)
        at = self.leader
        gone, other = (i for i in (0, 1, 2) if i != at)
        self.assertRefusedChange(self.change("replace", 9, 3, OTHER, at=at), "NOTFOUND", "server 9 is no member")
        self.assertRefusedChange(self.change("replace", gone, gone, OTHER, at=at), "CONFLICT", "is a member already")
        self.assertDone(self.change("replace", gone, 3, OTHER, at=at), 1)
        for change in (("remove", other), ("remove", gone), ("add", 9, "127.0.0.1:7999")):
            self.assertRefusedChange(self.change(*change, at=at), "CONFLICT", "server 3 still learns")  # type: ignore[arg-type]
        self.assertDone(self.change("remove", 3, at=at), 2)
        self.assertEqual((self.members(at).replacing, self.members(at).voters), (None, (0, 1, 2)))

    def test_replaced_server_stays_while_no_majority_is_there_without_it(self) -> None:
        """A replaced server is not removed while the others that are there are no majority without it, since the new
        voter is down."""
        gone, other = (i for i in (0, 1, 2) if not self.leads(i))
        at = self.leader
        self.assertDone(self.change("replace", gone, 3, OTHER, at=at), 1)
        self.cluster.run_until(lambda: self.members(at).epoch == 2, 60.0)
        self.cluster.crash(other)
        self.cluster.crash(3)
        self.cluster.run(1.0)
        self.assertEqual(self.members(at).epoch, 2)
        self.cluster.restart(3)
        self.cluster.run_until(lambda: self.members(3).epoch == 3, 90.0)
        self.assertEqual(self.members(3).retired, (gone,))
