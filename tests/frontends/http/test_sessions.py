"""Sessions over HTTP: commands that run exactly once, and locks. See docs/http.rst."""

from __future__ import annotations

from pfsb.applications.interfaces import Refused
from pfsb.config.config import Limits
from pfsb.frontends.http.sessions import ANONYMOUS_SESSIONS_MAX
from tests.frontends.http.http_client import Connection, HTTPCase


class ExactlyOnceTests(HTTPCase):
    def test_repeated_number_gets_the_same_answer(self) -> None:
        """A command with a repeated number gets the same answer, and is not run again."""
        who = {"Pfsb_Client": "alice", "Pfsb_Number": "3"}
        first = self.ask("PATCH", "/v1/kv/n", {"op": "incr"}, **who)
        again = self.ask("PATCH", "/v1/kv/n", {"op": "incr"}, **who)
        self.assertEqual(first.content, again.content)
        self.assertEqual(self.commands(), [("INCR", b"n", 1)])

    def test_repeated_at_another_server(self) -> None:
        """A command that is repeated at another server, which takes the session over, gets the same answer."""
        _, elsewhere = self.make_site(server_id=1)
        who = {"Pfsb_Client": "alice", "Pfsb_Number": "1"}
        first = self.ask("PATCH", "/v1/kv/n", {"op": "incr"}, **who)
        again = Connection(elsewhere, self.clock).ask("PATCH", "/v1/kv/n", {"op": "incr"}, **who)
        self.assertEqual((first.headers["Pfsb-Session"], again.headers["Pfsb-Session"]), ("new", "resumed"))
        self.assertEqual(first.content, again.content)
        self.assertEqual(len(self.commands()), 1)

    def test_client_that_comes_back(self) -> None:
        """When a client goes from server to server and comes back, each server takes the session over, and none keeps
        an old one."""
        _, elsewhere = self.make_site(server_id=1)
        other = Connection(elsewhere, self.clock)
        for number, client in enumerate((self.client, other, self.client, other), 1):
            reply = client.ask("PUT", "/v1/kv/n", {"value": "1"}, Pfsb_Client="alice", Pfsb_Number=str(number))
            self.assertEqual(reply.headers["Pfsb-Session"], "new" if number == 1 else "resumed")
        self.assertEqual((len(self.site.sessions), len(elsewhere.sessions)), (0, 1))

    def test_hello_once_while_requests_come(self) -> None:
        """Requests that come while HELLO is under way wait for that HELLO."""
        self.server.local_clients.hold = True
        others = [Connection(self.site, self.clock) for _ in range(3)]
        for other in others:
            other.request("PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Client="alice")
        self.server.local_clients.release()
        self.server.local_clients.release()
        replies = [other.reply() for other in others]
        self.assertEqual([reply.headers["Pfsb-Number"] for reply in replies], ["1", "2", "3"])
        self.server.local_clients.hold = False
        self.content("GET", "/v1/kv/a", None, Pfsb_Client="alice")
        (session,) = self.server.local_clients.connections
        self.assertEqual(session.calls, ["hello alice 10", *["submit"] * 4])

    def test_numbers_that_the_server_chooses(self) -> None:
        """The numbers that the server chooses continue those of the client, and the client is told; questions take no
        number."""
        headers = {"Pfsb_Client": "alice"}
        self.assertEqual(self.ask("PUT", "/v1/kv/a", {"value": "1"}, **headers).headers["Pfsb-Number"], "1")
        self.ask("PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Number="7", **headers)
        self.assertNotIn("Pfsb-Number", self.ask("GET", "/v1/kv/a", **headers).headers)
        self.assertEqual(self.ask("PUT", "/v1/kv/a", {"value": "1"}, **headers).headers["Pfsb-Number"], "8")
        self.assertEqual(self.content("POST", "/v1/session", None, **headers)["last"], 8)

    def test_wrong_headers(self) -> None:
        """Wrong headers are refused with BADREQUEST, and open no session."""
        wrong: list[dict[str, str]] = [
            {"Pfsb_Client": "~1"},
            {"Pfsb_Client": "a b"},
            {"Pfsb_Client": "x" * 65},
            {"Pfsb_Client": "alice", "Pfsb_Number": "0"},
            {"Pfsb_Client": "alice", "Pfsb_Number": "1.5"},
            {"Pfsb_Client": "alice", "Pfsb_Number": str(2**63)},
            {"Pfsb_Client": "alice", "Pfsb_Ttl": "0"},
            {"Pfsb_Client": "alice", "Pfsb_Ttl": "3601"},
            {"Pfsb_Revision": "-1"},
            {"Pfsb_Number": "1"},
        ]
        for headers in wrong:
            self.assertRefused(self.ask("PUT", "/v1/kv/a", {"value": "1"}, **headers), 400, "BADREQUEST")
        self.assertEqual(self.server.local_clients.connections, [])

    def test_connection_opens_so_many_sessions(self) -> None:
        """A connection may open so many sessions; a client that makes up ids is then told to connect anew. Ids that the
        connection has used, and open sessions, still work."""
        _, site = self.make_site(Limits(opened_sessions=2))
        client, other = Connection(site, self.clock), Connection(site, self.clock)
        for name in ("alice", "bob", "alice"):
            self.assertEqual(client.ask("POST", "/v1/session", None, Pfsb_Client=name).status, 200)
        refused = client.ask("PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Client="carol")
        self.assertRefused(refused, 429, "BUSY")
        self.assertEqual(refused.content["fate"], "none")
        self.assertEqual(client.ask("DELETE", "/v1/session", None, Pfsb_Client="bob").status, 200)
        self.assertEqual(client.ask("POST", "/v1/session", None, Pfsb_Client="bob").status, 200)
        self.assertEqual(other.ask("POST", "/v1/session", None, Pfsb_Client="carol").status, 200)
        self.assertEqual(client.ask("POST", "/v1/session", None, Pfsb_Client="carol").status, 200)

    def test_window_of_a_session(self) -> None:
        """Beyond `session_window` unanswered requests the status is 429, with the fate unknown for a number in use."""
        server, site = self.make_site(Limits(session_window=2))
        clients = [Connection(site, self.clock) for _ in range(4)]
        clients[0].ask("POST", "/v1/session", None, Pfsb_Client="alice")
        server.local_clients.hold = True
        for client in clients[:3]:
            client.request("PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Client="alice")
        self.assertRefused(clients[2].reply(), 429, "BUSY")
        reply = clients[3].ask("PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Client="alice", Pfsb_Number="1")
        self.assertRefused(reply, 429, "BUSY", "unknown")

    def test_session_that_cannot_be_opened(self) -> None:
        """If the session cannot be opened, the request has not run; its number may have run at another server. The next
        request tries again."""
        self.server.local_clients.refuse = Refused("UNAVAILABLE", "no majority has answered", fate="unknown")
        headers = {"Pfsb_Client": "alice"}
        self.assertRefused(self.ask("PUT", "/v1/kv/a", {"value": "1"}, **headers), 503, "UNAVAILABLE")
        reply = self.ask("PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Number="1", **headers)
        self.assertRefused(reply, 503, "UNAVAILABLE", "unknown")
        self.server.local_clients.refuse = None
        self.content("PUT", "/v1/kv/a", {"value": "1"}, **headers)
        self.assertEqual([each.calls[-1] for each in self.server.local_clients.connections[:2]], ["disconnected"] * 2)

    def test_too_many_sessions(self) -> None:
        """A server opens as many sessions over HTTP as it may have connections."""
        _, site = self.make_site(Limits(connections=1))
        client = Connection(site, self.clock)
        self.assertEqual(client.ask("POST", "/v1/session", None, Pfsb_Client="alice").status, 200)
        self.assertRefused(client.ask("POST", "/v1/session", None, Pfsb_Client="bob"), 429, "BUSY")


class NamedSessionTests(HTTPCase):
    def test_closed_when_no_request_has_come_for_its_ttl(self) -> None:
        """A session is closed when no request of its client has come for its ttl; each request begins the time anew."""
        self.ask("POST", "/v1/locks/a", None, Pfsb_Client="alice", Pfsb_Ttl="5")
        (session,) = self.server.local_clients.connections
        for _ in range(3):
            self.clock.advance(4)
            self.ask("GET", "/v1/locks", None, Pfsb_Client="alice")
        self.clock.advance(4.9)
        self.assertNotIn("bye", session.calls)
        self.clock.advance(0.1)
        self.assertEqual(session.calls[-2:], ["bye", "disconnected"])
        self.assertEqual(len(self.site.sessions), 0)

    def test_kept_while_a_request_waits(self) -> None:
        """A session is kept while a request of its client waits for a lock."""
        self.ask("POST", "/v1/locks/a", None, Pfsb_Client="alice")
        waiting = Connection(self.site, self.clock)
        waiting.request("POST", "/v1/locks/a", {"wait": 600}, Pfsb_Client="bob")
        self.clock.advance(60)
        self.assertEqual(waiting.heard(), b"")
        self.assertNotIn("bye", self.server.local_clients.connections[1].calls)
        waiting.hang_up()
        self.clock.advance(10)
        self.assertEqual(self.server.local_clients.connections[1].calls[-2:], ["bye", "disconnected"])

    def test_closed_when_the_client_says_so(self) -> None:
        """When a client has closed its session, its next request opens a new one."""
        self.content("POST", "/v1/session", None, Pfsb_Client="alice")
        self.assertEqual(self.content("DELETE", "/v1/session", None, Pfsb_Client="alice"), {"client": "alice"})
        self.assertEqual(self.server.local_clients.connections[0].calls, ["hello alice 10", "bye", "disconnected"])
        self.content("POST", "/v1/session", None, Pfsb_Client="alice")
        self.assertEqual(len(self.server.local_clients.connections), 2)

    def test_taken_over_while_a_request_is_under_way(self) -> None:
        """If the session is taken over while a request is under way, the request gets its own answer, and the session
        is released afterwards."""
        self.content("POST", "/v1/session", None, Pfsb_Client="alice")
        self.server.local_clients.hold = True
        self.client.request("PUT", "/v1/kv/a", {"value": "1"}, Pfsb_Client="alice")
        _, elsewhere = self.make_site(server_id=1)
        Connection(elsewhere, self.clock).ask("POST", "/v1/session", None, Pfsb_Client="alice")
        (session,) = self.server.local_clients.connections
        self.assertNotIn("disconnected", session.calls)
        self.server.local_clients.release()
        self.assertEqual(self.client.reply().status, 200)
        self.assertEqual(session.calls[-1], "disconnected")


class AnonymousSessionTests(HTTPCase):
    def test_as_few_sessions_as_will_do(self) -> None:
        """Requests that come one by one share one anonymous session; many at a time share a few."""
        for _ in range(5):
            self.content("PUT", "/v1/kv/a", {"value": "1"})
        self.assertEqual(len(self.server.local_clients.connections), 1)
        self.server.local_clients.hold = True
        for _ in range(3 * ANONYMOUS_SESSIONS_MAX):
            Connection(self.site, self.clock).request("PUT", "/v1/kv/a", {"value": "1"})
        self.assertEqual(len(self.server.local_clients.connections), ANONYMOUS_SESSIONS_MAX)
        self.assertEqual({each.submitted for each in self.server.local_clients.connections[1:]}, {3})

    def test_expired_anonymous_session_is_replaced(self) -> None:
        """When an anonymous session has expired, the commands under way in it are answered, and new ones go into
        another session."""
        self.server.local_clients.hold = True
        self.client.request("PUT", "/v1/kv/a", {"value": "1"})
        (first,) = self.server.local_clients.connections
        first.end("NOSESSION", "expired")
        other = Connection(self.site, self.clock)
        other.request("PUT", "/v1/kv/b", {"value": "1"})
        self.server.local_clients.release()
        self.assertEqual((self.client.reply().status, other.reply().status), (200, 200))
        self.assertEqual(first.calls, ["submit", "disconnected"])
        self.assertEqual(len(self.server.local_clients.connections), 2)


class LockTests(HTTPCase):
    def test_a_lock_needs_a_name(self) -> None:
        """A lock needs a client id: an anonymous session, which many clients share, cannot hold a lock for one of
        them."""
        self.assertRefused(self.ask("POST", "/v1/locks/a"), 400, "BADREQUEST")
        self.assertRefused(self.ask("DELETE", "/v1/locks/a"), 400, "BADREQUEST")
        self.assertRefused(self.ask("DELETE", "/v1/session"), 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])

    def test_lock_that_another_client_holds(self) -> None:
        """A lock that another client holds gets status 423, at once or after the wait. The client that holds it gets
        the same token again."""
        token = self.content("POST", "/v1/locks/a%2Fb", None, Pfsb_Client="alice")["token"]
        self.assertEqual(self.content("POST", "/v1/locks/a%2Fb", None, Pfsb_Client="alice")["token"], token)
        self.assertRefused(self.ask("POST", "/v1/locks/a%2Fb", None, Pfsb_Client="bob"), 423, "HELD")
        self.assertRefused(self.ask("POST", "/v1/locks/a%2Fb", {"wait": 0}, Pfsb_Client="bob"), 423, "TIMEOUT")
        self.assertRefused(self.ask("DELETE", "/v1/locks/a%2Fb", None, Pfsb_Client="bob"), 409, "NOTHELD")
        wrong = self.ask("DELETE", f"/v1/locks/a%2Fb?token={token + 1}", None, Pfsb_Client="alice")
        self.assertRefused(wrong, 409, "NOTHELD")
        (row,) = self.content("GET", "/v1/locks")["rows"]
        self.assertEqual((row["name"], row["holder"], row["token"]), ("a/b", "alice", token))
        self.content("DELETE", f"/v1/locks/a%2Fb?token={token}", None, Pfsb_Client="alice")
        self.assertEqual(self.content("GET", "/v1/locks")["rows"], [])

    def test_lock_is_answered_when_it_is_granted(self) -> None:
        """A client that waits for a lock is answered as soon as the lock is granted."""
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="alice")
        bob = Connection(self.site, self.clock)
        bob.request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="bob")
        self.assertEqual(bob.heard(), b"")
        self.content("DELETE", "/v1/locks/a", None, Pfsb_Client="alice")
        self.assertEqual(bob.reply().content["name"], "a")

    def test_waits_that_make_no_sense(self) -> None:
        """A wait that is no time is refused before the command is ordered."""
        for wait in (b"-1", b"1e400", b"9" * 400, b'"1"', b"true", b"1e30"):
            body = b'{"wait":' + wait + b"}"
            self.assertRefused(self.ask("POST", "/v1/locks/a", body, Pfsb_Client="alice"), 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])
