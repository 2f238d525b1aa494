"""The client's side of one connection: requests, replies and events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, Event, Refused, Word
from pfsb.client.core import connection
from pfsb.client.core.connection import LineConnection
from pfsb.client.core.replies import EventLine, Reply, read_fields, read_reply
from pfsb.frontends.line.grammar import render, render_event
from tests.examples import examples

names = st.from_regex("[a-z_]{1,8}", fullmatch=True)
values = st.one_of(st.integers(-(2**63), 2**63), st.text(), st.from_regex("[a-zA-Z_][a-zA-Z_]{0,8}", fullmatch=True))


class ReadingTests(SynchronousTestCase):
    @given(st.dictionaries(names, values, max_size=5))
    @examples(150)
    def test_fields_are_read_with_the_values_that_the_server_wrote(self, wanted: dict[str, int | str]) -> None:
        line = render(None, Done(tuple(wanted.items()))).decode().rstrip("\n")
        reply = read_reply(line)
        assert reply is not None
        self.assertEqual(reply.fields, wanted)

    def test_words_are_read_as_text(self) -> None:
        self.assertEqual(read_fields("resumed=no client=x"), {"resumed": "no", "client": "x"})

    def test_refusal_is_read_with_code_fate_and_text(self) -> None:
        reply = read_reply(render(None, Refused("HELD", "by bob")).decode().strip())
        self.assertEqual(reply, Reply("ERR HELD fate=none by bob", (), "HELD", "none", "by bob"))

    def test_refusal_without_fate_is_of_unknown_fate(self) -> None:
        reply = read_reply("ERR STRANGE things")
        assert reply is not None
        self.assertEqual((reply.code, reply.fate), ("STRANGE", "unknown"))


class LineConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[EventLine] = []
        self.refused: list[str] = []
        self.replies: list[tuple[str, Reply]] = []
        self.connection = LineConnection(self.events.append, self.refused.append)

    def request(self, number: int | None, name: str) -> bytes:
        return self.connection.request(number, "PING", lambda reply: self.replies.append((name, reply)))

    def test_request_is_a_line_with_its_number(self) -> None:
        self.assertEqual((self.request(7, "a"), self.request(None, "b")), (b"#7 PING\n", b"PING\n"))

    def test_numbered_replies_find_their_request_in_any_order(self) -> None:
        self.request(1, "lock")
        self.request(2, "put")
        self.connection.receive(b"#2 OK revision=5\n#1 OK\n")
        self.assertEqual(
            [(name, reply.line) for name, reply in self.replies], [("put", "OK revision=5"), ("lock", "OK")]
        )

    def test_replies_without_number_come_in_order(self) -> None:
        self.request(None, "first")
        self.request(7, "numbered")
        self.request(None, "second")
        self.connection.receive(b"OK a=1\r\nOK a=2\r\n")
        self.assertEqual([name for name, _ in self.replies], ["first", "second"])

    def test_rows_belong_to_the_reply_that_follows_however_they_are_cut(self) -> None:
        self.request(1, "x")
        for byte in b'* CHAT index=1\n#1 +key="a"\n#1 +key="b"\n#1 OK count=2\n':
            self.connection.receive(bytes([byte]))
        self.assertEqual(self.replies[0][1].rows, ('key="a"', 'key="b"'))
        self.assertEqual(self.replies[0][1].lines(), ['+key="a"', '+key="b"', "OK count=2"])

    def test_events_are_told_from_replies(self) -> None:
        self.connection.receive(render_event(Event("CHAT", (("index", 3), ("text", "a b"), ("w", Word("x"))))))
        self.assertEqual((self.events[0].name, self.events[0].fields), ("CHAT", {"index": 3, "text": "a b", "w": "x"}))

    def test_numbered_reply_without_request_is_ignored(self) -> None:
        self.connection.receive(b"#9 OK\n")
        self.assertEqual((self.replies, self.refused), ([], []))

    def test_unnumbered_reply_without_request_refuses_the_connection(self) -> None:
        """A reply without a number that belongs to no request refuses the connection: a server with too many
        connections sends ERR BUSY before any request."""
        self.connection.receive(b"ERR BUSY fate=none full\n* CHAT index=1\n")
        self.assertEqual((self.refused, self.events), (["ERR BUSY fate=none full"], []))

    def test_closed_connection_ignores_further_bytes(self) -> None:
        self.request(1, "x")
        self.connection.close()
        self.connection.receive(b"#1 OK\n* CHAT index=1\n")
        self.assertEqual((self.replies, self.events, self.refused), ([], [], []))

    def test_endless_line_refuses_the_connection(self) -> None:
        self.patch(connection, "LINE_BYTES_MAX", 10)
        self.connection.receive(b"x" * 11)
        self.assertIn("without end", self.refused[0])
