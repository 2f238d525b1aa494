"""Tests of the application chat: its ordered lines, and the events that follow it."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import Done, Event
from tests.applications.context import Machine, code, field, refusal, rows
from tests.examples import examples


class ChatTest(SynchronousTestCase):
    """Tests of SAY, LOG and LISTEN."""

    def setUp(self) -> None:
        self.chat = Chat()
        self.machine = Machine(self.chat)

    def say(self, count: int) -> None:
        for number in range(1, count + 1):
            self.machine.run("alice", "SAY", f"line {number}")

    def test_say_answers_index_and_revision(self) -> None:
        """SAY answers with an index, which counts lines, and a revision, which counts all commands executed."""
        self.machine.context.revision = 41
        result = self.machine.run("alice", "SAY", "good  morning")
        self.assertEqual(result, Done((("index", 1), ("revision", 42))))

    def test_log_shows_who_said_what(self) -> None:
        """LOG answers with a row `+index=I client="id" text="..."` for each line of the chat."""
        self.machine.run("alice", "SAY", "hello")
        self.machine.run("bob", "SAY", "hello yourself")
        self.assertEqual(
            rows(self.machine.ask("LOG")),
            (
                (("index", 1), ("client", "alice"), ("text", "hello")),
                (("index", 2), ("client", "bob"), ("text", "hello yourself")),
            ),
        )

    def test_log_starts_at_from_and_ends_at_limit(self) -> None:
        """LOG shows lines from `from` up to `limit`; beyond the last line the reply is empty, and no error."""
        self.say(5)
        shown = rows(self.machine.ask("LOG", "from=3", "limit=2"))
        self.assertEqual([row[0] for row in shown], [("index", 3), ("index", 4)])
        self.assertEqual(rows(self.machine.ask("LOG", "from=6")), ())

    def test_log_without_limit_is_bounded(self) -> None:
        """A log of any length gives a reply of 1,000 rows at most, and of 10,000 if so asked."""
        self.chat.lines = [("alice", "x")] * 10_001
        self.assertEqual(len(rows(self.machine.ask("LOG"))), 1_000)
        self.assertEqual(len(rows(self.machine.ask("LOG", "limit=10000"))), 10_000)
        self.assertEqual(len(rows(self.chat.query(("LOG", 1, 2**60)))), 10_000)

    def test_lines_and_names_have_a_quota_together(self) -> None:
        """The bytes of lines and names together have a quota. A full chat stays full after a restore, which computes
        the sum anew."""
        self.machine.context.quotas = evolve(self.machine.context.quotas, chat_bytes=14, value_bytes=6)
        self.assertEqual(code(self.machine.run("bob", "SAY", "1234567")), "TOOLARGE")
        self.assertEqual(field(self.machine.run("bob", "SAY", "1234\u00e9"), "index"), 1)
        self.assertEqual(code(self.machine.run("bob", "SAY", "123")), "TOOLARGE")
        self.assertEqual(field(self.machine.run("bob", "SAY", "12"), "index"), 2)
        refused = self.machine.run("bob", "SAY", "1")
        self.assertIn("chat_bytes allows 14", refused.text)
        other = Chat()
        other.restore(self.machine.application.snapshot())
        self.assertEqual(other.used(), 14)

    def test_log_too_large_to_be_built_is_refused(self) -> None:
        """LOG of lines that are together too large for one reply is refused, and the client is told to ask for less."""
        self.chat.lines = [("alice", "x" * 1_000_000)] * 5
        self.assertEqual(code(self.machine.ask("LOG")), "TOOLARGE")
        self.assertEqual(len(rows(self.machine.ask("LOG", "limit=4"))), 4)

    def test_events_are_the_lines_in_order(self) -> None:
        """The events of the chat are its lines in order, `* CHAT index=I client="id" text="..."`, without gaps or
        repetitions."""
        self.say(3)
        self.assertEqual(self.chat.length(), 3)
        second = Event("CHAT", (("index", 2), ("client", "alice"), ("text", "line 2")))
        self.assertEqual(self.chat.events(2, 1), [second])
        self.assertEqual([event.fields[0][1] for event in self.chat.events(2, 100)], [2, 3])
        self.assertEqual(self.chat.events(4, 100), [])
        self.assertEqual(self.chat.events(1, 0), [])
        self.assertEqual(self.chat.events(0, 2), self.chat.events(1, 2))

    def test_listen_says_from_where(self) -> None:
        """The answer to LISTEN tells the number of the first line that will come; 0 stands for "from now on", and lines
        count from 1."""
        self.assertEqual(self.chat.check(("LISTEN",)), ("LISTEN", 0))
        self.assertEqual(self.chat.check(("LISTEN", "from=3")), ("LISTEN", 3))
        self.assertEqual(self.chat.check(("UNLISTEN",)), ("UNLISTEN",))
        refused = refusal(self.chat, "LISTEN", "from=0")
        self.assertEqual(str(refused), 'from= takes a number from 1 on, not "0"; usage: LISTEN [from=I]')

    def test_listening_is_described_as_a_question(self) -> None:
        """LISTEN is described as a question, so that HELP lists it; it is never ordered, and executing it changes
        nothing."""
        changes = {command.verb: command.changes for command in self.chat.commands}
        self.assertEqual(changes, {"SAY": True, "LISTEN": False, "UNLISTEN": False, "LOG": False})
        self.assertEqual(code(self.machine.run("alice", "LISTEN")), "BADREQUEST")

    def test_say_without_text_is_refused(self) -> None:
        """SAY without a text is refused: it is more likely a mistake than an empty line."""
        self.assertIn("there is nothing to say", str(refusal(self.chat, "SAY", "")))
        self.assertEqual(refusal(self.chat, "SAY").code, "BADREQUEST")

    def test_sessions_and_time_leave_the_log_alone(self) -> None:
        """Neither ends of sessions nor time remove lines from the chat."""
        self.say(1)
        before = self.chat.snapshot()
        self.machine.end("alice")
        self.machine.pass_time(10**9)
        self.assertEqual(self.chat.snapshot(), before)
        self.assertIsNone(self.chat.next_deadline())

    @examples(50, database=None)
    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.text(st.characters(codec="utf-8", min_codepoint=1), min_size=1)))
    )
    def test_index_has_no_gaps_and_survives_restore(self, said: list[tuple[str, str]]) -> None:
        """Line I is the I-th SAY executed, in a fresh server too, which goes on where the first one was."""
        machine = Machine(Chat())
        indexes = [field(machine.run(who, "SAY", text), "index") for who, text in said]
        self.assertEqual(indexes, list(range(1, len(said) + 1)))

        fresh = Machine(Chat())
        fresh.application.restore(machine.application.snapshot())
        fresh.context.revision = machine.context.revision
        self.assertEqual(fresh.run("d", "SAY", "next"), machine.run("d", "SAY", "next"))
        self.assertEqual(rows(fresh.ask("LOG")), rows(machine.ask("LOG")))
        self.assertEqual([(row[1][1], row[2][1]) for row in rows(fresh.ask("LOG"))], [*said, ("d", "next")])
        self.assertEqual(fresh.application.snapshot(), machine.application.snapshot())
