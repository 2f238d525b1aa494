from __future__ import annotations

import socket
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.support.hosts import SocketAddress, literal
from pfsb.transports.names import AddressBook

PORT = 7400


def addresses(*hosts: str) -> tuple[SocketAddress, ...]:
    found = [literal(host, PORT) for host in hosts]
    assert None not in found, hosts
    return tuple(each for each in found if each is not None)


def source(host: str) -> tuple[str, int]:
    """The address of a datagram as a socket gives it: frames come from any port."""
    return (host, 40_123)


class FakeResolver:
    """Notes each look-up, and answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[tuple[SocketAddress, ...]]]] = []

    def __call__(self, host: str, _port: int) -> Deferred[tuple[SocketAddress, ...]]:
        answer: Deferred[tuple[SocketAddress, ...]] = Deferred()
        self.asked.append((host, answer))
        return answer

    def waiting(self) -> list[str]:
        return [host for host, answer in self.asked if not answer.called]

    def answer(self, host: str, *hosts: str, place: int = 0) -> None:
        """Answer a look-up of this host that waits, the oldest one by default; without addresses it fails."""
        answer = [each for name, each in self.asked if name == host and not each.called][place]
        if hosts:
            answer.callback(addresses(*hosts))
        else:
            answer.errback(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))


class AddressBookCase(SynchronousTestCase):
    believes_frames = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = FakeResolver()
        self.changed: list[int] = []

    def book(self, *hosts: str) -> AddressBook:
        """Return a started book of server 0, with these hosts."""
        by_id = {i: (host, PORT) for i, host in enumerate(hosts)}
        book = AddressBook(self.clock, 0, by_id, self.resolver, self.changed.append, self.believes_frames)
        book.start()
        self.addCleanup(book.stop)
        return book

    def where(self, book: AddressBook, server_id: int) -> str | None:
        found = book.where(server_id)
        return None if found is None else found.host

    def pass_time(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        for _ in range(round(seconds * 10)):
            meanwhile()
            self.clock.advance(0.1)


class StartTests(AddressBookCase):
    def test_ip_addresses_are_known_at_once_and_never_looked_up(self) -> None:
        """IP addresses are known at once, and never looked up."""
        book = self.book("127.0.0.1", "::1")
        self.assertEqual([self.where(book, i) for i in (0, 1)], ["127.0.0.1", "::1"])
        self.pass_time(100)
        self.assertEqual((self.resolver.asked, self.clock.getDelayedCalls(), self.changed), ([], [], []))

    def test_each_name_is_looked_up_by_itself(self) -> None:
        """Each name is looked up by itself: one without an address keeps no other peer from being found."""
        book = self.book("127.0.0.1", "db1", "db2")
        self.assertEqual(self.resolver.waiting(), ["db1", "db2"])
        self.resolver.answer("db1")
        self.resolver.answer("db2", "192.0.2.2")
        self.assertEqual((self.where(book, 1), self.where(book, 2)), (None, "192.0.2.2"))
        self.assertEqual(self.changed, [2])

    def test_missing_name_is_looked_up_until_it_has_an_address(self) -> None:
        """A missing name is looked up until it has an address, as that of a machine that is set up later."""
        book = self.book("127.0.0.1", "db1")
        for _ in range(30):
            self.resolver.answer("db1")
            self.pass_time(3.1)
            self.assertEqual(self.resolver.waiting(), ["db1"])
        self.resolver.answer("db1", "192.0.2.1")
        self.assertEqual(self.where(book, 1), "192.0.2.1")

    def test_stopped_book_looks_up_nothing_and_hears_no_answer(self) -> None:
        """A stopped book looks up nothing, and ignores answers that come after the stop."""
        book = self.book("127.0.0.1", "db1")
        book.stop()
        self.resolver.answer("db1", "192.0.2.1")
        self.pass_time(100)
        self.assertEqual((self.where(book, 1), len(self.resolver.asked)), (None, 1))


class ScheduleTests(AddressBookCase):
    def found(self, *hosts: str) -> AddressBook:
        """Return a book whose peer has been found at these addresses."""
        book = self.book("127.0.0.1", "db1")
        self.resolver.answer("db1", *hosts)
        return book

    def test_peer_that_is_heard_is_looked_up_every_minute(self) -> None:
        """A peer that is heard is looked up every minute, since its name may have another address although the old one
        still works."""
        book = self.found("192.0.2.1")
        self.pass_time(59, lambda: book.accepts(1, source("192.0.2.1")))
        self.assertEqual(self.resolver.waiting(), [])
        self.pass_time(3, lambda: book.accepts(1, source("192.0.2.1")))
        self.assertEqual(self.resolver.waiting(), ["db1"])

    def test_silent_peer_is_looked_up_again_and_found_at_its_new_address(self) -> None:
        """A silent peer is looked up again soon, so that a server that comes back at another address is found within
        some seconds."""
        book = self.found("192.0.2.1")
        self.pass_time(3.2)
        self.resolver.answer("db1", "192.0.2.1")
        self.pass_time(3.2)
        self.resolver.answer("db1", "192.0.2.9")
        self.assertEqual((self.where(book, 1), self.changed), ("192.0.2.9", [1, 1]))
        self.assertTrue(book.accepts(1, source("192.0.2.9")))
        self.assertFalse(book.accepts(1, source("192.0.2.1")))

    def test_frame_from_an_unknown_address_has_the_name_looked_up(self) -> None:
        """A frame from an unknown address has its sender's name looked up: without a secret the frame counts only if
        the name has that address."""
        book = self.found("192.0.2.1")
        self.pass_time(1.5, lambda: book.accepts(1, source("192.0.2.1")))
        self.assertFalse(book.accepts(1, source("192.0.2.9")))
        self.assertFalse(book.accepts(1, source("192.0.2.9")))
        self.assertEqual(self.resolver.waiting(), ["db1"])
        self.resolver.answer("db1", "192.0.2.9")
        self.assertTrue(book.accepts(1, source("192.0.2.9")))

    def test_frames_from_unknown_addresses_cause_one_look_up_a_second_at_most(self) -> None:
        """Frames from unknown addresses cause at most one look-up a second, since any machine on the network can send
        them."""
        book = self.found("192.0.2.1")

        def forge() -> None:
            self.assertFalse(book.accepts(1, source("192.0.2.66")))
            if self.resolver.waiting():
                self.resolver.answer("db1", "192.0.2.1")

        self.pass_time(20, forge)
        self.assertLessEqual(len(self.resolver.asked), 21)

    def test_own_name_is_looked_up_again_while_no_peer_is_heard(self) -> None:
        """While no peer is heard, the server's own name is looked up again: the server may listen at an address that
        its name has no longer."""
        self.book("db0", "192.0.2.2")
        self.resolver.answer("db0", "192.0.2.1")
        self.pass_time(5)
        self.assertEqual(self.resolver.waiting(), ["db0"])

    def test_own_name_is_looked_up_every_minute_while_a_peer_is_heard(self) -> None:
        """While a peer is heard, the server's own name is looked up every minute only."""
        book = self.book("db0", "192.0.2.2")
        self.resolver.answer("db0", "192.0.2.1")
        self.pass_time(50, lambda: book.accepts(1, source("192.0.2.2")))
        self.assertEqual(self.resolver.waiting(), [])

    def test_failed_look_up_keeps_the_address(self) -> None:
        """A failed look-up keeps the known address: a name server that is down must not cut links that work."""
        book = self.found("192.0.2.1")
        self.pass_time(3.2)
        self.resolver.answer("db1")
        self.assertEqual((self.where(book, 1), self.changed), ("192.0.2.1", [1]))
        self.assertTrue(book.accepts(1, source("192.0.2.1")))

    def test_addresses_in_another_order_are_no_news(self) -> None:
        """Known addresses in another order are no news: name servers change the order with each answer."""
        book = self.found("192.0.2.1", "192.0.2.2")
        self.pass_time(61, lambda: book.accepts(1, source("192.0.2.1")))
        self.resolver.answer("db1", "192.0.2.2", "192.0.2.1")
        self.assertEqual((self.where(book, 1), self.changed), ("192.0.2.1", [1]))


class LateAnswerTests(AddressBookCase):
    def test_unanswered_look_up_does_not_end_looking(self) -> None:
        """While a look-up is not answered, others are begun: a name server that is down makes look-ups hang for half a
        minute, and another may answer."""
        book = self.book("127.0.0.1", "db1")
        self.pass_time(11.5)
        self.assertEqual(self.resolver.waiting(), ["db1", "db1"])
        self.resolver.answer("db1", "192.0.2.1", place=1)
        self.assertEqual(self.where(book, 1), "192.0.2.1")

    def test_look_ups_that_are_never_answered_become_rare(self) -> None:
        """Look-ups that are never answered become rare, since each of them keeps a thread."""
        self.book("127.0.0.1", "db1")
        self.pass_time(3_600)
        self.assertLess(len(self.resolver.asked), 14)

    def test_late_answer_counts(self) -> None:
        """A late answer of a look-up counts, since a resolver may be slow."""
        book = self.book("127.0.0.1", "db1")
        self.pass_time(11.5)
        self.resolver.answer("db1", "192.0.2.1")
        self.assertEqual(self.where(book, 1), "192.0.2.1")

    def test_answer_that_was_overtaken_does_not_count(self) -> None:
        """The answer of a look-up that comes after that of a later one does not count."""
        book = self.book("127.0.0.1", "db1")
        self.pass_time(11.5)
        self.resolver.answer("db1", "192.0.2.9", place=1)
        self.resolver.answer("db1", "192.0.2.1")
        self.assertEqual(self.where(book, 1), "192.0.2.9")


class SeveralAddressesTests(AddressBookCase):
    def test_frames_may_come_from_every_address_of_a_host_name(self) -> None:
        """Frames of a peer may come from every address of its host name, however the address is written, and from no
        other."""
        book = self.book("192.0.2.1", "db1")
        self.resolver.answer("db1", "2001:db8::7", "192.0.2.7")
        for host in ("2001:db8::7", "2001:DB8:0::7", "192.0.2.7", "::ffff:192.0.2.7"):
            self.assertTrue(book.accepts(1, source(host)), host)
        for host in ("2001:db8::8", "192.0.2.8", "", "nonsense"):
            self.assertFalse(book.accepts(1, source(host)), host)
        self.assertFalse(book.accepts(1, "the network"))

    def test_frames_of_a_server_at_a_wildcard_may_come_from_anywhere(self) -> None:
        """Frames of a peer that is configured with a wildcard may come from anywhere, since the address from which it
        sends is unknown."""
        book = self.book("127.0.0.1", "0.0.0.0")
        self.assertTrue(book.accepts(1, source("192.0.2.7")))

    def test_address_of_the_own_kind_is_chosen(self) -> None:
        """If a peer has IPv4 and IPv6 addresses, one of the kind at which this server listens is chosen."""
        book = self.book("192.0.2.1", "db1")
        self.resolver.answer("db1", "2001:db8::7", "192.0.2.7")
        self.assertEqual(self.where(book, 1), "192.0.2.7")

    def test_address_that_frames_come_from_is_chosen(self) -> None:
        """If a peer has several addresses, the one from which its frames come is chosen, since it listens there."""
        book = self.book("192.0.2.1", "db1")
        self.resolver.answer("db1", "192.0.2.7", "192.0.2.8")
        self.assertTrue(book.accepts(1, source("192.0.2.8")))
        self.assertEqual((self.where(book, 1), self.changed), ("192.0.2.8", [1, 1]))

    def test_addresses_of_a_silent_peer_are_tried_in_turn(self) -> None:
        """The addresses of a silent peer are tried in turn: the first may be one at which it does not listen."""
        book = self.book("192.0.2.1", "db1")
        self.resolver.answer("db1", "192.0.2.7", "192.0.2.8")
        seen = set()
        self.pass_time(6, lambda: seen.add(self.where(book, 1)))
        self.assertEqual(seen, {"192.0.2.7", "192.0.2.8"})


class LearningTests(AddressBookCase):
    believes_frames = True

    def test_authenticated_frame_shows_where_its_sender_is(self) -> None:
        """With a secret, a frame shows where its sender is, while name servers give an old address: frames go to both,
        until the name has the new one."""
        book = self.book("192.0.2.1", "db1")
        self.resolver.answer("db1", "192.0.2.7")
        self.pass_time(1.5)
        self.assertTrue(book.accepts(1, source("192.0.2.9")))
        self.assertEqual((self.where(book, 1), book.copies_to(1)), ("192.0.2.7", addresses("192.0.2.9")[0]))
        self.assertEqual(self.resolver.waiting(), ["db1"])
        self.resolver.answer("db1", "192.0.2.9")
        self.assertEqual((self.where(book, 1), book.copies_to(1)), ("192.0.2.9", None))

    def test_peer_without_any_address_is_answered_where_it_is(self) -> None:
        """A peer whose name has no address here is sent frames at the address from which its own come."""
        book = self.book("192.0.2.1", "db1")
        self.assertTrue(book.accepts(1, source("::ffff:192.0.2.9")))
        self.assertEqual((self.where(book, 1), book.copies_to(1)), (None, addresses("192.0.2.9")[0]))
        self.assertEqual(dict(book.shown()), {0: "192.0.2.1:7400", 1: "192.0.2.9:7400"})

    def test_learned_address_is_forgotten_with_the_next_frame_from_the_name(self) -> None:
        """A learned address is forgotten with the next frame from the name's address: an attacker who sends on a frame
        from elsewhere cuts no link."""
        book = self.book("192.0.2.1", "192.0.2.7")
        self.assertTrue(book.accepts(1, source("192.0.2.66")))
        self.assertEqual(book.copies_to(1), addresses("192.0.2.66")[0])
        self.assertTrue(book.accepts(1, source("192.0.2.7")))
        self.assertEqual((self.where(book, 1), book.copies_to(1)), ("192.0.2.7", None))

    def test_learned_address_is_forgotten_when_no_frame_comes_any_more(self) -> None:
        """A learned address is forgotten when no frame comes from it any more: the server is gone, and may come back
        anywhere."""
        book = self.book("192.0.2.1", "192.0.2.7")
        self.assertTrue(book.accepts(1, source("192.0.2.9")))
        self.pass_time(8)
        self.assertIsNotNone(book.copies_to(1))
        self.pass_time(4)
        self.assertIsNone(book.copies_to(1))
        self.assertTrue(book.accepts(1, source("192.0.2.9")))
        self.assertIsNotNone(book.copies_to(1))


class LoopbackTests(AddressBookCase):
    def warnings(self, *hosts: str) -> list[str]:
        warned: list[str] = []

        class Log:
            def warn(self, _format: str, text: str) -> None:
                warned.append(text)

        self.patch(AddressBook, "log", Log())
        self.book(*hosts)
        return warned

    def test_own_name_that_only_this_machine_reaches_is_said_once(self) -> None:
        """If a server's own name has only addresses of this machine, such as 127.0.1.1, a warning is logged once: other
        servers would wait for it in vain."""
        warned = self.warnings("db0", "db1", "db2")
        self.resolver.answer("db0", "127.0.1.1")
        self.assertEqual(warned, [])
        self.resolver.answer("db1", "192.0.2.1")
        self.resolver.answer("db2", "192.0.2.2")
        self.assertEqual(len(warned), 1)
        self.assertIn('server 0: the host "db0" is a loopback address', warned[0])
        self.assertIn('add listen: "0.0.0.0:7400" to servers.0', warned[0])

    def test_cluster_on_one_machine_is_fine(self) -> None:
        """If all servers of a cluster have loopback addresses, no warning is logged."""
        warned = self.warnings("localhost", "127.0.0.2", "::1")
        self.resolver.answer("localhost", "127.0.0.1")
        self.assertEqual(warned, [])

    def test_other_addresses_of_the_own_name_come_first(self) -> None:
        """Other addresses of a server's own name are preferred to loopback addresses, so that other machines reach
        it."""
        book = self.book("db0", "192.0.2.2")
        self.resolver.answer("db0", "127.0.1.1", "192.0.2.1")
        self.assertEqual(self.where(book, 0), "192.0.2.1")
