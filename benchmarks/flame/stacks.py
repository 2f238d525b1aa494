"""Reads stacks sampled by py-spy (format `raw`); makes a tree of them, and counts them for parts of the program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import define, field

THROUGH_MIN: Final = 0.9
"""Share of a thread's samples from which on a frame at the bottom of the stacks is left out of the tree.

Such frames (twistd, the reactor's loop) are in almost all stacks, and would only add rows to the drawing.
"""

MAIN_THREAD: Final = "MainThread"
WAITS: Final = frozenset(
    {
        "EPollReactor.doPoll (twisted/internet/epollreactor.py)",
        "doPoll (twisted/internet/epollreactor.py)",
        "GroupWriter._write_waiting (pfsb/storage/threads.py)",
        "HistoryReader._run (pfsb/storage/threads.py)",
    }
)
"""Functions in which threads wait for work. Samples taken in one of them are idle time."""

PARTS: Final = (
    ("protocol", "pfsb/paxos/"),
    ("sessions", "pfsb/sessions/"),
    ("applications", "pfsb/applications/"),
    ("front ends", "pfsb/frontends/"),
    ("between servers", "pfsb/transports/"),
    ("storage", "pfsb/storage/"),
    ("rest of pfsb", "pfsb/"),
    ("Twisted", "twisted/"),
)
"""(part of the program, beginning of the paths of its files). A frame belongs to the first part that fits its file."""
OTHER: Final = "Python"
"""The part of the program to which all other frames belong: the standard library, and C code that it calls."""
_LIBRARIES: Final = "site-packages/"


@define
class Frame:
    """A node of the tree: a function that was called by one particular chain of callers."""

    name: str
    """The function and its file, as in `turn (pfsb/paxos/turn.py)`."""
    samples: int = 0
    """Number of samples in the function and its callees."""
    callees: dict[str, Frame] = field(factory=dict)

    @property
    def part(self) -> str:
        """The part of the program that the function belongs to."""
        return part_of(self.name)


Stack = tuple[Sequence[str], int]
"""(names of the frames from the bottom of a stack to its top, number of samples with this stack)."""


def part_of(name: str) -> str:
    file = name.rpartition("(")[2].rpartition(_LIBRARIES)[2]
    return next((part for part, marker in PARTS if file.startswith(marker)), OTHER)


def parse(raw: str) -> list[Stack]:
    """The stacks in py-spy's lines `frame;frame;frame count`, where the first frame names the thread.

    Of `thread (8335): MainThread`, the name after the colon is kept.
    """
    stacks: list[Stack] = []
    for line in filter(None, map(str.strip, raw.splitlines())):
        frames, _, count = line.rpartition(" ")
        thread, *called = frames.split(";")
        stacks.append(((thread.partition("): ")[2] or thread, *called), int(count)))
    return stacks


def busy(stacks: Iterable[Stack]) -> list[Stack]:
    """The stacks without those of waiting threads. py-spy leaves these out by itself only on some systems."""
    return [(frames, count) for frames, count in stacks if frames[-1] not in WAITS]


def busy_cores(stacks: Sequence[Stack]) -> float:
    """The number of cores that all threads together keep busy, on average.

    The busy samples of all threads are divided by the number of times that each thread was sampled, which is the number
    of samples of the main thread.
    """
    each = sum(count for frames, count in stacks if frames[0] == MAIN_THREAD)
    return sum(count for _, count in busy(stacks)) / each if each else 0.0


def tree(stacks: Iterable[Stack]) -> Frame:
    """The stacks as a tree, from callers to callees: root, threads, functions.

    Frames at the bottom of a thread that are in almost all of its stacks are left out (`THROUGH_MIN`).
    """
    root = Frame("all")
    for frames, count in stacks:
        at = root
        at.samples += count
        for each in frames:
            at = at.callees.setdefault(each, Frame(each))
            at.samples += count
    root.callees = {name: _without_bottom(thread) for name, thread in root.callees.items()}
    return root


def _without_bottom(thread: Frame) -> Frame:
    bottom = thread
    while (below := max(bottom.callees.values(), key=_samples, default=None)) and below.callees:
        if below.samples < THROUGH_MIN * thread.samples:
            break
        bottom = below
    return Frame(thread.name, thread.samples, bottom.callees)


def _samples(frame: Frame) -> int:
    return frame.samples


def shares(stacks: Sequence[Stack]) -> dict[str, float]:
    """Part of the program -> its share of all samples.

    A sample in the standard library or in C code counts for the part that has called it, since that causes the cost.
    """
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        parts = map(part_of, reversed(frames))
        counted[next((part for part in parts if part != OTHER), OTHER)] += count
    total = sum(counted.values())
    return {part: count / total for part, count in counted.most_common()} if total else {}
