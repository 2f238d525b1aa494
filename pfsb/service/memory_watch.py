"""MemoryWatch: lets a server refuse changes before it has used up the memory that it may have.

All servers execute the same commands, so their memory grows alike. If all have the same limit, they come to it at the
same time, and the system would kill a majority at once, for one client that sends much. A server that refuses changes
of its own clients in time lives on: it votes, answers questions, and takes commands by which the state shrinks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

LOOK_SECONDS: Final = 0.5
"""Time, in seconds, between two looks at the memory that is used."""
SHORT_RATIO: Final = 0.9
"""Part of the memory limit that the process must use for the server to begin to refuse changes."""
ENOUGH_RATIO: Final = 0.85
"""Part of the memory limit below which the process must come for the server to take changes again."""

_STATM: Final = Path("/proc/self/statm")
_CGROUP: Final = Path("/proc/self/cgroup")
_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 2**60
"""Number of bytes from which on a limit of a control group means that there is none."""


@define(eq=False)
class MemoryWatch:
    """Looks again and again at how much memory this process uses."""

    _clock: Any
    _limit_bytes: int
    """Maximum memory of the process, in bytes."""
    _tell: Callable[[bool], None]
    """Function that is called whenever the memory has become short, with True, and whenever it is short no more, with
    False."""
    _used: Callable[[], int]
    """Function that returns how many bytes of memory the process uses."""
    _is_short: bool = field(init=False, default=False)
    _next_look: IDelayedCall | None = field(init=False, default=None)
    _log = Logger()

    def start(self) -> None:
        """Looks now, and from now on every `LOOK_SECONDS`."""
        ratio = self._used() / self._limit_bytes
        is_short = ratio >= (ENOUGH_RATIO if self._is_short else SHORT_RATIO)
        if is_short != self._is_short:
            self._is_short = is_short
            text = "refuses changes with READONLY" if is_short else "takes changes again"
            self._log.warn(
                "this server uses {percent} % of the {limit} bytes of memory that it may have, and {text}",
                percent=round(100 * ratio),
                limit=self._limit_bytes,
                text=text,
            )
            self._tell(is_short)
        self._next_look = self._clock.callLater(LOOK_SECONDS, self.start)

    def stop(self) -> None:
        if self._next_look is not None and self._next_look.active():
            self._next_look.cancel()


def used_bytes() -> int:
    """The resident memory of this process, in bytes; 0 where it cannot be told."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def found_limit_bytes(groups: Path = _CGROUP, root: Path = _CGROUP_ROOT) -> int | None:
    """The lowest memory limit, in bytes, of the control groups (cgroups) that this process is in; None: they set no
    limit.

    `groups` is the file that names the groups of the process, and `root` the directory with all control groups.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    limits = [limit for line in lines for limit in _limits_of(line, root)]
    return min(limits, default=None)


def _limits_of(line: str, root: Path) -> list[int]:
    """The memory limits, in bytes, of the control group that `line` of /proc/self/cgroup names, and of the groups that
    it is part of. `root` is the directory with all control groups."""
    _, controllers, path = line.split(":", 2)
    if not controllers:  # version 2
        base, name = root, "memory.max"
    elif "memory" in controllers.split(","):
        base, name = root / "memory", "memory.limit_in_bytes"
    else:
        return []
    group = base / path.lstrip("/")
    found = []
    for each in (group, *group.parents):
        try:
            limit = int((each / name).read_text())
        except (OSError, ValueError):
            limit = _UNLIMITED
        if 0 < limit < _UNLIMITED:
            found.append(limit)
        if each == base:
            break
    return found
