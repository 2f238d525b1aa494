"""A second opinion on sessions: which commands run, and which sessions are open, computed from the ordered updates.

The model is written after docs/protocol.rst and docs/internals/sessions.rst, and shares no code with
`SessionStateMachine` but the decoding of bundles, of settings and of members. So it notices a state machine that is
wrong about epochs, numbers or ends of sessions in the same way at every server, which a comparison of servers cannot
notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import define, field, frozen

from pfsb.paxos.members import Members, decode_members
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.cluster_settings import HORIZON_MIN, ClusterSettings, WrongSetting
from pfsb.sessions.ordered_settings import Abilities

Ticket = tuple[str, int]

ABOUT_SERVERS = frozenset({"ASK", "HERE", "BIRTH", "ANNOUNCE", "EPOCH"})
"""Operations of servers that are about no session, and are not counted in the revision."""


@define
class ModelSession:
    """An open session."""

    epoch: int
    server_id: int
    ttl_ms: int
    last: int = 0


@frozen
class Expired:
    """A session that was expired by another server than the one at which it was last opened."""

    client_id: str
    server_id: int
    ttl_ms: int
    heard: int
    """The last slot before the expiry in which an update of server `server_id` was executed; 0: none. The session was
    last opened at that server."""
    asked: int
    """The last slot before the expiry in which an ASK, the leader's question whether server `server_id` serves its
    clients, was executed; 0: none."""


@define
class Expected:
    """The effect that one slot must have on the sessions."""

    ran: list[Ticket] = field(factory=list)
    ended: list[str] = field(factory=list)
    expired: list[Expired] = field(factory=list)
    results: dict[Ticket, object] = field(factory=dict)
    """Ticket of a SETTINGS SET or a TALLY -> its result: (fields, rows), or the code of a refusal."""


@define
class SessionModel:
    """Computes, by the rules in the documentation, which sessions are open after the slots that it has executed."""

    horizon_slots: int
    revision: int = 0
    sessions: dict[str, ModelSession] = field(factory=dict)
    settings: ClusterSettings | None = None
    """The settings in force; None before BIRTH."""
    oldest_kept: int = 0
    """Slot below which ended sessions are forgotten. It never goes back, also when the horizon grows."""
    horizon_min: int = HORIZON_MIN
    """Minimum that the servers let users choose for the horizon."""
    _announced: dict[int, Abilities] = field(factory=dict)
    """Server -> the versions of applications and rules that it has announced last."""
    _members: Members | None = None
    """The servers of the present epoch if a change has brought them; None: the founding servers are there."""
    _counts: Counter[str] = field(factory=Counter)
    """Name -> how often TALLY has counted it."""
    _ended: dict[str, tuple[int, int]] = field(factory=dict)
    """Client id of a session that has ended, and was not anonymous -> (its last number, the slot of its end)."""
    _heard: dict[int, int] = field(factory=dict)
    """Server -> the last slot in which an update of this server was executed."""
    _asked: dict[int, int] = field(factory=dict)
    """Server -> the last slot in which an ASK was executed, the leader's question whether that server serves its
    clients."""

    def execute(self, seq: int, updates: Sequence[ClientUpdate]) -> Expected:
        """Execute a slot, and return the effect that it must have.

        `updates` are those updates of the slot that run: none is a repetition, and none is too old.
        """
        expected = Expected()
        for update in updates:
            self._heard[update.server_id] = seq
            for content in bundle.decode(update.payload) or ():
                if content.client_id == bundle.SERVER:
                    for _, operation in content.entries:
                        self._operate(seq, update.server_id, operation, expected)
                else:
                    self._run(update.server_id, content, expected)
        self.oldest_kept = max(self.oldest_kept, seq - self.horizon_slots)
        self._ended = {client: end for client, end in self._ended.items() if end[1] >= self.oldest_kept}
        return expected

    @property
    def sessions_max(self) -> int | None:
        """The quota of open sessions; None before BIRTH."""
        return None if self.settings is None else self.settings.sessions

    def epochs(self) -> dict[str, int]:
        """Client id -> epoch of each open session."""
        return {client_id: session.epoch for client_id, session in self.sessions.items()}

    @property
    def _is_full(self) -> bool:
        return self.sessions_max is not None and len(self.sessions) >= self.sessions_max

    def _run(self, server_id: int, content: Bundle, expected: Expected) -> None:
        session = self.sessions.get(content.client_id)
        changes = [command for _, command in content.entries if command[0] == "SETTINGS SET"]
        if session is None and content.opens and (changes or not self._is_full):
            session = self.sessions[content.client_id] = ModelSession(0, server_id, 0)
        if session is None or session.epoch != content.epoch:
            return
        for number, command in content.entries:
            if number > session.last:
                session.last = number
                self.revision += 1
                ticket = (content.client_id, number)
                expected.ran.append(ticket)
                if command in changes:
                    expected.results[ticket] = self._change_settings(command)
                elif command[0] == "TALLY":
                    expected.results[ticket] = self._tally(str(command[1]))

    def _change_settings(self, command: Sequence[object]) -> object:
        """Follow a change of the settings. It is refused unless every member has announced what it asks for."""
        assert self.settings is not None, "no command runs before BIRTH"
        changes = dict(str(part).split("=", 1) for part in command[1:])
        try:
            values = self.settings.change(changes, self.horizon_min)
        except WrongSetting:
            return "BADREQUEST"
        for server_id in self._present.ids:
            able = self._announced.get(server_id)
            if able is None or values.rules > able.rules:
                return "CONFLICT"
            if any(version not in able.apps.get(name, ()) for name, version in values.apps):
                return "CONFLICT"
        self._adopt(values)
        return (("revision", self.revision),), ()

    @property
    def _present(self) -> Members:
        """The servers of the present epoch."""
        assert self.settings is not None, "nothing runs before BIRTH"
        return self._members or Members(self.settings.members)

    def _change_members(self, following: Members) -> None:
        """Follow a change of the membership, if it was made for the present epoch, brings no server back, and lists all
        that are gone."""
        present = self._present
        gone = {*present.retired, *(i for i in present.ids if i not in following.ids)}
        rules = 0 if self.settings is None else self.settings.rules
        if rules < 2 or following.epoch != present.epoch + 1 or not gone <= {*following.retired}:
            return
        if not {*following.ids} & {*present.retired}:
            self._members = following
            self._announced = {i: able for i, able in self._announced.items() if i in following.ids}

    def _adopt(self, values: ClusterSettings) -> None:
        self.settings, self.horizon_slots = values, values.horizon
        if "tally" not in dict(values.apps):
            self._counts.clear()  # the state of an application that runs no more is gone

    def _tally(self, name: str) -> object:
        """Follow a TALLY, as the version of the application that runs executes it."""
        assert self.settings is not None, "no command runs before BIRTH"
        version = dict(self.settings.apps).get("tally", 0)
        if not version:
            return "UNKNOWN"
        self._counts[name] += 1
        total = (("total", self._counts.total()),) if version > 1 else ()
        return (("count", self._counts[name]), *total, ("revision", self.revision)), ()

    def _operate(self, seq: int, server_id: int, operation: Sequence[object], expected: Expected) -> None:
        if operation[0] in ABOUT_SERVERS:
            if operation[0] == "BIRTH" and isinstance(operation[1], bytes) and self.settings is None:
                self._adopt(ClusterSettings.decode(operation[1]))
            of_member = operation[0] == "ANNOUNCE" and server_id in self._present.ids
            if of_member and isinstance(operation[1], bytes):
                self._announced[server_id] = Abilities.decode(operation[1])
            if operation[0] == "EPOCH" and isinstance(operation[1], bytes):
                self._change_members(decode_members(operation[1]))
            if operation[0] == "ASK" and isinstance(operation[1], int):
                self._asked[operation[1]] = seq
            return
        self.revision += 1
        match operation:
            case ("OPEN", str(client_id), int(ttl_ms)):
                session = self.sessions.get(client_id)
                if session is None:
                    if self._is_full:
                        return
                    last, _ = self._ended.pop(client_id, (0, 0))
                    session = self.sessions[client_id] = ModelSession(0, server_id, 0, last)
                session.epoch, session.server_id, session.ttl_ms = self.revision, server_id, ttl_ms
            case ("CLOSE" | "EXPIRE", str(client_id), int(epoch), *heard):
                session = self.sessions.get(client_id)
                if session is None or session.epoch != epoch:
                    return
                known = self._heard.get(session.server_id, 0)
                if heard and known != heard[0]:
                    return
                if operation[0] == "EXPIRE" and session.server_id != server_id and session.ttl_ms:
                    asked = self._asked.get(session.server_id, 0)
                    expected.expired.append(Expired(client_id, session.server_id, session.ttl_ms, known, asked))
                self._end(seq, client_id, expected)

    def _end(self, seq: int, client_id: str, expected: Expected) -> None:
        session = self.sessions.pop(client_id)
        expected.ended.append(client_id)
        if session.last and not client_id.startswith(bundle.ANONYMOUS):
            self._ended[client_id] = (session.last, seq)
