"""The resources of the application kv: /v1/kv and /v1/kv/{key}."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pfsb.applications.arguments import Quoted, quoted
from pfsb.applications.interfaces import BadRequest, Done
from pfsb.frontends.http.answers import done_content
from pfsb.frontends.http.arguments import Body
from pfsb.frontends.http.request import PfsbRequest


def get_key(request: PfsbRequest, key: str) -> None:
    level = request.query.take_read_level()
    request.query.refuse_more()

    def shape(done: Done) -> Mapping[str, Any]:
        return {"key": key, **done_content(done)}

    request.ask(request.check("GET", Quoted(key)), level, shape)


def put_key(request: PfsbRequest, key: str) -> None:
    request.query.refuse_more()
    body = request.body()
    value = body.text("value")
    body.refuse_more()
    request.change(request.check("PUT", Quoted(key), Quoted(value)))


def delete_key(request: PfsbRequest, key: str) -> None:
    request.query.refuse_more()
    request.refuse_body()
    request.change(request.check("DEL", Quoted(key)))


def patch_key(request: PfsbRequest, key: str) -> None:
    """Change a key's value by the operation that the body names: INCR, APPEND, CAS or PUTHASH.

    The new value depends on the old one. PUTHASH makes it a hash of the old value and the value in the body.
    """
    request.query.refuse_more()
    body = request.body()
    operation = body.text("op")
    if operation not in _OPERATIONS:
        raise BadRequest(f'"op" is one of {", ".join(_OPERATIONS)}, not {quoted(operation)}')
    verb, arguments = _OPERATIONS[operation]
    words = arguments(body)
    body.refuse_more()
    request.change(request.check(verb, Quoted(key), *words))


def _old_and_new(body: Body) -> list[str]:
    old = body.text_or_null("old")
    return ["nil" if old is None else Quoted(old), Quoted(body.text("new"))]


_OPERATIONS: Final[dict[str, tuple[str, Callable[[Body], list[str]]]]] = {
    "incr": ("INCR", lambda body: [str(body.integer("by", 1))]),
    "append": ("APPEND", lambda body: [Quoted(body.text("text"))]),
    "cas": ("CAS", _old_and_new),
    "puthash": ("PUTHASH", lambda body: [Quoted(body.text("value"))]),
}


def get_many(request: PfsbRequest) -> None:
    """Read several keys: those that the query names, or a range of keys."""
    query = request.query
    level = query.take_read_level()
    keys = query.take_all("key")
    if keys:
        query.refuse_more()
        request.ask(request.check("MGET", *map(Quoted, keys)), level)
        return
    values = query.take("values") or "yes"
    if values not in ("yes", "no"):
        raise BadRequest(f"values= is yes or no, not {quoted(values)}")
    bounds = Quoted(query.take("from") or ""), Quoted(query.take("to") or "")
    limit = query.options("limit")
    query.refuse_more()
    request.ask(request.check("RANGE" if values == "yes" else "KEYS", *bounds, *limit), level)


def put_many(request: PfsbRequest) -> None:
    """Write several keys: all that the body lists, or none of them."""
    request.query.refuse_more()
    body = request.body()
    entries = body.texts("put")
    body.refuse_more()
    request.change(request.check("MPUT", *(Quoted(word) for entry in entries.items() for word in entry)))
