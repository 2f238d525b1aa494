"""PlainCommands: commands of Redis of one name that arrive together, and that one regular expression recognises.

A command is plain if its name is in capitals, it has as many arguments as a row of `PLAIN` says, and each of them is of
printable ASCII without spaces and quotes. Such a command means the same to `CommandParser` and to the translation of
its name (`pfsb.frontends.resp.commands`), which take all other commands, one by one. When plain commands are used, each
of 256 SETs that are under way on eight connections takes a quarter of the byte code that it takes without, counted over
all servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from attrs import define, frozen

from pfsb.applications.interfaces import Command, IPlainChecker
from pfsb.frontends.resp import replies
from pfsb.frontends.resp.commands import Client
from pfsb.frontends.resp.parser import ARGUMENT_OVERHEAD_BYTES, CommandParser, Item
from pfsb.frontends.resp.replies import Form
from pfsb.frontends.stream.plain_checks import Check, plain_check

_ARGUMENT: Final = rb"\$[1-9][0-9]{0,8}\r\n[!#-~]+\r\n"
_without_dollar: Final = itemgetter(slice(1, None))


@frozen
class PlainMeaning:
    """The command of the line protocol that a plain command of Redis becomes, with the same arguments."""

    name: str
    """The name of the command of Redis."""
    arguments: int
    verb: str
    form: Callable[[Client], Form]
    """Function that gives the form of the reply to a client, of the facts about this client."""


PLAIN: Final = (
    PlainMeaning("SET", 2, "PUT", lambda client: replies.ok),
    PlainMeaning("GET", 1, "GET", lambda client: client.dialect.value),
    PlainMeaning("APPEND", 2, "APPEND", lambda client: replies.length),
    PlainMeaning("INCR", 1, "INCR", lambda client: replies.VALUE),
    PlainMeaning("DEL", 1, "DEL", lambda client: replies.DELETED),
    PlainMeaning("SAY", 1, "SAY", lambda client: replies.INDEX),
)


@define
class PlainCommands:
    """Plain commands of one name that have arrived together, and the commands of the line protocol that they become,
    checked by their application."""

    data: bytes
    form: Callable[[Client], Form]
    commands: Sequence[Command]
    words: Sequence[Sequence[bytes]]
    """The words of the commands, place by place: first the name of each command, then the first argument of each, and
    so on."""

    @property
    def items(self) -> Sequence[list[bytes]]:
        """The commands one by one, as `CommandParser` gives them."""
        return [[*words] for words in zip(*self.words, strict=True)]


class PlainForm:
    """Recognises the plain commands of one name by a regular expression, and has them checked by their application."""

    def __init__(self, meaning: PlainMeaning, check: Check) -> None:
        """`meaning` has the name of the commands, and the verb of the line protocol that they become. `check` is that
        of the application that has this verb (`plain_check`)."""
        self._meaning = meaning
        self._check = check
        name, words = meaning.name.encode(), 1 + meaning.arguments
        self.begin = b"*%d\r\n$%d\r\n%b\r\n" % (words, len(name), name)
        self._expression = re.compile(b"(?:" + re.escape(self.begin) + _ARGUMENT * meaning.arguments + b")+")
        width = 1 + 2 * words
        self._lengths = [slice(place, None, width) for place in range(3, width, 2)]
        self._words = [slice(place, None, width) for place in range(2, width, 2)]

    def take(self, data: bytes, start: int, end: int, command_bytes_max: int) -> PlainCommands | None:
        """The plain commands of this name with which `data[start:end]` begins. `command_bytes_max` is the maximum
        length of one command, in bytes.

        Returns None, so that `CommandParser` must take them one by one, if the first command is not plain, if an
        argument has another length than the number before it says, if a command is too large, or if the application
        would refuse one.
        """
        found = self._expression.match(data, start, end)
        if found is None:
            return None
        parts = found[0][:-2].split(b"\r\n")
        words = [*map(parts.__getitem__, self._words)]
        lengths = [[*map(len, column)] for column in words]
        told = [[*map(int, map(_without_dollar, parts[places]))] for places in self._lengths]
        if lengths[1:] != told:
            return None
        if sum(map(max, lengths)) + ARGUMENT_OVERHEAD_BYTES * len(words) > command_bytes_max:
            return None
        commands = self._check(self._meaning.verb, words[1:])
        return None if commands is None else PlainCommands(found[0], self._meaning.form, commands, words)


class CommandSplitter:
    """Splits the bytes of a connection into plain commands where it can, and into single commands elsewhere."""

    def __init__(self, forms: Mapping[bytes, PlainForm], command_bytes_max: int, plain_bytes_max: int) -> None:
        """`forms` is the result of `plain_forms`. `command_bytes_max` is the maximum length of one command, and
        `plain_bytes_max` that of all commands of one `PlainCommands` together, in bytes."""
        self._forms = forms
        self._command_bytes_max = command_bytes_max
        self._plain_bytes_max = plain_bytes_max
        self.parser = CommandParser(command_bytes_max)

    def feed(self, data: bytes) -> Sequence[Item | PlainCommands]:
        """The commands that are complete with `data`, in their order: plain commands as `PlainCommands`, and for all
        others the values that `CommandParser.feed` returns.

        From the first command in `data` that is not plain, all of the rest is split into single commands.
        """
        found: list[Item | PlainCommands] = []
        start = 0
        if self.parser.is_between_commands:
            while start < len(data) and (plain := self._take(data, start)) is not None:
                found.append(plain)
                start += len(plain.data)
        return found if start == len(data) else [*found, *self.parser.feed(data[start:])]

    def _take(self, data: bytes, start: int) -> PlainCommands | None:
        form = self._forms.get(data[start : data.find(b"\r\n", start + _NAME_AT, start + _NAME_BYTES_MAX) + 2])
        if form is None:
            return None
        return form.take(data, start, start + self._plain_bytes_max, self._command_bytes_max)


_NAME_AT: Final = 8
"""Position of the name in a plain command, counted in bytes: behind `*2 CRLF $3 CRLF`, where both numbers have one
digit, since a plain command has at most nine words, and its name at most nine letters."""
_NAME_BYTES_MAX: Final = 20


def plain_forms(applications: Sequence[Any]) -> dict[bytes, PlainForm]:
    """The bytes with which the plain commands of a name begin, up to the end of the name -> the `PlainForm` that
    recognises them.

    The result has those names of `PLAIN` whose verbs one of `applications` can check many commands at a time of
    (`IPlainChecker`).
    """
    checkers = filter(IPlainChecker.providedBy, applications)
    checks = {verb: plain_check(each) for each in checkers for verb in each.plain_words}
    forms = [PlainForm(meaning, checks[meaning.verb]) for meaning in PLAIN if meaning.verb in checks]
    return {form.begin: form for form in forms}
