"""The rights of clients: whose token is right, how long a refusal takes, and what a changed token file does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Refused
from pfsb.frontends import rights
from pfsb.frontends.rights import (
    CHECKED_AT_ONCE,
    DELAY_SECONDS_MAX,
    FIRST_DELAY_SECONDS,
    FORGET_SECONDS,
    HELD_BACK_SECONDS_MAX,
    WAITING_OF_ADDRESS_MAX,
    ClientRights,
    ServerRights,
    is_near,
)
from pfsb.support.rights import Right
from pfsb.support.tokens import make_token
from tests.frontends.tokens import TOKENS, WRONG, TokenFile


def peer(address: Any) -> Any:
    return SimpleNamespace(getPeer=lambda: address)


class NearTests(SynchronousTestCase):
    def test_clients_on_this_machine(self) -> None:
        """Clients at 127.0.0.0/8, at ::1, at the mapped form of such an address, and at Unix sockets are on this
        machine."""
        for host in ("127.0.0.1", "127.8.0.1"):
            self.assertTrue(is_near(peer(IPv4Address("TCP", host, 1))), host)
        for host in ("::1", "::ffff:127.0.0.1"):
            self.assertTrue(is_near(peer(IPv6Address("TCP", host, 1))), host)
        self.assertTrue(is_near(peer(UNIXAddress(b"/run/pfsb"))))
        self.assertTrue(is_near(peer(UNIXAddress(None))))

    def test_clients_elsewhere(self) -> None:
        """Clients of the same network, and those without an address, do not count as being on this machine."""
        for host in ("10.0.0.1", "192.168.1.1", "0.0.0.0", "1.127.0.0"):
            self.assertFalse(is_near(peer(IPv4Address("TCP", host, 1))), host)
        for host in ("fe80::1%eth0", "::", "::2", "::ffff:10.0.0.1", "2001:db8::1"):
            self.assertFalse(is_near(peer(IPv6Address("TCP", host, 1))), host)
        self.assertFalse(is_near(peer(None)))
        self.assertFalse(is_near(peer(SimpleNamespace(host=None))))


class RightsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.file = TokenFile()
        self.checks: list[tuple[Any, Deferred[bool]]] = []
        self.rights = ServerRights(self.clock, self.file.read, self.run_later)
        self.lost: list[str] = []

    def run_later(self, check: Any) -> Deferred[bool]:
        """Stands for a thread: the check is made when the test says so."""
        made: Deferred[bool] = Deferred()
        self.checks.append((check, made))
        return made

    def make_checks(self) -> None:
        while self.checks:
            check, made = self.checks.pop(0)
            made.callback(check())

    def client(self, address: str = "10.0.0.1", own: ServerRights | None = None) -> ClientRights:
        transport = peer(IPv4Address("TCP", address, 1))
        return (own or self.rights).of_client(transport, address, "say it", self.lost.append)

    def show(self, token: str, client: ClientRights | None = None) -> list[Refused | None]:
        """The answers to a token that a client shows; those that come later are added to the list."""
        answers: list[Refused | None] = []
        (client or self.client()).show(token, answers.append)
        return answers


class CheckTests(RightsTestCase):
    def test_right_token_gives_the_rights_of_its_role(self) -> None:
        for role, token in TOKENS.items():
            client = self.client()
            self.assertIs(client.level, Right.NONE)
            answers = self.show(token, client)
            self.assertEqual(answers, [])
            self.make_checks()
            self.assertEqual(answers, [None])
            self.assertEqual(client.level.word, role)

    def test_token_is_checked_once(self) -> None:
        """After the first check of a token, later requests with it, as each of HTTP has one, cost one quick hash."""
        self.show(TOKENS["read"])
        self.make_checks()
        self.assertEqual(self.show(TOKENS["read"]), [None])
        self.assertEqual(self.checks, [])

    def test_clients_with_one_token_wait_for_one_check(self) -> None:
        answers = [self.show(TOKENS["read"]) for _ in range(100)]
        self.assertEqual(len(self.checks), 1)
        self.make_checks()
        self.assertEqual(answers, 100 * [[None]])

    def test_few_checks_run_at_once(self) -> None:
        """Few checks of tokens run at once, since each takes 16 MiB."""
        self.file.tokens = {}
        made = [make_token(f"n{number}", Right.READ, 2) for number in range(2 * CHECKED_AT_ONCE)]
        self.file.tokens = {known.name: known for _, known in made}
        self.rights.read_again()
        answers = [self.show(token) for token, _ in made]
        self.assertEqual(len(self.checks), CHECKED_AT_ONCE)
        self.make_checks()
        self.assertEqual(answers, len(made) * [[None]])

    def test_one_address_does_not_fill_the_queue(self) -> None:
        """One address does not fill the queue of checks: a thief of the token file can make tokens that fit the quick
        hashes."""
        made = [make_token(f"n{number}", Right.READ, 2) for number in range(WAITING_OF_ADDRESS_MAX + 2)]
        self.file.tokens = {known.name: known for _, known in made}
        self.rights.read_again()
        answers = [self.show(token) for token, _ in made[:-1]]
        self.assertEqual([answer[0].code for answer in answers if answer and answer[0]], ["BUSY"])
        elsewhere = self.show(made[-1][0], self.client("10.0.0.2"))
        self.assertEqual(elsewhere, [])
        self.make_checks()
        self.assertEqual(elsewhere, [None])

    def test_addresses_take_turns(self) -> None:
        """A client whose address has one token waits for a few checks of another address, not for all of them."""
        made = [make_token(f"n{number}", Right.READ, 2) for number in range(WAITING_OF_ADDRESS_MAX + 1)]
        self.file.tokens = {known.name: known for _, known in made}
        self.rights.read_again()
        for token, _ in made[:-1]:
            self.show(token)
        elsewhere = self.show(made[-1][0], self.client("10.0.0.2"))
        for _ in range(CHECKED_AT_ONCE + 1):
            check, result = self.checks.pop(0)
            result.callback(check())
        self.assertEqual(elsewhere, [])
        check, result = self.checks.pop(0)
        result.callback(check())
        self.assertEqual(elsewhere, [None])

    def test_many_addresses_do_not_fill_the_queue(self) -> None:
        """When the queue of checks is full, a token from an address that has none in it may be checked all the same."""
        self.patch(rights, "WAITING_MAX", 4)
        made = [make_token(f"n{number}", Right.READ, 2) for number in range(7)]
        self.file.tokens = {known.name: known for _, known in made}
        self.rights.read_again()
        answers = [self.show(token, self.client(f"10.0.0.{n % 4}")) for n, (token, _) in enumerate(made[:5])]
        self.assertEqual([answer[0].code for answer in answers if answer and answer[0]], ["BUSY"])
        elsewhere = self.show(made[5][0], self.client("10.0.0.9"))
        self.make_checks()
        self.assertEqual(elsewhere, [None])

    def test_wrong_tokens_cost_no_check(self) -> None:
        """No check is made for a token of an unknown name, for a text that is no token, and for almost all wrong
        tokens."""
        for token in (WRONG, "nobody.x", "the-read", "", "\u20ac.\ud800"):
            answers = self.show(token)
            self.assertEqual((self.checks, answers), ([], []))
            self.clock.advance(HELD_BACK_SECONDS_MAX)
            assert answers[0] is not None
            self.assertEqual((answers[0].code, answers[0].fate), ("BADTOKEN", "none"))

    def test_token_that_fits_the_quick_hash_and_is_wrong(self) -> None:
        known = self.file.tokens["the-read"]
        self.file.tokens["the-read"] = evolve(known, hash=bytes(32))
        self.rights.read_again()
        answers = self.show(TOKENS["read"])
        self.make_checks()
        self.clock.advance(1)
        assert answers[0] is not None
        self.assertEqual(answers[0].code, "BADTOKEN")

    def test_failed_check_is_logged_and_refused(self) -> None:
        """If a check fails, as without memory for it, the token is refused, and the failure is logged."""
        answers = self.show(TOKENS["read"])
        self.checks.pop()[1].errback(MemoryError())
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.clock.advance(1)
        assert answers[0] is not None
        self.assertEqual(answers[0].code, "BADTOKEN")

    def test_token_that_is_revoked_while_it_is_checked(self) -> None:
        client = self.client()
        answers = self.show(TOKENS["read"], client)
        del self.file.tokens["the-read"]
        self.rights.read_again()
        self.make_checks()
        self.clock.advance(1)
        assert answers[0] is not None
        self.assertEqual((answers[0].code, client.level), ("BADTOKEN", Right.NONE))

    def test_wrong_token_leaves_the_rights_of_the_former_one(self) -> None:
        client = self.client()
        self.show(TOKENS["write"], client)
        self.make_checks()
        self.show(WRONG, client)
        self.clock.advance(1)
        self.assertIs(client.level, Right.WRITE)


class DelayTests(RightsTestCase):
    def assertNear(self, seconds: float, expected: float) -> None:
        self.assertLess(abs(seconds - expected), 0.06)

    def times_of(self, count: int, address: str = "10.0.0.1") -> list[float]:
        """The times, from now on, at which wrong tokens that are shown at once are refused."""
        begun, times = self.clock.seconds(), list[float]()
        for _ in range(count):
            self.client(address).show(WRONG, lambda _: times.append(self.clock.seconds() - begun))
        for _ in range(250):
            self.clock.advance(0.05)
        return times

    def test_refusals_to_one_address_come_later_and_later(self) -> None:
        first, second, third, *_ = times = self.times_of(5)
        self.assertNear(first, FIRST_DELAY_SECONDS)
        self.assertNear(second - first, 2 * FIRST_DELAY_SECONDS)
        self.assertNear(third - second, 4 * FIRST_DELAY_SECONDS)
        self.assertNear(times[-1] - times[-2], DELAY_SECONDS_MAX)

    def test_no_refusal_is_held_back_for_ever(self) -> None:
        self.assertLessEqual(max(self.times_of(100)), HELD_BACK_SECONDS_MAX + 0.06)

    def test_other_addresses_do_not_wait(self) -> None:
        self.times_of(50)
        self.assertNear(self.times_of(1, "10.0.0.2")[0], FIRST_DELAY_SECONDS)

    def test_right_tokens_of_the_same_address_do_not_wait(self) -> None:
        for _ in range(1_000):
            self.show(WRONG)
        answers = self.show(TOKENS["read"])
        self.make_checks()
        self.assertEqual(answers, [None])

    def test_failures_are_forgotten(self) -> None:
        self.times_of(50)
        self.clock.advance(FORGET_SECONDS)
        self.assertNear(self.times_of(1)[0], FIRST_DELAY_SECONDS)

    def test_log_tells_of_them_without_the_tokens_and_seldom(self) -> None:
        with capturedLogs() as events:
            for _ in range(1_000):
                self.show(WRONG)
            self.show("hunter2")
        texts = [event["log_format"].format(**event) for event in events]
        self.assertEqual(texts, ["1 wrong tokens were shown, the last one by 10.0.0.1 under the name the-read"])


class TokenFileTests(RightsTestCase):
    def connected(self, role: str) -> ClientRights:
        client = self.client()
        self.show(TOKENS[role], client)
        self.make_checks()
        return client

    def test_revoked_token_takes_the_rights_of_open_connections(self) -> None:
        client, other = self.connected("read"), self.connected("write")
        del self.file.tokens["the-read"]
        self.rights.read_again()
        self.assertIs(client.level, Right.NONE)
        self.assertIs(other.level, Right.WRITE)
        self.assertEqual(self.lost, ["the token the-read, which this connection has shown, is not valid any more"])
        answers = self.show(TOKENS["read"])
        self.clock.advance(1)
        assert answers[0] is not None
        self.assertEqual(answers[0].code, "BADTOKEN")

    def test_another_token_under_the_name(self) -> None:
        """When the token file has another token under a name, connections with the former one lose their rights, as if
        it was removed."""
        client = self.connected("read")
        self.file.tokens["the-read"] = make_token("the-read", Right.READ, 2)[1]
        self.rights.read_again()
        self.assertIs(client.level, Right.NONE)
        self.assertEqual(len(self.lost), 1)

    def test_lower_role_ends_connections_and_a_higher_one_counts_at_once(self) -> None:
        """If a token gets a lower role, its connections end, since a session that was opened with the right to write
        may hold locks; a higher role counts at once."""
        lowered, raised = self.connected("write"), self.connected("read")
        for name, right in (("the-write", Right.READ), ("the-read", Right.ADMIN)):
            self.file.tokens[name] = evolve(self.file.tokens[name], right=right)
        self.rights.read_again()
        self.assertEqual((lowered.level, raised.level), (Right.NONE, Right.ADMIN))
        self.assertEqual(len(self.lost), 1)
        self.assertIn("lower role", self.lost[0])
        self.assertEqual(self.connected("write").level, Right.READ)

    def test_broken_file_changes_nothing_and_is_said_once(self) -> None:
        client = self.connected("read")
        self.file.error = ValueError("four.tokens: line 3 is wrong")
        with capturedLogs() as events:
            self.rights.read_again()
        self.assertEqual(
            [event["log_format"].format(**event) for event in events],
            ["four.tokens: line 3 is wrong; the tokens that were read before stay in use"],
        )
        self.assertEqual(events[0]["log_level"].name, "error")
        self.assertIs(client.level, Right.READ)
        self.assertEqual(self.show(TOKENS["read"]), [None])

    def test_connection_that_has_ended_is_forgotten(self) -> None:
        client = self.connected("read")
        client.end()
        del self.file.tokens["the-read"]
        self.rights.read_again()
        self.assertEqual(self.lost, [])

    def test_connection_that_ends_while_its_token_is_checked(self) -> None:
        client = self.client()
        self.show(TOKENS["read"], client)
        client.end()
        self.make_checks()
        self.assertIs(client.level, Right.NONE)
        del self.file.tokens["the-read"]
        self.rights.read_again()
        self.assertEqual(self.lost, [])

    def test_log_names_tokens_and_roles_and_no_secret(self) -> None:
        with capturedLogs() as events:
            self.rights.read_again()
        text = events[0]["log_format"].format(**events[0])
        self.assertIn("3 (the-read: read, the-write: write, the-admin: admin)", text)
        for token in TOKENS.values():
            self.assertNotIn(token.partition(".")[2], text)


class WithoutTokenFileTests(RightsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.rights = ServerRights(self.clock, lambda: None)

    def test_who_may_do_what(self) -> None:
        """Without a token file all clients may read and write, and those on this machine may administer."""
        self.assertIs(self.client("127.0.0.1").level, Right.ADMIN)
        self.assertIs(self.client("10.0.0.1").level, Right.WRITE)

    def test_text_of_the_refusal_says_how_a_token_file_is_made(self) -> None:
        """Without a token file, the refusal of an administrator elsewhere says how to make one: a script that
        administers from elsewhere stops working with this version."""
        error = self.client().refusal(Right.ADMIN, "SNAPSHOT")
        self.assertEqual(error.code, "DENIED")
        for text in ("SNAPSHOT", "loopback", "10.0.0.1", "pfsb token FILE NAME --role admin", "token_file"):
            self.assertIn(text, str(error))

    def test_token_is_taken_and_gives_nothing(self) -> None:
        """Without a token file, a token is accepted and gives no right, so that clients can be given their tokens
        before the servers have the file."""
        client = self.client()
        self.assertEqual(self.show(TOKENS["admin"], client), [None])
        self.assertIs(client.level, Right.WRITE)
        self.rights.read_again()


class PlainTextTests(RightsTestCase):
    def warnings(self, host: str, **more: object) -> list[str]:
        transport = SimpleNamespace(getPeer=lambda: IPv4Address("TCP", host, 1), **more)
        with capturedLogs() as events:
            for _ in range(2):
                client = self.rights.of_client(transport, host, "say it", self.lost.append)
                client.show(TOKENS["read"], lambda _: None)
                self.make_checks()
        return [event["log_format"].format(**event) for event in events]

    def test_token_over_the_network_without_tls_is_warned_of_once(self) -> None:
        (warning,) = self.warnings("10.0.0.1")
        self.assertIn("INSECURE: a token came from 10.0.0.1 without TLS", warning)
        self.assertEqual(self.warnings("10.0.0.2"), [])

    def test_loopback_and_tls_are_not_warned_of(self) -> None:
        self.assertEqual(self.warnings("127.0.0.1"), [])
        self.assertEqual(self.warnings("10.0.0.1", getPeerCertificate=lambda: None), [])
