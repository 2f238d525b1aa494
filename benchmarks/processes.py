"""Runs parts of a benchmark in processes of their own, which end with the block that started them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from pfsb.bench.client import LoadFailed

START_SECONDS: Final = 30.0
"""How long, in seconds, a process may take to send its next result."""
_END_SECONDS: Final = 5.0


@contextmanager
def process(work: Callable[..., None], *args: Any) -> Iterator[tuple[Connection, int]]:
    """Run `work` in a process until the end of the block. Yields a connection to the process, and its process id."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=work, args=(theirs, *args), daemon=True)
    child.start()
    assert child.pid is not None
    try:
        yield ours, child.pid
    finally:
        child.terminate()
        child.join(_END_SECONDS)
        child.kill()
        child.join()


def heard(line: Connection) -> Any:
    """The next object that a process sends. Raises `LoadFailed` if none comes within `START_SECONDS`."""
    if not line.poll(START_SECONDS):
        raise LoadFailed(f"a process said nothing for {START_SECONDS:g} seconds")
    try:
        return line.recv()
    except EOFError:
        raise LoadFailed("a process ended before it sent its result") from None
