"""Sampled stacks in py-spy's format `raw`: as a tree, and counted for the parts of the program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import define, field

THROUGH_MIN: Final = 0.9
"""Share of all samples above which a frame at the bottom is left out: it has nothing beside it that is worth a row, as
in twistd and the reactor's loop."""

MAIN_THREAD: Final = "MainThread"
WAITS: Final = frozenset(
    {
        "EPollReactor.doPoll (twisted/internet/epollreactor.py)",
        "doPoll (twisted/internet/epollreactor.py)",
        "GroupWriter._write_waiting (pfsb/storage/threads.py)",
        "HistoryReader._run (pfsb/storage/threads.py)",
    }
)
"""Functions in which threads wait for work; these functions themselves take hardly any CPU time."""

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
"""(part of the program, beginning of the file's path); a frame belongs to the first part that fits."""
OTHER: Final = "Python"
"""The part of all other frames: the standard library, and C code that it calls."""
_LIBRARIES: Final = "site-packages/"


@define
class Frame:
    """A function with one chain of callers from the bottom of the stack."""

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
"""(frames from the bottom, number of samples)."""


def part_of(name: str) -> str:
    file = name.rpartition("(")[2].rpartition(_LIBRARIES)[2]
    return next((part for part, marker in PARTS if file.startswith(marker)), OTHER)


def parse(raw: str) -> list[Stack]:
    """The stacks in lines `frame;frame;frame count`; the first frame is the thread (`thread (8335): MainThread`)."""
    stacks: list[Stack] = []
    for line in filter(None, map(str.strip, raw.splitlines())):
        frames, _, count = line.rpartition(" ")
        thread, *called = frames.split(";")
        stacks.append(((thread.partition("): ")[2] or thread, *called), int(count)))
    return stacks


def busy(stacks: Iterable[Stack]) -> list[Stack]:
    """The stacks without threads that only wait, which py-spy leaves out on some systems but not on all."""
    return [(frames, count) for frames, count in stacks if frames[-1] not in WAITS]


def busy_cores(stacks: Sequence[Stack]) -> float:
    """How many cores the threads together keep busy; each thread is sampled equally often, the main one always."""
    each = sum(count for frames, count in stacks if frames[0] == MAIN_THREAD)
    return sum(count for _, count in busy(stacks)) / each if each else 0.0


def tree(stacks: Iterable[Stack]) -> Frame:
    """The stacks as a tree from the bottom up, without the frames below each thread that hold almost everything."""
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
    """The share of all samples in each part of the program.

    Code of the standard library and in C counts for the part that has called it, because that part causes its cost.
    """
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        parts = map(part_of, reversed(frames))
        counted[next((part for part in parts if part != OTHER), OTHER)] += count
    total = sum(counted.values())
    return {part: count / total for part, count in counted.most_common()} if total else {}
