"""HELLO: how a client opens or resumes its session, and notices that the session is a new one."""

from __future__ import annotations

from attrs import define

from pfsb.client.core.replies import Reply


@define(eq=False)
class Hello:
    """The state of HELLO on the present connection, the session that it opened, and the command numbers."""

    client_id: str
    ttl_seconds: int
    done: bool = False
    """True: HELLO was answered, and this connection speaks for the session."""
    under_way: bool = False
    """True: HELLO was sent on this connection and is unanswered."""
    next_number: int = 1
    unanswered: int = 0
    """How many HELLOs were left unanswered on earlier connections. Each may still be ordered, and then takes the
    session from the connection that has it."""
    _opened: int | None = None
    """The revision at which the session began; None: no session was opened yet."""
    _highest_answered: int = 0

    @property
    def has_session(self) -> bool:
        return self._opened is not None

    @property
    def line(self) -> str:
        return f"HELLO {self.client_id} ttl={self.ttl_seconds}"

    def take_number(self) -> int:
        """A number for a command: the next unused one."""
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    def answered(self, number: int) -> None:
        """The command with this number has run."""
        self._highest_answered = max(self._highest_answered, number)

    def connection_lost(self) -> None:
        """The connection has ended, or is given up."""
        self.unanswered += self.under_way
        self.under_way = self.done = False

    def was_own_hello(self) -> bool:
        """Whether a late HELLO of this client may have taken the session; each unanswered HELLO counts once.

        The client cannot tell its own late HELLO from that of another program. If this guess is wrong, the client
        takes the session back at most once for each HELLO that it has left unanswered, and then gives in.
        """
        if self.unanswered:
            self.unanswered -= 1
            return True
        return False

    def accept(self, reply: Reply) -> int | None:
        """HELLO was answered OK. Returns None if the session is the first one, or the same as before.

        If the session is another one than before, returns the highest number of a command that may have run in the
        former one. The session is recognised by the revision at which it began. `resumed=yes` does not prove that it
        is the former one: an earlier HELLO whose answer was lost may have begun a new session, which is resumed now.
        """
        self.under_way, self.done = False, True
        fields = reply.fields
        last, opened = int(fields["last"]), int(fields["opened"])
        is_another = self._opened is not None and opened != self._opened
        self._opened = opened
        # Servers forget the last number of a session some time after its end. A number below one that has been answered
        # shows this; then any command that was sent may have run.
        may_have_run = last if last >= self._highest_answered else self.next_number
        self.next_number = max(self.next_number, last + 1)
        return may_have_run if is_another else None
