"""The checks at the end of a demo: statements that should be true of the run, with figures that show if they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from attrs import define, field, frozen

from pfsb.demo.load import Acknowledged


@frozen
class Check:
    """One statement that should be true of the run, the figure that shows whether it is, and the result."""

    claim: str
    figure: str
    holds: bool


@define
class Verdict:
    """The checks and figures of one demo."""

    checks: list[Check] = field(factory=list)
    figures: dict[str, str] = field(factory=dict)
    """Measured figures that are reported but not checked, by name."""

    def check(self, claim: str, holds: bool, figure: str) -> None:
        """Add a check: the statement, whether it is true, and the figure that shows it."""
        self.checks.append(Check(claim, figure, holds))

    @property
    def holds(self) -> bool:
        """Whether there is at least one check, and all checks have passed."""
        return bool(self.checks) and all(check.holds for check in self.checks)


@frozen
class ChatAccount:
    """The differences between a server's chat log and the lines that were acknowledged to clients.

    In a correct run all fields but `lines`, the number of lines in the log, are 0 or empty.
    """

    lines: int
    missing: list[str]
    """Acknowledged texts that are not in the log at the index that their acknowledgement gave."""
    doubled: list[str]
    """Texts that are in the log more than once."""
    foreign: list[str]
    """Texts in the log that no client has sent."""
    disordered: int
    """Number of lines in the log that come after a later line of their client, or whose index is not their position."""


def account(log: bytes, acknowledged: Sequence[Acknowledged], said: set[str]) -> ChatAccount:
    """Compare a chat log with the acknowledged lines; `said` has all texts that clients can have sent."""
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
    """Seconds from the time `since` to the first answer to a command that was sent after `since`; None: there was none.

    If the leader was killed at `since`, this is the time for which clients had to wait for a new one.
    """
    answers = [a.answered for a in acknowledged if a.sent > since]
    return min(answers) - since if answers else None


def longest_gap(acknowledged: Sequence[Acknowledged]) -> float:
    """The longest time, in seconds, in which no line of any client was acknowledged, between the first and the last
    one."""
    times = sorted(a.answered for a in acknowledged)
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


def throughput(acknowledged: Sequence[Acknowledged]) -> float:
    """Acknowledged lines per second, from the first request to the last answer."""
    if not acknowledged:
        return 0.0
    took = max(a.answered for a in acknowledged) - min(a.sent for a in acknowledged)
    return len(acknowledged) / max(took, 1e-9)
