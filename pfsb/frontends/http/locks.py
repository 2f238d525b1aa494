"""The resources of the application lock, /v1/locks and /v1/locks/{name}, and /v1/session, to which locks belong."""

from __future__ import annotations

from pfsb.applications.arguments import Quoted
from pfsb.frontends.http.request import PfsbRequest
from pfsb.frontends.http.sessions import NamedSession


def get_locks(request: PfsbRequest) -> None:
    level = request.query.take_read_level()
    limit = request.query.options("limit")
    request.query.refuse_more()
    request.ask(request.check("LOCKS", *limit), level)


def take_lock(request: PfsbRequest, name: Quoted) -> None:
    """Take a lock. If the body has no `wait`, a lock that is held is refused at once."""
    request.query.refuse_more()
    body = request.body()
    wait_seconds = body.number("wait")
    body.refuse_more()
    if wait_seconds is None:
        command = request.check("TRYLOCK", name)
    else:
        request.waits_for_lock = True
        command = request.check("LOCK", name, f"wait={wait_seconds:.6f}")
    request.change_in_session(command)


def release_lock(request: PfsbRequest, name: Quoted) -> None:
    token = request.query.options("token")
    request.query.refuse_more()
    request.refuse_body()
    request.change_in_session(request.check("UNLOCK", name, *token))


def open_session(request: PfsbRequest) -> None:
    """Open the client's session (HELLO), and answer with the highest command number that has been used in it."""
    request.query.refuse_more()
    request.refuse_body()

    def tell(session: NamedSession) -> None:
        request.reply(
            {
                "client": session.client_id,
                "epoch": session.epoch,
                "last": session.highest,
                "resumed": session.how_opened() != "new",
            }
        )

    request.in_session(tell)


def close_session(request: PfsbRequest) -> None:
    """Close the client's session (BYE), which frees its locks."""
    request.query.refuse_more()
    request.refuse_body()
    request.in_session(lambda session: session.close(request.answer_with(lambda _: {"client": session.client_id})))
