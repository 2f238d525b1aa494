"""The checker of quotas notices wrong sums, and refusals that are right only by these wrong sums."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.key_value import KeyValue
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.quota_checker import QuotaChecker
from pfsb.simulator.linearizability.texts import ordered_form
from tests.sessions.support import Driver


class QuotaCheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.kv, self.chat = KeyValue(), Chat()
        quotas = {"kv_bytes": 10, "chat_bytes": 20, "value_bytes": 8}
        self.driver = Driver(catalogue=Catalogue([self.chat, self.kv]), window=100, **quotas)
        self.marks: Counter[str] = Counter()
        self.checker = QuotaChecker(self.driver.machine, lambda: {"kv": self.kv, "chat": self.chat}, self.marks)
        self.epoch = self.driver.open("alice")["epoch"]
        self.number = 0

    def run_command(self, *command: Any) -> Any:
        self.number += 1
        return self.driver.run("alice", self.epoch, (self.number, ordered_form(command)))[0]

    def assertViolation(self, text: str) -> None:
        self.assertIn(text, str(self.assertRaises(Violation, self.checker.raise_violation)))

    def test_right_servers_pass(self) -> None:
        """Servers that count correctly pass, with values, lines and refusals of all kinds."""
        for command in (
            ("PUT", "k", "1234567"),
            ("PUT", "l", "1234567"),
            ("APPEND", "k", "12"),
            ("APPEND", "k", ""),
            ("INCR", "n", 1),
            ("CAS", "k", 1, "1234567", "7654321"),
            ("PUTHASH", "k", "x"),
            ("DEL", "k"),
            ("INCR", "n", 1),
            ("SAY", "12345678"),
            ("SAY", "123456789"),
            ("SAY", "12345678"),
        ):
            self.run_command(*command)
        self.checker.raise_violation()
        self.assertEqual(self.marks["SAY beyond a quota"], 2)

    def test_sum_that_is_wrong(self) -> None:
        """A server whose DEL does not reduce the sum is found."""
        self.run_command("PUT", "k", "12")
        self.kv.used_bytes += 1
        self.run_command("DEL", "k")
        self.assertViolation("kv_bytes are 1, after ('DEL', 'k') 0")

    def test_refusal_that_is_wrong(self) -> None:
        """A refusal while half the quota is left is found."""
        self.driver.machine.context.quotas = Driver(kv_bytes=5).machine.settings.values
        self.run_command("PUT", "k", "123456")
        self.assertViolation("is refused, but adds 7 to 10")

    def test_growth_beyond_a_quota(self) -> None:
        """A value beyond the quota that a server accepts is found: the server has another limit than the settings."""
        self.driver.machine.context.quotas = Driver(kv_bytes=50).machine.settings.values
        self.run_command("PUT", "k", "12345678")
        self.run_command("PUT", "l", "12345678")
        self.assertViolation("beyond a quota")

    def test_line_beyond_a_quota(self) -> None:
        """A line beyond the quota is found: a text has 8 bytes at most here."""
        self.driver.machine.context.quotas = Driver(chat_bytes=50).machine.settings.values
        self.run_command("SAY", "123456789")
        self.assertViolation("('SAY', '123456789') came to")

    def test_kept_answers_that_are_not_counted(self) -> None:
        """Kept answers that a server does not count are found: its sum is compared with what the sessions keep."""
        self.run_command("APPEND", "k", "12")
        self.checker.raise_violation()
        self.driver.machine.kept_replies.size -= 1
        self.assertViolation("kept answers count 1 bytes, and are 2")
