"""Rights in the line protocol: AUTH, what is behind it, and connections whose token is revoked."""

from __future__ import annotations

from twisted.internet.task import Clock

from pfsb.frontends.line.protocol import LineFactory, LineProtocol
from pfsb.support.rights import Right
from tests.frontends.fake_server import FakeServer, fake_config
from tests.frontends.line.test_protocol import LineTestCase, Transport
from tests.frontends.tokens import TOKENS, WRONG, TokenFile, with_tokens


class TokenTestCase(LineTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.file = TokenFile()
        self.server = FakeServer(fake_config(self.limits))
        self.local_clients = self.server.local_clients
        self.shared = with_tokens(self.server, self.clock, self.file)
        self.factory = LineFactory(self.server, self.clock, self.shared)  # type: ignore[arg-type]
        self.protocol, self.transport = self.connect()

    def revoke(self, role: str) -> None:
        del self.file.tokens[f"the-{role}"]
        self.shared.rights.read_again()


class AuthTests(TokenTestCase):
    def test_reply_names_token_and_role(self) -> None:
        self.assertEqual(self.reply(f"AUTH {TOKENS['write']}"), 'OK name="the-write" role=write')
        self.assertEqual(self.reply("PUT colour blue"), "OK revision=1")

    def test_numbered_auth_gets_its_number(self) -> None:
        self.assertEqual(self.reply(f"#7 AUTH {TOKENS['read']}"), '#7 OK name="the-read" role=read')

    def test_requests_behind_auth_wait_for_its_answer(self) -> None:
        """Requests that arrive together with AUTH wait until it is answered, plain lines included."""
        said = self.ask(f"AUTH {TOKENS['write']}\nPUT a 1\nPUT b 2\nGET a")
        self.assertEqual(
            said, ['OK name="the-write" role=write', "OK revision=1", "OK revision=2", 'OK value="1" revision=1']
        )

    def test_requests_in_front_of_auth_have_no_rights_of_it(self) -> None:
        said = self.ask(f"PUT a 1\nAUTH {TOKENS['write']}\nPUT a 1")
        self.assertTrue(
            said[0].startswith("ERR NOAUTH fate=none PUT needs a token with the right write: show one by AUTH")
        )
        self.assertEqual(said[1:], ['OK name="the-write" role=write', "OK revision=1"])

    def test_wrong_token_is_refused_late_and_the_requests_behind_it_too(self) -> None:
        """A wrong token is refused after a delay, and so are the requests behind it; the replies do not repeat the
        token."""
        self.assertEqual(self.ask(f"AUTH {WRONG}\nPUT a 1"), [])
        self.clock.advance(1)
        first, second = self.said()
        self.assertTrue(first.startswith("ERR BADTOKEN fate=none this token is wrong"), first)
        self.assertTrue(second.startswith("ERR NOAUTH fate=none"), second)
        self.assertNotIn(WRONG.partition(".")[2], first + second)

    def test_auth_with_more_or_less_than_a_token(self) -> None:
        for line in ("AUTH", f"AUTH the-write {TOKENS['write']}"):
            reply = self.reply(line)
            self.assertTrue(reply.startswith("ERR BADREQUEST fate=none AUTH takes one token"), reply)
            self.assertNotIn(TOKENS["write"], reply)

    def test_second_token_replaces_the_first(self) -> None:
        self.reply(f"AUTH {TOKENS['admin']}")
        self.reply(f"AUTH {TOKENS['read']}")
        self.assertEqual(
            self.reply("PUT a 1"), "ERR DENIED fate=none PUT needs the right write, and the token the-read has read"
        )
        self.assertEqual(self.local_clients.cluster.executed, [])

    def test_client_that_hangs_up_while_its_token_is_checked(self) -> None:
        self.ask(f"AUTH {WRONG}")
        self.protocol.connectionLost()
        self.clock.advance(20)

    def test_session_belongs_to_whoever_may_write_and_knows_its_name(self) -> None:
        """A session can be resumed with any token that permits to write, and with no other."""
        self.ask(f"AUTH {TOKENS['write']}\nHELLO alice\nTRYLOCK door")
        for role, right in (("read", False), ("admin", True)):
            protocol, _ = self.connect()
            said = self.ask(f"AUTH {TOKENS[role]}\nHELLO alice", protocol)
            self.assertEqual(said[-1].startswith('OK client="alice"'), right, said)


class RevocationTests(TokenTestCase):
    def authenticated(self, role: str) -> tuple[LineProtocol, Transport]:
        protocol, transport = self.connect()
        self.ask(f"AUTH {TOKENS[role]}", protocol)
        return protocol, transport

    def test_listener_hears_nothing_more(self) -> None:
        """A client that follows the chat is told when its token is revoked, and hears nothing more."""
        protocol, transport = self.authenticated("read")
        self.ask("LISTEN", protocol)
        self.revoke("read")
        self.assertEqual(
            self.said(transport),
            ['* DROPPED text="the token the-read, which this connection has shown, is not valid any more"'],
        )
        self.assertTrue(transport.disconnecting)
        speaker, _ = self.authenticated("write")
        self.ask("SAY hello", speaker)
        self.assertEqual(self.said(transport), [])

    def test_nothing_runs_between_the_revocation_and_the_end(self) -> None:
        """After a token was revoked, lines of its connection that have arrived, or still arrive, do not run."""
        protocol, transport = self.authenticated("write")
        self.revoke("write")
        self.said(transport)
        self.assertEqual(self.ask("PUT a 1\nSAY hello", protocol), [])
        self.assertEqual(self.local_clients.cluster.executed, [])

    def test_session_of_a_client_that_waits_for_a_lock_is_let_go(self) -> None:
        """When the token of a client that waits for a lock is revoked, its connection ends, and its session lives on
        for its ttl, as after every hang-up."""
        holder, _ = self.authenticated("admin")
        self.ask("HELLO holder\nLOCK door", holder)
        waiter, transport = self.authenticated("write")
        self.ask("HELLO waiter\nLOCK door", waiter)
        self.assertIsNotNone(self.local_clients.cluster.sessions["waiter"].owner)
        self.revoke("write")
        self.assertTrue(transport.disconnecting)
        waiter.connectionLost()
        self.assertIsNone(self.local_clients.cluster.sessions["waiter"].owner)
        self.assertIsNotNone(self.local_clients.cluster.sessions["holder"].owner)

    def test_connections_without_this_token_go_on(self) -> None:
        protocol, transport = self.authenticated("admin")
        self.revoke("write")
        self.assertFalse(transport.disconnecting or self.transport.disconnecting)
        self.assertEqual(self.ask("PUT a 1", protocol), ["OK revision=1"])

    def test_ended_connections_are_not_held(self) -> None:
        for _ in range(10):
            protocol, _ = self.authenticated("read")
            protocol.connectionLost()
        self.assertEqual(protocol.rights.level, Right.NONE)
        self.revoke("read")


class WithoutTokenFileTests(LineTestCase):
    def elsewhere(self) -> LineProtocol:
        protocol, transport = self.factory.buildProtocol(None), Transport("10.0.0.1")
        protocol.makeConnection(transport)
        transport.clear()
        return protocol

    def test_loopback_administers_as_before(self) -> None:
        self.assertEqual(self.reply("FAULT HEAL"), "OK")

    def test_other_machines_read_and_write_as_before_and_do_not_administer(self) -> None:
        protocol = self.elsewhere()
        self.assertEqual(self.ask("PUT a 1\nGET a", protocol), ["OK revision=1", 'OK value="1" revision=1'])
        for line in ("FAULT HEAL", "SNAPSHOT", "SETTINGS SET window=8"):
            (reply,) = self.ask(line, protocol)
            self.assertTrue(reply.startswith("ERR DENIED fate=none"), reply)
            self.assertIn("`pfsb token FILE NAME --role admin` makes a token file", reply)
        self.assertEqual(self.ask("SETTINGS", protocol)[-1].split(" ")[0], "OK")

    def test_auth_is_answered_and_gives_nothing(self) -> None:
        self.assertEqual(self.ask(f"AUTH {TOKENS['admin']}", self.elsewhere()), ["OK role=write"])
        self.assertEqual(self.reply("AUTH any.thing"), "OK role=admin")
