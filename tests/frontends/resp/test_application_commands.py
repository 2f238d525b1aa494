"""Verbs of applications that Redis does not have are commands of the Redis protocol, too."""

from __future__ import annotations

from pfsb.frontends.resp.protocol import RespRequest
from tests.frontends.resp.test_protocol import RespTestCase


class ApplicationCommandTests(RespTestCase):
    def test_fields_are_a_list_in_which_names_and_values_alternate(self) -> None:
        self.assertEqual(self.ask("MPUT", "a", "1", "b", "2"), b"*2\r\n$8\r\nrevision\r\n:1\r\n")
        self.assertEqual(self.ask("cas", "a", "1", "x"), b"*2\r\n$8\r\nrevision\r\n:2\r\n")

    def test_rows_are_a_member(self) -> None:
        self.ask("MPUT", "a", "1")
        row = b"*6\r\n$3\r\nkey\r\n$1\r\na\r\n$5\r\nvalue\r\n$1\r\n1\r\n$8\r\nrevision\r\n:1\r\n"
        self.assertEqual(self.ask("RANGE", "a", "z"), b"*4\r\n$5\r\ncount\r\n:1\r\n$4\r\nrows\r\n*1\r\n" + row)
        self.assertEqual(self.ask("RANGE", "x", "z"), b"*4\r\n$5\r\ncount\r\n:0\r\n$4\r\nrows\r\n*0\r\n")

    def test_resp_3_has_maps(self) -> None:
        self.ask("HELLO", "3")
        self.assertEqual(self.ask("MPUT", "a", "1"), b"%1\r\n$8\r\nrevision\r\n:1\r\n")

    def test_argument_is_a_value_and_never_an_option(self) -> None:
        self.assertEqual(self.ask("MPUT", "limit=1", "nil"), b"*2\r\n$8\r\nrevision\r\n:1\r\n")
        self.assertIn(b"$7\r\nlimit=1\r\n", self.ask("RANGE", "l", "m"))
        self.assertError(self.ask("RANGE", "a", "z", "limit=1"), "-ERR", "3 arguments")
        self.assertError(self.ask("CAS", "new", "nil", "x"), "CONFLICT")

    def test_verb_that_takes_the_rest_of_the_line_without_any(self) -> None:
        self.assertIsNone(RespRequest(None, "SAY", "", ()).text)
        self.assertError(self.ask("SAY"), "-ERR fate=none", "say")

    def test_refusals_are_errors(self) -> None:
        self.assertError(self.ask("CAS", "a", "b", "c"), "-CONFLICT fate=none")
        self.assertError(self.ask("PUTHASH", "a"), "-ERR fate=none", "PUTHASH")

    def test_verbs_about_a_connection_of_the_line_protocol_are_unknown(self) -> None:
        for verb in ("LISTEN", "UNLISTEN", "STATUS", "DIGEST", "HELP", "BYE"):
            self.assertError(self.ask(verb), "unknown command")
        self.assertEqual(self.ask("PING"), b"+PONG\r\n")
