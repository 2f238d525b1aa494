"""QuotaWatch: writes a line into the text log of one server when a quota of the replicated state is nearly used up.

The line is only for people. Whether a command is refused is decided by the state machine alone, equally on every
server.
"""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger

from pfsb.sessions.state_machine import SessionStateMachine

WARNING_PERCENT = 80
"""Share of a quota, in per cent, from which its use is logged."""
CALM_PERCENT = 70
"""Share of a quota, in per cent, below which its use must fall before it is logged again."""


@define(eq=False)
class QuotaWatch:
    """The quotas of which this server has logged that they are nearly used up."""

    log = Logger()

    _machine: SessionStateMachine
    _told: set[str] = field(init=False, factory=set)

    def look(self) -> None:
        """Log each quota whose use has reached `WARNING_PERCENT` since it was below `CALM_PERCENT`."""
        for name, (used, limit) in self._machine.quotas().items():
            if used is None:
                continue
            if used * 100 >= limit * WARNING_PERCENT and name not in self._told:
                self._told.add(name)
                self.log.warn(
                    "the quota {name} is used to {percent} per cent ({used} of {limit}); what would go beyond it is "
                    "refused, except that of kept answers the oldest are dropped",
                    name=name,
                    percent=used * 100 // limit,
                    used=used,
                    limit=limit,
                )
            elif used * 100 < limit * CALM_PERCENT:
                self._told.discard(name)
