"""Commands and results of the key-value store in text, for the users and the checkers of a simulated cluster.

The application orders and keeps keys and values as bytes. Users and checkers handle them as text, as most clients do,
so that histories and the texts of violations can be read. All keys and values of simulated users are UTF-8.
"""

from __future__ import annotations

from typing import Final

from pfsb.applications.arguments import decoded
from pfsb.applications.interfaces import Command, Done, Fields, Result
from pfsb.simulator.linearizability.models import KEY_VALUE_VERBS

_VERBS: Final = frozenset((verb,) for verb in KEY_VALUE_VERBS)


def ordered_form(command: Command) -> Command:
    """The form in which servers order a command whose keys and values are in text."""
    if command[:1] not in _VERBS:
        return command
    if command[0] == "IF":
        _, key, revision, *conditional = command
        return ("IF", key.encode(), revision, *ordered_form(tuple(conditional)))
    return (command[0], *[word.encode() if isinstance(word, str) else word for word in command[1:]])


def command_in_text(command: Command) -> Command:
    """Convert a command as servers order it: the keys and values, which are bytes there, become text."""
    return tuple([decoded(word) if isinstance(word, bytes) else word for word in command])


def result_in_text(result: Result) -> Result:
    """Convert a result as servers give it: the keys and values, which are bytes there, become text."""
    if not isinstance(result, Done):
        return result
    return Done(_in_text(result.fields), tuple(map(_in_text, result.rows)))


def _in_text(fields: Fields) -> Fields:
    return tuple([(name, decoded(value) if isinstance(value, bytes) else value) for name, value in fields])
