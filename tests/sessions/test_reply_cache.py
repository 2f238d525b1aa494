"""ReplyCache: the results that a session keeps."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, Refused, Word
from pfsb.sessions.reply_cache import CHARACTERS_MAX, ReplyCache, size_of


class KeptAnswersTests(SynchronousTestCase):
    def test_as_many_as_promised_are_kept_and_a_quarter_more_at_most(self) -> None:
        """The limits hold for any number of commands."""
        for answers_max in (1, 2, 3, 4, 7, 128):
            kept = ReplyCache(answers_max)
            for number in range(1, 4 * answers_max + 10):
                kept.keep(number, Done())
                self.assertEqual(kept.numbers, list(range(kept.forgotten + 1, number + 1)))
                self.assertEqual(len(kept), len(kept.numbers))
                self.assertGreaterEqual(len(kept), min(number, answers_max))
                self.assertLessEqual(len(kept), answers_max + answers_max // 4 + 1)

    def test_answer_is_found_by_its_number(self) -> None:
        """A LOCK that is granted late has its result after those of commands with higher numbers."""
        kept = ReplyCache(4)
        for number in (1, 5, 6, 2):
            kept.keep(number, Refused("HELD", f"number {number}"))
        self.assertEqual(kept.get(2), Refused("HELD", "number 2"))
        self.assertEqual([kept.get(number) for number in (3, 7)], [None, None])

    def test_answer_that_is_only_a_revision_is_given_back_whole(self) -> None:
        """A result that is only a revision is kept as an integer, and no other result is mistaken for one."""
        kept = ReplyCache(128)
        answers = [
            Done((("revision", 7),)),
            Done((("revision", 7),), ((),)),
            Done((("revision", 7), ("token", 7))),
            Done((("token", 7),)),
            Done((("revision", 7.0),)),  # type: ignore[arg-type]
            Done((("revision", Word("7")),)),
            Done((("revision", 8),)),
            Done(),
        ]
        told = [kept.keep(number, answer, 7) for number, answer in enumerate(answers, start=1)]
        self.assertEqual(told, [True] + [False] * 7)
        found = [kept.get(number) for number in range(1, 1 + len(answers))]
        self.assertEqual([repr(one) for one in found], [repr(one) for one in answers])
        page = kept._page.results
        self.assertEqual([number for number, result in page.items() if not gc.is_tracked(result)], [1])

    def test_forgotten_is_the_highest_number_that_went(self) -> None:
        """Results come out of order, so a lower number may be forgotten after a higher one."""
        kept = ReplyCache(1)
        for number in (9, 2, 3):
            kept.keep(number, Done())
        self.assertEqual((kept.forgotten, kept.numbers), (9, [3]))

    def test_large_answers_push_out_earlier_ones(self) -> None:
        """Results are counted in characters; the newest is kept whatever its size, and forgotten ones count no more."""
        kept = ReplyCache(8)
        for number in range(1, 60):
            kept.keep(number, Done((("value", "x" * (number * 20_000)),), ((("key", "k"),),)))
            characters = sum(size_of(kept.get(n) or Done()) for n in kept.numbers)
            self.assertIn(number, kept.numbers)
            self.assertTrue(characters <= 1.25 * CHARACTERS_MAX or kept.numbers == [number], characters)
        self.assertEqual(kept.forgotten, 58)


class SizeTests(SynchronousTestCase):
    def test_text_counts_and_numbers_do_not(self) -> None:
        """The measure is characters of text, which are equal on every server."""
        rows = ((("key", "ab"),), (("key", "c"), ("revision", 7)))
        self.assertEqual(size_of(Done((("value", "xyz"), ("revision", 123456)))), 3)
        self.assertEqual(size_of(Done((), rows)), 3)
        self.assertEqual(size_of(Refused("HELD", "by bob")), 6)
