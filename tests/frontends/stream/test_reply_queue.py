"""ReplyQueue: replies in order, and few writes: one for a single reply, one for those of one iteration."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Answer, BadRequest, Done, Refused
from pfsb.frontends.line.grammar import render
from pfsb.frontends.stream.reply_queue import OUTPUT_BYTES_MAX, EndOfIteration, ReplyQueue


class ReplyQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.writes: list[bytes] = []
        self.relieved = self.failures = 0
        self.end = EndOfIteration(self.clock)
        self.queue = ReplyQueue(self.writes.append, render, self.end, self.note_relief, self.note_failure)

    def note_relief(self) -> None:
        self.relieved += 1

    def note_failure(self) -> None:
        self.failures += 1

    def end_iteration(self) -> list[bytes]:
        self.clock.advance(0)
        written, self.writes[:] = list(self.writes), []
        return written

    def test_replies_follow_the_order_of_requests(self) -> None:
        first, second, third = (self.queue.place(number) for number in (1, 2, 3))
        third(Done())
        second(Done())
        self.assertEqual(self.end_iteration(), [])
        first(Done())
        self.assertEqual(self.end_iteration(), [b"#1 OK\n#2 OK\n#3 OK\n"])

    def test_waiting_request_is_overtaken(self) -> None:
        """The reply to a LOCK comes when the lock is granted; other replies do not wait for it."""
        lock = self.queue.place_waiting(1)
        self.queue.place(2)(Done())
        self.assertEqual(self.end_iteration(), [b"#2 OK\n"])
        lock(Done())
        self.assertEqual(self.end_iteration(), [b"#1 OK\n"])

    def test_many_answers_in_one_iteration_are_one_write(self) -> None:
        answers = [self.queue.place(number) for number in range(1, 50)]
        for answer in answers:
            answer(Done())
        self.queue.write_between_replies(b"* EVENT\n")
        self.assertEqual(len(self.end_iteration()), 1)

    def test_reply_with_nothing_behind_it_is_written_at_once(self) -> None:
        """A client that waits for its only request gets the reply without a delayed call, and gets it once."""
        self.queue.place(1)(Done())
        self.assertEqual(self.writes, [b"#1 OK\n"])
        self.assertEqual((self.end_iteration(), self.clock.getDelayedCalls()), ([b"#1 OK\n"], []))

    def test_reply_with_a_request_behind_it_is_written_with_the_next_replies(self) -> None:
        """A reply with a request behind it waits until the end of the iteration, in which the next answer often comes,
        and no longer."""
        first, second, third = (self.queue.place(number) for number in (1, 2, 3))
        first(Done())
        self.assertEqual(self.writes, [])
        second(Done())
        self.assertEqual(self.end_iteration(), [b"#1 OK\n#2 OK\n"])
        third(Done())
        self.assertEqual(self.writes, [b"#3 OK\n"])

    def test_reply_does_not_overtake_what_was_collected_before_it(self) -> None:
        """A reply does not overtake output that was collected before it, such as an event."""
        answer = self.queue.place(1)
        self.queue.write_between_replies(b"* EVENT\n")
        answer(Done())
        self.assertEqual(self.writes, [])
        self.assertEqual(self.end_iteration(), [b"* EVENT\n#1 OK\n"])

    def test_replies_that_are_there_at_once_are_one_write(self) -> None:
        """Replies that are there when requests that arrived together are handled are written at once, when the owner of
        the queue flushes."""
        self.queue.is_collecting = True
        for number in (1, 2, 3):
            self.queue.place(number)(Done())
        self.assertEqual(self.writes, [])
        self.queue.is_collecting = False
        self.queue.flush()
        self.assertEqual(self.writes, [b"#1 OK\n#2 OK\n#3 OK\n"])

    def test_output_above_its_bound_is_written_within_the_iteration(self) -> None:
        """Output above its bound is written within the iteration, so that the transport can ask for a pause while many
        events are written."""
        self.queue.write_between_replies(b"x" * (OUTPUT_BYTES_MAX + 1))
        self.assertEqual(len(self.writes), 1)

    def test_question_is_asked_once_all_before_it_is_answered(self) -> None:
        asked: list[Answer] = []
        before = self.queue.place(1)
        self.queue.handle_when_first(2, asked.append)
        self.assertEqual(asked, [])
        before(Done())
        self.assertEqual(len(asked), 1)
        asked[0](Done())
        self.assertEqual(self.end_iteration(), [b"#1 OK\n#2 OK\n"])

    def test_question_that_raises_is_answered_and_the_rest_goes_on(self) -> None:
        def refuse(answer: Answer) -> None:
            raise BadRequest("no such thing")

        self.queue.handle_when_first(1, refuse)
        self.queue.place(2)(Done())
        written = b"".join(self.end_iteration())
        self.assertEqual(written, b"#1 ERR BADREQUEST fate=none no such thing\n#2 OK\n")

    def test_many_questions_answered_at_once_do_not_nest(self) -> None:
        before = self.queue.place(None)
        for _ in range(5_000):
            self.queue.handle_when_first(None, lambda answer: answer(Done()))
        before(Done())
        self.assertEqual(b"".join(self.end_iteration()), b"OK\n" * 5_001)

    def test_result_that_cannot_be_printed_is_an_internal_error(self) -> None:
        self.queue.place(1)(Done((("broken", None),)))  # type: ignore[arg-type]
        self.assertIn(b"#1 ERR INTERNAL fate=unknown", self.end_iteration()[0])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_refusal_whose_code_is_no_word_is_an_internal_error(self) -> None:
        """A refusal whose code is no word, as `check` of an application may raise it, is answered as INTERNAL: the code
        stands in the line as it is."""
        for code in ("TWO WORDS", "LINE\nOK"):

            def refuse(answer: Answer, code: str = code) -> None:
                raise BadRequest("no such thing", code)

            self.queue.handle_when_first(1, refuse)
            self.assertIn(b"#1 ERR INTERNAL fate=unknown", self.end_iteration()[0])
            self.assertEqual(len(self.flushLoggedErrors(BadRequest)), 1)

    def test_second_answer_is_ignored(self) -> None:
        answer = self.queue.place(1)
        answer(Done())
        answer(Done())
        self.assertEqual(self.end_iteration(), [b"#1 OK\n"])

    def test_outstanding_counts_what_has_no_reply_yet(self) -> None:
        first, lock = self.queue.place(1), self.queue.place_waiting(2)
        self.assertEqual((self.queue.outstanding, self.queue.in_order), (2, 1))
        first(Done())
        lock(Done())
        self.assertEqual((self.queue.outstanding, self.relieved), (0, 2))

    def test_those_who_wait_can_all_be_refused(self) -> None:
        self.queue.place_waiting(4)
        self.queue.place_waiting(3)
        self.queue.refuse_out_of_order(Refused("NOSESSION", "gone", "unknown"))
        self.assertEqual(
            self.end_iteration(), [b"#3 ERR NOSESSION fate=unknown gone\n#4 ERR NOSESSION fate=unknown gone\n"]
        )

    def test_owner_hears_of_what_cannot_be_written(self) -> None:
        """The owner of the queue is told if a reply, collected output, or a function to be called between replies
        fails, since the client waits for each of them."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        def failed() -> int:
            self.clock.advance(0)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), self.failures)
            failures, self.failures = self.failures, 0
            return failures

        self.queue.call_between_replies(lambda: fail())
        self.assertEqual(failed(), 1)
        queue = ReplyQueue(fail, render, self.end, self.note_relief, self.note_failure)
        queue.place(1)(Done())
        self.assertEqual(failed(), 1)
        queue.write_between_replies(b"* EVENT\n")
        self.assertEqual(failed(), 1)
        queue = ReplyQueue(self.writes.append, render, self.end, lambda: fail(), self.note_failure)
        queue.place(1)(Done())
        self.assertEqual(failed(), 1)
        queue.close()
        queue.fail(ZeroDivisionError())
        self.assertEqual(failed(), 0)

    def test_answers_after_the_end_of_the_connection_go_nowhere(self) -> None:
        answer = self.queue.place(1)
        self.queue.close()
        answer(Done())
        self.queue.write_between_replies(b"late\n")
        self.assertEqual(self.end_iteration(), [])


class EndOfIterationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.end = EndOfIteration(self.clock)
        self.called: list[str] = []

    def test_function_that_fails_does_not_keep_the_others_from_being_called(self) -> None:
        for call in (self.end.call, self.end.call_in_turn):
            call(self.note_and_fail)
            call(lambda: self.called.append("other"))
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(self.called, ["failed", "other", "failed", "other"])
        self.assertEqual(len(self.flushLoggedErrors(RecursionError)), 2)
        self.end.call_in_turn(lambda: self.called.append("later"))
        self.clock.advance(0)
        self.assertEqual(self.called[-1], "later")

    def note_and_fail(self) -> None:
        self.called.append("failed")
        raise RecursionError
