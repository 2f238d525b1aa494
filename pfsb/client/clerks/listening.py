"""Several listeners to the chat over one connection. Each listener has its own position in the chat, and gets every
line after that position once."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import ClerkError


@define(eq=False)
class Listener:
    """A receiver of lines of the chat. `next` is the number of the line that it needs next; None: the next line that is
    added."""

    next: int | None
    deliver: Callable[[ChatLine], bool]
    """Called by `Listeners` with each line, in order; returns whether the listener had room for the line.

    If it had no room, the listener gets this line again, and those after it, once `Listeners.catch_up` is called.
    """
    fail: Callable[[ClerkError], None]
    """Called once by `Listeners`, with the reason, when no more lines will come to any listener."""
    begun: Callable[[], None]
    """Called by `Listeners`, without arguments, each time that a server has accepted a LISTEN which this or another
    listener of the client has caused. Every line from `next` on will come to this listener then."""
    is_behind: bool = False
    """True: the listener has refused a line for lack of room, and gets none until `Listeners.catch_up`."""


@define(eq=False)
class Listeners:
    """The listeners of one client. The client asks its server once for all of them: for the lines from the earliest
    line on that any listener needs."""

    _ask: Callable[[int | None], None]
    """Function that asks the server for lines from a number on (None: for those added from now on). `Listeners` calls
    it for each new listener, and when a listener needs lines again. When the server has answered, the owner of the
    `Listeners` must call `began`."""
    _stop: Callable[[], None]
    """Function without arguments that asks the server to send no more lines. `Listeners` calls it when the last
    listener is removed."""
    _all: list[Listener] = field(factory=list)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, listener: Listener) -> None:
        """Begin to deliver lines to this listener."""
        self._all.append(listener)
        self._ask(listener.next)

    def remove(self, listener: Listener) -> None:
        """Stop delivering lines to this listener."""
        if listener in self._all:
            self._all.remove(listener)
            if not self._all:
                self._stop()

    def catch_up(self, listener: Listener) -> None:
        """Called when a listener has room again: ask the server to repeat the lines that this listener has missed."""
        if listener.is_behind:
            listener.is_behind = False
            self._ask(listener.next)

    def began(self, first: int | None) -> None:
        """Called when the server has answered that it sends lines from number `first` on. None: the answer names no
        number.

        If a listener needs earlier lines, ask the server for them.
        """
        for listener in self._all:
            listener.next = first if listener.next is None else listener.next
            listener.begun()
        needed = min((each.next for each in self._all if each.next is not None and not each.is_behind), default=None)
        if first is not None and needed is not None and needed < first:
            self._ask(needed)

    def heard(self, line: ChatLine) -> None:
        """Deliver a line to those listeners that need this line next.

        The other listeners have got the line already, or will get it when the server repeats it.
        """
        for listener in list(self._all):
            if not listener.is_behind and listener.next in (None, line.index):
                if listener.deliver(line):
                    listener.next = line.index + 1
                else:
                    listener.next, listener.is_behind = line.index, True

    def fail(self, error: ClerkError) -> None:
        """Called when no more lines will come: remove all listeners, and call their `fail`."""
        listeners, self._all = self._all, []
        for listener in listeners:
            listener.fail(error)
