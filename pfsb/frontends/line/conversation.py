"""Conversation: handles the requests of one client; what each verb does is in docs/protocol.rst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pfsb.applications.interfaces import (
    Answer,
    BadRequest,
    Command,
    CommandDescription,
    Done,
    Fields,
    IEventLog,
    IPlainChecker,
    Refused,
    Result,
    Word,
)
from pfsb.frontends.line import help as help_pages
from pfsb.frontends.line.arguments import (
    auth_argument,
    hello_arguments,
    parts_of,
    past_revision,
    read_level,
    without_arguments,
)
from pfsb.frontends.line.grammar import Request
from pfsb.frontends.line.members import MembersWatch
from pfsb.frontends.line.plain_lines import PlainForm, plain_forms
from pfsb.frontends.line.server_queries import ServerQueries
from pfsb.frontends.line.subscriptions import Subscriptions
from pfsb.frontends.stream.large_requests import LargeRequest, is_large_request, work_in_rows
from pfsb.frontends.stream.reply_queue import SHUTDOWN, ReplyQueue, refusal
from pfsb.support.rights import Right

if TYPE_CHECKING:
    from pfsb.frontends.rights import ClientRights
    from pfsb.frontends.stream.shared_limits import SharedLimits
    from pfsb.server import Server
    from pfsb.sessions.connection import AnswerAll, ClientConnection

PIPELINED_CHARACTERS_MAX: Final = 12_000
"""Maximum number of characters of commands that are submitted together. A longer command is submitted without
others."""


class Verbs:
    """All verbs of a server: those of its applications' commands, and the line protocol's own.

    All conversations of a port share one object. Its tables are changed in place when the cluster runs other
    applications than before, so that a conversation can keep a table and always finds the present verbs in it.
    """

    def __init__(self, server: Server) -> None:
        self._catalogue = server.catalogue
        self.descriptions: dict[str, CommandDescription] = {}
        """Verb -> its description, in the order of HELP."""
        self.listen: set[str] = set()
        """The verbs that begin to listen to an event log."""
        self.unlisten: set[str] = set()
        """The verbs that end listening to an event log: one for each verb in `listen`."""
        self.submitted: dict[str, CommandDescription] = {}
        """Verb -> its description, for the commands and questions that are submitted to an application."""
        self.work: dict[str, Callable[[Command], int]] = {}
        """Verb -> function that gives how much work a command is, in rows (`Application.work_in_rows`). Commands of
        other verbs are no large requests."""
        self.plain: dict[bytes, PlainForm] = {}
        """Verb -> the `PlainForm` that recognises its plain lines, which need no parser."""
        self.refresh()
        self._catalogue.watch(self.refresh)

    def refresh(self) -> None:
        """Make the tables anew for the applications that the cluster runs now: called at the start, and whenever these
        change."""
        for table in (self.descriptions, self.listen, self.unlisten, self.submitted, self.work, self.plain):
            table.clear()
        self.descriptions.update({each.verb: each for each in help_pages.ALWAYS})
        for application in self._catalogue.applications:
            self.descriptions.update({each.verb: each for each in application.commands})
            if IEventLog.providedBy(application):
                self.listen.add(application.listen_verb)
                self.unlisten.add(f"UN{application.listen_verb}")
            self.work.update(work_in_rows(application))
        special = {each.verb for each in help_pages.ALWAYS} | self.listen | self.unlisten
        self.submitted.update({verb: each for verb, each in self.descriptions.items() if verb not in special})
        checkers = [each for each in self._catalogue.applications if IPlainChecker.providedBy(each)]
        self.plain.update(plain_forms(self.submitted, checkers))


class Conversation:
    """Handles the requests of one client; their replies go to the queue. Knows nothing of bytes and sockets.

    Consecutive commands of applications are not submitted one by one: they are collected ("pipelined") until
    `submit_pipelined`, which is called at the latest when the connection has no more requests at the moment. So many
    commands that a client sends at once cost one submission.

    The order of replies is that of requests: each request takes its place in the queue of replies before any later
    request does. For this, every request that is not pipelined submits the pipelined requests before it first.
    """

    def __init__(
        self,
        server: Server,
        verbs: Verbs,
        replies: ReplyQueue,
        on_session_end: Callable[[Refused], None],
        shared: SharedLimits,
        address: str,
        rights: ClientRights,
        *,
        has_numbers: bool = True,
    ) -> None:
        """`replies` is the queue of replies of this client's connection, and `address` is where the client is
        (`address_of`). `shared` are the limits that hold for all clients of the server together, and `rights` are those
        of this client. `has_numbers` is True if the tag of each request is its command number or None (the line
        protocol), and False if requests have no numbers (Redis).

        `on_session_end` is called, once for each session of the client that is taken over or expires, with a refusal
        that tells the reason.
        """
        self._server = server
        self._local_clients = server.local_clients
        self._check = server.catalogue.check
        self._verbs = verbs
        self._submitted_verbs = verbs.submitted
        self._work = verbs.work
        self.replies = replies
        self._on_session_end = on_session_end
        self._has_numbers = has_numbers
        self._rights = rights
        self._session_is_used = False
        self._session_end: Refused | None = None
        self._hello_refusal: Refused | None = None
        """The answer to all commands after a refused HELLO, until the next HELLO; None if the last HELLO was not
        refused."""
        self._session: ClientConnection | None = self._connect()
        self._shared = shared
        self._address = address
        self._large: LargeRequest | None = None
        """The last large request of this client, which may be answered already; None if there was none."""
        self._large_is_answered = False
        """Whether the last large request has its answer; then it is over at the latest when its reply is written."""
        self._is_paused = False
        self._subscriptions = Subscriptions(server, replies)
        self._members = MembersWatch(server, replies, shared.iteration_end)
        self._server_queries = ServerQueries(server, verbs.descriptions)
        self.must_be_alone = False
        """True while AUTH, HELLO, BYE or a large request is not answered: no further request may be handled."""
        self.finished = False
        """True after QUIT or BYE: no further request is handled, and the connection ends with the last reply."""
        self._handlers = self._make_handlers()
        self._pipelined: list[Command] = []
        """The commands of consecutive requests, which are submitted together."""
        self._pipelined_tags: list[Any] = []
        """The tag of each pipelined command."""
        self._pipelined_characters = 0
        """Number of characters of all pipelined commands together."""
        self._pipelines_locally = False
        """True if the pipelined commands are questions to this server's own state; False if they are commands, or
        questions that are put to the cluster."""

    def _make_handlers(self) -> dict[str, Callable[[Request], None]]:
        handlers: dict[str, Callable[[Request], None]] = {
            "AUTH": self._auth,
            "HELLO": self._hello,
            "BYE": self._bye,
            "QUIT": self._quit,
            "DIGEST": self._digest,
            "MEMBERS": self._watch_members,
        }
        for verb, query in self._server_queries.handlers.items():
            handlers[verb] = partial(self._handle_when_first, query)
        return handlers

    @property
    def unsubmitted(self) -> int:
        """The number of pipelined requests. They have no place in the queue of replies yet."""
        return len(self._pipelined)

    def handle_request(self, request: Request) -> None:
        """Handles a request, or collects it for `submit_pipelined`.

        If this raises an exception, the caller must answer the request with a refusal.
        """
        verb = request.verb
        description = self._submitted_verbs.get(verb)
        if description is not None:
            self._application_command(request, description)
            return
        handle = self._handlers.get(verb) or self._handler_of_event_log(verb)
        if handle is None:
            raise help_pages.unknown(verb, self._verbs.descriptions)
        listed = self._verbs.descriptions.get(verb)  # an application may listen by a verb that it does not list
        needed = Right.READ if listed is None else listed.right_for(has_arguments=bool(request.rest))
        self._rights.require(needed, verb)
        self.submit_pipelined()
        handle(request)

    def collect(self, commands: Sequence[Command], tags: Sequence[Any], characters: int, is_local: bool) -> bool:
        """Collects checked commands of one verb for `submit_pipelined`, as `handle_request` does with each of them.

        `tags` has the tag of each command, `characters` is the length of all of them together, and `is_local` is True
        for questions to this server's own state. Returns False, without any effect, if one of them is a large request,
        or the client has not the right for them: then the caller must hand over the requests one by one.
        """
        if self._rights.level < Right.WRITE and not self._are_allowed(commands):
            return False
        if not self._are_small(commands):
            return False
        self._make_room(characters, is_local)
        self._pipelined += commands
        self._pipelined_tags += tags
        return True

    def _are_allowed(self, commands: Sequence[Command]) -> bool:
        return self._submitted_verbs[commands[0][0]].right <= self._rights.level

    def _are_small(self, commands: Sequence[Command]) -> bool:
        """Whether none of these commands, which have the same verb, is a large request. Also False if their application
        cannot tell how much work they are: then each is answered by itself."""
        work = self._work.get(commands[0][0])
        try:
            return work is None or not is_large_request(max(map(work, commands)))
        except Exception:
            return False

    def _handler_of_event_log(self, verb: str) -> Callable[[Request], None] | None:
        if verb in self._verbs.listen:
            return self._listen
        return self._unlisten if verb in self._verbs.unlisten else None

    def submit_pipelined(self) -> None:
        """Submits the pipelined commands. Called when no requests are left, and before a request that is not
        pipelined."""
        commands, tags = self._pipelined, self._pipelined_tags
        if not commands:
            return
        self._pipelined, self._pipelined_tags, self._pipelined_characters = [], [], 0
        if self._pipelines_locally:
            self._query_local(commands, self.replies.place_all(tags))
        elif not self._submit_together(tags, commands):
            for tag, command in zip(tags, commands, strict=True):
                self._submit(tag, command, waits=False)

    def pause(self) -> None:
        """Called when the client does not read: delivers no events until `resume` is called."""
        self._is_paused = True
        self._subscriptions.pause()
        self._members.pause()
        if self._large is not None and self._large_is_answered:
            self._large.stops_being_read()  # Other clients need not wait for long until this client reads again.

    def resume(self) -> None:
        self._is_paused = False
        self._subscriptions.resume()
        self._members.resume()
        if self._large is not None:
            self._large.is_read()

    def end_subscriptions(self) -> None:
        """Delivers no more events, of any event log or about the servers."""
        self._subscriptions.end_all()
        self._members.end()

    def disconnected(self) -> None:
        """Called when the connection is gone: lets go of the session, which lives on for its ttl, for a later
        connection."""
        self.end_subscriptions()
        if self._large is not None:
            self._large.over()
        session, self._session = self._session, None
        if session is not None:
            session.disconnected()

    def _watch_members(self, request: Request) -> None:
        without_arguments(request)
        self.replies.handle_when_first(request.tag, self._begin_watch)

    def _begin_watch(self, answer: Answer) -> None:
        if self._local_clients.draining:
            answer(SHUTDOWN)
        else:
            self._members.begin(answer)

    def _digest(self, request: Request) -> None:
        self._handle_when_first(partial(self._server_queries.digest, self._server.deadline()), request)

    def _handle_when_first(self, handle: Callable[[Request, Answer], None], request: Request) -> None:
        self.replies.handle_when_first(request.tag, partial(handle, request))

    def _handle_alone(self, tag: Any, handle: Callable[[Answer], None]) -> None:
        """Handles a request when all earlier ones have their replies, and lets no later one be handled before this one
        has its answer."""
        self.must_be_alone = True
        self.replies.handle_when_first(tag, partial(self._begin_alone, handle))

    def _begin_alone(self, handle: Callable[[Answer], None], answer: Answer) -> None:
        is_answered = False

        def answered(result: Result) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered, self.must_be_alone = True, False
                answer(result)

        try:
            handle(answered)
        except Exception as error:
            answered(refusal(error))

    # ---------------------------------------------------------------------------------------------
    # Commands of the applications
    # ---------------------------------------------------------------------------------------------

    def _application_command(self, request: Request, description: CommandDescription) -> None:
        if description.right > self._rights.level:
            raise self._rights.refusal(description.right, request.verb)
        parts, level = parts_of(description, request), "linearizable"
        if not description.changes:
            if "at=" in request.rest and request.verb == "GET":
                parts, at = past_revision(parts)
                if at is not None:
                    self._get_past(request.tag, self._check(parts), at)
                    return
            parts, level = read_level(parts)
        command = self._check(parts)
        if command[0] != request.verb:  # SETTINGS SET has two words
            self._rights.require(self._submitted_verbs[command[0]].right, command[0])
        if level != "linearizable" and self._verbs.submitted[command[0]].changes:
            raise BadRequest(f"{command[0]} changes something: read= goes with questions")
        work = self._work.get(command[0])
        if work is not None and is_large_request(expected := work(command)):
            self.submit_pipelined()
            may_be_known = self._has_numbers and request.tag is not None and description.changes
            fate = "unknown" if may_be_known else "none"
            self._handle_alone(request.tag, partial(self._ask_large, command, level, expected, request.tag, fate))
        elif description.waits:
            self.submit_pipelined()
            self._submit(request.tag, command, waits=True)
        elif level == "linearizable":
            self._pipeline(request, command, is_local=False)
        elif level == "stale" or not (self.replies.in_order or (self._pipelined and not self._pipelines_locally)):
            self._pipeline(request, command, is_local=True)
        else:
            # read=sequential behind other requests: wait for their replies, so that the answer shows what they wrote.
            self.submit_pipelined()
            self.replies.handle_when_first(request.tag, partial(self._query_local_one, command))

    def _get_past(self, tag: Any, question: Command, revision: int) -> None:
        """Handles GET with at=: the question goes to `PastReads` when all earlier requests have their replies. Its time
        begins now."""
        until = self._server.deadline()

        def ask(answer: Answer) -> None:
            refused = self._hello_refusal or (SHUTDOWN if self._local_clients.draining else self._session_end)
            if refused is not None:
                answer(refused)
            else:
                self._server.past_reads.get(self._address, question[1], revision, until, answer)

        self.submit_pipelined()
        self.replies.handle_when_first(tag, ask)

    def _pipeline(self, request: Request, command: Command, is_local: bool) -> None:
        self._make_room(len(request.rest), is_local)
        self._pipelined.append(command)
        self._pipelined_tags.append(request.tag)

    def _make_room(self, characters: int, is_local: bool) -> None:
        """Called before commands of `characters` characters in all are added to the pipelined ones. `is_local` is True
        if these are questions to this server's own state.

        The pipelined commands are of one kind only, and have not too many characters. So those that are there are
        submitted first if they are of the other kind, or if all together would have too many.
        """
        if self._pipelined and (
            is_local != self._pipelines_locally or self._pipelined_characters + characters > PIPELINED_CHARACTERS_MAX
        ):
            self.submit_pipelined()
        self._pipelines_locally = is_local
        self._pipelined_characters += characters

    def _submit_together(self, tags: list[Any], commands: list[Command]) -> bool:
        """Submits the commands to the session as one; each still gets its own reply.

        Returns False, without any effect, if the caller must submit them one by one: after a refused HELLO, if a
        command cannot be encoded, or if the session does not take them as one.
        """
        if self._hello_refusal is not None:
            return False
        assert self._session is not None
        placed: list[AnswerAll] = []

        def place() -> AnswerAll:
            placed.append(self.replies.place_all(tags))
            return placed[0]

        numbers = tags if self._has_numbers else [None] * len(tags)
        try:
            together = self._session.submit_all(numbers, commands, place)
        except Exception as error:
            if not placed:
                return False  # a command cannot be encoded
            placed[0]([refusal(error)] * len(tags))
            return True
        self._session_is_used = self._session_is_used or together
        return together

    def _ask_large(self, command: Command, level: str, rows: int, tag: Any, fate: str, answer: Answer) -> None:
        """Submits a large request when `LargeRequests` lets it start. All earlier requests of this client have their
        replies by then, and no later one is handled before this one has its answer.

        `level` is the read level, `rows` is how much work the request is, `fate` is told if it cannot start, and
        `answer` is called with the result.
        """

        def answered(result: Result) -> None:
            if self._large is request:
                self._large_is_answered = True
            answer(result)
            # The large request is over only when its reply is written: many large replies that are being written would
            # fill the memory.
            if self._is_paused:
                request.stops_being_read()
            self.replies.call_between_replies(request.over)

        def ask() -> None:
            try:
                if command[0] not in self._submitted_verbs:  # the cluster runs other applications than before the wait
                    raise help_pages.unknown(command[0], self._verbs.descriptions)
                if level == "linearizable":
                    self._submit_for(tag, command, answered)
                else:
                    self._query_local_one(command, answered)
            except Exception as error:
                answered(refusal(error))

        if self._large is not None:
            self._large.over()  # the reply to the large request is written: this request is the first in the queue now
        self._large_is_answered = False
        request = self._large = LargeRequest(self._shared.large_requests, rows, ask, answered, fate)
        request.ask()

    def _submit(self, tag: Any, command: Command, waits: bool) -> None:
        self._submit_for(tag, command, self.replies.place_waiting(tag) if waits else self.replies.place(tag))

    def _submit_for(self, tag: Any, command: Command, answer: Answer) -> None:
        """Submits a command to the session. `answer` is called, once, with the result."""
        if self._hello_refusal is not None:
            answer(self._hello_refusal)
            return
        assert self._session is not None
        self._session_is_used = True
        try:
            self._session.submit(tag if self._has_numbers else None, command, answer)
        except Exception as error:
            answer(refusal(error))

    def _query_local_one(self, question: Command, answer: Answer) -> None:
        self._query_local([question], lambda results: answer(results[0]))

    def _query_local(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        refused = self._hello_refusal or (SHUTDOWN if self._local_clients.draining else self._session_end)
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
        """Begins an anonymous session at this server, as the session of this client; returns the connection to it. The
        client is told when its present session ends, but not when one ends that it has left before."""
        connected: list[ClientConnection] = []

        def ended(code: str, text: str) -> None:
            if connected and connected[0] is self._session:
                self._session_end = Refused(code, text)
                self._on_session_end(self._session_end)

        connected.append(self._local_clients.connect(ended, self.replies.fail))
        self._session_is_used = False
        self._session_end = self._hello_refusal = None
        return connected[0]

    def _auth(self, request: Request) -> None:
        token = auth_argument(request)

        def shown(answer: Answer, refused: Refused | None) -> None:
            answer(refused or Done(self._role))

        self.authenticate(request.tag, token, shown)

    @property
    def _role(self) -> Fields:
        token = self._rights.token
        role = ("role", Word(self._rights.level.word))
        return (role,) if token is None else (("name", token.name), role)

    def authenticate(self, tag: Any, token: str, shown: Callable[[Answer, Refused | None], None]) -> None:
        """Handles a request that shows a token: no later request is handled before the token was checked.

        `shown` is called then, with the call-back for the answer, and the refusal of the token or None.
        """
        self.submit_pipelined()
        self._handle_alone(tag, lambda answer: self._rights.show(token, partial(shown, answer)))

    def _hello(self, request: Request) -> None:
        client_id, ttl_seconds = hello_arguments(request)
        self._handle_alone(request.tag, partial(self._open_session, client_id, ttl_seconds))

    def _open_session(self, client_id: str, ttl_seconds: int, answer: Answer) -> None:
        refused = SHUTDOWN if self._local_clients.draining else self._shared.addresses.refusal(self._address, client_id)
        if refused is not None:
            self._hello_answered(answer, refused)
            return
        answer = self._noting_hello(client_id, answer)
        if self._session_is_used or self._session_end is not None:
            self._leave_session()
            self._session = self._connect()
        assert self._session is not None
        self._session_is_used = True
        try:
            self._session.hello(client_id, ttl_seconds, partial(self._hello_answered, answer))
        except Exception as error:
            self._hello_answered(answer, refusal(error))

    def _noting_hello(self, client_id: str, answer: Answer) -> Answer:
        """Return a call-back that passes the answer to a HELLO on, and notes that the session of that client id is no
        longer being opened."""

        def answered(result: Result) -> None:
            self._shared.addresses.answered(self._address, client_id)
            answer(result)

        return answered

    def _leave_session(self) -> None:
        session, self._session = self._session, None
        assert session is not None
        session.disconnected()
        self.replies.refuse_out_of_order(
            Refused("NOSESSION", "this connection has said HELLO again and left its session", fate="unknown")
        )

    def _hello_answered(self, answer: Answer, result: Result) -> None:
        """Passes on the answer to HELLO. After a refused HELLO all commands are refused until the next HELLO.

        They must not run in the connection's anonymous session, since the client means them for its own.
        """
        self._hello_refusal = None
        if isinstance(result, Refused):
            self._hello_refusal = Refused("NOSESSION", f"HELLO was refused ({result.code}); say it again first")
        answer(result)

    def _bye(self, request: Request) -> None:
        without_arguments(request)
        self._handle_alone(request.tag, self._close_session)

    def _close_session(self, answer: Answer) -> None:
        assert self._session is not None
        try:
            self._session.bye(partial(self._bye_answered, answer))
        except Exception as error:
            self._bye_answered(answer, refusal(error))

    def _bye_answered(self, answer: Answer, result: Result) -> None:
        if isinstance(result, Done) or self._session_end is not None:
            self.finished = True
        answer(result)

    def _quit(self, request: Request) -> None:
        without_arguments(request)
        self.finished = True
        self.replies.place(request.tag)(Done())

    # ---------------------------------------------------------------------------------------------
    # Subscriptions to event logs
    # ---------------------------------------------------------------------------------------------

    def _listen(self, request: Request) -> None:
        _verb, first = self._check((request.verb, *request.args))
        self.replies.handle_when_first(request.tag, partial(self._subscribe, request.verb, first))

    def _subscribe(self, verb: str, first: int, answer: Answer) -> None:
        if self._local_clients.draining:
            answer(SHUTDOWN)
        else:
            self._subscriptions.begin(verb, first, answer)

    def _unlisten(self, request: Request) -> None:
        self._check((request.verb, *request.args))
        self.replies.handle_when_first(request.tag, partial(self._unsubscribe, request.verb.removeprefix("UN")))

    def _unsubscribe(self, verb: str, answer: Answer) -> None:
        self._subscriptions.end(verb)
        answer(Done())
