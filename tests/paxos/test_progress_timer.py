"""Figure 2 E1 and Figure 6 A: the Progress_Timer, the only failure detector."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.core import Core
from pfsb.paxos.data_structures import OrderingData
from pfsb.paxos.members import Members
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Accept
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.peers import Peers
from pfsb.paxos.progress_timer import HURRY_SECONDS, WRITES_PATIENCE, ProgressTimer
from pfsb.paxos.records import AruRecord
from pfsb.paxos.replica import new_data
from pfsb.paxos.round_trip import RoundTrip
from pfsb.paxos.turn import Turn
from pfsb.paxos.window import Window
from tests.paxos.case import SMALL, FakeStorage, FakeTransport, Notes, Recovered, ReplicaTestCase, identity_of
from tests.paxos.messages import accept, alive, client_update, proposal, view_change


class ProgressTimerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.notes = Notes()
        data, membership = new_data(2, SMALL), Membership(2, Members((1, 2, 3)))
        self.timers = data.timers
        way_out = Outbound(
            membership,
            Peers(membership, self.clock, SMALL),
            FakeTransport(),
            self.clock,
            SMALL,
            Window(OrderingData(), 4, is_born=True),
        )
        storage = FakeStorage(Recovered(identity_of(2), 1))
        turn = Turn(data, storage, way_out, lambda f: f.raiseException(), lambda: None)
        self.dice = random.Random(7)
        self.turn, self.storage = turn, storage
        self.slot_time = RoundTrip(SMALL.resend_seconds, self.dice)
        core = Core(data, membership, turn, self.clock, SMALL, self.notes)
        self.timer = ProgressTimer(core, self.dice, self.slot_time)
        self.expired: list[float] = []
        self.timer.on_expiry = lambda: self.expired.append(self.clock.seconds())

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.001] * round(seconds * 1000))

    def test_it_expires_once(self) -> None:
        """Figure 6, Block A: the timer expires once, and then is not set until it is started again."""
        self.timer.start()
        self.assertTrue(self.timer.running)
        self.advance(1.01)
        self.assertEqual(len(self.expired), 1)
        self.assertFalse(self.timer.running)
        self.advance(3)
        self.assertEqual(len(self.expired), 1)
        self.assertEqual(self.notes.of("timer"), [{"name": "progress"}])

    def test_start_while_running_begins_anew(self) -> None:
        """Figure 10 D: a start while the timer runs begins anew, so that every executed update gives the leader a full
        timeout."""
        self.timer.start()
        for _ in range(5):
            self.advance(0.9)
            self.timer.start()
        self.advance(0.95)
        self.assertEqual(self.expired, [])
        self.advance(0.1)
        self.assertEqual(len(self.expired), 1)

    def test_restarting_costs_no_new_call(self) -> None:
        """A restart of the timer, which comes with every executed slot, makes no new delayed call."""
        self.timer.start()
        (call,) = self.clock.getDelayedCalls()
        self.advance(0.5)
        self.timer.start()
        self.assertEqual(self.clock.getDelayedCalls(), [call])
        self.assertAlmostEqual(call.getTime(), 1.0)

    def test_stopped_timer_does_not_expire(self) -> None:
        """Figure 6 E: a stopped timer, as in an election until a view is preinstalled, does not expire."""
        self.timer.start()
        self.timer.stop()
        self.assertFalse(self.timer.running)
        self.advance(2)
        self.assertEqual(self.expired, [])
        self.timer.stop()

    def test_value_doubles_up_to_the_cap(self) -> None:
        """Section 5.3 and G8.2: the length doubles up to eight times the default."""
        values = []
        for _ in range(5):
            self.timer.double()
            values.append(self.timers.progress_seconds)
        self.assertEqual(values, [2.0, 4.0, 8.0, 8.0, 8.0])

    def test_value_comes_down_to_the_default_by_steps(self) -> None:
        """G8.2 and Departure 48: the length comes down by halves to the default: one update that was ordered does not
        show that the default is long enough."""
        values = []
        for _ in range(3):
            self.timer.double()
        for _ in range(4):
            self.timer.come_down()
            values.append(self.timers.progress_seconds)
        self.assertEqual(values, [4.0, 2.0, 1.0, 1.0])

    def test_length_is_twice_the_recent_time_of_slots_or_more(self) -> None:
        """Departure 48: the length is at least twice the recent time of slots, which is no reason to suspect the
        leader."""
        self.slot_time.answered(0.0, 0.0, 2.0)
        self.assertGreaterEqual(self.timer.seconds, 4.0)
        self.timer.start()
        self.advance(3.9)
        self.assertEqual(self.expired, [])

    def test_slots_make_it_no_longer_than_disks_may_hang(self) -> None:
        """Departure 48: slow slots make the timer no longer than disks may hang: no slot takes longer."""
        for _ in range(9):
            self.slot_time.answered(0.0, 0.0, 3600.0)
        self.assertEqual(self.timer.seconds, WRITES_PATIENCE * SMALL.disk_seconds)

    def test_length_comes_down_with_the_time_of_slots(self) -> None:
        """Departure 48: the length comes down with the time of slots, so that one slow write does not make later
        failovers slow for long."""
        self.slot_time.answered(0.0, 0.0, 2.0)
        for _ in range(30):
            self.slot_time.answered(0.0, 0.0, 0.002)
        self.assertEqual(self.timer.seconds, 1.0)

    def write(self) -> None:
        """Begin a disk write that ends when the test says so."""
        self.turn.run(self.turn.append, AruRecord(1))

    def test_it_does_not_expire_during_one_long_write(self) -> None:
        """Departure 48: the timer does not expire during one long write of this server's disk: the vote that is missing
        may be its own, and its VIEW_CHANGE would wait for the same write."""
        self.timer.start()
        self.write()
        self.advance(5.5)
        self.assertEqual(self.expired, [])
        self.storage.finish_all()
        self.advance(5.5)
        self.assertEqual(self.expired, [], "the disks of the others get the same time")
        self.advance(1.1)
        self.assertEqual(len(self.expired), 1)

    def test_write_that_was_under_way_at_the_start_does_not_count(self) -> None:
        """Departure 48: a write that was under way when the timer was started does not count, though it may have ended:
        the next one may be the first that is slow."""
        self.write()
        self.timer.start()
        self.storage.finish_all()
        self.write()
        self.advance(5.5)
        self.assertEqual(self.expired, [])

    def test_second_wait_for_the_disk_is_for_one_write_only(self) -> None:
        """Departure 48: the timer waits a second time for one write only, so that a disk whose writes are all slow does
        not put a suspicion off for ever."""
        self.timer.start()
        self.write()
        self.advance(1.5)
        self.write()
        self.storage.finish_sync()
        self.advance(1.0)
        self.storage.finish_sync()
        self.write()
        self.advance(2.0)
        self.assertEqual(len(self.expired), 1)

    def test_progress_ends_the_longer_time_after_a_long_write(self) -> None:
        """Departure 48: after progress the usual time counts again, and not the longer one that followed a long
        write."""
        self.timer.start()
        self.write()
        self.advance(5.5)
        self.storage.finish_all()
        self.advance(1.0)
        self.timer.start()
        self.advance(1.01)
        self.assertEqual(len(self.expired), 1)

    def test_writes_that_end_do_not_put_it_off(self) -> None:
        """Departure 48: writes that end do not put the expiry off, however busy the disk is."""
        self.timer.start()
        for _ in range(12):
            self.write()
            self.advance(0.05)
            self.storage.finish_all()
            self.write()
            self.advance(0.04)
        self.assertEqual(len(self.expired), 1)

    def test_hurry_does_not_wait_for_the_disk(self) -> None:
        """Departure 11: a hurried timer does not wait for the disk, even if it was waiting for a write already."""
        self.timer.start()
        self.write()
        self.advance(1.5)
        self.timer.hurry()
        self.advance(HURRY_SECONDS + 0.002)
        self.assertEqual(len(self.expired), 1)

    def test_shorter_value_counts_from_the_next_start(self) -> None:
        """A length that has become shorter counts from the next start: the pending call, made for the longer one, does
        not delay the suspicion."""
        self.timer.double()
        self.timer.start()
        self.timer.come_down()
        self.timer.start()
        self.advance(1.01)
        self.assertEqual(len(self.expired), 1)

    def test_hurry_cuts_what_is_left_to_a_random_moment(self) -> None:
        """Departure 11: `hurry` cuts the time that is left to a random moment, so that one server suspects first."""
        self.timer.start()
        self.timer.hurry()
        self.advance(HURRY_SECONDS + 0.002)
        self.assertEqual(len(self.expired), 1)

    def test_hurry_never_makes_it_longer(self) -> None:
        """`hurry` never makes the time that is left longer, so that a hint every few milliseconds does not put the
        suspicion off."""
        throws = iter([0.005, 0.02, 0.02])
        self.patch(self.dice, "uniform", lambda low, high: next(throws))
        self.timer.start()
        for _ in range(3):
            self.timer.hurry()
        self.advance(0.006)
        self.assertEqual(len(self.expired), 1)

    def test_hurry_starts_nothing(self) -> None:
        """Departure 11: `hurry` does not start a timer that does not run."""
        self.timer.hurry()
        self.advance(2)
        self.assertEqual(self.expired, [])

    def test_progress_after_a_hurry_counts(self) -> None:
        """Progress after a hurry starts the timer with its usual length: the leader is not dead, though its address has
        refused a frame."""
        self.timer.start()
        self.timer.hurry()
        self.timer.start()
        self.advance(0.9)
        self.assertEqual(self.expired, [])


class ElectionTests(ReplicaTestCase):
    def test_every_preinstall_doubles_the_time_that_an_election_gets(self) -> None:
        """Section 5.3: an election gets 2 s for the first view that is preinstalled, 4 s for the second, and never more
        than 8 s."""
        waited = []
        for view in (1, 3, 4, 5):
            self.preinstall(view)
            begun = self.clock.seconds()
            while self.replica.progress_timer.running:
                self.advance(0.1)
            waited.append(round(self.clock.seconds() - begun))
            self.assertIn(view_change(2, view + 1), self.take(type(view_change(2, 1))))
        self.assertEqual(waited, [2, 4, 8, 8])


class StandstillTests(ReplicaTestCase):
    """Departure 48: for how long a server stood still says nothing about how long slots take."""

    def order_after_a_pause(self) -> None:
        """Slot 1 is proposed, the process stands still for an hour, and then the votes are read."""
        self.receive(proposal(1, 1, 1, client_update("carol", 1, server_id=3)))
        self.take(Accept)
        self.clock.rightNow += 3600.0
        for other in (1, 3):
            self.receive(accept(other, 1, 1))
        self.assertEqual(self.data.ordering.local_aru, 1)

    def test_paused_server_suspects_a_dead_leader_as_soon_as_before(self) -> None:
        """A server that stood still for an hour suspects a dead leader as soon as before: a timer of hours would keep a
        cluster of three from electing."""
        self.follow(view=1)
        for other in (1, 3):
            self.receive(alive(other, 1))
        self.order_after_a_pause()
        self.assertEqual(self.replica.progress_timer.seconds, self.settings.progress_seconds)

    def test_slot_that_a_restarted_server_finds_on_disk_is_not_measured(self) -> None:
        """The time of a slot that a restarted server finds on disk is not measured: it is not known when its PROPOSAL
        came."""
        self.clock.rightNow += 3600.0
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, client_update("carol", 1, server_id=3)))
        self.take(Accept)
        self.data.ordering.global_history.ensure(1).first_sent_at = 0.0
        for other in (1, 3):
            self.receive(accept(other, 1, 1))
        self.assertEqual(self.replica.progress_timer.seconds, self.settings.progress_seconds)
