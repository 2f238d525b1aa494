"""Tests of `pfsb.storage.log.storage`: group commit, order of callbacks, failures, reading back."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from threading import Event
from time import monotonic

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import IStableStorage, StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted, AruRecord, OrderedRecord, PeerRecord, ProposalRecord, ViewRecord
from pfsb.storage.log import storage as storage_module
from pfsb.storage.log.reader import LogReader
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import ROOM_BYTES_MIN, segment_path
from pfsb.storage.log.storage import LogStorage
from pfsb.storage.threads import READS_WAITING_MAX, SWITCH_SECONDS_MAX
from tests.storage.support import Gate, Server, batch, ordered_to, plain, slot_records


class StorageTestCase(SynchronousTestCase):
    """Tests with storages that are closed at the end."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    def server(self, directory: Path | None = None, **changes: object) -> Server:
        server = Server(directory or self.directory, **changes)
        self.addCleanup(server.storage.close)
        return server

    def started(self, directory: Path | None = None) -> Server:
        server = self.server(directory)
        server.storage.recover()
        return server

    def restarted(self, server: Server) -> Server:
        server.storage.close()
        return self.server()


class RecoveryTests(StorageTestCase):
    """Figure 14: the knowledge of a server that starts again."""

    def test_new_directory_is_initialised(self) -> None:
        """No data on disk: everything is 0, and the storage gets a random identity of eight bytes."""
        recovered = self.server(self.directory / "deep" / "2").storage.recover()
        self.assertEqual(plain(recovered), (1, 0, 0, 0, [], [], {}, {}))
        self.assertEqual(len(recovered.identity), 8)

    def test_identity_stays_and_incarnation_grows_with_each_start(self) -> None:
        """Departure 12: the identity belongs to the directory, the incarnation to the start."""
        first = self.server()
        before = first.storage.recover()
        after = self.restarted(first).storage.recover()
        self.assertEqual(after.identity, before.identity)
        self.assertEqual((before.incarnation, after.incarnation), (1, 2))

    def test_incarnation_counts_a_start_that_wrote_nothing_else(self) -> None:
        """The incarnation is on disk before `recover` returns: a copy of the files taken then counts on from it."""
        self.started()
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        self.assertEqual(self.server(copy).storage.recover().incarnation, 2)

    def test_every_kind_of_record_comes_back(self) -> None:
        """Section 5.8 of the paper: views, proposals and ordered updates; and the records that pfsb adds."""
        server = self.started()
        server.write(
            ViewRecord(9, 7),
            *ordered_to(2),
            ProposalRecord(3, 7, batch("three")),
            OrderedRecord(5, batch("five")),
            PeerRecord(1, b"12345678"),
        )
        recovered = self.restarted(server).storage.recover()
        self.assertEqual((recovered.last_attempted, recovered.last_installed, recovered.local_aru), (9, 7, 2))
        self.assertEqual(list(recovered.ordered), [(1, batch("slot 1")), (2, batch("slot 2"))])
        self.assertEqual(recovered.accepted, [Accepted(3, 7, batch("three")), Accepted(5, 0, batch("five"))])
        self.assertEqual(recovered.peers, {1: PeerRecord(1, b"12345678")})

    def test_aru_alone_leaves_the_views_as_they_are(self) -> None:
        """A record with Local_Aru alone leaves the views as they are, although the two share a row."""
        server = self.started()
        server.write(ViewRecord(4, 3))
        server.write(*ordered_to(1))
        recovered = self.restarted(server).storage.recover()
        self.assertEqual((recovered.last_attempted, recovered.last_installed, recovered.local_aru), (4, 3, 1))

    def test_position_counts_the_groups_on_disk_over_all_starts(self) -> None:
        """The count is written with each group: a storage that has lost groups can be told by it."""
        server = self.started()
        self.assertEqual(server.storage.position, 1, "the start counts")
        for seq in (1, 2, 3):
            server.write(*slot_records([seq]))
            self.assertEqual(server.storage.position, 1 + seq)
        server.sync("nothing to write")
        server.clock.run_until(lambda: bool(server.told))
        again = self.restarted(server)
        again.storage.recover()
        self.assertEqual(again.storage.position, 5)
        again.write(AruRecord(1))
        self.assertEqual(again.storage.position, 6)

    def test_large_group_is_written_whole(self) -> None:
        """A group may be larger than the room that is left in its segment, or than all of it."""
        server = self.started()
        big = [ProposalRecord(seq, 1, Batch(bytes([seq]) * 50_000)) for seq in range(1, 40)]
        server.write(*big)
        self.assertEqual(server.storage.counters.groups, 1)
        self.assertGreater(segment_path(self.directory / "log", 1).stat().st_size, ROOM_BYTES_MIN)
        recovered = self.restarted(server).storage.recover()
        self.assertEqual(recovered.accepted, [Accepted(each.seq, 1, each.batch) for each in big])

    def test_log_of_many_segments_is_read(self) -> None:
        """The next segment is made while the present one is filled, and each opens with the whole state."""
        server = self.started()
        server.write(ViewRecord(9, 7), PeerRecord(1, b"12345678"))
        for seq in range(1, 90):
            server.write(OrderedRecord(seq, Batch(bytes([seq]) * 57_000)), AruRecord(seq))
        server.clock.run_what_came()
        self.assertGreaterEqual(len(scan(self.directory / "log").heads), 2)
        self.assertEqual([seq for seq, _ in server.read(1, 89, 10**7)], list(range(1, 90)))
        recovered = self.restarted(server).storage.recover()
        self.assertEqual(list(recovered.ordered), [(seq, Batch(bytes([seq]) * 57_000)) for seq in range(1, 90)])
        self.assertEqual((recovered.last_installed, recovered.peers), (7, {1: PeerRecord(1, b"12345678")}))

    def test_log_left_behind_is_read(self) -> None:
        """The log that a crashed server has left is read with all that was acknowledged."""
        server = self.started()
        server.write(*ordered_to(3))
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        self.assertEqual(self.server(copy).storage.recover().local_aru, 3)

    def test_unfinished_creation_is_begun_anew(self) -> None:
        """The making of a log that a crash has cut short is begun anew: nothing was acknowledged yet."""
        self.directory.mkdir()
        (self.directory / "log.new").mkdir()
        (self.directory / "log.new" / "next.new").write_bytes(b"half a file")
        self.assertEqual(self.server().storage.recover().incarnation, 1)

    def test_ordered_is_read_as_it_is_asked_for(self) -> None:
        """Recovered slots are read as they are asked for, since millions of them do not fit into memory; damage is
        found when it is reached."""
        server = self.started()
        for seq in (1, 2, 3):
            server.write(OrderedRecord(seq, Batch(bytes([seq]) * 57_000)), AruRecord(seq))
        ordered = iter(self.restarted(server).storage.recover().ordered)
        self.assertEqual(next(ordered)[0], 1)
        path = segment_path(self.directory / "log", 1)
        data = path.read_bytes()
        path.write_bytes(data.replace(b"\x03\x03", b"\x03\x04", 1))
        self.assertEqual(next(ordered)[0], 2)
        error = self.assertRaises(StorageRefused, next, ordered)
        self.assertIn("the checksum of the group at byte", str(error))


class SyncTests(StorageTestCase):
    """Records appended up to a turn are on disk before the outbox of the turn leaves."""

    def setUp(self) -> None:
        super().setUp()
        self.gate = Gate()
        self.gate.guard(self)
        self.addCleanup(self.gate.open.set)

    def hold_a_write(self) -> Server:
        """Return a server whose writer is in the middle of the write "first"."""
        server = self.started()
        self.gate.open.clear()
        server.sync("first", *slot_records([1]))
        self.assertTrue(self.gate.arrived.wait(10))
        return server

    def test_interface_is_provided(self) -> None:
        """The storage provides the interface of a stable storage."""
        verifyObject(IStableStorage, self.server().storage)

    def test_position_tells_what_is_on_disk_and_not_what_is_under_way(self) -> None:
        """The position tells what is on disk, and not what is under way: frames with more than that would accuse the
        storage of a loss after a crash."""
        server = self.hold_a_write()
        server.clock.run_what_came()
        self.assertEqual(server.storage.position, 1)
        self.gate.open.set()
        server.clock.run_until(lambda: server.told == ["first"])
        self.assertEqual(server.storage.position, 2)

    def test_no_callback_while_the_write_is_under_way(self) -> None:
        """While a write is under way its callback is not called: nothing may depend on a record that is not forced to
        disk."""
        server = self.hold_a_write()
        server.clock.run_what_came()
        self.assertEqual(server.told, [])
        self.gate.open.set()
        server.clock.run_until(lambda: server.told == ["first"])

    def test_syncs_during_a_write_make_one_group(self) -> None:
        """Group commit: however many turns end while the disk works, the next write takes them all."""
        server = self.hold_a_write()
        for seq in range(2, 12):
            server.sync(seq, *slot_records([seq]))
        self.gate.open.set()
        server.clock.run_until(lambda: len(server.told) == 11)
        self.assertEqual(server.told, ["first", *range(2, 12)])
        self.assertEqual((server.storage.counters.groups, server.storage.counters.records), (2, 11))
        self.assertEqual(server.storage.counters.batch_bytes, len("slot 1") * 9 + len("slot 10") * 2)

    def test_last_record_of_a_slot_in_a_group_stands(self) -> None:
        """A proposal replaces what an older view left at its slot, also within one write."""
        server = self.hold_a_write()
        server.sync("old", ProposalRecord(2, 1, batch("old")))
        server.sync("new", ProposalRecord(2, 3, batch("new")))
        self.gate.open.set()
        server.clock.run_until(lambda: len(server.told) == 3)
        recovered = self.restarted(server).storage.recover()
        self.assertEqual(recovered.accepted[1:], [Accepted(2, 3, batch("new"))])

    def test_records_without_sync_stay_off_the_disk(self) -> None:
        """Records without a sync are not written: those of a turn go to disk together, when the turn ends."""
        server = self.hold_a_write()
        server.storage.append(ViewRecord(5, 5))
        self.gate.open.set()
        server.clock.run_until(lambda: server.told == ["first"])
        server.clock.run_what_came()
        self.assertEqual(self.gate.writes, 1)

    def test_sync_without_records_waits_for_the_write_under_way(self) -> None:
        """The turn of the sync may have seen what that write holds, so its messages must wait for the write."""
        server = self.hold_a_write()
        server.sync("empty")
        server.clock.run_what_came()
        self.assertEqual(server.told, [])
        self.gate.open.set()
        server.clock.run_until(lambda: len(server.told) == 2)
        self.assertEqual((server.told, self.gate.writes), (["first", "empty"], 1))

    def test_sync_with_nothing_pending_is_not_synchronous(self) -> None:
        """A sync with nothing to write calls its callback after it has returned, so that turns never nest."""
        server = self.started()
        server.sync("empty")
        self.assertEqual(server.told, [])
        server.clock.advance(0)
        self.assertEqual((server.told, self.gate.writes), (["empty"], 0))

    def test_order_holds_when_the_write_is_done_but_not_yet_announced(self) -> None:
        """An empty sync must not overtake an earlier one whose news is on its way to the reactor."""
        server = self.hold_a_write()
        self.gate.open.set()
        server.clock.wait_for_call()
        server.sync("empty")
        server.clock.advance(0)
        self.assertEqual(server.told, [])
        server.clock.run_until(lambda: server.told == ["first", "empty"])

    def test_chain_of_empty_syncs_leaves_room_for_others(self) -> None:
        """A callback that syncs again is called at the next turn of the reactor, not in the same."""
        server = self.started()
        server.storage.sync(lambda: server.sync("second"))
        server.clock.callLater(0, server.told.append, "another one")
        server.clock.advance(0)
        self.assertEqual(server.told, ["another one", "second"])

    def test_slow_write_is_logged_and_counted(self) -> None:
        """A disk write of more than 100 ms is logged and counted."""
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        server = self.started()
        server.write(*slot_records([1]))
        self.gate.on_write = lambda: server.clock.advance(0.25)
        server.write(*slot_records([2, 3]))
        slow = [event for event in events if str(event["log_namespace"]).startswith("pfsb.storage.log.storage")]
        self.assertEqual([(e["log_level"], e["records"], e["seconds"]) for e in slow], [(LogLevel.warn, 2, 0.25)])
        counters = server.storage.counters
        self.assertEqual((counters.slow_groups, counters.max_write_seconds), (1, 0.25))

    def test_close_writes_what_waits(self) -> None:
        """`close` writes records without a sync, too, and the callbacks that wait are called."""
        server = self.started()
        server.sync("written", *slot_records([1]))
        server.storage.append(ViewRecord(3, 2))
        server.storage.close()
        server.storage.close()
        server.clock.run_until(lambda: server.told == ["written"])
        recovered = self.server().storage.recover()
        self.assertEqual((recovered.last_installed, len(recovered.accepted)), (2, 1))

    def test_close_gives_up_on_a_dead_disk(self) -> None:
        """A disk that does not answer holds up the end for a bounded time, and the directory stays locked."""
        self.patch(storage_module, "CLOSE_SECONDS_MAX", 0.05)
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        server = self.hold_a_write()
        server.storage.close()
        self.assertEqual(
            [e["log_level"] for e in events if "does not answer" in str(e["log_format"])], [LogLevel.error]
        )
        self.assertRaises(StorageRefused, self.server().storage.recover)
        self.gate.open.set()
        server.clock.run_until(lambda: server.told == ["first"])

    def test_position_note_that_cannot_be_forced_holds_up_the_end_no_longer_than_a_group(self) -> None:
        """A position note that cannot be forced to a hanging disk holds up the end no longer than a group does."""
        self.patch(storage_module, "CLOSE_SECONDS_MAX", 0.05)
        server = self.started()
        answers = Event()
        self.addCleanup(answers.set)
        self.patch(os, "fdatasync", lambda _: answers.wait(20))
        begun = monotonic()
        self.assertFalse(server.storage.close())
        self.assertLess(monotonic() - begun, 10)
        self.assertRaises(StorageRefused, self.server().storage.recover)

    def test_position_note_that_fails_at_the_end_is_logged(self) -> None:
        """A position note that fails at the end is logged: all groups are on disk, so the server need not report a
        failure."""
        server = self.started()
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)

        def fail(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "fdatasync", fail)
        self.assertFalse(server.storage.close())
        self.assertEqual([e["log_level"] for e in events if "was not forced" in str(e["log_format"])], [LogLevel.error])
        server.clock.run_what_came()
        self.assertEqual(server.failures, [])

    def test_closed_storage_takes_nothing(self) -> None:
        """A closed storage never reports records as durable."""
        server = self.started()
        server.storage.close()
        server.sync("late", *slot_records([1]))
        server.clock.run_what_came()
        self.assertEqual((server.told, self.gate.writes), ([], 0))


class FailureTests(StorageTestCase):
    """After a failed fsync the kernel marks the page clean, and a second fsync lies: so the server stops."""

    def setUp(self) -> None:
        super().setUp()
        self.gate = Gate()
        self.gate.guard(self)

    def failed(self) -> Server:
        server = self.started()
        server.write(*slot_records([1]))
        self.gate.error = OSError(errno.EIO, "Input/output error")
        server.sync("lost", *slot_records([2]))
        server.sync("lost too", *slot_records([3]))
        server.clock.run_until(lambda: bool(server.failures))
        return server

    def test_failed_write_is_reported_once_and_never_tried_again(self) -> None:
        """After a failed write no callback reports durability any more, even if the disk should recover."""
        server = self.failed()
        writes = self.gate.writes
        self.gate.error = None
        server.sync("later", *slot_records([4]))
        server.sync("empty")
        server.clock.run_what_came()
        server.storage.close()
        server.clock.run_what_came()
        self.assertEqual([str(failure.value) for failure in server.failures], ["[Errno 5] Input/output error"])
        self.assertEqual((server.told, self.gate.writes), ([], writes))

    def test_failed_write_leaves_what_was_durable(self) -> None:
        """After a failed write the next start finds the groups before it, and nothing of it."""
        server = self.failed()
        server.storage.close()
        recovered = self.server().storage.recover()
        self.assertEqual([slot.seq for slot in recovered.accepted], [1])

    def test_write_under_way_when_reading_failed_is_not_acknowledged(self) -> None:
        """When reading has failed, the write that is under way is not acknowledged: the storage has failed as a
        whole."""
        server = self.started()
        self.gate.arrived.clear()
        self.gate.open.clear()
        server.sync("first", *slot_records([1]))
        self.assertTrue(self.gate.arrived.wait(10))
        self.patch(LogReader, "read", lambda *_: 1 // 0)
        server.storage.read_history(1, 1, 10, server.told.append)
        server.clock.run_until(lambda: bool(server.failures))
        self.gate.open.set()
        server.clock.run_what_came(0.2)
        self.assertNotIn("first", server.told)
        self.assertEqual(len(server.failures), 1)

    def test_callback_that_raises_stops_the_storage(self) -> None:
        """An exception in a turn stops the server, and no later outbox is released."""
        server = self.started()

        def broken() -> None:
            raise ZeroDivisionError("a turn went wrong")

        server.storage.append(ViewRecord(1, 1))
        server.storage.sync(broken)
        server.sync("later", ViewRecord(2, 2))
        server.clock.run_until(lambda: bool(server.failures))
        server.clock.run_what_came()
        self.assertEqual([failure.type for failure in server.failures], [ZeroDivisionError])
        self.assertEqual(server.told, [])


class ReadHistoryTests(StorageTestCase):
    """Section 5.6: ordered updates for a server that is behind."""

    def test_range_is_served_from_disk(self) -> None:
        """A range is served from disk with both ends."""
        server = self.started()
        server.write(*ordered_to(5))
        self.assertEqual(server.read(2, 4), [(seq, batch(f"slot {seq}")) for seq in (2, 3, 4)])

    def test_slots_above_the_durable_aru_are_not_served(self) -> None:
        """A slot above the durable Local_Aru is not served: it may hold a proposal that is not ordered."""
        server = self.started()
        server.write(*ordered_to(2), *slot_records([3, 4]))
        self.assertEqual([seq for seq, _ in server.read(1, 9)], [1, 2])
        self.assertEqual(server.read(3, 9), [])

    def test_accepted_proposal_is_served_once_it_is_ordered(self) -> None:
        """A slot that was accepted as a proposal is served when a record of Local_Aru covers it."""
        server = self.started()
        server.write(*slot_records([1, 2]))
        self.assertEqual(server.read(1, 2), [])
        server.write(AruRecord(2))
        self.assertEqual([seq for seq, _ in server.read(1, 2)], [1, 2])

    def test_bytes_are_bounded_but_one_batch_always_fits(self) -> None:
        """A read of slots is answered with one batch at least, and with further ones up to bytes_max."""
        server = self.started()
        server.write(*ordered_to(5))
        self.assertEqual([seq for seq, _ in server.read(1, 5, bytes_max=len("slot 1") * 2)], [1, 2])
        self.assertEqual([seq for seq, _ in server.read(1, 5, bytes_max=1)], [1])

    def test_slot_zero_is_not_known(self) -> None:
        """Slot 0 is answered with nothing: history begins at 1, and an answer must begin at the slot that was asked
        for."""
        server = self.started()
        server.write(*ordered_to(5))
        self.assertEqual(server.read(0, 5), [])

    def test_too_many_reads_are_answered_with_nothing(self) -> None:
        """Reads beyond the maximum of the queue are answered with nothing, so that the asking server goes to
        another."""
        gate = Gate()
        server = self.started()
        server.write(*ordered_to(1))
        self.patch(LogReader, "read", lambda *_: gate.pass_through() or ["read"])
        gate.open.clear()
        answers: list[object] = []
        server.storage.read_history(1, 1, 10, answers.append)
        self.assertTrue(gate.arrived.wait(10))
        for _ in range(READS_WAITING_MAX + 1):
            server.storage.read_history(1, 1, 10, answers.append)
        self.assertEqual(answers, [])
        server.clock.advance(0)
        self.assertEqual(answers, [[]])
        gate.open.set()
        server.clock.run_until(lambda: len(answers) == READS_WAITING_MAX + 2)

    def test_damaged_group_is_never_served(self) -> None:
        """A damaged group is never served to another server."""
        server = self.started()
        server.write(*ordered_to(2))
        path = segment_path(self.directory / "log", 1)
        with path.open("r+b") as file:
            at = file.read().index(b"slot 2")
            file.seek(at)
            file.write(b"slot 3")
        server.storage.read_history(1, 2, 1000, server.told.append)
        server.clock.run_until(lambda: bool(server.failures))
        self.assertIn("the checksum of the group at byte", str(server.failures[0].value))
        self.assertEqual(server.told, [])


class RealReactorTests(TestCase):
    """Tests with the threads of a real reactor."""

    async def test_writes_and_reads_arrive_in_the_reactor(self) -> None:
        """Callbacks of writes and reads come later, in the thread of the reactor."""
        from threading import get_ident

        failures: list[object] = []
        storage = LogStorage(
            Path(self.mktemp()), b"digest", "one", 0, reactor, lambda count: b"r" * count, failures.append
        )
        self.addCleanup(storage.close)
        storage.recover()
        written: Deferred[int] = Deferred()
        read: Deferred[list[object]] = Deferred()
        for record in ordered_to(3):
            storage.append(record)
        storage.sync(lambda: written.callback(get_ident()))
        self.assertNoResult(written)
        self.assertEqual(await written, get_ident())
        storage.read_history(2, 3, 1000, read.callback)
        self.assertEqual(await read, [(2, batch("slot 2")), (3, batch("slot 3"))])
        self.assertEqual(failures, [])

    def test_writer_gets_the_interpreter_soon(self) -> None:
        """The writer's thread gets the interpreter soon while the reactor is busy; with the interpreter's own switch
        interval it would wait for seconds."""
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(0.005)
        storage = LogStorage(Path(self.mktemp()), b"d", "one", 0, reactor, bytes, self.fail)
        storage.recover()
        storage.close()
        self.assertAlmostEqual(sys.getswitchinterval(), SWITCH_SECONDS_MAX, places=6)
