"""PlainLines: lines of one verb that arrive together, and that one expression recognises without the parser.

A line is plain if it is a verb in capitals and as many words as the verb's application says, each behind one space, of
printable ASCII without quotes; before the verb there may be a command number, and at the end of a question read=stale.
Such a line means the same to the parser (`pfsb.frontends.line.grammar`), which takes all other lines, one by one. Of 32
PUTs that arrive together, each costs a fortieth of the byte codes (steps of the interpreter) that it would cost in the
parser, and a fifth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from attrs import define

from pfsb.applications.interfaces import Command, CommandDescription
from pfsb.frontends.line.splitter import LineSplitter, TooLong

_NUMBER: Final = rb"#[1-9][0-9]{0,17} "
_WORD: Final = rb"[!#-~]+"
_WORD_OF_QUESTION: Final = rb"[!#-<>-~]+"
"""Regular expression of a word in a plain line of a question. The word has no equals sign, since a question may have
the option read=."""
_STALE: Final = b" read=stale"
_STALE_END: Final = b" read=stale\n"
_HASH: Final = b"#"[0]
_without_hash: Final = itemgetter(slice(1, None))


@define  # and not frozen: one is made for each line that comes alone
class PlainLines:
    """Lines of one verb, and the commands that they are, checked by their application."""

    data: bytes
    tags: Sequence[int | None]
    """The command number of each line; None for all of them if there are no numbers."""
    commands: Sequence[Command]
    is_local: bool
    """True for questions with the option read=stale, False for all others and for commands."""

    @property
    def lines(self) -> list[bytes]:
        """The lines one by one, without their line ends."""
        return self.data.split(b"\n")[:-1]


Check = Callable[[str, Sequence[Sequence[bytes]]], Sequence[Command] | None]
"""`check_plain` of an application (`pfsb.applications.interfaces.IPlainChecker`)."""


class PlainForm:
    """Recognises the plain lines of one verb, and has their commands checked by the verb's application."""

    def __init__(self, description: CommandDescription, words: int, check: Check) -> None:
        """`words` is the number of words behind the verb in a plain line. `check` is `check_plain` of the verb's
        application."""
        self._verb = description.verb
        self._words = words
        self._check = check
        word = _WORD if description.changes else _WORD_OF_QUESTION
        line = self._verb.encode() + (b" " + word) * words
        self._has_levels = not description.changes
        self._lines = {
            (is_numbered, is_local): re.compile(b"(?:" + _NUMBER * is_numbered + line + _STALE * is_local + b"\n)+")
            for is_numbered in (False, True)
            for is_local in (False, True)
        }
        """(whether the lines have numbers, whether they have the option read=stale) -> the regular expression that
        matches one or more plain lines of this kind."""

    def take(self, data: bytes) -> PlainLines | None:
        """The commands of whole lines; None if one of the lines is not plain, or would be refused."""
        is_numbered = data[0] == _HASH
        is_local = self._has_levels and data.endswith(_STALE_END)
        if self._lines[is_numbered, is_local].fullmatch(data) is None:
            return None
        words = data.split()
        first = 1 + is_numbered
        width = first + self._words + is_local
        columns = [words[place::width] for place in range(first, first + self._words)]
        commands = self._check(self._verb, columns)
        if commands is None:
            return None
        tags = [*map(int, map(_without_hash, words[::width]))] if is_numbered else [None] * len(commands)
        return PlainLines(data, tags, commands, is_local)


class RequestSplitter:
    """Splits the bytes of a connection into plain lines where it can, and into single lines elsewhere."""

    def __init__(self, forms: Mapping[bytes, PlainForm], line_bytes_max: int, plain_bytes_max: int) -> None:
        """`forms`: verb -> the `PlainForm` that recognises its plain lines; other verbs have no plain lines.
        `line_bytes_max` is the maximum length of a line, and `plain_bytes_max` that of all lines of one `PlainLines`
        together, in bytes."""
        self._forms = forms
        self._plain_bytes_max = min(line_bytes_max, plain_bytes_max)
        self._splitter = LineSplitter(line_bytes_max)

    def feed(self, data: bytes) -> Sequence[bytes | TooLong | PlainLines]:
        """The requests that are complete with `data`, in their order; what `LineSplitter.feed` returns is among them.

        As soon as one part of `data` is not plain, all of its rest is split into single lines.
        """
        if not self._splitter.is_between_lines:
            return self._feed_from_within(data)
        found: list[bytes | TooLong | PlainLines] = []
        while data:
            end = data.rfind(b"\n", 0, self._plain_bytes_max) + 1
            plain = self._take(data[:end])
            if plain is None:
                found += self._splitter.feed(data)
                break
            found.append(plain)
            data = data[end:]
        return found

    def feed_lines(self, data: bytes) -> Sequence[bytes | TooLong]:
        """The requests that are complete with `data`, each of them a single line."""
        return self._splitter.feed(data)

    def _feed_from_within(self, data: bytes) -> Sequence[bytes | TooLong | PlainLines]:
        """Does what `feed` does, for bytes that do not begin at the beginning of a line."""
        start = data.find(b"\n") + 1 or len(data)
        found: list[bytes | TooLong | PlainLines] = [*self._splitter.feed(data[:start])]
        if start < len(data):
            rest = data[start:]
            found += self.feed(rest) if self._splitter.is_between_lines else self._splitter.feed(rest)
        return found

    def _take(self, lines: bytes) -> PlainLines | None:
        first, _, rest = lines.partition(b" ")
        form = self._forms.get(rest[: rest.find(b" ")] if first[:1] == b"#" else first)
        return None if form is None else form.take(lines)


def plain_forms(descriptions: Mapping[str, CommandDescription], applications: Sequence[Any]) -> dict[bytes, PlainForm]:
    """Verb -> the `PlainForm` that recognises its plain lines.

    The result has those verbs of `descriptions` of which one of `applications` can check many commands in one call
    (`IPlainChecker`). Verbs are left out whose commands may be PENDING or take the rest of the line as it is.
    """
    return {
        verb.encode(): PlainForm(descriptions[verb], words, application.check_plain)
        for application in applications
        for verb, words in application.plain_words.items()
        if verb in descriptions and not descriptions[verb].waits and not descriptions[verb].rest_of_line
    }
