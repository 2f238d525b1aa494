"""The checks of demos: each of them finds the violation that it is for."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.demo.load import Acknowledged
from pfsb.demo.verdict import ChatAccount, Verdict, account, longest_gap, outage, throughput

LOG = b'1 "a" "1 1"\n2 "b" "2 2"\n3 "a" "1 3"\n'
ACKNOWLEDGED = [
    Acknowledged(1, 1, "1 1", 1, sent=10.0, answered=10.5),
    Acknowledged(2, 2, "2 2", 2, sent=10.0, answered=10.6),
    Acknowledged(1, 3, "1 3", 3, sent=10.5, answered=12.0),
]
SAID = {"1 1", "2 2", "1 3", "2 4"}


class AccountTests(SynchronousTestCase):
    def judge(self, log: bytes) -> ChatAccount:
        return account(log, ACKNOWLEDGED, SAID)

    def test_log_with_every_line_once_is_correct(self) -> None:
        """A log in which every acknowledged line stands once is correct; a line that was sent and not acknowledged may
        be in it, too, since its fate was unknown."""
        self.assertEqual(self.judge(LOG), ChatAccount(3, [], [], [], 0))
        self.assertEqual(self.judge(LOG + b'4 "b" "2 4"\n'), ChatAccount(4, [], [], [], 0))

    def test_lost_last_line_is_missing(self) -> None:
        """If the last acknowledged line is not in the log, it counts as missing (promise 2)."""
        self.assertEqual(self.judge(LOG.rsplit(b"3", 2)[0]).missing, ["1 3"])

    def test_line_at_another_index_than_answered_is_missing(self) -> None:
        """A line that stands at another index than its answer said counts as missing."""
        swapped = b'1 "b" "2 2"\n2 "a" "1 1"\n3 "a" "1 3"\n'
        self.assertEqual(self.judge(swapped).missing, ["1 1", "2 2"])

    def test_line_that_ran_twice_is_doubled_and_disordered(self) -> None:
        """A line that stands twice in the log counts as doubled and as disordered (S3)."""
        found = self.judge(LOG + b'4 "a" "1 1"\n')
        self.assertEqual((found.doubled, found.disordered), (["1 1"], 1))

    def test_line_that_no_client_sent_is_foreign(self) -> None:
        """A line in the log that no client has sent counts as foreign (S2)."""
        self.assertEqual(self.judge(LOG + b'4 "c" "3 9"\n').foreign, ["3 9"])

    def test_gap_in_the_indices_is_counted(self) -> None:
        """A gap in the indices of the lines is counted."""
        self.assertEqual(self.judge(LOG.replace(b"3 ", b"4 ", 1)).disordered, 1)


class FigureTests(SynchronousTestCase):
    def test_outage_ends_with_the_first_answer_to_a_command_sent_after_the_kill(self) -> None:
        """The outage ends with the first answer to a command that was sent after the kill: the answer to an earlier one
        may have been under way when the leader died."""
        self.assertAlmostEqual(outage(ACKNOWLEDGED, 10.2) or 0, 1.8)
        self.assertIsNone(outage(ACKNOWLEDGED, 11.0))

    def test_longest_gap_is_between_two_answers_of_any_clients(self) -> None:
        """The longest gap is between two answers of any clients, taken in the order of time and not of the record."""
        self.assertAlmostEqual(longest_gap(ACKNOWLEDGED[::-1]), 1.4)
        self.assertEqual(longest_gap(ACKNOWLEDGED[:1]), 0.0)

    def test_throughput_counts_from_the_first_question_to_the_last_answer(self) -> None:
        """The throughput counts from the first question to the last answer: here three lines in two seconds."""
        self.assertAlmostEqual(throughput(ACKNOWLEDGED), 1.5)
        self.assertEqual(throughput([]), 0.0)


class VerdictTests(SynchronousTestCase):
    def test_verdict_holds_only_if_there_are_checks_and_all_hold(self) -> None:
        """A verdict holds only if there are checks and all of them hold: a scenario without checks has shown
        nothing."""
        verdict = Verdict()
        self.assertFalse(verdict.holds)
        verdict.check("water is wet", True, "yes")
        self.assertTrue(verdict.holds)
        verdict.checks.append(evolve(verdict.checks[0], holds=False))
        self.assertFalse(verdict.holds)
