"""RespProtocol: a connection that speaks the Redis protocol (docs/redis.rst); uses the line protocol's Conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IAddress, IReactorTime

from pfsb.applications.arguments import decoded, quoted
from pfsb.applications.interfaces import Answer, BadRequest, Done, Refused, Result
from pfsb.frontends.line.conversation import PIPELINED_CHARACTERS_MAX, Conversation, Verbs
from pfsb.frontends.line.grammar import Request
from pfsb.frontends.resp import application_commands, replies
from pfsb.frontends.resp.commands import Client, TranslatedCommand, wrong_number_of_arguments
from pfsb.frontends.resp.connection_commands import (
    COMMANDS,
    NAME_CHARACTERS_MAX,
    NEEDS,
    ConnectionCommands,
)
from pfsb.frontends.resp.parser import Endless, Item, Malformed, TooLarge
from pfsb.frontends.resp.patterns import Cursors
from pfsb.frontends.resp.plain_commands import CommandSplitter, PlainCommands, PlainForm, plain_forms
from pfsb.frontends.resp.replies import Form
from pfsb.frontends.rights import ClientRights
from pfsb.frontends.stream.protocol import IConversation, StreamFactory, StreamProtocol
from pfsb.frontends.stream.reply_queue import ReplyQueue, is_large, refusal
from pfsb.server import Server
from pfsb.support.rights import Right
from pfsb.support.spelling import nearest

TRANSACTIONS: Final = frozenset((b"MULTI", b"EXEC", b"DISCARD"))
"""Names of the commands of Redis around a transaction. They are not listed by COMMAND, since they are refused."""
_SHOWS_TOKENS: Final = frozenset((b"AUTH", b"HELLO"))


@define(eq=False)
class RespReplyQueue(ReplyQueue):
    """A `ReplyQueue` in which each reply comes in the order of the requests: a reply of Redis has no number that tells
    which request it is for."""

    blocked: bool = field(init=False, default=False)
    """True while a LOCK of this connection has no answer. As behind a blocking command of Redis, no command behind the
    LOCK is handled meanwhile."""

    def place_waiting(self, tag: Any) -> Answer:
        answer = self.place(tag)
        self.blocked = True

        def unblock(result: Result) -> None:
            self.blocked = False
            answer(result)

        return unblock


@define
class RespRequest(Request):
    """A request of a Conversation that was made of a command of Redis: its arguments came already split, and `tag` is
    the form of the reply."""

    words: tuple[str, ...]

    @property
    def number(self) -> None:
        return None

    @property
    def args(self) -> tuple[str, ...]:
        return self.words

    @property
    def text(self) -> str | None:
        return (self.words[0] or None) if self.words else None


class RespConversation:
    """Translates the Redis commands of one client into requests, and hands them to a `Conversation`.

    Commands about the connection itself, such as PING, are answered without the `Conversation`.
    """

    def __init__(
        self,
        factory: RespFactory,
        replies: RespReplyQueue,
        addresses: Mapping[str, str],
        on_session_end: Callable[[], None],
        address: str,
        rights: ClientRights,
    ) -> None:
        """`addresses` are those of the connection, as CLIENT INFO shows them. `on_session_end` is called, once and
        without arguments, when the client's session has ended: the caller must then end the connection. `address` is
        where the client is (`address_of`), and `rights` are those of the client."""
        self._rights = rights
        self.conversation = Conversation(
            factory.server,
            factory.verbs,
            replies,
            self._end_with_session,
            factory.shared,
            address,
            rights,
            has_numbers=False,
        )
        self.replies = replies
        self._connection_commands = ConnectionCommands(
            factory.server, next(factory.numbers), addresses, factory.clock.seconds
        )
        self._cursors = factory.cursors
        self._catalogue = factory.server.catalogue
        self._client = Client(self._connection_commands.dialect, self._cursors)
        self._on_session_end = on_session_end
        self.refuses_all = False
        """True after a MULTI, which is refused, until EXEC or DISCARD: no command between them may run.

        Client libraries send a transaction as a whole, report the error for all of it, and may send it again.
        """

    def handle_words(self, words: list[bytes]) -> None:
        """Handles one command of Redis. Never raises."""
        try:
            name = words[0].upper()
            if name in _SHOWS_TOKENS and not self.refuses_all and self._shows_token(decoded(name), words[1:]):
                return
            if self._rights.level is Right.NONE and (name == b"HELLO" or NEEDS.get(decoded(name)) is not Right.NONE):
                raise self._rights.refusal(Right.READ, quoted(name[:NAME_CHARACTERS_MAX])[1:-1])
            if self.refuses_all or name in TRANSACTIONS:
                self._handle_transaction(name, len(words))
                return
            translated = self._translate(words)
        except Exception as error:
            self.reply(refusal(error))
            return
        if isinstance(translated, bytes):
            self.reply(Done(), replies.constant(translated))
            return
        verb, args, form = translated.verb, translated.args, translated.form
        try:
            self.conversation.handle_request(RespRequest(form, verb, " ".join(args), args))
        except Exception as error:
            self.reply(refusal(error), form)

    def _shows_token(self, name: str, args: list[bytes]) -> bool:
        """Handles AUTH, and HELLO with AUTH. Returns False, without any effect, for another command. Raises
        `BadRequest`."""
        if not COMMANDS[name].goes_with(1 + len(args)):
            raise wrong_number_of_arguments(name)
        commands = self._connection_commands
        token = commands.token_of(name, args)
        if token is None:
            return False
        if not self._rights.are_by_token:
            raise BadRequest(f"{name} shows a token, and this server has no token file: there are no passwords here")
        reply = replies.OK

        def shown(answer: Answer, refused: Refused | None) -> None:
            nonlocal reply
            if refused is None and name == "HELLO":
                reply = commands.reply_to(name, args)
                self._client = Client(commands.dialect, self._cursors)
            answer(refused or Done())

        def form(result: Result) -> bytes:
            return replies.error(result) if isinstance(result, Refused) else reply

        self.conversation.authenticate(form, token, shown)
        return True

    def _handle_transaction(self, name: bytes, words: int) -> None:
        """Handles MULTI, EXEC and DISCARD, and each command from a MULTI up to the next EXEC or DISCARD. `name` is the
        name of the command, and `words` the number of its words.

        Answers DISCARD and QUIT. Raises `BadRequest`, the refusal, for all others.
        """
        if name == b"QUIT":
            self.refuses_all = False
            self.reply(Done(), replies.constant(replies.OK))
            self.conversation.finished = True
        elif not self.refuses_all:
            if words > 1:
                raise wrong_number_of_arguments(name.decode())
            if name != b"MULTI":
                raise BadRequest(f"{name.decode()} without MULTI; there are no transactions here")
            self.refuses_all = True
            raise BadRequest("there are no transactions here: all commands up to EXEC or DISCARD are refused")
        elif name == b"DISCARD":
            self.refuses_all = False
            self.reply(Done(), replies.constant(replies.OK))
        else:
            self.refuses_all = name != b"EXEC"
            raise BadRequest("MULTI was refused, so no command runs until EXEC or DISCARD has come", "EXECABORT")

    def handle_plain(self, plain: PlainCommands) -> bool:
        """Collects plain commands for `submit_pipelined` of the `Conversation`, as `handle_words` would collect each of
        them. Returns False, without any effect, if one of them is a large request."""
        tags = [plain.form(self._client)] * len(plain.commands)
        return self.conversation.collect(plain.commands, tags, len(plain.data), is_local=False)

    def reply(self, result: Result, form: Form = replies.ok) -> None:
        """Replies to a command whose `result` is known at once: takes the next place in the queue of replies, and gives
        it the result, of which `form` makes the reply."""
        self.conversation.submit_pipelined()
        self.replies.place(form)(result)

    def _translate(self, words: list[bytes]) -> TranslatedCommand | bytes:
        """Translate a command of Redis; for a command about the connection, return the bytes of the reply instead.
        Raises `BadRequest`."""
        name, args = decoded(words[0].upper()), words[1:]
        command = COMMANDS.get(name)
        if command is None:
            found = application_commands.translate(self._catalogue, name, args, self._client.dialect)
            if found is not None:
                return found
            near = nearest(name[:NAME_CHARACTERS_MAX], COMMANDS)
            raise BadRequest(f"unknown command {quoted(name)[1:-1]}; {near}", "UNKNOWN")
        if not command.goes_with(len(words)):
            raise wrong_number_of_arguments(name)
        if command.translate is not None:
            return command.translate(args, self._client)
        reply = self._connection_commands.reply_to(name, args)
        self._client = Client(self._connection_commands.dialect, self._cursors)
        self.conversation.finished = self.conversation.finished or self._connection_commands.quits
        return reply

    def _end_with_session(self, refused: Refused) -> None:
        """Ends the connection when its session has ended, since clients of Redis get no event that could tell them.

        A client that held locks must not go on as if it held them.
        """
        self.conversation.finished = True
        self._on_session_end()


class RespProtocol(StreamProtocol):
    """One client that speaks the Redis protocol."""

    def __init__(self, factory: RespFactory) -> None:
        super().__init__(factory)
        self.factory = factory
        limit = factory.server.config.limits.command_bytes
        self._splitter = CommandSplitter(factory.plain, limit, PIPELINED_CHARACTERS_MAX)
        self.replies = self._resp_replies = RespReplyQueue(
            self._write,
            _render,
            factory.iteration_end,
            self._relieved,
            self.on_failure,
            replies.render_run,
            self._tell_held,
        )

    def split_requests(self, data: bytes) -> Iterable[Item | PlainCommands]:
        # Before its admission, a connection handles its first request and no more; behind a LOCK that waits, requests
        # are counted: so they must come one by one.
        if self._resp_replies.blocked or not (self._is_admitted or self._admission.is_open):
            return self._splitter.parser.feed(data)
        return self._splitter.feed(data)

    def begin_conversation(self) -> Conversation:
        iteration_end = self.factory.iteration_end
        transport: Any = self._transport()
        addresses = {"addr": _shown(transport.getPeer()), "laddr": _shown(transport.getHost())}
        self._resp = RespConversation(
            self.factory,
            self._resp_replies,
            addresses,
            lambda: iteration_end.call(self._work),
            self.address,
            self.rights,
        )
        return self._resp.conversation

    def write_refusal(self, refused: Refused) -> None:
        self.replies.write_between_replies(replies.error(refused))

    def write_failure(self, reason: str) -> None:
        """Write an error INTERNAL with this reason. A client of Redis takes it for its next reply, since the protocol
        has no other lines."""
        self.write_refusal(Refused("INTERNAL", reason, fate="unknown"))

    def handle_request(self, request: Item | PlainCommands) -> None:
        match request:
            case PlainCommands():
                self._handle_plain(request)
            case TooLarge():
                limit = self.factory.server.config.limits.command_bytes
                text = f"a command has at most {limit} bytes; this one was skipped to its end"
                self._resp.reply(Refused("TOOLARGE", text))
            case Endless():
                limit = self.factory.server.config.limits.command_bytes
                text = f"a command has at most {limit} bytes, and this one goes on and on; this connection ends here"
                self._resp.reply(Refused("TOOLARGE", text))
                self._resp.conversation.finished = True
            case Malformed(text):
                self._resp.reply(Done(), replies.constant(replies.protocol_error(text)))
                self._resp.conversation.finished = True
            case words:
                self._resp.handle_words(words)

    def _handle_plain(self, plain: PlainCommands) -> None:
        """Hands plain commands to the conversation together. If `session_window` leaves no room for all of them, one is
        a large request, or all commands are refused after a MULTI, puts them back into the queue instead, to be handled
        one by one."""
        resp = self._resp
        under_way = self.replies.outstanding + resp.conversation.unsubmitted
        fits = under_way + len(plain.commands) <= self._window
        if resp.refuses_all or not (fits and resp.handle_plain(plain)):
            self._requests.extendleft(reversed(plain.items))

    def _may_handle(self, conversation: IConversation) -> bool:
        return not self._resp_replies.blocked and super()._may_handle(conversation)

    def _may_read(self, conversation: IConversation) -> bool:
        """True if the connection is to be read: even while a LOCK waits, until `session_window` requests wait behind
        it.

        A LOCK may wait for hours, and only a server that reads the connection notices that the client is gone.
        """
        may_handle = super()._may_handle(conversation)
        return may_handle and (not self._resp_replies.blocked or len(self._requests) < self._window)


class RespFactory(StreamFactory):
    """Makes a `RespProtocol` for each connection to one server, and holds what they share, such as the cursors of
    SCAN."""

    def __init__(self, server: Server, clock: IReactorTime, verbs: Verbs, beside: StreamFactory | None = None) -> None:
        super().__init__(server, clock, beside)
        self.verbs = verbs
        self.plain: dict[bytes, PlainForm] = {}
        """The bytes with which the plain commands of a name begin -> the `PlainForm` that recognises them. The dict is
        emptied and filled again when the cluster runs other applications, so each connection can keep it."""
        self._refresh()
        server.catalogue.watch(self._refresh)
        self.cursors = Cursors()
        self.numbers = count(1)

    def _refresh(self) -> None:
        """Fills `plain`, the table of the commands of Redis that are recognised many at a time, for the applications
        that the cluster runs now. Called at the start, and whenever these change."""
        self.plain.clear()
        self.plain.update(plain_forms(self.server.catalogue.applications))

    def buildProtocol(self, addr: IAddress | None) -> RespProtocol:
        return RespProtocol(self)


def _render(form: Form, result: Result) -> bytes | Iterator[bytes]:
    return _parts(form, result) if is_large(result) else form(result)


def _parts(form: Form, result: Result) -> Iterator[bytes]:
    """The parts of a large reply, each made when the part before it is written."""
    rendered = form(result)
    if isinstance(rendered, bytes):
        yield rendered
    else:
        yield from rendered


def _shown(address: Any) -> str:
    """The text for an address of a connection, as Redis shows it: host and port; for a Unix socket `/unixsocket:0`."""
    host, port = getattr(address, "host", None), getattr(address, "port", 0)
    return "/unixsocket:0" if host is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
