"""What the protocols of the client port have in common: a connection is read, paused and ended, in bounded memory."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.applications.interfaces import Refused
from pfsb.frontends.line.conversation import Conversation, Verbs
from pfsb.frontends.stream.admission import AdmissionControl
from pfsb.frontends.stream.reply_queue import EndOfIteration, ReplyQueue

if TYPE_CHECKING:
    from pfsb.server import Server

LEAVE_SECONDS: Final = 10.0
"""How long a client may take to read its last replies, before the connection is cut."""
LINGER_SECONDS: Final = 15.0
"""How long a client that has closed its side may wait for replies: longer than commands take (request_seconds)."""

_KEEPALIVE: Final = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""A client whose machine is gone is noticed in half a minute, and its session can expire."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class StreamProtocol(Protocol):
    """One client: cuts its requests, feeds them to its conversation, writes what comes of it.

    It stops reading while a request must be answered before others are taken (HELLO), while `session_window` requests
    are unanswered, while all connections together have too many under way, and while the client does not read what it
    is told; what has arrived by then, one read of the transport at most, waits here. A protocol says how bytes become
    requests and how it greets; the rest is here.
    """

    _replies: ReplyQueue

    def __init__(self, factory: StreamFactory) -> None:
        self._house = factory
        self._crowd = factory.crowd
        self._counted = 0
        """What the crowd was told that is under way here."""
        self._has_asked = False
        self._has_its_turn = False
        self._window = factory.server.config.limits.session_window
        self._requests: deque[Any] = deque()
        self._conversation: Conversation | None = None
        self._window_is_full = False
        self._output_is_full = False
        self._end_of_input = False
        self._leaving = False
        self._working = False
        self._reading = True
        self._deadline: IDelayedCall | None = None

    # ------------------------------------------------------------------ what a protocol has of its own

    def cut(self, data: bytes) -> Iterable[Any]:
        """The requests that these bytes complete."""
        raise NotImplementedError

    def take(self, request: Any) -> None:
        """Do what is asked, or reply that it cannot be done. Never raises."""
        raise NotImplementedError

    def converse(self) -> Conversation:
        """The client is let in: greet it."""
        raise NotImplementedError

    def turn_away(self, why: Refused) -> None:
        """Say that it is not."""
        raise NotImplementedError

    # ------------------------------------------------------------------ told by the transport

    def connectionMade(self) -> None:
        transport = self._transport()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            _keep_alive(transport)
        IConsumer(transport).registerProducer(self, True)
        if not self._house.admit(self):
            self.turn_away(self._house.full())
            self.leave()
            return
        self._conversation = self.converse()
        self._replies.flush()

    def dataReceived(self, data: bytes) -> None:
        self._requests.extend(self.cut(data))
        self._work()

    def readConnectionLost(self) -> None:
        """The client has nothing more to ask; like QUIT, it still gets the replies to what it has asked."""
        self._end_of_input = True
        self._set_deadline(LINGER_SECONDS, self.leave)
        self._work()

    def writeConnectionLost(self) -> None:
        """The client cannot be told anything any more; the transport ends the connection by itself."""

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 (Twisted's signature)
        self._leaving = True
        self._requests.clear()
        self._replies.close()
        self._count()
        self._crowd.forget(self)
        if self._conversation is not None:
            self._conversation.disconnected()
        self._cancel_deadline()
        self._house.forget(self)

    def pauseProducing(self) -> None:
        """The client does not read what it was told: no more events, and no more requests are taken."""
        self._output_is_full = True
        self._replies.pause()
        if self._conversation is not None:
            self._conversation.pause()
        self._count()
        self._regulate()

    def resumeProducing(self) -> None:
        self._output_is_full = False
        self._replies.resume()
        if self._conversation is not None:
            self._conversation.resume()
        self._work()

    def stopProducing(self) -> None:
        """The connection is gone; `connectionLost` says so too."""

    # ------------------------------------------------------------------ the end

    def leave(self) -> None:
        """Write what there is to be said, and close."""
        if self._leaving:
            return
        self._leaving = True
        self._requests.clear()
        if self._conversation is not None:
            self._conversation.stop_following()
        self._replies.finish()
        transport = self._transport()
        IConsumer(transport).unregisterProducer()
        transport.loseConnection()
        self._set_deadline(LEAVE_SECONDS, self._abort)

    def _set_deadline(self, seconds: float, what: Callable[[], None]) -> None:
        self._cancel_deadline()
        self._deadline = self._house.clock.callLater(seconds, what)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _abort(self) -> None:
        transport: Any = self._transport()
        transport.abortConnection()

    # ------------------------------------------------------------------ the flow

    def _transport(self) -> ITransport:
        assert self.transport is not None
        return self.transport

    def _write(self, data: bytes) -> None:
        write_now(self._transport(), data)

    def _work(self) -> None:
        """Take as many requests as may be taken now, then write what came of it."""
        conversation = self._conversation
        if self._working or self._leaving or conversation is None:
            return
        self._working = True
        if self._crowd.is_open or self._has_its_turn:
            self._take_requests(conversation)
            while self._requests and not self._must_wait(conversation):  # what is refused at once makes room for more
                self._take_requests(conversation)
            self._has_asked = True
        elif self._requests and not self._must_wait(conversation):
            self._wait_for_turn(conversation)
        self._working = False
        self._count()
        self._replies.flush()
        if conversation.finished:
            self._requests.clear()
        ending = conversation.finished or self._end_of_input
        if ending and not self._requests and not self._replies.in_order:
            self.leave()
        else:
            self._regulate()

    def take_turn(self) -> None:
        """Others had to be served first: now these requests may be taken."""
        self._has_its_turn = True
        self._work()
        self._has_its_turn = False

    def _wait_for_turn(self, conversation: Conversation) -> None:
        """Whoever has just come gets one answer meanwhile: it may be somebody who looks what goes on."""
        if not self._has_asked:
            self._has_asked = True
            self.take(self._requests.popleft())
            conversation.go_on()
        if self._requests:
            self._crowd.wait(self)

    def _count(self) -> None:
        """Tell the crowd what is under way here, unless it is a single request: of connections there are only so many.

        What a client does not read does not count: it must not keep others from their turn.
        """
        in_order = self._replies.in_order
        if in_order > 1 or self._counted:
            under_way = 0 if self._output_is_full or in_order == 1 else in_order
            change, self._counted = under_way - self._counted, under_way
            self._crowd.count(change)

    def _take_requests(self, conversation: Conversation) -> None:
        while self._requests and not self._must_wait(conversation):
            self.take(self._requests.popleft())
        conversation.go_on()

    def _must_wait(self, conversation: Conversation) -> bool:
        outstanding = self._replies.outstanding + conversation.gathered
        if outstanding >= self._window:
            self._window_is_full = True
        elif outstanding <= self._window // 2:
            self._window_is_full = False
        return self._window_is_full or self._output_is_full or conversation.introducing or conversation.finished

    def _may_read(self, conversation: Conversation) -> bool:
        return not self._must_wait(conversation)

    def _relieved(self) -> None:
        conversation = self._conversation
        if conversation is None or self._working:
            return
        self._count()
        ending = self._end_of_input or conversation.finished
        if ending or ((self._requests or not self._reading) and not self._must_wait(conversation)):
            self._work()

    def _regulate(self) -> None:
        """Read from the client exactly while its requests are taken."""
        if self._leaving or self._end_of_input or self._conversation is None:
            return
        reading = self._may_read(self._conversation) and not (self._requests and self._crowd.is_waiting(self))
        if reading != self._reading:
            self._reading = reading
            transport: Any = self._transport()
            (transport.resumeProducing if reading else transport.pauseProducing)()


class StreamFactory(Factory):
    """Makes the connections of one server, as many as `limits.connections` allows, whatever they speak."""

    noisy = False

    def __init__(self, server: Server, clock: IReactorTime, beside: StreamFactory | None = None) -> None:
        """`beside`: who makes the other connections of the same server; limits are for both together."""
        self.server = server
        self.clock = clock
        self.turn = EndOfIteration(clock)
        self.verbs = Verbs(server)
        self.connections: set[StreamProtocol] = set() if beside is None else beside.connections
        self.crowd: AdmissionControl = AdmissionControl(self.turn) if beside is None else beside.crowd

    def leave(self) -> None:
        """The server stops: every connection is closed, once what was to be said to it is written."""
        for connection in list(self.connections):
            connection.leave()

    def admit(self, connection: StreamProtocol) -> bool:
        """Count a new connection, unless there are as many as there may be."""
        if len(self.connections) >= self.server.config.limits.connections:
            return False
        self.connections.add(connection)
        return True

    def forget(self, connection: StreamProtocol) -> None:
        self.connections.discard(connection)

    def full(self) -> Refused:
        """What one connection too many is told."""
        limit = self.server.config.limits.connections
        return Refused("BUSY", f"this server has {limit} connections and takes no more; try another one")


def write_now(transport: Any, data: bytes) -> None:
    """Like `transport.write`, but send at once, if the transport has nothing else to send.

    Twisted's own way waits until the reactor says that the socket can be written, which costs two system calls and a
    turn of the reactor, each time: 12 us of a command's 70 where clients do not pipeline. What cannot be sent at once,
    and every error, is left to that way.
    """
    if (
        isinstance(transport, Connection)
        and not transport.TLS
        and transport.connected
        and not transport.disconnecting
        and not transport._tempDataBuffer
        and transport.offset == len(transport.dataBuffer)
    ):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            data = data[sent:]
    if data:
        transport.write(data)


def _keep_alive(transport: Any) -> None:
    transport.setTcpKeepAlive(True)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            transport.getHandle().setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
