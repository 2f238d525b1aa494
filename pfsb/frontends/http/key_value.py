"""The resources of the application kv: /v1/kv and /v1/kv/{key}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pfsb.applications.arguments import Quoted, quoted
from pfsb.applications.interfaces import BadRequest, Done
from pfsb.frontends.http.answers import Content, NotModified, RawValue, done_content
from pfsb.frontends.http.arguments import Body, prefers_raw, shown
from pfsb.frontends.http.conditions import Conditions, tag_of
from pfsb.frontends.http.request import PfsbRequest


def get_key(request: PfsbRequest, key: Quoted) -> None:
    """Answer with the value of a key: as JSON, or as the bare bytes if the client would rather have these (Accept).

    With `at` the value is that of an earlier revision, and no read level can be named.
    """
    at = request.query.take_whole("at")
    level = None if at is not None else request.query.take_read_level()
    request.query.refuse_more()
    conditions = Conditions.parse(request.requestHeaders)
    is_raw = prefers_raw(request.requestHeaders)

    def shape(done: Done) -> Content:
        tag = tag_of(int(dict(done.fields)["revision"]), is_raw)
        request.setHeader("ETag", tag)
        if refused := conditions.check_answer(tag):
            return refused
        if conditions.is_fresh(tag):
            return NotModified()
        value = dict(done.fields)["value"]
        if is_raw and isinstance(value, bytes):
            return RawValue(value)
        return {"key": shown(key), **done_content(done)}

    request.setHeader("Vary", "Accept")
    command = request.check("GET", key)
    if at is not None:
        request.ask_past(command, at, shape)
    elif level is not None:
        request.ask(command, level, shape)


def put_key(request: PfsbRequest, key: Quoted) -> None:
    """Set a key to the value in the body: a member of a JSON object, or all of the bytes."""
    request.query.refuse_more()
    value = request.raw_body()
    if value is None:
        body = request.body()
        value = body.data("value")
        body.refuse_more()
    _change_key(request, key, "PUT", key, value)


def delete_key(request: PfsbRequest, key: Quoted) -> None:
    request.query.refuse_more()
    request.refuse_body()
    _change_key(request, key, "DEL", key)


def _change_key(request: PfsbRequest, key: Quoted, *words: str) -> None:
    """Order the command `words`, which changes `key`. If the request has conditions (If-Match, If-None-Match), the
    command runs only if they hold when it is executed."""
    revision = Conditions.parse(request.requestHeaders).revision_needed()
    request.change(request.check(*(words if revision is None else ("IF", key, revision, *words))))


def patch_key(request: PfsbRequest, key: Quoted) -> None:
    """Change a key's value by the operation that the body names: INCR, APPEND, CAS or PUTHASH. If the body is just
    bytes, the query names the operation that takes them: APPEND or PUTHASH.

    The new value depends on the old one. PUTHASH makes it a hash of the old value and the value in the body.
    """
    data = request.raw_body()
    if data is not None:
        operation = request.query.take("op") or ""
        request.query.refuse_more()
        if operation not in _OF_BYTES:
            raise BadRequest(f"?op= says what to do with bytes, {' or '.join(_OF_BYTES)}; not {quoted(operation)}")
        _change_key(request, key, _OF_BYTES[operation], key, data)
        return
    request.query.refuse_more()
    body = request.body()
    operation = body.text("op")
    if operation not in _OPERATIONS:
        raise BadRequest(f'"op" is one of {", ".join(_OPERATIONS)}, not {quoted(operation)}')
    verb, arguments = _OPERATIONS[operation]
    words = arguments(body)
    body.refuse_more()
    _change_key(request, key, verb, key, *words)


def _old_and_new(body: Body) -> list[str]:
    old = body.data_or_null("old")
    return ["nil" if old is None else old, body.data("new")]


_OPERATIONS: Final[dict[str, tuple[str, Callable[[Body], list[str]]]]] = {
    "incr": ("INCR", lambda body: [str(body.integer("by", 1))]),
    "append": ("APPEND", lambda body: [body.data("text")]),
    "cas": ("CAS", _old_and_new),
    "puthash": ("PUTHASH", lambda body: [body.data("value")]),
}

_OF_BYTES: Final = {"append": "APPEND", "puthash": "PUTHASH"}
"""Operation of a request whose body is just bytes -> its verb, which takes the key and these bytes."""


def get_many(request: PfsbRequest) -> None:
    """Read several keys: those that the query names, or a range of keys."""
    query = request.query
    level = query.take_read_level()
    keys = query.take_all("key")
    if keys:
        query.refuse_more()
        request.ask(request.check("MGET", *keys), level)
        return
    values = query.take("values") or "yes"
    if values not in ("yes", "no"):
        raise BadRequest(f"values= is yes or no, not {quoted(values)}")
    bounds = query.take_data("from") or Quoted(), query.take_data("to") or Quoted()
    limit = query.options("limit")
    query.refuse_more()
    request.ask(request.check("RANGE" if values == "yes" else "KEYS", *bounds, *limit), level)


def put_many(request: PfsbRequest) -> None:
    """Write several keys: all that the body lists, or none of them."""
    request.query.refuse_more()
    body = request.body()
    entries = body.entries("put")
    body.refuse_more()
    request.change(request.check("MPUT", *entries))
