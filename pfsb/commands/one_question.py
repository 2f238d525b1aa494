"""Sends one line to one server, on a connection of its own, behind a token if the client has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.connection import LineConnection
from pfsb.client.core.replies import Reply
from pfsb.client.core.showing import is_refused_token
from pfsb.client.drivers.endpoints import client_endpoint


def ask(reactor: Any, address: ServerAddress, line: str, seconds: float) -> Deferred[Reply]:
    """Connect to a server and send it one line; the Deferred fires with the reply, or with that to AUTH if the server
    refuses the token of the address.

    Fails if no server listens, the connection is lost, or there is no reply within `seconds`.
    """
    question = _Question(line, address.token)

    def ended(result: Reply | Failure) -> Reply | Failure:
        question.hang_up()
        return result

    endpoint = client_endpoint(reactor, address)
    asked: Deferred[Any] = endpoint.connect(Factory.forProtocol(lambda: question))
    asked.addCallback(lambda _connected: question.answered)
    return asked.addTimeout(seconds, reactor, _late).addBoth(ended)


def _late(_cancelled: object, seconds: float) -> NoReturn:
    """Called when the time is over, in place of Twisted's error, whose text says nothing to people."""
    raise TookTooLong(f"no answer for {seconds:.3g} s")


@define(eq=False, slots=False)
class _Question(Protocol):
    _text: str
    _token: str | None = field(repr=False)
    answered: Deferred[Reply] = field(init=False, factory=Deferred)
    _connection: LineConnection = field(init=False)

    def connectionMade(self) -> None:
        self._connection = LineConnection(lambda _event: None, lambda why: self._fail(Failure(ConnectionDone(why))))
        if self._token is None:
            self._request(self._text, self._heard)
        else:
            self._request(f"AUTH {self._token}", self._heard_auth)

    def _request(self, line: str, heard: Callable[[Reply], None]) -> None:
        assert self.transport is not None
        self.transport.write(self._connection.request(None, line, heard))

    def dataReceived(self, data: bytes) -> None:
        self._connection.receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fail(reason)

    def hang_up(self) -> None:
        if self.transport is not None:
            self._connection.close()
            self.transport.loseConnection()

    def _heard_auth(self, reply: Reply) -> None:
        # The line is sent now, and not together with AUTH: a request that comes alone is answered also by a server that
        # has more to do than it can.
        if is_refused_token(reply):
            self._heard(reply)
        else:
            self._request(self._text, self._heard)

    def _heard(self, reply: Reply) -> None:
        if not self.answered.called:
            self.answered.callback(reply)

    def _fail(self, reason: Failure) -> None:
        if not self.answered.called:
            self.answered.errback(reason)
