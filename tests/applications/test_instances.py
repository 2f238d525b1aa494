"""The application behind the agreement library: write-once slots, forgotten when all peers are done."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.instances import Instances, encoded, instance_bytes_max
from pfsb.applications.interfaces import BadRequest
from tests.applications.context import Machine, code, field, refusal, rows


class InstancesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.instances = Instances()
        self.machine = Machine(self.instances)

    def test_first_proposal_decides(self) -> None:
        first = self.machine.run("alice", "PROPOSE", "7", "YQ==")
        second = self.machine.run("bob", "PROPOSE", "7", "Yg==")
        self.assertEqual((field(first, "first"), field(second, "first")), ("yes", "no"))
        shown = self.machine.ask("DECIDED", "7")
        self.assertEqual((field(shown, "decided"), field(shown, "value")), ("yes", "YQ=="))
        self.assertEqual(field(self.machine.ask("DECIDED", "8"), "decided"), "no")

    def test_nothing_is_forgotten_before_all_peers_are_done(self) -> None:
        self.machine.run("alice", "PROPOSE", "0", "YQ==")
        self.assertEqual(field(self.machine.run("a", "DONE", "0", "2", "5"), "min"), 0)
        self.assertEqual(field(self.machine.run("b", "DONE", "1", "2", "0"), "min"), 1)
        self.assertEqual(field(self.machine.ask("DECIDED", "0"), "decided"), "forgotten")
        self.assertEqual(code(self.machine.run("alice", "PROPOSE", "0", "YQ==")), "CONFLICT")

    def test_done_never_goes_back(self) -> None:
        self.machine.run("a", "DONE", "0", "1", "5")
        self.assertEqual(field(self.machine.run("a", "DONE", "0", "1", "3"), "min"), 6)

    def test_far_done_costs_no_more_than_what_there_is(self) -> None:
        self.machine.run("alice", "PROPOSE", "3", "YQ==")
        self.assertEqual(field(self.machine.run("a", "DONE", "0", "1", str(2**62)), "min"), 2**62 + 1)
        self.assertEqual(self.instances.decided, {})

    def test_number_of_peers_is_fixed_by_the_first(self) -> None:
        self.machine.run("a", "DONE", "0", "3", "5")
        self.assertEqual(code(self.machine.run("b", "DONE", "1", "4", "5")), "CONFLICT")

    def test_what_is_decided_is_shown_in_order(self) -> None:
        for seq in (5, 1, 3):
            self.machine.run("alice", "PROPOSE", str(seq), "YQ==")
        shown = self.machine.ask("INSTANCES", "limit=2")
        self.assertEqual([dict(row)["seq"] for row in rows(shown)], [1, 3])
        self.assertEqual((field(shown, "min"), field(shown, "max")), (0, 5))

    def test_snapshot_brings_all_back(self) -> None:
        for seq in range(5):
            self.machine.run("alice", "PROPOSE", str(seq), encoded(b"%d" % seq))
        self.machine.run("a", "DONE", "0", "2", "1")
        self.machine.run("b", "DONE", "1", "2", "1")
        other = Instances()
        other.restore(self.instances.snapshot())
        self.assertEqual((other.snapshot(), other.least, other.decided[4]), (self.instances.snapshot(), 2, "NA=="))

    def test_decisions_are_told_once(self) -> None:
        told: list[object] = []
        self.instances.on_decided = lambda seq, text: told.append((seq, text))
        self.instances.on_forgotten = told.append
        self.machine.run("alice", "PROPOSE", "0", "YQ==")
        self.machine.run("alice", "PROPOSE", "0", "Yg==")
        self.machine.run("a", "DONE", "0", "1", "0")
        self.machine.run("a", "DONE", "0", "1", "0")
        self.assertEqual(told, [(0, "YQ=="), 1])

    def test_wrong_commands_are_refused_with_a_sentence(self) -> None:
        for command in (
            ("PROPOSE", "1"),
            ("PROPOSE", "-1", "YQ=="),
            ("PROPOSE", "1", "no base64"),
            ("PROPOSE", "1", "YQ"),
            ("DECIDED", "x"),
            ("DONE", "3", "3", "1"),
            ("DONE", "0", "0", "1"),
            ("DONE", "0", "3", "-1"),
            ("INSTANCES", "limit=0"),
        ):
            self.assertIsInstance(refusal(self.instances, *command), BadRequest)
        too_long = "A" * (4 * (instance_bytes_max // 3 + 1))
        self.assertEqual(refusal(self.instances, "PROPOSE", "1", too_long).code, "TOOLARGE")
