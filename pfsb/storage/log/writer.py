"""Writing groups to a log, one after the other: each is on disk before the next one is begun."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field

from pfsb.paxos.snapshot import SnapshotName
from pfsb.storage.directory import sync_directory
from pfsb.storage.durable import DurableFile
from pfsb.storage.effect import Effect
from pfsb.storage.log.compaction import Slack, stored_snapshot
from pfsb.storage.log.groups import Sealed, seal
from pfsb.storage.log.index import SEGMENT_BYTES_MAX
from pfsb.storage.log.items import Content, StoredSnapshot, encode
from pfsb.storage.log.scan import Log
from pfsb.storage.log.segments import FORMAT_WITHOUT_SNAPSHOTS, SegmentHead


def _none_is_ready() -> SegmentHead | None:
    return None


def _nobody_makes_one(number: int) -> None:
    pass


def _nobody_deletes(snapshot: StoredSnapshot, dropped: list[int]) -> None:
    pass


@define(eq=False)
class LogWriter:
    """Writes groups behind the last one of a log. One thread at a time uses it.

    `want_next` is called with the number of the next segment when half of the present one is full; `take_next` returns
    the head of that segment, or None while it is not made. If the next segment is not ready when the present one is
    full, the writer goes on in the present one, whose file grows: that is slower, but no group has to wait until a
    segment is made.

    When a group that names a snapshot is on disk, `named` is called with the item and with the numbers of the segments
    that are not needed any more, as far as `slack` lets them go.
    """

    log: Log
    _file: DurableFile
    _take_next: Callable[[], SegmentHead | None] = _none_is_ready
    _want_next: Callable[[int], None] = _nobody_makes_one
    _named: Callable[[StoredSnapshot, list[int]], None] = _nobody_deletes
    _slack: Slack = field(factory=Slack)
    _has_asked: bool = field(default=False, init=False)
    """Whether the next segment has been asked for."""
    _was_refused: bool = field(default=False, init=False)
    """Whether the last group was refused because the disk was full, so that bytes of it may be in the present
    segment."""

    @classmethod
    def open(
        cls,
        log: Log,
        take_next: Callable[[], SegmentHead | None] = _none_is_ready,
        want_next: Callable[[int], None] = _nobody_makes_one,
        named: Callable[[StoredSnapshot, list[int]], None] = _nobody_deletes,
        slack: Slack | None = None,
    ) -> LogWriter:
        """Open the last segment of a log that was just read, and make its last group durable. The other arguments are
        those of the class.

        The process that wrote that group may have died before the group was on disk, or may have been told that the
        write failed: then the group may be in the memory of the kernel only. So it is written once more, before
        anything rests on it. Bytes that a torn group has left behind it are overwritten with zeros. Raises OSError, or
        `NoRoom`; `StorageRefused` if the bytes of the group are not those that were read before.
        """
        file = DurableFile.open(log.path(log.segment))
        try:
            last = log.read_last()
            if last or log.torn_bytes:
                file.write([last, bytes(log.torn_bytes)], log.end - len(last))
            log.torn_bytes = 0
            sync_directory(log.directory)
        except BaseException:
            file.close()
            raise
        return cls(log, file, take_next, want_next, named, slack or Slack())

    @property
    def position(self) -> int:
        return self.log.position

    def write(self, effect: Effect) -> None:
        """Write a group of records; it is on disk when this method returns. Errors are those of `append`."""
        self.append(Content(effect=effect))

    def append(self, content: Content) -> None:
        """Write a group; it is on disk when this method returns.

        Raises `NoRoom`: then the group is not in the log, though bytes of it may be in the file, and the call may be
        repeated, with the same content. Such a group stays in its segment: in the next one it would leave bytes behind
        that look like damage before acknowledged groups. After OSError it is not known what is on disk: nothing more
        may be written.
        """
        log, given = self.log, content
        group, content = self._sealed(given)
        if log.end + group.size > log.head.room and not self._was_refused and self.go_on():
            group, content = self._sealed(given)
        assert log.end < SEGMENT_BYTES_MAX, "the index has room for the offset"
        self._was_refused = True
        self._file.write(group.pieces, log.end)
        self._was_refused = False
        log.written(content, group)
        if given.effect.snapshot is not None:
            assert log.state.snapshot is not None, "the group has named a snapshot"
            self._named(log.state.snapshot, log.drop_front())
        if not self._has_asked and log.end > log.head.room // 2:
            self._has_asked = True
            self._want_next(log.segment + 1)

    def close(self) -> None:
        self._file.close()

    def _sealed(self, content: Content) -> tuple[Sealed, Content]:
        """The next group, ready to be written, and its content: that is `content`, with the item of a snapshot that it
        names, and with the whole state if the group opens a segment."""
        log = self.log
        if content.effect.snapshot is not None:
            content = self._with_snapshot(content, content.effect.snapshot)
        if log.end == log.head.size:
            content = log.state.opening(content)
        return seal(log.head.salt, log.chain, log.position + 1, encode(content)), content

    def _with_snapshot(self, content: Content, name: SnapshotName) -> Content:
        """The content, with the item of the snapshot that it names, unless the log has named a later one."""
        log = self.log
        if name.seq < log.state.snapshot_seq:
            return content
        assert log.head.version > FORMAT_WITHOUT_SNAPSHOTS, "a start has gone on in a segment of the present format"
        skipped = content.effect.skipped_after(log.state.local_aru)
        return evolve(content, snapshot=stored_snapshot(log, name, skipped, self._slack))

    def go_on(self) -> bool:
        """Go on to the next segment; returns False if it has not been made yet, or nothing is in the present one."""
        if self.log.end == self.log.head.size:
            return False
        head = self._take_next()
        if head is None:
            return False
        file = DurableFile.open(self.log.path(head.number))
        self._file.close()
        self._file = file
        self._has_asked = False
        self.log.go_on_in(head)
        return True
