"""A client that has hung up is noticed on a connection that is not read."""

from __future__ import annotations

import socket
import time
from contextlib import suppress as suppressed

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from pfsb.frontends.stream.hang_ups import SILENCE_MS_MAX, HangUp, hang_up_of, notice_vanished_machine

SEEN_SECONDS = 5.0
RESET = b"\1\0\0\0\0\0\0\0"


class SocketTransport:
    """The part of a transport that has to do with its socket, for `hang_up_of` and `notice_vanished_machine`."""

    def __init__(self, handle: socket.socket) -> None:
        self.getHandle = lambda: handle
        self.setTcpKeepAlive = lambda on: handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)


class HangUpTests(SynchronousTestCase):
    def tcp_pair(self) -> tuple[socket.socket, socket.socket]:
        """Open a TCP connection. Returns the client's end and the server's."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            return self.kept(socket.create_connection(server.getsockname())), self.kept(server.accept()[0])

    def unix_pair(self) -> tuple[socket.socket, socket.socket]:
        client, server = socket.socketpair()
        return self.kept(client), self.kept(server)

    def kept(self, end: socket.socket) -> socket.socket:
        self.addCleanup(end.close)
        return end

    def require(self, server: socket.socket, wanted: HangUp) -> None:
        until = time.monotonic() + SEEN_SECONDS
        while (seen := hang_up_of(SocketTransport(server))) is not wanted and time.monotonic() < until:
            time.sleep(0.005)
        self.assertIs(seen, wanted)

    def test_client_that_closes_its_side_and_then_all(self) -> None:
        """A client that closes its sending side, and then the connection, is noticed both times, although bytes wait
        that were not read."""
        for make in (self.tcp_pair, self.unix_pair):
            client, server = make()
            client.sendall(b"x" * 1_000)
            self.assertIsNone(hang_up_of(SocketTransport(server)))
            client.shutdown(socket.SHUT_WR)
            self.require(server, HangUp.CLOSED_ITS_SIDE)
            with suppressed(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            self.require(server, HangUp.GONE)
            server.close()
            self.assertIsNone(hang_up_of(SocketTransport(server)), "the handle is closed")

    def test_what_is_no_socket_tells_nothing(self) -> None:
        self.assertIsNone(hang_up_of(StringTransport()))
        self.assertIsNone(hang_up_of(None))

    def test_machines_that_vanish_are_noticed_in_time(self) -> None:
        """The socket options by which a vanished machine is noticed are set on TCP; a Unix socket, which has none of
        them, is left alone."""
        _, server = self.tcp_pair()
        notice_vanished_machine(SocketTransport(server))
        told = [server.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in NAMES]
        self.assertEqual(told, [10, 5, 3, SILENCE_MS_MAX])
        self.assertTrue(server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        notice_vanished_machine(SocketTransport(self.unix_pair()[1]))

    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        skip = "only Linux has these options"


NAMES = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
