"""The exit statuses of the `pfsb` subcommands that ask a cluster (docs/operating.rst): scripts decide by them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from pfsb.client.core.replies import Reply

_UNAVAILABLE_CODES: Final = frozenset({"UNAVAILABLE", "BUSY", "SHUTDOWN", "READONLY", "DIVERGED", "CLOSED"})
"""Codes of refusals after which the same command may succeed later, or at another server."""


class ExitStatus(IntEnum):
    """How a run of `pfsb` has ended. If it has sent several commands to the cluster, the highest number of theirs
    counts."""

    OK = 0
    REFUSED = 1
    """A server has refused the command, because of the state or of the command itself."""
    USAGE = 2
    """The command line is wrong."""
    UNAVAILABLE = 3
    """There was no answer from the cluster in time, for example since it has no majority; or a refusal that may not
    last."""
    UNREACHABLE = 4
    """No server has accepted a connection."""


def status_of(reply: Reply) -> ExitStatus:
    """The exit status for a reply: `OK`; or, for a refusal, `UNAVAILABLE` or `REFUSED`, as its code says."""
    if reply.ok:
        return ExitStatus.OK
    return ExitStatus.UNAVAILABLE if reply.code in _UNAVAILABLE_CODES else ExitStatus.REFUSED
