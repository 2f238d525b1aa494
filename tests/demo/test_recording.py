"""The files that a demo leaves behind: recorded terminal, merged traces, summary."""

from __future__ import annotations

import io
import json
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.demo.recording import Screen, merge_traces, summary
from pfsb.demo.trace import proposers
from pfsb.demo.verdict import Verdict


class Window(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class ScreenTests(SynchronousTestCase):
    def play(self, out: io.StringIO) -> list[list[object]]:
        clock, cast = Clock(), io.StringIO()
        clock.advance(1000)
        screen = Screen(cast, out, clock.seconds, "a title")
        clock.advance(1.5)
        screen.progress("10 of 20")
        clock.advance(0.5)
        screen.say("one\ntwo")
        header, *events = map(json.loads, cast.getvalue().splitlines())
        self.assertEqual((header["version"], header["timestamp"], header["title"]), (2, 1000, "a title"))
        return list(events)

    def test_cast_has_everything_with_seconds_from_the_start(self) -> None:
        """The format is asciicast version 2. A line end only moves a terminal down, so it needs a carriage return."""
        expected = [[1.5, "o", "\r10 of 20\x1b[K"], [2.0, "o", "\r\x1b[Kone\r\ntwo\r\n"]]
        self.assertEqual(self.play(io.StringIO()), expected)

    def test_person_at_a_terminal_sees_progress_and_a_file_only_what_stays(self) -> None:
        """Lines of progress are shown at a terminal, and left out of a file."""
        window, file = Window(), io.StringIO()
        self.play(window)
        self.play(file)
        self.assertEqual(window.getvalue(), "\r10 of 20\x1b[K\r\x1b[Kone\ntwo\n")
        self.assertEqual(file.getvalue(), "one\ntwo\n")


class TraceTests(SynchronousTestCase):
    def parts(self, *texts: str) -> list[Path]:
        directory = Path(self.mktemp())
        directory.mkdir()
        paths = [directory / f"trace-{number}" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    def test_traces_are_merged_by_time_without_the_half_line_of_a_killed_server(self) -> None:
        """Traces are merged by time, with times of different lengths compared as numbers; the half line of a killed
        server is left out."""
        one, ten, two = (f'{{"t":{t},"server":{s},"event":"start"}}\n' for t, s in ((1.5, 0), (10.25, 0), (2.0, 1)))
        parts = self.parts(one + ten, two + '{"t":3.0,"server":1,"ev')
        merged = parts[0].with_name("trace.jsonl")
        self.assertEqual(merge_traces(parts, merged), 3)
        self.assertEqual(merged.read_text(), one + two + ten)

    def test_proposers_are_the_servers_that_sent_a_proposal_for_that_number(self) -> None:
        """The proposers of a number are the servers that have sent a PROPOSAL of it; receivers do not count, nor do
        larger numbers that begin with the same digits."""

        def line(event: str, server: int, view: int, seq: int) -> str:
            message = {"type": "PROPOSAL", "server_id": server, "view": view, "seq": seq, "batch": {"bytes": 8}}
            return (
                json.dumps({"t": 1.0, "server": server, "event": event, "message": message}, separators=(",", ":"))
                + "\n"
            )

        parts = self.parts(
            line("send", 0, 1, 200) + line("receive", 0, 2, 20) + line("send", 0, 4, 20),
            line("send", 1, 2, 20) * 2 + line("send", 1, 2, 21),
        )
        self.assertEqual(proposers(parts, 20), [(2, 1), (4, 0)])
        self.assertEqual(proposers(parts, 2), [])


class SummaryTests(SynchronousTestCase):
    def test_summary_tells_what_happened_and_what_failed(self) -> None:
        """The summary has the figures, and its end says that a check has failed."""
        verdict = Verdict()
        verdict.check("no line is doubled", False, "1 doubled")
        verdict.figures["throughput"] = "5 lines a second"
        text = summary("hole: a title", [(1.25, "kill -9")], verdict, "")
        self.assertIn("# hole: a title\n", text)
        self.assertIn("*   1.25 s: kill -9\n", text)
        self.assertIn("* NO   no line is doubled: 1 doubled\n* throughput: 5 lines a second\n", text)
        self.assertIn("FAILED: 1 of the above.", text)

    def test_scenario_that_ended_early_has_failed_although_its_checks_hold(self) -> None:
        """A scenario that ended early has failed although its checks hold: later checks were never made."""
        verdict = Verdict()
        verdict.check("water is wet", True, "yes")
        self.assertIn("FAILED: 1", summary("t", [], verdict, "ClusterTrouble: no leader"))
        self.assertIn("All is as it should be.", summary("t", [], verdict, ""))
