"""`pfsb init`, and the configuration that is used when none is named."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import click
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pfsb.commands import cluster, init, status
from pfsb.config.config import load
from pfsb.config.sample import SERVERS_MAX, sample_configuration
from pfsb.support.command_line import parse


class InitTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Go to an empty directory, since the configuration is looked for in the current one."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def init(self, *words: str) -> None:
        options: init.Options = parse(init.command, words)
        self.successResultOf(Deferred.fromCoroutine(init.run(None, options)))

    def test_every_size_is_a_configuration_that_servers_load(self) -> None:
        """For every number of servers, the configuration that is written can be loaded; its ports are different, and
        its name and storage are as asked for."""
        for servers in range(1, SERVERS_MAX + 1):
            file = self.directory / f"{servers}.yaml"
            file.write_text(sample_configuration(servers, "some", file.name))
            config = load(file)
            self.assertEqual((config.n, config.cluster, config.storage), (servers, "some", "var/some"))
            ports = [str(port) for server in config.servers.values() for port in server.endpoints.values()]
            self.assertEqual(len(set(ports)), 2 * servers)

    def test_file_is_written_to_a_new_directory_with_what_to_type_next(self) -> None:
        """The file is written to a new directory, and the commands that are shown next begin by entering the
        directory."""
        self.init("there/new", "--servers", "3", "--cluster", "lab")
        self.assertEqual(load("there/new/pfsb.yaml").ids, (0, 1, 2))
        self.assertIn("wrote there/new/pfsb.yaml: 3 servers on this machine\n", self.out.getvalue())
        self.assertIn("  cd there/new && pfsb cluster ", self.out.getvalue())

    def test_file_that_is_there_is_left_as_it_is(self) -> None:
        """A file that is there is left as it is, and the error says what can be done."""
        Path("pfsb.yaml").write_text("mine")
        error = self.assertRaises(click.UsageError, self.init)
        self.assertIn("pfsb.yaml is there already", str(error))
        self.assertEqual(Path("pfsb.yaml").read_text(), "mine")

    def test_wrong_name_of_a_cluster_leaves_no_file(self) -> None:
        """A wrong name of a cluster leaves no file; the error is that of the configuration, with exit status 1."""
        running = Deferred.fromCoroutine(init.run(None, parse(init.command, ["--cluster", "'"])))
        self.assertEqual(self.failureResultOf(running, SystemExit).value.code, 1)
        self.assertTrue(self.err.getvalue().startswith("pfsb init: "))
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_configuration_of_the_current_directory_needs_no_name(self) -> None:
        """After `pfsb init`, commands such as `pfsb status` use the configuration in the current directory without its
        name."""
        self.init("--servers", "1")
        self.assertEqual(parse(status.command, []).config.n, 1)

    def test_cluster_without_a_configuration_writes_one(self) -> None:
        """`pfsb cluster` without a configuration writes one and says so; the next time it uses this one."""
        options: cluster.Options = parse(cluster.command, [])
        self.assertEqual((options.config.n, str(options.config.file)), (4, "pfsb.yaml"))
        self.assertIn("no configuration was named; wrote pfsb.yaml, with 4 servers\n", self.out.getvalue())
        self.assertEqual(parse(cluster.command, []).config.ids, options.config.ids)
        self.assertEqual(self.out.getvalue().count("wrote"), 1)
