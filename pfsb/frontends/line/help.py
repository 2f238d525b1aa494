"""The replies to HELP in the line protocol: a row for each command, or one command with an example."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from pfsb.applications.interfaces import BadRequest, CommandDescription, Done, Fields, Result, Word
from pfsb.support.rights import Right
from pfsb.support.spelling import suggestion

ALWAYS: Final = (
    CommandDescription(
        "AUTH", "AUTH token", "Show a token, and have the rights of its role.", changes=False, right=Right.NONE
    ),
    CommandDescription("HELLO", "HELLO client-id [ttl=SECONDS]", "Open your session, or take it over from elsewhere."),
    CommandDescription("BYE", "BYE", "Close your session and the connection.", right=Right.NONE),
    CommandDescription(
        "QUIT", "QUIT", "Close the connection only; a session opened by HELLO lives on for its ttl.", right=Right.NONE
    ),
    CommandDescription("PING", "PING", "Answer OK.", changes=False, right=Right.NONE),
    CommandDescription("STATUS", "STATUS", "Show the state of this server as JSON.", changes=False),
    CommandDescription("DIGEST", "DIGEST [seq=S]", "Show a hash of all updates executed up to S.", changes=False),
    CommandDescription(
        "SERVERS",
        "SERVERS [ADD|MOVE id address [LEARNER] | REMOVE id | REPLACE id new address]",
        "Show all servers as this one sees them, or change which ones there are.",
        changes=False,
        right_with_arguments=Right.ADMIN,
    ),
    CommandDescription(
        "MEMBERS",
        "MEMBERS",
        "Be told where clients reach the servers, now and at each change.",
        changes=False,
    ),
    CommandDescription(
        "SNAPSHOT",
        "SNAPSHOT [wait=SECONDS]",
        "Let this server write its state to disk as a whole.",
        changes=False,
        right=Right.ADMIN,
    ),
    CommandDescription(
        "LEAD", "LEAD id", "Let another server lead; only the leader can do it.", changes=False, right=Right.ADMIN
    ),
    CommandDescription(
        "HELP", "HELP [command]", "Show all commands, or one with an example.", changes=False, right=Right.NONE
    ),
    CommandDescription(
        "FAULT",
        "FAULT LOSS p | DELAY ms | CUT id,... | HEAL | SKIP seq",
        "Disturb this server's own links; only if the configuration says faults: true.",
        changes=False,
        right=Right.ADMIN,
    ),
)
"""The commands of the line protocol itself, which a server has whatever applications it runs."""

_NEEDS: Final = {
    Right.NONE: "It needs no token.",
    Right.READ: "It needs the right read.",
    Right.WRITE: "It needs the right write.",
    Right.ADMIN: "It needs the right admin.",
}
COLUMNS: Final = 78
"""Maximum length, in characters, of a row of HELP that has several words, so that a terminal of 80 columns breaks no
word: a row stands behind a + there."""
USAGE_COLUMNS: Final = 40
"""Maximum length, in characters, of a usage that has its help beside it in the answer to HELP."""
TEXT_COLUMNS_MIN: Final = 24
"""Minimum width, in characters, of the column with the help."""

SESSION: Final = frozenset({"AUTH", "HELLO", "BYE", "QUIT"})

_EXAMPLES: Final = {
    "AUTH": "AUTH alice.5Jx0n4Yq",
    "HELLO": "HELLO alice ttl=30",
    "DIGEST": "DIGEST seq=812",
    "SNAPSHOT": "SNAPSHOT wait=60",
    "SERVERS": "SERVERS ADD 4 127.0.0.1:7404",
    "LEAD": "LEAD 2",
    "HELP": "HELP PUT",
    "FAULT": "FAULT CUT 1,3",
    "SAY": "SAY good morning",
    "LISTEN": "LISTEN from=1",
    "LOG": "LOG from=100 limit=20",
    "LOCK": "LOCK printer wait=2.5",
    "UNLOCK": "UNLOCK printer token=42",
    "GET": "GET colour read=sequential",
    "PUT": '#1 PUT colour "light blue"',
    "CAS": "CAS colour nil blue",
    "INCR": "INCR visits 10",
    "MPUT": "MPUT colour blue shape round",
    "MGET": "MGET colour shape",
    "RANGE": "RANGE a b limit=10",
    "KEYS": "KEYS user. user/",
    "SETTINGS SET": "SETTINGS SET session_window=64 window=32",
}


def all_commands(descriptions: Iterable[CommandDescription]) -> Result:
    """The answer to HELP: a row for each command, with its usage and one sentence. A sentence that does not fit into
    `COLUMNS` goes on in further rows, which begin with spaces."""
    found = list(descriptions)
    width = max(len(each.usage) for each in found if len(each.usage) <= USAGE_COLUMNS)
    return Done(rows=tuple(_row(line) for each in found for line in _lines(each.usage, each.help, width + 2)))


def one_command(description: CommandDescription) -> Result:
    """The answer to HELP with a command: rows with its usage, what it does, how it is run, and an example."""
    rows = [description.usage, *_lines("", description.help, 2), *_lines("", _manner(description), 2)]
    rows.append(f"  Example: {_example(description)}")
    return Done(rows=tuple(_row(row) for row in rows))


def _lines(first: str, text: str, indent: int) -> list[str]:
    """`text` in lines of up to `COLUMNS` characters, each behind `indent` spaces; the words `first` stand before the
    first line if they fit into these spaces, and else in a line of their own."""
    from textwrap import wrap  # imported here, since HELP is seldom asked for

    lines = wrap(text, max(COLUMNS - indent, TEXT_COLUMNS_MIN), break_long_words=False, break_on_hyphens=False)
    lines = [" " * indent + line for line in lines]
    if not first:
        return lines
    if not lines or len(first) + 2 > indent:
        return [first, *lines]
    return [f"{first:{indent}}{lines[0].lstrip()}", *lines[1:]]


def unknown(verb: str, known: Collection[str]) -> BadRequest:
    """The error for a command that does not exist; its text proposes a command whose name is nearly the same."""
    near = suggestion(verb, known)
    text = f"there is no command {verb}, HELP shows all"
    return BadRequest(text if near is None else f"{text}; {near}", code="UNKNOWN")


def _row(text: str) -> Fields:
    return (("", Word(text)),)


def _manner(description: CommandDescription) -> str:
    if description in ALWAYS:
        manner = "It is about this connection." if description.verb in SESSION else "Answered by this server alone."
    elif not description.changes:
        manner = "It changes nothing; read=linearizable (default), read=sequential or read=stale may be added."
    else:
        manner = "Ordered with all other changes, and run once for each command number."
        if description.waits:
            manner += " The answer may come later than those to other commands."
    other = description.right_with_arguments
    more = "" if other is None else f" With arguments: {_NEEDS[other]}"
    return f"{manner} {_NEEDS[description.right]}{more}"


def _example(description: CommandDescription) -> str:
    return description.example or _EXAMPLES.get(description.verb) or _from_usage(description.usage)


def _from_usage(usage: str) -> str:
    """A command's usage without its optional parts, which are in brackets, such as `[ttl=SECONDS]`."""
    return re.sub(r" *\[[^\]]*\]", "", usage)
