"""The table of all resources: path, methods and handlers, and of which command each has the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.web.http_headers import Headers

from pfsb.applications.arguments import Quoted
from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.http import chat, commands, key_value, locks, server_info, settings, snapshots
from pfsb.frontends.http.answers import NotAllowed

Handler = Callable[..., None]
"""Function that handles a request. It takes the request, and the texts that stand in the path for names in braces."""

ANY: Final = "*"
"""Stands in `COMMANDS` for a command of any application: a client without the right to read can give none."""
WITH_ARGUMENTS: Final = " ..."
"""Stands in `COMMANDS` behind a command that needs another right if it has arguments
(`CommandDescription.right_with_arguments`)."""

ROUTES: Final[Mapping[str, Mapping[str, Handler]]] = {
    "/": {"GET": server_info.get_page},
    "/v1/kv": {"GET": key_value.get_many, "POST": key_value.put_many},
    "/v1/kv/{key}": {
        "GET": key_value.get_key,
        "PUT": key_value.put_key,
        "DELETE": key_value.delete_key,
        "PATCH": key_value.patch_key,
    },
    "/v1/locks": {"GET": locks.get_locks},
    "/v1/locks/{name}": {"POST": locks.take_lock, "DELETE": locks.release_lock},
    "/v1/session": {"POST": locks.open_session, "DELETE": locks.close_session},
    "/v1/chat": {"GET": chat.get_lines, "POST": chat.say},
    "/v1/events": {"GET": chat.follow},
    "/v1/commands": {"POST": commands.run_command},
    "/v1/status": {"GET": server_info.get_status},
    "/v1/servers": {"GET": server_info.get_servers, "POST": server_info.add_server},
    "/v1/servers/{id}": {"PATCH": server_info.move_server, "DELETE": server_info.remove_server},
    "/v1/settings": {"GET": settings.get_settings, "PATCH": settings.change_settings},
    "/v1/digest": {"GET": server_info.get_digest},
    "/v1/snapshot": {"POST": snapshots.take_snapshot},
    "/v1/backup": {"POST": snapshots.send_backup},
    "/v1/leader": {"POST": server_info.change_leader},
    "/v1/faults": {"POST": server_info.set_fault},
    "/v1/openapi.json": {"GET": server_info.get_description},
    "/healthz": {"GET": server_info.get_health},
    "/readyz": {"GET": server_info.get_readiness},
    "/metrics": {"GET": server_info.get_metrics},
}

COMMANDS: Final[Mapping[Handler, str]] = {
    server_info.get_page: "HELP",
    key_value.get_many: "RANGE",
    key_value.put_many: "MPUT",
    key_value.get_key: "GET",
    key_value.put_key: "PUT",
    key_value.delete_key: "DEL",
    key_value.patch_key: "PUT",
    locks.get_locks: "LOCKS",
    locks.take_lock: "LOCK",
    locks.release_lock: "UNLOCK",
    locks.open_session: "HELLO",
    locks.close_session: "HELLO",
    chat.get_lines: "LOG",
    chat.say: "SAY",
    chat.follow: "LISTEN",
    commands.run_command: ANY,
    server_info.get_status: "STATUS",
    server_info.get_servers: "SERVERS",
    server_info.add_server: f"SERVERS{WITH_ARGUMENTS}",
    server_info.move_server: f"SERVERS{WITH_ARGUMENTS}",
    server_info.remove_server: f"SERVERS{WITH_ARGUMENTS}",
    settings.get_settings: "SETTINGS",
    settings.change_settings: "SETTINGS SET",
    server_info.get_digest: "DIGEST",
    snapshots.take_snapshot: "SNAPSHOT",
    snapshots.send_backup: "SNAPSHOT",
    server_info.change_leader: "LEAD",
    server_info.set_fault: "FAULT",
    server_info.get_description: "HELP",
    server_info.get_health: "PING",
    server_info.get_readiness: "PING",
    server_info.get_metrics: "STATUS",
}
"""Handler -> the command of the line protocol whose right a client needs for it (`CommandDescription.right`). Handlers
that carry out other commands of applications need the rights of these as well (`PfsbRequest.check`)."""

_CONDITIONAL: Final = frozenset({key_value.get_key, key_value.put_key, key_value.delete_key, key_value.patch_key})
"""Handlers that evaluate If-Match and If-None-Match. The others have no ETag; they would ignore what a client relies
on, so these headers are refused."""

_WITHOUT_END: Final = frozenset({chat.follow})
"""Handlers whose answer is a stream without an end. HEAD is not allowed for them: it would never be answered."""


def _patterns() -> dict[tuple[Any, ...], Mapping[str, Handler]]:
    """Parts of a path -> method -> handler, for all resources. Among the parts, None stands for a name in braces."""
    return {
        tuple(None if part.startswith("{") else part for part in path[1:].split("/")): methods
        for path, methods in ROUTES.items()
    }


_PATTERNS: Final = _patterns()


def find_handler(method: bytes, segments: list[Quoted]) -> tuple[Handler, list[Quoted]]:
    """The handler for a method and the parts of a path, and the parts that the handler takes as arguments.

    Raises `BadRequest`, UNKNOWN or METHOD, if there is none.
    """
    exact, words = tuple(segments), list[Quoted]()
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


def refuse_conditions(handler: Handler, headers: Headers) -> None:
    """Raises `BadRequest` if a request has If-Match or If-None-Match, and its handler does not evaluate them."""
    for name in ("If-Match", "If-None-Match"):
        if handler not in _CONDITIONAL and headers.hasHeader(name):
            raise BadRequest(f"this resource has no ETag, so that {name} cannot be evaluated; /v1/kv/{{key}} has one")


def allowed(methods: Mapping[str, Handler]) -> str:
    """The value of the header `Allow` for a resource with these methods."""
    heads = ["HEAD"] if "GET" in methods and methods["GET"] not in _WITHOUT_END else []
    return ", ".join([*methods, *heads])
