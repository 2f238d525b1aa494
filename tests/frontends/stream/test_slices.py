"""Large replies: in slices, with other turns between them, and no faster than they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, Fields, Result
from pfsb.frontends.line.grammar import render, render_in_slices
from pfsb.frontends.stream.reply_queue import OUTPUT_BYTES_MAX, ROWS_AT_ONCE, EndOfIteration, ReplyQueue

ROW_BYTES = 1_000
LARGE = Done((("count", 1_000),), tuple((("key", f"{n:03}" + "x" * ROW_BYTES),) for n in range(1_000)))


class Breaks:
    """Rows of an application whose last one cannot be rendered."""

    def __len__(self) -> int:
        return 1_000

    def __iter__(self) -> Iterator[Fields]:
        yield (("key", "a"),)
        raise ValueError("no more")


class Turns:
    """A reactor of which each turn is taken by hand: what is called then may ask for the next one."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def callLater(self, seconds: float, what: Callable[[], None]) -> None:
        assert seconds == 0
        self.due.append(what)

    def take(self) -> None:
        due, self.due = self.due, []
        for what in due:
            what()


class SlicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns()
        self.writes: list[bytes] = []
        self.relieved = 0
        self.queue = ReplyQueue(self.writes.append, render_in_slices, EndOfIteration(self.turns), self.note_relief)  # type: ignore[arg-type]

    def note_relief(self) -> None:
        self.relieved += 1

    def turn(self) -> bytes:
        """What one turn of the reactor writes."""
        before = len(self.writes)
        self.turns.take()
        return b"".join(self.writes[before:])

    def run_out(self) -> bytes:
        """What is written until no turn writes anything."""
        said = b""
        while self.turns.due:
            said += self.turn()
        return said

    def answer(self, result: Result) -> None:
        self.queue.place(1)(result)

    def test_slices_of_a_reply_are_the_reply(self) -> None:
        self.answer(LARGE)
        self.assertEqual(self.run_out(), render(1, LARGE))

    def test_each_turn_writes_one_slice(self) -> None:
        """So a turn of the reactor makes no more than this of it, however large it is."""
        self.answer(LARGE)
        while self.turn():
            pass
        self.assertGreater(len(self.writes), 10)
        self.assertLess(max(map(len, self.writes)), OUTPUT_BYTES_MAX + 2 * ROW_BYTES)

    def test_small_reply_is_written_in_the_turn_of_its_answer(self) -> None:
        few = Done((("count", ROWS_AT_ONCE),), LARGE.rows[:ROWS_AT_ONCE])
        self.answer(few)
        self.queue.flush()
        self.assertEqual(self.writes, [render(1, few)])

    def test_slow_reader_holds_the_rest_back(self) -> None:
        """A reply of any size takes no more of the transport's memory than one slice."""
        self.answer(LARGE)
        first = self.turn()
        self.queue.pause()
        self.assertEqual((self.turn(), self.turn()), (b"", b""))
        self.queue.resume()
        self.assertEqual(first + self.run_out(), render(1, LARGE))

    def test_nothing_stands_within_a_reply(self) -> None:
        """docs/protocol.rst: an event is never inside a reply; nor is another reply, nor a lock that is granted."""
        lock = self.queue.place_waiting(2)
        self.answer(LARGE)
        self.queue.place(3)(Done())
        said = self.turn()
        self.queue.write_between_replies(b"* EVENT\n")
        lock(Done())
        self.assertEqual(said + self.run_out(), render(1, LARGE) + b"* EVENT\n#2 OK\n#3 OK\n")

    def test_reply_counts_until_it_is_written(self) -> None:
        """Otherwise QUIT would cut it off, and the window would not bound what is kept for a slow reader."""
        self.answer(LARGE)
        self.turn()
        self.assertEqual((self.queue.in_order, self.relieved), (1, 1))
        self.run_out()
        self.assertEqual((self.queue.in_order, self.relieved), (0, 2))

    def test_question_waits_for_the_end_of_the_reply_before_it(self) -> None:
        asked: list[str] = []
        self.answer(LARGE)
        self.turn()
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
        """The next reply is whole; whoever wrote the application finds the reason in the log."""
        self.answer(Done((), Breaks()))  # type: ignore[arg-type]
        self.queue.place(2)(Done())
        first, error, last = self.run_out().splitlines()
        self.assertEqual((first, last), (b'#1 +key="a"', b"#2 OK"))
        self.assertTrue(error.startswith(b"#1 ERR INTERNAL fate=unknown "))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_end_of_the_connection_writes_what_is_left(self) -> None:
        """SIGTERM does not cut a reply in two."""
        self.answer(LARGE)
        self.turn()
        self.queue.write_between_replies(b"* EVENT\n")
        self.queue.finish()
        self.assertEqual(b"".join(self.writes), render(1, LARGE) + b"* EVENT\n")

    def test_connection_that_is_gone_is_told_nothing(self) -> None:
        self.answer(LARGE)
        self.turn()
        self.queue.close()
        self.assertEqual(self.turn(), b"")
