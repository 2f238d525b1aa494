"""Tests of the checks before a command is ordered, and of the texts of refusals."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pfsb.applications.arguments import (
    Data,
    Quoted,
    absent,
    argument_of,
    as_text,
    integer_in,
    key_bytes_max,
    parse_integer,
    quoted,
    rows_max,
    text_of,
    value_bytes_max,
    wait_ms_max,
)
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import BadRequest, IEventLog, IReplicatedApplication, Refused
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from tests.applications.context import FakeContext, refusal
from tests.examples import examples

bounded = examples(150, database=None)

arguments = st.one_of(
    st.sampled_from(["x", "nil", "", "wait=1", "wait=-1", "from=2", "limit=5", "limit=0", "token=7", "12", "-1"]),
    st.text(max_size=8),
    st.text(max_size=8).map(Quoted),
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5), st.binary(max_size=5)
)
verbs = [command.verb for application in (Chat, Lock, KeyValue) for command in application.commands]


class ApplicationsTest(SynchronousTestCase):
    """Rules that every application keeps towards the layers around it."""

    def setUp(self) -> None:
        self.applications = (Chat(), Lock(), KeyValue())

    def test_applications_provide_their_interface(self) -> None:
        """The applications chat, lock and kv are found by these names."""
        for application in self.applications:
            verifyObject(IReplicatedApplication, application)
        verifyObject(IEventLog, self.applications[0])
        self.assertEqual([application.name for application in self.applications], ["chat", "lock", "kv"])

    def test_every_described_verb_is_checked_and_quoted_in_its_own_usage(self) -> None:
        """The usage that HELP prints for a verb is also in the refusal of too many arguments."""
        for application in self.applications:
            for command in application.commands:
                refused = refusal(application, command.verb, *["x"] * (rows_max + 1 + rows_max % 2))
                self.assertEqual(refused.code, "BADREQUEST")
                self.assertTrue(str(refused).endswith(f"usage: {command.usage}"), str(refused))
                self.assertTrue(command.usage.startswith(command.verb))

    def test_unknown_verb_names_the_known_ones(self) -> None:
        """The refusal of an unknown verb has the code UNKNOWN, and names the verbs that there are."""
        refused = refusal(Lock(), "LOOK", "x")
        self.assertEqual(refused.code, "UNKNOWN")
        self.assertEqual(str(refused), '"LOOK" is no command here (there are: LOCK, LOCKS, TRYLOCK, UNLOCK)')
        self.assertEqual(refusal(Lock()).code, "UNKNOWN")

    @bounded
    @given(st.sampled_from(verbs), st.lists(arguments, max_size=5))
    def test_whatever_is_typed_is_normalised_or_refused_in_one_line(self, verb: str, typed: list[str]) -> None:
        """A checked command can be encoded and comes back equal; a refusal is one line that quotes a usage."""
        for application in self.applications:
            if verb not in [command.verb for command in application.commands]:
                continue
            try:
                command = application.check((verb, *typed))
            except BadRequest as refused:
                self.assertIn("; usage: ", str(refused))
                self.assertNotIn("\n", str(refused))
            else:
                self.assertLessEqual({type(part) for part in command}, {str, int, bytes})
                self.assertEqual(msgpack.unpackb(msgpack.packb(command), use_list=False), command)

    @bounded
    @given(st.one_of(st.sampled_from(verbs), leaves), st.lists(leaves | st.tuples(leaves), max_size=5))
    def test_whatever_another_version_has_checked_is_run_or_refused(self, verb: object, rest: list[object]) -> None:
        """A command that cannot be run is refused in the same way at every server; nothing is raised."""
        for application in (Chat(), Lock(), KeyValue()):
            context = FakeContext()
            before = application.snapshot()
            result = application.execute((verb, *rest), context)
            self.assertEqual(context.completed, [])
            if isinstance(result, Refused):
                self.assertEqual(application.snapshot(), before)
            else:
                self.assertIn(verb, verbs)
            application.query((verb, *rest))

    def test_malformed_commands_are_refused_with_what_was_wrong(self) -> None:
        """Checked commands never have too few arguments, nor arguments other than bytes, text and integers."""
        kv, context = KeyValue(), FakeContext()
        expected = Refused("BADREQUEST", 'this version of pfsb cannot run "PUT" with 2 arguments of these types')
        self.assertEqual(kv.execute(("PUT", b"k", 3), context), expected)
        for command in (
            (),
            ("PUT", b"k"),
            (["PUT"], b"k", b"v"),
            ("MPUT",),
            ("MPUT", b"k"),
            ("MPUT", b"k", b"v", 3),
            (None,),
        ):
            result = kv.execute(command, context)
            self.assertIsInstance(result, Refused, str(command))
        self.assertEqual(kv.snapshot(), KeyValue().snapshot())

    def test_snapshot_of_another_format_is_named_and_leaves_the_state(self) -> None:
        """A server that cannot read a snapshot says which format it has found, and its state stays as it was."""
        for application in self.applications:
            before = application.snapshot()
            with self.assertRaises(ValueError) as raised:
                application.restore(msgpack.packb((99, "what", "is", "this")))
            self.assertIn(f"the snapshot of {application.name} has format 99", str(raised.exception))
            self.assertEqual(application.snapshot(), before)


class ArgumentsTest(SynchronousTestCase):
    """Options, numbers and texts among the arguments of a command."""

    def test_option_stands_anywhere_and_only_once(self) -> None:
        """`limit=` is an option of RANGE before, between and behind the keys, and may be given once."""
        for typed in (("limit=5", "a", "b"), ("a", "limit=5", "b"), ("a", "b", "limit=5")):
            self.assertEqual(KeyValue().check(("RANGE", *typed)), ("RANGE", b"a", b"b", 5))
        self.assertIn("limit= is given twice", str(refusal(KeyValue(), "RANGE", "a", "b", "limit=5", "limit=5")))

    def test_quoted_argument_is_never_an_option(self) -> None:
        """A lock may have the name wait=1 if the name is quoted; and a word that only looks like an option is a
        name."""
        self.assertEqual(Lock().check(("LOCK", Quoted("wait=1"))), ("LOCK", "wait=1", -1))
        self.assertEqual(Lock().check(("LOCK", "limit=1")), ("LOCK", "limit=1", -1))
        self.assertIn("LOCK does not go with no arguments", str(refusal(Lock(), "LOCK", "wait=1")))

    def test_normalised_command_is_made_of_plain_bytes_or_text(self) -> None:
        """A checked command has arguments of plain bytes or text, however they were written, so that servers compare
        and encode equal commands."""
        checked = KeyValue().check(("PUT", Quoted("k"), Quoted("v")))
        self.assertEqual([type(part) for part in checked], [str, bytes, bytes])
        self.assertEqual([type(part) for part in Lock().check(("TRYLOCK", Quoted("k")))], [str, str])

    def test_seconds_become_milliseconds_rounded_up(self) -> None:
        """Seconds become whole milliseconds, rounded up without floats, so that only 0 means at once."""
        waits = {"0": 0, "0.0001": 1, "1": 1_000, "2.5": 2_500, "0.29": 290, "0.30000000000000004": 301}
        for typed, milliseconds in waits.items():
            self.assertEqual(Lock().check(("LOCK", "x", f"wait={typed}")), ("LOCK", "x", milliseconds), typed)
        self.assertEqual(Lock().check(("LOCK", "x", f"wait={wait_ms_max // 1000}")), ("LOCK", "x", wait_ms_max))

    def test_wait_that_is_no_time_is_refused_with_an_example(self) -> None:
        """Refused are an empty, a negative and a too long time, and digits other than ASCII."""
        for typed in ("", "-1", "soon", "1e3", "nan", "inf", ".5", "\u0661"):
            refused = refusal(Lock(), "LOCK", "x", f"wait={typed}")
            self.assertIn("wait= takes seconds (example: wait=2.5), not ", str(refused))
        refused = refusal(Lock(), "LOCK", "x", "wait=31536001")
        self.assertIn("wait= takes at most 31536000 seconds, not 31536001", str(refused))

    def test_limit_outside_its_bounds_is_refused_with_the_bounds(self) -> None:
        """A limit that is too large is refused with the bounds, and not lowered: the client would get fewer rows than
        it asked for."""
        self.assertEqual(KeyValue().check(("KEYS", f"limit={rows_max}")), ("KEYS", b"", b"", rows_max))
        for typed in ("0", "-1", f"{rows_max + 1}", "all", "9" * 5_000):
            refused = refusal(KeyValue(), "KEYS", f"limit={typed}")
            self.assertIn("limit= takes a number from 1 to 10000, not ", str(refused))
            self.assertLess(len(str(refused)), 200)

    def test_key_has_1_to_1024_bytes(self) -> None:
        """The length of a key is counted in bytes and not in characters: a key that has room for one more byte has none
        for a character of two."""
        full = "k" * (key_bytes_max - 1)
        self.assertEqual(KeyValue().check(("GET", full + "k")), ("GET", full.encode() + b"k"))
        refused = refusal(KeyValue(), "GET", full + "\u00e9")
        self.assertEqual(refused.code, "TOOLARGE")
        self.assertIn("the key has 1025 bytes, 1024 are allowed", str(refused))
        self.assertIn("a key cannot be empty", str(refusal(KeyValue(), "GET", "")))
        self.assertIn("a name cannot be empty", str(refusal(Lock(), "TRYLOCK", "")))

    def test_value_has_up_to_a_mebibyte(self) -> None:
        """A value may be empty, and may have a mebibyte at most."""
        self.assertEqual(KeyValue().check(("PUT", "k", "")), ("PUT", b"k", b""))
        self.assertEqual(KeyValue().check(("PUT", "k", "v" * value_bytes_max))[1], b"k")
        self.assertEqual(refusal(KeyValue(), "PUT", "k", "v" * (value_bytes_max + 1)).code, "TOOLARGE")

    def test_text_that_cannot_be_stored_is_refused_with_its_place(self) -> None:
        """Half a surrogate pair, which UTF-8 does not have, and NUL, which ends a text for many tools, are refused in a
        text."""
        for application, command in ((KeyValue(), ("PUT", "k")), (Chat(), ("SAY",))):
            refused = refusal(application, *command, "ab\ud800")
            self.assertIn("has half a surrogate pair at character 3", str(refused))
            self.assertIn("has a NUL at character 2", str(refusal(application, *command, "a\0b")))
            str(refused).encode()
        for application, command in ((Lock(), ("TRYLOCK",)), (Chat(), ("SAY",))):
            self.assertIn("has a NUL at character 2", str(refusal(application, *command, Data(b"a\0b"))))
            self.assertIn("byte 3 of it is not UTF-8", str(refusal(application, *command, Data(b"ab\xff"))))

    def test_keys_and_values_are_any_bytes(self) -> None:
        """For keys and values only the number of bytes is checked."""
        kv = KeyValue()
        self.assertEqual(kv.check(("PUT", Data(b"\xff\0"), Data(b"\xc3"))), ("PUT", b"\xff\0", b"\xc3"))
        self.assertEqual(kv.check(("CAS", "k", Data(b"nil"), Data(b""))), ("CAS", b"k", 1, b"nil", b""))
        self.assertEqual(kv.check(("RANGE", Data(b"\xfe"), Data(b""))), ("RANGE", b"\xfe", b"", -1))
        self.assertEqual(kv.check(("GET", Data(b"\xff" * key_bytes_max)))[1], b"\xff" * key_bytes_max)
        self.assertEqual(refusal(kv, "GET", Data(b"\xff" * (key_bytes_max + 1))).code, "TOOLARGE")
        self.assertIn("cannot be empty", str(refusal(kv, "GET", Data(b""))))

    @given(st.binary(max_size=30))
    @examples(200)
    def test_text_that_stands_for_bytes(self, data: bytes) -> None:
        """Each text that stands for bytes makes the same bytes again; it is no `Data` only if the bytes are UTF-8
        without NUL."""
        argument = argument_of(text_of(data))
        found = argument.data if isinstance(argument, Data) else argument.encode()
        self.assertEqual(found, data)
        try:
            is_text = "\0" not in data.decode()
        except UnicodeDecodeError:
            is_text = False
        self.assertEqual(isinstance(argument, Data), not is_text)

    def test_integer_has_64_bits(self) -> None:
        """An integer is decimal ASCII digits, perhaps with a minus, within 64 bits."""
        self.assertEqual(parse_integer("-9223372036854775808"), -(2**63))
        self.assertEqual(parse_integer("9223372036854775807"), 2**63 - 1)
        for text in ("", "-", "+1", " 1", "1 ", "1\n", "1_0", "1.0", "\u0661", "9223372036854775808", "9" * 10_000):
            self.assertIsNone(parse_integer(text), text)
            self.assertIsNone(parse_integer(text.encode()), text)
        self.assertEqual(parse_integer(b"-9223372036854775808"), -(2**63))
        self.assertIsNone(parse_integer(b"\xff1"))

    def test_integer_in_a_value_has_one_form(self) -> None:
        """INCR takes only a value that INCR itself could have written: an integer has one form."""
        for number in (0, 1, -1, 10, -(2**63), 2**63 - 1):
            self.assertEqual(integer_in(b"%d" % number), number)
        for data in (
            b"",
            b"-",
            b"01",
            b"-0",
            b"-01",
            b"00",
            b"+1",
            b" 1",
            b"1\n",
            b"\xff1",
            b"%d" % 2**63,
            b"9" * 9_999,
        ):
            self.assertIsNone(integer_in(data), data)

    def test_data_is_any_bytes_where_bytes_are_kept_and_text_elsewhere(self) -> None:
        data = b"\xff\0"
        self.assertEqual(KeyValue().check(("PUT", Data(data), Data(data))), ("PUT", data, data))
        self.assertEqual(KeyValue().check(("CAS", "k", Data(b"nil"), Data(b"v"))), ("CAS", b"k", 1, b"nil", b"v"))
        self.assertEqual(KeyValue().check(("RANGE", Data(b"limit=1"), Data(b""))), ("RANGE", b"limit=1", b"", absent))
        self.assertEqual(refusal(KeyValue(), "PUT", "k", Data(b"\xff" * (value_bytes_max + 1))).code, "TOOLARGE")
        self.assertIn("cannot be empty", str(refusal(KeyValue(), "GET", Data(b""))))
        self.assertEqual(Chat().check(("SAY", Data("é".encode()))), ("SAY", "é"))
        self.assertIn("byte 2 of it is not UTF-8", str(refusal(Chat(), "SAY", Data(b"a\xff"))))
        self.assertIn("has a NUL", str(refusal(Chat(), "SAY", Data(b"a\0"))))
        self.assertIn("not UTF-8", str(refusal(Lock(), "LOCK", Data(b"\xff"))))

    def test_quoting_within_a_sentence_is_one_short_printable_line(self) -> None:
        """A refusal that quotes a key is one short line, whatever bytes the key has."""
        self.assertEqual(quoted('a"b\n'), r'"a\"b\n"')
        self.assertEqual(quoted("caf\u00e9"), '"caf\u00e9"')
        self.assertEqual(quoted("\u2028\u202e"), r'"\u2028\u202e"')
        self.assertEqual(quoted("x" * 100), '"' + "x" * 60 + '..."')
        self.assertEqual(quoted("caf\u00e9".encode()), '"caf\u00e9"')
        self.assertEqual(quoted(b"\xff" * 100), '"' + 15 * r"\\xff" + '..."')

    def test_value_is_shown_as_text_whatever_it_is(self) -> None:
        """Any bytes can be shown as text: halves of surrogate pairs stand for bytes that are no UTF-8, such as half a
        character."""
        shown = [as_text(value) for value in (12, "k", Quoted("k"), "\u00e9".encode(), b"a\xc3", b"\xed\xa0\x80", b"")]
        self.assertEqual(shown, ["12", "k", "k", "\u00e9", "a\udcc3", "\udced\udca0\udc80", ""])
        self.assertEqual({type(each) for each in shown}, {str})
