"""Whether this server stops together with all others of its cluster, so that it hands its view over to none of them.

This module imports nothing that takes time: `pfsb cluster` uses it in the first moments of its servers.
"""

from __future__ import annotations

from typing import Final

from attrs import define


@define(eq=False)
class WholeCluster:
    """Knowledge about the other servers, from `pfsb cluster`, which has started this one."""

    stops: bool = False
    """Whether all servers of the cluster are asked to stop now."""


WHOLE_CLUSTER: Final = WholeCluster()
"""The knowledge of this process about the other servers. There is one object of this class, since twistd makes the
server by itself."""
