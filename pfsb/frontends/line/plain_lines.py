"""PlainLines: lines of one verb that arrive together, and that one regular expression recognises without the parser.

A line is plain if it is a verb in capitals and as many words as the verb's application says, each behind one space, of
printable ASCII without quotes; before the verb there may be a command number, and at the end of a question read=stale.
A verb that takes the rest of the line has a text there: words with any number of spaces between them. Such a line means
the same to the parser (`pfsb.frontends.line.grammar`), which takes all other lines, one by one. Of 32 PUTs that arrive
together, each costs a fortieth of the byte codes (steps of the interpreter) that it would cost in the parser, and a
fifth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from attrs import define

from pfsb.applications.interfaces import Command, CommandDescription
from pfsb.frontends.line.splitter import Endless, LineSplitter, TooLong
from pfsb.frontends.stream.plain_checks import Check, plain_check
from pfsb.support.rights import Right

_NUMBER: Final = rb"#[1-9][0-9]{0,17} "
_WORD: Final = rb"[!#-~]+"
_WORD_OF_QUESTION: Final = rb"[!#-<>-~]+"
"""Regular expression of a word in a plain line of a question. The word has no equals sign, since a question may have
the option read=."""
_TEXT: Final = rb"[!#-~][ !#-~]*(?<! )"
"""Regular expression of a text: all words of a line, without the spaces before and behind them."""
_STALE: Final = b" read=stale"
_STALE_END: Final = b" read=stale\n"
_HASH: Final = b"#"[0]
_UNSEEN_BYTES: Final = 256
"""Number of bytes that are left to the parser, without a search for plain lines, after two lines that are not plain.
Each further line that is not plain makes the number four times as large, until a plain line is found."""
_VERB_BYTES_MAX: Final = 34
"""Number of bytes from the beginning of a verb, or of a command number, within which the space behind it must be found;
a verb has at most 32 characters."""
_without_hash: Final = itemgetter(slice(1, None))


@define  # not frozen: one object is made for each line that comes alone
class PlainLines:
    """Lines of one verb, and the commands that they are, checked by their application."""

    data: bytes
    tags: Sequence[int | None]
    """The command number of each line; None for all of them if there are no numbers."""
    commands: Sequence[Command]
    is_local: bool
    """True if the lines are questions with the option read=stale; False if they are other questions, or commands."""

    @property
    def lines(self) -> list[bytes]:
        """The lines one by one, without their line ends."""
        return self.data.split(b"\n")[:-1]


class PlainForm:
    """Recognises the plain lines of one verb by a regular expression, and has their commands checked by the verb's
    application."""

    def __init__(self, description: CommandDescription, words: int, check: Check) -> None:
        """`description` describes the verb, and `words` is the number of words behind it in a plain line; if the verb
        takes the rest of the line, the text there counts as one. `check` is that of the verb's application
        (`plain_check`)."""
        verb = description.verb.encode()
        self._verb = description.verb
        self._check = check
        self._has_text = description.rest_of_line
        self._texts = re.compile(rb"(?:#(\d+) )?" + verb + rb" ([^\n]+)\n")
        word = _TEXT if self._has_text else _WORD if description.changes else _WORD_OF_QUESTION
        line = verb + (b" " + word) * words
        self._has_levels = not description.changes
        self._lines = {
            (is_numbered, is_local): (
                re.compile(b"(?:" + _NUMBER * is_numbered + line + _STALE * is_local + b"\n)+"),
                _columns(1 + is_numbered, words, 1 + is_numbered + words + is_local),
            )
            for is_numbered in (False, True)
            for is_local in (False, True)
        }
        """(whether the lines have command numbers, whether they have the option read=stale) -> a regular expression
        that matches one or more plain lines of this kind; and slices, which pick words out of the list of all words of
        these lines: the first slice picks the first word of each line, and each other one the words of one argument."""

    def take(self, data: bytes, start: int, end: int) -> PlainLines | bytes | None:
        """The commands of the plain lines of this verb with which `data[start:end]`, a number of whole lines, begins.

        Returns None if the first line is not plain. Returns the bytes of the plain lines, and no commands, if the
        application would refuse one of them: then the parser must take the lines one by one.
        """
        is_numbered = data[start] == _HASH
        is_local = self._has_levels and data.endswith(_STALE_END, start, end)
        expression, (firsts, *places) = self._lines[is_numbered, is_local]
        found = expression.match(data, start, end)
        # The first line may have another read level than the last line before it.
        if found is None and self._has_levels:
            is_local = not is_local
            expression, (firsts, *places) = self._lines[is_numbered, is_local]
            found = expression.match(data, start, end)
        if found is None:
            return None
        lines = found[0]
        numbers: Sequence[bytes]
        columns: Sequence[Sequence[bytes]]
        if self._has_text:
            numbers, *columns = zip(*self._texts.findall(lines), strict=True)
        else:
            words = lines.split()
            columns = [*map(words.__getitem__, places)]
            numbers = [*map(_without_hash, words[firsts])] if is_numbered else ()
        commands = self._check(self._verb, columns)
        if commands is None:
            return lines
        tags = [*map(int, numbers)] if is_numbered else [None] * len(commands)
        return PlainLines(lines, tags, commands, is_local)


def _columns(first: int, words: int, width: int) -> Sequence[slice]:
    """Slices of the list of all words of several lines, each of which has `width` words. The first slice picks the
    first word of each line; then come `words` slices, which pick the word at position `first` of each line, and those
    at the positions behind it."""
    return [slice(place, None, width) for place in (0, *range(first, first + words))]


class RequestSplitter:
    """Splits the bytes of a connection into plain lines where it can, and into single lines elsewhere."""

    def __init__(
        self,
        forms: Mapping[bytes, PlainForm],
        line_bytes_max: int,
        plain_bytes_max: int,
        answer: Callable[[bytes], object] | None = None,
    ) -> None:
        """`forms`: verb -> the `PlainForm` that recognises its plain lines; other verbs have no plain lines.
        `line_bytes_max` is the maximum length of a line, and `plain_bytes_max` that of all lines of one `PlainLines`
        together, in bytes. `answer` is called with bytes that must be sent to the client, the answers to its telnet
        commands (`LineSplitter`); None: these get no answer."""
        self._forms = forms
        self._plain_bytes_max = min(line_bytes_max, plain_bytes_max)
        self._splitter = LineSplitter(line_bytes_max, answer)

    def feed(self, data: bytes) -> Sequence[bytes | TooLong | Endless | PlainLines]:
        """The requests that are complete with `data`, in their order: plain lines, of which those of one verb that
        follow each other are in one `PlainLines`, and for all other lines the values that `LineSplitter.feed`
        returns."""
        if not (data and self._splitter.is_between_lines):
            return self._feed_parts(data)
        taken = self._take(data, 0)
        if type(taken) is PlainLines:
            length = len(taken.data)
            return (taken,) if length == len(data) else (taken, *self._feed_parts(data, length))
        if taken is None and data.find(b"\n") + 1 == len(data):
            return self._splitter.feed(data)
        return self._feed_parts(data)

    def feed_lines(self, data: bytes) -> Sequence[bytes | TooLong | Endless]:
        """The requests that are complete with `data`, in their order, each of them a single line: no line is taken for
        a plain one."""
        return self._splitter.feed(data)

    def _feed_parts(self, data: bytes, start: int = 0) -> Sequence[bytes | TooLong | Endless | PlainLines]:
        """Feed the bytes of `data` from `start` on, which are of several lines, or do not begin at the beginning of a
        line.

        Behind each line that is not plain, more and more lines are left to the `LineSplitter` without a look, until one
        is found to be plain: so a client that sends no plain lines pays for few looks.
        """
        found: list[bytes | TooLong | Endless | PlainLines] = []
        unseen = 0
        while start < len(data):
            if not self._splitter.is_between_lines:
                stop = data.find(b"\n", start) + 1 or len(data)
                found += self._splitter.feed(data[start:stop])
                if not self._splitter.is_between_lines:  # the end of the line may have been within a telnet command
                    found += self._splitter.feed(data[stop:])
                    break
                start = stop
                continue
            taken = self._take(data, start)
            if type(taken) is PlainLines:
                found.append(taken)
                start += len(taken.data)
                unseen = 0
            else:
                end_unseen = data.find(b"\n", start + unseen) + 1 or len(data)
                stop = start + len(taken) if isinstance(taken, bytes) else end_unseen
                found += self._splitter.feed(data[start:stop])
                start, unseen = stop, 4 * unseen or _UNSEEN_BYTES
        return found

    def _take(self, data: bytes, start: int) -> PlainLines | bytes | None:
        """The plain lines of one verb that begin at position `start` of `data`, which is the beginning of a line;
        returned as by `PlainForm.take`. None, too, if the verb has no plain lines."""
        space = data.find(b" ", start, start + _VERB_BYTES_MAX)
        if data[start] == _HASH:
            start_of_verb = space + 1
            space = data.find(b" ", start_of_verb, start_of_verb + _VERB_BYTES_MAX)
            form = self._forms.get(data[start_of_verb:space])
        else:
            form = self._forms.get(data[start:space])
        if form is None:
            return None
        return form.take(data, start, data.rfind(b"\n", start, start + self._plain_bytes_max) + 1)


def plain_forms(descriptions: Mapping[str, CommandDescription], applications: Sequence[Any]) -> dict[bytes, PlainForm]:
    """Verb -> the `PlainForm` that recognises its plain lines.

    The result has those verbs of `descriptions` whose commands one of `applications` can check many at a time
    (`IPlainChecker`). Verbs whose commands may be PENDING, or need more than the right to write, are left out.
    """
    return {
        verb.encode(): PlainForm(descriptions[verb], words, plain_check(application))
        for application in applications
        for verb, words in application.plain_words.items()
        if verb in descriptions and not descriptions[verb].waits and descriptions[verb].right <= Right.WRITE
    }
