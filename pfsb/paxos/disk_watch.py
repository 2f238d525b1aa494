"""Departures 44 and 45: a server whose disk hangs or is full takes no part, until the disk takes records again.

The paper knows disks that work and servers that crash. A disk can also neither answer nor fail, for seconds or for
ever; and a full disk refuses writes. In both cases this server has promised nothing wrong and has lost nothing, so it
goes on running, as a server that the network has cut off:

* It handles only messages that need no disk (`HANDLED`), as if the others were lost; it proposes nothing, repeats
  nothing, asks for no slots, and suspects no leader.
* Its ALIVE tells the state LEADER_ELECTION. So no leader counts it as a follower: a leader that counted on followers
  without votes would stay for ever in a view in which nothing can be ordered. The followers of a leader whose ALIVE
  tells this suspect the leader at once (`AliveHandler.on_alive`).
* A leader whose disk is full is the exception: it tells that it leads, so that reads are answered if all disks are
  full. As soon as an update waits, the Progress_Timers of the servers that can write suspect it.
* Clients are refused at once, and no answer waits for the disk (`pfsb.sessions.connection`).

While the disk hangs, messages are dropped at the durability gate, and answers become refusals there. So the memory
behind the gate does not grow, however long the disk hangs.

Why safe: a dropped message is the same as one that the network has lost. An ALIVE may say less than its sender could:
no server ever relies on a state that an ALIVE tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.logger import Logger

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.interfaces import IStableStorage
from pfsb.paxos.messages import (
    Accept,
    Alive,
    Confirm,
    Confirmed,
    Message,
    Ordered,
    ReadIndex,
    ReadRequest,
    ReconciliationRequest,
    SnapshotRequest,
)

HANDLED: Final = {
    DiskTrouble.HANGS: (Alive,),
    DiskTrouble.FULL: (
        Accept,
        Ordered,
        Alive,
        Confirm,
        Confirmed,
        ReadRequest,
        ReadIndex,
        ReconciliationRequest,
        SnapshotRequest,
    ),
}
"""Disk trouble -> the kinds of messages that a server handles during this trouble. None of them forces a record to
disk.

An ACCEPT or an ORDERED lets a server with a full disk execute slots for which it has voted before, up to the next
change of the membership (`OrderedUpdateQueue.may_hold_change`).
"""

LINE: Final = "disk"
"""Reason by which the messages that are not handled during disk trouble are counted among the discarded ones."""


class DiskWatch(Handler):
    """Notices that the disk hangs, is full, or works again, by a look every `alive_seconds`."""

    _log = Logger()

    def __init__(self, core: Core, storage: IStableStorage, alive: AliveHandler) -> None:
        super().__init__(core)
        self._storage = storage
        self._alive = alive
        self.on_change: Callable[[], None] = lambda: None
        """Called in a turn when trouble of the disk begins or ends, or changes to the other kind of trouble; set by
        `Replica.attach`."""
        self.on_end: Callable[[], None] = lambda: None
        """Called in a turn when trouble of the disk has ended."""
        self.begun = dict.fromkeys(DiskTrouble, 0)
        """Trouble -> how often it has begun since the start of this server."""
        self._looked_at = core.clock.seconds()
        self._was_writing = False
        self._durable_position = 0
        self._waited = 0.0
        """For how long, in seconds, the looks at the disk have found one and the same write under way; 0 if the last
        two looks did not both find the same write."""
        self._since = 0.0
        """Time by the clock at which the present trouble was noticed."""

    @property
    def seconds(self) -> float:
        """How long, in seconds, the present trouble has lasted since it was noticed; 0.0: there is none."""
        return self._clock.seconds() - self._since if self._turn.trouble is not None else 0.0

    def handled(self, messages: Sequence[Message]) -> list[Message]:
        """Select, from the messages of one frame, those that this server handles while its disk is in its present
        trouble."""
        trouble = self._turn.trouble
        assert trouble is not None, "without trouble every message is handled"
        return [message for message in messages if isinstance(message, HANDLED[trouble])]

    def look(self) -> None:
        """Look at the disk, while no turn runs. If trouble has begun or ended, or has changed to the other kind of
        trouble, run a turn that makes the server act on that."""
        self.note_waiting()
        trouble = self.find_trouble()
        if trouble is not self._turn.trouble:
            self._turn.run(self._change, trouble)

    def find_trouble(self) -> DiskTrouble | None:
        """The trouble that the disk is in; None: it works. The disk hangs if the looks (`note_waiting`) have found one
        write under way for longer than `disk_seconds`, and it is full if the storage says so.
        """
        if self._waited > self._settings.disk_seconds:
            return DiskTrouble.HANGS
        return DiskTrouble.FULL if self._storage.is_full else None

    def note_waiting(self) -> None:
        """Look whether the write that the last look found under way still is, and note for how long that has been so.

        Between two looks at most two periods of ALIVE are counted, so that a process that stood still does not take its
        disk for a hanging one.
        """
        now = self._clock.seconds()
        passed, self._looked_at = min(now - self._looked_at, 2 * self._settings.alive_seconds), now
        is_writing, position = self._turn.is_writing, self._turn.durable_position
        goes_on = is_writing and self._was_writing and position == self._durable_position
        self._waited = self._waited + passed if goes_on else 0.0
        self._was_writing, self._durable_position = is_writing, position

    def _change(self, trouble: DiskTrouble | None) -> None:
        before, seconds = self._turn.trouble, self.seconds
        self._since = self._clock.seconds()
        self._turn.set_trouble(trouble)
        if trouble is not None:
            self.begun[trouble] += 1
        self._tell(before, trouble, seconds)
        self._turn.send_early(self._alive.own_alive())
        self.on_change()
        if trouble is None:
            self.on_end()

    def _tell(self, before: DiskTrouble | None, trouble: DiskTrouble | None, seconds: float) -> None:
        if self._tracer is not None:
            self._tracer.trace("disk", trouble=None if trouble is None else trouble.value)
        match trouble:
            case DiskTrouble.HANGS:
                self._log.error(
                    "the disk hangs: a write has had no answer for {seconds:.1f} s{why}. Until it has, this server "
                    "does not vote or lead, and refuses its clients",
                    seconds=self._waited,
                    why=", for want of room" if self._storage.is_full else "",
                )
            case DiskTrouble.FULL:
                self._log.error(
                    "the disk is full, but for its reserve: until there is room, this server does not vote or propose, "
                    "and refuses changes with READONLY"
                )
            case None:
                assert before is not None
                self._log.warn(
                    "the disk takes records again: it was in trouble ({trouble}) for {seconds:.1f} s",
                    trouble=before.value,
                    seconds=seconds,
                )
