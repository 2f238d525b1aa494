"""SETTINGS over the line protocol, and the verbs of a cluster that begins or ceases to run an application meanwhile."""

from __future__ import annotations

from pfsb.applications.catalogue import Catalogue, GivenApplications
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import BadRequest
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.frontends.line.protocol import LineFactory
from tests.frontends.fake_server import VALUES, FakeServer
from tests.frontends.line.test_protocol import LineTestCase


class SettingsTests(LineTestCase):
    def test_settings_are_rows_of_names_and_values(self) -> None:
        """SETTINGS shows one row for each setting, with its value as it is typed."""
        said = self.ask("SETTINGS")
        self.assertEqual(said[-1], "OK")
        self.assertIn("+name=apps value=chat,kv,lock", said)
        self.assertIn("+name=session_window value=128", said)
        self.assertIn(f"+name=cluster value={VALUES.cluster_identity.hex()}", said)

    def test_every_read_level_shows_them(self) -> None:
        """SETTINGS is answered at every read level, as other questions are."""
        for level in ("linearizable", "sequential", "stale"):
            self.assertEqual(self.ask(f"SETTINGS read={level}")[-1], "OK")

    def test_change_is_answered_with_its_revision_and_shown(self) -> None:
        """A change of settings is a command: its repeated number gives the same answer, which has the revision, and
        SETTINGS shows the new value."""
        self.assertEqual(self.reply("#1 settings set session_window=64 window=32"), "#1 OK revision=1")
        self.assertEqual(self.reply("#1 SETTINGS SET session_window=64 window=32"), "#1 OK revision=1")
        said = self.ask("SETTINGS")
        self.assertIn("+name=session_window value=64", said)
        self.assertIn("+name=window value=32", said)

    def test_mistakes_are_one_line_that_says_what_would_be_right(self) -> None:
        """A change with a mistake in it is refused with one line that says what would be right, and changes nothing."""
        for line, code, text in (
            ("SETTINGS GET window", "BADREQUEST", "SETTINGS SET name=value changes some"),
            ("SETTINGS SET", "BADREQUEST", "SETTINGS SET session_window=64"),
            ("SETTINGS SET window", "BADREQUEST", "must be name=value"),
            ("SETTINGS SET window=1 window=2", "BADREQUEST", "window is there twice"),
            ("SETTINGS SET windwo=1", "BADREQUEST", 'did you mean "window"?'),
            ("SETTINGS SET session_window=9 window=0", "BADREQUEST", "window must be from 1 to 1000, not 0"),
            ("SETTINGS SET apps=chat,counter", "CONFLICT", "server 0 cannot run counter version 1"),
            ("SETTINGS SET window=9 read=stale", "BADREQUEST", "read= goes with questions"),
        ):
            reply = self.reply(line)
            self.assertTrue(reply.startswith(f"ERR {code} fate=none "), reply)
            self.assertIn(text, reply)
        self.assertIn("+name=session_window value=128", self.ask("SETTINGS"))

    def test_help_shows_both_forms(self) -> None:
        """HELP shows both SETTINGS and SETTINGS SET, whose verb has two words."""
        rows = self.ask("HELP")
        for verb in ("SETTINGS ", "SETTINGS SET name=value"):
            self.assertTrue([row for row in rows if row.startswith(f"+{verb}")], verb)
        self.assertIn("+  Example: SETTINGS SET session_window=64 window=32", self.ask("help settings set"))
        self.assertIn("+SETTINGS", self.ask("HELP SETTINGS"))
        self.assertIn("ERR UNKNOWN", self.reply("HELP SETTINGS GET"))


class SwitchTests(LineTestCase):
    """The cluster changes its applications while clients are connected."""

    def test_application_that_is_added_is_there_for_connected_clients(self) -> None:
        """When an application is added, its commands, its event log and its lines of HELP are there for clients that
        were connected before."""
        self.reply("SETTINGS SET apps=kv")
        other, _ = self.connect()
        self.assertIn("ERR UNKNOWN", self.reply("SAY hello"))
        self.assertIn("ERR UNKNOWN", self.reply("LISTEN"))
        self.assertEqual(self.ask("SETTINGS SET apps=kv,chat", other), ["OK revision=2"])
        self.assertEqual(self.reply("LISTEN"), "OK from=1")
        self.assertIn("OK index=1", self.ask("SAY hello", other)[0])
        self.assertIn("* CHAT index=1 ", self.said()[0])
        self.assertTrue([row for row in self.ask("HELP") if row.startswith("+SAY ")])
        self.assertEqual(self.reply("UNLISTEN"), "OK")

    def test_application_that_is_removed_is_gone_for_connected_clients(self) -> None:
        """When an application is removed, connected clients are told so by commands, LISTEN and HELP; the session and
        the other applications go on."""
        self.reply("#1 PUT colour blue")
        self.assertIn("OK", self.reply("LISTEN"))
        self.assertEqual(
            self.ask("#2 SETTINGS SET apps=kv"),
            ['* ENDED verb=LISTEN next=1 text="no chat any more"', "#2 OK revision=2"],
        )
        for line in ("#3 SAY hello", "LOG", "LISTEN", "LISTEN from=1", "UNLISTEN", "#3 LOCK printer"):
            self.assertIn("ERR UNKNOWN fate=none ", self.reply(line), line)
        self.assertFalse([row for row in self.ask("HELP") if row.startswith(("+SAY ", "+LISTEN", "+LOCK"))])
        self.assertEqual(self.reply("#3 GET colour"), '#3 OK value="blue" revision=1')

    def test_listen_that_waits_behind_the_removal_is_refused(self) -> None:
        """A LISTEN that waits behind the removal of its application is refused when its turn comes."""
        self.local_clients.hold = True
        self.protocol.dataReceived(b"SETTINGS SET apps=kv\nLISTEN from=1\nPING\n")
        self.local_clients.release()
        said = self.said()
        self.assertEqual((said[0], said[2]), ("OK revision=1", "OK"))
        self.assertIn("ERR UNKNOWN fate=none unknown verb LISTEN", said[1])

    def test_new_version_may_describe_its_commands_otherwise(self) -> None:
        """When another version of an application runs, its description of the commands is in force."""

        class Quiet(Chat):
            commands = tuple(each for each in Chat.commands if each.verb != "LOG")

        self.assertEqual(self.ask("LOG")[-1], "OK count=0")
        quiet = object.__new__(Quiet)
        quiet.__dict__.update(Chat().__dict__)
        self.server.catalogue.switch([quiet, KeyValue()])
        self.assertIn("ERR UNKNOWN", self.reply("LOG"))


class CatalogueTests(LineTestCase):
    def test_switch_that_fails_leaves_everything_as_it_was(self) -> None:
        """A switch of the applications that fails, since two have one verb, leaves everything as it was."""
        catalogue = Catalogue([KeyValue()], GivenApplications.of([KeyValue(), Lock()]))
        told: list[str] = []
        catalogue.watch(lambda: told.append(catalogue.chosen[0].name))
        self.assertRaises(BadRequest, catalogue.switch, [KeyValue(), KeyValue()])
        self.assertEqual((told, [each.name for each in catalogue.chosen]), ([], ["kv"]))
        catalogue.switch([Lock()])
        self.assertEqual((told, [each.name for each in catalogue.chosen]), (["lock"], ["lock"]))

    def test_port_that_is_opened_after_a_switch_has_the_new_verbs(self) -> None:
        """A port has the present verbs, whether it was opened before a switch of the applications or after it."""
        server = FakeServer()
        server.catalogue.switch([KeyValue()])
        verbs = LineFactory(server, self.clock).verbs  # type: ignore[arg-type]
        self.assertIn("PUT", verbs.submitted)
        self.assertNotIn("SAY", verbs.submitted)
        server.catalogue.switch([Chat()])
        self.assertIn("SAY", verbs.submitted)
        self.assertEqual((verbs.listen, verbs.unlisten), ({"LISTEN"}, {"UNLISTEN"}))
