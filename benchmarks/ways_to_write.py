"""Ways to force a small record to disk, for a loop that waits for sockets.

pfsb's storage writes in a thread, so a commit takes two changes of threads: the reactor wakes the writer, and the
writer wakes the reactor. Linux can write without a thread of the program, by *Linux AIO* and by *io_uring*; it tells
the end of a write through an eventfd, for which a loop can wait as it waits for a socket. `benchmarks.small_commits`
measures these ways, and `benchmarks.hanging_disks` looks which of them keep the loop waiting when the disk hangs.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from struct import Struct
from typing import ClassVar, Final

FILE_BYTES: Final = 16 * 2**20
"""Size of the file of zeros that is written into; when it is full, it is written from its beginning again."""
BLOCK_BYTES: Final = 4_096
"""Size, in bytes, at a multiple of which a write that leaves out the kernel's cache must begin; its length is one,
too."""
BUFFER_BYTES: Final = 16 * BLOCK_BYTES
_DSYNC: Final = 2
_NOWAIT: Final = 8
"""Flags of one write: it is on disk when it ends; it fails with EAGAIN if it would have to wait before it begins."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def system_call(number: int, *given: object) -> int:
    """Make a system call for which Python has no function. Raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def make_file(path: Path) -> None:
    """Make the file that is written into: zeros, on disk."""
    with path.open("wb") as file:
        file.write(bytes(FILE_BYTES))
        file.flush()
        os.fsync(file.fileno())


class Way(ABC):
    """Writes records durably into a file, one behind the other, each begun when the one before has ended.

    When the record that was begun is on disk, `descriptor` can be read; then `end` must be called.
    """

    name: ClassVar[str]
    direct: ClassVar[bool] = False
    """Whether the kernel's cache is left out. Then whole blocks are written: the last one of the record before, too,
    as far as it is full, and zeros behind the record."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDWR | (os.O_DIRECT if self.direct else 0))
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self._offset = 0
        self._tail = b""
        """The content of the last block so far."""
        self._buffer = mmap.mmap(-1, BUFFER_BYTES)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))

    def begin(self, record: bytes) -> None:
        """Begin to write a record. Raises OSError."""
        if self._offset + 2 * BLOCK_BYTES + len(record) > FILE_BYTES:
            self._offset, self._tail = 0, b""
        if not self.direct:
            self._buffer[: len(record)] = record
            self.submit(len(record), self._offset)
            self._offset += len(record)
            return
        content = self._tail + record
        full = len(content) // BLOCK_BYTES * BLOCK_BYTES
        size = -(-len(content) // BLOCK_BYTES) * BLOCK_BYTES
        self._buffer[:size] = content.ljust(size, b"\0")
        self.submit(size, self._offset)
        self._offset, self._tail = self._offset + full, content[full:]

    def end(self) -> None:
        """Take note that the record is on disk. Raises OSError if writing it has failed."""
        os.eventfd_read(self.descriptor)

    @abstractmethod
    def submit(self, size: int, offset: int) -> None:
        """Begin to write the first `size` bytes of the buffer to this place of the file."""

    def write(self, size: int, offset: int, flags: int = 0) -> None:
        os.pwritev(self.file, [memoryview(self._buffer)[:size]], offset, flags)


class Inline(Way):
    """The loop writes, and waits for the disk meanwhile."""

    name = "the loop itself"

    def submit(self, size: int, offset: int) -> None:
        self.write(size, offset, _DSYNC)
        os.eventfd_write(self.descriptor, 1)


class Thread(Way):
    """A thread writes, as in pfsb."""

    name = "a thread"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._asked: SimpleQueue[tuple[int, int]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, size: int, offset: int) -> None:
        self._asked.put((size, offset))

    def _work(self) -> None:
        while True:
            self.write(*self._asked.get(), _DSYNC)
            os.eventfd_write(self.descriptor, 1)


_AIO_CALLS: Final[Mapping[str, tuple[int, int, int]]] = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}
"""Processor -> numbers of the system calls io_setup, io_submit and io_getevents."""
_AIO_BLOCK: Final = Struct("<QIIHhIQQqQII")
"""struct iocb of the kernel: data, key, flags of the write, operation, priority, file, address, size, offset, reserved,
flags, eventfd."""
_AIO_WRITE: Final = 1
_AIO_DATA_SYNC: Final = 3
_AIO_TELLS_EVENTFD: Final = 1
_AIO_EVENT: Final = Struct("<QQqq")


class Aio(Way):
    """Linux AIO, which is asynchronous only without the kernel's cache."""

    name = "Linux AIO, whole blocks"
    direct = True
    flags: ClassVar[int] = _DSYNC

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        setup, self._io_submit, self._io_getevents = _AIO_CALLS[platform.machine()]
        self._context = ctypes.c_ulong(0)
        system_call(setup, 8, ctypes.byref(self._context))
        self._block = ctypes.create_string_buffer(_AIO_BLOCK.size)
        self._blocks = (ctypes.c_void_p * 1)(ctypes.addressof(self._block))
        self._events = ctypes.create_string_buffer(_AIO_EVENT.size)

    def submit(self, size: int, offset: int) -> None:
        self.ask(_AIO_WRITE, size, offset, self.flags)

    def ask(self, operation: int, size: int, offset: int, flags: int) -> None:
        address = self.address if size else 0
        told = (_AIO_TELLS_EVENTFD, self.descriptor)
        _AIO_BLOCK.pack_into(self._block, 0, 0, 0, flags, operation, 0, self.file, address, size, offset, 0, *told)
        system_call(self._io_submit, self._context, 1, self._blocks)

    def end(self) -> None:
        super().end()
        system_call(self._io_getevents, self._context, 1, 1, self._events, None)
        result = _AIO_EVENT.unpack(self._events)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))


class AioNoWait(Aio):
    """Linux AIO that asks the kernel to refuse a write that would have to wait before it begins."""

    name = "Linux AIO with RWF_NOWAIT"
    flags = _DSYNC | _NOWAIT


class AioSync(Aio):
    """The loop writes into the kernel's cache, and Linux AIO forces that to disk."""

    name = "the loop, and sync by Linux AIO"
    direct = False

    def submit(self, size: int, offset: int) -> None:
        self.write(size, offset)
        self.ask(_AIO_DATA_SYNC, 0, 0, 0)


_URING_SETUP, _URING_ENTER, _URING_REGISTER = 425, 426, 427
_URING_PARAMETERS: Final = Struct("<30I")
"""struct io_uring_params of the kernel: the sizes of both queues stand at 0 and 1, the offsets within the queue of
submissions from 10 on (tail 11, array 16), and those within the queue of completions from 20 on (head 20, completions
25)."""
_URING_ENTRIES: Final = 8
_SUBMISSION: Final = Struct("<BBHiQQIIQQQQ")
"""struct io_uring_sqe of the kernel: operation, flags, priority, file, offset, address, size, flags of the write, and
four numbers that are 0 here."""
_URING_WRITE: Final = 23
_URING_ASYNC: Final = 16
_REGISTER_EVENTFD: Final = 4
_COMPLETION: Final = Struct("<QiI")
_NUMBER: Final = Struct("<I")


class Uring(Way):
    """io_uring, and a thread of the kernel that writes.

    Without barriers between the queues and the kernel, which Python does not have: good enough to measure on x86-64.
    """

    name = "io_uring"
    how: ClassVar[int] = _URING_ASYNC

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        asked = ctypes.create_string_buffer(_URING_PARAMETERS.size)
        self._ring = system_call(_URING_SETUP, _URING_ENTRIES, asked)
        made = _URING_PARAMETERS.unpack(asked)
        self._submissions = _shared(self._ring, made[0] * _SUBMISSION.size, 0x10000000)
        self._tail_at, self._array_at = made[11], made[16]
        self._head_at, self._first_at = made[20], made[25]
        self._queue = _shared(self._ring, self._array_at + made[0] * _NUMBER.size, 0)
        self._completions = _shared(self._ring, self._first_at + made[1] * _COMPLETION.size, 0x8000000)
        self._submission_mask, self._completion_mask = made[0] - 1, made[1] - 1
        self._begun = self._ended = 0
        eventfd = ctypes.c_int(self.descriptor)
        system_call(_URING_REGISTER, self._ring, _REGISTER_EVENTFD, ctypes.byref(eventfd), 1)

    def submit(self, size: int, offset: int) -> None:
        at = self._begun & self._submission_mask
        write = (_URING_WRITE, self.how, 0, self.file, offset, self.address, size, _DSYNC, 0, 0, 0, 0)
        _SUBMISSION.pack_into(self._submissions, at * _SUBMISSION.size, *write)
        _NUMBER.pack_into(self._queue, self._array_at + at * _NUMBER.size, at)
        self._begun += 1
        _NUMBER.pack_into(self._queue, self._tail_at, self._begun)
        system_call(_URING_ENTER, self._ring, 1, 0, 0, None, 0)

    def end(self) -> None:
        super().end()
        at = self._ended & self._completion_mask
        _, result, _ = _COMPLETION.unpack_from(self._completions, self._first_at + at * _COMPLETION.size)
        self._ended += 1
        _NUMBER.pack_into(self._completions, self._head_at, self._ended)
        if result < 0:
            raise OSError(-result, os.strerror(-result))


class UringDirect(Uring):
    """io_uring without the kernel's cache."""

    name = "io_uring, whole blocks"
    direct = True


class UringTries(UringDirect):
    """io_uring that first tries to write without a thread of the kernel."""

    name = "io_uring, whole blocks, tries at once"
    how = 0


def _shared(descriptor: int, size: int, offset: int) -> mmap.mmap:
    return mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)


WAYS: Final[Sequence[type[Way]]] = (Inline, Thread, AioSync, Aio, AioNoWait, Uring, UringDirect, UringTries)
