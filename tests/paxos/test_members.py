"""Members: the servers of one epoch, as a value and as bytes."""

from __future__ import annotations

from typing import Any

import msgpack
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.members import ADDRESS_CHARS_MAX, EPOCH_MAX, Members, WrongMembers, decode_members, encode_members
from pfsb.support.limits import SERVER_ID_MAX, SLOT_MAX
from pfsb.support.views import view_of
from tests.examples import examples

IDS = st.integers(0, SERVER_ID_MAX)


def _members(ids: list[int], voters: int, gone: int, numbers: tuple[int, int], data: dict[str, Any]) -> Members:
    """Members of these ids: the first `voters` of them vote, the last `gone` are retired, the others learn."""
    end = max(voters, len(ids) - gone)
    there = ids[:end]
    storages = dict.fromkeys(there[:: data["step"]], data["identity"])
    addresses = dict.fromkeys(there[:: data["step"] + 1], data["address"])
    first = data["first"]
    return Members(
        there[:voters],
        there[voters:],
        *numbers,
        there[0] if first else -1,
        storages,
        addresses,
        ids[end:],
        (there[0], there[-1]) if data["replaces"] and len(there) > 1 else None,
        there[voters : voters + data["permanent"]],
    )


MEMBERS = st.builds(
    _members,
    st.lists(IDS, min_size=1, max_size=6, unique=True),
    st.integers(1, 6),
    st.integers(0, 3),
    st.tuples(st.integers(0, EPOCH_MAX), st.integers(0, SLOT_MAX)),
    st.fixed_dictionaries(
        {
            "identity": st.binary(min_size=8, max_size=8),
            "address": st.text(min_size=1, max_size=20),
            "step": st.integers(1, 3),
            "first": st.booleans(),
            "replaces": st.booleans(),
            "permanent": st.integers(0, 3),
        }
    ),
)
"""Members with all of their fields, whatever their numbers are."""
THREE = Members((3, 1, 2), (7,), 4, 90, 2, {7: b"disk-007"}, {7: "10.0.0.7:7107"}, (0,))


class FormTests(SynchronousTestCase):
    """Members as bytes."""

    @examples(100)
    @given(MEMBERS)
    def test_members_come_back(self, members: Members) -> None:
        """Decoding the form of members gives equal members."""
        self.assertEqual(decode_members(encode_members(members)), members)

    @examples(100)
    @given(MEMBERS, st.data())
    def test_no_other_form_is_accepted(self, members: Members, data: st.DataObject) -> None:
        """Changed bytes are refused, or are the form of other members."""
        form = bytearray(encode_members(members))
        form[data.draw(st.integers(0, len(form) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = decode_members(bytes(form))
        except WrongMembers:
            return
        self.assertEqual(encode_members(found), form)

    def test_what_no_change_makes_is_refused(self) -> None:
        """Members that no change could make are refused: without a voter, with a server twice, with a leader that only
        learns, with an id that is used again, or with numbers out of their range."""
        row = (1, True, b"", "")
        for wrong in (
            *((0, 0, -1, (), ()), (0, 0, -1, ((1, False, b"", ""),), ()), (0, 0, -1, (row, row), ())),
            *((0, 0, 2, (row, (2, False, b"", "")), ()), (0, 0, -1, (row,), (1,)), (0, 0, 9, (row,), ())),
            *((EPOCH_MAX + 1, 0, -1, (row,), ()), (-1, 0, -1, (row,), ()), (0, SLOT_MAX + 1, -1, (row,), ())),
            *((0, 0, -1, ((SERVER_ID_MAX + 1, True, b"", ""),), ()), (0, 0, -1, ((1, True, b"short", ""),), ())),
            *((0, 0, -1, ((1, True, b"", "a" * (ADDRESS_CHARS_MAX + 1)),), ()), (0, 0, -1, ((1, 7, b"", ""),), ())),
            *((0, 0, -1, (row,), (), more) for more in (None, (1, 1), (1, 2), (2, 1), (True, 1), (1,), 5)),
            *((0, 0, -1, (row, (2, False, b"", "")), (), more) for more in ((2, 1), (True, 2), (1, 2, 3))),
            *((0, 0, -1, (row,), ("1",)), (0, 0, -1, 5, ()), (0, 0, -1, (row,)), "members", None),
        ):
            self.assertRaises(WrongMembers, decode_members, msgpack.packb(wrong))
        for garbage in (b"", b"\xc1", encode_members(THREE) + b"\x00", encode_members(THREE)[:-1]):
            self.assertRaises(WrongMembers, decode_members, garbage)


class FirstViewTests(SynchronousTestCase):
    """An epoch begins with a view whose leader the change has chosen."""

    def test_first_view_is_that_of_the_named_leader(self) -> None:
        """The first view is led by the server that `first` names: server 2 is the second of three, so it is the second
        view."""
        self.assertEqual(THREE.first_view, view_of(4, 2))

    def test_without_a_name_it_is_the_lowest_id(self) -> None:
        """If no server is named, the first view is led by the lowest id, as for the founding servers."""
        self.assertEqual(evolve(THREE, first=-1).first_view, view_of(4, 1))
