"""The check of the line that a server prints when it stops because a majority contradicts its results (Departure
40)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.checkers.divergence_checker import check_stop
from pfsb.simulator.checkers.violation import Violation

KNOWN = dict.fromkeys(range(1, 10), b"right")


def own(seq: int) -> bytes | None:
    """The digests of a server that differs from the others from slot 5 on."""
    return b"right" if seq < 5 else b"wrong"


def line(first: int = 5, last: int = 6, others: str = "0, 2", server_id: int = 1) -> str:
    return (
        f"server {server_id} has executed slots {first} to {last} otherwise than servers {others}, which are a "
        "majority: after slot 6 its digest is 00, theirs 01. Start it again: executing anew heals an error of memory. "
        "If it stops here again, its disk or its applications differ from theirs"
    )


class StopTests(SynchronousTestCase):
    def check(self, text: str, *, is_exact: bool = True) -> None:
        check_stop(1, text, (0, 1, 2), own, KNOWN, is_exact)

    def refuse(self, text: str) -> str:
        return str(self.assertRaises(Violation, self.check, text))

    def test_true_line_passes(self) -> None:
        """A true line passes: the server agrees up to slot 4, and the line may name any slots around the first
        difference."""
        self.check(line())
        self.check(line(1, 5))

    def test_line_that_says_nothing_is_found(self) -> None:
        """A line that does not tell an operator what has happened and what to do is found."""
        self.assertIn("does not say why", self.refuse("something is wrong"))
        self.assertIn("does not say why", self.refuse(line().partition("Start")[0]))

    def test_minority_and_the_server_itself_are_no_majority(self) -> None:
        """A stop is a violation if only a minority of the other servers differs: the server itself does not count in
        the majority."""
        for others in ("0", "0, 1", "0, 7"):
            self.assertIn("for no majority", self.refuse(line(others=others)))
        self.assertIn("for no majority", self.refuse(line(server_id=0)))

    def test_line_that_names_other_slots_is_found(self) -> None:
        """A line with wrong slots is found: results must be equal at its first slot and different at its last."""
        self.assertIn("agrees with others up to slot 4", self.refuse(line(2, 4)))
        self.assertIn("agrees with others up to slot 5", self.refuse(line(8, 5)))
        self.assertIn("differs before", self.refuse(line(6, 7)))
        self.check(line(6, 7), is_exact=False)
