"""Calls as values: a call that no server could take is refused when it is made; and calls of applications that the
library does not know."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client import BadCall, Call, NotKept, ServerFault, StateError, calls
from pfsb.client.clerks.call_list import checked_calls, read_all
from pfsb.client.core.replies import read_reply


def reply(line: str, *rows: str) -> Any:
    return read_reply(line, rows)


class WrongArgumentTests(SynchronousTestCase):
    def refusal(self, make: Any, *args: Any, **named: Any) -> str:
        error = self.assertRaises(BadCall, make, *args, **named)
        self.assertEqual((error.code, error.fate), ("BADREQUEST", "none"))
        return str(error.text)

    def test_number_in_the_place_of_a_text_is_named_with_what_would_be_right(self) -> None:
        self.assertEqual(
            self.refusal(calls.put, "a", 5),
            "a key, value, name or text is 5, of type int; it must be a str or bytes (here: '5')",
        )
        self.assertEqual(
            self.refusal(calls.put, "a", None),
            "a key, value, name or text is None, of type NoneType; it must be a str or bytes",
        )

    def test_every_call_refuses_every_argument_of_a_wrong_type(self) -> None:
        """Every call refuses an argument of a wrong type with `BadCall`; an argument that is no text once raised
        AttributeError."""
        for wrong in (5, None, 1.5, ["a"], object()):
            for make in (
                lambda x: calls.get(x),
                lambda x: calls.entry(x),
                lambda x: calls.put("a", x),
                lambda x: calls.delete(x),
                lambda x: calls.cas("a", "b", x),
                lambda x: calls.if_revision(x, 7, calls.put("a", "1")),
                lambda x: calls.if_revision("a", 7, x),
                lambda x: calls.append("a", x),
                lambda x: calls.puthash(x, "a"),
                lambda x: calls.mput({"a": x}),
                lambda x: calls.mput(x),
                lambda x: calls.mget("a", x),
                lambda x: calls.range_(x),
                lambda x: calls.keys("a", x),
                lambda x: calls.say(x),
                lambda x: calls.lock(x),
                lambda x: calls.change_settings(x),
            ):
                self.refusal(make, wrong)

    def test_number_is_no_text_that_could_end_the_line(self) -> None:
        """A text in place of a number is refused when the call is made: it could end the line, and let the user of a
        program send commands."""
        for wrong in ("1\nDEL a", "1", 1.0, True, None):
            self.refusal(calls.incr, "n", wrong)
            self.refusal(calls.unlock, "door", wrong)
            self.refusal(calls.range_, "a", limit=wrong)
            self.refusal(calls.if_revision, "a", wrong, calls.put("a", "1"))
            if wrong is not None:
                self.refusal(calls.listen, wrong)

    def test_read_level_is_refused_with_the_right_ones(self) -> None:
        """Every call that has a read level refuses a wrong one when it is made, with the right ones."""
        for wrong in ("stael", "", "Stale", None, 5, ["stale"]):
            for make in (
                lambda x: calls.get("a", read=x),
                lambda x: calls.get_bytes("a", read=x),
                lambda x: calls.entry("a", read=x),
                lambda x: calls.settings(read=x),
                lambda x: calls.command("TODOS", read_reply=lambda reply: reply, read=x or "none"),
            ):
                self.assertIn("read is one of linearizable, sequential, stale, not ", self.refusal(make, wrong))

    def test_revision_of_the_past_is_a_number_from_0_on(self) -> None:
        """`at` is a revision, a number from 0 on, which is sent in place of the read level."""
        for make in (calls.get, calls.get_bytes, calls.entry):
            self.assertEqual(make("a", at=0).line, 'GET "a" at=0')
            self.assertEqual(make("a", read="stale", at=7).line, 'GET "a" at=7')
            self.assertNotIn("at=", make("a").line)
            for wrong in (-1, "7", 1.0, True):
                self.assertIn("at is ", self.refusal(lambda x, make=make: make("a", at=x), wrong))

    def test_past_that_is_not_kept_is_an_error_of_its_own(self) -> None:
        """A revision that is not kept any more raises `NotKept`, with the server's text, which names the lowest
        revision."""
        reply = read_reply("ERR COMPACTED fate=none what is kept goes back to revision 7")
        assert reply is not None
        error = self.assertRaises(NotKept, calls.get("a", at=3).read, reply)
        self.assertEqual((error.code, "back to revision 7" in str(error)), ("COMPACTED", True))

    def test_revision_is_a_number_from_0_on_or_any(self) -> None:
        self.assertIn('an int from 0 on, or "any"', self.refusal(calls.if_revision, "a", -1, calls.put("a", "1")))
        self.assertEqual(calls.if_revision("a", "any", calls.delete("b")).line, 'IF "a" any DEL "b"')

    def test_wait_is_a_finite_number_of_seconds(self) -> None:
        for wrong in (-1, float("nan"), float("inf"), "1", True):
            self.refusal(calls.lock, "door", wrong)
        self.assertEqual(calls.lock("door", 1).line, 'LOCK "door" wait=1.000')

    def test_call_is_one_line(self) -> None:
        for wrong in ("PUT a b\nDEL c", 5, None):
            self.refusal(Call, wrong, lambda _reply: None)

    def test_value_that_is_no_call_is_refused_before_any_call_is_sent(self) -> None:
        for wrong in ("PUT a 1", None, 5, [calls.get("a"), "GET a"]):
            self.assertIn("is no call", self.refusal(checked_calls, wrong))


class OwnCallTests(SynchronousTestCase):
    """Calls of applications that the library does not know."""

    def test_texts_are_values_and_numbers_are_words(self) -> None:
        call = calls.command("todo", "limit=3\n", 7, read_reply=lambda found: found, options={"limit": 5, "by": "x"})
        self.assertEqual((call.line, call.is_question), ('TODO "limit=3\\n" 7 limit=5 by=x', False))

    def test_question_has_its_read_level(self) -> None:
        stale = calls.command("TODOS", read_reply=lambda found: found, read="stale")
        self.assertEqual((stale.line, stale.is_question), ("TODOS read=stale", True))
        plain = calls.command("TODOS", read_reply=lambda found: found, read="linearizable")
        self.assertEqual((plain.line, plain.is_question), ("TODOS", True))

    def test_wrong_verbs_options_and_levels_are_refused(self) -> None:
        for verb in ("", "TO DO", "TODO\n", "1", None):
            self.assertRaises(BadCall, calls.command, verb, read_reply=len)
        for options in ({"a b": 1}, {"a": "b c"}, {"a": 'b"'}, {"a": None}, {"a": True}, {"": 1}, ["a=1"]):
            self.assertRaises(BadCall, calls.command, "TODO", read_reply=len, options=options)
        self.assertRaises(BadCall, calls.command, "TODO", read_reply=len, read="fresh")

    def test_reply_is_read_with_its_rows(self) -> None:
        call = calls.command("TODOS", read_reply=lambda found: found.row_fields, read="linearizable")
        rows = call.read(reply("OK count=1", 'number=2 text="a b"'))
        self.assertEqual(rows, [{"number": 2, "text": "a b"}])

    def test_forgiven_refusal_is_a_result(self) -> None:
        call = calls.command("DONE", 1, read_reply=lambda found: found.ok, forgiven=frozenset({"NOTFOUND"}))
        self.assertIs(call.read(reply("ERR NOTFOUND fate=none no entry")), False)
        self.assertRaises(StateError, call.read, reply("ERR CONFLICT fate=none no"))

    def test_reply_that_lacks_a_field_is_a_fault_of_the_server(self) -> None:
        call = calls.command("TODO", "a", read_reply=lambda found: int(found.fields["number"]))
        self.assertRaises(ServerFault, call.read, reply("OK revision=1"))


class ResultListTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wanted = [calls.incr("a"), calls.incr("b"), calls.incr("c"), calls.incr("d")]
        self.replies = [
            reply("OK value=1 revision=1"),
            reply("ERR CONFLICT fate=none no number"),
            reply("OK value=3 revision=2"),
            reply("ERR UNAVAILABLE fate=unknown no answer"),
        ]

    def test_first_error_is_raised_with_all_results(self) -> None:
        error = self.assertRaises(StateError, read_all, self.wanted, self.replies, False)
        self.assertEqual([error.results[0], error.results[2]], [1, 3])
        self.assertIs(error.results[1], error)
        self.assertEqual((error.results[3].code, error.results[3].fate), ("UNAVAILABLE", "unknown"))

    def test_errors_stand_in_their_places_if_wanted(self) -> None:
        results = read_all(self.wanted, self.replies, True)
        self.assertEqual([getattr(each, "code", each) for each in results], [1, "CONFLICT", 3, "UNAVAILABLE"])

    def test_error_of_a_single_call_has_no_results(self) -> None:
        error = self.assertRaises(StateError, self.wanted[1].read, self.replies[1])
        self.assertEqual(list(error.results), [])
