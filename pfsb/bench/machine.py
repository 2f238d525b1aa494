"""Figures of the machine: CPU time and memory of processes (from Linux's /proc), and the speed of a disk."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_LISTENING: Final = "0A"
_SYNCS: Final = 50


def cpu_seconds(pid: int) -> float:
    """User and system time of a process since its start, in seconds.

    Raises FileNotFoundError or ProcessLookupError if the process has ended.
    """
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_of_all(pids: Iterable[int]) -> float:
    """User and system time of several processes since their starts, added up, in seconds."""
    return sum(cpu_seconds(pid) for pid in pids)


def busy_seconds() -> float:
    """CPU time, in seconds, that all programs and the kernel of this machine have used since it was started."""
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = map(
        int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + interrupts + soft_interrupts) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def listening_process(port: int) -> int | None:
    """The id of the process of this machine that listens on a TCP port.

    None if there is no such process, or if this user may not see its open files.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return None
    for process in PROC.iterdir():
        if process.name.isdigit() and not sockets.isdisjoint(_open_files(process)):
            return int(process.name)
    return None


def _listening_inodes(port: int) -> Iterable[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _open_files(process: Path) -> Iterable[str]:
    try:
        return [os.readlink(file) for file in (process / "fd").iterdir()]
    except OSError:
        return []  # the process belongs to another user, or has ended


def sync_seconds(directory: Path) -> float:
    """How long, in seconds, it takes to append 4 KiB to a file in a directory and force them to disk.

    The result is the median of 50 measurements. Raises OSError.
    """
    block = bytes(4096)
    taken = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(_SYNCS):
            begun = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return sorted(taken)[_SYNCS // 2]
