"""PastReads: what a key was at an earlier revision (GET key at=REVISION), for the clients of one server.

If the key has not been written since, its present value is the answer. Otherwise another process builds the state of
that revision, of the snapshots, the log and the archive of this server (`IPastReader`): the reactor goes on meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Answer, Done, Refused, Result
from pfsb.paxos.replica import Replica
from pfsb.sessions.asking import ask
from pfsb.sessions.refusals import HANGING
from pfsb.sessions.revision_waiters import RevisionWaiters
from pfsb.sessions.state_machine import SessionStateMachine

ASKED_MAX: Final = 16
"""Maximum number of questions about the past that may be under way at a server."""
AHEAD_MAX: Final = 1_000
"""Maximum number of questions that may wait at a server for a revision that it has not executed."""


class IPastReader(Protocol):
    """Builds states of the past beside the server."""

    def ask(self, key: bytes, revision: int, answered: Callable[[Result], None]) -> None:
        """Call `answered`, once, with the value that the key had behind this revision, or with a refusal."""

    def stop(self) -> None:
        """Answer nothing any more."""


@define(eq=False)
class Shares:
    """Places for questions, of which the clients of one address may have as many as are free for others: half of all,
    if no other address asks, and a part for each of several that do."""

    _places: int
    under_way: int = field(default=0, init=False)
    """Number of places that are taken."""
    _of_address: Counter[str] = field(factory=Counter, init=False)
    """Address -> number of places that its clients have taken."""

    def may_take(self, address: str) -> bool:
        return self._of_address[address] < self._places - self.under_way

    def take(self, address: str) -> None:
        self.under_way += 1
        self._of_address[address] += 1

    def free(self, address: str) -> None:
        self.under_way -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


@define(eq=False)
class _Asked:
    address: str
    key: bytes
    revision: int
    answer: Answer
    until: float
    timeout: IDelayedCall | None = None
    is_answered: bool = False


@define(eq=False)
class PastReads:
    """Answers questions about the past, a few at a time, and lets none of them wait without end."""

    _replica: Replica
    _machine: SessionStateMachine
    _clock: IReactorTime
    _revisions: Callable[[], RevisionWaiters]
    """Function that returns the waiters for revisions; called only after the server's start, when they exist."""
    reader: IPastReader | None = None
    """Builds states of the past; None: this server keeps nothing on disk."""
    _asked: Shares = field(factory=lambda: Shares(ASKED_MAX), init=False)
    """The questions that have no answer yet, or whose state is still being built; those that wait for a revision are
    left out."""
    _ahead: Shares = field(factory=lambda: Shares(AHEAD_MAX), init=False)
    """The questions that wait for a revision."""

    @property
    def under_way(self) -> int:
        """Number of questions that have no answer yet, or whose state is still being built; those that wait for a
        revision are left out."""
        return self._asked.under_way

    def get(self, address: str, key: bytes, revision: int, until: float, answer: Answer) -> None:
        """Answer a client at `address` with the value of a key as it was behind a revision. `answer` is called once.

        A revision that this server has not executed is waited for. Without an answer at the time `until`, by the
        server's clock in seconds, the question is refused.
        """
        if not self._ahead.may_take(address) and revision > self._revisions().told:
            answer(_busy(self._ahead, "wait for a revision"))
            return
        self._ahead.take(address)
        asked = _Asked(address, key, revision, answer, until)
        seconds = max(0.0, until - self._clock.seconds())
        self._revisions().wait(revision, seconds, partial(self._reached, asked, seconds))

    def stop(self) -> None:
        """Build nothing any more."""
        if self.reader is not None:
            self.reader.stop()

    def _reached(self, asked: _Asked, seconds: float, is_reached: bool) -> None:
        self._ahead.free(asked.address)
        if is_reached and not self._asked.may_take(asked.address):
            self._answer(asked, _busy(self._asked, "about the past are under way"))
        elif is_reached:
            self._asked.take(asked.address)
            asked.timeout = self._clock.callLater(max(0.0, asked.until - self._clock.seconds()), self._too_late, asked)
            self._replica.perform(self._look, asked)
        else:
            waited = round(seconds, 1)
            text = f"this server has not come to revision {asked.revision} within {waited:g} s; another one may have"
            self._answer(asked, Refused("UNAVAILABLE", text))

    def _look(self, asked: _Asked) -> None:
        """Answer at once if the key was not written since; else have the past looked at, once all that was ordered up
        to the revision is on disk, and shown there as ordered."""
        turn = self._replica.turn
        found = ask(turn, self._machine.question, ("GET", asked.key))
        is_unchanged = isinstance(found, Done) and int(dict(found.fields)["revision"]) <= asked.revision
        if is_unchanged or (isinstance(found, Refused) and found.code != "NOTFOUND"):
            self._done(asked, found)
        elif self.reader is None:
            text = "this server keeps nothing on disk (storage: memory), and the key was written or removed since"
            self._done(asked, Refused("COMPACTED", text))
        else:
            self._clock.callLater(0, self._read)
            self._waiting.append(asked)

    _waiting: list[_Asked] = field(factory=list, init=False)
    """Questions for which the past is looked at when the present write is on disk."""

    def _read(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._replica.turn.flush_lazy()
            self._replica.perform(self._ask_behind_the_gate, waiting)

    def _ask_behind_the_gate(self, waiting: list[_Asked]) -> None:
        for asked in waiting:
            self._replica.turn.call(self._ask_reader, asked)

    def _ask_reader(self, asked: _Asked) -> None:
        assert self.reader is not None, "it was looked for before"
        self.reader.ask(asked.key, asked.revision, partial(self._read_done, asked))

    def _read_done(self, asked: _Asked, result: Result) -> None:
        self._asked.free(asked.address)
        self._answer(asked, result)

    def _done(self, asked: _Asked, result: Result) -> None:
        self._asked.free(asked.address)
        self._replica.turn.answer(lambda results: self._answer(asked, results[0]), [result], HANGING.question)

    def _too_late(self, asked: _Asked) -> None:
        asked.timeout = None
        text = f"the state of revision {asked.revision} was not built in time; it goes on, so ask again in a while"
        self._answer(asked, Refused("UNAVAILABLE", text))

    def _answer(self, asked: _Asked, result: Result) -> None:
        if not asked.is_answered:
            asked.is_answered = True
            if asked.timeout is not None:
                asked.timeout.cancel()
                asked.timeout = None
            asked.answer(result)


def _busy(shares: Shares, what: str) -> Refused:
    """The refusal for a client whose address may have no more questions at present."""
    return Refused(
        "BUSY", f"{shares.under_way} questions {what} already, and no more is free for your address: try later"
    )
