"""The resource of the settings that all servers share: /v1/settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pfsb.applications.arguments import Quoted
from pfsb.applications.interfaces import Done
from pfsb.frontends.http.answers import object_of
from pfsb.frontends.http.request import PfsbRequest


def get_settings(request: PfsbRequest) -> None:
    level = request.query.take_read_level()
    request.query.refuse_more()
    request.ask(request.check("SETTINGS"), level, _by_name)


def change_settings(request: PfsbRequest) -> None:
    """Change the settings that the body names: all of them, or none."""
    request.query.refuse_more()
    body = request.body()
    values = body.texts_or_integers("set")
    body.refuse_more()
    words = [Quoted(f"{name}={value}") for name, value in values.items()]
    request.change(request.check("SETTINGS SET", *words))


def _by_name(done: Done) -> Mapping[str, Any]:
    rows = map(object_of, done.rows)
    return {row["name"]: row["value"] for row in rows}
