"""Departure 25: an ACCEPT to a server whose clients wait for nothing travels with the next frame to that server.

Figure 10 sends each ACCEPT to all servers at once, which takes about N² frames for each proposal. The leader needs an
ACCEPT at once, because its next proposals wait for the slot; a server whose clients wait for results needs it at once,
too. Any other server needs it only to execute a slot that is ordered anyway. Votes to such a server are kept here,
after they have passed the durability gate of `Turn`, until another frame goes to that server or some milliseconds have
passed.

Why safe: a vote that leaves late is the same as a vote that the network has delayed, and a vote leaves the server only
after it has passed the gate.

Departure 55: in a cluster of five servers or more, votes go to the leader alone, at once. Then the ORDERED of the
leader, which stands for the votes, is kept in their place.

Departure 27: there is no multicast. A message to all servers is one frame to each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.paxos.interfaces import ITracer, ITransport
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import AcceptOrOrdered, Message, NamedBatches
from pfsb.paxos.peers import Peers
from pfsb.paxos.settings import Settings
from pfsb.paxos.window import Window

_NEARLY = 0.9
"""Fraction of `lazy_seconds` for which a vote must have waited so that it is sent together with votes that are due."""


class WaitingVotes(NamedTuple):
    """Votes that wait to be sent to one server: an ACCEPT or, from a leader that tells what is ordered, an ORDERED."""

    votes: AcceptOrOrdered
    since: float
    """Time by the clock at which the first of the votes began to wait."""


class Outbound:
    """Sends all messages of a server; each frame takes along the votes that wait for the same destination."""

    def __init__(
        self,
        membership: Membership,
        peers: Peers,
        transport: ITransport,
        clock: IReactorTime,
        settings: Settings,
        window: Window,
        tracer: ITracer | None = None,
    ) -> None:
        self._membership = membership
        self._peers = peers.by_id
        self._transport = transport
        self._clock = clock
        self._tracer = tracer
        self._seconds = settings.lazy_seconds
        self._window = window
        self.waiting_votes: dict[int, WaitingVotes] = {}
        """Server -> the votes that wait for the next frame to it."""
        self._call: IDelayedCall | None = None

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        """Send messages to server `to`, or to all other servers if `to` is None."""
        if to is None and len(messages) == 1 and isinstance(messages[0], NamedBatches):
            self._send_votes(messages[0])
        elif to is None:
            self._send_to_all(messages)
        else:
            self._transmit([*self.take_kept(to), *messages], to)

    def stop(self) -> None:
        """Drop the votes that wait to be sent, as if the network had lost them."""
        self.waiting_votes.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _send_votes(self, votes: AcceptOrOrdered) -> None:
        lazy = self.may_wait_for(votes)
        if not lazy:
            self._send_to_all([votes])
            return
        for server_id in self._membership.others:
            if server_id in lazy:
                self.keep_votes(server_id, votes)
            else:
                self._transmit([*self.take_kept(server_id), votes], server_id)

    def may_wait_for(self, votes: AcceptOrOrdered) -> list[int]:
        """The servers to which these votes may be sent late: they need the votes only to execute a slot that is ordered
        anyway."""
        if self._seconds <= 0:
            return []
        leader, peers = self._membership.leader_of(votes.view), self._peers
        return [i for i in self._membership.others if i != leader and not peers[i].has_clients]

    def keep_votes(self, server_id: int, votes: AcceptOrOrdered) -> None:
        """Keep votes until the next frame to `server_id` is sent, or until they have waited for `lazy_seconds`.

        Votes of an earlier view that still wait for that server are dropped: a server that can use votes of the later
        view discards votes of earlier ones.
        """
        before = self.waiting_votes.get(server_id)
        since = self._clock.seconds() if before is None else before.since
        if before is not None and before.votes.view == votes.view:
            votes = before.votes.joined(votes)
        self.waiting_votes[server_id] = WaitingVotes(votes, since)
        # A server whose Local_Aru lags by two windows accepts no proposals, so late votes must not add up to that.
        if len(votes.seqs) > self._window.slots // 2:
            self._transmit(self.take_kept(server_id), server_id)
        elif self._call is None:
            self._call = self._clock.callLater(self._seconds, self.send_due)

    def take_kept(self, server_id: int) -> list[Message]:
        """Remove and return the votes that wait for a server.

        The caller puts them first in its next frame to that server, since they may order slots, which opens the
        receiver's window for a proposal in the same frame.
        """
        kept = self.waiting_votes.pop(server_id, None)
        return [] if kept is None else [kept.votes]

    def _send_to_all(self, messages: Sequence[Message]) -> None:
        """Send messages to all other servers, together with the votes that wait for each of them.

        If the same votes wait for all of them, or none wait, all get the same frame, which is encoded only once.
        """
        if not self.waiting_votes:
            self._transmit(messages, None)
            return
        different = {kept.votes for kept in self.waiting_votes.values()}
        if len(different) == 1 and len(self.waiting_votes) == len(self._membership.others):
            self.waiting_votes.clear()
            self._transmit([*different, *messages], None)
        else:
            for server_id in self._membership.others:
                self._transmit([*self.take_kept(server_id), *messages], server_id)

    def send_due(self) -> None:
        """Send the votes that have waited for (nearly) `lazy_seconds`, and set the timer for the oldest of the rest."""
        self._call = None
        now = self._clock.seconds()
        for server_id, kept in list(self.waiting_votes.items()):
            if now - kept.since >= self._seconds * _NEARLY:
                if self._tracer is not None:
                    self._tracer.trace("timer", name="votes")
                self._transmit(self.take_kept(server_id), server_id)
        if self.waiting_votes:
            oldest = min(kept.since for kept in self.waiting_votes.values())
            self._call = self._clock.callLater(max(0.0, oldest + self._seconds - now), self.send_due)

    def _transmit(self, messages: Sequence[Message], to: int | None) -> None:
        if self._tracer is not None:
            for message in messages:
                self._tracer.trace("send", to=to, message=message)
        self._transport.send(messages, to)
