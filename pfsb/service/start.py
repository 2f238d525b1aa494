"""The names that twistd looks up for `twistd pfsb`. They take the signals of the process, and import the server only
then, which takes a second on a small machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pfsb.service.log_signals import LOG_SIGNALS

if TYPE_CHECKING:
    from twisted.application.service import Service

    from pfsb.service import service


def Options() -> service.Options:
    """Make the command line of `twistd pfsb`; called by twistd when it finds the word `pfsb`."""
    LOG_SIGNALS.take()
    from pfsb.service import service

    return service.Options()


def makeService(options: service.Options) -> Service:
    """Make the service of one server; called by twistd when it has read the command line."""
    from pfsb.service import service

    return service.makeService(options)
