"""The check of reads that do not go through the log: each of its rules finds the violation that it is there for."""

from __future__ import annotations

import random
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, Event
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.runs.run import Plan, Run
from pfsb.simulator.workload.listeners import SimulatedListener
from pfsb.simulator.workload.read_checker import ReadHistory, SlotReads

OLD, NEW = Done((("value", "old"),)), Done((("value", "new"),))


def line(number: int, text: str) -> Event:
    return Event("CHAT", (("index", number), ("client", "alice"), ("text", text)))


class ReadHistoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = ReadHistory(("k",), Counter())
        self.log.settled(0, SlotReads(3, {"k": OLD}, [line(1, "one")]))
        self.log.settled(0, SlotReads(5, {"k": NEW}, [line(2, "two")]))

    def refuse(self, method: object, *args: object) -> str:
        return str(self.assertRaises(Violation, method, *args))


class ReadTests(ReadHistoryTestCase):
    def test_value_after_the_slot_passes(self) -> None:
        """A stale read of any age passes if it was right at its slot."""
        self.log.read("k", 4, OLD, 0, "alice")
        self.log.read("k", 5, NEW, 5, "alice")
        self.assertEqual(self.log.marks["read beside the log"], 2)

    def test_value_that_was_written_later_is_found(self) -> None:
        """A read with a value that was written later is found: no prefix of the history has it."""
        self.assertIn("after slot 4 it was", self.refuse(self.log.read, "k", 4, NEW, 0, "alice"))

    def test_sequential_read_of_an_older_state_is_found(self) -> None:
        """A sequential read of an older state than the session has seen is found (docs/protocol.rst)."""
        self.log.seen("alice", 5)
        self.log.seen("alice", 3)
        oldest = self.log.seen_by("alice")
        self.assertIn("has seen slot 5", self.refuse(self.log.read, "k", 4, OLD, oldest, "alice"))

    def test_slot_that_is_settled_again_changes_nothing(self) -> None:
        """A slot that other servers and later incarnations settle again stays as it was first settled."""
        self.log.settled(0, SlotReads(3, {"k": NEW}, [line(1, "other")]))
        self.log.read("k", 3, OLD, 0, "alice")
        self.assertEqual(len(self.log.events), 2)

    def test_state_of_a_server_in_error_is_no_truth(self) -> None:
        """The first server that executes a slot has an application in error: the state of the next, correct server
        counts."""
        self.log = ReadHistory(("k",), Counter(), in_error={2})
        self.log.settled(2, SlotReads(3, {"k": NEW}, [line(1, "wrong")]))
        self.log.settled(0, SlotReads(3, {"k": OLD}, [line(1, "one")]))
        self.log.read("k", 3, OLD, 0, "alice")
        self.log.heard(1, line(1, "one"), "server 0")


class EventTests(ReadHistoryTestCase):
    def test_events_in_order_pass(self) -> None:
        """Events of the chat that each come once and in order pass."""
        self.log.heard(1, line(1, "one"), "server 0")
        self.log.heard(2, line(2, "two"), "server 1")
        self.assertEqual(self.log.marks["event heard"], 2)

    def test_gap_is_found(self) -> None:
        """An event with a wrong number, as after a gap, is found."""
        self.assertIn("1 is next", self.refuse(self.log.heard, 1, line(2, "two"), "server 0"))

    def test_event_before_it_has_happened_is_found(self) -> None:
        """An event that is told before it is on disk is found."""
        self.assertIn("only 2 have happened", self.refuse(self.log.heard, 3, line(3, "three"), "server 0"))

    def test_other_text_is_found(self) -> None:
        """A listener that gets another text than other listeners is found."""
        self.assertIn("event 2 is", self.refuse(self.log.heard, 2, line(2, "too"), "server 0"))


class ListenerTests(SynchronousTestCase):
    def test_listener_gets_all_events(self) -> None:
        """A listener that moves between servers gets every event."""
        run = Run(Plan(4, "crashes", servers=3, seconds=4.0))
        listener = SimulatedListener(run.cluster, run.population.log, random.Random(1))  # type: ignore[attr-defined]
        listener.start()
        self.assertEqual(run.run().failure, "")
        run.cluster.run(10)
        self.assertGreater(listener.heard, 0)
        self.assertEqual(listener.heard, len(run.population.log.events))  # type: ignore[attr-defined]
