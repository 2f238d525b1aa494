"""Replies without a field that the client needs are noticed before the field is used."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.odd_replies import OddReply, check_reply
from pfsb.client.core.replies import Reply

HELLO = "OK client=c epoch=4 last=7 opened=2"


class OddReplyTests(SynchronousTestCase):
    def test_reply_of_a_server_is_accepted(self) -> None:
        """The fields that may be left out are not missed."""
        for line in (HELLO, HELLO + " forgotten=3"):
            check_reply("HELLO", Reply(line))

    def test_hello_lacks_a_number(self) -> None:
        """The client compares each of these numbers with those of its former session."""
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
        """A refusal has no fields."""
        check_reply("HELLO", Reply("ERR BUSY fate=none later", code="BUSY", fate="none", text="later"))
