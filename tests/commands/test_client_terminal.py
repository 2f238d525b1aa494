"""The interactive `pfsb client`: what a person sees, with keys from a pipe in place of a terminal."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import Any

import pyte
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.core.client_core import ClientCore
from pfsb.commands import client_terminal
from pfsb.commands.client_terminal import Terminal, friendly_name, greeting
from pfsb.commands.line_client import LineClient
from pfsb.frontends.line.arguments import CLIENT_ID_CHARACTERS_MAX
from tests.client.cluster import LoopbackTestCase, reactor
from tests.frontends.fake_server import FakeCluster

PASTE = "\x1b[200~{}\x1b[201~"
"""A text as a terminal sends it when it is pasted."""
UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"
ROWS, COLUMNS = 24, 80


class TerminalCase(LoopbackTestCase):
    """A person at a terminal; `said` is what was sent to it. That is only what is printed above the prompt, unless
    `start` is asked to draw the prompt, too."""

    def setUp(self) -> None:
        super().setUp()
        self.out = io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(client_terminal, "WAITING_AFTER_SECONDS", 0.2)
        self.patch(client_terminal, "REFRESH_SECONDS", 0.05)
        stack = contextlib.ExitStack()
        self.keys = stack.enter_context(create_pipe_input())
        self.addCleanup(stack.close)
        self.history = InMemoryHistory()

    async def start(self, *, is_drawn: bool = False) -> Deferred[None]:
        """Start the client, and wait for its greeting. The Deferred fires when the person has left."""
        sink: Any = DummyOutput()
        if is_drawn:
            sink = Vt100_Output(self.out, lambda: Size(rows=ROWS, columns=COLUMNS), enable_cpr=False)
        self.client_of_person = LineClient(reactor, ClientCore(self.cluster.addresses, client_id="ann-kolumi"))
        text = greeting("four", 3, "ann-kolumi")
        self.terminal = Terminal(reactor, self.client_of_person, text, self.history, self.keys, sink)
        ended = self.terminal.run()
        self.client_of_person.start()

        async def leave() -> None:
            if not ended.called:
                self.keys.send_text(CTRL_C + CTRL_D)
                await self.until(lambda: ended.called)
            await self.client_of_person.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(leave()))
        await self.says("you are ann-kolumi")
        return ended

    @property
    def said(self) -> str:
        return self.out.getvalue()

    @property
    def screen(self) -> str:
        """The text on a terminal that was sent `said`."""
        screen = pyte.Screen(COLUMNS, ROWS)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed(self.said)
        return "".join(f"{line.rstrip()}\n" for line in screen.display).rstrip()

    async def says(self, text: str) -> None:
        await self.until(lambda: text in self.said)

    async def shows(self, text: str) -> None:
        await self.until(lambda: text in self.screen)


class TypingTests(TerminalCase):
    async def test_greeting_has_three_lines_and_names_server_and_person(self) -> None:
        """The greeting has three lines, with the names of the server and of the person; the server's own welcome is not
        shown."""
        await self.start()
        lines = self.said.splitlines()
        self.assertEqual(len(lines), 3)
        shown = self.cluster.addresses[0].shown
        self.assertEqual(lines[0], f"you are ann-kolumi, at server 0 ({shown}); cluster four has 3 servers")

    async def test_commands_are_answered_and_quit_ends(self) -> None:
        """Commands are answered in order, also if a person types them ahead without waiting, and QUIT ends the
        client."""
        ended = await self.start()
        self.keys.send_text("PUT a 1\rGET a\rQUIT\r")
        await ended
        self.assertEqual(self.said.splitlines()[3:], ["OK revision=2", 'OK value="1" revision=2'])

    async def test_paste_of_several_lines_runs_all_of_them(self) -> None:
        """A paste of several lines runs all of them after the return key, so that a person can look at them first;
        empty lines count for nothing."""
        ended = await self.start()
        self.keys.send_text(PASTE.format("PUT a 1\nPUT b 2\n\nMGET a b\n"))
        self.keys.send_text("\r")
        await self.says('+key="b"')
        self.assertEqual(self.said.splitlines()[3:5], ["OK revision=2", "OK revision=3"])
        self.keys.send_text(CTRL_D)
        await ended

    async def test_ctrl_c_drops_the_line_and_nothing_else(self) -> None:
        """Ctrl-C drops the line that is being typed, and the program goes on."""
        await self.start()
        self.keys.send_text(f"PUT a 1{CTRL_C}PUT b 2\r")
        await self.says("OK revision=2")
        self.assertEqual([command[1] for _, _, command in self.cluster.shared.executed], [b"b"])

    async def test_earlier_lines_come_back(self) -> None:
        """The up key brings back the line that was entered last."""
        await self.start()
        self.keys.send_text("INCR n\r")
        await self.says('OK value="1"')
        self.keys.send_text(f"{UP}\r")
        await self.says('OK value="2"')

    async def test_line_that_cannot_be_sent_is_told(self) -> None:
        """A line that cannot be sent is answered with an error, as in a pipe."""
        await self.start()
        self.keys.send_text("#5 PUT a 1\r")
        await self.says("this client numbers its commands by itself")


class PromptTests(TerminalCase):
    async def test_prompt_names_the_server_that_is_really_talked_to(self) -> None:
        """The prompt names the server that the client is connected to, also when the client goes on to another one
        while nothing is typed."""
        await self.start(is_drawn=True)
        await self.shows("\nserver 0>")
        self.keys.send_text("PUT a 1\r")
        await self.says("OK revision=2")
        await self.cluster.members[0].crash()
        await self.until(lambda: re.search(r"\nserver [12]>$", self.screen))
        self.assertRegex(self.said, r"connected to server [12] at 127\.0\.0\.1:")

    async def test_events_are_printed_above_the_line_that_is_being_typed(self) -> None:
        """Events are printed above the line that is being typed, which is drawn again below them."""
        await self.start(is_drawn=True)
        self.keys.send_text("LISTEN\r")
        await self.shows("\nOK from=1\nserver 0>")
        self.keys.send_text("SAY half a")
        await self.shows("server 0> SAY half a")
        await self.client(client_id="bob").command("SAY hello")
        await self.shows('\n* CHAT index=1 client="bob" text="hello"\nserver 0> SAY half a')
        self.keys.send_text(" line\r")
        await self.shows('text="half a line"')

    async def test_lock_that_is_not_free_is_shown_as_waiting(self) -> None:
        """A LOCK of a lock that is not free is shown as waiting. Other commands go on meanwhile, and the late answer
        says to which command it belongs."""
        holder = self.client(client_id="bob")
        await holder.command("LOCK printer")
        await self.start(is_drawn=True)
        self.keys.send_text("LOCK printer\r")
        await self.says("LOCK printer: waits until the lock is free")
        await self.shows("waiting: LOCK printer (")
        self.keys.send_text("PUT a 1\r")
        await self.shows("\nserver 0> PUT a 1\nOK revision=")  # without the note about the LOCK that waits
        await holder.command("UNLOCK printer")
        await self.says('LOCK printer: OK name="printer"')

    async def test_return_to_the_same_server_is_not_announced(self) -> None:
        """A return to the same server is not announced: without a majority the client goes round all servers for as
        long as that lasts."""
        await self.start(is_drawn=True)
        first, other = self.cluster.addresses[:2]
        for address in (first, other, other):
            self.terminal.show_server(address)
        await self.says(f"connected to server 1 at {other.shown}")
        self.terminal.show("the end")
        await self.says("the end")
        self.assertEqual(self.said.count("connected to server"), 1)

    async def test_tab_completes_what_the_server_knows(self) -> None:
        """The tab key completes verbs, and behind a verb its options."""
        await self.start(is_drawn=True)
        await self.until(lambda: self.terminal.completer.commands)
        self.keys.send_text("PIN\t")
        await self.shows("PING")
        self.keys.send_text("\r")
        await self.shows("\nserver 0> PING\nOK\nserver 0>")

    async def test_commands_without_an_answer_have_a_fate_at_the_end(self) -> None:
        """At the end, the fate of commands without an answer is told, since they may still happen; a lock that is
        waited for is given up."""
        self.patch(client_terminal, "LAST_ANSWERS_SECONDS", 0.1)
        ended = await self.start()
        for member in self.cluster.members:  # servers that do not answer would keep the connection for two seconds more
            self.addCleanup(member.crash)
        self.patch(FakeCluster, "run", lambda *_: None)
        self.keys.send_text("PUT a 1\rGET a\rLOCK b\r" + CTRL_D)
        await ended
        self.assertEqual(
            self.said.splitlines()[3:],
            [
                "PUT a 1: no answer yet; fate=unknown: it may have happened, or may still happen",
                "GET a: no answer yet; fate=none: it did not happen",
            ],
        )

    async def test_end_of_the_terminal_ends_the_program(self) -> None:
        """The end of the terminal (Ctrl-D) ends the program."""
        ended = await self.start()
        self.keys.close()
        await ended


class NameTests(SynchronousTestCase):
    def test_name_is_the_persons_and_hardly_anybody_elses(self) -> None:
        """The name that is proposed to a person can be said aloud, is a client id, and hardly any other person gets
        it."""
        self.patch(client_terminal.getpass, "getuser", lambda: "ann lee")
        names = {friendly_name() for _ in range(100)}
        self.assertEqual(len(names), 100)
        for name in names:
            self.assertRegex(name, r"^annlee(-)([bdfgjklmnprstv][aeiou]){4}$")
            self.assertLessEqual(len(name), CLIENT_ID_CHARACTERS_MAX)

    def test_machine_that_does_not_know_its_user_has_guests(self) -> None:
        """On a machine that does not know its user, as in containers, the proposed name is that of a guest."""

        def unknown() -> str:
            raise KeyError("uid not found")

        self.patch(client_terminal.getpass, "getuser", unknown)
        self.assertRegex(friendly_name(), "^guest-[a-z]{8}$")
