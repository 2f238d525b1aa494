"""The mark of long tests: simulator runs, real clusters of processes, and load. `make quick` leaves them out."""

from __future__ import annotations

import os
from typing import Any, TypeVar

T = TypeVar("T", bound=Any)


def long(test: T) -> T:
    """Mark a test class or method that takes more than about a second. PFSB_QUICK in the environment skips it."""
    if os.environ.get("PFSB_QUICK"):
        test.skip = "long; PFSB_QUICK leaves it out"
    return test
