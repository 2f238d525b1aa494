"""ServerQueries: the requests about the server that the client is connected to, such as STATUS and FAULT."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pfsb.applications.interfaces import Answer, BadRequest, CommandDescription, Done, Word
from pfsb.frontends.line import help as help_pages
from pfsb.frontends.line.arguments import refuse_more, server_id, whole, without_arguments
from pfsb.frontends.line.fault_command import apply_fault
from pfsb.frontends.line.grammar import Request, split_options
from pfsb.support.limits import SERVER_ID_MAX, SNAPSHOT_SECONDS_MAX

if TYPE_CHECKING:
    from pfsb.server import Server

Handler = Callable[[Request, Answer], None]
"""Function that handles a request about the server: it gives the result to the call-back `Answer`, once, at any time,
or raises `BadRequest`."""


def _member_id(text: str) -> int:
    return server_id(text, f"the id of a server is a whole number from 0 to {SERVER_ID_MAX}, not {text[:40]!r}")


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
        """Verb -> the function that handles its requests. DIGEST is not among them, since its time begins before it is
        handled."""
        return {
            "PING": self._ping,
            "STATUS": self._status,
            "SERVERS": self._servers,
            "HELP": self._help,
            "FAULT": self._fault,
            "SNAPSHOT": self._snapshot,
            "LEAD": self._lead,
        }

    def _ping(self, request: Request, answer: Answer) -> None:
        without_arguments(request)
        answer(Done())

    def _status(self, request: Request, answer: Answer) -> None:
        without_arguments(request)
        answer(Done(rows=((("", Word(json.dumps(self._server.status()))),),)))

    def digest(self, until: float, request: Request, answer: Answer) -> None:
        """Answers DIGEST, the question for the digest of the history up to a slot, when this server has executed that
        slot.

        The question is refused if the slot is not executed at the clock time `until` (`Server.deadline`). That is a
        fixed time after the request has arrived, not after it comes to the head of its queue: otherwise the last of
        many such requests of one client would wait as long as all of them together.
        """
        words, options = split_options(request.args)
        seq = whole(options.pop("seq"), "seq") if "seq" in options else None
        refuse_more(words, options, "DIGEST [seq=S], as in: DIGEST seq=812")
        self._server.digest(seq, answer, until)

    def _snapshot(self, request: Request, answer: Answer) -> None:
        words, options = split_options(request.args)
        limits = self._server.config.limits
        seconds = float(whole(options.pop("wait"), "wait")) if "wait" in options else limits.request_seconds
        refuse_more(words, options, "SNAPSHOT [wait=SECONDS], as in: SNAPSHOT wait=60")
        if not 1 <= seconds <= SNAPSHOT_SECONDS_MAX:
            raise BadRequest(f"wait is in seconds, from 1 to {SNAPSHOT_SECONDS_MAX}, as in: SNAPSHOT wait=60")
        self._server.snapshots.answer(seconds, answer)

    def _lead(self, request: Request, answer: Answer) -> None:
        words, options = split_options(request.args)
        usage = "LEAD id, as in: LEAD 2"
        if not words:
            raise BadRequest(f"LEAD needs the id of a server: {usage}")
        refuse_more(words[1:], options, usage)
        wrong = f"a server has a number from 0 to {SERVER_ID_MAX} (SERVERS shows them), as in: LEAD 2"
        self._server.hand_overs.answer(server_id(words[0], wrong), answer)

    def _servers(self, request: Request, answer: Answer) -> None:
        usage = "SERVERS [ADD id address [LEARNER] | REMOVE id | MOVE id address | REPLACE id new address]"
        match [word.upper() if at == 0 else word for at, word in enumerate(request.args)]:
            case []:
                rows = tuple(self._server.servers())
                fields = (("count", len(rows)), ("epoch", self._server.epoch), *self._server.replacing())
                answer(Done(fields, rows))
            case ["ADD", text, address]:
                self._server.changes.add(_member_id(text), address, answer)
            case ["ADD", text, address, word] if word.upper() == "LEARNER":
                self._server.changes.add(_member_id(text), address, answer, permanent=True)
            case ["MOVE", text, address]:
                self._server.changes.move(_member_id(text), address, answer)
            case ["REPLACE", former, text, address]:
                self._server.changes.replace(_member_id(former), _member_id(text), address, answer)
            case ["REMOVE", text]:
                self._server.changes.remove(_member_id(text), answer)
            case _:
                raise BadRequest(f"it is {usage}, as in: SERVERS ADD 4 127.0.0.1:7404")

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
