"""The comparison: programs that peers need, and pfsb measured as one of the systems."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.compare import family
from benchmarks.compare.__main__ import SYSTEMS, arguments
from benchmarks.compare.nats import Nats
from benchmarks.compare.ours import Pfsb
from benchmarks.compare.postgresql import PostgreSQL
from benchmarks.compare.results import rate_cell
from benchmarks.compare.rows import rows
from benchmarks.compare.run import Comparison
from benchmarks.compare.system import Choices, Load, Missing, System, Trouble, Write, wait_for
from benchmarks.compare.tools import built, install, program
from benchmarks.compare.trouble import seconds_to_catch_up, seconds_without_leader, settle
from pfsb.bench.client import LoadResult
from tests.long import long


class ToolTests(SynchronousTestCase):
    def test_error_of_a_missing_program_names_its_package(self) -> None:
        """The error for a missing program names the package that has it, so that a user can install it."""
        self.assertIn(
            "apt-get install nothing-such", str(self.assertRaises(Missing, program, "no-such", "nothing-such"))
        )

    def test_failed_build_leaves_nothing_that_looks_built(self) -> None:
        """A build that has failed leaves nothing that looks like a complete build, so the next run builds again; a
        complete build is not repeated."""
        source = Path(self.mktemp())
        source.write_text("text")
        with patch.dict(os.environ, {"XDG_CACHE_HOME": str(Path(self.mktemp()).resolve())}):
            for _ in range(2):
                error = self.assertRaises(Missing, built, [source], "x", ["sh", "-c", "echo broken >&2; exit 3"])
                self.assertIn("broken", str(error))
            first = built([source], "x", ["cp", str(source), "{out}/made"])
            self.assertEqual((first / "made").read_text(), "text")
            self.assertEqual(built([source], "x", ["cp", str(source), "{out}/made"]), first)

    def test_only_root_installs_and_others_are_told_the_command(self) -> None:
        """Only root installs packages; other users are told the command. For a package that is installed already
        nothing is needed."""
        if shutil.which("dpkg-query") is None:
            self.skipTest("this is no Debian")
        with patch.object(os, "geteuid", return_value=1000):
            error = self.assertRaises(Missing, install, ["dpkg", "no-such-package"])
            self.assertIn("Debian: apt-get install --yes --no-install-recommends no-such-package)", str(error))
            install(["dpkg"])


class ChoiceTests(SynchronousTestCase):
    def test_systems_are_chosen_by_name(self) -> None:
        """Systems keep the order of the tables; the error for an unknown name has the known ones."""
        self.assertEqual(arguments(["--systems", "nats,pfsb"]).systems, [Pfsb, Nats])
        self.assertEqual(arguments([]).systems, list(SYSTEMS.values()))
        said = StringIO()
        with redirect_stderr(said):
            self.assertRaises(SystemExit, arguments, ["--systems", "pfsb,redis"])
        self.assertIn("no system is named redis; known are pfsb, etcd", said.getvalue())


class Sleepers(System):
    """Servers that consist of two processes each, of which the second is in a session of its own."""

    name = "sleepers"
    writes = 0
    leaders = iter(())

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        return "0"

    def configure(self) -> None:
        """Do nothing: sleepers need no files."""

    def command(self, server: int) -> tuple[list[str], dict[str, str]]:
        return ["sh", "-c", "setsid sleep 300 & exec sleep 300"], {}

    def leader(self) -> int | None:
        return next(self.leaders, 0)

    def load(self, load: Load) -> LoadResult | None:
        return self.run_client(["sh", "-c", "echo begin; exec sleep 300"], load)

    def open_writer(self, server: int) -> Write:
        def write() -> None:
            self.writes += 1

        return write

    def position(self, server: int) -> object | None:
        return None

    def members(self) -> list[int]:
        return [member for pid in self.pids() for member in family.members(pid)]


def has_ended(pid: int) -> bool:
    """True if there is no such process, or only its exit status."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def command_of(pid: int) -> str:
    """The name of the program that a process runs."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


@long
class ProcessTests(SynchronousTestCase):
    """Tests with real processes, which are ended whether the test succeeds or not."""

    timeout = 60

    def setUp(self) -> None:
        self.system = Sleepers(Path(self.mktemp()).resolve(), 2)
        self.addCleanup(self.system.stop)
        self.system.start()
        wait_for("both processes of each server", lambda: len(self.system.members()) == 4, 10)

    def test_pause_stops_all_processes_of_all_servers(self) -> None:
        """A pause stops all processes of all servers, and all go on when the cluster is resumed."""
        members = self.system.members()
        self.system.pause()
        wait_for("all to be stopped", lambda: all(map(family.is_stopped, members)), 10)
        self.system.resume()
        wait_for("all to go on", lambda: not any(map(family.is_stopped, members)), 10)

    def test_resumed_cluster_has_one_leader_for_a_while_and_writes(self) -> None:
        """`resume` waits until the cluster has had one leader for a while. Meanwhile clients write, since that may
        bring servers back."""
        self.system.pause()
        self.system.leaders = iter([1, 1, None, None, 0])
        self.system.resume()
        self.assertEqual(self.system.writes, 3)

    def test_cluster_that_never_calms_down_is_trouble_with_its_last_words(self) -> None:
        """A cluster that does not come to rest is reported as trouble, with the leaders that were seen last."""
        self.system.leaders = iter(lambda: None, 0)
        with patch("benchmarks.compare.system.UP_SECONDS", 0.3):
            error = self.assertRaises(Trouble, self.system.resume)
        self.assertIn("seen at last: [None, None, None, None, None]; without a word", str(error))

    def test_stop_ends_paused_processes_too(self) -> None:
        """The end of a system ends paused processes, too: no process of a server is left, whatever session it is in."""
        members = self.system.members()
        self.system.pause()
        self.system.stop()
        wait_for("the end of all", lambda: all(map(has_ended, members)), 10)

    def test_kill_ends_all_processes_of_one_server(self) -> None:
        """`kill` ends all processes of one server, and the processes of another server go on."""
        first, second = (family.members(pid) for pid in self.system.pids())
        self.system.kill(0)
        wait_for("the end of the first server", lambda: all(map(has_ended, first)), 10)
        self.assertFalse(any(map(has_ended, second)))

    def test_load_client_that_does_not_end_is_killed(self) -> None:
        """A load client that does not end in time is killed; the error says after which time."""
        with patch("benchmarks.compare.system.CLIENT_SECONDS", 0.2):
            error = self.assertRaises(Trouble, self.system.load, Load("put", seconds=0.1, warmup=0.1))
        self.assertIn("(it is killed after 0.4 s)", str(error))

    def test_servers_end_with_a_comparison_that_is_killed(self) -> None:
        """Servers are ended by the kernel when the comparison that has started them is killed."""
        if shutil.which("setpriv") is None:
            self.skipTest("there is no setpriv")
        program = (
            "import pathlib, sys, time; from tests.benchmarks.test_systems import Sleepers;"
            "system = Sleepers(pathlib.Path(sys.argv[1]), 2); system.start();"
            "print(*system.pids(), flush=True); time.sleep(60)"
        )
        command = [sys.executable, "-c", program, str(Path(self.mktemp()).resolve())]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as comparison:
            assert comparison.stdout is not None
            pids = [int(word) for word in comparison.stdout.readline().split()]
            # Each server process begins as a copy of the comparison; it becomes setpriv, which asks for the signal at
            # the parent's death, then the shell, then the server.
            wait_for("the servers", lambda: all(command_of(pid) == "sleep" for pid in pids), 10)
            comparison.kill()
        self.assertEqual(len(pids), 2)
        wait_for("the end of the servers", lambda: all(map(has_ended, pids)), 10)

    def test_cpu_time_counts_all_processes(self) -> None:
        """The CPU time of a system counts all its processes, children that have ended included."""
        busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
        with subprocess.Popen(["sh", "-c", f"sh -c '{busy}'; echo; sleep 60"], stdout=subprocess.PIPE) as process:
            self.addCleanup(process.send_signal, signal.SIGKILL)
            assert process.stdout is not None
            process.stdout.readline()
            self.assertGreater(family.cpu_seconds(process.pid), 0.05)
            family.kill(process.pid)
        self.assertEqual(family.cpu_seconds(process.pid), 0.0)


class PeerTests(SynchronousTestCase):
    timeout = 120

    def test_nats_forces_each_write_to_disk(self) -> None:
        """The configuration of NATS has it force each write to disk: by default it acknowledges writes that are in
        memory only."""
        system = Nats(Path(self.mktemp()).resolve(), 3)
        system.directory.mkdir()
        system.configure()
        for server in range(3):
            settings = json.loads((system.directory / f"nats-{server}.conf").read_text())
            self.assertEqual(settings["jetstream"]["sync_interval"], "always")
            self.assertEqual(len(settings["cluster"]["routes"]), 2)

    def test_nats_has_at_most_five_servers(self) -> None:
        """A cluster of NATS has at most five servers, since a stream has at most five replicas."""
        self.assertIn("at most 5", str(self.assertRaises(Missing, Nats.prepare, Choices(servers=7))))

    @long
    def test_postgresql_commits_on_a_majority_and_survives_pauses(self) -> None:
        """PostgreSQL commits with one standby of two, and with none it does not. It runs as another user than root."""
        try:
            PostgreSQL.prepare(Choices())
        except Missing as error:
            self.skipTest(str(error))
        system = PostgreSQL(Path(self.mktemp()).resolve(), 3)
        system.directory.parent.chmod(0o711)  # PostgreSQL may run as another user than this test
        self.addCleanup(system.stop)
        try:
            system.start()
        except Trouble as error:
            if "may not enter" in str(error):
                self.skipTest(str(error))
            raise
        system.pause()
        system.resume()
        found = system.load(Load("put", 4, 1, seconds=0.3, warmup=0.1))
        assert found is not None
        self.assertGreater(rate_cell(found)["cpu_us"], 1)
        self.assertEqual(found.errors, 0)
        self.assertGreater(seconds_to_catch_up(system, 100), 0)
        system.kill(1)
        system.write_once(0)
        system.kill(2)
        with self.assertRaises(TimeoutError):
            system.open_writer(0)()


@long
class PfsbTests(SynchronousTestCase):
    """Tests with real servers, which are ended whether the test succeeds or not."""

    timeout = 120

    def test_servers_are_loaded_killed_and_stopped(self) -> None:
        """The comparison starts, loads, kills and stops servers of pfsb as it does those of every other system."""
        Pfsb.prepare(Choices())
        system = Pfsb(Path(self.mktemp()).resolve(), 3)
        self.addCleanup(system.stop)
        system.start()
        found = system.load(Load("put", 4, 2, seconds=0.3, warmup=0.1))
        assert found is not None
        self.assertGreater(rate_cell(found)["cpu_us"], 1)
        self.assertGreater(system.memory(), 1_000_000)
        self.assertTrue(0 < seconds_without_leader(system) < 15)
        settle(system)
        system.stop()
        self.assertEqual(system.running(), [])

    def test_failure_of_one_system_is_noted_and_ends_no_run(self) -> None:
        """A failure of one system is noted and does not end the run: its servers and files are removed, and the results
        are saved."""

        class Broken(Pfsb):
            name = "broken"

            def load(self, load: Load) -> None:
                raise OSError("no load today")

        saved: list[int] = []
        said: list[str] = []
        scratch = Path(self.mktemp()).resolve()
        scratch.mkdir()
        comparison = Comparison([Broken], rows("1x1"), 1, 0.1, 1, 1.0, scratch, lambda: saved.append(1), said.append)
        comparison.run(1)
        self.assertEqual(comparison.results.rounds, [{"broken": {"trouble in 1x1": {"trouble": "no load today"}}}])
        self.assertEqual((list(scratch.iterdir()), saved), ([], [1]))
        self.assertIn("no load today", said[-1])
