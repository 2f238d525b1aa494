"""Snapshots of a server: its whole state can be taken after a step and put back as often as needed.

The protocol is the real one, and its environment does not act by itself: timers fire and disk writes end only when the
explorer says so, and all messages that leave are handed back to the caller of the step.

The handlers are built once. Their state and the data structures of Figure 2 are found by following references, not by
a list, which could be incomplete: every object that is reachable from the replica is either a *part*, which stays, or a
value, which is frozen into nested tuples and put back. Any other object raises TypeError. Two states are therefore the
same if and only if the frozen ones are equal, and a step leaves nothing behind.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from copy import copy
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any

import attrs

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core
from pfsb.paxos.data_structures import PrepareData, Slot
from pfsb.paxos.demand import Demand
from pfsb.paxos.messages import State
from pfsb.paxos.peers import Peer
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.paxos.turn import Outbox, Turn
from pfsb.paxos.update_timers import UpdateTimer

Frozen = tuple[Any, ...]
"""All values of one server, as a hashable tuple."""

UPDATE_SECONDS = 0.5
"""Length of the Update_Timer. All other times are 0, so that states do not differ in dates."""

ABSTRACTED: dict[tuple[type, str], Any] = {
    # Only logs and counters use these values.
    (Replica, "discarded"): {},
    (Replica, "_told"): None,
    (Turn, "count"): 0,
    (ReconciliationHandler, "bytes_sent"): 0,
    # Dates. A proposal may be sent again, and an update timer fire, at any time.
    (Slot, "sent_at"): 0.0,
    (UpdateTimer, "due"): UPDATE_SECONDS,
    # Whether an update goes to the leader or to all is chosen when the timer fires (`SteppedServer.make`).
    (UpdateTimer, "expiries"): 0,
    # The peer that is asked for missing slots is chosen when that timer fires.
    (Peer, "last_heard"): 0.0,
    (Peer, "local_aru"): 0,
    # They decide when the Progress_Timer is restarted or cut short. Here it fires at any time at which it is armed.
    (Demand, "_foreign_updates"): {},
    (Peer, "view"): 0,
    (Peer, "state"): State.LEADER_ELECTION,
    # Each ALIVE of the leader makes the server repeat waiting updates, as its update timers do.
    (AliveHandler, "_leader_at_work_in"): 0,
    # Figure 2 has this field, and no code reads it.
    (PrepareData, "prepare"): None,
}
"""(class, attribute) -> the value that it is given in all states.

These attributes make no difference to the explorer, or their effect is chosen when a timer fires.
"""

_ATOMS = {int, float, str, bytes, bool, NoneType, State}


def _is_value(kind: type) -> bool:
    """Whether objects of this class are immutable and compared by contents: messages, batches, records, rows."""
    if issubclass(kind, tuple):
        return kind is not tuple
    return attrs.has(kind) and kind.__hash__ is not None and kind.__eq__ is not object.__eq__


def _is_plain_data(kind: type) -> bool:
    """Whether objects of this class are mutable and compared by contents."""
    return attrs.has(kind) and kind.__hash__ is None


def _is_part(value: object) -> bool:
    """Whether this is a handler, which has an identity of its own and is referred to by others."""
    kind = type(value)
    if kind in _ATOMS or _is_value(kind) or _is_plain_data(kind):
        return False
    return kind.__module__.startswith(("pfsb.", "tests."))


def _names(value: Any) -> list[str]:
    if attrs.has(type(value)):
        return [attribute.name for attribute in attrs.fields(type(value))]
    return list(vars(value))


class Freezer:
    """Freezes values into nested tuples, and thaws them.

    A tuple begins with the type that it stands for; a value that is no tuple stands for itself.
    """

    def __init__(self) -> None:
        self._freezers: dict[type, Callable[[Any], Hashable]] = {
            list: lambda value: (list, *map(self.freeze, value)),
            tuple: lambda value: (tuple, *map(self.freeze, value)),
            deque: lambda value: (deque, *map(self.freeze, value)),
            set: lambda value: (set, frozenset(value)),
            bytearray: lambda value: (bytearray, bytes(value)),
            dict: self._freeze_dict,
            OrderedDict: self._freeze_dict,
            partial: lambda value: (partial, value.func, *map(self.freeze, value.args)),
            Outbox: self._freeze_outbox,
        }
        self._thawers: dict[type, Callable[[Frozen], Any]] = {
            list: lambda frozen: [self.thaw(item) for item in frozen[1:]],
            tuple: lambda frozen: tuple(self.thaw(item) for item in frozen[1:]),
            deque: lambda frozen: deque(self.thaw(item) for item in frozen[1:]),
            set: lambda frozen: set(frozen[1]),
            bytearray: lambda frozen: bytearray(frozen[1]),
            dict: lambda frozen: {key: self.thaw(value) for key, value in frozen[1:]},
            OrderedDict: lambda frozen: OrderedDict((key, self.thaw(value)) for key, value in frozen[1:]),
            partial: lambda frozen: partial(frozen[1], *map(self.thaw, frozen[2:])),
            Outbox: lambda frozen: Outbox(list(frozen[1]), list(frozen[2])),
        }
        self.same = set(_ATOMS) | {MethodType, FunctionType, BuiltinFunctionType}

    def freeze(self, value: Any) -> Any:
        """Freeze a value. Raises TypeError for a class that cannot be frozen."""
        kind = type(value)
        if kind in self.same:
            return value
        return (self._freezers.get(kind) or self._learn(kind))(value)

    def thaw(self, frozen: Any) -> Any:
        return self._thawers[frozen[0]](frozen) if type(frozen) is tuple else frozen

    def _learn(self, kind: Any) -> Callable[[Any], Any]:
        if _is_value(kind):
            self.same.add(kind)
            return lambda value: value
        if not _is_plain_data(kind):
            raise TypeError(f"a {kind.__qualname__} cannot be put away: it has an identity, but stands among values")
        same = self.same
        names = [attribute.name for attribute in attrs.fields(kind)]
        abstracted = {name: value for (of, name), value in ABSTRACTED.items() if of is kind}

        def freeze(value: Any) -> Frozen:
            for name, instead in abstracted.items():
                setattr(value, name, instead)
            values = [getattr(value, name) for name in names]
            return kind, *[item if type(item) in same else self.freeze(item) for item in values]

        def thaw(frozen: Frozen) -> Any:
            made = kind.__new__(kind)
            for name, value in zip(names, frozen[1:], strict=True):
                setattr(made, name, self.thaw(value))
            return made

        self._thawers[kind] = thaw
        self._freezers[kind] = freeze
        return freeze

    def _freeze_dict(self, value: dict[Any, Any]) -> Frozen:
        """Freeze a table. The order of a table by number means nothing; that of a table by client is kept."""
        same = self.same
        items = [(key, item if type(item) in same else self.freeze(item)) for key, item in value.items()]
        if items and type(items[0][0]) is int:
            items.sort(key=lambda item: item[0])
        return type(value), *items

    @staticmethod
    def _freeze_outbox(value: Outbox) -> Frozen:
        """Freeze an outbox without order and repetitions, since its messages may arrive in any order, or twice."""
        return Outbox, tuple(sorted(set(value.messages), key=repr)), tuple(sorted(set(value.calls), key=_args))


def _args(call: tuple[Callable[..., None], tuple[Any, ...]]) -> str:
    return repr(call[1])


class Snapshots:
    """Finds the whole state of a replica and its environment, takes it and puts it back."""

    def __init__(self, *roots: object) -> None:
        self._freezer = Freezer()
        self._places: list[tuple[object, str]] = []
        self._abstracted: list[tuple[object, str, Any]] = []
        self._wiring: list[tuple[object, str, object]] = []
        self._look_around(roots)
        self._present = self.take()

    def take(self) -> Frozen:
        """Freeze the present state. Abstracted attributes get their fixed values in the server, too."""
        for owner, name, instead in self._abstracted:
            setattr(owner, name, copy(instead))
        same, freeze = self._freezer.same, self._freezer.freeze
        values = [getattr(owner, name) for owner, name in self._places]
        self._present = tuple([value if type(value) in same else freeze(value) for value in values])
        return self._present

    def put_back(self, frozen: Frozen) -> None:
        """Put a state back. Only values that differ from the state taken or put back last are set.

        The server must not have made a step since.
        """
        if frozen is self._present:
            return
        thaw = self._freezer.thaw
        for (owner, name), present, wanted in zip(self._places, self._present, frozen, strict=True):
            if wanted is not present and wanted != present:
                setattr(owner, name, thaw(wanted))
        self._present = frozen

    def put_back_all(self, frozen: Frozen) -> None:
        """Put a state back completely, whatever the server has done since the last snapshot."""
        for (owner, name), wanted in zip(self._places, frozen, strict=True):
            setattr(owner, name, self._freezer.thaw(wanted))
        self._present = frozen

    def moved_parts(self) -> list[str]:
        """Names of parts that were replaced by other objects, which would make snapshots incomplete."""
        return [f"{type(o).__name__}.{name}" for o, name, part in self._wiring if getattr(o, name) is not part]

    def place(self, kind: type, name: str) -> int:
        """The index of this value in the tuples that `take` returns."""
        return next(i for i, (owner, n) in enumerate(self._places) if type(owner) is kind and n == name)

    def _look_around(self, roots: Iterable[object]) -> None:
        """Sort all attributes into parts, wiring, abstracted ones and values.

        Plain data with two holders is a part, too, and is filled in place. Data with one holder is a value of it.
        """
        found = list(_reachable(roots))
        holders = Counter(id(value) for _, _, value in found)
        for owner, name, value in found:
            is_part = _is_part(value) or (_is_plain_data(type(value)) and holders[id(value)] > 1)
            if _is_plain_data(type(owner)) and holders[id(owner)] == 1:
                if is_part:
                    raise TypeError(f"{type(owner).__name__}.{name} is shared, but who holds it is put away as a value")
            elif is_part:
                self._wiring.append((owner, name, value))
            elif (type(owner), name) in ABSTRACTED:
                self._abstracted.append((owner, name, ABSTRACTED[type(owner), name]))
            elif not _is_wiring(value) and not isinstance(owner, Core):
                self._places.append((owner, name))


def _is_wiring(value: object) -> bool:
    """Whether this is set once, when the handlers are built: settings, functions, and lists of them."""
    if isinstance(value, list) and value:
        return all(map(_is_wiring, value))
    return isinstance(value, Settings | partial | MethodType | FunctionType | BuiltinFunctionType)


def _reachable(roots: Iterable[object]) -> Iterator[tuple[object, str, object]]:
    """(owner, attribute, value) of all parts, and of the plain data that stands directly in an attribute."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        owner = waiting.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for name in _names(owner):
            value = getattr(owner, name)
            yield owner, name, value
            if _is_part(value) or _is_plain_data(type(value)):
                waiting.append(value)
