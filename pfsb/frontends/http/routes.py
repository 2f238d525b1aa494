"""Which resources there are, and which methods they take: the table of contents of the HTTP door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pfsb.frontends.http import chat, kv, locks, look
from pfsb.frontends.http.answers import NotAllowed
from pfsb.interfaces import BadRequest

Handler = Callable[..., None]
"""Takes the exchange, and the words that stand for the names in braces."""

ROUTES: Final[Mapping[str, Mapping[str, Handler]]] = {
    "/": {"GET": look.get_page},
    "/v1/kv": {"GET": kv.get_many, "POST": kv.put_many},
    "/v1/kv/{key}": {"GET": kv.get_key, "PUT": kv.put_key, "DELETE": kv.delete_key, "PATCH": kv.patch_key},
    "/v1/locks": {"GET": locks.get_locks},
    "/v1/locks/{name}": {"POST": locks.take_lock, "DELETE": locks.release_lock},
    "/v1/session": {"POST": locks.open_session, "DELETE": locks.close_session},
    "/v1/chat": {"GET": chat.get_lines, "POST": chat.say},
    "/v1/events": {"GET": chat.follow},
    "/v1/status": {"GET": look.get_status},
    "/v1/servers": {"GET": look.get_servers},
    "/v1/digest": {"GET": look.get_digest},
    "/v1/faults": {"POST": look.set_fault},
    "/v1/openapi.json": {"GET": look.get_description},
    "/healthz": {"GET": look.get_health},
    "/readyz": {"GET": look.get_readiness},
    "/metrics": {"GET": look.get_metrics},
}

_WITHOUT_END: Final = frozenset({chat.follow})
"""What has no end has no head either."""


def _patterns() -> dict[tuple[Any, ...], Mapping[str, Handler]]:
    """By the parts of the path; None stands for any word."""
    return {
        tuple(None if part.startswith("{") else part for part in path[1:].split("/")): methods
        for path, methods in ROUTES.items()
    }


_PATTERNS: Final = _patterns()


def find_handler(method: bytes, segments: list[str]) -> tuple[Handler, list[str]]:
    """The handler, and the words for it. Raises `BadRequest`: UNKNOWN or METHOD."""
    exact, words = tuple(segments), []
    methods = _PATTERNS.get(exact)
    if methods is None and segments:
        methods, words = _PATTERNS.get((*segments[:-1], None)), segments[-1:]
    if methods is None:
        raise BadRequest("there is no such resource; / lists them, and a / within a name is written %2F", "UNKNOWN")
    name = method.decode("latin-1")
    handler = methods.get("GET" if name == "HEAD" else name)
    if handler is None or (name == "HEAD" and handler in _WITHOUT_END):
        raise NotAllowed(allowed(methods))
    return handler, words


def allowed(methods: Mapping[str, Handler]) -> str:
    """For the header `Allow`."""
    heads = ["HEAD"] if "GET" in methods and methods["GET"] not in _WITHOUT_END else []
    return ", ".join([*methods, *heads])
