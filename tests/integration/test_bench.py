"""`pfsb bench` on real servers, with both of its load clients."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pfsb.bench.client import compiler
from tests.long import long

CONFIG = str(Path(__file__).parents[2] / "etc" / "three.yaml")
PROGRAM = "from pfsb.cli import main; main()"


@long
class BenchTests(TestCase):
    timeout = 120

    async def bench(self, *arguments: str) -> tuple[dict[str, Any], str]:
        """Run `pfsb bench`. Returns the JSON that it has written, and its standard output."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "storage").mkdir()
        file, plot = directory / "found.json", directory / "found.svg"
        files = ["--json", str(file), "--plot", str(plot), "--directory", str(directory / "storage")]
        command = ["-c", PROGRAM, "bench", CONFIG, "--start", "--seconds", "0.4", "--warmup", "0.1", *files, *arguments]
        out, err, status = await getProcessOutputAndValue(sys.executable, command, env=None, reactor=reactor)
        self.assertEqual(status, 0, err.decode())
        self.assertIn("<svg", plot.read_text())
        self.assertEqual(list((directory / "storage").iterdir()), [], "the servers' storage is thrown away")
        return json.loads(file.read_text()), out.decode()

    def assertMeasured(self, measured: dict[str, Any], client: str) -> None:
        """Assert that all figures about servers of this machine are there, and agree with each other."""
        self.assertEqual((measured["client"], measured["errors"]), (client, 0), measured["first_error"])
        self.assertGreater(measured["operations"], 10)
        self.assertGreater(measured["server_cpu_us"], 1)
        self.assertGreater(measured["disk_writes_per_second"], 1)
        # A slot without an update may be ordered because time must pass (Departure 29): one among some hundred with
        # updates.
        for ratio in ("commands_per_proposal", "updates_per_proposal", "commands_per_update"):
            self.assertGreaterEqual(measured[ratio], 0.97, ratio)
        self.assertGreater(measured["bytes_per_proposal"], 100)
        self.assertTrue(0 < measured["p50_us"] <= measured["p99_us"] <= measured["p999_us"])
        self.assertTrue(0.3 < measured["seconds"] < 5)

    async def test_both_load_clients_measure_the_same_things(self) -> None:
        """Both load clients, the one in C and the one in Python, measure reads and writes."""
        if compiler() is None:
            raise SkipTest("there is no C compiler here")
        mix = ["--mix", "put=3,get=1", "--keys", "100", "--connections", "2", "--depth", "4"]
        in_c, printed = await self.bench("--client", "c", *mix)
        in_python, _ = await self.bench("--client", "python", *mix)
        self.assertIn("writes/proposal", printed)
        self.assertMeasured(in_c["measurements"][0], "c")
        self.assertMeasured(in_python["measurements"][0], "python")
        self.assertEqual(set(in_c["measurements"][0]), set(in_python["measurements"][0]))

    async def test_open_loop_begins_what_is_due_and_misses_what_has_no_room(self) -> None:
        """In an open loop both clients begin all requests that are due, as far as there is room, however slow the
        servers are."""
        if compiler() is None:
            raise SkipTest("there is no C compiler here")
        for client in ("c", "python"):
            found, _ = await self.bench("--client", client, "-c", "2", "-d", "4", "--rate", "100,1000000")
            slow, flood = found["measurements"]
            self.assertEqual((slow["errors"], slow["missed"], flood["errors"]), (0, 0, 0))
            self.assertApproximates(slow["per_second"], 100, 20)
            self.assertApproximates(flood["missed"] + flood["operations"], 1_000_000 * flood["seconds"], 300_000)
            self.assertGreater(flood["operations"], slow["operations"])

    async def test_locks_are_measured_in_pairs(self) -> None:
        """Three clients that share one lock take it in turn: none waits for ever, and no answer is an error."""
        found, _ = await self.bench("--mix", "lockone", "--depth", "1", "--connections", "1,3")
        for measured in found["measurements"]:
            self.assertEqual(measured["errors"], 0, measured["first_error"])
            self.assertGreater(measured["operations"], 3)

    async def test_cluster_that_does_not_run_is_one_clear_line(self) -> None:
        """A cluster that does not run is reported by one line, without a traceback."""
        file = Path(self.mktemp())
        file.write_text('cluster: x\nservers: {0: {peer: "127.0.0.1:21", client: "tcp:22:interface=127.0.0.1"}}\n')
        command = ["-c", PROGRAM, "bench", str(file), "--client", "python"]
        _out, err, status = await getProcessOutputAndValue(sys.executable, command, env=None, reactor=reactor)
        self.assertEqual(status, 1)
        self.assertEqual(len(err.decode().splitlines()), 1)
        self.assertIn("is the cluster started?", err.decode())


@long
class InterruptTests(SynchronousTestCase):
    timeout = 60

    def test_interrupted_run_leaves_neither_servers_nor_storage(self) -> None:
        """Ctrl-C during a measurement ends with one line and exit status 1, and leaves nothing to clean up."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        arguments = ["bench", CONFIG, "--start", "--seconds", "50", "--directory", str(directory)]
        command = [sys.executable, "-c", PROGRAM, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            self.addCleanup(running.kill)
            assert running.stderr is not None
            self.assertEqual(running.stderr.readline(), "8 x 8 ...\n")
            running.send_signal(signal.SIGINT)
            _out, err = running.communicate(timeout=30)
        self.assertEqual((running.returncode, err), (1, "pfsb bench: interrupted\n"))
        self.assertEqual(list(directory.iterdir()), [])
        left = [pid for pid in Path("/proc").glob("[0-9]*") if str(directory).encode() in _command_line(pid)]
        self.assertEqual(left, [])


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes() + bytes((process / "cwd").readlink())
    except OSError:
        return b""  # the process has just ended, or belongs to another user
