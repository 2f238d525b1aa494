"""Bundles: how commands of a session are encoded into the payload of an update."""

from __future__ import annotations

from typing import Any, cast

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import BadRequest
from pfsb.paxos.data_structures import ServerData
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.support.limits import PAYLOAD_BYTES_MAX
from tests.long import long
from tests.sessions.support import encoded


class EncodingTests(SynchronousTestCase):
    def test_decoded_bundles_are_what_was_encoded(self) -> None:
        """Bundles are decoded as they were encoded, though entries are encoded when they are submitted, and only joined
        afterwards."""
        bundles = [
            Bundle("alice of Bonn", 41, False, ((7, ("PUT", "colour", "bleu é")), (0, ("GET", b"\xff")))),
            Bundle("~2.1.1", 0, True, ((1, ("GET", "colour")),)),
            Bundle(bundle.SERVER, 0, False, ((0, ("OPEN", "bob", 9)),)),
        ]
        self.assertEqual(bundle.decode(encoded(*bundles)), bundles)

    def test_large_epochs_numbers_and_many_entries_survive(self) -> None:
        """Epochs and numbers of 64 bits, and more entries than a short array header can count, are decoded as they were
        encoded."""
        entries = tuple((2**63 - 5_000 + i, ("INCR", "n", -(2**63))) for i in range(70_000 // 16))
        one = Bundle("alice", 2**62, False, entries)
        self.assertEqual(bundle.decode(encoded(one)), [one])

    @long
    def test_update_holds_any_number_of_bundles(self) -> None:
        """An update holds any number of bundles: up to 15, up to 65,535, and more, for which the array header has three
        lengths."""
        for count in (1, 15, 16, 65_536):
            bundles = [Bundle(f"~0.1.{i}", 0, True, ((1, ("SAY", "hi")),)) for i in range(count)]
            self.assertEqual(bundle.decode(encoded(*bundles)), bundles)

    def test_entries_that_are_encoded_together_are_those_that_are_joined(self) -> None:
        """Entries that are encoded in one call give the same payload as entries that are each encoded by itself."""
        head = bundle.encode_head("alice", 5, False)
        for count in (1, 15, 16, 70_000):
            entries = tuple((number, ("INCR", "n", number)) for number in range(1, count + 1))
            together = bundle.encode([bundle.encode_bundle(head, count, [bundle.encode_entries(entries)])])
            self.assertEqual(together, encoded(Bundle("alice", 5, False, entries)))

    def test_what_is_no_utf8_is_refused_when_it_is_encoded(self) -> None:
        """Half a surrogate pair, which cannot be sent in UTF-8, is refused when it is encoded, before the command has
        any effect."""
        self.assertRaises(UnicodeEncodeError, bundle.encode_entries, [(1, ("SAY", "\ud800"))])

    def test_what_other_servers_would_refuse_is_refused_when_it_is_encoded(self) -> None:
        """A command that other servers would refuse, since an application's `check` has returned something wrong, is
        refused when it is encoded."""
        for word in (2**63, True, 1.5, None, ("a",), ["a"], {"a": 1}):
            with self.assertRaises(BadRequest, msg=repr(word)):
                bundle.encode_checked([(1, ("PUT", "key", word))])
        with self.assertRaises(OverflowError):
            bundle.encode_checked([(1, ("PUT", "key", 2**64))])
        for command in ((b"PUT", "key"), (1, "key")):
            with self.assertRaises(TypeError):
                bundle.encode_checked([(1, command)])
        for other in ("PUT", b"PUT", None, 7, {"PUT": "key"}, {"PUT"}):
            with self.assertRaises((BadRequest, TypeError), msg=repr(other)):
                bundle.encode_checked([(1, ("PUT", "key", "v")), (2, cast(Any, other))])
        with self.assertRaises(IndexError):
            bundle.encode_checked([(1, ())])
        entries = [(1, ("PUT", "key", -(2**63))), (0, ("GET", b"\xff", 2**63 - 1))]
        self.assertEqual(bundle.encode_checked(entries), bundle.encode_entries(entries))

    def test_entries_that_no_update_has_room_for_are_refused_when_they_are_encoded(self) -> None:
        """Entries for which no update has room are refused when they are encoded; the largest ones make a valid update,
        with the longest client id."""
        value = "x" * (bundle.ENTRIES_BYTES_MAX - 20)
        head = bundle.encode_head("\U0001f600" * 300, 2**62, False)
        payload = bundle.encode([bundle.encode_bundle(head, 1, [bundle.encode_checked([(2**62, ("SAY", value))])])])
        self.assertLessEqual(len(payload), PAYLOAD_BYTES_MAX)
        error = self.assertRaises(BadRequest, bundle.encode_checked, [(2**62, ("SAY", value + "x" * 20))])
        self.assertEqual(error.code, "TOOLARGE")


class ClientIdTests(SynchronousTestCase):
    def test_anonymous_session_has_an_id_of_its_own(self) -> None:
        """The id of an anonymous session is made of server, storage, incarnation, mark and connection, so it is never
        used again."""
        servers = [
            ServerData(s, incarnation=i, start_mark=mark, storage_identity=d)
            for s in (1, 11)
            for i in (1, 11)
            for mark in (1, 17)
            for d in (b"a", b"b")
        ]
        ids = {bundle.anonymous(server.incarnation_name, c) for server in servers for c in (1, 11)}
        self.assertEqual(len(ids), 32)
        self.assertEqual({each[0] for each in ids}, {bundle.ANONYMOUS})


PUT = (1, ("PUT", "colour", "blue"))
LOCK = (2, ("LOCK", "door", -1))


def payload(*bundles: Any) -> bytes:
    """The msgpack of these values, whether they are bundles or not."""
    packed: bytes = msgpack.packb(bundles)
    return packed


class ValidityTests(SynchronousTestCase):
    """Departure 37: whether a payload has the shape of bundles decides whether its update may be ordered."""

    def accepted(self, *bundles: Any) -> bool:
        """Whether these bundles are valid, each by itself and after a valid one: the check has two ways."""
        alone = bundle.decode(payload(*bundles)) is not None
        followed = bundle.decode(payload(("alice", 1, False, (PUT, LOCK)), *bundles)) is not None
        self.assertEqual(alone, followed, bundles)
        return alone

    def test_payload_that_is_not_one_array_of_bundles_is_invalid(self) -> None:
        """A payload that is not one array of bundles is invalid; an update of 44 bytes with such a payload once killed
        a cluster."""
        for wrong in (
            b"",
            b"\xc1",
            b"\x90",
            b"\xc0",
            b"\x80",
            b"\xa1x",
            b"\x01",
            b"\x93\x01",
            b"\x91" * 2_000 + b"\x90",
        ):
            self.assertIsNone(bundle.decode(wrong), wrong)
        self.assertIsNone(bundle.decode(payload(("alice", 1, False, (PUT,))) + b"\x00"))

    def test_bundle_with_a_field_of_another_type_or_range_is_invalid(self) -> None:
        """A bundle is invalid if it has a field of another type or range, which execution would stumble over, or
        another language would read as another value."""
        for wrong in (
            ("alice", 1, False),
            ("alice", 1, False, (PUT,), 0),
            (7, 1, False, (PUT,)),
            (b"alice", 1, False, (PUT,)),
            ("", 1, False, (PUT,)),
            ("a" * 301, 1, False, (PUT,)),
            ("alice", -1, False, (PUT,)),
            ("alice", 2**63, False, (PUT,)),
            ("alice", True, False, (PUT,)),
            ("alice", 1.0, False, (PUT,)),
            ("alice", float("nan"), False, (PUT,)),
            ("alice", msgpack.Timestamp(1), False, (PUT,)),
            ("alice", 1, 0, (PUT,)),
            ("alice", 1, None, (PUT,)),
            ("alice", 1, False, ()),
            ("alice", 1, False, "PUT"),
            ("alice", 1, False, {"PUT": 1}),
            "alic",
            ("alice", 1, False, msgpack.ExtType(5, b"")),
        ):
            self.assertFalse(self.accepted(wrong), wrong)
        self.assertTrue(self.accepted(("a" * 300, 2**63 - 1, True, (PUT,))))

    def test_entry_with_another_shape_is_invalid(self) -> None:
        """An entry of another shape is invalid: it must be a number and a command, which is a verb, then texts and
        integers of 64 bits."""
        for wrong in (
            (),
            (1,),
            ("PUT", "colour"),
            (1, ("PUT", "colour"), 1),
            (-1, ("PUT", "colour")),
            (2**63, ("PUT", "colour")),
            (True, ("PUT", "colour")),
            ("1", ("PUT", "colour")),
            (1, ()),
            (1, "PUT"),
            (1, (1, "PUT")),
            (1, (b"PUT", "colour")),
            (1, ("PUT", None)),
            (1, ("PUT", True)),
            (1, ("PUT", 1.5)),
            (1, (b"PUT", "blue")),
            (1, ("PUT", ("blue",))),
            (1, ("PUT", {"blue": 1})),
            (1, ("PUT", 2**63)),
            (1, ("PUT", msgpack.Timestamp(1))),
            7,
        ):
            for entries in ((wrong,), (PUT, wrong), (wrong, LOCK)):
                self.assertFalse(self.accepted(("alice", 1, False, entries)), entries)
        for right in ((0, ("GET",)), (2**63 - 1, ("PUT", "", -(2**63), 2**63 - 1))):
            self.assertTrue(self.accepted(("alice", 1, False, (right,))), right)

    def test_text_with_half_a_surrogate_pair_is_invalid(self) -> None:
        """A bundle with half a surrogate pair is invalid: a text must be UTF-8, or no answer with it could be sent to a
        client."""
        right = payload(("alice", 1, False, ((1, ("SAY", "x\u00e9y")),)))
        self.assertIsNotNone(bundle.decode(right))
        self.assertIsNone(bundle.decode(right.replace("\u00e9".encode(), b"\xed\xa0")))

    def test_missing_memory_is_not_taken_for_an_invalid_payload(self) -> None:
        """A server without memory stops, and does not take a payload for invalid that other servers execute."""

        def without_memory(*_: object, **__: object) -> None:
            raise MemoryError

        self.patch(bundle.msgpack, "unpackb", without_memory)
        with self.assertRaises(MemoryError):
            bundle.decode(b"\x90")
