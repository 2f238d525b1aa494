"""The command line of `pfsb bench`, and the settings of the servers that it starts."""

from __future__ import annotations

from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from pfsb.bench.probe import Probe
from pfsb.bench.tool import Options, changes_for, command
from pfsb.config.config import load
from pfsb.support.command_line import parse
from pfsb.support.rights import Right
from pfsb.support.tokens import make_token

CONFIG = """
cluster: mine
servers: {0: {peer: "127.0.0.1:20001", client: "tcp:20002:interface=127.0.0.1"}}
storage: var/mine
window: 3
secret_file: mine.secret
"""


class OptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.write_text(CONFIG)

    def options(self, *arguments: str) -> Options:
        options: Options = parse(command, [str(self.file), *arguments])
        return options

    def test_several_numbers_of_connections_are_several_workloads(self) -> None:
        """Several numbers of connections give several workloads, all of the same depth."""
        workloads = self.options("--connections", "1,16", "--depth", "4", "--keys", "9").workloads
        self.assertEqual([(w.connections, w.depth, w.keys) for w in workloads], [(1, 4, 9), (16, 4, 9)])

    def test_several_rates_are_open_loops_one_after_the_other(self) -> None:
        """Several rates give open loops one after the other, with equal connections; without a rate the loop is
        closed."""
        workloads = self.options("--connections", "16", "--rate", "500,9000").workloads
        self.assertEqual([(w.connections, w.rate) for w in workloads], [(16, 500), (16, 9000)])
        self.assertEqual(self.options().workloads[0].rate, 0)

    def test_token_of_a_file_goes_to_the_servers(self) -> None:
        token, file = make_token("alice", Right.WRITE, log2_n=4)[0], Path(self.mktemp())
        file.write_text(token)
        file.chmod(0o600)
        self.assertEqual(Probe.of(self.options("--token-file", str(file)).addresses).token, token)

    def test_error_of_a_wrong_command_line_says_what_would_be_right(self) -> None:
        """A wrong command line is refused before servers are started, with a text that says what would be right."""
        for arguments, told in (
            (["--mix", "pt"], "known are put, get"),
            (["--mix", "lock", "--depth", "2"], "needs --depth 1"),
            (["--connections", "0"], "from 1 to"),
            (["--rate", "-5"], "--rate: -5 is not from 1 to"),
            (["--read", "dirty"], "linearizable, sequential, stale"),
            (["--client", "rust"], "auto, c, python"),
            (["--to", "3"], "leader, all or an id"),
            (["--directory", "nowhere/at/all"], "is no directory"),
        ):
            self.assertIn(told, str(self.assertRaises(click.UsageError, self.options, *arguments)))

    def test_started_servers_have_the_settings_but_neither_ports_nor_storage(self) -> None:
        """Started servers have the settings of the configuration, but ports and storage of their own; the path of the
        secret is absolute, since they run in another directory."""
        changes = changes_for(load(self.file))
        self.assertEqual((changes["window"], changes["cluster"]), (3, "mine"))
        self.assertTrue(Path(changes["secret_file"]).is_absolute())
        self.assertEqual({"servers", "storage"} & set(changes), set())
