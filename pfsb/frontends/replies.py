"""Replies in the order of the requests, whatever order the answers come in, and one write per connection and turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.interfaces import Answer, BadRequest, Refused, Result

OUTPUT_BYTES_MAX: Final = 65_536
"""What is collected for one write; beyond it is written at once, so that the transport can ask for a pause."""

AnswerAll = Callable[[Sequence[Result]], None]
Render = Callable[[int | None, Result], bytes]

_log = Logger()


def refusal(error: Exception) -> Refused:
    """What a client is told of an exception. Anything but a `BadRequest` is our mistake, and goes to the log."""
    if isinstance(error, BadRequest):
        return Refused(error.code, str(error))
    _log.failure("a client's request failed", Failure(error))
    return Refused("INTERNAL", "the server made a mistake with this request and noted it in its log", fate="unknown")


class EndOfTurn:
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
    numbers: Sequence[int | None]
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
    _turn: EndOfTurn
    _relieved: Callable[[], None]
    _slots: deque[_Slot] = field(init=False, factory=deque)
    _in_order: int = field(init=False, default=0)
    _waiting: set[_Slot] = field(init=False, factory=set)
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

    def place(self, number: int | None) -> Answer:
        """Take the next place; the answer may come at any time."""
        return self._append(_Slot(self, (number,))).answer

    def place_all(self, numbers: Sequence[int | None]) -> AnswerAll:
        """Take the next places, for requests that are answered together."""
        return self._append(_Slot(self, numbers)).answer_all

    def place_waiting(self, number: int | None) -> Answer:
        """A place for an answer that is written when it comes, and that nobody waits for."""
        slot = _Slot(self, (number,), waits=True)
        self._waiting.add(slot)
        return slot.answer

    def when_first(self, number: int | None, ask: Callable[[Answer], None]) -> None:
        """Take the next place, and call `ask(answer)` once all earlier requests are answered: perhaps at once."""
        self._append(_Slot(self, (number,), ask))
        if len(self._slots) == 1:
            self._advance()

    def say(self, data: bytes) -> None:
        """Write something that nobody asked for, between replies."""
        if self._closed:
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

    def refuse_waiting(self, result: Refused) -> None:
        """Answer all who wait out of order: their answer will not come any more."""
        for slot in sorted(self._waiting, key=lambda slot: slot.numbers[0] or 0):
            slot.answer(result)

    def close(self) -> None:
        """The connection is gone: forget everything, and whatever is still to be answered."""
        self._closed = True
        self._slots.clear()
        self._in_order = 0
        self._waiting.clear()
        self._out.clear()

    def _turn_is_over(self) -> None:
        self._flush_is_due = False
        self.flush()

    def _answered(self, slot: _Slot) -> None:
        if self._closed:
            return
        if slot.waits:
            self._waiting.discard(slot)
            self._emit(slot)
        elif self._slots[0] is not slot:
            return
        elif self._starting:
            self._emit(self._pop())
            return
        else:
            self._advance()
        self._relieved()

    def _advance(self) -> None:
        """Write the replies at the head of the queue; ask what has come to the head."""
        slots = self._slots
        while slots:
            slot = slots[0]
            if slot.results is not None:
                self._emit(self._pop())
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
        self._in_order += len(slot.numbers)
        return slot

    def _pop(self) -> _Slot:
        slot = self._slots.popleft()
        self._in_order -= len(slot.numbers)
        return slot

    def _emit(self, slot: _Slot) -> None:
        assert slot.results is not None
        try:
            data = b"".join(map(self._render, slot.numbers, slot.results))
        except Exception:
            data = b"".join(map(self._render_or_refuse, slot.numbers, slot.results))
        self.say(data)

    def _render_or_refuse(self, number: int | None, result: Result) -> bytes:
        try:
            return self._render(number, result)
        except Exception as error:
            return self._render(number, refusal(error))
