"""Which ways to begin a write wait for a disk that hangs: `python -m benchmarks.hanging_disks`, as root, on Linux.

A server whose disk does not answer goes on refusing its clients and telling the other servers (Departure 44). So the
call by which its reactor begins a write must return in any case. This program tries every way of
`benchmarks.ways_to_write` on a file system that is frozen, and on one whose disk hangs: its disk is a file on another
file system, and that one is frozen. Both are files in the directory that is given, and are removed at the end.
"""

from __future__ import annotations

import argparse
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.processes import heard, process
from benchmarks.ways_to_write import FILE_BYTES, WAYS, Way, make_file
from pfsb.bench.client import LoadFailed
from pfsb.bench.report import aligned

RECORD: Final = bytes(200)
RECORDS: Final = 20
"""Number of records that are written before the disk stops."""
WAIT_SECONDS: Final = 3.0
"""How long, in seconds, a call may take before it counts as one that waits for the disk."""
JOURNAL_SECONDS: Final = 7.0
"""Time, in seconds, after which ext4 has begun to write its journal, which it does every five seconds."""


class Trouble(Enum):
    """The state of the disk when a write is begun."""

    NONE = "none"
    FROZEN = "the file system is frozen"
    HANGS = "the disk hangs"
    JOURNAL = "the disk has hung for 7 s, since just after a write"


@frozen
class FileSystems:
    """A file system, `inner`, whose disk is a file on another one."""

    outer: Path
    inner: Path

    def stop(self, trouble: Trouble) -> None:
        if trouble is Trouble.FROZEN:
            _run("fsfreeze", "-f", self.inner)
        elif trouble is not Trouble.NONE:
            _run("fsfreeze", "-f", self.outer)

    def go_on(self) -> None:
        for place in (self.outer, self.inner):
            subprocess.run(["fsfreeze", "-u", str(place)], capture_output=True)


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def _unmount(place: Path) -> None:
    """Unmount a file system, as soon as the last process has ended that was held by it."""
    for _ in range(50):
        if subprocess.run(["umount", str(place)], capture_output=True).returncode == 0:
            return
        time.sleep(0.2)
    _run("umount", place)


@contextmanager
def file_systems(directory: Path) -> Iterator[FileSystems]:
    """Make and mount two ext4 file systems, one on a file of the other, until the end of the block."""
    made = FileSystems(directory / "outer", directory / "inner")
    with ExitStack() as stack:
        for place, image, size in (
            (made.outer, directory / "disk", 12 * FILE_BYTES),
            (made.inner, made.outer / "disk", 6 * FILE_BYTES),
        ):
            place.mkdir()
            with image.open("wb") as file:
                file.write(bytes(size))
            _run("mkfs.ext4", "-q", "-F", image)
            _run("mount", "-o", "loop", image, place)
            stack.callback(_unmount, place)
        stack.callback(made.go_on)
        yield made


def try_way(line: Connection, way: type[Way], path: Path) -> None:
    """The work of a process: it writes records, and begins one more when it is told to. It sends how long that took."""
    make_file(path)
    tried = way(path)
    for _ in range(RECORDS):
        tried.begin(RECORD)
        select.select([tried.descriptor], [], [])
        with suppress(BlockingIOError):  # with RWF_NOWAIT a write may be refused
            tried.end()
    line.send("ready")
    line.recv()
    begun = time.perf_counter()
    tried.begin(RECORD)
    line.send(time.perf_counter() - begun)


def outcome(way: type[Way], trouble: Trouble, made: FileSystems) -> str:
    """Try one way in one trouble, and say what has become of the call that begins a write."""
    with process(try_way, way, made.inner / "file") as (line, _):
        heard(line)
        try:
            made.stop(trouble)
            if trouble is Trouble.JOURNAL:
                time.sleep(JOURNAL_SECONDS)
            line.send("begin")
            return f"returns, {1e6 * line.recv():.0f} us" if line.poll(WAIT_SECONDS) else "waits"
        finally:
            made.go_on()


def main(given: Sequence[str] | None = None) -> int:
    """Tries and prints. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hanging_disks", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the file systems")
    asked = parser.parse_args(given)
    with tempfile.TemporaryDirectory(prefix="pfsb-hanging-", dir=asked.directory) as scratch:
        place = Path(scratch)
        try:
            with file_systems(place) as made:
                rows = [[way.name, *(outcome(way, trouble, made) for trouble in Trouble)] for way in WAYS]
        except (LoadFailed, OSError, subprocess.CalledProcessError) as error:
            print(f"hanging_disks: {error}", file=sys.stderr)
            return 1
    print(aligned([["who writes", *(trouble.value for trouble in Trouble)], *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
