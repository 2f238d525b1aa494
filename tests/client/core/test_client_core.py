"""The client's core, driven by hand: lost sessions, silent servers, numbers that come too late."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.command import Command
from pfsb.client.core.retry_policy import BUSY_RETRIES, READONLY_ROUNDS, READONLY_SECONDS
from tests.client.core.script import ADDRESSES, Script

HELLO = "HELLO x ttl=9"


class ClientCoreTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.ends: list[SessionEnd] = []
        self.script = self.make()

    def make(self, **given: Any) -> Script:
        return Script(
            ClientCore(ADDRESSES, "x", ttl_seconds=9, dice=Random(1), on_session_end=self.ends.append, **given)
        )

    def lose_server(self) -> None:
        """Break the connection, and let the next server accept one."""
        self.script.hang_up()
        self.script.pass_time(1)
        self.script.take()

    def hold_lock(self, name: str = "door", token: int = 5) -> None:
        command = self.script.submit(f'LOCK "{name}"')
        self.script.answer_hello()
        self.script.hear(f'#{command.number} OK name="{name}" token={token}')
        self.script.take()
        self.script.answers.clear()


class NumberTests(ClientCoreTestCase):
    def test_hello_goes_before_the_first_command_which_gets_the_next_number(self) -> None:
        self.script.connect()
        self.script.submit("PUT a 1")
        self.script.hear('OK client="x" epoch=9 last=41 resumed=no opened=9')
        self.assertEqual(self.script.take(), ["connect 0", HELLO, "#42 PUT a 1"])

    def test_unanswered_commands_keep_number_and_order_at_the_next_server(self) -> None:
        """Unanswered commands are repeated at the next server with their numbers, in order (docs/protocol.rst)."""
        self.script.submit("PUT a 1")
        self.script.submit("PUT a 2")
        self.script.answer_hello()
        self.script.hang_up()
        self.script.pass_time(0)
        self.script.take()
        self.script.answer_hello(last=1, epoch=7)
        self.assertEqual(self.script.take(), [HELLO, "#1 PUT a 1", "#2 PUT a 2"])

    def test_command_that_came_too_late_for_its_number_gets_another(self) -> None:
        """A command that is refused since a later one has run gets another number: a server had no room for #1 and took
        #2, and fate=none says that #1 did not run."""
        self.script.submit("PUT a 1")
        self.script.submit("PUT b 1")
        self.script.answer_hello()
        self.script.hear("#1 ERR BUSY fate=none full")
        self.script.pass_time(0)
        self.script.answer_hello(last=2, epoch=7)
        self.script.take()
        self.script.hear("#1 ERR BADREQUEST fate=none number 1 comes after 2", "#2 OK revision=3")
        self.assertEqual(self.script.take(), ["#3 PUT a 1"])
        self.script.hear("#3 OK revision=8")
        self.assertEqual(self.script.outcomes, [("OK", ""), ("OK", "")])

    def test_bad_request_is_answered_at_once(self) -> None:
        self.script.submit("PUT")
        self.script.answer_hello()
        self.script.hear("#1 ERR BADREQUEST fate=none usage")
        self.assertEqual(self.script.outcomes, [("BADREQUEST", "none")])

    def test_answer_is_busy_if_servers_stay_busy(self) -> None:
        self.script.submit("PUT a 1")
        for _ in range(BUSY_RETRIES + 1):
            self.script.answer_hello(epoch=7)
            self.script.hear("#1 ERR BUSY fate=none full")
            self.script.pass_time(1)
        self.assertEqual(self.script.outcomes, [("BUSY", "none")])

    def refuse_by_all(self, line: str, times: int) -> int:
        """Have servers, one after the other and `times` at most, answer the first request with this line. Returns how
        many of them were asked before the answers came."""
        asked = 0
        while not self.script.answers and asked < times:
            self.script.connect()
            if line.startswith("#"):
                self.script.hear('OK client="x" epoch=7 last=0 resumed=yes opened=1')
            self.script.hear(line)
            self.script.pass_time(1)
            asked += 1
        return asked

    def test_answer_is_readonly_if_no_server_takes_changes(self) -> None:
        """If every server has answered READONLY a few times, which takes seconds, READONLY is the answer. Commands that
        were sent together are refused together, and a later one at once."""
        for text in ("PUT a 1", "PUT b 1", "PUT c 1"):
            self.script.submit(text)
        asked = self.refuse_by_all("#1 ERR READONLY fate=none short of memory", 1_000)
        self.assertEqual((asked, self.script.outcomes), (READONLY_ROUNDS * len(ADDRESSES), [("READONLY", "none")]))
        self.assertEqual(self.script.answers[0].text, "short of memory")
        self.assertLess(self.script.now, 15)
        self.script.hear("#2 ERR READONLY fate=none no", "#3 ERR READONLY fate=none no")
        self.assertEqual(self.script.outcomes, [("READONLY", "none")] * 3)

    def test_search_for_a_server_that_takes_changes_begins_anew_some_time_later(self) -> None:
        """After READONLY was an answer, the search for a server that takes changes begins anew after some time, even if
        the program asks often: another server may have room by then."""
        self.script.submit("PUT a 1")
        self.refuse_by_all("#1 ERR READONLY fate=none no", 1_000)
        for number in range(2, 7):
            self.script.submit("PUT a 1")
            self.script.hear(f"#{number} ERR READONLY fate=none no")
            self.script.pass_time(1)
        self.assertEqual(len(self.script.answers), 5)
        self.script.answer_hello(epoch=9)
        self.script.hear("#6 OK revision=3")
        self.assertEqual(self.script.outcomes[-1], ("OK", ""))

    def test_some_servers_that_take_no_changes_do_not_matter(self) -> None:
        """READONLY is no answer as long as some server takes changes: refusals of different days do not add up, and the
        number of servers counts."""
        for number in range(1, 20):
            self.script.submit("PUT a 1")
            for _ in range(2 * len(ADDRESSES)):
                self.script.answer_hello(last=number - 1, epoch=7)
                self.script.hear(f"#{number} ERR READONLY fate=none no")
                self.script.pass_time(1)
            self.script.answer_hello(last=number - 1, epoch=7)
            self.script.hear(f"#{number} OK revision=3")
            self.script.pass_time(READONLY_SECONDS + 1)
            self.script.hang_up()
            self.script.pass_time(1)
        self.assertEqual({*self.script.outcomes}, {("OK", "")})

    def test_answer_tells_why_no_server_opens_a_session(self) -> None:
        """If every server refuses HELLO because its memory is short, the program gets this reason as answer, and its
        commands are not sent."""
        for code in ("READONLY", "DIVERGED"):
            self.setUp()
            self.script.submit("PUT a 1")
            asked = self.refuse_by_all(f"ERR {code} fate=none this is why", 1_000)
            self.assertEqual((asked, self.script.outcomes), (READONLY_ROUNDS * len(ADDRESSES), [(code, "none")]))
            self.assertEqual(self.script.answers[0].text, "this is why")
            self.script.submit("PUT a 2")
            self.script.answer_hello()
            self.script.hear("#1 OK revision=3")
            self.assertEqual(self.script.outcomes, [(code, "none"), ("OK", "")])

    def test_unlock_is_tried_until_a_server_takes_it(self) -> None:
        """An UNLOCK is tried at all servers until one takes it: otherwise the lock would be held as long as the session
        lives, which the client keeps alive."""
        self.hold_lock()
        unlock = self.script.submit('UNLOCK "door" token=5')
        put = self.script.submit("PUT a 1")
        for code in ("READONLY", "BUSY") * 15:
            self.script.hear(f"#2 ERR {code} fate=none no")
            self.script.pass_time(1)
            self.script.answer_hello(last=1, epoch=7)
        self.assertFalse(unlock.is_over)
        for _ in range(30):
            self.script.hang_up()
            self.script.pass_time(1)
            self.script.connect()
            self.script.hear("ERR READONLY fate=none no")
            self.script.pass_time(1)
            self.script.answer_hello(last=1, epoch=7)
        self.assertEqual((unlock.is_over, put.is_over), (False, True))
        self.script.hear("#2 OK revision=3")
        self.assertTrue(unlock.is_over)

    def test_command_that_a_server_has_refused_has_not_run(self) -> None:
        """A command that was refused with fate=none, by a server that had accepted HELLO, has not run, until it is sent
        again."""
        command = self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.script.hear("#1 ERR SHUTDOWN fate=none go on elsewhere")
        self.assertEqual((command.fate, command.may_have_run), ("none", False))
        self.script.pass_time(1)
        self.script.answer_hello(epoch=7)
        self.assertEqual((command.fate, command.may_have_run), ("unknown", True))
        self.script.hear("#1 ERR SHUTDOWN fate=unknown go on elsewhere")
        self.assertEqual(command.fate, "unknown")

    def test_command_given_up_before_it_was_sent_is_not_sent(self) -> None:
        command = self.script.submit("PUT a 1")
        self.assertEqual(self.script.core.give_up(command), "none")  # type: ignore[attr-defined]
        self.script.connect()
        self.assertEqual(self.script.take(), ["connect 0"])

    def test_command_given_up_after_it_was_sent_is_of_unknown_fate_and_repeated(self) -> None:
        command = self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.assertEqual(self.script.core.give_up(command), "unknown")  # type: ignore[attr-defined]
        self.lose_server()
        self.script.answer_hello(epoch=7)
        self.script.hear("#1 OK revision=8")
        self.assertEqual((self.script.take(), self.script.answers), ([HELLO, "#1 PUT a 1"], []))


class LostSessionTests(ClientCoreTestCase):
    def test_expired_session_is_reported_with_its_locks(self) -> None:
        self.hold_lock()
        self.lose_server()
        self.script.answer_hello(last=1, opened=30)
        (end,) = self.ends
        self.assertEqual((end.code, end.locks), ("NOSESSION", ("door",)))

    def test_resumed_session_keeps_its_locks(self) -> None:
        self.hold_lock()
        self.lose_server()
        self.script.answer_hello(last=1, opened=1, epoch=30)
        self.assertEqual(self.ends, [])

    def test_session_of_a_hello_whose_answer_was_lost_is_not_the_former_one(self) -> None:
        """A session that was begun by a HELLO whose answer was lost, after the former session had expired, is not taken
        for the former one when the next HELLO resumes it."""
        self.hold_lock()
        self.lose_server()
        self.script.connect()
        self.lose_server()
        self.script.answer_hello(last=1, opened=30, epoch=31)
        self.assertEqual([end.locks for end in self.ends], [("door",)])

    def test_commands_behind_a_lost_lock_do_not_run(self) -> None:
        """A command that its client sent as the holder of a lock must not run after the lock is lost."""
        self.hold_lock()
        self.script.submit("PUT a 1")
        self.script.submit("PUT a 2")
        self.lose_server()
        self.script.submit("PUT a 3")
        self.script.answer_hello(last=2, opened=30)
        self.assertEqual(self.script.outcomes, [("NOSESSION", "unknown"), ("NOSESSION", "none"), ("NOSESSION", "none")])
        self.assertEqual(self.script.take(), [HELLO])

    def test_commands_that_have_not_run_go_on_in_the_new_session_without_locks(self) -> None:
        self.script.submit("PUT a 1")
        self.script.submit("PUT a 2")
        self.script.answer_hello()
        self.lose_server()
        self.script.answer_hello(last=1, opened=30)
        self.assertEqual(self.script.outcomes, [("NOSESSION", "unknown")])
        self.assertEqual(self.script.take(), [HELLO, "#2 PUT a 2"])
        self.assertEqual([end.locks for end in self.ends], [()])

    def test_numbers_that_servers_have_forgotten_prove_nothing(self) -> None:
        """If the servers tell a last number below one that was answered, they have forgotten the session, and no number
        proves anything: the last number of a closed session is kept for the horizon only
        (docs/internals/sessions.rst)."""
        self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.script.hear("#1 OK revision=2")
        self.script.submit("PUT a 2")
        self.lose_server()
        self.script.answer_hello(last=0, opened=300_000)
        self.assertEqual(self.script.outcomes[1:], [("NOSESSION", "unknown")])

    def test_servers_say_that_they_have_forgotten_the_session(self) -> None:
        """If no command was answered before the session was lost, only the field `forgotten` shows that `last=0` proves
        nothing."""
        self.script.submit("INCR n")
        self.script.answer_hello(opened=7)
        self.lose_server()
        self.script.answer_hello(last=0, opened=300_000, forgotten=8)
        self.assertEqual(self.script.outcomes, [("NOSESSION", "unknown")])
        self.assertEqual(self.script.take(), [HELLO])

    def test_sessions_forgotten_before_this_one_began_do_not_matter(self) -> None:
        """If servers have forgotten only sessions that ended before this one's HELLO, at revision 7, the former session
        is remembered, and its command has not run."""
        self.script.submit("INCR n")
        self.script.answer_hello(opened=7)
        self.lose_server()
        self.script.answer_hello(last=0, opened=300, forgotten=6)
        self.assertEqual(self.script.outcomes, [])
        self.assertEqual(self.script.take(), [HELLO, "#1 INCR n"])

    def test_last_number_below_that_of_a_question_is_still_trusted(self) -> None:
        """A last number below that of an answered question is still believed: servers do not count the number of a
        question as executed."""
        self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.script.hear("#1 OK revision=2")
        self.script.submit("GET a")
        self.script.hear('#2 OK value="1" revision=2')
        self.script.submit("PUT a 2")
        self.lose_server()
        self.script.answer_hello(last=1, opened=30)
        self.assertEqual(self.script.take(), [HELLO, "#3 PUT a 2"])

    def test_settings_are_a_question_only_without_set(self) -> None:
        """SETTINGS is a question, and a command if SET follows."""
        for line, is_question in (
            ("SETTINGS", True),
            ("settings read=stale", True),
            ("SETTINGS SET window=9", False),
            ("Settings  set", False),
            ("GET SET", True),
            ("PUT SETTINGS SET", False),
        ):
            self.assertIs(Command(line, lambda reply: None).is_question, is_question, line)
        self.script.submit("SETTINGS SET window=9")
        self.script.answer_hello()
        self.script.hear("#1 OK revision=2")
        self.script.submit("PUT a 2")
        self.lose_server()
        self.script.answer_hello(last=0, opened=300_000)
        self.assertEqual(self.script.outcomes[1:], [("NOSESSION", "unknown")])

    def test_session_is_opened_anew_at_once_after_an_event_of_its_expiry(self) -> None:
        self.hold_lock()
        self.script.hear("* SESSION state=expired")
        self.script.pass_time(0)
        self.assertEqual(self.script.take(), ["hang up", "connect 1"])
        self.script.answer_hello(opened=30)
        self.assertEqual([end.locks for end in self.ends], [("door",)])

    def test_session_taken_by_another_program_is_not_taken_back(self) -> None:
        """A session that another program has opened is not taken back: two programs with one client id would take it
        from each other for ever."""
        self.hold_lock()
        self.script.submit("PUT a 1")
        self.script.hear("* SESSION state=replaced")
        self.script.submit("PUT a 2")
        self.assertEqual(self.script.outcomes, [("REPLACED", "unknown"), ("REPLACED", "none")])
        self.assertEqual([(end.code, end.locks) for end in self.ends], [("REPLACED", ("door",))])
        self.script.pass_time(1)
        self.script.take()
        self.script.connect()
        self.assertEqual(self.script.take(), [])

    def test_session_taken_by_a_late_hello_of_this_client_is_opened_again(self) -> None:
        self.script.submit("PUT a 1")
        self.script.connect()
        self.lose_server()
        self.script.answer_hello()
        self.script.hear("* SESSION state=replaced")
        self.script.pass_time(0)
        self.script.answer_hello(epoch=9)
        self.assertEqual((self.ends, self.script.take()[-1]), ([], "#1 PUT a 1"))

    def test_lock_given_back_is_not_lost(self) -> None:
        self.hold_lock()
        self.script.submit('UNLOCK "door" token=5')
        self.script.hear('#2 OK name="door"')
        self.lose_server()
        self.script.answer_hello(last=2, opened=30)
        self.assertEqual([end.locks for end in self.ends], [()])


class ResponseTimeoutTests(ClientCoreTestCase):
    def test_silent_server_is_left(self) -> None:
        self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.script.take()
        self.script.pass_time(2.0)
        self.assertEqual(self.script.take(), ["hang up", "connect 1"])

    def test_silence_after_hello_is_silence_too(self) -> None:
        self.script.submit("PUT a 1")
        self.script.connect()
        self.script.take()
        self.script.pass_time(2.0)
        self.assertEqual(self.script.take(), ["hang up", "connect 1"])

    def test_timeout_grows_with_each_silent_server(self) -> None:
        self.script.submit("PUT a 1")
        self.script.connect()
        self.script.pass_time(2.0)
        self.script.connect()
        self.script.take()
        self.script.pass_time(3.9)
        self.assertEqual(self.script.take(), [])
        self.script.pass_time(0.1)
        self.assertEqual(self.script.take(), ["hang up", "connect 2"])

    def test_idle_holder_of_a_lock_asks_for_what_only_a_majority_can_answer(self) -> None:
        """A client that holds a lock and is idle sends LOCKS, which only a majority can answer: a server that is cut
        off answers PING for ever, while the session expires at the others."""
        self.hold_lock()
        self.script.pass_time(3.0)
        self.assertEqual(self.script.take(), ["#2 LOCKS limit=1"])
        self.script.pass_time(2.0)
        self.assertEqual(self.script.take(), ["hang up", "connect 1"])

    def test_idle_listener_checks_that_the_server_answers(self) -> None:
        self.script.submit("LISTEN")
        self.script.connect()
        self.script.hear("OK from=4")
        self.script.take()
        self.script.pass_time(3.0)
        self.assertEqual(self.script.take(), ["PING"])

    def test_idle_client_without_lock_sends_nothing(self) -> None:
        self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.script.hear("#1 OK revision=2")
        self.assertIsNone(self.script.core.wake_at)

    def test_pause_follows_a_round_of_dead_servers(self) -> None:
        self.script.hang_up("refused")
        self.script.pass_time(0)
        self.script.hang_up("refused")
        self.script.pass_time(0)
        self.script.take()
        self.script.hang_up("refused")
        self.script.pass_time(0)
        self.assertEqual(self.script.take(), [])
        self.script.pass_time(0.2)
        self.assertEqual(self.script.take(), ["connect 0"])


class ListeningTests(ClientCoreTestCase):
    def test_listening_from_now_on_continues_at_its_beginning(self) -> None:
        """A client that listens from now on, and whose connection breaks before the first line, goes on at the line
        that LISTEN's reply has named, so it misses none."""
        self.script.submit("LISTEN")
        self.script.connect()
        self.script.hear("OK from=4")
        self.lose_server()
        self.script.connect()
        self.assertEqual(self.script.take(), ["LISTEN from=4"])

    def test_chat_that_has_ended_is_not_asked_for_at_the_next_server(self) -> None:
        """A client that was told that the chat has ended does not say LISTEN on its next connection."""
        self.script.submit("LISTEN from=1")
        self.script.connect()
        self.script.hear("OK", '* CHAT index=1 client="a" text="b"', '* ENDED verb=FOLLOW next=1 text="other"')
        self.lose_server()
        self.script.connect()
        self.assertEqual(self.script.take(), ["LISTEN from=2"])
        self.script.hear("OK", '* ENDED verb=LISTEN next=2 text="no chat any more"')
        self.script.take()
        self.script.submit("GET a read=stale")
        self.lose_server()
        self.script.connect()
        self.assertNotIn("LISTEN from=2", self.script.take())


class StopTests(ClientCoreTestCase):
    def test_stop_says_goodbye_and_closes(self) -> None:
        self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.script.core.stop(self.script.now)
        self.script.take()
        self.script.hear("#1 OK revision=2", "OK")
        self.assertEqual((self.script.take(), self.script.core.stopped), (["hang up"], True))
        self.assertEqual(self.script.outcomes, [("CLOSED", "unknown")])

    def test_stop_does_not_wait_for_a_silent_server(self) -> None:
        self.script.submit("PUT a 1")
        self.script.answer_hello()
        self.script.core.stop(self.script.now)
        self.script.pass_time(1.0)
        self.assertTrue(self.script.core.stopped)

    def test_stopped_client_refuses_commands(self) -> None:
        self.script.core.stop(self.script.now)
        self.script.submit("PUT a 1")
        self.assertEqual(self.script.outcomes, [("CLOSED", "none")])


class WithoutMajorityTests(ClientCoreTestCase):
    """Servers that answer no HELLO, since there is no majority, still answer questions from what they know
    themselves."""

    def test_stale_read_needs_no_session(self) -> None:
        """A stale read is sent without a HELLO before it and without a number."""
        self.script.submit("GET a read=stale")
        self.script.connect()
        self.assertEqual(self.script.take(), ["connect 0", "GET a read=stale"])
        self.script.hear('OK value="1" revision=3')
        self.assertEqual(self.script.outcomes, [("OK", "")])

    def test_stale_read_overtakes_commands_that_wait_for_a_session(self) -> None:
        """A stale read is sent before commands that wait for a session, on the next connection at the latest, since
        nothing behind HELLO is answered."""
        self.script.submit("PUT a 1")
        self.script.submit("GET a read=stale")
        self.script.connect()
        self.assertEqual(self.script.take(), ["connect 0", "GET a read=stale", HELLO])
        self.script.hear('OK value="1" revision=3')
        self.script.submit("GET b READ=STALE")
        self.assertEqual(self.script.take(), [])
        self.script.pass_time(3)
        self.script.connect()
        self.assertEqual(self.script.take(), ["hang up", "connect 1", "GET b READ=STALE", HELLO])

    def test_session_that_is_open_carries_stale_reads(self) -> None:
        """In an open session a stale read is sent with a number, in order."""
        self.script.answer_hello_after("PUT a 1")
        self.script.submit("GET a read=stale")
        self.assertEqual(self.script.take()[-1], "#2 GET a read=stale")

    def test_sequential_read_needs_a_session_only_if_the_client_may_have_seen_more(self) -> None:
        """A sequential read is sent outside of a session only if its answer cannot be older than anything that this
        client has seen at any server."""
        self.script.submit("GET a read=sequential")
        self.script.connect()
        self.script.hear('OK value="1" revision=3')
        self.script.submit('GET "a read=stale" read=sequential')
        self.script.hear('OK value="1" revision=3')
        self.assertEqual(
            self.script.take(), ["connect 0", "GET a read=sequential", 'GET "a read=stale" read=sequential']
        )
        self.lose_server()
        self.script.submit("GET a read=sequential")
        self.script.connect()
        self.assertEqual(self.script.take()[-1], HELLO, "this server may know less")

    def test_sequential_read_stays_behind_the_commands_before_it(self) -> None:
        """A sequential read is sent behind the commands before it, so that its answer shows what the client has
        written."""
        self.script.connect()
        self.script.submit("PUT a 1")
        self.script.submit("GET a read=sequential")
        self.assertEqual(self.script.take(), ["connect 0", HELLO])

    def test_question_that_gets_no_answer_has_not_happened(self) -> None:
        """The fate of a question is none, whether it was sent or not; that of a command is unknown."""
        self.script.answer_hello_after("GET a")
        question, command = self.script.submit("GET b"), self.script.submit("PUT b 1")
        core: Any = self.script.core
        self.assertEqual((core.give_up(question), core.give_up(command)), ("none", "unknown"))

    def test_all_servers_are_named_when_none_can_be_reached(self) -> None:
        """When no server can be reached, the program is told once, with all servers, until one was reached again."""
        told: list[str] = []
        self.script = self.make(on_unreachable=told.append)
        for _ in range(7):
            self.script.hang_up("Connection was refused by other side: 111: Connection refused.")
            self.script.pass_time(2)
        names = ", ".join(f"{address.id} ({address.shown})" for address in ADDRESSES)
        self.assertEqual(told, [f"no server can be reached: servers {names}: connection refused"])
        core: Any = self.script.core
        self.assertFalse(core.was_connected)
        self.script.connect()
        self.assertTrue(core.was_connected)
        self.script.hang_up("it has stopped")
        self.assertIn("1 of 3 servers can be reached (", core.outage)
        self.assertIn("it has stopped", core.outage)
        self.assertEqual(len(told), 1)
        for _ in range(4):
            self.script.pass_time(2)
            self.script.hang_up("timeout")
        self.assertEqual(len(told), 2)
