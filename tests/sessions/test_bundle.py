"""Design part 5: how commands travel, and whose they are."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.sessions import bundle
from tests.sessions.support import encoded


class EncodingTests(SynchronousTestCase):
    def test_decoded_bundle_is_what_was_encoded(self) -> None:
        """Entries are encoded when they are submitted, and only joined afterwards."""
        decoded = bundle.decode(encoded(41, True, (7, ("PUT", "colour", "bleu é")), (0, ("GET", "colour"))))
        self.assertEqual(decoded, bundle.Bundle(41, True, ((7, ("PUT", "colour", "bleu é")), (0, ("GET", "colour")))))

    def test_large_epochs_numbers_and_many_entries_survive(self) -> None:
        """Numbers and epochs have 64 bits; a bundle may hold more entries than a short array header can count."""
        entries = tuple((2**63 - 100 + i, ("INCR", "n", -(2**63))) for i in range(70_000 // 16))
        decoded = bundle.decode(encoded(2**62, False, *entries))
        self.assertEqual((decoded.epoch, decoded.opens, tuple(decoded.entries)), (2**62, False, entries))

    def test_entries_that_are_encoded_together_are_those_that_are_joined(self) -> None:
        """A pipelining client's commands are encoded in one go; nobody can tell from the payload."""
        for count in (1, 15, 16, 70_000):
            entries = [(number, ("INCR", "n", number)) for number in range(1, count + 1)]
            together = bundle.encode(5, False, count, [bundle.encode_entries(entries)])
            self.assertEqual(together, encoded(5, False, *entries))

    def test_what_is_no_utf8_is_refused_when_it_is_encoded(self) -> None:
        """Half a surrogate pair cannot travel; that shows before anything else happens."""
        self.assertRaises(UnicodeEncodeError, bundle.encode_entries, [(1, ("SAY", "\ud800"))])


class ClientIdTests(SynchronousTestCase):
    def test_session_is_found_in_the_update_client_id(self) -> None:
        """Each epoch has an update client id of its own; the session's id is what its client said, spaces included."""
        self.assertEqual(bundle.session_of(bundle.named("alice of Bonn", 41)), "alice of Bonn")
        self.assertNotEqual(bundle.named("alice", 41), bundle.named("alice", 42))

    def test_anonymous_session_has_the_id_of_its_updates(self) -> None:
        """Server, incarnation and connection make it unique for ever."""
        ids = {bundle.anonymous(s, i, c) for s in (1, 11) for i in (1, 11) for c in (1, 11)}
        self.assertEqual(len(ids), 8)
        for each in ids:
            self.assertEqual(bundle.session_of(each), each)

    def test_three_kinds_of_senders_cannot_be_mistaken(self) -> None:
        """A client that calls itself like a server or an anonymous connection is still told apart by its epoch."""
        self.assertTrue(bundle.named("!0.1", 5)[0].isdigit())
        self.assertTrue(bundle.server(0, 1).startswith(bundle.SERVER))
        self.assertTrue(bundle.anonymous(0, 1, 1).startswith(bundle.ANONYMOUS))
