"""The operation EPOCH: a change of the membership as the state machine executes it (Departure 60)."""

from __future__ import annotations

from typing import Any

import msgpack
from attrs import evolve, fields
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Done, Refused
from pfsb.paxos.members import Members, encode_members
from pfsb.paxos.snapshot import WrongSnapshot
from pfsb.paxos.snapshot_rows import RowReader
from pfsb.sessions.cluster_settings import WrongSetting
from pfsb.sessions.frozen_state import STATE, StateHead
from pfsb.sessions.ordered_settings import Abilities
from pfsb.sessions.state_machine import ANNOUNCE, EPOCH
from tests.sessions import test_restorer

NEXT = Members((0, 1), learners=(3,), epoch=1, addresses={3: "127.0.0.1:7403"}, retired=(2,))
ABLE = Abilities.of({"kv": [1]})


class EpochTestCase(SynchronousTestCase):
    rules = 2

    def setUp(self) -> None:
        self.driver = test_restorer.driver(rules=self.rules)
        self.machine = self.driver.machine
        self.begun: list[Members] = []
        self.machine.settings.on_members = self.begun.append

    def change(self, *members: Members) -> list[Any]:
        """Execute changes in one slot. Returns their results."""
        updates = [self.driver.operation(EPOCH, encode_members(each)) for each in members]
        return [result for (result,) in self.driver.execute(*updates)]


class PlacesTests(EpochTestCase):
    def test_server_announces_where_clients_reach_it(self) -> None:
        """The address for clients that a server announces is known until the server has left, or announces another one;
        each change of it is counted."""
        settings = self.machine.settings
        self.driver.execute()
        before = settings.places_changed
        self.assertEqual(settings.place_of(1), "")
        settings.announce(1, evolve(ABLE, client="a.example:9401").encode())
        self.assertEqual(settings.place_of(1), "a.example:9401")
        settings.announce(1, evolve(ABLE, client="a.example:9401").encode())
        self.assertEqual(settings.places_changed, before + 1)
        self.change(Members((0, 2), epoch=1, retired=(1,)))
        self.assertEqual((settings.place_of(1), settings.places_changed), ("", before + 2))

    def test_abilities_with_a_place_are_read_back(self) -> None:
        for able in (ABLE, evolve(ABLE, client="tls://[::1]:9400")):
            self.assertEqual(Abilities.decode(able.encode()), able)
        for wrong in ("", "a\nb", "x" * 301, 5):
            data = msgpack.packb((2, [("kv", (1,))], wrong))
            self.assertRaises(WrongSetting, Abilities.decode, data)
        self.assertRaises(WrongSetting, Abilities.decode, msgpack.packb((2, [("kv", (1,))], "a:1", "b:1")))


class ExecutionTests(EpochTestCase):
    def test_change_begins_the_next_epoch(self) -> None:
        """A change begins the next epoch: its slot becomes a part of the members, and nothing is added to the
        revision."""
        self.driver.execute()
        self.assertEqual(self.change(NEXT), [Done((("epoch", 1),))])
        self.assertEqual(self.begun, [evolve(NEXT, since=2)])
        self.assertEqual(self.machine.settings.members, evolve(NEXT, since=2))
        self.assertEqual(self.machine.settings.shown()["members"], "0,1,3")
        self.assertEqual(self.machine.revision, 0)

    def test_second_change_for_one_epoch_changes_nothing(self) -> None:
        """A second change that was made for the same epoch is refused and changes nothing, also in the same slot."""
        done, refused = self.change(NEXT, evolve(NEXT, learners=(), addresses={}))
        self.assertIsInstance(done, Done)
        assert isinstance(refused, Refused)
        self.assertEqual((refused.code, refused.fate), ("CONFLICT", "none"))
        self.assertEqual(self.begun, [evolve(NEXT, since=1)])

    def test_changes_that_cannot_be_are_refused_alike(self) -> None:
        """Every server refuses a change that is made for another epoch, uses the id of a removed server, or leaves such
        an id out."""
        self.change(NEXT)
        following = evolve(NEXT, epoch=2)
        back = evolve(following, learners=(2, 3), retired=())
        forgotten = evolve(following, retired=())
        left_out = evolve(following, learners=(), addresses={})
        for wrong in (evolve(following, epoch=3), back, forgotten, left_out):
            (result,) = self.change(wrong)
            self.assertIsInstance(result, Refused)
        [[result]] = self.driver.execute(self.driver.operation(EPOCH, b"garbage"))
        self.assertEqual(result.code, "BADREQUEST")
        [[result]] = self.driver.execute(self.driver.operation(EPOCH, "text"))
        self.assertEqual(result.code, "BADREQUEST")
        self.assertEqual(len(self.begun), 1)

    def test_server_that_is_added_announces_and_one_that_was_removed_does_not(self) -> None:
        """The abilities of a server of the present epoch are noted when it announces them, and forgotten when a change
        removes the server."""
        for server_id in (0, 1, 2):
            self.driver.execute(self.driver.operation(ANNOUNCE, ABLE.encode(), server_id=server_id))
        self.change(NEXT)
        self.assertEqual([*self.machine.settings.announced], [0, 1])
        for server_id in (2, 3):
            self.driver.execute(self.driver.operation(ANNOUNCE, ABLE.encode(), server_id=server_id))
        self.assertEqual([*self.machine.settings.announced], [0, 1, 3])


class FormerRulesTests(EpochTestCase):
    """A cluster whose rules are those before there were changes."""

    rules = 1

    def test_change_is_no_operation(self) -> None:
        """The result is that of a version of pfsb that does not know the operation, and so is the revision."""
        [[result]] = self.driver.execute(self.driver.operation(EPOCH, encode_members(NEXT)))
        self.assertEqual(result, Refused("UNKNOWN", "no operation EPOCH"))
        self.assertEqual((self.begun, self.machine.revision), ([], 1))

    def test_place_is_refused_as_in_earlier_versions(self) -> None:
        """Under earlier rules an announced address for clients is refused with the text of the versions that know none,
        since the text is part of the digest."""
        self.driver.execute()
        data = evolve(ABLE, client="a.example:9401").encode()
        [[result]] = self.driver.execute(self.driver.operation(ANNOUNCE, data))
        self.assertEqual(result, Refused("BADREQUEST", f"{len(data)} bytes that are no abilities"))


class SnapshotTests(EpochTestCase):
    def test_members_are_in_the_snapshot(self) -> None:
        """A snapshot brings the members of the present epoch to the server that takes it."""
        self.change(NEXT)
        other = test_restorer.driver()
        test_restorer.restore(other.machine, [*self.machine.freeze()])
        self.assertEqual(other.machine.settings.members, evolve(NEXT, since=1))
        self.assertEqual(other.machine.settings.values.members, (0, 1, 2))
        self.assertEqual([*other.machine.freeze()], [*self.machine.freeze()])

    def test_snapshot_without_a_change_is_as_before(self) -> None:
        """Versions of pfsb without changes of the membership can read it."""
        (head,) = [piece.data for piece in self.machine.freeze() if piece.section == STATE]
        [[row]] = [RowReader().rows(head)]
        self.assertEqual(len(row), len(fields(StateHead)) - 1)
        self.assertIsNone(self.machine.settings.later_members)

    def test_wrong_members_are_refused(self) -> None:
        """A snapshot with members in a wrong form is refused."""
        self.change(NEXT)
        whole = [*self.machine.freeze()]
        wrong = [evolve(each, data=each.data.replace(b"127.0.0.1:7403", b"127.0.0.1:\xff403")) for each in whole]
        self.assertNotEqual(wrong, whole)
        restorer = test_restorer.driver().machine.restorer()
        error = self.assertRaises(WrongSnapshot, lambda: [restorer.take(piece) for piece in wrong])
        self.assertIn("WrongMembers", str(error))
