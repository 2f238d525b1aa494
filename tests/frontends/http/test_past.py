"""GET /v1/kv/{key}?at=REVISION: the value of a key at an earlier revision."""

from __future__ import annotations

from pfsb.applications.interfaces import Done, Refused
from tests.frontends.http.http_client import HTTPCase


class PastTests(HTTPCase):
    def setUp(self) -> None:
        super().setUp()
        self.values = self.server.past_reads.values  # type: ignore[attr-defined]
        self.values[b"colour", 3] = Done((("value", b"red"), ("revision", 2)))

    def test_value_and_its_revision(self) -> None:
        """The value at an earlier revision comes in JSON or as bare bytes; its ETag is the revision at which it was
        written."""
        reply = self.ask("GET", "/v1/kv/colour?at=3")
        self.assertEqual((reply.status, reply.content), (200, {"key": "colour", "value": "red", "revision": 2}))
        self.assertEqual(reply.headers["ETag"], '"2"')
        (address,) = self.server.past_reads.addresses  # type: ignore[attr-defined]
        self.assertEqual(address, "127.0.0.1")
        raw = self.ask("GET", "/v1/kv/colour?at=3", Accept="application/octet-stream")
        self.assertEqual(raw.body, b"red")
        self.assertEqual(self.ask("GET", "/v1/kv/colour?at=3", If_None_Match='"2"').status, 304)

    def test_refusals(self) -> None:
        """A past that is not kept any more, an absent key, and a past that cannot be built now are refused."""
        self.assertRefused(self.ask("GET", "/v1/kv/colour?at=1"), 410, "COMPACTED")
        self.values[b"colour", 2] = Refused("NOTFOUND", "there was no key colour at revision 2")
        self.assertRefused(self.ask("GET", "/v1/kv/colour?at=2"), 404, "NOTFOUND")
        self.values[b"colour", 4] = Refused("BUSY", "16 questions about the past are under way already")
        reply = self.ask("GET", "/v1/kv/colour?at=4")
        self.assertRefused(reply, 429, "BUSY")
        self.assertEqual(reply.headers["Retry-After"], "1")

    def test_at_is_a_whole_number_and_alone(self) -> None:
        for query in ("at=", "at=-1", "at=x", "at=1&at=2", "at=1&read=stale", f"at={10**18}"):
            self.assertRefused(self.ask("GET", f"/v1/kv/colour?{query}"), 400, "BADREQUEST")
        self.assertRefused(self.ask("GET", "/v1/kv?at=1"), 400, "BADREQUEST")
