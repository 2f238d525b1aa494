"""The check of locks: each of its rules finds the violation that it is there for (docs/internals/applications.rst)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Done, Refused, Result
from pfsb.simulator.checkers.lock_checker import LockChecker
from pfsb.simulator.checkers.violation import Violation

LOCK = ("LOCK", "x", -1)
UNLOCK = ("UNLOCK", "x", -1)
RELEASED = Done((("name", "x"),))


def granted(token: int) -> Result:
    return Done((("name", "x"), ("token", token)))


class LockCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = LockChecker()
        self.check.executed(LOCK, ("a", 1), granted(5), [])

    def wait(self, *clients: str) -> None:
        for client in clients:
            self.check.executed(LOCK, (client, 1), PENDING, [])

    def refuse(self, command: tuple[object, ...], ticket: tuple[str, int], result: Result, *completed: object) -> str:
        return str(self.assertRaises(Violation, self.check.executed, command, ticket, result, list(completed)))

    def test_lock_that_goes_to_the_first_waiter_passes(self) -> None:
        """Waiting clients get the lock in their order, and any client may have a free lock."""
        self.wait("b", "c")
        self.check.executed(UNLOCK, ("a", 2), RELEASED, [(("b", 1), granted(6))])
        self.check.session_ended("b", [(("c", 1), granted(7))])
        self.check.executed(UNLOCK, ("c", 2), RELEASED, [])
        self.check.executed(LOCK, ("a", 3), granted(8), [])
        self.assertEqual(self.check.grants_after_a_wait, 2)

    def test_second_holder_is_found(self) -> None:
        """A second holder of a lock is found."""
        self.assertIn("holds it", self.refuse(LOCK, ("b", 1), granted(6)))

    def test_refusal_by_a_quota_needs_so_many_locks(self) -> None:
        """A refusal by the quota of locks is right only if the session has so many, those for which it waits included;
        more locks than the quota are a violation, too."""
        other, too_many = ("LOCK", "y", -1), Refused("TOOLARGE", "")
        self.assertIn("with 1 of 2", self.limited(2, other, too_many))
        self.check.executed(other, ("b", 1), granted(6), [])
        self.check.locks_max = 2
        self.check.executed(other, ("a", 3), PENDING, [])
        self.check.executed(("LOCK", "z", -1), ("a", 4), too_many, [])
        self.assertIn("waits for 3 locks, of 2", self.limited(2, ("LOCK", "z", -1), granted(7)))

    def limited(self, locks_max: int, command: tuple[object, ...], result: Result) -> str:
        self.check.locks_max = locks_max
        return self.refuse(command, ("a", 9), result)

    def test_token_that_does_not_grow_is_found(self) -> None:
        """A fencing token that does not grow is found: the former holder could not be fenced off."""
        self.check.executed(UNLOCK, ("a", 2), RELEASED, [])
        self.assertIn("had the token 5", self.refuse(LOCK, ("b", 1), granted(5)))

    def test_other_token_for_its_holder_is_found(self) -> None:
        """A holder that asks again and gets another token is found."""
        self.assertIn("is told 6", self.refuse(LOCK, ("a", 2), granted(6)))

    def test_grant_out_of_order_is_found(self) -> None:
        """A grant that does not go to the client that has waited longest is found."""
        self.wait("b", "c")
        self.assertIn("has waited longer", self.refuse(UNLOCK, ("a", 2), RELEASED, (("c", 1), granted(6))))

    def test_free_lock_with_a_waiting_client_is_found(self) -> None:
        """A lock that is free while a client waits for it is found."""
        self.wait("b")
        self.assertIn("is free", self.refuse(UNLOCK, ("a", 2), RELEASED))

    def test_refusal_of_a_free_lock_is_found(self) -> None:
        """A TRYLOCK that is refused although the lock is free is found."""
        self.check.executed(UNLOCK, ("a", 2), RELEASED, [])
        self.assertIn("refused the free lock", self.refuse(("TRYLOCK", "x"), ("b", 1), Refused("HELD", "by a")))

    def test_session_that_is_over_and_waits_is_found(self) -> None:
        """A session that has ended and still waits is found."""
        self.wait("b")
        self.assertRaises(Violation, self.check.session_ended, "b", [])

    def test_time_out_ends_the_wait(self) -> None:
        """TIMEOUT as the answer to a LOCK ends its wait without a grant, and the lock goes to the next waiting
        client."""
        self.wait("b", "c")
        self.check.time_passed([(("b", 1), Refused("TIMEOUT", "not free in time"))])
        self.check.executed(UNLOCK, ("a", 2), RELEASED, [(("c", 1), granted(6))])
        self.assertEqual(self.check.timeouts, 1)

    def test_wait_beyond_its_time_is_found(self) -> None:
        """A wait beyond its time is found: LOCK with wait=0.3 at 1 s ends at 1.3 s, by the time of the state
        machine."""
        self.check.executed(("LOCK", "x", 300), ("b", 1), PENDING, [], 1_000)
        self.check.begins(1_299)
        self.assertIn("their time has come", str(self.assertRaises(Violation, self.check.begins, 1_300)))

    def test_wait_that_was_ended_in_time_passes(self) -> None:
        """A wait that was ended in time, by TIMEOUT or by a grant, passes."""
        self.check.executed(("LOCK", "x", 300), ("b", 1), PENDING, [], 1_000)
        self.check.time_passed([(("b", 1), Refused("TIMEOUT", ""))])
        self.check.begins(2_000)
