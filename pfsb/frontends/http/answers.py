"""Turns answers and refusals into an HTTP status and a JSON object. See docs/http.rst."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from pfsb.applications.arguments import as_text
from pfsb.applications.interfaces import BadRequest, Done, Fields, Refused

STATUS_OF: Final = {
    "BADREQUEST": 400,
    "NOAUTH": 401,
    "BADTOKEN": 401,
    "DENIED": 403,
    "NOTFOUND": 404,
    "UNKNOWN": 404,
    "METHOD": 405,
    "CONFLICT": 409,
    "NOTHELD": 409,
    "REPLACED": 409,
    "COMPACTED": 410,
    "PRECONDITION": 412,
    "TOOLARGE": 413,
    "MEDIATYPE": 415,
    "HELD": 423,
    "TIMEOUT": 423,
    "BUSY": 429,
    "INTERNAL": 500,
    "NOSESSION": 503,
    "SHUTDOWN": 503,
    "DIVERGED": 503,
    "READONLY": 503,
    "UNAVAILABLE": 503,
}
"""Code of a refusal -> HTTP status: all codes of the line protocol, and METHOD and MEDIATYPE, which only HTTP has."""

JSON_TYPE: Final = "application/json; charset=utf-8"
RAW_TYPE: Final = "application/octet-stream"


@frozen
class RawValue:
    """A value that is the whole content of an answer, as its bytes: no JSON is made of it."""

    data: bytes


@frozen
class NotModified:
    """The content of an answer (304) to a client that already has the present content of the resource."""


CHALLENGES: Final = {
    "NOAUTH": 'Bearer realm="pfsb"',
    "BADTOKEN": 'Bearer realm="pfsb", error="invalid_token"',
}
"""Code of a refusal with status 401 -> the value of its header WWW-Authenticate (RFC 6750, section 3)."""

Content = Mapping[str, Any] | RawValue | NotModified | Refused
"""Content of an answer: a JSON object, or an object of one of the other classes here."""


class NotAllowed(BadRequest):
    """Raised when a resource exists, but does not take the request's method; `allowed` lists the methods that it
    takes."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this resource takes {allowed}", "METHOD")
        self.allowed = allowed


def status_of(refused: Refused) -> int:
    """The HTTP status of a refusal. A code that only some application knows counts as a conflict: 409."""
    return STATUS_OF.get(refused.code, 409)


def error_content(refused: Refused) -> dict[str, Any]:
    """The JSON object for a refusal: its code, fate and text. A usage at the end of the text is cut off, since it would
    show a line command."""
    return {"error": refused.code, "fate": refused.fate, "text": refused.text.partition("; usage: ")[0]}


def done_content(done: Done) -> dict[str, Any]:
    """The JSON object for a result: its fields by name. If the result has rows or a field `count`, the member `rows`
    lists the rows, each as an object."""
    content = object_of(done.fields)
    if done.rows or "count" in content:
        content["rows"] = [object_of(row) for row in done.rows]
    return content


def object_of(fields: Fields) -> dict[str, Any]:
    return {name: value if isinstance(value, int) else as_text(value) for name, value in fields}


def encoded(content: Mapping[str, Any]) -> bytes:
    """JSON on one line, in UTF-8. A byte that is not UTF-8 shows as \\udc80 to \\udcff (`text_of`)."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
    return data + b"\n"


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
