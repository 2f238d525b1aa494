"""Rights over HTTP: the header Authorization, connections that are kept, streams, and proxies."""

from __future__ import annotations

from typing import Any

from pfsb.config.config import Limits
from pfsb.frontends.http.protocol import HTTPSite
from tests.frontends.fake_server import FakeServer, fake_config
from tests.frontends.http.http_client import Connection, HTTPCase, Reply
from tests.frontends.tokens import TOKENS, WRONG, TokenFile, with_tokens


class TokenTests(HTTPCase):
    def make_site(self, limits: Limits | None = None, **others: Any) -> tuple[FakeServer, HTTPSite]:
        server: Any = FakeServer(fake_config(limits), self.cluster, **others)
        self.file = TokenFile()
        self.shared = with_tokens(server, self.clock, self.file)
        return server, HTTPSite(server, self.clock, lambda: b"pfsb_turns_total 1\n", self.shared)

    def as_(self, role: str, method: str, path: str, body: object = None, **headers: str) -> Reply:
        return self.ask(method, path, body, Authorization=f"Bearer {TOKENS[role]}", **headers)

    def test_each_request_shows_its_token(self) -> None:
        """A connection that is kept has the rights of its present request, and of no earlier one."""
        self.assertEqual(self.as_("write", "PUT", "/v1/kv/a", {"value": "1"}).status, 200)
        self.assertRefused(self.ask("PUT", "/v1/kv/a", {"value": "2"}), 401, "NOAUTH")
        self.assertRefused(self.as_("read", "PUT", "/v1/kv/a", {"value": "3"}), 403, "DENIED")
        self.assertEqual(self.as_("read", "GET", "/v1/kv/a").content["value"], "1")
        self.assertEqual(self.ask("GET", "/healthz").status, 200)
        self.assertRefused(self.ask("GET", "/v1/kv/a"), 401, "NOAUTH")

    def test_pipelined_requests_have_their_own_rights(self) -> None:
        head = "GET /v1/kv HTTP/1.1\r\nHost: localhost\r\n"
        token = f"Authorization: Bearer {TOKENS['read']}\r\n"
        self.client.send(f"{head}{token}\r\n{head}\r\n{head}{token}\r\n".encode())
        said = self.client.heard() + self.client.heard() + self.client.heard()
        self.assertEqual([part[:3] for part in said.split(b"HTTP/1.1 ")[1:]], [b"200", b"401", b"200"])

    def test_missing_and_wrong_tokens_are_challenged(self) -> None:
        """RFC 6750: 401 says how to show a token, and whether the one that was shown is wrong."""
        reply = self.ask("GET", "/v1/kv/a")
        self.assertRefused(reply, 401, "NOAUTH")
        self.assertEqual(reply.headers["WWW-Authenticate"], 'Bearer realm="pfsb"')
        self.assertIn("Authorization: Bearer TOKEN", reply.content["text"])
        self.client.request("GET", "/v1/kv/a", Authorization=f"Bearer {WRONG}")
        self.assertEqual(self.client.heard(), b"")
        self.clock.advance(1)
        reply = self.client.reply()
        self.assertRefused(reply, 401, "BADTOKEN")
        self.assertIn('error="invalid_token"', reply.headers["WWW-Authenticate"])
        self.assertNotIn(WRONG.encode(), reply.body)

    def test_other_forms_of_the_header(self) -> None:
        for value in ("Basic YTpi", "Bearer", TOKENS["read"], "Digest username=x"):
            reply = self.ask("GET", "/v1/kv/a", Authorization=value)
            self.assertRefused(reply, 401, "NOAUTH")
            self.assertNotIn(value.partition(".")[2] or "YTpi", reply.content["text"])
        self.assertEqual(self.ask("GET", "/v1/kv", Authorization=f"bearer  {TOKENS['read']} ").status, 200)

    def test_two_tokens_are_refused(self) -> None:
        token = f"Authorization: Bearer {TOKENS['read']}\r\n"
        self.client.send(f"GET /v1/kv HTTP/1.1\r\nHost: localhost\r\n{token}{token}\r\n".encode())
        self.assertRefused(self.client.reply(), 400, "BADREQUEST")

    def test_body_is_not_waited_for_without_a_token(self) -> None:
        """A client that waits for `100 Continue` learns at once that it needs a token."""
        head = "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        self.client.send(head.encode())
        reply = self.client.reply()
        self.assertRefused(reply, 401, "NOAUTH")
        self.assertIn("WWW-Authenticate", reply.headers)

    def test_commands_need_the_rights_of_their_verbs(self) -> None:
        """POST /v1/commands, which takes any command of any application, needs the right of the command's verb."""
        put = {"command": "PUT", "args": ["a", "1"]}
        self.assertRefused(self.ask("POST", "/v1/commands", put), 401, "NOAUTH")
        self.assertRefused(self.as_("read", "POST", "/v1/commands", put), 403, "DENIED")
        self.assertEqual(self.as_("write", "POST", "/v1/commands", put).status, 200)
        self.assertEqual(self.as_("read", "POST", "/v1/commands", {"command": "GET", "args": ["a"]}).status, 200)
        change = {"command": "SETTINGS SET", "args": ["window=8"]}
        self.assertRefused(self.as_("write", "POST", "/v1/commands", change), 403, "DENIED")
        self.assertEqual(len(self.commands()), 2)

    def test_session_needs_the_right_to_write(self) -> None:
        """A request with a session needs the right to write: it may take over the session of another client, and so
        free its locks."""
        reply = self.as_("read", "GET", "/v1/kv", Pfsb_Client="alice")
        self.assertRefused(reply, 403, "DENIED")
        self.assertIn("Pfsb-Client", reply.content["text"])
        self.assertRefused(self.as_("read", "GET", "/v1/events", Pfsb_Client="alice"), 403, "DENIED")
        self.assertRefused(self.as_("read", "DELETE", "/v1/session", Pfsb_Client="alice"), 403, "DENIED")
        self.assertEqual(self.as_("write", "GET", "/v1/kv", Pfsb_Client="alice").status, 200)
        self.assertEqual(self.as_("read", "GET", "/v1/kv?read=sequential", Pfsb_Revision="0").status, 200)

    def test_stream_of_events_ends_with_its_token(self) -> None:
        self.client.request("GET", "/v1/events", Authorization=f"Bearer {TOKENS['read']}")
        self.assertIn(b"200 OK", self.client.heard())
        del self.file.tokens["the-read"]
        self.shared.rights.read_again()
        self.assertTrue(self.client.transport.disconnected)

    def test_request_that_waits_for_a_lock_ends_with_its_token(self) -> None:
        self.as_("admin", "POST", "/v1/locks/door", Pfsb_Client="holder")
        waiter = Connection(self.site, self.clock)
        waiter.request(
            "POST",
            "/v1/locks/door",
            {"wait": 100},
            Pfsb_Client="waiter",
            Authorization=f"Bearer {TOKENS['write']}",
        )
        self.assertEqual(waiter.heard(), b"")
        del self.file.tokens["the-write"]
        self.shared.rights.read_again()
        self.assertTrue(waiter.transport.disconnected)

    def test_client_that_hangs_up_while_its_token_is_checked(self) -> None:
        self.client.request("GET", "/v1/kv", Authorization=f"Bearer {WRONG}")
        self.client.hang_up()
        self.clock.advance(20)


class WithoutTokenFileTests(HTTPCase):
    def test_header_is_not_looked_at(self) -> None:
        """Without a token file, the header Authorization is not looked at, whatever a proxy has added."""
        for value in ("Basic YTpi", "Bearer x"):
            self.assertEqual(self.ask("PUT", "/v1/kv/a", {"value": "1"}, Authorization=value).status, 200)

    def test_loopback_administers_and_other_machines_do_not(self) -> None:
        self.assertEqual(self.ask("POST", "/v1/faults", {"fault": ["HEAL"]}).status, 200)
        elsewhere = Connection(self.site, self.clock, "10.0.0.1")
        self.assertEqual(elsewhere.ask("PUT", "/v1/kv/a", {"value": "1"}).status, 200)
        for path in ("/v1/faults", "/v1/snapshot", "/v1/backup"):
            reply = elsewhere.ask("POST", path, {"fault": ["HEAL"]})
            self.assertRefused(reply, 403, "DENIED")
            self.assertIn("pfsb token FILE NAME --role admin", reply.content["text"])

    def test_proxy_on_this_machine_does_not_administer_for_others(self) -> None:
        """A request from this machine whose headers say that a proxy has passed it on has no right to administer; no
        header gives that right."""
        for header in ("X_Forwarded_For", "Forwarded", "Via", "X_Real_IP", "X_Forwarded_Proto"):
            reply = self.ask("POST", "/v1/faults", {"fault": ["HEAL"]}, **{header: "127.0.0.1"})
            self.assertRefused(reply, 403, "DENIED")
        elsewhere = Connection(self.site, self.clock, "10.0.0.1")
        reply = elsewhere.ask("POST", "/v1/faults", {"fault": ["HEAL"]}, X_Forwarded_For="127.0.0.1")
        self.assertRefused(reply, 403, "DENIED")
