"""`pfsb settings`, against fake servers."""

from __future__ import annotations

import click

from pfsb.applications.interfaces import Refused
from pfsb.client.core.replies import Reply
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.settings import Options, command, settle, table
from pfsb.support.command_line import parse
from tests.client.cluster import reactor
from tests.commands.test_client import ToolTestCase


class SettingsTests(ToolTestCase):
    def settings(self, *arguments: str) -> Options:
        options: Options = parse(command, arguments)
        return options

    async def settle(self, *arguments: str) -> ExitStatus:
        options = self.settings(*arguments)
        return await settle(reactor, options.addresses, options.changes, options.timeout, self.out, self.err)

    async def test_table_has_a_line_for_each_setting(self) -> None:
        """`pfsb settings` shows a line for each setting, with name, value and meaning in columns."""
        self.assertIs(await self.settle(self.file), ExitStatus.OK)
        lines = self.out.getvalue().splitlines()
        self.assertRegex(lines[0], "^setting +value +meaning$")
        self.assertRegex(lines[1], "^apps +chat,kv,lock +applications that run")
        self.assertEqual([line.split()[0] for line in lines[2:6]], ["rules", "session_window", "window", "horizon"])
        self.assertRegex(lines[4], "^window +16 +proposals under way at once; 1 to 1000$")

    async def test_changes_are_made_and_shown(self) -> None:
        """Several changes are sent as one command, and the new values are shown."""
        self.assertIs(await self.settle("--config", self.file, "session_window=64", "apps=kv"), ExitStatus.OK)
        self.assertRegex(self.out.getvalue(), r"(?m)^session_window +64 ")
        self.assertRegex(self.out.getvalue(), r"(?m)^apps +kv ")
        executed = [command for _, _, command in self.cluster.shared.executed]
        self.assertEqual(executed[0], ("SETTINGS SET", "session_window=64", "apps=kv"))

    async def test_servers_may_be_named_instead_of_a_configuration(self) -> None:
        """Addresses of servers may stand in place of a configuration. The first server is asked, and the next one if it
        does not answer."""
        servers = [word for member in self.cluster.members for word in ("--server", member.address.shown)]
        await self.cluster.members[0].crash()
        self.assertIs(await self.settle(*servers, "window=9"), ExitStatus.OK)
        self.assertRegex(self.out.getvalue(), r"(?m)^window +9 ")

    async def test_refusal_is_one_line_and_no_success(self) -> None:
        """A refused change gives one line, with what would be right and the fate of the command, and the exit status of
        a failure."""
        self.assertIs(await self.settle(self.file, "window=0"), ExitStatus.REFUSED)
        self.assertEqual(self.out.getvalue(), "")
        self.assertEqual(
            self.err.getvalue(),
            "pfsb settings: window must be from 1 to 1000, not 0; no setting was changed (BADREQUEST, fate=none)\n",
        )

    async def test_silent_cluster_is_one_line_and_no_success(self) -> None:
        """With servers that do not answer, the program ends after its time limit, with one line and the exit status of
        a failure."""
        for member in self.cluster.members:
            member.server.local_clients.silent = True
        self.assertIs(await self.settle(self.file, "--timeout", "0.2", "window=9"), ExitStatus.UNAVAILABLE)
        self.assertIn("pfsb settings: no answer within 0.2 s", self.err.getvalue())
        # A server that has not answered HELLO does not notice that its client has left.
        for member in self.cluster.members:
            await member.crash()

    async def test_unreachable_cluster_is_told_at_once(self) -> None:
        """If no server can be reached, the user is told at once, and again at the end, with another exit status than
        for servers that do not answer."""
        for member in self.cluster.members:
            await member.crash()
        self.assertIs(await self.settle(self.file, "--timeout", "0.3", "window=9"), ExitStatus.UNREACHABLE)
        told, ended = self.err.getvalue().splitlines()
        self.assertIn("pfsb settings: no server can be reached: servers 0 (", told)
        self.assertIn("no answer within 0.3 s; no server can be reached; servers 0 (", ended)

    async def test_value_that_is_refused_elsewhere_keeps_its_text(self) -> None:
        """If the server that is asked refuses, its text is shown, and no other server is asked."""
        for member in self.cluster.members:
            member.server.local_clients.refuse = Refused("DENIED", "not here")
        self.assertIs(await self.settle(self.file), ExitStatus.REFUSED)
        self.assertIn("not here", self.err.getvalue())

    def test_wrong_command_lines_are_told(self) -> None:
        """Each wrong command line is refused with a text that says what would be right."""
        for arguments, text in (
            ((), "which cluster?"),
            (("window=9",), "which cluster?"),
            ((self.file, "window"), "'window' must be NAME=VALUE"),
            ((self.file, "=9"), "'=9' must be NAME=VALUE"),
            ((self.file, "window=1", "window=2"), "window is there twice"),
            ((self.file, "--server", "127.0.0.1:9400"), "not both"),
            (("--server", "nowhere"), '"nowhere" is no address of a server'),
            (("nothing.yaml",), "nothing.yaml"),
            (("--config", "nothing.yaml"), "nothing.yaml"),
        ):
            error = self.assertRaises(click.UsageError, self.settings, *arguments)
            self.assertIn(text, str(error))

    def test_setting_of_a_later_version_is_shown_without_a_meaning(self) -> None:
        """A setting that only a later version knows is shown without a meaning, and no control character of its value
        reaches the terminal."""
        shown = table(Reply("OK", (r'name=colour value="red\u001b"',)))
        self.assertEqual(shown.splitlines()[1], r'colour   "red\u001b"')
