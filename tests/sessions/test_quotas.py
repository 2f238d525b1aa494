"""Quotas of the replicated state: settings that bound what clients can make all servers keep."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Command, Done
from pfsb.applications.key_value import KeyValue
from pfsb.sessions.cluster_settings import IN_FILES, QUOTAS, RANGES
from pfsb.sessions.quota_watch import QuotaWatch
from tests.sessions.support import ClusterTestCase, Driver, code, dump, small_limits, value

INCR: Command = ("INCR", "n", 1)
ANON = "~0.1.1"


class QuotaTestCase(SynchronousTestCase):
    def begin(self, **quotas: int) -> None:
        self.driver = Driver(**quotas)
        self.machine = self.driver.machine

    def change(self, **quotas: int) -> None:
        """Change quotas, as SETTINGS SET does."""
        self.machine.settings.adopt(evolve(self.machine.settings.values, apps=self.running(), **quotas))

    def running(self) -> tuple[tuple[str, int], ...]:
        return tuple((app.name, 1) for app in self.machine.applications if app.name != "settings")

    def used(self, name: str) -> int | None:
        return self.machine.quotas()[name][0]


class SettingTests(QuotaTestCase):
    def test_every_quota_is_a_setting_and_in_no_file(self) -> None:
        """Every quota is a setting, and no configuration file has it, so that files cannot differ in quotas."""
        self.assertTrue(set(QUOTAS) < set(RANGES))
        self.assertEqual(IN_FILES, ("apps", "rules", "session_window", "window", "horizon"))

    def test_use_is_shown_with_its_limit(self) -> None:
        """The use of a quota is shown with its limit; a quota of each value or session has no single use."""
        self.begin(kv_bytes=50, sessions=7)
        self.driver.run_anonymous(ANON, (1, ("PUT", "k", "\u00e9")), (2, ("SAY", "hello")), opens=True)
        shown = self.machine.quotas()
        self.assertEqual(tuple(shown), QUOTAS)
        self.assertEqual((shown["kv_bytes"], shown["sessions"]), ((3, 50), (1, 7)))
        self.assertEqual(shown["chat_bytes"][0], len("hello") + len(ANON))
        self.assertEqual(shown["value_bytes"], (None, 1_048_576))


class SessionTests(QuotaTestCase):
    """The number of open sessions of all clients."""

    def setUp(self) -> None:
        self.begin(sessions=2)
        self.epochs = {name: self.driver.open(name)["epoch"] for name in ("alice", "bob")}

    def open(self, name: str) -> Any:
        return self.driver.execute(self.driver.operation("OPEN", name, 1_000))[0][0]

    def test_one_session_more_is_refused(self) -> None:
        """HELLO for one session more than the quota allows is answered BUSY, with fate=none."""
        self.assertEqual(code(self.open("carol")), ("BUSY", "none"))
        self.assertEqual(list(self.machine.sessions), ["alice", "bob"])

    def test_open_session_is_taken_over_all_the_same(self) -> None:
        """An open session can be taken over although as many are open as the quota allows."""
        self.assertEqual(value(self.open("bob"), "resumed"), "yes")

    def test_session_that_ends_makes_room(self) -> None:
        """A session that is closed, or has expired, makes room for another."""
        self.driver.close("alice", self.epochs["alice"])
        self.assertEqual(value(self.open("carol"), "resumed"), "no")

    def test_session_that_ended_keeps_its_last_number_when_it_is_refused(self) -> None:
        """A session that has ended keeps its last number when it is refused to open again: otherwise a command could
        run a second time when there is room."""
        self.driver.run("bob", self.epochs["bob"], (5, INCR))
        self.driver.close("bob", self.epochs["bob"])
        self.open("carol")
        self.open("bob")
        self.assertEqual(self.machine.last_number("bob"), 5)
        self.driver.close("alice", self.epochs["alice"])
        self.assertEqual(value(self.open("bob"), "last"), 5)

    def test_anonymous_session_is_refused_with_all_its_commands(self) -> None:
        """If an anonymous session is refused, so are all its commands, none of which has run. When there is room, the
        next bundle opens it."""
        results = self.driver.run_anonymous(ANON, (1, INCR), (0, ("GET", "n")), (2, INCR), opens=True)
        self.assertEqual([code(result) for result in results], [("BUSY", "none")] * 3)
        self.driver.close("alice", self.epochs["alice"])
        self.assertEqual(value(self.driver.run_anonymous(ANON, (1, INCR), opens=True)[0]), "1")

    def test_lowered_limit_ends_no_session(self) -> None:
        """A lowered limit ends no session, and refuses further ones only."""
        self.change(sessions=1)
        self.assertEqual((len(self.machine.sessions), self.used("sessions")), (2, 2))
        self.assertEqual(value(self.driver.run("alice", self.epochs["alice"], (1, INCR))[0]), "1")
        self.driver.close("bob", self.epochs["bob"])
        self.assertEqual(code(self.open("carol")), ("BUSY", "none"))


class WaitTests(QuotaTestCase):
    def test_so_many_commands_of_a_session_wait(self) -> None:
        """As many commands of a session may wait as the quota says, or the window of the session, if that is lower."""
        for quotas, waits in (({"session_waits": 2}, 2), ({"session_waits": 9}, 4)):
            self.begin(**quotas)
            epoch = self.driver.open("alice")["epoch"]
            results = [self.driver.run("alice", epoch, (number, ("WAIT",)))[0] for number in range(1, 7)]
            self.assertEqual(results[:waits], [PENDING] * waits)
            self.assertEqual([code(result) for result in results[waits:]], [("BUSY", "none")] * (6 - waits))


class KeptAnswerTests(QuotaTestCase):
    """The answers that are kept for clients that repeat a number."""

    def test_answers_of_append_are_kept_once_for_all(self) -> None:
        """The answers to APPENDs share the bytes of the value: 40 sessions that append 40 bytes each 20 times to a
        value of 100,000 bytes would otherwise keep 80 MB."""
        self.driver = Driver(window=128)
        machine = self.machine = self.driver.machine
        text = "x" * 100_000
        epochs = [self.driver.open(f"client-{i}")["epoch"] for i in range(40)]
        self.driver.run("client-0", epochs[0], (1, ("PUT", "k", text)))
        answers: dict[tuple[int, int], Any] = {}
        for number in range(2, 22):
            for i, epoch in enumerate(epochs):
                (answers[i, number],) = self.driver.run(f"client-{i}", epoch, (number, ("APPEND", "k", "y" * 40)))
        self.assertEqual(self.used("replies_bytes"), 100_000 + 40 * 20 * 40)
        self.driver.run("client-0", epochs[0], (30, ("DEL", "k")))
        for (i, number), answer in answers.items():
            (again,) = self.driver.run(f"client-{i}", epochs[i], (number, INCR))
            self.assertEqual(again, answer)
        self.assertEqual(len(value(answers[39, 21])), 100_000 + 40 * 20 * 40)
        for i, epoch in enumerate(epochs):
            self.driver.close(f"client-{i}", epoch)
        self.assertEqual(machine.kept_replies.size, 0)

    def test_results_of_commands_that_waited_when_their_session_ended_count_no_more(self) -> None:
        """The results that an application gives to waiting commands at the end of their session count no more once it
        has ended."""
        self.begin()
        alice, bob = (self.driver.open(name)["epoch"] for name in ("alice", "bob"))
        self.driver.run("alice", alice, (1, ("LOCK", "x", -1)))
        self.driver.run("bob", bob, (1, ("LOCK", "x", -1)))
        self.driver.close("bob", bob)
        self.driver.close("alice", alice)
        self.assertEqual(self.used("replies_bytes"), 0)

    def test_value_that_is_written_anew_begins_a_text_of_its_own(self) -> None:
        """After a PUT, which writes the value anew, later answers share no bytes with those before."""
        self.begin()
        epoch = self.driver.open("alice")["epoch"]
        put, append = ("PUT", "k", "z" * 300), ("APPEND", "k", "x" * 300)
        results = self.driver.run("alice", epoch, (1, append), (2, append), (3, put), (4, append))
        again = self.driver.run("alice", epoch, (1, INCR), (2, INCR), (3, INCR), (4, INCR))
        self.assertEqual(again, results)
        self.assertEqual(value(again[3]), "z" * 300 + "x" * 300)

    def test_limit_of_a_session(self) -> None:
        """Beyond the limit of a session the oldest answers are dropped, and their commands have an unknown fate."""
        self.begin(reply_cache_bytes=1_000)
        epoch = self.driver.open("alice")["epoch"]
        for number in range(1, 4):
            key = f"k{number}"
            self.driver.run("alice", epoch, (number, ("APPEND", key, "x" * 400)))
        first, last = self.driver.run("alice", epoch, (1, INCR), (3, INCR))
        self.assertEqual((code(first), value(last)), (("BADREQUEST", "unknown"), "x" * 400))

    def test_limit_of_all_sessions(self) -> None:
        """Beyond the limit of all sessions, the answers of the session are dropped first that has been silent for
        longest."""
        self.begin(replies_bytes=1_000)
        epochs = {name: self.driver.open(name)["epoch"] for name in ("alice", "bob", "carol")}
        for number, name in enumerate(("alice", "bob", "carol"), start=1):
            self.driver.run(name, epochs[name], (1, ("APPEND", f"k{number}", "x" * 400)))
        results = [self.driver.run(name, epochs[name], (1, INCR))[0] for name in epochs]
        self.assertEqual(code(results[0]), ("BADREQUEST", "unknown"))
        self.assertTrue(all(isinstance(result, Done) for result in results[1:]))
        self.assertLessEqual(self.used("replies_bytes") or 0, 1_000)

    def test_lowered_limit_holds_at_the_end_of_the_slot(self) -> None:
        """When the limit is lowered, answers are dropped at the end of the slot."""
        self.begin()
        epoch = self.driver.open("alice")["epoch"]
        self.driver.run("alice", epoch, (1, ("APPEND", "k", "x" * 400)))
        self.change(replies_bytes=399)
        self.driver.execute()
        self.assertEqual((self.used("replies_bytes"), len(self.machine.sessions["alice"].answers)), (0, 0))

    def test_servers_drop_the_same_answers(self) -> None:
        """Servers that execute the same commands drop the same answers, whichever of them serve the clients."""
        drivers = [Driver(server_id, replies_bytes=2_000, reply_cache_bytes=900) for server_id in (0, 1)]
        for driver in drivers:
            epochs = [driver.open(f"client-{i}", server_id=2)["epoch"] for i in range(6)]
            for number in range(1, 60):
                i = number * number % 6
                text = "x" * (number % 7 * 60)
                driver.execute(driver.bundle(f"client-{i}", epochs[i], (number, ("APPEND", "k", text))))
        one, other = (dump(driver.machine) for driver in drivers)
        self.assertEqual(one, other)
        self.assertEqual(*(driver.machine.kept_replies.size for driver in drivers))
        self.assertTrue(any(session.answers.forgotten for session in drivers[0].machine.sessions.values()))


class ApplicationTests(QuotaTestCase):
    def test_lowered_limit_refuses_growth_only(self) -> None:
        """After the quota of an application was lowered, values stay, and can be deleted and changed as long as they do
        not grow."""
        self.begin()
        epoch = self.driver.open("alice")["epoch"]
        self.driver.run("alice", epoch, (1, ("PUT", "k", "12345")), (2, ("PUT", "l", "12345")))
        self.change(kv_bytes=4)
        commands = (("PUT", "k", "54321"), ("PUT", "k", "123456"), ("PUT", "m", ""), ("DEL", "k"), ("PUT", "l", "1"))
        results = self.driver.run("alice", epoch, *enumerate(commands, start=3))
        self.assertEqual([isinstance(result, Done) for result in results], [True, False, False, True, True])
        self.assertEqual((code(results[1]), self.used("kv_bytes")), (("TOOLARGE", "none"), 2))

    def test_new_version_of_an_application_counts_what_it_takes_over(self) -> None:
        """A new version of an application computes anew how much of the quota it uses, since that is not in the
        snapshot."""
        kv = KeyValue()
        self.begin()
        epoch = self.driver.open("alice")["epoch"]
        self.driver.run("alice", epoch, (1, ("PUT", "k\u00e9", "12345")), (2, ("SAY", "hello")))
        for application in self.machine.applications:
            if application.name in ("kv", "chat"):
                before = application.used()  # type: ignore[attr-defined]
                other = type(application)()
                other.restore(application.snapshot())
                self.assertEqual(other.used(), before)  # type: ignore[attr-defined]
        self.assertEqual((kv.used(), self.used("kv_bytes")), (0, 8))


class WatchTests(QuotaTestCase):
    """The log line that tells of a quota that is nearly used up."""

    def setUp(self) -> None:
        self.begin(kv_bytes=100)
        self.epoch = self.driver.open("alice")["epoch"]
        self.watch = QuotaWatch(self.machine)
        self.number = 0
        self.lines: list[LogEvent] = []
        globalLogPublisher.addObserver(self.lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.lines.append)

    def look_with(self, used: int) -> int:
        """The number of lines that are logged when so many bytes are in use."""
        self.number += 1
        self.driver.run("alice", self.epoch, (self.number, ("PUT", "k", "x" * (used - 1))))
        self.lines.clear()
        self.watch.look()
        return len(self.lines)

    def test_line_comes_once_until_the_use_has_fallen(self) -> None:
        """The line comes once at 80 per cent of a quota, and again only after the use was below 70."""
        found = [self.look_with(used) for used in (79, 80, 100, 70, 90, 69, 80, 81)]
        self.assertEqual(found, [0, 1, 0, 0, 0, 0, 1, 0])

    def test_line_names_the_quota_and_its_use(self) -> None:
        """The refusal of a command by a quota names the quota and its use."""
        self.look_with(85)
        self.assertEqual([self.lines[0][key] for key in ("name", "used", "limit")], ["kv_bytes", 85, 100])


class ClusterTests(ClusterTestCase):
    """Quotas, as clients of whole servers meet them."""

    def test_anonymous_client_is_served_when_there_is_room_again(self) -> None:
        """An anonymous client whose session was refused, with all its commands, is served when there is room again,
        under the same numbers."""
        self.begin(3)
        alice = self.open("alice")
        self.assertIsInstance(self.do(alice, "SETTINGS", "SET", "sessions=1"), Done)
        client = self.connect()
        asked = [client.ask("INCR", "n", number=1)]
        self.cluster.run(0.0001)
        asked.append(client.ask("INCR", "n", number=2))
        self.assertEqual([code(self.answer(told)) for told in asked], [("BUSY", "none")] * 2)
        self.assertEqual(code(self.answer(self.connect().hello("bob"))), ("BUSY", "none"))
        self.answer(alice.bye())
        self.assertEqual(value(self.do(client, "INCR", "n", number=1)), "1")
        self.assertEqual(value(self.do(client, "INCR", "n", number=2)), "2")

    def test_setting_can_be_raised_when_no_session_is_free(self) -> None:
        """An operator can raise the limit of sessions although clients keep all of them open."""
        self.begin(3)
        alice = self.open("alice")
        self.assertIsInstance(self.do(alice, "SETTINGS", "SET", "sessions=1"), Done)
        client = self.connect()
        self.assertEqual(code(self.do(client, "PUT", "k", "v")), ("BUSY", "none"))
        self.assertIsInstance(self.do(client, "SETTINGS", "SET", "sessions=2"), Done)
        self.assertIsInstance(self.do(client, "PUT", "k", "v"), Done)
        self.assertEqual(code(self.do(self.connect(), "PUT", "k", "v")), ("BUSY", "none"))

    def test_connection_opens_so_many_sessions(self) -> None:
        """A connection opens only so many sessions: a client that says HELLO with ever new ids is then told to connect
        anew. Ids that the connection has used still work."""
        self.begin(1, small_limits(opened_sessions=2))
        client = self.connect()
        for name in ("alice", "bob", "alice"):
            self.assertIsInstance(self.answer(client.hello(name)), Done)
        self.assertEqual(code(self.answer(client.hello("carol"))), ("BUSY", "none"))
        self.assertIsInstance(self.answer(client.hello("bob")), Done)
        self.assertIsInstance(self.answer(self.connect().hello("carol")), Done)

    def test_status_shows_use_and_limit(self) -> None:
        """The field `quotas` of STATUS has an object with use and limit for each quota."""
        self.begin(1)
        self.do(self.open("alice"), "PUT", "k", "v")
        quotas: Any = self.server().status()["quotas"]
        self.assertEqual(quotas["kv_bytes"], {"used": 2, "limit": 1_073_741_824})
        self.assertEqual(quotas["sessions"], {"used": 1, "limit": 100_000})
        self.assertEqual(quotas["session_locks"], {"used": None, "limit": 10_000})
