"""How many files and sockets this process may have open: systems begin with few, and allow more to who asks."""

from __future__ import annotations

import contextlib
import resource


def allow_many_files() -> int:
    """Raise the limit as far as the system lets this process; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where "unlimited" is not taken at its word, it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft
