"""Checks of quotas: what the state machine counts is right, and exactly the commands beyond a quota are refused.

The checker counts anew, from the values that questions show and from the answers, and compares the sums of the
applications with its own. The writes of a command come from the specification of one key (`register_model`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pfsb.applications.interfaces import Command, Done, Refused, Result, Ticket
from pfsb.sessions.reply_cache import ENTRY_BYTES
from pfsb.sessions.session import Session
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.linearizability.models import KEY_VALUE_VERBS
from pfsb.simulator.linearizability.register_model import effect_of
from pfsb.simulator.linearizability.texts import command_in_text, ordered_form, result_in_text


class QuotaChecker:
    """Checks the quotas of one incarnation of one server, command by command.

    The first violation is kept until the run calls `raise_violation`, as `WatchedLock` does.
    """

    def __init__(
        self, machine: SessionStateMachine, applications: Callable[[], Mapping[str, Any]], marks: Counter[str]
    ) -> None:
        """`applications` returns the applications that run at the moment, by name."""
        self._machine = machine
        self._applications = applications
        self._marks = marks
        self._values: dict[str, str | None] = {}
        """Key -> its value after the last command that named it; None: the key is absent."""
        self._kv_bytes = 0
        self._chat_bytes = 0
        self._has_operators = False
        """Whether a command to change settings was executed. The quota of sessions may have been lowered since, and an
        operator gets a session beyond it. Which sessions are open is then checked by `SessionModel` alone."""
        self._violation: Violation | None = None
        execute, execute_run = machine.execute_command, machine.execute_run

        def executed(session: Session, number: int, command: Command) -> Any:
            result = execute(session, number, command)
            self._note(self._check, session, command, result)
            return result

        def run_executed(
            application: Any, tickets: Sequence[Ticket], commands: Sequence[Command]
        ) -> Sequence[Result] | None:
            results = execute_run(application, tickets, commands)
            if results is not None and commands[0][0] == "SAY":
                self._note(self._check_lines, [client_id for client_id, _ in tickets], commands)
            elif results is not None:
                self._note(self._check_run, [command_in_text(command) for command in commands])
            return results

        machine.execute_command = executed  # type: ignore[method-assign]
        machine.execute_run = run_executed  # type: ignore[method-assign]

    @property
    def _kv(self) -> Any:
        return self._applications()["kv"]

    @property
    def _chat(self) -> Any:
        return self._applications()["chat"]

    def counted(self) -> tuple[dict[str, str | None], int, int, bool]:
        """A copy of what the checker has counted: the values of the keys, their bytes, and those of the chat; and
        whether there was a change of the settings."""
        return dict(self._values), self._kv_bytes, self._chat_bytes, self._has_operators

    def go_on_from(self, counted: tuple[dict[str, str | None], int, int, bool]) -> None:
        """Go on from what the checker of another server has counted up to a slot, since this server has the state of a
        snapshot of that slot now."""
        values, self._kv_bytes, self._chat_bytes, self._has_operators = counted
        self._values = dict(values)

    def _note(self, check: Callable[..., None], *args: Any) -> None:
        try:
            check(*args)
        except Violation as violation:
            self._violation = self._violation or violation

    def raise_violation(self) -> None:
        if self._violation is not None:
            raise self._violation
        self._check_sessions()

    def _check(self, session: Session, command: Command, result: Any) -> None:
        if isinstance(result, Refused) and result.code == "TOOLARGE":
            self._marks[f"{command[0]} beyond a quota"] += 1
        if command[0] in KEY_VALUE_VERBS:
            self._check_key(command_in_text(command), result)
        elif command[0] == "SAY":
            self._check_line(session, command, result)
        elif command[0] == "SETTINGS SET":
            self._has_operators = True

    def _check_key(self, command: Command, result: Any) -> None:
        if command[0] == "IF":
            if isinstance(result, Refused) and result.code == "PRECONDITION":
                _require(self._value(command[1]) == self._values.get(command[1]), f"{command} is refused, and changes")
                return
            if command[2] > 0:
                self._marks["condition on a revision held"] += 1
            command = command[3:]
        quotas, key = self._machine.settings.values, command[1]
        before = self._values.get(key)
        after = self._value(key)
        self._values[key] = after
        self._kv_bytes += _size(key, after) - _size(key, before)
        _require(self._kv.used() == self._kv_bytes, f"kv_bytes are {self._kv.used()}, after {command} {self._kv_bytes}")
        wanted = effect_of(command, before).value
        growth = _size(key, wanted) - _size(key, before)
        room = quotas.kv_bytes - self._kv_bytes
        is_refused = isinstance(result, Refused) and result.code == "TOOLARGE"
        if is_refused:
            _require(after == before, f"{command} is refused as too large, and changes the key")
            is_large = len((wanted or "").encode()) > quotas.value_bytes
            _require(growth > 0 and (growth > room or is_large), f"{command} is refused, but adds {growth} to {room}")
        else:
            too_large = len((after or "").encode()) > quotas.value_bytes or room < 0
            _require(growth <= 0 or not too_large, f"{command} adds {growth} bytes beyond a quota")

    def _check_run(self, commands: Sequence[Command]) -> None:
        """Check a run of commands of the key-value store, which was executed at once and without a refusal.

        The checker carries out the commands one by one, by the specification of one key. After a command that adds
        bytes, the value and the bytes of all keys must be within their quotas. After the last command, each key must
        have the value that the checker has computed for it; the values after the other commands cannot be asked for.
        """
        quotas = self._machine.settings.values
        for command in commands:
            key = command[1]
            before, wanted = self._values.get(key), effect_of(command, self._values.get(key)).value
            growth = _size(key, wanted) - _size(key, before)
            self._values[key] = wanted
            self._kv_bytes += growth
            too_large = len((wanted or "").encode()) > quotas.value_bytes or self._kv_bytes > quotas.kv_bytes
            _require(growth <= 0 or not too_large, f"a run adds {growth} bytes beyond a quota ({command})")
        for key in {command[1]: None for command in commands}:
            found, wanted = self._value(key), self._values[key]
            _require(found == wanted, f"a run has left a key as it must not be ({key}: {found}, not {wanted})")
        _require(self._kv.used() == self._kv_bytes, f"kv_bytes are {self._kv.used()}, and must be {self._kv_bytes}")

    def _check_line(self, session: Session, command: Command, result: Any) -> None:
        quotas, text = self._machine.settings.values, command[1]
        size = len(session.client_id.encode()) + len(text.encode())
        fits = self._chat_bytes + size <= quotas.chat_bytes and len(text.encode()) <= quotas.value_bytes
        self._chat_bytes += size if isinstance(result, Done) else 0
        _require(self._chat.used() == self._chat_bytes, f"chat_bytes are {self._chat.used()}, not {self._chat_bytes}")
        _require(isinstance(result, Done) == fits, f"{command} came to {result} with {self._chat_bytes} bytes in use")

    def _check_lines(self, client_ids: Sequence[str], commands: Sequence[Command]) -> None:
        """Check a run of SAYs, which were executed together: none of their lines may go beyond a quota, and they must
        be the last lines of the chat.
        """
        quotas = self._machine.settings.values
        said = [(client_id, text) for client_id, (_, text) in zip(client_ids, commands, strict=True)]
        for client_id, text in said:
            size = len(client_id.encode()) + len(text.encode())
            self._chat_bytes += size
            too_large = len(text.encode()) > quotas.value_bytes or self._chat_bytes > quotas.chat_bytes
            _require(not too_large, f"a run adds {size} bytes beyond a quota ({client_id}: {text})")
        _require(self._chat.used() == self._chat_bytes, f"chat_bytes are {self._chat.used()}, not {self._chat_bytes}")
        events = self._chat.events(self._chat.length() - len(said) + 1, len(said))
        found = [(fields["client"], fields["text"]) for fields in (dict(event.fields) for event in events)]
        _require(found == said, f"a run has left other lines than were said ({found}, not {said})")

    def _check_sessions(self) -> None:
        machine = self._machine
        if not machine.settings.is_born:
            return
        quotas, kept = machine.settings.values, machine.kept_replies
        count = len(machine.sessions)
        _require(self._has_operators or count <= quotas.sessions, f"{count} sessions, of {quotas.sessions}")
        size = _kept_bytes(machine)
        _require(kept.size == size, f"kept answers count {kept.size} bytes, and are {size}")
        _require(size <= quotas.replies_bytes, f"kept answers are {size} bytes, of {quotas.replies_bytes}")
        self._marks["kept answers dropped for all"] += quotas.replies_bytes - size < 100

    def _value(self, key: str) -> str | None:
        result = result_in_text(self._kv.query(ordered_form(("GET", key))))
        return str(dict(result.fields)["value"]) if isinstance(result, Done) else None


def _kept_bytes(machine: SessionStateMachine) -> int:
    """Number of bytes that the reply caches should count for the answers that they keep.

    A value that several answers share, because APPEND has made it longer, counts once: with the length that it had in
    the last answer that was kept, until no answer shares it any more.
    """
    size = 0
    longest: dict[int, int] = {}
    for session in machine.sessions.values():
        cache = session.answers
        for page in cache.pages():
            size += 0 if page is cache.page else ENTRY_BYTES * len(page)
            for number in page.numbers:
                growing = getattr(page.kept(number), "growing", None)
                kept = page.get(number)
                assert kept is not None, "the page has the result"
                answer = result_in_text(kept)
                if growing is not None:
                    longest[id(growing)] = growing.counted
                elif isinstance(answer, Done):
                    size += sum(len(value.encode()) for _, value in answer.fields if isinstance(value, str))
                else:
                    size += len(answer.text.encode())
    return size + sum(longest.values())


def _size(key: str, value: str | None) -> int:
    return 0 if value is None else len(key.encode()) + len(value.encode())


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise Violation(text)
