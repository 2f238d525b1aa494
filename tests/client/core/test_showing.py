"""AUTH: a client shows its token on each connection, and goes by the role that the servers tell."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.clerks.errors import NoRight, error_of
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.command import Command
from pfsb.client.core.replies import refusal
from pfsb.client.servers import with_token
from tests.client.core.script import ADDRESSES, Script

TOKEN = "alice.secret"
AUTH = f"AUTH {TOKEN}"
HELLO = "HELLO x ttl=10"
REFUSED = "ERR BADTOKEN fate=none this token is wrong"


class ShowingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.core = ClientCore(with_token(ADDRESSES, TOKEN), "x", dice=Random(1))
        self.script = Script(self.core)

    def authenticate(self, role: str = "write") -> None:
        self.script.connect()
        self.script.hear(f'OK name="alice" role={role}')


class WriterTests(ShowingTestCase):
    def test_nothing_is_sent_before_the_token_is_taken(self) -> None:
        self.script.submit("PUT a 1")
        self.script.connect()
        self.assertEqual(self.script.take(), ["connect 0", AUTH])
        self.script.submit("STATUS")
        self.assertEqual(self.script.take(), [])
        self.script.hear('OK name="alice" role=write')
        self.assertEqual(self.script.take(), [HELLO])

    def test_command_of_the_callback_for_connections_waits_too(self) -> None:
        """A command that a program sends as soon as there is a connection, as a terminal sends HELP, waits until the
        token is taken."""
        self.core.on_server = lambda _: self.script.submit("HELP")
        self.script.submit("STATUS")
        self.script.take()
        self.authenticate()
        self.assertEqual(self.script.take(), [AUTH, "STATUS", "HELP"])

    def test_each_connection_is_shown_the_token_anew(self) -> None:
        """Each new connection is shown the token first, and then gets HELLO and the commands without an answer."""
        command = self.script.submit("PUT a 1")
        self.authenticate()
        self.script.hear('OK client="x" epoch=1 last=0 resumed=no opened=1')
        self.script.hang_up()
        self.script.take()
        self.script.connect()
        self.assertEqual(self.script.take(), [AUTH])
        self.script.hear('OK name="alice" role=write')
        self.assertEqual(self.script.take(), [HELLO])
        self.script.hear('OK client="x" epoch=2 last=0 resumed=yes opened=1')
        self.assertEqual(self.script.take(), [f"#{command.number} PUT a 1"])

    def test_listening_goes_on_behind_the_token(self) -> None:
        self.script.submit("LISTEN from=1")
        self.authenticate()
        self.script.hear("OK from=1")
        self.script.hang_up()
        self.script.connect()
        self.script.take()
        self.script.hear('OK name="alice" role=write')
        self.assertEqual(self.script.take(), ["LISTEN from=1"])

    def test_server_that_does_not_answer_auth_is_left(self) -> None:
        self.script.submit("PUT a 1")
        self.script.connect()
        self.script.take()
        self.script.pass_time(2.1)
        self.assertEqual(self.script.take(), ["hang up", "connect 1"])

    def test_server_of_an_earlier_version_knows_no_tokens(self) -> None:
        """A client with a token goes on at a server of an earlier version, which knows no tokens, as in a cluster whose
        servers are replaced one by one."""
        self.script.submit("PUT a 1")
        self.script.connect()
        self.script.hear("ERR UNKNOWN fate=none there is no command AUTH, HELP shows all")
        self.assertEqual(self.script.take()[-1], HELLO)

    def test_server_without_a_token_file(self) -> None:
        self.script.submit("PUT a 1")
        self.script.connect()
        self.script.hear("OK role=admin")
        self.assertEqual(self.script.take()[-1], HELLO)


class RefusalTests(ShowingTestCase):
    def test_other_servers_may_know_the_token(self) -> None:
        """A client whose token is refused tries the other servers: a token file is changed at one server after the
        other."""
        self.script.submit("PUT a 1")
        self.script.connect()
        self.script.hear(REFUSED)
        self.script.pass_time(0.01)
        self.assertEqual(self.script.take()[-2:], ["hang up", "connect 1"])
        self.authenticate()
        self.assertEqual(self.script.take(), [AUTH, HELLO])
        self.assertEqual(self.script.answers, [])

    def test_commands_are_refused_when_all_servers_refuse_the_token(self) -> None:
        self.script.submit("PUT a 1")
        self.script.submit("GET a")
        for _ in range(3):
            self.script.connect()
            self.script.hear(REFUSED)
            self.script.pass_time(1)
        self.assertEqual(self.script.outcomes, 2 * [("BADTOKEN", "none")])
        self.assertEqual(self.script.answers[0].text, "this token is wrong")

    def test_command_that_may_have_run_when_the_token_was_revoked(self) -> None:
        self.script.submit("PUT a 1")
        self.authenticate()
        self.script.hear('OK client="x" epoch=1 last=0 resumed=no opened=1')
        self.script.hear('* DROPPED text="the token alice is not valid any more"')
        self.script.hang_up()
        for _ in range(3):
            self.script.connect()
            self.script.hear(REFUSED)
            self.script.pass_time(1)
        self.assertEqual(self.script.outcomes, [("BADTOKEN", "unknown")])

    def test_client_without_a_token(self) -> None:
        self.script = Script(ClientCore(ADDRESSES, "x", dice=Random(1)))
        self.script.submit("PUT a 1")
        self.script.connect()
        self.script.hear("ERR NOAUTH fate=none HELLO needs a token with the right write: show one by AUTH token")
        self.assertEqual(self.script.outcomes, [("NOAUTH", "none")])

    def test_errors_of_a_clerk(self) -> None:
        for code in ("NOAUTH", "BADTOKEN", "DENIED"):
            self.assertIsInstance(error_of(refusal(code, "none", "text")), NoRight)

    def test_texts_hide_the_token(self) -> None:
        """The texts of a client's core and of its addresses, which come into logs and errors, do not show the token."""
        for text in (repr(self.core), repr(self.core.addresses), str(self.core.server)):
            self.assertNotIn("secret", text)


class ReaderTests(ShowingTestCase):
    def test_questions_need_no_session(self) -> None:
        """A client that may only read sends its questions without HELLO: no server opens a session for it."""
        for line in ("GET a", "GET a read=stale", "LOG", "SETTINGS"):
            self.script.submit(line)
        self.authenticate("read")
        self.assertEqual(self.script.take()[2:], ["GET a", "GET a read=stale", "LOG", "SETTINGS"])
        self.script.hear('OK value="1" revision=1')
        self.assertEqual(self.script.outcomes, [("OK", "")])

    def test_change_is_refused_and_questions_go_on(self) -> None:
        self.script.submit("PUT a 1")
        self.script.submit("GET a")
        self.authenticate("read")
        self.assertEqual(self.script.take()[2:], [HELLO])
        self.script.hear("ERR DENIED fate=none HELLO needs the right write, and the token alice has read")
        self.assertEqual(self.script.outcomes, [("DENIED", "none")])
        self.assertEqual(self.script.take(), ["GET a"])

    def test_sequential_reads_never_go_back(self) -> None:
        """At another server, which may be behind, a sequential read of a client without a session is sent as a
        linearizable one at first."""
        self.script.submit("GET a")
        self.authenticate("read")
        self.script.hear('OK value="1" revision=1')
        self.script.submit("GET a read=sequential")
        self.assertEqual(self.script.take()[-1], "GET a read=sequential")
        self.script.hear('OK value="1" revision=1')
        self.script.hang_up()
        self.authenticate("read")
        self.script.take()
        self.script.submit('GET "a read=sequential" read=sequential')
        self.script.submit("GET b read=sequential")
        self.assertEqual(self.script.take(), ['GET "a read=sequential" read=linearizable', "GET b read=sequential"])

    def test_raised_role_counts_without_a_new_connection(self) -> None:
        self.authenticate("read")
        command = self.script.submit("PUT a 1")
        self.script.take()
        self.script.hear('OK client="x" epoch=1 last=0 resumed=no opened=1')
        self.assertEqual(self.script.take(), [f"#{command.number} PUT a 1"])


class LineTests(SynchronousTestCase):
    def test_line_at_another_level(self) -> None:
        """A line at another read level has that level in its option; text in quotes is no option."""
        for line, other in (
            ("GET a read=sequential", "GET a read=stale"),
            ('GET "x read=sequential" READ=sequential', 'GET "x read=sequential" READ=stale'),
            ("GET a", "GET a"),
            ("GET read=sequential a", "GET read=stale a"),
        ):
            self.assertEqual(Command(line, lambda _: None).line_at("stale"), other)
