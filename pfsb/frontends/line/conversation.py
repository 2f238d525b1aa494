"""One client's conversation with the server: what each verb of the line protocol does (interface part 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field

from pfsb.applications.interfaces import (
    Answer,
    Command,
    CommandDescription,
    Done,
    Event,
    IEventLog,
    Refused,
    Result,
    Word,
)
from pfsb.frontends.line import help as help_pages
from pfsb.frontends.line.arguments import introduction, parts_of, read_level, without_arguments
from pfsb.frontends.line.grammar import Request, render_event
from pfsb.frontends.line.server_queries import ServerQueries
from pfsb.frontends.line.subscriptions import Subscriptions
from pfsb.frontends.stream.reply_queue import AnswerAll, ReplyQueue, refusal

if TYPE_CHECKING:
    from pfsb.server import Server
    from pfsb.sessions.connection import ClientConnection

GATHERED_CHARACTERS_MAX: Final = 12_000
"""Of commands that are submitted together, and travel in one bundle; a longer one travels by itself."""


_SHUTDOWN: Final = Refused("SHUTDOWN", "this server is stopping; go on at another one, with the same number")


class Verbs:
    """What can be asked of a server: its applications' commands, and the line protocol's own."""

    def __init__(self, server: Server) -> None:
        self.descriptions: dict[str, CommandDescription] = {each.verb: each for each in help_pages.ALWAYS}
        self.listen_verbs: list[str] = []
        for application in server.catalogue.applications:
            self.descriptions.update({each.verb: each for each in application.commands})
            if IEventLog.providedBy(application):
                self.listen_verbs.append(application.listen_verb)


@define(eq=False)
class _Gathered:
    """Commands that were taken one after the other, and are submitted together."""

    is_local: bool = False
    """Questions to this server's own state; else what changes something, and what asks everybody."""
    numbers: list[int | None] = field(factory=list)
    commands: list[Command] = field(factory=list)
    characters: int = 0

    @property
    def is_of_the_log(self) -> bool:
        return bool(self.commands) and not self.is_local


class Conversation:
    """Takes requests; their replies go to the queue. Knows nothing of bytes and sockets."""

    def __init__(self, server: Server, verbs: Verbs, replies: ReplyQueue) -> None:
        self._server = server
        self._local_clients = server.local_clients
        self._check = server.catalogue.check
        self._verbs = verbs.descriptions
        self._replies = replies
        self._session_is_used = False
        self._session_end: Refused | None = None
        self._not_introduced: Refused | None = None
        """HELLO was refused, and not repeated: there is no session that a command could run in."""
        self._session: ClientConnection | None = self._connect()
        self._followings = Subscriptions(server, replies)
        self._inquiries = ServerQueries(server, verbs.descriptions)
        self.introducing = False
        """HELLO or BYE is not answered yet: no further request must be taken."""
        self.finished = False
        """QUIT or BYE: no further request will be taken; the connection ends with the last reply."""
        self._own = self._own_verbs(verbs.listen_verbs)
        self._gathered = _Gathered()

    def _own_verbs(self, listen_verbs: list[str]) -> dict[str, Callable[[Request], None]]:
        handlers: dict[str, Callable[[Request], None]] = {
            "HELLO": self._hello,
            "BYE": self._bye,
            "QUIT": self._quit,
        }
        for verb, inquire in self._inquiries.handlers.items():
            handlers[verb] = partial(self._when_first, inquire)
        for verb in listen_verbs:
            handlers[verb] = self._listen
            handlers[f"UN{verb}"] = self._unlisten
        return handlers

    @property
    def gathered(self) -> int:
        """Requests taken that have no place in the queue of replies yet."""
        return len(self._gathered.commands)

    def take(self, request: Request) -> None:
        """Do what the client asks, perhaps only with `go_on`. What it raises is still to be replied to."""
        handle = self._own.get(request.verb)
        if handle is None:
            self._application_command(request)
        else:
            self.go_on()
            handle(request)

    def go_on(self) -> None:
        """Submit the commands that were taken one after the other: no more come now."""
        if not self._gathered.commands:
            return
        gathered, self._gathered = self._gathered, _Gathered()
        if gathered.is_local:
            self._ask(gathered.commands, self._replies.place_all(gathered.numbers))
        elif not self._submitted_together(gathered.numbers, gathered.commands):
            for number, command in zip(gathered.numbers, gathered.commands, strict=True):
                self._submit(number, command, waits=False)

    def pause(self) -> None:
        """Tell the client no more events: it does not read them."""
        self._followings.pause()

    def resume(self) -> None:
        self._followings.resume()

    def disconnected(self) -> None:
        """The connection is gone; the session waits for its client to come back."""
        self.stop_following()
        session, self._session = self._session, None
        if session is not None:
            session.disconnected()

    def _when_first(self, ask: Callable[[Request, Answer], None], request: Request) -> None:
        self._replies.when_first(request.number, partial(ask, request))

    # ---------------------------------------------------------------------------------------------
    # Commands of the applications
    # ---------------------------------------------------------------------------------------------

    def _application_command(self, request: Request) -> None:
        description = self._verbs.get(request.verb)
        if description is None:
            raise help_pages.unknown(request.verb, self._verbs)
        parts, level = parts_of(description, request), "linearizable"
        if not description.changes:
            parts, level = read_level(parts)
        command = self._check(parts)
        if description.waits:
            self.go_on()
            self._submit(request.number, command, waits=True)
        elif level == "linearizable":
            self._gather(request, command, is_local=False)
        elif level == "stale" or not (self._replies.in_order or self._gathered.is_of_the_log):
            self._gather(request, command, is_local=True)
        else:
            self.go_on()
            self._replies.when_first(request.number, partial(self._ask_one, command))

    def _gather(self, request: Request, command: Command, is_local: bool) -> None:
        characters = len(request.rest)
        gathered = self._gathered
        if is_local != gathered.is_local or gathered.characters + characters > GATHERED_CHARACTERS_MAX:
            self.go_on()
            gathered = self._gathered
        gathered.is_local = is_local
        gathered.commands.append(command)
        gathered.numbers.append(request.number)
        gathered.characters += characters

    def _submitted_together(self, numbers: list[int | None], commands: list[Command]) -> bool:
        if self._not_introduced is not None:
            return False
        assert self._session is not None
        placed: list[AnswerAll] = []

        def place() -> AnswerAll:
            placed.append(self._replies.place_all(numbers))
            return placed[0]

        try:
            together = self._session.submit_all(numbers, commands, place)
        except Exception as error:
            if not placed:
                return False  # one of them cannot be encoded
            placed[0]([refusal(error)] * len(numbers))
            return True
        self._session_is_used = self._session_is_used or together
        return together

    def _submit(self, number: int | None, command: Command, waits: bool) -> None:
        answer = self._replies.place_waiting(number) if waits else self._replies.place(number)
        if self._not_introduced is not None:
            answer(self._not_introduced)
            return
        assert self._session is not None
        self._session_is_used = True
        try:
            self._session.submit(number, command, answer)
        except Exception as error:
            answer(refusal(error))

    def _ask_one(self, question: Command, answer: Answer) -> None:
        self._ask([question], lambda results: answer(results[0]))

    def _ask(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        refused = self._not_introduced or (_SHUTDOWN if self._local_clients.draining else self._session_end)
        if refused is not None:
            answer([refused] * len(questions))
            return
        assert self._session is not None
        try:
            self._session.query_local_all(questions, answer)
        except Exception as error:
            answer([refusal(error)] * len(questions))

    # ---------------------------------------------------------------------------------------------
    # The session
    # ---------------------------------------------------------------------------------------------

    def _connect(self) -> ClientConnection:
        """Each session of this connection knows whether it is still the present one when it ends."""
        mine: list[ClientConnection] = []

        def ended(code: str, text: str) -> None:
            if mine and mine[0] is self._session:
                self._session_ended(Refused(code, text))

        mine.append(self._local_clients.connect(ended))
        self._session_is_used = False
        self._session_end = self._not_introduced = None
        return mine[0]

    def _session_ended(self, why: Refused) -> None:
        self._session_end = why
        state = Word("replaced" if why.code == "REPLACED" else "expired")
        self._replies.say(render_event(Event("SESSION", (("state", state),))))

    def _hello(self, request: Request) -> None:
        client_id, ttl_seconds = introduction(request)
        self.introducing = True
        self._replies.when_first(request.number, partial(self._open_session, client_id, ttl_seconds))

    def _open_session(self, client_id: str, ttl_seconds: int, answer: Answer) -> None:
        if self._local_clients.draining:
            self._introduced(answer, _SHUTDOWN)
            return
        if self._session_is_used or self._session_end is not None:
            self._let_go_of_session()
            self._session = self._connect()
        assert self._session is not None
        self._session_is_used = True
        try:
            self._session.hello(client_id, ttl_seconds, partial(self._introduced, answer))
        except Exception as error:
            self._introduced(answer, refusal(error))

    def _let_go_of_session(self) -> None:
        session, self._session = self._session, None
        assert session is not None
        session.disconnected()
        self._replies.refuse_waiting(
            Refused("NOSESSION", "this connection has said HELLO again and left its session", fate="unknown")
        )

    def _introduced(self, answer: Answer, result: Result) -> None:
        """Commands behind a refused HELLO must not run in a session that nobody asked for."""
        self.introducing = False
        if isinstance(result, Refused):
            self._not_introduced = Refused("NOSESSION", f"HELLO was refused ({result.code}); say it again first")
        answer(result)

    def _bye(self, request: Request) -> None:
        without_arguments(request)
        self.introducing = True
        self._replies.when_first(request.number, self._close_session)

    def _close_session(self, answer: Answer) -> None:
        assert self._session is not None
        try:
            self._session.bye(partial(self._closed, answer))
        except Exception as error:
            self._closed(answer, refusal(error))

    def _closed(self, answer: Answer, result: Result) -> None:
        self.introducing = False
        if isinstance(result, Done) or self._session_end is not None:
            self.finished = True
        answer(result)

    def _quit(self, request: Request) -> None:
        without_arguments(request)
        self.finished = True
        self._replies.place(request.number)(Done())

    # ---------------------------------------------------------------------------------------------
    # Following a log
    # ---------------------------------------------------------------------------------------------

    def _listen(self, request: Request) -> None:
        _verb, first = self._check((request.verb, *request.args))
        self._replies.when_first(request.number, partial(self._follow, request.verb, first))

    def _follow(self, verb: str, first: int, answer: Answer) -> None:
        if self._local_clients.draining:
            answer(_SHUTDOWN)
        else:
            self._followings.begin(verb, first, answer)

    def _unlisten(self, request: Request) -> None:
        self._check((request.verb, *request.args))
        self._replies.when_first(request.number, partial(self._unfollow, request.verb.removeprefix("UN")))

    def _unfollow(self, verb: str, answer: Answer) -> None:
        self._followings.end(verb)
        answer(Done())

    def stop_following(self) -> None:
        """No more events, of any log."""
        self._followings.end_all()
