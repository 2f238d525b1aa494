"""The resources of the application lock: /v1/locks and /v1/locks/{name}; and /v1/session, which locks belong to."""

from __future__ import annotations

from pfsb.applications.arguments import Quoted
from pfsb.frontends.http.request import PfsbRequest
from pfsb.frontends.http.sessions import NamedSession


def get_locks(exchange: PfsbRequest) -> None:
    level = exchange.query.take_read_level()
    limit = exchange.query.options("limit")
    exchange.query.refuse_more()
    exchange.ask(exchange.check("LOCKS", *limit), level)


def take_lock(exchange: PfsbRequest, name: str) -> None:
    """Without `wait` it is granted now or not at all."""
    exchange.query.refuse_more()
    body = exchange.body()
    wait_seconds = body.number("wait")
    body.refuse_more()
    if wait_seconds is None:
        command = exchange.check("TRYLOCK", Quoted(name))
    else:
        command = exchange.check("LOCK", Quoted(name), f"wait={wait_seconds:.6f}")
    exchange.change_in_session(command)


def release_lock(exchange: PfsbRequest, name: str) -> None:
    token = exchange.query.options("token")
    exchange.query.refuse_more()
    exchange.refuse_body()
    exchange.change_in_session(exchange.check("UNLOCK", Quoted(name), *token))


def open_session(exchange: PfsbRequest) -> None:
    """HELLO, by itself: tells how far the client's numbers have come."""
    exchange.query.refuse_more()
    exchange.refuse_body()

    def tell(session: NamedSession) -> None:
        exchange.reply(
            {
                "client": session.client_id,
                "epoch": session.epoch,
                "last": session.highest,
                "resumed": session.how_opened() != "new",
            }
        )

    exchange.in_session(tell)


def close_session(exchange: PfsbRequest) -> None:
    """BYE: its locks are free."""
    exchange.query.refuse_more()
    exchange.refuse_body()
    exchange.in_session(lambda session: session.close(exchange.answers(lambda _: {"client": session.client_id})))
