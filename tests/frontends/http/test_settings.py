"""The resource /v1/settings: the settings that all servers share."""

from __future__ import annotations

from pfsb.frontends.http.server_info import description
from pfsb.sessions.cluster_settings import RANGES
from tests.frontends.fake_server import VALUES
from tests.frontends.http.http_client import HTTPCase


class SettingsTests(HTTPCase):
    def test_settings_are_an_object_by_name(self) -> None:
        """The settings are an object by name; numbers are numbers, and all other values are text, as in STATUS."""
        self.assertEqual(self.content("GET", "/v1/settings"), VALUES.shown())
        for level in ("linearizable", "sequential", "stale"):
            self.assertEqual(self.content("GET", f"/v1/settings?read={level}"), VALUES.shown())

    def test_change_is_ordered_and_shown(self) -> None:
        """A change is ordered and shown. A number may be given as text, and a number such as 9.0 is an integer."""
        changed = self.content("PATCH", "/v1/settings", {"set": {"session_window": 64.0, "window": "32"}})
        self.assertEqual(changed, {"revision": 1})
        self.assertEqual(self.commands(), [("SETTINGS SET", "session_window=64", "window=32")])
        self.assertEqual({type(word) for word in self.commands()[0]}, {str})
        shown = self.content("GET", "/v1/settings")
        self.assertEqual((shown["session_window"], shown["window"]), (64, 32))

    def test_numbered_change_runs_once(self) -> None:
        """A change with a repeated command number runs once, as other commands do."""
        headers = {"Pfsb_Client": "alice", "Pfsb_Number": "1"}
        first = self.ask("PATCH", "/v1/settings", {"set": {"window": 9}}, **headers)
        again = self.ask("PATCH", "/v1/settings", {"set": {"window": 9}}, **headers)
        self.assertEqual((first.status, again.body), (200, first.body))
        self.assertEqual(len(self.commands()), 1)

    def test_mistakes_are_refused(self) -> None:
        """A request with a mistake in it changes no setting."""
        for body, status, code in (
            ({"set": {"windwo": 9}}, 400, "BADREQUEST"),
            ({"set": {"window": 0}}, 400, "BADREQUEST"),
            ({"set": {"window": 9, "session_window": 10**18}}, 400, "BADREQUEST"),
            ({"set": {"window": -9}}, 400, "BADREQUEST"),
            ({"set": {"window": 1.5}}, 400, "BADREQUEST"),
            ({"set": {"window": True}}, 400, "BADREQUEST"),
            ({"set": {"window": None}}, 400, "BADREQUEST"),
            ({"set": {"window": "nine"}}, 400, "BADREQUEST"),
            ({"set": {"window": 9, "apps": "\ud800"}}, 400, "BADREQUEST"),
            ({"set": {"window": 9, "apps": "a" * 20_000}}, 413, "TOOLARGE"),
            ({"set": {"": 9}}, 400, "BADREQUEST"),
            ({"set": {"cluster_identity": "00"}}, 400, "BADREQUEST"),
            ({"set": {}}, 400, "BADREQUEST"),
            ({"set": [9]}, 400, "BADREQUEST"),
            ({"window": 9}, 400, "BADREQUEST"),
            ({"set": {"window": 9}, "more": 1}, 400, "BADREQUEST"),
            ({"set": {"apps": "chat,counter"}}, 409, "CONFLICT"),
        ):
            self.assertRefused(self.ask("PATCH", "/v1/settings", body), status, code)
        self.assertRefused(self.ask("PATCH", "/v1/settings?read=stale", {"set": {"window": 9}}), 400, "BADREQUEST")
        self.assertRefused(self.ask("PUT", "/v1/settings", {"set": {"window": 9}}), 405, "METHOD")
        self.assertEqual(self.content("GET", "/v1/settings"), VALUES.shown())

    def test_resources_of_an_application_that_is_removed_are_refused(self) -> None:
        """The resources of an application that is removed are refused. When the cluster runs the application again,
        they answer, on the same connection."""
        self.content("PATCH", "/v1/settings", {"set": {"apps": "kv"}})
        self.assertRefused(self.ask("POST", "/v1/chat", {"text": "hello"}), 404, "UNKNOWN")
        self.assertRefused(self.ask("GET", "/v1/events"), 404, "UNKNOWN")
        self.assertRefused(self.ask("GET", "/v1/locks"), 404, "UNKNOWN")
        self.content("PATCH", "/v1/settings", {"set": {"apps": "kv,chat"}})
        self.assertEqual(self.content("POST", "/v1/chat", {"text": "hello"})["index"], 1)

    def test_description_has_the_ranges_of_the_settings(self) -> None:
        """The description has each setting, with the range that it has in the code."""
        known = description()["components"]["schemas"]["ChangeSettings"]["properties"]["set"]["properties"]
        self.assertEqual(set(known), {"apps", *RANGES})
        for name, allowed in RANGES.items():
            most = 1_000_000 if name == "rules" else allowed.most
            self.assertEqual((known[name]["minimum"], known[name]["maximum"]), (allowed.least, most), name)
