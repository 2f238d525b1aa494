"""PlainLines: lines that one regular expression recognises mean the same as to the parser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import Command, CommandDescription
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.config.config import Limits
from pfsb.frontends.line.arguments import parts_of, read_level
from pfsb.frontends.line.grammar import parse
from pfsb.frontends.line.plain_lines import PlainForm, PlainLines, RequestSplitter, plain_forms
from pfsb.frontends.line.splitter import LineSplitter, TooLong
from tests.examples import examples
from tests.frontends.line.test_protocol import LineTestCase

OPTIONS = examples(400, database=None)
APPLICATIONS = KeyValue(), Chat()
DESCRIPTIONS = {description.verb: description for each in APPLICATIONS for description in each.commands}
FORMS = plain_forms(DESCRIPTIONS, APPLICATIONS)
LINE_BYTES_MAX = 1_500

plain_words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"='), min_size=1).map(
    str.encode
)
numbers = st.integers(1, 10**18 - 1).map(lambda number: b"#%d " % number)


def written(form: tuple[bytes, int], words: Sequence[bytes]) -> bytes:
    verb, count = form
    return b" ".join([verb, *words[:count]]) + b"\n"


verbs = st.sampled_from([(verb.encode(), words) for verb, words in KeyValue.plain_words.items()])
three_words = st.tuples(plain_words, plain_words, plain_words)
gaps = st.sampled_from((b" ", b"   ", b"="))
texts = st.builds(lambda words, gap: b"SAY " + gap.join(words) + b"\n", three_words, gaps)
stale_lines = st.builds(lambda word: b"GET %b read=stale\n" % word, plain_words)
linearizable_lines = st.builds(written, verbs, three_words) | texts
plain_lines = linearizable_lines | stale_lines
odd_bytes = st.sampled_from(b' \t\r\n"=#\0\x7f\xff\xc3\xa9aP')
odd_lines = st.sampled_from(
    (
        b"PUT a b",
        b"PUT a b\r\n",
        b"PUT  a b\n",
        b" PUT a b\n",
        b"put a b\n",
        b"PUT a b \n",
        b"PUT a\n",
        b"PUT a b c\n",
        b'PUT "a" b\n',
        b'PUT a b"\n',
        b"PUT a nil=b\n",
        b"GET a read=stale\n",
        b"GET read=stale\n",
        b"GET a read=sequential\n",
        b"GET a read=stale read=stale\n",
        b"PUT a read=stale\n",
        b"PUT a b read=stale\n",
        b"GET a=b\n",
        b"#0 PUT a b\n",
        b"#01 PUT a b\n",
        b"#9999999999999999999 PUT a b\n",
        b"# PUT a b\n",
        b"#1PUT a b\n",
        b"PUT " + b"k" * 1_025 + b" v\n",
        b"PUT k " + b"v" * LINE_BYTES_MAX + b"\n",
        b"PUT k \xc3\xa9\n",
        b"PUT k \xff\xff\n",
        b"SAY \n",
        b"SAY  \n",
        b"SAY\n",
        b"SAY  hello\n",
        b"SAY hello \n",
        b"SAY hello\r\n",
        b'SAY "hello"\n',
        b'SAY he said "hello"\n',
        b"SAY " + b"x " * LINE_BYTES_MAX + b"\n",
        b"LOCK a\n",
        b"\n",
    )
)


PIECE_CHARACTERS = 300
"""Maximum number of characters of lines that are submitted together in these tests."""


def by_the_parser(line: bytes) -> tuple[int | None, Command, str]:
    """The number, the command and the read level of a line, as `Conversation` makes them."""
    request = parse(line)
    description = DESCRIPTIONS[request.verb]
    parts, level = parts_of(description, request), "linearizable"
    if not description.changes:
        parts, level = read_level(parts)
    (application,) = [each for each in APPLICATIONS if request.verb in each.plain_words]
    return request.number, application.check(parts), level


def in_pieces(stream: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    ends = sorted({cut % (len(stream) + 1) for cut in cuts} | {len(stream)})
    start = 0
    for end in ends:
        if end > start:
            yield stream[start:end]
        start = end


class GrammarTests(SynchronousTestCase):
    """Plain lines are the commands that the parser would have made of each line, whatever else arrives."""

    def require_equal(self, pieces: Sequence[bytes]) -> int:
        """Feed these bytes, and compare with the parser. Returns the number of lines that were plain."""
        single, splitter = LineSplitter(LINE_BYTES_MAX), RequestSplitter(FORMS, LINE_BYTES_MAX, PIECE_CHARACTERS)
        wanted = [line for piece in pieces for line in single.feed(piece)]
        found = [request for piece in pieces for request in splitter.feed(piece)]
        plain = [each for each in found if isinstance(each, PlainLines)]
        for each in plain:
            levels = ["stale" if each.is_local else "linearizable"] * len(each.commands)
            self.assertEqual(
                [*zip(each.tags, each.commands, levels, strict=True)], [by_the_parser(line) for line in each.lines]
            )
        lines: list[bytes | TooLong] = []
        for request in found:
            lines += request.lines if isinstance(request, PlainLines) else [request]
        self.assertEqual(lines, wanted)
        return sum(len(each.commands) for each in plain)

    @OPTIONS
    @given(st.lists(st.one_of(plain_lines, plain_lines, odd_lines), max_size=12), st.lists(st.integers(0), max_size=4))
    def test_lines_of_any_kind(self, lines: list[bytes], cuts: list[int]) -> None:
        """Lines of any kind mean the same as to the parser, however the network cuts them."""
        self.require_equal([*in_pieces(b"".join(lines), cuts)])

    @OPTIONS
    @given(st.lists(plain_lines, min_size=1, max_size=5), st.lists(st.tuples(st.integers(0), odd_bytes), max_size=3))
    def test_plain_lines_with_some_bytes_changed(self, lines: list[bytes], changes: list[tuple[int, int]]) -> None:
        data = bytearray(b"".join(lines))
        for place, byte in changes:
            data[place % len(data)] = byte
        self.require_equal([bytes(data)])

    @OPTIONS
    @given(verbs, st.lists(three_words, min_size=1, max_size=9), st.none() | st.lists(numbers, min_size=9, max_size=9))
    def test_lines_of_one_verb_are_plain(
        self, verb: tuple[bytes, int], words: list[Any], numbers: list[bytes] | None
    ) -> None:
        """Lines of one verb, with command numbers and without, are all recognised as plain."""
        lines = [written(verb, each) for each in words]
        if numbers is not None:
            lines = [number + line for number, line in zip(numbers, lines, strict=False)]
        self.assertEqual(self.require_equal([b"".join(lines)]), len(lines))

    @OPTIONS
    @given(st.lists(stale_lines, min_size=1, max_size=9), st.booleans())
    def test_questions_to_this_server_are_plain(self, lines: list[bytes], are_numbered: bool) -> None:
        """Questions with read=stale are plain, also with other questions among them."""
        data = b"".join([b"#7 " + line if are_numbered else line for line in lines])
        self.assertEqual(self.require_equal([data]), len(lines))
        self.assertEqual(self.require_equal([data + b"GET a\n" + data]), 2 * len(lines) + 1)

    @OPTIONS
    @given(st.lists(linearizable_lines, min_size=1, max_size=9), odd_lines)
    def test_lines_of_several_verbs_are_plain(self, lines: list[bytes], odd: bytes) -> None:
        """A line that is not plain leaves the lines around it plain, if it ends.

        Questions with read=stale are not among them: other questions in front of the last such line are not plain.
        """
        data = b"".join(lines)
        self.assertEqual(self.require_equal([data]), len(lines))
        if odd.endswith(b"\n") and self.require_equal([odd]) == 0:
            self.assertEqual(self.require_equal([data + odd + data]), 2 * len(lines))

    def test_values_of_changes_may_look_like_options(self) -> None:
        """A value such as base64, in which an equals sign stands, is plain in a PUT, which has no options; a question
        may have read=."""
        self.assertEqual(self.require_equal([b"PUT key dmFsdWU=\nPUT read=stale b\n"]), 2)
        self.assertEqual(self.require_equal([b"GET dmFsdWU=\n"]), 0)

    def test_long_pieces_are_cut_at_line_ends(self) -> None:
        """A long piece of lines is cut at line ends, since commands that are submitted together have a maximum of
        characters."""
        found = RequestSplitter(FORMS, LINE_BYTES_MAX, 20).feed(b"PUT a b\n" * 5 + b"PUT a")
        self.assertEqual([len(each.commands) for each in found if isinstance(each, PlainLines)], [2, 2, 1])

    def test_line_above_the_limit_is_too_long_as_elsewhere(self) -> None:
        (found,) = RequestSplitter(FORMS, 300, 12_000).feed(b"PUT a " + b"b" * 300 + b"\n")
        self.assertIsInstance(found, TooLong)

    def test_many_line_ends_within_telnet_commands_do_not_nest(self) -> None:
        """Many telnet commands whose option is the byte of a line end do not make calls nest: each line ends at the
        second such byte."""
        self.assertEqual(RequestSplitter(FORMS, LINE_BYTES_MAX, 12_000).feed(b"x\xff\xfd\n\n" * 1_638), [b"x"] * 1_638)

    def test_rest_of_a_line_comes_first(self) -> None:
        """The rest of a line that the last read of the network has cut comes first, and the lines after it are plain
        again."""
        splitter = RequestSplitter(FORMS, LINE_BYTES_MAX, 12_000)
        self.assertEqual(splitter.feed(b"PUT a"), [])
        first, others = splitter.feed(b" b\nPUT c d\nPUT e f\n")
        self.assertEqual(first, b"PUT a b")
        assert isinstance(others, PlainLines)
        self.assertEqual(others.commands, [("PUT", b"c", b"d"), ("PUT", b"e", b"f")])

    def test_lines_before_the_end_of_a_read_are_recognised_once(self) -> None:
        """The whole lines before a line that a read of the network has cut are recognised once, and cost no more than
        alone."""
        checked: list[int] = []

        class Watched(KeyValue):
            def check_plain(self, verb: str, columns: Sequence[Sequence[bytes]]) -> Sequence[Command] | None:
                checked.append(len(columns[0]))
                return super().check_plain(verb, columns)

        splitter = RequestSplitter(plain_forms(DESCRIPTIONS, [Watched()]), LINE_BYTES_MAX, 12_000)
        (lines,) = splitter.feed(b"PUT a b\nPUT c d\nPUT e")
        assert isinstance(lines, PlainLines)
        self.assertEqual((len(lines.commands), checked), (2, [2]))


class FormsTests(SynchronousTestCase):
    def test_verbs_that_wait_have_none(self) -> None:
        """Verbs that may wait, such as LOCK, have no plain lines, since each is submitted alone."""

        class Loud(KeyValue):
            plain_words = MappingProxyType({"WAIT": 1, "SAY": 1, "GET": 1, "GONE": 1})

        descriptions = {
            "WAIT": CommandDescription("WAIT", "WAIT x", "", waits=True),
            "SAY": CommandDescription("SAY", "SAY x", "", rest_of_line=True),
            "GET": DESCRIPTIONS["GET"],
        }
        self.assertEqual([*plain_forms(descriptions, [Loud()])], [b"SAY", b"GET"])

    def test_applications_without_plain_commands_are_served_by_the_parser(self) -> None:
        self.assertFalse(hasattr(Lock(), "check_plain"))

    def test_key_that_is_too_long_is_left_to_the_parser(self) -> None:
        """A line whose key is too long is left to the parser, which refuses that line alone, and says why."""
        lines = b"PUT a b\nPUT " + b"k" * 1_025 + b" v\n"
        form = PlainForm(DESCRIPTIONS["PUT"], 2, KeyValue().check_plain)
        self.assertEqual(form.take(lines, 0, len(lines)), lines)


class ConnectionTests(LineTestCase):
    """Plain lines on a connection."""

    limits = Limits(session_window=4)

    def test_lines_that_arrive_together_are_submitted_together(self) -> None:
        """Plain lines that arrive together are submitted together, and each gets its reply."""
        self.assertEqual(self.ask(b"PUT a 1\nPUT b 2\nPUT c 3"), [f"OK revision={n}" for n in (1, 2, 3)])

    def test_connection_that_is_not_admitted_yet_handles_one_request(self) -> None:
        """A connection that is not admitted yet handles one request: the server has too many under way, and the first
        request of a connection may be a STATUS."""
        self.local_clients.hold = True
        self.factory.admission.requests_max = 0
        self.factory.admission.count(0)
        self.protocol.dataReceived(b"PUT a 1\nPUT b 2\n")
        self.assertEqual(self.protocol.replies.outstanding, 1)

    def test_lines_with_numbers_are_answered_with_them(self) -> None:
        """Plain lines with command numbers, as clients of named sessions send them, are answered with their numbers."""
        self.assertEqual(self.ask(b"#3 PUT a 1\n#4 PUT b 2"), ["#3 OK revision=1", "#4 OK revision=2"])
        self.assertEqual(self.ask(b"#4 PUT b 2\n#5 PUT b 2"), ["#4 OK revision=2", "#5 OK revision=3"])

    def test_questions_among_themselves_are_asked_together(self) -> None:
        """Linearizable questions are asked together, and questions to this server's own state are asked together."""
        self.ask(b"PUT a 1")
        self.assertEqual(self.ask(b"GET a\nGET a"), ['OK value="1" revision=1'] * 2)
        self.assertEqual(self.ask(b"GET a read=stale\nGET b read=stale")[0], 'OK value="1" revision=1')
        self.assertEqual(self.local_clients.connections[-1].calls[1:], ["submit 2", "ask 2"])

    def trace(self, verb: bytes, steps: Sequence[int]) -> list[Any]:
        """A list of all that shows of a new connection after each step: n lines arrive together, or -n answers come."""
        self.setUp()
        self.local_clients.hold = True
        seen: list[Any] = []
        for step in steps:
            if step > 0:
                self.protocol.dataReceived(b"".join(verb + b" k%d v\n" % place for place in range(step)))
            else:
                self.local_clients.release(-step)
            transport = self.transport
            seen.append((self.said(), transport.producerState, self.protocol.replies.outstanding))
            self.assertLessEqual(self.protocol.replies.outstanding, self.limits.session_window)
            seen.append(self.local_clients.connections[-1].submitted)
        return seen

    @examples(60, database=None)
    @given(st.lists(st.integers(-5, 7).filter(bool), max_size=12))
    def test_flow_is_that_of_lines_that_the_parser_takes(self, steps: list[int]) -> None:
        """Plain lines are handled as those that the parser takes: no more requests are under way than the window has
        room for, the others wait, and the client is not read."""
        self.assertEqual(self.trace(b"PUT", steps), self.trace(b"put", steps))

    def test_application_that_fails_to_check_lines_together_checks_them_one_by_one(self) -> None:
        """If the check of many lines by an application raises an exception, or returns a wrong number of commands, the
        lines are checked one by one, and every line gets its reply."""

        def fail(verb: str, columns: Sequence[Sequence[bytes]]) -> Sequence[Command]:
            raise KeyError(verb)

        kv = self.server.catalogue.entry("PUT").application
        self.ask(b"PING")
        for number, wrong in enumerate((fail, lambda verb, columns: [("PUT", b"a", b"1", -1, -1)], lambda *_: 7)):
            self.patch(kv, "check_plain", wrong)
            replies = self.ask(b"PUT a 1\nPUT b 2\nPUT c 3")
            self.assertEqual(replies, [f"OK revision={3 * number + n}" for n in (1, 2, 3)])
            self.assertTrue(self.flushLoggedErrors(KeyError, ValueError, TypeError))

    def test_application_that_cannot_tell_the_work_of_commands_fails_each_of_them_alone(self) -> None:
        """If an application cannot tell the work of commands, each command is refused by itself, and the connection
        goes on."""

        def fail(command: Command) -> int:
            raise KeyError(command[0])

        self.factory.verbs.work["PUT"] = fail
        replies = self.ask(b"PUT a 1\nPUT b 2\nGET a")
        self.assertEqual([reply.partition(" fate=")[0] for reply in replies], ["ERR INTERNAL"] * 2 + ["ERR NOTFOUND"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_applications_that_the_cluster_runs_no_more_have_no_plain_lines(self) -> None:
        self.assertIn(b"PUT", self.factory.verbs.plain)
        self.server.catalogue.switch([each for each in self.server.catalogue.applications if each.name != "kv"])
        self.assertNotIn(b"PUT", self.factory.verbs.plain)
        self.assertIn("ERR UNKNOWN", self.reply("PUT a b"))
