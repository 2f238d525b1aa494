"""Replies in the order of the requests, whatever order the answers come in, and one write per connection and turn.

A large reply is rendered and written in slices, with turns of the reactor between them, and no faster than it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.applications.interfaces import Answer, BadRequest, Refused, Result

OUTPUT_BYTES_MAX: Final = 65_536
"""What is collected for one write; beyond it is written at once, so that the transport can ask for a pause."""

AnswerAll = Callable[[Sequence[Result]], None]
Tag = Any
"""What a request left for the rendering of its reply: its command number, or the form that its protocol wants."""
Rendered = bytes | Iterator[bytes]
"""A reply, or the parts of a large one, each made when it is its turn."""
Render = Callable[[Tag, Result], Rendered]

_log = Logger()


def refusal(error: Exception) -> Refused:
    """What a client is told of an exception. Anything but a `BadRequest` is our mistake, and goes to the log."""
    if isinstance(error, BadRequest):
        return Refused(error.code, str(error))
    _log.failure("a client's request failed", Failure(error))
    return Refused("INTERNAL", "the server made a mistake with this request and noted it in its log", fate="unknown")


class EndOfIteration:
    """Calls what is due after everything else that happens in the reactor's present turn: one timer for all."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: list[Callable[[], None]] = []

    def call(self, what: Callable[[], None]) -> None:
        """Call `what`, which must not raise, once this turn is over."""
        if not self._due:
            self._clock.callLater(0, self._run)
        self._due.append(what)

    def hurry(self) -> None:
        """Call now what is due: the server stops, and there may be no next turn."""
        self._run()

    def _run(self) -> None:
        due, self._due = self._due, []
        for what in due:
            what()


@define(eq=False)
class _Slot:
    """The place of one reply, or of the replies to requests that were taken together."""

    _queue: ReplyQueue
    tags: Sequence[Tag]
    ask: Callable[[Answer], None] | None = None
    """What is still to be asked, once all earlier requests are answered."""
    results: Sequence[Result] | None = None
    waits: bool = False

    def answer(self, result: Result) -> None:
        self.answer_all((result,))

    def answer_all(self, results: Sequence[Result]) -> None:
        if self.results is None:
            self.results = results
            self._queue._answered(self)


@define(eq=False)
class ReplyQueue:
    """The replies of one connection.

    Only a request whose command `waits` (LOCK) is overtaken. How many places may be taken is the business of whoever
    reads requests: it looks at `outstanding`, and is told by `relieved` that this has become less.
    """

    _write: Callable[[bytes], object]
    _render: Render
    _turn: EndOfIteration
    _relieved: Callable[[], None]
    _slots: deque[_Slot] = field(init=False, factory=deque)
    _in_order: int = field(init=False, default=0)
    _waiting: set[_Slot] = field(init=False, factory=set)
    _stream: Iterator[bytes] | None = field(init=False, default=None)
    """What is left of the reply at the head of the queue, while that is written in slices."""
    _stream_is_due: bool = field(init=False, default=False)
    _held: list[bytes] = field(init=False, factory=list)
    """Said meanwhile: it must not stand within a reply."""
    _paused: bool = field(init=False, default=False)
    _out: list[bytes] = field(init=False, factory=list)
    _out_bytes: int = field(init=False, default=0)
    _flush_is_due: bool = field(init=False, default=False)
    _starting: bool = field(init=False, default=False)
    _closed: bool = field(init=False, default=False)

    @property
    def in_order(self) -> int:
        """Requests that have not got their reply, but for those that wait out of order."""
        return self._in_order

    @property
    def outstanding(self) -> int:
        """Requests that have not got their reply."""
        return self._in_order + len(self._waiting)

    def place(self, tag: Tag) -> Answer:
        """Take the next place; the answer may come at any time."""
        return self._append(_Slot(self, (tag,))).answer

    def place_all(self, tags: Sequence[Tag]) -> AnswerAll:
        """Take the next places, for requests that are answered together."""
        return self._append(_Slot(self, tags)).answer_all

    def place_waiting(self, tag: Tag) -> Answer:
        """A place for an answer that is written when it comes, and that nobody waits for."""
        slot = _Slot(self, (tag,), waits=True)
        self._waiting.add(slot)
        return slot.answer

    def when_first(self, tag: Tag, ask: Callable[[Answer], None]) -> None:
        """Take the next place, and call `ask(answer)` once all earlier requests are answered: perhaps at once."""
        self._append(_Slot(self, (tag,), ask))
        if len(self._slots) == 1:
            self._advance()

    def say(self, data: bytes) -> None:
        """Write something that nobody asked for, between replies."""
        if self._closed:
            return
        if self._stream is not None:
            self._held.append(data)
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > OUTPUT_BYTES_MAX:
            self.flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._turn.call(self._turn_is_over)

    def flush(self) -> None:
        """Write what has been collected."""
        if self._out:
            data, self._out, self._out_bytes = b"".join(self._out), [], 0
            self._write(data)

    def finish(self) -> None:
        """Write all that there is, at once: the connection ends."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._out.extend(stream)
        self._out.extend(self._held)
        self._held.clear()
        self.flush()

    def pause(self) -> None:
        """The client does not read: no more slices."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._stream is not None:
            self._stream_soon()

    def refuse_waiting(self, result: Refused) -> None:
        """Answer all who wait out of order: their answer will not come any more."""
        for slot in sorted(self._waiting, key=lambda slot: slot.tags[0] or 0):
            slot.answer(result)

    def close(self) -> None:
        """The connection is gone: forget everything, and whatever is still to be answered."""
        self._closed = True
        self._slots.clear()
        self._in_order = 0
        self._waiting.clear()
        self._stream = None
        self._held.clear()
        self._out.clear()

    def _turn_is_over(self) -> None:
        self._flush_is_due = False
        self.flush()

    def _answered(self, slot: _Slot) -> None:
        if self._closed:
            return
        if slot.waits:
            self._waiting.discard(slot)
            self.say(b"".join(self._slices(slot)))
        elif self._slots[0] is not slot:
            return
        elif self._starting:
            self._emit()
            return
        else:
            self._advance()
        self._relieved()

    def _advance(self) -> None:
        """Write the replies at the head of the queue; ask what has come to the head."""
        slots = self._slots
        while slots and self._stream is None:
            slot = slots[0]
            if slot.results is not None:
                self._emit()
            elif slot.ask is not None:
                ask, slot.ask = slot.ask, None
                self._start(slot, ask)
            else:
                return

    def _start(self, slot: _Slot, ask: Callable[[Answer], None]) -> None:
        self._starting = True
        try:
            ask(slot.answer)
        except Exception as error:
            slot.answer(refusal(error))
        finally:
            self._starting = False

    def _append(self, slot: _Slot) -> _Slot:
        self._slots.append(slot)
        self._in_order += len(slot.tags)
        return slot

    def _pop(self) -> None:
        slot = self._slots.popleft()
        self._in_order -= len(slot.tags)

    def _emit(self) -> None:
        """Write the reply at the head of the queue, or begin to."""
        slot = self._slots[0]
        assert slot.results is not None
        try:
            data = b"".join(map(self._render, slot.tags, slot.results))  # type: ignore[arg-type]
        except Exception:  # one is large, or cannot be rendered
            self._stream = self._slices(slot)
            self._stream_soon()
        else:
            self._pop()
            self.say(data)

    def _slices(self, slot: _Slot) -> Iterator[bytes]:
        assert slot.results is not None
        for tag, result in zip(slot.tags, slot.results, strict=True):
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

    def _stream_soon(self) -> None:
        if not self._stream_is_due:
            self._stream_is_due = True
            self._turn.call(self._stream_on)

    def _stream_on(self) -> None:
        """Write the next slice. Other connections have their turn before the one after that."""
        self._stream_is_due = False
        stream = self._stream
        if stream is None or self._paused or self._closed:
            return
        for data in stream:
            self._out.append(data)
            self._out_bytes += len(data)
            if self._out_bytes >= OUTPUT_BYTES_MAX:
                self.flush()
                self._stream_soon()
                return
        self._end_stream()

    def _end_stream(self) -> None:
        self._stream = None
        self._pop()
        held, self._held = self._held, []
        for data in held:
            self.say(data)
        self._advance()
        self.flush()
        self._relieved()
