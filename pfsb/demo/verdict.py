"""What must be true at the end of a demo, with the figures that show it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from attrs import define, field, frozen

from pfsb.demo.load import Acknowledged


@frozen
class Check:
    claim: str
    figure: str
    holds: bool


@define
class Verdict:
    checks: list[Check] = field(factory=list)
    figures: dict[str, str] = field(factory=dict)
    """What was measured, and is neither good nor bad by itself."""

    def check(self, claim: str, holds: bool, figure: str) -> None:
        self.checks.append(Check(claim, figure, holds))

    @property
    def holds(self) -> bool:
        """Every claim does, and there is one."""
        return bool(self.checks) and all(check.holds for check in self.checks)


@frozen
class ChatAccount:
    """A chat log beside what clients were told. All but `lines` should be 0 or empty."""

    lines: int
    missing: list[str]
    """Acknowledged, and not where the answer said."""
    doubled: list[str]
    foreign: list[str]
    """Nobody has said this."""
    disordered: int
    """Lines that come before an earlier one of the same client, or whose index is not their place."""


def account(log: bytes, acknowledged: Sequence[Acknowledged], said: set[str]) -> ChatAccount:
    """`said`: all texts that clients may have sent, each once."""
    entries = [_entry(line) for line in log.decode().splitlines()]
    texts = [text for _index, _client, text in entries]
    return ChatAccount(
        lines=len(entries),
        missing=[a.text for a in acknowledged if not 0 < a.index <= len(texts) or texts[a.index - 1] != a.text],
        doubled=[text for text, count in Counter(texts).items() if count > 1],
        foreign=[text for text in texts if text not in said],
        disordered=_disordered(entries),
    )


def _entry(line: str) -> tuple[int, str, str]:
    index, rest = line.split(" ", 1)
    client, end = json.JSONDecoder().raw_decode(rest)
    return int(index), client, json.loads(rest[end:])


def _disordered(entries: Iterable[tuple[int, str, str]]) -> int:
    latest: dict[str, int] = {}
    count = 0
    for place, (index, client, text) in enumerate(entries, start=1):
        number = int(text.rpartition(" ")[2])
        count += index != place or number <= latest.get(client, 0)
        latest[client] = number
    return count


def outage(acknowledged: Sequence[Acknowledged], since: float) -> float | None:
    """Seconds from then to the first answer of a command that was sent after it: somebody leads again."""
    answers = [a.answered for a in acknowledged if a.sent > since]
    return min(answers) - since if answers else None


def longest_gap(acknowledged: Sequence[Acknowledged]) -> float:
    """Seconds without any answer, between two."""
    times = sorted(a.answered for a in acknowledged)
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


def throughput(acknowledged: Sequence[Acknowledged]) -> float:
    """Lines a second, from the first question to the last answer."""
    if not acknowledged:
        return 0.0
    took = max(a.answered for a in acknowledged) - min(a.sent for a in acknowledged)
    return len(acknowledged) / max(took, 1e-9)
