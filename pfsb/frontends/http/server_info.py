"""Resources about the server: status, health, metrics, faults, the API's description, and a page for people."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import yaml

from pfsb.applications.interfaces import BadRequest, Refused, Result
from pfsb.frontends.http.answers import JSON_TYPE, encoded, object_of
from pfsb.frontends.http.request import PfsbRequest
from pfsb.frontends.line.fault_command import apply_fault
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.support.limits import SERVER_ID_MAX, server_id_of

if TYPE_CHECKING:
    from pfsb.server import Server

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PAGE_TYPE: Final = "text/html; charset=utf-8"


DISK_TROUBLES: Final = {
    DiskTrouble.HANGS: "the disk of this server does not answer: it refuses its clients until it does",
    DiskTrouble.FULL: "the disk of this server is full: it refuses changes until there is room",
}


def get_status(request: PfsbRequest) -> None:
    request.query.refuse_more()
    request.reply(request.site.server.status())


def get_servers(request: PfsbRequest) -> None:
    request.query.refuse_more()
    rows = [object_of(row) for row in request.site.server.servers()]
    shown = [{**row, "alive": row["alive"] == "yes"} for row in rows]
    server = request.site.server
    request.reply({"count": len(rows), "epoch": server.epoch, **object_of(server.replacing()), "rows": shown})


def add_server(request: PfsbRequest) -> None:
    """Add a server to the cluster, in the place of another one if `replaces` names one, or as one that learns for good
    with `learner`; the answer comes when the change is in force."""
    request.query.refuse_more()
    body = request.body()
    server_id, address, former = body.integer("id", -1), body.text("address"), body.integer_or_none("replaces")
    permanent = body.flag("learner")
    body.refuse_more()
    changes = request.site.server.changes
    if former is None:
        changes.add(_in_range(server_id), address, request.answer_with(), permanent=permanent)
    elif permanent:
        raise BadRequest("a server that learns for good takes the place of no other: replaces or learner, not both")
    else:
        changes.replace(_in_range(former), _in_range(server_id), address, request.answer_with())


def move_server(request: PfsbRequest, server_id: str) -> None:
    """Tell all servers that one is reached at another address from now on."""
    request.query.refuse_more()
    body = request.body()
    address = body.text("address")
    body.refuse_more()
    request.site.server.changes.move(_server_id(server_id), address, request.answer_with())


def remove_server(request: PfsbRequest, server_id: str) -> None:
    """Remove a server from the cluster for good."""
    request.query.refuse_more()
    request.refuse_body()
    request.site.server.changes.remove(_server_id(server_id), request.answer_with())


def _server_id(text: str) -> int:
    found = server_id_of(text)
    return _in_range(-1 if found is None else found)


def _in_range(server_id: int) -> int:
    if not 0 <= server_id <= SERVER_ID_MAX:
        raise BadRequest(f"the id of a server is a whole number from 0 to {SERVER_ID_MAX}")
    return server_id


def get_digest(request: PfsbRequest) -> None:
    """Answer with the digest of the history up to a slot, once this server has executed the slot.

    The request is refused if that takes longer than `request_seconds`.
    """
    seq = request.query.take("seq")
    request.query.refuse_more()
    if seq is not None and not (seq.isascii() and seq.isdigit() and len(seq) <= 18):
        raise BadRequest("seq= takes a sequence number, as in ?seq=812")
    site, answer = request.site, request.answer_with()
    seconds = site.server.config.limits.request_seconds
    too_late = Refused("UNAVAILABLE", f"this server has not come to sequence number {seq} within {seconds:g} s")
    timeout = site.clock.callLater(seconds, answer, too_late)

    def answered(result: Result) -> None:
        if timeout.active():
            timeout.cancel()
        answer(result)

    site.server.digest(None if seq is None else int(seq), answered)


def change_leader(request: PfsbRequest) -> None:
    """Have this server, if it leads, hand over to the server that the body names."""
    request.query.refuse_more()
    body = request.body()
    target = body.integer("server")
    body.refuse_more()
    request.site.server.hand_overs.answer(target, request.answer_with())


def set_fault(request: PfsbRequest) -> None:
    request.query.refuse_more()
    body = request.body()
    words = body.text_list("fault")
    body.refuse_more()
    server = request.site.server
    if not server.config.faults:
        raise BadRequest('faults need "faults: true" in the configuration', "DENIED")
    apply_fault(server, tuple(words))
    request.reply({})


def get_health(request: PfsbRequest) -> None:
    request.query.refuse_more()
    request.reply({"alive": True})


def get_readiness(request: PfsbRequest) -> None:
    request.query.refuse_more()
    why_not = unready(request.site.server)
    if why_not is None:
        request.reply({"ready": True})
    else:
        request.refuse(Refused("UNAVAILABLE", why_not))


def unready(server: Server) -> str | None:
    """The reason why commands sent to this server would not be answered soon; None if they would be. A read replica
    refuses most commands for good, and is ready if it hears the others."""
    if server.local_clients.draining:
        return "this server is stopping"
    if server.why_outside is not None:
        return server.why_outside
    if server.disk_trouble is not None:
        return DISK_TROUBLES[server.disk_trouble]
    if server.no_member is not None:
        return server.no_member.text
    if server.leader() is None:
        return "this server knows no leader"
    if server.differs_from:
        others = ", ".join(map(str, server.differs_from))
        return f"this server has executed otherwise than {others}, and no majority agrees: it refuses changes"
    return server.too_few_heard


def get_metrics(request: PfsbRequest) -> None:
    request.query.refuse_more()
    request.send(request.site.metrics(), METRICS_TYPE)


def get_description(request: PfsbRequest) -> None:
    request.query.refuse_more()
    request.send(_description_json(), JSON_TYPE)


@cache
def description() -> dict[str, Any]:
    """The OpenAPI description of the HTTP port, read from openapi.yaml."""
    text = files("pfsb.frontends.http").joinpath("openapi.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader)
    return found


@cache
def _description_json() -> bytes:
    return encoded(description())


def get_page(request: PfsbRequest) -> None:
    request.query.refuse_more()
    request.setHeader("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
    request.send(_page(request.site.server).encode(), PAGE_TYPE)


_LINKS: Final = (
    ("v1/status", "what this server knows of itself"),
    ("v1/servers", "what it knows of the others"),
    ("v1/settings", "the settings that all servers share"),
    ("v1/kv", "keys and values"),
    ("v1/locks", "locks that are held"),
    ("v1/chat", "what was said"),
    ("v1/openapi.json", "what can be asked here, as OpenAPI"),
    ("readyz", "whether it is ready"),
    ("metrics", "figures for Prometheus"),
)


def _page(server: Server) -> str:
    leader = server.leader()
    leads = "leads" if leader == server.server_id else f"follows the leader {leader}"
    does = "knows no leader" if leader is None else leads
    links = "".join(f'<li><a href="/{path}">/{path}</a> &ndash; {text}</li>\n' for path, text in _LINKS)
    name = escape(f"server {server.server_id} of cluster {server.config.cluster}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>pfsb: {name}</title>
<style>body {{ font-family: sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em; line-height: 1.5 }}</style>
</head>
<body>
<h1>{name}</h1>
<p>It {does}, in view {server.view}, and has executed {server.revisions.told} commands.
pfsb is a replicated state machine server: several servers agree on one order for the commands of all their clients.</p>
<ul>
{links}</ul>
</body>
</html>
"""
