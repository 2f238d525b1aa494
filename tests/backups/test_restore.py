"""Tests of a cluster that begins with the state of another one: `new_cluster`, `pfsb restore`, `pfsb recover`."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import click
from attrs import evolve
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.applications.interfaces import PENDING
from pfsb.backups import recover_command, restore_command
from pfsb.backups.backup_file import BackupState, load
from pfsb.backups.new_cluster import JUMP, REVISION_MAX, CannotBegin, answering, begin_anew
from pfsb.backups.survivors import latest_state, read_survivor
from pfsb.commands.exit_status import ExitStatus
from pfsb.config.config import Config
from pfsb.paxos.frozen_history import HistoryRestorer
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, PeerRecord, ProposalRecord, Recovered, SnapshotRecord
from pfsb.paxos.snapshot import SNAPSHOT_DIGEST_BYTES, SnapshotDecoder, SnapshotName, WrongSnapshot
from pfsb.service.assembly import log_storage
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.state_machine import birth
from pfsb.storage.directory import DirectoryLock
from pfsb.storage.effect import Effect
from pfsb.storage.log.scan import scan
from pfsb.storage.log.writer import LogWriter
from tests.backups.states import FORMER, MEMBERS, MadeState, configuration

NEW = b"cluster2"


class CaseWithDirectory(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.out, self.err = io.StringIO(), io.StringIO()


class BackupFileTests(CaseWithDirectory):
    def test_what_is_written_is_loaded(self) -> None:
        made = MadeState()
        made.anonymous(("PUT", b"colour", b"blue"))
        name = made.backup(self.directory / "b")
        found = load(self.directory / "b")
        self.assertEqual((found.name, found.cluster_identity, found.history.seq), (name, FORMER, made.seq))
        self.assertEqual(found.machine.revision, made.machine.revision)
        self.assertEqual(found.application("kv").entries[b"colour"][0], b"blue")

    def test_a_damaged_or_cut_file_is_none(self) -> None:
        file = self.directory / "b"
        MadeState().backup(file)
        data = file.read_bytes()
        for wrong in (data[:-1], data[: len(data) // 2], b"", data[:100] + b"?" + data[101:]):
            file.write_bytes(wrong)
            self.assertRaises(WrongSnapshot, load, file)

    def test_example_in_the_documentation_reads_a_backup(self) -> None:
        """The reader of backups in docs/internals/formats.rst, which is a whole program, reads a backup, and finds
        damage."""
        made = MadeState()
        made.anonymous(("PUT", b"colour", b"blue"), ("PUT", b"empty", b""))
        file = self.directory / "b"
        made.backup(file)
        example = Path(pfsb.__file__).resolve().parents[1] / "docs" / "internals" / "read_snapshot.py"
        command = [sys.executable, str(example), str(file)]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        entries = made.machine.applications[2].entries
        expected = [f"{key!r} {value!r} {revision}" for key, (value, revision, _) in sorted(entries.items())]
        lines = found.stdout.splitlines()
        self.assertEqual(lines[-2:], expected)
        sections = [line.rpartition(" ")[0] for line in lines[:-2]]
        self.assertEqual([sections[0], sections[1], sections[-1]], ["history", "state", "app kv 1"])
        data = file.read_bytes()
        for at in (0, 35, 77, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            wrong = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
            self.assertNotEqual(wrong.returncode, 0, at)
        self.assertLessEqual(len(example.read_text().splitlines()), 40)


class BeginAnewTests(CaseWithDirectory):
    def test_tokens_and_epochs_never_repeat(self) -> None:
        """Each token of a restored cluster is higher than all tokens of the former one, so that a resource which has
        seen one refuses all former holders."""
        made = MadeState()
        epoch = made.open("alice")["epoch"]
        before = made.run("alice", epoch, 1, ("LOCK", "printer", -1)).fields
        state = begin_anew(made.state(), MEMBERS, NEW)
        self.assertGreater(state.machine.revision, dict(before)["token"] + JUMP - 1)
        made.seq = state.history.seq
        again = made.open("alice")
        self.assertGreater(again["epoch"], epoch + JUMP - 1)
        token = dict(made.run("alice", again["epoch"], 2, ("LOCK", "printer", -1)).fields)["token"]
        self.assertGreater(token, dict(before)["token"] + JUMP - 1)

    def test_sessions_and_locks_are_void(self) -> None:
        made = MadeState()
        alice, bob = made.open("alice")["epoch"], made.open("bob")["epoch"]
        made.run("alice", alice, 1, ("LOCK", "printer", -1))
        self.assertIs(made.run("bob", bob, 1, ("LOCK", "printer", -1)), PENDING)
        state = begin_anew(made.state(), MEMBERS, NEW)
        self.assertEqual(state.machine.sessions, {})
        self.assertEqual(state.application("lock").locks, {})
        self.assertEqual(state.machine.kept_replies.size, 0)

    def test_a_number_from_before_the_backup_never_runs_again(self) -> None:
        """HELLO in a restored cluster tells the last number in the backup, and that later numbers are forgotten."""
        made = MadeState()
        epoch = made.open("alice")["epoch"]
        made.run("alice", epoch, 7, ("INCR", b"visits", 1))
        begin_anew(made.state(), MEMBERS, NEW)
        again = made.open("alice")
        self.assertEqual((again["last"], str(again["resumed"])), (7, "no"))
        self.assertGreater(again["forgotten"], JUMP)
        made.run("alice", again["epoch"], 7, ("INCR", b"visits", 1))
        self.assertEqual(made.machine.applications[2].entries[b"visits"][0], b"1")

    def test_the_new_cluster_is_another_one(self) -> None:
        made = MadeState()
        before = made.state()
        state = begin_anew(before, (4, 2), NEW)
        values = state.machine.settings.values
        self.assertEqual((values.cluster_identity, values.members), (NEW, (2, 4)))
        self.assertNotEqual(state.history.digest, before.history.digest)
        self.assertEqual(state.machine.settings.announced, {})

    def test_an_operator_may_name_the_highest_revision(self) -> None:
        self.assertEqual(begin_anew(MadeState().state(), MEMBERS, NEW, 5_000).machine.revision, 5_001)

    def test_a_named_revision_below_that_of_the_backup_does_not_count(self) -> None:
        made = MadeState()
        made.open("alice")
        revision = made.machine.revision
        self.assertEqual(begin_anew(made.state(), MEMBERS, NEW, 0).machine.revision, revision + 1)

    def test_revisions_do_not_run_out(self) -> None:
        self.assertRaises(CannotBegin, begin_anew, MadeState().state(), MEMBERS, NEW, REVISION_MAX)


class RestoreCase(CaseWithDirectory):
    """A backup, and the configuration of a cluster that is to be made of it."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.directory / "former.snapshot"
        self.made = MadeState()
        self.made.anonymous(("PUT", b"colour", b"blue"), ("SAY", "hello"))
        self.made.backup(self.file)
        self.config = configuration(self.directory)

    def restore(self, **changes: object) -> ExitStatus:
        options = restore_command.Options([self.file], self.config, self.config.ids, None, None, False)
        return restore_command.restore(reactor, evolve(options, **changes), self.out, self.err)

    def restored(self, config: Config, server_id: int) -> BackupState:
        return load(next(self.snapshots(config, server_id).iterdir()))

    def snapshots(self, config: Config, server_id: int) -> Path:
        directory = config.storage_directory(server_id)
        assert directory is not None
        return directory / "snapshots"

    def recovered(self, server_id: int) -> Recovered:
        """The state that a start of the server finds."""
        directory = self.config.storage_directory(server_id)
        assert directory is not None
        storage = log_storage(self.config, server_id, directory, reactor, lambda failure: None)
        found = storage.recover()
        self.addCleanup(storage.close)
        return found


class RestoreTests(RestoreCase):
    def test_each_server_gets_the_same_state_and_a_storage_of_its_own(self) -> None:
        self.assertIs(self.restore(), ExitStatus.OK)
        states = [self.restored(self.config, server_id) for server_id in MEMBERS]
        self.assertEqual(len({state.name for state in states}), 1)
        self.assertEqual(states[0].application("kv").entries[b"colour"][0], b"blue")
        self.assertEqual(states[0].application("chat").length(), 1)

    def test_a_start_finds_the_snapshot_and_nothing_to_execute(self) -> None:
        self.restore()
        found = [self.recovered(server_id) for server_id in (0, 1)]
        self.assertEqual(
            [(each.local_aru, [*each.ordered], each.accepted) for each in found], 2 * [(self.made.seq, [], [])]
        )
        self.assertNotEqual(found[0].identity, found[1].identity)
        decoder = SnapshotDecoder()
        machine = MadeState().machine
        restorer = HistoryRestorer(machine.restorer(), lambda history, inner: inner.adopt())
        for portion in found[0].snapshot_bytes:
            for piece in decoder.feed(portion):
                restorer.take(piece)
        self.assertEqual(restorer.seq, self.made.seq)

    def test_a_storage_that_is_there_is_never_touched(self) -> None:
        self.restore(servers=(1,))
        before = self.snapshots(self.config, 1).stat().st_mtime_ns
        self.assertIs(self.restore(), ExitStatus.REFUSED)
        self.assertIn("there already", self.err.getvalue())
        self.assertEqual(self.snapshots(self.config, 1).stat().st_mtime_ns, before)
        self.assertFalse(self.snapshots(self.config, 0).exists())

    def token(self) -> bytes:
        """The token that the first restore has printed for the other machines."""
        return bytes.fromhex(self.out.getvalue().partition("for --cluster: ")[2].split()[0])

    def test_other_machines_make_the_same_cluster(self) -> None:
        self.restore(servers=(0,), revision=2_000_000)
        token = self.token()
        self.assertIn(f"--id 1 --id 2 --cluster {token.hex()} --revision 2000000", self.out.getvalue())
        self.assertIs(self.restore(servers=(1, 2), token=token, revision=2_000_000), ExitStatus.OK)
        names = {self.restored(self.config, server_id).name for server_id in MEMBERS}
        self.assertEqual(len(names), 1)

    def test_other_machines_make_the_same_cluster_or_none(self) -> None:
        """With another backup, revision or set of servers, a restore on another machine is refused: it would make
        another state under the same identity."""
        self.restore(servers=(0,))
        token = self.token()
        other_file = self.directory / "later.snapshot"
        self.made.anonymous(("PUT", b"colour", b"red"))
        self.made.backup(other_file)
        four = configuration(self.directory, servers=4, cluster="four")
        for changes in ({"files": [other_file]}, {"revision": 2 * JUMP}, {"config": four}):
            self.err = io.StringIO()
            status = self.restore(**{"servers": (1,), "token": token, **changes})
            self.assertIs(status, ExitStatus.REFUSED)
            self.assertIn("FILE, --revision or the servers in CONFIG are others", self.err.getvalue())
            self.assertEqual(self.err.getvalue().count("\n"), 1)
        self.assertFalse(self.snapshots(self.config, 1).exists())
        self.assertFalse(Path(four.storage).exists())

    def test_a_token_of_another_length_is_a_usage_error(self) -> None:
        for wrong in (NEW.hex(), "", "x" * 24):
            arguments = [str(self.file), self.config.file, "--cluster", wrong]
            main = restore_command.command.main
            error = self.assertRaises(click.UsageError, main, arguments, standalone_mode=False)
            self.assertIn("--cluster takes 24 hexadecimal digits", error.message)

    def test_it_is_told_how_many_servers_the_new_cluster_needs(self) -> None:
        self.restore()
        self.assertIn("answers only when all of its servers have been started", self.out.getvalue())
        self.assertIn("4 of its 5 servers have been started", answering((1, 2, 3, 4, 5)))

    def fail_at(self, server_id: int) -> None:
        """Put a file where the directory of this server would be: it cannot be made, as on a full disk."""
        directory = self.config.storage_directory(server_id)
        assert directory is not None
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.write_bytes(b"")

    def test_a_failure_amid_the_servers_tells_what_was_made_and_how_to_go_on(self) -> None:
        self.fail_at(1)
        self.assertIs(self.restore(), ExitStatus.REFUSED)
        said = self.err.getvalue()
        self.assertIn(f"made before that: {self.config.storage_directory(0)}. Delete them", said)
        token = self.token()
        self.assertIn(f"--id 1 --id 2 --cluster {token.hex()}", said)
        directory = self.config.storage_directory(1)
        assert directory is not None
        directory.unlink()
        self.assertIs(self.restore(servers=(1, 2), token=token), ExitStatus.OK)
        self.assertEqual(len({self.restored(self.config, server_id).name for server_id in MEMBERS}), 1)

    def test_a_repeated_restore_tells_two_ways_on(self) -> None:
        self.restore(servers=(0,))
        self.assertIs(self.restore(), ExitStatus.REFUSED)
        self.assertIn("delete it, or make the rest with", self.err.getvalue())
        self.assertIn("--id 1 --id 2 --cluster TOKEN", self.err.getvalue())

    def test_the_token_is_told_before_anything_is_made(self) -> None:
        self.restore(servers=(0,))
        said = self.out.getvalue()
        self.assertLess(said.index("for --cluster: "), said.index(": made, for server"))

    def test_a_file_that_is_no_backup_is_named(self) -> None:
        for junk, why in (
            (b"hello\n", "does not begin as a backup does"),
            (bytes(500), "does not begin as a backup does"),
            (b"", "is empty"),
            (self.file.read_bytes()[:20], "its end is missing"),
        ):
            self.err = io.StringIO()
            junk_file = self.directory / "junk"
            junk_file.write_bytes(junk)
            self.assertIs(self.restore(files=[junk_file]), ExitStatus.REFUSED)
            self.assertIn(f"{junk_file} is no backup that could be restored: ", self.err.getvalue())
            self.assertIn(why, self.err.getvalue())

    def test_a_dry_run_makes_nothing(self) -> None:
        self.assertIs(self.restore(dry_run=True), ExitStatus.OK)
        self.assertFalse(Path(self.config.storage).exists())
        self.assertIn("nothing was done", self.out.getvalue())

    def test_a_wrong_file_makes_nothing(self) -> None:
        self.file.write_bytes(self.file.read_bytes()[:-3])
        self.assertIs(self.restore(), ExitStatus.REFUSED)
        self.assertFalse(Path(self.config.storage).exists())

    def test_a_restore_that_broke_off_can_be_repeated(self) -> None:
        """After a restore that broke off, the files in the directory are no storage, since the log is missing, so it
        can be repeated."""
        snapshots = self.snapshots(self.config, 0)
        snapshots.mkdir(parents=True)
        (snapshots / "snapshot.new").write_bytes(b"half")
        self.assertIs(self.restore(), ExitStatus.OK)

    def test_what_a_killed_restore_has_left_is_deleted_and_a_running_one_keeps_its_own(self) -> None:
        parent = Path(self.config.storage)
        left, used = parent / ".restore-left", parent / ".restore-used"
        for each in (left, used):
            each.mkdir(parents=True)
            (each / "state.snapshot").write_bytes(b"half")
        lock = DirectoryLock(used)
        lock.acquire()
        self.assertIs(self.restore(), ExitStatus.OK)
        lock.release()
        self.assertEqual(sorted(each.name for each in parent.glob(".restore-*")), [".restore-used"])
        self.assertIn(f"{left}: left by a restore that was killed; deleted", self.out.getvalue())

    def test_the_last_line_names_no_server_that_was_made_here(self) -> None:
        """The last line of a restore names no server as the one that is missing: others may have been made on other
        machines, which this machine cannot know."""
        self.restore(servers=(0,))
        token = self.token()
        self.out = io.StringIO()
        self.assertIs(self.restore(servers=(1,), token=token), ExitStatus.OK)
        said = self.out.getvalue()
        self.assertIn(f"before any server starts: pfsb restore FILE CONFIG --id 2 --cluster {token.hex()}", said)
        self.out = io.StringIO()
        self.assertIs(self.restore(servers=(2,), token=token), ExitStatus.OK)
        self.assertNotIn("before any server starts", self.out.getvalue())


class RecoverCase(RestoreCase):
    """Data directories of a restored cluster, in which more was written, that are left over."""

    def setUp(self) -> None:
        super().setUp()
        self.restore()
        self.target = configuration(self.directory, cluster="recovered")
        self.batch = Batch.of(1_700_000_100_000, [])

    def left(self, server_id: int) -> Path:
        directory = self.config.storage_directory(server_id)
        assert directory is not None
        return directory

    def write(self, server_id: int, *records: object) -> None:
        self.write_into(self.left(server_id), *records)

    def write_into(self, directory: Path, *records: object) -> None:
        log = scan(directory / "log")
        writer = LogWriter.open(log)
        effect = Effect()
        effect.apply_all(records)  # type: ignore[arg-type]
        writer.write(effect)
        writer.close()

    def recover(self, *servers: int, dry_run: bool = False) -> ExitStatus:
        self.out, self.err = io.StringIO(), io.StringIO()
        options = recover_command.Options([self.left(each) for each in servers], self.target, None, dry_run)
        return recover_command.recover(reactor, options, self.out, self.err)

    def refusal(self, *directories: Path) -> str:
        survivors = [read_survivor(directory) for directory in directories]
        return str(self.assertRaises(StorageRefused, latest_state, survivors, lambda done, of: None))

    def empty(self, server_id: int) -> Path:
        """A data directory of a server that was started, and has executed nothing."""
        directory = self.directory / "empty" / str(server_id)
        storage = log_storage(self.config, server_id, directory, reactor, lambda failure: None)
        storage.recover()
        storage.close()
        return directory

    def identity(self, directory: Path) -> bytes:
        return read_survivor(directory).log.head.identity


class RecoverTests(RecoverCase):
    """Tests of `pfsb recover`."""

    def test_the_directory_that_has_executed_most_counts(self) -> None:
        seq = self.made.seq
        self.write(1, ProposalRecord(seq + 1, 1, self.batch), AruRecord(seq + 1))
        self.assertIs(self.recover(0, 1), ExitStatus.OK)
        self.assertEqual(self.restored(self.target, 2).history.seq, seq + 1)
        self.assertIn("which is a majority", self.out.getvalue())

    def test_open_slots_count_as_run_and_that_is_said(self) -> None:
        seq = self.made.seq
        self.write(1, ProposalRecord(seq + 1, 1, self.batch))
        self.assertIs(self.recover(1), ExitStatus.OK)
        self.assertEqual(self.restored(self.target, 0).history.seq, seq + 1)
        said = self.out.getvalue()
        self.assertIn(f"slots {seq + 1} to {seq + 1} were accepted here", said)
        self.assertIn("1 of 3 servers are left, and 2 were needed", said)

    def test_of_two_proposals_that_of_the_higher_view_counts(self) -> None:
        seq = self.made.seq
        other = Batch.of(1_700_000_200_000, [])
        self.write(0, ProposalRecord(seq + 1, 1, self.batch))
        self.write(1, ProposalRecord(seq + 1, 3, other))
        found = latest_state([read_survivor(self.left(0)), read_survivor(self.left(1))], lambda done, of: None)
        self.assertEqual(found.state.history.time_ms, 1_700_000_200_000)

    def test_what_stands_above_a_gap_is_left_out(self) -> None:
        seq = self.made.seq
        self.write(1, ProposalRecord(seq + 2, 1, self.batch))
        self.assertIs(self.recover(1), ExitStatus.OK)
        self.assertEqual(self.restored(self.target, 0).history.seq, seq)
        self.assertIn("1 slots that were accepted above a gap are left out", self.out.getvalue())

    def test_a_recovery_tells_how_many_servers_the_new_cluster_needs(self) -> None:
        self.recover(0)
        self.assertIn("answers only when all of its servers have been started", self.out.getvalue())

    def test_a_recovery_that_fails_amid_the_servers_tells_what_was_made(self) -> None:
        directory = self.target.storage_directory(1)
        assert directory is not None
        directory.parent.mkdir(parents=True)
        directory.write_bytes(b"")
        self.assertIs(self.recover(0), ExitStatus.REFUSED)
        made = f"made before that: {self.target.storage_directory(0)}. Delete them, and recover again"
        self.assertIn(made, self.err.getvalue())
        self.assertNotIn("started", self.out.getvalue())

    def test_directories_are_not_changed(self) -> None:
        files = {path: path.read_bytes() for path in self.left(0).rglob("*.log")}
        self.recover(0)
        self.assertEqual({path: path.read_bytes() for path in self.left(0).rglob("*.log")}, files)

    def test_a_dry_run_of_a_recovery_makes_nothing(self) -> None:
        self.assertIs(self.recover(0, dry_run=True), ExitStatus.OK)
        self.assertFalse(Path(self.target.storage).exists())

    def test_directories_of_two_clusters_are_refused(self) -> None:
        other = configuration(self.directory, cluster="third")
        self.restore(config=other)
        directory = other.storage_directory(1)
        assert directory is not None
        survivors = [read_survivor(self.left(0)), read_survivor(directory)]
        self.assertRaises(StorageRefused, latest_state, survivors, lambda done, of: None)

    def born(self, identity: bytes, server_id: int) -> Path:
        """A directory without a snapshot, in which the first slot is ordered: a cluster with the name of the first."""
        directory = self.directory / identity.decode() / str(server_id)
        storage = log_storage(self.config, server_id, directory, reactor, lambda failure: None)
        storage.recover()
        storage.close()
        values = ClusterSettings(MEMBERS, (("kv", 1),), cluster_identity=identity)
        self.write_into(directory, ProposalRecord(1, 1, Batch.of(1_700_000_000_000, [birth(0, values)])), AruRecord(1))
        return directory

    def test_directories_of_a_later_cluster_of_the_same_name_are_refused(self) -> None:
        later = self.directory / "later"
        later.mkdir()
        other = configuration(later)
        self.restore(config=other)
        directory = other.storage_directory(1)
        assert directory is not None
        said = self.refusal(self.left(0), directory)
        first, second = (self.restored(config, 1).cluster_identity for config in (self.config, other))
        for word in (str(self.left(0)), str(directory), first.hex(), second.hex()):
            self.assertIn(word, said)

    def test_directories_without_a_snapshot_tell_their_cluster_too(self) -> None:
        first, second = self.born(b"cluster1", 0), self.born(b"cluster2", 1)
        said = self.refusal(first, second)
        for word in (str(first), str(second), b"cluster1".hex(), b"cluster2".hex()):
            self.assertIn(word, said)
        found = latest_state([read_survivor(first), read_survivor(self.born(b"cluster1", 1))], lambda done, of: None)
        self.assertEqual(found.state.cluster_identity, b"cluster1")

    def test_a_directory_in_which_nothing_was_executed_goes_with_those_that_know_its_storage(self) -> None:
        """A data directory in which nothing was executed is taken only beside one that knows its storage: otherwise a
        cluster of the same name and servers may have left it, and what was accepted there would count."""
        directory = self.empty(1)
        said = self.refusal(directory, self.left(0))
        self.assertIn(f"{directory}: nothing was executed there, and nothing tells that it belongs", said)
        self.write(0, PeerRecord(1, self.identity(directory)))
        found = latest_state([read_survivor(directory), read_survivor(self.left(0))], lambda done, of: None)
        self.assertEqual(found.state.history.seq, self.made.seq)
        self.assertRaises(StorageRefused, latest_state, [read_survivor(directory)], lambda done, of: None)

    def test_a_directory_of_another_storage_than_another_one_knows_is_refused(self) -> None:
        """Two data directories, one of which knows the server of the other with another storage, are refused, whichever
        of the two it is."""
        directory = self.empty(1)
        self.write_into(directory, PeerRecord(0, b"another!"))
        self.assertIn("knows server 0 with another storage", self.refusal(directory, self.left(0)))
        self.write(0, PeerRecord(2, b"another!"))
        self.assertIn("knows server 2 with another storage", self.refusal(self.left(2), self.left(0)))

    def test_a_recovery_into_directories_that_are_there_says_what_to_do(self) -> None:
        self.target = self.config
        self.assertIs(self.recover(0), ExitStatus.REFUSED)
        self.assertIn("must name another storage: than that of the former servers", self.err.getvalue())

    def test_two_directories_of_one_server_are_refused(self) -> None:
        """Two data directories of one server are refused, even if a third one has executed most, so that neither would
        be read for its state."""
        seq = self.made.seq
        self.write(0, ProposalRecord(seq + 1, 1, self.batch), AruRecord(seq + 1))
        copy = self.directory / "copy"
        shutil.copytree(self.left(1), copy)
        said = self.refusal(self.left(0), self.left(1), copy)
        self.assertIn(f"{self.left(1)} and {copy} are both of server 1", said)

    def test_a_damaged_directory_is_refused_and_may_be_left_out(self) -> None:
        segment = next((self.left(1) / "log").glob("*.log"))
        segment.write_bytes(b"junk")
        self.assertIs(self.recover(0, 1), ExitStatus.REFUSED)
        self.assertIn(f"{self.left(1)} can be left out", self.err.getvalue())
        self.assertFalse(Path(self.target.storage).exists())

    def lose_snapshot(self, *servers: int) -> None:
        """The file of one snapshot is damaged, and those of the others are gone."""
        damaged, *gone = servers
        next(self.snapshots(self.config, damaged).iterdir()).write_bytes(b"junk")
        for server_id in gone:
            next(self.snapshots(self.config, server_id).iterdir()).unlink()

    def meet(self, *servers: int) -> None:
        """Have each of these servers note the storages of the others."""
        identities = {each: self.identity(self.left(each)) for each in servers}
        for server_id in servers:
            self.write(server_id, *[PeerRecord(i, identities[i]) for i in servers if i != server_id])

    def test_a_log_counts_without_its_snapshot_if_another_directory_leads_up_to_it(self) -> None:
        """If the snapshot of one directory is lost, its slots count all the same if another directory has all slots up
        to them."""
        seq = self.made.seq
        self.meet(0, 1)
        for step in range(1, 5):
            self.write(1, ProposalRecord(seq + step, 1, self.batch), AruRecord(seq + step))
        self.lose_snapshot(1)
        self.assertIs(self.recover(0, 1), ExitStatus.OK)
        self.assertEqual(self.restored(self.target, 2).history.seq, seq + 4)
        self.assertIn(f"executed slots up to {seq + 4}; ", self.out.getvalue())
        self.assertIn(f"{seq:012d}.snapshot is cut off at 4 bytes", self.out.getvalue())
        self.assertNotIn("left out", self.out.getvalue())

    def test_slots_that_nothing_leads_up_to_are_left_out_and_that_is_said(self) -> None:
        """Slots behind a lost snapshot are left out, and `pfsb recover` says so, if no other directory has the slots
        before them."""
        seq = self.made.seq
        self.meet(0, 1)
        self.write(1, SnapshotRecord(SnapshotName(seq + 10, 4, bytes(SNAPSHOT_DIGEST_BYTES))), AruRecord(seq + 10))
        self.write(1, ProposalRecord(seq + 11, 1, self.batch), AruRecord(seq + 11))
        self.write(0, ProposalRecord(seq + 1, 1, self.batch))
        self.assertIs(self.recover(0, 1), ExitStatus.OK)
        self.assertEqual(self.restored(self.target, 2).history.seq, seq + 1)
        self.assertIn("1 slots that were ordered are left out", self.out.getvalue())
        self.assertIn(f"slots {seq + 1} to {seq + 1} were accepted here", self.out.getvalue())

    def test_the_latest_snapshot_counts_and_slots_come_from_any_directory(self) -> None:
        """The state is put together of one snapshot and of slots from several directories: here server 0 has the
        snapshot and some slots, server 1 those behind them, server 2 the latest of all."""
        seq = self.made.seq
        self.meet(0, 1, 2)
        batches = [Batch.of(1_700_000_100_000 + step, []) for step in range(1, 7)]
        for server_id, last in ((0, 2), (1, 4), (2, 6)):
            for step in range(1, last + 1):
                self.write(server_id, ProposalRecord(seq + step, 1, batches[step - 1]), AruRecord(seq + step))
        self.lose_snapshot(1, 2)
        self.assertIs(self.recover(0, 1, 2), ExitStatus.OK)
        recovered = self.restored(self.target, 2).history
        self.assertEqual((recovered.seq, recovered.time_ms), (seq + 6, 1_700_000_100_006))

    def test_if_all_snapshots_are_lost_there_is_no_state(self) -> None:
        self.meet(0, 1)
        self.lose_snapshot(0, 1)
        self.assertIs(self.recover(0, 1), ExitStatus.REFUSED)
        self.assertIn("no state leads to the slots in these directories", self.err.getvalue())
        self.assertIn(f"{self.made.seq:012d}.snapshot is missing", self.err.getvalue())
        self.assertIs(self.recover(0), ExitStatus.REFUSED)

    def test_a_log_that_goes_back_to_the_first_slot_needs_no_snapshot(self) -> None:
        directory = self.born(b"cluster1", 0)
        for seq in (2, 3):
            self.write_into(directory, ProposalRecord(seq, 1, self.batch), AruRecord(seq))
        self.write_into(directory, SnapshotRecord(SnapshotName(2, 4, bytes(SNAPSHOT_DIGEST_BYTES))))
        found = latest_state([read_survivor(directory)], lambda done, of: None)
        self.assertEqual((found.state.cluster_identity, found.state.history.seq), (b"cluster1", 3))

    def test_a_directory_without_its_snapshot_goes_with_those_that_know_its_storage(self) -> None:
        """A directory without its snapshot is refused if no other one knows its storage: its log alone does not tell
        the cluster, and another one may have the same name."""
        self.lose_snapshot(1)
        self.assertIn(
            f"{self.left(1)}: its snapshot is lost, and nothing tells", self.refusal(self.left(0), self.left(1))
        )

    def test_servers_with_different_states_are_refused(self) -> None:
        self.meet(0, 1)
        self.write(1, SnapshotRecord(SnapshotName(self.made.seq, 4, bytes(SNAPSHOT_DIGEST_BYTES))))
        said = self.refusal(self.left(0), self.left(1))
        self.assertIn(f"have different states after slot {self.made.seq}", said)

    def test_a_directory_without_a_log_is_refused(self) -> None:
        self.assertRaises(StorageRefused, read_survivor, self.directory)

    def test_revisions_go_up_with_each_recovery(self) -> None:
        self.recover(0)
        self.assertGreater(self.restored(self.target, 0).machine.revision, 2 * JUMP)
