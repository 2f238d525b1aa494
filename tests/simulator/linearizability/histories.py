"""Histories for the checker: typed by hand, or recorded from applications that run without a cluster."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any

from attrs import evolve

from pfsb.applications.interfaces import PENDING, Command, Done, IReplicatedApplication, Refused, Result
from pfsb.simulator.linearizability.operations import Operation, SubHistory
from pfsb.simulator.linearizability.texts import ordered_form, result_in_text
from tests.applications.context import Machine

QUESTIONS = frozenset({"GET", "MGET", "LOG"})


def done(**fields: Any) -> Done:
    return Done(tuple(fields.items()))


def refused(code: str) -> Refused:
    return Refused(code, "as the test wants it")


def at(call: float, ret: float, client: str, command: Command, result: Result) -> Operation:
    """Return an operation that was answered."""
    return Operation.answered(client, call, ret, command, result)


def lost(call: float, client: str, command: Command) -> Operation:
    """Return an operation that was never answered."""
    return Operation(client, call, None, command, fate="unknown")


def one_after_the_other(*rows: tuple[str, Command, Result]) -> list[Operation]:
    """Return the operations one after the other in time, so that none overlap."""
    return [at(10 * n, 10 * n + 1, *row) for n, row in enumerate(rows)]


def overlapping(*rows: tuple[str, Command, Result]) -> list[Operation]:
    """Return the operations all under way at once."""
    return [at(0, 1, *row) for row in rows]


class Recorder:
    """Clients of one application, each with one operation at a time, whose histories are always linearizable.

    An operation is carried out at one moment between its call and its answer. Of the operations without an answer a
    third is never carried out, a third in time, and a third long after the client has gone on.
    """

    def __init__(
        self,
        dice: random.Random,
        application: IReplicatedApplication,
        choose: Callable[[random.Random, str], Command],
        lost_share: float = 0.0,
    ) -> None:
        self._dice = dice
        self._machine = Machine(application)
        self._choose = choose
        self._lost_share = lost_share
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()
        self._waiting: dict[tuple[str, int], tuple[float, Command, bool]] = {}
        self._history: list[Operation] = []
        self._to_come = 0

    def record(self, clients: int, operations: int) -> list[Operation]:
        self._to_come = operations
        for number in range(clients):
            self._at(self._dice.random(), self._call, f"c{number}")
        while self._events:
            now, _, run, args = heapq.heappop(self._events)
            run(now, *args)
        for (client, _), (call, command, _) in self._waiting.items():
            self._history.append(lost(call, client, command))
        return self._history

    def _at(self, time: float, run: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), run, args))

    def _call(self, now: float, client: str) -> None:
        if not self._to_come:
            return
        self._to_come -= 1
        command = self._choose(self._dice, client)
        moment = now + self._dice.expovariate(1)
        if self._dice.random() >= self._lost_share:
            self._at(moment, self._execute, client, now, command, True)
            return
        self._history.append(lost(now, client, command))
        if self._dice.random() < 0.67:
            late = self._dice.choice([0, 30])
            self._at(moment + late, self._execute, client, now, command, False)
        self._at(now + 5, self._call, client)

    def _execute(self, now: float, client: str, call: float, command: Command, is_answered: bool) -> None:
        result: Any
        if command[0] in QUESTIONS:
            result = self._machine.application.query(ordered_form(command))
        elif command[0] == "BYE":
            self._machine.context.revision += 1
            self._machine.end(client)
            result = Done()
        else:
            result = self._machine.run_checked(client, ordered_form(command))
        if result is PENDING:
            self._waiting[self._machine.context.ticket] = (call, command, is_answered)
        elif is_answered:
            self._answer(now, client, call, command, result)
        for ticket, completed in self._machine.take_completed():
            waiting_since, waiting_command, wants_answer = self._waiting.pop(ticket)
            if wants_answer:
                self._answer(now, ticket[0], waiting_since, waiting_command, completed)

    def _answer(self, now: float, client: str, call: float, command: Command, result: Result) -> None:
        ret = now + self._dice.expovariate(1)
        self._history.append(at(call, ret, client, command, result_in_text(result)))
        self._at(ret + self._dice.expovariate(1), self._call, client)


def choose_conditional(keys: int) -> Any:
    """Return a function that makes commands on that many keys, half of which run at one revision of the key only."""
    change, ask = choose_key_value(keys, 2, "PUT DEL CAS INCR APPEND PUTHASH"), choose_key_value(keys, 2)

    def choose(dice: random.Random, client: str) -> Command:
        if dice.randrange(2):
            found: Command = ask(dice, client)
            return found
        command = change(dice, client)
        return ("IF", command[1], dice.choice((0, -1, dice.randrange(1, 41))), *command)

    return choose


def choose_key_value(keys: int, values: int = 3, verbs: str = "GET GET PUT DEL CAS INCR APPEND PUTHASH") -> Any:
    """Return a function that makes commands on that many keys, with few values, so that operations can be mistaken for
    each other."""
    listed = verbs.split()

    def choose(dice: random.Random, client: str) -> Command:
        verb, key = dice.choice(listed), f"k{dice.randrange(keys)}"
        value, other = str(dice.randrange(values)), str(dice.randrange(values))
        if verb in ("GET", "DEL"):
            return (verb, key)
        if verb == "CAS":
            must_exist = dice.randrange(2)
            return (verb, key, must_exist, value if must_exist else "", other)
        if verb == "INCR":
            return (verb, key, dice.randrange(1, 3))
        if verb == "MGET":
            return (verb, key, f"k{dice.randrange(keys)}")
        if verb == "MPUT":
            return (verb, key, value, f"k{dice.randrange(keys)}", other)
        return (verb, key, value)

    return choose


def choose_lock(dice: random.Random, client: str) -> Command:
    """Choose a command on a single lock, since with several locks clients would soon wait for each other in a
    circle."""
    wait = dice.choice([-1, 0])
    return dice.choice(
        [("LOCK", "x", wait), ("TRYLOCK", "x"), ("UNLOCK", "x", -1), ("UNLOCK", "x", dice.randrange(1, 9)), ("BYE",)]
    )


def choose_chat(dice: random.Random, client: str) -> Command:
    return dice.choice([("SAY", dice.choice("ab")), ("LOG", dice.randrange(1, 4), dice.choice([-1, 2]))])


def without_revisions(operations: list[Operation]) -> list[Operation]:
    """The history without its revisions."""
    return [_without_revision(operation) for operation in operations]


def _without_revision(operation: Operation) -> Operation:
    if not isinstance(operation.result, Done):
        return operation
    fields = tuple(pair for pair in operation.result.fields if pair[0] != "revision")
    return evolve(operation, result=evolve(operation.result, fields=fields))


def spoil(dice: random.Random, operations: list[Operation]) -> list[Operation]:
    """Exchange two answers, move an operation in time, or lose one, so that the history may be bad."""
    spoilt = list(operations)
    certain = [index for index, operation in enumerate(spoilt) if operation.is_certain]
    if not certain:
        return spoilt
    first, second = dice.choice(certain), dice.choice(certain)
    match dice.randrange(3):
        case 0:
            one, other = spoilt[first], spoilt[second]
            spoilt[first] = evolve(one, result=other.result)
            spoilt[second] = evolve(other, result=one.result)
        case 1:
            moved = spoilt[first]
            move = dice.uniform(-10, 10)
            spoilt[first] = evolve(moved, call=moved.call + move, ret=(moved.ret or 0) + move)
        case _:
            del spoilt[first]
    return spoilt


def has_order(part: SubHistory) -> bool:
    """Try every order that real time permits, without any short cut."""
    operations = [operation for operation in part.operations if operation.fate != "none"]
    specification = part.specification(operations)

    def extend(state: Any, left: list[Operation]) -> bool:
        if not any(operation.is_certain for operation in left):
            return True
        deadline = min(op.ret for op in left if op.is_certain and op.ret is not None)
        for operation in left:
            if operation.call <= deadline:
                after = specification.step(state, operation)
                if after is not None and extend(after, [other for other in left if other is not operation]):
                    return True
        return False

    return extend(specification.start(), operations)
