"""Bundles: how commands of a session are encoded into the payload of an update."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.data_structures import ServerData
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from tests.sessions.support import encoded


class EncodingTests(SynchronousTestCase):
    def test_decoded_bundles_are_what_was_encoded(self) -> None:
        """Entries are encoded when they are submitted, and only joined afterwards."""
        bundles = [
            Bundle("alice of Bonn", 41, False, ((7, ("PUT", "colour", "bleu é")), (0, ("GET", "colour")))),
            Bundle("~2.1.1", 0, True, ((1, ("GET", "colour")),)),
            Bundle(bundle.SERVER, 0, False, ((0, ("OPEN", "bob", 9)),)),
        ]
        self.assertEqual(bundle.decode(encoded(*bundles)), bundles)

    def test_large_epochs_numbers_and_many_entries_survive(self) -> None:
        """Numbers and epochs have 64 bits; a bundle may hold more entries than a short array header can count."""
        entries = tuple((2**63 - 100 + i, ("INCR", "n", -(2**63))) for i in range(70_000 // 16))
        one = Bundle("alice", 2**62, False, entries)
        self.assertEqual(bundle.decode(encoded(one)), [one])

    def test_update_holds_any_number_of_bundles(self) -> None:
        """An array header has one of three lengths: for up to 15 bundles, for up to 65,535, and for more."""
        for count in (0, 1, 15, 16, 65_536):
            bundles = [Bundle(f"~0.1.{i}", 0, True, ()) for i in range(count)]
            self.assertEqual(bundle.decode(encoded(*bundles)), bundles)

    def test_entries_that_are_encoded_together_are_those_that_are_joined(self) -> None:
        """Encoding a pipelining client's commands in one call gives the same payload as encoding each by itself."""
        head = bundle.encode_head("alice", 5, False)
        for count in (1, 15, 16, 70_000):
            entries = tuple((number, ("INCR", "n", number)) for number in range(1, count + 1))
            together = bundle.encode([bundle.encode_bundle(head, count, [bundle.encode_entries(entries)])])
            self.assertEqual(together, encoded(Bundle("alice", 5, False, entries)))

    def test_what_is_no_utf8_is_refused_when_it_is_encoded(self) -> None:
        """Half a surrogate pair cannot be sent: encoding raises before the command has any effect."""
        self.assertRaises(UnicodeEncodeError, bundle.encode_entries, [(1, ("SAY", "\ud800"))])


class ClientIdTests(SynchronousTestCase):
    def test_anonymous_session_has_an_id_of_its_own(self) -> None:
        """Server, storage, incarnation and connection together make an id that is never used again."""
        servers = [
            ServerData(s, incarnation=i, storage_identity=d) for s in (1, 11) for i in (1, 11) for d in (b"a", b"b")
        ]
        ids = {bundle.anonymous(server.incarnation_name, c) for server in servers for c in (1, 11)}
        self.assertEqual(len(ids), 16)
        self.assertEqual({each[0] for each in ids}, {bundle.ANONYMOUS})
