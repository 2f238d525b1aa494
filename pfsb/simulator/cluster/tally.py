"""An application of the simulator that has two versions.

The applications of pfsb have one version each. So a setting of the cluster that names another version, and servers that
can run it sooner or later than others, need an application that was made for them (Departure 34).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack
from zope.interface import implementer

from pfsb.applications.application import Application, Verb
from pfsb.applications.arguments import Arguments
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Done,
    IContext,
    IReplicatedApplication,
    Result,
)

TALLY = "tally"


@implementer(IReplicatedApplication)
class Tally(Application):
    """Counts how often each name was given to TALLY. Version 2 tells also the sum over all names.

    Each version reads the snapshots of the other, so that a cluster can change from one to the other, and back again.
    """

    name = TALLY
    commands: Sequence[CommandDescription] = (CommandDescription("TALLY", "TALLY name", "Count a name."),)

    def __init__(self, version: int) -> None:
        self.version = version
        self.counts: dict[str, int] = {}
        super().__init__({"TALLY": Verb(_check, (str, str), self._tally)})

    def _tally(self, command: Command, context: IContext) -> Result:
        count = self.counts[command[1]] = self.counts.get(command[1], 0) + 1
        total = (("total", sum(self.counts.values())),) if self.version > 1 else ()
        return Done((("count", count), *total, ("revision", context.revision)))

    def snapshot(self) -> bytes:
        """The state as msgpack: (version, the pairs of name and count, in the order of the names)."""
        packed: bytes = msgpack.packb((self.version, sorted(self.counts.items())))
        return packed

    def restore(self, data: bytes) -> None:
        _, counts = msgpack.unpackb(data)
        self.counts = dict(counts)


def _check(asked: Arguments) -> Command:
    (name,) = asked.words(1, 1)
    return ("TALLY", name)
