"""The resource /v1/commands: any command of any application that the server runs, with or without a resource."""

from __future__ import annotations

from pfsb.applications.interfaces import BadRequest, IEventLog
from pfsb.frontends.http.request import PfsbRequest


def run_command(request: PfsbRequest) -> None:
    """Carry out the command that the body names, or answer the question, in the terms of the line protocol.

    With `at`, the question is GET, its answer is that of an earlier revision, and no read level can be named.
    """
    at = request.query.take_whole("at")
    level = "linearizable" if at is not None else request.query.take_read_level()
    request.query.refuse_more()
    body = request.body()
    verb, words, options = body.text("command").upper(), body.words("args"), body.options("options")
    body.refuse_more()
    catalogue = request.site.server.catalogue
    application = catalogue.entry(verb).application
    if IEventLog.providedBy(application) and verb in (application.listen_verb, f"UN{application.listen_verb}"):
        raise BadRequest(f"{verb} is about a connection of the line protocol; GET /v1/events follows the chat here")
    command = request.check(verb, *words, *options)
    description = catalogue.verbs[command[0]].description
    if at is not None:
        if command[0] != "GET":
            raise BadRequest(f"at= goes with GET, and not with {verb}")
        request.ask_past(command, at)
    elif not description.changes:
        request.ask(command, level)
    elif level != "linearizable":
        raise BadRequest(f"{verb} changes something: read= goes with questions")
    elif description.waits or description.needs_session:
        request.change_in_session(command)
    else:
        request.change(command)
