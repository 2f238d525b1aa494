"""Figure 14: a server starts, with what its disk holds."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch, PrepareOK, State
from pfsb.paxos.records import Accepted, PeerRecord, Recovered
from pfsb.paxos.snapshot import SnapshotEncoder, SnapshotName
from tests.paxos.case import ReplicaTestCase, identity_of
from tests.paxos.messages import (
    accept,
    alive,
    batch,
    client_update,
    ordered,
    prepare,
    proposal,
    reply,
    vc_proof,
    view_change,
)

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


class RecoveryTestCase(ReplicaTestCase):
    starts = False

    def recover(self, view: int = 0, *history: Batch, accepted: tuple[Accepted, ...] = ()) -> None:
        self.found = Recovered(
            identity_of(2),
            incarnation=2,
            last_attempted=view,
            last_installed=view,
            local_aru=len(history),
            ordered=iter(list(enumerate(history, start=1))),
            accepted=list(accepted),
            peers={i: PeerRecord(i, identity_of(i)) for i in (1, 3, 4, 5)},
        )
        self.start()


class RecoveryTests(RecoveryTestCase):
    def test_history_is_executed_again(self) -> None:
        """Figure 14, Block A, G20: the history is executed again, which brings back the state, Last_Executed and the
        replies."""
        self.recover(1, batch(ALICE), batch(BOB))
        self.assertExecuted([ALICE], [BOB])
        self.assertEqual(self.data.clients.last_executed.of("alice"), 1)
        self.assertEqual(self.data.ordering.local_aru, 2)

    def test_recovery_writes_nothing(self) -> None:
        """Figure 14: recovery writes nothing, since all that was read is on disk."""
        self.recover(1, batch(ALICE))
        self.assertEqual(self.storage.records, [])

    def test_state_is_not_restored(self) -> None:
        """G3: State is not restored: a server always starts in an election, for the view above the one that it had."""
        self.recover(7)
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual((self.data.views.last_attempted, self.data.views.last_installed), (8, 7))

    def test_what_is_on_disk_may_be_told_at_once(self) -> None:
        """Values that were recovered from disk may be told by ALIVE at once."""
        self.ignore_periodic = False
        self.recover(7, batch(ALICE))
        told = alive(2, 7, State.LEADER_ELECTION, local_aru=1, has_clients=False)
        self.assertSent(evolve(told, digests=self.replica.divergence.own_digests(1)))
        self.assertSent(vc_proof(2, 7))

    def test_promise_survives(self) -> None:
        """Section 5.8: after a restart nothing of a view older than Last_Installed is accepted."""
        self.recover(3)
        self.receive(vc_proof(3, 3))
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertDiscarded("4 E6")

    def test_accepted_proposal_is_reported_to_the_next_leader(self) -> None:
        """Section 5.8: an accepted proposal is on disk after a restart, and is reported to the next leader."""
        self.recover(1, accepted=(Accepted(1, 1, batch(ALICE)),))
        self.receive(view_change(3, 3))
        self.assertSent(view_change(2, 3))
        self.receive(prepare(3, 3))
        (promise,) = self.take(PrepareOK)
        self.assertEqual([(e.seq, e.batch) for e in promise.data_list], [(1, batch(ALICE))])

    def test_ordered_slot_behind_a_gap_is_ordered_still(self) -> None:
        """A slot that was ordered behind a gap, an OrderedRecord above Local_Aru, is still ordered after a restart."""
        self.recover(1, accepted=(Accepted(2, 0, batch(BOB)),))
        self.assertExecuted()
        self.receive(reply(3, ordered(3, 1, ALICE)))
        self.assertExecuted([ALICE], [BOB])

    def test_ordered_slot_next_in_line_is_executed(self) -> None:
        """An ordered slot right above Local_Aru is executed at the start: a crash may lose its AruRecord, and no server
        would send the slot again."""
        self.recover(1, batch(ALICE), accepted=(Accepted(2, 0, batch(BOB)), Accepted(3, 1, batch())))
        self.assertExecuted([ALICE], [BOB])
        self.assertEqual(self.data.ordering.local_aru, 2)

    def test_history_with_a_gap_stops_the_start(self) -> None:
        """A history with a gap stops the start: it is never executed past the damage."""
        self.found = Recovered(identity_of(2), 2, local_aru=2, ordered=iter([(2, batch(BOB))]))
        self.assertRaises(AssertionError, self.start)
        self.assertEqual(self.machine.executed, [])

    def test_history_that_ends_early_stops_the_start(self) -> None:
        """A history that ends before Local_Aru on disk stops the start."""
        self.found = Recovered(identity_of(2), 2, local_aru=2, ordered=iter([(1, batch(ALICE))]))
        self.assertRaises(AssertionError, self.start)

    def test_repeated_update_after_recovery_does_not_run_again(self) -> None:
        """S3, G20: an update that is repeated after recovery does not run again, since Last_Executed was recovered."""
        self.recover(1, batch(ALICE))
        self.receive(reply(3, ordered(3, 2, ALICE, BOB)))
        self.assertExecuted([ALICE], [BOB])

    def test_server_without_anything_on_disk_starts_at_0(self) -> None:
        """Figure 14, Block A: a server with an empty disk starts at slot 0, in the same way as one with a full disk."""
        self.recover()
        self.assertEqual((self.data.views.last_installed, self.data.ordering.local_aru), (0, 0))

    def test_tail_that_was_not_written_comes_from_the_others(self) -> None:
        """G20: if the last slots were not written before a crash, Local_Aru starts lower, and they are learned from the
        others and executed once here."""
        self.recover(1, batch(ALICE), accepted=(Accepted(2, 1, batch(BOB)),))
        self.receive(vc_proof(1, 1))
        for voter in (1, 3):
            self.receive(accept(voter, 1, 2))
        self.assertExecuted([ALICE])
        self.receive(proposal(1, 1, 2, BOB))
        self.assertSent(accept(2, 1, 2))
        self.assertExecuted([ALICE], [BOB])


class SnapshotTests(RecoveryTestCase):
    """A server starts from a snapshot, and from the slots behind it."""

    def encoded(self) -> tuple[SnapshotName, bytes]:
        """Make a snapshot of the present state. Returns its name and its bytes."""
        encoder = SnapshotEncoder(self.data.ordering.local_aru, b"identity")
        data = encoder.head() + b"".join(map(encoder.piece, self.replica.ordered_queue.freeze())) + encoder.end()
        return encoder.name, data

    def recover_from(self, name: SnapshotName | None, data: bytes, *history: Batch) -> None:
        """Start anew on a disk with a snapshot of slot 2, in portions, and with the slots behind it."""
        self.found = Recovered(
            identity_of(2),
            incarnation=3,
            last_attempted=1,
            last_installed=1,
            local_aru=2 + len(history),
            snapshot=name,
            snapshot_bytes=iter([data[at : at + 50] for at in range(0, len(data), 50)]),
            ordered=iter(list(enumerate(history, start=3))),
            peers={i: PeerRecord(i, identity_of(i)) for i in (1, 3, 4, 5)},
        )
        self.start()

    def test_slots_behind_the_snapshot_are_executed(self) -> None:
        """A server that starts from a snapshot executes the slots behind it, and is then as if it had executed all of
        them again."""
        self.recover(1, batch(ALICE, time_ms=40), batch(BOB, time_ms=50))
        name, data = self.encoded()
        self.recover(1, batch(ALICE, time_ms=40), batch(BOB, time_ms=50), batch(client_update("bob", 2)))
        digest, executed = self.replica.ordered_queue.digests.head, self.machine.executed
        self.recover_from(name, data, batch(BOB, client_update("bob", 2)))
        self.assertEqual(self.machine.executed, executed)
        self.assertEqual(self.data.ordering.local_aru, 3)
        self.assertEqual(self.data.clients.last_executed.of("bob"), 2)
        # The batch was another one, so the digests must differ.
        self.assertNotEqual(self.replica.ordered_queue.digests.head, digest)
        self.recover_from(name, data, batch(client_update("bob", 2)))
        self.assertEqual(self.replica.ordered_queue.digests.head, digest)
        self.assertEqual(self.storage.records, [])

    def test_snapshot_alone(self) -> None:
        self.recover(1, batch(ALICE), batch(BOB))
        self.recover_from(*self.encoded())
        self.assertExecuted([ALICE], [BOB])
        self.assertEqual((self.data.ordering.local_aru, self.data.ordering.global_history.floor), (2, 2))

    def test_wrong_snapshots_stop_the_start(self) -> None:
        """A wrong snapshot stops the start with one line for the operator; nothing is executed on a state that may be
        wrong."""
        self.recover(1, batch(ALICE), batch(BOB))
        name, data = self.encoded()
        other = SnapshotName(name.seq, name.size, bytes(16))
        half = len(data) // 2
        for wrong_name, wrong, why in (
            (name, data[:-1], "it ends too early"),
            (name, b"", "it ends too early"),
            (name, data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :], "a piece of it is damaged"),
            (other, data, "it is another one than the storage names"),
        ):
            error = self.assertRaises(StorageRefused, self.recover_from, wrong_name, wrong)
            self.assertEqual(
                str(error),
                f"the snapshot of slot 2 on this disk cannot be used: {why}; leave the server stopped, and the others "
                "go on without it as long as they are a majority",
            )
            self.assertEqual(self.machine.executed, [])
