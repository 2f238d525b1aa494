"""The resource /v1/commands: any command of any application."""

from __future__ import annotations

from pfsb.applications.interfaces import Done
from tests.frontends.http.http_client import HTTPCase


class CommandTests(HTTPCase):
    def test_command_is_run_in_the_terms_of_the_line_protocol(self) -> None:
        self.assertEqual(
            self.content("POST", "/v1/commands", {"command": "put", "args": ["colour", "blue"]}), {"revision": 1}
        )
        self.assertEqual(self.commands(), [("PUT", b"colour", b"blue")])
        self.content("POST", "/v1/commands", {"command": "INCR", "args": ["n", 7]})
        self.content("POST", "/v1/commands", {"command": "CAS", "args": ["new", None, "x"]})
        shown = self.content("POST", "/v1/commands", {"command": "KEYS", "args": ["a", "o"], "options": {"limit": 5}})
        self.assertEqual(shown, {"count": 3, "rows": [{"key": "colour"}, {"key": "n"}, {"key": "new"}]})

    def test_string_is_never_an_option_or_nil(self) -> None:
        for text in ("limit=1", "nil", "read=stale", '"', "a b\nDEL a", "\u00e9"):
            self.content("POST", "/v1/commands", {"command": "PUT", "args": [text, text]})
            self.assertEqual(self.commands()[-1], ("PUT", text.encode(), text.encode()))
            shown = self.content("POST", "/v1/commands", {"command": "GET", "args": [text]})
            self.assertEqual(shown["value"], text)

    def test_rest_of_the_line_is_one_string(self) -> None:
        self.content("POST", "/v1/commands", {"command": "SAY", "args": ["  two words"]})
        self.assertEqual(self.commands()[-1], ("SAY", "  two words"))

    def test_question_takes_a_read_level(self) -> None:
        body = {"command": "GET", "args": ["a"]}
        for level in ("linearizable", "sequential", "stale"):
            self.assertRefused(self.ask("POST", f"/v1/commands?read={level}", body), 404, "NOTFOUND")
        self.assertEqual(self.server.local_clients.connections[0].calls, ["submit", "ask", "ask"])
        change = {"command": "PUT", "args": ["a", "b"]}
        self.assertRefused(self.ask("POST", "/v1/commands?read=stale", change), 400, "BADREQUEST")

    def test_value_at_an_earlier_revision(self) -> None:
        """With ?at= a GET shows the value at an earlier revision; other commands refuse it, and so does a read
        level."""
        self.server.past_reads.values[b"colour", 3] = Done((("value", b"red"), ("revision", 2)))  # type: ignore[attr-defined]
        question = {"command": "get", "args": ["colour"]}
        self.assertEqual(self.content("POST", "/v1/commands?at=3", question), {"value": "red", "revision": 2})
        self.assertRefused(self.ask("POST", "/v1/commands?at=1", question), 410, "COMPACTED")
        for query in ("at=", "at=-1", "at=x", "at=1&at=2", "at=3&read=stale"):
            self.assertRefused(self.ask("POST", f"/v1/commands?{query}", question), 400, "BADREQUEST")
        for other in (
            {"command": "MGET", "args": ["colour"]},
            {"command": "GET", "args": ["colour", "shape"]},
            {"command": "PUT", "args": ["colour", "blue"]},
            {"command": "LOCK", "args": ["door"]},
        ):
            self.assertRefused(self.ask("POST", "/v1/commands?at=3", other), 400, "BADREQUEST")
        self.assertEqual(self.commands(), [])

    def test_numbered_command_runs_once(self) -> None:
        headers = {"Pfsb_Client": "alice", "Pfsb_Number": "1"}
        body = {"command": "INCR", "args": ["n"]}
        first = self.ask("POST", "/v1/commands", body, **headers)
        again = self.ask("POST", "/v1/commands", body, **headers)
        self.assertEqual((first.status, again.body), (200, first.body))
        self.assertEqual(len(self.commands()), 1)

    def test_verb_that_waits_needs_a_client(self) -> None:
        body = {"command": "LOCK", "args": ["door"], "options": {"wait": 0.5}}
        self.assertRefused(self.ask("POST", "/v1/commands", body), 400, "BADREQUEST")
        granted = self.ask("POST", "/v1/commands", body, Pfsb_Client="alice")
        self.assertEqual((granted.status, granted.content["name"]), (200, "door"))

    def test_verb_whose_effect_belongs_to_a_session_needs_a_client(self) -> None:
        """A verb whose effect belongs to a session, such as LOCK, needs a client id: clients without a name share
        anonymous sessions, and each of them could give the lock back."""
        for verb in ("TRYLOCK", "UNLOCK"):
            body = {"command": verb, "args": ["door"]}
            refused = self.ask("POST", "/v1/commands", body)
            self.assertRefused(refused, 400, "BADREQUEST")
            self.assertEqual(refused.body, self.ask("POST", "/v1/locks/door").body)
        self.assertEqual(self.commands(), [])
        for verb in ("TRYLOCK", "UNLOCK"):
            body = {"command": verb, "args": ["door"]}
            self.assertEqual(self.ask("POST", "/v1/commands", body, Pfsb_Client="alice").status, 200)

    def test_option_that_the_verb_does_not_have_is_refused(self) -> None:
        for verb, args, option, said in (
            ("PUT", ["a"], "ttl", "PUT has no option"),
            ("SAY", [], "ttl", "SAY has no option"),
            ("MPUT", ["a"], "b", "MPUT has no option"),
            ("KEYS", ["a"], "limits", 'did you mean "limit"?'),
        ):
            body = {"command": verb, "args": args, "options": {option: "5"}}
            refused = self.ask("POST", "/v1/commands", body)
            self.assertRefused(refused, 400, "BADREQUEST")
            self.assertIn(said, refused.content["text"])
        self.assertEqual(self.commands(), [])
        body = {"command": "SETTINGS", "args": ["SET"], "options": {"session_window": 5}}
        self.ask("POST", "/v1/commands", body)
        self.assertEqual(self.commands(), [("SETTINGS SET", "session_window=5")])

    def test_mistakes_are_refused(self) -> None:
        for body, status, code in (
            ({}, 400, "BADREQUEST"),
            ({"command": 5}, 400, "BADREQUEST"),
            ({"command": "PTU", "args": []}, 404, "UNKNOWN"),
            ({"command": "", "args": []}, 404, "UNKNOWN"),
            ({"command": "PUT a b"}, 404, "UNKNOWN"),
            ({"command": "STATUS"}, 404, "UNKNOWN"),
            ({"command": "LISTEN"}, 400, "BADREQUEST"),
            ({"command": "UNLISTEN"}, 400, "BADREQUEST"),
            ({"command": "PUT", "args": "a b"}, 400, "BADREQUEST"),
            ({"command": "PUT", "args": ["a"]}, 400, "BADREQUEST"),
            ({"command": "PUT", "args": ["a", True]}, 400, "BADREQUEST"),
            ({"command": "PUT", "args": ["a", 1.5]}, 400, "BADREQUEST"),
            ({"command": "PUT", "args": ["a", ["b"]]}, 400, "BADREQUEST"),
            ({"command": "KEYS", "options": {"limit": True}}, 400, "BADREQUEST"),
            ({"command": "KEYS", "options": ["limit=1"]}, 400, "BADREQUEST"),
            ({"command": "KEYS", "options": {"limit": 1}, "more": 1}, 400, "BADREQUEST"),
        ):
            self.assertRefused(self.ask("POST", "/v1/commands", body), status, code)
        self.assertRefused(self.ask("GET", "/v1/commands"), 405, "METHOD")
        self.assertEqual(self.commands(), [])
