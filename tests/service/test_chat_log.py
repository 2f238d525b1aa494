"""The file chat.log has the same bytes on every server (docs/internals/applications.rst)."""

from __future__ import annotations

import errno
import json
import resource
import signal
import threading
import time
from pathlib import Path
from threading import Event as ThreadEvent

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Event
from pfsb.service import chat_log
from pfsb.service.chat_log import BLOCK_BYTES, ChatLog, ChatLogWriter, line_of

SECONDS = 20.0


def said(index: int, text: str = "hello", client: str = "alice") -> Event:
    return Event("CHAT", (("index", index), ("client", client), ("text", text)))


class ChatLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "0" / "chat.log"

    def open(self) -> ChatLog:
        log = ChatLog(self.path)
        self.addCleanup(log.close)
        return log

    def write(self, *events: Event) -> None:
        log = ChatLog(self.path)
        for event in events:
            log.append(event)
        log.close()

    def test_line_has_index_client_and_text(self) -> None:
        """Client and text are JSON strings, so that a text never breaks its line."""
        self.write(said(1), said(2, 'two\nlines, "quoted" — é', "bob"))
        lines = self.path.read_text("utf-8").splitlines()
        self.assertEqual(lines[0], '1 "alice" "hello"')
        index, client, text = lines[1].split(" ", 2)
        self.assertEqual((index, json.loads(client), json.loads(text)), ("2", "bob", 'two\nlines, "quoted" — é'))

    def test_new_log_begins_with_the_first_line(self) -> None:
        """The directory is made if it is missing."""
        self.assertEqual(self.open().next_index, 1)

    def test_restart_goes_on_behind_the_last_line(self) -> None:
        """The bytes do not depend on how often the server is restarted."""
        for index in range(1, 6):
            self.assertEqual(self.open().next_index, index)
            self.write(said(index))
        self.assertEqual(self.path.read_bytes(), b"".join(line_of(said(i)) for i in range(1, 6)))

    def test_line_that_is_there_is_not_written_again(self) -> None:
        """After a restart the history is told anew."""
        self.write(said(1), said(2))
        self.write(said(1), said(2), said(3), said(3))
        self.assertEqual(self.path.read_bytes(), b"".join(line_of(said(i)) for i in (1, 2, 3)))

    def test_line_that_the_disk_does_not_take_leaves_no_half_of_it(self) -> None:
        """A full disk: what comes after a restart continues a log of whole lines."""
        self.write(said(1))
        log = self.open()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.path.stat().st_size + 5, limit[1]))
        try:
            self.assertRaises(OSError, log.append, said(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, ignored)
        self.assertEqual(self.path.read_bytes(), line_of(said(1)))
        self.assertEqual(self.open().next_index, 2)

    def test_line_behind_a_gap_is_not_written(self) -> None:
        """A log with a gap would not be the same bytes; it waits for what is missing."""
        self.write(said(1), said(3), said(2))
        self.assertEqual(self.path.read_bytes(), line_of(said(1)) + line_of(said(2)))

    def test_torn_line_is_cut_off(self) -> None:
        """A crash may leave any part of a line: it is written again, whole."""
        whole, torn = line_of(said(1, "é" * 5)), line_of(said(2, "€" * 5))
        for length in range(len(torn)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(whole + torn[:length])
            log = ChatLog(self.path)
            self.assertEqual(log.next_index, 2)
            log.append(said(2, "€" * 5))
            log.close()
            self.assertEqual(self.path.read_bytes(), whole + torn)

    def test_only_a_torn_line(self) -> None:
        """Without a single whole line the file is emptied."""
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(b'1 "al')
        self.assertEqual((self.open().next_index, self.path.read_bytes()), (1, b""))

    def test_long_log_is_read_in_blocks(self) -> None:
        """Lines that cross the border of a block are counted once; a torn one behind several blocks is cut off."""
        events = [said(i, "x" * 100_000) for i in range(1, 31)]
        self.write(*events)
        size = self.path.stat().st_size
        self.assertGreater(size, 2 * BLOCK_BYTES)
        with self.path.open("ab") as file:
            file.write(b'31 "alice" "' + b"y" * (BLOCK_BYTES + 5))
        self.assertEqual((self.open().next_index, self.path.stat().st_size), (31, size))

    def test_line_is_in_the_file_at_once(self) -> None:
        """A line can be read from the file at once, so a killed server loses none."""
        self.open().append(said(1))
        self.assertEqual(self.path.read_bytes(), line_of(said(1)))


class SlowChatLog(ChatLog):
    """A chat log whose disk does not answer while `open` is not set, and gives `error` once if that is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open = ThreadEvent()
        self.open.set()
        self.error: OSError | None = None
        self.tried = ThreadEvent()

    def append(self, event: Event) -> None:
        self.tried.set()
        self.open.wait(SECONDS)
        if self.error is not None:
            raise self.error
        super().append(event)


class ChatLogWriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "chat.log"
        self.patch(chat_log, "FULL_SECONDS", 0.01)
        self.log = SlowChatLog(self.path)
        self.writer = ChatLogWriter(self.log)
        self.addCleanup(self.log.close)

    def test_disk_that_hangs_keeps_no_caller_waiting(self) -> None:
        """The lines are in the file when the disk answers."""
        self.log.open.clear()
        self.writer.append(said(1))
        self.writer.append(said(2))
        self.assertTrue(self.log.tried.wait(SECONDS))
        self.assertEqual(self.path.read_bytes(), b"")
        self.log.open.set()
        self.assertTrue(self.writer.close())
        self.assertEqual(self.path.read_bytes(), line_of(said(1)) + line_of(said(2)))

    def test_long_file_that_is_made_anew_needs_little_memory(self) -> None:
        """The caller waits for the disk when many lines wait."""
        self.patch(chat_log, "LINES_WAITING_MAX", 3)
        self.writer = ChatLogWriter(self.log)
        self.log.open.clear()
        for index in (1, 2, 3):
            self.writer.append(said(index))
        threading.Timer(0.2, self.log.open.set).start()
        self.writer.append(said(4))
        self.assertTrue(self.log.open.is_set())
        self.assertTrue(self.writer.close())
        self.assertEqual(self.path.read_bytes(), b"".join(line_of(said(i)) for i in (1, 2, 3, 4)))

    def test_end_does_not_wait_long_for_a_disk_that_hangs(self) -> None:
        """The lines that are lost are written at the next start."""
        self.patch(chat_log, "CLOSE_SECONDS", 0.05)
        self.log.open.clear()
        self.writer.append(said(1))
        self.assertFalse(self.writer.close())
        self.log.open.set()
        self.assertTrue(self.writer.close())

    def test_line_for_which_there_is_no_room_is_written_when_there_is(self) -> None:
        """A server whose disk was full goes on by itself, and so does this file."""
        self.log.error = OSError(errno.ENOSPC, "the disk is full")
        self.writer.append(said(1))
        self.writer.append(said(2))
        self.assertTrue(self.log.tried.wait(SECONDS))
        self.log.error = None
        deadline = time.monotonic() + SECONDS
        while len(self.path.read_bytes().splitlines()) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        self.assertEqual(self.path.read_bytes(), line_of(said(1)) + line_of(said(2)))
        self.assertTrue(self.writer.close())

    def test_end_does_not_wait_for_room(self) -> None:
        """A full disk may stay full."""
        self.log.error = OSError(errno.ENOSPC, "the disk is full")
        self.writer.append(said(1))
        self.assertTrue(self.writer.close())

    def test_other_errors_end_the_file(self) -> None:
        """A line behind a gap must not be written; the operator is told."""
        self.log.error = OSError(errno.EIO, "input/output error")
        self.writer.append(said(1))
        self.writer.append(said(2))
        self.assertTrue(self.writer.close())
        self.assertEqual(self.path.read_bytes(), b"")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_file_is_put_aside_with_all_lines(self) -> None:
        """The chat has ended; its lines are in the file that gets another name."""
        self.writer.append(said(1))
        self.writer.put_aside()
        self.assertEqual(self.path.with_name("chat.log.1").read_bytes(), line_of(said(1)))
