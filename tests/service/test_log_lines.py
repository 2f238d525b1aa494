"""The log has one line for each event that an operator needs, with time, level, server and view."""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pfsb.service.log_lines import LineObserver, level_of

TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d "


class LineTests(SynchronousTestCase):
    def lines(self, *events: dict[str, Any], about: tuple[int | None, int | None] = (2, 7), **given: Any) -> list[str]:
        """The lines for these events."""
        out = io.StringIO()
        observer = LineObserver(out, lambda: about, **given)
        for event in events:
            observer({"log_time": 1764460000.25, "log_level": LogLevel.info, "log_namespace": "pfsb.paxos", **event})
        return out.getvalue().splitlines()

    def test_line_has_time_level_server_and_view(self) -> None:
        """A line has time, level, server and view, and no path of a class."""
        (line,) = self.lines({"log_format": "leads view {view}", "view": 7})
        self.assertRegex(line, TIME + r"info \[server 2, view 7\] leads view 7$")
        (line,) = self.lines({"log_format": "early"}, about=(2, 0))
        self.assertRegex(line, TIME + r"info \[server 2\] early$")
        (line,) = self.lines({"log_format": "earlier"}, about=(None, None))
        self.assertRegex(line, TIME + r"info \[-\] earlier$")

    def test_works_of_twisted_are_left_out(self) -> None:
        """Events of Twisted, such as ports that start and the reactor, are left out, except with `--log-level debug`;
        its errors are always written."""
        works = (
            {"log_namespace": "log_legacy", "log_format": "ReceivingProtocol starting on 7400"},
            {"log_namespace": "twisted.scripts._twistd_unix.UnixAppLogger", "log_format": "Server Shut Down."},
        )
        self.assertEqual(self.lines(*works), [])
        self.assertEqual(len(self.lines(*works, least="debug")), 2)
        error = {**works[0], "log_level": LogLevel.critical}
        self.assertEqual(len(self.lines(error)), 1)
        self.assertIs(level_of(works[0]), LogLevel.debug)

    def test_level_bounds_what_is_written(self) -> None:
        """The chosen level bounds what is written: each level includes the levels above it."""
        names = ("debug", "info", "warn", "error", "critical")
        events = [{"log_level": LogLevel.levelWithName(name), "log_format": name} for name in names]
        for kept, name in enumerate(names):
            self.assertEqual([line.split()[1] for line in self.lines(*events, least=name)], list(names[kept:]))

    def test_failure_has_its_traceback_behind_the_text(self) -> None:
        """The traceback of a failure stands behind its text in indented lines, so that each event begins at the
        margin."""
        try:
            raise ValueError("two\nlines")
        except ValueError:
            failure = Failure()
        event = {"log_level": LogLevel.critical, "log_format": "this server stops itself", "log_failure": failure}
        first, *rest = self.lines(event)
        self.assertTrue(first.endswith("critical [server 2, view 7] this server stops itself"))
        self.assertTrue(all(line.startswith("\t") for line in rest))
        self.assertIn("ValueError: two", "".join(rest))
        (line,) = self.lines(event, format="json")
        self.assertIn("ValueError: two\nlines", json.loads(line)["traceback"])

    def test_json_has_the_same_as_fields(self) -> None:
        """With JSON each event is one object in a line, which has the same as fields."""
        (line,) = self.lines({"log_format": "says {text}", "text": "é\n"}, format="json")
        found = json.loads(line)
        self.assertRegex(found.pop("time"), r"^2025-\d\d-\d\dT\d\d:\d\d:\d\d\.250[+-]\d\d:\d\d$")
        self.assertEqual(found, {"level": "info", "server": 2, "view": 7, "text": "says é\n"})

    def test_events_of_loggers_are_taken(self) -> None:
        """Events of loggers, as the parts of a server use them, are written."""
        out = io.StringIO()
        Logger("pfsb.x", observer=LineObserver(out, lambda: (0, 1))).warn("the disk of {who} is slow", who="server 0")
        self.assertRegex(out.getvalue(), TIME + r"warn \[server 0, view 1\] the disk of server 0 is slow\n$")
