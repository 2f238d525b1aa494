"""The text log on a disk that hangs stops no server (Departure 44)."""

from __future__ import annotations

import signal
from pathlib import Path
from threading import Event
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.service.log_signals import LogSignals
from pfsb.service.text_log import CHARACTERS_WAITING_MAX, ProcessLog, TextLog, open_text_log

SECONDS = 20.0


class SlowFile:
    """A file whose writes wait while `open` is not set, and fail while `error` is set."""

    def __init__(self) -> None:
        self.open = Event()
        self.open.set()
        self.arrived = Event()
        self.error: Exception | None = None
        self.texts: list[str] = []

    def write(self, text: str) -> None:
        self.arrived.set()
        self.open.wait(SECONDS)
        if self.error is not None:
            raise self.error
        self.texts.append(text)

    def flush(self) -> None:
        pass


class TextLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = SlowFile()
        self.log = TextLog(self.file)
        self.addCleanup(self.log.finish, SECONDS)
        self.addCleanup(self.file.open.set)

    def hang(self) -> None:
        """Begin a write of the log that does not end."""
        self.log.begin()
        self.file.open.clear()
        self.log.write("first\n")
        self.assertTrue(self.file.arrived.wait(SECONDS))

    def go_on(self) -> list[str]:
        self.file.open.set()
        self.assertTrue(self.log.finish(SECONDS))
        return self.file.texts

    def test_disk_that_hangs_keeps_no_caller_waiting(self) -> None:
        """A disk that hangs makes no caller of the log wait; the lines are written in their order when the disk
        answers."""
        self.hang()
        self.log.write("second\n")
        self.log.write("third\n")
        self.assertEqual(self.file.texts, [])
        self.assertEqual(self.go_on(), ["first\n", "second\n", "third\n"])

    def test_before_the_beginning_lines_are_written_at_once(self) -> None:
        """Before the thread of the log begins, lines are written at once: a thread would not live through the fork by
        which twistd goes into the background."""
        self.log.write("first\n")
        self.assertEqual(self.file.texts, ["first\n"])

    def test_memory_is_bounded_and_what_is_left_out_is_counted(self) -> None:
        """The lines that wait for a disk that hangs, for days perhaps, are bounded in memory, and those that are left
        out are counted."""
        self.hang()
        self.log.write("x" * CHARACTERS_WAITING_MAX)
        self.log.write("lost\n")
        self.log.write("lost, too\n")
        self.file.open.set()
        self.assertTrue(self.log.finish(SECONDS))
        self.log.write("last\n")
        texts = self.go_on()
        self.assertEqual(texts[-1].splitlines()[-1], "last")
        self.assertIn("2 lines are left out here", texts[-1])
        self.assertNotIn("lost", "".join(texts))

    def test_end_does_not_wait_for_a_disk_that_hangs(self) -> None:
        """The end of the log does not wait for a disk that hangs: the caller is told, and ends the process at once."""
        self.hang()
        self.assertFalse(self.log.finish(0.05))

    def test_disk_that_is_full_stops_nothing(self) -> None:
        """A full disk stops nothing: the line is counted among those that are left out."""
        self.log.begin()
        self.file.error = OSError("no space left")
        self.log.write("first\n")
        self.assertTrue(self.log.finish(SECONDS))
        self.file.error = None
        self.log.write("second\n")
        self.assertIn("1 lines are left out here", self.go_on()[0])


class OpenTests(SynchronousTestCase):
    def open(self, **options: Any) -> TextLog | None:
        return open_text_log(options)

    def process_log(self, **options: Any) -> tuple[ProcessLog, list[str]]:
        """A process log that follows the signals, and what is said of its terminal."""
        for number in (signal.SIGHUP, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        told: list[str] = []
        log, signals = ProcessLog(options), LogSignals()
        signals.take()
        signals.hung_up = lambda: told.append("hung up")
        log.log = open_text_log(options)
        log.follow_signals(signals)
        return log, told

    def test_rotation_keeps_the_order(self) -> None:
        """Text from before a rotation is written into the old file, also by the thread."""
        path = Path(self.mktemp())
        log = self.open(logfile=str(path))
        assert log is not None
        log.begin()
        log.write("first\n")
        log.rotate()
        log.write("second\n")
        self.assertTrue(log.finish(SECONDS))
        self.assertEqual((path.with_name(f"{path.name}.1").read_text(), path.read_text()), ("first\n", "second\n"))

    def test_signals_begin_a_new_file_when_the_log_was_moved(self) -> None:
        """SIGHUP and SIGUSR1, which programs that rotate logs send, begin a new file when the log was moved."""
        for number in (signal.SIGHUP, signal.SIGUSR1):
            path = Path(self.mktemp())
            log, told = self.process_log(logfile=str(path))
            assert log.log is not None
            log.log.write("old\n")
            path.rename(moved := path.with_name(f"{path.name}.moved"))
            signal.raise_signal(number)
            log.log.write("new\n")
            self.assertEqual((moved.read_text(), path.read_text(), told), ("old\n", "new\n", []))

    def test_sighup_alone_has_the_tokens_read_again(self) -> None:
        """SIGHUP has the tokens read again; SIGUSR1 concerns the log only."""
        log, told = self.process_log(nodaemon=1)
        log.on_hangup = lambda: told.append("read again")
        signal.raise_signal(signal.SIGUSR1)
        self.assertEqual(told, [])
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(told, ["read again"])

    def test_sigusr1_alone_renames_the_file(self) -> None:
        """SIGUSR1 renames the file of the log, as with the log that twistd opens itself; after SIGHUP the log goes on
        in the same file."""
        path = Path(self.mktemp())
        log, _ = self.process_log(logfile=str(path))
        assert log.log is not None
        log.log.write("old\n")
        signal.raise_signal(signal.SIGHUP)
        log.log.write("same\n")
        signal.raise_signal(signal.SIGUSR1)
        log.log.write("new\n")
        self.assertEqual((path.with_name(f"{path.name}.1").read_text(), path.read_text()), ("old\nsame\n", "new\n"))

    def test_log_goes_on_where_no_file_can_be_made(self) -> None:
        """If no file can be made, since the directory of the log was moved, too, the log goes on in the old file."""
        directory = Path(self.mktemp())
        directory.mkdir()
        log, _ = self.process_log(logfile=str(directory / "log"))
        assert log.log is not None
        directory.rename(moved := Path(self.mktemp()))
        signal.raise_signal(signal.SIGHUP)
        log.log.write("line\n")
        self.assertEqual((moved / "log").read_text(), "line\n")

    def test_signals_end_no_process_whose_log_is_no_file(self) -> None:
        """Where the log goes to the terminal, SIGHUP and SIGUSR1 do not end the process, and nothing is reopened."""
        _, told = self.process_log(nodaemon=1)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR1)
        self.assertEqual(told, [])

    def test_logs_of_other_kinds_are_left_to_twistd(self) -> None:
        """Logs of other kinds are left to twistd: syslog, and a daemon's standard output, which twistd refuses."""
        self.assertIsNone(self.open(syslog=1))
        self.assertIsNone(self.open(syslog=1, nodaemon=1))
        self.assertIsNone(self.open(logfile="-"))
        self.assertIsNotNone(self.open(logfile="-", nodaemon=1))
        self.assertIsNotNone(self.open(nodaemon=1))
