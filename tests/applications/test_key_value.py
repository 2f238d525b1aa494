"""The application kv, compared with a plain dict."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications import arguments, key_value
from pfsb.applications.arguments import Quoted, reply_characters_max, value_bytes_max
from pfsb.applications.interfaces import Done, Refused
from pfsb.applications.key_value import MPUT_BYTES_MAX, KeyValue, fnv1a_32
from pfsb.sessions import bundle
from tests.applications.context import Machine, code, field, refusal, rows
from tests.examples import examples

KINDS: dict[Any, Any] = {str: "k", bytes: b"k", int: 1}
"""Type of an argument -> an argument of this type, as a confused peer might send it."""
ANY_KIND = {object: b"k"}
bounded = examples(50, database=None)
texts = st.text(st.characters(codec="utf-8", min_codepoint=1), max_size=4)


def each_of(keys: str) -> list[bytes]:
    """A key of one character for each of these characters."""
    return [key.encode() for key in keys]


class KeyValueTest(SynchronousTestCase):
    """Tests of the verbs of kv."""

    def setUp(self) -> None:
        self.kv = KeyValue()
        self.machine = Machine(self.kv)

    def put(self, **pairs: str) -> None:
        for key, value in pairs.items():
            self.machine.run("alice", "PUT", key, value)

    def keys(self, *typed: str) -> list[object]:
        return [row[0][1] for row in rows(self.machine.ask(*typed))]

    def test_get_shows_the_revision_of_the_last_write(self) -> None:
        """GET shows the revision of the last write to the key, not that of the last command, of a read, or of a write
        to another key."""
        self.put(colour="red", shape="round")
        self.assertEqual(self.machine.ask("GET", "colour"), Done((("value", b"red"), ("revision", 1))))
        self.put(colour="blue")
        self.assertEqual(self.machine.ask("GET", "colour"), Done((("value", b"blue"), ("revision", 3))))

    def test_absent_key_is_not_found(self) -> None:
        """GET of a key that was never written, or was deleted, is refused with NOTFOUND."""
        self.assertEqual(code(self.machine.ask("GET", "colour")), "NOTFOUND")
        self.put(colour="red")
        self.assertEqual(self.machine.run("alice", "DEL", "colour"), Done((("deleted", 1), ("revision", 2))))
        self.assertEqual(code(self.machine.ask("GET", "colour")), "NOTFOUND")
        self.assertEqual(self.machine.run("alice", "DEL", "colour"), Done((("deleted", 0), ("revision", 3))))

    def test_del_of_several_keys_tells_how_many_there_were(self) -> None:
        """DEL of several keys removes all of them at one revision, and tells how many there were; a key that is named
        twice counts once."""
        self.put(a="1", b="2", c="3")
        self.assertEqual(
            self.machine.run("alice", "DEL", "a", "nothing", "c", "a"), Done((("deleted", 2), ("revision", 4)))
        )
        self.assertEqual(self.keys("KEYS"), [b"b"])

    def test_new_keys_are_in_order_whenever_they_are_listed(self) -> None:
        """New keys are sorted in together: when enough have come, when keys are listed, and when one is deleted."""
        self.patch(key_value, "UNSORTED_KEYS_MAX", 2)
        self.put(d="1", b="2", f="3", a="4")
        self.assertEqual(self.keys("KEYS"), [b"a", b"b", b"d", b"f"])
        self.put(e="5", c="6")
        self.machine.run("alice", "DEL", "e")
        self.assertEqual(self.keys("KEYS"), [b"a", b"b", b"c", b"d", b"f"])
        self.put(e="7")
        restored = KeyValue()
        restored.restore(self.kv.snapshot())
        self.assertEqual(restored.snapshot(), self.kv.snapshot())
        self.assertEqual([row[0][1] for row in rows(restored.query(("KEYS", b"", b"", 9)))], each_of("abcdef"))

    def test_cas_sets_only_what_it_expects(self) -> None:
        """A CAS that expects another value changes neither the value nor the revision of the key."""
        self.put(colour="red")
        self.assertEqual(self.machine.run("a", "CAS", "colour", "red", "blue"), Done((("revision", 2),)))
        lost = self.machine.run("b", "CAS", "colour", "red", "green")
        self.assertEqual(code(lost), "CONFLICT")
        self.assertEqual(lost.text, 'key "colour" is "blue", not "red"')
        self.assertEqual(self.machine.ask("GET", "colour"), Done((("value", b"blue"), ("revision", 2))))

    def test_bare_nil_means_absent_and_quoted_nil_a_value(self) -> None:
        """In a CAS only the bare word nil stands for an absent key; in quotes it is a value."""
        self.assertEqual(self.kv.check(("CAS", "k", "nil", "v")), ("CAS", b"k", 0, b"", b"v"))
        self.assertEqual(self.kv.check(("CAS", "k", Quoted("nil"), "v")), ("CAS", b"k", 1, b"nil", b"v"))
        self.assertEqual(code(self.machine.run("a", "CAS", "k", Quoted("nil"), "v")), "CONFLICT")
        self.assertEqual(field(self.machine.run("a", "CAS", "k", "nil", "nil"), "revision"), 2)
        self.assertEqual(code(self.machine.run("a", "CAS", "k", "nil", "v")), "CONFLICT")
        self.assertEqual(field(self.machine.run("a", "CAS", "k", Quoted("nil"), "v"), "revision"), 4)

    def test_incr_counts_from_nothing_up_and_down(self) -> None:
        """INCR counts from 0 if the key is absent; the value is bytes, digits of ASCII."""
        self.assertEqual(self.machine.run("a", "INCR", "n"), Done((("value", b"1"), ("revision", 1))))
        self.assertEqual(field(self.machine.run("a", "INCR", "n", "-11"), "value"), b"-10")
        self.assertIn('n is "1.5", which is no integer', str(refusal(self.kv, "INCR", "n", "1.5")))

    def test_incr_of_anything_else_conflicts_and_leaves_it(self) -> None:
        """INCR of a value that is no integer is refused with CONFLICT, and the value stays."""
        for value in ("red", "", "1.0", "9223372036854775808"):
            self.put(k=value)
            self.assertEqual(code(self.machine.run("a", "INCR", "k")), "CONFLICT")
            self.assertEqual(field(self.machine.ask("GET", "k"), "value"), value.encode())

    def test_incr_stays_within_64_bits(self) -> None:
        """INCR that would leave the range of 64 bits is refused, at both ends."""
        self.put(high=str(2**63 - 2), low=str(-(2**63) + 1))
        self.assertEqual(field(self.machine.run("a", "INCR", "high"), "value"), b"%d" % (2**63 - 1))
        self.assertEqual(code(self.machine.run("a", "INCR", "high")), "CONFLICT")
        self.assertEqual(field(self.machine.run("a", "INCR", "low", "-1"), "value"), b"%d" % -(2**63))
        self.assertEqual(code(self.machine.run("a", "INCR", "low", "-1")), "CONFLICT")

    def test_append_grows_a_value_up_to_its_limit(self) -> None:
        """APPEND makes a value longer up to its limit in bytes; a refused APPEND leaves the value and its revision."""
        self.assertEqual(self.machine.run("a", "APPEND", "k", "ab"), Done((("value", b"ab"), ("revision", 1))))
        self.machine.run("a", "APPEND", "k", "x" * (value_bytes_max - 3))
        self.assertEqual(code(self.machine.run("a", "APPEND", "k", "\u00e9")), "TOOLARGE")
        self.assertEqual(field(self.machine.ask("GET", "k"), "revision"), 2)
        self.assertEqual(len(field(self.machine.run("a", "APPEND", "k", "y"), "value")), value_bytes_max)

    def test_fnv1a_agrees_with_published_hashes(self) -> None:
        """`fnv1a_32` gives the values that draft-eastlake-fnv has for the 32-bit form."""
        published = {b"": 0x811C9DC5, b"a": 0xE40C292C, b"foobar": 0xBF9CF968}
        self.assertEqual({data: fnv1a_32(data) for data in published}, published)

    def test_puthash_chains(self) -> None:
        """PUTHASH stores the decimal hash of old + value, and answers the old value."""
        self.assertEqual(self.machine.run("a", "PUTHASH", "k", "foobar"), Done((("previous", b""), ("revision", 1))))
        self.assertEqual(field(self.machine.ask("GET", "k"), "value"), b"3214735720")
        self.assertEqual(field(self.machine.run("a", "PUTHASH", "k", "\u00e9"), "previous"), b"3214735720")
        self.assertEqual(field(self.machine.ask("GET", "k"), "value"), b"%d" % fnv1a_32(b"3214735720\xc3\xa9"))

    def test_mput_writes_all_at_one_revision_or_nothing(self) -> None:
        """If one pair of an MPUT is wrong, no pair is written."""
        self.assertEqual(self.machine.run("a", "MPUT", "x", "1", "y", "2", "x", "3"), Done((("revision", 1),)))
        self.assertEqual(
            rows(self.machine.ask("MGET", "y", "z", "x")),
            (
                (("key", b"y"), ("value", b"2"), ("revision", 1)),
                (("key", b"x"), ("value", b"3"), ("revision", 1)),
            ),
        )
        refused = refusal(self.kv, "MPUT", "v", "1", "w")
        self.assertIn('the last key, "w", has no value', str(refused))
        self.assertEqual(refusal(self.kv, "MPUT", "v", "1", "", "2").code, "BADREQUEST")
        self.assertEqual(self.keys("KEYS"), [b"x", b"y"])

    def test_mput_fits_a_frame_however_many_keys_it_has(self) -> None:
        """An MPUT with as many keys as a line of 49,152 bytes has room for fits a frame: a key of one byte takes two
        bytes in the line, and three in a bundle."""
        most = ["k", "v"] * (MPUT_BYTES_MAX // 6)
        encoded = bundle.encode_entries([(2**63 - 1, self.kv.check(("MPUT", *most)))])
        self.assertLess(len(encoded), MPUT_BYTES_MAX + 50)
        refused = refusal(self.kv, "MPUT", *most, "k", "v")
        self.assertEqual(refused.code, "TOOLARGE")
        self.assertIn("56000 are allowed: set fewer at a time", str(refused))
        self.kv.check(("MPUT", *["k", "v"] * (32_768 // 4)))

    def test_arguments_of_other_types_are_refused_alike(self) -> None:
        """Arguments of other types, which a valid bundle may have, such as text in place of bytes, are refused in the
        same way everywhere; nothing raises or changes."""
        self.put(k="1")
        before = self.kv.snapshot()
        for verb, verb_of in self.kv.verbs.items():
            right = tuple(kind for kind in verb_of.types[1:] if kind is not ...)
            for place, kind in enumerate(right):
                for other in KINDS.keys() - {kind} if kind is not object else ():
                    kinds = [*right[:place], other, *right[place + 1 :]]
                    command = (verb, *[(KINDS | ANY_KIND)[each] for each in kinds])
                    for result in (self.machine.run_checked("a", command), self.kv.query(command)):
                        self.assertIsInstance(result, Refused, command)
                        self.assertIn("of these types", result.text)
        self.assertEqual(self.kv.snapshot(), before)

    def test_command_that_runs_at_one_revision_of_a_key(self) -> None:
        """IF runs each verb that changes something, if the key has the revision that it names, and its answer is that
        of the command. A refused IF changes nothing."""
        self.put(a="1", b="2")
        self.assertEqual(self.machine.run("a", "IF", "a", "1", "incr", "a"), Done((("value", b"2"), ("revision", 3))))
        before = self.kv.snapshot()
        for command in (
            ("PUT", "a", "x"),
            ("DEL", "a", "b"),
            ("CAS", "a", "2", "x"),
            ("INCR", "a", "-7"),
            ("APPEND", "b", "x"),
            ("PUTHASH", "b", "x"),
            ("MPUT", "a", "x", "c", "y"),
        ):
            for revision in ("1", "2", "0", "4"):
                refused = self.machine.run("a", "IF", "a", revision, *command)
                self.assertEqual(code(refused), "PRECONDITION", command)
            self.assertEqual(code(self.machine.run("a", "IF", "nothing", "any", *command)), "PRECONDITION")
            self.assertEqual(self.kv.snapshot(), before)
            copy = KeyValue()
            copy.restore(before)
            self.assertIsInstance(Machine(copy).run("a", "IF", "a", "3", *command), Done, command)
            self.assertNotEqual(copy.snapshot(), before)
        self.assertEqual(code(self.machine.run("a", "IF", "a", "3", "CAS", "a", "x", "y")), "CONFLICT")
        self.assertIsInstance(self.machine.run("a", "IF", "new", "0", "PUT", "new", "1"), Done)
        self.assertIsInstance(self.machine.run("a", "IF", "new", "any", "DEL", "new"), Done)

    def test_condition_that_is_none(self) -> None:
        """A malformed condition of IF is refused before it is ordered, and the refusal says what would be right."""
        for words, wanted in (
            (("a", "1"), "does not go with"),
            (("a", "-1", "PUT", "a", "x"), "number from 0 on or any"),
            (("a", "one", "PUT", "a", "x"), "number from 0 on or any"),
            (("a", "1", "GET", "a"), "IF runs one of PUT, DEL"),
            (("a", "1", "IF", "a", "1", "PUT", "a", "x"), "IF runs one of PUT, DEL"),
            (("a", "1", "PUT", "a"), "PUT does not go with 1 argument"),
            (("", "1", "PUT", "a", "x"), "cannot be empty"),
        ):
            self.assertIn(wanted, str(refusal(self.kv, "IF", *words)))

    def test_confused_condition_is_refused_alike_everywhere(self) -> None:
        """A malformed IF that a server in error has ordered is refused when it is executed, alike at every server;
        nothing raises."""
        deep: tuple[Any, ...] = ("PUT", b"a", b"x")
        for _ in range(5_000):
            deep = ("IF", b"a", 0, *deep)
        before = self.kv.snapshot()
        for command in (deep, ("IF", b"a", 0, "GET", b"a"), ("IF", b"a", 0, "PUT", b"a", 1), ("IF", b"a", 0, "MPUT")):
            self.assertIsInstance(self.machine.run_checked("a", command), Refused, command[:9])
        self.assertEqual(self.kv.snapshot(), before)

    def test_refusals_quote_bytes_that_are_no_utf8(self) -> None:
        """Where a refusal quotes a key, each byte that is not UTF-8 is shown in hexadecimal digits."""
        refused = self.kv.query(("GET", b"\xff\xc3\xa9"))
        self.assertEqual(refused, Refused("NOTFOUND", 'there is no key "\\\\xff\u00e9"'))
        self.machine.run_checked("a", ("PUT", b"\xff", b"\xfe1"))
        conflict = self.machine.run_checked("a", ("INCR", b"\xff", 1))
        self.assertEqual(conflict.text, 'key "\\\\xff" is "\\\\xfe1", which is no integer of 64 bits')
        self.assertEqual(code(self.machine.run_checked("a", ("CAS", b"\xff", 1, b"\xfe", b""))), "CONFLICT")

    @bounded
    @given(
        st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=300), min_size=1, max_size=8), st.data()
    )
    def test_any_bytes_go_the_whole_way(self, pairs: dict[bytes, bytes], data: st.DataObject) -> None:
        """Any bytes pass unchanged from a bundle through execution and a snapshot to the answers: keys and values are
        taken for text nowhere."""
        added = data.draw(st.binary(max_size=300))
        first = next(iter(pairs))
        commands: list[tuple[Any, ...]] = [("PUT", key, value) for key, value in pairs.items()]
        commands += [("MPUT", *[word for pair in pairs.items() for word in pair]), ("APPEND", first, added)]
        machine = Machine(KeyValue())
        for command in commands:
            encoded = bundle.encode_bundle(
                bundle.encode_head("a", 1, False), 1, [bundle.encode_entries([(1, command)])]
            )
            (decoded,) = bundle.decode(bundle.encode([encoded])) or ()
            ((_, ordered),) = decoded.entries
            self.assertEqual(ordered, command)
            self.assertIsInstance(machine.run_checked("a", ordered), Done)
        restored = KeyValue()
        restored.restore(machine.application.snapshot())
        self.assertEqual(restored.snapshot(), machine.application.snapshot())
        expected = sorted((pairs | {first: pairs[first] + added}).items())
        shown = rows(restored.query(("RANGE", b"", b"", -1)))
        self.assertEqual([(row[0][1], row[1][1]) for row in shown], expected)
        self.assertEqual([row[0][1] for row in rows(restored.query(("MGET", *sorted(pairs))))], sorted(pairs))
        self.assertEqual(field(restored.query(("GET", first)), "value"), pairs[first] + added)
        self.assertEqual(restored.used(), sum(len(key) + len(value) for key, value in expected))

    def limit(self, **quotas: int) -> None:
        self.machine.context.quotas = evolve(self.machine.context.quotas, **quotas)

    def test_keys_and_values_have_a_quota_together(self) -> None:
        """Whichever command would make keys and values together larger than the quota is refused, and changes
        nothing."""
        self.put(n="7", k="\u00e9")
        self.limit(kv_bytes=5)
        before = self.kv.snapshot()
        for command in (
            ("PUT", "k", "abc"),
            ("PUT", "m", ""),
            ("CAS", "k", "\u00e9", "abc"),
            ("INCR", "n", "3"),
            ("APPEND", "k", "x"),
            ("APPEND", "m", "x"),
            ("PUTHASH", "k", "x"),
            ("MPUT", "n", "8", "k", "abc"),
        ):
            refused = self.machine.run("alice", *command)
            self.assertEqual(code(refused), "TOOLARGE", command)
            self.assertIn("kv_bytes allows 5", refused.text)
            self.assertEqual((self.kv.snapshot(), self.kv.used()), (before, 5), command)

    def test_what_does_not_grow_is_not_refused(self) -> None:
        """A command that makes the state no larger is not refused, even if more is in use than the quota allows. MPUT
        counts as one change."""
        self.put(n="7", k="abc")
        self.limit(kv_bytes=1)
        for command in (
            ("PUT", "k", "xyz"),
            ("APPEND", "k", ""),
            ("INCR", "n"),
            ("MPUT", "k", "a", "n", "123"),
            ("MPUT", "k", "x", "k", "y"),
            ("DEL", "n"),
        ):
            self.assertIsInstance(self.machine.run("alice", *command), Done, command)
        self.assertEqual(self.kv.used(), 2)

    def test_if_is_as_much_work_as_the_command_that_it_runs(self) -> None:
        """An IF is as much work as the command that it runs: otherwise APPENDs to a large value would not take turns if
        an IF stands in front of them."""
        self.put(k="x" * 20 * key_value.BYTES_PER_ROW, m="")
        work = self.kv.work_in_rows
        for verb, words, expected in (
            ("APPEND", ("k", "x"), 20),
            ("PUTHASH", ("k", "x"), 20),
            ("APPEND", ("m", "x"), 0),
            ("PUT", ("k", "x"), 0),
        ):
            self.assertEqual(work["IF"](self.kv.check(("IF", "m", "any", verb, *words))), expected)

    def test_value_has_a_quota(self) -> None:
        """A value that is larger than the quota allows may be changed to a smaller one that is still too large."""
        self.put(k="abcdef")
        self.limit(value_bytes=3)
        for command, fits in (
            (("PUT", "l", "abc"), True),
            (("PUT", "l", "ab\u00e9"), False),
            (("APPEND", "l", "d"), False),
            (("MPUT", "a", "1", "l", "abcd"), False),
            (("APPEND", "m", "abcd"), False),
            (("PUT", "k", "abcde"), True),
            (("PUT", "k", "abcdef"), False),
        ):
            result = self.machine.run("alice", *command)
            self.assertEqual(isinstance(result, Done), fits, command)
        self.assertEqual(self.keys("KEYS"), [b"k", b"l"])

    def test_range_includes_from_and_excludes_to(self) -> None:
        """A range includes the key `from` and excludes `to`; an empty `to` means no end, since no key is below the
        empty text."""
        self.put(a="1", b="2", c="3", d="4")
        self.assertEqual(
            rows(self.machine.ask("RANGE", "b", "c")), ((("key", b"b"), ("value", b"2"), ("revision", 2)),)
        )
        self.assertEqual(self.keys("RANGE", "b", "d"), [b"b", b"c"])
        self.assertEqual(self.keys("RANGE", "b", ""), [b"b", b"c", b"d"])
        self.assertEqual(self.keys("RANGE", "", "c"), [b"a", b"b"])
        self.assertEqual(self.keys("RANGE", "c", "b"), [])
        self.assertEqual(self.keys("RANGE", "a", "d", "limit=2"), [b"a", b"b"])

    def test_keys_lists_all_or_a_range(self) -> None:
        """KEYS lists keys without values, as rows `+key="k"`: all keys, or those of a range."""
        self.put(b="2", a="1", c="3")
        self.assertEqual(rows(self.machine.ask("KEYS", "b", "z")), ((("key", b"b"),), (("key", b"c"),)))
        self.assertEqual(self.keys("KEYS"), [b"a", b"b", b"c"])
        self.assertIn("both from and to, or neither", str(refusal(self.kv, "KEYS", "b")))

    def test_answer_that_leaves_keys_out_says_where_to_go_on(self) -> None:
        """In an answer that leaves keys out, `next` is the first key that is missing; the last page has no `next`."""
        self.put(**dict.fromkeys("abcde", "v"))
        pages, first = [], ""
        while first is not None:
            answer = self.machine.ask("RANGE", first, "e", "limit=2")
            pages.append([row[0][1] for row in rows(answer)])
            following = dict(answer.fields).get("next")  # type: ignore[union-attr]
            first = None if following is None else following.decode()
        self.assertEqual(pages, [[b"a", b"b"], [b"c", b"d"]])
        self.assertEqual(field(self.machine.ask("KEYS", "limit=4"), "next"), b"e")

    def test_range_too_large_for_one_answer_is_cut_and_not_refused(self) -> None:
        """A range that is too large for one answer is cut, but shows at least one value of any size, so that a client
        that goes on from `next` comes to the end."""
        with_large_values = dict.fromkeys("abcde", "x" * value_bytes_max)
        self.put(**with_large_values)
        answer = self.machine.ask("RANGE", "", "")
        self.assertEqual(len(rows(answer)), reply_characters_max // (value_bytes_max + 1))
        self.assertEqual(field(answer, "next"), b"d")
        self.assertEqual(self.keys("RANGE", "d", ""), [b"d", b"e"])
        self.patch(arguments, "reply_characters_max", 10)
        self.assertEqual(self.keys("RANGE", "b", ""), [b"b"])
        self.assertEqual(self.keys("KEYS"), each_of("abcde"))

    def test_order_is_that_of_utf8_bytes(self) -> None:
        """Keys are in the order of their UTF-8 bytes. In UTF-16, a character beyond U+FFFF would come before U+FF5E."""
        keys = ["z", "\uff5e", "\U0001f600", "\u00e9", "Z"]
        for key in keys:
            self.machine.run("a", "PUT", key, "")
        self.assertEqual(self.keys("KEYS"), sorted(map(str.encode, keys)))

    def test_answers_are_bounded_in_rows_and_in_size(self) -> None:
        """An answer has 1,000 rows unless more are asked for, 10,000 at most, and no more text than can be sent."""
        for first in range(0, 10_002, 3):
            self.machine.run("a", "MPUT", *[text for n in range(first, first + 3) for text in (f"{n:05}", "v")])
        self.assertEqual(len(self.keys("KEYS")), 1_000)
        self.assertEqual(len(self.keys("RANGE", "0", "2", "limit=10000")), 10_000)
        self.assertEqual(len(rows(self.kv.query(("KEYS", b"", b"", 2**60)))), 10_000)
        self.put(large="x" * value_bytes_max)
        self.assertEqual(code(self.machine.ask("MGET", *["large"] * 5)), "TOOLARGE")
        self.assertEqual(len(rows(self.machine.ask("MGET", *["large"] * 3))), 3)


class KeyValueAgainstDict(RuleBasedStateMachine):
    """Every command does to the application what it does to a dict of (value, revision)."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(KeyValue())
        self.model: dict[str, tuple[str, int]] = {}  # keys and values as text, as clients write them

    keys = st.sampled_from(["a", "ab", "b", "\u00e9", "\uff5e", "\U0001f600"])
    values = st.one_of(st.integers(-5, 5).map(str), texts).map(Quoted)

    def run_and_write(self, key: str, value: str, verb: str, *args: str) -> Done:
        result = self.machine.run("alice", verb, *args)
        self.model[key] = (value, self.machine.context.revision)
        assert field(result, "revision") == self.machine.context.revision
        return result

    def old(self, key: str, default: str) -> str:
        return self.model.get(key, (default, 0))[0]

    @rule(key=keys, value=values)
    def put(self, key: str, value: str) -> None:
        self.run_and_write(key, value, "PUT", key, value)

    @rule(some=st.lists(keys, min_size=1, max_size=3))
    def delete(self, some: list[str]) -> None:
        there = self.model.keys() & set(some)
        assert field(self.machine.run("alice", "DEL", *some), "deleted") == len(there)
        for key in there:
            del self.model[key]

    @rule(key=keys, old=values, new=values, right=st.booleans())
    def compare_and_set(self, key: str, old: str, new: str, right: bool) -> None:
        expected = Quoted(self.old(key, old)) if right else old
        if key in self.model and self.model[key][0] == expected:
            self.run_and_write(key, new, "CAS", key, expected, new)
        else:
            assert code(self.machine.run("alice", "CAS", key, expected, new)) == "CONFLICT"

    @rule(key=keys, new=values)
    def create(self, key: str, new: str) -> None:
        if key in self.model:
            assert code(self.machine.run("alice", "CAS", key, "nil", new)) == "CONFLICT"
        else:
            self.run_and_write(key, new, "CAS", key, "nil", new)

    @rule(key=keys, step=st.integers(-3, 3))
    def increment(self, key: str, step: int) -> None:
        old = self.old(key, "0")
        if old.isascii() and old.removeprefix("-").isdigit() and str(int(old)) == old:  # not 00, which APPEND can make
            value = str(int(old) + step)
            assert field(self.run_and_write(key, value, "INCR", key, str(step)), "value") == value.encode()
        else:
            assert code(self.machine.run("alice", "INCR", key, str(step))) == "CONFLICT"

    @rule(key=keys, text=values)
    def append(self, key: str, text: str) -> None:
        value = self.old(key, "") + text
        assert field(self.run_and_write(key, value, "APPEND", key, text), "value") == value.encode()

    @rule(key=keys, value=values)
    def put_hash(self, key: str, value: str) -> None:
        old = self.old(key, "")
        result = self.run_and_write(key, str(fnv1a_32((old + value).encode())), "PUTHASH", key, value)
        assert field(result, "previous") == old.encode()

    @rule(pairs=st.lists(st.tuples(keys, values), min_size=1, max_size=4))
    def put_many(self, pairs: list[tuple[str, str]]) -> None:
        result = self.machine.run("alice", "MPUT", *[text for pair in pairs for text in pair])
        assert field(result, "revision") == self.machine.context.revision
        self.model.update((key, (value, self.machine.context.revision)) for key, value in pairs)

    @rule(first=keys, end=keys | st.just(""), limit=st.integers(1, 4))
    def ranges_agree(self, first: str, end: str, limit: int) -> None:
        there = map(str.encode, self.model)
        expected = sorted(key for key in there if key >= first.encode() and (not end or key < end.encode()))
        for verb in ("RANGE", "KEYS"):
            answer = self.machine.ask(verb, first, end, f"limit={limit}")
            assert [row[0][1] for row in rows(answer)] == expected[:limit]
            assert [key for name, key in answer.fields if name == "next"] == expected[limit : limit + 1]  # type: ignore[union-attr]

    @precondition(lambda self: self.machine.context.revision)
    @rule()
    def restore_elsewhere(self) -> None:
        """Go on with a fresh application that restores the snapshot; it has got its keys in another order than the
        first one."""
        snapshot = self.machine.application.snapshot()
        self.machine.application = KeyValue()
        self.machine.application.restore(snapshot)
        assert self.machine.application.snapshot() == snapshot

        other = Machine(KeyValue())
        for key, (value, revision) in reversed(self.model.items()):
            other.context.revision = revision - 1
            other.run("bob", "PUT", key, Quoted(value))
        assert other.application.snapshot() == snapshot

    @invariant()
    def every_key_agrees(self) -> None:
        if self.model:
            shown = rows(self.machine.ask("MGET", *self.model))
            expected = {key.encode(): (value.encode(), revision) for key, (value, revision) in self.model.items()}
            assert {key: (value, revision) for (_, key), (_, value), (_, revision) in shown} == expected
        used = sum(len(key.encode()) + len(value.encode()) for key, (value, _) in self.model.items())
        assert self.machine.application.used() == used  # type: ignore[attr-defined]


class KeyValueModelTest(SynchronousTestCase):
    """Runs the state machine test `KeyValueAgainstDict`, which trial does not find by itself."""

    def test_every_history_does_what_it_does_to_a_dict(self) -> None:
        """Values, revisions, refusals, ranges and snapshots are those of a dict, for random commands in any order."""
        run_state_machine_as_test(KeyValueAgainstDict, settings=settings(bounded, stateful_step_count=25))
