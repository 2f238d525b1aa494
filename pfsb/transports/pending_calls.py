"""Delayed calls that can be cancelled together."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

P = ParamSpec("P")


@define(eq=False)
class PendingCalls:
    """The delayed calls of one object, which can cancel all of them when it stops."""

    _clock: IReactorTime
    _calls: set[IDelayedCall] = field(init=False, factory=set)

    def __len__(self) -> int:
        return len(self._calls)

    def call(self, seconds: float, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `function` with the further arguments after `seconds`, unless `cancel` is called before."""

        def due() -> None:
            self._calls.discard(call)
            function(*args, **kwargs)

        call = self._clock.callLater(seconds, due)
        self._calls.add(call)

    def cancel(self) -> None:
        """Cancel all calls that are not made yet."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()
