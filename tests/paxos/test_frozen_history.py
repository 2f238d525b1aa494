"""The history behind a snapshot: it is frozen at one server, and adopted by another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pfsb.paxos.frozen_history import HISTORY, HistoryRestorer
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.snapshot import Piece, WrongSnapshot
from pfsb.paxos.snapshot_rows import FrozenPieces, packed
from tests.paxos.case import RecordingStateMachine, ReplicaTestCase
from tests.paxos.messages import batch, client_update, ordered, proposal, reply

NAMES = tuple(f"client {number}" for number in range(4_000))


class HistoryTestCase(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    @property
    def queue(self) -> Any:
        return self.replica.ordered_queue

    def learn(self, seq: int, *updates: ClientUpdate, time_ms: int = 0) -> None:
        self.receive(reply(3, ordered(3, seq, *updates, time_ms=time_ms)))

    def learn_all(self, first: int, last: int) -> None:
        """Execute slots in which eight clients, in an order of its own for each slot, have updates."""
        for seq in range(first, last + 1):
            update = client_update(NAMES[seq * 5 % 8], seq, made_at=seq - 1)
            self.learn(seq, update, time_ms=1_000 + 10 * seq)

    def frozen(self) -> list[Piece]:
        return [*self.queue.freeze()]

    def begin_anew(self) -> None:
        """Put another server, with an empty disk, in the place of this one."""
        self.replica.stop()
        self.start()

    def adopt(self, pieces: Iterable[Piece]) -> None:
        restorer = self.queue.restorer()
        for piece in pieces:
            restorer.take(piece)
        self.replica.perform(self.install, restorer)

    def install(self, restorer: HistoryRestorer) -> None:
        restorer.adopt()
        self.replica.snapshot_fetcher.installed += 1

    def state(self) -> tuple[Any, ...]:
        """All that later slots depend on, and all that this server tells others of its history."""
        queue, ordering = self.queue, self.data.ordering
        return (
            ordering.local_aru,
            queue.digests.head,
            queue.digests.seq,
            queue.time.time_ms,
            queue.oldest_valid,
            [*self.data.clients.last_executed.timestamps.items()],
            self.machine.executed,
        )


class FreezeTests(HistoryTestCase):
    def test_history_comes_first(self) -> None:
        self.learn_all(1, 20)
        history, machine = self.frozen()
        self.assertEqual((history.section, machine.section), (HISTORY, "executed"))

    def test_slots_that_are_executed_meanwhile_are_not_in_it(self) -> None:
        """Slots that are executed while pieces are taken are not in them: the pieces are those of the slot at which the
        state was frozen."""
        self.learn_all(1, 20)
        expected, pieces = self.frozen(), self.queue.freeze()
        self.learn_all(21, 25)
        self.assertEqual([*pieces], expected)
        self.assertNotEqual(self.frozen(), expected)

    def test_long_history_has_several_pieces(self) -> None:
        """A history with many clients is frozen in several pieces, so that no step takes long."""
        for client_id in NAMES:
            self.data.clients.last_executed.note(client_id, 7, 1)
        self.learn(1)
        pieces = [piece for piece in self.frozen() if piece.section == HISTORY]
        self.assertGreater(len(pieces), 1)
        expected = self.state()
        everything = self.frozen()
        self.begin_anew()
        self.adopt(everything)
        self.assertEqual(self.state(), expected)

    def test_close_ends_all_of_it(self) -> None:
        """After `close` nothing of the frozen state is kept."""
        self.learn_all(1, 3)
        closed = []

        pieces = FrozenPieces(iter([Piece("executed", b"")]), lambda: closed.append(True))
        self.patch(RecordingStateMachine, "freeze", lambda machine: pieces)
        frozen = self.queue.freeze()
        next(frozen)
        frozen.close()
        self.assertEqual(({*closed}, [*frozen], [*pieces]), ({True}, [], []))


class AdoptTests(HistoryTestCase):
    def test_restored_server_goes_on_like_the_other(self) -> None:
        """A restored server goes on like the one that has made the snapshot: with equal digests, times, tables and
        later snapshots."""
        self.learn_all(1, 30)
        pieces = self.frozen()
        self.learn_all(31, 180)
        expected, later = self.state(), self.frozen()
        self.begin_anew()
        self.adopt(pieces)
        self.learn_all(31, 180)
        self.assertEqual(self.state(), expected)
        self.assertEqual(self.frozen(), later)

    def test_slots_below_are_forgotten_and_slots_above_stay(self) -> None:
        """Slots below the snapshot are forgotten; an ordered slot behind it stays, and is executed without any further
        message."""
        self.learn_all(1, 10)
        pieces = self.frozen()
        self.learn(11, client_update("alice", 7))
        expected = self.state()
        self.begin_anew()
        self.learn(4, client_update("bob", 9))
        self.learn(11, client_update("alice", 7))
        restorer = self.queue.restorer()
        for piece in pieces:
            restorer.take(piece)
        self.replica.perform(self._adopt_and_execute, restorer)
        history = self.data.ordering.global_history
        self.assertEqual(
            (history.floor, history.top, history.batch_bytes), (10, 11, len(batch(client_update("alice", 7)).data))
        )
        self.assertEqual([*history.slots], [11])
        self.assertEqual(self.state(), expected)

    def _adopt_and_execute(self, restorer: HistoryRestorer) -> None:
        self.install(restorer)
        self.replica.ordering.snapshot_installed()

    def test_only_the_slot_itself_and_later_ones_have_digests(self) -> None:
        """A restored server tells and compares digests only of the snapshot's slot and later ones."""
        self.learn_all(1, 10)
        head = self.queue.digests.head
        pieces = self.frozen()
        self.begin_anew()
        self.learn_all(1, 3)
        self.adopt(pieces)
        self.learn_all(11, 11)
        self.assertEqual([self.queue.digests.at(seq) for seq in range(11)], [None] * 10 + [head])
        self.assertEqual(self.queue.digests.at(11), self.queue.digests.head)

    def test_time_goes_on_from_the_snapshot(self) -> None:
        """The time goes on from the snapshot as if its slot had just been executed here, whatever time this server's
        clock shows."""
        self.learn(1, time_ms=50_000)
        pieces = self.frozen()
        self.begin_anew()
        self.advance(3)
        self.adopt(pieces)
        self.advance(2)
        self.assertTrue(self.queue.time.has_begun)
        self.assertEqual(self.queue.time.now_ms(), 52_000)
        self.learn(2, time_ms=50_900)
        self.assertEqual(self.machine.executed[-1], (2, 50_900, []))
        self.take(object)  # no leader was heard for five seconds, so messages of an election were sent

    def test_update_that_ran_before_the_snapshot_does_not_run_again(self) -> None:
        """S3: an update that was executed before the snapshot is not executed again, since Last_Executed is part of the
        snapshot."""
        self.learn(1, client_update("alice", 1))
        pieces = self.frozen()
        self.begin_anew()
        self.adopt(pieces)
        self.learn(2, client_update("alice", 1), client_update("alice", 2))
        self.assertEqual([updates for *_, updates in self.machine.executed][1:], [[client_update("alice", 2)]])

    def test_update_whose_timestamp_was_forgotten_does_not_run_again(self) -> None:
        """Departure 7: an update whose timestamp was forgotten is not executed again, since `oldest_valid` is part of
        the snapshot, also if the horizon has grown since."""
        self.learn_all(1, 130)
        pieces = self.frozen()
        self.begin_anew()
        self.adopt(pieces)
        self.assertEqual(self.data.clients.last_executed.of("alice"), 0)
        self.queue.horizon_slots = 1_000
        old = client_update("alice", 1, made_at=29)
        self.learn(131, old)
        self.assertEqual(self.machine.expired, [old])

    def test_long_way_is_one_step(self) -> None:
        """To adopt a snapshot a hundred million slots ahead takes one step, which looks at the slots in memory and not
        at each number."""
        self.learn_all(1, 3)
        self.data.ordering.global_history.forget_up_to(100_000_000)
        self.assertEqual(self.data.ordering.global_history.slots, {})

    def test_later_proposals_are_accepted(self) -> None:
        """After a snapshot the window begins at its slot, so that proposals behind it are accepted."""
        self.learn_all(1, 10)
        pieces = self.frozen()
        self.begin_anew()
        self.adopt(pieces)
        self.receive(proposal(1, 1, 11, client_update("alice", 1)))
        self.assertNotDiscarded()
        self.take(object)


class PendingTests(HistoryTestCase):
    """Updates of this server's own clients that are under way when a snapshot is adopted."""

    def pending_after(self, *own: ClientUpdate, up_to: int = 3) -> list[ClientUpdate]:
        self.learn_all(1, up_to - 1)
        self.learn(up_to, client_update("one", 5, server_id=2, made_at=up_to - 1))
        pieces = self.frozen()
        self.begin_anew()
        self.introduce(*own)
        self.take(ClientUpdate)
        self.adopt(pieces)
        self.assertEqual(len([*self.replica.update_timers.running()]), len(self.data.clients.pending_updates))
        return [*self.data.clients.pending_updates.values()]

    def test_executed_ones_are_dropped_with_their_timers(self) -> None:
        """Figure 10 D: pending updates at or below Last_Executed of the snapshot are dropped, with their timers."""
        self.assertEqual(self.pending_after(client_update("one", 5, server_id=2)), [])
        self.assertEqual(self.data.clients.last_enqueued, {})

    def test_later_ones_stay_under_way(self) -> None:
        later = client_update("one", 6, server_id=2), client_update("two", 1, server_id=2)
        self.assertEqual(self.pending_after(*later), [*later])

    def test_ones_that_are_too_old_are_dropped(self) -> None:
        """Pending updates that are too old for the snapshot are dropped: Last_Executed may have forgotten that they
        were executed, and no later slot executes them."""
        old = client_update("two", 1, server_id=2)
        young = client_update("three", 1, server_id=2, made_at=60)
        self.assertEqual(self.pending_after(old, young, up_to=130), [young])


class WrongSnapshotTests(HistoryTestCase):
    """A snapshot in which something is missing or wrong changes nothing."""

    def assertRefused(self, *pieces: Piece) -> None:
        before = self.state()
        restorer = self.queue.restorer()
        with self.assertRaises(WrongSnapshot):
            for piece in pieces:
                restorer.take(piece)
            restorer.adopt()
        self.assertEqual(self.state(), before)

    def test_wrong_snapshots(self) -> None:
        self.learn_all(1, 10)
        history, machine = self.frozen()
        self.begin_anew()
        head = (10, bytes(16), 1_000, 0, 1)
        self.assertRefused()
        self.assertRefused(history)
        self.assertRefused(machine)
        self.assertRefused(machine, history)
        self.assertRefused(Piece(HISTORY, history.data[:-1]), machine)
        self.assertRefused(Piece(HISTORY, history.data + b"\x93"), machine)
        self.assertRefused(Piece(HISTORY, b"\xc1"), machine)
        self.assertRefused(Piece(HISTORY, packed(head)), machine)
        self.assertRefused(Piece(HISTORY, packed(head) + packed(("alice", 1))), machine)
        for wrong in (
            (0, *head[1:]),
            (True, *head[1:]),
            (10, bytes(15), *head[2:]),
            (10, "x" * 16, *head[2:]),
            head[:4],
            7,
        ):
            self.assertRefused(Piece(HISTORY, packed(wrong) + packed(("alice", 1, 1))), machine)

    def test_older_snapshot_is_not_adopted(self) -> None:
        """An attempt to adopt an older snapshot fails an assertion: callers must make sure that the state never goes
        back."""
        self.learn_all(1, 10)
        pieces = self.frozen()
        restorer = self.queue.restorer()
        for piece in pieces:
            restorer.take(piece)
        self.assertRaises(AssertionError, restorer.adopt)
