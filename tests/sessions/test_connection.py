"""ClientConnection: one client's commands, numbers and answers, over a real replica (docs/protocol.rst)."""

from __future__ import annotations

from typing import Any

from pfsb.applications.interfaces import Done, Refused
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle, submission
from tests.sessions.support import HORIZON_SLOTS, ClusterTestCase, Told, code, small_limits, value

INCR, GET = ("INCR", "n"), ("GET", "n")


class CommandTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_server_short_of_memory_takes_commands_by_which_the_state_does_not_grow(self) -> None:
        """A server that is short of memory takes commands by which the state does not grow, such as DEL, also inside of
        IF, and the change of a quota."""
        client = self.connect()
        self.do(client, "PUT", "k", "1")
        self.server().memory_is_short(True)
        for grows in (("PUT", "k", "2"), ("IF", "k", "any", "PUT", "k", "2"), ("APPEND", "k", "2")):
            self.assertEqual(code(self.do(client, *grows)), ("READONLY", "none"))
        self.assertIsInstance(self.do(client, "SETTINGS", "SET", "value_bytes=2000"), Done)
        self.assertEqual(value(self.do(client, "IF", "k", "any", "DEL", "k"), "deleted"), 1)
        self.assertEqual(value(self.do(client, "DEL", "k"), "deleted"), 0)
        self.server().memory_is_short(False)
        self.assertIsInstance(self.do(client, "PUT", "k", "2"), Done)

    def test_server_short_of_memory_opens_a_few_sessions(self) -> None:
        """A server that is short of memory opens a few sessions, so that clients such as clerks can make room; more
        would take memory. The refusal tells what can be done without a session."""
        self.patch(submission, "SHORT_SESSIONS_MAX", 2)
        self.do(self.open("before"), "PUT", "k", "1")
        self.server().memory_is_short(True)
        client = self.open("first")
        self.assertEqual(code(self.do(client, "PUT", "k", "2")), ("READONLY", "none"))
        self.assertEqual(value(self.do(client, "DEL", "k"), "deleted"), 1)
        self.assertIsInstance(self.answer(self.connect().hello("second")), Done)
        refused = self.answer(self.connect().hello("third"))
        assert isinstance(refused, Refused)
        self.assertEqual(code(refused), ("READONLY", "none"))
        self.assertIn("short of memory", refused.text)
        self.assertIn("delete", refused.text)
        for again in ("first", "before"):
            self.assertIsInstance(self.answer(self.connect().hello(again)), Done)
        self.assertIsInstance(self.do(self.connect(), "DEL", "k"), Done)
        self.server().memory_is_short(False)
        self.assertIsInstance(self.answer(self.connect().hello("third")), Done)

    def test_front_end_hears_of_its_call_backs_that_fail(self) -> None:
        """If a call-back for an answer or the end of the session fails, the front end is told, since its client waits
        in vain. The other clients of the turn get their answers."""
        failures: list[Exception] = []

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        local_clients, check = self.server().local_clients, self.server().catalogue.check
        connection = local_clients.connect(fail, failures.append)
        other = self.open("bob")
        connection.hello("alice", 10, fail)
        self.cluster.run(0.5)
        connection.submit(1, check(INCR), fail)
        told = other.ask("INCR", "n", number=1)
        connection.submit_all([2, 3], [check(INCR)] * 2, lambda: fail)
        connection.query_local(check(GET), fail)
        self.answer(told)
        self.cluster.run(0.5)
        self.assertEqual([*map(type, failures)], [ZeroDivisionError] * 4)
        self.open("alice")
        self.cluster.run(0.5)
        self.assertEqual((len(failures), connection.unanswered), (5, 0))

    def test_pipelined_commands_make_few_bundles(self) -> None:
        """Commands that come while an update is under way go into the next bundle, so that pipelined commands make few
        bundles."""
        client = self.open("alice")
        asked = [client.ask("INCR", "n", number=1)]
        self.cluster.step()
        asked += [client.ask("INCR", "n", number=n) for n in range(2, 8)]
        self.answer(asked[-1])
        self.assertEqual([value(told.result) for told in asked], list("1234567"))
        self.assertEqual(self.bundles("alice"), [[1], [2, 3, 4, 5, 6, 7]])

    def test_commands_of_one_iteration_leave_together(self) -> None:
        """Commands that come in one iteration of the reactor leave in one update."""
        client = self.connect()
        self.answer([client.ask("INCR", "n") for _ in range(5)][-1])
        self.assertEqual(self.bundles("~"), [[1, 2, 3, 4, 5]])

    def test_next_bundle_of_a_session_is_introduced_when_the_last_has_run(self) -> None:
        """Figure 12's rule for clients: the next bundle of a session is introduced when the last has run: each session,
        and each Paxos client, has one outstanding update."""
        replica = self.server().replica
        last_executed = replica.data.clients.last_executed
        latest: dict[str, ClientUpdate] = {}

        def introduce(update: ClientUpdate, introduce: Any = replica.introduce, **how: bool) -> None:
            self.assertEqual(last_executed.of(update.client_id), update.timestamp - 1)
            for each in bundle.decode(update.payload):
                if (before := latest.get(each.client_id)) is not None:
                    self.assertGreaterEqual(last_executed.of(before.client_id), before.timestamp)
                latest[each.client_id] = update
            introduce(update, **how)

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
        """Answers come once each, in the order of the commands and of the questions between them."""
        client = self.connect()
        asked = [client.ask(*words) for words in [("INCR", "n"), ("GET", "n")] * 10]
        self.answer(asked[-1])
        self.cluster.run(1.0)
        self.assertEqual(client.told, asked)
        self.assertEqual([value(told.result) for told in asked], [str(1 + i // 2) for i in range(20)])
        self.assertEqual(client.connection.unanswered, 0)

    def test_no_answer_before_the_sync_completes(self) -> None:
        """Promise 2: no answer is given before its command is on disk; answers leave through the durability gate, like
        messages."""
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
        """A question with read=sequential or read=stale needs no update, and is answered by this server behind the
        durability gate."""
        client = self.connect()
        self.do(client, "PUT", "colour", "blue")
        aru = self.cluster.aru(0)
        self.assertEqual(value(self.answer(client.look("GET", "colour"))), "blue")
        self.assertEqual(self.cluster.aru(0), aru)

    def test_look_behind_a_write_is_not_answered_before_it_is_on_disk(self) -> None:
        """The answer to a local question that may show a write which is not on disk yet waits at the gate."""
        client = self.connect()
        client.ask("PUT", "colour", "blue")
        while self.server().machine.revision == 0:
            self.cluster.step()
        told = client.look("GET", "colour")
        self.assertFalse(told.answered)
        self.assertEqual(value(self.answer(told)), "blue")

    def test_command_that_cannot_be_encoded_has_no_effect(self) -> None:
        """For a command that cannot be encoded, `submit` raises without any effect, and the next command gets its
        number."""
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
        """A repeated number whose command is under way gets the result of that command."""
        asked = [self.client.ask("INCR", "n", number=1) for _ in range(3)]
        self.assertEqual([value(self.answer(told)) for told in asked], ["1", "1", "1"])
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_repeated_number_is_answered_from_the_cache(self) -> None:
        """A repeated number whose command has run is answered from the reply cache, without another update."""
        first = self.do(self.client, "INCR", "n", number=1)
        aru = self.cluster.aru(0)
        self.assertEqual(self.do(self.client, "INCR", "n", number=1), first)
        self.assertEqual(self.cluster.aru(0), aru)

    def test_number_that_goes_back_is_refused(self) -> None:
        """A number that was skipped is refused: it has not run, and never will, since numbers only grow."""
        self.do(self.client, "INCR", "n", number=5)
        self.assertEqual(code(self.do(self.client, "INCR", "n", number=3)), ("BADREQUEST", "none"))

    def test_number_that_goes_back_before_anything_has_run_is_refused(self) -> None:
        """A skipped number is refused while the higher one is still under way, too."""
        told = self.client.ask("INCR", "n", number=5)
        self.assertEqual(code(self.do(self.client, "INCR", "n", number=3)), ("BADREQUEST", "none"))
        self.assertEqual(value(self.answer(told)), "1")

    def test_server_numbers_after_the_clients_numbers(self) -> None:
        """If a client numbers some commands and not the next ones, the server goes on from the client's numbers."""
        self.do(self.client, "INCR", "n", number=5)
        self.do(self.client, "INCR", "n")
        self.assertEqual(self.server().machine.sessions["alice"].last_number, 6)

    def test_forgotten_number_is_unknown(self) -> None:
        """A number whose result was dropped is refused with an unknown fate; here a session keeps 8 answers, and two
        more at most."""
        for number in range(1, 12):
            told = self.client.ask("INCR", "n", number=number)
        self.answer(told)
        self.assertEqual(code(self.do(self.client, "INCR", "n", number=1)), ("BADREQUEST", "unknown"))
        self.assertEqual(value(self.do(self.client, "INCR", "n", number=3)), "3")

    def test_lock_is_answered_when_it_is_granted(self) -> None:
        """A LOCK is answered when it is granted: other commands overtake it, and a repetition of its number waits for
        the same answer."""
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
        """A command that is PENDING and is completed in its own bundle gets one answer, and leaves nothing behind."""
        waits, goes = self.client.ask("WAIT", number=1), self.client.ask("GO", number=2)
        self.assertEqual(value(self.answer(goes), "count"), 1)
        self.assertEqual(value(waits.result, "revision"), 3)
        self.assertEqual((self.in_use(), self.bundles("alice")), ({}, [[1, 2]]))


class TogetherTests(ClusterTestCase):
    """Commands that a pipelining client sends together are submitted, ordered and answered together."""

    def setUp(self) -> None:
        self.begin(limits=small_limits(session_window=4))
        self.client = self.open("alice")

    def ask_all(self, *commands: tuple[int | None, tuple[str, ...]]) -> list[Told]:
        told = self.client.ask_all(*commands)
        assert told is not None, "they are all new"
        return told

    def test_each_command_has_its_result(self) -> None:
        """Commands that were submitted together each get their result, numbered by the client or by the server, with
        questions between them."""
        told = self.ask_all((None, INCR), (5, INCR), (None, GET), (None, INCR))
        self.answer(told[-1])
        self.assertEqual([value(each.result) for each in told], ["1", "2", "2", "3"])
        self.assertEqual(self.bundles("alice"), [[1, 5, 0, 6]])
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))

    def test_number_that_is_not_new_wants_a_closer_look(self) -> None:
        """If one number of several commands is not new, none is submitted: the caller must submit each by itself."""
        self.do(self.client, *INCR, number=3)
        for numbers in ((3, 4), (4, 3), (4, 4)):
            self.assertIsNone(self.client.ask_all(*((number, INCR) for number in numbers)))
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))
        self.assertEqual(value(self.do(self.client, *INCR)), "2")

    def test_repeated_number_joins_those_it_was_asked_with(self) -> None:
        """A repetition gets the result of its own number among those of commands that were submitted together."""
        told = self.ask_all((7, INCR), (8, INCR), (9, INCR))
        again = self.client.ask(*INCR, number=8)
        self.answer(again)
        self.assertEqual([value(each.result) for each in (*told, again)], ["1", "2", "3", "2"])
        self.assertEqual(self.in_use(), {})

    def test_repeated_number_is_answered_from_the_cache(self) -> None:
        """The result of a number that was submitted together with others is found in the reply cache."""
        told = self.ask_all((7, INCR), (8, INCR))
        self.answer(told[-1])
        self.assertEqual(self.do(self.client, *INCR, number=7), told[0].result)

    def test_session_that_is_over_wants_a_closer_look(self) -> None:
        """Commands of a session that is over are not submitted together: each is refused by itself, with its own
        fate."""
        self.open("alice")
        self.cluster.run(0.5)
        self.assertIsNone(self.client.ask_all((None, INCR), (None, INCR)))

    def test_what_cannot_be_encoded_changes_nothing(self) -> None:
        """If one of several commands cannot be encoded, `submit_all` raises before any of them is accepted."""
        words = ("SAY", "\ud800")
        self.assertRaises(UnicodeEncodeError, self.client.connection.submit_all, (None,), (words,), self.fail)
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))


class TogetherWithoutMajorityTests(ClusterTestCase):
    def setUp(self) -> None:
        """Cut server 0 off: the first bundle is sent in vain, and the second one waits for it."""
        self.begin(3)
        self.client = self.open("alice", 0, 60)
        self.cluster.isolate(0)
        self.sent = self.client.ask_all((1, INCR), (2, INCR), (None, GET))
        self.cluster.run(0.01)
        self.waiting = self.client.ask_all((3, INCR), (4, INCR))
        self.cluster.run(2.5)

    def test_fates_are_told_of_each(self) -> None:
        """UNAVAILABLE (docs/protocol.rst) tells each command its fate: unknown if it was sent, none for other commands
        and for questions, which change nothing."""
        assert self.sent is not None and self.waiting is not None
        unknown, none = ("UNAVAILABLE", "unknown"), ("UNAVAILABLE", "none")
        self.assertEqual([code(told.result) for told in self.sent], [unknown, unknown, none])
        self.assertEqual({code(told.result) for told in self.waiting}, {("UNAVAILABLE", "none")})
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_both_fates_are_settled_by_repeating(self) -> None:
        """Promise 4: commands that were sent can be repeated in any order, and each runs once."""
        again = [self.client.ask(*INCR, number=n) for n in (2, 1)]
        again += self.client.ask_all((3, INCR), (4, INCR)) or []
        self.cluster.heal()
        self.assertEqual([value(self.answer(told)) for told in again], ["2", "1", "3", "4"])
        self.assertEqual((self.in_use(), self.client.connection.unanswered), ({}, 0))


class ReadTests(ClusterTestCase):
    """Linearizable reads without a slot (Departure 24), as a client sees them."""

    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.writer, self.reader = self.open("alice", self.leader), self.connect((self.leader + 1) % 3)

    def test_question_takes_no_slot(self) -> None:
        """A question takes no slot and opens no session, at any server."""
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
        """A read at a server that may not have executed a write yet shows the write once it was answered elsewhere."""
        for number in range(1, 20):
            self.do(self.writer, *INCR)
            self.assertEqual(value(self.do(self.reader, *GET)), str(number))

    def test_question_keeps_its_place_among_its_clients_commands(self) -> None:
        """A question behind commands of its client that are under way is ordered with them, and commands behind a
        question wait for it."""
        asked = [self.reader.ask(*words) for words in (GET, INCR, GET, INCR, GET)]
        self.answer(asked[-1])
        self.assertEqual(code(asked[0].result)[0], "NOTFOUND")
        self.assertEqual([value(told.result) for told in asked[1:]], ["1", "1", "2", "2"])
        self.assertEqual(self.reader.connection.unanswered, 0)

    def test_read_without_a_leader_goes_through_the_log(self) -> None:
        """Without a leader a read is ordered by the next one, as commands are."""
        self.do(self.writer, *INCR)
        self.cluster.crash(self.leader)
        told = self.reader.ask(*GET)
        self.assertEqual(value(self.answer(told)), "1")

    def test_read_of_a_client_that_goes_is_forgotten(self) -> None:
        """A read of a client that leaves, before or after it is decided, is forgotten."""
        self.cluster.isolate((self.leader + 1) % 3)
        self.reader.ask(*GET)
        self.cluster.run(0.1)
        self.reader.disconnect()
        self.cluster.heal()
        self.cluster.run(2.0)
        self.assertNothingLeft((self.leader + 1) % 3)

    def test_read_without_a_majority_is_refused_in_time(self) -> None:
        """A read without a majority is refused after two seconds, including the time before it went to the log."""
        self.cluster.isolate((self.leader + 1) % 3)
        told = self.reader.ask(*GET)
        self.cluster.run(2.3)
        self.assertEqual(code(told.result)[0], "UNAVAILABLE")


class HelloTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_hello_on_a_second_connection_takes_over(self) -> None:
        """A HELLO on a second connection takes the session over: the first connection is told so once, and its later
        commands have not run."""
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
        """Promise 4: a replaced connection does not say that numbers 1 and 2 have not run, since they have."""
        first = self.open("alice")
        self.do(first, "INCR", "n", number=1)
        second = self.open("alice")
        self.do(second, "INCR", "n", number=2)
        fates = [code(self.do(first, "INCR", "n", number=n)) for n in (1, 2, 3)]
        self.assertEqual(fates, [("REPLACED", "unknown")] * 2 + [("REPLACED", "none")])

    def test_waiting_lock_moves_with_the_session(self) -> None:
        """When the session of a waiting LOCK moves, the old connection is told an unknown fate; the new one repeats the
        number, and gets the lock."""
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
        """If one bundle has two HELLOs, the later one has the session; the earlier connection is told so right after
        its own answer."""
        first, second = self.connect(), self.connect()
        hellos = [first.hello("alice"), second.hello("alice")]
        self.assertEqual([value(self.answer(told), "resumed") for told in hellos], ["no", "yes"])
        self.assertEqual((first.ends, second.ends), (["REPLACED"], []))
        self.assertEqual(code(self.do(first, "INCR", "n")), ("REPLACED", "none"))
        self.assertEqual(value(self.do(second, "INCR", "n")), "1")

    def test_client_gone_before_its_hello_ran(self) -> None:
        """If a client is gone before its HELLO has run, the session lives for its ttl, as if the client had been
        connected for a moment."""
        client = self.connect()
        client.hello("alice", 2)
        client.disconnect()
        self.cluster.run(1.0)
        self.assertEqual(self.sessions(), ["alice"])
        self.cluster.run(3.0)
        self.assertEqual(self.sessions(), [])
        self.assertNothingLeft()

    def test_reserved_client_ids_are_refused(self) -> None:
        """A client id that is reserved is refused: a client that took the id of an anonymous session could run commands
        in it."""
        client = self.connect()
        for client_id in ("", "~0.1.1", "!0.1"):
            self.assertRaises(ValueError, client.connection.hello, client_id, 10, lambda result: None)
        self.assertEqual(client.connection.unanswered, 0)

    def test_hello_costs_one_round_however_many_come(self) -> None:
        """All HELLOs of one iteration of the reactor travel in one bundle of the server's own session, and cost one
        round."""
        clients = [self.connect() for _ in range(20)]
        told = [client.hello(f"c{i}") for i, client in enumerate(clients)]
        self.answer(told[-1])
        self.assertEqual(self.bundles("!"), [[0] * 20])


class ByeTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_bye_closes_the_session(self) -> None:
        """BYE closes the session: its locks are free at once, and the connection is told nothing but OK."""
        client = self.open("alice")
        self.do(client, "LOCK", "x")
        self.assertEqual(self.answer(client.bye()), Done())
        self.assertEqual((self.sessions(), client.ends), ([], []))
        self.assertEqual(value(self.do(self.open("bob"), "TRYLOCK", "x"), "name"), "x")
        self.assertEqual(code(self.do(client, "INCR", "n")), ("NOSESSION", "none"))
        client.disconnect()

    def test_bye_comes_after_what_was_asked_before(self) -> None:
        """Commands before BYE run and are answered, and then BYE is."""
        client = self.open("alice")
        asked = [client.ask("INCR", "n") for _ in range(3)]
        self.answer(client.bye())
        self.assertEqual([value(told.result) for told in asked], ["1", "2", "3"])
        self.assertEqual(client.connection.unanswered, 0)

    def test_bye_of_an_anonymous_connection(self) -> None:
        """BYE of a connection without HELLO closes the anonymous session; without any command there is none to
        close."""
        silent, client = self.connect(), self.connect()
        self.do(client, "INCR", "n")
        self.assertEqual([self.answer(c.bye()) for c in (silent, client)], [Done(), Done()])
        self.assertEqual(self.sessions(), [])

    def test_bye_ends_a_wait(self) -> None:
        """BYE ends a wait: a LOCK that waits is answered before the BYE."""
        self.do(self.open("bob"), "LOCK", "x")
        client = self.open("alice")
        lock = client.ask("LOCK", "x")
        self.cluster.run(0.1)
        bye = client.bye()
        self.answer(bye)
        self.assertEqual((code(lock.result), client.told[-2:]), (("NOSESSION", "none"), [lock, bye]))

    def test_disconnected_while_bye_waits(self) -> None:
        """If the client hangs up while its BYE waits, its anonymous session is closed all the same."""
        client = self.connect()
        client.ask("LOCK", "x")
        bye = client.bye()
        client.disconnect()
        self.cluster.run(1.0)
        self.assertEqual((bye.results, self.sessions()), ([], []))
        self.assertNothingLeft()


class DisconnectedTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_anonymous_session_is_closed_after_its_last_bundle(self) -> None:
        """The anonymous session of a connection that is gone is closed after its last bundle, which may be the one that
        opens it. Its locks are free then."""
        client = self.connect()
        client.ask("LOCK", "x")
        self.cluster.step()
        client.disconnect()
        self.cluster.run(0.5)
        self.assertEqual(self.sessions(), [])
        self.assertEqual(value(self.do(self.connect(), "TRYLOCK", "x"), "name"), "x")

    def test_what_was_not_sent_yet_is_dropped(self) -> None:
        """Commands of a client that is gone, and that were not sent yet, are dropped, and so are its answers."""
        client = self.connect()
        told = client.ask("INCR", "n")
        client.disconnect()
        self.cluster.run(0.5)
        self.assertEqual((told.results, self.server().machine.revision), ([], 0))

    def test_quit_of_an_anonymous_holder_grants_the_lock(self) -> None:
        """QUIT closes the connection and its anonymous session, so that a lock of the session goes to the next
        client."""
        holder, waiting = self.connect(), self.connect()
        self.do(holder, "LOCK", "x")
        told = waiting.ask("LOCK", "x")
        self.cluster.run(0.1)
        holder.disconnect()
        self.assertEqual(value(self.answer(told, 1.0), "name"), "x")

    def test_quit_of_a_named_holder_keeps_the_lock_for_its_ttl(self) -> None:
        """After QUIT of a client with a named session, its lock is kept for the ttl; if it does not come back, the lock
        goes to the next client."""
        holder, waiting = self.open("alice", ttl_seconds=3), self.connect()
        self.do(holder, "LOCK", "x")
        told = waiting.ask("LOCK", "x")
        holder.disconnect()
        self.cluster.run(2.0)
        self.assertFalse(told.answered)
        self.assertEqual(value(self.answer(told, 3.0), "name"), "x")

    def test_client_that_comes_back_in_time_keeps_its_session(self) -> None:
        """A client that comes back in time keeps its session, under a new epoch, so that its former silence does not
        count."""
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
        """When many clients have come and gone, at any moment, the tables of clients, sessions and locks are empty."""
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
    """Without a majority each request is refused with UNAVAILABLE within `request_seconds`, here 2, with the right fate
    (docs/protocol.rst)."""

    def setUp(self) -> None:
        self.begin(3)
        self.at = self.cluster.leader() or 0
        self.client = self.open("alice", self.at, 60)
        self.cluster.isolate(self.at)

    def ask_in_vain(self) -> None:
        """Send number 1, submit number 2 behind it, and wait until both are refused."""
        sent = self.client.ask("INCR", "n", number=1)
        self.cluster.run(0.01)
        waiting = self.client.ask("INCR", "n", number=2)
        self.cluster.run(2.5)
        self.assertEqual(code(sent.result), ("UNAVAILABLE", "unknown"))
        self.assertEqual(code(waiting.result), ("UNAVAILABLE", "none"))
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_both_fates_are_settled_by_repeating(self) -> None:
        """Promise 4: if both numbers are repeated while the majority is still away, each runs once."""
        self.ask_in_vain()
        again = [self.client.ask("INCR", "n", number=n) for n in (1, 2)]
        self.cluster.run(0.5)
        self.assertEqual(self.client.connection.unanswered, 2)
        self.cluster.heal()
        self.assertEqual([value(self.answer(told)) for told in again], ["1", "2"])

    def test_both_fates_are_settled_by_repeating_afterwards(self) -> None:
        """If both numbers are repeated after the majority is back, each has run once: the update under way has run
        while its client did not wait for it."""
        self.ask_in_vain()
        self.cluster.heal()
        self.cluster.run(5.0)
        results = [value(self.do(self.client, "INCR", "n", number=n)) for n in (1, 2)]
        self.assertEqual((results, self.in_use()), (["1", "2"], {}))

    def test_both_fates_are_settled_at_another_server(self) -> None:
        """If both numbers are repeated at another server, each runs once: the update under way is fenced off by the new
        epoch."""
        self.ask_in_vain()
        other = self.open("alice", (self.at + 1) % 3)
        results = [value(self.do(other, "INCR", "n", number=n)) for n in (1, 2)]
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertEqual((results, value(self.do(other, "GET", "n"))), (["1", "2"], "2"))
        self.assertEqual(self.client.ends, ["REPLACED"])
        self.assertEqualServers()

    def test_refused_again_while_the_majority_is_away(self) -> None:
        """A number that is repeated while the majority is away is told UNKNOWN again, when its own time is over."""
        self.ask_in_vain()
        for _ in range(3):
            self.assertEqual(code(self.do(self.client, "INCR", "n", number=1)), ("UNAVAILABLE", "unknown"))
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_server_numbers_again_what_was_not_sent(self) -> None:
        """Commands without a number that were not sent get new numbers: none is lost, and none runs twice."""
        asked = [self.client.ask("INCR", "n")]
        self.cluster.run(0.01)
        asked += [self.client.ask("INCR", "n") for _ in range(3)]
        self.cluster.run(2.5)
        self.assertEqual([code(told.result)[1] for told in asked], ["unknown"] + ["none"] * 3)
        self.cluster.heal()
        self.assertEqual(value(self.do(self.client, "INCR", "n")), "2")

    def test_question_is_refused(self) -> None:
        """Without a majority a linearizable question is refused, and one with read=stale is answered."""
        self.assertEqual(code(self.do(self.client, "GET", "n"))[0], "UNAVAILABLE")
        self.assertEqual(code(self.answer(self.client.look("GET", "n"))), ("NOTFOUND", "none"))
        self.cluster.heal()
        self.cluster.run(5.0)
        self.assertEqual(len(self.client.told), 3)

    def test_hello_and_bye_are_refused(self) -> None:
        """Without a majority HELLO and BYE are refused in time, and can be repeated when it is back."""
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
        """A LOCK that has run and waits is not refused after `request_seconds`."""
        self.cluster.heal()
        self.cluster.run(2.0)
        self.do(self.open("bob", self.at, 60), "LOCK", "x")
        told = self.client.ask("LOCK", "x")
        self.cluster.run(5.0)
        self.assertFalse(told.answered)

    def test_connections_that_go_leave_nothing_when_the_majority_is_back(self) -> None:
        """Sessions of clients that are gone, opened late by updates that were under way without a majority, are closed
        when it is back."""
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
        """While too many bundles of clients that are gone are outstanding, as without a majority, new commands are
        refused."""
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


class TooOldTests(ClusterTestCase):
    """An update that is ordered beyond its horizon is not run (Departure 7)."""

    def setUp(self) -> None:
        self.begin(3, small_limits(request_seconds=100.0))
        self.at = (1 + (self.cluster.leader() or 0)) % 3
        self.client = self.connect(self.at)

    def make_too_old(self) -> list[Told]:
        """Submit commands 1 to 3, of which 1 is sent, while others order more than a horizon of slots."""
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
        """Neither the update that is too old nor the commands behind it have run: their fate is none."""
        for told in self.make_too_old():
            self.assertEqual(code(self.answer(told)), ("UNAVAILABLE", "none"))
        self.assertEqual(code(self.do(self.client, "GET", "n")), ("NOTFOUND", "none"))
        self.assertEqual(self.client.connection.unanswered, 0)

    def test_its_numbers_can_be_used_again(self) -> None:
        """The numbers of an update that is too old can be used again; they run in their order, and the first bundle
        that runs opens the session."""
        self.answer(self.make_too_old()[-1])
        results = [value(self.do(self.client, "INCR", "n", number=n)) for n in (1, 2, 3)]
        self.assertEqual(results, ["1", "2", "3"])
        self.assertEqual(value(self.do(self.client, "INCR", "n")), "4")

    def test_second_time_it_is_ordered_changes_nothing(self) -> None:
        """An update that is too old, and is ordered once more when the next one is under way, changes nothing."""
        executed_late = []
        local_clients = self.server(self.at).local_clients
        too_old = local_clients.too_old

        def note(update: ClientUpdate) -> None:
            executed_late.append(update)
            too_old(update)

        self.patch(local_clients, "too_old", note)
        self.answer(self.make_too_old()[-1])
        told = self.client.ask("INCR", "n", number=1)
        while not self.client.connection.bundler.outstanding:
            self.cluster.step()
        self.server(self.at).replica.perform(local_clients.too_old, executed_late[0])
        self.assertEqual(value(self.answer(told)), "1")

    def test_anonymous_client_that_is_gone_leaves_nothing(self) -> None:
        """If the client of an update that is too old is gone, nothing of its anonymous session is left: it was never
        opened."""
        asked = self.make_too_old()
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
        """While a server drains, commands under way are finished, and new ones are refused with SHUTDOWN, which means
        that they have not run."""
        told = self.client.ask("INCR", "n", number=1)
        self.local_clients.draining = True
        self.assertEqual(code(self.client.ask("INCR", "n", number=2).result), ("SHUTDOWN", "none"))
        self.assertEqual(value(self.answer(told)), "1")

    def test_repeated_number_is_not_called_undone(self) -> None:
        """Promise 4: a draining server does not say that number 1 has not run, since it has."""
        self.do(self.client, "INCR", "n", number=1)
        self.local_clients.draining = True
        self.assertEqual(code(self.client.ask("INCR", "n", number=1).result), ("SHUTDOWN", "unknown"))

    def test_waiting_lock_does_not_keep_the_server(self) -> None:
        """A LOCK that has run and waits does not keep the server from stopping: its client takes the session, and the
        wait, to another server."""
        self.do(self.open("bob"), "LOCK", "x")
        told = self.client.ask("LOCK", "x")
        self.cluster.run(0.2)
        drained: list[float] = []
        self.server().drain(lambda: drained.append(self.cluster.now))
        self.assertEqual((drained, told.results, self.local_clients.idle), ([self.cluster.now], [], True))

    def test_hello_and_bye_are_refused(self) -> None:
        """A draining server refuses HELLO and BYE, and the session stays open for the next server."""
        other = self.connect()
        self.local_clients.draining = True
        refused = [code(told.result) for told in (self.client.bye(), other.hello("bob"))]
        self.assertEqual(refused, [("SHUTDOWN", "none")] * 2)
        self.assertEqual([c.connection.unanswered for c in (self.client, other)], [0, 0])
        self.assertEqual(self.sessions(), ["alice"])

    def test_bye_that_waited_is_still_said(self) -> None:
        """A BYE that waited before the drain is carried out in a turn, and answered behind the durability gate."""
        told = self.client.ask("INCR", "n")
        bye = self.client.bye()
        self.local_clients.draining = True
        self.assertEqual(self.answer(bye), Done())
        self.assertEqual((value(told.result), self.sessions()), ("1", []))

    def test_server_waits_for_what_is_under_way(self) -> None:
        """The drain ends when the commands under way are answered, and is reported once."""
        told = self.client.ask("INCR", "n")
        drained: list[bool] = []
        self.server().drain(lambda: drained.append(told.answered))
        self.assertEqual(drained, [])
        self.cluster.run(6.0)
        self.assertEqual(drained, [True])

    def test_sessions_of_clients_that_go_are_still_closed(self) -> None:
        """While a server drains, the anonymous session of a connection that goes is closed."""
        other = self.connect()
        self.do(other, "INCR", "n")
        self.local_clients.draining = True
        other.disconnect()
        self.cluster.run(0.5)
        self.assertEqual(self.sessions(), ["alice"])
