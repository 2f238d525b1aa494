"""No web page of a third party can drive a server over HTTP, and checks of its health can ask by any name."""

from __future__ import annotations

import socket

from pfsb.frontends.http.web_pages import OwnNames
from tests.frontends.http.http_client import Connection, HTTPCase, Reply

CHROME = (
    "PUT /v1/kv/colour HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\nContent-Length: 16\r\n"
    'sec-ch-ua-platform: "Linux"\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) '
    "Chrome/130.0.0.0 Safari/537.36\r\nContent-Type: application/json\r\nAccept: */*\r\nOrigin: {origin}\r\n"
    "Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: {origin}/\r\n"
    'Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\r\n{{"value":"blue"}}'
)
"""The bytes that a browser sends for `fetch("/v1/kv/colour", {method: "PUT", ...})` in a page."""


class WebPageTests(HTTPCase):
    def browse(self, host: str, origin: str, site: str = "same-origin") -> Reply:
        self.client.send(CHROME.format(host=host, origin=origin, site=site).encode())
        return self.client.reply()

    def test_page_of_this_server(self) -> None:
        for host in ("127.0.0.1:8400", "localhost:8400", "[::1]:8400", "LOCALHOST:8400"):
            self.assertEqual(self.browse(host, f"http://{host}").status, 200, host)

    def test_page_whose_name_leads_to_this_server(self) -> None:
        """A page whose name leads to this server (DNS rebinding), so that for the browser page and server are of one
        origin, is refused."""
        for host in (
            "evil.example:8400",
            "evil.example",
            "127.0.0.1.evil.example:8400",
            "localhost.evil",
            "evil_name",
        ):
            self.assertRefused(self.browse(host, f"http://{host}"), 403, "DENIED")
        self.assertEqual(self.commands(), [])

    def test_page_of_another_origin(self) -> None:
        for origin in ("http://evil.example", "null", "http://localhost:3000", "https://localhost", "file://", ""):
            self.assertRefused(self.browse("localhost:8400", origin, "cross-site"), 403, "DENIED")
        self.assertEqual(self.commands(), [])

    def test_reading_is_refused_as_well(self) -> None:
        for path in ("/", "/v1/status", "/v1/kv", "/v1/events", "/metrics", "/healthz/"):
            self.client.send(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
            self.assertRefused(self.client.reply(), 403, "DENIED")

    def test_host_that_is_missing_doubled_or_none(self) -> None:
        """A request without a header `Host`, with two, or with one that names no host gets status 400 (RFC 9112,
        section 3.2); with HTTP/1.0 `Host` may be missing."""
        for hosts in (
            [],
            ["localhost", "localhost"],
            ["localhost", "evil.example"],
            [""],
            ["a@localhost"],
            ["localhost:x"],
            ["localhost, localhost"],
            ["local host"],
            ["localhost/"],
            ["http://localhost"],
            ["[::1"],
            ["[1.2.3]"],
            ["::1"],
            ["%zz"],
            ["caf\u00e9"],
        ):
            for path in ("/v1/status", "/healthz", "http://localhost/readyz"):
                lines = "".join(f"Host: {host}\r\n" for host in hosts)
                self.client.send(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
                self.assertRefused(self.client.reply(), 400, "BADREQUEST")
        old = Connection(self.site, self.clock)
        old.send(b"GET /v1/status HTTP/1.0\r\n\r\n")
        self.assertEqual(old.reply().status, 200)

    def test_host_in_the_request_line(self) -> None:
        """A host in the request line is checked, and so is the header `Host` beside it."""
        for target, host, status in (
            ("http://localhost:8400/v1/status", "localhost:8400", 200),
            ("HTTP://127.0.0.1/v1/status?", "localhost", 200),
            ("http://evil.example/v1/status", "localhost", 403),
            ("http://localhost/v1/status", "evil.example", 403),
            ("http://localhost@evil.example/v1/status", "localhost", 403),
            ("http:///v1/status", "localhost", 403),
            ("http://localhost", "localhost", 200),
        ):
            self.client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            self.assertEqual(self.client.reply().status, status, target)

    def test_question_of_a_browser_before_it_sends_what_a_page_asks_for(self) -> None:
        """The question of a browser (OPTIONS) before it sends what a page asks for is answered without any permission,
        so the browser does not send the request."""
        reply = self.ask("OPTIONS", "/v1/kv/a", Origin="http://evil.example", Access_Control_Request_Method="PUT")
        self.assertRefused(reply, 403, "DENIED")
        self.assertFalse([name for name in reply.headers if name.startswith("Access-Control")])

    def test_probes_may_ask_by_any_name(self) -> None:
        for path in ("/healthz", "/readyz", "/healthz?"):
            self.client.send(f"GET {path} HTTP/1.1\r\nHost: pfsb-2.service.consul\r\n\r\n".encode())
            self.assertEqual(self.client.reply().status, 200)

    def test_names_of_the_machine_and_of_the_configuration(self) -> None:
        names = OwnNames(["pfsb.example.com"], ["DB0.example"])
        for host in ("db0.example:8400", "db0.example.", "PFSB.example.com", socket.gethostname(), "10.0.0.1"):
            names.check([host.encode()], [])

    def test_page_behind_a_proxy_that_changes_the_host(self) -> None:
        """The origin of a page behind a proxy that changes the host is accepted if `http_names` of the configuration
        has it."""
        names = OwnNames(["pfsb.example.com"], [])
        names.check([b"127.0.0.1:8400"], [b"https://pfsb.example.com"])

    def test_stream_that_a_page_can_ask_for_leaves_sessions_alone(self) -> None:
        """A stream with `?client=`, which a page can ask for, neither opens a session, nor takes it over, nor keeps it
        open."""
        _, elsewhere = self.make_site(server_id=1)
        self.content("POST", "/v1/session", None, Pfsb_Client="alice", Pfsb_Ttl="5")
        session = self.server.local_clients.connections[-1]
        self.client.request("GET", "/v1/events?client=alice")
        self.client.request("GET", "/v1/events?client=bob")
        self.assertEqual([each.calls for each in self.server.local_clients.connections], [["hello alice 5"]])
        self.clock.advance(5.1)
        self.assertIn("bye", session.calls)
        self.assertEqual(len(elsewhere.sessions), 0)
