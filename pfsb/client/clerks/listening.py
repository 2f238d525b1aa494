"""Several listeners to one chat, each with its own place in it, none with a gap or a repetition."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import ClerkError


@define(eq=False)
class Listener:
    """Whoever wants to be told lines, from `next` on; None: from the line on that comes next."""

    next: int | None
    deliver: Callable[[ChatLine], bool]
    """False: there is no room for the line; it will be told again after `Listeners.catch_up`."""
    fail: Callable[[ClerkError], None]
    """There will be no more lines."""
    begun: Callable[[], None]
    """From `next` on, nothing will be missed."""
    is_behind: bool = False


@define(eq=False)
class Listeners:
    """A connection follows the chat from one place on: from the earliest that anybody needs."""

    _ask: Callable[[int | None], None]
    """Have the server tell lines from this one on; it says where that is by `began`."""
    _stop: Callable[[], None]
    """Have it tell no more."""
    _all: list[Listener] = field(factory=list)

    def add(self, listener: Listener) -> None:
        self._all.append(listener)
        self._ask(listener.next)

    def remove(self, listener: Listener) -> None:
        if listener in self._all:
            self._all.remove(listener)
            if not self._all:
                self._stop()

    def catch_up(self, listener: Listener) -> None:
        """It has room again."""
        if listener.is_behind:
            listener.is_behind = False
            self._ask(listener.next)

    def began(self, first: int | None) -> None:
        """The server tells lines from number `first` on."""
        for listener in self._all:
            listener.next = first if listener.next is None else listener.next
            listener.begun()
        needed = min((each.next for each in self._all if each.next is not None and not each.is_behind), default=None)
        if first is not None and needed is not None and needed < first:
            self._ask(needed)

    def heard(self, line: ChatLine) -> None:
        """A line that is not a listener's next has been told to it already, or will come again in its place."""
        for listener in list(self._all):
            if not listener.is_behind and listener.next in (None, line.index):
                if listener.deliver(line):
                    listener.next = line.index + 1
                else:
                    listener.next, listener.is_behind = line.index, True

    def fail(self, error: ClerkError) -> None:
        """The server tells nobody anything."""
        listeners, self._all = self._all, []
        for listener in listeners:
            listener.fail(error)
