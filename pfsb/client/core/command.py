"""Commands on their way, and the words in which the client sees to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field

from pfsb.client.core.replies import Reply

LOCAL_VERBS: Final = frozenset(
    {"PING", "STATUS", "DIGEST", "SERVERS", "HELP", "FAULT", "LISTEN", "UNLISTEN", "HELLO", "BYE", "QUIT"}
)
"""What is asked of one server, without a number and outside the session."""
WAITING_VERBS: Final = frozenset({"LOCK", "DIGEST"})
"""Whose answer may take long although all is well."""

QUESTION_VERBS: Final = frozenset({"GET", "MGET", "RANGE", "KEYS", "LOG", "LOCKS", "DECIDED", "INSTANCES"})
"""Whose numbers the servers do not count as executed."""

Answered = Callable[[Reply], None]


def verb_of(line: str) -> str:
    """The verb of a line without a number, in upper case."""
    return (line.split(None, 1) or [""])[0].upper()


def _ignore(_reply: Reply) -> None:
    pass


@define(eq=False)
class Command:
    """One line that a user wants carried out once; it keeps its number until it is answered."""

    line: str
    _answered: Answered
    verb: str = field(init=False)
    number: int | None = None
    times_sent: int = 0
    no_session: int = 0
    """How often it was answered NOSESSION."""
    is_renumbered: bool = False
    is_over: bool = False
    """Answered, or given up."""

    @verb.default
    def _make_verb(self) -> str:
        return verb_of(self.line)

    @property
    def is_local(self) -> bool:
        return self.verb in LOCAL_VERBS

    @property
    def may_have_run(self) -> bool:
        """It was sent, and nothing is known of what became of it."""
        return self.times_sent > 0

    def answer(self, reply: Reply) -> None:
        """Tell whoever asked, once."""
        answered, self._answered = self._answered, _ignore
        self.is_over = True
        answered(reply)

    def hand_over(self, answered: Answered) -> None:
        """Who asked does not wait any longer; somebody else wants to know the answer."""
        self._answered = answered
