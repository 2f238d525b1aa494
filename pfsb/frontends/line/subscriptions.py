"""Subscriptions: the event logs that one connection listens to (LISTEN).

Events are written page by page. Between two pages the reactor serves other connections, and no event is written while a
large reply is being written. Events that must wait stay in their event log, where they cost nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from pfsb.applications.interfaces import Answer, Done, Event, Word
from pfsb.frontends.line.grammar import render_event
from pfsb.frontends.stream.reply_queue import ReplyQueue

PAGE_BYTES: Final = 65_536
"""Number of bytes of events that are written before other connections have their turn."""

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
        self._page_is_full = False
        """True from the end of a page until the next one begins."""
        self._page_bytes = 0

    def begin(self, verb: str, first: int, answer: Answer) -> None:
        """Subscribes to the event log of `verb` from event number `first` on; 0 stands for the next event to come.

        Ends a former subscription of this client to the same log, and answers the LISTEN. Raises `BadRequest` if the
        cluster does not run the application any more.
        """
        self._server.catalogue.entry(verb)
        self.end(verb)
        if first:
            answer(Done())
        # The subscription is paused at first, since all events from `first` on may be a large part of the memory.
        self._by_verb[verb] = subscription = self._server.event_feed.subscribe(
            verb, first, self._write_event, self.replies.fail, partial(self._ended, verb), is_paused=True
        )
        if not first:
            # Tell the client the number of its first event, so that it can resume at another server from there.
            answer(Done((("from", subscription.next),)))
        if first and not self._page_is_full:
            self._end_page()
        elif not (self._paused or self._page_is_full):
            subscription.resume()

    def end(self, verb: str) -> None:
        subscription = self._by_verb.pop(verb, None)
        if subscription is not None:
            subscription.stop()

    def end_all(self) -> None:
        for verb in list(self._by_verb):
            self.end(verb)

    def pause(self) -> None:
        self._paused = True
        self._pause_all()

    def resume(self) -> None:
        self._paused = False
        self._resume_all()

    def _pause_all(self) -> None:
        for subscription in self._by_verb.values():
            subscription.pause()

    def _resume_all(self) -> None:
        for subscription in list(self._by_verb.values()):
            if not (self._paused or self._page_is_full):
                subscription.resume()

    def _write_event(self, event: Event) -> None:
        data = render_event(event)
        self._page_bytes += len(data)
        if (self._page_bytes > PAGE_BYTES or self.replies.is_amid_reply) and not self._page_is_full:
            self._end_page()
        self.replies.write_between_replies(data)

    def _ended(self, verb: str, why: str) -> None:
        """Called when the event log of `verb` has ended: tells the client, who would otherwise wait for ever."""
        subscription = self._by_verb.pop(verb)
        fields = (("verb", Word(verb)), ("next", subscription.next), ("text", why))
        self.replies.write_between_replies(render_event(Event("ENDED", fields)))

    def _end_page(self) -> None:
        self._page_is_full = True
        self._pause_all()
        self.replies.call_between_replies(self._begin_page)

    def _begin_page(self) -> None:
        self._page_is_full, self._page_bytes = False, 0
        self._resume_all()
