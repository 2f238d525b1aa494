"""Departure 34: the first update of a cluster, which brings the settings that decide results."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from pfsb.paxos.messages import ClientUpdate


@frozen
class Birth:
    """Two functions by which the layer above (sessions) makes the first update of a cluster, and knows one."""

    make: Callable[[], ClientUpdate]
    """Makes the first update. Called by a leader that finds nothing accepted in slot 1."""
    is_birth: Callable[[ClientUpdate], bool]
    """Tells whether an update is such a first update, made by whichever leader."""
