"""The line protocol's connections (docs/protocol.rst): bytes in, bytes out, both in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IAddress

from pfsb.applications.interfaces import BadRequest, Event, Refused, Word
from pfsb.frontends.line.conversation import Conversation
from pfsb.frontends.line.grammar import BadLine, number_of, parse, render, render_event, render_in_slices
from pfsb.frontends.line.splitter import LineSplitter, TooLong
from pfsb.frontends.stream.protocol import StreamFactory, StreamProtocol
from pfsb.frontends.stream.reply_queue import ReplyQueue, refusal


class LineProtocol(StreamProtocol):
    """One client at its lines."""

    def __init__(self, factory: LineFactory) -> None:
        super().__init__(factory)
        self.factory = factory
        self._splitter = LineSplitter(factory.server.config.limits.command_bytes)
        self._replies = ReplyQueue(self._write, render_in_slices, factory.turn, self._relieved)

    def cut(self, data: bytes) -> Iterable[bytes | TooLong]:
        return self._splitter.feed(data)

    def converse(self) -> Conversation:
        conversation = Conversation(self.factory.server, self.factory.verbs, self._replies)
        self._replies.say(self.factory.welcome())
        return conversation

    def turn_away(self, why: Refused) -> None:
        self._replies.say(render(None, why))

    def take(self, request: bytes | TooLong) -> None:
        conversation = self._conversation
        assert conversation is not None
        number: int | None = None
        try:
            if isinstance(request, TooLong):
                number = number_of(request.start)
                raise self.factory.too_long()
            if request and not request.isspace():
                parsed = parse(request)
                number = parsed.number
                conversation.take(parsed)
        except BadLine as error:
            conversation.go_on()
            self._replies.place(error.number)(refusal(error))
        except Exception as error:
            conversation.go_on()
            self._replies.place(number)(refusal(error))


class LineFactory(StreamFactory):
    """Makes connections that speak the line protocol from their first byte on."""

    def buildProtocol(self, addr: IAddress | None) -> LineProtocol:
        return LineProtocol(self)

    def welcome(self) -> bytes:
        """The first line of a connection."""
        server = self.server
        leader = server.leader()
        fields = (
            ("cluster", Word(server.config.cluster)),
            ("server", server.server_id),
            ("view", server.view),
            ("leader", Word("none") if leader is None else leader),
            ("help", Word("HELP")),
        )
        return render_event(Event("WELCOME", fields))

    def too_long(self) -> BadRequest:
        limit = self.server.config.limits.command_bytes
        return BadRequest(f"a line has at most {limit} bytes; this one was skipped to its end", code="TOOLARGE")
