"""Runs a load client as a process of its own, and reads its result.

`load.c` is built with the system's compiler on first use. Without a compiler, `plain_load.py` does the same, more
slowly. All functions here block, so they must not be called in the thread of a reactor.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from pfsb.bench.histogram import Histogram

SOURCE: Final = Path(__file__).with_name("load.c")
CLIENTS: Final = ("auto", "c", "python")
CLOSE_SECONDS: Final = 5.0
"""How long, in seconds, a load client may take to end after it has printed its result."""


class LoadFailed(Exception):
    """The load client could not be built, or gave up; the text says why."""


@frozen
class LoadResult:
    """The result of one run of a load client."""

    client: str
    """The name of the load client: c or python for those of pfsb, another name for other programs."""
    operations: int
    errors: int
    missed: int
    """Open loop only: number of operations that were not begun, because every connection had `depth` operations under
    way when they were due."""
    first_error: str
    seconds: float
    cpu_seconds: float
    """User and system time, in seconds, that the load client used during the measured time."""
    histogram: Histogram
    begun: Any = None
    ended: Any = None
    """The state of the servers when the measured time ended, as `LoadClient.run` got it from its callback `look`;
    `begun` is their state when the measured time began."""

    @property
    def per_second(self) -> float:
        """Operations per second of the measured time."""
        return self.operations / self.seconds if self.seconds else 0.0


def cache_directory() -> Path:
    """The directory for programs that are built or downloaded once: below $XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pfsb"


def compiler() -> str | None:
    """The system's C compiler: $CC, cc, gcc or clang. None: there is none."""
    return shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")


def build(directory: Path | None = None) -> Path:
    """Compile `load.c`, unless that was done before; returns the program's path. Raises `LoadFailed`.

    The program is kept below `directory`; None: in the cache directory.
    """
    cc = compiler()
    if cc is None:
        raise LoadFailed("there is no C compiler (cc, gcc or clang); the client in Python needs none")
    digest = hashlib.blake2b(SOURCE.read_bytes() + cc.encode(), digest_size=8).hexdigest()
    program = (directory or cache_directory()) / f"load-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        # The program is built under another name first: another process may be building it at the same time.
        with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
            built = Path(scratch) / "load"
            done = subprocess.run([cc, "-O2", "-o", built, SOURCE], capture_output=True, text=True)
            if done.returncode:
                raise LoadFailed(f"{cc} cannot build {SOURCE}: {done.stderr.strip()}")
            built.replace(program)
    return program


def client_command(kind: str = "auto") -> list[str]:
    """The command line that starts the load client in `c` or `python`; `auto`: in C if there is a compiler.

    Raises `LoadFailed` if the client in C cannot be built.
    """
    if kind == "python" or (kind == "auto" and compiler() is None):
        return [sys.executable, "-m", "pfsb.bench.plain_load"]
    return [str(build())]


@define(eq=False)
class LoadClient:
    """Runs a load client, one run at a time.

    A load client is a program that reads a workload and prints `begin`, `end` and one JSON object.
    """

    command: Sequence[str]
    environment: dict[str, str] | None = None
    _process: subprocess.Popen[str] | None = field(init=False, default=None)
    _stopped: bool = field(init=False, default=False)

    def run(self, workload: str, look: Callable[[], Any] = lambda: None) -> LoadResult:
        """Run a workload, a text as `Workload.render` makes it. Raises `LoadFailed`.

        `look` is called once when the measured time begins and once when it ends; the result has what it returned.
        """
        if self._stopped:
            raise LoadFailed("interrupted")
        with tempfile.TemporaryFile("w+") as complaints:
            process = self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                env=self.environment,
            )
            try:
                seen, words = self._converse(process, workload, look)
                if words is not None:
                    self._let_go(process)
            finally:
                process.kill()
                process.wait()
            if words is None and self._stopped:
                raise LoadFailed("interrupted")
            if words is None:
                complaints.seek(0)
                raise LoadFailed(f"the load client gave up: {complaints.read().strip() or 'without a word'}")
        return read_result(words, seen.get("begin"), seen.get("end"))

    def stop(self) -> None:
        """End the run at once; further runs fail. May be called from any thread."""
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    @staticmethod
    def _let_go(process: subprocess.Popen[str]) -> None:
        """Wait for the end of a client that has printed its result, so that it can close its sessions."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CLOSE_SECONDS)

    @staticmethod
    def _converse(
        process: subprocess.Popen[str], workload: str, look: Callable[[], Any]
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        assert process.stdin is not None and process.stdout is not None
        seen: dict[str, Any] = {}
        try:
            process.stdin.write(workload)
            process.stdin.close()
        except BrokenPipeError:
            return seen, None
        for line in process.stdout:
            word = line.strip()
            if word in ("begin", "end"):
                seen[word] = look()
            elif word.startswith("{"):
                return seen, json.loads(word)
        return seen, None


def read_result(words: dict[str, Any], begun: Any = None, ended: Any = None) -> LoadResult:
    """The result in the JSON object that a load client has printed; `begun` and `ended` become fields of it. Raises
    `LoadFailed` if the object is no result."""
    try:
        counts = Histogram((int(number), int(count)) for number, count in words["histogram"])
        return LoadResult(
            client=str(words["client"]),
            operations=int(words["operations"]),
            errors=int(words["errors"]),
            missed=int(words.get("missed", 0)),
            first_error=str(words["first_error"]),
            seconds=float(words["seconds"]),
            cpu_seconds=float(words["cpu_seconds"]),
            histogram=counts,
            begun=begun,
            ended=ended,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LoadFailed(f"the load client printed something else than a result: {error!r}") from None
