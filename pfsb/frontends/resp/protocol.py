"""The Redis protocol as a second door: its connections, on the same conversation as the line protocol's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IAddress, IReactorTime

from pfsb.applications.interfaces import Answer, BadRequest, Done, Event, Refused, Result
from pfsb.frontends.line.conversation import Conversation
from pfsb.frontends.line.grammar import Request
from pfsb.frontends.resp import replies
from pfsb.frontends.resp.commands import Asked, Client, wrong_number_of_arguments
from pfsb.frontends.resp.connection_commands import COMMANDS, ConnectionCommands
from pfsb.frontends.resp.parser import CommandParser, Item, Malformed, TooLarge
from pfsb.frontends.resp.patterns import Cursors
from pfsb.frontends.resp.replies import Form
from pfsb.frontends.stream.protocol import StreamFactory, StreamProtocol
from pfsb.frontends.stream.reply_queue import AnswerAll, ReplyQueue, refusal
from pfsb.server import Server
from pfsb.support.spelling import nearest


@define(eq=False)
class FormedReplies(ReplyQueue):
    """Replies strictly in order, each in the form that its command wants.

    A conversation places its requests in the order in which it takes them, so the forms of those that it has taken
    and not yet placed are a queue.
    """

    blocked: bool = field(init=False, default=False)
    """A LOCK is not answered yet: as Redis does with a client that waits, nothing behind it is taken."""
    _expected: deque[Form] = field(init=False, factory=deque)

    def expect(self, form: Form) -> None:
        """The next request that is placed has this form."""
        self._expected.append(form)

    def place(self, tag: Any) -> Answer:
        return super().place(self._expected.popleft())

    def place_all(self, tags: Sequence[Any]) -> AnswerAll:
        return super().place_all([self._expected.popleft() for _ in tags])

    def when_first(self, tag: Any, ask: Callable[[Answer], None]) -> None:
        super().when_first(self._expected.popleft(), ask)

    def place_waiting(self, tag: Any) -> Answer:
        """In its order, unlike in the line protocol: there are no numbers here to tell replies apart."""
        answer = self.place(tag)
        self.blocked = True

        def unblock(result: Result) -> None:
            self.blocked = False
            answer(result)

        return unblock


@frozen
class WordsRequest(Request):
    """A request whose arguments came one by one."""

    words: tuple[str, ...]

    @property
    def args(self) -> tuple[str, ...]:
        return self.words

    @property
    def text(self) -> str | None:
        return self.words[0] or None


class RespConversation(Conversation):
    """Takes commands of Redis; what an application answers is a request like those of the line protocol."""

    def __init__(self, factory: RespFactory, replies: FormedReplies, ended: Callable[[], None]) -> None:
        super().__init__(factory.server, factory.verbs, replies)
        self._formed = replies
        self._door = ConnectionCommands(factory.server, next(factory.numbers))
        self._cursors = factory.cursors
        self._client = Client(self._door.dialect, self._cursors)
        self._ended = ended

    def take_words(self, words: list[bytes]) -> None:
        """Do what is asked. Never raises."""
        try:
            asked = self._understand(words)
        except Exception as error:
            self.reply(refusal(error))
            return
        if isinstance(asked, bytes):
            self.reply(Done(), replies.said(asked))
            return
        self._formed.expect(asked.form)
        try:
            self.take(WordsRequest(None, asked.verb, " ".join(asked.args), asked.args))
        except Exception as error:
            self._answer(refusal(error))

    def reply(self, result: Result, form: Form = replies.ok) -> None:
        """To a request that needs nobody else."""
        self.go_on()
        self._formed.expect(form)
        self._answer(result)

    def _answer(self, result: Result) -> None:
        self.go_on()
        self._formed.place(None)(result)

    def _understand(self, words: list[bytes]) -> Asked | bytes:
        """Raises `BadRequest`."""
        name, *args = map(_text, words)
        name = name.upper()
        command = COMMANDS.get(name)
        if command is None:
            raise BadRequest(f"unknown command {name}; {nearest(name, COMMANDS)}", "UNKNOWN")
        if not command.goes_with(len(words)):
            raise wrong_number_of_arguments(name)
        if command.translate is not None:
            return command.translate(args, self._client)
        answer = self._door.answer(name, args)
        self._client = Client(self._door.dialect, self._cursors)
        self.finished = self.finished or self._door.quits
        return answer

    def _session_ended(self, why: Refused) -> None:
        """No event could tell it here. Whoever held locks must not go on as if nothing had happened."""
        self._session_end = why
        self.finished = True
        self._ended()

    def _tell(self, event: Event) -> None:
        raise AssertionError("nobody listens at this door")


class RespProtocol(StreamProtocol):
    """One client that speaks the Redis protocol."""

    def __init__(self, factory: RespFactory) -> None:
        super().__init__(factory)
        self.factory = factory
        self._parser = CommandParser(factory.server.config.limits.command_bytes)
        self._replies = self._formed = FormedReplies(self._write, _render, factory.turn, self._relieved)
        self._talk: RespConversation | None = None

    def cut(self, data: bytes) -> Iterable[Item]:
        return self._parser.feed(data)

    def converse(self) -> Conversation:
        turn = self.factory.turn
        self._talk = RespConversation(self.factory, self._formed, lambda: turn.call(self._work))
        return self._talk

    def turn_away(self, why: Refused) -> None:
        self._replies.say(replies.error(why))

    def take(self, request: Item) -> None:
        talk = self._talk
        assert talk is not None
        match request:
            case TooLarge():
                limit = self.factory.server.config.limits.command_bytes
                text = f"a command has at most {limit} bytes; this one was skipped to its end"
                talk.reply(Refused("TOOLARGE", text))
            case Malformed(text):
                talk.reply(Done(), replies.said(replies.protocol_error(text)))
                talk.finished = True
            case words:
                talk.take_words(words)

    def _must_wait(self, conversation: Conversation) -> bool:
        return self._formed.blocked or super()._must_wait(conversation)

    def _may_read(self, conversation: Conversation) -> bool:
        """Also while a LOCK waits, which may take hours: only who reads notices that a client is gone."""
        return not super()._must_wait(conversation) and (not self._formed.blocked or len(self._requests) < self._window)


class RespFactory(StreamFactory):
    """Makes connections that speak the Redis protocol from their first byte on."""

    def __init__(self, server: Server, clock: IReactorTime, beside: StreamFactory | None = None) -> None:
        super().__init__(server, clock, beside)
        self.cursors = Cursors()
        self.numbers = count(1)

    def buildProtocol(self, addr: IAddress | None) -> RespProtocol:
        return RespProtocol(self)


def _render(form: Form, result: Result) -> Any:
    return form(result)


def _text(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"byte {error.start + 1} of an argument is not UTF-8; keys and values are text here, bytes need an encoding"
        ) from None
