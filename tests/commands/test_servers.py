"""`pfsb servers`, against fake servers."""

from __future__ import annotations

import json

import click

from pfsb.applications.interfaces import Refused
from pfsb.commands.exit_status import ExitStatus
from pfsb.commands.servers import Options, command, settle
from pfsb.support.command_line import parse
from tests.client.cluster import reactor
from tests.commands.test_client import ToolTestCase


class ServersTests(ToolTestCase):
    def options(self, *arguments: str) -> Options:
        options: Options = parse(command, arguments)
        return options

    async def settle(self, *arguments: str) -> ExitStatus:
        return await settle(reactor, self.options(*arguments), self.out, self.err)

    async def test_table_has_a_line_for_each_server(self) -> None:
        """`pfsb servers` prints the epoch, and a row for each server."""
        self.assertIs(await self.settle(self.file), ExitStatus.OK)
        lines = self.out.getvalue().splitlines()
        self.assertEqual(lines[0], "epoch 0")
        self.assertRegex(lines[1], "^id +role +alive +state +aru +address +client$")
        self.assertRegex(lines[2], "^0 +voter +yes +REG_LEADER +1 +127.0.0.1 +127.0.0.1:9400$")

    async def test_servers_as_json(self) -> None:
        """With --json, `pfsb servers` prints one object with the epoch and the servers."""
        self.assertIs(await self.settle(self.file, "--json"), ExitStatus.OK)
        found = json.loads(self.out.getvalue())
        self.assertEqual((found["epoch"], found["servers"][0]["role"]), (0, "voter"))

    async def test_change_goes_to_the_first_server_that_is_there(self) -> None:
        """A change is sent once, to the first server that can be reached."""
        await self.cluster.members[0].crash()
        self.assertIs(await self.settle(self.file, "add", "4", "127.0.0.1:7404"), ExitStatus.OK)
        self.assertEqual(self.out.getvalue(), "done, in epoch 1\n")
        asked = [each for member in self.cluster.members for each in member.server.changes.asked]
        self.assertEqual(asked, [("add", 4, "127.0.0.1:7404")])

    async def test_server_that_learns_for_good(self) -> None:
        """With --learner, `add` asks for a server that learns for good; no other change takes the option."""
        self.assertIs(await self.settle(self.file, "add", "4", "127.0.0.1:7404", "--learner"), ExitStatus.OK)
        asked = [each for member in self.cluster.members for each in member.server.changes.asked]
        self.assertEqual(asked, [("add", 4, "127.0.0.1:7404", "permanent")])
        self.assertRaises(click.UsageError, self.options, self.file, "remove", "1", "--learner")

    async def test_replacement_says_what_comes(self) -> None:
        self.assertIs(await self.settle(self.file, "replace", "1", "4", "127.0.0.1:7404"), ExitStatus.OK)
        self.assertIn("when it votes, the former one is removed by itself", self.out.getvalue())
        asked = [each for member in self.cluster.members for each in member.server.changes.asked]
        self.assertEqual(asked, [("replace", 1, 4, "127.0.0.1:7404")])

    async def test_refusal_is_one_line(self) -> None:
        """A refusal is printed as one line, and no other server is asked, unless the first one cannot serve at
        present."""
        first, second = self.cluster.members[:2]
        first.server.changes.refusal = Refused("CONFLICT", "another change is under way")
        self.assertIs(await self.settle(self.file, "remove", "1"), ExitStatus.REFUSED)
        text = "pfsb servers: another change is under way (CONFLICT, fate=none)\n"
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("", text))
        self.assertEqual(second.server.changes.asked, [])
        first.server.changes.refusal = Refused("UNAVAILABLE", "this server does not vote")
        self.assertIs(await self.settle(self.file, "remove", "1"), ExitStatus.OK)
        self.assertEqual(second.server.changes.asked, [("remove", 1)])

    async def test_change_whose_fate_is_unknown_is_sent_to_no_other_server(self) -> None:
        """A change whose fate is unknown is sent to no other server, since it may still happen."""
        first, second = self.cluster.members[:2]
        first.server.changes.refusal = Refused("UNAVAILABLE", "no majority has answered in time", "unknown")
        self.assertIs(await self.settle(self.file, "remove", "1"), ExitStatus.UNAVAILABLE)
        self.assertEqual(second.server.changes.asked, [])

    async def test_no_server_is_reached(self) -> None:
        """If no server can be reached, `pfsb servers` prints one line, and has an exit status of its own."""
        for member in self.cluster.members:
            await member.crash()
        self.assertIs(await self.settle(self.file), ExitStatus.UNREACHABLE)
        self.assertEqual(self.err.getvalue(), "pfsb servers: no server accepts a connection\n")

    def test_wrong_command_lines(self) -> None:
        """A wrong command line is refused before anything is sent."""
        for words in (
            ("add", "4"),
            ("add", "four", "127.0.0.1:7404"),
            ("add", "4", "nowhere"),
            ("remove",),
            ("remove", "70000"),
            ("move", "1", "127.0.0.1:7404", "more"),
            ("replace", "1", "127.0.0.1:7404"),
            ("replace", "1", "x", "127.0.0.1:7404"),
        ):
            self.assertRaises(click.UsageError, self.options, self.file, *words)
