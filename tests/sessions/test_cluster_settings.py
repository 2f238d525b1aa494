"""The settings that all servers share: their values, their encoding, and the commands that change them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.catalogue import Catalogue, PluginApplications
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import BadRequest, Done, Event, Refused, Result
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.cluster_settings import RANGES, RULES_KNOWN, ClusterSettings, WrongSetting
from pfsb.sessions.event_feed import EventFeed
from pfsb.sessions.ordered_settings import Abilities, OrderedSettings
from pfsb.sessions.settings_follower import abilities_of
from pfsb.sessions.state_machine import ANNOUNCE, CannotRun, SessionStateMachine, birth
from pfsb.simulator.cluster.server_process import SimulatedApplications
from tests.examples import examples
from tests.sessions import support
from tests.sessions.support import ClusterTestCase, encoded

VALUES = ClusterSettings((0, 1, 2), (("kv", 1), ("lock", 1)), bytes(range(8)), session_window=7)
ALL = Abilities.of({"kv": [1], "lock": [1]})


class EncodingTests(SynchronousTestCase):
    def test_settings_come_back_from_their_bytes(self) -> None:
        """Settings are decoded as the first leader has encoded them."""
        self.assertEqual(ClusterSettings.decode(VALUES.encode()), VALUES)

    def test_settings_with_an_unknown_name_are_refused(self) -> None:
        """Settings with an unknown name are refused: a server that does not know a setting would execute otherwise than
        those that do."""
        rows = [*msgpack.unpackb(VALUES.encode()), ("speed", 9)]
        self.assertRaises(WrongSetting, ClusterSettings.decode, msgpack.packb(rows))

    def test_settings_from_before_a_setting_was_added_have_its_default(self) -> None:
        """Settings from before a setting was added are decoded with its default, and a change of it is kept."""
        rows = dict(msgpack.unpackb(VALUES.encode()))
        self.assertNotIn("instance_bytes", rows)
        self.assertEqual(ClusterSettings.decode(VALUES.encode()).instance_bytes, 2**30)
        changed = VALUES.change({"instance_bytes": "7"})
        self.assertEqual(ClusterSettings.decode(changed.encode()).instance_bytes, 7)
        rows.pop("kv_bytes")
        self.assertRaises(WrongSetting, ClusterSettings.decode, msgpack.packb([*rows.items()]))

    def test_settings_outside_their_range_are_refused(self) -> None:
        """Settings outside of their ranges are refused when they are decoded, even if they were ordered."""
        for name in RANGES:
            for value in (0, 2**50 + 1):
                wrong = evolve(VALUES, **{name: value})
                self.assertRaises(WrongSetting, ClusterSettings.decode, wrong.encode())

    @examples(100)
    @given(st.binary(max_size=200))
    def test_other_bytes_raise_wrong_setting_and_nothing_else(self, data: bytes) -> None:
        """Bytes that are no settings raise `WrongSetting`, and nothing else: ordered bytes must never stop a server."""
        with contextlib.suppress(WrongSetting):
            ClusterSettings.decode(data)

    @examples(100)
    @given(st.recursive(st.integers() | st.text() | st.binary() | st.none(), st.lists, max_leaves=12))
    def test_other_values_raise_wrong_setting_and_nothing_else(self, value: object) -> None:
        """Well-formed msgpack of another shape raises `WrongSetting`, and nothing else, for settings and for
        abilities."""
        try:
            data = msgpack.packb(value)
        except (OverflowError, ValueError):
            return
        for decode in (ClusterSettings.decode, Abilities.decode):
            with contextlib.suppress(WrongSetting):
                decode(data)

    def test_abilities_come_back_from_their_bytes(self) -> None:
        """Abilities are decoded as they were encoded, in whatever order plugins were found."""
        self.assertEqual(Abilities.decode(ALL.encode()), ALL)
        self.assertEqual(Abilities.of({"lock": [1], "kv": [1]}).encode(), ALL.encode())


class ChangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.settings = OrderedSettings(VALUES)
        self.told: list[ClusterSettings] = []
        self.settings.on_change = self.told.append
        for server_id in VALUES.members:
            self.settings.announce(server_id, ALL.encode())

    def set(self, *words: str) -> Result:
        command = self.settings.check(("SETTINGS", "SET", *words))
        context = type("Context", (), {"revision": 5})()
        result: Result = self.settings.execute(command, context)
        return result

    def test_value_that_was_set_is_in_force(self) -> None:
        """A changed value is in force: the answer has the revision of the change, and the rest of the server is
        told."""
        self.assertEqual(self.set("session_window=9", "horizon=20000"), Done((("revision", 5),)))
        self.assertEqual((self.settings.values.session_window, self.settings.values.horizon), (9, 20_000))
        self.assertEqual(self.told, [self.settings.values])

    def test_all_values_are_changed_or_none(self) -> None:
        """A command changes all values that it names, or none if one is wrong, and its refusal names that one."""
        result = self.set("session_window=9", "window=0")
        assert isinstance(result, Refused)
        self.assertEqual(result.code, "BADREQUEST")
        self.assertIn("window must be from 1 to 1000, not 0; no setting was changed", result.text)
        self.assertEqual((self.settings.values, self.told), (VALUES, []))

    def test_horizon_that_would_stop_a_busy_cluster_is_refused(self) -> None:
        """A horizon that is too short for a busy cluster is refused: hardly any update would run, not even the one that
        raises it again."""
        result = self.set("horizon=9999")
        assert isinstance(result, Refused)
        self.assertIn("horizon must be from 10000 to 1000000000, not 9999", result.text)
        self.assertEqual(self.settings.values, VALUES)

    def test_simulated_cluster_may_have_a_short_horizon(self) -> None:
        """In a simulated cluster the minimum of the horizon is lower, so that runs reach the end of the horizon."""
        self.settings.horizon_min = 20
        self.assertIsInstance(self.set("horizon=19"), Refused)
        self.assertIsInstance(self.set("horizon=20"), Done)

    def test_short_horizon_of_an_earlier_order_is_read(self) -> None:
        """Ordered settings with a shorter horizon than users may choose now can be decoded."""
        short = evolve(VALUES, horizon=2)
        self.assertEqual(ClusterSettings.decode(short.encode()), short)

    def test_unknown_setting_names_the_nearest(self) -> None:
        """The refusal of an unknown setting names the one that is most like it."""
        result = self.set("session_windo=9")
        assert isinstance(result, Refused)
        self.assertIn('did you mean "session_window"?', result.text)

    def test_identity_and_members_are_not_changed_by_hand(self) -> None:
        """The identity and the members, which tell clusters apart, cannot be changed by a command."""
        for word in ("cluster_identity=0000000000000000", "members=0,1"):
            self.assertIsInstance(self.set(word), Refused)

    def test_application_that_a_member_lacks_is_refused(self) -> None:
        """A change to an application that a member lacks is refused, with the server and what it lacks."""
        self.settings.announce(0, Abilities.of({"kv": [1], "lock": [1], "chat": [1]}).encode())
        result = self.set("apps=kv,chat")
        assert isinstance(result, Refused)
        self.assertIn("server 1 cannot run chat version 1", result.text)

    def test_application_that_all_members_have_is_run(self) -> None:
        """A change to an application that all members have is made; a version is named behind a colon."""
        for server_id in VALUES.members:
            self.settings.announce(server_id, Abilities.of({"kv": [1, 2], "lock": [1]}).encode())
        self.assertIsInstance(self.set("apps=kv:2"), Done)
        self.assertEqual(self.settings.values.apps, (("kv", 2),))

    def test_silent_member_keeps_changes_from_being_made(self) -> None:
        """A change is refused as long as some member has not announced what it can run."""
        settings = OrderedSettings(VALUES)
        settings.announce(0, ALL.encode())
        settings.announce(2, ALL.encode())
        result = settings.execute(("SETTINGS SET", "window=3"), type("Context", (), {"revision": 5})())
        self.assertIn("server 1", result.text)
        self.assertEqual(settings.values, VALUES)

    def test_rules_that_a_member_cannot_follow_are_refused(self) -> None:
        """A change to rules that some member cannot follow is refused."""
        later = Abilities({"kv": (1,), "lock": (1,)}, rules=3)
        for server_id in (0, 1):
            self.settings.announce(server_id, later.encode())
        self.assertIsInstance(self.set("rules=3"), Refused)
        self.settings.announce(2, later.encode())
        self.assertIsInstance(self.set("rules=3"), Done)

    def test_installed_applications_may_tell_which_rules_a_server_follows(self) -> None:
        """Installed applications of a test may tell which rules a server follows, like a server of a later version; a
        real server follows those that its code knows."""
        installed = SimulatedApplications((), tallies=(2,), rules=3)
        self.assertEqual(Abilities.of_server(installed), Abilities({"tally": (2,)}, 3))
        self.assertEqual(abilities_of(installed), Abilities({"tally": (2,)}, 3))
        self.assertEqual(Abilities.of_server(PluginApplications()).rules, RULES_KNOWN)

    def test_announcement_of_a_stranger_does_not_count(self) -> None:
        """An announcement of a server that is no member does not count."""
        self.assertIsInstance(self.settings.announce(9, ALL.encode()), Refused)
        self.assertNotIn(9, self.settings.announced)

    def test_wrong_lines_are_refused_before_they_are_ordered(self) -> None:
        """A wrong line of SETTINGS SET is refused before it is ordered, and the refusal says how the command is
        written."""
        for words in (("SET",), ("GET", "x"), ("SET", "window"), ("SET", "window=1", "window=2")):
            self.assertRaises(BadRequest, self.settings.check, ("SETTINGS", *words))

    def test_snapshot_holds_everything(self) -> None:
        """A snapshot brings back the settings and the announcements."""
        other = OrderedSettings()
        other.restore(self.settings.snapshot())
        self.assertEqual((other.values, other.announced), (self.settings.values, self.settings.announced))


class TwoVersions:
    """Makes the application kv in versions 1 and 2, which differ in nothing but their number."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        self.without: tuple[str, ...] = ()
        """Names of applications that are not installed any more."""
        self.broken: Exception | None = None
        """The error of an installation with a mistake in it."""
        self.unfit: tuple[tuple[str, int], ...] = ()
        """Applications, with their versions, that are refused when they are made."""
        self.rival = False
        """Whether the application lock has the verbs of kv."""
        self.help = ""
        """The help of all verbs of the application lock; "": each verb has its own."""
        self.cannot_restore: Exception | None = None
        """The exception of the method `restore` of all applications that are made."""

    @property
    def versions(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {"kv": (1, 2), "lock": (1,)}
        return {name: versions for name, versions in found.items() if name not in self.without}

    def make(self, name: str, version: int) -> KeyValue | Lock:
        self.made.append((name, version))
        if self.broken is not None:
            raise self.broken
        if (name, version) in self.unfit:
            raise BadRequest("it cannot run:\nno snapshot")
        application: KeyValue | Lock = KeyValue() if name == "kv" or self.rival else Lock()
        application.name = name
        application.version = version
        if (error := self.cannot_restore) is not None:

            def restore(data: bytes) -> None:
                raise error

            application.restore = restore  # type: ignore[method-assign]
        if name == "lock" and self.help:
            application.commands = [evolve(each, help=self.help) for each in application.commands]
        return application


class ExecutionTests(SynchronousTestCase):
    """The state machine under settings that slot 1 brings."""

    def setUp(self) -> None:
        self.seq = 0
        self.installed = TwoVersions()
        self.catalogue = Catalogue([KeyValue(), Lock()], self.installed)
        self.machine = SessionStateMachine(0, self.catalogue)

    def execute(self, *updates: ClientUpdate) -> None:
        self.seq += 1
        self.machine.execute(self.seq, 1_000 + self.seq, updates)

    def run_command(self, *command: object) -> Result:
        """Execute a command in a slot of its own; returns the result that is kept for its session."""
        number = self.seq + 1
        session = bundle.Bundle("~1.1.1", 0, True, ((number, command),))
        self.execute(ClientUpdate(f"1.1.{self.seq}", 1, 1, 0, encoded(session)))
        if "~1.1.1" not in self.machine.sessions:
            return Refused("NOSESSION", "the machine has no settings yet")
        result: Result = self.machine.answer_of(self.machine.sessions["~1.1.1"], number)
        return result

    def announce_all(self, abilities: Abilities | None = None) -> None:
        data = (abilities or Abilities.of(self.installed.versions)).encode()
        for server_id in VALUES.members:
            own = bundle.Bundle(bundle.SERVER, 0, False, ((0, (ANNOUNCE, data)),))
            self.execute(ClientUpdate(f"{server_id}.1.1", server_id, 1, 0, encoded(own)))

    def test_nothing_runs_before_the_birth(self) -> None:
        """A command that is ordered before the settings has no effect, on any server."""
        self.run_command("PUT", "k", "v", -1, -1)
        self.assertEqual((self.machine.revision, self.machine.sessions), (0, {}))

    def test_birth_happens_once(self) -> None:
        """A second BIRTH changes nothing."""
        self.execute(birth(0, VALUES))
        self.execute(birth(1, evolve(VALUES, session_window=3)))
        self.assertEqual((self.machine.settings.values, self.machine.revision), (VALUES, 0))

    def test_session_window_of_the_settings_counts(self) -> None:
        """The session window of the settings holds, for sessions that are open, too."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.run_command("INCR", b"n", 1)
        self.run_command("SETTINGS SET", "session_window=2")
        self.assertEqual(self.machine.sessions["~1.1.1"].answers.answers_max, 2)

    def test_application_that_is_added_starts_empty_and_one_removed_is_gone(self) -> None:
        """An application that is added starts empty, and one that is removed is gone with its verbs; if it comes back,
        it has forgotten everything."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.run_command("INCR", b"n", 1)
        before = self.machine.applications[0]
        self.run_command("SETTINGS SET", "apps=lock")
        self.assertNotIn("INCR", self.catalogue.verbs)
        self.run_command("SETTINGS SET", "apps=lock,kv")
        self.assertIn("INCR", self.catalogue.verbs)
        self.assertNotIn(before, self.machine.applications)
        self.assertEqual(self.machine.applications[1].snapshot(), KeyValue().snapshot())

    def test_application_under_a_new_version_goes_on_with_its_state(self) -> None:
        """An application under a new version goes on with its state, by way of a snapshot."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.run_command("INCR", b"n", 1)
        state = self.machine.applications[0].snapshot()
        self.run_command("SETTINGS SET", "apps=kv:2,lock")
        self.assertEqual([each.version for each in self.machine.applications[:2]], [2, 1])
        self.assertEqual(self.machine.applications[0].snapshot(), state)

    def test_version_that_cannot_take_over_the_state_is_refused(self) -> None:
        """A version that cannot take over the state is refused, by the same bytes at every server, and the former
        version goes on. A refusal that the application raises stops no server, either."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.run_command("INCR", b"n", 1)
        before = self.machine.settings.values
        state = self.machine.applications[0].snapshot()
        for error in (KeyError(object()), BadRequest("a key is missing"), ZeroDivisionError()):
            self.installed.cannot_restore = error
            result = self.run_command("SETTINGS SET", "apps=kv:2,lock", "window=5")
            assert isinstance(result, Refused)
            name = type(error).__name__
            text = f"kv:2 cannot take over the state of version 1 ({name}); no setting was changed"
            self.assertEqual(result, Refused("CONFLICT", text))
            self.assertEqual((self.machine.settings.values, self.machine.applications[0].snapshot()), (before, state))
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)
        self.assertIsInstance(self.run_command("INCR", b"n", 1), Done)
        self.installed.cannot_restore = None
        self.assertIsInstance(self.run_command("SETTINGS SET", "apps=kv:2,lock"), Done)

    def test_server_whose_machine_cannot_take_over_the_state_stops(self) -> None:
        """If a server's machine cannot take over the state, as for want of memory, that server stops, since others may
        have done it."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.installed.cannot_restore = MemoryError()
        self.assertRaises(MemoryError, self.run_command, "SETTINGS SET", "apps=kv:2,lock")

    def test_server_that_lacks_an_application_stops_with_one_line(self) -> None:
        """A server that lacks an application of the settings stops with one line."""
        wanted = evolve(VALUES, apps=(("kv", 1), ("counter", 1)))
        error = self.assertRaises(CannotRun, self.execute, birth(1, wanted))
        self.assertIn("counter version 1, which this server does not have", str(error))

    def test_server_of_an_earlier_version_stops_at_the_birth_of_a_later_one(self) -> None:
        """A cluster is born with the latest rules; a server that does not know them has executed nothing then."""
        self.machine = SessionStateMachine(0, Catalogue((), SimulatedApplications((), tallies=(1,), rules=1)))
        wanted = evolve(VALUES, apps=(("kv", 1),), rules=2)
        error = self.assertRaises(CannotRun, self.execute, birth(1, wanted))
        self.assertIn("rules version 2, which this server does not have", str(error))
        self.assertFalse(self.machine.settings.is_born)

    def test_ended_session_stays_forgotten_when_the_horizon_grows(self) -> None:
        """An ended session stays forgotten when the horizon grows, since the oldest valid slot never goes back
        (Departure 34)."""
        self.execute(birth(0, evolve(VALUES, horizon=2)))
        self.announce_all()
        self.assertEqual(self.machine.oldest_kept, self.seq - 2)
        self.run_command("SETTINGS SET", "horizon=10000")
        self.assertEqual(self.machine.oldest_kept, self.seq - 3)
        self.run_command("INCR", b"n", 1)
        self.assertEqual(self.machine.oldest_kept, self.seq - 4)

    def test_server_that_lost_an_application_stops_when_a_change_asks_for_it(self) -> None:
        """A server that had announced an application, and was started without it since, stops when a change asks for
        it: going on, it would differ."""
        self.execute(birth(0, evolve(VALUES, apps=(("kv", 1),))))
        self.announce_all()
        self.installed.without = ("lock",)
        before = self.machine.settings.values
        error = self.assertRaises(CannotRun, self.run_command, "SETTINGS SET", "apps=kv,lock")
        self.assertIn("lock version 1, which this server does not have", str(error))
        self.assertEqual(self.machine.settings.values, before)

    def test_server_that_cannot_load_an_application_stops(self) -> None:
        """A server that cannot load an application stops: the import depends on the machine, so its failure is no
        result of a command."""
        self.execute(birth(0, evolve(VALUES, apps=(("kv", 1),))))
        self.announce_all()
        self.installed.broken = ImportError("no module named locks")
        error = self.assertRaises(CannotRun, self.run_command, "SETTINGS SET", "apps=kv,lock")
        self.assertIn("lock, which cannot be loaded here: no module named locks", str(error))

    def test_applications_that_cannot_run_together_are_refused(self) -> None:
        """A change to applications that cannot run together is refused by every server, and the former applications go
        on."""
        self.execute(birth(0, evolve(VALUES, apps=(("kv", 1),))))
        self.announce_all()
        self.installed.rival = True
        before = self.machine.settings.values
        verbs = set(self.catalogue.verbs)
        result = self.run_command("SETTINGS SET", "apps=kv,lock")
        assert isinstance(result, Refused)
        self.assertEqual((result.code, result.fate), ("CONFLICT", "none"))
        self.assertIn("they cannot run in one server; no setting was changed", result.text)
        self.assertEqual((self.machine.settings.values, set(self.catalogue.verbs)), (before, verbs))

    def test_application_that_breaks_lines_is_refused(self) -> None:
        """A change to an application with a name that would break lines is refused by every server, in one line that
        says which name is wrong."""
        self.execute(birth(0, evolve(VALUES, apps=(("kv", 1),))))
        self.announce_all()
        self.installed.help = "Take it.\nOK"
        before = self.machine.settings.values
        result = self.run_command("SETTINGS SET", "apps=kv,lock")
        assert isinstance(result, Refused)
        self.assertEqual((result.code, result.fate), ("CONFLICT", "none"))
        self.assertIn("the application lock has a help of LOCK that is not one line", result.text)
        self.assertTrue(result.text.isprintable())
        self.assertEqual(self.machine.settings.values, before)
        self.installed.help = ""
        self.assertIsInstance(self.run_command("SETTINGS SET", "apps=kv,lock"), Done)

    def test_application_that_is_not_right_here_is_not_announced(self) -> None:
        """An application that is not right at this server is not announced, so a change to it is refused; otherwise it
        would stop this server at its slot, at each start."""
        self.execute(birth(0, evolve(VALUES, apps=(("kv", 1),))))
        self.installed.unfit = ("kv", 2), ("lock", 1)
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        abilities = abilities_of(self.installed)
        lines = [line for event in logged if (line := formatEvent(event)) and "announced" in line]
        self.assertEqual(len(lines), 2)
        self.assertTrue(lines[0].startswith("kv:2 is not announced"), lines)
        self.assertTrue(lines[1].startswith("lock is not announced"), lines)
        self.assertTrue(all("it cannot run" in line and line.isprintable() for line in lines), lines)
        self.assertEqual(abilities, Abilities.of({"kv": [1]}))
        self.announce_all(abilities)
        for apps in ("kv,lock", "kv:2"):
            result = self.run_command("SETTINGS SET", f"apps={apps}")
            assert isinstance(result, Refused)
            self.assertEqual((result.code, result.fate), ("CONFLICT", "none"))
            self.assertIn("server 0 cannot run", result.text)

    def test_wait_for_an_application_that_is_removed_ends(self) -> None:
        """A command that is PENDING in an application that is removed gets an answer; otherwise it would wait for
        ever."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.run_command("LOCK", "printer", -1)
        waiting = bundle.Bundle("~2.1.1", 0, True, ((1, ("LOCK", "printer", -1)),))
        self.execute(ClientUpdate("2.1.1", 2, 1, 0, encoded(waiting)))
        session = self.machine.sessions["~2.1.1"]
        self.assertEqual(session.waiting, {1: "lock"})
        self.run_command("SETTINGS SET", "apps=kv")
        self.assertEqual(session.waiting, {})
        result = self.machine.answer_of(session, 1)
        self.assertEqual((result.code, result.fate), ("UNKNOWN", "none"))
        self.assertIn("does not run lock any more", result.text)

    def test_wait_goes_on_under_a_new_version_and_beside_other_changes(self) -> None:
        """A command that is PENDING waits on under a new version of its application, and while other applications are
        changed."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.run_command("LOCK", "printer", -1)
        waiting = bundle.Bundle("~2.1.1", 0, True, ((1, ("LOCK", "printer", -1)),))
        self.execute(ClientUpdate("2.1.1", 2, 1, 0, encoded(waiting)))
        self.run_command("SETTINGS SET", "apps=lock,kv:2", "window=5")
        self.assertEqual(self.machine.sessions["~2.1.1"].waiting, {1: "lock"})

    def test_command_of_an_application_that_was_removed_is_refused(self) -> None:
        """A command of an application that was removed is refused; a server may have checked it before it has executed
        the removal."""
        self.execute(birth(0, VALUES))
        self.announce_all()
        self.run_command("SETTINGS SET", "apps=lock")
        result = self.run_command("INCR", b"n", 1)
        assert isinstance(result, Refused)
        self.assertEqual((result.code, result.fate), ("UNKNOWN", "none"))


class EventFeedTests(SynchronousTestCase):
    """Subscriptions to the events of applications that begin and cease to run."""

    def setUp(self) -> None:
        self.calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        turn: Any = SimpleNamespace(call=lambda function, *args: self.calls.append((function, args)))
        self.catalogue = Catalogue([Chat()])
        self.feed = EventFeed(self.catalogue, turn, lambda application: 0)
        self.heard: list[Any] = []
        self.ends: list[str] = []

    def say(self) -> Chat:
        (chat,) = self.catalogue.chosen
        assert isinstance(chat, Chat)
        context: Any = SimpleNamespace(revision=1, session="alice", time_ms=0, ticket=("alice", 1), quotas=VALUES)
        chat.execute(("SAY", "hello"), context)
        self.feed.log_grew(chat, chat.length())
        return chat

    def pass_gate(self) -> None:
        calls, self.calls = self.calls, []
        for function, args in calls:
            function(*args)

    def listen(self, first: int) -> None:
        def hear(event: Event) -> None:
            self.heard.append(dict(event.fields)["index"])

        self.feed.subscribe("LISTEN", first, hear, self.fail, self.ends.append)

    def test_events_of_a_new_log_wait_at_the_gate(self) -> None:
        """Events of a new log wait at the gate: a line that was said in a turn that is not on disk is not told, also if
        the log began in that turn."""
        self.catalogue.switch([KeyValue()])
        self.catalogue.switch([Chat()])
        self.say()
        self.listen(1)
        self.assertEqual(self.heard, [])
        self.pass_gate()
        self.assertEqual(self.heard, [1])

    def test_release_of_a_log_that_has_ended_does_not_concern_its_successor(self) -> None:
        """If three lines wait at the gate while the chat is removed and begins anew, their release does not concern the
        new chat, which has no line yet."""
        for _ in range(3):
            self.say()
        self.catalogue.switch([KeyValue()])
        self.catalogue.switch([Chat()])
        self.listen(1)
        self.pass_gate()
        self.assertEqual(self.heard, [])
        self.say()
        self.pass_gate()
        self.assertEqual(self.heard, [1])

    def test_subscriptions_of_an_application_that_is_removed_end(self) -> None:
        """The subscriptions of an application that is removed end behind the gate, and their clients are told why. They
        hear nothing of a later chat unless they listen again."""
        self.listen(1)
        self.assertTrue(self.feed.has_impatient_subscriptions)
        self.catalogue.switch([KeyValue()])
        self.assertRaises(BadRequest, self.feed.subscribe, "LISTEN", 1, self.heard.append, self.fail, self.fail)
        self.assertEqual(self.ends, [])
        self.pass_gate()
        self.assertEqual(self.ends, ["the cluster does not run the application chat any more"])
        self.assertFalse(self.feed.has_impatient_subscriptions)
        self.catalogue.switch([Chat()])
        self.say()
        self.pass_gate()
        self.assertEqual(self.heard, [])

    def test_subscriptions_go_on_under_a_new_version(self) -> None:
        """Subscriptions go on under a new version of the application, and no line is missing or told twice."""
        self.listen(1)
        before = self.say()
        after = Chat()
        after.version = 2
        after.restore(before.snapshot())
        self.catalogue.switch([after])
        self.pass_gate()
        self.say()
        self.pass_gate()
        self.assertEqual(self.heard, [1, 2])


class AnnouncementTests(ClusterTestCase):
    def test_server_announces_only_what_it_can_make(self) -> None:
        """A server announces only applications that it can make, so that all servers go on after a change to one that
        is installed, and wrong."""
        installed = TwoVersions()
        installed.unfit = (("kv", 2),)
        self.patch(support, "applications", lambda: Catalogue([KeyValue(), Lock()], installed))
        self.begin(3)
        self.assertEqual(self.server().machine.settings.announced[1], Abilities.of({"kv": [1], "lock": [1]}))
        client = self.connect()
        refused = self.do(client, "SETTINGS", "SET", "apps=lock,kv:2")
        assert isinstance(refused, Refused)
        self.assertEqual(refused.code, "CONFLICT")
        self.assertIsInstance(self.do(client, "SETTINGS", "SET", "apps=lock,kv:1"), Done)
        self.cluster.run(1.0)
        for server_id in range(3):
            self.assertEqual(self.server(server_id).machine.settings.values.shown()["apps"], "lock,kv")


class IdentityTests(ClusterTestCase):
    def test_every_server_learns_the_identity_and_refuses_another_cluster(self) -> None:
        """Every server learns the random identity that is drawn at the birth of the cluster, and refuses frames of
        another one; so after a restart."""
        self.begin(3)
        identity = self.server(0).machine.settings.values.cluster_identity
        self.assertNotEqual(identity, bytes(8))
        self.cluster.crash(1)
        self.cluster.restart(1)
        self.cluster.run(1.0)
        links = [self.cluster.servers[i].running.transport.links for i in self.cluster.ids]  # type: ignore[union-attr]
        self.assertEqual([each.membership.cluster_identity for each in links], [identity] * 3)
        links[1].know_cluster(b"elsewhere"[:8])
        self.cluster.run(1.0)
        self.assertGreater(links[0].counters.refused["cluster"], 0)
        self.assertGreater(links[1].counters.refused["cluster"], 0)
