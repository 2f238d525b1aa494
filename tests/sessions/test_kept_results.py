"""Kept results as entries of a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, DoneGrowing, GrowingBytes, Refused, Result, RunResults, Word
from pfsb.paxos.snapshot_rows import RowReader, packed
from pfsb.sessions.kept_results import Entry, decoded_value, entries_of, put
from pfsb.sessions.reply_cache import Page, ReplyCache

SOME_GROWING = GrowingBytes(b"y" * 50)
numbers = st.integers(-(2**80), 2**80) | st.integers(0, 9) | st.booleans()
texts = st.text(st.characters(codec=None), max_size=5)
values = numbers | texts | st.binary(max_size=5) | st.sampled_from(("yes", "no")).map(Word)
fields = st.lists(st.tuples(st.sampled_from(("a", "b", "revision")), values), max_size=3).map(tuple)
others = st.one_of(
    st.builds(Done, fields, st.lists(fields, max_size=2).map(tuple)),
    st.builds(Refused, st.just("CONFLICT"), texts, st.sampled_from(("none", "unknown"))),
    st.integers(0, 50).map(lambda size: DoneGrowing((("value", b"y" * size), ("revision", 7)), SOME_GROWING)),
)
runs = st.builds(
    lambda count, revision, counters: RunResults.of(range(revision, revision + count), counters),
    st.integers(1, 9),
    st.integers(0, 3),
    st.sampled_from(((), (), (("index", 0),), (("index", 2**70),))),
)
parts = st.lists(st.tuples(st.integers(0, 1), runs | runs | others), min_size=1, max_size=12)
"""(the numbers that are left out before it, a run or a result)"""


def typed(result: Any) -> Any:
    """A result with the types of its values, since True equals 1, and a `Word` a text."""
    if not isinstance(result, Done):
        return result
    return [[(name, type(value), value) for name, value in row] for row in (result.fields, *result.rows)]


def entries(page: Page) -> list[Entry]:
    return [entry for entry, _ in entries_of(page.results, len(page.results), {id(SOME_GROWING): 0})]


class EntriesTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None, database=None)
    @given(parts, st.lists(st.integers(1, 5), max_size=30))
    def test_entries_do_not_depend_on_how_results_are_kept(
        self, parts: list[tuple[int, Sequence[Result] | Result]], lengths: list[int]
    ) -> None:
        """The entries of a snapshot do not depend on whether results are kept one by one, in the runs in which they
        came, or in parts of those; and restored results are the same."""
        one_by_one, in_runs, in_parts = (ReplyCache(10_000) for _ in range(3))
        number = 1
        for gap, part in parts:
            number += gap
            if not isinstance(part, RunResults):
                for cache in (one_by_one, in_runs, in_parts):
                    cache.keep(number, part)  # type: ignore[arg-type]
                number += 1
                continue
            in_runs.keep_run(number, part)
            cuts = iter([*lengths, *[len(part)] * len(part)])
            at = 0
            while at < len(part):
                end = at + next(cuts)
                in_parts.keep_run(number + at, part[at:end])
                at = end
            for each in part:
                one_by_one.keep(number, each, dict(each.fields)["revision"])  # type: ignore[arg-type]
                number += 1
        expected = entries(one_by_one.page)
        self.assertEqual([entries(in_runs.page), entries(in_parts.page)], [expected, expected])
        reader = RowReader(decoded_value)
        (read,) = reader.rows(packed(expected))
        growing = GrowingBytes(SOME_GROWING.data)
        restored = ReplyCache(10_000).page
        for entry in read:
            put(restored, entry, [growing])
        all_numbers = range(number + 1)
        self.assertEqual([typed(restored.get(n)) for n in all_numbers], [typed(one_by_one.get(n)) for n in all_numbers])
        self.assertEqual([*restored.numbers], [*one_by_one.page.numbers])
        self.assertEqual((len(restored), restored.has_beginnings), (len(one_by_one), one_by_one.page.has_beginnings))
        self.assertEqual(restored.entries_max - len(restored.results), 2_500 - len(restored))
        SOME_GROWING.kept = growing.kept = 0

    def test_results_that_came_later_are_left_out(self) -> None:
        """Results that a page has got after its state was frozen are left out."""
        cache = ReplyCache(100)
        for number in range(1, 9):
            cache.keep_revision(number, 3 * number)
        self.assertEqual([entry for entry, _ in entries_of(cache.page.results, 5, {})], [(0, 1, [3, 6, 9, 12, 15])])

    def test_few_runs_are_told_as_runs(self) -> None:
        """The results of a client that pipelines are told as few runs: ten thousand of them take a few bytes."""
        cache = ReplyCache(100_000)
        cache.keep_run(1, RunResults(range(5, 5_005)))
        cache.keep_run(5_001, RunResults(range(9_000, 14_000)))
        self.assertEqual(entries(cache.page), [(1, [1, 5_000, 5, 5_001, 5_000, 9_000])])

    def test_numbers_with_gaps_are_told(self) -> None:
        cache = ReplyCache(100)
        for number in (1, 2, 5, 6, 9):
            cache.keep_revision(number, number + 100)
        self.assertEqual(entries(cache.page), [(1, [1, 2, 101, 5, 2, 105, 9, 1, 109])])

    def test_unknown_types_are_refused(self) -> None:
        self.assertRaises(ValueError, decoded_value, 7, b"")
