"""ReplyQueue: the replies of one connection, in the order of its requests, whatever order the answers come in.

A reply behind which no request waits is written at once. Other replies of one iteration of the reactor are written
together. A large reply, or many replies that are large together, are rendered and written in slices: between two slices
the reactor serves other connections, and slices are made no faster than the client reads them. Results that wait to be
rendered are counted (`ReplyQueue.held_bytes`), since clients that do not read must not fill the memory with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.interfaces import Answer, BadRequest, Done, DoneGrowing, Fields, Refused, Result, RunResults
from pfsb.applications.names import is_word

if TYPE_CHECKING:
    from pfsb.sessions.connection import AnswerAll

OUTPUT_BYTES_MAX: Final = 65_536
"""Number of bytes of collected output beyond which it is written at once, so that the transport can ask for a pause."""
REPLIES_AT_ONCE: Final = 16
"""Maximum number of replies of one place that are rendered together without counting their bytes. Replies that are not
large alone are not too large together if they are so few."""
ROWS_AT_ONCE: Final = 16
"""Maximum number of rows in a reply that is rendered as a whole; a reply of more rows is rendered row by row."""
FINISHED_BYTES_MAX: Final = 1_048_576
"""Maximum size in memory, in bytes, of results that are still rendered when the connection of a client that does not
read is ended."""
TURNS_SECONDS: Final = 0.01
"""How long, in seconds, the functions of `EndOfIteration.call_in_turn` may take in one iteration of the reactor, before
those that are left wait for the next one."""
_RESULT_BYTES: Final = 256
"""Estimated size, in bytes, of a result in memory, without the texts in its fields and rows."""
_ROW_BYTES: Final = 512
"""Estimated size, in bytes, of a row of a result in memory, without its texts."""
_SIZED: Final = (bytes, str)

SHUTDOWN: Final = Refused("SHUTDOWN", "this server is stopping; go on at another one, with the same number")
"""The refusal that a front end gives by itself, without submitting the request to the sessions, while the server
stops."""

Tag = Any
"""A mark of a request that tells `Render` how to render its reply.

It is the command number of a line, or the form of the reply to a command of Redis.
"""
Rendered = bytes | Iterator[bytes]
"""The bytes of a reply; or an iterator of the parts of a large reply, each made when the part before it is written."""
Render = Callable[[Tag, Result], Rendered]
RenderRun = Callable[[Sequence[Tag], RunResults], bytes]
"""Renders the replies of commands that were executed together: the bytes are those that `Render` makes of each."""

_log = Logger()


def refusal(error: Exception) -> Refused:
    """The refusal for a request that raised `error`. Any exception but a `BadRequest` whose code is a word is a defect,
    and is logged."""
    if isinstance(error, BadRequest) and is_word(error.code):
        return Refused(error.code, str(error))
    _log.failure("a client's request failed", Failure(error))
    return Refused("INTERNAL", "the server made a mistake with this request and noted it in its log", fate="unknown")


def memory_of(results: Sequence[Result]) -> int:
    """The estimated size of results in memory, in bytes."""
    if type(results) is RunResults:
        return _RESULT_BYTES
    size = _RESULT_BYTES * len(results)
    for result in results:
        if isinstance(result, Done) and not isinstance(result, DoneGrowing):
            size += _text_bytes(result.fields)
            if result.rows:
                size += _ROW_BYTES * len(result.rows) + _texts_of_rows(result.rows)
    return size


def _texts_of_rows(rows: Sequence[Fields]) -> int:
    try:
        return sum(map(_text_bytes, rows))
    except Exception:
        # An application has given rows of a wrong type: an error is written in place of the reply when it is rendered.
        return 0


def is_large(result: Result) -> bool:
    """Whether the reply to a request with this result takes long to render: it has many rows, or a long text."""
    if type(result) is Done and not result.rows:  # this is nearly always so, and is asked for each reply of Redis
        value = result.fields[0][1] if result.fields else 0
        return isinstance(value, _SIZED) and len(value) > OUTPUT_BYTES_MAX
    if isinstance(result, DoneGrowing):
        return result.size > OUTPUT_BYTES_MAX
    if isinstance(result, Refused):
        return False
    return len(result.rows) > ROWS_AT_ONCE or memory_of((result,)) > OUTPUT_BYTES_MAX


def _text_bytes(fields: Fields) -> int:
    return sum([len(value) for _, value in fields if isinstance(value, _SIZED)])


class EndOfIteration:
    """Calls functions at the end of the reactor's present iteration, each once, with one timer for all of them."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: list[Callable[[], None]] = []
        self._turns: deque[Callable[[], None]] = deque()
        self._turns_are_due = False

    def call(self, function: Callable[[], None]) -> None:
        """Calls `function`, which must not raise, once this iteration is over."""
        if not self._due:
            self._clock.callLater(0, self._call_due)
        self._due.append(function)

    def call_in_turn(self, function: Callable[[], None]) -> None:
        """Calls `function`, which must not raise, once, after this iteration: at its end, or in a later one if many
        functions wait before it.

        For work that is done in slices: however many clients cause such work, an iteration spends about `TURNS_SECONDS`
        on it, and the slices of all clients come in the order in which they were asked for.
        """
        self._turns.append(function)
        if not self._turns_are_due:
            self._turns_are_due = True
            self.call(self._take_turns)

    def hurry(self) -> None:
        """Called when the server stops: makes all calls that are due at the end of this iteration now, since it may be
        the last one."""
        self._call_due()

    def _take_turns(self) -> None:
        """Calls the functions that `call_in_turn` was given before now, one after the other, until `TURNS_SECONDS` are
        over. Those that are left stay in front of those that come meanwhile."""
        self._turns_are_due = False
        turns, self._turns = self._turns, deque()
        end = self._clock.seconds() + TURNS_SECONDS
        while turns:
            _call_safely(turns.popleft())
            if turns and self._clock.seconds() >= end:
                break
        if turns:
            self._turns.extendleft(reversed(turns))
        if self._turns and not self._turns_are_due:
            self._turns_are_due = True
            self.call(self._take_turns)

    def _call_due(self) -> None:
        due, self._due = self._due, []
        for function in due:
            _call_safely(function)


def _call_safely(function: Callable[[], None]) -> None:
    """Calls a function of one connection; an exception is logged, since the functions of all others come after it. A
    function whose client waits for it must catch its exceptions itself, and end the connection (`ReplyQueue.fail`)."""
    try:
        function()
    except Exception as error:
        _log.failure("a function at the end of an iteration of the reactor failed", Failure(error))


@define(eq=False)
class _ReplyPlace:
    """The place in the queue of one reply, or of the replies to requests that are answered together."""

    _queue: ReplyQueue
    tags: Sequence[Tag]
    handle: Callable[[Answer], None] | None = None
    """Function that handles the request of this place, for a request that must not be handled before all earlier ones
    have their replies (`handle_when_first`). It is called once, at the head of the queue; its argument is the function
    to call with the result. None: the request is not of this kind, or its handling has begun."""
    results: Sequence[Result] | None = None
    """The results of the requests, one for each tag; None: they have not come yet."""
    out_of_order: bool = False
    """True if the reply is written when its result comes, even before the replies to earlier requests."""
    held_bytes: int = 0
    """The size in memory, in bytes, of this place's results while they wait to be rendered (`memory_of`); 0 if they do
    not wait."""

    def answer(self, result: Result) -> None:
        self.answer_all((result,))

    def answer_all(self, results: Sequence[Result]) -> None:
        if self.results is None:
            self.results = results
            try:
                self._queue._place_answered(self)
            except Exception as error:
                self._queue.fail(error)


@define(eq=False)
class ReplyQueue:
    """The replies of one connection.

    Each request takes a place when it is handled, and the reply at the head of the queue is written when its answer is
    there. Only the requests of `place_waiting` are outside of this order. The number of places has no limit here: the
    owner of the queue must handle no more requests while `outstanding` is too large. Whenever `outstanding` has become
    less, the queue calls the function `relieved`, which the owner has given to it.
    """

    _write: Callable[[bytes], object]
    _render: Render
    _iteration_end: EndOfIteration
    _relieved: Callable[[], None]
    _failed: Callable[[], None]
    """Function that is called, without arguments, when something that the client waits for cannot be written. The owner
    must end the connection, since the client would wait for ever."""
    _render_run: RenderRun | None = None
    """Renders the replies of commands that were executed together (`RenderRun`); None: they are rendered one by one."""
    _holds: Callable[[], None] | None = None
    """Function that is called, without arguments, whenever `held_bytes` has grown, and when it has become 0; None: the
    owner need not know."""
    held_bytes: int = field(init=False, default=0)
    """The size in memory, in bytes, of all results that wait to be rendered."""
    in_order: int = field(init=False, default=0)
    """The number of requests that have no reply yet, not counting those whose reply may come out of order
    (`place_waiting`)."""
    outstanding: int = field(init=False, default=0)
    """The number of all requests that have no reply yet."""
    _places: deque[_ReplyPlace] = field(init=False, factory=deque)
    _waiting: set[_ReplyPlace] = field(init=False, factory=set)
    _stream: Iterator[bytes] | None = field(init=False, default=None)
    """The rest of the large reply that is being written in slices, at the head of the queue; None if there is none."""
    _slice_is_due: bool = field(init=False, default=False)
    _delayed: list[bytes] = field(init=False, factory=list)
    """Output that waits for the end of a reply that is written in slices, and must not be written amid that reply."""
    _after_stream: list[Callable[[], None]] = field(init=False, factory=list)
    """Functions that are called when the large reply that is being written has ended (`call_between_replies`)."""
    _paused: bool = field(init=False, default=False)
    _out: list[bytes] = field(init=False, factory=list)
    _out_bytes: int = field(init=False, default=0)
    _flush_is_due: bool = field(init=False, default=False)
    is_collecting: bool = field(init=False, default=False)
    """True while the owner handles requests that have arrived together: then it calls `flush` when all are handled, so
    that replies which are there at once are written together."""
    _handling: bool = field(init=False, default=False)
    _closed: bool = field(init=False, default=False)

    def place(self, tag: Tag) -> Answer:
        """Takes the next place for a request. Returns the function to call with its result, once, at any time."""
        return self._append(_ReplyPlace(self, (tag,))).answer

    def place_all(self, tags: Sequence[Tag]) -> AnswerAll:
        """Takes the next places, for requests that are answered together.

        Returns the function to call, once, with a sequence of their results in the order of `tags`.
        """
        return self._append(_ReplyPlace(self, tags)).answer_all

    def place_waiting(self, tag: Tag) -> Answer:
        """Makes a place for a request whose reply may come out of order: the reply is written when the answer comes,
        and no other reply waits for it.

        Returns the function to call, once, with the result.
        """
        place = _ReplyPlace(self, (tag,), out_of_order=True)
        self._waiting.add(place)
        self.outstanding += 1
        return place.answer

    def handle_when_first(self, tag: Tag, handle: Callable[[Answer], None]) -> None:
        """Takes the next place for a request that must not be handled before all earlier requests have their replies.

        When they have, `handle(answer)` is called, once; that may be before this method returns. `answer` is the
        function to call with the result of the request.
        """
        self._append(_ReplyPlace(self, (tag,), handle))
        if len(self._places) == 1:
            self._advance()

    def write_between_replies(self, data: bytes) -> None:
        """Writes data behind the replies that have left the queue so far, and not amid a large reply.

        The data take no place in the queue, so they do not wait for requests without an answer. Other modules write
        events and greetings in this way; this class itself writes each reply so when its turn has come.
        """
        if self._closed:
            return
        if self._stream is not None:
            self._delayed.append(data)
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > OUTPUT_BYTES_MAX:
            self.flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._iteration_end.call(self._iteration_is_over)

    @property
    def is_amid_reply(self) -> bool:
        """True while a large reply is written in slices: what is written between replies then waits in memory."""
        return self._stream is not None

    def call_between_replies(self, function: Callable[[], None]) -> None:
        """Calls `function`, once, in a later iteration of the reactor, when no large reply is being written.

        The next page of many events is asked for in this way: until then they stay in their event log.
        """
        if self._stream is None:
            self._iteration_end.call_in_turn(partial(self._call, function))
        else:
            self._after_stream.append(function)

    def fail(self, error: Exception) -> None:
        """Logs an exception that keeps the client from something that it waits for, and has the owner of this queue end
        the connection. Does nothing if the connection has ended."""
        if not self._closed:
            _log.failure("a connection is ended after a mistake of this server", Failure(error))
            self._failed()

    def _call(self, function: Callable[[], None]) -> None:
        """Calls a function that the reactor, or a server's turn, would call for this connection: nothing but `fail`
        sees its exceptions."""
        try:
            function()
        except Exception as error:
            self.fail(error)

    def flush(self) -> None:
        """Hands the output that was collected in this iteration of the reactor to the transport now."""
        if self._out:
            data, self._out, self._out_bytes = b"".join(self._out), [], 0
            self._write(data)

    def finish(self) -> None:
        """Called when the connection ends: hands all output to the transport, the rest of a large reply included.

        If the client does not read and more than `FINISHED_BYTES_MAX` of results wait, the rest of the large reply is
        left out, and so is all output behind it, whatever answers and events still come: the cut reply must not look
        complete.
        """
        if self._stream is not None and self._paused and self.held_bytes > FINISHED_BYTES_MAX:
            self.flush()
            self.close()
            return
        stream, self._stream = self._stream, None
        self._out.extend(stream or ())
        self._out.extend(self._delayed)
        self._delayed.clear()
        self.flush()

    def pause(self) -> None:
        """Called when the client does not read: renders no further slice of a large reply until `resume` is called."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._stream is not None:
            self._slice_soon()

    def refuse_out_of_order(self, result: Refused) -> None:
        """Answers with `result` all requests whose reply may come out of order (`place_waiting`), in the order of their
        tags.

        Called when the client opens another session on its connection by HELLO: the requests wait in the session that
        it leaves, and would get no other answer.
        """
        for place in sorted(self._waiting, key=lambda place: place.tags[0] or 0):
            place.answer(result)

    def close(self) -> None:
        """Called when the connection is gone: forget all output, and ignore the answers that are still to come."""
        self._closed = True
        self._places.clear()
        self._waiting.clear()
        self.in_order = self.outstanding = 0
        self._stream = None
        self._delayed.clear()
        self._after_stream.clear()
        self._out.clear()
        self.held_bytes = 0

    def _iteration_is_over(self) -> None:
        self._flush_is_due = False
        try:
            self.flush()
        except Exception as error:
            self.fail(error)

    def _place_answered(self, place: _ReplyPlace) -> None:
        if self._closed:
            return
        if place.out_of_order:
            self._waiting.discard(place)
            self.outstanding -= 1
            self.write_between_replies(b"".join(self._slices(place)))
        elif self._places[0] is not place:
            self._hold(place)
            return
        elif self._handling:
            self._emit(place)
            return
        else:
            self._advance()
        self._relieved()

    def _advance(self) -> None:
        """Writes answered replies at the head of the queue, and handles requests that waited to come to the head."""
        places = self._places
        while places and self._stream is None:
            place = places[0]
            if place.results is not None:
                self._emit(place)
            elif place.handle is not None:
                handle, place.handle = place.handle, None
                self._handle(place, handle)
            else:
                return

    def _handle(self, place: _ReplyPlace, handle: Callable[[Answer], None]) -> None:
        self._handling = True
        try:
            handle(place.answer)
        except Exception as error:
            place.answer(refusal(error))
        finally:
            self._handling = False

    def _append(self, place: _ReplyPlace) -> _ReplyPlace:
        self._places.append(place)
        count = len(place.tags)
        self.in_order += count
        self.outstanding += count
        return place

    def _pop(self) -> None:
        place = self._places.popleft()
        count = len(place.tags)
        self.in_order -= count
        self.outstanding -= count
        if place.held_bytes:
            self.held_bytes -= place.held_bytes
            if not self.held_bytes and self._holds is not None:
                self._holds()

    def _hold(self, place: _ReplyPlace) -> None:
        """Counts the results of a place in `held_bytes`, since they are not rendered at once."""
        if not place.held_bytes:
            assert place.results is not None
            place.held_bytes = memory_of(place.results)
            self.held_bytes += place.held_bytes
            if self._holds is not None:
                self._holds()

    def _emit(self, place: _ReplyPlace) -> None:
        """Writes the replies of `place`, which is at the head of the queue. If they are large, alone or together, or
        the client does not read, they are written in slices instead, from a later iteration on."""
        try:
            data = None if self._paused else self._rendered_at_once(place)
        except Exception:
            # A reply is an iterator, because it is large, or `_render` has raised: `_slices` deals with both.
            data = None
        if data is None:
            self._stream = self._slices(place)
            self._hold(place)
            if not self._paused:
                self._slice_soon()
            return
        self._pop()
        if self._places or self._out or self.is_collecting:
            self.write_between_replies(data)
        else:
            # A delayed call for each such reply cost 2 % of the byte code of a command at 64 x 1.
            self._write(data)

    def _rendered_at_once(self, place: _ReplyPlace) -> bytes | None:
        """The bytes of the replies of a place; None if they are large together, so that they must be written in slices.
        If one of them is large alone, an exception is raised, of any kind."""
        results = place.results
        assert results is not None
        if type(results) is RunResults and self._render_run is not None:
            return self._render_run(place.tags, results)
        render: Any = self._render
        if len(results) <= REPLIES_AT_ONCE:  # a count of bytes for each reply would take 4 % of a read at 8 x 8
            return b"".join(map(render, place.tags, results))
        size, pieces = 0, []
        for tag, result in zip(place.tags, results, strict=True):
            if size > OUTPUT_BYTES_MAX:
                return None
            pieces.append(render(tag, result))
            size += len(pieces[-1])
        return b"".join(pieces)

    def _slices(self, place: _ReplyPlace) -> Iterator[bytes]:
        """Yields the bytes of the replies of a place, in order, in pieces: each is made when it is asked for."""
        assert place.results is not None
        for tag, result in zip(place.tags, place.results, strict=True):
            try:
                rendered = self._render(tag, result)
                if isinstance(rendered, bytes):
                    yield rendered
                else:
                    yield from rendered
            except Exception as error:
                refused = self._render(tag, refusal(error))
                assert isinstance(refused, bytes), "a refusal is small"
                yield refused

    def _slice_soon(self) -> None:
        if not self._slice_is_due:
            self._slice_is_due = True
            self._iteration_end.call_in_turn(partial(self._call, self._write_slice))

    def _write_slice(self) -> None:
        """Writes the next slice of a large reply, about `OUTPUT_BYTES_MAX` bytes. Further slices follow in later
        iterations of the reactor, which serves other connections in between."""
        self._slice_is_due = False
        stream = self._stream
        if stream is None or self._paused or self._closed:
            return
        for data in stream:
            self._out.append(data)
            self._out_bytes += len(data)
            if self._out_bytes >= OUTPUT_BYTES_MAX:
                self.flush()
                self._slice_soon()
                return
        self._end_stream()

    def _end_stream(self) -> None:
        self._stream = None
        self._pop()
        delayed, self._delayed = self._delayed, []
        for data in delayed:
            self.write_between_replies(data)
        after, self._after_stream = self._after_stream, []
        for function in after:
            self.call_between_replies(function)
        self._advance()
        self.flush()
        self._relieved()
