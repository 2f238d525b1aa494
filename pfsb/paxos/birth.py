"""Departure 34: the first update of a cluster, which brings the settings that decide results."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from pfsb.paxos.messages import ClientUpdate


@frozen
class Birth:
    """The knowledge of the layer above about the first update."""

    make: Callable[[], ClientUpdate]
    """Makes the first update. Called by a leader that finds nothing accepted in slot 1."""
    is_birth: Callable[[ClientUpdate], bool]
    """Whether an update is a first update, of whichever leader."""
