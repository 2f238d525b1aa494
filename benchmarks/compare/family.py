"""Processes with all their descendants, from Linux's /proc: a server may consist of several, as PostgreSQL's does."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from typing import Final

from pfsb.bench import machine
from pfsb.bench.machine import PROC

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def members(pid: int) -> list[int]:
    """The ids of a process and of its descendants, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:  # the list grows meanwhile, by the children of the processes in it
        found += children.get(parent, [])
    return found


def freeze(pid: int) -> list[int]:
    """Send SIGSTOP to a process and its descendants, those too that are started meanwhile; returns all of them."""
    stopped: list[int] = []
    while new := [member for member in members(pid) if member not in stopped]:
        signal_all(new, signal.SIGSTOP)
        stopped += new
    return stopped


def thaw(pid: int) -> None:
    """Send SIGCONT to a process and its descendants."""
    signal_all(members(pid), signal.SIGCONT)


def kill(pid: int) -> None:
    """Send SIGKILL to a process and its descendants. They are stopped first, so that none starts another."""
    signal_all(freeze(pid), signal.SIGKILL)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, those included that have ended; 0.0 if it has ended."""
    found = [fields for member in members(pid) if (fields := _stat(member)) is not None]
    # The last two of the four are the times of children that have ended and were waited for.
    return sum(sum(map(int, fields[11:15])) for fields in found) / _TICKS


def memory_bytes(pid: int) -> int:
    """Resident memory, in bytes, of a process and its descendants; memory that they share counts once."""
    found = members(pid)
    return machine.memory_bytes(pid) if len(found) == 1 else sum(map(_share, found))


def is_stopped(pid: int) -> bool:
    """True if SIGSTOP has stopped the process."""
    fields = _stat(pid)
    return fields is not None and fields[0] == "T"


def _share(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those of these processes that there are."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None if the process has ended."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
