"""One client's commands, numbers and answers, over a real replica.

See docs/internals/sessions.rst and docs/protocol.rst.
"""

from __future__ import annotations

from typing import Any

from pfsb.applications.interfaces import Done
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from tests.sessions.support import HORIZON_SLOTS, ClusterTestCase, Told, code, small_limits, value

INCR, GET = ("INCR", "n"), ("GET", "n")


class CommandTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_pipelined_commands_make_few_bundles(self) -> None:
        """What is sent while an update is under way goes into the next one."""
        client = self.open("alice")
        asked = [client.ask("INCR", "n", number=1)]
        self.cluster.step()
        asked += [client.ask("INCR", "n", number=n) for n in range(2, 8)]
        self.answer(asked[-1])
        self.assertEqual([value(told.result) for told in asked], list("1234567"))
        self.assertEqual(self.bundles("alice"), [[1], [2, 3, 4, 5, 6, 7]])

    def test_commands_of_one_reactor_turn_leave_together(self) -> None:
        """A client that writes several lines at once pays for one update."""
        client = self.connect()
        self.answer([client.ask("INCR", "n") for _ in range(5)][-1])
        self.assertEqual(self.bundles("~"), [[1, 2, 3, 4, 5]])

    def test_next_bundle_of_a_session_is_introduced_when_the_last_has_run(self) -> None:
        """Figure 12's rule for clients, whatever they do: one outstanding update each, and one of each carrier."""
        replica = self.server().replica
        last_executed = replica.data.clients.last_executed
        latest: dict[str, ClientUpdate] = {}

        def introduce(update: ClientUpdate, introduce: Any = replica.introduce) -> None:
            self.assertEqual(last_executed.of(update.client_id), update.timestamp - 1)
            for each in bundle.decode(update.payload):
                if (before := latest.get(each.client_id)) is not None:
                    self.assertGreaterEqual(last_executed.of(before.client_id), before.timestamp)
                latest[each.client_id] = update
            introduce(update)

        self.patch(replica, "introduce", introduce)
        clients = [self.connect(), self.open("alice"), self.open("bob")]
        for _ in range(10):
            asked = [client.ask("INCR", "n") for client in clients for _ in range(3)]
            self.cluster.run(0.0005)
        self.answer(asked[-1])
        self.cluster.run(0.1)
        self.assertEqual(value(self.do(clients[0], "GET", "n")), "90")
        self.assertEqual(sorted(latest), ["!", "alice", "bob", clients[0].connection.client_id])

    def test_answers_come_once_each_in_the_order_of_the_commands(self) -> None:
        """Also those of questions between them."""
        client = self.connect()
        asked = [client.ask(*words) for words in [("INCR", "n"), ("GET", "n")] * 10]
        self.answer(asked[-1])
        self.cluster.run(1.0)
        self.assertEqual(client.told, asked)
        self.assertEqual([value(told.result) for told in asked], [str(1 + i // 2) for i in range(20)])
        self.assertEqual(client.connection.unanswered, 0)

    def test_no_answer_before_the_sync_completes(self) -> None:
        """Promise 2: what is answered is on disk. The one door holds for answers, too."""
        client = self.connect()
        storage = self.cluster.storage(0)
        told = client.ask("PUT", "colour", "blue")
        while self.server().machine.revision == 0:
            self.assertEqual(client.told, [])
            self.cluster.step()
        self.assertNotEqual(storage.pending_groups(), [], "it has run, and is not on disk")
        self.assertEqual(client.told, [])
        self.answer(told)
        self.assertEqual(self.bundles("~"), [[1]])

    def test_look_is_answered_from_this_server(self) -> None:
        """read=sequential and read=stale: no update, through the door."""
        client = self.connect()
        self.do(client, "PUT", "colour", "blue")
        aru = self.cluster.aru(0)
        self.assertEqual(value(self.answer(client.look("GET", "colour"))), "blue")
        self.assertEqual(self.cluster.aru(0), aru)

    def test_look_behind_a_write_is_not_answered_before_it_is_on_disk(self) -> None:
        """It may show what is not durable yet, so it waits at the door."""
        client = self.connect()
        client.ask("PUT", "colour", "blue")
        while self.server().machine.revision == 0:
            self.cluster.step()
        told = client.look("GET", "colour")
        self.assertFalse(told.answered)
        self.assertEqual(value(self.answer(told)), "blue")

    def test_command_that_cannot_be_encoded_has_no_effect(self) -> None:
        """It raises to whoever submits it; the next one has its number."""
        client = self.connect()
        self.assertRaises(UnicodeEncodeError, client.connection.submit, None, ("PUT", "k", "\ud800"), lambda r: None)
        self.assertEqual(client.connection.unanswered, 0)
        self.do(client, "PUT", "k", "v")
        self.assertEqual(self.bundles("~"), [[1]])


class NumberTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()
        self.client = self.open("alice")

    def test_repeated_number_joins_what_is_under_way(self) -> None:
        """Both are answered with the one result."""
        asked = [self.client.ask("INCR", "n", number=1) for _ in range(3)]
        self.assertEqual([value(self.answer(told)) for told in asked], ["1", "1", "1"])
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_repeated_number_is_answered_from_the_cache(self) -> None:
        """Without another update."""
        first = self.do(self.client, "INCR", "n", number=1)
        aru = self.cluster.aru(0)
        self.assertEqual(self.do(self.client, "INCR", "n", number=1), first)
        self.assertEqual(self.cluster.aru(0), aru)

    def test_number_that_goes_back_is_refused(self) -> None:
        """It was skipped, so it certainly did not run; and never will, since numbers only grow."""
        self.do(self.client, "INCR", "n", number=5)
        self.assertEqual(code(self.do(self.client, "INCR", "n", number=3)), ("BADREQUEST", "none"))

    def test_number_that_goes_back_before_anything_has_run_is_refused(self) -> None:
        """The same while the higher one is still under way."""
        told = self.client.ask("INCR", "n", number=5)
        self.assertEqual(code(self.do(self.client, "INCR", "n", number=3)), ("BADREQUEST", "none"))
        self.assertEqual(value(self.answer(told)), "1")

    def test_server_numbers_after_the_clients_numbers(self) -> None:
        """A person may begin to number, and stop."""
        self.do(self.client, "INCR", "n", number=5)
        self.do(self.client, "INCR", "n")
        self.assertEqual(self.server().machine.sessions["alice"].last_number, 6)

    def test_forgotten_number_is_unknown(self) -> None:
        """8 answers are kept here, and two more at most."""
        for number in range(1, 12):
            told = self.client.ask("INCR", "n", number=number)
        self.answer(told)
        self.assertEqual(code(self.do(self.client, "INCR", "n", number=1)), ("BADREQUEST", "unknown"))
        self.assertEqual(value(self.do(self.client, "INCR", "n", number=3)), "3")

    def test_lock_is_answered_when_it_is_granted(self) -> None:
        """Out of order; other commands overtake it, and a repetition of its number joins it."""
        holder = self.open("bob")
        self.do(holder, "LOCK", "x")
        waiting = [self.client.ask("LOCK", "x", number=1)]
        self.assertEqual(value(self.do(self.client, "INCR", "n", number=2)), "1")
        waiting.append(self.client.ask("LOCK", "x", number=1))
        self.assertEqual(self.client.connection.unanswered, 2)
        self.do(holder, "UNLOCK", "x")
        self.assertEqual([value(self.answer(told), "name") for told in waiting], ["x", "x"])
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_own_bundle_may_end_its_wait(self) -> None:
        """PENDING and completed in one bundle: one answer, and nothing stays behind."""
        waits, goes = self.client.ask("WAIT", number=1), self.client.ask("GO", number=2)
        self.assertEqual(value(self.answer(goes), "count"), 1)
        self.assertEqual(value(waits.result, "revision"), 3)
        self.assertEqual((self.in_use(), self.bundles("alice")), ({}, [[1, 2]]))


class TogetherTests(ClusterTestCase):
    """What a pipelining client asks in one go is taken, ordered and answered in one go."""

    def setUp(self) -> None:
        self.begin(limits=small_limits(session_window=4))
        self.client = self.open("alice")

    def ask_all(self, *commands: tuple[int | None, tuple[str, ...]]) -> list[Told]:
        told = self.client.ask_all(*commands)
        assert told is not None, "they are all new"
        return told

    def test_each_command_has_its_result(self) -> None:
        """Numbered by the client or by the server, with questions in between."""
        told = self.ask_all((None, INCR), (5, INCR), (None, GET), (None, INCR))
        self.answer(told[-1])
        self.assertEqual([value(each.result) for each in told], ["1", "2", "2", "3"])
        self.assertEqual(self.bundles("alice"), [[1, 5, 0, 6]])
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))

    def test_number_that_is_not_new_wants_a_closer_look(self) -> None:
        """Nothing of it is taken: each command is then submitted by itself."""
        self.do(self.client, *INCR, number=3)
        for numbers in ((3, 4), (4, 3), (4, 4)):
            self.assertIsNone(self.client.ask_all(*((number, INCR) for number in numbers)))
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))
        self.assertEqual(value(self.do(self.client, *INCR)), "2")

    def test_repeated_number_joins_those_it_was_asked_with(self) -> None:
        """It has its own place among the results."""
        told = self.ask_all((7, INCR), (8, INCR), (9, INCR))
        again = self.client.ask(*INCR, number=8)
        self.answer(again)
        self.assertEqual([value(each.result) for each in (*told, again)], ["1", "2", "3", "2"])
        self.assertEqual(self.in_use(), {})

    def test_repeated_number_is_answered_from_the_cache(self) -> None:
        """As if it had been asked by itself."""
        told = self.ask_all((7, INCR), (8, INCR))
        self.answer(told[-1])
        self.assertEqual(self.do(self.client, *INCR, number=7), told[0].result)

    def test_session_that_is_over_wants_a_closer_look(self) -> None:
        """Whose commands are refused, each with its own fate."""
        self.open("alice")
        self.cluster.run(0.5)
        self.assertIsNone(self.client.ask_all((None, INCR), (None, INCR)))

    def test_what_cannot_be_encoded_changes_nothing(self) -> None:
        """It raises before any of them is taken."""
        words = ("SAY", "\ud800")
        self.assertRaises(UnicodeEncodeError, self.client.connection.submit_all, (None,), (words,), self.fail)
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))


class TogetherWithoutMajorityTests(ClusterTestCase):
    def setUp(self) -> None:
        """The first bundle is under way to nobody; what is asked after it waits for it."""
        self.begin(3)
        self.client = self.open("alice", 0, 60)
        self.cluster.isolate(0)
        self.sent = self.client.ask_all((1, INCR), (2, INCR), (None, GET))
        self.cluster.run(0.01)
        self.waiting = self.client.ask_all((3, INCR), (4, INCR))
        self.cluster.run(2.5)

    def test_fates_are_told_of_each(self) -> None:
        """docs/protocol.rst: unknown for what was sent, none for what was not."""
        assert self.sent is not None and self.waiting is not None
        self.assertEqual({code(told.result) for told in self.sent}, {("UNAVAILABLE", "unknown")})
        self.assertEqual({code(told.result) for told in self.waiting}, {("UNAVAILABLE", "none")})
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_both_fates_are_settled_by_repeating(self) -> None:
        """Promise 4: in any order among those that were sent; each runs once."""
        again = [self.client.ask(*INCR, number=n) for n in (2, 1)]
        again += self.client.ask_all((3, INCR), (4, INCR)) or []
        self.cluster.heal()
        self.assertEqual([value(self.answer(told)) for told in again], ["2", "1", "3", "4"])
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))


class ReadTests(ClusterTestCase):
    """Departure 24, as a client sees it."""

    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.writer, self.reader = self.open("alice", self.leader), self.connect((self.leader + 1) % 3)

    def test_question_takes_no_slot(self) -> None:
        """Nor does it open a session, at whatever server."""
        self.do(self.writer, *INCR)
        aru = self.cluster.aru(self.leader)
        for client in (self.writer, self.reader):
            self.assertEqual(value(self.do(client, *GET)), "1")
        told = self.reader.ask_all((None, GET), (None, ("GET", "m")))
        assert told is not None
        found, missing = [self.answer(each) for each in told]
        self.assertEqual((value(found), code(missing)), ("1", ("NOTFOUND", "none")))
        self.assertEqual(self.cluster.aru(self.leader), aru)
        self.assertEqual(self.sessions(), ["alice"])

    def test_read_sees_every_write_that_was_answered(self) -> None:
        """At a server that may not have executed it yet."""
        for number in range(1, 20):
            self.do(self.writer, *INCR)
            self.assertEqual(value(self.do(self.reader, *GET)), str(number))

    def test_question_keeps_its_place_among_its_clients_commands(self) -> None:
        """Behind commands that are under way it goes with them; commands behind it wait for it."""
        asked = [self.reader.ask(*words) for words in (GET, INCR, GET, INCR, GET)]
        self.answer(asked[-1])
        self.assertEqual(code(asked[0].result)[0], "NOTFOUND")
        self.assertEqual([value(told.result) for told in asked[1:]], ["1", "1", "2", "2"])
        self.assertEqual(self.reader.connection.unanswered, 0)

    def test_read_without_a_leader_goes_through_the_log(self) -> None:
        """Which waits for the next one, as commands do."""
        self.do(self.writer, *INCR)
        self.cluster.crash(self.leader)
        told = self.reader.ask(*GET)
        self.assertEqual(value(self.answer(told)), "1")

    def test_read_of_a_client_that_goes_is_forgotten(self) -> None:
        """Whether its answer is on the way or not."""
        self.cluster.isolate((self.leader + 1) % 3)
        self.reader.ask(*GET)
        self.cluster.run(0.1)
        self.reader.disconnect()
        self.cluster.heal()
        self.cluster.run(2.0)
        self.assertNothingLeft((self.leader + 1) % 3)

    def test_read_without_a_majority_is_refused_in_time(self) -> None:
        """Two seconds, however many of them it has waited beside the log; it changes nothing, whatever its fate is."""
        self.cluster.isolate((self.leader + 1) % 3)
        told = self.reader.ask(*GET)
        self.cluster.run(2.3)
        self.assertEqual(code(told.result)[0], "UNAVAILABLE")


class HelloTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_hello_on_a_second_connection_takes_over(self) -> None:
        """The first is told, once; what it asks then did not happen."""
        first = self.open("alice")
        self.do(first, "INCR", "n", number=1)
        second = self.connect()
        hello = self.answer(second.hello("alice"))
        self.assertEqual([value(hello, name) for name in ("last", "resumed")], [1, "yes"])
        self.cluster.run(0.1)
        self.assertEqual(first.ends, ["REPLACED"])
        self.assertEqual(code(self.do(first, "INCR", "n", number=2)), ("REPLACED", "none"))
        self.assertEqual(value(self.do(second, "INCR", "n", number=1)), "1")
        self.assertEqual(value(self.do(second, "INCR", "n", number=2)), "2")

    def test_replaced_connection_does_not_deny_what_is_done(self) -> None:
        """Promise 4: it did run number 1, and so did the second connection number 2."""
        first = self.open("alice")
        self.do(first, "INCR", "n", number=1)
        second = self.open("alice")
        self.do(second, "INCR", "n", number=2)
        fates = [code(self.do(first, "INCR", "n", number=n)) for n in (1, 2, 3)]
        self.assertEqual(fates, [("REPLACED", "unknown")] * 2 + [("REPLACED", "none")])

    def test_waiting_lock_moves_with_the_session(self) -> None:
        """It may still be granted: to the old connection that is unknown, at the new one it can be asked for again."""
        holder = self.open("bob")
        self.do(holder, "LOCK", "x")
        first = self.open("alice")
        told = first.ask("LOCK", "x", number=1)
        self.cluster.run(0.1)
        second = self.open("alice")
        self.assertEqual(code(self.answer(told)), ("REPLACED", "unknown"))
        again = second.ask("LOCK", "x", number=1)
        self.do(holder, "UNLOCK", "x")
        self.assertEqual(value(self.answer(again), "name"), "x")
        self.assertEqual([c.connection.unanswered for c in (first, second)], [0, 0])

    def test_two_hellos_in_one_bundle(self) -> None:
        """The later one has the session; the earlier one is told at once, after its own answer."""
        first, second = self.connect(), self.connect()
        hellos = [first.hello("alice"), second.hello("alice")]
        self.assertEqual([value(self.answer(told), "resumed") for told in hellos], ["no", "yes"])
        self.assertEqual((first.ends, second.ends), (["REPLACED"], []))
        self.assertEqual(code(self.do(first, "INCR", "n")), ("REPLACED", "none"))
        self.assertEqual(value(self.do(second, "INCR", "n")), "1")

    def test_client_gone_before_its_hello_ran(self) -> None:
        """The session waits for its ttl, as if the client had been there for a moment."""
        client = self.connect()
        client.hello("alice", 2)
        client.disconnect()
        self.cluster.run(1.0)
        self.assertEqual(self.sessions(), ["alice"])
        self.cluster.run(3.0)
        self.assertEqual(self.sessions(), [])
        self.assertNothingLeft()

    def test_reserved_client_ids_are_refused(self) -> None:
        """Else a client could speak for an anonymous session."""
        client = self.connect()
        for client_id in ("", "~0.1.1", "!0.1"):
            self.assertRaises(ValueError, client.connection.hello, client_id, 10, lambda result: None)
        self.assertEqual(client.connection.unanswered, 0)

    def test_hello_costs_one_round_however_many_come(self) -> None:
        """Openings are bundled under the server's own session."""
        clients = [self.connect() for _ in range(20)]
        told = [client.hello(f"c{i}") for i, client in enumerate(clients)]
        self.answer(told[-1])
        self.assertEqual(self.bundles("!"), [[0] * 20])


class ByeTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_bye_closes_the_session(self) -> None:
        """Its locks are free at once; the connection is told nothing but OK."""
        client = self.open("alice")
        self.do(client, "LOCK", "x")
        self.assertEqual(self.answer(client.bye()), Done())
        self.assertEqual((self.sessions(), client.ends), ([], []))
        self.assertEqual(value(self.do(self.open("bob"), "TRYLOCK", "x"), "name"), "x")
        self.assertEqual(code(self.do(client, "INCR", "n")), ("NOSESSION", "none"))
        client.disconnect()

    def test_bye_comes_after_what_was_asked_before(self) -> None:
        """Nothing of it is lost."""
        client = self.open("alice")
        asked = [client.ask("INCR", "n") for _ in range(3)]
        self.answer(client.bye())
        self.assertEqual([value(told.result) for told in asked], ["1", "2", "3"])
        self.assertEqual(client.connection.unanswered, 0)

    def test_bye_of_an_anonymous_connection(self) -> None:
        """With a session or, if nothing was asked, without."""
        silent, client = self.connect(), self.connect()
        self.do(client, "INCR", "n")
        self.assertEqual([self.answer(c.bye()) for c in (silent, client)], [Done(), Done()])
        self.assertEqual(self.sessions(), [])

    def test_bye_ends_a_wait(self) -> None:
        """A waiting LOCK is answered before."""
        self.do(self.open("bob"), "LOCK", "x")
        client = self.open("alice")
        lock = client.ask("LOCK", "x")
        self.cluster.run(0.1)
        bye = client.bye()
        self.answer(bye)
        self.assertEqual((code(lock.result), client.told[-2:]), (("NOSESSION", "none"), [lock, bye]))

    def test_disconnected_while_bye_waits(self) -> None:
        """Nobody is there to be told; an anonymous session is closed all the same."""
        client = self.connect()
        client.ask("LOCK", "x")
        bye = client.bye()
        client.disconnect()
        self.cluster.run(1.0)
        self.assertEqual((bye.results, self.sessions()), ([], []))
        self.assertNothingLeft()


class GoneTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_anonymous_session_is_closed_after_its_last_bundle(self) -> None:
        """That bundle may be the one that opens it. Its locks are free then."""
        client = self.connect()
        client.ask("LOCK", "x")
        self.cluster.step()
        client.disconnect()
        self.cluster.run(0.5)
        self.assertEqual(self.sessions(), [])
        self.assertEqual(value(self.do(self.connect(), "TRYLOCK", "x"), "name"), "x")

    def test_what_was_not_sent_yet_is_dropped(self) -> None:
        """And answered to nobody."""
        client = self.connect()
        told = client.ask("INCR", "n")
        client.disconnect()
        self.cluster.run(0.5)
        self.assertEqual((told.results, self.server().machine.revision), ([], 0))

    def test_quit_of_an_anonymous_holder_grants_the_lock(self) -> None:
        """QUIT closes the connection, and with it a session that nobody could come back to."""
        holder, waiting = self.connect(), self.connect()
        self.do(holder, "LOCK", "x")
        told = waiting.ask("LOCK", "x")
        self.cluster.run(0.1)
        holder.disconnect()
        self.assertEqual(value(self.answer(told, 1.0), "name"), "x")

    def test_quit_of_a_named_holder_keeps_the_lock_for_its_ttl(self) -> None:
        """It may come back; when it does not, the lock goes to the next."""
        holder, waiting = self.open("alice", ttl_seconds=3), self.connect()
        self.do(holder, "LOCK", "x")
        told = waiting.ask("LOCK", "x")
        holder.disconnect()
        self.cluster.run(2.0)
        self.assertFalse(told.answered)
        self.assertEqual(value(self.answer(told, 3.0), "name"), "x")

    def test_client_that_comes_back_in_time_keeps_its_session(self) -> None:
        """Coming back makes a new epoch, for which the old silence does not count."""
        first = self.open("alice", ttl_seconds=3)
        self.do(first, "LOCK", "x")
        for _ in range(4):
            first.disconnect()
            self.cluster.run(2.0)
            first = self.open("alice", ttl_seconds=3)
        self.cluster.run(10.0)
        self.assertEqual((self.sessions(), first.ends), (["alice"], []))
        self.assertEqual(value(self.do(first, "LOCK", "x"), "name"), "x")

    def test_nothing_is_left_of_many_that_came_and_went(self) -> None:
        """Tables of the local_clients, sessions and locks: all empty, whatever moment each of them left at."""
        rng = self.cluster.network.rng
        for i in range(60):
            client = self.open(f"c{i % 7}", ttl_seconds=1) if i % 3 else self.connect()
            for _ in range(rng.randrange(4)):
                client.ask("LOCK", f"x{rng.randrange(3)}")
                client.ask("INCR", "n")
                client.ask("GET", "n")
            if i % 4 == 0:
                client.bye()
            for _ in range(rng.randrange(6)):
                self.cluster.step()
            client.disconnect()
        self.cluster.run(5.0)
        self.assertNothingLeft()
        self.assertEqual(self.sessions(), [])
        self.assertEqual(value(self.do(self.connect(), "LOCKS"), "held"), 0)


class NoMajorityTests(ClusterTestCase):
    """docs/protocol.rst, UNAVAILABLE: within `request_seconds`, 2 here, with the right fate."""

    def setUp(self) -> None:
        self.begin(3)
        self.at = self.cluster.leader() or 0
        self.client = self.open("alice", self.at, 60)
        self.cluster.isolate(self.at)

    def ask_in_vain(self) -> None:
        """Number 1 is sent, number 2 waits behind it; both are refused."""
        sent = self.client.ask("INCR", "n", number=1)
        self.cluster.run(0.01)
        waiting = self.client.ask("INCR", "n", number=2)
        self.cluster.run(2.5)
        self.assertEqual(code(sent.result), ("UNAVAILABLE", "unknown"))
        self.assertEqual(code(waiting.result), ("UNAVAILABLE", "none"))
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_both_fates_are_settled_by_repeating(self) -> None:
        """Promise 4: the same numbers, while the majority is still away; each runs once."""
        self.ask_in_vain()
        again = [self.client.ask("INCR", "n", number=n) for n in (1, 2)]
        self.cluster.run(0.5)
        self.assertEqual(self.client.connection.unanswered, 2)
        self.cluster.heal()
        self.assertEqual([value(self.answer(told)) for told in again], ["1", "2"])

    def test_both_fates_are_settled_by_repeating_afterwards(self) -> None:
        """The update that was under way has run meanwhile, and nobody was there to be told."""
        self.ask_in_vain()
        self.cluster.heal()
        self.cluster.run(5.0)
        results = [value(self.do(self.client, "INCR", "n", number=n)) for n in (1, 2)]
        self.assertEqual((results, self.in_use()), (["1", "2"], {}))

    def test_both_fates_are_settled_at_another_server(self) -> None:
        """The update that was under way is fenced off there; number 1 runs under the new epoch, once."""
        self.ask_in_vain()
        other = self.open("alice", (self.at + 1) % 3)
        results = [value(self.do(other, "INCR", "n", number=n)) for n in (1, 2)]
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertEqual((results, value(self.do(other, "GET", "n"))), (["1", "2"], "2"))
        self.assertEqual(self.client.ends, ["REPLACED"])
        self.assertEqualServers()

    def test_refused_again_while_the_majority_is_away(self) -> None:
        """Each repetition has its own answer, in its own time."""
        self.ask_in_vain()
        for _ in range(3):
            self.assertEqual(code(self.do(self.client, "INCR", "n", number=1)), ("UNAVAILABLE", "unknown"))
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_server_numbers_again_what_was_not_sent(self) -> None:
        """Of commands without numbers none is lost either, and none runs twice."""
        asked = [self.client.ask("INCR", "n")]
        self.cluster.run(0.01)
        asked += [self.client.ask("INCR", "n") for _ in range(3)]
        self.cluster.run(2.5)
        self.assertEqual([code(told.result)[1] for told in asked], ["unknown"] + ["none"] * 3)
        self.cluster.heal()
        self.assertEqual(value(self.do(self.client, "INCR", "n")), "2")

    def test_question_is_refused(self) -> None:
        """A linearizable read needs a majority like everything else; read=stale does not."""
        self.assertEqual(code(self.do(self.client, "GET", "n"))[0], "UNAVAILABLE")
        self.assertEqual(code(self.answer(self.client.look("GET", "n"))), ("NOTFOUND", "none"))
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertEqual(len(self.client.told), 3)

    def test_hello_and_bye_are_refused(self) -> None:
        """Nobody waits for ever; the connection can ask again when the majority is back."""
        other = self.connect(self.at)
        self.assertEqual(code(self.answer(other.hello("bob")))[0], "UNAVAILABLE")
        self.client.ask("INCR", "n")
        self.assertEqual(code(self.answer(self.client.bye())), ("UNAVAILABLE", "unknown"))
        self.assertEqual([c.connection.unanswered for c in (other, self.client)], [0, 0])
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertEqual(value(self.answer(other.hello("bob")), "client"), "bob")
        self.assertEqual(self.answer(self.client.bye()), Done())
        self.assertEqual(self.sessions(self.at), ["bob"])

    def test_waiting_lock_is_not_refused(self) -> None:
        """It has run; how long it waits is its own affair."""
        self.cluster.heal()
        self.cluster.run(2.0)
        self.do(self.open("bob", self.at, 60), "LOCK", "x")
        told = self.client.ask("LOCK", "x")
        self.cluster.run(5.0)
        self.assertFalse(told.answered)

    def test_connections_that_go_leave_nothing_when_the_majority_is_back(self) -> None:
        """Their sessions, opened late by what was under way, are closed."""
        for _ in range(20):
            client = self.connect(self.at)
            client.ask("INCR", "n")
            self.cluster.run(0.01)
            client.disconnect()
        self.cluster.heal()
        self.cluster.run(5.0)
        self.client.disconnect()
        self.assertNothingLeft(self.at)
        self.assertEqual(self.sessions(self.at), ["alice"])
        self.assertEqualServers()


class BusyTests(ClusterTestCase):
    def test_new_commands_are_refused_while_too_many_of_the_gone_are_under_way(self) -> None:
        """Every queue has a length: without a majority, what clients that are gone have left stays and stays."""
        self.begin(3, small_limits(connections=5))
        at = self.cluster.leader() or 0
        self.cluster.isolate(at)
        for _ in range(5):
            client = self.connect(at)
            client.ask("INCR", "n")
            self.cluster.run(0.01)
            client.disconnect()
        busy = self.connect(at)
        self.assertEqual(code(self.do(busy, "INCR", "n")), ("BUSY", "none"))
        self.cluster.heal()
        self.cluster.run(3.0)
        self.assertEqual(value(self.do(busy, "INCR", "n")), "6")


class OutlivedTests(ClusterTestCase):
    """An update that is ordered beyond its horizon does not run (docs/internals/sessions.rst)."""

    def setUp(self) -> None:
        self.begin(3, small_limits(request_seconds=100.0))
        self.at = (1 + (self.cluster.leader() or 0)) % 3
        self.client = self.connect(self.at)

    def outlive(self) -> list[Told]:
        """Commands 1 to 3, of which 1 is sent, while the others order more than a horizon of slots."""
        self.cluster.isolate(self.at)
        asked = [self.client.ask("INCR", "n", number=1)]
        self.cluster.run(0.01)
        asked += [self.client.ask("INCR", "n", number=n) for n in (2, 3)]
        other = self.connect(self.cluster.leader())  # type: ignore[arg-type]
        for _ in range(HORIZON_SLOTS + 5):
            self.do(other, "PUT", "k", "v")
        self.cluster.heal()
        return asked

    def test_nothing_of_it_has_run(self) -> None:
        """Nor has what waited behind it: the fate is none."""
        for told in self.outlive():
            self.assertEqual(code(self.answer(told)), ("UNAVAILABLE", "none"))
        self.assertEqual(code(self.do(self.client, "GET", "n")), ("NOTFOUND", "none"))
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_its_numbers_can_be_used_again(self) -> None:
        """In order; the session, which nothing has opened yet, is opened by what runs first."""
        self.answer(self.outlive()[-1])
        results = [value(self.do(self.client, "INCR", "n", number=n)) for n in (1, 2, 3)]
        self.assertEqual(results, ["1", "2", "3"])
        self.assertEqual(value(self.do(self.client, "INCR", "n")), "4")

    def test_second_time_it_is_ordered_changes_nothing(self) -> None:
        """It does not count as executed, so a repetition may be ordered, too, when the next is under way already."""
        executed_late = []
        local_clients = self.server(self.at).local_clients
        too_old = local_clients.too_old

        def note(update: ClientUpdate) -> None:
            executed_late.append(update)
            too_old(update)

        self.patch(local_clients, "too_old", note)
        self.answer(self.outlive()[-1])
        told = self.client.ask("INCR", "n", number=1)
        while not self.client.connection.bundler.outstanding:
            self.cluster.step()
        self.server(self.at).replica.perform(local_clients.too_old, executed_late[0])
        self.assertEqual(value(self.answer(told)), "1")

    def test_anonymous_client_that_is_gone_leaves_nothing(self) -> None:
        """There is no session to close."""
        asked = self.outlive()
        self.client.disconnect()
        self.cluster.run(5.0)
        self.assertEqual([told.results for told in asked], [[]] * 3)
        self.assertNothingLeft(self.at)


class DrainingTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()
        self.client = self.open("alice")
        self.local_clients = self.server().local_clients

    def test_commands_under_way_are_finished_and_new_ones_refused(self) -> None:
        """SHUTDOWN: certainly not done."""
        told = self.client.ask("INCR", "n", number=1)
        self.local_clients.draining = True
        self.assertEqual(code(self.client.ask("INCR", "n", number=2).result), ("SHUTDOWN", "none"))
        self.assertEqual(value(self.answer(told)), "1")

    def test_repeated_number_is_not_called_undone(self) -> None:
        """Promise 4: number 1 has run; only another server can say so now."""
        self.do(self.client, "INCR", "n", number=1)
        self.local_clients.draining = True
        self.assertEqual(code(self.client.ask("INCR", "n", number=1).result), ("SHUTDOWN", "unknown"))

    def test_waiting_lock_does_not_keep_the_server(self) -> None:
        """It has run: the local_clients is idle. The client takes its session, and the wait, to another server."""
        self.do(self.open("bob"), "LOCK", "x")
        told = self.client.ask("LOCK", "x")
        self.cluster.run(0.2)
        drained: list[float] = []
        self.server().drain(lambda: drained.append(self.cluster.now))
        self.assertEqual((drained, told.results, self.local_clients.idle), ([self.cluster.now], [], True))

    def test_hello_and_bye_are_refused(self) -> None:
        """The session stays open for the next server."""
        other = self.connect()
        self.local_clients.draining = True
        refused = [code(told.result) for told in (self.client.bye(), other.hello("bob"))]
        self.assertEqual(refused, [("SHUTDOWN", "none")] * 2)
        self.assertEqual([c.connection.unanswered for c in (self.client, other)], [0, 0])
        self.assertEqual(self.sessions(), ["alice"])

    def test_bye_that_waited_is_still_said(self) -> None:
        """It was asked in time, and ends in a turn, where nobody may be told anything past the door."""
        told = self.client.ask("INCR", "n")
        bye = self.client.bye()
        self.local_clients.draining = True
        self.assertEqual(self.answer(bye), Done())
        self.assertEqual((value(told.result), self.sessions()), ("1", []))

    def test_server_waits_for_what_is_under_way(self) -> None:
        """Then says that it is drained, once."""
        told = self.client.ask("INCR", "n")
        drained: list[bool] = []
        self.server().drain(lambda: drained.append(told.answered))
        self.assertEqual(drained, [])
        self.cluster.run(6.0)
        self.assertEqual(drained, [True])

    def test_sessions_of_clients_that_go_are_still_closed(self) -> None:
        """An anonymous session is still closed when its connection goes."""
        other = self.connect()
        self.do(other, "INCR", "n")
        self.local_clients.draining = True
        other.disconnect()
        self.cluster.run(0.5)
        self.assertEqual(self.sessions(), ["alice"])
