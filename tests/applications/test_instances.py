"""The application behind the agreement library: write-once slots, forgotten when all peers are done."""

from __future__ import annotations

import base64
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.instances import InstanceLimits, Instances, encoded, part_bytes_max
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
        self.assertEqual((field(shown, "next"), field(shown, "min"), field(shown, "max")), (5, 0, 5))
        rest = self.machine.ask("INSTANCES", "from=5")
        self.assertEqual([dict(row)["seq"] for row in rows(rest)], [5])
        self.assertNotIn("next", dict(rest.fields))

    def test_listing_of_large_values_comes_in_pages(self) -> None:
        """A client that goes on from `next` sees every value, however large they are together."""
        for seq in range(5):
            self.instances.decided[seq] = bytes([seq]) * 1_048_576
        shown = self.machine.ask("INSTANCES")
        seen = [dict(row)["seq"] for row in rows(shown)]
        while "next" in dict(shown.fields):
            shown = self.machine.ask("INSTANCES", f"from={field(shown, 'next')}")
            seen += [dict(row)["seq"] for row in rows(shown)]
        self.assertEqual(seen, [0, 1, 2, 3, 4])

    def test_snapshot_brings_all_back(self) -> None:
        for seq in range(5):
            self.machine.run("alice", "PROPOSE", str(seq), encoded(b"%d" % seq))
        self.machine.run("a", "DONE", "0", "2", "1")
        self.machine.run("b", "DONE", "1", "2", "1")
        other = Instances()
        other.restore(self.instances.snapshot())
        self.assertEqual((other.snapshot(), other.least, other.decided[4]), (self.instances.snapshot(), 2, b"4"))

    def test_decisions_are_told_once(self) -> None:
        told: list[object] = []
        self.instances.on_decided = lambda seq, value: told.append((seq, value))
        self.instances.on_forgotten = told.append
        self.machine.run("alice", "PROPOSE", "0", "YQ==")
        self.machine.run("alice", "PROPOSE", "0", "Yg==")
        self.machine.run("a", "DONE", "0", "1", "0")
        self.machine.run("a", "DONE", "0", "1", "0")
        self.assertEqual(told, [(0, b"a"), 1])

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
            ("INSTANCES", "from=-1"),
            ("PART", "1", "0", "3"),
            ("PART", "1", "0", "3", "no base64"),
            ("PART", "1", "0", "3", ""),
            ("PART", "1", "0", "0", ""),
            ("PART", "1", "2", "3", "YWI="),
            ("PART", "1", "-1", "3", "YQ=="),
            ("PART", "-1", "0", "3", "YQ=="),
        ):
            self.assertIsInstance(refusal(self.instances, *command), BadRequest)
        too_long = "A" * (4 * (part_bytes_max // 3 + 1))
        self.assertEqual(refusal(self.instances, "PROPOSE", "1", too_long).code, "TOOLARGE")
        self.assertEqual(refusal(self.instances, "PART", "1", "0", "99999", too_long).code, "TOOLARGE")
        self.assertEqual(refusal(self.instances, "PART", "1", "0", "1048577", "YQ==").code, "TOOLARGE")

    def test_commands_of_another_version_are_refused_and_change_nothing(self) -> None:
        """A command that another version of the server let through, and that this one would refuse, is refused when it
        is executed; it neither raises nor changes anything."""
        before = self.instances.snapshot()
        for command, expected in (
            (("PROPOSE", 1, "no base64"), "BADREQUEST"),
            (("PROPOSE", 1, encoded(bytes(part_bytes_max + 1))), "TOOLARGE"),
            (("PROPOSE", -1, "YQ=="), "CONFLICT"),
            (("PART", 1, 0, 3, "\u00e9"), "BADREQUEST"),
            (("PART", 1, 0, 2**63 - 1, "YQ=="), "TOOLARGE"),
            (("PART", 1, 0, 0, ""), "BADREQUEST"),
            (("PART", 1, 3, 3, "YQ=="), "BADREQUEST"),
            (("PART", 1, -1, 3, "YQ=="), "BADREQUEST"),
        ):
            self.assertEqual(code(self.machine.run_checked("alice", command)), expected, command)
        self.assertEqual(self.instances.snapshot(), before)


class PartsTests(SynchronousTestCase):
    """A value that comes in parts: here "abcdef", in three parts of two bytes each."""

    limits = InstanceLimits(value_bytes=6, unfinished_bytes=3 * (6 + 1_024), unfinished_of_session=2)

    def setUp(self) -> None:
        self.instances = Instances(self.limits)
        self.machine = Machine(self.instances)

    def part(self, client_id: str, seq: int, offset: int, value: bytes = b"abcdef") -> object:
        """Execute the part of two bytes at `offset`. Returns its answer."""
        return self.machine.run(
            client_id, "PART", str(seq), str(offset), str(len(value)), encoded(value[offset : offset + 2])
        )

    def decided(self, seq: int) -> bytes | None:
        shown = self.machine.ask("DECIDED", str(seq))
        return base64.b64decode(field(shown, "value")) if field(shown, "decided") == "yes" else None

    def test_last_part_decides(self) -> None:
        """The last part decides the instance; before it, no question sees anything of the value."""
        self.assertEqual(field(self.part("alice", 7, 0), "received"), 2)
        self.assertEqual(field(self.part("alice", 7, 2), "received"), 4)
        self.assertEqual((self.decided(7), rows(self.machine.ask("INSTANCES"))), (None, ()))
        self.assertEqual(field(self.part("alice", 7, 4), "first"), "yes")
        self.assertEqual(self.decided(7), b"abcdef")
        self.assertEqual((len(self.instances.unfinished), self.instances.unfinished.bytes_used), (0, 0))

    def test_parts_of_two_clients_are_never_mixed(self) -> None:
        """When two clients send a value in parts, the one whose value is complete first decides; the other is told so
        at its next part."""
        for offset, client_id, value in ((0, "a", b"aaaaaa"), (0, "b", b"bbbbbb"), (2, "b", b"bbbbbb")):
            self.part(client_id, 7, offset, value)
        self.part("a", 7, 2, b"aaaaaa")
        self.assertEqual(field(self.part("b", 7, 4, b"bbbbbb"), "first"), "yes")
        self.assertEqual(field(self.part("a", 7, 4, b"aaaaaa"), "first"), "no")
        self.assertEqual(self.decided(7), b"bbbbbb")
        self.assertEqual(len(self.instances.unfinished), 0)

    def test_small_proposal_overtakes_parts(self) -> None:
        self.part("alice", 7, 0)
        self.assertEqual(field(self.machine.run("bob", "PROPOSE", "7", "YQ=="), "first"), "yes")
        self.assertEqual(len(self.instances.unfinished), 0)
        self.assertEqual(field(self.part("alice", 7, 2), "first"), "no")

    def test_part_out_of_order_is_refused_and_says_which_is_next(self) -> None:
        """A part out of order is refused, and the refusal tells which part is next. The earlier parts stay, so the
        client can go on."""
        self.part("alice", 7, 0)
        refused = self.part("alice", 7, 4)
        self.assertEqual(code(refused), "NOTFOUND")
        self.assertIn("next part of a value of 6 bytes begins at 2", refused.text)
        self.assertEqual(code(self.part("bob", 7, 2)), "NOTFOUND")
        self.assertEqual(code(self.part("alice", 7, 2, b"abcde")), "NOTFOUND")
        self.assertEqual(field(self.part("alice", 7, 2), "received"), 4)

    def test_first_part_begins_anew(self) -> None:
        self.part("alice", 7, 0)
        for offset in (0, 2, 4):
            last = self.part("alice", 7, offset, b"ABCDEF")
        self.assertEqual((field(last, "first"), self.decided(7)), ("yes", b"ABCDEF"))

    def test_session_that_ends_takes_its_parts_along(self) -> None:
        """When a session ends, the parts that it has sent are dropped. The parts of other sessions stay."""
        self.part("alice", 7, 0)
        self.part("alice", 8, 0)
        self.part("bob", 7, 0)
        self.machine.end("alice")
        self.assertEqual(len(self.instances.unfinished), 1)
        self.assertEqual(code(self.part("alice", 7, 2)), "NOTFOUND")
        self.part("bob", 7, 2)
        self.assertEqual(field(self.part("bob", 7, 4), "first"), "yes")

    def test_forgetting_takes_the_parts_of_the_forgotten_along(self) -> None:
        self.part("alice", 7, 0)
        self.part("alice", 9, 0)
        self.machine.run("a", "DONE", "0", "1", "8")
        self.assertEqual(list(self.instances.unfinished.instances), [9])
        self.assertEqual(code(self.part("alice", 7, 2)), "CONFLICT")

    def test_session_has_few_unfinished_values(self) -> None:
        for seq in (1, 2):
            self.part("alice", seq, 0)
        refused = self.part("alice", 3, 0)
        self.assertEqual(code(refused), "BUSY")
        self.assertIn("of instances 1, 2", refused.text)
        self.assertEqual(field(self.part("alice", 2, 0), "received"), 2)

    def test_values_have_their_room_before_they_begin(self) -> None:
        """With room for three whole values, three can be finished; the fourth is told to try later."""
        for client_id in ("a", "b", "c"):
            self.part(client_id, 1, 0)
        refused = self.part("d", 1, 0)
        self.assertEqual(code(refused), "BUSY")
        self.assertIn("try later", refused.text)
        self.part("c", 1, 2)
        self.assertEqual(field(self.part("c", 1, 4), "first"), "yes")
        self.assertEqual(field(self.part("d", 2, 0), "received"), 2)

    def test_silent_client_makes_room_for_others(self) -> None:
        """The value of a client that sends no further part is dropped when another needs its room, by the state
        machine's time, so that every server drops the same value. A value that grows is not dropped."""
        for client_id in ("a", "b", "c"):
            self.part(client_id, 1, 0)
        self.machine.pass_time(self.limits.unfinished_idle_ms)
        self.part("a", 1, 2)
        self.assertEqual(field(self.part("d", 1, 0), "received"), 2)
        self.assertEqual(code(self.part("b", 1, 2)), "NOTFOUND")
        self.assertEqual(field(self.part("a", 1, 4), "first"), "yes")

    def test_snapshot_brings_unfinished_values_back(self) -> None:
        """A server that begins with a snapshot goes on as the others do, evictions included."""
        self.part("b", 1, 0)
        self.machine.pass_time(1)
        self.part("a", 1, 0)
        self.part("a", 1, 2)
        other = Machine(Instances(self.limits))
        other.application.restore(self.instances.snapshot())
        other.context.time_ms = self.machine.context.time_ms
        self.assertEqual(other.application.snapshot(), self.instances.snapshot())
        for machine in (self.machine, other):
            machine.pass_time(self.limits.unfinished_idle_ms - 1)
            for client_id in ("c", "d"):
                machine.run(client_id, "PART", "5", "0", "6", "YQ==")
            machine.run("a", "PART", "1", "4", "6", "ZWY=")
        self.assertEqual(other.application.snapshot(), self.instances.snapshot())
        self.assertEqual(self.decided(1), b"abcdef")


class QuotaTests(SynchronousTestCase):
    """The quota of all decided instances together, and the maximum size of one value."""

    def setUp(self) -> None:
        self.instances = Instances()
        self.machine = Machine(self.instances)
        self.limit(instance_bytes=2 * (64 + 100))

    def limit(self, **quotas: int) -> None:
        self.machine.context.quotas = evolve(self.machine.context.quotas, **quotas)

    def propose(self, seq: int, size: int) -> Any:
        return self.machine.run("alice", "PROPOSE", str(seq), encoded(b"x" * size))

    def test_value_beyond_the_quota_is_refused_and_not_decided(self) -> None:
        """A value beyond the quota is refused, and its instance is not decided. Proposals for decided instances are
        still answered."""
        for seq in (0, 1):
            self.assertEqual(field(self.propose(seq, 100), "first"), "yes")
        refused = self.propose(2, 0)
        self.assertEqual((refused.code, refused.fate), ("TOOLARGE", "none"))
        self.assertIn("392 bytes, and instance_bytes allows 328", refused.text)
        self.assertEqual(field(self.propose(1, 100), "first"), "no")
        self.assertEqual((sorted(self.instances.decided), self.instances.used()), ([0, 1], 328))

    def test_instances_that_are_forgotten_make_room(self) -> None:
        """Instances that are forgotten by DONE make room in the quota, whether fewer or more instances are forgotten
        than are decided."""
        for least in (1, 2**62):
            first = self.instances.least
            for seq in (first, first + 1):
                self.propose(seq, 100)
            self.assertEqual(code(self.propose(first + 2, 1)), "TOOLARGE")
            self.machine.run("a", "DONE", "0", "1", str(least - 1))
            self.assertEqual(self.instances.used(), 164 * len(self.instances.decided))
        self.assertEqual((self.instances.used(), field(self.propose(2**62, 200), "first")), (0, "yes"))

    def test_parts_of_a_value_that_has_no_room_are_refused_at_once(self) -> None:
        """The first part of a value that has no room is refused: the size that it announces counts."""
        refused = self.machine.run("alice", "PART", "0", "0", "265", encoded(b"x" * 100))
        self.assertEqual((refused.code, len(self.instances.unfinished)), ("TOOLARGE", 0))
        self.machine.run("alice", "PART", "0", "0", "264", encoded(b"x" * 100))
        self.propose(1, 1)
        self.assertEqual(code(self.machine.run("alice", "PART", "0", "100", "264", encoded(b"x" * 164))), "TOOLARGE")
        self.machine.run("a", "DONE", "0", "1", "1")
        self.assertEqual(code(self.machine.run("alice", "PART", "0", "100", "264", encoded(b"x" * 164))), "CONFLICT")

    def test_value_larger_than_one_may_be_is_refused(self) -> None:
        """A value larger than the setting value_bytes allows is refused, whether it comes by PROPOSE or in parts."""
        self.limit(value_bytes=10)
        self.assertEqual(field(self.propose(0, 10), "first"), "yes")
        self.assertIn("11 bytes, 10 are allowed (value_bytes)", self.propose(1, 11).text)
        self.assertEqual(code(self.machine.run("alice", "PART", "1", "0", "11", encoded(b"x"))), "TOOLARGE")

    def test_snapshot_brings_the_use_back(self) -> None:
        self.propose(0, 100)
        other = Instances()
        other.restore(self.instances.snapshot())
        self.assertEqual((other.used(), Instances().used()), (164, 0))
