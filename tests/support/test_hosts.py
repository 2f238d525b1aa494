from __future__ import annotations

import socket
from threading import Event
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pfsb.support import hosts
from pfsb.support.hosts import SocketAddress, addresses_of, canonical, literal, look_up_in_threads

reactor: Any = global_reactor


def address(host: str, family: socket.AddressFamily = socket.AF_INET) -> SocketAddress:
    return SocketAddress(family, (host, 7400) if family == socket.AF_INET else (host, 7400, 0, 3))


class CanonicalTests(SynchronousTestCase):
    def test_one_address_is_written_in_one_way(self) -> None:
        """An address is written in one way: without the form of IPv4 inside IPv6, which a socket for both shows, and
        without a scope, which names an interface of this machine only."""
        for host, expected in (
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("FE80::1%eth0", "fe80::1"),
        ):
            self.assertEqual(canonical(host), expected)

    def test_host_name_is_no_address(self) -> None:
        """A host name is no address: canonical forms are for the addresses from which datagrams come."""
        self.assertRaises(ValueError, canonical, "localhost")


class SocketAddressTests(SynchronousTestCase):
    def test_addresses_of_an_answer_are_kept_in_order_and_once(self) -> None:
        """A resolver may give one address for several protocols, and families that no socket here uses."""
        found = (
            (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::7", 7400, 0, 0)),
            (socket.AF_INET6, socket.SOCK_DGRAM, 136, "", ("2001:db8::7", 7400, 0, 0)),
            (socket.AF_UNIX, socket.SOCK_DGRAM, 0, "", "/var/run/odd"),
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.7", 7400)),
        )
        addresses = addresses_of(found)
        self.assertEqual([each.shown for each in addresses], ["[2001:db8::7]:7400", "192.0.2.7:7400"])
        self.assertEqual([each.host for each in addresses], ["2001:db8::7", "192.0.2.7"])

    def test_literals_are_addresses_and_names_are_not(self) -> None:
        """Address literals are known without the resolver, and names are not; a literal with a scope is kept with its
        number on this machine."""
        for host, shown in (("127.0.0.1", "127.0.0.1:7400"), ("::1", "[::1]:7400"), ("0.0.0.0", "0.0.0.0:7400")):
            found = literal(host, 7400)
            assert found is not None
            self.assertEqual(found.shown, shown)
        for name in ("localhost", "db1", "1.2.3", "", "fe80::1%no-such-interface"):
            self.assertIsNone(literal(name, 7400), name)
        scoped = literal("fe80::1%1", 7400)
        assert scoped is not None
        self.assertEqual((scoped.where, scoped.interface), (("fe80::1", 7400, 0, 1), "fe80::1%1"))

    def test_wildcards_and_loopback_addresses_are_told(self) -> None:
        """Wildcards and loopback addresses are recognised: nothing can be sent to the former, and no other machine
        reaches the latter."""
        for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)):
            self.assertTrue(address(host, family).is_wildcard)
        for host, family in (("127.0.1.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            self.assertEqual((address(host, family).is_loopback, address(host, family).is_wildcard), (True, False))
        self.assertFalse(address("192.0.2.7").is_loopback)

    def test_source_is_the_own_address_with_any_port(self) -> None:
        """The scope of an IPv6 address is kept: without it a link-local address cannot be bound."""
        self.assertEqual(address("192.0.2.1").source_for(address("192.0.2.2")), ("192.0.2.1", 0))
        own, other = (address(host, socket.AF_INET6) for host in ("fe80::1", "fe80::2"))
        self.assertEqual(own.source_for(other), ("fe80::1", 0, 0, 3))

    def test_kernel_chooses_the_source_where_the_own_address_cannot_be_one(self) -> None:
        """The kernel chooses the source address where the server's own cannot be used: a wildcard, IPv4 towards IPv6,
        or loopback towards another machine."""
        self.assertIsNone(address("0.0.0.0").source_for(address("192.0.2.2")))
        self.assertIsNone(address("::", socket.AF_INET6).source_for(address("fe80::2", socket.AF_INET6)))
        self.assertIsNone(address("192.0.2.1").source_for(address("fe80::2", socket.AF_INET6)))
        self.assertIsNone(address("127.0.1.1").source_for(address("192.0.2.2")))
        self.assertEqual(address("127.0.0.1").source_for(address("127.0.0.2")), ("127.0.0.1", 0))


class ThreadTests(TestCase):
    timeout = 60

    async def test_system_is_asked_without_blocking_the_reactor(self) -> None:
        """The system's resolver is asked without blocking the reactor: timers go on while a name server does not
        answer."""
        go_on = Event()
        self.addCleanup(go_on.set)

        def slow(_host: str, port: int, **_kwargs: object) -> list[tuple[Any, ...]]:
            go_on.wait(30)
            return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.7", port))]

        self.patch(hosts.socket, "getaddrinfo", slow)
        asked = look_up_in_threads(reactor)("db1", 7400)
        await deferLater(reactor, 0.05)
        self.assertFalse(asked.called)
        go_on.set()
        self.assertEqual(await asked, (address("192.0.2.7"),))

    async def test_failure_tells_the_reason(self) -> None:
        """A failed look-up has a reason for the log; a text that cannot be a name fails as well."""

        def none(*_args: object, **_kwargs: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        asked = look_up_in_threads(reactor)("a" * 300, 7400)
        await self.assertFailure(asked, UnicodeError, OSError)
        self.patch(hosts.socket, "getaddrinfo", none)
        error = await self.assertFailure(look_up_in_threads(reactor)("db1", 7400), socket.gaierror)
        self.assertIn("Name or service not known", str(error))
