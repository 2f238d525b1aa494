"""Rights in the Redis protocol: AUTH and HELLO with AUTH, with the errors that clients of Redis know."""

from __future__ import annotations

from twisted.internet.task import Clock

from pfsb.frontends.line.protocol import LineFactory
from pfsb.frontends.resp.protocol import RespFactory
from tests.frontends.fake_server import FakeServer, fake_config
from tests.frontends.resp.test_parser import encoded
from tests.frontends.resp.test_protocol import RespTestCase
from tests.frontends.tokens import TOKENS, WRONG, TokenFile, with_tokens


class TokenTests(RespTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.file = TokenFile()
        self.server = FakeServer(fake_config(self.limits))
        self.local_clients = self.server.local_clients
        self.shared = with_tokens(self.server, self.clock, self.file)
        lines = LineFactory(self.server, self.clock, self.shared)  # type: ignore[arg-type]
        self.factory = RespFactory(self.server, self.clock, lines.verbs, lines)  # type: ignore[arg-type]
        self.protocol, self.transport = self.connect()

    def late(self, *words: str) -> bytes:
        """The reply to a command that is held back."""
        self.assertEqual(self.ask(*words), b"")
        self.clock.advance(1)
        return self.said()

    def test_token_with_and_without_a_user(self) -> None:
        """The user is `default`, as libraries send it, or the name in the token."""
        for words in ((), ("default",), ("the-write",)):
            self.protocol, self.transport = self.connect()
            self.assertEqual(self.ask("AUTH", *words, TOKENS["write"]), b"+OK\r\n")
            self.assertEqual(self.ask("SET", "a", "1"), b"+OK\r\n")

    def test_wrong_tokens_and_users(self) -> None:
        for words in ((WRONG,), ("default", WRONG), ("alice", TOKENS["write"]), ("hunter2",)):
            said = self.late("AUTH", *words)
            self.assertError(said, "-WRONGPASS fate=none")
            self.assertNotIn(words[-1].encode(), said)
        self.assertError(self.ask("AUTH", "a", "b", "c"), "-ERR fate=none AUTH takes a token")
        self.assertError(self.ask("AUTH"), "wrong number of arguments for 'auth' command")

    def test_hello_with_auth(self) -> None:
        """The reply to HELLO with AUTH is already in the new version of the protocol."""
        said = self.ask("HELLO", "3", "AUTH", "default", TOKENS["read"], "SETNAME", "me")
        self.assertTrue(said.startswith(b"%7\r\n"), said)
        self.assertEqual(self.ask("CLIENT", "GETNAME"), b"$2\r\nme\r\n")
        self.assertError(self.ask("SET", "a", "1"), "-NOPERM fate=none PUT needs the right write")

    def test_hello_with_a_wrong_token_changes_nothing(self) -> None:
        self.assertError(self.late("HELLO", "3", "AUTH", "default", WRONG), "-WRONGPASS")
        self.assertEqual(self.ask("AUTH", TOKENS["read"]), b"+OK\r\n")
        self.assertTrue(self.ask("HELLO").startswith(b"*14\r\n"))

    def test_hello_without_auth(self) -> None:
        for words in (("HELLO",), ("HELLO", "3"), ("HELLO", "3", "SETNAME", "me")):
            self.assertError(self.ask(*words), "-NOAUTH fate=none HELLO needs a token")
        for words in (("HELLO", "3", "AUTH", "default"), ("HELLO", "3", "AUTH"), ("HELLO", "3", TOKENS["read"])):
            said = self.ask(*words)
            self.assertError(said, "-ERR fate=none HELLO takes 2 or 3, AUTH user token")
            self.assertNotIn(TOKENS["read"].encode(), said)

    def test_commands_behind_auth_wait_for_it(self) -> None:
        """Commands of a pipeline behind AUTH wait for its answer."""
        pipeline = encoded(b"AUTH", TOKENS["write"].encode()) + 3 * encoded(b"INCR", b"a")
        self.assertEqual(self.send(pipeline), b"+OK\r\n:1\r\n:2\r\n:3\r\n")

    def test_pipeline_in_front_of_auth(self) -> None:
        said = self.send(3 * encoded(b"INCR", b"a") + encoded(b"AUTH", TOKENS["write"].encode()))
        self.assertEqual(said.count(b"-NOAUTH fate=none"), 3)
        self.assertTrue(said.endswith(b"+OK\r\n"))
        self.assertEqual(self.local_clients.cluster.executed, [])

    def test_transaction_in_front_of_auth(self) -> None:
        """A transaction in front of AUTH is refused as a whole, and later commands do not wait for an EXEC."""
        said = self.send(encoded(b"MULTI") + encoded(b"INCR", b"a") + encoded(b"EXEC"))
        self.assertEqual(said.count(b"-NOAUTH"), 3)
        self.ask("AUTH", TOKENS["write"])
        self.assertEqual(self.ask("INCR", "a"), b":1\r\n")

    def test_auth_within_a_refused_transaction_is_refused(self) -> None:
        self.ask("AUTH", TOKENS["read"])
        self.ask("MULTI")
        self.assertError(self.ask("AUTH", TOKENS["write"]), "-EXECABORT")
        self.ask("DISCARD")
        self.assertError(self.ask("SET", "a", "1"), "-NOPERM")

    def test_unknown_command_says_nothing_before_auth(self) -> None:
        self.assertError(self.ask("NONSENSE"), "-NOAUTH")
        self.assertEqual(self.ask("QUIT"), b"+OK\r\n")

    def test_revoked_token_ends_the_connection(self) -> None:
        self.ask("AUTH", TOKENS["read"])
        self.file.tokens.pop("the-read")
        self.shared.rights.read_again()
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.ask("GET", "a"), b"")


class WithoutTokenFileTests(RespTestCase):
    def test_passwords_are_refused_as_before(self) -> None:
        """Without a token file, AUTH with a password is refused, as by Redis without one: a client must not believe
        that its password counts."""
        self.assertError(self.ask("AUTH", "secret"), "-ERR fate=none AUTH shows a token", "no passwords here")
        self.assertError(self.ask("HELLO", "3", "AUTH", "default", "secret"), "no passwords here")
        self.assertEqual(self.ask("SET", "a", "1"), b"+OK\r\n")
