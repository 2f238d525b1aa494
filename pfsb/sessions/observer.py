"""Who is told what executing has come to for the clients of one server, and is never asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import Interface, implementer

from pfsb.applications.interfaces import IEventLog, Refused, Result
from pfsb.paxos.messages import ClientUpdate


class ISessionObserver(Interface):
    """The part of a server that faces its own clients."""

    def executed(update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        """The bundle at `position` in an update of this server's has run: a result (or PENDING) for each entry."""

    def too_old(update: ClientUpdate) -> None:
        """An update of this server's was ordered beyond its horizon: it has not run, and never will."""

    def completed(client_id: str, number: int, result: Result) -> None:
        """A command that was PENDING has its answer."""

    def session_ended(client_id: str, epoch: int, refusal: Refused) -> None:
        """The session is no longer open under that epoch: taken over, closed or expired."""

    def log_grew(application: IEventLog) -> None:
        """There are new events to tell whoever follows them."""


@implementer(ISessionObserver)
class NoObserver:
    """While a server recovers, nobody is connected."""

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
