"""LineProtocol: a connection that speaks the line protocol (docs/protocol.rst), in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IReactorTime

from pfsb.applications.interfaces import BadRequest, Event, Refused, Word
from pfsb.frontends.line.conversation import PIPELINED_CHARACTERS_MAX, Conversation, Verbs
from pfsb.frontends.line.grammar import (
    BadLine,
    number_of,
    parse,
    render,
    render_event,
    render_in_slices,
    render_run,
)
from pfsb.frontends.line.plain_lines import PlainLines, RequestSplitter
from pfsb.frontends.line.splitter import TooLong
from pfsb.frontends.stream.protocol import StreamFactory, StreamProtocol
from pfsb.frontends.stream.reply_queue import ReplyQueue, refusal

if TYPE_CHECKING:
    from pfsb.server import Server


class LineProtocol(StreamProtocol):
    """One client that speaks the line protocol."""

    def __init__(self, factory: LineFactory) -> None:
        super().__init__(factory)
        self.factory = factory
        limit = factory.server.config.limits.command_bytes
        self._splitter = RequestSplitter(factory.verbs.plain, limit, PIPELINED_CHARACTERS_MAX)
        self.replies = ReplyQueue(self._write, render_in_slices, factory.iteration_end, self._relieved, render_run)

    def split_requests(self, data: bytes) -> Iterable[bytes | TooLong | PlainLines]:
        # Before its admission, a connection handles its first request and no more, so the lines must come one by one.
        return self._splitter.feed(data) if self._admission.is_open else self._splitter.feed_lines(data)

    def begin_conversation(self) -> Conversation:
        conversation = Conversation(self.factory.server, self.factory.verbs, self.replies, self._tell_session_end)
        self._line_conversation = conversation
        self.replies.write_between_replies(self.factory.welcome())
        return conversation

    def write_refusal(self, refused: Refused) -> None:
        self.replies.write_between_replies(render(None, refused))

    def handle_request(self, request: bytes | TooLong | PlainLines) -> None:
        conversation = self._line_conversation
        if isinstance(request, PlainLines):
            self._handle_plain(request)
            return
        number: int | None = None
        try:
            if isinstance(request, TooLong):
                number = number_of(request.start)
                raise self.factory.too_long()
            if request and not request.isspace():
                parsed = parse(request)
                number = parsed.tag
                conversation.handle_request(parsed)
        except BadLine as error:
            conversation.submit_pipelined()
            self.replies.place(error.number)(refusal(error))
        except Exception as error:
            conversation.submit_pipelined()
            self.replies.place(number)(refusal(error))

    def _handle_plain(self, plain: PlainLines) -> None:
        """Handles lines together, or puts them back one by one if not all of them may be handled now."""
        conversation = self._line_conversation
        under_way = self.replies.outstanding + conversation.unsubmitted
        if under_way + len(plain.commands) > self._window:
            self._requests.extendleft(reversed(plain.lines))
        else:
            conversation.collect(plain.commands, plain.tags, len(plain.data), plain.is_local)

    def _tell_session_end(self, refused: Refused) -> None:
        state = Word("replaced" if refused.code == "REPLACED" else "expired")
        self.replies.write_between_replies(render_event(Event("SESSION", (("state", state),))))


class LineFactory(StreamFactory):
    """Makes connections that speak the line protocol from their first byte on."""

    def __init__(self, server: Server, clock: IReactorTime) -> None:
        super().__init__(server, clock)
        self.verbs = Verbs(server)

    def buildProtocol(self, addr: IAddress | None) -> LineProtocol:
        return LineProtocol(self)

    def welcome(self) -> bytes:
        """The greeting: the first line that the server writes on a connection."""
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
