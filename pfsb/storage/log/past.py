"""Reads the past of a cluster: the ordered batches and the snapshots in archives and in data directories.

A segment holds proposals as well as ordered batches. A slot counts as ordered only if the log shows that Local_Aru has
passed it later. A batch that was stored as ordered above Local_Aru does not count: if a slot below it changes the
membership, it is void (Departure 60). When a server installs a snapshot of another one, its Local_Aru jumps, and slots
that it jumps over may hold proposals that were never ordered: these are left out. The archive of another server may
hold them (docs/internals/archive.rst).

Nothing here changes a file or takes a lock. Servers may run, and move segments, meanwhile.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple

from attrs import define, field, frozen

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.snapshot import HEAD_BYTES, SnapshotDecoder, SnapshotName, WrongSnapshot
from pfsb.storage.log.archive import IDENTITY_NAME
from pfsb.storage.log.groups import group_at, size_at
from pfsb.storage.log.items import Content, NotCanonical, StoredSnapshot, aru_and_slots, decode_slots, decode_state
from pfsb.storage.log.scan import read_head
from pfsb.storage.log.segments import SegmentHead, numbers_in, segment_path
from pfsb.storage.log.snapshot_files import SnapshotFiles
from pfsb.storage.owner import StorageOwner

TOGETHER: Final = 1_000
"""Number of slots that are looked up at once."""
PARSED_MAX: Final = 4
"""Maximum number of segments of one storage whose slots are kept in memory with their places."""
FIRST_GROUP_BYTES: Final = 65_536
"""Number of bytes of a segment that are read for its first group; more, if that is larger."""
ATTEMPTS_MAX: Final = 3
"""How often, for one slot, files are looked for again because one of them is not where it was a moment ago."""
DEPTH_MAX: Final = 2
"""How many directories deep storages are looked for below a directory that is not a storage itself: in an archive they
are at `archive/ID/STORAGE`."""


class Missing(StorageRefused):
    """Raised if no directory holds a slot that is needed; the text names slots and files."""

    def __init__(self, text: str, first: int, last: int) -> None:
        super().__init__(text)
        self.first = first
        self.last = last
        """The slots from `first` to `last` are missing, and perhaps more behind them."""


class SlotPlace(NamedTuple):
    """Where the batch of a slot stands."""

    path: Path
    offset: int
    length: int


@frozen
class _Begin:
    """The beginning of a segment, up to and including its first group."""

    head: SegmentHead
    chain: bytes
    """First bytes of the checksum of the group before the segment's first one."""
    state: Content
    """The whole state after the first group."""


@define
class _Parsed:
    """A segment that was read as a whole."""

    path: Path
    begin: _Begin
    chain: bytes
    """First bytes of the checksum of the last group."""
    aru: int
    """Local_Aru after the last group."""
    snapshot: StoredSnapshot | None
    """The present snapshot, as the last group, or one before it, has named it; None: there is none."""
    slots: dict[int, tuple[int, int, int]]
    """Slot -> view, offset and length of its latest content in the segment."""
    passes: dict[int, bytes]
    """The slots that the last group, or one before it, has noted to be left out, with the digests of their batches."""
    names: set[SnapshotName]
    """All snapshots that groups of the segment name."""
    jumps: list[tuple[int, int]]
    """(Local_Aru before, slot of the snapshot) for each snapshot that has made Local_Aru jump, but for one that the
    first group names: whether that is a new one depends on the segment before."""
    fault: str | None
    """Why the segment may lack groups at its end, in words; None: it looks whole."""


@frozen
class KeptSnapshot:
    """A snapshot that a group of a storage names, and the path of its file."""

    path: Path
    seq: int
    cluster_identity: bytes
    name: SnapshotName | None
    """The name that a group of the log gives to the snapshot; None: the part of the log that would name it is not
    there."""


def find_storages(place: Path) -> list[Path]:
    """The directories at or below `place` that have the form of a data directory; none in an archive that is still
    empty. Raises `StorageRefused` if the place is not there."""
    if not place.is_dir():
        raise StorageRefused(f"{place}: no directory that is there")
    return list(_storages_in(place, DEPTH_MAX))


def _storages_in(place: Path, depth: int) -> Iterator[Path]:
    if (place / "log").is_dir() or (place / "snapshots").is_dir():
        yield place
    elif depth and place.is_dir():
        for each in sorted(place.iterdir()):
            yield from _storages_in(each, depth - 1)


@define(eq=False)
class StorageHistory:
    """The history of one storage, in its archive, its data directory, or both."""

    identity: bytes
    owner: StorageOwner
    directories: list[Path] = field(factory=list)
    faults: dict[Path, str] = field(factory=dict, init=False)
    """Path of a file that cannot be used, or only in part -> the reason, in words; for the files read so far."""
    _begins: dict[int, tuple[Path, _Begin]] = field(factory=dict, init=False)
    """Number of a segment -> where it is, and its beginning; ascending, without those that hold no group."""
    _parsed: OrderedDict[int, _Parsed] = field(factory=OrderedDict, init=False)
    _kept: dict[Path, KeptSnapshot] = field(factory=dict, init=False)
    """Path of a snapshot that a group is known to name -> the snapshot."""

    def look(self) -> None:
        """Find the segments and snapshots that are there now."""
        found: dict[int, list[Path]] = {}
        for directory in self.directories:
            log = directory / "log"
            for number in numbers_in(log) if log.is_dir() else ():
                found.setdefault(number, []).append(segment_path(log, number))
        # The server of this storage may have written more into the last segment.
        self._parsed.pop(max(self._begins, default=0), None)
        known, self._begins = self._begins, {}
        for number in sorted(found):
            begin = known.get(number)
            if begin is None or begin[0] not in found[number]:
                begin = self._first_whole(number, found[number])
            if begin is not None:
                self._begins[number] = begin
        for number, parsed in [*self._parsed.items()]:
            if number not in self._begins or self._begins[number][0] != parsed.path:
                del self._parsed[number]

    @property
    def aru(self) -> int:
        """The Local_Aru that the log shows at its end."""
        return self._parse(last).aru if (last := max(self._begins, default=0)) else 0

    @property
    def passes(self) -> dict[int, bytes]:
        """Slot -> digest of its batch, for the slots that the server has left out (Departure 38)."""
        passes: dict[int, bytes] = {}
        for _, begin in self._begins.values():
            passes |= begin.state.passes
        return passes | (self._parse(max(self._begins)).passes if self._begins else {})

    def find(self, first: int, last: int) -> dict[int, SlotPlace]:
        """The places of the batches of the slots from `first` to `last`, of those that the log shows as ordered."""
        numbers = list(self._begins)
        if not numbers:
            return {}
        end = next((n for n in numbers if self._begins[n][1].state.local_aru >= last), numbers[-1])
        passed = min(last, max(self._begins[end][1].state.local_aru, self._parse(end).aru))
        found: dict[int, SlotPlace] = {}
        wanted = set(range(first, last + 1))
        later: _Parsed | None = None
        for number in reversed(numbers[: numbers.index(end) + 1]):
            parsed = self._parse(number)
            jumps = self._break_before(later, parsed), self._first_jump(number, first), parsed.jumps
            for after, up_to in chain.from_iterable(jumps):
                wanted.difference_update(range(max(after + 1, first), min(up_to, last) + 1))
            for seq in wanted & parsed.slots.keys():
                if seq <= passed:
                    _, offset, length = parsed.slots[seq]
                    found[seq] = SlotPlace(parsed.path, offset, length)
            wanted -= parsed.slots.keys()
            if parsed.begin.state.local_aru < first and not any(seq <= passed for seq in wanted):
                break
            later = parsed
        return found

    def snapshots(self) -> Iterator[KeptSnapshot]:
        """All snapshots that groups name, ascending, as far as their files are there and begin as they should. If a
        crash has left a snapshot in two places, both files are given."""
        files = chain.from_iterable(SnapshotFiles(each / "snapshots").complete() for each in self.directories)
        for path, seq in sorted(files, key=itemgetter(1)):
            try:
                found = self._kept.get(path) or self._snapshot(path, seq)
            except (OSError, WrongSnapshot) as error:
                self.faults[path] = str(error)
                continue
            if found is not None:
                if found.name is not None:
                    self._kept[path] = found
                yield found

    def _snapshot(self, path: Path, seq: int) -> KeptSnapshot | None:
        decoder = SnapshotDecoder()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for _ in decoder.feed(file.read(HEAD_BYTES)):
                pass
        if decoder.seq != seq:
            raise WrongSnapshot(f"its head is not that of slot {seq}")
        is_known, names = self._names(seq)
        name = next((each for each in names if each.seq == seq), None)
        if is_known and name is None:
            return None  # the file is complete, but no group has named it: no majority may have executed the same
        if name is not None and name.size != size:
            raise WrongSnapshot(f"it has {size} bytes instead of {name.size}")
        return KeptSnapshot(path, seq, decoder.cluster_identity, name)

    def _names(self, seq: int) -> tuple[bool, set[SnapshotName]]:
        """Whether the log shows which snapshot of slot `seq` was named, and the names."""
        names = {begin.state.snapshot.name for _, begin in self._begins.values() if begin.state.snapshot is not None}
        if any(name.seq == seq for name in names):
            return True, names
        before = [n for n, (_, begin) in self._begins.items() if begin.state.snapshot_seq < seq]
        if not before or not (before[-1] == max(self._begins) or before[-1] + 1 in self._begins):
            return False, names
        parsed = self._parse(before[-1])
        return parsed.fault is None, names | parsed.names

    def why_missing(self, first: int) -> Iterator[str]:
        """Reasons why slot `first` is not found in this storage: faults of files, and segments that are missing."""
        yield from (f"{path}: {fault}" for path, fault in sorted(self.faults.items()) if path.suffix == ".log")
        numbers = list(self._begins)
        names = ", ".join(map(str, self.directories))
        if numbers and self._begins[numbers[0]][1].state.local_aru >= first and numbers[0] > 1:
            yield f"{names}: the first segment is {numbers[0]:010d}.log, which goes on behind slot {first}"
        for before, number in pairwise(numbers):
            if number > before + 1 and self._begins[number][1].state.local_aru >= first:
                yield f"{names}: {before + 1:010d}.log to {number - 1:010d}.log are missing"
        if self.aru < first:
            yield f"{names}: goes up to slot {self.aru}"

    def _first_whole(self, number: int, paths: Sequence[Path]) -> tuple[Path, _Begin] | None:
        """The first file of a segment that looks whole, or else the first that has a group."""
        some: tuple[Path, _Begin] | None = None
        for path in paths:
            try:
                begin = _read_begin(path, number, self.identity)
                if begin is None:
                    continue
                some = some or (path, begin)
                if len(paths) == 1 or _parse(path, begin, False, self._others).fault is None:
                    return path, begin
            except (OSError, StorageRefused) as error:
                self.faults[path] = _reason(path, error)
        return some

    def _parse(self, number: int) -> _Parsed:
        parsed = self._parsed.get(number)
        if parsed is None:
            path, begin = self._begins[number]
            path = self._where(path)
            is_written = number == max(self._begins) and (path.parent.parent / "pfsb.lock").exists()
            parsed = self._parsed[number] = _parse(path, begin, is_written, self._others)
            if parsed.fault is not None:
                self.faults[path] = parsed.fault
            if len(self._parsed) > PARSED_MAX:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(number)
        return parsed

    def _where(self, path: Path) -> Path:
        """Where a file is now that was at `path`: its server may have moved it into the archive since."""
        places = (directory / path.parent.name / path.name for directory in self.directories)
        return path if path.exists() else next((each for each in places if each.exists()), path)

    def _first_jump(self, number: int, first: int) -> Iterator[tuple[int, int]]:
        """The slots, as (after, up to), over which Local_Aru has jumped in the first group of a segment, as far as they
        are slot `first` or later. The first group of each segment names the present snapshot, be it new or not."""
        begin = self._begins[number][1]
        named = begin.state.snapshot
        if named is None or not _may_jump(named) or named.name.seq < first or not (self._others or begin.state.epoch):
            return
        before = self._parse(number - 1) if number - 1 in self._begins else None
        if before is None or before.chain != begin.chain:
            yield 0, named.name.seq
        elif before.snapshot != named:
            yield before.aru, named.name.seq

    @property
    def _others(self) -> bool:
        """Whether the cluster has begun with other servers than this one, from which a snapshot may come."""
        return {*self.owner.members} != {self.owner.server_id}

    def _break_before(self, later: _Parsed | None, parsed: _Parsed) -> Iterator[tuple[int, int]]:
        """The slots, as (after, up to), that Local_Aru has passed between the end of a segment and the beginning of the
        next one that is there, `later`, if the one does not go on where the other ends."""
        if later is not None and later.begin.chain != parsed.chain:
            if parsed.fault is None and later.begin.head.number == parsed.begin.head.number + 1:
                parsed.fault = f"it ends before {later.path.name} begins"
                self.faults[parsed.path] = parsed.fault
            yield parsed.aru, later.begin.state.local_aru


@define(eq=False)
class ClusterHistory:
    """The history of a cluster, as several storages hold it together."""

    storages: list[StorageHistory]

    @classmethod
    def of(cls, places: Iterable[Path]) -> ClusterHistory:
        """The history in these archives and data directories. Raises `StorageRefused` if one is not there, if they hold
        no storage, or if they are of several clusters, as far as the heads of segments tell."""
        places = list(places)
        by_identity: dict[bytes, StorageHistory] = {}
        faults: dict[Path, str] = {}
        without_head: list[Path] = []
        first: StorageOwner | None = None
        for directory in dict.fromkeys(each for place in places for each in find_storages(place)):
            head = _any_head(directory, faults)
            if head is None:
                without_head.append(directory)
                continue
            first = first or head.owner
            if (head.owner.cluster_digest, head.owner.members) != (first.cluster_digest, first.members):
                raise StorageRefused(f"{directory} is of another cluster than the directories before it")
            history = by_identity.setdefault(head.identity, StorageHistory(head.identity, head.owner))
            history.directories.append(directory)
        if not by_identity:
            empty = f"{', '.join(map(str, places))}: neither a data directory nor an archive is there"
            raise StorageRefused("; ".join(f"{path}: {why}" for path, why in faults.items()) or empty)
        # An archive that holds only snapshots tells its storage by the name of the directory.
        for directory in without_head:
            if IDENTITY_NAME.fullmatch(directory.name) and bytes.fromhex(directory.name) in by_identity:
                by_identity[bytes.fromhex(directory.name)].directories.append(directory)
        found = cls(list(by_identity.values()))
        found.look()
        for path, why in faults.items():
            for each in found.storages:
                if path.parent.parent in each.directories:
                    each.faults.setdefault(path, why)
        return found

    def look(self) -> None:
        """Find the segments and snapshots that are there now, in all storages."""
        for each in self.storages:
            each.look()

    @property
    def owner(self) -> StorageOwner:
        return self.storages[0].owner

    @property
    def aru(self) -> int:
        """The highest slot up to which a storage shows that slots were ordered."""
        return max(each.aru for each in self.storages)

    @property
    def passes(self) -> dict[int, bytes]:
        """Slot -> digest of its batch, for the slots that servers have left out (Departure 38)."""
        return {seq: digest for each in self.storages for seq, digest in each.passes.items()}

    def snapshots(self) -> list[KeptSnapshot]:
        """All snapshots, ascending; several of one slot if several storages have it."""
        found = [snapshot for each in self.storages for snapshot in each.snapshots()]
        return sorted(found, key=lambda each: (each.seq, each.name is None))

    def ordered(self, first: int, last: int | None = None) -> Iterator[tuple[int, Batch]]:
        """Yield the batches of the slots from `first` on, up to `last` or to the last slot that a storage shows as
        ordered. Raises `Missing` at a slot that none of them shows."""
        end = self.aru if last is None else last
        attempts = 0
        while first <= end:
            up_to = min(first + TOGETHER - 1, end)
            places = self._places(first, up_to)
            try:
                for seq, batch in _batches(first, up_to, places):
                    yield seq, batch
                    first, attempts = seq + 1, 0
            except FileNotFoundError:  # a server has moved it into the archive
                attempts += 1
                if attempts > ATTEMPTS_MAX:
                    raise
                self.look()
                continue
            if first <= up_to:
                raise self._missing(first, end)

    def has(self, first: int, last: int) -> bool:
        """Whether all slots from `first` to `last` are in one of the storages."""
        return self.first_gap(first, last) is None

    def first_gap(self, first: int, last: int) -> int | None:
        """The first slot from `first` to `last` that is in none of the storages; None: there is none."""
        while first <= last:
            up_to = min(first + TOGETHER - 1, last)
            places = self._places(first, up_to)
            for seq in range(first, up_to + 1):
                if seq not in places:
                    return seq
            first = up_to + 1
        return None

    def _places(self, first: int, last: int) -> dict[int, SlotPlace]:
        places: dict[int, SlotPlace] = {}
        for storage in self.storages:
            missing = [seq for seq in range(first, last + 1) if seq not in places]
            if not missing:
                break
            places = self._find(storage, missing[0], missing[-1]) | places
        return places

    def _find(self, storage: StorageHistory, first: int, last: int) -> dict[int, SlotPlace]:
        for _ in range(ATTEMPTS_MAX):
            try:
                return storage.find(first, last)
            except FileNotFoundError:  # the server has moved it into the archive
                storage.look()
        return storage.find(first, last)

    def _missing(self, first: int, end: int) -> Missing:
        last = first
        while last < min(end, first + 100 * TOGETHER):
            up_to = min(last + TOGETHER, end)
            there = self._places(last + 1, up_to)
            next_there = min(there, default=None)
            last = up_to if next_there is None else next_there - 1
            if next_there is not None:
                break
        slots = f"slot {first}" if last == first else f"slots {first} to {last}"
        reasons = "; ".join(why for each in self.storages for why in each.why_missing(first))
        known = f" ({reasons})" if reasons else ""
        text = f"none of the directories holds {slots} as ordered{known}; the archive of another server may"
        return Missing(text, first, last)


def _batches(first: int, last: int, places: Mapping[int, SlotPlace]) -> Iterator[tuple[int, Batch]]:
    """Yield the batches at these places, up to the first slot that has none."""
    seqs = range(first, next((seq for seq in range(first, last + 1) if seq not in places), last + 1))
    for path, run in groupby(seqs, key=lambda seq: places[seq].path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for seq in run:
                _, offset, length = places[seq]
                yield seq, Batch(os.pread(descriptor, length, offset))
        finally:
            os.close(descriptor)


def _any_head(directory: Path, faults: dict[Path, str]) -> SegmentHead | None:
    """The head of any segment in this directory; None: none can be read."""
    log = directory / "log"
    for number in numbers_in(log) if log.is_dir() else ():
        path = segment_path(directory / "log", number)
        try:
            return read_head(path)
        except (OSError, StorageRefused) as error:
            faults[path] = _reason(path, error)
    return None


def _read_begin(path: Path, number: int, identity: bytes) -> _Begin | None:
    """The beginning of a segment; None: it has no group. Raises `StorageRefused` if it is another segment, or of
    another storage."""
    head = read_head(path)
    if head.identity != identity:
        raise StorageRefused(f"it belongs to the storage {head.identity.hex()}")
    if head.number != number:
        raise StorageRefused(f"it is segment {head.number} under another name")
    if not head.room:
        return None
    with path.open("rb") as file:
        file.seek(head.size)
        data = file.read(FIRST_GROUP_BYTES)
        size = size_at(data, 0, head.salt)
        if size is not None and size > len(data):
            data += file.read(size - len(data))
    group = group_at(data, 0, head.salt)
    if group is None:
        if size is not None or data.strip(b"\0"):
            raise StorageRefused("its first group is damaged")
        return None
    _, chain, _, start, end = group
    try:
        state, _ = decode_state(data, start, end)
    except NotCanonical as error:
        raise StorageRefused(f"its first group is damaged: {error}") from None
    return _Begin(head, chain, state)


def _parse(path: Path, begin: _Begin, is_written: bool, others: bool) -> _Parsed:
    """Read a whole segment. `is_written`: its server may be writing to it. `others`: the cluster has begun with other
    servers; from the first change of its membership on, it may have some in any case."""
    data = path.read_bytes()
    salt, at, end_chain, state = begin.head.salt, begin.head.size, begin.chain, Content()
    parsed = _Parsed(path, begin, end_chain, 0, None, {}, {}, set(), [], None)
    fault: str | None = None
    is_first = True
    while (group := group_at(data, at, salt)) is not None:
        number, before, next_chain, start, end = group
        if before != end_chain:
            break
        try:
            usual = None if is_first else aru_and_slots(data, start, end)
            if usual is None:
                content, slots_at = decode_state(data, start, end)
                slots = decode_slots(data, slots_at, end)
                named = content.snapshot
                if named is not None and named != state.snapshot:
                    parsed.names.add(named.name)
                    may_come = others or state.epoch or content.epoch
                    if _may_jump(named) and named.name.seq > state.local_aru and may_come and not is_first:
                        parsed.jumps.append((state.local_aru, named.name.seq))
                state.apply(content)
            else:
                state.effect.local_aru, slots = usual
        except NotCanonical as error:
            fault = f"group {number} is damaged: {error}"
            break
        parsed.slots.update(slots)
        end_chain, at, is_first = next_chain, end, False
    parsed.chain, parsed.aru = end_chain, state.local_aru
    parsed.snapshot, parsed.passes = state.snapshot, state.passes
    if fault is None and not is_written:
        if len(data) < begin.head.room:
            fault = f"cut off at {len(data)} bytes of {begin.head.room}"
        elif len(data.rstrip(b"\0")) > at:
            fault = f"damaged behind byte {at}, and slot {parsed.aru}"
    parsed.fault = fault
    return parsed


def _may_jump(named: StoredSnapshot) -> bool:
    """Whether Local_Aru may have jumped to the slot of a snapshot when a group named it.

    A snapshot of the server's own is named when Local_Aru is there already. One that has come from another server has
    its own slot as the one up to which nothing is read.
    """
    return named.compacted == named.name.seq


def _reason(path: Path, error: Exception) -> str:
    """The words of an error about the file `path`, without its name."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix(f"{path}: ")
