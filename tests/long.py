"""The mark of long tests: simulator runs, real clusters of processes, load, and others that take as much time.

`make quick` leaves long tests out.
"""

from __future__ import annotations

import os
from typing import Any, Final, TypeVar

T = TypeVar("T", bound=Any)

IS_QUICK: Final = bool(os.environ.get("PFSB_QUICK"))
"""Whether this run is one of `make quick`."""
IS_LONG: Final = bool(os.environ.get("PFSB_TEST_LONG"))
"""Whether this run is one of `make test-all`."""


def long(test: T) -> T:
    """Mark a test class or method that takes more than about half a second. PFSB_QUICK in the environment skips it."""
    if IS_QUICK:
        test.skip = "long; PFSB_QUICK leaves it out"
    return test


def longest(test: T) -> T:
    """Mark a test class or method that takes minutes, in part for situations that other tests reach too. It runs only
    with PFSB_TEST_LONG in the environment (`make test-all`)."""
    if not IS_LONG:
        test.skip = "very long; PFSB_TEST_LONG=1 or make test-all runs it"
    return test
