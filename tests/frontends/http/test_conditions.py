"""ETags of keys, and the headers If-Match and If-None-Match: evaluated or refused, and never ignored."""

from __future__ import annotations

from tests.frontends.http.http_client import HTTPCase, Reply


class ConditionTests(HTTPCase):
    def put(self, **headers: str) -> Reply:
        return self.ask("PUT", "/v1/kv/wall", {"value": "grey"}, **headers)

    def value(self) -> str:
        value: str = self.content("GET", "/v1/kv/wall")["value"]
        return value

    def test_etag_is_the_revision_of_the_last_write(self) -> None:
        """The ETag of a key is the revision at which it was last written. Writes to other keys do not change it; the
        bare value has another ETag, since it is another answer."""
        self.put()
        self.content("PUT", "/v1/kv/other", {"value": "1"})
        self.assertEqual(self.ask("GET", "/v1/kv/wall").headers["ETag"], '"1"')
        raw = self.ask("GET", "/v1/kv/wall", None, Accept="application/octet-stream")
        self.assertEqual((raw.headers["ETag"], raw.headers["Vary"], raw.body), ('"1-raw"', "Accept", b"grey"))

    def test_client_that_has_the_answer_gets_304_without_it(self) -> None:
        self.put()
        for tags in ('"1"', 'W/"1"', '"7", "1"', "*"):
            reply = self.ask("GET", "/v1/kv/wall", None, If_None_Match=tags)
            self.assertEqual((reply.status, reply.body, reply.headers["ETag"]), (304, b"", '"1"'), tags)
            self.assertNotIn("Content-Type", reply.headers)
            self.assertNotIn("Content-Length", reply.headers)
        for tags in ('"2"', '"1-raw"', '""', '"a,b" , "c"'):
            self.assertEqual(self.ask("GET", "/v1/kv/wall", None, If_None_Match=tags).status, 200, tags)
        head = self.ask("HEAD", "/v1/kv/wall", None, If_None_Match='"1"')
        self.assertEqual(head.status, 304)
        self.assertEqual(self.ask("GET", "/v1/kv/nothing", None, If_None_Match="*").status, 404)

    def test_reader_that_wants_one_version_alone(self) -> None:
        self.put()
        for tags in ('"1"', '"3","1"', "*"):
            self.assertEqual(self.ask("GET", "/v1/kv/wall", None, If_Match=tags).status, 200, tags)
        for tags in ('"2"', 'W/"1"'):  # a weak tag matches nothing here (RFC 9110, section 13.1.1)
            self.assertRefused(self.ask("GET", "/v1/kv/wall", None, If_Match=tags), 412, "PRECONDITION")

    def test_change_of_the_version_that_the_client_has_read(self) -> None:
        """With If-Match a change runs only if the key has the version that the client has read: of two clients, the
        second one is refused."""
        self.assertEqual(self.put().status, 200)
        self.assertEqual(self.put(If_Match='"1"').content, {"revision": 2})
        self.assertEqual(self.commands()[-1], ("IF", b"wall", 1, "PUT", b"wall", b"grey"))
        self.assertRefused(self.put(If_Match='"1"'), 412, "PRECONDITION")
        self.assertRefused(self.ask("DELETE", "/v1/kv/wall", None, If_Match='"1"'), 412, "PRECONDITION")
        patch = {"op": "append", "text": "ish"}
        self.assertRefused(self.ask("PATCH", "/v1/kv/wall", patch, If_Match='"1"'), 412, "PRECONDITION")
        self.assertEqual(self.ask("PATCH", "/v1/kv/wall", patch, If_Match='"2-raw"').content["value"], "greyish")
        self.assertEqual(self.ask("DELETE", "/v1/kv/wall", None, If_Match="*").content["deleted"], 1)
        self.assertRefused(self.put(If_Match="*"), 412, "PRECONDITION")

    def test_key_that_must_be_absent(self) -> None:
        self.assertEqual(self.put(If_None_Match="*").status, 200)
        self.assertRefused(self.put(If_None_Match="*"), 412, "PRECONDITION")
        self.content("DELETE", "/v1/kv/wall")
        self.assertEqual(self.put(If_None_Match="*").status, 200)

    def test_repeated_number_gets_its_answer_again(self) -> None:
        """A repeated command number gets its first answer, although its condition does not hold any more."""
        client = {"Pfsb_Client": "alice", "Pfsb_Number": "1"}
        first = self.put(If_None_Match="*", **client)
        again = self.put(If_None_Match="*", **client)
        self.assertEqual((first.status, again.status, again.content), (200, 200, first.content))
        self.assertRefused(self.put(If_None_Match="*", Pfsb_Client="alice", Pfsb_Number="2"), 412, "PRECONDITION")

    def test_tag_that_no_key_can_have(self) -> None:
        for tag in ('"0"', '"01"', '"blue"', 'W/"1"', '"9999999999999999999"', '"1-gzip"'):
            self.assertRefused(self.put(If_Match=tag), 412, "PRECONDITION")
        self.assertEqual(self.commands(), [])

    def test_conditions_that_cannot_be_evaluated(self) -> None:
        """A condition that cannot be evaluated is refused, and nothing is ordered."""
        for headers in (
            {"If_Match": "1"},
            {"If_Match": '"1'},
            {"If_Match": ""},
            {"If_Match": '"1", *'},
            {"If_Match": '"1", "2"'},
            {"If_Match": '"1"', "If_None_Match": "*"},
            {"If_None_Match": '"1"'},
        ):
            self.assertRefused(self.put(**headers), 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])

    def test_resource_without_an_etag(self) -> None:
        for method, path, body in (
            ("GET", "/v1/kv", None),
            ("POST", "/v1/kv", {"put": {"a": "1"}}),
            ("POST", "/v1/chat", {"text": "hello"}),
            ("GET", "/v1/status", None),
            ("DELETE", "/v1/locks/a", None),
            ("GET", "/healthz", None),
        ):
            for name in ("If_Match", "If_None_Match"):
                self.assertRefused(self.ask(method, path, body, Pfsb_Client="alice", **{name: "*"}), 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])
