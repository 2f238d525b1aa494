"""Figure 5: how a message changes what a server remembers; and the parts of Figure 2 that know how to forget."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.data_structures import GlobalHistory, LastExecuted, Slot
from pfsb.paxos.messages import State
from pfsb.paxos.replica import new_data
from tests.paxos.case import SMALL
from tests.paxos.messages import (
    batch,
    client_update,
    ordered,
    prepare,
    prepare_ok,
    proposal,
    view_change,
)

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)
DIGEST = batch(ALICE).digest


class DataTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = new_data(2, SMALL)
        self.history = self.data.ordering.global_history

    def slot(self, seq: int) -> Slot:
        slot = self.history.get(seq)
        assert slot is not None
        return slot


class InitialValueTests(DataTestCase):
    def test_everything_starts_at_0_in_an_election(self) -> None:
        """Figure 2: at the start all values are 0, and State is LEADER_ELECTION (G3)."""
        data = self.data
        self.assertIs(data.server.state, State.LEADER_ELECTION)
        self.assertEqual((data.views.last_attempted, data.views.last_installed), (0, 0))
        self.assertEqual((data.ordering.local_aru, data.ordering.last_proposed), (0, 0))
        self.assertEqual(data.timers.progress_seconds, SMALL.progress_seconds)
        self.assertIsNone(data.preparing.prepare)


class VoteTests(DataTestCase):
    def test_first_vote_of_a_server_stands(self) -> None:
        """Figure 5, Block A: of several votes of a server the first one is kept (VC[sender] is set once)."""
        self.data.apply_view_change(view_change(3, 7))
        self.data.apply_view_change(view_change(3, 8))
        self.assertEqual(self.data.views.vc, {3: view_change(3, 7)})


class PrepareTests(DataTestCase):
    def test_prepare_is_remembered(self) -> None:
        """Figure 5, Block B: the PREPARE of the view that is being installed is stored."""
        self.data.apply_prepare(prepare(1, 1))
        self.assertEqual(self.data.preparing.prepare, prepare(1, 1))


class PrepareOKTests(DataTestCase):
    def test_promise_is_stored_once(self) -> None:
        """Figure 5, Block C: a promise that is repeated is not stored again, and its data list is not applied again."""
        self.assertTrue(self.data.apply_prepare_ok(prepare_ok(3, 2)))
        self.assertFalse(self.data.apply_prepare_ok(prepare_ok(3, 2)))
        self.assertTrue(self.data.preparing.prepare_oks[3].complete)

    def test_promise_in_parts_is_complete_with_the_last_part(self) -> None:
        """Departure 6, G28: a promise in parts counts when all of its parts are there, in whatever order they came."""
        self.data.apply_prepare_ok(prepare_ok(3, 2, part=1, parts=2))
        self.assertFalse(self.data.preparing.prepare_oks[3].complete)
        self.data.apply_prepare_ok(prepare_ok(3, 2, part=0, parts=2))
        self.assertTrue(self.data.preparing.prepare_oks[3].complete)

    def test_promise_of_another_view_takes_the_place_of_the_old_one(self) -> None:
        """G7: a promise of a later view replaces that of an older one, which is no promise for this view."""
        self.data.apply_prepare_ok(prepare_ok(3, 2))
        self.assertTrue(self.data.apply_prepare_ok(prepare_ok(3, 7, parts=2)))
        self.assertFalse(self.data.preparing.prepare_oks[3].complete)

    def test_lists_cut_into_different_numbers_of_parts_are_not_mixed(self) -> None:
        """Parts of data lists that were cut into different numbers of parts are not mixed: a part of another cut could
        hide that a slot is missing."""
        self.data.apply_prepare_ok(prepare_ok(3, 2, part=0, parts=2))
        self.assertFalse(self.data.apply_prepare_ok(prepare_ok(3, 2, part=1, parts=3)))
        self.assertFalse(self.data.preparing.prepare_oks[3].complete)


class ProposalTests(DataTestCase):
    def test_empty_slot_takes_the_proposal(self) -> None:
        """Figure 5, Block D: an empty slot takes the proposal."""
        self.assertTrue(self.data.apply_proposal(proposal(1, 1, 3, ALICE)))
        self.assertEqual(self.slot(3).proposal, proposal(1, 1, 3, ALICE))
        self.assertEqual(self.history.top, 3)

    def test_higher_view_replaces_a_lower_one(self) -> None:
        """Figure 5, Block D: a proposal of a higher view replaces one of a lower view."""
        self.data.apply_proposal(proposal(1, 1, 1, ALICE))
        self.assertTrue(self.data.apply_proposal(proposal(2, 2, 1, BOB)))
        self.assertEqual(self.slot(1).proposal, proposal(2, 2, 1, BOB))

    def test_lower_view_changes_nothing(self) -> None:
        """Figure 5, Block D: a proposal of a lower view changes nothing, since an old report must not hide what was
        accepted since."""
        self.data.apply_proposal(proposal(2, 2, 1, BOB))
        self.assertFalse(self.data.apply_proposal(proposal(1, 1, 1, ALICE)))
        self.assertEqual(self.slot(1).proposal, proposal(2, 2, 1, BOB))

    def test_repeated_proposal_is_no_news(self) -> None:
        """A proposal that is repeated is not stored again, so nothing goes to disk a second time."""
        self.data.apply_proposal(proposal(1, 1, 1, ALICE))
        self.assertFalse(self.data.apply_proposal(proposal(1, 1, 1, ALICE)))

    def test_ordered_slot_stays(self) -> None:
        """Figure 5, Block D: a proposal does not change a slot that is ordered."""
        self.data.apply_globally_ordered_update(ordered(1, 1, ALICE))
        self.assertFalse(self.data.apply_proposal(proposal(5, 5, 1, BOB)))
        self.assertIsNone(self.slot(1).proposal)

    def test_executed_slot_does_not_come_back(self) -> None:
        """G12: a proposal for a slot up to Local_Aru, which was dropped from memory, does not create the slot again."""
        self.data.ordering.local_aru = 4
        self.history.forget_up_to(4)
        self.assertFalse(self.data.apply_proposal(proposal(5, 5, 3, BOB)))
        self.assertIsNone(self.history.get(3))

    def test_votes_of_an_older_view_stay_with_their_view(self) -> None:
        """Departure 5: a newer proposal starts with its own votes, and clears none of the older ones."""
        self.data.apply_proposal(proposal(1, 1, 1, ALICE))
        self.data.apply_accept(3, 1, self.history.ensure(1), DIGEST)
        self.data.apply_proposal(proposal(2, 2, 1, BOB))
        self.assertEqual(self.slot(1).voters, {1: {3: DIGEST}})


class AcceptTests(DataTestCase):
    def test_nobody_counts_twice(self) -> None:
        """Figure 5, Block E, G14: each server's vote counts once, and more votes than half of the servers are counted,
        too."""
        for voter in (1, 3, 3, 4, 5):
            self.data.apply_accept(voter, 1, self.history.ensure(1), DIGEST)
        self.assertEqual(self.slot(1).voters, {1: dict.fromkeys((1, 3, 4, 5), DIGEST)})

    def test_vote_does_not_raise_the_top(self) -> None:
        """A vote without its proposal does not raise the top, so that a new leader need not fill a hole for it
        (G11)."""
        self.data.apply_accept(3, 1, self.history.ensure(9), DIGEST)
        self.assertEqual(self.history.top, 0)


class GloballyOrderedUpdateTests(DataTestCase):
    def test_only_the_ordered_field_is_set(self) -> None:
        """Figure 5, Block F, repaired (G12): only the field `ordered` of the slot is set; its proposal and votes are
        not used any more."""
        self.data.apply_proposal(proposal(1, 1, 1, ALICE))
        self.data.apply_accept(3, 1, self.history.ensure(1), DIGEST)
        self.assertTrue(self.data.apply_globally_ordered_update(ordered(4, 1, ALICE)))
        self.assertEqual(self.slot(1), Slot(ordered=batch(ALICE)))

    def test_second_report_is_no_news(self) -> None:
        """Figure 5, Block F: a second report of an ordered slot changes nothing."""
        self.data.apply_globally_ordered_update(ordered(4, 1, ALICE))
        self.assertFalse(self.data.apply_globally_ordered_update(ordered(5, 1, ALICE)))

    def test_two_values_at_one_number_stop_the_server(self) -> None:
        """S1: two ordered batches for one slot stop the server, since going on would be worse."""
        self.data.apply_globally_ordered_update(ordered(4, 1, ALICE))
        error = self.assertRaises(AssertionError, self.data.apply_globally_ordered_update, ordered(5, 1, BOB))
        self.assertIn("two values ordered at 1", str(error))


class GlobalHistoryTests(SynchronousTestCase):
    def test_reading_creates_no_slot(self) -> None:
        """Reading a slot that does not exist does not create it."""
        history = GlobalHistory(top=5)
        self.assertIsNone(history.get(3))
        self.assertEqual(list(history.above(0)), [])
        self.assertEqual(history.slots, {})

    def test_slots_above_come_in_ascending_order(self) -> None:
        """`above` gives slots in ascending order, on which data lists, no-ops and retransmission rely."""
        history = GlobalHistory(top=9)
        for seq in (9, 2, 5):
            history.ensure(seq)
        self.assertEqual([seq for seq, _ in history.above(2)], [5, 9])

    def test_forgotten_slots_are_not_made_again(self) -> None:
        """G12: a slot that was forgotten, below the floor, is not created again: it would look like an empty one."""
        history = GlobalHistory(top=3)
        history.ensure(1)
        history.forget_up_to(2)
        self.assertEqual(history.floor, 2)
        self.assertRaises(AssertionError, history.ensure, 1)
        history.forget_up_to(1)
        self.assertEqual(history.floor, 2)

    def test_size_in_memory_follows_what_is_kept(self) -> None:
        """The size in memory counts ordered batches when they come, and no longer when they are dropped."""
        data = new_data(2, SMALL)
        history = data.ordering.global_history
        for seq in (1, 2, 3):
            data.apply_globally_ordered_update(ordered(1, seq, ALICE))
        self.assertEqual(history.batch_bytes, 3 * len(batch(ALICE).data))
        history.forget_up_to(2)
        self.assertEqual(history.batch_bytes, len(batch(ALICE).data))


class LastExecutedTests(SynchronousTestCase):
    def test_unknown_client_has_executed_nothing(self) -> None:
        """Figure 2 F: the Last_Executed of a client that is not known is 0."""
        self.assertEqual(LastExecuted().of("alice"), 0)

    def test_least_recently_touched_entries_are_dropped(self) -> None:
        """Departure 7: entries that no update has touched for a horizon, counted in slots, are dropped."""
        table = LastExecuted()
        table.note("alice", 1, 1)
        table.note("bob", 1, 2)
        table.note("alice", 2, 3)
        table.drop_older_than(3)
        self.assertEqual((table.of("alice"), table.of("bob")), (2, 0))

    def test_entry_touched_at_the_limit_stays(self) -> None:
        """An entry that was last touched exactly a horizon ago stays: an update that was made then is still valid."""
        table = LastExecuted()
        table.note("alice", 1, 3)
        table.drop_older_than(3)
        self.assertEqual(table.of("alice"), 1)
