"""Schedules in which large messages pass through small socket buffers: correct servers pass, and servers without one
guard of Departures 47 and 49 do not.

Random runs do not show these guards, since without them a cluster is only slower.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.part_requests import PartRequests
from pfsb.simulator.defects.defect import become, do_nothing, override
from pfsb.simulator.runs.defect_hunt import attempt


class NeverSilent(PartRequests):
    __slots__ = ()

    def is_silent(self, server_id: int) -> bool:
        return False


def restarted_promiser_is_forgotten(process: Any) -> None:
    """A defect: a server that restarts while the leader fetches its promise is sent no PREPARE again."""
    become(process.replica.prepare.requests, NeverSilent)


def long_promise_is_given_no_time(process: Any) -> None:
    """A defect: a leader is suspected while a promise still arrives."""
    override(process.replica.prepare, "give_time", lambda _: do_nothing)


def bursts_wait_a_fixed_time(process: Any) -> None:
    """A defect: a server gives each burst the same time, however soon bursts usually come."""
    override(process.replica.reconciliation.round_trip, "answered", lambda _: do_nothing)


class LongMessagesTests(SynchronousTestCase):
    def test_long_promise_arrives_over_any_buffer(self) -> None:
        """A long promise arrives over socket buffers of any size; the seed chooses the number of servers and that
        size."""
        for seed in range(2):
            self.assertEqual(attempt("long-promise-over-small-buffers", seed, None), "")

    def test_promiser_may_restart(self) -> None:
        self.assertEqual(attempt("promiser-restarts", 0, None), "")
        self.assertIn("was well", attempt("promiser-restarts", 0, restarted_promiser_is_forgotten))

    def test_long_promise_is_given_time(self) -> None:
        self.assertEqual(attempt("long-promise-over-slow-links", 0, None), "")
        self.assertIn("was well", attempt("long-promise-over-slow-links", 0, long_promise_is_given_no_time))

    def test_lost_part_of_a_burst_is_asked_for_soon(self) -> None:
        """Departure 49: a lost part of a burst is asked for soon, since the measured time between bursts is short
        here."""
        self.assertEqual(attempt("catching-up-over-a-small-buffer", 0, None), "")
        self.assertIn("in vain", attempt("catching-up-over-a-small-buffer", 0, bursts_wait_a_fixed_time))
