"""Patterns of KEYS as ranges, and cursors of SCAN as numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.resp.patterns import CURSORS_MAX, Cursors, range_of

texts = st.text(st.sampled_from(["a", "b", "\\", "\x01", "\ud7ff", "\ue000", "\U0010fffe", "\U0010ffff"]), max_size=4)


def is_in(key: str, bounds: tuple[str, str]) -> bool:
    first, end = (bound.encode() for bound in bounds)
    return first <= key.encode() and (not end or key.encode() < end)


class PatternTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None, database=None)
    @given(texts, texts)
    def test_range_holds_what_matches_and_nothing_else(self, prefix: str, key: str) -> None:
        """Keys are in the order of their bytes, up to the last character of Unicode and across the surrogates."""
        escaped = prefix.replace("\\", "\\\\")
        self.assertEqual(is_in(key, range_of(f"{escaped}*")), key.startswith(prefix))
        self.assertEqual(is_in(key, range_of(escaped)), key == prefix)
        self.assertTrue(is_in(prefix + key, range_of(f"{escaped}*")))

    def test_backslash_takes_the_meaning_from_what_follows(self) -> None:
        self.assertTrue(is_in("a*b", range_of(r"a\*b")))
        self.assertFalse(is_in("ab", range_of(r"a\*b")))

    def test_other_patterns_are_refused(self) -> None:
        for pattern in ("*a", "a*b", "a?", "[ab]", "a**", "a\\"):
            self.assertRaises(BadRequest, range_of, pattern)


class CursorTests(SynchronousTestCase):
    def test_cursor_leads_back_to_its_key(self) -> None:
        cursors = Cursors()
        numbers = [cursors.cursor_at(key) for key in "abc"]
        self.assertEqual([cursors.key_of(str(number)) for number in numbers], list("abc"))
        self.assertEqual(len({*numbers, 0}), 4)

    def test_old_cursors_are_forgotten_and_refused(self) -> None:
        cursors = Cursors()
        first = cursors.cursor_at("a")
        for _ in range(CURSORS_MAX):
            cursors.cursor_at("b")
        for cursor in (str(first), "x", "-1", "9" * 30, "\u0661", ""):
            self.assertRaises(BadRequest, cursors.key_of, cursor)
