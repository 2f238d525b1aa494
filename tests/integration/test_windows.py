"""A person at a telnet window, and the answers to bad input (real processes)."""

from __future__ import annotations

import contextlib
import random
import socket

from twisted.internet.threads import deferToThread

from tests.integration.case import HEAR_SECONDS, ClusterCase, Visitor, reactor

AT_ONCE_SECONDS = 5.0
"""Maximum time until a line arrives; on a quiet machine it takes milliseconds."""


class ChatTests(ClusterCase):
    async def test_two_windows_at_two_servers_see_each_others_lines_at_once(self) -> None:
        """A client that follows the chat at one server gets at once the lines that were said at another one, and both
        see the same order."""
        cluster = await self.start_cluster(3)
        windows = [await self.visit(cluster, 0), await self.visit(cluster, 2)]
        for window in windows:
            self.assertEqual(await window.ask("LISTEN"), "OK from=1")
        heard = []
        for speaker, text in ((0, "hello there"), (1, 'hello "yourself"')):
            windows[speaker].send(f"SAY {text}\r\n".encode())
            heard.append([await self.next_chat(window) for window in windows])
        for index, (lines, text) in enumerate(zip(heard, ("hello there", r"hello \"yourself\""), strict=True), start=1):
            self.assertEqual(lines[0], lines[1])
            self.assertTrue(lines[0].startswith(f"* CHAT index={index} client="), lines[0])
            self.assertTrue(lines[0].endswith(f'text="{text}"'), lines[0])

    async def next_chat(self, window: Visitor) -> str:
        while not (line := await window.hear(AT_ONCE_SECONDS)).startswith("* CHAT"):
            self.assertTrue(line.startswith("OK"), line)
        return line


class LockTests(ClusterCase):
    async def queue_for_lock(self, holder_says: str = "PING") -> tuple[Visitor, Visitor]:
        """Let one visitor hold the lock "door" at server 0, and another one wait for it at server 1. Returns the
        two."""
        cluster = await self.start_cluster(3)
        holder, waiter = await self.visit(cluster, 0), await self.visit(cluster, 1)
        self.assertTrue((await holder.ask(holder_says)).startswith("OK"))
        self.assertRegex(await holder.ask("LOCK door"), '^OK name="door" token=[0-9]+$')
        waiter.send(b"LOCK door\n")
        observer = await self.visit(cluster, 2)
        while True:
            observer.send(b"LOCKS\n")
            row = await observer.hear()
            self.assertTrue((await observer.reply()).startswith("OK count=1"))
            if row.endswith("waiting=1"):
                return holder, waiter

    async def test_blocked_lock_is_granted_on_unlock(self) -> None:
        """A LOCK that waits is granted when the holder unlocks."""
        holder, waiter = await self.queue_for_lock()
        self.assertEqual(await waiter.ask("PING"), "OK")
        self.assertEqual(await holder.ask("UNLOCK door"), 'OK name="door"')
        self.assertRegex(await waiter.reply(), '^OK name="door" token=[0-9]+$')

    async def test_blocked_lock_is_granted_when_the_holder_quits(self) -> None:
        """A LOCK that waits is granted when the holder quits: a connection without HELLO has a session of its own,
        which ends with the connection."""
        holder, waiter = await self.queue_for_lock()
        self.assertEqual(await holder.ask("QUIT"), "OK")
        self.assertRegex(await waiter.reply(), '^OK name="door" token=[0-9]+$')

    async def test_blocked_lock_is_granted_when_the_holders_session_expires(self) -> None:
        """A LOCK that waits is granted when the holder's session has expired: no server has heard of the session for
        its ttl, so the leader proposes to end it."""
        holder, waiter = await self.queue_for_lock("HELLO bob ttl=1")
        await holder.hang_up()
        self.assertRegex(await waiter.reply(), '^OK name="door" token=[0-9]+$')


class BadInputTests(ClusterCase):
    """Bad input gets a clear error, and the server goes on."""

    async def visit_lone_server(self) -> Visitor:
        self.lone_server = await self.start_cluster(1)
        return await self.visit(self.lone_server, 0)

    async def assertGoesOn(self, visitor: Visitor) -> None:
        """Assert that the server goes on, on this connection as well as on others."""
        self.assertEqual(await visitor.ask("PING"), "OK")
        other = await self.visit(self.lone_server, 0)
        self.assertTrue((await other.ask("PUT alive yes")).startswith("OK revision="))

    async def test_unknown_and_half_typed_commands_get_an_error_that_says_what_would_be_right(self) -> None:
        """Unknown and incomplete commands get one error each, with their number, which says what would be right."""
        visitor = await self.visit_lone_server()
        for line, code, right in (
            ("PUTT colour blue", "UNKNOWN", "PUT"),
            ("PUT colour", "BADREQUEST", "PUT key value"),
            ('PUT colour "blue', "BADREQUEST", '"'),
            ("HELLO", "BADREQUEST", "HELLO client-id"),
            ("INCR n much", "BADREQUEST", "INCR"),
            ("FAULT HEAL", "DENIED", "faults: true"),
        ):
            self.assertIn(right, self.assertRefused(await visitor.ask(line), code).text)
        self.assertRegex(await visitor.ask("#7 PUT colour"), "^#7 ERR BADREQUEST fate=none ")
        await self.assertGoesOn(visitor)

    async def test_line_that_is_too_long_is_refused_once_and_skipped(self) -> None:
        """A line that is too long is refused once with TOOLARGE and skipped, and the connection goes on
        (docs/protocol.rst)."""
        visitor = await self.visit_lone_server()
        visitor.send(b"PUT big " + b"x" * 1_000_000 + b"\n")
        self.assertRefused(await visitor.reply(), "TOOLARGE")
        await self.assertGoesOn(visitor)

    async def test_line_of_ten_megabytes_ends_the_connection(self) -> None:
        """A line of ten megabytes ends the connection: after a megabyte the client is not listened to any more, and is
        told so. A client whose writing fails finds the replies where it reads."""
        visitor = await self.visit_lone_server()
        self.assertEqual(await visitor.ask("PING"), "OK")
        welcome, *replies = await deferToThread(self.replies_to_endless_line, self.lone_server.address(0).shown)
        self.assertTrue(welcome.startswith("* WELCOME "), welcome)
        self.assertEqual(len(replies), 2, replies)
        for reply in replies:
            self.assertRefused(reply, "TOOLARGE")

    @staticmethod
    def replies_to_endless_line(address: str) -> list[str]:
        """Send ten megabytes without a line end, as far as the server takes them. Returns all lines of the server."""
        host, port = address.rsplit(":", 1)
        heard = b""
        with socket.create_connection((host, int(port)), HEAR_SECONDS) as client:
            with contextlib.suppress(OSError):
                client.sendall(b"PUT big " + b"x" * 10_000_000 + b"\n")
            with contextlib.suppress(ConnectionError):
                while data := client.recv(65_536):
                    heard += data
        return heard.decode().splitlines()

    async def test_binary_noise_gets_errors_and_does_no_harm(self) -> None:
        """Random bytes, 100,000 with a line end every few hundred behind a first line that is text, get errors and do
        no harm.

        A first line that is no text ends the connection.
        """
        visitor = await self.visit_lone_server()
        # 0xff begins commands of telnet, which are answered.
        noise = random.Random(10).randbytes(100_000).replace(b"\xff", b"")
        stranger = await self.visit(self.lone_server, 0)
        stranger.send(noise + b"\n")
        self.assertRefused(await stranger.reply(), "BADREQUEST")
        await stranger.gone.addTimeout(HEAR_SECONDS, reactor)
        self.assertEqual(await visitor.ask("PING"), "OK")
        visitor.send(noise + b"\n")
        other = await self.visit(self.lone_server, 0)
        self.assertEqual(await other.ask("PING"), "OK")
        errors = 0
        visitor.send(b"\n#999999 NOSUCHVERB\n")
        while not (line := await visitor.reply()).startswith("#999999 ERR UNKNOWN"):
            self.assertRegex(line, "^(#[0-9]+ )?ERR (BADREQUEST|UNKNOWN|TOOLARGE) fate=none ")
            errors += 1
        self.assertGreater(errors, 100)
        await self.assertGoesOn(visitor)

    async def test_numbers_that_go_backwards_are_refused_and_do_not_run(self) -> None:
        """A number that the client repeats gets its answer again; a lower one that it has not used is refused, and its
        command does not run (docs/internals/sessions.rst)."""
        visitor = await self.visit_lone_server()
        self.assertRegex(await visitor.ask("HELLO alice"), '^OK client="alice" .*last=0 resumed=no')
        answer = await visitor.ask("#5 INCR n")
        self.assertRegex(answer, '^#5 OK value="1" revision=[0-9]+$')
        self.assertRegex(await visitor.ask("#3 INCR n"), "^#3 ERR BADREQUEST fate=")
        self.assertEqual(await visitor.ask("#5 INCR n"), answer)
        self.assertRegex(await visitor.ask("#6 GET n"), '^#6 OK value="1" ')
        await self.assertGoesOn(visitor)

    async def test_command_whose_line_never_ends_does_not_run(self) -> None:
        """A command whose line never ends, since its client is gone, does not run."""
        visitor = await self.visit_lone_server()
        self.assertTrue((await visitor.ask("PUT colour blue")).startswith("OK"))
        visitor.send(b"PUT colour red")
        await visitor.hang_up()
        other = await self.visit(self.lone_server, 0)
        self.assertTrue((await other.ask("GET colour")).startswith('OK value="blue"'))
