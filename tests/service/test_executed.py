"""`--executed` shows each update as it is executed."""

from __future__ import annotations

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import ClientUpdate
from pfsb.service.executed import WORD_CHARACTERS_MAX, tell_executed
from pfsb.sessions import bundle
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.ordered_settings import Abilities


def update(server_id: int, client_id: str, *entries: bundle.Entry) -> ClientUpdate:
    """An update of a server, with one bundle of a session."""
    encoded = bundle.encode_bundle(
        bundle.encode_head(client_id, 3, False), len(entries), [bundle.encode_entries(entries)]
    )
    return ClientUpdate(f"{server_id}.1.1", server_id, 1, 0, bundle.encode([encoded]))


class ExecutedTests(SynchronousTestCase):
    def told(self, *updates: ClientUpdate) -> list[str]:
        with capturedLogs() as events:
            tell_executed(7, updates)
        return [formatEvent(event) for event in events]

    def test_each_command_has_a_line_with_its_session_and_number(self) -> None:
        """Each executed command has a line with its session and number; questions, which have no number and are not
        executed at every server, are left out."""
        alice = update(2, "alice", (4, ("PUT", "colour", "light blue")), (0, ("GET", "a")), (5, ("INCR", "n", 2)))
        server = update(1, bundle.SERVER, (0, ("OPEN", "bob", 9)))
        self.assertEqual(
            self.told(alice, server),
            [
                'executed 7: alice #4 PUT colour "light blue"',
                "executed 7: alice #5 INCR n 2",
                "executed 7: server 1: OPEN bob 9",
            ],
        )

    def test_birth_and_announcements_are_shown_in_words(self) -> None:
        """The first lines of a classroom's cluster show applications and addresses, and no encoded bytes; bytes that
        are neither are shown as they are."""
        settings = ClusterSettings((0, 1, 2), (("chat", 1), ("lock", 1), ("kv", 1)), bytes(8))
        abilities = evolve(Abilities.of({"kv": [1], "chat": [1, 2]}), client="127.0.0.1:9400")
        entries = (("BIRTH", settings.encode()), ("ANNOUNCE", abilities.encode()), ("ANNOUNCE", b"odd"))
        told = self.told(update(1, bundle.SERVER, *((0, entry) for entry in entries)))
        self.assertEqual(
            told,
            [
                "executed 7: server 1: BIRTH apps=chat,lock,kv members=0,1,2",
                "executed 7: server 1: ANNOUNCE apps=chat,kv client=127.0.0.1:9400",
                "executed 7: server 1: ANNOUNCE odd",
            ],
        )

    def test_long_words_are_cut_and_odd_ones_quoted(self) -> None:
        """Long words are cut and odd ones quoted, so that each command has one line."""
        (line,) = self.told(update(0, "a", (1, ("PUT", "k", "x" * 500))))
        self.assertLess(len(line), WORD_CHARACTERS_MAX + 40)
        (line,) = self.told(update(0, "a", (1, ("SAY", "two\nlines"))))
        self.assertEqual(line, 'executed 7: a #1 SAY "two\\nlines"')

    def test_slot_without_commands_is_told(self) -> None:
        """A slot without commands is shown: a hole that was filled, or an update that is not valid."""
        self.assertEqual(self.told(), ["executed 7: nothing"])
        self.assertEqual(self.told(ClientUpdate("1.1.1", 1, 1, 0, b"nonsense")), ["executed 7: nothing"])
