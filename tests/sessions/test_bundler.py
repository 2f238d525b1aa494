"""Bundler: one outstanding bundle at a time, and all parts that wait go into the next one."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.bundler import BUNDLE_BYTES_MAX, DISPLACED, NOT_SENT, TOO_OLD, UNKNOWN, BundlePart, Bundler
from tests.sessions.support import encoded


class BundlerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.bundler = Bundler("alice", 7, opens=False)
        self.told: list[tuple[int, Any]] = []

    def add(self, *numbers: int, now: float = 0.0, text: str = "") -> None:
        entries = bundle.encode_entries([(number, ("SAY", text)) for number in numbers])
        self.bundler.add(BundlePart(numbers, entries, now, lambda r: self.told.extend(zip(numbers, r, strict=True))))

    def send(self) -> Bundle:
        encoded = self.bundler.next_bundle()
        assert encoded is not None
        (sent,) = bundle.decode(bundle.encode([encoded]))
        return sent

    def run_bundle(self, sent: Bundle) -> None:
        self.bundler.executed([Done()] * len(sent.entries))


def numbers(sent: Bundle) -> list[int]:
    return [number for number, _ in sent.entries]


class BundlerTests(BundlerTestCase):
    def test_next_bundle_waits_for_the_outstanding_one(self) -> None:
        """Figure 12's rule for clients: one bundle is outstanding, and the commands that come meanwhile make the next
        one."""
        self.add(1)
        first = self.send()
        for number in (2, 3, 4):
            self.add(number)
        self.assertIsNone(self.bundler.next_bundle())
        self.run_bundle(first)
        self.assertEqual(numbers(self.send()), [2, 3, 4])

    def test_bundle_says_whose_it_is(self) -> None:
        """A bundle carries the epoch of its session, so that it is fenced off after another connection has opened the
        session."""
        self.add(1)
        self.assertEqual(self.send()[:3], ("alice", 7, False))

    def test_nothing_to_send_makes_no_bundle(self) -> None:
        """Without waiting parts no bundle is made."""
        self.assertIsNone(self.bundler.next_bundle())
        self.assertFalse(self.bundler.introduced)
        self.assertTrue(self.bundler.idle)

    def test_bundle_ends_before_it_is_too_large(self) -> None:
        """A bundle ends before it is too large, since an update fits one proposal, and a proposal one frame; the rest
        goes into the next bundle, in order."""
        for number in range(1, 6):
            self.add(number, text="x" * (BUNDLE_BYTES_MAX // 2 - 100))
        sent = []
        while not self.bundler.idle:
            sent.append(numbers(one := self.send()))
            self.assertLess(len(encoded(one)), BUNDLE_BYTES_MAX + 100)
            self.run_bundle(one)
        self.assertEqual(sent, [[1, 2], [3, 4], [5]])

    def test_command_larger_than_a_bundle_goes_alone(self) -> None:
        """A command that is larger than a bundle's limit, as `command_bytes` may allow, is sent in a bundle of its
        own."""
        self.add(1, text="x" * (BUNDLE_BYTES_MAX + 1))
        self.add(2)
        self.assertEqual(numbers(self.send()), [1])

    def test_only_the_first_bundle_opens_until_it_has_run(self) -> None:
        """The first bundle of an anonymous session that runs opens it, and later ones do not."""
        self.bundler = Bundler("~2.1.1", 0, opens=True)
        self.add(1)
        first = self.send()
        self.bundler.too_old()
        self.add(1)
        again = self.send()
        self.run_bundle(again)
        self.add(2)
        opens = [each.opens for each in (first, again, self.send())]
        self.assertEqual(opens, [True, True, False])

    def test_results_go_to_their_parts_in_order(self) -> None:
        """Each part gets the results of its own entries, in order."""
        for number in (1, 2, 3):
            self.add(number)
        results = [Done((("index", i),)) for i in range(3)]
        self.send()
        self.bundler.executed(results)
        self.assertEqual(self.told, list(zip((1, 2, 3), results, strict=True)))
        self.assertTrue(self.bundler.idle)

    def test_bundle_that_is_too_old_takes_along_what_waits(self) -> None:
        """If the outstanding bundle is too old, its commands have not run, and parts that wait were not sent: all
        numbers can be used again."""
        self.add(1)
        self.send()
        self.add(2)
        self.bundler.too_old()
        self.assertEqual(self.told, [(1, TOO_OLD), (2, TOO_OLD)])
        self.assertTrue(self.bundler.idle)

    def test_displaced_bundle_is_refused_with_its_own_reason(self) -> None:
        """A bundle is refused with a reason of its own if another update has used up the timestamp of its update
        (Departure 37)."""
        self.add(1)
        self.send()
        self.add(2)
        self.bundler.refuse_all(DISPLACED)
        self.assertEqual(self.told, [(1, DISPLACED), (2, DISPLACED)])
        self.assertTrue(self.bundler.idle)


class TooLateTests(BundlerTestCase):
    """UNAVAILABLE (docs/protocol.rst): a client is answered within `request_seconds`."""

    def test_sent_is_unknown_and_waiting_did_not_happen(self) -> None:
        """When commands are not answered in time, those that were sent have an unknown fate, and those that wait
        certainly have not run (promise 4)."""
        self.add(1)
        self.send()
        self.add(2, now=1.0)
        self.bundler.refuse_submitted_before(2.0)
        self.assertEqual(self.told, [(1, UNKNOWN), (2, NOT_SENT)])
        self.assertEqual((UNKNOWN.fate, NOT_SENT.fate), ("unknown", "none"))

    def test_those_behind_one_that_is_too_late_are_refused_with_it(self) -> None:
        """Parts behind one that is too late are refused with it: if a later number ran alone, the refused one could
        never be repeated."""
        self.add(1)
        self.send()
        self.add(2, now=1.0)
        self.add(3, now=9.0)
        self.bundler.refuse_submitted_before(2.0)
        self.assertIn((3, NOT_SENT), self.told)

    def test_no_part_is_refused_too_early(self) -> None:
        """Parts that were submitted before the time `oldest` are refused; one that was submitted exactly then still
        waits."""
        self.add(1, now=2.0)
        self.send()
        self.add(2, now=2.0)
        self.bundler.refuse_submitted_before(2.0)
        self.assertEqual(self.told, [])

    def test_unknown_is_told_once_and_the_result_after_it(self) -> None:
        """After UNKNOWN a command with a number gets its result, once, for a client that has repeated the number
        meanwhile."""
        self.add(1)
        sent = self.send()
        self.bundler.refuse_submitted_before(2.0)
        self.bundler.refuse_submitted_before(3.0)
        self.run_bundle(sent)
        self.assertEqual(self.told, [(1, UNKNOWN), (1, Done())])

    def test_question_is_told_nothing_after_unknown(self) -> None:
        """A question gets nothing after UNKNOWN, since it has no number that the client could repeat."""
        self.add(0)
        sent = self.send()
        self.bundler.refuse_submitted_before(2.0)
        self.run_bundle(sent)
        self.assertEqual(self.told, [(0, UNKNOWN)])

    def test_repeated_number_is_told_unknown_again_in_its_own_time(self) -> None:
        """A client that repeats a number is told UNKNOWN again `request_seconds` later."""
        self.add(1)
        self.send()
        refuse = self.bundler.refuse_submitted_before
        refuse(2.0)
        self.bundler.note_repeated(1, 5.0)
        refuse(4.0)
        self.assertEqual(self.told, [(1, UNKNOWN)])
        refuse(6.0)
        self.assertEqual(self.told, [(1, UNKNOWN)] * 2)

    def test_joining_does_not_keep_the_first_asker_waiting(self) -> None:
        """A client that repeats a number every second is told UNKNOWN at the first deadline all the same."""
        self.add(1)
        self.send()
        self.bundler.note_repeated(1, 5.0)
        self.bundler.refuse_submitted_before(2.0)
        self.assertEqual(self.told, [(1, UNKNOWN)])
