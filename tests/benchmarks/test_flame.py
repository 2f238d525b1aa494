"""Sampled stacks: the shares of the program's parts, and the drawing."""

from __future__ import annotations

from unittest.mock import patch
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.flame import __main__ as program
from benchmarks.flame.drawing import WIDTH, svg
from benchmarks.flame.stacks import WAITS, busy, busy_cores, parse, part_of, shares, tree

BOTTOM = "thread (7): MainThread;<module> (twistd);mainLoop (twisted/internet/base.py)"
POLL = "EPollReactor.doPoll (twisted/internet/epollreactor.py)"
RAW = f"""
{BOTTOM};{POLL} 40
{BOTTOM};{POLL};run (pfsb/paxos/turn.py) 30
{BOTTOM};{POLL};run (pfsb/paxos/turn.py);dumps (json/encoder.py) 10
{BOTTOM};runUntilCurrent (twisted/internet/base.py) 20
thread (8): pfsb storage writer;run (threading.py);GroupWriter._write_waiting (pfsb/storage/threads.py) 75
thread (8): pfsb storage writer;run (threading.py);write (pfsb/storage/database.py) 25
"""
NAME = "{http://www.w3.org/2000/svg}"


class StackTests(SynchronousTestCase):
    def test_waiting_threads_are_left_out(self) -> None:
        """Samples of a thread that waits for events, or for something to write, are left out: it keeps no core busy."""
        stacks = parse(RAW)
        self.assertEqual(sum(count for _, count in busy(stacks)), 85)
        self.assertTrue(all(frames[-1] not in WAITS for frames, _ in busy(stacks)))
        self.assertEqual(busy_cores(stacks), 0.85)

    def test_library_code_counts_for_the_part_that_called_it(self) -> None:
        """Samples in library code count for the part of the program that has called it: the JSON that the protocol asks
        for counts for the protocol."""
        self.assertEqual(shares(busy(parse(RAW))), {"protocol": 40 / 85, "storage": 25 / 85, "Twisted": 20 / 85})

    def test_part_is_known_by_the_file_wherever_it_is_installed(self) -> None:
        """An installed pfsb counts as pfsb; a package inside of which a directory is named pfsb does not."""
        self.assertEqual(part_of("f (/usr/lib/python3/site-packages/pfsb/sessions/local_clients.py)"), "sessions")
        self.assertEqual(part_of("f (pfsb/support/histogram.py)"), "rest of pfsb")
        self.assertEqual(part_of("f (other/pfsb/sessions/local_clients.py)"), "Python")

    def test_bottom_that_all_stacks_share_is_left_out(self) -> None:
        """The frames that all stacks of a thread share at the bottom, such as those from twistd to the reactor's loop,
        are left out."""
        threads = tree(busy(parse(RAW))).callees
        self.assertEqual(set(threads["MainThread"].callees), {POLL, "runUntilCurrent (twisted/internet/base.py)"})
        self.assertEqual(threads["MainThread"].samples, 60)
        self.assertEqual(set(threads["pfsb storage writer"].callees), {"write (pfsb/storage/database.py)"})


class DrawingTests(SynchronousTestCase):
    def test_frames_are_as_wide_as_their_samples_and_stand_below_their_caller(self) -> None:
        """Each frame has its name and share as a title, which browsers show under the pointer."""
        document = ElementTree.fromstring(svg(tree(busy(parse(RAW))), "a < b"))
        frames = {
            group.find(f"{NAME}title").text: group.find(f"{NAME}rect").attrib for group in document.iter(f"{NAME}g")
        }  # type: ignore[union-attr]
        thread, turn = frames["MainThread: 70.6 %"], frames["run (pfsb/paxos/turn.py): 47.1 %"]
        self.assertApproximates(float(thread["width"]), WIDTH * 60 / 85, 1)
        self.assertApproximates(float(turn["width"]), WIDTH * 40 / 85, 1)
        self.assertGreater(int(turn["y"]), int(thread["y"]))
        self.assertEqual(turn["x"], thread["x"])


class ProgramTests(SynchronousTestCase):
    def test_missing_py_spy_is_reported(self) -> None:
        """If py-spy is missing, the error says how to install it."""
        with patch.object(program.sys, "executable", "/nowhere/python"), patch.dict("os.environ", {"PATH": ""}):
            self.assertIn("pip install py-spy", str(self.assertRaises(program.NoSpy, program.py_spy)))

    def test_table_has_a_column_for_each_load(self) -> None:
        """The table has a column for each load. The parts are sorted by weight; the last row has the number of busy
        cores."""
        rows = program.share_table({"1 x 1": parse(RAW), "8 x 32": parse(RAW)})
        self.assertEqual(rows[0], ["", "1 x 1", "8 x 32"])
        self.assertEqual(rows[1], ["protocol", "47 %", "47 %"])
        self.assertEqual(rows[-1], ["cores kept busy", "0.85", "0.85"])
