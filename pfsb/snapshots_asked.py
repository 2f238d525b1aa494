"""SnapshotsAsked: the snapshots that clients of a server ask for (SNAPSHOT, POST /v1/snapshot, POST /v1/backup)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Answer, Done, Refused, Word
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import SnapshotName

ASKED_MAX = 100
"""Maximum number of requests that may wait for a snapshot."""

Taken = Callable[[SnapshotName | Refused], None]
"""Function that is called, once, with the snapshot that was asked for, or with the reason why there is none."""


@frozen
class GivenBackup:
    """A backup that a client of this server has got as a whole."""

    at: float
    """When the client had got all of the backup, in seconds since 1970."""
    seq: int
    """The slot whose state the backup holds."""


@define(eq=False)
class SnapshotsAsked:
    """Has snapshots taken for clients of this server, and lets none of them wait without end.

    A request may have its answer before the snapshot is finished; the snapshot goes on then.
    """

    _replica: Replica
    _clock: IReactorTime
    _is_born: Callable[[], bool]
    """Tells whether slot 1 is executed: before, there is no state of which a snapshot could be taken."""
    _waiting: dict[int, tuple[Taken, IDelayedCall]] = field(factory=dict, init=False)
    """Number of a request -> the function that is called with its result, and the call that ends the waiting."""
    _number: int = field(default=0, init=False)
    last_backup: GivenBackup | None = field(default=None, init=False)
    """The last backup that a client has got since this server's start."""

    def note_backup(self, name: SnapshotName) -> None:
        """Take notice that a client has got the whole of this snapshot."""
        self.last_backup = GivenBackup(self._clock.seconds(), name.seq)

    def take(self, seconds: float, taken: Taken) -> None:
        """Take a snapshot of the state that this server has executed by now. After `seconds` the request is refused,
        even if the snapshot is not finished."""
        self._replica.perform(self._take, seconds, taken)

    def answer(self, seconds: float, answer: Answer) -> None:
        """Take a snapshot, and answer a client with its slot, size and digest."""
        self.take(seconds, partial(_answer, answer))

    def _take(self, seconds: float, taken: Taken) -> None:
        turn = self._replica.turn
        why_none = self._replica.snapshot_taker.why_none()
        if why_none is not None:
            turn.refuse(taken, Refused("UNAVAILABLE", why_none))
        elif not self._is_born():
            turn.refuse(
                taken, Refused("UNAVAILABLE", "this server has executed nothing yet, so there is no state to keep")
            )
        elif turn.trouble is not None:
            turn.refuse(taken, Refused("UNAVAILABLE", "the disk of this server takes nothing at present"))
        elif len(self._waiting) >= ASKED_MAX:
            turn.refuse(taken, Refused("BUSY", f"{ASKED_MAX} requests wait for a snapshot already"))
        else:
            self._number += 1
            number = self._number
            told = partial(self._taken, number)
            self._waiting[number] = taken, self._clock.callLater(seconds, self._too_late, number, seconds, told)
            self._replica.snapshot_taker.take_now(told)

    def _taken(self, number: int, name: SnapshotName | None) -> None:
        taken, call = self._waiting.pop(number, (None, None))
        if taken is not None and call is not None:
            call.cancel()
            why = "the snapshot was given up; the log of the server says why. Nothing else has changed"
            taken(Refused("UNAVAILABLE", why) if name is None else name)

    def _too_late(self, number: int, seconds: float, told: Callable[[SnapshotName | None], None]) -> None:
        taken, _ = self._waiting.pop(number)
        taker = self._replica.snapshot_taker
        taker.forget(told)
        if taker.waits_for_majority:
            text = (
                f"within {seconds:g} s no majority of the servers has told that it has executed the same; the snapshot "
                "counts as soon as one does (pfsb status shows which servers answer)"
            )
        else:
            text = f"the snapshot is not finished within {seconds:g} s; it goes on, and STATUS shows when it is there"
        taken(Refused("UNAVAILABLE", text))


def _answer(answer: Answer, found: SnapshotName | Refused) -> None:
    if isinstance(found, Refused):
        answer(found)
    else:
        answer(Done((("seq", found.seq), ("bytes", found.size), ("digest", Word(found.digest.hex())))))
