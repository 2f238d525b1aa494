"""Snapshots of one explored server: its whole state, disk included, is copied and can be put back at any time.

The server runs the real protocol, and its environment does not act by itself: timers fire and disk writes end only when
the explorer says so, and all messages that leave are handed back to the caller of the step.

The objects of a server are built once. Its state is found by following references from the replica and its environment,
because a hand-written list of attributes could be incomplete. Each object that is found is a *part* or a *value*. A
part has an identity, as a handler has: it stays the same object in all states. A value is copied into nested tuples
(*frozen*), and made anew when a state is put back. An object that can be neither raises TypeError. So, apart from the
attributes in `ABSTRACTED`, two states are equal if and only if their frozen forms are equal, and putting a state back
undoes all effects of later steps.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from copy import copy
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any

import attrs

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.alive_counts import ALIVES_BELIEVED, AliveCounts
from pfsb.paxos.allowance import SERVED_BYTES_AT_ONCE, Allowance
from pfsb.paxos.core import Core
from pfsb.paxos.data_structures import PrepareData, Slot
from pfsb.paxos.demand import Demand
from pfsb.paxos.divergence import Comparison, DivergenceHandler
from pfsb.paxos.messages import HandOverReason, State
from pfsb.paxos.peers import NEVER, Peer
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.progress_timer import NO_WRITE, ProgressTimer
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.replica import Replica
from pfsb.paxos.retransmission import Repetition, Retransmission
from pfsb.paxos.round_trip import RoundTrip
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot_names import SnapshotNames
from pfsb.paxos.turn import Outbox, Turn
from pfsb.paxos.update_timers import UpdateTimer, UpdateTimers

Frozen = tuple[Any, ...]
"""A frozen value, or the whole frozen state of one server: a hashable tuple."""

UPDATE_SECONDS = 0.5
"""Length of the Update_Timer, in seconds. It is above 0, so that a timer is due only when the model checker sets the
clock to this time. All other times are 0, so that no two states differ only in a time."""

SERVERS_MAX = 9
"""Maximum number of servers of an explored cluster; their ids begin at 0."""

ABSTRACTED: dict[tuple[type, str], Any] = {
    # Only logs and counters use these values.
    (Replica, "discarded"): {},
    (Replica, "_told"): None,
    (Turn, "count"): 0,
    (ReconciliationHandler, "bytes_sent"): 0,
    # The bytes that a peer may ask for in a time (Departure 37). No time passes, and the explored histories are short.
    (Allowance, "_left"): SERVED_BYTES_AT_ONCE,
    (PrepareHandler, "_answered"): (0, 0.0),
    # Which part of a promise answers the next PREPARE (Departure 47). The explored promises have one part each.
    (PrepareHandler, "_next_part"): 0,
    (Peer, "in_doubt_until"): NEVER,
    # Points in time. In the explorer a proposal may be sent again, and an Update_Timer may expire, at any time.
    (Slot, "sent_at"): 0.0,
    (UpdateTimer, "first_sent_at"): 0.0,
    (UpdateTimer, "sent_at"): 0.0,
    (UpdateTimers, "_call_at"): 0.0,
    (UpdateTimers, "_latest_executed"): 0.0,
    (Repetition, "view"): 0,
    (Repetition, "due"): 0.0,
    (Repetition, "wait"): 0.0,
    (Retransmission, "_wake_at"): 0.0,
    (ReconciliationHandler, "_asked_at"): 0.0,
    # How long answers take (Departure 49). No time passes, so all waits are at their first values.
    (Slot, "first_sent_at"): 0.0,
    (ReconciliationHandler, "_peers_asked"): {},
    (ReconciliationHandler, "_awaits_reply"): False,
    (ReconciliationHandler, "_asked_position"): 0,
    (RoundTrip, "_is_measured"): False,
    (RoundTrip, "mean"): 0.0,
    (RoundTrip, "measured"): 0.0,
    (RoundTrip, "last_answer_at"): 0.0,
    (RoundTrip, "_valid_from"): 0.0,
    (RoundTrip, "_deviation"): 0.0,
    (RoundTrip, "_backoff"): 1.0,
    (RoundTrip, "guessing_since"): None,
    # Which disk writes were done when something was sent: in the explorer timers fire whatever the disk does.
    (UpdateTimer, "position"): 0,
    (ReconciliationHandler, "_asked_behind"): 0,
    (ProgressTimer, "written"): NO_WRITE,
    (ProgressTimer, "_awaits_disk_since"): None,
    # Whether an update goes to the leader or to all is chosen when its timer fires (`SteppedServer._choose`).
    (UpdateTimer, "expiries"): 0,
    # The peer that is asked for missing slots is chosen when the reconciliation timer fires.
    (Peer, "last_heard"): 0.0,
    (Peer, "reached_at"): 0.0,
    (Peer, "local_aru"): 0,
    # To which server a leader may hand over (Departure 59). No server of the explorer is asked to.
    (Peer, "lag"): 0,
    # The next three values decide when the Progress_Timer is restarted or shortened. In the explorer the timer may
    # fire whenever it is armed.
    (Demand, "foreign_updates"): {},
    (Peer, "view"): 0,
    (Peer, "state"): State.LEADER_ELECTION,
    # At 0, each ALIVE of the leader makes the server send its pending updates, as its Update_Timers may at any time.
    (AliveHandler, "_leader_at_work_in"): 0,
    # Views that ALIVEs have told: the next one of the leader may bring a server back (Departure 51), and one that
    # denies a vote makes a server forget it (Departure 52).
    (AliveCounts, "_alives"): dict.fromkeys(range(SERVERS_MAX), ALIVES_BELIEVED),
    (AliveCounts, "_latest"): {},
    # Digests that ALIVEs have told. In the explorer no server differs: two values in one slot end the run first.
    (DivergenceHandler, "by_peer"): defaultdict(Comparison),
    (SnapshotNames, "heard_at"): {},
    # Figure 2 has this variable, but no code reads it.
    (PrepareData, "prepare"): None,
}
"""(class, attribute) -> the fixed value that the attribute is given in all states.

Real values of these attributes would only multiply the states: either they make no difference to the steps that are
possible, or the explorer tries all their effects when a timer fires.
"""

_ATOMS = {int, float, str, bytes, bool, frozenset, NoneType, State, HandOverReason}


def _is_value(kind: type) -> bool:
    """Whether objects of this class are immutable and compared by contents: messages, batches, records, rows."""
    if issubclass(kind, tuple):
        return kind is not tuple
    return attrs.has(kind) and kind.__hash__ is not None and kind.__eq__ is not object.__eq__


def _is_plain_data(kind: type) -> bool:
    """Whether objects of this class are mutable and compared by contents."""
    return attrs.has(kind) and kind.__hash__ is None


def _is_part(value: object) -> bool:
    """Whether this is a part: an object of pfsb with an identity of its own, such as a handler."""
    kind = type(value)
    if kind in _ATOMS or _is_value(kind) or _is_plain_data(kind):
        return False
    return kind.__module__.startswith(("pfsb.", "tests."))


def _names(value: Any) -> list[str]:
    if attrs.has(type(value)):
        return [attribute.name for attribute in attrs.fields(type(value))]
    return list(vars(value))


class Freezer:
    """Copies values into nested hashable tuples (freezes them), and makes values of such tuples (thaws them).

    A frozen tuple begins with the type of the original. A frozen value that is no tuple is the original itself.
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
            defaultdict: lambda value: (defaultdict, value.default_factory, *self._freeze_dict(value)[1:]),
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
            defaultdict: lambda frozen: defaultdict(frozen[1], {key: self.thaw(value) for key, value in frozen[2:]}),
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
        """Freeze a dict. If its keys are integers, their order means nothing, and they are sorted; otherwise their
        order is kept.
        """
        same = self.same
        items = [(key, item if type(item) in same else self.freeze(item)) for key, item in value.items()]
        if items and type(items[0][0]) is int:
            items.sort(key=lambda item: item[0])
        return type(value), *items

    @staticmethod
    def _freeze_outbox(value: Outbox) -> Frozen:
        """Freeze an outbox without its order and repetitions, since messages may arrive in any order, or twice."""
        return Outbox, tuple(sorted(set(value.messages), key=repr)), tuple(sorted(set(value.calls), key=_args))


def _args(call: tuple[Callable[..., None], tuple[Any, ...]]) -> str:
    return repr(call[1])


class Snapshots:
    """Finds all attributes with the state of a replica and its environment, copies that state and puts it back."""

    def __init__(self, *roots: object) -> None:
        self._freezer = Freezer()
        self._places: list[tuple[object, str]] = []
        self._abstracted: list[tuple[object, str, Any]] = []
        self._wiring: list[tuple[object, str, object]] = []
        self._look_around(roots)
        self._present = self.take()

    def take(self) -> Frozen:
        """First give the attributes in `ABSTRACTED` their fixed values in the server, then freeze its present state."""
        for owner, name, instead in self._abstracted:
            setattr(owner, name, copy(instead))
        same, freeze = self._freezer.same, self._freezer.freeze
        values = [getattr(owner, name) for owner, name in self._places]
        self._present = tuple([value if type(value) in same else freeze(value) for value in values])
        return self._present

    def put_back(self, frozen: Frozen) -> None:
        """Put a state back, by setting only the attributes that differ from the state that was taken or put back last.

        The server must not have made a step since that state was taken or put back; after a step, call `put_back_all`.
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
        """Names of the attributes that now refer to another part (an object with an identity of its own) than they did
        when this object was made. Snapshots would lack the state of that part.
        """
        return [f"{type(o).__name__}.{name}" for o, name, part in self._wiring if getattr(o, name) is not part]

    def place(self, kind: type, name: str) -> int:
        """The index of an attribute in the tuples that `take` returns: attribute `name` of the only object of class
        `kind`."""
        return next(i for i, (owner, n) in enumerate(self._places) if type(owner) is kind and n == name)

    def _look_around(self, roots: Iterable[object]) -> None:
        """Find all attributes, and list those that hold parts, those in `ABSTRACTED`, and those that hold values.

        A mutable data object to which several attributes refer is treated as a part: it stays the same object, and its
        own attributes are put back. If only one attribute refers to it, it is put back as a value of that attribute.
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
    """Whether `value` never changes once the handlers are built: it is a `Settings`, a function, or a list of such
    values."""
    if isinstance(value, list) and value:
        return all(map(_is_wiring, value))
    return isinstance(value, Settings | partial | MethodType | FunctionType | BuiltinFunctionType)


def _reachable(roots: Iterable[object]) -> Iterator[tuple[object, str, object]]:
    """(object, attribute name, value) for all attributes of the roots and of all objects that can be reached from them.

    Only attributes that refer directly to a part or to mutable data are followed; lists and dicts are not searched.
    """
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
