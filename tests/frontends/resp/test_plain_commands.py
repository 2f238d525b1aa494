"""PlainCommands: commands of Redis that one regular expression recognises mean the same as to the parser and the
translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.chat import Chat
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.config.config import Limits
from pfsb.frontends.resp.commands import TRANSLATED, Client
from pfsb.frontends.resp.parser import CommandParser, Item
from pfsb.frontends.resp.patterns import Cursors
from pfsb.frontends.resp.plain_commands import PLAIN, CommandSplitter, PlainCommands, plain_forms
from pfsb.frontends.resp.replies import Dialect
from tests.examples import examples
from tests.frontends.resp.test_parser import cut, encoded
from tests.frontends.resp.test_protocol import RespTestCase

OPTIONS = examples(300, database=None)
APPLICATIONS = KeyValue(), Chat()
FORMS = plain_forms(APPLICATIONS)
CLIENT = Client(Dialect(2), Cursors())
COMMAND_BYTES_MAX = 60

plain_words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"'), min_size=1).map(
    str.encode
)
two_words = st.tuples(plain_words, plain_words)


def written(meaning: Any, words: Sequence[bytes]) -> bytes:
    return encoded(meaning.name.encode(), *words[: meaning.arguments])


plain_commands = st.builds(written, st.sampled_from(PLAIN), two_words)
odd_commands = st.sampled_from(
    (
        encoded(b"set", b"a", b"b"),
        encoded(b"SET", b"a"),
        encoded(b"SET", b"a", b"b", b"NX"),
        encoded(b"SET", b"a", b""),
        encoded(b"SET", b"", b"b"),
        encoded(b"SET", b"a", b"two words"),
        encoded(b"SET", b"a", b"\r\n"),
        encoded(b"SET", b"a", b"$1\r\nb"),
        encoded(b"SET", b"a", b"\xc3\xa9"),
        encoded(b"SET", b"a", b"\xff"),
        encoded(b"SET", b"a", b"b" * COMMAND_BYTES_MAX),
        encoded(b"GET", b"read=stale"),
        encoded(b"SAY", b"two", b"words"),
        encoded(b"PING"),
        encoded(b"LOCK", b"a"),
        b"*3\r\n$3\r\nSET\r\n$2\r\na\r\n$1\r\nb\r\n",
        b"*3\r\n$3\r\nSET\r\n$01\r\na\r\n$1\r\nb\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb",
        b"*3\r\n$3\r\nSET\r\n$1\r\nab\r\n$1\r\nb\r\n",
        b"\r\n",
        b"*0\r\n",
        b"SET a b\r\n",
    )
)


class SplitterTests(SynchronousTestCase):
    """Plain commands are the commands that the parser would have made of the bytes, whatever else arrives."""

    def require_equal(self, pieces: Sequence[bytes]) -> int:
        """Feed these bytes, and compare with the parser. Returns the number of commands that were plain."""
        parser, splitter = CommandParser(COMMAND_BYTES_MAX), CommandSplitter(FORMS, COMMAND_BYTES_MAX, 300)
        wanted = [item for piece in pieces for item in parser.feed(piece)]
        found = [request for piece in pieces for request in splitter.feed(piece)]
        items: list[Item] = []
        for request in found:
            if isinstance(request, PlainCommands):
                self.require_meaning(request)
                items += request.items
            else:
                items.append(request)
        self.assertEqual(items, wanted)
        return sum(len(request.commands) for request in found if isinstance(request, PlainCommands))

    def require_meaning(self, plain: PlainCommands) -> None:
        """Require that each command has the meaning and the form of reply that its translation has."""
        for command, (name, *words) in zip(plain.commands, plain.items, strict=True):
            translate = TRANSLATED[name.decode()].translate
            assert translate is not None
            translated = translate(words, CLIENT)
            (application,) = [each for each in APPLICATIONS if translated.verb in each.plain_words]
            self.assertEqual(command, application.check((translated.verb, *translated.args)))
            self.assertEqual(plain.form(CLIENT), translated.form)

    @OPTIONS
    @given(
        st.lists(st.one_of(plain_commands, plain_commands, odd_commands), max_size=10),
        st.lists(st.integers(0, 10_000), max_size=4),
    )
    def test_commands_of_any_kind(self, commands: list[bytes], places: list[int]) -> None:
        """Commands of any kind mean the same as to the parser, however the network cuts them."""
        self.require_equal(cut(b"".join(commands), places))

    @OPTIONS
    @given(
        st.lists(plain_commands, min_size=1, max_size=5),
        st.lists(st.tuples(st.integers(0), st.sampled_from(b'\r\n*$0123aA "=\0\xff')), max_size=3),
    )
    def test_plain_commands_with_some_bytes_changed(
        self, commands: list[bytes], changes: list[tuple[int, int]]
    ) -> None:
        data = bytearray(b"".join(commands))
        for place, byte in changes:
            data[place % len(data)] = byte
        self.require_equal([bytes(data)])

    def test_usual_commands_are_plain(self) -> None:
        """The usual commands are recognised as plain, of several names one after the other, up to the first one that is
        not plain."""
        sets, gets = encoded(b"SET", b"key", b"dmFsdWU=") * 3, encoded(b"GET", b"key") * 2
        self.assertEqual(self.require_equal([sets]), 3)
        self.assertEqual(self.require_equal([sets + gets + sets]), 8)
        self.assertEqual(self.require_equal([sets + encoded(b"PING") + sets]), 3)

    def test_rest_of_a_command_is_left_to_the_parser(self) -> None:
        """The rest of a cut command, and all that follows it in the same read, is left to the parser; commands of the
        next read may be plain again."""
        data = encoded(b"SET", b"key", b"value")
        self.assertEqual(self.require_equal([data[:20], data[20:] + data, data]), 1)

    def test_applications_without_plain_commands_have_no_forms(self) -> None:
        self.assertEqual(plain_forms([Lock()]), {})


class ConnectionTests(RespTestCase):
    """Plain commands on a connection."""

    limits = Limits(session_window=4)

    def test_commands_that_arrive_together_are_submitted_together(self) -> None:
        """Plain commands that arrive together are submitted together, and each has its reply, in their order."""
        data = encoded(b"SET", b"a", b"1") * 2 + encoded(b"GET", b"a") + encoded(b"SAY", b"hello")
        self.assertEqual(self.send(data), b"+OK\r\n+OK\r\n$1\r\n1\r\n:1\r\n")
        self.assertEqual(self.session().calls, ["submit 4"])

    def test_form_of_a_reply_is_that_of_the_dialect_by_then(self) -> None:
        """The form of a reply is that of the dialect at the time of its command, although HELLO 3 comes in the same
        read."""
        self.assertTrue(self.send(encoded(b"HELLO", b"3") + encoded(b"GET", b"none")).endswith(b"_\r\n"))
        self.assertEqual(self.send(encoded(b"GET", b"none") * 2), b"_\r\n_\r\n")

    def test_more_than_the_window_has_room_for_wait(self) -> None:
        self.local_clients.hold = True
        self.protocol.dataReceived(encoded(b"SET", b"a", b"1") * 6)
        self.assertEqual(self.protocol.replies.outstanding, 4)
        self.local_clients.release(4)
        self.assertEqual(self.said(), b"+OK\r\n" * 4)

    def test_commands_behind_a_lock_that_waits_come_one_by_one(self) -> None:
        """Commands behind a LOCK that waits are handled one by one, and the client is read no further when the window
        is full of them."""
        self.local_clients.hold = True
        self.protocol.dataReceived(encoded(b"LOCK", b"a"))
        self.protocol.dataReceived(encoded(b"SET", b"a", b"1") * 5)
        self.assertEqual(self.transport.producerState, "paused")

    def test_application_that_fails_to_check_commands_together_checks_them_one_by_one(self) -> None:
        """If the check of many commands by an application fails, the commands are checked one by one, and each has its
        reply."""

        def fail(verb: str, columns: Sequence[Sequence[bytes]]) -> Any:
            raise KeyError(verb)

        self.patch(self.server.catalogue.entry("PUT").application, "check_plain", fail)
        self.assertEqual(self.send(encoded(b"SET", b"a", b"1") * 3), b"+OK\r\n" * 3)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_applications_that_the_cluster_runs_no_more_have_no_plain_commands(self) -> None:
        self.server.catalogue.switch([each for each in self.server.catalogue.applications if each.name != "kv"])
        self.assertEqual([begin for begin in self.factory.plain if b"SET" in begin], [])
        self.assertError(self.ask("SET", "a", "b"), "there is no command PUT")
