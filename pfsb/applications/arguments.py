"""The limits and the parsing of arguments that the applications share (docs/protocol.rst): options, numbers, lengths.

An application has a rule for each verb: a function that takes the `Arguments` of a command line apart and returns the
normalised command. The rule runs once, at the server that was asked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from pfsb.applications.interfaces import BadRequest, Command, Done, Fields, Refused, Result, Value
from pfsb.support.spelling import nearest

key_bytes_max: Final = 1_024
"""Maximum number of bytes of a key, and of UTF-8 bytes of the name of a lock."""
value_bytes_max: Final = 1_048_576
"""Maximum number of bytes of a value, also of one that grows by APPEND, and of UTF-8 bytes of a text said in the
chat."""
rows_default: Final = 1_000
"""Maximum number of rows of a reply if no `limit=` is given."""
rows_max: Final = 10_000
"""Maximum number that a client may give as the option `limit=`."""
reply_characters_max: Final = 4_194_304
"""Maximum number of characters of users' text, or of users' bytes, in the rows of one reply, so that no reply takes too
much memory."""
wait_ms_max: Final = 31_536_000_000
"""Maximum value of `wait=`, in milliseconds: 365 days. A deadline then always fits into 64 bits."""
integer_min: Final = -(2**63)
integer_max: Final = 2**63 - 1

absent: Final = -1
"""The value that stands, in a normalised command, for an option that was not given: no limit, no token, or a wait
without end."""

_SIZED = (str, bytes)
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_INTEGER_IN_BYTES = re.compile(rb"-?[0-9]{1,19}")
_WRITTEN_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?")


class Quoted(str):
    """An argument that was written as a JSON string literal, or came as data: it is never an option and never `nil`."""

    __slots__ = ()


class Data(Quoted):
    """An argument that a client has sent as bytes, which need not be UTF-8: a key or a value.

    As a text it is what `decoded` makes of the bytes, for sentences to people. Keys and values are taken from `data`.
    """

    __slots__ = ("data",)

    data: bytes

    def __new__(cls, data: bytes) -> Data:
        argument = super().__new__(cls, decoded(data))
        argument.data = data
        return argument


class Option(str):
    """An argument `name=value` that a client has sent as an option, apart from the others: it is never a value.

    Options stand behind all other arguments.
    """

    __slots__ = ()


class Arguments:
    """A command line, while the rule of its verb takes it apart. All methods raise `BadRequest` for wrong arguments."""

    __slots__ = ("_options", "_typed", "usage", "verb")

    def __init__(self, command: Sequence[str], usage: str) -> None:
        self.verb = command[0]
        self.usage = usage
        self._typed = command[1:]
        self._options: dict[str, str] = {}

    def words(
        self, least: int, most: float, options: Sequence[str] = (), *, has_any_option: bool = False
    ) -> Sequence[str]:
        """Return the arguments that are not options. There must be at least `least` and at most `most` of them.

        A word `name=...` without quotes is an option, wherever it stands, if the verb has an option of that name. A key
        that looks like such an option must be quoted. An `Option` of another name is refused, unless
        `has_any_option`: then it is returned with the arguments.
        """
        words = self._without_options(options) if options else self._typed
        if words and isinstance(words[-1], Option) and not has_any_option:
            raise self._refused_option(words[-1].partition("=")[0], options)
        if not least <= len(words) <= most:
            raise self.refused(f"{self.verb} does not go with {counted(len(words), 'argument')}")
        return words

    def key(self, word: str, what: str = "key") -> str:
        """Return `word`, a key or the name of a lock. Raises `BadRequest`, whose text calls it `what`, if it is empty,
        has more than `key_bytes_max` bytes, or is refused by the method `text`."""
        self._refuse_empty(word, what)
        return self.text(word, what, key_bytes_max)

    def key_bytes(self, word: str, what: str = "key") -> bytes:
        """The bytes of `word`, a key: those of `Data`, or those of a text in UTF-8. Raises `BadRequest`, whose text
        calls the key `what`, if it is empty, has more than `key_bytes_max` bytes, or is refused by the method
        `utf8`."""
        self._refuse_empty(word, what)
        return self.utf8(word, what, key_bytes_max)

    def value(self, word: str, what: str = "value") -> str:
        """Return `word`, a text that may be empty. Raises `BadRequest`, whose text calls it `what`, if it is refused by
        the method `utf8`."""
        return self.text(word, what, value_bytes_max)

    def text(self, word: str, what: str, bytes_max: int) -> str:
        """Return `word`, a text of at most `bytes_max` bytes of UTF-8, without NUL, at which programs in C stop
        reading.

        Raises `BadRequest`, whose text calls it `what`, for `Data` that is not UTF-8, and for all that the method
        `utf8` refuses.
        """
        if isinstance(word, Data):
            try:
                word = word.data.decode()
            except UnicodeDecodeError as error:
                raise self.refused(f"the {what} is a text, and byte {error.start + 1} of it is not UTF-8") from None
        self.utf8(word, what, bytes_max)
        return str(word)

    def utf8(self, word: str, what: str, bytes_max: int = value_bytes_max) -> bytes:
        """The bytes of an argument, as keys and values are ordered and kept: any bytes of `Data`, or a text as UTF-8.

        Raises `BadRequest`, which calls the argument `what`, if it has more than `bytes_max` bytes, and for a text with
        a NUL or half a surrogate pair.
        """
        try:
            data = word.data if isinstance(word, Data) else word.encode()
        except UnicodeEncodeError as error:
            raise self.refused(f"the {what} has half a surrogate pair at character {error.start + 1}") from None
        if len(data) > bytes_max:
            raise self.refused(f"the {what} has {len(data)} bytes, {bytes_max} are allowed", "TOOLARGE")
        if "\0" in word and not isinstance(word, Data):
            raise self.refused(f"the {what} has a NUL at character {word.index(chr(0)) + 1}")
        return data

    def _refuse_empty(self, word: str, what: str) -> None:
        if not word:
            raise self.refused(f"a {what} cannot be empty")

    def integer(self, word: str, what: str) -> int:
        """The signed 64-bit integer that `word` is in decimal digits. Raises `BadRequest`, whose text calls it `what`,
        for any other word."""
        number = parse_integer(word)
        if number is None:
            raise self.refused(f"{what} is {quoted(word)}, which is no integer of 64 bits (example: 12)")
        return number

    def option(self, name: str, default: int, least: int = 1, most: int = integer_max) -> int:
        """The number that was given as the option `name=N`, from `least` to `most`; `default` if it was not given."""
        word = self._options.get(name)
        if word is None:
            return default
        number = parse_integer(word)
        if number is None or not least <= number <= most:
            bounds = f"from {least} on" if most == integer_max else f"from {least} to {most}"
            raise self.refused(f"{name}= takes a number {bounds}, not {quoted(word)}")
        return number

    def limit(self) -> int:
        """The number of the option `limit=N`; the constant `absent` if the option was not given, for an answer with
        `rows_default` rows at most."""
        return self.option("limit", absent, most=rows_max)

    def milliseconds(self, name: str) -> int:
        """The time that the option `name=SECONDS` gives, as a whole number of milliseconds, such as 2500 for
        `wait=2.5`. A part of a millisecond is rounded up, so the result is 0 only for 0 seconds. The constant `absent`
        if the option was not given."""
        word = self._options.get(name)
        if word is None:
            return absent
        if _SECONDS.fullmatch(word) is None:
            raise self.refused(f"{name}= takes seconds (example: {name}=2.5), not {quoted(word)}")
        milliseconds = math.ceil(Decimal(word) * 1_000)
        if milliseconds > wait_ms_max:
            raise self.refused(f"{name}= takes at most {wait_ms_max // 1_000} seconds, not {word}")
        return milliseconds

    def refuse_options(self, *names: str) -> None:
        """Raise the exception that `refused` makes if one of these options of other commands is given. Called for a
        command that takes many arguments, and would take the option for one of them; in quotes it is an argument."""
        for word in self._typed:
            name, equals, _ = word.partition("=")
            if equals and name in names and not isinstance(word, Quoted):
                raise self.refused(f"{self.verb} has no option {name}=; in quotes, {quoted(word)} is an argument")

    def refused(self, problem: str, code: str = "BADREQUEST") -> BadRequest:
        """Make the exception that the caller is to raise. Its code is `code`, and its text is `problem`, followed by
        how the command is written."""
        return BadRequest(f"{problem}; usage: {self.usage}", code)

    def _refused_option(self, name: str, known: Sequence[str]) -> BadRequest:
        hint = nearest(name, known) if known else "it has none"
        return self.refused(f"{self.verb} has no option {quoted(name)}; {hint}")

    def _without_options(self, names: Sequence[str]) -> list[str]:
        words = []
        for word in self._typed:
            name, equals, value = word.partition("=")
            if not equals or name not in names or isinstance(word, Quoted):
                words.append(word)
            elif name in self._options:
                raise self.refused(f"{name}= is given twice")
            else:
                self._options[name] = value
        return words


def bounded_rows(rows: tuple[Fields, ...]) -> Result:
    """The answer that consists of `rows` and their count; a refusal if it is longer than `reply_characters_max`."""
    size = sum(len(value) for row in rows for _, value in row if isinstance(value, _SIZED))
    if size > reply_characters_max:
        text = f"the answer has {size} characters, {reply_characters_max} are allowed; ask for fewer rows at a time"
        return Refused("TOOLARGE", text)
    return Done((("count", len(rows)),), rows)


def paged_rows(rows: Iterable[Fields], limit: int) -> Done:
    """The answer that consists of the first of `rows`, up to a normalised `limit`, and up to `reply_characters_max`.

    If there are more rows, the field `next` is the first field of the first row that is left out. The answer has at
    least one row, however large that is, so a client that asks again from `next` on comes to the end.
    """
    page: list[Fields] = []
    rows_left, characters_left = row_limit(limit), reply_characters_max
    for row in rows:
        characters_left -= sum([len(value) for _, value in row if isinstance(value, _SIZED)])
        if page and (characters_left < 0 or not rows_left):
            return Done((("count", len(page)), ("next", row[0][1])), tuple(page))
        page.append(row)
        rows_left -= 1
    return Done((("count", len(page)),), tuple(page))


def row_limit(limit: int) -> int:
    """Maximum number of rows that an answer has for a normalised `limit`: the number itself, but at most `rows_max`,
    since another version may have let a higher one through; `rows_default` for `absent`."""
    return rows_default if limit < 0 else min(limit, rows_max)


def rows_of_limit(command: Command) -> int:
    """Maximum number of rows of the answer to a normalised question whose last part is its limit."""
    limit = command[-1]
    return row_limit(limit if isinstance(limit, int) else absent)


def parse_integer(text: str | bytes) -> int | None:
    """The signed 64-bit integer that `text` is in ASCII decimal digits; None if `text` is no such integer."""
    found = _INTEGER.fullmatch(text) if isinstance(text, str) else _INTEGER_IN_BYTES.fullmatch(text)
    if found is None:
        return None
    number = int(text)
    return number if integer_min <= number <= integer_max else None


def integer_in(data: bytes) -> int | None:
    """The signed 64-bit integer that a value is; None if it is none.

    As in Redis, an integer has one form only: no leading zeros, no sign but a minus, and no minus before 0. So a value
    that INCR takes is one that INCR could have written.
    """
    if _WRITTEN_INTEGER.fullmatch(data) is None:
        return None
    number = int(data)
    return number if integer_min <= number <= integer_max else None


def utf8_length(text: str) -> int:
    """Number of bytes of `text` in UTF-8. Raises `UnicodeEncodeError` for half a surrogate pair."""
    return len(text) if text.isascii() else len(text.encode())


def decoded(data: bytes) -> str:
    """Bytes of a user as text in a sentence for people: the text that they are in UTF-8. Each byte that does not decode
    shows as a backslash, an x and two hexadecimal digits.

    This form is for reading only: it cannot be told from a text with a backslash. Programs get `text_of`.
    """
    return data.decode(errors="backslashreplace")


def text_of(data: bytes) -> str:
    """The text that stands for any bytes of a user, such as a key or a value, where a front end has only text.

    Bytes of UTF-8 are the text that they are. Each other byte, 80 to ff, becomes half a surrogate pair, U+DC80 to
    U+DCFF, which no UTF-8 has (PEP 383): so the text can be told from every other one, and `argument_of` makes the
    bytes of it again. JSON writes the byte ff as \\udcff.
    """
    return data.decode(errors="surrogateescape")


def argument_of(text: str) -> Quoted:
    """The argument that a client has written as the JSON string `text`. It is a text; but it is `Data` if the string
    has escapes for bytes that are not UTF-8, as `text_of` writes them, or a NUL, which a key or a value may have and a
    text may not.

    Raises `UnicodeEncodeError` for half of a surrogate pair that stands for no byte.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return Data(text.encode(errors="surrogateescape"))
    return Data(data) if "\0" in text else Quoted(text)


def as_text(value: Value) -> str:
    """A value of a result as text: bytes as `text_of` writes them, and a number in decimal digits."""
    return text_of(value) if isinstance(value, bytes) else str(value)


def quoted(text: str | bytes, characters_max: int = 60) -> str:
    """`text` in quotes, for use in a sentence: on one line, and cut after `characters_max` characters."""
    if isinstance(text, bytes):
        text = decoded(text)
    if len(text) > characters_max:
        text = text[:characters_max] + "..."
    return json.dumps(text, ensure_ascii=not text.isprintable())


def refuse_other_format(application: str, found: object, known: int) -> None:
    """Raise `ValueError` if `found`, the format of a snapshot of `application`, is not `known`: then another version of
    the server has made the snapshot."""
    if found != known:
        raise ValueError(f"the snapshot of {application} has format {found!r}, this version of pfsb reads {known}")


def counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}" + ("" if number == 1 else "s")
