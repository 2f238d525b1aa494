"""Tests of `pfsb.storage.durable`: a write is on disk when it returns, whatever the platform has for that."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pfsb.storage import durable
from pfsb.storage.durable import DurableFile, NoRoom

PIECES = (b"one ", b"two ", b"three")


class DurableTests(SynchronousTestCase):
    """Writes of several pieces at an offset."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(bytes(20))
        self.synced: list[int] = []
        sync = durable.sync_data
        self.patch(durable, "sync_data", lambda descriptor: self.synced.append(descriptor) or sync(descriptor))

    def file(self, *, at_once: bool) -> DurableFile:
        file = DurableFile(os.open(self.path, os.O_RDWR), at_once)
        self.addCleanup(file.close)
        return file

    def assertWritten(self) -> None:
        self.assertEqual(self.path.read_bytes(), b"\0\0\0one two three\0\0\0\0")

    def test_write_and_its_sync_are_one_call(self) -> None:
        """Where the kernel knows RWF_DSYNC, a write makes no other sync."""
        if not hasattr(os, "RWF_DSYNC"):
            raise SkipTest("the platform has no RWF_DSYNC")
        flags: list[int] = []
        write = os.pwritev
        self.patch(os, "pwritev", lambda *arguments: flags.append(arguments[3]) or write(*arguments))
        self.file(at_once=True).write(PIECES, 3)
        self.assertWritten()
        self.assertEqual((flags, self.synced), ([os.RWF_DSYNC], []))

    def test_write_without_the_flag_is_synced(self) -> None:
        """On platforms without the flag RWF_DSYNC a write is followed by a sync."""
        file = self.file(at_once=False)
        file.write(PIECES, 3)
        self.assertWritten()
        self.assertEqual(self.synced, [file.descriptor])

    def test_kernel_that_does_not_know_the_flag(self) -> None:
        """If the kernel does not know RWF_DSYNC, the first write is refused, and is made again with a sync, as are all
        later ones."""
        for number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            self.path.write_bytes(bytes(20))
            calls = self.refuse("pwritev", number)
            file = self.file(at_once=True)
            file.write(PIECES, 3)
            self.assertWritten()
            file.write(PIECES, 3)
            self.assertEqual((len(calls), self.synced), (1, [file.descriptor] * 2))
            self.synced.clear()

    def refuse(self, name: str, number: int) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def refused(*arguments: Any) -> int:
            calls.append(arguments)
            raise OSError(number, os.strerror(number))

        self.patch(os, name, refused)
        return calls

    def test_write_that_was_short_is_finished_and_synced(self) -> None:
        """A system call that has written less than it was given is followed by others for the rest, and by a sync."""
        self.shorten("pwritev", lambda pieces: [b"".join(pieces)[:5]])
        self.shorten("pwrite", lambda data: data[:2])
        for at_once in (True, False):
            self.path.write_bytes(bytes(20))
            file = self.file(at_once=at_once)
            file.write(PIECES, 3)
            self.assertWritten()
            self.assertEqual(self.synced[-1], file.descriptor)

    def shorten(self, name: str, shorter: Callable[[Any], Any]) -> None:
        write = getattr(os, name)
        self.patch(os, name, lambda descriptor, data, *rest: write(descriptor, shorter(data), *rest))

    def test_full_disk_is_told_apart_from_a_broken_one(self) -> None:
        """A full disk raises another error than a broken one: a group may be written again only for want of room."""
        for number in (errno.ENOSPC, errno.EDQUOT):
            self.refuse("pwritev", number)
            self.refuse("pwrite", number)
            for at_once in (True, False):
                self.assertRaises(NoRoom, self.file(at_once=at_once).write, PIECES, 3)
        self.refuse("pwritev", errno.EIO)
        error = self.assertRaises(OSError, self.file(at_once=True).write, PIECES, 3)
        self.assertEqual(error.errno, errno.EIO)

    def test_sync_that_fails_is_an_error(self) -> None:
        """A sync that fails is an error: nothing may be acknowledged after it."""

        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(durable, "sync_data", fail)
        self.assertRaises(OSError, self.file(at_once=False).write, PIECES, 3)

    def test_platform_with_a_full_sync(self) -> None:
        """On macOS a write ends with F_FULLFSYNC, since fsync leaves the bytes in the cache of the drive."""
        calls: list[tuple[int, int]] = []
        self.patch(durable.sys, "platform", "darwin")
        self.patch(durable.fcntl, "fcntl", lambda *arguments: calls.append(arguments))
        durable.fcntl.F_FULLFSYNC = 51  # type: ignore[attr-defined]
        self.addCleanup(delattr, durable.fcntl, "F_FULLFSYNC")
        file = self.file(at_once=False)
        file.write(PIECES, 3)
        self.assertEqual(calls, [(file.descriptor, 51)])
