"""Tests of `pfsb history`, and of `pfsb restore --at`: what people see of the past."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
from attrs import evolve
from twisted.internet import reactor

from pfsb.backups import history_command, restore_command
from pfsb.backups.backup_file import load
from pfsb.backups.new_cluster import JUMP
from pfsb.backups.past import Target
from pfsb.backups.progress import Progress
from pfsb.commands.exit_status import ExitStatus
from pfsb.support.command_line import parse
from tests.backups.past_world import KEYS
from tests.backups.states import MEMBERS, configuration
from tests.backups.test_past import PastCase


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class CommandCase(PastCase):
    def setUp(self) -> None:
        super().setUp()
        self.world_ = self.usual()
        self.places = [self.world_.home / "archive", self.world_.home / "data"]
        self.out, self.err = io.StringIO(), io.StringIO()


class HistoryCommandTests(CommandCase):
    def history(self, key: bytes, status: ExitStatus = ExitStatus.OK, **changes: Any) -> list[str]:
        options = history_command.Options(key, self.places, (), Target(), Target(), False, False)
        self.out, self.err = io.StringIO(), io.StringIO()
        found = history_command.history(reactor, evolve(options, **changes), self.out, self.err)
        self.assertIs(found, status, self.err.getvalue())
        return self.out.getvalue().splitlines()

    def test_a_line_for_each_change(self) -> None:
        """`pfsb history` shows a line for each change of a key, with revision, time, command, session and value."""
        key = KEYS[0]
        lines = self.history(key)
        writes = self.world_.writes[key]
        self.assertEqual([int(line.split()[0]) for line in lines], [w.revision for w in writes])
        last = lines[-1].split()
        self.assertEqual(last[1][-1], "Z")
        self.assertIn(writes[-1].client_id, last)
        deleted = [line for line in lines if line.endswith("deleted")]
        self.assertEqual(len(deleted), sum(w.value is None for w in writes))

    def test_objects_of_json(self) -> None:
        """`pfsb history --json` shows whole values, also those that are no text."""
        for key in (KEYS[0], KEYS[2]):
            found = [json.loads(line) for line in self.history(key, json=True)]
            expected = [(w.revision, w.verb, w.client_id, w.slot) for w in self.world_.writes[key]]
            told = [(each["revision"], each["verb"], each["client"], each["slot"]) for each in found]
            self.assertEqual(told, expected)
            self.assertEqual({"key_base64" in each for each in found}, {key == KEYS[2]})
            self.assertEqual(found[0]["refused"], None)

    def test_refused_commands_are_listed_on_demand(self) -> None:
        key = KEYS[1]
        every = [json.loads(line) for line in self.history(key, json=True, everything=True)]
        refused = [each["revision"] for each in every if each["refused"]]
        self.assertEqual(refused, self.world_.refusals[key])
        self.assertTrue(any("refused: CONFLICT" in line for line in self.history(key, everything=True)))
        self.assertFalse(any("refused: " in line for line in self.history(key)))

    def test_part_of_the_history(self) -> None:
        key, middle = KEYS[0], self.world_.revision // 2
        writes = [w.revision for w in self.world_.writes[key]]
        later = [int(line.split()[0]) for line in self.history(key, first=Target(middle))]
        self.assertEqual(later, [r for r in writes if r >= middle])
        earlier = [int(line.split()[0]) for line in self.history(key, last=Target(middle))]
        self.assertEqual(earlier, [r for r in writes if r <= middle])
        time_ms = self.world_.time_of(self.world_.slots[middle])
        since = self.history(key, first=Target(time_ms=time_ms), json=True)
        self.assertEqual(
            [json.loads(line)["slot"] for line in since],
            [w.slot for w in self.world_.writes[key] if w.slot >= self.world_.slots[middle]],
        )

    def test_value_from_before_what_is_kept(self) -> None:
        """If the history is not kept from its beginning on, the first line says so, and shows the value that the key
        had where it begins."""
        self.places = [self.world_.home / "data" / "1"]
        first = self.history(KEYS[0])[0]
        self.assertIn("what is kept begins later", first)
        plain = json.loads(self.history(KEYS[0], json=True)[0])
        self.assertEqual((plain["verb"], plain["kept_from"] > plain["revision"] - 1), (None, True))

    def test_gap_ends_the_list(self) -> None:
        """At slots that are missing the list ends: all changes before are shown, and the refusal names the slots."""
        self.places = [self.world_.home / "data" / "2"]
        lines = self.history(KEYS[0], ExitStatus.REFUSED)
        shown = [int(line.split()[0]) for line in lines]
        self.assertLess(self.world_.slots[shown[-1]], min(self.world_.disks[2].jumped))
        self.assertIn(f"holds slots {min(self.world_.disks[2].jumped)} to ", self.err.getvalue())

    def test_values_are_shortened_and_harmless(self) -> None:
        """Long values are shortened, and control characters in them are escaped, since a terminal could take them for
        commands."""
        self.assertEqual(history_command.shortened(b"\x1b[2J\xff"), "\\x1b[2J\\xff")
        self.assertEqual(history_command.shortened(b""), '""')
        long = history_command.shortened(b"x" * 1_000)
        self.assertEqual((len(long) < 80, long.endswith("… (1000 bytes)")), (True, True))

    def test_configuration_stands_for_its_directories(self) -> None:
        """A configuration stands for the archives and data directories that it names, but for those on other
        machines."""
        config = configuration(self.world_.home, cluster="data")
        file = Path(config.file)
        file.write_text(file.read_text() + f"\narchive: {self.world_.home / 'archive'}\n")
        options = parse(history_command.command, ["colour", config.file])
        expected = {self.world_.home / place for place in ("archive/0", "archive/2", "data/0", "data/1", "data/2")}
        self.assertEqual(set(options.places) | {self.world_.home / "archive/2"}, expected)
        self.assertEqual(options.key, b"colour")
        elsewhere = configuration(self.world_.home, cluster="elsewhere")
        error = self.assertRaises(click.UsageError, parse, history_command.command, ["colour", elsewhere.file])
        self.assertIn("is on this machine", str(error))

    def test_times_must_be_times(self) -> None:
        words = ["colour", str(self.places[0]), "--from", "yesterday"]
        error = self.assertRaises(click.UsageError, parse, history_command.command, words)
        self.assertIn("--from takes a revision (1234), a time with its zone", str(error))


class RestoreAtTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.config = configuration(self.home)

    def restore(self, **changes: Any) -> ExitStatus:
        self.out, self.err = io.StringIO(), io.StringIO()
        options = restore_command.Options(self.places, self.config, self.config.ids, None, None, False)
        return restore_command.restore(reactor, evolve(options, **changes), self.out, self.err)

    def values(self, server_id: int) -> dict[bytes, bytes]:
        directory = self.config.storage_directory(server_id)
        assert directory is not None
        state = load(next((directory / "snapshots").iterdir()))
        self.assertEqual(len(state.machine.sessions), 0)
        self.assertGreater(state.machine.revision, JUMP)
        return {key: entry[0] for key, entry in state.application("kv").entries.items()}

    def test_state_in_the_middle_of_a_batch(self) -> None:
        """`pfsb restore --at` with a revision in the middle of a batch says which slot, revision and time that is, and
        that the slots that follow lead to the next snapshot."""
        revision = next(r for r in range(40, self.world_.revision) if self.world_.slots[r] == self.world_.slots[r + 5])
        self.assertIs(self.restore(at=Target(revision)), ExitStatus.OK, self.err.getvalue())
        for server_id in MEMBERS:
            self.assertEqual(self.values(server_id), self.world_.values[revision])
        said = self.out.getvalue()
        self.assertIn(
            f"the state in the middle of slot {self.world_.slots[revision]}, revision {revision}, at 20", said
        )
        self.assertIn("lead to the snapshot of slot ", said)

    def test_state_at_a_time_on_several_machines(self) -> None:
        """`pfsb restore --at` a time names the revision that it has found. With that revision, other machines make the
        same cluster."""
        seq = self.world_.seq // 2
        target = Target(time_ms=self.world_.time_of(seq))
        self.assertIs(self.restore(at=target, servers=(0,)), ExitStatus.OK)
        said = self.out.getvalue()
        revision = max(r for r in range(self.world_.revision) if self.world_.slots[r] <= seq)
        self.assertIn(f"pfsb restore --at {revision} FILE... CONFIG --id 1 --id 2 --cluster ", said)
        token = bytes.fromhex(said.partition("for --cluster: ")[2].split()[0])
        self.assertIs(
            self.restore(at=Target(revision), servers=(1, 2), token=token), ExitStatus.OK, self.err.getvalue()
        )
        for server_id in MEMBERS:
            self.assertEqual(self.values(server_id), self.world_.values[revision])
        wrong = self.restore(at=Target(revision + 1), servers=(1,), token=token)
        self.assertIs(wrong, ExitStatus.REFUSED)
        self.assertIn("is of another state", self.err.getvalue())

    def test_dry_run_makes_nothing(self) -> None:
        self.assertIs(self.restore(at=Target(7), dry_run=True), ExitStatus.OK)
        self.assertIn("nothing was done", self.out.getvalue())
        self.assertFalse(Path(self.config.storage).exists())

    def test_refusals_are_one_line(self) -> None:
        """Each refusal of `pfsb restore --at` is one line, and nothing is made."""
        for changes, why in (
            ({"at": Target(10**9)}, f"is {self.world_.revision}"),
            ({"at": Target(0)}, "no cluster was born yet"),
            ({"at": Target(7), "files": [self.home / "nothing"]}, "no directory that is there"),
            ({"at": Target(7), "files": [self.world_.home / "data" / "1"]}, "what is kept goes back to revision"),
            ({"at": Target(150), "files": [self.world_.home / "data" / "2"]}, "as ordered"),
        ):
            self.assertIs(self.restore(**changes), ExitStatus.REFUSED)
            self.assertIn(why, self.err.getvalue())
            self.assertEqual(self.err.getvalue().count("\n"), 1)
        self.assertFalse(Path(self.config.storage).exists())

    def test_command_line(self) -> None:
        """`pfsb restore` takes one backup without --at, and archives and data directories with --at."""
        archive, data = map(str, self.places)
        options = parse(restore_command.command, ["--at", "812", archive, data, self.config.file])
        self.assertEqual((options.files, options.at), (self.places, Target(812)))
        options = parse(restore_command.command, ["four.snapshot", self.config.file])
        self.assertEqual((options.files, options.at), ([Path("four.snapshot")], None))
        for words, why in (
            (["a.snapshot", "b.snapshot", self.config.file], "one backup is restored"),
            ([archive, self.config.file], "from archives and data directories --at restores"),
            (["--at", "2026-11-30", archive, self.config.file], "a time with its zone"),
            ([self.config.file], "FILE..."),
        ):
            error = self.assertRaises(click.UsageError, parse, restore_command.command, words)
            self.assertIn(why, error.format_message())


class ProgressTests(CommandCase):
    def test_line_is_shown_at_a_terminal_after_a_second(self) -> None:
        """The line that shows progress appears after a second, at a terminal only, and is removed at the end."""
        now = [0.0]
        terminal, file = Terminal(), io.StringIO()
        for stream in (terminal, file):
            now[0] = 0.0
            with Progress("slots read", stream, lambda: now[0]) as progress:
                progress(1, 9)
                self.assertEqual(stream.getvalue(), "")
                now[0] = 1.5
                progress(2, 9)
                progress(3, 9)
        self.assertEqual(terminal.getvalue(), "\r\x1b[K2 of 9 slots read\r\x1b[K")
        self.assertEqual(file.getvalue(), "")
