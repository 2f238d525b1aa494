"""Tests of `pfsb recover` and of backups behind changes of the membership (Departure 60)."""

from __future__ import annotations

from itertools import count

from attrs import evolve

from pfsb.applications.interfaces import Command
from pfsb.backups.backup_file import describe
from pfsb.backups.past import Past, Target
from pfsb.backups.survivors import Recovery, latest_state, read_survivor
from pfsb.commands.exit_status import ExitStatus
from pfsb.paxos.members import Members, encode_members
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.records import AruRecord, EpochRecord, OrderedRecord, ProposalRecord, ViewRecord
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.state_machine import EPOCH
from tests.backups.states import MadeState
from tests.backups.test_restore import RecoverCase
from tests.sessions.support import encoded

NEXT = Members((0, 1, 3), epoch=1, retired=(2,), storages={3: b"storage3"})


class RecoverEpochsCase(RecoverCase):
    """Directories of servers of which some have executed the change in the slot behind the snapshot, and begun epoch
    1."""

    def setUp(self) -> None:
        super().setUp()
        self.numbers = count(1)
        self.at = self.made.seq + 1
        self.change = self.batch_of(bundle.SERVER, 0, (EPOCH, encode_members(NEXT)))

    def batch_of(self, client_id: str, number: int, command: Command) -> Batch:
        """A batch with one command, or one operation of server 0."""
        timestamp = next(self.numbers)
        content = Bundle(client_id, 0, bool(number), ((number, command),))
        update = ClientUpdate(f"0.y.{timestamp}", 0, timestamp, self.made.seq, encoded(content))
        return Batch.of(1_700_000_100_000 + timestamp, [update])

    def put(self, value: bytes) -> Batch:
        return self.batch_of(f"~0.y{next(self.numbers)}", 1, ("PUT", b"colour", value))

    def begin(self, *servers: int) -> None:
        """Have these servers execute the change, and begin its epoch."""
        for server_id in servers:
            self.write(server_id, ProposalRecord(self.at, 1, self.change), AruRecord(self.at))
            view = NEXT.first_view
            self.write(server_id, EpochRecord(evolve(NEXT, since=self.at)), ViewRecord(view, view))

    def latest(self, *servers: int) -> Recovery:
        return latest_state([read_survivor(self.left(each)) for each in servers], lambda done, of: None)

    def colour(self, found: Recovery) -> bytes:
        value: bytes = found.state.application("kv").entries[b"colour"][0]
        return value


class RecoverEpochsTests(RecoverEpochsCase):
    def test_slots_of_the_former_epoch_above_the_change_are_void(self) -> None:
        """A server that has not executed the change holds a proposal and an ordered batch of its own epoch above it,
        and neither is executed."""
        self.begin(0)
        self.write(1, ProposalRecord(self.at + 1, 3, self.put(b"void")), OrderedRecord(self.at + 2, self.put(b"void")))
        found = self.latest(0, 1)
        self.assertEqual((found.state.history.seq, self.colour(found)), (self.at, b"blue"))
        self.assertEqual((found.void, found.left_out, found.open_slots), (2, 0, 0))
        self.assertEqual((found.members.epoch, found.members.voters), (1, (0, 1, 3)))

    def test_of_two_epochs_in_one_slot_the_later_one_counts(self) -> None:
        """If directories hold batches of two epochs in one slot, that of the later epoch counts, also if the other one
        was stored as ordered."""
        self.begin(0)
        self.write(0, ProposalRecord(self.at + 1, NEXT.first_view, self.put(b"next")))
        self.write(1, OrderedRecord(self.at + 1, self.put(b"void")))
        found = self.latest(1, 0)
        self.assertEqual((self.colour(found), found.void, found.open_slots), (b"next", 0, 1))

    def test_a_change_that_is_only_accepted_ends_its_epoch_too(self) -> None:
        """A change that was only accepted is executed, and slots above it in the same directory are void."""
        self.write(1, ProposalRecord(self.at, 1, self.change), ProposalRecord(self.at + 1, 1, self.put(b"void")))
        found = self.latest(1)
        self.assertEqual((found.state.history.seq, self.colour(found)), (self.at, b"blue"))
        self.assertEqual((found.open_slots, found.void, found.members.epoch), (1, 1, 1))

    def test_slots_below_the_change_count_from_whichever_epoch(self) -> None:
        """Slots below a change count whether the epoch of their proposal is that before the change or the one that it
        begins."""
        first, self.at = self.at, self.at + 1
        batch = self.put(b"before")
        self.write(0, ProposalRecord(first, 1, batch), AruRecord(first))
        self.begin(0)
        self.write(1, ProposalRecord(first, 1, batch))
        found = self.latest(0, 1)
        self.assertEqual((found.state.history.seq, self.colour(found), found.void), (self.at, b"before", 0))

    def test_what_is_said_counts_the_voters_of_the_last_epoch(self) -> None:
        """The text counts the voters of the last epoch: servers 0 and 2 are left of 0, 1 and 2, which was a majority
        until server 3 has taken the place of server 2."""
        self.begin(0)
        self.write(2, ProposalRecord(self.at + 1, 1, self.put(b"void")))
        self.assertIs(self.recover(0, 2), ExitStatus.OK)
        said = self.out.getvalue()
        self.assertIn(f"{self.left(0)}: server 0, executed slots up to {self.at}, epoch 1 of the membership\n", said)
        self.assertIn("in epoch 1, the last one, servers 0, 1, 3 vote\n", said)
        self.assertIn("1 of 3 servers that vote are left, and 2 were needed", said)
        self.assertIn("1 slots that servers of an earlier epoch have accepted are void, since the change of the", said)
        self.assertNotIn("left out", said)

    def test_the_new_cluster_begins_in_epoch_0_with_its_own_servers(self) -> None:
        self.begin(0)
        self.assertIs(self.recover(0), ExitStatus.OK)
        found = self.restored(self.target, 1)
        settings = found.machine.settings
        self.assertIsNone(found.history.members)
        self.assertIsNone(settings.later_members)
        self.assertEqual((settings.members.epoch, settings.members.ids), (0, (0, 1, 2)))

    def test_a_directory_of_another_storage_than_the_membership_names_is_refused(self) -> None:
        self.next_names(1, b"another!")
        self.assertIn("knows server 1 with another storage", self.refusal(self.left(0), self.left(1)))

    def next_names(self, server_id: int, identity: bytes) -> None:
        """Have server 0 begin the epoch of a change that names this storage."""
        members = evolve(NEXT, since=self.at, storages={server_id: identity})
        self.write(0, ProposalRecord(self.at, 1, self.change), AruRecord(self.at), EpochRecord(members))

    def test_a_directory_in_which_nothing_was_executed_goes_with_a_membership_that_names_its_storage(self) -> None:
        directory = self.empty(1)
        self.next_names(1, self.identity(directory))
        found = latest_state([read_survivor(directory), read_survivor(self.left(0))], lambda done, of: None)
        self.assertEqual(found.state.history.seq, self.at)


class PastEpochsTests(RecoverEpochsCase):
    def test_void_slots_are_no_part_of_the_past(self) -> None:
        """If one server has begun the next epoch, batches above the change that another one has stored as ordered count
        neither as ordered nor as executed, even if its directory is read first."""
        self.begin(1)
        self.write(1, ProposalRecord(self.at + 1, NEXT.first_view, self.put(b"next")), AruRecord(self.at + 1))
        void = self.put(b"void")
        self.write(0, OrderedRecord(self.at, self.change), OrderedRecord(self.at + 1, void))
        past = Past.of([self.left(0), self.left(1)])
        replay = past.state_at(Target())
        self.assertEqual(replay.machine.entry(b"colour")[0], b"next")  # type: ignore[index]

    def test_void_slots_of_a_server_that_has_left_are_no_part_of_the_past(self) -> None:
        """A slot above the change is no part of the past if only a server that the change has removed has stored it as
        ordered."""
        self.write(2, OrderedRecord(self.at + 1, self.put(b"void")))
        self.begin(1, 2)
        self.write(1, ProposalRecord(self.at + 1, NEXT.first_view, self.put(b"next")), AruRecord(self.at + 1))
        replay = Past.of([self.left(2), self.left(1)]).state_at(Target())
        self.assertEqual(replay.machine.entry(b"colour")[0], b"next")  # type: ignore[index]


class BackupEpochsTests(RecoverEpochsCase):
    def test_a_backup_tells_the_servers_of_its_epoch(self) -> None:
        made = MadeState()
        file = self.directory / "founders"
        made.backup(file)
        self.assertIn("servers        0, 1, 2\napplications", describe(file))
        made.operation((EPOCH, encode_members(evolve(NEXT, learners=(4,)))))
        file = self.directory / "later"
        made.backup(file)
        said = describe(file)
        self.assertIn("servers        0, 1, 3\nlearning       4\nepoch          1\napplications", said)
