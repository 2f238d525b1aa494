"""The values measured in section 7 of the paper and in its technical report, with 4 to 20 servers.

Each client has one update under way. The values were read from the charts' vector data, to about one part in a hundred.
"Clean" is the paper's build of the normal case alone; "complete" has reconciliation, a dynamic window and recovery, as
pfsb has. The paper's charts with asynchronous disk writes are left out: pfsb acknowledges only updates that are on
disk, except with storage in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

SERVERS: Final = (4, 8, 12, 16, 20)
UPDATE_BYTES: Final = 200
SCALING_CLIENTS: Final = 25

Points = Mapping[int, Sequence[tuple[float, float]]]
"""Number of servers -> the points of a line: (number of clients, value)."""


@frozen
class Published:
    """One pair of charts of the paper: throughput in updates per second, and mean latency in milliseconds."""

    build: str
    throughput: Points
    latency: Points


def _by_servers(*columns: Sequence[tuple[float, float]]) -> Points:
    return dict(zip(SERVERS, columns, strict=True))


PLAIN_MEMORY: Final = Published(
    "clean",
    _by_servers(
        [(1, 4_000), (20, 26_400), (200, 16_300)],
        [(1, 3_440), (8, 15_300), (200, 10_950)],
        [(1, 3_020), (7, 10_800), (200, 8_060)],
        [(1, 2_770), (10, 8_240), (200, 6_560)],
        [(1, 2_650), (20, 6_680), (200, 5_560)],
    ),
    _by_servers(
        [(1, 0.25), (200, 12.0)],
        [(1, 0.29), (200, 17.9)],
        [(1, 0.33), (200, 24.5)],
        [(1, 0.36), (200, 30.1)],
        [(1, 0.37), (200, 35.6)],
    ),
)

PLAIN_DISK: Final = Published(
    "complete",
    _by_servers(
        [(1, 30.5), (2, 31.7), (50, 25.8)],
        [(1, 30.8), (2, 33.9), (50, 28.1)],
        [(1, 29.2), (2, 34.0), (50, 28.7)],
        [(1, 30.9), (2, 33.4), (50, 31.8)],
        [(1, 26.8), (2, 32.2), (50, 28.2)],
    ),
    _by_servers(
        [(1, 33), (50, 1_920)],
        [(1, 32), (50, 1_740)],
        [(1, 34), (50, 1_700)],
        [(1, 32), (50, 1_530)],
        [(1, 37), (50, 1_710)],
    ),
)

AGGREGATED_MEMORY: Final = Published(
    "aggregation",
    _by_servers(
        [(5, 4_890), (100, 30_000), (300, 33_150)],
        [(5, 4_950), (100, 27_600), (300, 39_500)],
        [(5, 4_940), (100, 33_300), (300, 39_800)],
        [(5, 4_950), (100, 34_100), (400, 41_100)],
        [(5, 4_940), (100, 32_800), (350, 40_600)],
    ),
    _by_servers(
        [(5, 1.0), (100, 3.2), (400, 13.2)],
        [(5, 1.0), (100, 3.4), (400, 10.8)],
        [(5, 1.0), (100, 2.9), (400, 9.5)],
        [(5, 1.0), (100, 2.9), (400, 9.0)],
        [(5, 1.0), (100, 2.9), (400, 9.8)],
    ),
)

AGGREGATED_DISK: Final = Published(
    "aggregation",
    _by_servers(
        [(25, 407), (100, 1_110), (450, 1_736)],
        [(25, 358), (100, 946), (450, 1_501)],
        [(25, 349), (100, 990), (450, 1_536)],
        [(25, 354), (100, 773), (450, 1_426)],
        [(25, 356), (100, 944), (450, 1_376)],
    ),
    _by_servers(
        [(25, 62), (100, 91), (450, 250)],
        [(25, 70), (100, 103), (450, 281)],
        [(25, 71), (100, 100), (450, 282)],
        [(25, 71), (100, 130), (450, 318)],
        [(25, 71), (100, 107), (450, 346)],
    ),
)

SCALING: Final[Mapping[str, Sequence[tuple[float, float, float]]]] = {
    "clean": (
        (4, 25_600, 0.94),
        (6, 19_300, 1.26),
        (8, 15_500, 1.57),
        (10, 12_500, 1.96),
        (12, 10_600, 2.33),
        (14, 9_200, 2.67),
        (16, 8_060, 3.05),
        (18, 7_230, 3.41),
        (20, 6_500, 3.80),
    ),
    "complete": (
        (4, 21_600, 1.22),
        (6, 16_500, 1.57),
        (8, 15_000, 1.71),
        (10, 11_100, 2.30),
        (12, 9_460, 2.67),
        (14, 8_620, 2.91),
        (16, 8_180, 3.06),
        (18, 7_520, 3.32),
        (20, 6_410, 3.90),
    ),
}
"""Build of the paper -> (servers, updates per second, latency in ms): 25 clients, in memory, without aggregation."""
