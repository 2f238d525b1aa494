"""Connections and sessions are counted by address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.frontends.stream.addresses import CLEAN_SECONDS, FORGET_SECONDS, LOCAL, OPENING_SECONDS, Addresses, address_of


class AddressesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(10)
        self.open: set[str] = set()
        self.addresses = Addresses(self.clock, 2, 3, self.open.__contains__)

    def opens(self, address: str, client_id: str) -> bool:
        self.open.add(client_id)
        is_opened = self.addresses.refusal(address, client_id) is None
        self.addresses.answered(address, client_id)
        return is_opened

    def test_address_has_so_many_connections(self) -> None:
        self.assertEqual([self.addresses.connects("a") for _ in range(3)], [True, True, False])
        self.assertTrue(self.addresses.connects("b"))
        self.addresses.disconnects("a")
        self.assertTrue(self.addresses.connects("a"))
        self.assertEqual(self.addresses.refused["connection"], 1)

    def test_address_has_so_many_open_sessions(self) -> None:
        self.assertEqual([self.opens("a", name) for name in "xyz"], [True] * 3)
        self.assertTrue(self.opens("a", "x"), "this session is open already")
        self.assertFalse(self.opens("a", "w"))
        self.assertTrue(self.opens("b", "w"))

    def test_sessions_that_have_ended_do_not_count(self) -> None:
        for name in "xyz":
            self.opens("a", name)
        self.open.discard("y")
        self.assertTrue(self.opens("a", "w"))
        self.open.discard("z")
        self.assertFalse(self.opens("a", "v"), "the search for ended sessions takes time, and is not made so often")
        self.clock.advance(CLEAN_SECONDS)
        self.assertTrue(self.opens("a", "v"))

    def test_session_counts_while_its_hello_is_under_way(self) -> None:
        """A session counts while its HELLO is under way, for a limited time, since the client may have hung up before
        the answer."""
        for name in "xyz":
            self.assertIsNone(self.addresses.refusal("a", name))
        self.clock.advance(CLEAN_SECONDS)
        self.assertFalse(self.opens("a", "w"))
        self.clock.advance(OPENING_SECONDS)
        self.assertTrue(self.opens("a", "w"))

    def test_address_without_connections_and_open_sessions_is_forgotten(self) -> None:
        self.addresses.connects("a")
        self.opens("b", "kept")
        for number in range(1_000):
            self.clock.advance(CLEAN_SECONDS / 100)
            self.opens(f"address {number}", f"gone {number}")
            self.open.discard(f"gone {number}")
        self.assertLess(self.addresses.remembered, 600)
        self.clock.advance(FORGET_SECONDS)
        self.addresses.connects("c")
        self.assertEqual(self.addresses.remembered, 3)
        self.addresses.disconnects("c")
        self.assertEqual(self.addresses.remembered, 2)

    def test_address_of_a_connection(self) -> None:
        def place(peer: Any) -> str:
            return address_of(SimpleNamespace(getPeer=lambda: peer))

        self.assertEqual(place(IPv4Address("TCP", "192.0.2.7", 5)), "192.0.2.7")
        self.assertEqual(place(UNIXAddress("/tmp/s")), LOCAL)
        self.assertEqual(place(IPv6Address("TCP", "::ffff:192.0.2.7", 5)), "192.0.2.7")
        near = [place(IPv6Address("TCP", f"2001:db8:1:2::{n}", 5)) for n in (1, 2)]
        self.assertEqual(near[0], near[1])
        self.assertNotEqual(near[0], place(IPv6Address("TCP", "2001:db8:1:3::1", 5)))
        self.assertEqual(place(IPv6Address("TCP", "fe80::1%eth0", 5)), place(IPv6Address("TCP", "fe80::2", 5)))
