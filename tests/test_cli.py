"""The `pfsb` command itself: its help, and what it says about command lines that are wrong."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import click
from twisted.trial.unittest import SynchronousTestCase

from pfsb import __version__, cli
from pfsb.support.command_line import parse
from tests.long import long


def subcommands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli.program, **cli.program.context_settings)
    for name in cli.program.list_commands(context):
        command = cli.program.get_command(context, name)
        assert command is not None
        yield name, command


class ProgramCase(SynchronousTestCase):
    def pfsb(self, *words: str) -> tuple[int, str, str]:
        """Call `pfsb` with these arguments. Returns exit status, standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            end = self.assertRaises(SystemExit, cli.main, words)
        return int(end.code or 0), out.getvalue(), err.getvalue()


class HelpTests(ProgramCase):
    def test_help_names_every_command_under_its_heading(self) -> None:
        """Help lists every command below its heading; -h does as --help. Help imports no module of a command, so that
        it is quick."""
        status, text, _ = self.pfsb("-h")
        self.assertEqual((status, self.pfsb("--help")[1]), (0, text))
        for heading in ("Run a cluster:", "Ask a cluster:", "Data of a stopped server:", "Look for bugs in pfsb:"):
            self.assertIn(f"\n{heading}\n", text)
        for name, _command in subcommands():
            self.assertRegex(text, rf"\n  {name} +[A-Z].*\.\n")

    @long
    def test_help_imports_no_command(self) -> None:
        """Help imports neither Twisted nor prompt_toolkit, whose imports take longer than all the rest."""
        code = (
            "import contextlib, sys\nfrom pfsb import cli\nwith contextlib.suppress(SystemExit): cli.main(['--help'])\n"
            "print([name for name in sys.modules if name.startswith(('twisted', 'prompt_toolkit', 'pfsb.commands'))])"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        self.assertEqual(said.splitlines()[-1], "[]")

    def test_every_command_explains_itself_and_its_options(self) -> None:
        """Each text fits into 80 columns, each option has a sentence, and -h and --version are known everywhere."""
        for name, command in subcommands():
            status, text, _ = self.pfsb(name, "-h")
            self.assertEqual((status, text.partition("\n")[0][:12]), (0, "Usage: pfsb "), name)
            self.assertLessEqual(max(map(len, text.splitlines())), 80, name)
            for param in command.params:
                if isinstance(param, click.Option):
                    self.assertRegex(param.help or "", r"(?s)^[A-Z].*\.$", (name, param.opts))
            self.assertEqual(self.pfsb(name, "--version")[:2], (0, f"pfsb {__version__}\n"))

    def test_version_is_that_of_pfsb(self) -> None:
        """`pfsb --version` tells the version of pfsb, and not that of a library."""
        self.assertEqual(self.pfsb("--version")[:2], (0, f"pfsb {__version__}\n"))


class MistakeTests(ProgramCase):
    def test_wrong_command_line_is_one_line_and_exit_status_2(self) -> None:
        """The line says what would be right: the nearest command or option, or the values that are taken."""
        for words, text in (
            ([], "pfsb: a command is missing; pfsb --help shows all\n"),
            (["clinet"], 'pfsb: there is no command clinet; did you mean "client"?\n'),
            (["--versoin"], 'pfsb: there is no option --versoin; did you mean "--version"?\n'),
            (["simulate", "--sed", "7"], 'pfsb: there is no option --sed; did you mean "--seed"?\n'),
            (["simulate", "--seed", "x"], "pfsb: --seed takes a whole number from 0 to 1000000000, not x\n"),
            (["simulate", "--jobs=999"], "pfsb: --jobs takes a whole number from 0 to 256, not 999\n"),
            (["fuzz", "--for", "0"], "pfsb: --for takes seconds, more than 0 (example: 2.5), not 0\n"),
            (["fuzz", "--for", "nan"], "pfsb: --for takes seconds, more than 0 (example: 2.5), not nan\n"),
            (["fuzz", "--for"], "pfsb: option '--for' requires an argument\n"),
            (["fuzz", "more"], "pfsb: got unexpected extra argument (more)\n"),
            (["explore", "--zzz"], "pfsb: there is no option --zzz; pfsb explore --help shows all\n"),
            (["log"], "pfsb: one data directory is needed (example: pfsb log var/four/2)\n"),
            (["status", "a", "b"], "pfsb: "),
        ):
            status, out, err = self.pfsb(*words)
            self.assertEqual((status, out, len(err.splitlines())), (2, "", 1), words)
            self.assertIn(text, err)

    def test_missing_configuration_is_told_with_both_ways_out(self) -> None:
        """The error for a missing configuration says both ways out: name a file, or have one written."""
        for name in ("client", "status", "why", "check", "bench"):
            status, _, err = self.pfsb(name)
            self.assertEqual(status, 2, name)
            self.assertIn("a configuration file is missing, for example etc/four.yaml", err)
            self.assertIn("pfsb init", err)


class CompletionTests(SynchronousTestCase):
    def complete(self, *words: str) -> list[str]:
        """The words that `pfsb` offers a shell as completions of the last word."""
        from click.shell_completion import ShellComplete

        *before, last = words
        shell = ShellComplete(cli.program, {}, "pfsb", "_PFSB_COMPLETE")
        return [item.value for item in shell.get_completions(list(before), last)]

    def test_shells_complete_commands_options_and_values(self) -> None:
        """_PFSB_COMPLETE=bash_source pfsb prints what bash needs for it; likewise zsh and fish."""
        self.assertEqual(self.complete("s"), ["secret", "status", "servers", "settings", "snapshot", "simulate"])
        self.assertEqual(self.complete("client", "--ti"), ["--timeout"])
        self.assertEqual(self.complete("cluster", "--log-format", ""), ["text", "json"])
        self.assertEqual(self.complete("client", "four.yaml", "--ba"), ["--batch"])


class ParseTests(SynchronousTestCase):
    def test_group_needs_a_command(self) -> None:
        """`pfsb` without a command is an error, since it does nothing."""
        self.assertRaises(click.UsageError, parse, cli.program, [])
