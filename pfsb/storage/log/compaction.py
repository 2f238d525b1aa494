"""Which segments of a log are kept beside a snapshot (docs/internals/log.rst)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import define

from pfsb.paxos.snapshot import SnapshotName
from pfsb.storage.effect import KEPT_SLOTS
from pfsb.storage.log.items import StoredSnapshot
from pfsb.storage.log.scan import Log

KEPT_BYTES_MAX: Final = 64 * 1_048_576


@define
class Slack:
    """How much of the history that a snapshot holds stays readable for servers that are a little behind: they need not
    fetch the snapshot then. The writer reads it."""

    slots: int = KEPT_SLOTS
    """Number of slots, up to that of the snapshot, whose segments are kept."""
    bytes_max: int = KEPT_BYTES_MAX
    """Maximum total size, in bytes, of the segments that are kept although they hold no slot above that of the
    snapshot."""
    kept_above: int | None = None
    """Slot above which all segments are kept (`IStableStorage.kept_above`), as long as they are not larger than the
    snapshot, or than `bytes_max`; None: there is none."""


def stored_snapshot(log: Log, name: SnapshotName, skipped: int, slack: Slack) -> StoredSnapshot:
    """The item of a snapshot that the next group of the log names. `skipped` is `Effect.skipped` of that group.

    Segments are dropped from the front, each if all its slots are at or below that of the snapshot less the slack, and
    if it is not the one into which the group goes.
    """
    numbers = [number for number in log.heads if number < log.segment]
    needed = _first_above(log, numbers, name.seq)
    first = needed if skipped else _first_above(log, numbers, name.seq - slack.slots)
    bytes_max, kept_above = slack.bytes_max, slack.kept_above  # the reactor may change these values meanwhile
    if kept_above is not None and not skipped:
        first, bytes_max = min(first, _first_above(log, numbers, kept_above)), max(bytes_max, name.size)
    sizes = 0
    for number in range(needed - 1, first - 1, -1):
        sizes += log.path(number).stat().st_size
        if sizes > bytes_max:
            first = number + 1
            break
    dropped = max((log.highest.get(number, 0) for number in numbers if number < first), default=0)
    return StoredSnapshot(name, first, max(log.state.compacted, skipped, dropped))


def _first_above(log: Log, numbers: list[int], seq: int) -> int:
    """Number of the first of these segments that has a slot above `seq`; if none has, of the last segment."""
    return next(_having_above(log, numbers, seq), log.segment)


def _having_above(log: Log, numbers: list[int], seq: int) -> Iterator[int]:
    return (number for number in numbers if log.highest.get(number, 0) > seq)
