"""Design part 5: one outstanding update, and all that waits goes into the next one."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.interfaces import Done
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundler import BUNDLE_BYTES_MAX, NOT_SENT, OUTLIVED, UNKNOWN, Bundler, Request


class BundlerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.bundler = Bundler("7 alice", 2, 7, opens=False)
        self.told: list[tuple[int, Any]] = []

    def add(self, *numbers: int, now: float = 0.0, text: str = "") -> None:
        entries = bundle.encode_entries([(number, ("SAY", text)) for number in numbers])
        self.bundler.add(Request(numbers, entries, now, lambda r: self.told.extend(zip(numbers, r, strict=True))))

    def send(self) -> ClientUpdate:
        update = self.bundler.next_update(100)
        assert update is not None
        return update

    def numbers(self, update: ClientUpdate) -> list[int]:
        return [number for number, _ in bundle.decode(update.payload).entries]

    def run_update(self, update: ClientUpdate) -> None:
        self.bundler.executed(update, [Done()] * len(self.numbers(update)))


class BundlerTests(BundlerTestCase):
    def test_next_update_waits_for_the_outstanding_one(self) -> None:
        """Figure 12's rule for clients: one outstanding update; what comes meanwhile makes one bundle."""
        self.add(1)
        first = self.send()
        for number in (2, 3, 4):
            self.add(number)
        self.assertIsNone(self.bundler.next_update(100))
        self.run_update(first)
        self.assertEqual(self.numbers(self.send()), [2, 3, 4])

    def test_updates_have_growing_timestamps_and_the_present_aru(self) -> None:
        """Figure 3 A: (client_id, timestamp) names an update; `made_at` begins its horizon."""
        self.add(1)
        first = self.send()
        self.run_update(first)
        self.add(2)
        second = self.bundler.next_update(105)
        assert second is not None
        self.assertEqual(
            [(u.client_id, u.server_id, u.timestamp, u.made_at) for u in (first, second)],
            [("7 alice", 2, 1, 100), ("7 alice", 2, 2, 105)],
        )

    def test_nothing_to_send_makes_no_update(self) -> None:
        """An idle client costs nothing."""
        self.assertIsNone(self.bundler.next_update(100))
        self.assertFalse(self.bundler.introduced)
        self.assertTrue(self.bundler.idle)

    def test_bundle_ends_before_it_is_too_large(self) -> None:
        """An update fits one proposal, and a proposal one frame; the rest goes into the next bundle, in order."""
        for number in range(1, 6):
            self.add(number, text="x" * (BUNDLE_BYTES_MAX // 2 - 100))
        sent = []
        while (update := self.bundler.next_update(100)) is not None:
            self.assertLess(len(update.payload), BUNDLE_BYTES_MAX + 100)
            sent.append(self.numbers(update))
            self.run_update(update)
        self.assertEqual(sent, [[1, 2], [3, 4], [5]])

    def test_command_larger_than_a_bundle_goes_alone(self) -> None:
        """`command_bytes` may be more than a bundle's limit: such a command is sent nevertheless."""
        self.add(1, text="x" * (BUNDLE_BYTES_MAX + 1))
        self.add(2)
        self.assertEqual(self.numbers(self.send()), [1])

    def test_only_the_first_bundle_opens_until_it_has_run(self) -> None:
        """An anonymous session is opened by the first bundle that runs, and by no other."""
        self.bundler = Bundler("~2.1.1", 2, 0, opens=True)
        self.add(1)
        first = self.send()
        self.bundler.outlived()
        self.add(1)
        again = self.send()
        self.run_update(again)
        self.add(2)
        opens = [bundle.decode(update.payload).opens for update in (first, again, self.send())]
        self.assertEqual(opens, [True, True, False])

    def test_results_go_to_their_requests_in_order(self) -> None:
        """A result for each entry."""
        for number in (1, 2, 3):
            self.add(number)
        results = [Done((("index", i),)) for i in range(3)]
        self.bundler.executed(self.send(), results)
        self.assertEqual(self.told, list(zip((1, 2, 3), results, strict=True)))
        self.assertTrue(self.bundler.idle)

    def test_another_update_than_the_outstanding_one_is_not_awaited(self) -> None:
        """What outlived its horizon does not count as executed, so it may be ordered, and refused, a second time."""
        self.add(1)
        first = self.send()
        self.assertTrue(self.bundler.awaits(first))
        self.bundler.outlived()
        self.assertFalse(self.bundler.awaits(first))
        self.add(1)
        second = self.send()
        self.assertEqual([self.bundler.awaits(u) for u in (first, second)], [False, True])

    def test_outlived_bundle_takes_along_what_waits(self) -> None:
        """Nothing of it ran, so all of the numbers can be used again, in order."""
        self.add(1)
        self.send()
        self.add(2)
        self.bundler.outlived()
        self.assertEqual(self.told, [(1, OUTLIVED), (2, OUTLIVED)])
        self.assertTrue(self.bundler.idle)


class TooLateTests(BundlerTestCase):
    """Interface part 3, UNAVAILABLE: nobody waits longer than `request_seconds`."""

    def test_sent_is_unknown_and_waiting_did_not_happen(self) -> None:
        """Promise 4: what was sent may still be ordered; what was not certainly never is."""
        self.add(1)
        self.send()
        self.add(2, now=1.0)
        self.bundler.refuse_asked_before(2.0)
        self.assertEqual(self.told, [(1, UNKNOWN), (2, NOT_SENT)])
        self.assertEqual((UNKNOWN.fate, NOT_SENT.fate), ("unknown", "none"))

    def test_those_behind_one_that_is_too_late_are_refused_with_it(self) -> None:
        """Else their numbers would run before the refused one could be repeated, which then never could."""
        self.add(1)
        self.send()
        self.add(2, now=1.0)
        self.add(3, now=9.0)
        self.bundler.refuse_asked_before(2.0)
        self.assertIn((3, NOT_SENT), self.told)

    def test_nobody_is_refused_too_early(self) -> None:
        """`oldest` itself still waits."""
        self.add(1, now=2.0)
        self.send()
        self.add(2, now=2.0)
        self.bundler.refuse_asked_before(2.0)
        self.assertEqual(self.told, [])

    def test_unknown_is_told_once_and_the_result_after_it(self) -> None:
        """A counted command has its result in the end, for whoever has repeated its number meanwhile."""
        self.add(1)
        update = self.send()
        self.bundler.refuse_asked_before(2.0)
        self.bundler.refuse_asked_before(3.0)
        self.run_update(update)
        self.assertEqual(self.told, [(1, UNKNOWN), (1, Done())])

    def test_question_is_told_nothing_after_unknown(self) -> None:
        """What is not counted cannot be repeated under its number: its asker has had its one answer."""
        self.add(0)
        update = self.send()
        self.bundler.refuse_asked_before(2.0)
        self.run_update(update)
        self.assertEqual(self.told, [(0, UNKNOWN)])

    def test_repeated_number_is_told_unknown_again_in_its_own_time(self) -> None:
        """Whoever asks again waits `request_seconds` from then on."""
        self.add(1)
        self.send()
        refuse = self.bundler.refuse_asked_before
        refuse(2.0)
        self.bundler.ask_again(1, 5.0)
        refuse(4.0)
        self.assertEqual(self.told, [(1, UNKNOWN)])
        refuse(6.0)
        self.assertEqual(self.told, [(1, UNKNOWN)] * 2)

    def test_joining_does_not_keep_the_first_asker_waiting(self) -> None:
        """A client that repeats every second would else never hear anything."""
        self.add(1)
        self.send()
        self.bundler.ask_again(1, 5.0)
        self.bundler.refuse_asked_before(2.0)
        self.assertEqual(self.told, [(1, UNKNOWN)])
