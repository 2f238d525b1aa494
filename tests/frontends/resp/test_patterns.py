"""Patterns of KEYS as ranges, and cursors of SCAN as numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.arguments import key_bytes_max
from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.resp.patterns import CURSORS_MAX, Cursors, range_of
from tests.examples import examples

parts = st.sampled_from([b"a", b"b", b"\\", b"\0", b"\x01", b"\xed\x9f\xbf", b"\xfe", b"\xff"])
keys = st.lists(parts, max_size=4).map(b"".join)


def is_in(key: bytes, bounds: tuple[bytes, bytes]) -> bool:
    first, end = bounds
    return first <= key and (not end or key < end)


class PatternTests(SynchronousTestCase):
    @examples(300, database=None)
    @given(keys, keys)
    def test_range_holds_what_matches_and_nothing_else(self, prefix: bytes, key: bytes) -> None:
        """The range of a pattern holds the keys that match it and no others; keys are in the order of their bytes."""
        escaped = prefix.replace(b"\\", b"\\\\")
        if key:
            self.assertEqual(is_in(key, range_of(escaped + b"*")), key.startswith(prefix))
            self.assertEqual(is_in(key, range_of(escaped)), key == prefix)
        self.assertTrue(is_in(prefix + key, range_of(escaped + b"*")))

    def test_backslash_takes_the_meaning_from_what_follows(self) -> None:
        """A backslash in a pattern makes the next character an ordinary one; at the end it stands for itself, as in
        Redis."""
        self.assertTrue(is_in(b"a*b", range_of(rb"a\*b")))
        self.assertFalse(is_in(b"ab", range_of(rb"a\*b")))
        self.assertTrue(is_in(b"a\\", range_of(b"a\\")))

    def test_several_asterisks_are_one(self) -> None:
        self.assertEqual(range_of(b"a***"), range_of(b"a*"))

    def test_bounds_are_no_longer_than_keys_may_be(self) -> None:
        """The ends of a range are no longer than keys may be: longer ones would be refused."""
        for last in (b"x", b"\xff"):
            longest = b"x" * (key_bytes_max - 1) + last
            for pattern in (longest, longest + b"*", longest + b"x", longest + b"x*"):
                bounds = range_of(pattern)
                self.assertLessEqual(max(map(len, bounds)), key_bytes_max)
                self.assertEqual(is_in(longest, bounds), longest + b"x" not in pattern)
        self.assertFalse(is_in(b"\xff" * (key_bytes_max - 1), range_of(b"\xff" * key_bytes_max)))

    def test_other_patterns_are_refused(self) -> None:
        for pattern in (b"*a", b"a*b", b"a?", b"[ab]"):
            self.assertRaises(BadRequest, range_of, pattern)


class CursorTests(SynchronousTestCase):
    def test_cursor_leads_back_to_its_key(self) -> None:
        cursors = Cursors()
        names = [b"a", b"\xff", b"c"]
        numbers = [cursors.cursor_at(key) for key in names]
        self.assertEqual([cursors.key_of(b"%d" % number) for number in numbers], names)
        self.assertEqual(len({*numbers, 0}), 4)

    def test_old_cursors_are_forgotten_and_refused(self) -> None:
        cursors = Cursors()
        first = cursors.cursor_at(b"a")
        for _ in range(CURSORS_MAX):
            cursors.cursor_at(b"b")
        for cursor in (b"%d" % first, b"x", b"-1", b"9" * 30, b"\xb2", b""):
            self.assertRaises(BadRequest, cursors.key_of, cursor)
