"""How a client gets into its session, and finds out that it is not the one that it was."""

from __future__ import annotations

from attrs import define

from pfsb.client.core.replies import Reply


@define(eq=False)
class Hello:
    """What HELLO said, at each server, and which numbers come next."""

    client_id: str
    ttl_seconds: int
    done: bool = False
    """This connection speaks for the session."""
    under_way: bool = False
    next_number: int = 1
    unanswered: int = 0
    """HELLOs sent and not answered: each may still be ordered, and takes the session from the connection that has it
    then."""
    _opened: int | None = None
    """The revision at which the session began; None: there was none yet."""
    _highest_answered: int = 0

    @property
    def has_session(self) -> bool:
        return self._opened is not None

    @property
    def line(self) -> str:
        return f"HELLO {self.client_id} ttl={self.ttl_seconds}"

    def take_number(self) -> int:
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    def answered(self, number: int) -> None:
        """The command with that number has run."""
        self._highest_answered = max(self._highest_answered, number)

    def connection_lost(self) -> None:
        """The connection is gone, or is given up."""
        self.unanswered += self.under_way
        self.under_way = self.done = False

    def was_own_hello(self) -> bool:
        """Whether the session was taken by a HELLO of ours that came late, as far as can be known."""
        if self.unanswered:
            self.unanswered -= 1
            return True
        return False

    def accept(self, reply: Reply) -> int | None:
        """HELLO was answered OK. If the session is another one than before: the highest number that may have run.

        That it was resumed does not say it is the same: a HELLO whose answer was lost may have begun a new one.
        """
        self.under_way, self.done = False, True
        fields = reply.fields
        last, opened = int(fields["last"]), int(fields["opened"])
        is_another = self._opened is not None and opened != self._opened
        self._opened = opened
        # Servers forget the last number of a closed session, long after; what was sent may then have run or not.
        may_have_run = last if last >= self._highest_answered else self.next_number
        self.next_number = max(self.next_number, last + 1)
        return may_have_run if is_another else None
