"""The file chat.log has the same bytes on every server (docs/internals/applications.rst)."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pfsb.applications.interfaces import Event
from pfsb.service import chat_log
from pfsb.service.chat_log import ChatLog, ChatLogWriter, line_of

reactor: Any = _reactor
SECONDS = 20.0


def said(index: int, text: str = "hello", client: str = "alice") -> Event:
    return Event("CHAT", (("index", index), ("client", client), ("text", text)))


def lines(*numbers: int) -> bytes:
    return b"".join(line_of(said(number)) for number in numbers)


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
            log.take([event])
        log.close()

    def found(self, content: bytes) -> None:
        """Let the file have this content before the server starts."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)

    def test_line_has_index_client_and_text(self) -> None:
        """A line of chat.log has index, client and text, the last two as JSON strings, so that a text never breaks its
        line."""
        self.write(said(1), said(2, 'two\nlines, "quoted" — é', "bob"))
        written = self.path.read_text("utf-8").splitlines()
        self.assertEqual(written[0], '1 "alice" "hello"')
        index, client, text = written[1].split(" ", 2)
        self.assertEqual((index, json.loads(client), json.loads(text)), ("2", "bob", 'two\nlines, "quoted" — é'))

    def test_restart_goes_on_behind_the_last_line(self) -> None:
        """After a restart the file goes on behind its last line, so that its bytes do not depend on how often the
        server is restarted."""
        for index in range(1, 6):
            log = self.open()
            log.take([said(i) for i in range(1, index)])
            self.assertEqual(log.next_index, index)
            log.take([said(index)])
            log.close()
        self.assertEqual(self.path.read_bytes(), lines(1, 2, 3, 4, 5))

    def test_right_file_is_not_written(self) -> None:
        """A file that is right is not written at a restart, so that a program that follows it sees no change."""
        self.write(said(1), said(2))
        before = self.path.stat()
        log = self.open()
        log.take([said(1), said(2)])
        log.end_at(2)
        after = self.path.stat()
        self.assertEqual((after.st_mtime_ns, after.st_ino, after.st_size), (before.st_mtime_ns, before.st_ino, 36))

    def test_any_damage_is_made_right_from_the_state(self) -> None:
        """A file that was torn, emptied, filled with zeros or edited by hand is written anew from the state, with the
        same bytes as at every other server."""
        right = lines(1, 2, 3)
        middle = len(lines(1))
        for damaged in (
            b"",
            right[:5],
            right[:-1],
            right[: middle + 3],
            right[:middle] + bytes(middle) + right[2 * middle :],
            bytes(len(right)),
            right + bytes(4_096),
            right + b"4 torn",
            right + b'5 "alice" "a gap"\n',
            right.replace(b"hello", b"HELLO"),
            right.replace(b"hello", b"good day"),
            b"x" + right,
            lines(2, 3),
            os.urandom(100_000),
        ):
            self.found(damaged)
            log = self.open()
            log.take([said(1), said(2)])
            log.take([said(3)])
            log.end_at(3)
            self.assertEqual(self.path.read_bytes(), right, damaged[:80])
            log.close()

    def test_lines_that_may_still_come_stay(self) -> None:
        """Lines that a server has written before, and that it lacks just after its start, stay, since it learns of them
        within a moment."""
        self.found(lines(1, 2, 3, 4) + b'5 "alice" "torn')
        log = self.open()
        log.take([said(1), said(2)])
        log.end_at(2)
        self.assertEqual(self.path.read_bytes(), lines(1, 2, 3, 4))
        log.take([said(3, "something else")])
        self.assertEqual(self.path.read_bytes(), lines(1, 2) + line_of(said(3, "something else")))

    def test_file_is_not_ended_before_all_lines_were_compared(self) -> None:
        """A file is not cut behind a line while further lines, which are in the state, were not compared yet."""
        self.found(b"no line at all\n")
        log = self.open()
        log.end_at(2)
        self.assertEqual(self.path.read_bytes(), b"no line at all\n")

    def test_line_that_is_there_is_not_written_again(self) -> None:
        """A line that is in the file is not written again, when lines are told anew after trouble."""
        self.write(said(1), said(2), said(2), said(1), said(3))
        self.assertEqual(self.path.read_bytes(), lines(1, 2, 3))

    def test_line_behind_a_gap_is_not_written(self) -> None:
        """A line behind a gap is not written before the missing lines: the file would not have the same bytes as
        elsewhere."""
        self.write(said(1), said(3), said(2))
        self.assertEqual(self.path.read_bytes(), lines(1, 2))

    def test_change_by_another_program_is_noticed(self) -> None:
        """A file that was emptied, appended to, edited, deleted or renamed by another program while the server runs is
        begun anew at the first line."""

        def edit() -> None:
            time.sleep(0.02)  # file systems count time in steps
            with self.path.open("rb+") as file:
                file.write(b"7")

        for change in (
            lambda: os.truncate(self.path, 0),
            lambda: self.path.write_bytes(self.path.read_bytes() + b"more\n"),
            edit,
            self.path.unlink,
            lambda: self.path.rename(self.path.with_name("rotated")),
        ):
            log = self.open()
            log.take([said(1), said(2)])
            change()
            log.take([said(3)])
            self.assertEqual(log.next_index, 1)
            log.take([said(1), said(2), said(3)])
            log.end_at(3)
            self.assertEqual(self.path.read_bytes(), lines(1, 2, 3))
            log.close()

    def test_line_that_the_disk_does_not_take_leaves_no_half_of_it(self) -> None:
        """A line for which the disk has no room leaves no half of it, so that later lines go on behind whole ones."""
        log = self.open()
        log.take([said(1)])
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.path.stat().st_size + 5, limit[1]))
        try:
            self.assertRaises(OSError, log.take, [said(2)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, ignored)
        self.assertEqual(self.path.read_bytes(), lines(1))
        log.take([said(2)])
        self.assertEqual(self.path.read_bytes(), lines(1, 2))

    def test_line_is_in_the_file_at_once(self) -> None:
        """A line is in the file at once, so that a killed server loses none."""
        self.open().take([said(1)])
        self.assertEqual(self.path.read_bytes(), lines(1))


class SlowChatLog(ChatLog):
    """A chat log whose disk does not answer while `open` is not set, and gives `error` while that is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open = ThreadEvent()
        self.open.set()
        self.error: OSError | None = None
        self.tried = 0

    def look(self) -> None:
        self.tried += 1
        self.open.wait(SECONDS)
        if self.error is not None:
            raise self.error
        super().look()


class ChatLogWriterTests(TestCase):
    timeout = 2 * SECONDS

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "chat.log"
        self.patch(chat_log, "TROUBLE_SECONDS", 0.01)
        self.patch(chat_log, "LOOK_SECONDS", 0.01)
        self.log = SlowChatLog(self.path)
        self.state: list[Event] = []
        self.largest = 0
        self.fails = False

    def begin(self, length: int = 0) -> ChatLogWriter:
        self.state = [said(i) for i in range(1, length + 1)]
        writer = ChatLogWriter(reactor, self.log, self.events, length)
        self.addCleanup(writer.close)
        self.addCleanup(self.log.open.set)
        writer.start()
        return writer

    def events(self, first: int, limit: int) -> Sequence[Event]:
        self.largest = max(self.largest, limit)
        if self.fails:
            raise KeyError(first)
        return self.state[first - 1 : first - 1 + limit]

    def say(self, writer: ChatLogWriter, index: int) -> None:
        self.state.append(said(index))
        writer.append(said(index))

    async def until_file_is(self, content: bytes) -> None:
        ends = time.monotonic() + SECONDS
        while not self.path.exists() or self.path.read_bytes() != content:
            self.assertLess(time.monotonic(), ends, "the file is not made right")
            await deferLater(reactor, 0.005)

    async def test_disk_that_hangs_keeps_no_caller_waiting(self) -> None:
        """A disk that hangs makes no caller wait; the lines are in the file when the disk answers."""
        self.log.open.clear()
        writer = self.begin()
        for index in range(1, 1_001):
            self.say(writer, index)
        self.assertFalse(self.path.exists())
        self.log.open.set()
        await self.until_file_is(lines(*range(1, 1_001)))
        self.assertLessEqual(self.largest, chat_log.PAGE_LINES)

    async def test_file_is_compared_with_the_state_at_the_start(self) -> None:
        """At the start the whole file is compared with the state: blocks of zeros, as after a loss of power, may be
        amid many lines."""
        right = lines(*range(1, 601))
        self.path.parent.mkdir()
        self.path.write_bytes(right[:4_096] + bytes(4_096) + right[8_192:] + b"and more")
        writer = self.begin(600)
        await self.until_file_is(right)
        self.say(writer, 601)
        await self.until_file_is(right + lines(601))

    async def test_file_that_is_emptied_or_moved_is_made_anew(self) -> None:
        """A file that another program empties or moves away is made anew, with or without any further line."""
        writer = self.begin(3)
        await self.until_file_is(lines(1, 2, 3))
        os.truncate(self.path, 0)
        await self.until_file_is(lines(1, 2, 3))
        self.path.rename(self.path.with_name("chat.log.old"))
        self.say(writer, 4)
        await self.until_file_is(lines(1, 2, 3, 4))
        self.assertEqual(self.path.with_name("chat.log.old").read_bytes(), lines(1, 2, 3))

    async def test_end_does_not_wait_long_for_a_disk_that_hangs(self) -> None:
        """The end of a server does not wait long for a disk that hangs; lines that are lost are written at the next
        start."""
        self.patch(chat_log, "CLOSE_SECONDS", 0.05)
        self.log.open.clear()
        writer = self.begin()
        self.say(writer, 1)
        self.assertFalse(writer.close())
        self.log.open.set()
        self.assertTrue(writer.close())

    async def test_end_writes_what_waits(self) -> None:
        """When a server stops, its lines that wait are written, so that the file has all that clients were told of."""
        writer = self.begin()
        for index in range(1, 501):
            self.say(writer, index)
        self.assertTrue(writer.close())
        self.assertEqual(self.path.read_bytes(), lines(*range(1, 501)))

    async def test_chat_that_fails_to_tell_its_lines_is_asked_again(self) -> None:
        """A chat that fails to tell its lines is asked again by a timer. The stop of the server goes on, too."""
        writer = self.begin()
        self.fails = True
        self.say(writer, 1)
        await deferLater(reactor, 0.05)
        self.assertTrue(self.flushLoggedErrors(KeyError))
        self.fails = False
        await self.until_file_is(lines(1))
        self.fails = True
        self.say(writer, 2)
        self.assertTrue(writer.close())
        self.fails = False
        self.assertTrue(self.flushLoggedErrors(KeyError))

    async def test_disk_that_fails_is_tried_again(self) -> None:
        """After an error of the disk, of whatever kind, writing is tried again, and the file goes on when the disk
        works."""
        for error in (errno.ENOSPC, errno.EIO):
            self.log.error = OSError(error, os.strerror(error))
            writer = self.begin()
            self.say(writer, 1)
            self.say(writer, 2)
            tried = self.log.tried
            while self.log.tried < tried + 3:
                await deferLater(reactor, 0.005)
            self.log.error = None
            await self.until_file_is(lines(1, 2))
            self.assertTrue(writer.close())

    async def test_end_does_not_wait_for_room(self) -> None:
        """The end of a server does not wait for room on a full disk."""
        self.log.error = OSError(errno.ENOSPC, "the disk is full")
        writer = self.begin()
        self.say(writer, 1)
        self.assertTrue(writer.close())

    async def test_file_is_put_aside_with_all_lines(self) -> None:
        """When the chat has ended, its file gets another name, with all lines."""
        writer = self.begin()
        self.say(writer, 1)
        await self.until_file_is(lines(1))
        writer.put_aside()
        self.assertEqual(self.path.with_name("chat.log.1").read_bytes(), lines(1))

    async def test_lines_that_wait_are_put_aside_too(self) -> None:
        """Lines that wait when the chat ends are written into the file that gets another name."""
        writer = self.begin()
        for number in (1, 2, 3):
            self.say(writer, number)
        writer.put_aside()
        self.assertEqual(self.path.with_name("chat.log.1").read_bytes(), lines(1, 2, 3))
