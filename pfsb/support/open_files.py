"""Raises the limit on the files and sockets that this process may have open, which is low when a process starts."""

from __future__ import annotations

import contextlib
import resource


def allow_many_files() -> int:
    """Raise the limit on open files as far as the system allows this process; returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems report "unlimited" and refuse it: keep the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft
