"""ISessionObserver: the interface by which the replicated state machine tells one server the results for its clients.

The state machine calls the observer and ignores what it returns, so nothing that only one server knows can get into
the replicated state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import Interface, implementer

from pfsb.applications.interfaces import IEventLog, Refused, Result
from pfsb.paxos.messages import ClientUpdate


class ISessionObserver(Interface):
    """The part of a server that faces its own clients; the state machine calls it in the turn in which it executes an
    update."""

    def executed(update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        """Called when the bundle at `position` (from 0) in an update of this server has run.

        `results` has a result, or PENDING, for each entry of the bundle.
        """

    def too_old(update: ClientUpdate) -> None:
        """Called when an update of this server was ordered and never runs, for example since it is beyond its horizon.

        May be called more than once for an update.
        """

    def completed(client_id: str, epoch: int, number: int, result: Result) -> None:
        """Called when a command that was PENDING has its result: for every session, at every server.

        `epoch` is that under which the session is open, or was when it ended. A connection that has opened the session
        under another epoch is fenced off, and is not told.
        """

    def session_ended(client_id: str, epoch: int, refusal: Refused) -> None:
        """Called when a session is no longer open under `epoch`: it was taken over, closed or expired."""

    def asked_for() -> None:
        """Called when the leader does not hear this server, and asks whether its updates get through (Departure 36)."""

    def log_grew(application: IEventLog, length: int) -> None:
        """Called when an application has new events for its subscribers: `length` is the number of the latest one."""

    def restored() -> None:
        """Called when the state of a snapshot has taken the place of the state machine's state: the calls for the slots
        in between are left out. The tables of the protocol have changed already."""


@implementer(ISessionObserver)
class NoObserver:
    """The observer of a server that recovers: it ignores all calls, since no client is connected yet."""

    def executed(self, update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        pass

    def too_old(self, update: ClientUpdate) -> None:
        pass

    def completed(self, client_id: str, epoch: int, number: int, result: Result) -> None:
        pass

    def session_ended(self, client_id: str, epoch: int, refusal: Refused) -> None:
        pass

    def asked_for(self) -> None:
        pass

    def log_grew(self, application: IEventLog, length: int) -> None:
        pass

    def restored(self) -> None:
        pass
