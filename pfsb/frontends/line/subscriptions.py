"""The logs that one client follows (LISTEN), each from a place of its own, by one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pfsb.applications.interfaces import Answer, Done, Event
from pfsb.frontends.line.grammar import render_event
from pfsb.frontends.stream.reply_queue import ReplyQueue

if TYPE_CHECKING:
    from pfsb.server import Server
    from pfsb.sessions.subscription import Subscription


class Subscriptions:
    """One for each verb that begins one. They are paused and resumed together, as the client reads."""

    def __init__(self, server: Server, replies: ReplyQueue) -> None:
        self._server = server
        self._replies = replies
        self._by_verb: dict[str, Subscription] = {}
        self._paused = False

    def begin(self, verb: str, first: int, answer: Answer) -> None:
        """From event number `first` on, or 0: from the next one on. A former one of that verb ends."""
        self.end(verb)
        if first:
            answer(Done())
        self._by_verb[verb] = following = self._server.subscribe(verb, first, self._tell)
        if not first:
            # Of what is only to come nothing is told yet. Whoever knows where it begins can go on there elsewhere.
            answer(Done((("from", following.next),)))
        if self._paused:
            following.pause()

    def end(self, verb: str) -> None:
        following = self._by_verb.pop(verb, None)
        if following is not None:
            following.stop()

    def end_all(self) -> None:
        for verb in list(self._by_verb):
            self.end(verb)

    def pause(self) -> None:
        self._paused = True
        for following in self._by_verb.values():
            following.pause()

    def resume(self) -> None:
        self._paused = False
        for following in list(self._by_verb.values()):
            following.resume()

    def _tell(self, event: Event) -> None:
        self._replies.say(render_event(event))
