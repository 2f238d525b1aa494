"""Subscriptions: the event logs that one connection listens to (LISTEN)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pfsb.applications.interfaces import Answer, Done, Event
from pfsb.frontends.line.grammar import render_event
from pfsb.frontends.stream.reply_queue import ReplyQueue

if TYPE_CHECKING:
    from pfsb.server import Server
    from pfsb.sessions.subscription import Subscription


class Subscriptions:
    """The subscriptions of one client, at most one for each listen verb. They pause while the client does not read."""

    def __init__(self, server: Server, replies: ReplyQueue) -> None:
        self._server = server
        self.replies = replies
        self._by_verb: dict[str, Subscription] = {}
        self._paused = False

    def begin(self, verb: str, first: int, answer: Answer) -> None:
        """Subscribes to the event log of `verb` from event number `first` on; 0 stands for the next event to come.

        Ends a former subscription of this client to the same log, and answers the LISTEN. Raises `BadRequest` if the
        cluster does not run the application any more.
        """
        self._server.catalogue.entry(verb)
        self.end(verb)
        if first:
            answer(Done())
        self._by_verb[verb] = subscription = self._server.subscribe(verb, first, self._write_event)
        if not first:
            # Tell the client the number of its first event, so that it can resume at another server from there.
            answer(Done((("from", subscription.next),)))
        if self._paused:
            subscription.pause()

    def end(self, verb: str) -> None:
        subscription = self._by_verb.pop(verb, None)
        if subscription is not None:
            subscription.stop()

    def end_all(self) -> None:
        for verb in list(self._by_verb):
            self.end(verb)

    def pause(self) -> None:
        self._paused = True
        for subscription in self._by_verb.values():
            subscription.pause()

    def resume(self) -> None:
        self._paused = False
        for subscription in list(self._by_verb.values()):
            subscription.resume()

    def _write_event(self, event: Event) -> None:
        self.replies.write_between_replies(render_event(event))
