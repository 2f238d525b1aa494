"""The mark of long tests, and the number of random examples of a test. `make quick` skips the former and tries fewer.

Long are tests with simulator runs, real clusters of processes, and load, and others that take as much time.
"""

from __future__ import annotations

import os
from typing import Any, Final, TypeVar

T = TypeVar("T", bound=Any)

IS_QUICK: Final = bool(os.environ.get("PFSB_QUICK"))
"""Whether this run is one of `make quick`."""


def long(test: T) -> T:
    """Mark a test class or method that takes more than about half a second. PFSB_QUICK in the environment skips it."""
    if IS_QUICK:
        test.skip = "long; PFSB_QUICK leaves it out"
    return test


def examples(number: int) -> int:
    """Number of random examples that a test tries: `number`, or a fifth of it, but 10 at least, with PFSB_QUICK in the
    environment."""
    return max(10, number // 5) if IS_QUICK else number
