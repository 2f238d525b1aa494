"""ReplyCache: the results that a session keeps."""

from __future__ import annotations

import gc
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, DoneGrowing, GrowingBytes, Refused, RunResults, Word
from pfsb.sessions.reply_cache import BYTES_MAX, ENTRY_BYTES, Beginning, KeptReplies, ReplyCache, size_of


class KeptAnswersTests(SynchronousTestCase):
    def test_as_many_as_promised_are_kept_and_a_quarter_more_at_most(self) -> None:
        """The reply cache keeps as many results as promised, and a quarter more at most, after any number of
        commands."""
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
            Done((("revision", Word("7")),)),
            Done((("revision", 8),)),
            Done(),
        ]
        told = [kept.keep(number, answer, 7) for number, answer in enumerate(answers, start=1)]
        self.assertEqual(told, [True] + [False] * 6)
        found = [kept.get(number) for number in range(1, 1 + len(answers))]
        self.assertEqual([repr(one) for one in found], [repr(one) for one in answers])
        page = kept.page.results
        self.assertEqual([number for number, result in page.items() if not gc.is_tracked(result)], [1])

    def test_what_no_client_can_be_told_is_not_kept(self) -> None:
        """A result with the float 1.0, or with a line end in the name of a field, cannot be printed as a line of a
        reply; the cache refuses it."""
        kept = ReplyCache(128)
        for wrong in (Done((("revision", 7.0),)), Done((("a\n", 7),)), Done((), ((("a\n", 7),),))):  # type: ignore[arg-type]
            self.assertRaises(ValueError, kept.keep, 1, wrong, 7)
        self.assertEqual(len(kept), 0)

    def test_forgotten_is_the_highest_number_that_went(self) -> None:
        """Results come out of order, so a lower number may be dropped after a higher one; `forgotten` stays at the
        higher."""
        kept = ReplyCache(1)
        for number in (9, 2, 3):
            kept.keep(number, Done())
        self.assertEqual((kept.forgotten, kept.numbers), (9, [3]))

    def test_large_answers_push_out_earlier_ones(self) -> None:
        """Results are counted in bytes; the newest result is kept whatever its size, and dropped ones count no more."""
        kept = ReplyCache(8)
        for number in range(1, 60):
            kept.keep(number, Done((("value", "\u00e9" * (number * 10_000)),), ((("key", "k"),),)))
            size = sum(size_of(kept.get(n) or Done()) for n in kept.numbers)
            self.assertIn(number, kept.numbers)
            self.assertTrue(size <= 1.25 * BYTES_MAX or kept.numbers == [number], size)
        self.assertEqual(kept.forgotten, 58)

    def test_limits_that_change_hold_from_the_next_result_on(self) -> None:
        """Changed limits hold from the next result on, also for the page to which results are being added."""
        kept = ReplyCache(100)
        for number in range(1, 20):
            kept.keep(number, Done())
        kept.set_limits(8, BYTES_MAX)
        for number in range(20, 40):
            kept.keep(number, Done())
        self.assertEqual(kept.numbers, [*range(31, 40)])
        kept.set_limits(40, BYTES_MAX)
        kept.keep_run(40, RunResults(range(7, 15)))
        self.assertEqual(len(kept.page), 9)

    def test_limit_of_a_session_counts_results_without_text_too(self) -> None:
        """Each result of a full page counts 64 bytes, so a session keeps few of them if its limit is low."""
        kept = ReplyCache(100, bytes_max=5_000)
        for number in range(1, 200):
            kept.keep(number, Done((("revision", number),)))
        self.assertLessEqual(len(kept), 5_000 // ENTRY_BYTES + 25)
        self.assertIn(199, kept.numbers)


class GrowingBytesTests(SynchronousTestCase):
    """Results that are beginnings of one value, as APPEND answers."""

    def setUp(self) -> None:
        self.growing = GrowingBytes()
        self.kept = KeptReplies()

    def cache(self, answers_max: int = 4) -> ReplyCache:
        return ReplyCache(answers_max, kept=self.kept)

    def append(self, cache: ReplyCache, number: int, data: bytes) -> DoneGrowing:
        longer = self.growing.data = self.growing.data + data
        result = DoneGrowing((("value", longer), ("revision", number)), growing=self.growing)
        cache.keep(number, result)
        return result

    def test_each_result_is_given_back_as_it_was(self) -> None:
        """A result stays as it was when the value has grown in the meantime, whatever its bytes, also half of a
        character in UTF-8."""
        cache = self.cache(100)
        results = [self.append(cache, number, data) for number, data in enumerate((b"ab", b"\xc3\xff", b"", b"z"), 1)]
        self.assertEqual([cache.get(number) for number in (1, 2, 3, 4)], results)
        self.assertEqual(cache.get(2), DoneGrowing((("value", b"ab\xc3\xff"), ("revision", 2))))

    def test_value_counts_once_for_all_sessions(self) -> None:
        """Many results that are beginnings of one value take no more memory than the longest of them, and the overhead
        of each full page."""
        caches = [self.cache(1_000) for _ in range(50)]
        for number in range(1, 11):
            for cache in caches:
                self.append(cache, number, b"x" * 100)
        self.assertEqual(self.kept.size, 50 * 10 * 100)

    def test_value_counts_until_its_last_beginning_is_dropped(self) -> None:
        """A session that has ended lets go of its results, but not of a value that another session's result needs."""
        first, second = self.cache(1_000), self.cache(1_000)
        self.append(first, 1, b"x" * 100)
        self.append(second, 1, b"y")
        self.assertEqual((self.kept.size, self.growing.kept), (101, 2))
        first.drop_all()
        self.assertEqual((self.kept.size, self.growing.kept), (101, 1))
        second.drop_all()
        self.assertEqual((self.kept.size, self.growing.kept, self.growing.counted), (0, 0, 0))

    def test_value_that_is_kept_anew_counts_whole(self) -> None:
        """When all beginnings of a value were dropped, the next one counts with all its bytes."""
        first, second = self.cache(), self.cache(1_000)
        self.append(first, 1, b"x" * 100)
        first.drop_all()
        self.append(second, 1, b"y")
        self.assertEqual(self.kept.size, 101)


class AllSessionsTests(SynchronousTestCase):
    """The limit of the results of all sessions together."""

    def setUp(self) -> None:
        self.kept = KeptReplies(bytes_max=100)
        self.caches = [ReplyCache(1_000, kept=self.kept) for _ in range(3)]

    def keep(self, cache: int, number: int, size: int) -> None:
        self.caches[cache].keep(number, Done((("value", "x" * size),)))

    def test_nothing_is_dropped_within_the_limit(self) -> None:
        """Results whose sum is the limit, 100 bytes, are all kept."""
        for cache in range(3):
            self.keep(cache, 1, 33)
        self.keep(0, 2, 1)
        self.kept.make_room()
        self.assertEqual([cache.numbers for cache in self.caches], [[1, 2], [1], [1]])

    def test_session_without_new_results_loses_them_first(self) -> None:
        """When the sum is above the limit, the session that has had no new results for longest loses its results
        first."""
        for cache in range(3):
            self.keep(cache, 1, 30)
        self.keep(0, 2, 30)
        self.kept.make_room()
        self.assertEqual([cache.numbers for cache in self.caches], [[1, 2], [], [1]])
        self.assertEqual((self.kept.size, self.caches[1].forgotten), (90, 1))

    def test_session_whose_results_were_dropped_keeps_new_ones(self) -> None:
        """A session whose results were dropped keeps its new ones, and a number that was dropped stays forgotten."""
        self.keep(0, 5, 101)
        self.kept.make_room()
        self.keep(0, 6, 10)
        self.kept.make_room()
        self.assertEqual((self.caches[0].numbers, self.caches[0].forgotten, self.kept.size), ([6], 5, 10))

    def test_full_pages_are_dropped_one_by_one(self) -> None:
        """Full pages of a session are dropped one by one, no more of them than the limit demands."""
        self.kept.bytes_max = 4 * 500
        cache = ReplyCache(100, kept=self.kept, bytes_max=1_600)
        for number in range(1, 5):
            cache.keep(number, Done((("value", "x" * 401),)))
        self.kept.make_room()
        self.assertEqual(cache.numbers, [2, 3, 4])

    def test_sum_is_that_of_what_is_kept(self) -> None:
        """Results are kept, pages dropped and sessions ended in any order: the sum in the cache is always that of the
        kept results."""
        dice = Random(7)
        values = [GrowingBytes() for _ in range(4)]
        self.kept.bytes_max = 3_000
        for number in range(1, 3_000):
            cache = dice.choice(self.caches)
            value = dice.choice(values)
            match dice.randrange(12):
                case 0:
                    cache.drop_all()
                    self.caches[self.caches.index(cache)] = ReplyCache(dice.choice((1, 5, 40)), 0, 900, self.kept)
                case 1:
                    values[values.index(value)] = GrowingBytes()
                case 2 | 3 | 4:
                    longer = value.data = value.data + b"\xff" * dice.randrange(80)
                    cache.keep(number, DoneGrowing((("value", longer), ("revision", number)), growing=value))
                case _:
                    cache.keep(number, dice.choice((Done((("revision", number),)), Refused("HELD", "x" * 30))))
            if dice.random() < 0.5:
                self.kept.make_room()
                self.assertLessEqual(self.kept.size, 3_000)
            self.assertEqual(self.kept.size, counted(self.caches))
        for cache in self.caches:
            cache.drop_all()
        self.assertEqual((self.kept.size, len(self.kept.pages)), (0, 0))


def counted(caches: list[ReplyCache]) -> int:
    """Bytes of all that is kept, counted anew."""
    size = 0
    texts: dict[int, int] = {}
    for cache in caches:
        for page in cache.pages():
            size += ENTRY_BYTES * len(page.results) if page is not cache.page else 0
            for result in page.results.values():
                if isinstance(result, Beginning):
                    texts[id(result.growing)] = result.growing.counted
                elif not isinstance(result, int):
                    size += size_of(result)
    return size + sum(texts.values())


class SizeTests(SynchronousTestCase):
    def test_value_counts_and_numbers_do_not(self) -> None:
        """A result counts by its bytes of text, which are equal on every server; numbers do not count."""
        rows = ((("key", "ab"),), (("key", "c"), ("revision", 7)))
        self.assertEqual(size_of(Done((("value", "x\u00e9z"), ("revision", 123456)))), 4)
        self.assertEqual(size_of(Done((), rows)), 3)
        self.assertEqual(size_of(Refused("HELD", "by bob")), 6)
