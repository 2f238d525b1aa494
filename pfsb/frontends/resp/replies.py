"""Replies of the Redis protocol: the forms of RESP 2 and 3, as pure functions of results.

A *form* turns the result of one command into the bytes of its reply. A refusal becomes an error, unless the form
has another meaning for it: in the reply to GET, a key that does not exist is nil.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from pfsb.applications.interfaces import Done, Refused, Result, RunResults, Value
from pfsb.frontends.stream.reply_queue import ROWS_AT_ONCE

Form = Callable[[Result], bytes | Iterator[bytes]]
"""Function that turns the result of one command into the bytes of its reply, or into an iterator of the parts of a
large reply. The `RespReplyQueue` calls it when it writes the reply, for a large one perhaps twice."""

OK: Final = b"+OK\r\n"
_WORDS_OF_REDIS: Final = {"BADREQUEST": "ERR", "UNKNOWN": "ERR", "BADTOKEN": "WRONGPASS", "DENIED": "NOPERM"}


def error(refused: Refused) -> bytes:
    """The reply to a refused command: `-CODE fate=... text`. CODE is pfsb's code of the refusal, or that of Redis
    for refusals that Redis has, too."""
    code = _WORDS_OF_REDIS.get(refused.code, refused.code)
    return _error_line(f"{code} fate={refused.fate} {refused.text}")


def protocol_error(text: str) -> bytes:
    """The last reply on a connection, after bytes that are no command."""
    return _error_line(f"ERR Protocol error: {text}; this connection ends here")


def simple(text: str) -> bytes:
    return b"+%s\r\n" % _one_line(text)


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def bulk_text(text: str) -> bytes:
    return bulk(text.encode())


def array(items: Sequence[bytes]) -> bytes:
    return b"*%d\r\n%s" % (len(items), b"".join(items))


def constant(data: bytes) -> Form:
    """Make the form of a reply that is the bytes `data`, whatever the result of the command is."""
    return lambda _: data


def ok(result: Result) -> bytes:
    return error(result) if isinstance(result, Refused) else OK


def integer_field(name: str) -> Form:
    """Make the form of a reply that is a number: the field `name` of the command's result."""

    def form(result: Result) -> bytes:
        return error(result) if isinstance(result, Refused) else integer(int(_field(result, name)))

    return form


INDEX: Final = integer_field("index")
"""The form for SAY: the number of the line in the chat."""
VALUE: Final = integer_field("value")
"""The form for INCR: the new value."""
DELETED: Final = integer_field("deleted")
"""The form for DEL: the number of keys that were removed."""


def render_run(forms: Sequence[Form], results: RunResults) -> bytes:
    """The bytes of the replies to commands that were executed together: the same bytes that each of `forms` makes of
    its result. If all commands have the same form, as several SETs have, the replies are made in one step."""
    if {*forms} == _ONLY_OK:
        return OK * len(results)
    columns = dict(results.columns)
    if {*forms} == _ONLY_INDEX and "index" in columns:
        return b":%d\r\n" * len(results) % tuple(columns["index"])
    return b"".join([_at_once(form(result)) for form, result in zip(forms, results, strict=True)])


def _at_once(data: bytes | Iterator[bytes]) -> bytes:
    return data if isinstance(data, bytes) else b"".join(data)


_ONLY_OK: Final = {ok}
_ONLY_INDEX: Final = {INDEX}


def length(result: Result) -> bytes:
    """The form for STRLEN and APPEND: the length of the value in bytes; 0 if the key does not exist."""
    if isinstance(result, Done):
        return integer(len(data_of(_field(result, "value"))))
    return integer(0) if result.code == "NOTFOUND" else error(result)


def set_if_absent(done: bytes, otherwise: bytes) -> Form:
    """Make the form for SET NX and SETNX.

    The reply is `done` if a CAS from nil has set the key, `otherwise` if the key existed.
    """

    def form(result: Result) -> bytes:
        if isinstance(result, Done):
            return done
        return otherwise if result.code == "CONFLICT" else error(result)

    return form


def how_many_of(keys: Sequence[bytes]) -> Form:
    """Make the form for EXISTS: the reply is how many of `keys` are in the result's rows.

    A key that is named twice counts twice.
    """

    def form(result: Result) -> bytes:
        if isinstance(result, Refused):
            return error(result)
        there = {data_of(row[0][1]) for row in result.rows}
        return integer(sum(key in there for key in keys))

    return form


def keys(result: Result) -> bytes | Iterator[bytes]:
    """The form for KEYS: all keys of the result; an error if more keys match than the result has, since a reply of
    Redis cannot say that keys are left out."""
    if isinstance(result, Refused):
        return error(result)
    if _next(result) is not None:
        text = f"there are more than {len(result.rows)} such keys; SCAN lists any number of them"
        return error(Refused("TOOLARGE", text))
    return _whole_or_parts(len(result.rows), _bulks(result))


def page_of_keys(cursor_to: Callable[[bytes], int]) -> Form:
    """Make the form for SCAN. Its reply has a cursor, and the keys of one page.

    After the last page the cursor is 0. Otherwise the form calls `cursor_to` with the first key of the next page, and
    the number that `cursor_to` returns is the cursor.
    """

    def form(result: Result) -> bytes | Iterator[bytes]:
        if isinstance(result, Refused):
            return error(result)
        following = _next(result)
        cursor = bulk(b"0" if following is None else b"%d" % cursor_to(following))
        return _whole_or_parts(len(result.rows), _bulks(result), b"*2\r\n" + cursor)

    return form


class Dialect:
    """Makes the replies that differ between RESP 2 and RESP 3, for one of the two versions."""

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol
        self.nil = b"_\r\n" if protocol == 3 else b"$-1\r\n"

    def value(self, result: Result) -> bytes:
        """The form for GET: the value, or nil if the key does not exist."""
        if isinstance(result, Done):
            return bulk(data_of(_field(result, "value")))
        return self.nil if result.code == "NOTFOUND" else error(result)

    def values_of(self, keys: Sequence[bytes]) -> Form:
        """Make the form for MGET: the reply is a value or nil for each key, in the order of `keys`."""

        def form(result: Result) -> bytes | Iterator[bytes]:
            if isinstance(result, Refused):
                return error(result)
            values = {data_of(row[0][1]): data_of(row[1][1]) for row in result.rows}
            return _whole_or_parts(len(keys), (bulk(values[key]) if key in values else self.nil for key in keys))

        return form

    def mapping(self, pairs: Iterable[tuple[str, bytes]]) -> bytes:
        """A map from names to values; in RESP 2 an array in which names and values alternate."""
        flat = [part for name, value in pairs for part in (bulk_text(name), value)]
        return b"%%%d\r\n%s" % (len(flat) // 2, b"".join(flat)) if self.protocol == 3 else array(flat)

    def collection(self, items: Sequence[bytes]) -> bytes:
        """A set of these encoded items; in RESP 2 an array."""
        return b"~%d\r\n%s" % (len(items), b"".join(items)) if self.protocol == 3 else array(items)

    def text(self, text: str) -> bytes:
        """A text for people, with its line ends, as RESP 3 marks such texts; in RESP 2 a bulk string."""
        return bulk_text(text) if self.protocol == 2 else b"=" + bulk_text(f"txt:{text}")[1:]


def _bulks(result: Done) -> Iterator[bytes]:
    return (bulk(data_of(row[0][1])) for row in result.rows)


def _whole_or_parts(count: int, items: Iterator[bytes], before: bytes = b"") -> bytes | Iterator[bytes]:
    """The bytes of an array of `count` items, with `before` in front; an iterator of parts if the array is long."""
    head = b"%s*%d\r\n" % (before, count)
    if count > ROWS_AT_ONCE:
        return _parts(head, items)
    return head + b"".join(items)


def _parts(head: bytes, items: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from items


def _field(result: Done, wanted: str) -> Value:
    for name, value in result.fields:
        if name == wanted:
            return value
    raise LookupError(f"the answer has no field {wanted}")


def _next(result: Done) -> bytes | None:
    return next((data_of(value) for name, value in result.fields if name == "next"), None)


def data_of(value: Value) -> bytes:
    """The bytes of a value of a result: those that a client has sent; for a value that an application has made as text,
    its UTF-8."""
    return value if isinstance(value, bytes) else str(value).encode()


def _error_line(text: str) -> bytes:
    return b"-%s\r\n" % _one_line(text)


def _one_line(text: str) -> bytes:
    """Replaces line ends by spaces: `text` may quote the client's input, and this kind of reply ends at a line end."""
    return text.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace")
