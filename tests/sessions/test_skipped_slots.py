"""A running server takes over the state of a snapshot: its clients are told what the skipped slots have done, and
nothing wrong."""

from __future__ import annotations

from typing import Any

from pfsb.applications.interfaces import Done, Event, Refused
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.ordered_update_queue import OrderedUpdateQueue
from pfsb.paxos.records import AruRecord, SnapshotRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.sessions.state_machine import EXPIRE
from tests.sessions.support import Client, ClusterTestCase, code, small_limits, value


class SkippedSlotsTestCase(ClusterTestCase):
    """Tests with a server `here` that gets no messages: what its clients ask is executed by other servers, and `here`
    does not learn of the results until `catch_up`."""

    def setUp(self) -> None:
        self.begin(3, small_limits(request_seconds=60.0))
        self.there = self.cluster.leader() or 0
        self.here = next(i for i in self.cluster.ids if i != self.there)

    def go_deaf(self) -> None:
        for other in self.cluster.ids:
            if other != self.here:
                self.cluster.cut(other, self.here, one_way=True)
        self.aru = self.cluster.aru(self.here)

    def executed_there(self, number: int = 1) -> None:
        """Let time pass until the other servers have executed so many slots more, and this one none."""
        self.cluster.run_until(lambda: self.cluster.aru(self.there) >= self.aru + number)
        self.cluster.run(0.3)
        self.assertEqual(self.cluster.aru(self.here), self.aru)

    def catch_up(self) -> None:
        """Take over the present state of another server, as `SnapshotFetcher` does when the file is there."""
        replica, source = self.server(self.here).replica, self.server(self.there).replica
        seq, names = self.cluster.aru(self.there), list[SnapshotName]()
        # The methods of the class are called, not those of the object: the checkers watch the latter, and have not
        # seen the skipped slots executed.
        restorer = OrderedUpdateQueue.restorer(replica.ordered_queue)
        file = replica.storage.write_snapshot(seq, source.snapshot_taker.cluster_identity)
        for piece in OrderedUpdateQueue.freeze(source.ordered_queue):
            file.write(piece)
            restorer.take(piece)
        file.finish(names.append)
        self.cluster.run_until(lambda: bool(names))

        def adopt() -> None:
            restorer.adopt()
            replica.snapshot_fetcher.installed += 1
            replica.turn.append(SnapshotRecord(names[0]))
            replica.turn.append(AruRecord(seq), lazy=True)
            replica.ordering.snapshot_installed()

        self.assertEqual(self.cluster.aru(self.here), self.aru)
        replica.perform(adopt)
        self.assertEqual(self.cluster.aru(self.here), seq)

    def assertGoesOn(self, client: Client) -> None:
        """Require that after a restored state the commands of the client are executed, and all servers come to one
        state."""
        self.cluster.heal()
        self.assertIsInstance(self.do(client, "PUT", "later", "1"), Done)
        self.cluster.run(1.0)
        self.assertEqualServers()
        self.assertEqual(self.server(self.here).local_clients.unaccounted_answers(), [0] * len(self._clients()))

    def _clients(self) -> list[Any]:
        return self.server(self.here).local_clients.unaccounted_answers()


class OutstandingTests(SkippedSlotsTestCase):
    """Commands whose update is under way when their slots are skipped."""

    def test_executed_commands_get_their_results(self) -> None:
        """Commands that were executed in skipped slots get the results that their session in the state keeps."""
        client = self.open("alice", self.here)
        self.go_deaf()
        put, incr = client.ask("PUT", "a", "1"), client.ask("INCR", "n")
        self.executed_there()
        self.assertFalse(put.answered)
        self.catch_up()
        self.cluster.run(0.1)
        session = self.server(self.there).machine.sessions["alice"]
        machine = self.server(self.there).machine
        self.assertEqual([put.result, incr.result], [machine.answer_of(session, number) for number in (1, 2)])
        self.assertEqual(value(incr.result), "1")
        self.assertGoesOn(client)
        self.assertEqual(value(self.do(client, "INCR", "n")), "2")

    def test_commands_of_an_anonymous_session_that_they_have_opened(self) -> None:
        client = self.connect(self.here)
        self.go_deaf()
        told = [client.ask("INCR", "n") for _ in range(3)]
        self.executed_there()
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual([value(each.result) for each in told], ["1", "2", "3"])
        self.assertEqual(client.ends, [])
        self.assertGoesOn(client)
        self.assertEqual(value(self.do(client, "INCR", "n")), "4")

    def test_question_among_them_is_refused(self) -> None:
        """A question in a skipped slot is refused: no session keeps its answer, and repeating it changes nothing."""
        client = self.open("alice", self.here)
        self.go_deaf()
        put = client.ask("PUT", "a", "1")
        asked = client.ask("GET", "a")
        self.executed_there()
        self.catch_up()
        self.cluster.run(0.1)
        self.assertIsInstance(put.result, Done)
        self.assertEqual(code(asked.result), ("UNAVAILABLE", "none"))
        self.assertGoesOn(client)

    def test_result_that_is_kept_no_longer_has_an_unknown_fate(self) -> None:
        """If the session does not keep the result of a command that ran in a skipped slot, the command is answered with
        an unknown fate, never with fate=none."""
        client = self.open("alice", self.here)
        self.go_deaf()
        told = client.ask("PUT", "a", "1")
        self.executed_there()
        session = self.server(self.there).machine.sessions["alice"]
        session.answers.drop(session.answers.page)
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual(code(told.result), ("BADREQUEST", "unknown"))
        self.assertEqual(self.server(self.here).machine.sessions["alice"].last_number, 1)

    def test_commands_that_are_not_ordered_stay_under_way(self) -> None:
        client = self.open("alice", self.here)
        self.go_deaf()
        self.cluster.isolate(self.here)
        told = client.ask("PUT", "a", "1")
        self.cluster.run(0.2)
        self.do(self.open("bob", self.there), "PUT", "b", "1")
        self.catch_up()
        self.cluster.run(0.2)
        self.assertFalse(told.answered)
        self.cluster.heal()
        self.assertIsInstance(self.answer(told), Done)
        self.assertGoesOn(client)

    def test_update_beyond_its_horizon_gets_the_truth_from_the_session(self) -> None:
        """Last_Executed has forgotten the update, and no later slot executes it: the session tells which of its two
        commands has run."""
        done, lost = self.open("alice", self.here), self.open("bob", self.here)
        self.go_deaf()
        told = done.ask("INCR", "n")
        self.executed_there()
        self.cluster.isolate(self.here)
        never = lost.ask("INCR", "n")
        self.cluster.run(0.1)
        client = self.open("carol", self.there)
        for _ in range(45):
            self.do(client, "PUT", "b", "1")
        clients = self.server(self.there).replica.data.clients
        pending = self.server(self.here).replica.data.clients.pending_updates
        self.assertEqual([clients.last_executed.of(each) for each in pending], [0] * len(pending))
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual(value(told.result), "1")
        self.assertEqual(code(never.result), ("UNAVAILABLE", "none"))
        self.assertEqual([update for update in pending.values() if b"INCR" in update.payload], [])
        self.assertGoesOn(lost)
        self.assertEqual(value(self.do(lost, "INCR", "n")), "2")

    def test_later_commands_of_the_session_follow(self) -> None:
        """Commands of the next bundle, which have waited for the one in the skipped slots, are executed afterwards."""
        client = self.open("alice", self.here)
        self.go_deaf()
        client.ask("INCR", "n")
        self.executed_there()
        waiting = [client.ask("INCR", "n") for _ in range(3)]
        self.cluster.run(0.1)
        self.catch_up()
        self.assertFalse(waiting[0].answered)
        self.cluster.heal()
        self.assertEqual([value(self.answer(each)) for each in waiting], ["2", "3", "4"])
        self.assertGoesOn(client)

    def test_commands_of_a_client_that_is_gone_end(self) -> None:
        """Commands of a client that has disconnected end with the skipped slots: nothing of the connection is left, and
        its session is closed."""
        client = self.connect(self.here)
        self.go_deaf()
        client.ask("PUT", "a", "1")
        self.executed_there()
        client.disconnect()
        self.assertEqual(len(self.server(self.here).local_clients.submission.abandoned), 1)
        self.catch_up()
        self.cluster.heal()
        self.cluster.run(1.0)
        self.assertEqual(self.sessions(self.there), [])
        self.assertNothingLeft(self.here)

    def test_update_of_another_server_in_this_ones_name_has_used_up_its_number(self) -> None:
        """Departure 37: an update of another server under this server's name has used up the number of a command in a
        skipped slot: that command has not run, and later ones are executed."""
        client = self.open("alice", self.here)
        submission = self.server(self.here).local_clients.submission
        (paxos_client,) = submission.paxos_clients.by_name.values()
        self.go_deaf()
        self.cluster.isolate(self.here)
        told = client.ask("PUT", "a", "1")
        self.cluster.run(0.1)
        name, timestamp = paxos_client.client_id, paxos_client.timestamp
        forged = ClientUpdate(name, self.here, timestamp + 5, self.aru, paxos_client.payload.replace(b"a", b"z"))
        replica = self.server(self.there).replica
        replica.perform(replica.client_updates.on_client_update, forged, self.here)
        self.executed_there()
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual(code(told.result)[1], "none")
        self.assertNotIn(name, submission.paxos_clients.by_name)
        self.flushLoggedErrors()
        self.assertGoesOn(client)


class PendingTests(SkippedSlotsTestCase):
    """LOCK commands that wait in an application when slots are skipped."""

    def setUp(self) -> None:
        super().setUp()
        self.holder = self.open("holder", self.there)
        self.do(self.holder, "LOCK", "door")
        self.client = self.open("alice", self.here)

    def waits(self) -> Any:
        """Ask for a LOCK, and let time pass until this server knows that it is PENDING. Returns what the client is
        told."""
        told = self.client.ask("LOCK", "door")
        self.cluster.run_until(lambda: self.server(self.here).waiting("alice") == [1])
        return told

    def test_lock_that_was_granted_is_told(self) -> None:
        told = self.waits()
        self.go_deaf()
        self.do(self.holder, "UNLOCK", "door")
        self.executed_there()
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual(value(told.result, "name"), "door")
        self.assertGoesOn(self.client)

    def test_lock_that_still_waits_is_told_later(self) -> None:
        """A LOCK that still waits in the state is granted later, whether it waited before the skipped slots or began to
        wait in one of them."""
        told = self.waits()
        self.do(self.holder, "LOCK", "window")
        self.go_deaf()
        other = self.client.ask("LOCK", "window")
        self.executed_there()
        self.catch_up()
        self.cluster.run(0.2)
        self.assertEqual((told.answered, other.answered), (False, False))
        self.assertEqual(sorted(self.client.connection.pending), [1, 2])
        self.cluster.heal()
        for each, name in ((told, "door"), (other, "window")):
            self.do(self.holder, "UNLOCK", name)
            self.assertEqual(value(self.answer(each), "name"), name)
        self.assertGoesOn(self.client)

    def test_repeated_number_is_told_too(self) -> None:
        told = self.waits()
        repeated = self.client.ask("LOCK", "door", number=1)
        self.go_deaf()
        self.do(self.holder, "UNLOCK", "door")
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual(told.result, repeated.result)

    def test_lock_of_a_session_that_has_ended_has_an_unknown_fate(self) -> None:
        told = self.waits()
        self.go_deaf()
        self.expire("alice")
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual((code(told.result), self.client.ends), (("NOSESSION", "unknown"), ["NOSESSION"]))

    def test_number_that_another_session_of_the_client_has_used_is_not_its_result(self) -> None:
        """If the session was forgotten in the skipped slots and opened anew, its number 1 is another command, whose
        result is not told for the former number 1."""
        told = self.waits()
        self.go_deaf()
        self.expire("alice")
        for _ in range(45):
            self.do(self.holder, "PUT", "b", "1")
        anew = self.open("alice", self.there)
        self.assertIsInstance(self.do(anew, "PUT", "b", "2", number=1), Done)
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual((code(told.result), self.client.ends), (("REPLACED", "unknown"), ["REPLACED"]))

    def test_result_is_told_also_if_another_connection_has_taken_the_session_over(self) -> None:
        """A waiting command is told its result by the restored session, also if another connection has taken that
        session over."""
        told = self.waits()
        self.go_deaf()
        self.do(self.holder, "UNLOCK", "door")
        self.open("alice", self.there)
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual((value(told.result, "name"), self.client.ends), ("door", ["REPLACED"]))

    def expire(self, client_id: str) -> None:
        machine = self.server(self.there).machine
        epoch = machine.sessions[client_id].epoch
        self.server(self.there).local_clients.submission.submit_operation((EXPIRE, client_id, epoch))
        self.cluster.run_until(lambda: client_id not in machine.sessions)


class SessionTests(SkippedSlotsTestCase):
    """Sessions that begin, end or change hands in skipped slots."""

    def test_connection_learns_that_its_session_was_taken_over(self) -> None:
        """A connection whose session was taken over in skipped slots is told REPLACED; a command of the new connection
        under the same number is not mistaken for its own."""
        old = self.open("alice", self.here)
        self.go_deaf()
        new = self.open("alice", self.there)
        fenced_off = old.ask("PUT", "a", "old", number=1)
        self.executed_there(2)
        self.assertIsInstance(self.do(new, "INCR", "n", number=1), Done)
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual((code(fenced_off.result), old.ends), (("REPLACED", "unknown"), ["REPLACED"]))
        self.assertEqual(code(old.ask("PUT", "a", "old").result), ("REPLACED", "none"))
        self.cluster.heal()
        self.assertGoesOn(new)

    def test_connection_learns_that_its_session_has_ended(self) -> None:
        client = self.open("alice", self.here)
        self.go_deaf()
        told = client.ask("PUT", "a", "1")
        self.executed_there()
        machine = self.server(self.there).machine
        epoch = machine.sessions["alice"].epoch
        self.server(self.there).local_clients.submission.submit_operation((EXPIRE, "alice", epoch))
        self.cluster.run_until(lambda: "alice" not in machine.sessions)
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual((code(told.result), client.ends), (("NOSESSION", "unknown"), ["NOSESSION"]))
        self.assertEqual(code(client.ask("PUT", "a", "2").result), ("NOSESSION", "none"))

    def test_session_goes_on_that_nobody_has_touched(self) -> None:
        client = self.open("alice", self.here)
        self.go_deaf()
        self.do(self.open("bob", self.there), "PUT", "b", "1")
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual((client.ends, client.told[1:]), ([], []))
        self.assertGoesOn(client)

    def test_connection_without_a_session_in_the_state_goes_on(self) -> None:
        """A connection whose session the state does not have goes on if the bundle that opens the session has not been
        sent, or is under way."""
        idle, asking = self.connect(self.here), self.connect(self.here)
        self.go_deaf()
        self.cluster.isolate(self.here)
        told = asking.ask("PUT", "a", "1")
        self.cluster.run(0.1)
        self.do(self.open("bob", self.there), "PUT", "b", "1")
        self.catch_up()
        self.assertEqual((idle.ends, asking.ends), ([], []))
        self.cluster.heal()
        self.assertIsInstance(self.answer(told), Done)
        self.assertGoesOn(idle)

    def test_anonymous_session_that_began_and_ended_is_not_opened_again(self) -> None:
        """An anonymous session that began and ended in skipped slots is not opened again: a repeated number could run
        twice."""
        client = self.connect(self.here)
        self.go_deaf()
        told = client.ask("INCR", "n")
        self.executed_there()
        machine = self.server(self.there).machine
        (client_id,) = machine.sessions
        self.server(self.there).local_clients.submission.submit_operation((EXPIRE, client_id, 0))
        self.cluster.run_until(lambda: not machine.sessions)
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual((code(told.result), client.ends), (("NOSESSION", "unknown"), ["NOSESSION"]))
        self.assertEqual(code(client.ask("INCR", "n").result), ("NOSESSION", "none"))
        self.cluster.heal()
        self.cluster.run(1.0)
        self.assertEqual(self.sessions(self.here), [])

    def test_hello_and_bye_have_an_unknown_fate(self) -> None:
        """HELLO and BYE in skipped slots are answered with an unknown fate, since no session keeps the results of
        operations; the client may say HELLO again."""
        client, leaving = self.connect(self.here), self.open("bob", self.here)
        self.go_deaf()
        hello, bye = client.hello("alice"), leaving.bye()
        self.executed_there()
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual([code(each.result) for each in (hello, bye)], [("UNAVAILABLE", "unknown")] * 2)
        self.assertEqual(leaving.ends, ["NOSESSION"])
        self.cluster.heal()
        self.assertEqual(value(self.answer(client.hello("alice")), "resumed"), "yes")
        self.assertGoesOn(client)

    def test_leader_learns_that_this_server_serves_its_clients(self) -> None:
        """When the leader's question for sessions (ASK) was in a skipped slot, this server still tells the leader which
        clients it serves."""
        self.open("alice", self.here)
        self.go_deaf()
        self.do(self.open("bob", self.there), "PUT", "b", "1")
        self.catch_up()
        self.cluster.heal()
        self.cluster.run(0.5)
        self.assertGreater(self.server(self.there).machine.heard_in[self.here], self.cluster.aru(self.there) - 3)


class WatcherTests(SkippedSlotsTestCase):
    """Subscribers, monitors and other parts of the server that follow the state."""

    def test_listener_gets_each_line_once(self) -> None:
        speaker, heard = self.open("bob", self.there), []

        def deliver(event: Event) -> None:
            heard.append(dict(event.fields)["text"])

        self.server(self.here).local_clients.event_feed.subscribe("LISTEN", 0, deliver, self.fail, self.fail)
        self.do(speaker, "SAY", "one")
        self.cluster.run(0.3)
        self.go_deaf()
        self.do(speaker, "SAY", "two")
        self.do(speaker, "SAY", "three")
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual(heard, ["one", "two", "three"])
        self.cluster.heal()
        self.do(speaker, "SAY", "four")
        self.cluster.run(0.5)
        self.assertEqual(heard, ["one", "two", "three", "four"])

    def test_settings_and_revision_are_followed(self) -> None:
        reached: list[bool] = []
        client = self.open("bob", self.there)
        self.go_deaf()
        self.do(client, "SETTINGS", "SET", "window=7", "horizon=20000")
        self.do(client, "PUT", "b", "1")
        here = self.server(self.here)
        here.revisions.wait(self.server(self.there).machine.revision, 60.0, reached.append)
        self.assertEqual(reached, [])
        self.catch_up()
        self.cluster.run(0.1)
        self.assertEqual(reached, [True])
        self.assertEqual((here.replica.window.slots, here.replica.ordered_queue.horizon_slots), (7, 20_000))
        self.assertEqual(here.session_window, self.server(self.there).session_window)

    def test_wait_in_the_state_ends_in_time(self) -> None:
        """A wait that came with the state ends in time at this server, which may be the leader by then."""
        holder, client = self.open("holder", self.there), self.open("bob", self.there)
        self.do(holder, "LOCK", "door")
        self.go_deaf()
        told = client.ask("LOCK", "door", "wait=2")
        self.executed_there()
        self.catch_up()
        self.cluster.heal()
        self.assertEqual(
            self.server(self.here).machine.next_deadline(), self.server(self.there).machine.next_deadline()
        )
        self.cluster.crash(self.there)
        self.cluster.run_until(lambda: self.server(self.here).machine.next_deadline() is None, 30.0)
        self.assertEqual(told.results, [])
        kept = self.server(self.here).machine.sessions["bob"].answers.get(1)
        self.assertIsInstance(kept, Refused)
