"""The command line of `pfsb demo`, and the configuration that a demo writes."""

from __future__ import annotations

import socket
from pathlib import Path
from random import Random

import click
from twisted.trial.unittest import SynchronousTestCase

from pfsb.demo.processes import PORTS, free_ports, write_config
from pfsb.demo.tool import Options, command
from pfsb.support.command_line import parse


class OptionsTests(SynchronousTestCase):
    def options(self, *arguments: str) -> Options:
        options: Options = parse(command, arguments)
        return options

    def test_scenario_comes_before_or_after_the_options(self) -> None:
        """The scenario may stand before or behind the options; docs/operating.rst puts it first."""
        for order in (["hole", "--out", "d", "--lines", "500"], ["--out", "d", "--lines", "500", "hole"]):
            options = self.options(*order)
            self.assertEqual(
                (options.scenario and options.scenario.name, str(options.out), options.lines), ("hole", "d", 500)
            )

    def test_list_needs_nothing_else(self) -> None:
        """The option --list needs neither a scenario nor a directory."""
        self.assertIsNone(self.options("--list").scenario)

    def test_error_of_a_wrong_command_line_says_what_would_be_right(self) -> None:
        """The error for a wrong command line names the known scenarios, or gives an example."""
        full = Path(self.mktemp())
        full.mkdir()
        (full / "file").touch()
        for arguments, told in (
            ([], "name one scenario: normal, primary-dies, succession, recovery, hole"),
            (["norml", "--out", "d"], "there is no scenario norml; known are normal,"),
            (["normal"], "example: pfsb demo normal --out"),
            (["normal", "--out", str(full)], "name a directory that is new or empty"),
        ):
            self.assertIn(told, str(self.assertRaises(click.UsageError, self.options, *arguments)))


class ConfigTests(SynchronousTestCase):
    def test_ports_are_different_and_free_and_below_those_of_outgoing_connections(self) -> None:
        """The ports of a demo are different, free, and below those of outgoing connections. A port that is taken for
        UDP or for TCP is not chosen."""
        dice = Random(1)
        [taken] = free_ports(1, dice)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
            taker.bind(("127.0.0.1", taken))
            self.assertNotEqual(free_ports(1, Random(1)), [taken])
        found = free_ports(10, dice)
        self.assertEqual(len(set(found)), 10)
        self.assertTrue(all(port in PORTS for port in found))

    def test_configuration_takes_changes(self) -> None:
        """The configuration that a demo writes, with its changes, can be loaded as servers load it."""
        path = Path(self.mktemp())
        config = write_config(path, 5, Random(2), faults=True)
        self.assertEqual((config.ids, config.f, config.faults), ((0, 1, 2, 3, 4), 2, True))
