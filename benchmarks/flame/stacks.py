"""Sampled stacks, as py-spy's format `raw` has them, as a tree; and which part of the program each sample was in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import define, field

THROUGH_MIN: Final = 0.9
"""A frame below which so much of everything is has nothing beside it worth a row: twistd, the reactor's loop."""

MAIN_THREAD: Final = "MainThread"
WAITS: Final = frozenset(
    {
        "EPollReactor.doPoll (twisted/internet/epollreactor.py)",
        "doPoll (twisted/internet/epollreactor.py)",
        "GroupWriter._write_waiting (pfsb/storage/threads.py)",
        "HistoryReader._run (pfsb/storage/threads.py)",
    }
)
"""Where threads wait for something to do; what these functions themselves compute is next to nothing."""

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
"""What a frame belongs to, by its file: the first that fits."""
OTHER: Final = "Python"
"""What none of them is: the standard library, and C code called from it."""
_LIBRARIES: Final = "site-packages/"


@define
class Frame:
    """A function as it was called on one way from the bottom of the stack."""

    name: str
    """As in `turn (pfsb/paxos/turn.py)`."""
    samples: int = 0
    """In it, and in what it called."""
    callees: dict[str, Frame] = field(factory=dict)

    @property
    def part(self) -> str:
        """What its file belongs to, whatever directory that is installed in."""
        return part_of(self.name)


Stack = tuple[Sequence[str], int]
"""(frames from the bottom, samples)."""


def part_of(name: str) -> str:
    file = name.rpartition("(")[2].rpartition(_LIBRARIES)[2]
    return next((part for part, marker in PARTS if file.startswith(marker)), OTHER)


def parse(raw: str) -> list[Stack]:
    """Lines of `frame;frame;frame count`; the first frame is the thread, as in `thread (8335): MainThread`."""
    stacks: list[Stack] = []
    for line in filter(None, map(str.strip, raw.splitlines())):
        frames, _, count = line.rpartition(" ")
        thread, *called = frames.split(";")
        stacks.append(((thread.partition("): ")[2] or thread, *called), int(count)))
    return stacks


def busy(stacks: Iterable[Stack]) -> list[Stack]:
    """Without threads that only wait. py-spy leaves them out where the system tells it, which not every one does."""
    return [(frames, count) for frames, count in stacks if frames[-1] not in WAITS]


def busy_cores(stacks: Sequence[Stack]) -> float:
    """How many cores the threads together keep busy: each is sampled as often, and the main one always."""
    each = sum(count for frames, count in stacks if frames[0] == MAIN_THREAD)
    return sum(count for _, count in busy(stacks)) / each if each else 0.0


def tree(stacks: Iterable[Stack]) -> Frame:
    """From the bottom up: below each thread, what has something beside it."""
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
    """Of all samples, how many were in each part.

    What runs in the standard library or in C counts for the part that has called it: a part pays for what it asks for.
    """
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        parts = map(part_of, reversed(frames))
        counted[next((part for part in parts if part != OTHER), OTHER)] += count
    total = sum(counted.values())
    return {part: count / total for part, count in counted.most_common()} if total else {}
