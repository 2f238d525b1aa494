"""Reading the slots of a log, while its writer goes on writing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from attrs import define, field

from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted
from pfsb.storage.log.groups import HEAD_BYTES, group_at, size_at
from pfsb.storage.log.index import OFFSET_BITS, SEGMENT_BYTES_MAX
from pfsb.storage.log.items import SlotPlace, slots_of
from pfsb.storage.log.scan import Log
from pfsb.storage.log.segments import damaged

_VIEW: Final = 0
_LENGTH: Final = 2
"""Index of the length of a batch in a `SlotPlace`; `_VIEW` is the index of the view."""
WINDOW_BYTES: Final = 131_072
"""Number of bytes that are read at once; more, if the group that is wanted is larger."""


@define(eq=False)
class LogReader:
    """Reads slots from the files of a log. One thread at a time uses it.

    Only groups that are on disk are in the index, so a reader sees no others. The bytes that were read last are kept as
    the *window*: often the next slot is in them, too.
    """

    _log: Log
    _segment: int = field(default=0, init=False)
    """Number of the segment that is open; 0: none is."""
    _descriptor: int = field(default=-1, init=False)
    _window: bytes = field(default=b"", init=False)
    _window_at: int = field(default=0, init=False)
    _entry: int = field(default=0, init=False)
    """Place of the group that was read last, as `Place.entry`; 0: none was."""
    _slots: dict[int, SlotPlace] = field(factory=dict, init=False)
    """Slot -> its place in the window (the bytes that were read last), for the slots of the group that was read
    last."""

    def read(self, first: int, last: int, bytes_max: int) -> list[tuple[int, Batch]]:
        """Read ordered slots from `first` to `last`, as `IStableStorage.read_history` passes them to its callback:
        consecutive (seq, batch).

        Raises `StorageRefused` at a damaged group.
        """
        found: list[tuple[int, Batch]] = []
        if first <= self._log.state.compacted:
            return found
        for seq in range(first, min(last, self._log.state.local_aru) + 1):
            slot = self._slot(seq)
            if slot is None:
                break
            bytes_max -= slot[_LENGTH]
            if found and bytes_max < 0:
                break
            found.append((seq, self._batch(slot)))
        return found

    def ordered(self, local_aru: int, after: int = 0) -> Iterator[tuple[int, Batch]]:
        """Yield the slots above `after` up to `local_aru`, as (seq, batch), and close the file at the end.

        Raises `StorageRefused` at a damaged group.
        """
        try:
            for seq in range(after + 1, local_aru + 1):
                slot = self._slot(seq)
                assert slot is not None, "the log was checked for gaps"
                yield seq, self._batch(slot)
        finally:
            self.close()

    def accepted(self) -> list[Accepted]:
        """Read all slots above Local_Aru, ascending. Raises `StorageRefused` at a damaged group."""
        seqs = self._log.index.above(self._log.state.local_aru)
        return [accepted for seq in seqs if (accepted := self.slot(seq)) is not None]

    def slot(self, seq: int) -> Accepted | None:
        """Read slot `seq`; None if the log does not hold it. Raises `StorageRefused` if its group is damaged."""
        slot = self._slot(seq)
        return None if slot is None else Accepted(seq, slot[_VIEW], self._batch(slot))

    def close(self) -> None:
        """Close the open file. A later call of another method opens it again."""
        if self._segment:
            os.close(self._descriptor)
        self._segment, self._window, self._entry = 0, b"", 0

    def _slot(self, seq: int) -> SlotPlace | None:
        entry = self._log.index.entry(seq)
        if entry != self._entry:
            self._entry = 0
            self._slots = self._read_group(entry) if entry else {}
            self._entry = entry if self._slots else 0
        return self._slots.get(seq)

    def _batch(self, slot: SlotPlace) -> Batch:
        _, start, length = slot
        return Batch(self._window[start : start + length])

    def _read_group(self, entry: int) -> dict[int, SlotPlace]:
        """Make sure that the group whose place is `entry` (`Place.entry`) is in the window, the bytes that were read
        last. Returns slot -> its place in the window; nothing if the segment has just been dropped.

        Raises `StorageRefused` if the group is damaged.
        """
        segment, offset = entry >> OFFSET_BITS, entry & SEGMENT_BYTES_MAX - 1
        head = self._log.heads.get(segment)
        if head is None or (segment != self._segment and not self._open(segment)):
            return {}
        salt = head.salt
        at = offset - self._window_at
        group = group_at(self._window, at, salt) if at >= 0 else None
        if group is None:
            self._read_window(offset, salt)
            group = group_at(self._window, 0, salt)
        if group is None:
            raise damaged(self._log.path(segment), f"the checksum of the group at byte {offset} is wrong")
        _, _, _, start, end = group
        return slots_of(self._window, start, end)

    def _open(self, segment: int) -> bool:
        """Open the file of a segment; returns False if the segment has just been dropped."""
        self.close()
        try:
            self._descriptor = os.open(self._log.path(segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if segment < self._log.state.first_segment:
                return False
            raise
        self._segment = segment
        return True

    def _read_window(self, offset: int, salt: bytes) -> None:
        """Read bytes of the open segment, from `offset` on, and keep them as the window: at least the whole group that
        stands there."""
        self._window = os.pread(self._descriptor, WINDOW_BYTES, offset)
        self._window_at = offset
        size = size_at(self._window, 0, salt) or HEAD_BYTES
        if size > len(self._window):
            self._window += os.pread(self._descriptor, size - len(self._window), offset + len(self._window))
