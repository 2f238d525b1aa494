"""HELLO: how a client opens or resumes its session, and notices that the session is a new one."""

from __future__ import annotations

from attrs import define

from pfsb.client.core.replies import Reply


@define(eq=False)
class Hello:
    """The state of HELLO at one client: whether it was sent and answered on the present connection, which session it
    opened, and which command numbers the session has used."""

    client_id: str
    ttl_seconds: int
    done: bool = False
    """True: HELLO was answered on the present connection, which speaks for the session since then."""
    under_way: bool = False
    """True: HELLO was sent on the present connection and is unanswered."""
    next_number: int = 1
    """The number for the next new command."""
    unanswered: int = 0
    """Number of HELLOs that were sent on earlier connections and got no answer. Each of them may still be ordered, and
    then takes the session away from the present connection."""
    _opened: int | None = None
    """The revision at which the session began; None: no session was opened yet."""
    _epoch: int = 0
    """The revision of the last HELLO that was answered; 0: none was."""
    _highest_answered: int = 0
    """The highest number of a command that was answered."""

    @property
    def has_session(self) -> bool:
        return self._opened is not None

    @property
    def line(self) -> str:
        return f"HELLO {self.client_id} ttl={self.ttl_seconds}"

    def take_number(self) -> int:
        """Return the number for a new command, and count it as used."""
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    def answered(self, number: int) -> None:
        """Called when an answer shows that the command with this number has run in the session: remembers the highest
        number."""
        self._highest_answered = max(self._highest_answered, number)

    def connection_lost(self) -> None:
        """Called when the connection has ended, or the client leaves it: the next connection needs a HELLO of its
        own."""
        self.unanswered += self.under_way
        self.under_way = self.done = False

    def was_own_hello(self) -> bool:
        """Called when a server says that another connection has taken the session. Returns True if that may have been a
        HELLO of this client, which was sent on an earlier connection and has come late; False if it must have been one
        of another program.

        The client cannot tell the two apart. So for each of its HELLOs that are unanswered it returns True once, and
        forgets that HELLO (`unanswered` becomes less). If it was wrong, and takes the session back from another
        program, that happens no more often than there were unanswered HELLOs.
        """
        if self.unanswered:
            self.unanswered -= 1
            return True
        return False

    def accept(self, reply: Reply) -> int | None:
        """Called when HELLO was answered OK. Returns None if no command is lost: the session is the first one of this
        client, or the one that it had before.

        If the session is another one than before, returns a number: commands of the former session up to this number
        may have run, and no others. A session is recognised by the revision at which it began. `resumed=yes` in the
        reply does not prove that it is the former one: an earlier HELLO whose answer was lost may have begun a new
        session, which is resumed now.
        """
        self.under_way, self.done = False, True
        fields = reply.fields
        last, opened = int(fields["last"]), int(fields["opened"])
        is_another = self._opened is not None and opened != self._opened
        # The servers forget a session some time after its end. HELLO tells the revision up to whose ends they have
        # forgotten sessions. The former session ended after its last HELLO, so it may be among them if that HELLO came
        # before this revision; it is among them for certain if `last` is below the number of a command that was
        # answered. Then every command that was sent may have run.
        is_forgotten = int(fields.get("forgotten", 0)) > self._epoch or last < self._highest_answered
        may_have_run = self.next_number if is_forgotten else last
        self._opened, self._epoch = opened, int(fields["epoch"])
        self.next_number = max(self.next_number, last + 1)
        return may_have_run if is_another else None
