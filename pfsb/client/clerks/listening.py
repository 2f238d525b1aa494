"""Several listeners to one chat. Each has its own position in it, and gets every line from there on exactly once."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import ClerkError


@define(eq=False)
class Listener:
    """A receiver of lines, from number `next` on; None: from the next line on that is added."""

    next: int | None
    deliver: Callable[[ChatLine], bool]
    """Takes a line, and returns whether there was room for it. Without room, the line comes again after
    `Listeners.catch_up`."""
    fail: Callable[[ClerkError], None]
    """Called when no more lines will come."""
    begun: Callable[[], None]
    """Called when a server follows the chat, so that every line from `next` on will come."""
    is_behind: bool = False
    """True: the listener has refused a line for lack of room, and gets none until `Listeners.catch_up`."""


@define(eq=False)
class Listeners:
    """The listeners of one connection, which follows the chat from the earliest line on that a listener needs."""

    _ask: Callable[[int | None], None]
    """Asks the server for lines from this number on (None: from now on); its answer comes by `began`."""
    _stop: Callable[[], None]
    """Asks the server for no more lines."""
    _all: list[Listener] = field(factory=list)

    def add(self, listener: Listener) -> None:
        """Deliver lines to this listener."""
        self._all.append(listener)
        self._ask(listener.next)

    def remove(self, listener: Listener) -> None:
        """Deliver no more lines to this listener."""
        if listener in self._all:
            self._all.remove(listener)
            if not self._all:
                self._stop()

    def catch_up(self, listener: Listener) -> None:
        """This listener has room again: have the lines repeated that it has missed."""
        if listener.is_behind:
            listener.is_behind = False
            self._ask(listener.next)

    def began(self, first: int | None) -> None:
        """The server sends lines from number `first` on. If a listener needs earlier ones, ask for these."""
        for listener in self._all:
            listener.next = first if listener.next is None else listener.next
            listener.begun()
        needed = min((each.next for each in self._all if each.next is not None and not each.is_behind), default=None)
        if first is not None and needed is not None and needed < first:
            self._ask(needed)

    def heard(self, line: ChatLine) -> None:
        """Deliver a line to those listeners whose next line it is.

        Other listeners have had the line already, or will get it when the server repeats it for them.
        """
        for listener in list(self._all):
            if not listener.is_behind and listener.next in (None, line.index):
                if listener.deliver(line):
                    listener.next = line.index + 1
                else:
                    listener.next, listener.is_behind = line.index, True

    def fail(self, error: ClerkError) -> None:
        """No more lines will come to any listener."""
        listeners, self._all = self._all, []
        for listener in listeners:
            listener.fail(error)
