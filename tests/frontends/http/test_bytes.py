"""Keys and values of any bytes over HTTP: in paths and queries, in JSON, and as bodies."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from pfsb.applications.interfaces import Done, Word
from pfsb.frontends.http.answers import done_content, encoded
from tests.examples import examples
from tests.frontends.http.http_client import HTTPCase

RAW = "application/octet-stream"
PNG = b"\x89PNG\r\n\x1a\n\0\0\xff"


class BytesTests(HTTPCase):
    def test_body_of_bytes_is_the_value(self) -> None:
        """A body that is just bytes is stored as the value. A client that asks for bytes gets the same bytes, and any
        other one JSON with escapes."""
        self.assertEqual(self.ask("PUT", "/v1/kv/photo", PNG, Content_Type=RAW).content, {"revision": 1})
        self.assertEqual(self.commands(), [("PUT", b"photo", PNG)])
        reply = self.ask("GET", "/v1/kv/photo", None, Accept=RAW)
        self.assertEqual((reply.status, reply.headers["Content-Type"], reply.body), (200, RAW, PNG))
        self.assertEqual(reply.headers["X-Content-Type-Options"], "nosniff")
        shown = self.content("GET", "/v1/kv/photo")["value"]
        self.assertEqual(shown.encode(errors="surrogateescape"), PNG)
        self.content("PUT", "/v1/kv/copy", {"value": shown})
        self.assertEqual(self.commands()[-1], ("PUT", b"copy", PNG))

    def test_body_of_bytes_may_be_empty_and_may_look_like_json(self) -> None:
        for body in (b"", b'{"value": "x"}', b"null"):
            self.assertEqual(self.ask("PUT", "/v1/kv/a", body, Content_Type=f"{RAW}; charset=binary").status, 200)
            self.assertEqual(self.ask("GET", "/v1/kv/a", None, Accept=RAW).body, body)

    def test_body_of_bytes_is_appended_or_hashed(self) -> None:
        """A body that is just bytes is appended or hashed, as the query says, since the body has no place for that.
        Conditions hold as with JSON."""
        self.content("PATCH", "/v1/kv/a?op=append", PNG, Content_Type=RAW)
        self.content("PATCH", "/v1/kv/a?op=append", b'{"op": "incr"}', Content_Type=RAW)
        self.assertEqual(self.ask("GET", "/v1/kv/a", None, Accept=RAW).body, PNG + b'{"op": "incr"}')
        self.content("PATCH", "/v1/kv/a?op=puthash", b"\xff", Content_Type=RAW)
        self.assertEqual(self.commands()[-1], ("PUTHASH", b"a", b"\xff"))
        refused = self.ask("PATCH", "/v1/kv/a?op=append", b"\xff", Content_Type=RAW, If_None_Match="*")
        self.assertRefused(refused, 412, "PRECONDITION")

    def test_bytes_need_an_operation_that_takes_them(self) -> None:
        for query in ("", "?op=", "?op=incr", "?op=cas", "?op=APPEND", "?op=append&op=append", "?op=append&x=1"):
            self.assertRefused(self.ask("PATCH", f"/v1/kv/a{query}", b"x", Content_Type=RAW), 400, "BADREQUEST")
        named_twice = self.ask("PATCH", "/v1/kv/a?op=append", {"op": "append", "text": "x"})
        self.assertRefused(named_twice, 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])

    def test_bytes_are_a_value_of_one_key_and_nothing_else(self) -> None:
        for method, path in (("POST", "/v1/kv"), ("POST", "/v1/chat"), ("DELETE", "/v1/kv/a")):
            self.assertRefused(self.ask(method, path, b"{}", Content_Type=RAW), 415, "MEDIATYPE")
        self.assertEqual(self.commands(), [])

    def test_client_that_says_nothing_or_likes_both_gets_json(self) -> None:
        self.content("PUT", "/v1/kv/a", {"value": "1"})
        for accept in (
            "*/*",
            "application/json",
            "application/*",
            f"{RAW}, */*",
            f"{RAW};q=0.5, application/json",
            f"{RAW};q=0",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            ", ;q=2",
        ):
            self.assertEqual(self.ask("GET", "/v1/kv/a", None, Accept=accept).content["value"], "1", accept)
        for accept in (RAW, f"{RAW.upper()}; q=0.9", f"{RAW}, */*;q=0.1", f"application/json;q=0.1, {RAW};q=0.2"):
            self.assertEqual(self.ask("GET", "/v1/kv/a", None, Accept=accept).body, b"1", accept)

    def test_refusal_is_json_whatever_the_client_likes(self) -> None:
        self.assertRefused(self.ask("GET", "/v1/kv/a", None, Accept=RAW), 404, "NOTFOUND")

    def test_compressed_body_is_refused(self) -> None:
        for coding in ("gzip", "br, identity", "x"):
            for kind in (RAW, "application/json"):
                reply = self.ask("PUT", "/v1/kv/a", b"\x1f\x8b", Content_Type=kind, Content_Encoding=coding)
                self.assertRefused(reply, 415, "MEDIATYPE")
                self.assertEqual(reply.headers["Accept-Encoding"], "identity")
        self.assertEqual(self.commands(), [])
        self.content("PUT", "/v1/kv/a", {"value": "1"}, Content_Encoding="Identity")

    def test_bytes_in_ranges_and_named_keys(self) -> None:
        for key in ("a", "a%00", "a%FF", "b"):
            self.content("PUT", f"/v1/kv/{key}", {"value": "1"})
        rows = self.content("GET", "/v1/kv?from=a%00&to=b&values=no")["rows"]
        self.assertEqual([row["key"] for row in rows], ["a\0", "a\udcff"])
        named = self.content("GET", "/v1/kv?key=a%FF&key=a")["rows"]
        self.assertEqual([row["key"] for row in named], ["a\udcff", "a"])
        page = self.content("GET", "/v1/kv?limit=2")
        self.assertEqual(page["next"], "a\udcff")
        self.assertEqual(self.content("DELETE", "/v1/kv/a%ff")["deleted"], 1)

    def test_operations_take_bytes_by_the_escape(self) -> None:
        self.content("PATCH", "/v1/kv/c", {"op": "cas", "old": None, "new": "\udcff"})
        self.content("PATCH", "/v1/kv/c", {"op": "cas", "old": "\udcff", "new": "\0"})
        self.content("PATCH", "/v1/kv/c", {"op": "append", "text": "\udc80"})
        self.content("POST", "/v1/kv", {"put": {"\udcfe": "\udc80\u00e9"}})
        executed = [command[1:] for command in self.commands()]
        self.assertEqual(executed[0], (b"c", 0, b"", b"\xff"))
        self.assertEqual(executed[1], (b"c", 1, b"\xff", b"\0"))
        self.assertEqual(executed[2], (b"c", b"\x80"))
        self.assertEqual(executed[3], (b"\xfe", b"\x80\xc3\xa9"))

    def test_half_of_a_surrogate_pair_that_is_no_byte(self) -> None:
        for half in ("\\ud800", "\\udfff", "\\udc7f", "\\udd00"):
            for body in (f'{{"value": "{half}"}}', f'{{"op": "cas", "old": "{half}", "new": ""}}'):
                method = "PATCH" if "op" in body else "PUT"
                self.assertRefused(self.ask(method, "/v1/kv/a", body.encode()), 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])

    def test_texts_and_names_are_no_bytes(self) -> None:
        """Texts of the chat, client ids and names of locks must be UTF-8; other bytes are refused before anything is
        ordered."""
        self.assertRefused(self.ask("POST", "/v1/chat", {"text": "\udcff"}), 400, "BADREQUEST")
        self.assertRefused(self.ask("POST", "/v1/chat", {"text": "a\0"}), 400, "BADREQUEST")
        self.assertRefused(self.ask("POST", "/v1/locks/%ff", None, Pfsb_Client="alice"), 400, "BADREQUEST")
        self.assertRefused(self.ask("GET", "/v1/events?client=%ff"), 400, "BADREQUEST")
        self.assertRefused(self.ask("GET", "/v1/kv?read=%ff"), 400, "BADREQUEST")
        self.assertRefused(self.ask("GET", "/v1/kv?limit=%ff"), 400, "BADREQUEST")
        self.assertRefused(self.ask("GET", "/v1/%ff"), 404, "UNKNOWN")
        self.assertEqual(self.commands(), [])

    @given(st.binary(min_size=1, max_size=40), st.binary(max_size=60))
    @examples(100)
    def test_any_bytes_come_back(self, key: bytes, value: bytes) -> None:
        path = f"/v1/kv/{quote(key, safe='')}"
        self.assertEqual(self.ask("PUT", path, value, Content_Type=RAW).status, 200)
        self.assertEqual(self.ask("GET", path, None, Accept=RAW).body, value)
        content = self.content("GET", path)
        self.assertEqual(content["key"].encode(errors="surrogateescape"), key)
        self.content("PATCH", path, {"op": "cas", "old": content["value"], "new": content["value"]})

    def test_answers_stay_utf8_on_one_line(self) -> None:
        """Answers are UTF-8 on one line: text is written as it is, and only other bytes by an escape."""
        done = Done((("count", 1), ("state", Word("open"))), ((("key", "\u00e9".encode()), ("value", b"\xff1\\")),))
        content = b'{"count":1,"state":"open","rows":[{"key":"\xc3\xa9","value":"\\udcff1\\\\"}]}\n'
        self.assertEqual(encoded(done_content(done)), content)
        self.assertEqual(json.loads(content)["rows"][0]["value"], "\udcff1\\")
