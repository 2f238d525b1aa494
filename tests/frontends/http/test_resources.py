"""Each resource of the HTTP port, and its answers to requests that are wrong. See docs/http.rst."""

from __future__ import annotations

from functools import partial
from typing import Any, cast
from urllib.parse import quote

from attrs import evolve

from pfsb.applications.interfaces import Refused
from pfsb.config.config import Limits
from pfsb.frontends.http import protocol
from pfsb.frontends.http.request import DISCARDED_BYTES_MAX
from pfsb.frontends.http.routes import ROUTES
from pfsb.frontends.http.server_info import DISK_TROUBLES, description
from pfsb.frontends.stream.hang_ups import PAUSED_LOOK_SECONDS, HangUp
from tests.frontends.http.http_client import Connection, HTTPCase


class KeyValueTests(HTTPCase):
    def test_put_get_delete(self) -> None:
        """A value is written, is read with its revision, and is deleted; the header Pfsb-Revision follows the
        revision."""
        self.assertEqual(self.content("PUT", "/v1/kv/colour", {"value": "blue"}), {"revision": 1})
        reply = self.ask("GET", "/v1/kv/colour")
        self.assertEqual(reply.content, {"key": "colour", "value": "blue", "revision": 1})
        self.assertEqual(reply.headers["Pfsb-Revision"], str(self.cluster.revision))
        self.assertEqual(self.content("DELETE", "/v1/kv/colour")["deleted"], 1)
        self.assertRefused(self.ask("GET", "/v1/kv/colour"), 404, "NOTFOUND")

    def test_keys_of_any_characters(self) -> None:
        """A key may have any characters, percent-encoded: slashes, spaces, other scripts, or the form of an option."""
        for key in ("a/b", "a b", "ключ", "?&#%", "limit=3", "nil", "..", "+", '"quoted"', "\t"):
            path = f"/v1/kv/{quote(key, safe='')}"
            self.content("PUT", path, {"value": key})
            self.assertEqual(self.content("GET", path)["value"], key)
            self.assertEqual(self.commands()[-2], ("PUT", key.encode(), key.encode()))

    def test_patch_operations(self) -> None:
        """Each operation of PATCH does what the command of that name does in the line protocol."""
        self.assertEqual(self.content("PATCH", "/v1/kv/n", {"op": "incr"})["value"], "1")
        self.assertEqual(self.content("PATCH", "/v1/kv/n", {"op": "incr", "by": -5.0})["value"], "-4")
        self.assertEqual(self.content("PATCH", "/v1/kv/t", {"op": "append", "text": "ab"})["value"], "ab")
        self.assertEqual(self.content("PATCH", "/v1/kv/t", {"op": "puthash", "value": "c"})["previous"], "ab")
        self.content("PATCH", "/v1/kv/c", {"op": "cas", "old": None, "new": "nil"})
        self.content("PATCH", "/v1/kv/c", {"op": "cas", "old": "nil", "new": "x"})
        self.assertRefused(self.ask("PATCH", "/v1/kv/c", {"op": "cas", "old": None, "new": "y"}), 409, "CONFLICT")
        self.assertEqual(self.content("GET", "/v1/kv/c")["value"], "x")

    def test_many_at_once(self) -> None:
        """POST writes several keys, either all or none; GET shows a range, some keys, or only their names."""
        self.content("POST", "/v1/kv", {"put": {"a": "1", "b": "2", "limit=1": "3"}})
        self.assertEqual(len(self.commands()), 1)
        rows = self.content("GET", "/v1/kv?from=a&to=c")
        self.assertEqual([row["value"] for row in rows["rows"]], ["1", "2"])
        self.assertEqual(rows["count"], 2)
        self.assertEqual(self.content("GET", "/v1/kv?limit=1&values=no")["rows"], [{"key": "a"}])
        named = self.content("GET", "/v1/kv?key=limit%3D1&key=a")
        self.assertEqual([row["key"] for row in named["rows"]], ["limit=1", "a"])
        self.assertEqual(self.content("GET", "/v1/kv?from=x"), {"count": 0, "rows": []})

    def test_wrong_bodies_and_queries(self) -> None:
        """Wrong bodies and queries are refused with BADREQUEST before anything is ordered."""
        wrong: list[tuple[str, str, object]] = [
            ("PUT", "/v1/kv/a", b""),
            ("PUT", "/v1/kv/a", b"{"),
            ("PUT", "/v1/kv/a", b"\xff"),
            ("PUT", "/v1/kv/a", b"[" * 20_000),
            ("PUT", "/v1/kv/a", ["value"]),
            ("PUT", "/v1/kv/a", {"value": 1}),
            ("PUT", "/v1/kv/a", {"value": "1", "vlaue": "2"}),
            ("PUT", "/v1/kv/a", b'{"value":"1","value":"2"}'),
            ("PUT", "/v1/kv/a", b'{"value":"\\ud800"}'),
            ("PUT", "/v1/kv/", {"value": "1"}),
            ("PUT", "/v1/kv/%zz", {"value": "1"}),
            ("PUT", "/v1/kv/100%", {"value": "1"}),
            ("PUT", "/v1/kv/%f", {"value": "1"}),
            ("PUT", "v1/kv/a", {"value": "1"}),
            ("PUT", "localhost:80", {"value": "1"}),
            ("PUT", "/v1/kv/a?limit=1", {"value": "1"}),
            ("PATCH", "/v1/kv/a", {"op": "add"}),
            ("PATCH", "/v1/kv/a", {"op": "incr", "by": 1.5}),
            ("PATCH", "/v1/kv/a", {"op": "incr", "by": True}),
            ("PATCH", "/v1/kv/a", {"op": "incr", "by": 2**63}),
            ("PATCH", "/v1/kv/a", b'{"op":"incr","by":' + b"9" * 5_000 + b"}"),
            ("PATCH", "/v1/kv/a", b'{"op":"incr","by":NaN}'),
            ("PATCH", "/v1/kv/a", {"op": "cas", "new": "x"}),
            ("POST", "/v1/kv", {"put": {}}),
            ("POST", "/v1/kv", {"put": {"a": None}}),
            ("DELETE", "/v1/kv/a", {"value": "1"}),
            ("GET", "/v1/kv/a?read=fresh", None),
            ("GET", "/v1/kv/a?read=stale&read=stale", None),
            ("GET", "/v1/kv?limit=0", None),
            ("GET", "/v1/kv?values=maybe", None),
            ("GET", "/v1/kv?from=%zz", None),
            ("GET", "/v1/kv?from=%", None),
            ("GET", "v1/kv/a", None),
            ("GET", "?from=a", None),
            ("GET", "ftp://localhost/v1/kv", None),
        ]
        for method, path, body in wrong:
            self.assertRefused(self.ask(method, path, body), 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])

    def test_body_that_does_not_say_that_it_is_json(self) -> None:
        """A body that does not say that it is JSON gets status 415: a form on a foreign page must not be able to
        write."""
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            reply = self.ask("POST", "/v1/chat", {"text": "hello"}, Content_Type=kind)
            self.assertRefused(reply, 415, "MEDIATYPE")
        self.assertEqual(self.commands(), [])

    def test_too_large_body_is_read_and_refused(self) -> None:
        """A body that is too large is read to its end and refused; the connection goes on."""
        limit = self.server.config.limits.command_bytes
        self.assertRefused(self.ask("PUT", "/v1/kv/a", b"x" * (limit + 1)), 413, "TOOLARGE")
        self.assertRefused(self.ask("PUT", "/v1/kv/" + "k" * 1_025, {"value": ""}), 413, "TOOLARGE")
        self.content("PUT", "/v1/kv/a", {"value": "x" * (limit - 20)})

    def test_endless_body_is_cut_off(self) -> None:
        """An endless body is cut off: after a megabyte the request is refused and the connection closed, and nothing of
        the body is kept."""
        self.client.send(b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n")
        for _ in range(17):
            self.client.send(b"x" * 65_536)
        self.assertRefused(self.client.reply(), 413, "TOOLARGE")
        self.assertTrue(self.client.transport.disconnecting)


class ReadLevelTests(HTTPCase):
    def test_only_linearizable_reads_go_through_the_log(self) -> None:
        """Only linearizable reads go through the log; this server answers read=sequential and read=stale from its own
        state."""
        self.ask("GET", "/v1/kv?read=linearizable")
        self.assertEqual(self.server.local_clients.connections[0].calls, ["submit"])
        self.ask("GET", "/v1/kv?read=sequential")
        self.ask("GET", "/v1/kv?read=stale")
        self.assertEqual(self.server.local_clients.connections[0].calls, ["submit", "ask", "ask"])

    def test_sequential_read_waits_for_the_revision_that_was_seen(self) -> None:
        """A sequential read waits until this server has reached the revision that the client has seen."""
        self.content("PUT", "/v1/kv/a", {"value": "1"})
        self.server.revisions.behind = 1
        self.client.request("GET", "/v1/kv/a?read=sequential", Pfsb_Revision="1")
        self.assertEqual(self.client.heard(), b"")
        revision, seconds, reached = self.server.revisions.waits[0]
        self.assertEqual((revision, seconds), (1, self.server.config.limits.request_seconds))
        reached(True)
        self.assertEqual(self.client.reply().content["value"], "1")

    def test_sequential_read_that_waits_too_long(self) -> None:
        """A sequential read that has waited for `request_seconds` gets status 503: another server may have reached the
        revision."""
        self.client.request("GET", "/v1/kv/a?read=sequential", Pfsb_Revision="9")
        self.server.revisions.waits[0][2](False)
        self.assertRefused(self.client.reply(), 503, "UNAVAILABLE")

    def test_stale_read_waits_for_nothing(self) -> None:
        """A stale read is answered at once, whichever revision the client has seen."""
        self.assertRefused(self.ask("GET", "/v1/kv/a?read=stale", Pfsb_Revision="9"), 404, "NOTFOUND")


class ServerInfoTests(HTTPCase):
    def test_status_and_servers(self) -> None:
        """The resources for status and servers have what STATUS and SERVERS of the line protocol have, as JSON."""
        self.assertEqual(self.content("GET", "/v1/status"), self.server.status())
        servers = self.content("GET", "/v1/servers")
        self.assertEqual((servers["count"], servers["epoch"], servers["rows"][0]["alive"]), (4, 0, True))
        self.assertEqual(self.content("GET", "/v1/digest?seq=0")["seq"], 0)
        self.assertEqual(self.ask("GET", "/metrics").body, b"pfsb_turns_total 1\n")
        self.assertIn(b"server 2 of cluster four", self.ask("GET", "/").body)

    def test_servers_are_added_moved_and_removed(self) -> None:
        """Servers are added, moved and removed by requests; each answer has the epoch that the change has begun, and
        wrong ids and bodies are refused."""
        added = self.content("POST", "/v1/servers", {"id": 4, "address": "127.0.0.1:7404"})
        self.assertEqual(added, {"epoch": 1})
        self.assertEqual(self.content("PATCH", "/v1/servers/1", {"address": "[::1]:7401"}), {"epoch": 2})
        self.assertEqual(self.content("DELETE", "/v1/servers/2"), {"epoch": 3})
        replacing = {"id": 5, "address": "127.0.0.1:7405", "replaces": 3}
        self.assertEqual(self.content("POST", "/v1/servers", replacing), {"epoch": 4})
        self.assertEqual(self.server.changes.asked.pop(), ("replace", 3, 5, "127.0.0.1:7405"))
        self.assertRefused(self.ask("POST", "/v1/servers", {**replacing, "replaces": -1}), 400, "BADREQUEST")
        changes = self.server.changes
        self.assertEqual(changes.asked, [("add", 4, "127.0.0.1:7404"), ("move", 1, "[::1]:7401"), ("remove", 2)])
        self.assertRefused(self.ask("POST", "/v1/servers", {"address": "127.0.0.1:7404"}), 400, "BADREQUEST")
        learner = {"id": 5, "address": "127.0.0.1:7405", "learner": True}
        self.assertEqual(self.content("POST", "/v1/servers", learner), {"epoch": 4})
        self.assertEqual(changes.asked[-1], ("add", 5, "127.0.0.1:7405", "permanent"))
        for wrong in ({"learner": "yes"}, {"replaces": 1}):
            self.assertRefused(self.ask("POST", "/v1/servers", {**learner, **wrong}), 400, "BADREQUEST")
        self.assertRefused(self.ask("POST", "/v1/servers", {"id": 4}), 400, "BADREQUEST")
        self.assertRefused(self.ask("DELETE", "/v1/servers/two"), 400, "BADREQUEST")
        self.assertRefused(self.ask("DELETE", "/v1/servers/65536"), 400, "BADREQUEST")
        changes.refusal = Refused("CONFLICT", "another change is under way")
        self.assertRefused(self.ask("DELETE", "/v1/servers/2"), 409, "CONFLICT")
        self.assertEqual(len(changes.asked), 5)

    def test_ready_with_a_leader_and_a_majority_only(self) -> None:
        """A server is ready only with a leader and a majority, and healthy in any case: a load balancer asks for
        readiness, a supervisor for health."""
        self.assertEqual(self.ask("GET", "/readyz").status, 200)
        self.server.dead = {0, 1}
        self.assertRefused(self.ask("GET", "/readyz"), 503, "UNAVAILABLE")
        self.server.dead = {1}
        self.assertEqual(self.ask("GET", "/readyz").status, 200)
        self.server.leader_id = None
        self.assertRefused(self.ask("GET", "/readyz"), 503, "UNAVAILABLE")
        self.assertEqual(self.ask("GET", "/healthz").status, 200)

    def test_not_ready_while_it_is_no_member(self) -> None:
        """A server that has not joined yet, or was removed, is not ready, and its answer says why: no election would
        make it ready."""
        server: Any = self.server
        server.no_member = Refused("UNAVAILABLE", "server 2 was removed from the cluster")
        answer = self.ask("GET", "/readyz")
        self.assertRefused(answer, 503, "UNAVAILABLE")
        self.assertIn("was removed", answer.content["text"])

    def test_not_ready_while_servers_differ(self) -> None:
        """A server is not ready while servers differ (Departure 40): it refuses changes, so a load balancer should send
        them elsewhere."""
        self.server.differs_from = [0, 3]
        answer = self.ask("GET", "/readyz")
        self.assertRefused(answer, 503, "UNAVAILABLE")
        self.assertIn(b"executed otherwise than 0, 3", answer.body)

    def test_not_ready_while_the_disk_hangs_or_is_full(self) -> None:
        """A server is not ready while its disk hangs or is full (Departures 44 and 45): it refuses clients, so a load
        balancer should send them elsewhere."""
        for self.server.disk_trouble, text in DISK_TROUBLES.items():
            answer = self.ask("GET", "/readyz")
            self.assertRefused(answer, 503, "UNAVAILABLE")
            self.assertIn(text.encode(), answer.body)

    def test_not_ready_while_it_stops(self) -> None:
        """A server that stops is not ready, and refuses commands, with their fate."""
        self.server.local_clients.draining = True
        self.assertRefused(self.ask("GET", "/readyz"), 503, "UNAVAILABLE")
        self.assertRefused(self.ask("PUT", "/v1/kv/a", {"value": "1"}), 503, "SHUTDOWN")
        self.assertRefused(self.ask("GET", "/v1/kv/a?read=stale"), 503, "SHUTDOWN")

    def test_digest_that_does_not_come(self) -> None:
        """A digest of a slot that does not come gets status 503 after `request_seconds`."""
        self.server.local_clients.silent = True
        self.client.request("GET", "/v1/digest?seq=812")
        self.clock.advance(self.server.config.limits.request_seconds)
        self.assertRefused(self.client.reply(), 503, "UNAVAILABLE")

    def test_another_leader(self) -> None:
        """A request for another leader names the server in its body, as an integer."""
        self.assertEqual(self.content("POST", "/v1/leader", {"server": 2}), {"leader": 2, "view": 8, "changed": "yes"})
        self.assertRefused(self.ask("POST", "/v1/leader", {"server": 9}), 404, "NOTFOUND")
        for body in ({}, {"server": "2"}, {"server": True}, {"server": 2, "wait": 1}):
            self.assertRefused(self.ask("POST", "/v1/leader", body), 400, "BADREQUEST")

    def test_faults_only_where_they_are_allowed(self) -> None:
        """Without `faults: true` the resource of faults is refused with DENIED; with it, the resource does what FAULT
        does."""
        self.content("POST", "/v1/faults", {"fault": ["SKIP", "9"]})
        self.assertEqual(self.server.skip, {9})
        self.server.config = evolve(self.server.config, faults=False)
        self.assertRefused(self.ask("POST", "/v1/faults", {"fault": ["HEAL"]}), 403, "DENIED")

    def test_description_names_every_resource_and_method(self) -> None:
        """The OpenAPI description has the same resources and methods as the table of routes."""
        described = {
            path: {method.upper() for method in item if method != "parameters"}
            for path, item in description()["paths"].items()
        }
        self.assertEqual(described, {path: set(methods) for path, methods in ROUTES.items()})
        self.assertEqual(self.content("GET", "/v1/openapi.json"), description())

    def test_description_has_the_refusals_that_no_tester_provokes(self) -> None:
        """For each operation the description names 405 and 400, 415 if the operation takes a body, and 429 and 503 if
        its command goes to the log."""
        for path, item in description()["paths"].items():
            for method, operation in item.items():
                described = set(operation["responses"])
                self.assertLessEqual({"200", "400", "405", "413"}, described, path)
                if method != "get":
                    self.assertLessEqual({"404", "409", "415", "429", "503"}, described, path)

    def test_methods_that_a_resource_does_not_take(self) -> None:
        """A method that a resource does not take gets status 405 with the header Allow. HEAD is GET without the body,
        and is refused for streams."""
        reply = self.ask("POST", "/v1/kv/a")
        self.assertRefused(reply, 405, "METHOD")
        self.assertEqual(reply.headers["Allow"], "GET, PUT, DELETE, PATCH, HEAD")
        head = self.ask("HEAD", "/healthz")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["Content-Length"], "15")
        self.assertEqual(self.ask("HEAD", "/v1/events").status, 405)
        self.assertRefused(self.ask("GET", "/v1/kv/a/b"), 404, "UNKNOWN")

    def test_refusals_keep_their_fate(self) -> None:
        """A refusal tells whether the command has run, as far as the server knows."""
        for code, status in (("UNAVAILABLE", 503), ("BUSY", 429), ("REPLACED", 409), ("ODD", 409)):
            self.server.local_clients.refuse = Refused(code, "a sentence about it", fate="unknown")
            self.assertRefused(self.ask("PUT", "/v1/kv/a", {"value": "1"}), status, code, "unknown")


class ConnectionTests(HTTPCase):
    def test_one_connection_too_many(self) -> None:
        """A connection beyond the limit gets a 503 and is closed; when another one has ended, there is room again."""
        _, site = self.make_site(Limits(connections=1))
        first = Connection(site, self.clock)
        second = Connection(site, self.clock)
        self.assertRefused(second.reply(), 503, "BUSY")
        self.assertTrue(second.transport.disconnecting)
        second.hang_up()
        first.hang_up()
        self.assertEqual(Connection(site, self.clock).ask("GET", "/healthz").status, 200)

    def test_client_that_is_gone_behind_a_request_that_waits(self) -> None:
        """The end of a client behind a request that waits is noticed, although nothing more is read. The server does
        not look when no request waits."""
        looks: list[HangUp | None] = [None, None, HangUp.GONE]
        self.patch(protocol, "hang_up_of", lambda _: looks.pop(0))
        self.content("GET", "/v1/status")
        self.clock.advance(PAUSED_LOOK_SECONDS)
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        waiting = Connection(self.site, self.clock)
        for _ in range(2):
            waiting.request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="alice")
        self.clock.pump([PAUSED_LOOK_SECONDS] * 2)
        self.assertEqual((len(looks), waiting.transport.disconnecting), (1, False))
        self.clock.advance(PAUSED_LOOK_SECONDS)
        self.assertTrue(waiting.transport.disconnecting)

    def test_body_that_is_far_too_large_is_refused_once(self) -> None:
        """A body that is far too large is refused once, even if much more of it, or its end and another request, have
        arrived by then."""
        head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        size = DISCARDED_BYTES_MAX + 1
        chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (size, b"x" * size) + b"1\r\nx\r\n" * 100
        whole = b"Content-Length: %d\r\n\r\n%s" % (size, b"x" * size)
        for body in (chunks, whole + b"DELETE /v1/kv/b HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            client = Connection(self.site, self.clock)
            client.send(head + body)
            said = client.heard()
            self.assertEqual((said.count(b"HTTP/1.1 413"), said.count(b"HTTP/1.1")), (1, 1))
            self.assertTrue(client.transport.disconnecting)
        self.assertEqual(self.commands(), [])

    def test_client_that_closed_its_side_gets_its_answers(self) -> None:
        """A client that closed its sending side gets the answers to all its requests, and then the connection ends; an
        incomplete request behind them is ignored."""
        self.server.local_clients.hold = True
        self.client.request("PUT", "/v1/kv/a", {"value": "1"})
        self.client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/kv/a HTTP/1.1\r\nHo")
        self.client.close_side()
        self.assertFalse(self.client.transport.disconnecting)
        self.server.local_clients.release()
        self.clock.advance(0)
        self.assertEqual(self.client.heard().count(b"HTTP/1.1 200 OK"), 2)
        self.assertTrue(self.client.transport.disconnecting)

    def test_client_that_closed_its_side_without_a_request(self) -> None:
        for sent in (b"", b"GET /heal", b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"):
            client = Connection(self.site, self.clock)
            client.send(sent)
            client.close_side()
            self.assertTrue(client.transport.disconnecting, sent)
            self.assertEqual(client.heard(), b"")

    def test_answer_to_a_client_that_closed_its_side_does_not_come(self) -> None:
        """If answers to a client that closed its side do not come, the connection ends, since the client may be gone;
        each answer begins the time anew."""
        self.server.local_clients.hold = True
        for _ in range(2):
            self.client.request("PUT", "/v1/kv/a", {"value": "1"})
        self.client.close_side()
        seconds = self.server.config.limits.request_seconds
        self.clock.advance(seconds)
        self.server.local_clients.release()
        self.server.local_clients.hold = True
        self.assertIn(b"200 OK", self.client.heard())
        self.clock.advance(seconds)
        self.assertFalse(self.client.transport.disconnecting)
        self.clock.advance(protocol.LEAVE_SECONDS + 1)
        self.assertTrue(self.client.transport.disconnecting)
        self.client.hang_up()

    def test_client_that_closed_its_side_reads_its_last_answer_slowly(self) -> None:
        """A client that closed its side may read its last answer slowly, and is dropped when it reads nothing more."""
        limits = self.server.config.limits
        for more in ({}, {"Connection": "close"}):
            client = Connection(self.site, self.clock)
            transport = cast(Any, client.transport)
            aborted: list[bool] = []
            transport.abortConnection = partial(aborted.append, True)
            self.server.local_clients.hold = True
            client.request("PUT", "/v1/kv/a", {"value": "1"}, **more)
            client.close_side()
            transport.dataBuffer = b"x" * 1_000
            self.server.local_clients.release()
            self.clock.advance(0)
            self.assertTrue(transport.disconnecting)
            for _ in range(3 * int(limits.request_seconds)):
                transport.dataBuffer = transport.dataBuffer[1:]
                self.clock.advance(1)
            self.assertEqual(aborted, [])
            self.clock.pump([1] * int(limits.unread_seconds + 2))
            self.assertEqual(aborted, [True])
            client.hang_up()

    def test_request_of_a_client_that_closed_its_side_waits_until_it_reads(self) -> None:
        limits = self.server.config.limits
        aborted: list[bool] = []
        transport = cast(Any, self.client.transport)
        transport.abortConnection = partial(aborted.append, True)
        transport.dataBuffer = b"x" * 1_000
        self.client.protocol.pauseProducing()
        self.client.request("PUT", "/v1/kv/a", {"value": "1"})
        self.client.close_side()
        for _ in range(3 * int(limits.request_seconds)):
            transport.dataBuffer = transport.dataBuffer[1:]
            self.clock.advance(1)
        self.assertEqual((aborted, self.commands()), ([], []))
        transport.dataBuffer = b""
        self.client.protocol.resumeProducing()
        self.assertEqual(self.client.reply().status, 200)
        self.assertTrue(transport.disconnecting)
        self.client.hang_up()

    def test_lock_for_a_client_that_closed_its_side(self) -> None:
        """For a client that closed its side while it waits for a lock, the session is kept for its ttl, as if it had
        hung up; the client is answered if it gets the lock before."""
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        for ttl, gets_it in ((5, True), (1, False)):
            waiting = Connection(self.site, self.clock)
            waiting.request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client=f"alice{ttl}", Pfsb_Ttl=str(ttl))
            session = self.server.local_clients.connections[-1]
            waiting.close_side()
            self.clock.advance(2)
            self.assertEqual("bye" in session.calls, not gets_it)
            if gets_it:
                self.content("DELETE", "/v1/locks/a", None, Pfsb_Client="bob")
                self.assertEqual(waiting.reply().content["name"], "a")
                self.assertTrue(waiting.transport.disconnecting)

    def test_events_end_for_a_client_that_closed_its_side(self) -> None:
        self.client.request("GET", "/v1/events")
        self.client.close_side()
        self.assertTrue(self.client.transport.disconnecting)

    def test_client_that_closed_its_side_while_nothing_is_read(self) -> None:
        """If a client closes its side while the server does not read, the rest of its requests is read and answered
        after the first one."""
        self.patch(protocol, "hang_up_of", lambda _: HangUp.CLOSED_ITS_SIDE)
        self.server.local_clients.hold = True
        for _ in range(2):
            self.client.request("PUT", "/v1/kv/a", {"value": "1"})
        self.clock.advance(PAUSED_LOOK_SECONDS)
        self.assertFalse(self.client.transport.disconnecting)
        for _ in range(2):
            self.server.local_clients.release()
            self.server.local_clients.hold = True
            self.assertIn(b"200 OK", self.client.heard())
        self.client.hang_up()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_that_waits_for_100_continue(self) -> None:
        """A client that waits for `100 Continue` is told to go on only if the head of its request is right."""
        head = "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += "Content-Length: {length}\r\nExpect: 100-continue\r\n{more}\r\n"
        self.client.send(head.format(path="/v1/kv/a", length=13, more="").encode())
        self.assertEqual(self.client.heard(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.client.send(b'{"value":"1"}')
        self.assertEqual(self.client.reply().status, 200)
        limit = self.server.config.limits.command_bytes
        for path, length, more, status, code in (
            ("/v1/kv/a", limit + 1, "", 413, "TOOLARGE"),
            ("/v1/kv/a", 10**15, "", 413, "TOOLARGE"),
            ("/v1/kv/a", 9, "Content-Encoding: gzip\r\n", 415, "MEDIATYPE"),
            ("/v1/kv/a", 9, "Host: localhost\r\n", 400, "BADREQUEST"),
            ("/v1/kv/a", 9, "Origin: http://evil.example\r\n", 403, "DENIED"),
            ("/v1/kv/a", 9, "Pfsb-Number: 1\r\n", 400, "BADREQUEST"),
            ("/v1/kv/%zz", 9, "", 400, "BADREQUEST"),
            ("/v1/nothing", 9, "", 404, "UNKNOWN"),
            ("/v1/status", 9, "", 405, "METHOD"),
        ):
            client = Connection(self.site, self.clock)
            client.send(head.format(path=path, length=length, more=more).encode() + b'{"value"')
            reply = client.reply()
            self.assertRefused(reply, status, code)
            self.assertEqual(reply.headers.get("Allow"), "GET, HEAD" if status == 405 else None)
            client.send(b':"2"}')
            self.assertEqual((client.heard(), client.transport.disconnecting), (b"", True))
        self.assertEqual(len(self.commands()), 1)

    def test_length_that_is_told_in_chunks(self) -> None:
        """A client that sends its body in chunks, so that the length is not known before, is told to go on."""
        self.client.send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(self.client.heard(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.client.send(b'd\r\n{"value":"1"}\r\n0\r\n\r\n')
        self.assertEqual(self.client.reply().status, 200)

    def test_look_ends_with_the_connection(self) -> None:
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        waiting = Connection(self.site, self.clock)
        for _ in range(2):
            waiting.request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="alice")
        self.patch(protocol, "hang_up_of", self.fail)
        waiting.hang_up()
        self.clock.advance(3 * PAUSED_LOOK_SECONDS)

    def test_bytes_that_are_no_http(self) -> None:
        """Bytes that are no HTTP get a 400 with a JSON body, and the connection is closed."""
        for data in (b"\x16\x03\x01\x02\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"PUT colour blue yes\r\n"):
            client = Connection(self.site, self.clock)
            client.send(data)
            self.assertRefused(client.reply(), 400, "BADREQUEST")
            self.assertTrue(client.transport.disconnecting)

    def test_length_of_thousands_of_digits(self) -> None:
        """A length of thousands of digits, which Python refuses to parse, gets a 400, and no error is logged."""
        self.client.send(b"PUT / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n")
        self.assertRefused(self.client.reply(), 400, "BADREQUEST")

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Pipelined requests are answered in order; the handlers of hundreds of requests in one read do not run inside
        each other."""
        self.client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 300)
        for _ in range(300):
            self.clock.advance(0)
        self.assertEqual(self.client.heard().count(b"HTTP/1.1 200 OK"), 300)

    def test_client_that_is_gone_is_not_answered(self) -> None:
        """A command of a client that is gone runs all the same, and is not answered; a client that repeats it gets the
        result."""
        self.server.local_clients.hold = True
        self.client.request("PUT", "/v1/kv/a", {"value": "1"})
        self.client.hang_up()
        self.server.local_clients.release()
        self.assertEqual(self.client.heard(), b"")
        self.assertEqual(self.commands(), [("PUT", b"a", b"1")])

    def test_stopping_server_writes_its_last_answers(self) -> None:
        """An answer that was given in the last iteration before a stop is written before the connection is closed."""
        self.server.local_clients.hold = True
        self.client.request("PUT", "/v1/kv/a", {"value": "1"})
        self.server.local_clients.release()
        self.site.leave()
        self.assertIn(b"200 OK", self.client.transport.value())
        self.assertTrue(self.client.transport.disconnecting)

    def test_answers_are_counted(self) -> None:
        """Answers are counted by method and status; unknown methods share one counter."""
        self.ask("GET", "/healthz")
        self.ask("BREW", "/healthz")
        self.assertEqual(self.site.answered, {("GET", 200): 1, ("-", 405): 1})
