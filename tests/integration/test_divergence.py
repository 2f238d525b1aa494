"""An application of a plugin that goes wrong by chance is noticed, and servers that are right go on (real
processes)."""

from __future__ import annotations

import os

from pfsb.demo.processes import ProcessCluster
from pfsb.service.service import EXIT_FAILED
from tests.integration.case import ClusterCase

DICE = '''
"""ROLL 02: a command that comes to something else on each of the servers 0 and 2, and to 0 on all others."""

import random
import sys

from zope.interface import implementer

from pfsb.applications.interfaces import CommandDescription, Done, IReplicatedApplication


@implementer(IReplicatedApplication)
class Dice:
    name = "dice"
    commands = (CommandDescription("ROLL", "ROLL servers", "Throw dice at these servers."),)

    def check(self, command):
        return command

    def execute(self, command, context):
        server = sys.argv[sys.argv.index("--id") + 1]
        value = random.randrange(1_000_000_000) if server in command[1] else 0
        return Done((("value", value), ("revision", context.revision)))

    def query(self, command):
        raise AssertionError("there are no questions")

    def session_ended(self, client_id, context):
        pass

    def time_passed(self, context):
        pass

    def next_deadline(self):
        return None

    def snapshot(self):
        return b""

    def restore(self, data):
        pass
'''
PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import classImplements

from pfsb.applications.interfaces import ApplicationMaker, IApplicationMaker

classImplements(ApplicationMaker, IPlugin, IApplicationMaker)

dice = ApplicationMaker("dice", "Throws dice.", "dice_application", "Dice")
"""


class DiceTests(ClusterCase):
    async def start_with_dice(self) -> ProcessCluster:
        """A cluster of three servers that have the application `dice` as a plugin."""
        cluster = self.make_cluster(3, apps=["kv", "dice"])
        plugins = cluster.directory / "outside" / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "dice_plugin.py").write_text(PLUGIN)
        (cluster.directory / "outside" / "dice_application.py").write_text(DICE)
        path = [str((cluster.directory / "outside").absolute()), os.environ.get("PYTHONPATH", "")]
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))})
        await cluster.start_all()
        return cluster

    async def test_dice_on_all_servers_are_refused(self) -> None:
        """If the application is wrong by chance on all servers, no two agree: changes are refused, and the operator can
        see why at each server."""
        cluster = await self.start_with_dice()
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("PUT colour blue")).startswith("OK"))
        self.assertTrue((await visitor.ask("ROLL 012")).startswith("OK value="))

        async def refused() -> bool:
            return all(status["diverged"] for status in (await cluster.statuses(cluster.ids)).values())

        await cluster.wait_for("all servers to notice", refused, 30)
        self.assertRefused(await visitor.ask("PUT colour red"), "DIVERGED")
        self.assertEqual(await visitor.ask("GET colour"), 'OK value="blue" revision=1')

        async def both_differ() -> bool:
            peers = (await cluster.status(1))["peers"].values()
            return len(peers) == 2 and all(peer["differs_at"] is not None for peer in peers)

        await cluster.wait_for("server 1 to show where each of the others differs", both_differ, 30)
        self.assertEqual(cluster.running, [0, 1, 2])

    async def test_server_that_throws_dice_alone_stops_at_each_start(self) -> None:
        """A server whose application alone is wrong stops at each start, with one clear line and exit status 3, and the
        others go on. Executing its history anew does not heal it, since the dice fall anew."""
        cluster = await self.start_with_dice()
        visitor = await self.visit(cluster, 0)
        self.assertTrue((await visitor.ask("ROLL 2")).startswith("OK value=0 "))
        self.assertEqual(await cluster.ended(2), EXIT_FAILED)
        self.assertIn("otherwise than servers 0, 1, which are a majority", cluster.last_words(2))
        self.assertTrue((await visitor.ask("PUT colour red")).startswith("OK"))
        cluster.start(2)
        self.assertEqual(await cluster.ended(2), EXIT_FAILED)
        self.assertTrue((await visitor.ask("PUT colour green")).startswith("OK"))
