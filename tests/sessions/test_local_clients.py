"""Clients of several servers: sessions move, servers crash, and every command runs once."""

from __future__ import annotations

from random import Random
from typing import Any

from attrs import define, field
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from pfsb.applications.interfaces import BadRequest, Done, Event
from pfsb.paxos.messages import ClientUpdate
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.cluster.network import LinkQuality, Passage
from tests.examples import examples
from tests.long import long
from tests.sessions.support import Client, ClusterTestCase, Told, code, value


class MoveTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.a, self.b = (i for i in self.cluster.ids if i != self.leader)

    def test_hello_at_another_server_takes_over(self) -> None:
        """A HELLO at another server takes the session over: a repeated number gets the same answer there, and is not
        run again."""
        first = self.open("alice", self.a)
        answer = self.do(first, "INCR", "n", number=1)
        second = self.connect(self.b)
        hello = self.answer(second.hello("alice"))
        self.assertEqual([value(hello, name) for name in ("last", "resumed")], [1, "yes"])
        self.assertEqual(self.do(second, "INCR", "n", number=1), answer)
        self.cluster.run(0.5)
        self.assertEqual((first.ends, second.ends), (["REPLACED"], []))
        self.assertEqual(code(self.do(first, "INCR", "n", number=2)), ("REPLACED", "none"))

    def test_each_connection_is_told_once_that_it_was_replaced(self) -> None:
        """A connection is told once that it was replaced, and nothing of what happens to the session afterwards."""
        first = self.open("alice", self.a)
        second = self.open("alice", self.b)
        third = self.open("alice", self.a)
        self.answer(self.open("alice", self.b).bye())
        self.cluster.run(0.5)
        self.assertEqual([c.ends for c in (first, second, third)], [["REPLACED"]] * 3)

    def test_unanswered_clients_are_told_in_the_order_in_which_they_came(self) -> None:
        """Clients with unanswered commands are told in the order in which they came, so that equal seeds give equal
        runs, whatever addresses objects have in memory."""
        self.cluster.isolate(self.a)
        told: list[int] = []
        for number in range(30):
            connection = self.server(self.a).local_clients.connect(lambda code, text: None)
            connection.submit(1, ("INCR", "n", 1), lambda result, number=number: told.append(number))
        self.cluster.run(15)
        self.assertEqual(told, list(range(30)))

    def test_update_under_way_when_its_client_moves_is_fenced_off(self) -> None:
        """An update that is under way when its client moves, and that is ordered after the HELLO elsewhere, does not
        run: the client repeats its number there."""
        first = self.open("alice", self.a)
        held = self.cluster.network.hold(lambda p: isinstance(p.message, ClientUpdate) and p.sender == self.a)
        late = first.ask("INCR", "n", number=1)
        self.cluster.run(0.2)
        second = self.open("alice", self.b)
        held.release()
        self.assertEqual(code(self.answer(late)), ("REPLACED", "none"))
        self.assertEqual(value(self.do(second, "INCR", "n", number=1)), "1")

    def test_late_duplicates_of_an_update_change_nothing(self) -> None:
        """Copies of an update that come after the session has moved, or is over, change nothing."""
        copies: list[Passage] = []

        def copy(passage: Passage) -> bool:
            if isinstance(passage.message, ClientUpdate) and passage.sender == self.a:
                copies.append(passage)
            return False

        self.cluster.network.filters.append(copy)
        client = self.open("alice", self.a)
        self.do(client, "INCR", "n", number=1)
        self.do(self.connect(self.a), "INCR", "n")
        self.cluster.network.filters.clear()
        self.answer(self.open("alice", self.b).bye())
        self.cluster.run(0.1)  # so that the leader has executed the command, too
        revision = self.server(self.leader).machine.revision
        self.assertEqual(len(copies), 3)
        for passage in copies * 2:
            self.cluster.network.inject(passage)
        self.cluster.run(2.0)
        self.assertEqual(value(self.do(self.connect(self.b), "GET", "n")), "2")
        self.assertEqual(self.server(self.leader).machine.revision, revision)

    def test_answer_for_a_client_that_has_moved_is_told_nowhere(self) -> None:
        """The answer for a client that has moved, such as a granted lock, is not told by the former server."""
        holder = self.open("bob", self.leader)
        self.do(holder, "LOCK", "x")
        first = self.open("alice", self.a)
        old = first.ask("LOCK", "x", number=1)
        self.cluster.run(0.2)
        first.disconnect()
        second = self.open("alice", self.b)
        self.do(holder, "UNLOCK", "x")
        self.assertEqual(value(self.do(second, "LOCK", "x", number=1), "name"), "x")
        self.cluster.run(0.2)
        self.assertEqual(old.results, [])

    def test_server_that_comes_back_with_another_incarnation(self) -> None:
        """The new incarnation of a server has other client ids, so no late update is taken for one of its own."""
        before = self.connect(self.a)
        self.do(before, "INCR", "n")
        self.cluster.crash(self.a)
        self.cluster.restart(self.a)
        after = self.connect(self.a)
        self.assertNotEqual(after.connection.client_id, before.connection.client_id)
        self.assertEqual(value(self.do(after, "INCR", "n")), "2")

    def test_crash_of_the_clients_server(self) -> None:
        """A command that was under way when its client's server crashed is repeated at another server, and has run once
        in the end."""
        for steps in (1, 3, 6, 12, 25, 50):
            client = self.open(f"c{steps}", self.a)
            client.ask("INCR", f"n{steps}", number=1)
            for _ in range(steps):
                self.cluster.step()
            self.cluster.crash(self.a)
            second = self.open(f"c{steps}", self.b)
            self.assertEqual(value(self.do(second, "INCR", f"n{steps}", number=1)), "1")
            self.cluster.restart(self.a)
            self.cluster.run(1.0)
        self.cluster.run(2.0)
        self.assertEqualServers()

    def test_election_loses_and_repeats_nothing(self) -> None:
        """An election loses and repeats none of the pipelined commands that are under way."""
        client = self.open("alice", self.a)
        asked = [client.ask("INCR", "n", number=n) for n in range(1, 9)]
        self.cluster.run(0.002)
        self.cluster.crash(self.leader)
        asked += [client.ask("INCR", "n", number=n) for n in range(9, 15)]
        results = [self.answer(told, 20.0) for told in asked]
        done = [value(r) for r in results if isinstance(r, Done)]
        again = [self.do(client, "INCR", "n", number=n) for n in range(1, 15)]
        self.assertEqual([value(r) for r in again[6:]], [str(n) for n in range(7, 15)])
        self.assertEqual(done, [str(n) for n in range(1, len(done) + 1)])


class EventTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(3)
        self.told: dict[int, list[Any]] = {i: [] for i in self.cluster.ids}
        self.failures: list[Exception] = []
        self.ends: list[str] = []
        self.ended = self.ends.append

    def subscribe(self, server_id: int, first: int = 1) -> Any:
        def deliver(event: Event) -> None:
            fields = dict(event.fields)
            self.told[server_id].append((fields["index"], fields["text"]))

        return self.server(server_id).event_feed.subscribe("LISTEN", first, deliver, self.failures.append, self.ended)

    def test_subscribers_of_all_servers_are_told_the_same(self) -> None:
        """Subscribers at all servers are told the same events, in order, without gaps or repeats."""
        for server_id in self.cluster.ids:
            self.subscribe(server_id)
        for i in range(6):
            self.do(self.connect(i % 3), "SAY", f"text {i}")
        self.cluster.run(1.0)
        expected = [(i + 1, f"text {i}") for i in range(6)]
        self.assertEqual(list(self.told.values()), [expected] * 3)

    def test_subscription_may_begin_anywhere(self) -> None:
        """A subscription may begin at a past event, at one to come, or with the next event."""
        client = self.connect()
        for text in "abc":
            self.do(client, "SAY", text)
        for server_id, first in ((0, 2), (1, 0), (2, 5)):
            self.cluster.run(0.5)
            self.subscribe(server_id, first)
        for text in "def":
            self.do(client, "SAY", text)
        self.cluster.run(0.5)
        numbers = [[index for index, _ in told] for told in self.told.values()]
        self.assertEqual(numbers, [[2, 3, 4, 5, 6], [4, 5, 6], [5, 6]])

    def test_events_are_told_behind_the_gate(self) -> None:
        """An event is delivered when it is on disk, as an answer is."""
        self.begin(1)
        self.cluster.servers[0].sync_seconds = (0.01, 0.02)
        self.subscribe(0)
        self.connect().ask("SAY", "hello")
        chat = self.server().catalogue.verbs["SAY"].application
        while chat.length() == 0:
            self.cluster.step()
        self.assertEqual(self.told[0], [])
        late = self.subscribe(0)
        self.assertEqual(self.told[0], [])
        late.stop()
        self.cluster.run(0.5)
        self.assertEqual(self.told[0], [(1, "hello")])

    def test_subscriber_that_fails_does_not_keep_others_from_being_told(self) -> None:
        """A subscriber that fails, for example because the disk of its chat.log is full, does not keep others from
        being told."""

        def fail(event: Event) -> None:
            raise ZeroDivisionError

        for _ in range(3):
            self.server(0).event_feed.subscribe("LISTEN", 1, fail, self.failures.append, self.ended)
            self.subscribe(0)
        self.do(self.connect(), "SAY", "hello")
        self.cluster.run(0.5)
        self.assertEqual(self.told[0], [(1, "hello")] * 3)
        self.assertEqual([*map(type, self.failures)], [ZeroDivisionError] * 3)

    def test_end_of_the_application_is_told_behind_its_last_events(self) -> None:
        """When the cluster stops running the chat, each subscriber gets the events that are not behind the gate yet,
        and then the reason, at every server; a paused one gets the reason alone."""
        client = self.connect()
        subscriptions = [self.subscribe(server_id) for server_id in self.cluster.ids]
        paused = self.subscribe(0)
        paused.pause()
        for server_id in self.cluster.ids:
            self.cluster.servers[server_id].sync_seconds = (0.01, 0.02)
        client.ask("SAY", "last")
        self.answer(client.ask("SETTINGS SET", "apps=kv"))
        self.cluster.run(1.0)
        self.assertEqual([*self.told.values()], [[(1, "last")]] * 3)
        self.assertEqual(self.ends, ["the cluster does not run the application chat any more"] * 4)
        self.assertEqual([each.next for each in (*subscriptions, paused)], [2, 2, 2, 1])
        feed = self.server(0).event_feed
        self.assertRaises(BadRequest, feed.subscribe, "LISTEN", 1, lambda event: None, self.fail, self.fail)

    def test_subscription_that_stopped_is_forgotten(self) -> None:
        """A subscription that has stopped is forgotten."""
        for subscription in [self.subscribe(0) for _ in range(5)]:
            subscription.stop()
        self.do(self.connect(), "SAY", "hello")
        self.cluster.run(0.5)
        self.assertEqual((self.told[0], self.server(0).local_clients.event_feed.subscriptions("LISTEN")), ([], 0))

    def test_votes_are_not_late_where_a_client_listens(self) -> None:
        """Departure 25: votes to a server with a client that listens are not delayed, and are again when no client
        listens any more."""
        told_to = self.cluster.replica(1).peers.by_id
        self.cluster.run(3.0)
        self.assertFalse(told_to[0].has_clients)
        subscription = self.subscribe(0)
        self.cluster.run(0.5)
        self.assertTrue(told_to[0].has_clients)
        subscription.stop()
        self.cluster.run(0.5)
        self.assertFalse(told_to[0].has_clients)

    def test_patient_subscription_makes_no_votes_come_sooner(self) -> None:
        """A patient subscription, as that of the server's own chat.log, does not make other servers send votes without
        delay."""
        told_to = self.cluster.replica(1).peers.by_id
        feed = self.server(0).event_feed
        feed.subscribe("LISTEN", 1, lambda event: None, self.failures.append, self.ended, is_patient=True)
        self.cluster.run(3.0)
        self.assertFalse(told_to[0].has_clients)

    def test_votes_are_not_late_where_a_lock_is_waited_for(self) -> None:
        """Departure 25: votes to a server with a client that waits for a LOCK are not delayed, however long ago it was
        sent."""
        self.do(self.open("alice", 1), "LOCK", "l", number=1)
        self.open("bob", 0).ask("LOCK", "l", number=1)
        self.cluster.run(5.0)
        self.assertTrue(self.cluster.replica(2).peers.by_id[0].has_clients)
        self.assertFalse(self.cluster.replica(2).peers.by_id[1].has_clients)

    def test_recovered_events_may_be_told_at_once(self) -> None:
        """Recovered events may be told at once, since they are on disk."""
        self.do(self.connect(1), "SAY", "hello")
        self.cluster.run(1.0)
        self.cluster.crash(1)
        self.cluster.restart(1)
        self.subscribe(1)
        self.cluster.run(2.0)
        self.assertEqual(self.told[1], [(1, "hello")])


@define(eq=False)
class Counting:
    """A client that increments a counter of its own: it repeats commands, moves to other servers, and checks all
    answers."""

    case: ClusterTestCase
    client_id: str
    rng: Random
    number: int = 0
    """The number of the client's last command."""
    answered: dict[int, str] = field(factory=dict)
    """Command number -> the value in its answer."""
    client: Client | None = None
    asked: dict[int, Told] = field(factory=dict)
    """The commands under way on the present connection, by number."""
    hello: Told | None = None

    def act(self) -> None:
        """Do one thing that a client may do now."""
        self._hear()
        if not self._is_connected:
            self._move()
        elif self.hello is not None:
            if self.rng.random() < 0.05:
                self._move()
        elif self.rng.random() < 0.05:
            self._move()
        elif self.asked and self.rng.random() < 0.3:
            self._ask(self.rng.choice(list(self.asked)))
        elif self.answered and self.rng.random() < 0.2:
            self._ask(self.rng.choice(list(self.answered)[-6:]))
        elif len(self.asked) < 4:
            self._ask(self._next_number())

    def _next_number(self) -> int:
        """The lowest number that has no answer, or a new one."""
        waiting = [n for n in range(1, self.number + 1) if n not in self.answered and n not in self.asked]
        if not waiting:
            self.number += 1
        return waiting[0] if waiting else self.number

    @property
    def satisfied(self) -> bool:
        return len(self.answered) == self.number

    def settle(self) -> None:
        """Send no new commands, and repeat those without an answer."""
        self._hear()
        if not self._is_connected:
            self._move()
        elif self.hello is None and not self.satisfied and not self.asked:
            self._ask(self._next_number())

    @property
    def _is_connected(self) -> bool:
        """Whether the client is connected to a running incarnation of a server, and has its session."""
        return self._server_is_running and not (self.client is None or self.client.ends)

    @property
    def _server_is_running(self) -> bool:
        cluster = self.case.cluster
        if self.client is None or not cluster.is_running(self.client.server.server_id):
            return False
        return self.case.server(self.client.server.server_id) is self.client.server

    def _move(self) -> None:
        if self.client is not None and self._server_is_running and self.rng.random() < 0.7:
            self.client.disconnect()
        self.asked.clear()
        self.client = self.case.connect(self.rng.choice(self.case.cluster.running_ids))
        self.hello = self.client.hello(self.client_id, 3600)

    def _ask(self, number: int) -> None:
        assert self.client is not None
        self.asked[number] = self.client.ask("INCR", self.client_id, number=number)

    def _hear(self) -> None:
        if self.hello is not None and self.hello.answered:
            hello, self.hello = self.hello, None
            if not isinstance(hello.result, Done):
                self.client = None
        for number, told in list(self.asked.items()):
            if told.answered:
                del self.asked[number]
                self._learn(number, told.result)

    def _learn(self, number: int, result: Any) -> None:
        if isinstance(result, Done):
            said = self.answered.setdefault(number, value(result))
            assert said == value(result), f"{self.client_id} #{number} was {said}, and is {value(result)}"
        elif result.fate == "none":
            assert number not in self.answered, f"{self.client_id} #{number} is done, and called undone: {result}"


class ExactlyOnceTests(ClusterTestCase):
    """Promise 4 for clients that move, repeat and pipeline, on a cluster that loses, duplicates and crashes."""

    @examples(25, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32), st.sampled_from([2, 3]))
    @long
    def test_every_acknowledged_increment_took_effect_once(self, seed: int, servers: int) -> None:
        """The k-th command of a client that uses all its numbers makes its counter k, whatever happens."""
        self.begin(servers)
        rng = Random(seed)
        clients = [Counting(self, f"c{i}", rng) for i in range(4)]
        self.cluster.network.set_quality(LinkQuality(loss=0.05, duplication=0.2, reordering=0.2))
        for _ in range(150):
            rng.choice(clients).act()
            self.cluster.run(rng.choice((0.0005, 0.002, 0.02, 0.1)))
            self.upset(rng, servers)
        heal_all(self.cluster)
        self.settle(clients)
        for client in clients:
            self.assertEqual(client.answered, {n: str(n) for n in range(1, client.number + 1)})
        self.assertGreater(sum(client.number for client in clients), 0)
        self.assertEqualServers()

    def upset(self, rng: Random, servers: int) -> None:
        """Now and then crash a server, start one again, or cut one off."""
        dice = rng.random()
        if dice < 0.03 and len(self.cluster.running_ids) > servers // 2:
            self.cluster.crash(rng.choice(self.cluster.running_ids), groups_kept=rng.randrange(2))
        elif dice < 0.08:
            for server_id in set(self.cluster.ids) - set(self.cluster.running_ids):
                self.cluster.restart(server_id)
        elif dice < 0.11:
            self.cluster.isolate(rng.choice(self.cluster.ids))
        elif dice < 0.18:
            self.cluster.heal()

    def settle(self, clients: list[Counting]) -> None:
        until = self.cluster.now + 120
        while not all(client.satisfied for client in clients):
            self.assertLess(self.cluster.now, until, f"not answered: {clients}\n{self.cluster.picture()}")
            for client in clients:
                client.settle()
            self.cluster.run(0.05)
