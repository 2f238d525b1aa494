"""Tests of `pfsb log`, and of the example that reads a log."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, OrderedRecord, PeerRecord, ProposalRecord, SnapshotRecord, ViewRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.paxos.start_number import start_number
from pfsb.service.log_command import Options, command, run
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.segments import segment_path
from pfsb.support.command_line import parse
from tests.storage.support import Server, batch, ordered_to, slot_records

EXAMPLE = Path(pfsb.__file__).resolve().parents[1] / "docs" / "internals" / "read_log.py"


class LogCommandTests(SynchronousTestCase):
    """A data directory of four groups."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        server = Server(self.directory)
        self.identity = server.storage.recover().identity
        server.write(ViewRecord(5, 4), *ordered_to(2), PeerRecord(1, b"disk-001", 3, 99))
        server.write(ProposalRecord(3, 4, batch("three")), OrderedRecord(4, batch("four")))
        server.write(
            ProposalRecord(3, 5, batch("THREE")),
            AruRecord(2),
            PeerRecord(0, b"disk-000", start_number(5, 0x1A2B3C), 120),
        )
        server.storage.close()

    def run_command(self, *words: str) -> tuple[str, str, int]:
        """Run `pfsb log`. Returns standard output, standard error and exit status."""
        options: Options = parse(command, words)
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        try:
            run(None, options).send(None)
        except StopIteration:
            return out.getvalue(), err.getvalue(), 0
        except SystemExit as end:
            return out.getvalue(), err.getvalue(), int(end.code or 0)
        raise AssertionError("the command waits for something")

    def test_log_is_summed_up(self) -> None:
        """`pfsb log` shows the owner, the size and the state of a log."""
        out, err, status = self.run_command(str(self.directory))
        said = dict(line.split(maxsplit=1) for line in out.splitlines())
        self.assertEqual((err, status), ("", 0))
        self.assertEqual((said["cluster"], said["server_id"], said["position"]), ("four", "2", "4"))
        self.assertEqual((said["slots"], said["local_aru"], said["identity"]), ("4", "2", self.identity.hex()))

    def test_groups_are_listed(self) -> None:
        """`pfsb log` lists the groups, one in a line, with slots and views."""
        out, _, _ = self.run_command(str(self.directory / "log"), "--groups")
        lines = [line for line in out.splitlines() if line.startswith("group ")]
        self.assertEqual(len(lines), 4)
        self.assertTrue(lines[0].startswith("group 1: segment 1, byte 4096, "))
        self.assertIn(" slots 3@4 4@0", lines[2])

    def test_json(self) -> None:
        """`pfsb log --json` prints one object in a line: the groups, and then the log."""
        out, _, _ = self.run_command(str(self.directory), "--json")
        *groups, log = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([group["group"] for group in groups], [1, 2, 3, 4])
        self.assertEqual(groups[0]["incarnation"], 1)
        self.assertEqual(groups[1]["peers"], {"1": {"identity": b"disk-001".hex(), "incarnation": 3, "position": 99}})
        known = {"identity": b"disk-000".hex(), "incarnation": 5, "mark": "001a2b3c", "position": 120}
        self.assertEqual(log["peers"]["0"], known)
        slot = {"seq": 3, "view": 5, "bytes": 5, "digest": batch("THREE").digest.hex()}
        self.assertEqual(groups[3]["slots"], [slot])
        self.assertEqual((log["position"], log["last_installed"], log["members"]), (4, 4, [0, 1, 2, 3]))

    def query(self, path: Path, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(statement).fetchall()

    def test_sqlite_file_holds_everything(self) -> None:
        """`pfsb log --sqlite` writes all of the log into a file for the sqlite3 tool."""
        path = Path(self.mktemp())
        _, err, status = self.run_command(str(self.directory), "--sqlite", str(path))
        self.assertEqual((err, status), ("", 0))
        history = self.query(path, "SELECT seq, view, number, batch FROM history ORDER BY seq")
        self.assertEqual(history[2:], [(3, 5, 4, b"THREE"), (4, 0, 3, b"four")])
        self.assertEqual(self.query(path, "SELECT * FROM views"), [(5, 4, 2, 4)])
        self.assertEqual(self.query(path, "SELECT number, slots FROM groups"), [(1, 0), (2, 2), (3, 2), (4, 1)])
        self.assertEqual(self.query(path, "SELECT first_group, last_group FROM segments"), [(1, 4)])
        self.assertEqual(
            self.query(path, "SELECT incarnation, mark, position FROM peers ORDER BY server_id"),
            [(5, "001a2b3c", 120), (3, None, 99)],
        )
        again = self.assertRaises(click.UsageError, self.run_command, str(self.directory), "--sqlite", str(path))
        self.assertIn("exists already", str(again))

    def test_python_without_sqlite_shows_the_log_and_writes_no_database(self) -> None:
        """With a Python without SQLite the log is shown; for --sqlite one line says what is missing, and no file is
        made."""
        path = Path(self.mktemp())
        with patch.dict(sys.modules, {"sqlite3": None}):
            shown, err, status = self.run_command(str(self.directory), "--sqlite", str(path))
        self.assertIn("slots                4\n", shown)
        self.assertIn(f"pfsb: {path}: to write a database, Python's module sqlite3 is needed, which this Python ", err)
        self.assertEqual((err.count("\n"), status, path.exists()), (1, 1, False))

    def test_log_that_a_start_would_refuse(self) -> None:
        """A log that a start would refuse is refused with one line, in the words of a start, and exit status 1."""
        path = segment_path(self.directory / "log", 1)
        data = path.read_bytes()
        path.write_bytes(data.replace(b"three", b"threw"))
        _, err, status = self.run_command(str(self.directory))
        self.assertIn("damaged before its end, where acknowledged records stand", err)
        self.assertEqual((err.count("\n"), status), (1, 1))
        path.write_bytes(data.replace(b"THREE", b"THREW"))
        out, err, status = self.run_command(str(self.directory))
        self.assertIn("holds 3 groups of records, and this server had written 4", err)
        self.assertIn("torn_bytes", out)
        self.assertEqual(status, 1)

    def test_gap_is_reported(self) -> None:
        """A gap in the log is reported as by a start."""
        server = Server(self.directory)
        server.storage.recover()
        server.write(*slot_records([7]), AruRecord(7))
        server.storage.close()
        self.assertIn("slot 5 is missing from the history", self.run_command(str(self.directory))[1])

    def add_snapshot(self) -> SnapshotName:
        """Go on to a second segment, and have a snapshot of slot 2 drop the first one."""
        server = Server(self.directory, slack=Slack(0))
        server.storage.recover()
        server.write(OrderedRecord(3, batch("three")), AruRecord(3))
        for seq in range(5, 25):
            server.write(ProposalRecord(seq, 4, Batch(bytes(60_000))))
        second = segment_path(self.directory / "log", 2)
        server.clock.run_until(second.exists)
        while not any(second.read_bytes()[4_096:4_200]):  # the writer uses the new segment a moment after it was made
            server.write(ProposalRecord(24, 5, batch("24")))
        server.write(ProposalRecord(25, 4, batch("25")), ProposalRecord(3, 6, batch("three")))
        names: list[SnapshotName] = []
        file = server.storage.write_snapshot(24, b"cluster!")
        file.finish(names.append)
        server.clock.run_until(lambda: bool(names))
        server.write(SnapshotRecord(names[0]))
        dropped = segment_path(self.directory / "log", 1)  # the head of the first segment remains
        server.clock.run_until(lambda: server.storage.compacted > 0 and dropped.stat().st_size == 4_096)
        server.storage.close()
        return names[0]

    def test_snapshot_is_shown(self) -> None:
        """A snapshot is shown with the part of the log that is kept; the slots that were dropped do not count as
        missing."""
        name = self.add_snapshot()
        out, err, status = self.run_command(str(self.directory), "--json")
        log = json.loads(out.splitlines()[-1])
        self.assertEqual((err, status), ("", 0))
        self.assertEqual(log["snapshot"], {"seq": 24, "bytes": name.size, "digest": name.digest.hex()})
        self.assertEqual((log["first_segment"], log["compacted"], log["segments"]), (2, 24, 1))
        self.assertEqual((log["local_aru"], log["first_missing_slot"], log["slots"]), (24, None, 1))
        group = json.loads(out.splitlines()[0])
        self.assertEqual((group["segment"], group["group"] > 20), (2, True))
        path = Path(self.mktemp())
        self.run_command(str(self.directory), "--sqlite", str(path))
        self.assertEqual(self.query(path, "SELECT * FROM snapshot"), [(24, name.size, name.digest.hex(), 2, 24)])
        self.assertEqual(self.query(path, "SELECT number FROM segments"), [(2,)])

    def test_snapshot_that_a_start_would_refuse(self) -> None:
        """A snapshot that a start would refuse is refused in the words of a start, from the data directory and from the
        directory of the log."""
        self.add_snapshot()
        path = self.directory / "snapshots" / "000000000024.snapshot"
        path.write_bytes(path.read_bytes()[:-1])
        for directory in (self.directory, self.directory / "log"):
            _, err, status = self.run_command(str(directory))
            self.assertIn("000000000024.snapshot: cut off at", err)
            self.assertEqual((err.count("\n"), status), (1, 1))

    def test_example_reads_a_log_whose_front_was_dropped(self) -> None:
        """The example in the documentation reads a log whose front was dropped, from the first segment that is
        there."""
        self.add_snapshot()
        out, _, _ = self.run_command(str(self.directory), "--json")
        numbers = [str(json.loads(line)["group"]) for line in out.splitlines()[:-1]]
        command = [sys.executable, str(EXAMPLE), str(self.directory / "log")]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        self.assertEqual([line.split()[0] for line in found.stdout.splitlines()], numbers)

    def test_mistakes_of_the_command_line(self) -> None:
        """A mistake of the command line gives one line, which says what is needed."""
        for words, problem in (((), "one data directory is needed"), (("/nowhere",), "no data directory with a log")):
            error = self.assertRaises(click.UsageError, self.run_command, *words)
            self.assertIn(problem, str(error))

    def test_example_in_the_documentation_reads_the_log(self) -> None:
        """The reader of logs in docs/internals/log.rst, which is a whole program, reads the log."""
        command = [sys.executable, str(EXAMPLE), str(self.directory / "log")]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        self.assertEqual(found.stdout.splitlines(), ["1", "2 1:0:6 2:0:6", "3 3:4:5 4:0:4", "4 3:5:5"])
        self.assertLessEqual(len(EXAMPLE.read_text().splitlines()), 40)
