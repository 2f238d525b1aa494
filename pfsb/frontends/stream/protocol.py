"""StreamProtocol: the part of a connection that the two protocols of the client port, lines and Redis, share.

A connection is read, paused and ended here, in bounded memory; a subclass adds how bytes become requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from typing import Protocol as StructuralType

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
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.applications.interfaces import Refused
from pfsb.frontends.rights import ClientRights
from pfsb.frontends.stream.addresses import LOCAL, address_of
from pfsb.frontends.stream.admission import AdmissionControl
from pfsb.frontends.stream.farewells import Farewell
from pfsb.frontends.stream.hang_ups import (
    PAUSED_LOOK_SECONDS,
    HangUp,
    hang_up_of,
    notice_vanished_machine,
)
from pfsb.frontends.stream.reply_queue import ReplyQueue
from pfsb.frontends.stream.shared_limits import SharedLimits
from pfsb.frontends.stream.unread import bound_unsent_bytes, bytes_under_way, forget_unsent_bytes, unsent_bytes
from pfsb.support.eager_write import write_now

if TYPE_CHECKING:
    from pfsb.server import Server

HOW_TO_SHOW: Final = "show one by AUTH token"
"""How a client shows a token at the client port, as the end of a sentence."""
LEAVE_SECONDS: Final = 10.0
"""How long, in seconds, a client may take to read its last replies before the connection is aborted."""
PIECE_BYTES: Final = 8_192
"""Number of bytes of a connection that are split into requests together, which takes a few milliseconds at most,
whatever the bytes are."""
SMALL_BYTES: Final = 512
"""Maximum number of bytes of one read of the transport that are split into requests without waiting for a turn."""
SLICE_SECONDS: Final = 0.003
"""How long, in seconds, the requests of one connection are handled before other connections have their turns."""
COUNTED_SECONDS: Final = 0.0005
"""Least time, in seconds, that a connection's requests take in one slice for `AdmissionControl` to be told of it."""
_REQUESTS_PER_LOOK: Final = 8
"""Number of requests of a connection that are handled before the clock is read again, to see if the slice is over."""
LINGER_SECONDS: Final = 15.0
"""How long, in seconds, a client still gets replies after it has closed its sending side of the connection.

This is longer than the default of `request_seconds`, so the requests sent before have their replies by then.
"""

_log = Logger()


class IConversation(StructuralType):
    """The part of a conversation that a connection needs (`pfsb.frontends.line.conversation`)."""

    finished: bool
    """True when no further request is handled, and the connection ends with the last reply."""
    must_be_alone: bool
    """True while a HELLO, a BYE or a large request has no answer yet: no other request of the connection may be
    handled."""

    @property
    def unsubmitted(self) -> int:
        """The number of requests that the conversation has taken and not submitted yet: they wait for
        `submit_pipelined`, and have no place in the queue of replies."""

    def submit_pipelined(self) -> None:
        """Submits the requests that were collected. Called when the connection has no more requests to handle at the
        moment."""

    def pause(self) -> None:
        """Called when the client does not read: delivers no events until `resume` is called."""

    def resume(self) -> None:
        """Called when the client reads again: delivers events again."""

    def end_subscriptions(self) -> None:
        """Delivers no more events, for the rest of the connection."""

    def disconnected(self) -> None:
        """Called when the connection is gone: lets go of the session."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class StreamProtocol(Protocol):
    """One connection: splits its bytes into requests, hands them to its conversation, and writes the replies.

    A connection is not read while a request must be answered before others are handled (HELLO), while `session_window`
    requests have no reply, while all connections together have too many requests under way, and while the client does
    not read its replies. Requests that have arrived by then, one read of the transport at most, wait in memory.

    Requests are handled in slices: after `SLICE_SECONDS`, a connection that has more of them lets other connections
    have their turns. Its bytes are split into requests piece by piece, when the connection has its turn. Clients that
    do not read, or leave too much unread together, are dropped (`UnreadOutput`).

    The transport does not tell the end of a connection that is not read. So the server looks again and again whether
    the client of such a connection is still there: a client that has died with as many LOCKs as it may have must not
    hold its locks for ever.
    """

    replies: ReplyQueue
    """The replies of this connection, in the order of its requests."""

    def __init__(self, factory: StreamFactory) -> None:
        self._stream_factory = factory
        self._admission = factory.admission
        self._shared = factory.shared
        self._counted = 0
        """Number of requests of this connection that `AdmissionControl` counts as under way."""
        self._has_handled_requests = False
        self._is_admitted = False
        self._window = factory.server.session_window
        self._requests: deque[Any] = deque()
        self._unsplit: deque[bytes] = deque()
        """Pieces of the bytes that have come and are not split into requests yet."""
        self.address = LOCAL
        """Where the client is (`address_of`)."""
        self.rights: ClientRights
        """The rights of the client; made when the connection begins."""
        self._slice_end = 0.0
        """The time, by the reactor's clock, at which the present slice of requests ends; 0 from the beginning of a
        slice until the clock is read for the first time."""
        self._conversation: IConversation | None = None
        self._window_is_full = False
        self._output_is_full = False
        self._end_of_input = False
        self._leaving = False
        self._farewell: Farewell | None = None
        """The end of the connection, if the client may still send; None before the end, and if it is closed at once."""
        self._reading = True
        self._deadline: IDelayedCall | None = None
        self._next_look: IDelayedCall | None = None
        """The next delayed call that looks whether the client is still there; None while the connection is read, since
        the transport tells then."""

    # ------------------------------------------------------------------ implemented by each protocol

    def split_requests(self, data: bytes) -> Iterable[Any]:
        """The requests that are complete with `data`. An incomplete request is kept for the next call."""
        raise NotImplementedError

    def handle_request(self, request: Any) -> None:
        """Hands a request to the conversation, or places a refusal among the replies. Never raises an exception."""
        raise NotImplementedError

    def begin_conversation(self) -> IConversation:
        """Makes the conversation for a client that is let in, and greets the client."""
        raise NotImplementedError

    def write_refusal(self, refused: Refused) -> None:
        """Writes the reason why a client is not let in: the server has too many connections."""
        raise NotImplementedError

    # ------------------------------------------------------------------ called by the transport

    def connectionMade(self) -> None:
        try:
            self._begin()
        except Exception as error:  # Twisted itself would leave the connection open
            self.replies.fail(error)

    def _begin(self) -> None:
        """Greets the client and begins its conversation, or refuses it if there are too many."""
        transport = self._transport()
        self.address = address_of(transport)
        self.rights = self._shared.rights.of_client(transport, self.address, HOW_TO_SHOW, self._lose_rights)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            notice_vanished_machine(transport)
            bound_unsent_bytes(transport)
        IConsumer(transport).registerProducer(self, True)
        refused = self._stream_factory.admit(self)
        if refused is not None:
            self.write_refusal(refused)
            self.leave()
            return
        self._conversation = self.begin_conversation()
        self.replies.flush()

    def dataReceived(self, data: bytes) -> None:
        if self._leaving:
            if self._farewell is not None:
                self._farewell.discard(data)
            return
        if len(data) <= SMALL_BYTES and not self._unsplit:
            try:
                self._requests.extend(self.split_requests(data))
            except Exception as error:
                self.replies.fail(error)
                return
            self._work()
            return
        self._unsplit.extend(data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
        if self._admission.is_open:
            self._work_for_a_slice()
        else:
            self._work()

    def _work_for_a_slice(self) -> None:
        """Handles requests for `SLICE_SECONDS` at most. Tells `AdmissionControl` how long that has taken, if it was
        `COUNTED_SECONDS` or more."""
        clock = self._stream_factory.clock
        begun = clock.seconds()
        self._work()
        taken = clock.seconds() - begun
        if taken >= COUNTED_SECONDS:  # at 8 x 32, a note of each slice costs a PUT 1 %: 2.9 of 286 byte codes
            self._admission.worked(taken)

    def readConnectionLost(self) -> None:
        """Called by Twisted when the client has closed its sending side. As after QUIT, the client still gets the
        replies to the requests that it sent before."""
        self._end_of_input = True
        if self._farewell is not None:
            self._farewell.client_has_closed()
            return
        self._set_deadline(LINGER_SECONDS, self.leave)
        self._work()

    def writeConnectionLost(self) -> None:
        """Called by Twisted when this side is closed behind the last reply. Does nothing if the client has closed the
        connection instead, which the transport ends then."""
        if self._farewell is not None:
            self._farewell.written()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 (Twisted's signature)
        self._leaving = True
        self._requests.clear()
        self._unsplit.clear()
        self.replies.close()
        self._shared.unread.forget(self)
        self._count()
        self._admission.forget(self)
        if self._conversation is not None:
            self._conversation.disconnected()
            self.rights.end()
        self._cancel_deadline()
        self._look_no_more()
        if self._farewell is not None:
            self._farewell.over()
            self._farewell = None
        self._stream_factory.forget(self)
        forget_unsent_bytes(self.transport)

    def pauseProducing(self) -> None:
        """Called by the transport when the client does not read its replies: deliver no more events, and handle no more
        requests."""
        self._output_is_full = True
        self.replies.pause()
        if not self._leaving:
            self._shared.unread.stops_reading(self)
            self._tell_held()
        if self._conversation is not None:
            self._conversation.pause()
        self._count()
        self._regulate()

    def resumeProducing(self) -> None:
        self._output_is_full = False
        self._shared.unread.reads(self)
        self._tell_held()
        self.replies.resume()
        if self._conversation is not None:
            self._conversation.resume()
        self._work()

    def stopProducing(self) -> None:
        """Called by the transport when the connection is gone. Does nothing, since the transport calls `connectionLost`
        as well."""

    # ------------------------------------------------------------------ clients that do not read

    def bytes_to_read(self) -> int:
        return bytes_under_way(self.transport)

    def drop(self, reason: str, *, at_once: bool) -> None:
        """Ends the connection, since its client does not read. If `at_once`, all output is forgotten. Otherwise the
        client still has `LEAVE_SECONDS` to read the output, with `reason` at its end unless a large reply is being
        written."""
        if at_once:
            self._drop_at_once()
        elif not self._leaving:
            self._end(partial(self._finish_with, reason))

    def _lose_rights(self, why: str) -> None:
        """Ends the connection, since its client has lost rights that it had shown a token for: requests that have no
        reply yet get none, and the client is told the reason."""
        self.drop(why, at_once=False)

    def _finish_with(self, reason: str) -> None:
        if not self.replies.is_amid_reply:
            self.write_farewell(reason)
        self.replies.finish()

    def write_farewell(self, reason: str) -> None:
        """Writes the reason why the server ends the connection. Does nothing here: a protocol that has a form for the
        reason overrides this method."""

    def write_failure(self, reason: str) -> None:
        """Writes the reason why the server ends the connection: it has made a mistake with it."""
        self.write_farewell(reason)

    def _tell_held(self) -> None:
        """Tells `UnreadOutput` how many bytes are held in memory for this client: results that wait to be rendered,
        and, while the client does not read, the output that the kernel has not taken."""
        unsent = unsent_bytes(self.transport) if self._output_is_full else 0
        self._shared.unread.hold(self, unsent + self.replies.held_bytes)

    # ------------------------------------------------------------------ the end of the connection

    def leave(self) -> None:
        """Ends the connection when the output that is ready now was written. Requests without a reply get none."""
        if not self._leaving:
            self._end(self.replies.finish)

    def leave_at_once(self) -> None:
        """Does the same when the server stops: bytes that still arrive are not waited for."""
        if not self._leaving:
            self._end(self.replies.finish, may_linger=False)

    def on_failure(self) -> None:
        """Ends the connection after a mistake of the server with it, which is logged. Behind the replies that are ready
        the client is told so, unless a large reply is cut, which must not look complete."""
        if self._leaving or self.replies.is_amid_reply:
            self._drop_at_once()
        else:
            self._end(self._tell_failure)

    def _tell_failure(self) -> None:
        self.write_failure("the server made a mistake with this connection and noted it in its log")
        self.replies.flush()
        self.replies.close()

    def _end(self, write_last: Callable[[], None], *, may_linger: bool = True) -> None:
        """Ends the connection when the transport has written what it was given before and in `write_last`, a function
        without arguments that is called now; `LEAVE_SECONDS` from now at the latest. If `may_linger`, bytes that the
        client still sends are read for a while (`Farewells`), so that it does not lose its last replies."""
        try:
            self._take_no_more()
            write_last()
            transport = self._transport()
            IConsumer(transport).unregisterProducer()
            if may_linger and not self._end_of_input:
                self._farewell = self._shared.farewells.begin(transport, self._abort)
            if self._farewell is None:
                transport.loseConnection()
            self._set_deadline(LEAVE_SECONDS, self._abort)
        except Exception as error:
            _log.failure("a connection is aborted, since it could not be ended", Failure(error))
            self._drop_at_once()

    def _drop_at_once(self) -> None:
        try:
            self._take_no_more()
            self.replies.close()
        finally:
            self._abort()

    def _take_no_more(self) -> None:
        """Forgets the requests that were not handled, and delivers no more events: from now on the connection ends."""
        self._leaving = True
        self._requests.clear()
        self._unsplit.clear()
        if self._conversation is not None:
            self._conversation.end_subscriptions()

    def _set_deadline(self, seconds: float, function: Callable[[], None]) -> None:
        self._cancel_deadline()
        self._deadline = self._stream_factory.clock.callLater(seconds, function)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _abort(self) -> None:
        transport: Any = self._transport()
        transport.abortConnection()

    # ------------------------------------------------------------------ the flow of requests

    def _transport(self) -> ITransport:
        assert self.transport is not None
        return self.transport

    def _write(self, data: bytes) -> None:
        write_now(self.transport, data)

    def _work(self) -> None:
        """Handles as many requests as may be handled now, then writes their replies."""
        conversation, replies = self._conversation, self.replies
        if replies.is_collecting or self._leaving or conversation is None:
            return
        replies.is_collecting = True
        self._slice_end = 0.0
        try:
            try:
                if self._admission.is_open or self._is_admitted:
                    self._handle_slice(conversation)
                    self._has_handled_requests = True
                elif (self._requests or self._unsplit) and self._may_handle(conversation):
                    self._wait_for_admission(conversation)
            finally:
                replies.is_collecting = False
            self._count()
            replies.flush()
            if conversation.finished:
                self._requests.clear()
                self._unsplit.clear()
            ending = conversation.finished or self._end_of_input
            if ending and not (self._requests or self._unsplit or replies.in_order):
                self.leave()
            else:
                self._regulate()
        except Exception as error:
            # The requests that were taken out of the queue are lost, so the client could not tell which reply is for
            # which request.
            _log.failure("a connection is ended, since its requests could not be handled", Failure(error))
            self.on_failure()

    def on_admitted(self) -> None:
        """Called by `AdmissionControl` when it is this connection's turn: handles the requests that have waited, until
        as many are under way as `AdmissionControl.share` says."""
        window, self._window = self._window, min(self._window, self._admission.share)
        self._is_admitted = True
        try:
            self._work_for_a_slice()
        finally:
            self._is_admitted, self._window = False, window

    def _wait_for_admission(self, conversation: IConversation) -> None:
        """Puts this connection into the queue of `AdmissionControl`, so that its requests wait. Handles one of them
        before, in two cases.

        The first request of a connection does not wait: an operator may have connected to find out, by a STATUS, why
        the server is slow. Neither does the only request of a client that has had all its replies: clients that ask one
        thing after the other are not kept from it by those that ask much at once.
        """
        is_alone = len(self._requests) == 1 and not (self._unsplit or self.replies.in_order)
        if self._requests and (is_alone or not self._has_handled_requests):
            self._has_handled_requests = True
            self.handle_request(self._requests.popleft())
            conversation.submit_pipelined()
        if self._requests or self._unsplit:
            self._admission.wait(self)

    def _count(self) -> None:
        """Tells `AdmissionControl` by how much the number of this connection's requests under way has changed.

        A single request is not counted, since the number of connections has a limit of its own. Requests of a client
        that does not read its replies are not counted: they must not keep other clients from being served.
        """
        in_order = self.replies.in_order
        if in_order > 1 or self._counted:
            under_way = 0 if self._output_is_full or in_order == 1 else in_order
            change, self._counted = under_way - self._counted, under_way
            self._admission.count(change)

    def _handle_slice(self, conversation: IConversation) -> None:
        """Handles requests until there are no more, until the next one must wait, or until `SLICE_SECONDS` are over."""
        requests, unsplit = self._requests, self._unsplit
        while (requests or unsplit) and self._may_handle(conversation):
            if not requests:
                requests.extend(self.split_requests(unsplit.popleft()))
                continue
            self._handle_requests(conversation)
            if (requests or unsplit) and not self._slice_goes_on():
                self._admission.wait(self)
                return

    def _handle_requests(self, conversation: IConversation) -> None:
        """Handles the first request that waits, and further ones as long as they need not wait and the slice goes on;
        submits together those that are for the log.

        Requests that are refused or answered at once have their replies when this method returns, so the caller may
        find room for more requests.
        """
        requests, handled = self._requests, 0
        while True:
            self.handle_request(requests.popleft())
            if not requests or not self._may_handle(conversation):
                break
            handled += 1
            if not handled % _REQUESTS_PER_LOOK and not self._slice_goes_on():
                break
        conversation.submit_pipelined()

    def _slice_goes_on(self) -> bool:
        now = self._stream_factory.clock.seconds()
        if not self._slice_end:
            self._slice_end = now + SLICE_SECONDS
        return now < self._slice_end

    def _may_handle(self, conversation: IConversation) -> bool:
        """Whether the next request of this connection may be handled now."""
        outstanding = self.replies.outstanding + conversation.unsubmitted
        if outstanding >= self._window:
            self._window_is_full = True
        elif self._window_is_full and outstanding <= self._window // 2:
            self._window_is_full = False
        return not (self._window_is_full or self._output_is_full or conversation.must_be_alone or conversation.finished)

    _may_read = _may_handle
    """Whether the connection may be read, so that more requests arrive. A protocol overrides this method if the
    connection is read although the next request must wait."""

    def _relieved(self) -> None:
        """Called by `ReplyQueue` when requests have got their replies: handles more, or ends the connection."""
        conversation = self._conversation
        if conversation is None or self.replies.is_collecting:
            return
        self._count()
        ending = self._end_of_input or conversation.finished
        if ending or ((self._requests or self._unsplit or not self._reading) and self._may_handle(conversation)):
            self._work()

    def _regulate(self) -> None:
        """Starts or stops reading: the transport is read only while the requests that arrive may be handled."""
        conversation = self._conversation
        if self._leaving or self._end_of_input or conversation is None:
            return
        has_more = self._unsplit or (self._requests and self._admission.is_waiting(self))
        reading = not has_more and self._may_read(conversation)
        if reading != self._reading:
            self._reading = reading
            transport: Any = self._transport()
            if reading:
                self._look_no_more()
                transport.resumeProducing()
            else:
                transport.pauseProducing()
                self._look_later()

    # ------------------------------------------------------------------ clients that end while they are not read

    def _look_later(self) -> None:
        self._next_look = self._stream_factory.clock.callLater(PAUSED_LOOK_SECONDS, self._look)

    def _look_no_more(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _look(self) -> None:
        """Looks whether the client is still there, and ends the connection if it is not. Called again and again while
        the connection is not read.

        A client that has only closed its sending side still gets replies for `LINGER_SECONDS`, as it does on a
        connection that is read.
        """
        self._next_look = None
        if self._leaving:
            return
        match hang_up_of(self._transport()):
            case HangUp.GONE:
                self._abort()
            case HangUp.CLOSED_ITS_SIDE:
                self._set_deadline(LINGER_SECONDS, self.leave)
            case None:
                self._look_later()


class StreamFactory(Factory):
    """Makes the connections of one server that speak one protocol, within the limits of `limits.connections` and
    `limits.address_connections`."""

    noisy = False

    def __init__(
        self,
        server: Server,
        clock: IReactorTime,
        beside: StreamFactory | None = None,
        shared: SharedLimits | None = None,
    ) -> None:
        """`beside` is the factory for the other protocol of the same port, with which this one shares its limits and
        connections; None: there is none. `shared` are the limits that this port shares with the other doors of the
        server; None: the port is the only door."""
        self.server = server
        self.clock = clock
        self.shared: SharedLimits = beside.shared if beside is not None else shared or SharedLimits.of(server, clock)
        self.iteration_end = self.shared.iteration_end
        self.connections: set[StreamProtocol] = set() if beside is None else beside.connections
        self.admission: AdmissionControl = AdmissionControl(self.iteration_end) if beside is None else beside.admission

    def leave(self) -> None:
        """Called when the server stops: closes every connection, each once the output that is ready for it was
        written."""
        for connection in list(self.connections):
            connection.leave_at_once()

    def admit(self, connection: StreamProtocol) -> Refused | None:
        """Counts a new connection, and returns None. If there are too many already, returns the refusal that tells so,
        and does not count the connection."""
        if len(self.connections) >= self.server.config.limits.connections:
            return too_many_connections(self.server)
        if not self.shared.addresses.connects(connection.address):
            return too_many_of_one_address(self.server)
        self.connections.add(connection)
        return None

    def forget(self, connection: StreamProtocol) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            self.shared.addresses.disconnects(connection.address)


def too_many_connections(server: Server) -> Refused:
    """The refusal for a connection beyond the limit of `limits.connections`."""
    limits = server.config.limits
    return Refused("BUSY", f"this server has {limits.connections} connections and takes no more; try another one")


def too_many_of_one_address(server: Server) -> Refused:
    """The refusal for a connection beyond the limit of `limits.address_connections`."""
    limits = server.config.limits
    text = f"this server has {limits.connections_of_one_address} connections of your address and takes no more of it"
    return Refused("BUSY", f"{text}; close some, or try another server")
