"""Large replies: in slices, with other iterations between them, and no faster than the client reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, DoneGrowing, Fields, Refused, Result
from pfsb.frontends.line.grammar import render, render_in_slices
from pfsb.frontends.stream.reply_queue import OUTPUT_BYTES_MAX, ROWS_AT_ONCE, EndOfIteration, ReplyQueue, is_large

ROW_BYTES = 1_000
LARGE = Done((("count", 1_000),), tuple((("key", f"{n:03}" + "x" * ROW_BYTES),) for n in range(1_000)))


class Breaks:
    """Rows of an application, the last of which cannot be rendered."""

    def __len__(self) -> int:
        return 1_000

    def __iter__(self) -> Iterator[Fields]:
        yield (("key", "a"),)
        raise ValueError("no more")


class Iterations:
    """A reactor whose iterations are run by hand: functions called in one may ask for the next."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def callLater(self, seconds: float, what: Callable[[], None]) -> None:
        assert seconds == 0
        self.due.append(what)

    def seconds(self) -> float:
        return 0.0

    def run_next(self) -> None:
        due, self.due = self.due, []
        for what in due:
            what()


class SlicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.iterations = Iterations()
        self.writes: list[bytes] = []
        self.relieved = self.failures = 0
        self.is_broken = False
        self.end = EndOfIteration(self.iterations)  # type: ignore[arg-type]
        self.queue = ReplyQueue(self.write, render_in_slices, self.end, self.note_relief, self.note_failure)

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise ZeroDivisionError
        self.writes.append(data)

    def note_relief(self) -> None:
        self.relieved += 1

    def note_failure(self) -> None:
        self.failures += 1

    def iterate(self) -> bytes:
        """Runs one iteration. Returns the bytes that were written."""
        before = len(self.writes)
        self.iterations.run_next()
        return b"".join(self.writes[before:])

    def run_out(self) -> bytes:
        """Runs iterations until one writes nothing. Returns all bytes that were written."""
        said = b""
        while self.iterations.due:
            said += self.iterate()
        return said

    def answer(self, result: Result) -> None:
        self.queue.place(1)(result)

    def test_slices_of_a_reply_are_the_reply(self) -> None:
        self.answer(LARGE)
        self.assertEqual(self.run_out(), render(1, LARGE))

    def test_each_iteration_writes_one_slice(self) -> None:
        """An iteration makes no more than one slice of a reply, however large the reply is."""
        self.answer(LARGE)
        while self.iterate():
            pass
        self.assertGreater(len(self.writes), 10)
        self.assertLess(max(map(len, self.writes)), OUTPUT_BYTES_MAX + 2 * ROW_BYTES)

    def test_large_results_are_rendered_in_slices_and_no_others(self) -> None:
        """Results with long texts, whether the value may grow or not, or with many rows are rendered in slices, and no
        others."""
        most, row = "x" * OUTPUT_BYTES_MAX, (("key", "a"),)
        grown = (("value", most.encode() + b"x"), ("revision", 7))
        large = (
            Done((("value", most + "x"), ("revision", 7))),
            Done((("value", most.encode() + b"x"),)),
            DoneGrowing(grown),
            Done((("count", 1),), ((("key", most),),)),
            Done((("count", ROWS_AT_ONCE + 1),), (row,) * (ROWS_AT_ONCE + 1)),
        )
        small = (
            Done(),
            Done((("revision", 10**18),)),
            Done((("value", most), ("revision", 7))),
            Done((("value", most.encode()),)),
            Done((("value", True),)),
            DoneGrowing((("value", most.encode()),)),
            Done((("count", ROWS_AT_ONCE),), (row,) * ROWS_AT_ONCE),
            Refused("NOTFOUND", most + "x"),
        )
        for number, results in ((None, large), (3, large), (None, small), (3, small)):
            for result in results:
                rendered = render_in_slices(number, result)
                self.assertEqual((isinstance(rendered, bytes), is_large(result)), (results is small, results is large))
                self.assertEqual(
                    rendered if isinstance(rendered, bytes) else b"".join(rendered), render(number, result)
                )

    def test_small_reply_is_written_in_the_turn_of_its_answer(self) -> None:
        few = Done((("count", ROWS_AT_ONCE),), LARGE.rows[:ROWS_AT_ONCE])
        self.answer(few)
        self.queue.flush()
        self.assertEqual(self.writes, [render(1, few)])

    def test_slow_reader_holds_the_rest_back(self) -> None:
        """If the client reads slowly, the rest of a reply waits, so that a reply of any size takes no more of the
        transport's memory than one slice."""
        self.answer(LARGE)
        first = self.iterate()
        self.queue.pause()
        self.assertEqual((self.iterate(), self.iterate()), (b"", b""))
        self.queue.resume()
        self.assertEqual(first + self.run_out(), render(1, LARGE))

    def test_owner_hears_of_a_slice_that_cannot_be_written(self) -> None:
        """If a slice cannot be written, the owner of the queue is told, since the client would wait for the rest of the
        reply for ever. Other connections have their slices."""
        others: list[str] = []
        self.answer(LARGE)
        self.iterate()
        self.is_broken = True
        self.end.call_in_turn(lambda: others.append("other"))
        self.run_out()
        self.assertEqual((self.failures, len(self.flushLoggedErrors(ZeroDivisionError)), others), (1, 1, ["other"]))

    def test_nothing_stands_within_a_reply(self) -> None:
        """Neither an event nor another reply, as that of a granted LOCK, is ever inside a reply."""
        lock = self.queue.place_waiting(2)
        self.answer(LARGE)
        self.queue.place(3)(Done())
        said = self.iterate()
        self.queue.write_between_replies(b"* EVENT\n")
        lock(Done())
        self.assertEqual(said + self.run_out(), render(1, LARGE) + b"* EVENT\n#2 OK\n#3 OK\n")

    def test_reply_counts_until_it_is_written(self) -> None:
        """A request counts as without reply until its reply is written: QUIT must not cut a reply off, and the window
        must bound the memory for a slow client."""
        self.answer(LARGE)
        self.iterate()
        self.assertEqual((self.queue.in_order, self.relieved), (1, 1))
        self.run_out()
        self.assertEqual((self.queue.in_order, self.relieved), (0, 2))

    def test_question_waits_for_the_end_of_the_reply_before_it(self) -> None:
        asked: list[str] = []
        self.answer(LARGE)
        self.iterate()
        self.queue.handle_when_first(2, lambda answer: (asked.append("now"), answer(Done()))[1])
        self.assertEqual(asked, [])
        self.assertTrue(self.run_out().endswith(b"#1 OK count=1000\n#2 OK\n"))

    def test_large_reply_among_others_asked_together(self) -> None:
        self.queue.place_all((1, 2, 3))((Done(), LARGE, Done()))
        self.assertEqual(self.run_out(), b"#1 OK\n" + render(2, LARGE) + b"#3 OK\n")

    def test_large_reply_to_a_question_that_is_answered_at_once(self) -> None:
        self.queue.handle_when_first(1, lambda answer: answer(LARGE))
        self.queue.handle_when_first(2, lambda answer: answer(Done()))
        self.assertEqual(self.run_out(), render(1, LARGE) + b"#2 OK\n")

    def test_row_that_cannot_be_rendered_ends_the_reply_with_an_error(self) -> None:
        """A row that cannot be rendered ends the reply with an error. The next reply is whole, and the log has the
        reason for the author of the application."""
        self.answer(Done((), Breaks()))  # type: ignore[arg-type]
        self.queue.place(2)(Done())
        first, error, last = self.run_out().splitlines()
        self.assertEqual((first, last), (b'#1 +key="a"', b"#2 OK"))
        self.assertTrue(error.startswith(b"#1 ERR INTERNAL fate=unknown "))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_end_of_the_connection_writes_what_is_left(self) -> None:
        """At the end of the connection, as after SIGTERM, the rest of a reply is written."""
        self.answer(LARGE)
        self.iterate()
        self.queue.write_between_replies(b"* EVENT\n")
        self.queue.finish()
        self.assertEqual(b"".join(self.writes), render(1, LARGE) + b"* EVENT\n")

    def test_connection_that_is_gone_is_told_nothing(self) -> None:
        self.answer(LARGE)
        self.iterate()
        self.queue.close()
        self.assertEqual(self.iterate(), b"")
