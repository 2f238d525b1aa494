"""LineProtocol: a connection that speaks the line protocol (docs/protocol.rst), in bounded memory.

A connection on which a line of another protocol comes, such as HTTP, is closed: see `pfsb.frontends.line.foreign`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IReactorTime

from pfsb.applications.interfaces import BadRequest, Event, Refused, Word
from pfsb.frontends.line.conversation import PIPELINED_CHARACTERS_MAX, Conversation, Verbs
from pfsb.frontends.line.foreign import foreign_first_line, foreign_line
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
from pfsb.frontends.line.splitter import Endless, TooLong
from pfsb.frontends.stream.protocol import StreamFactory, StreamProtocol
from pfsb.frontends.stream.reply_queue import ReplyQueue, refusal

if TYPE_CHECKING:
    from pfsb.frontends.stream.shared_limits import SharedLimits
    from pfsb.server import Server


class LineProtocol(StreamProtocol):
    """One client that speaks the line protocol."""

    is_greeted_with_crlf = False
    """True if the greeting ends with CRLF, and not with LF as all other lines of the server do."""

    def __init__(self, factory: LineFactory) -> None:
        super().__init__(factory)
        self.factory = factory
        limit = factory.server.config.limits.command_bytes
        self.replies = ReplyQueue(
            self._write,
            render_in_slices,
            factory.iteration_end,
            self._relieved,
            self.on_failure,
            render_run,
            self._tell_held,
        )
        telnet = self.replies.write_between_replies
        self._splitter = RequestSplitter(factory.verbs.plain, limit, PIPELINED_CHARACTERS_MAX, telnet)
        self._has_had_a_line = False

    def split_requests(self, data: bytes) -> Iterable[bytes | TooLong | Endless | PlainLines]:
        # The first line is checked by itself (`pfsb.frontends.line.foreign`), and a connection that is not admitted yet
        # handles one request only. In both cases lines must come one by one.
        together = self._has_had_a_line and (self._is_admitted or self._admission.is_open)
        return self._splitter.feed(data) if together else self._splitter.feed_lines(data)

    def begin_conversation(self) -> Conversation:
        conversation = Conversation(
            self.factory.server,
            self.factory.verbs,
            self.replies,
            self._tell_session_end,
            self._shared,
            self.address,
            self.rights,
        )
        self._line_conversation = conversation
        welcome = self.factory.welcome()
        self.replies.write_between_replies(welcome.replace(b"\n", b"\r\n") if self.is_greeted_with_crlf else welcome)
        return conversation

    def write_refusal(self, refused: Refused) -> None:
        self.replies.write_between_replies(render(None, refused))

    def write_farewell(self, reason: str) -> None:
        self.replies.write_between_replies(render_event(Event("DROPPED", (("text", reason),))))
        self.replies.flush()

    def handle_request(self, request: bytes | TooLong | Endless | PlainLines) -> None:
        if isinstance(request, PlainLines):
            self._handle_plain(request)
            return
        if isinstance(request, Endless):
            self._close_if(self.factory.endless(), "TOOLARGE")
            return
        if not self._has_had_a_line and self._is_foreign_beginning(request):
            return
        conversation = self._line_conversation
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
            assert isinstance(request, bytes)
            if not self._close_if(foreign_line(request)):
                conversation.submit_pipelined()
                self.replies.place(error.number)(refusal(error))
        except Exception as error:
            conversation.submit_pipelined()
            self.replies.place(number)(refusal(error))

    def _is_foreign_beginning(self, request: bytes | TooLong) -> bool:
        """Looks at the lines up to the first one that is not blank. Returns True if the connection is closed for it."""
        if isinstance(request, TooLong):
            self._has_had_a_line = True
            return False
        self._has_had_a_line = bool(request) and not request.isspace()
        return self._has_had_a_line and self._close_if(foreign_first_line(request))

    def _close_if(self, reason: str | None, code: str = "BADREQUEST") -> bool:
        """Ends the connection if there is a reason. Its last reply, behind those to earlier requests, is a refusal with
        the code `code` and the text `reason`. Returns True; or False, without any effect, if `reason` is None."""
        if reason is None:
            return False
        conversation = self._line_conversation
        conversation.submit_pipelined()
        self.replies.place(None)(Refused(code, reason))
        conversation.finished = True
        return True

    def _handle_plain(self, plain: PlainLines) -> None:
        """Hands the commands of plain lines to the conversation together. If `session_window` leaves no room for all of
        them, or one is a large request, puts the lines back into the queue instead, to be handled one by one."""
        conversation, commands = self._line_conversation, plain.commands
        under_way = self.replies.outstanding + conversation.unsubmitted
        fits = under_way + len(commands) <= self._window
        if not (fits and conversation.collect(commands, plain.tags, len(plain.data), plain.is_local)):
            self._requests.extendleft(reversed(plain.lines))

    def _tell_session_end(self, refused: Refused) -> None:
        state = Word("replaced" if refused.code == "REPLACED" else "expired")
        self.replies.write_between_replies(render_event(Event("SESSION", (("state", state),))))


class LineFactory(StreamFactory):
    """Makes connections that speak the line protocol from their first byte on."""

    def __init__(self, server: Server, clock: IReactorTime, shared: SharedLimits | None = None) -> None:
        super().__init__(server, clock, shared=shared)
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

    def endless(self) -> str:
        """The reason for ending the connection of a client whose line does not end."""
        limit = self.server.config.limits.command_bytes
        return f"a line has at most {limit} bytes, and this one goes on and on; the connection is closed"

    def too_long(self) -> BadRequest:
        limit = self.server.config.limits.command_bytes
        return BadRequest(f"a line has at most {limit} bytes; this one was skipped to its end", code="TOOLARGE")
