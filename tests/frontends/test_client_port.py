"""The client port: which protocol a client speaks, and when it is greeted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.config.config import Limits
from pfsb.frontends.client_port import SILENCE_SECONDS, ClientPortFactory, ClientPortProtocol, RedisPortFactory
from tests.examples import examples
from tests.frontends.fake_server import FakeServer, fake_config
from tests.frontends.line.test_protocol import WELCOME, Transport
from tests.frontends.resp.test_parser import cut, encoded


class ClientPortTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(fake_config(Limits(connections=2)))
        self.factory = ClientPortFactory(self.server, self.clock)  # type: ignore[arg-type]

    def connect(self) -> tuple[ClientPortProtocol, Transport]:
        protocol, transport = self.factory.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_silent_client_is_greeted_after_a_moment(self) -> None:
        """A client that sends nothing is greeted after a moment, since a person at a terminal waits for the first
        line."""
        _, transport = self.connect()
        self.assertEqual(transport.value(), b"")
        self.clock.advance(SILENCE_SECONDS)
        self.assertEqual(transport.value(), WELCOME)

    def test_client_that_sends_a_line_is_greeted_at_once(self) -> None:
        """A client that sends a line is greeted at once, so that a client library need not wait for the moment of
        silence."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"PING\n")
        self.assertEqual(transport.value(), WELCOME + b"OK\n")

    def test_part_of_a_line_is_enough(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(b"P")
        protocol.dataReceived(b"ING\n")
        self.assertEqual(transport.value(), WELCOME + b"OK\n")

    def test_greeting_ends_as_the_first_line_of_the_client(self) -> None:
        """The greeting ends with CRLF if the first line of the client does: a client of Redis that sends PING as a line
        then finds that the reply is broken, and does not wait for ever."""
        for data, greeting in (
            (b"PING\r\n", WELCOME[:-1] + b"\r\n"),
            (b"\r\nPING\r\nPING\n", WELCOME[:-1] + b"\r\n"),
            (b"PING\nPING\r\n", WELCOME),
            (b"PING", WELCOME),
        ):
            protocol, transport = self.connect()
            protocol.dataReceived(data)
            self.assertEqual(transport.value(), greeting + b"OK\n" * data.count(b"G\n") + b"OK\n" * data.count(b"G\r"))
            protocol.connectionLost()

    def test_client_of_redis_hears_only_replies(self) -> None:
        protocol, transport = self.connect()
        for byte in encoded(b"PING"):
            protocol.dataReceived(bytes([byte]))
        self.clock.advance(2 * SILENCE_SECONDS)
        self.assertEqual(transport.value(), b"+PONG\r\n")

    def test_client_of_redis_that_sends_after_the_greeting_runs_nothing(self) -> None:
        """Nothing of a client of Redis that sends its first command after the greeting is run: it would take the
        greeting for a reply, and its keys and values must not be taken for lines."""
        protocol, transport = self.connect()
        self.clock.advance(SILENCE_SECONDS)
        for byte in encoded(b"SET", b"k", b"SAY hello"):
            protocol.dataReceived(bytes([byte]))
        self.clock.advance(0)
        self.assertTrue(transport.value().startswith(WELCOME + b"ERR BADREQUEST fate=none "), transport.value())
        self.assertEqual((transport.disconnecting, self.server.cluster.executed), (True, []))

    @given(
        st.lists(
            st.sampled_from([b"SAY hello", b"PUT k v", b"\r\n", b"\n", b"*1", b"#1 INCR n", b"x", b""]), max_size=9
        ),
        st.booleans(),
        st.lists(st.integers(0), max_size=5),
    )
    @examples(200, database=None)
    def test_no_value_of_a_late_client_of_redis_or_of_http_runs(
        self, parts: list[bytes], is_http: bool, places: list[int]
    ) -> None:
        """No value of a client of Redis or of HTTP that sends after the greeting is run as a command, however the
        network cuts the bytes."""
        protocol, transport = self.connect()
        self.clock.advance(SILENCE_SECONDS)
        value = b"".join(parts)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(value)
        data = head + value + b"\nPUT k v\n" if is_http else encoded(b"SET", value, value) + encoded(b"PING")
        for piece in cut(data, places):
            protocol.dataReceived(piece)
        self.clock.advance(0)
        self.assertEqual((transport.disconnecting, self.server.cluster.executed), (True, []))
        protocol.connectionLost()

    def test_empty_lines_do_not_tell_the_protocol(self) -> None:
        """Empty lines, which Redis skips as well, do not decide the protocol. A client that sends only them is greeted
        after the moment of silence."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"\r\n\n")
        protocol.dataReceived(b"\r\n" + encoded(b"SET", b"k", b"SAY hello"))
        self.clock.advance(2 * SILENCE_SECONDS)
        self.assertEqual(transport.value(), b"+OK\r\n")
        protocol, transport = self.connect()
        protocol.dataReceived(b"\n\r\0")
        self.assertEqual(transport.value(), b"")
        self.clock.advance(SILENCE_SECONDS)
        self.assertEqual(transport.value(), WELCOME)

    def test_silence_of_a_server_that_was_held_up_is_not_the_client_s(self) -> None:
        """If the server was held up, a client's command that came in time decides the protocol, although the reactor
        runs due calls before it reads."""
        protocol, transport = self.connect()
        self.clock.callLater(SILENCE_SECONDS, protocol.dataReceived, encoded(b"PING"))
        self.clock.advance(3 * SILENCE_SECONDS)
        self.assertEqual(transport.value(), b"+PONG\r\n")

    def test_port_for_redis_alone_waits_for_the_first_command(self) -> None:
        protocol, transport = RedisPortFactory(self.factory).buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        self.clock.advance(1_000)
        self.assertEqual(transport.value(), b"")
        protocol.dataReceived(encoded(b"SET", b"k", b"SAY hello"))
        self.clock.advance(0)
        self.assertEqual(transport.value(), b"+OK\r\n")
        self.factory.leave()
        self.assertTrue(transport.disconnecting)

    def test_port_for_redis_alone_runs_no_lines(self) -> None:
        for data in (b"PUT k v\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET k\r\n"):
            protocol, transport = RedisPortFactory(self.factory).buildProtocol(None), Transport()
            protocol.makeConnection(transport)
            protocol.dataReceived(data)
            self.clock.advance(0)
            self.assertTrue(transport.value().startswith(b"-ERR Protocol error: "), transport.value())
            self.assertTrue(transport.disconnecting)
            protocol.connectionLost()
        self.assertEqual(self.server.cluster.executed, [])

    def test_port_for_redis_alone_answers_health_checks(self) -> None:
        protocol, transport = RedisPortFactory(self.factory).buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        protocol.dataReceived(b"PING\r\nPING\r\n" + encoded(b"SET", b"k", b"v") + b"QUIT\r\n")
        self.clock.advance(0)
        self.assertEqual(transport.value(), b"+PONG\r\n+PONG\r\n+OK\r\n+OK\r\n")
        self.assertTrue(transport.disconnecting)

    def test_port_for_redis_alone_counts_to_the_limit_of_the_client_port(self) -> None:
        for _ in range(2):
            RedisPortFactory(self.factory).buildProtocol(None).makeConnection(Transport())
        protocol, transport = self.connect()
        protocol.dataReceived(b"PING\n")
        self.assertTrue(transport.value().startswith(b"ERR BUSY fate=none "))

    def test_both_see_the_same_keys(self) -> None:
        (lines, line_transport), (redis, redis_transport) = self.connect(), self.connect()
        lines.dataReceived(b"PUT colour blue\n")
        redis.dataReceived(encoded(b"APPEND", b"colour", b"ish") + encoded(b"GET", b"colour"))
        lines.dataReceived(b"GET colour\n")
        self.clock.advance(0)
        self.assertEqual(redis_transport.value(), b":7\r\n$7\r\nblueish\r\n")
        self.assertTrue(line_transport.value().endswith(b'OK value="blueish" revision=2\n'))

    def test_limit_of_connections_is_for_both_and_each_is_told_in_its_form(self) -> None:
        for data in (b"PING\n", encoded(b"PING")):
            self.connect()[0].dataReceived(data)
        (lines, line_transport), (redis, redis_transport) = self.connect(), self.connect()
        lines.dataReceived(b"PING\n")
        redis.dataReceived(encoded(b"PING"))
        self.assertTrue(line_transport.value().startswith(b"ERR BUSY fate=none "))
        self.assertTrue(redis_transport.value().startswith(b"-BUSY fate=none "))
        self.assertTrue(line_transport.disconnecting and redis_transport.disconnecting)

    def test_client_that_only_listens_may_close_its_side(self) -> None:
        """A client that closes its sending side at once, such as `nc -N` without input, is greeted, and its connection
        is closed."""
        protocol, transport = self.connect()
        protocol.readConnectionLost()
        self.assertEqual((transport.value(), transport.disconnecting), (WELCOME, True))

    def test_client_that_goes_without_a_word_leaves_nothing(self) -> None:
        protocol, _ = self.connect()
        protocol.connectionLost()
        self.assertEqual((self.clock.getDelayedCalls(), self.factory.undecided), ([], set()))

    def test_loss_of_the_connection_reaches_its_protocol(self) -> None:
        for data in (b"PING\n", encoded(b"PING")):
            protocol, _ = self.connect()
            protocol.dataReceived(data)
            protocol.connectionLost()
            self.assertEqual(self.factory.line.connections, set())

    def test_stopping_server_closes_all(self) -> None:
        (lines, _), (redis, _), (silent, _) = connected = [self.connect() for _ in range(3)]
        lines.dataReceived(b"PING\n")
        redis.dataReceived(encoded(b"PING"))
        self.factory.leave()
        self.assertTrue(all(transport.disconnecting for _, transport in connected))
        silent.connectionLost()
