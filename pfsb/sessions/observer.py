"""ISessionObserver: how the replicated state machine tells one server what has become of its own clients' commands.

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
    """The part of a server that faces its own clients."""

    def executed(update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        """The bundle at `position` in an update of this server has run. Each entry has a result, or PENDING."""

    def too_old(update: ClientUpdate) -> None:
        """An update of this server was ordered beyond its horizon, and is not run. This may be told more than once."""

    def completed(client_id: str, number: int, result: Result) -> None:
        """A command that was PENDING has its result. Called for every session, at every server."""

    def session_ended(client_id: str, epoch: int, refusal: Refused) -> None:
        """The session is no longer open under that epoch: taken over, closed or expired."""

    def log_grew(application: IEventLog) -> None:
        """An application has new events for its subscribers."""


@implementer(ISessionObserver)
class NoObserver:
    """Ignores everything: no client is connected while a server recovers."""

    def executed(self, update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        pass

    def too_old(self, update: ClientUpdate) -> None:
        pass

    def completed(self, client_id: str, number: int, result: Result) -> None:
        pass

    def session_ended(self, client_id: str, epoch: int, refusal: Refused) -> None:
        pass

    def log_grew(self, application: IEventLog) -> None:
        pass
