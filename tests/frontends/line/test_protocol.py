"""The line protocol of docs/protocol.rst, verb by verb, with malformed input and slow clients."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Answer, CommandDescription, Done, Refused
from pfsb.config.config import Limits
from pfsb.frontends.line import help as help_pages
from pfsb.frontends.line.conversation import PIPELINED_CHARACTERS_MAX
from pfsb.frontends.line.protocol import LineFactory, LineProtocol
from pfsb.frontends.stream import protocol
from pfsb.frontends.stream.hang_ups import PAUSED_LOOK_SECONDS, HangUp
from pfsb.frontends.stream.protocol import LEAVE_SECONDS, LINGER_SECONDS, PIECE_BYTES
from tests.frontends.fake_server import FakeClientConnection, FakeServer, fake_config

WELCOME = b"* WELCOME cluster=four server=2 view=7 leader=0 help=HELP\n"


DROPPED = b'* DROPPED text="the server made a mistake with this connection and noted it in its log"\n'


class Transport(StringTransport):
    """A transport that keeps each write apart, and that can be told that its output is full."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 54_321))
        self.writes: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def abortConnection(self) -> None:
        self.aborted = True


class LineTestCase(SynchronousTestCase):
    limits = Limits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(fake_config(self.limits))
        self.local_clients = self.server.local_clients
        self.factory = LineFactory(self.server, self.clock)  # type: ignore[arg-type]
        self.protocol, self.transport = self.connect()

    def connect(self) -> tuple[LineProtocol, Transport]:
        protocol, transport = self.factory.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        self.assertEqual(
            transport.value()[:10], b"* WELCOME " if protocol in self.factory.connections else b"ERR BUSY f"
        )
        if protocol in self.factory.connections:
            transport.clear()
        return protocol, transport

    def ask(self, data: bytes | str, to: LineProtocol | None = None) -> list[str]:
        """Sends lines on a connection. Returns the lines that come back."""
        protocol = to or self.protocol
        protocol.dataReceived((data if isinstance(data, bytes) else data.encode()) + b"\n")
        self.clock.advance(0)
        transport = protocol.transport
        assert isinstance(transport, Transport)
        return self.said(transport)

    def said(self, transport: Transport | None = None) -> list[str]:
        transport = transport or self.transport
        self.clock.advance(0)
        text = transport.value().decode()
        transport.clear()
        return text.splitlines()

    def reply(self, line: str) -> str:
        (reply,) = self.ask(line)
        return reply

    def session(self) -> FakeClientConnection:
        return self.local_clients.connections[-1]


class CommandTests(LineTestCase):
    def test_first_line_is_welcome(self) -> None:
        transport = Transport()
        self.factory.buildProtocol(None).makeConnection(transport)
        self.assertEqual(transport.value(), WELCOME)

    def test_welcome_without_leader_says_none(self) -> None:
        server = FakeServer(leader=None)
        self.assertIn(b"leader=none", LineFactory(server, self.clock).welcome())  # type: ignore[arg-type]

    def test_ping(self) -> None:
        self.assertEqual(self.reply("#3 ping"), "#3 OK")
        self.assertIn("takes nothing", self.reply("PING x"))

    def test_put_and_get(self) -> None:
        self.assertEqual(self.reply("#1 PUT colour blue"), "#1 OK revision=1")
        self.assertEqual(self.reply("GET colour"), 'OK value="blue" revision=1')

    def test_value_at_an_earlier_revision(self) -> None:
        """GET with at= is answered in its place among any number of requests before and behind it."""
        self.server.past_reads.values[b"colour", 3] = Done((("value", b"red"), ("revision", 2)))
        expected = ["OK revision=1", 'OK value="red" revision=2', 'OK value="blue" revision=1']
        self.assertEqual(self.ask("PUT colour blue\nGET colour at=3\nGET colour"), expected)
        self.assertEqual(self.reply("#5 GET at=3 colour"), '#5 OK value="red" revision=2')
        self.assertTrue(self.reply("GET colour at=2").startswith("ERR COMPACTED fate=none"))
        asked = [(key, revision) for key, revision, _ in self.server.past_reads.asked]
        self.assertEqual(asked, [(b"colour", 3), (b"colour", 3), (b"colour", 2)])
        self.assertEqual(self.server.past_reads.asked[0][2], self.server.deadline())
        self.assertEqual(self.server.past_reads.addresses[0], "127.0.0.1")

    def test_at_takes_a_revision_of_one_key(self) -> None:
        """`at=` takes a revision, and one key; in quotes it is a key, and together with read= it is refused."""
        for line in (
            "GET colour at=",
            "GET colour at=-1",
            "GET colour at=x",
            "GET colour at=1 at=2",
            "GET at=1",
            "GET colour at=1 read=stale",
            "GET a b at=1",
        ):
            self.assertTrue(self.reply(line).startswith("ERR BADREQUEST"), line)
        self.assertTrue(self.reply('GET "at=1"').startswith("ERR NOTFOUND"))
        self.assertEqual(self.reply('PUT "at=1" x'), "OK revision=2")
        self.assertEqual(self.server.past_reads.asked, [])

    def test_option_of_another_question_is_no_key(self) -> None:
        """`at=` goes with GET alone: in a question that takes several keys it is refused, and not looked up as a key.
        In quotes it is one."""
        for line in ("MGET colour at=5", "MGET at=5", "RANGE a at=5", "KEYS at=5 b", "MGET colour limit=5"):
            said = self.reply(line)
            self.assertTrue(said.startswith(f"ERR BADREQUEST fate=none {line.split()[0]} has no option "), said)
        self.assertIn('in quotes, "at=5" is an argument; usage: MGET key [key ...]', self.reply("MGET colour at=5"))
        self.assertTrue(self.reply('PUT "at=5" x').startswith("OK"))
        self.assertEqual(self.ask('MGET "at=5"'), ['+key="at=5" value="x" revision=1', "OK count=1"])

    def test_bytes_are_written_and_shown_as_halves_of_surrogate_pairs(self) -> None:
        """Bytes that are no UTF-8, and NUL, are written and shown as halves of surrogate pairs, in keys, values and the
        key with which a page goes on."""
        value = r'"\udcff\u0000\u00e9"'
        self.assertEqual(self.reply(f"PUT {value} {value}"), "OK revision=1")
        self.assertEqual(self.server.cluster.executed[-1][2], ("PUT", b"\xff\0\xc3\xa9", b"\xff\0\xc3\xa9"))
        self.assertEqual(self.reply(f"GET {value} read=stale"), 'OK value="\\udcff\\u0000\u00e9" revision=1')
        self.assertEqual(self.reply(r'CAS "\udcff\u0000\u00e9" "\udcff\u0000\u00e9" "nil"'), "OK revision=2")
        self.ask("PUT a 1")
        self.assertEqual(self.ask('RANGE "" "" limit=1')[-1], 'OK count=1 next="\\udcff\\u0000\u00e9"')

    def test_texts_and_names_are_no_bytes(self) -> None:
        for line in (r'SAY "\udcff"', r'SAY "a\u0000"', r'LOCK "\udcff"', r'HELLO "\udcff"', r'HELLO "a\u0000"'):
            self.assertTrue(self.reply(line).startswith("ERR BADREQUEST fate=none "), line)
        self.assertEqual(self.server.cluster.executed, [])

    def test_command_that_runs_at_one_revision_of_a_key(self) -> None:
        self.assertEqual(self.reply("IF colour 0 PUT colour blue"), "OK revision=1")
        self.assertEqual(self.reply("if colour 1 append colour ish"), 'OK value="blueish" revision=2')
        refused = self.reply("IF colour 1 DEL colour")
        self.assertEqual(refused, 'ERR PRECONDITION fate=none key "colour" has revision 2, not 1')
        self.assertEqual(self.reply("IF colour any DEL colour"), "OK deleted=1 revision=4")

    def test_unknown_key(self) -> None:
        self.assertTrue(self.reply("#1 GET nothing").startswith("#1 ERR NOTFOUND fate=none "))

    def test_rows_then_ok(self) -> None:
        self.ask("MPUT a 1 b 2")
        self.assertEqual(
            self.ask("#5 RANGE a z"),
            ['#5 +key="a" value="1" revision=1', '#5 +key="b" value="2" revision=1', "#5 OK count=2"],
        )

    def test_quoted_nil_is_text_and_bare_nil_is_absent(self) -> None:
        self.assertIn("ERR CONFLICT", self.reply('CAS a "nil" x'))
        self.assertIn("OK", self.reply("CAS a nil x"))

    def test_say_takes_the_rest_of_the_line(self) -> None:
        self.ask("SAY  it's \"late\",  isn't it")
        self.assertEqual(self.server.cluster.executed[-1][2], ("SAY", "it's \"late\",  isn't it"))

    def test_say_without_text_is_refused(self) -> None:
        self.assertIn("BADREQUEST", self.reply("SAY"))

    def test_lock_is_overtaken_until_it_is_granted(self) -> None:
        """Replies come in the order of the requests, except that of a LOCK, which later replies overtake until the lock
        is granted."""
        other, other_transport = self.connect()
        self.assertIn("OK", self.ask("LOCK x", other)[0])
        self.assertEqual(self.ask("#1 LOCK x\n#2 PING"), ["#2 OK"])
        self.ask("UNLOCK x", other)
        self.assertIn('#1 OK name="x" token=', self.said()[0])
        self.assertEqual(self.said(other_transport), [])

    def test_status_is_one_row_of_json(self) -> None:
        row, ok = self.ask("#4 STATUS")
        self.assertEqual((json.loads(row.removeprefix("#4 +"))["server"], ok), (2, "#4 OK"))

    def test_another_leader(self) -> None:
        """LEAD takes the id of one server, and no other arguments (Departure 59)."""
        self.assertEqual(self.reply("#3 lead 2"), "#3 OK leader=2 view=8 changed=yes")
        self.assertIn("ERR NOTFOUND", self.reply("LEAD 9"))
        for bad in ("LEAD", "LEAD two", "LEAD -1", "LEAD 1 2", "LEAD 1 wait=3", "LEAD 99999999999"):
            self.assertIn("ERR BADREQUEST", self.reply(bad), bad)

    def test_digest_of_now_and_of_a_number(self) -> None:
        self.assertRegex(self.reply("DIGEST"), "^OK seq=0 digest=[0-9a-f]{64}$")
        self.assertIn("seq=812", self.reply("DIGEST seq=812"))
        for bad in ("DIGEST 812", "DIGEST seq=x", "DIGEST seq=1 more", "DIGEST sequence=1"):
            self.assertIn("ERR BADREQUEST", self.reply(bad))

    def test_digests_that_wait_for_each_other_have_the_deadlines_of_their_arrival(self) -> None:
        """Each DIGEST has its deadline from its arrival, although it waits for those before it: otherwise the last one
        would wait for the times of all."""
        asked: list[float | None] = []
        answers: list[Answer] = []

        def digest(seq: int | None, answer: Answer, until: float | None = None) -> None:
            asked.append(until)
            answers.append(answer)

        self.server.digest = digest  # type: ignore[method-assign]
        self.server.deadline = self.clock.seconds  # type: ignore[method-assign]
        self.clock.advance(7)
        self.ask("DIGEST seq=1000\nDIGEST seq=1000")
        self.clock.advance(5)
        answers[0](Refused("UNAVAILABLE", "late"))
        self.assertEqual(asked, [7, 7])

    def test_servers_are_rows(self) -> None:
        said = self.ask("SERVERS")
        self.assertEqual(said[-1], "OK count=4 epoch=0")
        self.assertTrue(said[0].startswith("+id=0 state=REG_LEADER"), said)

    def test_members_are_told_now_and_at_each_change(self) -> None:
        """A client that has sent MEMBERS is told the addresses of the servers at once and at each change: once, however
        often it has asked, and no more when it is gone."""
        self.server.clients = {0: "127.0.0.1:9400", 3: "[::1]:9403"}
        now = '* MEMBERS epoch=0 server0="127.0.0.1:9400" server3="[::1]:9403"'
        self.assertEqual(self.ask("MEMBERS"), ["OK epoch=0", now])
        self.assertEqual(self.ask("MEMBERS"), ["OK epoch=0", now])
        self.server.clients, self.server.epoch = {3: "[::1]:9403"}, 1
        (watcher,) = self.server.watchers
        watcher()
        self.clock.advance(0)
        self.assertEqual(self.said(), ['* MEMBERS epoch=1 server3="[::1]:9403"'])
        self.assertTrue(self.ask("MEMBERS now")[-1].startswith("ERR BADREQUEST"))
        self.protocol.connectionLost()
        self.assertEqual(self.server.watchers, [])

    def test_client_that_does_not_read_is_told_of_the_last_change_when_it_does(self) -> None:
        """A client that has not read while the membership changed is told of the last change alone when it reads
        again."""
        self.ask("MEMBERS")
        (watcher,) = self.server.watchers
        self.protocol.pauseProducing()
        watcher()
        self.server.epoch = 5
        watcher()
        self.clock.advance(0)
        self.assertEqual(self.said(), [])
        self.protocol.resumeProducing()
        self.assertEqual(self.said(), ["* MEMBERS epoch=5"])

    def test_servers_are_added_removed_and_moved(self) -> None:
        """SERVERS ADD, MOVE, REMOVE and REPLACE hand the change over, and their answer is one line."""
        changes = self.server.changes
        self.assertEqual(self.ask("SERVERS ADD 4 127.0.0.1:7404"), ["OK epoch=1"])
        self.assertEqual(self.ask('servers move 1 "[::1]:7401"'), ["OK epoch=2"])
        self.assertEqual(self.ask("SERVERS REMOVE 2"), ["OK epoch=3"])
        self.assertEqual(self.ask("SERVERS REPLACE 3 5 127.0.0.1:7405"), ["OK epoch=4"])
        self.assertEqual(changes.asked[:2], [("add", 4, "127.0.0.1:7404"), ("move", 1, "[::1]:7401")])
        self.assertEqual(changes.asked[2:], [("remove", 2), ("replace", 3, 5, "127.0.0.1:7405")])
        changes.refusal = Refused("CONFLICT", "no")
        self.assertEqual(self.ask("SERVERS REMOVE 2"), ["ERR CONFLICT fate=none no"])

    def test_wrong_changes_of_the_servers_are_refused(self) -> None:
        """SERVERS with wrong arguments is refused, and no change is handed over."""
        for line in (
            "SERVERS ADD",
            "SERVERS ADD 4",
            "SERVERS ADD four 127.0.0.1:7404",
            "SERVERS ADD 65536 127.0.0.1:7404",
            "SERVERS REMOVE -1",
            "SERVERS REMOVE 1 2",
            "SERVERS ADD 4 127.0.0.1:7404 VOTER",
            "SERVERS REPLACE 1 2",
        ):
            self.assertTrue(self.ask(line)[-1].startswith("ERR BADREQUEST"), line)
        self.assertEqual(self.server.changes.asked, [])

    def test_help_has_a_row_for_every_verb(self) -> None:
        said = self.ask("HELP")
        for verb in ("HELLO", "BYE", "SAY", "LISTEN", "LOCK", "PUT", "MGET", "STATUS", "FAULT"):
            self.assertTrue([row for row in said if row.startswith(f"+{verb} ")], verb)
        self.assertEqual(said[-1], "OK")

    def test_help_of_one_verb_has_an_example(self) -> None:
        for verb in self.factory.verbs.descriptions:
            self.assertIn("Example: ", self.ask(f"help {verb.lower()}")[-2])

    def test_help_breaks_no_word_on_a_terminal_of_80_columns(self) -> None:
        """In HELP on a terminal of 80 columns no word is broken, and all words of usage and help are there, in their
        order."""
        *rows, end = self.ask("HELP")
        self.assertEqual(end, "OK")
        self.assertLess(max(map(len, rows)), 80)
        said = " ".join(" ".join(row[1:] for row in rows).split())
        for each in self.factory.verbs.descriptions.values():
            self.assertIn(f"{each.usage} {each.help}", said)
            *rows, _ = self.ask(f"HELP {each.verb}")
            self.assertLess(max(map(len, rows)), 80)
            self.assertIn(each.help, " ".join(" ".join(row[1:] for row in rows).split()))

    def test_help_of_an_application_with_long_words(self) -> None:
        """In HELP of an application with long words neither a word nor a usage is cut, however long it is."""
        long = CommandDescription("LONG", f"LONG {'x' * 90}", f"{'a' * 100} {'b ' * 100}c")
        found = help_pages.all_commands([long, *self.factory.verbs.descriptions.values()])
        assert isinstance(found, Done)
        rows = [str(row[0][1]) for row in found.rows]
        self.assertEqual((rows[0], rows[1].strip()), (long.usage, "a" * 100))
        self.assertEqual({len(row) > 78 for row in rows[2:]}, {False})

    def test_help_of_unknown_verb_names_the_nearest(self) -> None:
        self.assertIn("PUTHASH", self.reply("HELP PUTHSH"))

    def test_unknown_verb_names_the_nearest(self) -> None:
        reply = self.reply("#2 GTE colour")
        self.assertTrue(reply.startswith("#2 ERR UNKNOWN fate=none ") and "GET" in reply, reply)

    def test_verb_that_is_like_none_gets_no_suggestion(self) -> None:
        """A verb that has only a letter or two in common with others gets no suggestion."""
        for verb in ("NONSENSE", "ASDF", "EXIT", "TEST", "LS", "INSERT", "XYZZY"):
            self.assertTrue(self.reply(verb).endswith(f"there is no command {verb}, HELP shows all"))
        for verb, right in (
            ("PTU", "PUT"),
            ("DELETE", "DEL"),
            ("HALLO", "HELLO"),
            ("STAUTS", "STATUS"),
            ("QIT", "QUIT"),
        ):
            self.assertTrue(self.reply(verb).endswith(f'; did you mean "{right}"?'), verb)


class TogetherTests(LineTestCase):
    """Requests that arrive together are submitted together, as far as possible."""

    def test_lines_that_came_together_are_submitted_together(self) -> None:
        """Lines that came together are submitted together, and each has its reply, in order, whether it has a number or
        not."""
        said = self.ask("PUT a 1\n#7 PUT a 2\nGET a\nINCR a")
        self.assertEqual(self.session().calls, ["submit 4"])
        self.assertEqual(
            said, ["OK revision=1", "#7 OK revision=2", 'OK value="2" revision=2', 'OK value="3" revision=4']
        )

    def test_everything_else_keeps_its_place(self) -> None:
        """A question to this server, a LOCK and a malformed line keep their places: the lines before them are submitted
        first."""
        for between in ("PING", "GET a read=stale", "LOCK x", "DANCE", "PUT", "\x01"):
            self.setUp()
            said = self.ask(f"#1 PUT a 1\n#2 PUT a 2\n{between}\n#3 PUT a 3")
            self.assertEqual(self.session().calls[0], "submit 2", between)
            self.assertEqual([line[:2] for line in said if line[:1] == "#"], ["#1", "#2", "#3"], between)

    def test_long_lines_are_not_submitted_together(self) -> None:
        """Long lines are not submitted together, since a bundle must fit a frame."""
        line = "PUT a " + "x" * (PIPELINED_CHARACTERS_MAX // 3)
        self.ask("\n".join([line] * 5))
        self.assertEqual(self.session().calls, ["submit 2", "submit 2", "submit"])

    def test_those_that_cannot_go_together_go_one_by_one(self) -> None:
        """Where one of several lines repeats a number that is in use, the lines are submitted one by one, and that line
        is answered from the reply cache."""
        said = self.ask("#1 PUT a 1\n#2 PUT a 2\n#1 PUT a 1\n#3 PUT a 3")
        self.assertEqual(self.session().calls, ["submit"] * 4)
        self.assertEqual(said, [f"#{n} OK revision={n}" for n in (1, 2)] + ["#1 OK revision=1", "#3 OK revision=3"])

    def test_window_counts_what_was_taken_together(self) -> None:
        """At most `session_window` requests without a reply are handled, including pipelined ones."""
        self.local_clients.hold = True
        self.ask("\n".join(["PUT a 1"] * 200))
        self.assertEqual(self.session().calls, ["submit 128"])


class ReadLevelTests(LineTestCase):
    def test_linearizable_read_is_submitted(self) -> None:
        for line in ("GET a", "GET a read=linearizable"):
            self.ask(line)
            self.assertEqual(self.session().calls.pop(), "submit")

    def test_stale_read_is_asked_at_once(self) -> None:
        self.local_clients.hold = True
        self.ask("PUT a 1\nGET a read=stale")
        self.assertEqual(self.session().calls, ["submit", "ask"])

    def test_reads_of_this_servers_own_state_are_asked_together(self) -> None:
        """Sequential reads are pipelined, too, if no request before them is under way."""
        self.ask("PUT a 1")
        lines = ["GET a read=stale", "#5 GET a read=sequential", "GET b read=stale"]
        said = self.ask("\n".join(lines))
        self.assertEqual(self.session().calls, ["submit", "ask 3"])
        self.assertEqual([line.split()[0] for line in said], ["OK", "#5", "ERR"])

    def test_sequential_read_waits_for_what_was_asked_before(self) -> None:
        """A sequential read waits for earlier commands of its session, so that it is never older than their writes."""
        self.local_clients.hold = True
        self.ask("#1 PUT a 1\n#2 GET read=sequential a")
        self.assertEqual(self.session().calls, ["submit"])
        self.local_clients.release()
        self.assertEqual(self.session().calls, ["submit", "ask"])
        self.local_clients.release()
        self.assertEqual(self.said(), ["#1 OK revision=1", '#2 OK value="1" revision=1'])

    def test_quoted_key_that_looks_like_a_level_is_a_key(self) -> None:
        self.ask('PUT "read=stale" x')
        self.assertIn('value="x"', self.reply('GET "read=stale"'))

    def test_unknown_level_is_refused(self) -> None:
        self.assertIn("linearizable, sequential, stale", self.reply("GET a read=fresh"))


class SessionTests(LineTestCase):
    def test_hello_opens_a_session(self) -> None:
        self.assertEqual(self.reply("HELLO alice"), 'OK client="alice" epoch=1 last=0 resumed=no opened=1')
        self.assertEqual(self.session().calls, ["hello alice 10"])

    def test_hello_elsewhere_resumes_and_repeats_the_answer(self) -> None:
        """A client that opens its session at another server gets the results of the numbers that it repeats there."""
        self.ask("HELLO alice\n#1 PUT colour blue")
        other, _ = self.connect()
        said = self.ask("HELLO alice\n#1 PUT colour blue", other)
        self.assertEqual(said, ['OK client="alice" epoch=3 last=1 resumed=yes opened=1', "#1 OK revision=2"])

    def test_ttl_is_taken(self) -> None:
        self.ask("HELLO alice ttl=30")
        self.assertEqual(self.session().calls, ["hello alice 30"])

    def test_bad_introductions_are_refused(self) -> None:
        for bad in (
            "HELLO",
            'HELLO ""',
            f"HELLO {'x' * 65}",
            'HELLO "a b"',
            'HELLO "a\\n"',
            "HELLO ~a",
            "HELLO !a",
            "HELLO a ttl=0",
            "HELLO a ttl=3601",
            "HELLO a ttl=-1",
            "HELLO a ttl=x",
            "HELLO a b",
            "HELLO a tll=3",
        ):
            self.assertIn("ERR BADREQUEST fate=none", self.reply(bad))
        self.assertEqual(self.session().calls, [])

    def test_lines_behind_an_unanswered_hello_wait_and_nothing_more_is_read(self) -> None:
        self.local_clients.hold = True
        self.ask("HELLO alice\n#1 PUT a 1")
        self.assertEqual((self.session().calls, self.transport.producerState), (["hello alice 10"], "paused"))
        self.local_clients.hold = False
        self.local_clients.release()
        self.assertEqual(self.said(), ['OK client="alice" epoch=1 last=0 resumed=no opened=1', "#1 OK revision=2"])
        self.assertEqual(self.transport.producerState, "producing")

    def test_hello_waits_for_commands_before_it(self) -> None:
        self.local_clients.hold = True
        self.ask("PUT a 1\nHELLO alice")
        self.assertEqual(self.session().calls, ["submit"])
        self.local_clients.release()
        self.assertEqual(self.local_clients.connections[0].calls, ["submit", "disconnected"])
        self.assertEqual(self.local_clients.connections[1].calls, ["hello alice 10"])

    def test_second_hello_leaves_the_first_session_and_its_waiting_locks(self) -> None:
        other, _ = self.connect()
        self.ask("LOCK x", other)
        self.ask("HELLO alice\n#1 LOCK x")
        said = self.ask("HELLO bob")
        self.assertTrue(said[0].startswith("#1 ERR NOSESSION fate=unknown"), said)
        self.assertIn('client="bob"', said[1])

    def test_commands_behind_a_refused_hello_do_not_run(self) -> None:
        """After a refused HELLO commands are refused: they would run in an anonymous session, which does not know their
        numbers."""
        self.local_clients.refuse = Refused("UNAVAILABLE", "no majority", "unknown")
        self.local_clients.hold = True
        self.ask("HELLO alice")
        self.local_clients.refuse, self.local_clients.hold = None, False
        self.assertTrue(self.reply("#1 PUT a 1").startswith("#1 ERR NOSESSION fate=none"))
        self.assertIn("OK", self.reply("HELLO alice"))
        self.assertIn("#1 OK", self.reply("#1 PUT a 1"))

    def test_taken_over_session_is_told_and_runs_nothing_more(self) -> None:
        self.ask("HELLO alice")
        other, _ = self.connect()
        self.ask("HELLO alice", other)
        self.assertEqual(self.said(), ["* SESSION state=replaced"])
        self.assertTrue(self.reply("#1 PUT a 1").startswith("#1 ERR REPLACED fate=none"))
        self.assertTrue(self.reply("GET a read=stale").startswith("ERR REPLACED"))
        self.assertEqual(self.reply("PING"), "OK")

    def test_expired_session_is_told(self) -> None:
        self.ask("HELLO alice")
        self.session().end("NOSESSION", "expired")
        self.assertEqual(self.said(), ["* SESSION state=expired"])
        self.assertIn("ERR NOSESSION", self.reply("PUT a 1"))

    def test_bye_closes_session_and_connection(self) -> None:
        self.assertEqual(self.ask("HELLO alice\nBYE\nPUT a 1")[1:], ["OK"])
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.session().calls, ["hello alice 10", "bye"])

    def test_bye_waits_for_what_was_asked_before(self) -> None:
        self.local_clients.hold = True
        self.ask("#1 PUT a 1\n#2 BYE")
        self.assertEqual(self.session().calls, ["submit"])
        self.local_clients.release()
        self.local_clients.release()
        self.assertEqual(self.said(), ["#1 OK revision=1", "#2 OK"])
        self.assertTrue(self.transport.disconnecting)

    def test_quit_closes_the_connection_once_all_is_answered(self) -> None:
        self.local_clients.hold = True
        self.assertEqual(self.ask("#1 PUT a 1\nQUIT\n#2 PUT a 2"), [])
        self.assertFalse(self.transport.disconnecting)
        self.local_clients.release()
        self.assertEqual(self.said(), ["#1 OK revision=1", "OK"])
        self.assertTrue(self.transport.disconnecting)

    def test_client_that_only_closes_its_side_still_gets_its_replies(self) -> None:
        """A client that only closes its sending side still gets its replies, as in: printf 'PUT a 1 ' | nc -N 127.0.0.1
        9402."""
        self.local_clients.hold = True
        self.ask("#1 PUT a 1\n#2 PING")
        self.protocol.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.local_clients.release()
        self.assertEqual(self.said(), ["#1 OK revision=1", "#2 OK"])
        self.assertTrue(self.transport.disconnecting)

    def test_client_that_closed_its_side_is_not_waited_for_for_ever(self) -> None:
        self.local_clients.silent = True
        self.ask("DIGEST seq=1000000")
        self.protocol.readConnectionLost()
        self.clock.advance(LINGER_SECONDS)
        self.assertTrue(self.transport.disconnecting)

    def test_client_that_ends_while_it_is_not_read_is_noticed(self) -> None:
        """A client that closes its side while its window is full, so that its connection is not read and the transport
        does not tell, is noticed."""
        states: list[HangUp | None] = [None, None, None]
        self.patch(protocol, "hang_up_of", lambda _: states.pop(0))
        self.fill_window()
        self.clock.pump([PAUSED_LOOK_SECONDS] * 3)
        self.assertEqual((states, self.transport.disconnecting), ([], False))
        states.append(HangUp.CLOSED_ITS_SIDE)
        self.clock.advance(PAUSED_LOOK_SECONDS)
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(LINGER_SECONDS)
        self.assertTrue(self.transport.disconnecting)

    def test_client_that_is_gone_while_it_is_not_read_is_noticed(self) -> None:
        self.patch(protocol, "hang_up_of", lambda _: HangUp.GONE)
        self.fill_window()
        self.clock.advance(PAUSED_LOOK_SECONDS)
        self.assertTrue(self.transport.aborted)

    def test_connection_that_is_read_is_not_looked_at(self) -> None:
        """The server looks for the client only while the connection is not read: no longer when the window has room
        again, or the connection is lost."""
        states: list[int] = []
        self.patch(protocol, "hang_up_of", lambda _: states.append(1))
        self.fill_window()
        self.local_clients.release()
        self.clock.advance(3 * PAUSED_LOOK_SECONDS)
        self.fill_window()
        self.protocol.connectionLost()
        self.clock.advance(3 * PAUSED_LOOK_SECONDS)
        self.assertEqual(states, [])

    def fill_window(self) -> None:
        """Send as many requests as a session may have unanswered."""
        self.local_clients.hold = True
        self.ask("\n".join(["INCR n"] * self.limits.session_window))
        self.assertEqual(self.transport.producerState, "paused")

    def test_lost_connection_leaves_its_session(self) -> None:
        self.ask("HELLO alice\nLISTEN")
        self.protocol.connectionLost()
        self.assertEqual(self.session().calls[-1], "disconnected")
        self.assertTrue(self.server.cluster.subscriptions[0].stopped)
        self.assertEqual(self.factory.connections, set())


class ListenTests(LineTestCase):
    def test_listen_tells_what_is_said_from_now_on(self) -> None:
        self.ask("SAY one")
        self.assertEqual(self.reply("LISTEN"), "OK from=2")
        said = self.ask("SAY two")
        self.assertIn("OK index=2 revision=2", said)
        self.assertIn('* CHAT index=2 client="!1" text="two"', said)

    def test_listen_from_tells_ok_first_and_then_all_from_there(self) -> None:
        self.ask("SAY one\nSAY two\nSAY three")
        said = self.ask("#9 LISTEN from=2")
        self.assertEqual(said[0], "#9 OK")
        self.assertEqual([line.split()[2] for line in said[1:]], ["index=2", "index=3"])

    def test_listening_again_replaces_the_former(self) -> None:
        self.ask("LISTEN\nLISTEN from=1\nSAY one")
        self.assertEqual([each.stopped for each in self.server.cluster.subscriptions], [True, False])

    def test_unlisten_ends_it(self) -> None:
        self.ask("LISTEN\nUNLISTEN")
        self.assertEqual(self.ask("SAY one"), ["OK index=1 revision=1"])

    def test_listening_from_nowhere_is_refused(self) -> None:
        self.assertIn("ERR BADREQUEST", self.reply("LISTEN from=x"))

    def test_client_that_does_not_read_is_told_nothing_more_until_it_does(self) -> None:
        self.ask("LISTEN")
        self.protocol.pauseProducing()
        other, _ = self.connect()
        self.ask("SAY one\nSAY two", other)
        self.assertEqual(self.said(), [])
        self.assertEqual(self.transport.producerState, "paused")
        self.protocol.resumeProducing()
        self.assertEqual(len(self.said()), 2)
        self.assertEqual(self.transport.producerState, "producing")


class FaultTests(LineTestCase):
    def test_faults_reach_the_links(self) -> None:
        for line in ("FAULT LOSS 0.3", "FAULT DELAY 50", "FAULT CUT 1,3", "FAULT skip 812"):
            self.assertEqual(self.reply(line), "OK")
        faults = self.server.faults
        self.assertEqual((faults.loss, faults.delay_ms, faults.cut_off), (0.3, 50, {1, 3}))
        self.assertEqual(self.server.skip, {812})
        self.reply("FAULT HEAL")
        self.assertEqual((faults.loss, faults.delay_ms, faults.cut_off), (0, 0, frozenset()))

    def test_bad_faults_are_refused(self) -> None:
        for bad in ("", "X", "LOSS", "LOSS 2", "LOSS nan", "DELAY x", "CUT", "CUT 2", "CUT 9", "SKIP 0", "SKIP -1"):
            self.assertIn("ERR BADREQUEST", self.reply(f"FAULT {bad}"))

    def test_faults_are_denied_unless_configured(self) -> None:
        self.server.config = evolve(self.server.config, faults=False)
        self.assertTrue(self.reply("FAULT HEAL").startswith("ERR DENIED fate=none"))


class BadInputTests(LineTestCase):
    limits = Limits(command_bytes=100)

    def test_empty_lines_are_ignored(self) -> None:
        self.assertEqual(self.ask("\n\r\n   \n\t\nPING"), ["OK"])

    def test_noise_is_a_bad_request_and_the_connection_goes_on(self) -> None:
        said = self.ask(b"PING\n\x80\x00\x01\n\xfe\xfe\n#6 \x01\nPING")
        self.assertEqual([line.split()[1] for line in said[1:3]], ["BADREQUEST", "BADREQUEST"])
        self.assertTrue(said[3].startswith("#6 ERR BADREQUEST"), said)
        self.assertEqual((said[0], said[4]), ("OK", "OK"))

    def test_line_of_less_than_a_megabyte_is_refused_and_skipped(self) -> None:
        """A line that is too long is refused with TOOLARGE and skipped to its end; the connection stays open."""
        self.protocol.dataReceived(b"#8 PUT a ")
        for _ in range(15):
            self.protocol.dataReceived(b"x" * 65_536)
        said = self.ask("\nPING")
        self.assertTrue(said[0].startswith("#8 ERR TOOLARGE fate=none"), said)
        self.assertEqual(said[1:], ["OK"])
        self.assertFalse(self.transport.disconnecting)

    def test_line_that_goes_on_for_a_megabyte_ends_the_connection(self) -> None:
        self.protocol.dataReceived(b"#8 PUT a ")
        for _ in range(18):
            self.protocol.dataReceived(b"x" * 65_536)
        said = self.ask("\nPING")
        self.assertTrue(said[0].startswith("#8 ERR TOOLARGE fate=none"), said)
        self.assertRegex(said[1], "^ERR TOOLARGE fate=none .*closed")
        self.assertEqual(said[2:], [])
        self.assertTrue(self.transport.disconnecting)

    def test_telnet_negotiation_is_refused(self) -> None:
        """Telnet's DO is refused by WONT, and WILL by DONT; refusals of the client get no answer, which could go on for
        ever."""
        self.protocol.dataReceived(b"\xff\xfd\x03\xff\xfb\x18\xff\xfc\x01\xff\xfe\x01PING\r\n")
        self.clock.advance(0)
        self.assertEqual(self.transport.value(), b"\xff\xfc\x03\xff\xfe\x18OK\n")

    def test_telnet_that_interrupts_shows_what_follows(self) -> None:
        """After Ctrl-C telnet sends IP and DO TIMING-MARK, and gets an answer, without which it would show nothing
        more."""
        self.ask(b"PING")
        self.protocol.dataReceived(b"PUT a \xff\xf4\xff\xfd\x06")
        self.clock.advance(0)
        self.assertEqual(self.transport.value(), b"\xff\xfc\x06")
        self.transport.clear()
        self.assertEqual(self.ask("b"), ["OK revision=1"])

    def test_telnet_that_negotiates_on_and_on_has_bounded_answers(self) -> None:
        """A telnet wish that is repeated is answered once for all bytes that are split into lines together."""
        sent = b"\xff\xfd\x06\xff\xfb\x01" * 10_000
        self.protocol.dataReceived(sent)
        self.clock.advance(0)
        pieces = -(-len(sent) // PIECE_BYTES)
        self.assertTrue(self.transport.value().startswith(b"\xff\xfc\x06\xff\xfe\x01"))
        self.assertLessEqual(len(self.transport.value()), 6 * pieces)

    def test_telnet_that_sends_each_character_ends_lines_with_nul(self) -> None:
        for byte in b"PUT a b\r\0GET a\r\0":
            self.protocol.dataReceived(bytes([byte]))
        self.assertEqual(self.said(), ["OK revision=1", 'OK value="b" revision=1'])
        self.assertEqual(self.ask(b"PUT a c\r\0GET a\r\0PING"), ["OK revision=3", 'OK value="c" revision=3', "OK"])

    def test_mistake_of_the_server_is_internal_and_kills_nobody(self) -> None:
        self.session().submit = None  # type: ignore[assignment, method-assign]
        self.assertEqual([line[:30] for line in self.ask("#1 PUT a 1\nPING")], ["#1 ERR INTERNAL fate=unknown t", "OK"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_mistake_in_a_question_is_internal_and_kills_nobody(self) -> None:
        self.server.status = lambda: {"set": {1}}  # type: ignore[dict-item, method-assign]
        self.assertEqual([line[:27] for line in self.ask("STATUS\nPING")], ["ERR INTERNAL fate=unknown t", "OK"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class Broken(Transport):
    """A transport that fails to write as soon as it has written more than `bytes_max` bytes."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self.bytes_max = bytes_max

    def write(self, data: bytes) -> None:
        if len(self.value()) > self.bytes_max:
            raise ZeroDivisionError
        super().write(data)


class FailureTests(LineTestCase):
    """Mistakes of the server that no reply can tell: the connection ends, since its client would wait for ever."""

    def fail(self, *_: object) -> Any:
        raise ZeroDivisionError

    def assertEnded(self, transport: Transport, said: bytes = DROPPED) -> None:
        """Asserts that the connection was ended, its client was told so last, and all is over when it does not read."""
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((transport.value(), transport.disconnecting, transport.aborted), (said, True, False))
        self.clock.advance(LEAVE_SECONDS)
        self.assertTrue(transport.aborted)

    def test_client_of_a_session_whose_answer_is_lost(self) -> None:
        """A client whose answer is lost by a mistake of the server, on one of the ways that answers take, such as that
        of a HELLO, is hung up."""
        failed = self.session().failed
        assert failed is not None
        failed(ZeroDivisionError())
        self.assertEnded(self.transport)

    def test_client_that_listens(self) -> None:
        self.ask("LISTEN")
        self.server.cluster.subscriptions[0].failed(ZeroDivisionError())
        self.assertEnded(self.transport)

    def test_replies_that_are_ready_come_before(self) -> None:
        """Before a connection is ended after a mistake, the replies that are ready are written; others do not come any
        more."""
        self.local_clients.hold = True
        self.protocol.dataReceived(b"INCR a\nPING\n")
        self.protocol.replies.write_between_replies(b"* EVENT\n")
        self.protocol.replies.fail(ZeroDivisionError())
        self.local_clients.release()
        self.assertEnded(self.transport, b"* EVENT\n" + DROPPED)

    def test_client_whose_bytes_cannot_be_split(self) -> None:
        with mock.patch.object(self.protocol, "split_requests", self.fail):
            self.protocol.dataReceived(b"PING\n")
        self.assertEnded(self.transport)

    def test_client_that_cannot_be_greeted(self) -> None:
        """A connection whose `connectionMade` raises is ended; Twisted itself would leave it open."""
        self.patch(self.factory, "welcome", self.fail)
        protocol, transport = self.factory.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        self.assertEnded(transport)

    def test_client_of_which_too_much_is_under_way_to_be_regulated(self) -> None:
        """If an exception comes when a connection's requests are handled, the connection is ended."""
        self.patch(self.transport, "pauseProducing", self.fail)
        self.local_clients.hold = True
        self.protocol.dataReceived(b"INCR a\n" * self.limits.session_window)
        self.assertEnded(self.transport)

    def test_client_amid_a_large_reply(self) -> None:
        """If a large reply is cut by a mistake, the connection ends and nothing is written behind the reply, since it
        must not look complete."""
        self.ask("\n".join(f"PUT {n} {'v' * 1_000}" for n in range(200)))
        protocol, transport = self.factory.buildProtocol(None), Broken(bytes_max=60_000)
        protocol.makeConnection(transport)
        protocol.dataReceived(b"RANGE 0 9\n")
        self.clock.advance(0)
        self.assertGreater(len(transport.value()), 60_000)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(transport.aborted)
        self.assertNotIn(DROPPED, transport.value())

    def test_client_that_cannot_even_be_told(self) -> None:
        """A connection that cannot even be written to is aborted."""
        protocol, transport = self.factory.buildProtocol(None), Broken(bytes_max=1)
        protocol.makeConnection(transport)
        protocol.dataReceived(b"PING\n")
        self.clock.advance(0)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertTrue(transport.aborted)

    def test_server_that_stops_ends_all_other_connections(self) -> None:
        """When a server stops, a connection that fails to end does not keep the others from ending."""
        others = [self.connect()[1] for _ in range(3)]
        self.patch(self.transport, "loseConnection", self.fail)
        self.factory.leave()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([each.disconnecting for each in others], [True] * 3)
        self.assertTrue(self.transport.aborted)


class BoundTests(LineTestCase):
    limits = Limits(session_window=8, connections=2)

    def test_reading_stops_at_the_window_and_goes_on_at_half_of_it(self) -> None:
        self.local_clients.hold = True
        for number in range(1, 31):
            self.ask(f"#{number} PUT a {number}")
        self.assertEqual((self.outstanding(), self.transport.producerState), (8, "paused"))
        self.local_clients.release(3)
        self.assertEqual(self.outstanding(), 5)
        self.local_clients.release(1)
        self.assertEqual(self.outstanding(), 8)
        while self.local_clients.held:
            self.local_clients.release()
        self.assertEqual(len(self.said()), 30)
        self.assertEqual(self.transport.producerState, "producing")

    def outstanding(self) -> int:
        return self.protocol.replies.outstanding

    def test_waiting_locks_count_too(self) -> None:
        other, _ = self.connect()
        self.ask("LOCK x", other)
        self.ask("\n".join(f"#{n} LOCK x" for n in range(1, 9)))
        self.assertEqual(self.transport.producerState, "paused")

    def test_client_that_does_not_read_is_not_read_either(self) -> None:
        self.protocol.pauseProducing()
        self.assertEqual(self.ask("PUT a 1"), [])
        self.assertEqual((self.session().calls, self.transport.producerState), ([], "paused"))
        self.protocol.resumeProducing()
        self.assertEqual(self.said(), ["OK revision=1"])

    def test_large_reply_waits_until_the_client_reads(self) -> None:
        """No slice of a large reply is written to a transport whose output is full, and none is lost."""
        for first in range(0, 3_000, 1_000):
            self.ask("MPUT " + " ".join(f"{n:04} v" for n in range(first, first + 1_000)))
        self.protocol.dataReceived(b"RANGE 0 9 limit=3000\n")
        self.protocol.pauseProducing()
        self.assertEqual(self.said(), [])
        self.protocol.resumeProducing()
        said = self.said()
        self.assertEqual((len(said), said[-1]), (3_001, "OK count=3000"))

    def test_replies_of_one_turn_are_one_write(self) -> None:
        self.local_clients.hold = True
        self.ask("PUT a 1\nPUT a 2\nPUT a 3\nPUT a 4")
        self.transport.writes.clear()
        self.local_clients.release()
        self.clock.advance(0)
        self.assertEqual(len(self.transport.writes), 1)

    def test_refusals_of_lines_that_arrive_together_are_one_write(self) -> None:
        """Refusals of lines that arrive together are written at once: each is there before the next line is handled, so
        no reply ever has a request behind it."""
        self.transport.writes.clear()
        self.protocol.dataReceived(b"NONSENSE\nNONSENSE\nNONSENSE\n")
        self.assertEqual([data.count(b"\n") for data in self.transport.writes], [3])

    def test_connection_above_the_limit_is_refused_and_closed(self) -> None:
        self.connect()
        refused, transport = self.connect()
        self.assertTrue(transport.value().startswith(b"ERR BUSY fate=none"))
        self.assertTrue(transport.disconnecting)
        refused.dataReceived(b"PUT a 1\n")
        refused.connectionLost()
        self.assertEqual((len(self.factory.connections), self.server.cluster.executed), (2, []))

    def test_closed_connection_makes_room(self) -> None:
        self.connect()
        self.protocol.connectionLost()
        protocol, _ = self.connect()
        self.assertEqual(self.ask("PING", protocol), ["OK"])


class StoppingTests(LineTestCase):
    def test_draining_server_refuses_commands_and_still_answers_questions_about_itself(self) -> None:
        self.local_clients.draining = True
        for line in ("PUT a 1", "GET a", "GET a read=stale", "LISTEN", "HELLO alice"):
            self.assertTrue(self.reply(line).startswith("ERR SHUTDOWN fate=none"), line)
        self.assertEqual(self.reply("PING"), "OK")

    def test_leaving_writes_what_was_to_be_said(self) -> None:
        self.protocol.replies.write_between_replies(b"* LAST\n")
        self.factory.leave()
        self.assertEqual(self.transport.value(), b"* LAST\n")
        self.assertTrue(self.transport.disconnecting)

    def test_client_that_never_reads_its_last_reply_is_cut(self) -> None:
        self.factory.leave()
        self.clock.advance(LEAVE_SECONDS)
        self.assertTrue(self.transport.aborted)

    def test_answer_after_the_connection_is_gone_is_dropped(self) -> None:
        answers = []
        self.session().submit = lambda number, command, answer: answers.append(answer)  # type: ignore[method-assign]
        self.ask("PUT a 1")
        self.protocol.connectionLost()
        answers[0](Done())
        self.assertEqual(self.said(), [])

    def test_refusals_of_more_lines_than_the_window_come_all(self) -> None:
        """Refusals of more lines than the window all come: they are given at once, so no later answer would make the
        connection handle the rest."""
        self.local_clients.draining = True
        said = self.ask(b"PUT a 1\n" * 20)
        self.assertEqual((len(said), {line[:12] for line in said}), (20, {"ERR SHUTDOWN"}))
