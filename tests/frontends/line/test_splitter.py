"""LineSplitter: cuts a stream into lines, in bounded memory, without telnet's negotiation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.frontends.line.splitter import Endless, LineSplitter, TooLong
from tests.examples import examples

NEGOTIATIONS = [b"\xff\xfd\x01", b"\xff\xfb\x18", b"\xff\xfa\x1f\x00\x0a\x00\xff\xff\xff\xf0", b"\xff\xf1", b"\xff\xf4"]


def lines(*chunks: bytes, most: int = 100) -> list[bytes | TooLong]:
    splitter = LineSplitter(most)
    return [line for chunk in chunks for line in splitter.feed(chunk)]


class SplittingTests(SynchronousTestCase):
    def test_lf_and_crlf_both_end_a_line(self) -> None:
        self.assertEqual(lines(b"PING\nQUIT\r\nPI"), [b"PING", b"QUIT"])

    @given(st.lists(st.binary(max_size=20).map(lambda b: b.translate(None, b"\r\n\xff"))), st.data())
    @examples(100)
    def test_lines_do_not_depend_on_how_the_stream_was_cut(self, wanted: list[bytes], data: st.DataObject) -> None:
        """The lines do not depend on how the network has cut the stream; telnet negotiation between and within lines is
        left out (RFC 854)."""
        stream = b"".join(data.draw(st.sampled_from([b"", *NEGOTIATIONS])) + line + b"\r\n" for line in wanted)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self.assertEqual(lines(*chunks), wanted)

    @given(
        st.lists(st.tuples(st.binary(max_size=130), st.sampled_from([b"\n", b"\r\n", b"\r\0"])), max_size=8),
        st.lists(st.integers(0), max_size=8),
    )
    @examples(200)
    def test_cr_nul_ends_a_line_like_the_others(self, given: list[tuple[bytes, bytes]], places: list[int]) -> None:
        """CR NUL ends a line as LF and CR LF do, wherever the network cuts the stream, also behind a line that is too
        long."""
        clean = [(line.translate(None, b"\r\n\0\xff"), end) for line, end in given]
        stream = b"".join(line + end for line, end in clean)
        cuts = sorted(place % (len(stream) + 1) for place in places)
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        wanted = [line if len(line) <= 100 else TooLong(line[:32]) for line, _ in clean]
        self.assertEqual(lines(*chunks), wanted)

    def test_nul_elsewhere_ends_nothing(self) -> None:
        self.assertEqual(lines(b"a\0b\r", b"\n\0c\n"), [b"a\0b", b"\0c"])

    def test_negotiation_inside_a_line_is_taken_out(self) -> None:
        for negotiation in NEGOTIATIONS:
            self.assertEqual(lines(b"PI" + negotiation + b"NG\n"), [b"PING"])

    def test_escaped_iac_stays_in_the_line(self) -> None:
        self.assertEqual(lines(b"a\xff\xffb\n"), [b"a\xffb"])

    def test_subnegotiation_without_end_does_not_swallow_for_ever(self) -> None:
        self.assertEqual(lines(b"\xff\xfa" + b"x" * 5_000 + b"\n", b"PING\n", most=10_000)[-1], b"PING")


class TooLongTests(SynchronousTestCase):
    def test_line_of_exactly_the_limit_passes(self) -> None:
        for end in (b"\n", b"\r\n"):
            self.assertEqual(lines(b"x" * 100 + end), [b"x" * 100])
            self.assertEqual(lines(*[b"x"] * 100, *[end[i : i + 1] for i in range(len(end))]), [b"x" * 100])

    def test_line_above_the_limit_is_one_too_long_however_it_arrives(self) -> None:
        long = b"#7 PUT " + b"x" * 100
        for chunks in ([long + b"\nPING\n"], [long[:50], long[50:], b"\nPING\n"], [long, b"yy", b"\n", b"PING\n"]):
            self.assertEqual(lines(*chunks), [TooLong(long[:32]), b"PING"])

    def test_ten_megabytes_without_end_are_not_kept(self) -> None:
        splitter = LineSplitter(32_768)
        found = [line for _ in range(15) for line in splitter.feed(b"x" * 65_536)]
        self.assertEqual(found, [TooLong(b"x" * 32)])
        self.assertEqual(splitter.bytes_kept, 0)
        self.assertEqual(splitter.feed(b"\nPING\n"), [b"PING"])
        found = [line for _ in range(160) for line in splitter.feed(b"x" * 65_536)]
        self.assertEqual(found, [TooLong(b"x" * 32), Endless()])
        self.assertEqual(splitter.bytes_kept, 0)
        self.assertEqual(splitter.feed(b"\nPING\n"), [])
