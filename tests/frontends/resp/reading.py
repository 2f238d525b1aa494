"""Reads replies of the Redis protocol as values of Python."""

from __future__ import annotations

from typing import Any, BinaryIO

from attrs import frozen

Reply = Any
"""A reply: `Simple`, `Error`, int, bytes, None, list, `Together` or dict."""


class Simple(bytes):
    """A reply that is a status, such as +OK."""


class Together(list[Any]):
    """A set of RESP 3, whose parts have no order, but need not be of one kind either."""


@frozen
class Error:
    text: str


def read_reply(file: BinaryIO) -> Reply:
    """The next reply. Raises `EOFError` if the file ends before, and `ValueError` for what is no reply."""
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError(f"the replies ended behind {line!r}")
    kind, text = line[:1], line[1:-2]
    match kind:
        case b"+":
            return Simple(text)
        case b"-":
            return Error(text.decode(errors="backslashreplace"))
        case b":":
            return int(text)
        case b"_":
            return None
        case b"$" | b"*" if text == b"-1":
            return None
        case b"$":
            return _bulk(file, int(text))
        case b"=":
            return _bulk(file, int(text))[4:]
        case b"*":
            return [read_reply(file) for _ in range(int(text))]
        case b"~":
            return Together([read_reply(file) for _ in range(int(text))])
        case b"%":
            return {_key(read_reply(file)): read_reply(file) for _ in range(int(text))}
    raise ValueError(f"no reply of Redis: {line!r}")


def _bulk(file: BinaryIO, length: int) -> bytes:
    data = file.read(length + 2)
    if not data.endswith(b"\r\n") or len(data) != length + 2:
        raise ValueError(f"a bulk string of {length} bytes does not end where it said: {data!r:.100}")
    return data[:-2]


def _key(reply: Reply) -> Reply:
    if not isinstance(reply, bytes):
        raise ValueError(f"{reply!r} is no name in a map")
    return reply
