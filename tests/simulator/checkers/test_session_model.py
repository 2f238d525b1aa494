"""The model of the sessions follows settings, announcements and versions (Departure 34)."""

from __future__ import annotations

from itertools import count

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.ordered_settings import Abilities
from pfsb.sessions.state_machine import ANNOUNCE, birth
from pfsb.simulator.checkers.session_model import SessionModel

VALUES = ClusterSettings(members=(0, 1), apps=(("chat", 1),), sessions=1, horizon=50)
OLD = Abilities({"chat": (1,), "tally": (1,)})
NEW = Abilities({"chat": (1,), "tally": (1, 2)}, rules=3)


def update(server_id: int, client_id: str, number: int, *words: object) -> ClientUpdate:
    """An update with one command of a client, or one operation of a server."""
    entries = [bundle.encode_entries([(number, words)])]
    head = bundle.encode_head(client_id, 0, opens=client_id != bundle.SERVER)
    return ClientUpdate("a", server_id, 1, 0, bundle.encode([bundle.encode_bundle(head, 1, entries)]))


class SettingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.model = SessionModel(horizon_slots=10)
        self.seqs = count(1)
        self.run_(birth(0, VALUES))
        for server_id in VALUES.members:
            self.run_(update(server_id, bundle.SERVER, 0, ANNOUNCE, OLD.encode()))
        self.numbers = count(1)

    def run_(self, made: ClientUpdate) -> object:
        """Run one update in a slot of its own. Returns the fields of the result of its last command, or the code of its
        refusal, if the model can tell."""
        results = [*self.model.execute(next(self.seqs), [made]).results.values()]
        last = results[-1] if results else None
        return last[0] if isinstance(last, tuple) else last

    def command(self, *words: object) -> object:
        return self.run_(update(0, "~anybody", next(self.numbers), *words))

    def test_birth_brings_the_settings(self) -> None:
        """The birth of the cluster brings the settings, and a second birth changes nothing."""
        self.run_(birth(1, evolve(VALUES, sessions=7)))
        self.assertEqual((self.model.sessions_max, self.model.horizon_slots), (1, 50))

    def test_change_is_followed_with_its_revision(self) -> None:
        """A change of settings has its revision, and settings that the model itself needs are in force from then on."""
        self.assertEqual(self.command("SETTINGS SET", "sessions=3", "horizon=20000"), (("revision", 1),))
        self.assertEqual((self.model.sessions_max, self.model.horizon_slots), (3, 20_000))

    def test_wrong_change_is_refused(self) -> None:
        """A change to a horizon below the servers' minimum is refused."""
        self.assertEqual(self.command("SETTINGS SET", "horizon=20"), "BADREQUEST")
        self.model.horizon_min = 20
        self.assertEqual(self.command("SETTINGS SET", "horizon=20"), (("revision", 2),))

    def test_change_that_a_member_cannot_follow_is_refused(self) -> None:
        """A change that a member cannot follow is refused: all members must have announced what it asks for."""
        for words in (("apps=chat,tally:2",), ("rules=3",), ("sessions=3", "rules=3")):
            self.assertEqual(self.command("SETTINGS SET", *words), "CONFLICT")
        self.run_(update(0, bundle.SERVER, 0, ANNOUNCE, NEW.encode()))
        self.assertEqual(self.command("SETTINGS SET", "rules=3"), "CONFLICT")
        self.run_(update(1, bundle.SERVER, 0, ANNOUNCE, NEW.encode()))
        self.assertEqual(self.command("SETTINGS SET", "rules=3", "apps=tally:2"), (("revision", 5),))

    def test_silent_member_keeps_changes_from_being_made(self) -> None:
        """No change is made while a member has announced nothing, since it may lack anything."""
        self.model = SessionModel(horizon_slots=10)
        self.run_(birth(0, VALUES))
        self.run_(update(0, bundle.SERVER, 0, ANNOUNCE, OLD.encode()))
        self.assertEqual(self.command("SETTINGS SET", "sessions=3"), "CONFLICT")

    def test_application_is_followed_through_its_versions(self) -> None:
        """The state of an application passes from version to version, and is lost when the application is switched
        off."""
        for server_id in VALUES.members:
            self.run_(update(server_id, bundle.SERVER, 0, ANNOUNCE, NEW.encode()))
        self.assertEqual(self.command("TALLY", "a"), "UNKNOWN")
        self.command("SETTINGS SET", "apps=chat,tally")
        self.assertEqual(self.command("TALLY", "a"), (("count", 1), ("revision", 3)))
        self.command("SETTINGS SET", "apps=tally:2,chat")
        self.assertEqual(self.command("TALLY", "b"), (("count", 1), ("total", 2), ("revision", 5)))
        self.command("SETTINGS SET", "apps=chat")
        self.command("SETTINGS SET", "apps=chat,tally:2")
        self.assertEqual(self.command("TALLY", "a"), (("count", 1), ("total", 1), ("revision", 8)))

    def test_sessions_that_were_forgotten_stay_so_when_the_horizon_grows(self) -> None:
        """Sessions that were forgotten stay forgotten when the horizon grows: the oldest slot that is kept never goes
        back."""
        self.model.horizon_min = 1
        self.command("SETTINGS SET", "horizon=2")
        self.command("SETTINGS SET", "horizon=50")
        self.assertEqual(self.model.oldest_kept, 2)
