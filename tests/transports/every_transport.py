"""Tests of all transports: each kind of network has its own subclasses of these cases."""

from __future__ import annotations

from typing import ClassVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import ITransport
from pfsb.paxos.members import Members
from pfsb.support.hosts import shown
from pfsb.transports import names, tcp, udp
from pfsb.transports.frames import FRAME_BYTES_MAX
from pfsb.transports.peer_transport import PeerTransport
from tests.transports.messages import accept, proposal
from tests.transports.receiver import NotingReceiver
from tests.transports.transport_case import HOST, FakeNames, TransportTestCase, free_ports, is_free, reactor, until


class DeliveryTests(TransportTestCase):
    def test_it_is_a_transport(self) -> None:
        """Each transport provides the interface of a transport."""
        verifyObject(ITransport, self.make(0))

    async def test_message_arrives_with_sender_and_identity(self) -> None:
        """A message arrives with its sender and the identity of the sender's storage."""
        a, b = self.start(0), self.start(1)
        await self.meet(a, b)
        a[0].send([accept(sender=0), proposal(sender=0)], 1)
        await until(lambda: b[1].frames)
        self.assertEqual(b[1].frames, [(0, b"disk-000", [accept(sender=0), proposal(sender=0)])])

    async def test_message_to_all_reaches_all_others(self) -> None:
        """A message without a receiver (to=None) reaches every peer, and not the sender itself."""
        (a, own), *pairs = [self.start(i) for i in sorted(self.ids)]
        others = [receiver for _, receiver in pairs]
        await self.meet((a, own), *pairs)
        a.send([accept(sender=0)], None)
        await until(lambda: all(receiver.frames for receiver in others))
        self.assertEqual([receiver.messages for receiver in others], [[accept(sender=0)]] * 2)
        self.assertEqual(own.frames, [])

    async def test_largest_frame_arrives_whole(self) -> None:
        """The largest frame, of 60,000 bytes, arrives whole: Twisted cuts datagrams to 8,192 bytes unless told
        otherwise."""
        a, _ = self.start(0)
        b, receiver = self.start(1)
        large = proposal(b"x" * 59_800, sender=0)
        await until(lambda: receiver.frames, lambda: a.send([large], 1))
        self.assertEqual(receiver.messages[0], large)
        self.assertGreater(b.counters.bytes_in, FRAME_BYTES_MAX - 200)

    async def test_host_names_are_looked_up(self) -> None:
        """Host names in the configuration are looked up."""
        self.addresses = {i: ("localhost", port) for i, (_, port) in self.addresses.items()}
        a, _ = self.start(0)
        _, receiver = self.start(1)
        await until(lambda: receiver.frames, lambda: a.send([accept(sender=0)], 1))
        self.assertEqual(receiver.messages[0], accept(sender=0))

    async def test_frames_of_another_cluster_are_counted(self) -> None:
        """Frames of another cluster on the network are counted and dropped; it has a wrong address in its
        configuration."""
        a, _ = self.start(0, cluster="another")
        b, receiver = self.start(1)
        await until(lambda: b.counters.refused, lambda: a.send([accept(sender=0)], 1))
        self.assertEqual((set(b.counters.refused), receiver.frames), ({"cluster"}, []))


class RefusalTests(TransportTestCase):
    absent: ClassVar[frozenset[int]] = frozenset()
    """Servers of which a refusal may be told, though nothing was sent to them: connections to them are tried."""

    async def test_dead_peer_is_known_without_another_send(self) -> None:
        """Departure 11: a dead peer is known by one refused datagram, without another send."""
        a, receiver = self.start(0)
        a.send([accept(sender=0)], 1)
        await until(lambda: receiver.refusals)
        self.assertEqual(set(receiver.refusals) - self.absent, {1})

    async def test_peer_that_comes_back_is_reached(self) -> None:
        """A peer that comes back is reached: refusals, even ten of them, do not break the sending socket."""
        a, receiver = self.start(0)
        await until(lambda: a.counters.refusals >= 10, lambda: a.send([accept(sender=0)], 1))
        b, peer = self.start(1)
        await self.meet((a, receiver), (b, peer))
        a.send([accept(sender=0)], 1)
        await until(lambda: peer.frames)
        self.assertEqual(peer.messages, [accept(sender=0)])
        self.assertEqual(set(receiver.refusals) - self.absent, {1})

    async def test_other_peers_are_not_bothered(self) -> None:
        """With one dead peer of two, the other gets every message."""
        (a, receiver), (c, alive) = self.start(0), self.start(2)
        await self.meet((a, receiver), (c, alive))
        for _ in range(5):
            a.send([accept(sender=0)], None)
        await until(lambda: len(alive.frames) == 5 and receiver.refusals)
        self.assertEqual(set(receiver.refusals) - self.absent, {1})


class SourceTests(TransportTestCase):
    """Without a secret, the address that a frame comes from is all that speaks for its sender."""

    def setUp(self) -> None:
        super().setUp()
        self.addresses = {i: (f"127.0.0.{i + 1}", port) for i, (_, port) in self.addresses.items()}

    async def test_servers_send_from_their_own_address(self) -> None:
        """A server sends from its own address, also on a host with several ones, where the kernel would choose
        127.0.0.1."""
        started = {i: self.start(i) for i in sorted(self.ids)}
        await self.meet(*started.values())
        for sender, (transport, _) in started.items():
            transport.send([accept(sender=sender)], None)
        await until(lambda: all(len(receiver.frames) == 2 for _, receiver in started.values()))
        self.assertEqual([transport.counters.refused for transport, _ in started.values()], [{}] * 3)

    async def test_wildcard_is_not_sent_from(self) -> None:
        """A server that listens on all addresses sends from the address that the kernel chooses."""
        self.addresses[0] = ("0.0.0.0", self.addresses[0][1])
        self.addresses[1] = ("127.0.0.1", self.addresses[1][1])
        transport, own = self.start(0)
        peer, receiver = self.start(1)
        await self.meet((transport, own), (peer, receiver))
        transport.send([accept(sender=0)], 1)
        peer.send([accept(sender=1)], 0)
        await until(lambda: receiver.frames and own.frames)
        self.assertEqual((transport.counters.refused, peer.counters.refused), ({}, {}))


class NameTests(TransportTestCase):
    """Servers whose hosts are names, which can have other addresses at any time."""

    def setUp(self) -> None:
        super().setUp()
        self.names: FakeNames = FakeNames(db0="127.0.0.1", db1="127.0.0.2", db2="127.0.0.3")
        self.addresses = {i: (f"db{i}", port) for i, (_, port) in self.addresses.items()}
        self.patch(names, "TICK_SECONDS", 0.02)
        self.patch(names, "SEARCH_SECONDS", 0.05)
        self.patch(names, "DOUBT_SECONDS", 0.05)
        self.patch(udp, "REOPEN_SECONDS", 0.05)
        self.patch(tcp, "REOPEN_SECONDS", 0.05)

    async def test_missing_name_of_one_peer_keeps_no_server_down(self) -> None:
        """Two of three servers start and talk although the name of the third has no address; it is found when the name
        has one."""
        del self.names.hosts["db2"]
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        self.assertEqual(a[0].counters.addresses[2], None)
        self.assertGreater(a[0].counters.send_errors + a[0].counters.streams.dropped, 0)
        self.names.hosts["db2"] = "127.0.0.3"
        await self.exchange(a, b, self.start(2))
        self.assertEqual(a[0].counters.addresses[2], f"127.0.0.3:{self.addresses[2][1]}")

    async def test_server_back_at_a_new_address_is_found(self) -> None:
        """A server that comes back at a new address is found without a restart of others, and its frames count, without
        a secret."""
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        await b[0].stop()
        self.names.hosts["db1"] = "127.0.0.7"
        await self.exchange(a, self.start(1))
        self.assertEqual(a[0].counters.addresses[1], f"127.0.0.7:{self.addresses[1][1]}")

    async def test_without_a_secret_the_new_address_counts_only_when_the_name_has_it(self) -> None:
        """Without a secret the new address of a peer counts only when its name has it: until then frames are refused,
        and nothing is sent."""
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        await b[0].stop()
        others = self.names
        self.names = FakeNames(**{**others.hosts, "db1": "127.0.0.7"})
        moved = self.start(1)
        await until(lambda: a[0].counters.refused, lambda: moved[0].send([accept(sender=1)], 0))
        self.assertEqual(set(a[0].counters.refused), {"address"})
        self.assertEqual(moved[1].frames, [])
        others.hosts["db1"] = "127.0.0.7"
        await self.exchange(a, moved)

    async def test_with_a_secret_the_new_address_is_learned_from_frames(self) -> None:
        """With a secret the new address of a peer is learned from its frames, while name servers give the old one for
        hours."""
        self.secret = b"a secret"
        await self.assert_address_is_learned()

    async def assert_address_is_learned(self) -> None:
        """Require that a server that comes back at another address is reached there, though its name still has the
        former one."""
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        await b[0].stop()
        self.names = FakeNames(**{**self.names.hosts, "db1": "127.0.0.7"})
        await self.exchange(a, self.start(1))
        self.assertEqual(a[0].counters.addresses[1], f"127.0.0.7:{self.addresses[1][1]}")

    async def test_former_address_that_refuses_says_nothing_about_a_peer_at_a_learned_one(self) -> None:
        """Refusals by the former address of a peer that has moved say nothing about the peer: they cause no hint, and
        drop no frames."""
        self.secret = b"a secret"
        a, b, c = self.start(0), self.start(1), self.start(2)
        await self.exchange(a, b, c)
        await b[0].stop()
        self.names = FakeNames(**{**self.names.hosts, "db1": "127.0.0.7"})
        moved = self.start(1)
        await self.exchange(a, moved, c)
        await until(lambda: a[0].book.copies_to(1) is not None)
        before = a[0].counters.refusals
        for _ in range(5):
            await self.exchange(a, moved, c)
            await deferLater(reactor, 0.01)
        self.assertIsNotNone(a[0].book.copies_to(1))
        self.assertEqual(a[0].counters.refusals, before)

    async def test_server_follows_its_own_name(self) -> None:
        """When its machine gets another address, a running server follows its own name: it receives and sends there."""
        self.patch(names, "SCHEDULE_SECONDS", 0.1)
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        self.names.hosts["db1"] = "127.0.0.7"
        await until(lambda: b[0].counters.addresses[1] == f"127.0.0.7:{self.addresses[1][1]}")
        await self.exchange(a, b)

    async def test_own_name_that_comes_late_opens_the_port_late(self) -> None:
        """A server whose own name has no address at first, as on a machine that boots, opens its port when the name has
        one."""
        del self.names.hosts["db1"]
        a, b = self.start(0), self.start(1)
        await until(lambda: self.names.asked.count("db1") > 5)
        self.names.hosts["db1"] = "127.0.0.2"
        await self.exchange(a, b)

    async def test_own_address_that_is_not_of_this_machine_is_tried_again(self) -> None:
        """If its own name has an address that this machine does not have yet, a server tries again."""
        self.names.hosts["db1"] = "192.0.2.77"
        b = self.start(1)
        with capturedLogs() as events:
            await until(lambda: any("trying again" in str(event.get("log_format")) for event in events))
        self.assertTrue(is_free(self.addresses[1][1]))
        self.names.hosts["db1"] = "127.0.0.2"
        await self.exchange(self.start(0), b)

    async def test_port_can_be_another_than_the_one_that_others_reach(self) -> None:
        """With `listen` the port can be another than the one that others reach: the server's own name is not looked up,
        and need not have an address of this machine."""
        a = self.start(0)
        self.names.hosts["db1"] = "127.0.0.1"
        self.listen = ("0.0.0.0", self.addresses[1][1])
        await self.exchange(a, self.start(1))

    async def test_servers_find_each_other_over_ipv6(self) -> None:
        """Servers find each other over IPv6, by names with AAAA records and by an address literal."""
        self.names.hosts.update(db0="::1", db1="::1")
        self.addresses[2] = ("::1", self.addresses[2][1])
        pairs = [self.start(i) for i in sorted(self.ids)]
        await self.exchange(*pairs)
        self.assertEqual(pairs[0][0].counters.addresses[2], f"[::1]:{self.addresses[2][1]}")
        self.assertEqual([transport.counters.refused for transport, _ in pairs], [{}] * 3)

    async def test_wildcard_of_ipv6_hears_peers_of_both_kinds(self) -> None:
        """A server with `listen: "[::]:7400"` hears peers over IPv4 and IPv6, with an A and an AAAA record of its
        name."""
        self.names.hosts.update(db0="::1", db1="::1 127.0.0.1", db2="127.0.0.3")
        self.listen = ("::", self.addresses[1][1])
        middle = self.start(1)
        self.listen = None
        a, c = self.start(0), self.start(2)
        await self.exchange(a, middle)
        await self.exchange(c, middle)

    async def test_address_at_which_the_peer_does_not_listen_is_given_up(self) -> None:
        """A peer with two addresses listens at one: a server that prefers the other one gives that up."""
        self.names.hosts.update(db0="127.0.0.1", db1="127.0.0.2")
        b = self.start(1)
        self.names = FakeNames(db0="127.0.0.1", db1="127.0.0.9 127.0.0.2", db2="127.0.0.3")
        a = self.start(0)
        await until(lambda: b[1].frames, lambda: a[0].send([accept(sender=0)], 1))


class MembershipTests(TransportTestCase):
    """Servers 0 and 1 have founded the cluster; server 2 joins, and knows the addresses of all."""

    def setUp(self) -> None:
        super().setUp()
        self.everywhere = self.addresses
        self.ids = frozenset({0, 1})  # type: ignore[misc]
        self.addresses = {i: self.everywhere[i] for i in (0, 1)}
        self.a, self.b = self.start(0), self.start(1)
        self.addresses = self.everywhere
        self.c = self.start(2)

    def shown(self, server_id: int) -> str:
        return shown(*self.everywhere[server_id])

    def add(self, transport: PeerTransport) -> None:
        own = transport.membership.server_id
        members = Members((0, 1), (2,), 1, addresses={2: self.shown(2)})
        transport.enter_epoch(members, [i for i in (0, 1, 2) if i != own])

    async def arrives(self, sender: tuple[PeerTransport, object], receiver: NotingReceiver, to: int | None) -> None:
        """A message gets there."""
        transport, count = sender[0], len(receiver.frames)
        message = accept(sender=transport.membership.server_id)
        await until(lambda: len(receiver.frames) > count, lambda: transport.send([message], to))

    async def test_server_that_is_added_is_reached_and_heard(self) -> None:
        """A server that a change adds is reached at the address in the change, and is heard."""
        self.add(self.a[0])
        await self.arrives(self.a, self.c[1], None)
        await self.arrives(self.c, self.a[1], 0)

    async def test_epoch_before_the_start(self) -> None:
        """A server that starts again begins in the epoch that is on its disk."""
        self.a[0].stop()
        await until(lambda: is_free(self.everywhere[0][1]))
        self.addresses = {i: self.everywhere[i] for i in (0, 1)}
        again, receiver = self.make(0), NotingReceiver()
        self.add(again)
        again.start(receiver, b"disk-000", 9, lambda: 0)
        self.addCleanup(again.stop)
        await self.arrives((again, receiver), self.c[1], None)
        await self.arrives(self.c, receiver, 0)

    async def test_server_that_was_removed_is_answered_and_gets_nothing_else(self) -> None:
        """A removed server gets messages that are for it alone, and none of those to all."""
        self.add(self.a[0])
        await self.arrives(self.a, self.c[1], None)
        self.a[0].enter_epoch(Members((0, 1), epoch=2, retired=(2,)), [1])
        await self.arrives(self.c, self.a[1], 0)
        await self.arrives(self.a, self.c[1], 2)
        await deferLater(reactor, 0.1)
        count = len(self.c[1].frames)
        await self.arrives(self.a, self.b[1], None)
        self.assertEqual(len(self.c[1].frames), count)

    async def test_server_that_moves_is_found(self) -> None:
        """A server that a change moves is found at its new address, and the log says that the one in the configuration
        counts no more."""
        await self.arrives(self.a, self.b[1], 1)
        self.b[0].stop()
        [port] = free_ports(1)
        self.addresses = {**self.everywhere, 1: (HOST, port)}
        moved = self.start(1)
        members = Members((0, 1), epoch=1, addresses={1: shown(HOST, port)})
        with capturedLogs() as logged:
            self.a[0].enter_epoch(members, [1])
            self.a[0].enter_epoch(evolve(members, epoch=2), [1])
        told = [event for event in logged if "the cluster has moved it" in event["log_format"]]
        self.assertEqual([event["address"] for event in told], [shown(HOST, port)])
        await self.arrives(self.a, moved[1], 1)


class StartAndStopTests(TransportTestCase):
    def test_port_in_use_is_one_clear_line(self) -> None:
        """A port in use is refused with one line that has the address."""
        self.start(0)
        error = self.assertRaises(CannotListenError, self.make(0).start, NotingReceiver(), b"disk-000", 1, lambda: 0)
        self.assertIn(f"{HOST}:{self.addresses[0][1]}: Address already in use", str(error))
        self.assertNotIn("\n", str(error))

    async def test_port_is_free_after_stop(self) -> None:
        """After stop the port is free at once, and the stopped transport sends nothing, without an error."""
        first, _ = self.start(0)
        stopped = first.stop()
        assert isinstance(stopped, Deferred)
        await stopped
        first.send([accept(sender=0)], None)
        self.assertIsNone(first.stop())
        second, _ = self.start(0)
        _, receiver = self.start(1)
        await until(lambda: receiver.frames, lambda: second.send([accept(sender=0)], 1))
        self.assertEqual(first.counters.frames_out, 0)
