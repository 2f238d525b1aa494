"""The Redis protocol, command by command, with malformed input and slow clients."""

from __future__ import annotations

from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.arguments import key_bytes_max
from pfsb.applications.interfaces import Done, Refused
from pfsb.config.config import Limits
from pfsb.frontends.line.conversation import Verbs
from pfsb.frontends.resp.connection_commands import COMMANDS
from pfsb.frontends.resp.protocol import RespFactory, RespProtocol
from tests.examples import examples
from tests.frontends.fake_server import FakeClientConnection, FakeServer, fake_config
from tests.frontends.line.test_protocol import Transport
from tests.frontends.resp.reading import Reply, Together, read_reply
from tests.frontends.resp.test_parser import cut, encoded

bounded = examples(50, database=None)


class RespTestCase(SynchronousTestCase):
    limits = Limits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(fake_config(self.limits))
        self.local_clients = self.server.local_clients
        self.factory = RespFactory(self.server, self.clock, Verbs(self.server))  # type: ignore[arg-type]
        self.protocol, self.transport = self.connect()

    def connect(self) -> tuple[RespProtocol, Transport]:
        protocol, transport = self.factory.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def said(self, transport: Transport | None = None) -> bytes:
        transport = transport or self.transport
        self.clock.advance(0)
        said = transport.value()
        transport.clear()
        return said

    def send(self, data: bytes) -> bytes:
        self.protocol.dataReceived(data)
        return self.said()

    def ask(self, *words: str | bytes) -> bytes:
        """Sends one command. Returns its reply."""
        return self.send(encoded(*[word if isinstance(word, bytes) else word.encode() for word in words]))

    def read(self, *words: str) -> Reply:
        """Sends one command. Returns its reply as a value of Python."""
        file = BytesIO(self.ask(*words))
        reply = read_reply(file)
        self.assertEqual(file.read(), b"")
        return reply

    def assertError(self, said: bytes, *texts: str) -> None:
        """Asserts that the reply is one line with an error that contains all of these texts."""
        self.assertTrue(said.startswith(b"-") and said.endswith(b"\r\n") and said.count(b"\n") == 1, said)
        for text in texts:
            self.assertIn(text, said.decode())

    def session(self) -> FakeClientConnection:
        return self.local_clients.connections[-1]


class FailureTests(RespTestCase):
    def test_mistake_that_no_reply_can_tell_ends_the_connection(self) -> None:
        """A mistake of the server that no reply can tell ends the connection, after an error: the client cannot know
        whether its command has run."""
        self.local_clients.hold = True
        self.protocol.dataReceived(encoded(b"INCR", b"a") + encoded(b"INCR", b"a"))
        self.protocol.replies.fail(ZeroDivisionError())
        self.local_clients.release()
        self.assertError(self.said(), "-INTERNAL fate=unknown the server made a mistake with this connection")
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class CommandTests(RespTestCase):
    def test_client_is_not_greeted(self) -> None:
        """A client of Redis is not greeted: it would take a greeting for the reply to its first command."""
        self.assertEqual(self.said(), b"")

    def test_set_and_get(self) -> None:
        self.assertEqual(self.ask("SET", "colour", "blau é"), b"+OK\r\n")
        self.assertEqual(self.ask("get", "colour"), b"$7\r\nblau \xc3\xa9\r\n")
        self.assertEqual(self.ask("GET", "nothing"), b"$-1\r\n")
        self.assertEqual(self.server.cluster.executed[0][2], ("PUT", b"colour", "blau é".encode()))

    def test_value_at_an_earlier_revision(self) -> None:
        """GETAT gives the value at an earlier revision, in its place among other commands; nil if there was no such
        key."""
        values = self.server.past_reads.values
        values[b"\xffcolour", 3] = Done((("value", b"red\xff"), ("revision", 2)))
        values[b"\xffcolour", 1] = Refused("NOTFOUND", "there was no such key at revision 1")
        asked = [(b"SET", b"\xffcolour", b"blue"), (b"GETAT", b"\xffcolour", b"3"), (b"GET", b"\xffcolour")]
        said = self.send(b"".join(encoded(*words) for words in asked))
        self.assertEqual(said, b"+OK\r\n$4\r\nred\xff\r\n$4\r\nblue\r\n")
        self.assertEqual(self.ask("getat", b"\xffcolour", "1"), b"$-1\r\n")
        self.assertError(self.ask("GETAT", b"\xffcolour", "0"), "-COMPACTED fate=none what is kept goes back to")
        self.assertEqual(self.server.past_reads.asked[0][2], self.server.deadline())

    def test_getat_takes_a_key_and_a_revision(self) -> None:
        for revision in ("", "-1", "x", "1.0", "+1", "9" * 19, "\u0663", b"\xff"):
            self.assertError(self.ask("GETAT", "colour", revision), "-ERR fate=none", "is no revision")
        self.assertError(self.ask("GETAT", "colour"), "wrong number of arguments for 'getat' command")
        self.assertError(self.ask("GETAT", "", "1"), "-ERR fate=none")
        self.assertEqual(self.server.past_reads.asked, [])

    def test_keys_and_values_are_any_bytes(self) -> None:
        """Keys and values may be any bytes, and come back as they were."""
        key, value = b"\xff\0\r\n", bytes(range(256))
        key_reply = b"$4\r\n%b\r\n" % key
        self.assertEqual(self.ask("SET", key, value), b"+OK\r\n")
        self.assertEqual(self.ask("GET", key), b"$256\r\n%b\r\n" % value)
        self.assertEqual(self.ask("STRLEN", key), b":256\r\n")
        self.assertEqual(self.ask("APPEND", key, b"\xfe"), b":257\r\n")
        self.assertEqual(self.ask("MGET", key, b"\xff"), b"*2\r\n$257\r\n%b\xfe\r\n$-1\r\n" % value)
        self.assertEqual(self.ask("EXISTS", key, b"\xff", key), b":2\r\n")
        self.assertEqual(self.ask("KEYS", b"\xff*"), b"*1\r\n" + key_reply)
        self.assertEqual(self.ask("SETNX", key, b""), b":0\r\n")
        self.assertEqual(self.ask("SET", b"\xfe", b"\xff", "NX"), b"+OK\r\n")
        self.assertEqual(self.ask("MSET", b"\xfd", b"\xfc\0", key, b"\xff"), b"+OK\r\n")
        self.assertEqual(
            self.ask("SCAN", "0", "COUNT", "2", "MATCH", b"\xfd*"), b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\n\xfd\r\n"
        )
        first = self.ask("SCAN", "0", "COUNT", "2")
        self.assertTrue(first.endswith(b"*2\r\n$1\r\n\xfd\r\n$1\r\n\xfe\r\n"), first)
        self.assertEqual(self.ask("SCAN", first.split(b"\r\n")[2]), b"*2\r\n$1\r\n0\r\n*1\r\n" + key_reply)
        self.assertError(self.ask("INCR", key), "-CONFLICT", r"\\xff")
        self.assertEqual(self.ask("DEL", key, b"\xfe", b"\xfd", b"\xff"), b":3\r\n")

    def test_set_with_nx_sets_what_is_not_there(self) -> None:
        self.assertEqual((self.ask("SET", "k", "1", "nx"), self.ask("SET", "k", "2", "NX")), (b"+OK\r\n", b"$-1\r\n"))
        self.assertEqual(self.ask("SET", "k", "2", "NX", "nx"), b"$-1\r\n")
        self.assertEqual((self.ask("SETNX", "k", "3"), self.ask("SETNX", "l", "3")), (b":0\r\n", b":1\r\n"))
        self.assertEqual(self.ask("MGET", "k", "l"), b"*2\r\n$1\r\n1\r\n$1\r\n3\r\n")

    def test_option_that_is_not_there_is_named(self) -> None:
        self.assertError(self.ask("SET", "k", "v", "EX", "5"), "-ERR fate=none", "NX only", '"EX 5"')
        self.assertEqual(self.ask("GET", "k"), b"$-1\r\n")

    def test_keys_and_values_that_mean_something_elsewhere_are_just_text(self) -> None:
        """Keys and values such as `nil` and `name=value`, which have a meaning in the line protocol, are just text."""
        for text in ("nil", "read=stale", "limit=1", "wait=0", "#1", "*", ""):
            self.assertEqual(self.ask("SET", f"k{text}", text), b"+OK\r\n")
            self.assertEqual(self.ask("GET", f"k{text}"), b"$%d\r\n%s\r\n" % (len(text), text.encode()))
        self.ask("MSET", "read=stale", "a", "limit=1", "b", "nil", "c")
        self.assertEqual(self.ask("MGET", "read=stale", "limit=1", "nil"), b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n")
        self.assertEqual(self.ask("SETNX", "nil", "x"), b":0\r\n")
        self.assertEqual(self.ask("GET", "read=stale"), b"$1\r\na\r\n")

    def test_del_and_exists_count(self) -> None:
        """EXISTS counts a key as often as it is named, and DEL counts it once."""
        self.ask("MSET", "a", "1", "b", "2")
        self.assertEqual(self.ask("EXISTS", "a", "b", "a", "c"), b":3\r\n")
        self.assertEqual([self.ask("DEL", "a", "c", "a"), self.ask("UNLINK", "b")], [b":1\r\n", b":1\r\n"])
        self.assertEqual(self.ask("DEL", "b"), b":0\r\n")

    def test_numbers(self) -> None:
        replies = [self.ask(*words.split()) for words in ("INCR n", "INCRBY n 41", "DECR n", "DECRBY n -9", "GET n")]
        self.assertEqual(replies, [b":1\r\n", b":42\r\n", b":41\r\n", b":50\r\n", b"$2\r\n50\r\n"])
        self.assertError(self.ask("INCRBY", "n", "x"), "-ERR", "no integer of 64 bits")
        self.ask("SET", "n", "x")
        self.assertError(self.ask("INCR", "n"), "-CONFLICT fate=none", "no integer of 64 bits")
        self.assertError(self.ask("DECRBY", "n", str(-(2**63))), "-ERR", "no integer of 64 bits")
        for odd in ("01", "-0", "+1", " 1", "1 ", "00", "-01", "", "1.0", "\u0661"):
            self.assertError(self.ask("INCRBY", "k", odd), "-ERR", "no integer of 64 bits")
            self.ask("SET", "n", odd)
            self.assertError(self.ask("INCR", "n"), "-CONFLICT", "no integer of 64 bits")

    def test_lengths_are_bytes(self) -> None:
        self.assertEqual(self.ask("APPEND", "k", "é"), b":2\r\n")
        self.assertEqual(self.ask("APPEND", "k", "x"), b":3\r\n")
        self.assertEqual((self.ask("STRLEN", "k"), self.ask("STRLEN", "nothing")), (b":3\r\n", b":0\r\n"))

    def test_mget_has_nil_for_what_is_not_there(self) -> None:
        self.ask("MSET", "a", "1", "b", "2")
        self.assertEqual(self.ask("MGET", "b", "x", "a", "b"), b"*4\r\n$1\r\n2\r\n$-1\r\n$1\r\n1\r\n$1\r\n2\r\n")

    def test_mset_is_all_or_nothing(self) -> None:
        self.assertError(self.ask("MSET", "a", "1", "b"), "wrong number of arguments for 'mset'")
        self.assertError(self.ask("MSET", "a", "1", "", "2"), "-ERR", "a key cannot be empty")
        self.assertEqual(self.ask("EXISTS", "a"), b":0\r\n")

    def test_keys_of_a_prefix(self) -> None:
        self.ask("MSET", "a", "1", "ab", "2", "abc", "3", "b", "4")
        self.assertEqual(self.ask("KEYS", "ab*"), b"*2\r\n$2\r\nab\r\n$3\r\nabc\r\n")
        self.assertEqual(self.ask("KEYS", "ab"), b"*1\r\n$2\r\nab\r\n")
        self.assertTrue(self.ask("KEYS", "*").startswith(b"*4\r\n"))
        self.assertError(self.ask("KEYS", "*b"), "-ERR", "prefix*")

    def test_keys_and_scan_find_the_longest_key(self) -> None:
        """KEYS and SCAN find the longest key that there can be; no pattern with more bytes matches any key."""
        longest = "k" * key_bytes_max
        self.assertEqual(self.ask("SET", longest, "1"), b"+OK\r\n")
        one = b"*1\r\n$%d\r\n%b\r\n" % (key_bytes_max, longest.encode())
        for pattern in (longest, f"{longest}*"):
            self.assertEqual(self.ask("KEYS", pattern), one)
            self.assertEqual(self.ask("SCAN", "0", "MATCH", pattern), b"*2\r\n$1\r\n0\r\n" + one)
        for pattern in (f"{longest}k", f"{longest}k*", ""):
            self.assertEqual(self.ask("KEYS", pattern), b"*0\r\n")

    def test_keys_are_all_or_an_error(self) -> None:
        """KEYS with more keys than a reply may have is an error: a client takes the list that it gets for the whole."""
        for first in range(0, 12_000, 2_000):
            self.ask("MSET", *[text for n in range(first, first + 2_000) for text in (f"{n:05}", "")])
        self.assertError(self.ask("KEYS", "*"), "-TOOLARGE", "SCAN")
        self.assertEqual(len(self.ask("KEYS", "0*").split(b"\r\n")), 2 + 2 * 10_000)

    def test_scan_comes_to_every_key_once(self) -> None:
        names = [f"k{n:03}" for n in range(95)]
        self.ask("MSET", "a", "", *[text for name in names for text in (name, "")], "z", "")
        found, cursor, rounds = [], b"0", 0
        while rounds == 0 or cursor != b"0":
            parts = self.ask("SCAN", cursor, "MATCH", "k*", "COUNT", "10", "TYPE", "string").split(b"\r\n")
            cursor, rounds = parts[2], rounds + 1
            found += [part.decode() for part in parts[5::2]]
        self.assertEqual((found, rounds), (names, 10))
        for options in (("MATCH", "x*"), ("TYPE", "hash"), ("type", "list")):
            self.assertEqual(self.ask("SCAN", "0", *options), b"*2\r\n$1\r\n0\r\n*0\r\n")

    def test_scan_refuses_what_it_cannot_do(self) -> None:
        self.assertError(self.ask("SCAN", "7"), "no cursor of this server")
        self.assertError(self.ask("SCAN", "\u0663"), "no cursor of this server")
        for words in (["COUNT", "0"], ["COUNT", "x"], ["COUNT", "01"], ["NOVALUES", "1"]):
            self.assertError(self.ask("SCAN", "0", *words), "SCAN takes MATCH prefix*")
        self.assertError(self.ask("SCAN", "0", "COUNT"), "none")

    def test_lock_unlock_and_say(self) -> None:
        self.assertEqual(self.ask("LOCK", "printer"), b":1\r\n")
        self.assertEqual(self.ask("SAY", "hello", "world"), b":1\r\n")
        self.assertEqual(self.server.cluster.executed[-1][2], ("SAY", "hello world"))
        self.assertError(self.ask("UNLOCK", "printer", "token=9"), "-NOTHELD fate=none")
        self.assertEqual(self.ask("UNLOCK", "printer", "token=1"), b"+OK\r\n")
        self.assertError(self.ask("LOCK", "printer", "5"), "-ERR", "usage: LOCK name")
        for words in (("LOCK", b"\xff"), ("UNLOCK", b"\xff"), ("SAY", b"a", b"b\xff")):
            self.assertError(self.ask(*words), "-ERR fate=none byte", "UTF-8")

    def test_errors_say_code_and_fate(self) -> None:
        self.local_clients.refuse = Refused("UNAVAILABLE", "no majority\r\nanswers", fate="unknown")
        self.assertEqual(self.ask("INCR", "k"), b"-UNAVAILABLE fate=unknown no majority  answers\r\n")

    def test_large_answer_is_written_in_slices(self) -> None:
        self.ask("SET", "k", "x" * 30_000)
        self.transport.writes.clear()
        reply = self.ask("MGET", *["k"] * 20)
        self.assertEqual(reply, b"*20\r\n" + 20 * (b"$30000\r\n" + b"x" * 30_000 + b"\r\n"))
        self.assertGreater(len(self.transport.writes), 5)

    def test_all_changes_and_questions_of_one_read_travel_together(self) -> None:
        """All changes and questions that come in one read of a pipelining client travel in few, large updates."""
        said = self.send(encoded(b"SET", b"a", b"1") + encoded(b"GET", b"a") + encoded(b"INCR", b"a"))
        self.assertEqual((said, self.session().calls), (b"+OK\r\n$1\r\n1\r\n:2\r\n", ["submit 3"]))

    def test_replies_keep_their_order_in_whatever_order_answers_come(self) -> None:
        self.local_clients.hold = True
        self.assertEqual(self.send(encoded(b"SET", b"a", b"1") + encoded(b"PING") + encoded(b"GET", b"a")), b"")
        self.local_clients.release()
        self.assertEqual(self.said(), b"+OK\r\n+PONG\r\n$1\r\n1\r\n")

    @bounded
    @given(st.lists(st.integers(0, 10_000), max_size=10))
    def test_replies_do_not_depend_on_how_the_network_cuts(self, places: list[int]) -> None:
        self.protocol, self.transport = self.connect()
        self.ask("DEL", "k")
        data = b"".join(
            encoded(*line.split()) for line in (b"INCR k", b"NO", b"GET k", b"LOCK l", b"APPEND k 1", b"PING")
        )
        self.assertRegex(
            b"".join(self.send(piece) for piece in cut(data, places)),
            rb"^:1\r\n-ERR fate=none unknown command NO; .*\r\n\$1\r\n1\r\n:[0-9]+\r\n:2\r\n\+PONG\r\n$",
        )
        self.ask("UNLOCK", "l")


class OwnCommandTests(RespTestCase):
    def test_ping_and_echo(self) -> None:
        self.assertEqual(self.ask("PING"), b"+PONG\r\n")
        self.assertEqual((self.ask("PING", "a"), self.ask("ECHO", "b")), (b"$1\r\na\r\n", b"$1\r\nb\r\n"))
        for name in ("PING", "ECHO"):
            self.assertEqual(self.ask(name, b"\xff\0\r\n"), b"$4\r\n\xff\0\r\n\r\n")
        self.assertError(self.ask("PING", "a", "b"), "wrong number of arguments for 'ping'")

    def test_hello_changes_the_dialect_from_then_on(self) -> None:
        """HELLO changes the dialect of the replies to later commands, and not of those before it."""
        self.local_clients.hold = True
        self.send(encoded(b"GET", b"k") + encoded(b"HELLO", b"3", b"SETNAME", b"me") + encoded(b"GET", b"k"))
        self.local_clients.release()
        said = self.said()
        self.assertTrue(said.startswith(b"$-1\r\n%7\r\n$6\r\nserver\r\n$4\r\npfsb\r\n"), said)
        self.assertTrue(said.endswith(b"_\r\n"), said)
        self.assertEqual(self.ask("CLIENT", "GETNAME"), b"$2\r\nme\r\n")
        self.assertTrue(self.ask("HELLO", "2").startswith(b"*14\r\n"))
        self.assertTrue(self.ask("HELLO").startswith(b"*14\r\n"))

    def test_hello_of_another_version_or_with_a_password_is_refused(self) -> None:
        self.assertError(self.ask("HELLO", "4"), "-NOPROTO", "RESP 2 and 3")
        self.assertError(self.ask("HELLO", "3", "AUTH", "default", "secret"), "-ERR", "no passwords")
        self.assertEqual(self.ask("CLIENT", "GETNAME"), b"$-1\r\n")

    def test_client(self) -> None:
        self.assertEqual(self.ask("CLIENT", "SETNAME", "me"), b"+OK\r\n")
        self.assertEqual(self.ask("CLIENT", "ID"), b":1\r\n")
        self.assertEqual(self.ask("CLIENT", "SETINFO", "LIB-NAME", "redis-x"), b"+OK\r\n")
        self.assertEqual(self.ask("CLIENT", "SETINFO", "lib-ver", "1.2"), b"+OK\r\n")
        self.clock.advance(7)
        said = self.ask("CLIENT", "INFO").decode().split()
        self.assertTrue({"id=1", "name=me", "age=7", "resp=2", "lib-name=redis-x", "lib-ver=1.2"} <= {*said}, said)
        self.assertEqual([part.count(":") for part in said if part.startswith(("addr=", "laddr="))], [1, 1])
        self.assertError(self.ask("CLIENT", "SETINFO", "LIB-NAME", "a b"), "lib-name", "no space")
        self.assertError(self.ask("CLIENT", "SETINFO", "COLOUR", "x"), "LIB-NAME or LIB-VER")
        self.assertEqual(self.ask("CLIENT", "NO-EVICT", "ON"), b"+OK\r\n")
        self.assertError(self.ask("CLIENT", "KILL", "x"), "-ERR", '"KILL x"')
        self.assertError(self.ask("CLIENT", "SETNAME", "a b"), "no space")

    def test_command_tells_what_there_is(self) -> None:
        count = len(COMMANDS)
        self.assertEqual(self.ask("COMMAND", "COUNT"), b":%d\r\n" % count)
        self.assertTrue(self.ask("COMMAND").startswith(b"*%d\r\n*10\r\n" % count))
        self.assertIn(b"The value of a key.", self.ask("COMMAND", "DOCS", "GET"))
        self.assertIn(b"$9\r\nclient|id\r\n", self.ask("COMMAND", "DOCS", "CLIENT"))
        self.assertEqual(self.ask("COMMAND", "DOCS", "x"), b"*0\r\n")
        self.assertIn(b"$4\r\nmset\r\n", self.ask("COMMAND", "LIST"))
        self.assertIn(b"$9\r\nclient|id\r\n", self.ask("COMMAND", "LIST"))
        self.assertTrue(self.ask("COMMAND", "INFO", "client|id").startswith(b"*1\r\n*10\r\n$9\r\nclient|id\r\n:2\r\n"))
        self.assertError(self.ask("COMMAND", "GETKEYS"), "-ERR")

    def test_entry_of_a_command_has_the_ten_parts_of_redis_7(self) -> None:
        """An entry of COMMAND has the ten parts of Redis 7: name, arity, flags, three positions of keys, categories,
        tips, where keys are, and subcommands."""
        find = {b"lastkey": -1, b"keystep": 2, b"limit": 0}
        keys = {
            b"flags": Together((b"OW", b"update")),
            b"begin_search": {b"type": b"index", b"spec": {b"index": 1}},
            b"find_keys": {b"type": b"range", b"spec": find},
        }
        flags, categories = Together((b"write", b"denyoom")), Together((b"@string", b"@write", b"@slow"))
        entry = [b"mset", -3, flags, 1, -1, 2, categories, Together(), Together([keys]), Together()]
        self.ask("HELLO", "3")
        self.assertEqual(self.read("COMMAND", "INFO", "MSET", "x"), [entry, None])
        self.assertEqual([*map(type, entry)], [*map(type, self.read("COMMAND", "INFO", "MSET")[0])])
        _, _, no_flags, first, *_, parts = self.read("COMMAND", "INFO", "client")[0]
        self.assertEqual((no_flags, first), (Together(), 0))
        self.assertEqual([(part[0], part[1]) for part in parts[:2]], [(b"client|setname", 3), (b"client|getname", 2)])

    def test_entry_of_a_command_is_flat_in_resp_2(self) -> None:
        (name, arity, flags, *_, keys, _) = self.read("COMMAND", "INFO", "get")[0]
        self.assertEqual((name, arity, flags), (b"get", 2, [b"readonly", b"fast"]))
        self.assertEqual(keys[0][:3], [b"flags", [b"RO", b"access"], b"begin_search"])
        self.assertEqual(keys[0][3], [b"type", b"index", b"spec", [b"index", 1]])

    def test_help_of_commands(self) -> None:
        self.ask("HELLO", "3")
        pages = self.read("COMMAND", "DOCS", "get", "nothing", "client")
        get = {b"summary": b"The value of a key.", b"since": b"1.0.0", b"group": b"string"}
        self.assertEqual((list(pages), pages[b"get"]), ([b"get", b"client"], get))
        self.assertEqual(pages[b"client"][b"subcommands"][b"client|id"][b"since"], b"5.0.0")
        self.assertEqual(len(self.read("COMMAND", "DOCS")), len(COMMANDS))

    def test_every_command_refuses_a_wrong_number_of_arguments(self) -> None:
        for name, command in COMMANDS.items():
            if abs(command.arity) > 1:
                self.assertError(self.ask(name), f"wrong number of arguments for '{name.lower()}' command")

    def test_info_by_section(self) -> None:
        self.assertIn(b"redis_version:", self.ask("INFO"))
        self.ask("HELLO", "3")
        self.assertTrue(self.ask("INFO").startswith(b"="))
        self.ask("HELLO", "2")
        said = self.ask("INFO", "pfsb")
        self.assertIn(b"cluster:four\r\nserver:2\r\n", said)
        self.assertNotIn(b"redis_version", said)

    def test_one_database(self) -> None:
        self.assertEqual(self.ask("SELECT", "0"), b"+OK\r\n")
        self.assertError(self.ask("SELECT", "1"), "-ERR", "one database")

    def test_config_get_as_redis_benchmark_asks(self) -> None:
        self.assertEqual(self.ask("CONFIG", "GET", "save"), b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n")
        self.assertEqual(self.ask("CONFIG", "GET", "maxmemory"), b"*0\r\n")
        self.assertError(self.ask("CONFIG", "SET", "save", "1"), "configuration file")

    def test_quit_answers_what_came_before_and_nothing_after(self) -> None:
        self.assertEqual(self.send(encoded(b"PING") + encoded(b"QUIT") + encoded(b"PING")), b"+PONG\r\n+OK\r\n")
        self.assertTrue(self.transport.disconnecting)

    def test_nothing_of_a_transaction_runs(self) -> None:
        """Nothing of a transaction runs, plain commands included: a library reports the error of MULTI for all of
        it."""
        commands = (
            encoded(b"INCR", b"n") * 3 + encoded(b"set", b"k", b"a b") + encoded(b"NOSUCH") + encoded(b"HELLO", b"3")
        )
        for end, reply in ((b"EXEC", b"-EXECABORT "), (b"discard", b"+OK")):
            for pieces in ([encoded(b"multi") + commands + encoded(end)], [encoded(b"MULTI"), commands, encoded(end)]):
                said = b"".join(self.send(piece) for piece in pieces).splitlines()
                self.assertTrue(said[0].startswith(b"-ERR fate=none there are no transactions"), said)
                self.assertEqual({line.split()[0] for line in said[1:-1]}, {b"-EXECABORT"}, said)
                self.assertEqual((len(said), said[-1].startswith(reply)), (8, True), said)
        self.assertEqual(self.server.cluster.executed, [])
        self.assertEqual(self.send(encoded(b"INCR", b"n")), b":1\r\n")

    def test_command_that_is_too_large_does_not_end_a_refused_transaction(self) -> None:
        large = encoded(b"SET", b"k", b"x" * self.limits.command_bytes)
        said = self.send(encoded(b"MULTI") + large + encoded(b"INCR", b"n") + encoded(b"EXEC"))
        self.assertEqual([line.split()[0] for line in said.splitlines()[1:]], [b"-TOOLARGE", *[b"-EXECABORT"] * 2])
        self.assertEqual(self.server.cluster.executed, [])

    def test_transaction_does_not_reach_beyond_its_connection_and_quit_ends_it(self) -> None:
        self.ask("MULTI")
        other, transport = self.connect()
        other.dataReceived(encoded(b"INCR", b"n"))
        self.assertEqual(self.said(transport), b":1\r\n")
        self.assertEqual(self.ask("QUIT"), b"+OK\r\n")
        self.assertTrue(self.transport.disconnecting)

    def test_end_of_a_transaction_without_its_beginning(self) -> None:
        for end in ("EXEC", "DISCARD"):
            self.assertError(self.ask(end), "-ERR fate=none", f"{end} without MULTI")
        self.assertError(self.ask("MULTI", "x"), "wrong number of arguments")
        self.assertEqual(self.ask("PING"), b"+PONG\r\n")

    def test_unknown_command_names_the_nearest(self) -> None:
        self.assertError(self.ask("APEND", "k"), "-ERR fate=none unknown command APEND", '"APPEND"')


class BadInputTests(RespTestCase):
    limits = Limits(command_bytes=256, session_window=8)

    def test_bytes_that_are_no_text_are_refused_where_text_is_needed(self) -> None:
        """Bytes that are no UTF-8 are refused where a text is needed, and the next command runs."""
        self.assertError(self.ask(b"SAY", b"ab\xff"), "-ERR fate=none byte 3", "UTF-8")
        self.assertError(self.ask(b"\xff"), r"unknown command \\xff")
        self.assertError(self.ask("\u0131ncr", "k"), "unknown command")
        self.assertError(self.ask("CLIENT", "SETNAME", b"\xff"), "UTF-8")
        self.assertError(self.ask("SAY", "a\0"), "NUL")
        self.assertEqual(self.ask("GET", "k"), b"$-1\r\n")

    def test_command_too_large_is_refused_and_the_next_one_runs(self) -> None:
        large = encoded(b"SET", b"k", b"x" * 1_000)
        said = self.send(encoded(b"SET", b"a", b"1") + large + encoded(b"GET", b"a"))
        self.assertRegex(said, rb"^\+OK\r\n-TOOLARGE fate=none [^\r]*256 bytes[^\r]*\r\n\$1\r\n1\r\n$")
        self.assertFalse(self.transport.disconnecting)

    def test_noise_is_answered_after_what_came_before_and_ends_the_connection(self) -> None:
        self.local_clients.hold = True
        self.assertEqual(self.send(encoded(b"SET", b"a", b"1") + b"*1\r\n*1\r\n$4\r\nPING\r\n"), b"")
        self.assertFalse(self.transport.disconnecting)
        self.local_clients.release()
        self.assertRegex(self.said(), rb"^\+OK\r\n-ERR Protocol error: expected \$ and not [^\r]*\r\n$")
        self.assertTrue(self.transport.disconnecting)

    @bounded
    @given(
        st.lists(
            st.one_of(st.binary(max_size=30), st.sampled_from([b"*1\r\n", b"$4\r\n", b"PING\r\n", b"\r\n"])),
            max_size=20,
        )
    )
    def test_noise_stops_nobody_else(self, pieces: list[bytes]) -> None:
        other, other_transport = self.protocol, self.transport
        noisy, transport = self.connect()
        for piece in pieces:
            noisy.dataReceived(piece)
        self.clock.advance(0)
        for line in transport.value().split(b"\r\n"):
            self.assertIn(line[:1], (b"-", b"+", b""))
        other.dataReceived(encoded(b"PING"))
        self.assertEqual(self.said(other_transport), b"+PONG\r\n")

    def test_window_stops_reading_until_half_of_it_is_answered(self) -> None:
        self.local_clients.hold = True
        self.send(encoded(b"INCR", b"k") * 20)
        self.assertEqual((self.transport.producerState, self.session().submitted), ("paused", 8))
        self.local_clients.hold = False
        self.local_clients.release()
        self.assertEqual(self.said(), b"".join(b":%d\r\n" % n for n in range(1, 21)))
        self.assertEqual(self.transport.producerState, "producing")

    def test_client_that_does_not_read_is_not_read(self) -> None:
        self.protocol.pauseProducing()
        self.assertEqual((self.ask("PING"), self.transport.producerState), (b"", "paused"))
        self.protocol.resumeProducing()
        self.assertEqual((self.said(), self.transport.producerState), (b"+PONG\r\n", "producing"))

    def test_lock_that_waits_holds_what_comes_behind_it(self) -> None:
        """A LOCK that waits holds up the commands behind it on its connection, as in Redis: only the order of replies
        tells them apart."""
        first, transport = self.protocol, self.transport
        self.assertEqual(self.ask("LOCK", "l"), b":1\r\n")
        self.protocol, self.transport = self.connect()
        self.assertEqual(self.send(encoded(b"LOCK", b"l") + encoded(b"SET", b"k", b"v")), b"")
        self.assertEqual(self.server.cluster.executed[-1][2][0], "LOCK")
        first.dataReceived(encoded(b"UNLOCK", b"l"))
        self.assertEqual(self.said(transport), b"+OK\r\n")
        self.assertEqual(self.said(), b":3\r\n+OK\r\n")

    def test_client_whose_lock_waits_is_read_as_far_as_its_window(self) -> None:
        """A client whose LOCK waits is read until its window is full: otherwise the server would not notice that it is
        gone, and would grant it the lock."""
        self.ask("LOCK", "l")
        self.protocol, self.transport = self.connect()
        self.send(encoded(b"LOCK", b"l") + encoded(b"PING"))
        self.assertEqual(self.transport.producerState, "producing")
        self.send(encoded(b"PING") * 8)
        self.assertEqual(self.transport.producerState, "paused")

    def test_session_that_ends_ends_the_connection(self) -> None:
        """The end of the session ends the connection: its locks are lost, and no event can tell the client."""
        self.ask("LOCK", "l")
        self.local_clients.hold = True
        self.ask("INCR", "k")
        self.session().end("NOSESSION", "expired")
        self.assertFalse(self.transport.disconnecting)
        self.local_clients.release()
        self.assertEqual(self.said(), b":1\r\n")
        self.assertTrue(self.transport.disconnecting)

    def test_idle_client_whose_session_ends_is_hung_up_at_once(self) -> None:
        """An idle client whose session ends is hung up at once, so that a pool of connections notices before it uses
        the connection again."""
        self.ask("LOCK", "l")
        self.session().end("NOSESSION", "expired")
        self.clock.advance(0)
        self.assertTrue(self.transport.disconnecting)

    def test_stopping_server_refuses_in_this_form(self) -> None:
        self.local_clients.draining = True
        self.assertError(self.ask("SET", "k", "v"), "-SHUTDOWN fate=none")

    def test_connection_lost_frees_everything(self) -> None:
        self.local_clients.hold = True
        self.ask("INCR", "k")
        self.protocol.connectionLost()
        self.local_clients.release()
        self.assertEqual(
            (self.said(), self.factory.connections, self.session().calls[-1]), (b"", set(), "disconnected")
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])
