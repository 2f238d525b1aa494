"""The settings of a cluster as its users meet them: at telnet, over HTTP, by `pfsb settings`, and at a restart."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.defer import ensureDeferred

from pfsb.demo.processes import ProcessCluster
from tests.integration.case import Visitor
from tests.integration.http_case import CURL, HTTPClusterCase, run, url

PYTHONPATH = [path for path in [os.environ.get("PYTHONPATH")] if path]
"""The environment variable PYTHONPATH, as it was before a test changes it."""
PLUGIN = """\
from twisted.plugin import IPlugin
from zope.interface import classImplements
from pfsb.applications.interfaces import ApplicationMaker, IApplicationMaker
classImplements(ApplicationMaker, IPlugin, IApplicationMaker)
counter = ApplicationMaker("counter", "Counts.", "counter", "Counter")
"""
MODULE = """\
from pfsb.applications.application import Application, Verb
from pfsb.applications.interfaces import CommandDescription, Done
class Counter(Application):
    name = "counter"
    commands = (CommandDescription("COUNT", "COUNT", "Count."),)
    def __init__(self):
        self.count = 0
        super().__init__({"COUNT": Verb(lambda asked: (asked.verb,), (str,), self._count)})
    def _count(self, command, context):
        self.count += 1
        return Done((("count", self.count),))
    def snapshot(self):
        return str(self.count).encode()
    def restore(self, data):
        self.count = int(data)
"""


class SettingsCase(HTTPClusterCase):
    async def rows(self, visitor: Visitor, line: str) -> list[str]:
        """Send a line. Returns all lines of the reply, the last of which must be OK."""
        visitor.send(line.encode() + b"\r\n")
        said = [await visitor.hear()]
        while said[-1].startswith(("+", "*")):
            said.append(await visitor.hear())
        self.assertTrue(said[-1].startswith("OK"), said)
        return said

    async def change(self, cluster: ProcessCluster, visitor: Visitor, changes: str) -> None:
        """Change settings, as soon as all servers have announced what they can run."""

        async def done() -> bool:
            reply = await visitor.ask(f"SETTINGS SET {changes}")
            self.assertTrue(reply.startswith("OK revision=") or "not announced yet" in reply, reply)
            return reply.startswith("OK")

        await cluster.wait_for(f"all servers to announce, and {changes} to be changed", done, 60)

    async def settings_everywhere(self, cluster: ProcessCluster) -> dict[str, Any]:
        """The settings in STATUS, which must be equal at all servers."""
        await cluster.wait_equal()
        statuses = await cluster.statuses()
        found: list[dict[str, Any]] = [status["settings"] for status in statuses.values()]
        self.assertEqual(found, [found[0]] * len(found))
        return found[0]

    def plugin_folder(self) -> str:
        """A folder with an application that only those servers have whose PYTHONPATH names it."""
        folder = Path(self.mktemp()).absolute()
        (folder / "twisted" / "plugins").mkdir(parents=True)
        (folder / "twisted" / "plugins" / "counter_plugin.py").write_text(PLUGIN)
        (folder / "counter.py").write_text(MODULE)
        return str(folder)

    def look_for_plugins_in(self, *folders: str) -> None:
        """Which folders the servers that are started from now on look into, besides those of this process."""
        paths = [*folders, *PYTHONPATH]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self.patch(os, "environ", environment)

    def assertStoppedWith(self, cluster: ProcessCluster, server_id: int, text: str) -> None:
        """Assert that a server has stopped with this text, in one line of its log and one of its standard error,
        without a traceback."""
        said = cluster.log_file(server_id).read_text()
        self.assertNotIn("Traceback", said)
        told = [line for line in said.splitlines() if text in line]
        self.assertEqual([f"pfsb: server {server_id} stops: " in line for line in told], [False, True], said)
        self.assertNotIn("the receiving port was lost", said)


class ChangeTests(SettingsCase):
    async def test_settings_are_shown_and_changed_wherever_a_client_is(self) -> None:
        """Telnet, HTTP and `pfsb settings` show and change one set of values, which survives a crash."""
        cluster = await self.start_cluster(3)
        first, second = await self.visit(cluster, 0), await self.visit(cluster, 1)
        said = await self.rows(first, "SETTINGS")
        self.assertIn("+name=session_window value=128", said)
        self.assertTrue([row for row in await self.rows(first, "HELP") if row.startswith("+SETTINGS SET name=value")])
        await self.change(cluster, first, "session_window=64 window=32")
        self.assertIn("+name=session_window value=64", await self.rows(second, "SETTINGS"))
        self.assertRefused(await second.ask("SETTINGS SET window=0"), "BADREQUEST")
        self.assertRefused(await second.ask("SETTINGS SET apps=kv,counter"), "CONFLICT")

        answer = await self.curl(cluster, 2, "PATCH", "/v1/settings", {"set": {"session_window": 96}})
        self.assertEqual((answer.status, list(answer.content)), (200, ["revision"]))
        shown = (await self.curl(cluster, 0, "GET", "/v1/settings")).content
        self.assertEqual((shown["session_window"], shown["window"], shown["members"]), (96, 32, "0,1,2"))
        self.assertEqual(await self.settings_everywhere(cluster), shown)

        await cluster.kill(1)
        cluster.start(1)
        await cluster.wait_up()
        self.assertEqual(await self.settings_everywhere(cluster), shown)
        await self.command_shows_and_changes(cluster)

    async def command_shows_and_changes(self, cluster: ProcessCluster) -> None:
        config = str(cluster.directory / "cluster.yaml")
        pfsb = (sys.executable, "-c", "from pfsb.cli import main; main()")
        out, status = await run(*pfsb, "settings", config, "horizon=50000", env=dict(os.environ))
        self.assertEqual(status, 0, out)
        self.assertRegex(out, r"(?m)^horizon +50000 +slots ")
        server = ("--server", cluster.address(2).shown)
        out, status = await run(*pfsb, "settings", *server, "horizon=0", env=dict(os.environ))
        self.assertEqual((status, out.count("\n")), (1, 1), out)
        self.assertIn("pfsb settings: horizon must be from 10000 to 1000000000, not 0; no setting was changed", out)

    async def test_applications_begin_and_cease_to_run(self) -> None:
        """Connected clients see that applications begin and cease to run; a chat that begins anew has a file of its
        own."""
        cluster = await self.start_cluster(2)
        first, second = await self.visit(cluster, 0), await self.visit(cluster, 1)
        self.assertTrue((await first.ask("SAY one")).startswith("OK index=1"))
        listener = await self.visit(cluster, 1)
        self.assertEqual(await listener.ask("LISTEN from=2"), "OK")
        stream = ensureDeferred(run(str(CURL), "-sSN", "-m", "60", f"{url(cluster, 1)}/v1/events", seconds=60))

        async def has_begun() -> bool:
            return "pfsb_http_streams 1" in (await run(str(CURL), "-sS", f"{url(cluster, 1)}/metrics"))[0]

        await cluster.wait_for("the stream", has_begun, 30)
        await self.change(cluster, first, "apps=kv")
        self.assertEqual(
            await listener.hear(),
            '* ENDED verb=LISTEN next=2 text="the cluster does not run the application chat any more"',
        )
        said, status = await stream
        self.assertIn('event: end\ndata: {"next":2,"text":"the cluster does not run the application chat', said)
        self.assertEqual(status, 0, said)
        self.assertTrue((await first.ask("PUT colour blue")).startswith("OK"))
        self.assertEqual((await self.rows(second, "GET colour"))[-1][:15], 'OK value="blue"')
        self.assertRefused(await second.ask("LISTEN from=1"), "UNKNOWN")
        self.assertRefused(await second.ask("SAY two"), "UNKNOWN")
        self.assertEqual((await self.curl(cluster, 0, "GET", "/v1/chat")).status, 404)
        await self.change(cluster, first, "apps=kv,chat")
        self.assertTrue((await second.ask("LISTEN from=1")).startswith("OK"))
        self.assertTrue((await first.ask("SAY three")).startswith("OK index=1"))
        self.assertIn("three", await second.hear())
        await self.settings_everywhere(cluster)

        async def are_written() -> bool:
            former = [(cluster.data(server_id) / "chat.log.1").read_bytes() for server_id in cluster.ids]
            present = [cluster.chat_log(server_id) for server_id in cluster.ids]
            return all(b'"one"' in each for each in former) and all(b'"three"' in each for each in present)

        # A server writes chat.log a little later than it executes.
        await cluster.wait_for("both files of the chat", are_written, 30)


class StartTests(SettingsCase):
    async def test_file_and_options_count_at_the_birth_only(self) -> None:
        """The configuration file and options count at the birth of the cluster only. Later STATUS names the values that
        differ, and a line of the log tells which value rules."""
        cluster = await self.start_cluster(1)
        self.assertEqual((await cluster.status(0))["settings_differ"], [])
        self.assertEqual(await cluster.terminate(0), 0)
        file = cluster.directory / "cluster.yaml"
        content = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**content, "limits": {"session_window": 64}}))
        cluster.start(0, "--app", "kv")
        await cluster.wait_up()
        status = await cluster.status(0)
        self.assertEqual(status["settings_differ"], ["apps", "session_window"])
        self.assertEqual((status["settings"]["session_window"], status["apps"]), (128, ["chat", "lock", "kv"]))
        log = cluster.log_file(0).read_text()
        for line in (
            "session_window is 64 in this server's configuration; the cluster's settings say 128, and they rule",
            "apps is kv in this server's configuration; the cluster's settings say chat,lock,kv, and they rule",
        ):
            self.assertEqual(log.count(line), 1, line)

    async def test_server_without_an_application_of_the_settings_stops_with_one_line(self) -> None:
        """A server that lacks an application of the settings stops with one line, when it learns of the settings from
        the others, and again when it finds them on its disk."""
        cluster = self.make_cluster(4, apps=["kv", "counter"])
        folder = self.plugin_folder()
        self.look_for_plugins_in(folder)
        for server_id in (0, 1, 3):
            cluster.start(server_id)
        await cluster.wait_up()
        await cluster.wait_admitted()  # so that the others are able to go on without server 2
        told = "the settings of the cluster ask for counter version 1, which this server does not have"

        self.look_for_plugins_in()
        cluster.start(2, "--app", "kv")
        self.assertEqual(await cluster.ended(2, 60), 3)
        self.assertStoppedWith(cluster, 2, told)

        visitor = await self.visit(cluster, 0)
        self.assertEqual(await visitor.ask("COUNT"), "OK count=1")

        self.assertEqual(await cluster.terminate(1), 0)
        cluster.log_file(1).unlink()
        cluster.start(1, "--app", "kv")
        self.assertEqual(await cluster.ended(1, 60), 3)
        self.assertStoppedWith(cluster, 1, told)

        self.look_for_plugins_in(folder)
        cluster.start(2)
        await cluster.wait_up([2])
        await cluster.wait_leader()
        visitor = await self.visit(cluster, 2)
        self.assertEqual(await visitor.ask("COUNT"), "OK count=2")
