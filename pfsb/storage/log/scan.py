"""Reading a log at the start of its server: what it holds, and what is refused (docs/internals/log.rst).

The last group may be torn: power failed while it was written, so nothing rests on it, and it is cut off. Anything else
that is not as it was written is refused: a server that has lost a promise or a vote must not vote again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from struct import Struct

from attrs import define, field

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage.log.groups import NO_GROUP, Group, Sealed, another_marker, group_at
from pfsb.storage.log.index import OFFSET_BITS, Place, SlotIndex
from pfsb.storage.log.items import Content, NotCanonical, aru_and_slots, decode_slots, decode_state
from pfsb.storage.log.segments import (
    BLOCK_BYTES,
    FORMAT_WITHOUT_SNAPSHOTS,
    SegmentHead,
    damaged,
    numbers_in,
    segment_path,
)
from pfsb.storage.owner import StorageOwner
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN, history_gap

_SIZE_OF_HEAD = Struct(">12xI")
_HEAD_BYTES_MAX = 1_048_576


@define(eq=False)
class Log:
    """A log as a server knows it in memory: its state, the place of each slot, and where the next group goes."""

    directory: Path
    heads: dict[int, SegmentHead]
    """Number of a segment -> its head, for all segments that are there and needed, ascending."""
    state: Content = field(factory=Content)
    """All that the groups so far have set, but for the slots."""
    position: int = 0
    """Number of the last group; 0: there is none."""
    chain: bytes = NO_GROUP
    """First bytes of the checksum of the last group."""
    index: SlotIndex = field(factory=SlotIndex)
    segment: int = 1
    """Number of the segment into which the next group goes."""
    highest: dict[int, int] = field(factory=dict)
    """Number of a segment -> the highest slot whose latest content is in it; for all segments before `segment` that
    have one. Of segments that were filled since the start: the highest slot in it, 0 if it has none."""
    top: int = 0
    """The highest slot in the segment `segment`, as in `highest`; 0: it has none."""
    leftovers: list[int] = field(factory=list)
    """Numbers of segments whose files are there although the log does not need them: a crash came before they were
    deleted."""
    end: int = 0
    """Offset, in the segment `segment`, of the end of its last group; if it has none, of the end of its head."""
    torn_bytes: int = 0
    """Number of bytes that a torn group has left behind the offset `end`."""
    last_entry: int = 0
    """Place of the last group, as `Place.entry`; 0: there is none."""

    @property
    def head(self) -> SegmentHead:
        """The head of the segment into which the next group goes."""
        return self.heads[self.segment]

    @property
    def last(self) -> Place | None:
        """Place of the last group; None: there is none."""
        return Place.of(self.last_entry)

    def refuse_gap(self) -> None:
        """Raise `StorageRefused` if the log lacks a slot up to Local_Aru, and no snapshot stands for it."""
        gap = self.first_gap()
        if gap is not None:
            raise history_gap(str(self.directory), gap, self.state.local_aru, self.state.compacted + 1)

    def first_gap(self) -> int | None:
        """The first slot up to Local_Aru that the log lacks, and that no snapshot stands for; None: there is none."""
        return self.index.first_gap(self.state.local_aru, self.state.compacted)

    def read_last(self) -> bytes:
        """Read the last group once more, as a whole; empty if it does not stand in the segment `segment`.

        Raises `StorageRefused` if its bytes are not those that were read before.
        """
        last, path = self.last, self.path(self.segment)
        if last is None or last.segment != self.segment:
            return b""
        with path.open("rb") as file:
            file.seek(last.offset)
            data = file.read(self.end - last.offset)
        group = group_at(data, 0, self.head.salt)
        if group is None or (group[0], group[2], group[4]) != (self.position, self.chain, len(data)):
            raise damaged(path, f"group {self.position} is not what it was a moment ago")
        return data

    def path(self, number: int) -> Path:
        return segment_path(self.directory, number)

    def go_on_in(self, head: SegmentHead) -> None:
        """Let the next group go into the beginning of this segment."""
        self.highest[self.segment], self.top = self.top, 0
        self.heads[head.number] = head
        self.segment, self.end = head.number, head.size

    def drop_front(self) -> list[int]:
        """Forget the segments that are not needed any more, and the slots that are not read any more. Returns the
        numbers of the forgotten segments, whose files are still there."""
        dropped = [number for number in self.heads if number < self.state.first_segment]
        for number in dropped:
            del self.heads[number]
            self.highest.pop(number, None)
        self.index.drop(self.state.compacted)
        return dropped

    def written(self, content: Content, group: Sealed) -> None:
        """Take notice that a group with this content is on disk, behind the last one. Readers find its slots from now
        on."""
        self.last_entry = Place(self.segment, self.end).entry
        if self._cut(content):
            self.highest = self.index.highest()
            self.top = self.highest.pop(self.segment, 0)
        for seq in content.effect.slots:
            self.index.put(seq, self.last_entry)
            if seq > self.top:
                self.top = seq
        self.end += group.size
        self.position += 1
        self.chain = group.chain
        self.state.apply(content)

    def found(self, group: Group, data: bytes, entry: int, opens: bool) -> None:
        """Take over the state and the slots of a group that was found in `data`, the bytes of a segment.

        `entry` is the place of the group, and `opens` says whether it is the first one of its segment. Raises
        `StorageRefused` if the group does not follow the last one of this log, or its content is not canonical.
        """
        number, before, chain, at, end = group
        if before != self.chain or (number != self.position + 1 and self.last_entry):
            raise self._does_not_follow(entry, opens)
        try:
            usual = None if opens else aru_and_slots(data, at, end)
            if usual is None:
                content, at = decode_state(data, at, end)
                self._refuse_wrong_snapshot(content, entry)
                self._refuse_wrong_epoch(content, entry)
                self._cut(content)
                self.state.apply(content)
                if opens and not _is_whole_state(content, self.state):
                    raise NotCanonical("it opens the segment with another state than was before")
                slots = decode_slots(data, at, end)
            else:
                self.state.effect.local_aru, slots = usual
            for seq in slots:
                self.index.put(seq, entry)
        except NotCanonical as error:
            raise damaged(self._path_of(entry), f"group {number}: {error}") from None
        self.position, self.chain, self.last_entry = number, chain, entry

    def _refuse_wrong_snapshot(self, content: Content, entry: int) -> None:
        """Raise `NotCanonical` if the content names a snapshot that no writer would name at this place."""
        later, before = content.snapshot, self.state.snapshot
        if later is None or later == before:
            return
        number = entry >> OFFSET_BITS
        if self.heads[number].version == FORMAT_WITHOUT_SNAPSHOTS:
            raise NotCanonical("segments of this format hold no snapshots")
        if not later.first_segment <= number or not later.compacted <= later.name.seq:
            raise NotCanonical("it drops a part of the log that its snapshot does not hold")
        if before is not None and (
            later.name.seq < before.name.seq
            or later.first_segment < before.first_segment
            or later.compacted < before.compacted
        ):
            raise NotCanonical("its snapshot is older than the one before")

    def _refuse_wrong_epoch(self, content: Content, entry: int) -> None:
        """Raise `NotCanonical` if the content begins an epoch that no writer would begin at this place."""
        if content.effect.members is None:
            return
        if self.heads[entry >> OFFSET_BITS].version == FORMAT_WITHOUT_SNAPSHOTS:
            raise NotCanonical("segments of this format hold no epochs")
        if content.epoch <= self.state.epoch and content.effect.members != self.state.effect.members:
            raise NotCanonical("its epoch is older than the one before")

    def _cut(self, content: Content) -> bool:
        """Forget the slots that a group with this content makes void, since it begins an epoch. Returns whether it
        does."""
        members = content.effect.members
        if members is None or members.epoch <= self.state.epoch:
            return False
        for seq in self.index.above(members.since):
            self.index.put(seq, 0)
        return True

    def _path_of(self, entry: int) -> Path:
        place = Place.of(entry)
        assert place is not None, "the group has a place"
        return self.path(place.segment)

    def _does_not_follow(self, entry: int, opens: bool) -> StorageRefused:
        path = self._path_of(entry)
        if opens and self.last_entry:
            before = self._path_of(self.last_entry).name
            return StorageRefused(f"{path}: does not go on where {before} ends, and should; {MUST_NOT_VOTE_AGAIN}")
        return damaged(path, f"the group behind group {self.position} does not follow it")


def _is_whole_state(content: Content, state: Content) -> bool:
    whole = Content()
    whole.apply(content)
    return whole == state


def scan(directory: Path, owner: StorageOwner | None = None) -> Log:
    """Read and check the whole log in `directory`.

    Raises `StorageRefused` if it is damaged, lacks something, or was not made for `owner` (None: for any server).
    Nothing is changed.
    """
    log, found = _begin(directory, owner)
    if log.segment > 1:
        _begin_behind(log, log.segment)
    _read_segments(log, log.heads)
    return _whole(log, found)


def scan_end(directory: Path, owner: StorageOwner | None = None) -> Log:
    """Read and check the end of the log in `directory`, from the beginning of the last segment that has a group.

    Position and state are those of the whole log, since each segment opens with the state; the index holds only slots
    of this end. `owner` is the server that the log must be of; None: any. Raises `StorageRefused` for the same faults
    as `scan`, if they show in this end or in the head of any segment.
    """
    log, found = _begin(directory, owner)
    numbers = sorted(log.heads, reverse=True)
    for number in numbers:
        if _begin_behind(log, number):
            break
    _read_segments(log, range(number, numbers[0] + 1))
    return _whole(log, found)


def _begin(directory: Path, owner: StorageOwner | None) -> tuple[Log, list[int]]:
    """A log of which only the heads have been read, and the numbers of all segments that are there, ascending.

    It begins at the first segment behind which none is missing. Whether others should be there is known at its end.
    """
    heads = read_heads(directory, owner)
    found = list(heads)
    first = found[-1]
    while first - 1 in heads:
        first -= 1
    log = Log(directory, {number: heads[number] for number in found if number >= first})
    log.segment = first
    log.end = log.head.size
    return log, found


def _begin_behind(log: Log, number: int) -> bool:
    """Let `log` begin with the first group of this segment, whatever was before that group. Returns False, and does
    nothing, if there is no such group."""
    head = log.heads[number]
    first = group_at(_content(log.path(number)), head.size, head.salt)
    if first is not None:
        _, log.chain, _, _, _ = first
    return first is not None


def _whole(log: Log, found: Sequence[int]) -> Log:
    """Refuse a log, which was read to its end, if a segment is missing that it needs; then forget those that it does
    not need. `found` has the numbers of all segments that are there, ascending."""
    # A log without any group tells nothing, and begins with its first segment, or lacks the one before it.
    first = log.state.first_segment if log.last_entry else max(min(log.heads) - 1, 1)
    there = set(found)
    for number in range(first, found[-1] + 1):
        if number not in there:
            raise _missing(log.directory, number)
    log.leftovers = [number for number in found if number < first]
    log.highest = log.index.highest()
    log.top = log.highest.pop(log.segment, 0)
    log.drop_front()
    return log


def read_heads(directory: Path, owner: StorageOwner | None = None) -> dict[int, SegmentHead]:
    """Number of a segment -> its head, for all segments that are in `directory`, ascending.

    Raises `StorageRefused` if a segment is damaged, cut short, of another storage, or not made for `owner` (None: for
    any server), or if there is none.
    """
    heads: dict[int, SegmentHead] = {}
    first: SegmentHead | None = None
    for number in numbers_in(directory):
        path = segment_path(directory, number)
        head = read_head(path)
        first = first or head
        _refuse_strange(path, head, first, number, owner)
        if head.room:
            heads[number] = head
    if not heads:
        raise _missing(directory, None if first is None else 2)
    return heads


def _missing(directory: Path, number: int | None) -> StorageRefused:
    """The refusal of a log whose segment with this number is missing; None: all of them are."""
    found = "and so are all segments of this log" if number is None else "although other segments of this log are there"
    return StorageRefused(f"{segment_path(directory, number or 1)}: missing, {found}; {MUST_NOT_VOTE_AGAIN}")


def owner_of(directory: Path) -> StorageOwner | None:
    """The server that the log in `directory` was made for, as far as its first head tells; None: there is no log, or
    its first head cannot be read."""
    try:
        return read_head(segment_path(directory, next(numbers_in(directory), 1))).owner
    except (OSError, StorageRefused):
        return None


def read_head(path: Path) -> SegmentHead:
    """The head of the segment at `path`. Raises `StorageRefused` if it is damaged, or OSError."""
    with path.open("rb") as file:
        data = file.read(BLOCK_BYTES)
        if len(data) == BLOCK_BYTES:
            size = _SIZE_OF_HEAD.unpack_from(data)[0]
            data += file.read(min(size, _HEAD_BYTES_MAX) - BLOCK_BYTES) if size > BLOCK_BYTES else b""
    return SegmentHead.decode(path, data)


def _refuse_strange(path: Path, head: SegmentHead, first: SegmentHead, number: int, owner: StorageOwner | None) -> None:
    if owner is not None:
        owner.refuse_storage_of(head.owner, path.parent)
    if (head.identity, head.owner) != (first.identity, first.owner):
        raise StorageRefused(
            f"{path}: belongs to the storage {head.identity.hex()}, and the log beside it to the storage "
            f"{first.identity.hex()}; bring back the files of one directory together"
        )
    if head.number != number or (head.room == 0 and number > 1):
        raise damaged(path, f"it is segment {head.number} under another name")
    size = path.stat().st_size
    if size < head.room:
        raise StorageRefused(f"{path}: cut off at {size} bytes of {head.room}; {MUST_NOT_VOTE_AGAIN}")


def _read_segments(log: Log, numbers: Iterable[int]) -> None:
    """Read the segments with these numbers, ascending, the last segment of the log among them.

    Groups fill one segment after the other, so nothing may stand behind a group that is not valid, or behind a segment
    without a valid group. Raises `StorageRefused` if something does: the group before it had been on disk.
    """
    ended: Path | None = None
    for number in numbers:
        path, head = log.path(number), log.heads[number]
        data = _content(path)
        used = len(data.rstrip(b"\0"))
        if used > head.size and ended is not None:
            raise acknowledged_lost(ended)
        end = _read_groups(log, number, data)
        torn_bytes = max(used - end, 0)
        if used > head.size:
            log.segment, log.end, log.torn_bytes = number, end, torn_bytes
        if torn_bytes and another_marker(data, end, head.salt):
            raise acknowledged_lost(path)
        if torn_bytes or end == head.size:
            ended = ended or path


def _read_groups(log: Log, number: int, data: bytes) -> int:
    """Read the groups of a segment, from its head on, into `log`. Returns the offset of the end of the last valid
    one."""
    head = log.heads[number]
    base = Place(number, 0).entry
    at = head_bytes = head.size
    while (group := group_at(data, at, head.salt)) is not None:
        log.found(group, data, base | at, at == head_bytes)
        at = group[-1]
    return at


def _content(path: Path) -> bytes:
    return path.read_bytes()


def acknowledged_lost(path: Path) -> StorageRefused:
    """The refusal of a segment that is damaged, although something was written behind the damage: so the damaged group
    had been on disk, and may have been acknowledged."""
    return StorageRefused(f"{path}: damaged before its end, where acknowledged records stand; {MUST_NOT_VOTE_AGAIN}")
