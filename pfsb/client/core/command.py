"""A command from its submission to its answer, and the verbs that the client treats specially."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field

from pfsb.client.core.replies import Reply

LOCAL_VERBS: Final = frozenset(
    {"PING", "STATUS", "DIGEST", "SERVERS", "HELP", "FAULT", "LISTEN", "UNLISTEN", "HELLO", "BYE", "QUIT"}
)
"""Verbs of commands that concern one server only. These are sent without a number and outside the session."""
WAITING_VERBS: Final = frozenset({"LOCK", "DIGEST"})
"""Verbs whose answer may take long although the server is healthy."""

QUESTION_VERBS: Final = frozenset({"GET", "MGET", "RANGE", "KEYS", "LOG", "LOCKS", "DECIDED", "INSTANCES"})
"""Verbs of questions, which change nothing: a server does not take the number of a question as used."""

Answered = Callable[[Reply], None]
"""Call-back with the reply to one command, a server's or a refusal of the client itself: called at most once."""


def verb_of(line: str) -> str:
    """The verb, in upper case, of a line that does not begin with a number."""
    return (line.split(None, 1) or [""])[0].upper()


def _ignore(_reply: Reply) -> None:
    """Do nothing: the callback of a command that has been answered."""


@define(eq=False)
class Command:
    """One line that a user wants carried out once. The command keeps its number until it is answered."""

    line: str
    _answered: Answered
    verb: str = field(init=False)
    number: int | None = None
    times_sent: int = 0
    no_session: int = 0
    """How many times servers have answered this command with NOSESSION."""
    is_renumbered: bool = False
    is_over: bool = False
    """True: the command was answered, or given up."""

    @verb.default
    def _make_verb(self) -> str:
        return verb_of(self.line)

    @property
    def is_local(self) -> bool:
        """Whether the command concerns one server, and needs neither session nor number."""
        return self.verb in LOCAL_VERBS

    @property
    def may_have_run(self) -> bool:
        """Whether the command was sent, so that servers may have executed it."""
        return self.times_sent > 0

    def answer(self, reply: Reply) -> None:
        """End the command: pass the reply to the callback. Further replies are ignored."""
        answered, self._answered = self._answered, _ignore
        self.is_over = True
        answered(reply)

    def hand_over(self, answered: Answered) -> None:
        """Have the answer passed to the callback `answered`, in place of the first one, which does not wait any
        longer."""
        self._answered = answered
