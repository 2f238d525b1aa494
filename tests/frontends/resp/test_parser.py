"""CommandParser: every command once and whole, however the network cuts it; bounded memory for other bytes."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.frontends.resp.parser import ARGUMENTS_MAX, BULK_BYTES_MAX, CommandParser, Item, Malformed, TooLarge
from tests.examples import examples

LIMIT = 100
bounded = examples(200, database=None)
arguments = st.lists(st.binary(max_size=12), min_size=1, max_size=4)


def encoded(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Divides `data` into pieces, as a network may deliver it."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


class CommandParserTests(SynchronousTestCase):
    def parse(self, *pieces: bytes) -> list[Item]:
        parser = CommandParser(LIMIT)
        items: list[Item] = []
        for piece in pieces:
            items += parser.feed(piece)
            self.assertLessEqual(parser.bytes_kept, LIMIT + 40)
        return items

    def assertMalformed(self, data: bytes, text: str) -> None:
        *_, last = self.parse(data, encoded(b"PING"))
        self.assertIsInstance(last, Malformed)
        self.assertIn(text, last.text)  # type: ignore[union-attr]

    @bounded
    @given(st.lists(arguments, max_size=5), st.lists(st.integers(0, 10_000), max_size=12))
    def test_commands_arrive_as_they_were_sent_however_they_are_cut(
        self, commands: list[list[bytes]], places: list[int]
    ) -> None:
        data = b"".join(encoded(*command) for command in commands)
        self.assertEqual(self.parse(*cut(data, places)), commands)
        self.assertEqual(self.parse(*[bytes([byte]) for byte in data]), commands)

    @bounded
    @given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=8))
    def test_noise_is_read_alike_however_it_is_cut(self, noise: bytes, places: list[int]) -> None:
        """Bytes that are no commands are read in the same way however they are cut, and never make the parser raise."""
        self.assertEqual(self.parse(*cut(noise, places)), self.parse(noise))

    @bounded
    @given(
        st.lists(st.sampled_from([b"*", b"$", b"1", b"2", b"-1", b"100", b"\r\n", b"x", b"PING"]), max_size=40),
        st.lists(st.integers(0, 10_000), max_size=8),
    )
    def test_what_looks_like_commands_is_read_alike_however_it_is_cut(
        self, tokens: list[bytes], places: list[int]
    ) -> None:
        data = b"".join(tokens)
        self.assertEqual(self.parse(*cut(data, places)), self.parse(data))

    def test_argument_may_hold_anything(self) -> None:
        """An argument may hold line ends, headers and zeros, since its length tells where it ends."""
        self.assertEqual(
            self.parse(encoded(b"SET", b"k", b"\r\n$3\r\n\x00\xff")), [[b"SET", b"k", b"\r\n$3\r\n\x00\xff"]]
        )

    def test_empty_line_and_empty_command_are_passed_over(self) -> None:
        """Empty lines, which `redis-cli --pipe` sends, and empty commands are passed over."""
        self.assertEqual(self.parse(b"\r\n*0\r\n*-1\r\n\n" + encoded(b"PING")), [[b"PING"]])

    def test_command_too_large_is_passed_over_and_the_next_one_read(self) -> None:
        """A command that is too large by one argument, by many, or by many empty ones is passed over, and the next one
        read, in one piece or byte by byte."""
        for large in (
            encoded(b"SET", b"k", b"x" * LIMIT),
            encoded(b"MSET", *[b"x" * 30] * 6),
            encoded(b"DEL", *[b""] * LIMIT),
            encoded(b"x" * 100_000, b"y"),
        ):
            data = encoded(b"PING") + large + encoded(b"ECHO", b"1")
            expected = [[b"PING"], TooLarge(), [b"ECHO", b"1"]]
            self.assertEqual(self.parse(data), expected)
            self.assertEqual(self.parse(*[bytes([byte]) for byte in data]), expected)

    def test_command_of_exactly_the_limit_is_taken(self) -> None:
        """A command of exactly the maximum length is taken; each argument counts one byte more than it has, like the
        space in a line."""
        full = [b"SET", b"k", b"x" * (LIMIT - 7)]
        self.assertEqual(self.parse(encoded(*full)), [full])
        self.assertEqual(self.parse(encoded(b"SET", b"k", b"x" * (LIMIT - 6))), [TooLarge()])

    def test_nested_array_is_refused(self) -> None:
        self.assertMalformed(b"*2\r\n*1\r\n$4\r\nPING\r\n", 'expected $ and not "*"')

    def test_what_is_no_command_is_refused_with_what_was_found(self) -> None:
        self.assertMalformed(b"?PING\r\n", 'expected * and not "?"')
        self.assertMalformed(b"*x\r\n", 'after * comes a length, and not "x"')
        self.assertMalformed(b"*1\r\n$-1\r\n", 'after $ comes a length, and not "-1"')
        self.assertMalformed(b"*1\r\n$4\r\nPINGS\r\n", "does not end where it said")
        self.assertMalformed(b"*1\r\n$" + b"1" * 31, "the length after $ does not end")
        self.assertMalformed(b"*%d\r\n" % (ARGUMENTS_MAX + 1), "arguments")
        self.assertMalformed(b"*1\r\n$%d\r\n" % (BULK_BYTES_MAX + 1), "bytes")

    def test_lengths_are_as_strict_as_in_redis(self) -> None:
        """A length that is written in another form than in Redis is refused: the bytes are probably no command."""
        for number in (b"01", b"+1", b"-0", b" 1", b"1 ", b"", b"0x1", b"1_0", b"\xb2", b"11111111111"):
            self.assertMalformed(b"*%b\r\n" % number, "after * comes a length")
            self.assertMalformed(b"*1\r\n$%b\r\n" % number, "after $ comes a length")
        self.assertMalformed(b"*1\r\n$-10\r\n", "after $ comes a length")
        self.assertEqual(self.parse(b"*-10\r\n" + encoded(b"PING")), [[b"PING"]])

    def test_line_may_be_a_command_that_touches_no_key(self) -> None:
        """A line may be a command that touches no key, such as the PING of health checks."""
        self.assertEqual(
            self.parse(b"PING\r\n" + encoded(b"GET", b"k") + b"ping a  b \nQuit\r\n"),
            [[b"PING"], [b"GET", b"k"], [b"ping", b"a", b"b"], [b"Quit"]],
        )
        for line in (b"SET k v", b"POST / HTTP/1.1", b"Host: x", b"PINGS", b"PING" + b" x" * LIMIT):
            data = line + b"\r\n" + encoded(b"SET", b"k", b"v")
            (only,) = self.parse(data)
            self.assertIn("cannot be typed as a line", getattr(only, "text", ""))
            self.assertEqual(self.parse(*[bytes([byte]) for byte in data]), [only])

    def test_nothing_is_read_after_what_is_no_command(self) -> None:
        """Behind bytes that are no command nothing is read, since it is unknown where the next command begins."""
        items = self.parse(encoded(b"PING") + b"?" + encoded(b"SET", b"k", b"v"), encoded(b"PING"))
        self.assertEqual([type(item) for item in items], [list, Malformed])
