"""A second opinion on sessions: which commands run, and which sessions are open, computed from the ordered updates.

The model is written after docs/protocol.rst and docs/internals/sessions.rst, and shares no code with
`SessionStateMachine` but the decoding of bundles and of settings. So it notices a state machine that is wrong about
epochs, numbers or ends of sessions in the same way at every server, which a comparison of servers cannot notice.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field, frozen

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.cluster_settings import ClusterSettings

Ticket = tuple[str, int]

ABOUT_SERVERS = frozenset({"ASK", "HERE", "BIRTH", "ANNOUNCE"})
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


@define
class SessionModel:
    """Computes, by the rules in the documentation, which sessions are open after the slots that it has executed."""

    horizon_slots: int
    revision: int = 0
    sessions: dict[str, ModelSession] = field(factory=dict)
    sessions_max: int | None = None
    """The quota of open sessions, as BIRTH or the last change says it; None before BIRTH. No random run changes this
    setting."""
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
        oldest = seq - self.horizon_slots
        self._ended = {client: end for client, end in self._ended.items() if end[1] >= oldest}
        return expected

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
                if command in changes:
                    self._change_settings(command)
                session.last = number
                self.revision += 1
                expected.ran.append((content.client_id, number))

    def _change_settings(self, command: Sequence[object]) -> None:
        """Follow a change of the settings. It is taken for one that the servers do not refuse."""
        for part in command[1:]:
            name, _, value = str(part).partition("=")
            if name == "sessions":
                self.sessions_max = int(value)

    def _operate(self, seq: int, server_id: int, operation: Sequence[object], expected: Expected) -> None:
        if operation[0] in ABOUT_SERVERS:
            if operation[0] == "BIRTH" and isinstance(operation[1], bytes) and self.sessions_max is None:
                self.sessions_max = ClusterSettings.decode(operation[1]).sessions
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
