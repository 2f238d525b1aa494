"""A connection that speaks another protocol than lines is closed, and nothing of what it sends runs."""

from __future__ import annotations

from tests.frontends.line.test_protocol import LineTestCase

BODY = b"PUT colour blue\r\nSAY hello\r\n"
REQUEST_LINES = (
    b"POST / HTTP/1.1\r\n",
    b"PUT / HTTP/1.1\n",
    b"GET http://127.0.0.1:9400/ HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT 127.0.0.1:9400 HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n",
    b"\r\n \r\nPOST / HTTP/1.0\r\n",
)
HEADERS = (b"Host: 127.0.0.1:9400\r\n", b"host:x\n", b"Content-Length: 12\r\n", b"X_Y: 1\r\n", b"User-Agent:\r\n")
NO_TEXT = (b"\x16\x03\x01\x02\x00\x01\xfc\n", b"\x16\x03\x01\x02\n", b"\xc3\x28\n", b"GET \x00\n", b"#1 \x01\n")
LATE_REDIS = (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$15\r\nPUT colour blue\r\n", b"*1\n", b" *-1\r\n", b"*3")


class ForeignTests(LineTestCase):
    def require_closed(self, data: bytes, why: str, before: list[str] | None = None) -> None:
        """Sends these bytes on a new connection, which must be closed with a reason, and must run nothing."""
        protocol, transport = self.connect()
        protocol.dataReceived(data)
        said = self.said(transport)
        self.assertEqual(said[:-1], before or [])
        self.assertTrue(said[-1].startswith("ERR BADREQUEST fate=none "), said)
        self.assertIn(why, said[-1])
        self.assertIn("closed", said[-1])
        protocol.dataReceived(BODY)
        self.assertEqual((self.said(transport), transport.disconnecting), ([], True))
        self.assertEqual(self.server.cluster.executed, [])

    def test_http_request(self) -> None:
        for line in REQUEST_LINES:
            self.require_closed(line + b"Host: here\r\n\r\n" + BODY, "not HTTP")

    def test_http_request_that_comes_byte_by_byte(self) -> None:
        protocol, transport = self.connect()
        for byte in REQUEST_LINES[1] + BODY:
            protocol.dataReceived(bytes([byte]))
        self.assertIn("not HTTP", self.said(transport)[0])
        self.assertEqual((transport.disconnecting, self.server.cluster.executed), (True, []))

    def test_http_request_with_a_line_that_is_too_long(self) -> None:
        """An HTTP request whose first line is too long is recognised by the header behind it."""
        protocol, transport = self.connect()
        long_line = b"POST /" + b"x" * self.limits.command_bytes + b" HTTP/1.1\r\n"
        protocol.dataReceived(long_line + b"Host: here\r\n\r\n" + BODY)
        said = self.said(transport)
        self.assertEqual([line.split()[1] for line in said], ["TOOLARGE", "BADREQUEST"])
        self.assertEqual((transport.disconnecting, self.server.cluster.executed), (True, []))

    def test_header_on_any_line(self) -> None:
        for header in HEADERS:
            self.require_closed(header + BODY, "not HTTP")
            self.require_closed(b"PING\n" + header + BODY, "not HTTP", before=["OK"])

    def test_first_line_that_is_no_text(self) -> None:
        """A first line that is no text, as clients of TLS send it, with bytes in which a web page may have a say,
        closes the connection."""
        for line in NO_TEXT:
            self.require_closed(line + BODY, "no text")

    def test_command_of_redis_on_any_line(self) -> None:
        for data in LATE_REDIS[:-1]:
            self.require_closed(data, "Redis")
            self.require_closed(b"PING\r\n" + data + BODY, "Redis", before=["OK"])

    def test_requests_before_it_get_their_replies_first(self) -> None:
        """Requests before a line of another protocol get their replies first; then the reason comes, and the connection
        is closed."""
        self.local_clients.hold = True
        self.assertEqual(self.ask(b"PUT a 1\nHost: x\nPUT a 2"), [])
        self.local_clients.release()
        said = self.said()
        self.assertEqual((said[0], len(said), self.transport.disconnecting), ("OK revision=1", 2, True))
        self.assertEqual(len(self.server.cluster.executed), 1)

    def test_lines_that_only_look_like_it(self) -> None:
        """A line that only looks like another protocol, such as a value of a command, closes nothing on later lines,
        nor with a command number on the first one."""
        self.assertEqual(self.ask("#1 PUT / HTTP/1.1\nPUT / HTTP/1.1\nPUT Host: x\nPUT *3 $3")[-1], "OK revision=4")
        _, transport = other = self.connect()
        other[0].dataReceived(b"PUT a:1 HTTP/1.1\n")
        self.assertEqual(self.said(transport), ["OK revision=5"])
        self.assertFalse(self.transport.disconnecting or transport.disconnecting)

    def test_wrong_lines_of_people_do_not_close(self) -> None:
        """Control characters, which keys that a terminal does not know send, and typing errors are answered, and do not
        close the connection."""
        for line in (b"\x1b[A", b"PUT a\x08\x7f b", b"what is this?", b"*3 apples", b":x", b"*", b"?", b"\tPING"):
            protocol, transport = self.connect()
            protocol.dataReceived(line + b"\nPING\n")
            self.assertEqual((self.said(transport)[-1], transport.disconnecting), ("OK", False), line)
