"""Server-sent events: chat lines without gaps or repeats, locks that are granted, and the end of the session."""

from __future__ import annotations

from pfsb.applications.interfaces import Refused
from pfsb.applications.key_value import KeyValue
from pfsb.frontends.http.chat import FAILED, HEARTBEAT_SECONDS, HELD_BACK_MAX
from pfsb.frontends.http.sessions import LOCK_AGAIN_SECONDS
from tests.frontends.http.http_client import Connection, HTTPCase


class EventCase(HTTPCase):
    def say(self, *texts: str) -> None:
        for text in texts:
            self.content("POST", "/v1/chat", {"text": text})

    def listen(self, path: str = "/v1/events", **headers: str) -> Connection:
        stream = Connection(self.site, self.clock)
        stream.request("GET", path, None, **headers)
        return stream


class ChatTests(EventCase):
    def test_events_from_a_line_on(self) -> None:
        """A stream of events from a line on has the existing lines first, then new ones, each once, with its number as
        the event's id."""
        self.say("one", "two")
        stream = self.listen("/v1/events?from=2")
        self.say("three")
        told = stream.heard().decode()
        self.assertIn("content-type: text/event-stream", told.lower())
        self.assertNotIn('"one"', told)
        for index, text in ((2, "two"), (3, "three")):
            self.assertEqual(told.count(f'id: {index}\nevent: chat\ndata: {{"index":{index},'), 1)
            self.assertEqual(told.count(f'"text":"{text}"}}\n\n'), 1)

    def test_client_that_reconnects(self) -> None:
        """For a client that reconnects, the header Last-Event-ID tells which lines it has seen, and counts more than
        `from` in the URL."""
        self.say("one", "two", "three")
        told = self.listen("/v1/events?from=1", Last_Event_ID="2").heard().decode()
        self.assertNotIn('"two"', told)
        self.assertIn('"three"', told)

    def test_events_from_now_on(self) -> None:
        """A stream from now on begins with the client's position, so that a client that is cut off before the first
        line misses none."""
        self.say("one", "two")
        stream = self.listen()
        self.assertIn(b"id: 2\n\n", stream.heard())
        self.say("three")
        self.assertIn(b"id: 3\nevent: chat\n", stream.heard())

    def test_slow_reader_is_told_no_more_than_it_reads(self) -> None:
        """A client that reads slowly is sent no more than it reads: other lines stay in the log until it reads on."""
        stream = self.listen()
        stream.heard()
        stream.protocol.pauseProducing()
        self.say("one", "two")
        self.clock.advance(HEARTBEAT_SECONDS)
        self.assertEqual(stream.heard(), b"")
        stream.protocol.resumeProducing()
        self.assertEqual(stream.heard().count(b"event: chat"), 2)

    def test_client_that_is_gone(self) -> None:
        """To a client that is gone no events are sent, and the server keeps nothing for it."""
        stream = self.listen(Pfsb_Client="alice")
        stream.heard()
        stream.hang_up()
        self.say("one")
        self.clock.advance(10 * HEARTBEAT_SECONDS)
        self.assertEqual(stream.heard(), b"")
        self.assertTrue(all(subscription.stopped for subscription in self.cluster.subscriptions))
        self.assertEqual((self.site.streams, len(self.site.sessions)), ({}, 0))

    def test_heartbeats(self) -> None:
        """The server sends a comment now and then, so that proxies do not close the stream of events."""
        stream = self.listen()
        stream.heard()
        self.clock.advance(HEARTBEAT_SECONDS)
        self.assertIn(b":\n\n", stream.heard())

    def test_server_that_stops(self) -> None:
        """When the server stops, streams end properly, so that clients go on at another server."""
        stream = self.listen()
        self.site.leave()
        self.assertTrue(stream.heard().endswith(b"0\r\n\r\n"))
        self.assertTrue(stream.transport.disconnecting)

    def test_line_that_cannot_be_told_ends_the_stream(self) -> None:
        """A line that cannot be told ends the stream, with a comment that says why. Otherwise the client would wait for
        lines while heartbeats come."""
        stream = self.listen()
        stream.heard()
        self.cluster.subscriptions[0].failed(ZeroDivisionError())
        self.assertIn(FAILED, heard := stream.heard())
        self.assertTrue(heard.endswith(b"0\r\n\r\n"))
        self.assertEqual((len(self.flushLoggedErrors(ZeroDivisionError)), self.site.streams), (1, {}))

    def test_chat_that_ends_ends_the_stream(self) -> None:
        """If the cluster stops running the chat, the stream says so, with the number of the first line that it has not
        told, and ends; the next request is refused."""
        self.say("one")
        stream = self.listen("/v1/events?from=1")
        stream.heard()
        self.cluster.catalogue.switch([KeyValue()])
        heard = stream.heard()
        self.assertIn(b'event: end\ndata: {"next":2,"text":"no chat any more"}\n\n', heard)
        self.assertTrue(heard.endswith(b"0\r\n\r\n"))
        self.assertEqual(self.site.streams, {})
        self.assertRefused(self.ask("GET", "/v1/events", None), 404, "UNKNOWN")

    def test_positions_that_are_no_line_numbers(self) -> None:
        """A position that is no line number is refused with BADREQUEST."""
        for path, headers in (
            ("/v1/events?from=0", {}),
            ("/v1/events?from=x", {}),
            ("/v1/events", {"Last_Event_ID": "x"}),
            ("/v1/events?client=~1", {}),
            ("/v1/events?upto=1", {}),
        ):
            self.assertRefused(self.ask("GET", path, None, **headers), 400, "BADREQUEST")


class SessionEventTests(EventCase):
    def test_lock_that_is_granted(self) -> None:
        """A lock that is granted is told on streams of its own client only, even when the request for the lock has
        gone."""
        alice, bob = self.listen("/v1/events?client=alice"), self.listen(Pfsb_Client="bob")
        self.content("POST", "/v1/session", None, Pfsb_Client="alice")
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        waiting = Connection(self.site, self.clock)
        waiting.request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="alice")
        waiting.hang_up()
        self.assertNotIn(b"event: lock", alice.heard())
        self.content("DELETE", "/v1/locks/a", None, Pfsb_Client="bob")
        self.assertIn(b'event: lock\ndata: {"name":"a","token":', alice.heard())
        self.assertEqual(bob.heard().count(b"event: lock"), 1)

    def test_wait_that_began_at_another_server(self) -> None:
        """A client takes its session over from another server, where it waits for a lock: this server tells the
        grant."""
        _, elsewhere = self.make_site(server_id=1)
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        Connection(elsewhere, self.clock).request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="alice")
        stream = self.listen(Pfsb_Client="alice")
        self.content("DELETE", "/v1/locks/a", None, Pfsb_Client="bob")
        self.assertIn(b'event: lock\ndata: {"name":"a"', stream.heard())

    def test_lock_that_is_granted_after_a_refusal_with_an_unknown_fate(self) -> None:
        """If the disk of this server hung when a lock was asked for, and works again, the stream is told of the
        grant."""
        stream = self.listen(Pfsb_Client="alice")
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        waiting = Connection(self.site, self.clock)
        waiting.request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="alice")
        for _ in range(3):
            self.cluster.waiting.pop(("alice", 1))(Refused("UNAVAILABLE", "the disk does not answer", fate="unknown"))
            self.clock.advance(LOCK_AGAIN_SECONDS)
        self.assertEqual(waiting.reply().content["fate"], "unknown")
        self.content("DELETE", "/v1/locks/a", None, Pfsb_Client="bob")
        self.assertEqual(stream.heard().count(b'event: lock\ndata: {"name":"a"'), 1)

    def test_session_that_goes_elsewhere_and_comes_back(self) -> None:
        """Each takeover of the session is told on the stream; the stream does not take the session back by itself."""
        stream = self.listen(Pfsb_Client="alice")
        _, elsewhere = self.make_site(server_id=1)
        Connection(elsewhere, self.clock).ask("POST", "/v1/session", None, Pfsb_Client="alice")
        self.assertIn(b'event: session\ndata: {"state":"replaced"}\n\n', stream.heard())
        self.assertEqual(len(elsewhere.sessions), 1)
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="alice")
        self.assertIn(b"event: lock", stream.heard())

    def test_stream_keeps_the_session(self) -> None:
        """A stream keeps the session of its client open; the ttl begins at the end of the stream."""
        stream = self.listen(Pfsb_Client="alice", Pfsb_Ttl="5")
        self.clock.advance(17)
        self.assertEqual(self.server.local_clients.connections[0].calls, ["hello alice 5"])
        stream.hang_up()
        self.clock.advance(4.9)
        self.assertEqual(self.server.local_clients.connections[0].calls, ["hello alice 5"])
        self.clock.advance(0.2)
        self.assertEqual(self.server.local_clients.connections[0].calls, ["hello alice 5", "bye", "disconnected"])

    def test_client_that_never_reads(self) -> None:
        """Up to `HELD_BACK_MAX` events of its session are kept for a client that does not read; then its stream
        ends."""
        stream = self.listen(Pfsb_Client="alice")
        stream.protocol.pauseProducing()
        for number in range(HELD_BACK_MAX):
            self.content("POST", f"/v1/locks/{number}", None, Pfsb_Client="alice")
        self.assertEqual(len(self.site.streams), 1)
        self.content("POST", "/v1/locks/more", None, Pfsb_Client="alice")
        self.assertEqual(len(self.site.streams), 0)
