"""Tests of `pfsb.past_reads`: what a key was at an earlier revision, for the clients of a server."""

from __future__ import annotations

from collections.abc import Callable

from pfsb import past_reads
from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.past_reads import ASKED_MAX
from tests.sessions.support import ClusterTestCase, code

VALUE = Done((("value", b"old"), ("revision", 1)))


class Reader:
    """Stands for the process that builds states of the past: it answers when a test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int, Callable[[Result], None]]] = []
        self.is_stopped = False

    def ask(self, key: bytes, revision: int, answered: Callable[[Result], None]) -> None:
        self.asked.append((key, revision, answered))

    def stop(self) -> None:
        self.is_stopped = True


class PastReadsTests(ClusterTestCase):
    def setUp(self) -> None:
        self.begin(1)
        self.past = self.server().past_reads
        self.past.reader = self.reader = Reader()
        self.client = self.open("alice")
        self.first = self.revision(self.do(self.client, "PUT", "colour", "red"))
        self.second = self.revision(self.do(self.client, "PUT", "colour", "blue"))
        self.do(self.client, "PUT", "other", "x")

    def revision(self, result: Result) -> int:
        assert isinstance(result, Done), result
        return int(dict(result.fields)["revision"])

    def allow_ahead(self, questions: int) -> None:
        """Let no more than so many questions wait for a revision."""
        self.patch(past_reads, "AHEAD_MAX", questions)
        server = self.server()
        self.past = past_reads.PastReads(server.replica, server.machine, self.cluster.clock, lambda: server.revisions)
        self.past.reader = self.reader

    def get(self, key: bytes, revision: int, seconds: float = 2.0, address: str = "192.0.2.1") -> list[Result]:
        answers: list[Result] = []
        self.past.get(address, key, revision, self.cluster.clock.seconds() + seconds, answers.append)
        return answers

    def test_value_that_has_not_changed_since_needs_no_past(self) -> None:
        """GET with at=REVISION answers with the present value, for any revision from that of its last write on, without
        looking at the past."""
        for revision in (self.second, self.second + 1):
            answers = self.get(b"colour", revision)
            self.cluster.run(0.1)
            self.assertEqual(answers, [Done((("value", b"blue"), ("revision", self.second)))])
        self.assertEqual((self.reader.asked, self.past.under_way), ([], 0))

    def test_value_that_has_changed_is_looked_for_in_the_past(self) -> None:
        """A value that has changed since the revision is looked for in the past; so is a key that is absent now. By
        then all slots up to now are on disk, and known there as ordered."""
        disk = self.cluster.disk(0)
        answers = self.get(b"colour", self.first)
        self.cluster.run(0.1)
        ((key, revision, answered),) = self.reader.asked
        self.assertEqual((key, revision, answers), (b"colour", self.first, []))
        self.assertEqual(disk.local_aru, self.server().replica.data.ordering.local_aru)
        answered(VALUE)
        self.assertEqual((answers, self.past.under_way), ([VALUE], 0))
        self.get(b"absent", self.first)
        self.cluster.run(0.1)
        self.assertEqual(self.reader.asked[-1][0], b"absent")

    def test_revision_that_has_not_come_is_waited_for(self) -> None:
        """A question about a revision that has not come is answered when it comes; if it does not come in time, the
        question is refused."""
        later = self.server().machine.revision + 1
        answers = self.get(b"colour", later)
        self.cluster.run(0.5)
        self.assertEqual(answers, [])
        self.do(self.client, "PUT", "other", "y")
        self.cluster.run(0.1)
        self.assertEqual(answers, [Done((("value", b"blue"), ("revision", self.second)))])
        answers = self.get(b"colour", later + 10)
        self.cluster.run(2.1)
        self.assertEqual(code(answers[0]), ("UNAVAILABLE", "none"))
        self.assertIn(f"has not come to revision {later + 10}", str(answers[0]))
        self.assertEqual(self.past.under_way, 0)

    def test_no_question_waits_without_end(self) -> None:
        """A question that takes too long is refused. The state goes on being built, and counts as under way; its late
        answer is thrown away."""
        answers = self.get(b"colour", self.first)
        self.cluster.run(2.1)
        self.assertEqual(code(answers[0]), ("UNAVAILABLE", "none"))
        self.assertIn("ask again", str(answers[0]))
        self.assertEqual(self.past.under_way, 1)
        self.reader.asked[0][2](VALUE)
        self.assertEqual((len(answers), self.past.under_way), (1, 0))

    def test_few_questions_are_under_way_at_a_time(self) -> None:
        """Questions beyond `ASKED_MAX` under way are refused at once with BUSY, and can be asked again."""
        all_answers = [self.get(b"colour", self.first, address=str(n)) for n in range(ASKED_MAX)]
        self.assertEqual(code(self.get(b"colour", self.first, address="other")[0]), ("BUSY", "none"))
        self.cluster.run(0.1)
        self.assertEqual(len(self.reader.asked), ASKED_MAX)
        for _, _, answered in self.reader.asked:
            answered(VALUE)
        self.assertEqual(all_answers, [[VALUE]] * ASKED_MAX)
        self.assertEqual(self.get(b"colour", self.first), [])

    def test_no_address_keeps_others_away(self) -> None:
        """The clients of one address have half of the questions at most, and less while others ask: the next client
        still gets an answer. A place that is free again can be taken again."""
        answered, share = [], ASKED_MAX
        for address in ("greedy", "second", "third"):
            share //= 2
            asked = [self.get(b"colour", self.first, address=address) for _ in range(ASKED_MAX)]
            refused = [answers for answers in asked if answers]
            self.assertEqual([code(answers[0])[0] for answers in refused], ["BUSY"] * (ASKED_MAX - share))
            answered += asked[:share]
        self.assertIn(
            "14 questions about the past are under way already, and no more is free for your address",
            str(refused[0][0]),
        )
        self.cluster.run(0.1)
        for _, _, told in self.reader.asked:
            told(VALUE)
        self.assertEqual(answered, [[VALUE]] * 14)
        self.assertEqual(self.get(b"colour", self.first, address="greedy"), [])

    def test_no_address_waits_for_revisions_in_the_place_of_others(self) -> None:
        self.allow_ahead(8)
        asked = [self.get(b"colour", 1_000_000, address="greedy") for _ in range(8)]
        self.assertEqual([len(answers) for answers in asked], [0] * 4 + [1] * 4)
        self.assertEqual(self.get(b"colour", 1_000_000, address="other"), [])
        (answer,) = self.get(b"colour", self.second, address="greedy")
        self.assertIsInstance(answer, Done, "it need not wait for a revision")

    def test_revisions_that_do_not_come_keep_no_other_question_away(self) -> None:
        """Questions that wait for a revision do not count as under way; there are bounds for them, too."""
        self.allow_ahead(2 * ASKED_MAX)
        waiting = [self.get(b"colour", 1_000_000, address=str(n)) for n in range(2 * ASKED_MAX)]
        self.assertEqual(code(self.get(b"colour", 1_000_000)[0]), ("BUSY", "none"))
        self.assertEqual(self.get(b"colour", self.first), [])
        self.cluster.run(0.1)
        self.assertEqual(len(self.reader.asked), 1)
        self.cluster.run(2.1)
        self.assertEqual([code(answers[0])[0] for answers in waiting], ["UNAVAILABLE"] * 2 * ASKED_MAX)
        self.assertIn("within 2 s", str(waiting[0][0]))
        self.assertEqual(self.get(b"colour", 1_000_000), [])

    def test_server_without_a_disk_knows_the_present_only(self) -> None:
        self.past.reader = None
        unchanged, changed = self.get(b"colour", self.second), self.get(b"colour", self.first)
        self.cluster.run(0.1)
        self.assertIsInstance(unchanged[0], Done)
        self.assertEqual(code(changed[0]), ("COMPACTED", "none"))
        self.assertIn("storage: memory", str(changed[0]))

    def test_refusal_of_the_application_is_passed_on(self) -> None:
        """In a cluster that does not run kv, the question is answered with the refusal UNKNOWN."""
        self.server().machine.question = lambda command: Refused("UNKNOWN", "no application here")  # type: ignore
        answers = self.get(b"colour", self.first)
        self.cluster.run(0.1)
        self.assertEqual(code(answers[0]), ("UNKNOWN", "none"))

    def test_stop_stops_the_reader(self) -> None:
        self.server().stop()
        self.assertTrue(self.reader.is_stopped)
