"""ServerQueries: the requests about the server that the client is connected to, such as STATUS and FAULT."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pfsb.applications.interfaces import Answer, BadRequest, CommandDescription, Done, Word
from pfsb.frontends.line import help as help_pages
from pfsb.frontends.line.arguments import refuse_more, whole, without_arguments
from pfsb.frontends.line.fault_command import apply_fault
from pfsb.frontends.line.grammar import Request, split_options

if TYPE_CHECKING:
    from pfsb.server import Server

Handler = Callable[[Request, Answer], None]
"""Function that handles a request about the server: it gives the result to the call-back `Answer`, once, at any time,
or raises `BadRequest`."""


class ServerQueries:
    """Handles the requests of one client about this server.

    The caller hands over a request when all earlier requests of the client have their replies, so that the answer shows
    the effects of those.
    """

    def __init__(self, server: Server, verbs: Mapping[str, CommandDescription]) -> None:
        self._server = server
        self._verbs = verbs

    @property
    def handlers(self) -> dict[str, Handler]:
        """Verb -> the function that handles its requests. DIGEST is not among them, since it has a deadline."""
        return {
            "PING": self._ping,
            "STATUS": self._status,
            "SERVERS": self._servers,
            "HELP": self._help,
            "FAULT": self._fault,
        }

    def _ping(self, request: Request, answer: Answer) -> None:
        without_arguments(request)
        answer(Done())

    def _status(self, request: Request, answer: Answer) -> None:
        without_arguments(request)
        answer(Done(rows=((("", Word(json.dumps(self._server.status()))),),)))

    def digest(self, until: float, request: Request, answer: Answer) -> None:
        """Answers DIGEST, at the time `until` at the latest (`Server.deadline`).

        The time counts from the arrival of the request: of many that wait for each other, the last one must not wait
        for the times of all.
        """
        words, options = split_options(request.args)
        seq = whole(options.pop("seq"), "seq") if "seq" in options else None
        refuse_more(words, options, "DIGEST [seq=S], as in: DIGEST seq=812")
        self._server.digest(seq, answer, until)

    def _servers(self, request: Request, answer: Answer) -> None:
        without_arguments(request)
        rows = tuple(self._server.servers())
        answer(Done((("count", len(rows)),), rows))

    def _help(self, request: Request, answer: Answer) -> None:
        if not request.args:
            answer(help_pages.all_commands(self._verbs.values()))
            return
        verb = " ".join(request.args).upper()  # SETTINGS SET has two words
        description = self._verbs.get(verb)
        if description is None:
            raise help_pages.unknown(verb, self._verbs)
        answer(help_pages.one_command(description))

    def _fault(self, request: Request, answer: Answer) -> None:
        if not self._server.config.faults:
            raise BadRequest('FAULT needs "faults: true" in the configuration', code="DENIED")
        apply_fault(self._server, request.args)
        answer(Done())
