"""The grammar of docs/protocol.rst: which lines are requests, and how values look in replies."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.arguments import Data, Quoted
from pfsb.applications.interfaces import BadRequest, Done, Event, Refused, RunResults, Word
from pfsb.frontends.line.grammar import BadLine, Request, number_of, parse, quote, render, render_event, render_run
from pfsb.support.limits import NUMBER_MAX
from tests.examples import examples

any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
words = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=' "'), min_size=1)
arguments = st.lists(st.one_of(words, any_text.map(Quoted)))


def written(argument: str) -> str:
    return json.dumps(argument) if isinstance(argument, Quoted) else argument


class ParsingTests(SynchronousTestCase):
    def test_number_verb_and_words_are_taken_apart(self) -> None:
        """A line is split into number, verb and words: `request = [ "#" number SP ] verb *( SP arg )`, with verbs in
        any case."""
        request = parse(b"#17  put colour  blue ")
        self.assertEqual((request.number, request.verb, request.args), (17, "PUT", ("colour", "blue")))

    def test_line_without_number_has_none(self) -> None:
        self.assertEqual(parse(b"PING"), Request(None, "PING", ""))

    def test_string_literal_arrives_as_quoted_text(self) -> None:
        """A string literal is a text (`arg = word | JSON string literal`): a quoted nil is a text, and a bare one a
        keyword."""
        old, new = parse(b'CAS "nil" "a\\n\\u00e9 b"').args
        self.assertIsInstance(old, Quoted)
        self.assertEqual((old, new), ("nil", "a\né b"))

    def test_words_may_hold_any_printable_utf8(self) -> None:
        self.assertEqual(parse("PUT größe 👍🏽\u3000x".encode()).args, ("größe", "👍🏽\u3000x"))

    @given(st.one_of(st.none(), st.integers(1, NUMBER_MAX)), arguments)
    @examples(200)
    def test_every_written_request_is_read_back(self, number: int | None, args: list[str]) -> None:
        """Arguments that a program writes by the grammar arrive unchanged, literals as literals and words as words."""
        line = " ".join([*([f"#{number}"] if number else []), "VERB", *map(written, args)])
        request = parse(line.encode())
        self.assertEqual((request.number, request.verb), (number, "VERB"))
        self.assertEqual(
            [(str(a), isinstance(a, Quoted)) for a in request.args], [(str(a), isinstance(a, Quoted)) for a in args]
        )

    @given(st.binary(max_size=60))
    @examples(300)
    def test_noise_is_a_request_or_a_bad_request_and_nothing_else(self, line: bytes) -> None:
        try:
            request = parse(line)
            self.assertTrue(request.verb.isupper())
            self.assertIsInstance(request.args, tuple)
        except BadRequest as error:
            self.assertTrue(str(error))

    def test_rest_of_line_is_text_with_its_spaces_and_quotes(self) -> None:
        """SAY takes the rest of the line as text, with its spaces; a lone quote in it is a character."""
        self.assertEqual(parse(b"SAY  it's 5\" long,  isn't it").text, "it's 5\" long,  isn't it")

    def test_rest_of_line_that_is_one_string_is_what_the_string_says(self) -> None:
        self.assertEqual(parse(b'SAY "two\\nlines"').text, "two\nlines")

    def test_rest_of_line_that_only_begins_with_a_string_is_text(self) -> None:
        self.assertEqual(parse(b'SAY "yes" she said').text, '"yes" she said')

    def test_missing_rest_of_line_is_none(self) -> None:
        self.assertIsNone(parse(b"SAY ").text)

    def test_tab_between_words_counts_as_space(self) -> None:
        self.assertEqual(parse(b"PUT\tcolour\tblue").args, ("colour", "blue"))


class BadLineTests(SynchronousTestCase):
    def refused(self, line: bytes) -> BadRequest:
        with self.assertRaises(BadRequest) as caught:
            _ = parse(line).args
        return caught.exception

    def test_invalid_utf8_is_refused_with_its_place(self) -> None:
        self.assertIn("byte 5 of the line is not UTF-8", str(self.refused(b"PUT \xc3( x")))

    def test_encoded_surrogate_is_refused(self) -> None:
        """Half of a surrogate pair in UTF-8 is refused (RFC 3629, section 3)."""
        self.assertIn("not UTF-8", str(self.refused("PUT a \ud800".encode("utf-8", "surrogatepass"))))

    def test_lone_surrogate_in_a_string_is_refused(self) -> None:
        self.assertIn("surrogate", str(self.refused(b'PUT a "\\ud800"')))

    def test_lone_surrogate_in_the_rest_of_the_line_is_refused(self) -> None:
        with self.assertRaises(BadRequest):
            _ = parse(b'SAY "\\ud800"').text

    def test_half_of_a_surrogate_pair_that_stands_for_a_byte(self) -> None:
        """U+DC80 to U+DCFF in a literal stand for the bytes 80 to ff, even if these bytes are those of a text."""
        for literal, data in (
            (b'"\\udcff"', b"\xff"),
            (b'"\\udc80"', b"\x80"),
            (b'"\\udcc3\\udca9"', "\u00e9".encode()),
            (b'"\\u0000"', b"\0"),
            (b'"\\ud83d\\udc4d\\udc4d"', None),
            (b'"\\udc7f"', None),
            (b'"\\udd00"', None),
        ):
            if data is None:
                self.assertIn("surrogate", str(self.refused(b"PUT a " + literal)))
            else:
                _, value = parse(b"PUT a " + literal).args
                self.assertEqual(getattr(value, "data", None), data)

    def test_surrogate_pair_in_a_string_is_one_character(self) -> None:
        self.assertEqual(parse(b'PUT a "\\ud83d\\udc4d"').args, ("a", "👍"))

    def test_control_character_is_refused(self) -> None:
        self.assertIn("U+0007", str(self.refused(b"PUT a b\x07")))

    def test_unterminated_string_is_refused(self) -> None:
        self.assertIn("not a JSON string", str(self.refused(b'PUT a "blue')))

    def test_string_glued_to_what_follows_is_refused(self) -> None:
        self.assertIn("a space is missing", str(self.refused(b'PUT "a"b c')))

    def test_quote_inside_a_word_is_refused(self) -> None:
        self.assertIn("quote inside the word", str(self.refused(b'PUT a b"c"')))

    def test_numbers_out_of_range_are_refused(self) -> None:
        for line in (b"#0 PING", b"#-1 PING", b"#x PING", b"#1x PING", b"# PING", b"#9223372036854775808 PING"):
            self.assertIn("command number", str(self.refused(line)))

    def test_number_without_verb_is_refused_and_keeps_its_number(self) -> None:
        with self.assertRaises(BadLine) as caught:
            parse(b"#12")
        self.assertEqual(caught.exception.number, 12)

    def test_number_is_read_from_the_worst_of_lines(self) -> None:
        """The reply to a bad line carries its command number, so that a program can match it."""
        self.assertEqual(number_of(b"#12 PUT \xff\xfe"), 12)
        self.assertIsNone(number_of(b"PUT #12"))


class RenderingTests(SynchronousTestCase):
    def test_ints_and_words_are_bare_and_users_text_is_quoted(self) -> None:
        result = Done((("name", "x"), ("token", 5), ("state", Word("REG_LEADER"))))
        self.assertEqual(render(3, result), b'#3 OK name="x" token=5 state=REG_LEADER\n')

    def test_bytes_are_shown_as_the_text_that_they_are(self) -> None:
        """Keys and values, which are bytes, are shown as text; bytes that do not decode are shown as halves of
        surrogate pairs."""
        result = Done((("value", "h\u00e9\n".encode()), ("next", b"\xff1")))
        self.assertEqual(render(3, result), '#3 OK value="h\u00e9\\n" next="\\udcff1"\n'.encode())

    @given(st.binary(max_size=40))
    @examples(300)
    def test_bytes_are_read_as_they_were_shown(self, data: bytes) -> None:
        """Every reply to GET is one line of UTF-8, and its value in a PUT means the same bytes."""
        line = render(None, Done((("value", data),))).removeprefix(b"OK value=").removesuffix(b"\n")
        self.assertEqual(line.decode().splitlines(), [line.decode()])
        self.assertEqual(json.loads(line).encode(errors="surrogateescape"), data)
        _, argument = parse(b"PUT a " + line).args
        self.assertIsInstance(argument, Quoted)
        self.assertEqual(argument.data if isinstance(argument, Data) else argument.encode(), data)

    def test_rows_come_before_ok_each_with_the_number(self) -> None:
        result = Done((("count", 2),), ((("key", "a"),), (("key", "b"),)))
        self.assertEqual(render(9, result), b'#9 +key="a"\n#9 +key="b"\n#9 OK count=2\n')

    def test_reply_without_number_has_no_prefix(self) -> None:
        self.assertEqual(render(None, Done()), b"OK\n")

    def test_refusal_names_code_fate_and_text(self) -> None:
        self.assertEqual(render(1, Refused("HELD", "by bob")), b"#1 ERR HELD fate=none by bob\n")

    def test_refusal_stays_on_one_line(self) -> None:
        self.assertEqual(render(None, Refused("X", "a\nb")).count(b"\n"), 1)

    def test_nameless_field_is_its_value_alone(self) -> None:
        self.assertEqual(render(None, Done(rows=((("", Word('{"a": 1}')),),))), b'+{"a": 1}\nOK\n')

    def test_event_is_a_starred_line(self) -> None:
        event = Event("CHAT", (("index", 1), ("text", "hé\n")))
        self.assertEqual(render_event(event), '* CHAT index=1 text="hé\\n"\n'.encode())

    @given(st.lists(st.none() | st.integers(1, NUMBER_MAX), min_size=1), st.integers(0, 2**62))
    @examples(100)
    def test_replies_to_a_run_are_those_to_each_of_its_commands(self, numbers: list[int | None], first: int) -> None:
        """The bytes of replies to a run are those of the replies to each command, with command numbers, without, and
        with some; also with further fields of any names."""
        for each in (numbers, [None] * len(numbers), [number or 7 for number in numbers]):
            for counters in ((), (("index", 5),), (("", 0), ("100%d", -3))):
                results = RunResults.of(range(first, first + len(each)), counters)
                self.assertEqual(render_run(each, results), b"".join(map(render, each, results)))

    @given(st.text())
    @examples(300)
    def test_any_text_is_quoted_on_one_line_and_means_itself(self, text: str) -> None:
        """`quote` writes any text on one line, and it is read back as it was: JSON alone would leave half surrogates
        and the line ends of Unicode."""
        literal = quote(text)
        self.assertEqual(literal.splitlines(), [literal])
        literal.encode()
        self.assertEqual(json.loads(literal), text)
