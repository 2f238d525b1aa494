"""The line protocol's grammar, as pure functions: a line becomes a request, a result or an event becomes lines.

request = [ "#" number SP ] verb *( SP arg )        arg = word | JSON string literal
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from json import JSONDecodeError, JSONDecoder
from json.encoder import encode_basestring
from typing import Any, Final

from attrs import define

from pfsb.applications.arguments import Quoted, argument_of, text_of
from pfsb.applications.interfaces import BadRequest, Done, Event, Fields, Result, RunResults, Word
from pfsb.frontends.stream.reply_queue import OUTPUT_BYTES_MAX, is_large

NUMBER_MAX: Final = 2**63 - 1
"""The highest command number; the lowest is 1."""

_JSON = JSONDecoder()
_BARE = (int, Word)
_NUMBER = re.compile(r"#([0-9]{1,19})(?: +|$)")
_NUMBER_IN_BYTES = re.compile(rb"\s*#([0-9]{1,19})(?= |\r?$)")
_VERB = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# Characters that JSON does not escape, although they end lines for some readers, move cursors of some terminals, or
# cannot be encoded in UTF-8.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class BadLine(BadRequest):
    """A line that is no request.

    `number`, for the reply, is the command number with which the line begins; None: there is none.
    """

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.number = number


@define  # not frozen: a request is made for each line, and to make a frozen one takes twice as long
class Request:
    """One request of a client.

    `tag` tells how to render the reply: it is the command number of a line, or None if the line has no number. `verb`
    is in upper case, and `rest` is the text after the verb.
    """

    tag: Any
    verb: str
    rest: str

    @property
    def number(self) -> int | None:
        number: int | None = self.tag
        return number

    @property
    def args(self) -> tuple[str, ...]:
        """The arguments: words as str, string literals as `Quoted`. Raises `BadRequest`.

        Arguments are split only on demand: for a verb that takes the rest of the line, a lone quote is text.
        """
        rest = self.rest
        if '"' in rest:
            return tuple(_quoted_arguments(rest))
        if rest.isascii():
            # `split` is right here: of ASCII's white characters, `parse` leaves only the space in a line.
            return tuple(rest.split())
        return tuple([word for word in rest.split(" ") if word])

    @property
    def text(self) -> str | None:
        """The rest of the line, for verbs that take free text: as it stands, or the value of one JSON string; None if
        the rest is empty."""
        if self.rest.startswith('"'):
            value, end = _literal_or_none(self.rest)
            if value is not None and end == len(self.rest):
                return value
        return self.rest or None


def parse(line: bytes) -> Request:
    """The request in one line, which is given without its line end. Raises `BadLine` with a sentence that tells what
    would be right."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise BadLine(
            f"byte {error.start + 1} of the line is not UTF-8; type HELP for what can be asked", number_of(line)
        ) from None
    if not text.isprintable():
        text = _checked(text, line)
    number: int | None = None
    if text[:1] in "# ":
        text = text.lstrip(" ")
        if text.startswith("#"):
            number, text = _take_number(text)
    verb, _, rest = text.partition(" ")
    if not verb.isalpha() or not verb.isascii():
        _check_verb(verb, number)
    return Request(number, verb.upper(), rest.strip(" "))


def number_of(line: bytes) -> int | None:
    """The command number that a line begins with, even if the rest of the line is no request; None if there is none."""
    found = _NUMBER_IN_BYTES.match(line)
    return _in_range(int(found[1])) if found else None


def split_options(args: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Divides `args` into (the other arguments, the options): options are bare words of the form name=value."""
    options = dict(arg.split("=", 1) for arg in args if "=" in arg and not isinstance(arg, Quoted))
    return tuple(arg for arg in args if "=" not in arg or isinstance(arg, Quoted)), options


def quote(text: str) -> str:
    """A JSON string literal that stays on one line and in UTF-8, whatever `text` holds."""
    literal: str = encode_basestring(text)
    if not literal.isascii() or "\x7f" in literal:
        literal = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", literal)
    return literal


def render(number: int | None, result: Result) -> bytes:
    """The lines of one reply, each with its line end, and with the command number if the request had one."""
    if isinstance(result, Done):
        return b"".join(_lines(number, result))
    prefix = "" if number is None else f"#{number} "
    return f"{prefix}ERR {result.code} fate={result.fate} {_one_line(result.text)}\n".encode()


def render_run(numbers: Sequence[int | None], results: RunResults) -> bytes:
    """The bytes of the replies to commands that were executed together: the same bytes that `render` makes of each
    number and its result, but made in one step for all."""
    revisions = results.revisions
    columns: list[Sequence[Any]]
    if results.counted:
        columns, template = [values for _, values in results.columns], _template(results)
    elif not any(numbers):
        return b"OK revision=%d\n" * len(revisions) % tuple(revisions)
    else:
        columns, template = [revisions], b"OK revision=%d\n"
    if all(numbers):
        columns, template = [numbers, *columns], b"#%d " + template
    elif any(numbers):
        return b"".join(map(render, numbers, results))
    return template * len(revisions) % tuple(chain.from_iterable(zip(*columns, strict=True)))


def _template(results: RunResults) -> bytes:
    """A pattern for `%`: the lines of the replies to these results, with %d in place of each value."""
    names = [name.replace("%", "%%") for name, _ in results.columns]
    return f"OK{''.join([f' {name}=%d' if name else ' %d' for name in names])}\n".encode()


def render_in_slices(number: int | None, result: Result) -> bytes | Iterator[bytes]:
    """The bytes of a reply, as `render` makes them; or, for a large reply, an iterator that makes one line after the
    other, while the reply is written."""
    if type(result) is Done and not result.rows:
        # Nearly all replies are of this kind: with a call of `is_large` for each, a local read at 8 x 8 took 4 % more.
        fields = result.fields
        if not fields or isinstance(fields[0][1], int) or len(fields[0][1]) <= OUTPUT_BYTES_MAX:
            prefix = "" if number is None else f"#{number} "
            return f"{prefix}OK{_pairs(fields)}\n".encode()
    if is_large(result):
        assert isinstance(result, Done)
        return _lines(number, result)
    return render(number, result)


def _lines(number: int | None, result: Done) -> Iterator[bytes]:
    prefix = "" if number is None else f"#{number} "
    for row in result.rows:
        yield f"{prefix}+{_pairs(row)[1:]}\n".encode()
    yield f"{prefix}OK{_pairs(result.fields)}\n".encode()


def render_event(event: Event) -> bytes:
    """The line of one event, with its line end."""
    return f"* {event.name}{_pairs(event.fields)}\n".encode()


def _pairs(fields: Fields) -> str:
    """The text of fields: ` name=value` for each; ` value` if the name is empty (a row of HELP, the JSON of STATUS)."""
    text = ""
    for name, value in fields:
        shown = value if isinstance(value, _BARE) else quote(text_of(value) if isinstance(value, bytes) else value)
        text += f" {name}={shown}" if name else f" {shown}"
    return text


def _one_line(text: str) -> str:
    """Escapes characters that would break the line of a reply: the text of a refusal may quote the client's input."""
    return text if text.isprintable() else quote(text)[1:-1].replace('\\"', '"')


def _checked(text: str, line: bytes) -> str:
    """The text, which is all or a part of `line`, with tabs as spaces, since people paste tabs between words. Raises
    `BadLine`, with the command number of `line`, if there is another control character."""
    found = _CONTROL.search(text)
    if found:
        raise BadLine(
            f"character {found.start() + 1} of the line is a control character (U+{ord(found[0]):04X}); "
            'inside a string write it as JSON does, for example "\\n"',
            number_of(line),
        )
    return text.replace("\t", " ")


def _take_number(text: str) -> tuple[int, str]:
    found = _NUMBER.match(text)
    number = _in_range(int(found[1])) if found else None
    if found is None or number is None:
        raise BadLine(f"after # comes a command number from 1 to {NUMBER_MAX} and a space, as in: #1 PUT colour blue")
    return number, text[found.end() :]


def _in_range(number: int) -> int | None:
    return number if 1 <= number <= NUMBER_MAX else None


def _check_verb(verb: str, number: int | None) -> None:
    if not verb:
        raise BadLine("a command is missing after the number, as in: #1 PUT colour blue", number)
    if not _VERB.fullmatch(verb):
        raise BadLine("a line begins with a command, a word of letters such as PUT; type HELP for all of them", number)


def _quoted_arguments(rest: str) -> list[str]:
    args: list[str] = []
    position, end = 0, len(rest)
    while position < end:
        if rest[position] == " ":
            position += 1
        elif rest[position] == '"':
            value, position = _literal(rest, position)
            args.append(value)
        else:
            stop = rest.find(" ", position)
            word = rest[position : stop if stop >= 0 else end]
            if '"' in word:
                raise BadRequest(
                    f'a quote inside the word {word}: write the whole of it as one string, with \\" inside'
                )
            args.append(word)
            position += len(word)
    return args


def _literal(text: str, start: int) -> tuple[Quoted, int]:
    """Read the JSON string that begins with the quote at `start`; returns its value, and the position after its end.

    Halves of surrogate pairs such as \\udcff stand for bytes that are not UTF-8 (`argument_of`). Verbs that take text
    alone refuse them.
    """
    try:
        value, end = _JSON.raw_decode(text, start)
        argument = argument_of(value)
    except JSONDecodeError as error:
        raise BadRequest(
            f"the string that begins at {_excerpt(text, start)} is not a JSON string: {error.msg.lower()}"
        ) from None
    except UnicodeEncodeError:
        raise BadRequest(
            f"the string that begins at {_excerpt(text, start)} holds half of a surrogate pair; write both halves, or "
            "\\udc80 to \\udcff for a byte that is not UTF-8"
        ) from None
    if end < len(text) and text[end] != " ":
        raise BadRequest(f"a space is missing after the string that begins at {_excerpt(text, start)}")
    return argument, end


def _literal_or_none(text: str) -> tuple[Quoted | None, int]:
    """(value, length) of a free text if the whole of it is one JSON string; else (None, a number without meaning).

    Free text may begin with a quote without being a JSON string, as in: "yes" she said. Raises `BadRequest` for a
    string with half of a surrogate pair that stands for no byte.
    """
    try:
        _value, end = _JSON.raw_decode(text)
    except JSONDecodeError:
        return None, 0
    return _literal(text, 0) if end == len(text) else (None, end)


def _excerpt(text: str, start: int) -> str:
    shown = text[start : start + 24]
    return shown if start + 24 >= len(text) else f"{shown}..."
