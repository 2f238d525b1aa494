"""Refusals of commands by the server of their client, other than those that the applications give.

The class of a refusal says what became of the command. `ClientConnection` decides by it whether the client may use the
command's number again, and whether a final result may follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from pfsb.applications.interfaces import Refused, Result
from pfsb.paxos.disk_trouble import DiskTrouble


@frozen
class Provisional(Refused):
    """The refusal of a command that is under way, and may still run: a final result may follow."""


@frozen
class NeverRan(Refused):
    """The refusal of a command that has not run and never will, so that its number may be used again."""


@frozen
class NotSent(NeverRan):
    """The refusal of a command that has never left this server. It rests on no record, so it waits for no disk."""


@frozen
class TroubleRefusals:
    """The refusals of a server whose disk is in trouble (Departures 44 and 45)."""

    change: Refused
    """The refusal of a command that is no question, and that comes while the disk is in trouble."""
    question: Refused
    """The refusal of a question that this server cannot answer while its disk is in trouble."""
    repeated: Refused
    """The refusal of a command whose number was used before, so that it may have run."""
    under_way: Provisional
    """The refusal of a command that was under way when the disk came into trouble."""
    not_sent: NotSent
    """The refusal of a command that waited for an earlier one of its session when the disk came into trouble."""

    def of(self, *, is_question: bool, is_used: bool) -> Refused:
        """The refusal of a command that a client sends during the trouble. `is_question` says whether it is a question,
        and `is_used` whether its number was used before."""
        if is_used:
            return self.repeated
        return self.question if is_question else self.change


def _refusals(why: str, change: Refused, question: str, not_sent: str) -> TroubleRefusals:
    """Make the refusals for one trouble of the disk; `why` says what the trouble is.

    `change` is the refusal of a command that is no question. `question` is the text that the refusal of a question adds
    to `why`, and `not_sent` is the code of the refusal of a command that was not sent.
    """
    repeated = f"{why}; repeat the same number at another server to learn its result"
    under_way = f"{why}; the command may have happened, or may still: repeat the same number at another server to learn"
    return TroubleRefusals(
        change=change,
        question=Refused("UNAVAILABLE", f"{why}{question}; ask another server"),
        repeated=Refused("UNAVAILABLE", repeated, fate="unknown"),
        under_way=Provisional("UNAVAILABLE", under_way, fate="unknown"),
        not_sent=NotSent(not_sent, f"{why}; the command was not sent, and did not happen"),
    )


_HANGS: Final = "the disk of this server does not answer"
_FULL: Final = "the disk of this server is full"

TROUBLE_REFUSALS: Final[Mapping[DiskTrouble, TroubleRefusals]] = {
    DiskTrouble.HANGS: _refusals(
        _HANGS,
        Refused("UNAVAILABLE", f"{_HANGS}; the command was not taken, and did not happen: ask another server"),
        question="",
        not_sent="UNAVAILABLE",
    ),
    DiskTrouble.FULL: _refusals(
        _FULL,
        Refused("READONLY", f"{_FULL}; nothing was changed: another server may take the command"),
        question=", and it does not know the latest state",
        not_sent="READONLY",
    ),
}
"""Disk trouble -> the refusals of a server whose disk has this trouble."""

HANGING: Final = TROUBLE_REFUSALS[DiskTrouble.HANGS]


_REMOVED: Final = "this server was removed from the cluster"
REMOVED_UNDER_WAY: Final = Provisional(
    "UNAVAILABLE",
    f"{_REMOVED}; the command may have happened, or may still: repeat the same number at another server to learn",
    fate="unknown",
)
"""The refusal of a command that is under way when this server is removed (Departure 60)."""
REMOVED_NOT_SENT: Final = NotSent(
    "UNAVAILABLE", f"{_REMOVED}; the command was not sent, and did not happen: ask another server"
)
"""The refusal of a command that waits for an earlier one of its session when this server is removed."""

WITHOUT_STATE: Final = Refused(
    "UNAVAILABLE", "this server has lost its snapshot, and fetches one from another server; ask that one meanwhile"
)
"""The refusal of a question to a server that has lost its state (Departure 58)."""


def of_question(refusal: Result) -> Result:
    """The refusal of a question in place of that of a command: the question has not happened in any case."""
    if not isinstance(refusal, Provisional):
        return refusal
    trouble = next((each for each in TROUBLE_REFUSALS.values() if each.under_way is refusal), None)
    return NO_ANSWER if trouble is None else trouble.question


NO_ANSWER: Final = Refused("UNAVAILABLE", "no majority has answered in time; the question changes nothing: ask again")
"""The refusal of a question that waits for a majority in vain."""
