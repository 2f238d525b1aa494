"""Replies without a field that the client needs are noticed before the field is used."""

from __future__ import annotations

from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.odd_replies import OddReply, check_reply
from pfsb.client.core.replies import Reply, read_fields

HELLO = "OK client=c epoch=4 last=7 opened=2"


class OddReplyTests(SynchronousTestCase):
    def test_reply_of_a_server_is_accepted(self) -> None:
        """A reply of a pfsb server is accepted, also without the fields that may be left out."""
        for line in (HELLO, HELLO + " forgotten=3"):
            check_reply("HELLO", Reply(line))

    def test_hello_lacks_a_number(self) -> None:
        """A HELLO reply is refused if one of the numbers is missing that the client compares with those of its former
        session."""
        for word in ("epoch=4", "last=7", "opened=2"):
            name = word.partition("=")[0]
            for line in (HELLO.replace(" " + word, ""), HELLO.replace(word, f'{name}="x"')):
                error = str(self.assertRaises(OddReply, check_reply, "HELLO", Reply(line)))
                self.assertIn(f"{name} is no number", error)

    def test_optional_field_is_no_number(self) -> None:
        """A field that may be left out must be a number if it is there."""
        for verb, line, name in (("HELLO", HELLO + " forgotten=no", "forgotten"), ("LISTEN", "OK from=no", "from")):
            self.assertIn(f"{name} is no number", str(self.assertRaises(OddReply, check_reply, verb, Reply(line))))

    def test_refusals_are_passed_on(self) -> None:
        """Refusals are passed on, although they have no fields."""
        check_reply("HELLO", Reply("ERR BUSY fate=none later", code="BUSY", fate="none", text="later"))


class FieldTests(SynchronousTestCase):
    def test_names_begin_words(self) -> None:
        """A name begins at the beginning of a word: behind white space, a string or an equals sign, or at the beginning
        of the line."""
        for line, fields in (
            ("a=1 b=x", {"a": 1, "b": "x"}),
            ('a="b=2 c"d=3', {"a": "b=2 c", "d": 3}),
            ("word a=1", {"a": 1}),
            ("a== b=2", {"a": "=", "b": 2}),
            ("a=", {"a": ""}),
            ("=1 a=2", {"a": 2}),
        ):
            self.assertEqual(read_fields(line), fields, line)

    def test_long_words_and_many_fields_take_no_time(self) -> None:
        """The time to read fields grows with the length of the line, and not with its square: a client must not stand
        still over one reply."""
        begun = process_time()
        for line in ("x" * 1_000_000, "a=1 " * 100_000, "a=" + "x" * 1_000_000, "a=b" * 100_000):
            read_fields(line)
        self.assertLess(process_time() - begun, 5)
