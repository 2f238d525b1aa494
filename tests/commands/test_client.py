"""`pfsb client`, `pfsb status`, `pfsb check` and `pfsb` itself, against fake servers."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import click
from twisted.trial.unittest import SynchronousTestCase

from pfsb import cli
from pfsb.applications.interfaces import Refused
from pfsb.client.core.timeouts import RESPONSE_SECONDS
from pfsb.client.servers import server_addresses
from pfsb.commands import check, status
from pfsb.commands.client import Options, command, one_line, run_batch, run_lines, run_one
from pfsb.commands.exit_status import ExitStatus
from pfsb.config.config import ConfigError, load
from pfsb.support.command_line import parse
from tests.client.cluster import LoopbackTestCase, reactor


def config_file(path: str, clients: list[str]) -> str:
    servers = "".join(
        f'  {i}: {{peer: "127.0.0.1:{7400 + i}", client: "{client}"}}\n' for i, client in enumerate(clients)
    )
    with open(path, "w") as file:
        file.write(f"cluster: four\nservers:\n{servers}")
    return path


async def lines(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield f"{text}\n"


class ToolTestCase(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.out, self.err = io.StringIO(), io.StringIO()
        ports = [member.port.getHost().port for member in self.cluster.members]
        self.file = config_file(self.mktemp(), [f"tcp:{port}:interface=127.0.0.1" for port in ports])

    def options(self, *arguments: str) -> Options:
        options: Options = parse(command, [self.file, *arguments])
        return options

    async def one(self, *arguments: str) -> ExitStatus:
        options = self.options(*arguments)
        return await run_one(reactor, options, one_line(options.words), self.out, self.err)


class OneCommandTests(ToolTestCase):
    async def test_reply_is_printed_without_number(self) -> None:
        self.assertIs(await self.one("PUT", "a", "1"), ExitStatus.OK)
        self.assertEqual(self.out.getvalue(), "OK revision=2\n")

    async def test_rows_are_printed_before_the_reply(self) -> None:
        await self.one("MPUT", "a", "two words", "b", "2")
        self.out.truncate(0)
        self.assertIs(await self.one("MGET", "a", "b"), ExitStatus.OK)
        self.assertIn('+key="a" value="two words"', self.out.getvalue())

    async def test_refusal_is_printed_and_no_success(self) -> None:
        self.assertIs(await self.one("GET", "nothing"), ExitStatus.REFUSED)
        self.assertIn("ERR NOTFOUND", self.out.getvalue())

    async def test_question_about_one_server_is_not_asked_of_another(self) -> None:
        await self.cluster.members[1].crash()
        self.assertIs(await self.one("--timeout", "0.3", "--id", "1", "STATUS"), ExitStatus.UNREACHABLE)
        self.assertIn("server 1 (127.0.0.1:", self.err.getvalue())

    async def test_command_goes_on_at_another_server(self) -> None:
        await self.cluster.members[1].crash()
        self.assertIs(await self.one("--id", "1", "PUT", "a", "1"), ExitStatus.OK)

    async def test_unreachable_cluster_is_told_with_the_reason(self) -> None:
        for member in self.cluster.members:
            await member.crash()
        began = reactor.seconds()
        self.assertIs(await self.one("PUT", "a", "1"), ExitStatus.UNREACHABLE)
        self.assertLess(reactor.seconds() - began, 5, "at once, and not after the time limit of 30 s")
        shown = ", ".join(f"{address.id} ({address.shown})" for address in self.cluster.addresses)
        self.assertEqual(
            self.err.getvalue(),
            f"pfsb client: PUT a 1: no server can be reached: servers {shown}: connection refused; "
            "fate=none: it did not happen\n",
        )

    async def test_time_limit_that_is_given_is_waited_for(self) -> None:
        """With a time limit the client waits for servers that may be about to start; the operator is told at once that
        none can be reached."""
        for member in self.cluster.members:
            await member.crash()
        self.assertIs(await self.one("--timeout", "0.3", "PUT", "a", "1"), ExitStatus.UNREACHABLE)
        told, ended = self.err.getvalue().splitlines()
        self.assertIn("no server can be reached: servers 0 (", told)
        self.assertTrue(told.endswith("trying again"))
        self.assertIn("no answer within 0.3 s; no server can be reached; servers 0 (", ended)
        self.assertTrue(ended.endswith("fate=none: it did not happen"), ended)

    async def test_missing_majority_is_told_with_the_servers_that_are_up(self) -> None:
        """Without a majority, the client names the servers that are up and the fate of the command, and does not blame
        the server that was tried last."""
        await self.cluster.members[1].crash()
        await self.cluster.members[2].crash()
        self.cluster.members[0].server.local_clients.refuse = Refused("UNAVAILABLE", "no majority", "unknown")
        self.assertIs(await self.one("--timeout", "0.5", "PUT", "a", "1"), ExitStatus.UNAVAILABLE)
        told = self.err.getvalue()
        self.assertIn("no answer within 0.5 s; 1 of 3 servers up (0), 2 needed; servers 1 (127.0.0.1:", told)
        self.assertIn("): connection refused; fate=", told)

    async def test_lock_that_was_waited_for_in_vain_waits_no_more(self) -> None:
        """A LOCK that was waited for in vain is given up: a server gets the client's BYE before the process may end.
        Otherwise the lock would be granted to a client that is gone."""
        await self.client().command("LOCK x")
        self.assertIs(await self.one("--timeout", "0.3", "LOCK", "x"), ExitStatus.UNAVAILABLE)
        calls = [
            call
            for member in self.cluster.members
            for each in member.server.local_clients.connections
            for call in each.calls
        ]
        self.assertEqual(calls.count("bye"), 1)

    async def test_reply_is_shown_as_json(self) -> None:
        """With --json the client prints one line of JSON for each command, for scripts."""
        await self.one("PUT", "a", "1")
        self.out.truncate(0)
        self.out.seek(0)
        for words in (("GET", "a"), ("MGET", "a", "b"), ("GET", "nothing")):
            await self.one("--json", *words)
        found, several, missing = map(json.loads, self.out.getvalue().splitlines())
        self.assertEqual(found, {"ok": True, "value": "1", "revision": 2, "rows": []})
        self.assertEqual(several["rows"], [{"key": "a", "value": "1", "revision": 2}])
        self.assertEqual((missing["ok"], missing["error"], missing["fate"]), (False, "NOTFOUND", "none"))
        self.out.truncate(0)
        self.out.seek(0)
        await self.one("PUT", "bytes", r'"\udcff\u0000\u00e9"')
        await self.one("--json", "GET", "bytes")
        text = self.out.getvalue().splitlines()[1]
        self.assertEqual(json.loads(text.encode())["value"], "\udcff\0é", "what is printed is UTF-8")
        for member in self.cluster.members:
            await member.crash()
        self.out.truncate(0)
        self.out.seek(0)
        self.assertIs(await self.one("--json", "GET", "a"), ExitStatus.UNREACHABLE)
        self.assertEqual(json.loads(self.out.getvalue())["error"], "UNREACHABLE")


class PipeTests(ToolTestCase):
    async def run_all(self, *texts: str) -> ExitStatus:
        return await run_lines(reactor, self.options(), lines(*texts), self.out, self.err)

    async def test_replies_come_in_the_order_of_the_lines(self) -> None:
        self.assertIs(await self.run_all(*[f"PUT a {n}" for n in range(200)], "", "GET a"), ExitStatus.OK)
        said = self.out.getvalue().splitlines()
        self.assertEqual((len(said), said[0], said[-1]), (201, "OK revision=2", 'OK value="199" revision=201'))

    async def test_line_that_cannot_be_sent_is_told_and_the_rest_goes_on(self) -> None:
        self.assertIs(await self.run_all("#5 PUT a 1", "HELLO bob", "PUT a 2"), ExitStatus.REFUSED)
        self.assertEqual(len(self.err.getvalue().splitlines()), 2)
        self.assertEqual(self.out.getvalue(), "OK revision=2\n")

    async def test_next_line_waits_for_a_lock(self) -> None:
        holder = self.client()
        await holder.command("LOCK x")
        waiting: Any = self.run_all("LOCK x", "PUT a 1")
        from twisted.internet.defer import Deferred

        done = Deferred.fromCoroutine(waiting)
        await self.until(lambda: self.cluster.shared.waiting)
        await holder.command("UNLOCK x")
        self.assertIs(await done, ExitStatus.OK)
        self.assertEqual([command[0] for _, _, command in self.cluster.shared.executed][-2:], ["UNLOCK", "PUT"])

    async def test_quit_ends_it(self) -> None:
        self.assertIs(await self.run_all("PUT a 1", "QUIT", "PUT a 2"), ExitStatus.OK)
        self.assertEqual(len(self.cluster.shared.executed), 1)


class BatchTests(ToolTestCase):
    async def batch(self, *arguments: str) -> ExitStatus:
        return await run_batch(reactor, self.options(*arguments), self.out, self.err)

    async def test_all_requests_are_acknowledged_and_recorded(self) -> None:
        record = self.mktemp()
        self.assertIs(await self.batch("--batch", "50", "--clients", "5", "--record", record), ExitStatus.OK)
        self.assertIn("acknowledged  50 of 50", self.out.getvalue())
        with open(record) as file:
            entries = [json.loads(line) for line in file]
        said = {command[1] for _, _, command in self.cluster.shared.executed}
        self.assertEqual({entry["line"].removeprefix("SAY ") for entry in entries}, said)
        self.assertEqual(sorted(entry["number"] for entry in entries), list(range(1, 51)))
        self.assertTrue(all(entry["t0"] <= entry["t1"] and entry["reply"].startswith("OK index=") for entry in entries))

    async def test_clients_are_spread_over_the_servers(self) -> None:
        await self.batch("--batch", "9", "--clients", "3")
        self.assertEqual([len(member.server.local_clients.connections) for member in self.cluster.members], [1, 1, 1])

    async def test_clients_begin_at_the_server_that_is_named(self) -> None:
        await self.batch("--batch", "9", "--clients", "3", "--id", "2")
        self.assertEqual([len(member.server.local_clients.connections) for member in self.cluster.members], [0, 0, 3])

    async def test_crash_of_a_server_loses_nothing(self) -> None:
        shared = self.cluster.shared
        reactor.callLater(0.02, self.cluster.members[0].crash)
        self.assertIs(
            await self.batch("--batch", "600", "--clients", "6", "--command", "SAY {client} {n}"), ExitStatus.OK
        )
        self.assertEqual(len({command[1] for _, _, command in shared.executed}), 600)
        self.assertEqual(len(shared.executed), 600)

    async def test_errors_are_counted_and_no_success(self) -> None:
        self.assertIs(
            await self.batch("--batch", "4", "--clients", "2", "--command", "GET nothing{n}"), ExitStatus.REFUSED
        )
        self.assertIn("4 NOTFOUND", self.out.getvalue())

    async def test_batch_without_answers_is_given_up(self) -> None:
        for member in self.cluster.members:
            member.server.local_clients.refuse = Refused("UNAVAILABLE", "no majority", "unknown")
        self.assertIs(await self.batch("--batch", "4", "--timeout", "0.3"), ExitStatus.UNAVAILABLE)
        self.assertIn("acknowledged  0 of 4", self.out.getvalue())
        self.assertIn("UNAVAILABLE", self.err.getvalue())

    async def test_batch_tells_at_once_that_no_server_can_be_reached(self) -> None:
        """A batch that can reach no server says so once, at once, and not for each client; servers that come within the
        time limit are used."""
        for member in self.cluster.members:
            await member.crash()
        self.assertIs(await self.batch("--batch", "4", "--timeout", "0.3"), ExitStatus.UNREACHABLE)
        told, ended = self.err.getvalue().splitlines()
        self.assertIn("no server can be reached: servers ", told)
        self.assertTrue(told.endswith("; trying again"))
        self.assertTrue(ended.endswith("no server can be reached"), ended)


class StatusTests(ToolTestCase):
    async def show(self) -> bool:
        return await status.show_status(reactor, self.options().addresses, self.out)

    async def test_every_server_has_its_line(self) -> None:
        self.assertIs(await self.show(), True)
        names, *rows, summary = self.out.getvalue().splitlines()
        self.assertTrue(names.startswith("id  address"))
        self.assertEqual([row.split()[0] for row in rows], ["0", "1", "2"])
        self.assertEqual(names.index("state"), rows[0].index("REG_NONLEADER"))
        leader = self.cluster.members[0].server.leader_id
        self.assertEqual(summary, f"leads: {leader}, 3 of 3 up, tolerates 1 more")

    async def test_archive_has_a_line_of_its_own(self) -> None:
        """`pfsb status` shows an archive in a line of its own, with the reason if it takes no files; servers without an
        archive have none."""
        archive = {"directory": "arc/2/6f1c", "bytes": 5_000, "slot": 800, "waiting": 0, "error": None}
        told: dict[int, dict[str, Any]] = {0: {"archive": None}, 1: {}, 2: {"archive": archive}}
        self.assertEqual(status.archives(told), "archive of server 2: 5000 bytes, slots up to 800, in arc/2/6f1c\n")
        archive |= {"waiting": 3, "error": "arc: Permission denied"}
        second = status.archives(told).splitlines()[1]
        self.assertEqual(second, "archive of server 2 takes no files, 3 wait: arc: Permission denied")

    async def test_everything_is_shown_as_json(self) -> None:
        """`pfsb status --json` prints one object: the summary, and for each server its STATUS, or why there is none."""
        await self.cluster.members[1].crash()
        self.assertIs(await status.show_status(reactor, self.options().addresses, self.out, as_json=True), True)
        found = json.loads(self.out.getvalue())
        self.assertEqual((found["up"], found["down"], found["quorum"], found["tolerates_more"]), ([0, 2], [1], 2, 0))
        self.assertEqual(found["servers"]["1"], {"error": "connection refused"})
        self.assertEqual(found["servers"]["2"]["server"], 2)

    async def test_unreachable_server_is_shown_as_such(self) -> None:
        await self.cluster.members[1].crash()
        self.assertIs(await self.show(), True)
        self.assertIn("unreachable: Connection was refused", self.out.getvalue().splitlines()[2])

    async def test_no_majority_is_no_success(self) -> None:
        await self.cluster.members[1].crash()
        await self.cluster.members[2].crash()
        self.assertIs(await self.show(), False)
        self.assertIn("leads: none, 1 of 3 servers up (0), 2 needed\n", self.out.getvalue())


class CommandLineTests(SynchronousTestCase):
    def test_words_of_the_shell_are_quoted_where_needed(self) -> None:
        for words, line in (
            (["put", "a", "1"], "PUT a 1"),
            (["PUT", "a", "two words"], 'PUT a "two words"'),
            (["PUT", "a", ""], 'PUT a ""'),
            (["PUT", "a", '"already quoted"'], 'PUT a "already quoted"'),
            (["PUT", "a", 'it"s'], 'PUT a "it\\"s"'),
            (["SAY", "hello", "world"], 'SAY "hello world"'),
            (["PUT a 1"], "PUT a 1"),
        ):
            self.assertEqual(one_line(words), line)

    def parse(self, *arguments: str) -> Options:
        options: Options = parse(command, arguments)
        return options

    def test_options_may_stand_before_and_after_the_file(self) -> None:
        file = config_file(self.mktemp(), ["tcp:9400", "tcp:9401", "tcp:9402"])
        for arguments in (["--id", "1", file, "PUT", "a", "-1"], [file, "--id", "1", "PUT", "a", "-1"]):
            options = self.parse(*arguments)
            self.assertEqual((options.server_id, options.words), (1, ("PUT", "a", "-1")))

    def test_wrong_command_lines_are_refused_with_a_sentence(self) -> None:
        file = config_file(self.mktemp(), ["tcp:9400", "tcp:9401", "tcp:9402"])
        for arguments in (
            [],
            ["/does/not/exist"],
            [file, "--id", "7"],
            [file, "--batch", "0"],
            [file, "--batch", "x"],
            [file, "--batch", "3", "PUT", "a", "1"],
            [file, "--record", "x"],
            [file, "--timeout", "0"],
            [file, "#1", "PUT", "a", "1"],
            [file, "HELLO", "bob"],
        ):
            with self.assertRaises(click.UsageError):
                self.parse(*arguments)

    def test_command_in_place_of_the_configuration_is_told_where_that_stands(self) -> None:
        """If a command stands where the configuration should be, the error says so: without COMMAND the configuration
        may be left out, with a COMMAND it may not."""
        with self.assertRaises(click.UsageError) as caught:
            self.parse("--json", "GET", "a")
        self.assertIn("the configuration stands before the command, for example pfsb client", str(caught.exception))

    def test_addresses_follow_the_endpoints(self) -> None:
        """The client connects to the interface of a server's endpoint, or, if it names none, to the host that the other
        servers use."""
        clients = ["tcp:9400", "tcp:port=9401:interface=127.0.0.2", "tcp:9402:interface=0.0.0.0", "unix:/tmp/s"]
        addresses = server_addresses(load(config_file(self.mktemp(), clients)))
        self.assertEqual(
            [address.shown for address in addresses], ["127.0.0.1:9400", "127.0.0.2:9401", "127.0.0.1:9402", "/tmp/s"]
        )
        self.assertEqual(addresses[1].endpoint, "tcp:host=127.0.0.2:port=9401:timeout=1")

    def test_ipv6_interface_keeps_its_colons(self) -> None:
        (address,) = server_addresses(load(config_file(self.mktemp(), ["tcp6:9400:interface=\\\\:\\\\:1"])))
        self.assertEqual((address.shown, address.endpoint), ("[::1]:9400", "tcp:host=\\:\\:1:port=9400:timeout=1"))

    def test_endpoint_that_a_client_cannot_reach_is_refused(self) -> None:
        with self.assertRaises(ConfigError):
            server_addresses(load(config_file(self.mktemp(), ["systemd:domain=INET:index=0"])))

    def test_check_says_what_the_file_means(self) -> None:
        file = config_file(self.mktemp(), ["tcp:9400", "tcp:9401", "tcp:9402"])
        self.assertIn("3 servers, 2 are a majority, 1 may fail", check.summary(load(file)))

    def test_every_command_says_what_it_is_for(self) -> None:
        text = cli.program.get_help(click.Context(cli.program, **cli.program.context_settings))
        for name in ("cluster", "client", "status", "check", "demo"):
            self.assertIn(name, text)

    def test_command_without_name_is_refused(self) -> None:
        with self.assertRaises(click.UsageError):
            parse(cli.program, [])

    def test_patience_is_shorter_than_a_servers(self) -> None:
        """The client waits for a shorter time than `request_seconds` before it tries another server: otherwise it would
        always wait for the answer UNAVAILABLE."""
        file = config_file(self.mktemp(), ["tcp:9400"])
        self.assertLess(RESPONSE_SECONDS, load(file).limits.request_seconds)
