"""A command from its submission to its answer, and the verbs that the client treats specially."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from attrs import define, field

from pfsb.client.core.replies import Reply

LOCAL_VERBS: Final = frozenset(
    {
        *("PING", "STATUS", "DIGEST", "SNAPSHOT", "SERVERS", "LEAD", "HELP", "FAULT"),
        *("MEMBERS", "LISTEN", "UNLISTEN", "HELLO", "BYE", "QUIT"),
    }
)
"""Verbs of commands that concern one server only. These are sent without a number and outside the session."""
WAITING_VERBS: Final = frozenset({"LOCK", "DIGEST", "SNAPSHOT"})
"""Verbs whose answer may take long although the server is healthy."""

QUESTION_VERBS: Final = frozenset({"GET", "MGET", "RANGE", "KEYS", "LOG", "LOCKS", "DECIDED", "INSTANCES"})
"""Verbs that are always questions. SETTINGS is one, too, unless SET follows (`Command.is_question`)."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_READ_LEVEL: Final = re.compile(r"\sread=(\w+)(?=\s|$)", re.IGNORECASE)

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
    is_refused: bool = False
    """True: the last server that got the command has answered that it has not run, and will not (fate=none)."""
    no_session: int = 0
    """How many times, so far, servers have answered this command with NOSESSION."""
    is_renumbered: bool = False
    asks: bool = False
    """True: the program says that the command is a question, although its verb is not in `QUESTION_VERBS`: it is a verb
    of an application of others."""
    sent_at: float = 0.0
    """The time at which the command was last sent."""
    is_over: bool = False
    """True: the command was answered, or given up."""

    @verb.default
    def _make_verb(self) -> str:
        return verb_of(self.line)

    @property
    def is_local(self) -> bool:
        """Whether the command concerns one server (`LOCAL_VERBS`), and so needs neither session nor number."""
        return self.verb in LOCAL_VERBS

    @property
    def is_question(self) -> bool:
        """Whether the command changes nothing, so that a server does not take its number as used."""
        if self.verb == "SETTINGS":
            return [word.upper() for word in self.line.split(None, 2)[1:2]] != ["SET"]
        return self.asks or self.verb in QUESTION_VERBS

    @property
    def read_level(self) -> str:
        """The level of a question, as `read=` names it: "linearizable", "sequential" or "stale".

        Empty for a command that is no question.
        """
        if not self.is_question:
            return ""
        found = _READ_LEVEL.search(_STRING.sub('""', self.line))
        return "linearizable" if found is None else found[1].lower()

    def line_at(self, level: str) -> str:
        """The line of a question, with `level` in the place of the level that it names."""
        found = _READ_LEVEL.search(_STRING.sub(lambda string: "_" * len(string[0]), self.line))
        return self.line if found is None else f"{self.line[: found.start(1)]}{level}{self.line[found.end(1) :]}"

    @property
    def may_have_run(self) -> bool:
        """Whether the command was sent, so that servers may have executed it."""
        return self.times_sent > 0 and not self.is_refused

    @property
    def fate(self) -> str:
        """The fate of the command if it is given up now: "unknown" if it may have run and may change something, else
        "none". A question changes nothing; of the commands about one server only FAULT changes something."""
        changes = not self.is_question and (not self.is_local or self.verb == "FAULT")
        return "unknown" if self.may_have_run and changes else "none"

    def answer(self, reply: Reply) -> None:
        """End the command: pass the reply to the callback. Further replies are ignored."""
        answered, self._answered = self._answered, _ignore
        self.is_over = True
        answered(reply)

    def hand_over(self, answered: Answered) -> None:
        """Have the answer passed to the callback `answered` instead of to the callback that the command was submitted
        with, whose caller no longer waits for it."""
        self._answered = answered
