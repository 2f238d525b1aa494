"""Server-sent events: chat lines without gaps or repeats, and what happens to the client's session."""

from __future__ import annotations

from pfsb.frontends.http.chat import BEAT_SECONDS, HELD_BACK_MAX
from tests.frontends.http.http_client import Connection, HTTPCase


class EventCase(HTTPCase):
    def say(self, *texts: str) -> None:
        for text in texts:
            self.content("POST", "/v1/chat", {"text": text})

    def listen(self, path: str = "/v1/events", **headers: str) -> Connection:
        stream = Connection(self.door, self.clock)
        stream.request("GET", path, None, **headers)
        return stream


class ChatTests(EventCase):
    def test_from_a_line_on(self) -> None:
        """Those that are there, then those that come, each once, with its number as the event's id."""
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
        """Last-Event-ID says what it has seen, whatever the address that it repeats says."""
        self.say("one", "two", "three")
        told = self.listen("/v1/events?from=1", Last_Event_ID="2").heard().decode()
        self.assertNotIn('"two"', told)
        self.assertIn('"three"', told)

    def test_from_now_on(self) -> None:
        """The first thing told is where that is, so that who is cut off before the first line misses none."""
        self.say("one", "two")
        stream = self.listen()
        self.assertIn(b"id: 2\n\n", stream.heard())
        self.say("three")
        self.assertIn(b"id: 3\nevent: chat\n", stream.heard())

    def test_slow_reader_is_told_no_more_than_it_reads(self) -> None:
        """What it has not read stays in the log, and comes when it reads on."""
        stream = self.listen()
        stream.heard()
        stream.protocol.pauseProducing()
        self.say("one", "two")
        self.clock.advance(BEAT_SECONDS)
        self.assertEqual(stream.heard(), b"")
        stream.protocol.resumeProducing()
        self.assertEqual(stream.heard().count(b"event: chat"), 2)

    def test_client_that_is_gone(self) -> None:
        """Nothing is told to it, and nothing is kept for it."""
        stream = self.listen(Pfsb_Client="alice")
        stream.heard()
        stream.hang_up()
        self.say("one")
        self.clock.advance(10 * BEAT_SECONDS)
        self.assertEqual(stream.heard(), b"")
        self.assertTrue(all(following.stopped for following in self.cluster.subscriptions))
        self.assertEqual((self.door.streams, len(self.door.sessions)), ({}, 0))

    def test_beats(self) -> None:
        """A comment now and then keeps proxies from closing the stream."""
        stream = self.listen()
        stream.heard()
        self.clock.advance(BEAT_SECONDS)
        self.assertIn(b":\n\n", stream.heard())

    def test_server_that_stops(self) -> None:
        """The stream ends properly, so that the client goes on elsewhere."""
        stream = self.listen()
        self.door.leave()
        self.assertTrue(stream.heard().endswith(b"0\r\n\r\n"))
        self.assertTrue(stream.transport.disconnecting)

    def test_wrong_places(self) -> None:
        """BADREQUEST."""
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
        """Told on the client's streams, also after the request that asked for it has gone; and to nobody else."""
        alice, bob = self.listen("/v1/events?client=alice"), self.listen(Pfsb_Client="bob")
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        waiting = Connection(self.door, self.clock)
        waiting.request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="alice")
        waiting.hang_up()
        self.assertNotIn(b"event: lock", alice.heard())
        self.content("DELETE", "/v1/locks/a", None, Pfsb_Client="bob")
        self.assertIn(b'event: lock\ndata: {"name":"a","token":', alice.heard())
        self.assertEqual(bob.heard().count(b"event: lock"), 1)

    def test_wait_that_began_at_another_server(self) -> None:
        """The session is taken over with its places in line, and the grant is told here."""
        _, elsewhere = self.make_door(server_id=1)
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="bob")
        Connection(elsewhere, self.clock).request("POST", "/v1/locks/a", {"wait": 60}, Pfsb_Client="alice")
        stream = self.listen(Pfsb_Client="alice")
        self.content("DELETE", "/v1/locks/a", None, Pfsb_Client="bob")
        self.assertIn(b'event: lock\ndata: {"name":"a"', stream.heard())

    def test_session_that_goes_elsewhere_and_comes_back(self) -> None:
        """Told each time; the stream does not fight for it."""
        stream = self.listen(Pfsb_Client="alice")
        _, elsewhere = self.make_door(server_id=1)
        Connection(elsewhere, self.clock).ask("POST", "/v1/session", None, Pfsb_Client="alice")
        self.assertIn(b'event: session\ndata: {"state":"replaced"}\n\n', stream.heard())
        self.assertEqual(len(elsewhere.sessions), 1)
        self.content("POST", "/v1/locks/a", None, Pfsb_Client="alice")
        self.assertIn(b"event: lock", stream.heard())

    def test_stream_keeps_the_session(self) -> None:
        """Somebody who listens is there; from the end of the stream on the ttl counts."""
        stream = self.listen(Pfsb_Client="alice", Pfsb_Ttl="5")
        self.clock.advance(17)
        self.assertEqual(self.server.local_clients.connections[0].calls, ["hello alice 5"])
        stream.hang_up()
        self.clock.advance(4.9)
        self.assertEqual(self.server.local_clients.connections[0].calls, ["hello alice 5"])
        self.clock.advance(0.2)
        self.assertEqual(self.server.local_clients.connections[0].calls, ["hello alice 5", "bye", "disconnected"])

    def test_client_that_never_reads(self) -> None:
        """So many events of its session wait for it, then its stream ends."""
        stream = self.listen(Pfsb_Client="alice")
        stream.protocol.pauseProducing()
        for number in range(HELD_BACK_MAX):
            self.content("POST", f"/v1/locks/{number}", None, Pfsb_Client="alice")
        self.assertEqual(len(self.door.streams), 1)
        self.content("POST", "/v1/locks/more", None, Pfsb_Client="alice")
        self.assertEqual(len(self.door.streams), 0)
