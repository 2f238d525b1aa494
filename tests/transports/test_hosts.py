from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from pfsb.transports.hosts import ServerAddress, UnknownHost, canonical


def address(host: str, family: socket.AddressFamily = socket.AF_INET) -> ServerAddress:
    where = (host, 7400) if family == socket.AF_INET else (host, 7400, 0, 3)
    return ServerAddress(family, where, frozenset({canonical(host)}))


class CanonicalTests(SynchronousTestCase):
    def test_one_address_is_written_in_one_way(self) -> None:
        """IPv4 inside IPv6 is how a socket for both shows it; a scope names an interface of this machine only."""
        for host, expected in (
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("FE80::1%eth0", "fe80::1"),
        ):
            self.assertEqual(canonical(host), expected)

    def test_host_name_is_no_address(self) -> None:
        """Datagrams come from addresses."""
        self.assertRaises(ValueError, canonical, "localhost")


class ServerAddressTests(SynchronousTestCase):
    def test_frames_may_come_from_every_address_of_a_host_name(self) -> None:
        """The peer sends from the one that it listens on, which may be another than the one that is sent to."""
        found = (
            (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::7", 7400, 0, 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.7", 7400)),
        )
        self.patch(socket, "getaddrinfo", lambda *args, **kwargs: found)
        server = ServerAddress.find(1, "seven.example", 7400)
        self.assertEqual(server.where, ("2001:db8::7", 7400, 0, 0))
        for host in ("2001:db8::7", "2001:DB8:0::7", "192.0.2.7", "::ffff:192.0.2.7"):
            self.assertTrue(server.is_source(host), host)
        for host in ("2001:db8::8", "192.0.2.8", "", "nonsense"):
            self.assertFalse(server.is_source(host), host)

    def test_frames_of_a_server_at_a_wildcard_may_come_from_anywhere(self) -> None:
        """Nothing is known about the address that it sends from."""
        for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)):
            self.assertTrue(address(host, family).is_wildcard)
            self.assertTrue(address(host, family).is_source("192.0.2.7"))
        self.assertFalse(address("127.0.0.1").is_wildcard)

    def test_source_is_the_own_address_with_any_port(self) -> None:
        """The scope of an IPv6 address is kept: without it a link-local address cannot be bound."""
        self.assertEqual(address("192.0.2.1").source_for(address("192.0.2.2")), ("192.0.2.1", 0))
        own, other = (address(host, socket.AF_INET6) for host in ("fe80::1", "fe80::2"))
        self.assertEqual(own.source_for(other), ("fe80::1", 0, 0, 3))

    def test_kernel_chooses_the_source_where_the_own_address_cannot_be_one(self) -> None:
        """A wildcard is no source, and IPv4 cannot send to IPv6."""
        self.assertIsNone(address("0.0.0.0").source_for(address("192.0.2.2")))
        self.assertIsNone(address("::", socket.AF_INET6).source_for(address("fe80::2", socket.AF_INET6)))
        self.assertIsNone(address("192.0.2.1").source_for(address("fe80::2", socket.AF_INET6)))

    def test_unknown_host_is_one_line(self) -> None:
        """The line names server and host."""

        def none(*args: object, **kwargs: object) -> object:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.patch(socket, "getaddrinfo", none)
        error = self.assertRaises(UnknownHost, ServerAddress.find, 2, "no-such-host.invalid", 7402)
        self.assertIn('server 2: the host "no-such-host.invalid" has no address', str(error))
