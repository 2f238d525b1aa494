"""A clerk that holds a lock tells when it may be lost, before any server can have given the lock to another client."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.clerks.clerk_core import ClerkCore, HeldLock
from pfsb.client.core.client_core import ClientCore
from tests.client.core.script import ADDRESSES, Script

TTL = 9.0


class DoubtTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ends: list[Any] = []
        self.failures: list[str] = []
        self.clerk = ClerkCore(
            ClientCore(ADDRESSES, "x", ttl_seconds=int(TTL), dice=Random(1)), self.ends.append, self.failures.append
        )
        self.script = Script(self.clerk)
        self.told: list[tuple[str, float]] = []
        self.held = self.hold()

    def hold(self) -> HeldLock:
        found: list[Any] = []
        self.clerk.lock("door", None, found.append, self.script.now, None)
        self.script.answer_hello()
        self.script.hear('#1 OK name="door" token=5')
        self.script.take()
        (held,) = found
        assert isinstance(held, HeldLock)
        held.on_doubt(lambda lock: self.told.append((lock.name, self.script.now)))
        return held

    def answer_probes(self, seconds: float) -> None:
        """Let time pass while the server answers every probe."""
        until = self.script.now + seconds
        while self.script.now < until:
            self.script.pass_time(min(0.5, until - self.script.now))
            for line in self.script.take():
                if "LOCKS" in line:
                    self.script.hear(f"{line.split()[0]} OK count=0")

    def test_holder_is_told_when_the_ttl_has_passed_without_an_answer(self) -> None:
        self.script.hang_up()
        self.script.pass_time(TTL - 0.1)
        self.assertEqual((self.told, self.held.may_be_lost), ([], False))
        self.script.pass_time(0.1)
        self.assertEqual((self.told, self.held.may_be_lost, self.held.is_lost), ([("door", TTL)], True, False))
        self.script.pass_time(10 * TTL)
        self.assertEqual(len(self.told), 1)

    def test_time_counts_from_the_last_question_that_a_majority_has_answered(self) -> None:
        self.answer_probes(3 * TTL)
        self.assertEqual(self.told, [])
        self.script.hang_up()
        self.script.pass_time(TTL + 0.1)
        (told,) = self.told
        self.assertLessEqual(told[1], 4 * TTL)
        self.assertGreater(told[1], 3 * TTL + TTL / 2)

    def test_doubt_ends_when_a_server_finds_the_session_alive(self) -> None:
        self.script.hang_up()
        self.script.pass_time(2 * TTL)
        self.script.take()
        self.script.connect()
        self.assertTrue(self.held.may_be_lost)
        self.script.hear('OK client="x" epoch=9 last=1 resumed=yes opened=1')
        self.assertEqual((self.held.may_be_lost, self.held.is_lost, self.ends), (False, False, []))
        self.script.hang_up()
        self.script.pass_time(2 * TTL)
        self.assertEqual(len(self.told), 2)

    def test_doubt_becomes_a_loss_when_the_session_is_another(self) -> None:
        self.script.hang_up()
        self.script.pass_time(2 * TTL)
        self.script.connect()
        self.script.hear('OK client="x" epoch=30 last=0 resumed=no opened=30')
        self.assertEqual((self.held.may_be_lost, self.held.is_lost), (False, True))
        self.assertEqual([end.code for end in self.ends], ["NOSESSION"])

    def test_answers_to_stale_reads_take_no_doubt_away(self) -> None:
        """Answers to stale reads do not show that the session is alive, since a server that is cut off gives them. So
        the clerk asks for an answer of a majority, although its server answers stale reads all the time."""
        probes = 0
        for _ in range(int(4 * TTL)):
            answers: list[Any] = []
            command = self.clerk.call("GET a read=stale", answers.append, self.script.now, None)
            self.script.pass_time(0.5)
            lines = self.script.take()
            probes += sum("LOCKS" in line for line in lines)
            stale = next(line for line in lines if "GET" in line)
            self.script.hear(f"{stale.split()[0]} ERR NOTFOUND fate=none no key")
            assert command is not None and command.is_over
            if self.told:
                break
        self.assertGreater(probes, 0)
        self.assertEqual([name for name, _ in self.told], ["door"])

    def test_closed_clerk_tells_that_its_locks_are_gone(self) -> None:
        lost: list[HeldLock] = []
        self.held.on_lost(lost.append)
        self.clerk.stop(self.script.now)
        self.assertEqual((lost, self.held.is_lost), ([self.held], True))
        answers: list[Any] = []
        self.clerk.release(self.held, answers.append, self.script.now, None)
        self.assertEqual(answers[0].code, "CLOSED")

    def test_callback_that_raises_keeps_nothing_from_being_told(self) -> None:
        """An exception of a callback keeps no other callback from being called: it once left calls of the lost session
        without any answer."""

        def fail(_what: Any) -> None:
            raise ZeroDivisionError

        lost: list[HeldLock] = []
        self.held.on_lost(fail)
        self.held.on_lost(lost.append)
        self.clerk.on_session_end = fail
        answers: list[Any] = []
        self.clerk.call("PUT a 1", answers.append, self.script.now, None)
        self.script.hang_up()
        self.script.pass_time(1)
        self.script.connect()
        self.script.hear('OK client="x" epoch=30 last=0 resumed=no opened=30')
        self.assertEqual((lost, [answer.code for answer in answers]), ([self.held], ["NOSESSION"]))
        self.assertEqual(len(self.failures), 2)
